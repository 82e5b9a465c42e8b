"""One run of the feed: who runs where, and what came out.

    cpu 0: writer + publisher (one process)      cpu 1: subscribers, and every ZMQ I/O thread

The writer and the publisher share a process because there are two cpus: beside them run the
subscribers and the I/O threads, and a third spinning loop would only measure the scheduler. All
processes ask for the highest ordinary priority (nice -20, where that is permitted): a wake-up that
has to wait for somebody else's compiler says nothing about the feed.

Comes between the kernels (`feed_kernels`) and the cases (`feed_suite`).
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, partial
from tempfile import TemporaryDirectory

import numpy as np
import zmq
from numpy.typing import NDArray

from hftcore import Exchange, Instrument
from hftcore.marketdata.feed_protocol import FeedInstrument
from hftcore.marketdata.feed_server import FeedServer
from hftcore.marketdata.frames import follower_of
from hftcore.marketdata.l3_book import books_of, copied_orders
from hftcore.marketdata.publisher_state import UPDATES_A_FRAME
from hftcore.matching.state_hash import feed_hash
from hftcore.messages import NEW_ORDER, CommandKind, Flags
from ipc.counters import Counters
from ipc.histogram import CELL_WORDS
from ipc.ring import Ring, words_for
from perf import feed_kernels, workloads
from perf.children import Task, run_together, shared_words
from perf.feed_kernels import CHECKSUM, COUNT, NEXT, SUM, WRONG, Writer, new_frame
from perf.floor import ns_per_tick
from perf.harness import Options
from perf.workloads import FIRST_ROW_ID, MIXED, Case

INSTRUMENT = Instrument("FEED/USD", "1", "1", str(workloads.LADDER_TICKS - 1), order_capacity=8_192)
FLOW = Case("feed", MIXED, 2_000, 60_000, INSTRUMENT.order_capacity, {}, 2_000)
"""Half adds, two cancels of five, a tenth aggressors; 2,000 orders rest."""
READER = 2
HWM = 1_000
PATIENCE_S = 10.0
PRIORITY = -20
_IDLE = threading.Event()

Receive = Callable[[int, NDArray[np.int64], int, NDArray[np.int64]], int]
"""Receives from a socket, notes what it saw, until so many updates or a stop; returns ticks."""


def count_updates(
    socket: int, seen: NDArray[np.int64], updates: int, stop: NDArray[np.int64]
) -> int:
    """Check and count updates, without a book."""
    return int(feed_kernels.receive_counted(socket, new_frame(), seen, updates, stop))


def build_books(socket: int, seen: NDArray[np.int64], updates: int, stop: NDArray[np.int64]) -> int:
    """Apply updates to a book; its hash is what is compared."""
    follower = follower_of(books_of([FeedInstrument.of(INSTRUMENT, 1).limits]))
    for name in ("followed", "synced", "start_id", "epoch"):  # the feed begins while it listens
        follower.links[name][1] = 1
    ticks = int(feed_kernels.receive_books(follower, socket, seen, updates, stop))
    seen[SUM] = feed_hash(follower.books, 1)
    return ticks


@dataclass(frozen=True)
class Parameters:
    """How much is measured; the figures of the smoke run mean nothing."""

    updates: int
    paced_updates: int
    paced_per_s: int
    skipped: int
    """Updates at the beginning of a paced run that do not count: connections settle."""
    capacity: int
    repeats: int
    budget_s: float


FULL = Parameters(2_000_000, 60_000, 100_000, 5_000, 8_192, 5, 8.0)
SMOKE = Parameters(20_000, 2_000, 20_000, 100, 1_024, 1, 60.0)


@dataclass(frozen=True)
class Outcome:
    """What one run came to.

    Attributes
    ----------
    per_s : tuple of float
        Updates a second that each subscriber received, first update to last.
    wrong : int
        Updates out of sequence, missing or altered, over all subscribers.
    frames, blocked : int
        Frames sent on both topics, and how often the socket had no room.
    late_ns : float
        The furthest that the writer was behind its plan.
    """

    per_s: tuple[float, ...]
    wrong: int
    frames: int
    blocked: int
    late_ns: float


@cache
def recording() -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Record what the venue makes of a flow whose last orders are canceled: (rows, spans)."""
    flow = workloads.build(FLOW, scale=0.99).rows
    commands = np.zeros((len(flow), 16), np.int64)
    commands[:, 1], commands[:, 4], commands[:, 5] = flow["header"], flow["price"], flow["qty"]
    is_new = flow["header"] & 0xFF == CommandKind.NEW_ORDER
    commands[:, 6] = flow["detail"] + np.where(is_new, 0, FIRST_ROW_ID)
    exchange = Exchange([INSTRUMENT])
    began = exchange.next_sequence
    log = exchange.play(commands, log=True).log
    left = copied_orders(exchange.shard, 1).reshape(-1, 8)
    cancels = np.zeros((len(left), 16), np.int64)
    cancels[:, :8].view(NEW_ORDER)["kind"] = CommandKind.CANCEL_ORDER
    cancels[:, :8].view(NEW_ORDER)["flags"] = Flags.TWO_SLOTS
    cancels[:, :8].view(NEW_ORDER)["instrument_id"] = 1
    cancels[:, :8].view(NEW_ORDER)["account_id"] = workloads.ACCOUNT
    cancels[:, 6] = left[:, 5]
    log = np.concatenate([log, exchange.play(cancels, log=True).log])
    book = exchange.shard.books[1]
    assert book["order_count"] == 0
    spans = [exchange.next_sequence - began, int(book["feed_sequence"])]
    return log, np.array(spans, np.int64)


class FeedRuns:
    """The cpus and parameters that all runs of one suite share."""

    def __init__(self, options: Options) -> None:
        self.parameters = SMOKE if options.smoke else FULL
        self.cpus = options.pinned(2)
        self.rows, self.spans = recording()
        if options.corrupt:
            self.rows = self.rows.copy()
            self.rows[len(self.rows) // 100, 4] += 1  # a feed_sequence

    def run(
        self,
        receive: Receive,
        *,
        subscribers: int = 1,
        updates: int,
        paced_per_s: int = 0,
        tcp: bool = False,
        updates_a_frame: int = UPDATES_A_FRAME,
    ) -> Outcome:
        """Publish `updates` to so many subscriber processes; return when all have them."""
        capacity = self.parameters.capacity
        ring = Ring.create(shared_words(words_for(capacity)), capacity)
        ring.add_gating_reader(READER)
        matched, told, seen = shared_words(8), shared_words(8), shared_words(8 * subscribers)
        writer = Writer(
            ring.cells, ring.words, matched, self.rows, np.zeros(8, np.int64), self.spans
        )
        with TemporaryDirectory(prefix="hft-feed-") as folder:
            publish = partial(
                _publish, ring, writer, folder, told, seen, updates, paced_per_s, tcp,
                self.cpus[1], updates_a_frame,
            )  # fmt: skip
            tasks = [
                Task(
                    f"subscriber {number}",
                    self.cpus[1],
                    partial(
                        _subscribe,
                        receive,
                        folder,
                        told,
                        seen[8 * number : 8 * number + 8],
                        updates,
                    ),
                    (ring.words,),
                )
                for number in range(subscribers)
            ]
            answers = run_together([Task("publisher", self.cpus[0], publish), *tasks])
        ticks, frames, blocked, checksum, late, book = answers[0]
        expected = book if receive is build_books else checksum
        wrong = int(ticks < 0)
        for row in seen.reshape(subscribers, 8):
            wrong += int(row[WRONG]) + abs(updates - int(row[COUNT]))
            wrong += int(row[SUM]) != expected
        tick_ns = ns_per_tick()
        return Outcome(
            tuple(updates * 1e9 / max(each[0] * tick_ns, 1.0) for each in answers[1:]),
            wrong,
            frames,
            blocked,
            late * tick_ns,
        )


# told: what the processes of one run tell each other
_PORT, _STOP = 0, 1


def _publish(
    ring: Ring, writer: Writer, folder: str, told: NDArray[np.int64], seen: NDArray[np.int64],
    updates: int, paced_per_s: int, tcp: bool, io_cpu: int, updates_a_frame: int,
) -> tuple[int, ...]:  # fmt: skip
    """Be the writer and the publisher: wait for the subscribers, publish, wait for the last."""
    _hurry()
    late = np.zeros(1, np.int64)
    where = "tcp://127.0.0.1:*" if tcp else f"ipc://{folder}/feed"
    with FeedServer(
        [ring],
        [writer.matched],
        [FeedInstrument.of(INSTRUMENT, 1)],
        publish_endpoints=[where],
        snapshot_endpoint=f"ipc://{folder}/snapshots",
        start_id=1,
        reader=READER,
        io_cpus=[io_cpu],
        lossless=True,
        send_hwm=HWM,
        updates_a_frame=updates_a_frame,
    ) as server:
        told[_PORT] = int(server.publish_endpoints[0].rpartition(":")[2]) if tcp else 1
        counters = Counters(server.publisher.counters)
        rows = seen.reshape(-1, 8)
        _wait(lambda: bool(server.run_slice() < 0) or counters["subscriptions"] >= len(rows))
        if paced_per_s:
            gap = 1e9 / ns_per_tick() / paced_per_s
            ticks = feed_kernels.publish_paced(writer, server.publisher, updates, gap, late)
        else:
            budget = ring.capacity // 4
            ticks = feed_kernels.publish_flat_out(writer, server.publisher, updates, budget)
        if ticks >= 0:
            _wait(lambda: bool((rows[:, COUNT] >= updates).all()))
        told[_STOP] = 1
        return (
            int(ticks), counters["frames_sent"], counters["sends_blocked"],
            int(writer.state[CHECKSUM]), int(late[0]), int(feed_hash(server.publisher.books, 1)),
        )  # fmt: skip


def _subscribe(
    receive: Receive, folder: str, told: NDArray[np.int64], seen: NDArray[np.int64], updates: int
) -> tuple[int, ...]:
    """Be a subscriber: connect, receive everything."""
    _hurry()
    _wait(lambda: told[_PORT] > 0)
    context = zmq.Context()
    socket = context.socket(zmq.SUB)
    socket.set(zmq.RCVHWM, HWM)
    socket.set(zmq.RCVTIMEO, 100)
    port = int(told[_PORT])
    socket.connect(f"ipc://{folder}/feed" if port == 1 else f"tcp://127.0.0.1:{port}")
    socket.subscribe(b"L3")
    seen[NEXT] = 1
    ticks = receive(socket.underlying, seen, updates, told[_STOP:])
    context.destroy(linger=0)
    return (int(ticks),)


def _hurry() -> None:
    """Ask for the highest ordinary priority; ZMQ's threads inherit it."""
    with suppress(PermissionError):
        os.setpriority(os.PRIO_PROCESS, 0, PRIORITY)


def _wait(condition: Callable[[], bool]) -> None:
    """Wait for another process, not for ever."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition() and time.monotonic() < deadline:
        _IDLE.wait(0.0005)


def warm() -> None:
    """Compile every kernel of the suite in this process."""
    rows, spans = recording()
    ring = Ring.local(SMOKE.capacity)
    ring.add_gating_reader(READER)
    lines = np.zeros(8, np.int64)
    writer = Writer(ring.cells, ring.words, lines, rows, np.zeros(8, np.int64), spans)
    stop, seen = np.ones(8, np.int64), np.zeros(8, np.int64)
    with FeedServer(
        [ring],
        [lines],
        [FeedInstrument.of(INSTRUMENT, 1)],
        publish_endpoints=["inproc://warm-feed"],
        snapshot_endpoint="inproc://warm-snapshots",
        start_id=1,
        reader=READER,
    ) as server:
        server.run_slice()
        feed_kernels.publish_flat_out(writer, server.publisher, 10, 16)
        feed_kernels.publish_paced(writer, server.publisher, 20, 1.0, np.zeros(1, np.int64))
        socket = zmq.Context().socket(zmq.SUB)
        socket.set(zmq.RCVTIMEO, 0)
        address = socket.underlying
        count_updates(address, seen, 1, stop)
        build_books(address, seen, 1, stop)
        cells = np.zeros(CELL_WORDS, np.int64)
        feed_kernels.receive_stamped(address, new_frame(), seen, 1, stop, cells, 0)
        feed_kernels.take_number(np.zeros(1, np.int64))
        socket.context.destroy(linger=0)
    ns_per_tick()
