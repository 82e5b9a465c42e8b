"""The demo's two processes: a driver that sends the flow, a subscriber that rebuilds every book.

    demo --forks--> driver ----shared memory----> venue ----ZMQ----> subscriber
      ^               |                                                 |
      +---------------+------------ `Board`, shared memory -------------+

Both are forked from the demo, so what it has compiled is compiled in them; neither shares anything
with the venue but what any client and any subscriber has. They write what they know onto the
`Board`, which the demo draws, and they end with the demo, whatever becomes of it: a Ctrl-C reaches
the whole process group, so they ignore it and leave when the board says so.

Comes after `flow`, `session`, `marketdata.subscriber`; before `demo`, and the tests that need a
busy venue.

Where the venue's workers sleep, cpus are shared, and then both leave them to the workers: they run
at a lower priority, and the driver sleeps 50 us at a time when nothing is due. A driver that yields
in a loop uses a whole cpu up, and while others compute on the machine it was seen to be served
late, by 50 ms to a second: its latencies were its own.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from affinity.pin import usable_cpus
from hftcore.marketdata.subscriber import Subscriber
from hftcore.ops import flow as flow_agent
from hftcore.ops.flow import COUNTERS, Flow, Origin, flow_of, is_idle
from hftcore.ops.flow_model import model_of
from hftcore.ops.venue_file import VenueRecord
from hftcore.session import Session
from ipc.clock import calibrate, now_ticks
from ipc.counters import Counters
from ipc.histogram import CELL_WORDS, Histogram
from ipc.wait import Strategy, local_bell, new_waiter

STOP_SENDING, DRIVER, FINISH, SUBSCRIBER, UPDATES, GAPS, SENDING_NS = range(7)
"""Cells of the board: what the demo wants, how far each process is, what the subscriber counts."""
CELLS = 16
STARTING, RUNNING, DONE, FAILED = range(4)
"""What DRIVER and SUBSCRIBER show."""
TARGET, REACHED, HASH, RIGHT = range(4)
"""Columns of the board's books: the matcher's feed_sequence, the subscriber's, its hash, whether it
says that it is right."""

SLICE_NS = 1_000_000
LOOK_SLICES = 100
"""Between two looks whether the venue still lives."""
DRAIN_S = 15.0
"""How long the driver waits for the last answers, and the subscriber for the last updates."""
FLOW_ACCOUNTS = 8
FIRST_ACCOUNT = 1
LOWER = 10
"""What the demo's own processes are nicer by than the workers, where cpus are shared."""
NAP_NS = 50_000
"""What the driver sleeps at a time there: 2 or 3 commands fall due meanwhile."""
_PR_SET_PDEATHSIG = 1
_PR_SET_TIMERSLACK = 29

Tamper = Callable[[Subscriber], None]


@dataclass(frozen=True)
class Board:
    """What the demo's processes tell each other; one writer a cell.

    Attributes
    ----------
    cells : int64[16]
    books : int64[instruments, 4]
    latency : Histogram
        Planned send time to answer, ns.
    counters : Counters
        The flow's.
    """

    cells: NDArray[np.int64]
    books: NDArray[np.int64]
    latency: Histogram
    counters: Counters

    @classmethod
    def create(cls, instruments: int) -> Board:
        """Map an empty board that forked processes share."""
        sizes = (CELLS, instruments * 4, CELL_WORDS, flow_agent.counter_words())
        memory = mmap.mmap(-1, sum(sizes) * 8)  # shared and anonymous: goes with its processes
        parts = np.split(np.frombuffer(memory, np.int64), np.cumsum(sizes)[:-1])
        cells, books, latency, counters = parts
        return cls(
            cells,
            books.reshape(instruments, 4),
            Histogram(latency),
            Counters.create(counters, COUNTERS),
        )


@dataclass(frozen=True)
class Drive:
    """What the driver is to send."""

    seconds: float
    rate: float
    """Commands a second, 0: as fast as they go."""
    seed: int


def fork(work: Callable[[], None], board: Board, cell: int) -> int:
    """Run `work` in a child that dies with this process; on an error the board says FAILED."""
    parent = os.getpid()
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        if os.getppid() == parent:
            work()
            code = 0
    except BaseException:
        board.cells[cell] = FAILED
        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(code)


def quiet_cpus(record: VenueRecord) -> set[int]:
    """Return the cpus that no worker spins on; all usable ones where there are none."""
    spinning = {
        cpu for worker in record.workers if worker.strategy == "spin" for cpu in worker.cpus
    }
    usable = set(usable_cpus())
    return usable - spinning or usable


def shares_cpus(record: VenueRecord) -> bool:
    """Return whether the venue's workers sleep, because there are more of them than cpus."""
    return record.worker_of("sequencer").strategy == Strategy.SPIN_THEN_FUTEX.name.lower()


def settle_down(record: VenueRecord) -> None:
    """Let this process run where no worker spins, and behind the workers where cpus are shared."""
    os.sched_setaffinity(0, quiet_cpus(record))
    if shares_cpus(record):
        os.nice(LOWER)  # always permitted; a worker that wakes up need not wait for our slice


def waiting_of(record: VenueRecord) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return how the driver waits until a command is due or a report there: a waiter, its bell."""
    if not shares_cpus(record):
        return new_waiter(Strategy.SPIN_THEN_YIELD), local_bell()
    # to a microsecond; the kernel's own idea of a sleep's end is 50 us late
    ctypes.CDLL(None).prctl(_PR_SET_TIMERSLACK, 1_000, 0, 0, 0)
    # nobody rings: what falls due does not, and to be woken for every report costs the reporter
    strategy = Strategy.SPIN_THEN_FUTEX
    return new_waiter(strategy, yields=0, max_sleep_ns=NAP_NS), local_bell(strategy)


def drive(record: VenueRecord, base: Path | None, settings: Drive, board: Board) -> None:
    """Be the driver: send for so many seconds, then wait for the last answers."""
    settle_down(record)
    accounts = range(FIRST_ACCOUNT, FIRST_ACCOUNT + FLOW_ACCOUNTS)
    clock = calibrate()
    slice_ticks = clock.ticks_for(SLICE_NS)
    with Session.open(record.config.name, accounts, base=base, name="demo driver") as session:
        model = model_of(
            record.config.instruments,
            settings.seed,
            accounts=FLOW_ACCOUNTS,
            first_account=FIRST_ACCOUNT,
            tag=f"{session.incarnation & 0xFFF:03x}{settings.seed & 0xFFFFF:05x}".encode(),
        )
        flow = flow_of(
            model,
            session.rings,
            Origin(session.gateway, session.incarnation, session.sent, session.attach_sequence),
            rate=settings.rate,
            ns_per_tick=clock.ns_per_tick,
            start_ticks=0,
            limit=round(settings.rate * settings.seconds) if settings.rate else 1 << 31,
            latency=board.latency,
            counters=board.counters,
            gateway=session.cells,
            bell=session.venue_bell,
        )
        # whoever did not `prepare` compiles here, and not while commands fall due
        flow_agent.run(flow, False, session.waiter, session.bell, 0)
        flow.pace["start_ticks"] = int(now_ticks()) + slice_ticks
        board.cells[SENDING_NS] = time.monotonic_ns()
        board.cells[DRIVER] = RUNNING
        _send_all(flow, session, board, settings, slice_ticks)
    board.cells[DRIVER] = DONE


def _send_all(
    flow: Flow, session: Session, board: Board, settings: Drive, slice_ticks: int
) -> None:
    """Send until it is time, or somebody says stop, and read until the last answer."""
    waiter, bell = waiting_of(session.record)
    # with a plan the number of commands is what ends it, a late machine does not cut it short
    deadline = time.monotonic() + settings.seconds + (DRAIN_S if settings.rate else 0.0)
    limit, until, sending = int(flow.pace["limit"][0]), 0.0, True
    for number in count():
        sending = sending and not board.cells[STOP_SENDING] and time.monotonic() < deadline
        flow_agent.run(flow, sending, waiter, bell, slice_ticks)
        if not sending or int(flow.pace["sent"][0]) >= limit:
            until = until or time.monotonic() + DRAIN_S
            if is_idle(flow) or time.monotonic() > until:
                break
        if session.is_cut or (number % LOOK_SLICES == 0 and not session.venue_lives):
            break
    # what comes after the last answer would be an answer too many
    flow_agent.run(flow, False, waiter, bell, slice_ticks)


def subscribe(record: VenueRecord, board: Board, tamper: Tamper | None = None) -> None:
    """Be the subscriber: follow the feed until the demo says FINISH, then hash every book.

    Parameters
    ----------
    tamper : callable, optional
        Called before the books are hashed; a test breaks one with it.
    """
    settle_down(record)
    symbols = [each.symbol for each in record.config.instruments]
    with Subscriber(record.endpoints["feed"][0], record.endpoints["snapshot"][0]) as feed:
        feed.wait_until_right(DRAIN_S)
        board.cells[SUBSCRIBER] = RUNNING
        while not board.cells[FINISH]:
            feed.poll(20)
            counts = feed.counts
            board.cells[UPDATES], board.cells[GAPS] = counts.updates, counts.gaps
        deadline = time.monotonic() + DRAIN_S
        targets = dict(zip(symbols, board.books[:, TARGET].tolist(), strict=True))
        while time.monotonic() < deadline and not all(
            feed.feed_sequence(symbol) >= target and feed.is_right(symbol)
            for symbol, target in targets.items()
        ):
            feed.poll(5)
        for row, symbol in enumerate(symbols):
            board.books[row, RIGHT] = feed.is_right(symbol)
        if tamper is not None:
            tamper(feed)
        for row, symbol in enumerate(symbols):
            board.books[row, REACHED] = feed.feed_sequence(symbol)
            board.books[row, HASH] = feed.feed_hash(symbol)
        counts = feed.counts
        board.cells[UPDATES], board.cells[GAPS] = counts.updates, counts.gaps
    board.cells[SUBSCRIBER] = DONE
