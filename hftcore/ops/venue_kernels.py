"""Compiled code of a venue: made in a process that is thrown away, loaded in the one that forks.

A compiler leaves some hundred megabytes behind in the process that ran it, and every worker forked
from it would carry its share: 680 MB for a venue that compiled itself against 210 MB for one that
found its kernels on the disk. So a supervisor that starts for the first time since an edit lets a
child compile (30 s), and itself only loads, as every later start does (0.5 s).

Which compositions were compiled in this state of the sources is marked by a file in the cache's
directory, whose name is the hash of the sources. `hft warm` drives the same, for all compositions.
Comes after `compositions`; before `supervisor`, `warm`.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from hftcore.engine.matcher import matcher_of
from hftcore.engine.reporter import reporter_of
from hftcore.engine.sequencer import sequencer_of
from hftcore.errors import VenueRefused
from hftcore.instruments import Instrument
from hftcore.marketdata.feed_protocol import FeedInstrument
from hftcore.marketdata.feed_server import FeedServer
from hftcore.marketdata.l3_book import copied_orders
from hftcore.matching.depth import read_depth
from hftcore.matching.state import allocate, shard_size
from hftcore.messages import GATEWAY_WORDS
from hftcore.ops.compositions import COMPOSITIONS, LOOP_WORDS, Loop, account, turn
from hftcore.ops.logs import Log
from hftcore.ops.memory import STATUS_WORDS, WORKER_STATUS
from hftcore.ops.placement import Placement, WorkerPlan
from hftcore.ops.venue_gateway import tell
from ipc.kernel import CACHE_DIRECTORY
from ipc.liveness import wait_for_exit
from ipc.ring import Ring
from ipc.wait import Strategy, local_bell, new_waiter, wake_each

_PR_SET_PDEATHSIG = 1
_SLOTS = 8
_STEP_S = 0.1


def composition_of(plan: WorkerPlan) -> str | None:
    """Return the name of the compiled loop that a worker needs; None for the publisher's."""
    matchers = sum(role.startswith("matcher-") for role in plan.roles)
    wanted = ("sequencer" in plan.roles, matchers, "reporter" in plan.roles)
    return next((name for name, shape in COMPOSITIONS.items() if shape == wanted), None)


def compile_ahead(placement: Placement, log: Log, check: Callable[[], None]) -> None:
    """Compile what this placement needs in a child, unless that was done before.

    Parameters
    ----------
    check : Callable
        Called while the child works; what it raises ends the child.

    Raises
    ------
    VenueRefused
        When the child fails.
    """
    if CACHE_DIRECTORY is None:
        return
    wanted = [name for plan in placement.workers if (name := composition_of(plan)) is not None]
    if all(_mark_of(name).exists() for name in wanted):
        return
    log.write("compiling", compositions=wanted, why="the first start since the sources changed")
    pid = os.fork()
    if pid == 0:
        _compile(wanted)
    try:
        while not wait_for_exit(pid, _STEP_S):
            check()
    except BaseException:
        os.kill(pid, signal.SIGKILL)
        raise
    finally:
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if status != 0:
        raise VenueRefused(
            "the kernels can't be compiled",
            expected="exit status 0 of the process that compiles",
            found=f"signal {-status}" if status < 0 else f"exit status {status}",
            remedy="its traceback is in the venue's output.log; `hft warm` compiles by itself",
        )
    mark_compiled(wanted)


def mark_compiled(names: Iterable[str]) -> None:
    """Note that these compositions are in the cache, so that no start compiles them."""
    for name in names:
        _mark_of(name).touch(mode=0o600)


def _mark_of(name: str) -> Path:
    assert CACHE_DIRECTORY is not None
    return CACHE_DIRECTORY / f"venue-{name.replace(' ', '')}"


def _compile(names: list[str]) -> NoReturn:
    """Be the child that compiles."""
    status = 1
    try:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        for name in names:
            load_composition(name)
        load_feed()
        load_rest()
        status = 0
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(status)


def load_composition(name: str) -> None:
    """Compile or load a worker's loop, with roles in private memory, in a slice of no length."""
    has_sequencer, count, has_reporter = COMPOSITIONS[name]
    commands = Ring.local(_SLOTS)
    shards = [allocate(shard_size([(2, 1)]), each) for each in range(max(count, 1))]
    events = [Ring.local(_SLOTS) for _ in shards]
    matched = [shard.matched for shard in shards]
    sequencer: Any = None
    reporter: Any = None
    if has_sequencer:
        sequencer = sequencer_of([Ring.local(_SLOTS)], commands, events, matched)
    if has_reporter:
        reporter = reporter_of(
            commands, events, matched, [Ring.local(_SLOTS)], command_reader=0, event_reader=0
        )
    matchers = tuple(
        matcher_of(shard, commands, ring, 0) for shard, ring in zip(shards, events, strict=True)
    )
    turn(sequencer, matchers[:count] or None, reporter, _local_loop())


def load_feed() -> None:
    """Compile or load what the publisher runs, on sockets inside this process."""
    shard = allocate(shard_size([(2, 1)]))
    listed = FeedInstrument.of(Instrument("WARM/UP", "1", "1", "100", order_capacity=8), 1)
    ring = Ring.local(_SLOTS)
    with FeedServer(
        [ring],
        [shard.matched],
        [listed],
        publish_endpoints=["inproc://feed"],
        snapshot_endpoint="inproc://snapshot",
        start_id=1,
    ) as server:
        server.run_slice(0)
        copied_orders(server.publisher.books, 1)


def load_rest() -> None:
    """Compile or load what supervisor and tools call outside the loops."""
    cells = np.zeros(GATEWAY_WORDS, np.int64)
    tell(cells, 0, 1)
    wake_each(local_bell(), 1, 0)
    shard = allocate(shard_size([(2, 1)]))
    for array in shard:
        array.flags.writeable = False
    read_depth(shard, 1, np.zeros((2, 1, 3), np.int64))
    account(_local_loop(), 0)


def _local_loop() -> Loop:
    return Loop(
        np.zeros(LOOP_WORDS, np.int64),
        np.ones(1),
        new_waiter(Strategy.SPIN),
        local_bell(),
        local_bell(),
        np.zeros(1, WORKER_STATUS).view(np.int64),
        np.zeros(STATUS_WORDS, np.int64),
    )


__all__ = ["compile_ahead", "load_composition", "load_feed", "load_rest"]
