"""A worker: one pinned process that turns its roles until somebody tells it to stop.

The supervisor builds every worker's agents and compiles or loads its loop, then forks: 2 to 5 ms to
the first poll, where a fresh interpreter takes a second. The child gives itself a process group of
its own (Ctrl-C at the supervisor's terminal is the supervisor's to answer), asks the kernel for
SIGTERM when its parent dies, pins itself, takes the locks of its roles, says ready, and turns.

SIGTERM and SIGINT are noticed within a slice and a sleep (1 to 6 ms) although it spins in compiled
code; the process is gone after 10 to 80 ms on two loaded cpus, most of it the kernel taking down
its mappings. It leaves at once; that the rings are empty before is the supervisor's business. When
the supervisor was killed, the workers clear the venue away themselves (`remains`).

The publisher is no compiled loop: it calls ZMQ, so it polls from Python. A worker is forked, so it
never returns into the supervisor's code: `live` ends in os._exit. Comes after `compositions`.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from affinity.pin import pin
from hftcore.accounts.gate import gate_of
from hftcore.accounts.known_orders import touch_heads
from hftcore.engine.matcher import Matcher, matcher_of
from hftcore.engine.reporter import reporter_of
from hftcore.engine.sequencer import sequencer_of
from hftcore.marketdata.feed_protocol import FeedInstrument
from hftcore.marketdata.feed_server import FeedServer
from hftcore.ops import compositions, remains
from hftcore.ops.compositions import RUNNING, STOPPED, Loop, renew_clock, tell_state, turn
from hftcore.ops.config import VenueConfig
from hftcore.ops.logs import Log
from hftcore.ops.memory import PUBLISHER, REPORTER, SETTLEMENT, VenueMemory
from hftcore.ops.placement import WorkerPlan
from hftcore.ops.preflight import endpoints_of
from hftcore.ops.venue_file import role_lock
from hftcore.ops.venue_gateway import FIRST_EPOCH
from ipc.liveness import RoleLock, hold
from ipc.mapping import populate
from ipc.signals import Signal

_PR_SET_PDEATHSIG = 1
TIME_INTERVAL_NS = 1_000_000_000
"""Between two time commands when nothing else moves the log's clock."""
ENDED, FAILED = 0, 1
"""Exit statuses of a worker: told to stop, or an error that the log has."""


@dataclass(frozen=True)
class Agents:
    """The roles of one worker, built: what `turn` takes; None where it has none."""

    sequencer: Any = None
    matchers: tuple[Matcher, ...] | None = None
    reporter: Any = None


@dataclass(frozen=True)
class Worker:
    """What a worker needs to live, made before the fork.

    Attributes
    ----------
    plan : WorkerPlan
    agents : Agents
    loop : Loop
    memory : VenueMemory
    """

    plan: WorkerPlan
    agents: Agents
    loop: Loop
    memory: VenueMemory

    @property
    def publishes(self) -> bool:
        """Whether it polls from Python: the publisher's sockets are opened in the child."""
        return "publisher" in self.plan.roles


def worker_of(
    plan: WorkerPlan,
    memory: VenueMemory,
    ns_per_tick: float,
    agents: dict[str, Any],
) -> Worker:
    """Give a worker its roles out of those of the whole venue, and compile or load its loop."""
    matchers = tuple(agents[role] for role in plan.roles if role.startswith("matcher-"))
    own = Agents(
        agents["sequencer"] if "sequencer" in plan.roles else None,
        matchers or None,
        agents["reporter"] if "reporter" in plan.roles else None,
    )
    loop = compositions.loop_of(memory, plan, ns_per_tick)
    worker = Worker(plan, own, loop, memory)
    if not worker.publishes:
        length = int(loop.cells[compositions.SLICE_TICKS])
        loop.cells[compositions.SLICE_TICKS] = 0
        _slice(worker)
        loop.cells[compositions.SLICE_TICKS] = length
    return worker


def agents_of(memory: VenueMemory) -> dict[str, Any]:
    """Build every compiled role of a venue over its shared memory."""
    config = memory.config
    shards = range(config.shards)
    commands = memory.commands()
    events = [memory.events(shard) for shard in shards]
    arrays = [memory.shard(shard) for shard in shards]
    agents: dict[str, Any] = {
        f"matcher-{shard}": matcher_of(arrays[shard], commands, events[shard], shard)
        for shard in shards
    }
    matched = [shard.matched for shard in arrays]
    gateways = range(config.gateways)
    sequencer = sequencer_of(
        [memory.ingress(gateway) for gateway in gateways],
        commands,
        events,
        matched,
        gate=gate_of(open_orders_of(config), config.dup_window, allow_replay=config.replay),
        positions=memory.positions(),
        counters=memory.counters("sequencer").words,
        state=memory.state("sequencer"),
        event_reader=SETTLEMENT,
    )
    state = sequencer.state
    state["recorded_time"] = config.replay
    state["interval_ns"] = 0 if config.replay else TIME_INTERVAL_NS
    state["due_ns"] = (1 << 63) - 1  # until the epoch is sequenced
    state["epoch"], state["start_id"] = FIRST_EPOCH, memory.start_id
    agents["sequencer"] = sequencer
    agents["reporter"] = reporter_of(
        commands,
        events,
        matched,
        [memory.reports(gateway) for gateway in gateways],
        command_reader=config.shards,
        event_reader=REPORTER,
        cells=memory.gateways(),
        positions=memory.positions(),
        counters=memory.counters("reporter").words,
        state=memory.state("reporter"),
    )
    return agents


def open_orders_of(config: VenueConfig) -> int:
    """Return how many orders can be open or in flight at once, as the gate must know them."""
    resting = sum(each.order_capacity for each in config.instruments)
    return resting + config.command_slots + config.event_slots * config.shards


def feed_of(memory: VenueMemory, cpus: tuple[int, ...]) -> FeedServer:
    """Open the feed's sockets, in the process that will serve them."""
    config = memory.config
    endpoints = endpoints_of(config, memory.directory)
    return FeedServer(
        [memory.events(shard) for shard in range(config.shards)],
        [memory.matched(shard) for shard in range(config.shards)],
        [FeedInstrument.of(each, number) for number, each in enumerate(config.instruments, 1)],
        publish_endpoints=endpoints["feed"],
        snapshot_endpoint=endpoints["snapshot"][0],
        start_id=memory.start_id,
        epoch=FIRST_EPOCH,
        reader=PUBLISHER,
        positions=memory.positions(),
        counters=memory.counters("publisher").words,
        io_cpus=cpus,
    )


def live(worker: Worker, *, parent: int, ready: Signal, log: Log) -> NoReturn:
    """Live as a worker: the whole life of a forked child.

    Parameters
    ----------
    parent : int
        The supervisor's pid.
    ready : Signal
        Given once everything of this worker runs.
    """
    status = FAILED
    log = log.renamed(worker.plan.name)
    directory = worker.memory.directory
    try:
        stop = _prepare_to_end()
        if os.getppid() == parent:
            _run(worker, stop, parent, ready, log)
        status = ENDED
        if os.getppid() != parent:
            _leave_as_orphan(directory, log)
    except BaseException as error:
        log.failure("worker failed", error)
    finally:
        sys.stderr.flush()
        os._exit(status)


def _run(worker: Worker, stop: list[int], parent: int, ready: Signal, log: Log) -> None:
    plan, loop = worker.plan, worker.loop
    pin(plan.cpus)
    directory = worker.memory.directory
    locks: list[RoleLock] = []
    serving = None
    try:
        locks += [hold(directory, role_lock(role), role) for role in plan.roles]
        serving = feed_of(worker.memory, plan.cpus) if worker.publishes else None
        _touch(worker.memory)
        if worker.agents.sequencer is not None:
            touch_heads(worker.agents.sequencer.gate.known)
        loop.status[0] = os.getpid()
        tell_state(loop, RUNNING)
        ready.give()
        log.write("running", cpus=plan.cpus, strategy=plan.strategy.name.lower(), roles=plan.roles)
        while not stop and os.getppid() == parent:
            loop.status[2] = plan.cpus[0] if len(plan.cpus) == 1 else -1
            _slice(worker, serving)
    finally:
        tell_state(loop, STOPPED)
        if serving is not None:
            serving.close()
        for lock in locks:
            lock.release()
    log.write("stopped", turns=int(loop.status[4]), work=int(loop.status[5]))


def _slice(worker: Worker, serving: Any = None) -> None:
    """Turn for a millisecond or so; come back for signals."""
    renew_clock(worker.loop)
    if serving is not None:
        compositions.turn_service(serving, worker.loop)
    else:
        agents = worker.agents
        turn(agents.sequencer, agents.matchers, agents.reporter, worker.loop)


def _prepare_to_end() -> list[int]:
    """Let signals and the parent's death be noticed; return where they are noted."""
    noted: list[int] = []

    def note(number: int, _frame: Any) -> None:
        noted.append(number)

    signal.set_wakeup_fd(-1)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, note)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM, signal.SIGINT})
    os.setpgid(0, 0)
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    return noted


def _touch(memory: VenueMemory) -> None:
    """Fill this process's page tables: a fork does not copy those of shared mappings."""
    for region in memory:
        if not region.header.sparse:
            populate(region.words)


def _leave_as_orphan(directory: Path, log: Log) -> None:
    """Say that the supervisor is gone, and clear the venue away unless another worker does."""
    log.write("supervisor died", found="its workers leave and clear the venue away")
    removed = remains.clear_dead(directory)
    if removed is not None:
        log.write("cleared away", count=len(removed))


__all__ = ["Agents", "Worker", "agents_of", "live", "worker_of"]
