"""`hft demo`: a whole venue on this machine for some seconds, and a verdict that it did right.

    driver --orders--> venue (processes fit for the cores) --ZMQ--> subscriber
       <--reports--                 |
                       matchers' books = the subscriber's?

Nothing is simulated: the venue is the one of `hft up` in its own processes, the driver a client
like any other, the subscriber knows nothing but the feed. While it runs a table shows rates,
latencies, how full the rings are, and the best prices. At the end the matchers' books are hashed
in their shared memory and compared with those that the subscriber rebuilt, and every command must
have been answered exactly once, with the trades that the flow's own matching foretold. The exit
status is 0 only then; a Ctrl-C ends the sending, not the verdict.

Comes after `demo_processes`, `launch`; the command line calls `main`.
"""

from __future__ import annotations

import json as json_text
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
from rich.console import Console
from rich.live import Live

from hftcore.engine.client import client_of
from hftcore.instruments import Instrument
from hftcore.matching.depth import read_depth
from hftcore.matching.state import Shard
from hftcore.matching.state_hash import feed_hash
from hftcore.ops import demo_processes as processes
from hftcore.ops import demo_screen as screen
from hftcore.ops import flow as flow_agent
from hftcore.ops.config import VenueConfig
from hftcore.ops.demo_processes import Board, Drive, Tamper, drive, fork, subscribe
from hftcore.ops.demo_screen import PERCENTILES, Sample, Top
from hftcore.ops.flow import Origin, flow_of
from hftcore.ops.flow_model import model_of
from hftcore.ops.launch import COLD, is_cold, running_venue
from hftcore.ops.logs import remove_logs
from hftcore.ops.memory import VenueMemory
from hftcore.ops.venue_file import VenueRecord, attached
from ipc.liveness import wait_for_exit
from ipc.ring import Ring
from ipc.wait import Strategy, local_bell, new_waiter

FAILED = 1
REDRAW_S = 0.25
PLAIN_S = 1.0
REPORT_SLOTS = 1 << 18
"""More than all rings before it hold, so that a driver that lost its cpu is not cut off."""
START_S = 30.0
END_S = 40.0


@dataclass(frozen=True)
class Result:
    """What a demo did, and whether it holds."""

    last: Sample
    problems: tuple[str, ...]
    agreed: tuple[str, ...]
    """Symbols whose rebuilt book is the matcher's."""
    shards: int
    workers: tuple[str, ...]

    @property
    def holds(self) -> bool:
        """Whether the verdict is good."""
        return not self.problems


class View:
    """The venue as the demo looks at it, read-only, while it runs."""

    def __init__(self, record: VenueRecord, memory: VenueMemory, board: Board) -> None:
        self.record = record
        self.board = board
        config = record.config
        self.shards = [memory.shard(number) for number in range(config.shards)]
        self._rings: dict[str, Ring] = {
            "ingress": memory.ingress(1),
            "commands": memory.commands(),
            **{f"events-{number}": memory.events(number) for number in range(config.shards)},
            "reports": memory.reports(1),
        }

    def shard_of(self, instrument: Instrument) -> Shard:
        """Return the shard that matches an instrument."""
        return self.shards[instrument.shard]

    def sample(self) -> Sample:
        """Take a picture."""
        board = self.board
        began = int(board.cells[processes.SENDING_NS])
        latency = board.latency.snapshot()
        return Sample(
            (time.monotonic_ns() - began) / 1e9 if began else 0.0,
            dict(board.counters),
            int(board.cells[processes.UPDATES]),
            int(board.cells[processes.GAPS]),
            (*latency.percentiles(PERCENTILES), latency.maximum),
            {name: _lag(ring) for name, ring in self._rings.items()},
            tuple(
                self._top(instrument, number)
                for number, instrument in enumerate(self.record.config.instruments, 1)
            ),
        )

    def _top(self, instrument: Instrument, number: int) -> Top:
        shard = self.shard_of(instrument)
        depth = np.zeros((2, 1, 3), np.int64)
        read_depth(shard, number, depth)
        bid, ask = (
            (instrument.price(row[0]), instrument.qty(row[1])) if row[2] else None
            for row in depth[:, 0].tolist()
        )
        book: Any = shard.books[number]
        return Top(
            instrument.symbol, bid, ask, int(book["order_count"]), int(book["feed_sequence"])
        )


def _lag(ring: Ring) -> int:
    cursors = [ring.cursor(reader) for reader in range(ring.readers)]
    return max(ring.position - min(cursors, default=0), 0)


def run(
    settings: Drive,
    config: VenueConfig,
    *,
    base: Path | None = None,
    show: Callable[[Sample], None] = lambda sample: None,
    every_s: float = PLAIN_S,
    tamper: Tamper | None = None,
    end_s: float = END_S,
) -> Result:
    """Run a demo and judge it.

    Parameters
    ----------
    show : callable
        Told how it goes, every `every_s` seconds.
    tamper : callable, optional
        Called in the subscriber before its books are hashed, by tests that want it to fail.
    end_s : float
        How long the subscriber is waited for at the end.

    Raises
    ------
    VenueRefused
        The venue can't be started, or died.
    """
    board = Board.create(len(config.instruments))
    with ExitStack() as stack:
        stack.enter_context(_interrupts(board))
        record = stack.enter_context(running_venue(config, base=base))
        _, memory = attached(record.config.name, base)
        view = View(record, stack.enter_context(memory), board)
        children: list[int] = []
        stack.callback(end_children, children)
        children.append(fork(lambda: subscribe(record, board, tamper), board, processes.SUBSCRIBER))
        await_state(board, processes.SUBSCRIBER, processes.RUNNING, START_S)
        children.append(fork(lambda: drive(record, base, settings, board), board, processes.DRIVER))
        seconds = settings.seconds + 2 * processes.DRAIN_S + START_S
        await_state(
            board, processes.DRIVER, processes.DONE, seconds,
            show=lambda: show(view.sample()), every_s=every_s,
        )  # fmt: skip
        last = view.sample()
        hashes = []
        for number, instrument in enumerate(record.config.instruments, 1):
            shard = view.shard_of(instrument)
            board.books[number - 1, processes.TARGET] = shard.books[number]["feed_sequence"]
            hashes.append(int(feed_hash(shard, number)))
        board.cells[processes.FINISH] = 1
        await_state(board, processes.SUBSCRIBER, processes.DONE, end_s)
        last = Sample(
            last.seconds, dict(board.counters), int(board.cells[processes.UPDATES]),
            int(board.cells[processes.GAPS]), last.latency_ns, last.lags, last.tops,
        )  # fmt: skip
        problems, agreed = judge(config.instruments, board, hashes, last)
        workers = tuple(worker.name for worker in record.workers)
        return Result(last, problems, agreed, record.config.shards, workers)


def judge(
    instruments: Sequence[Instrument], board: Board, hashes: Sequence[int], last: Sample
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return what is wrong, and the symbols of which nothing is."""
    counts, problems, agreed = last.counts, [], []
    sent, answered = counts["commands_sent"], counts["commands_answered"]
    if sent == 0:
        problems.append("nothing was sent")
    if answered != sent:
        problems.append(f"{sent - answered:,} commands were not answered")
    for name, what in (
        ("doubled", "answers came twice"),
        ("misanswered", "answers are another command's"),
    ):
        if counts[name]:
            problems.append(f"{counts[name]:,} {what}")
    for name in ("trades", "rejects"):
        if answered == sent and counts[name] != counts[f"expected_{name}"]:
            problems.append(
                f"{counts[name]:,} {name} were reported, the flow foretold"
                f" {counts[f'expected_{name}']:,}"
            )
    if int(board.cells[processes.DRIVER]) != processes.DONE:
        problems.append(_unfinished("driver"))
    if int(board.cells[processes.SUBSCRIBER]) != processes.DONE:
        problems.append(_unfinished("subscriber"))
    for row, instrument in enumerate(instruments):
        if difference := judge_book(instrument, board, row, hashes[row]):
            problems.append(difference)
        else:
            agreed.append(instrument.symbol)
    return tuple(problems), tuple(agreed)


def _unfinished(process: str) -> str:
    return f"the {process} did not finish; what it said stands above"


def judge_book(instrument: Instrument, board: Board, row: int, matcher: int) -> str:
    """Return what is wrong with a book that the subscriber rebuilt; nothing, if it is right.

    The hash of an empty book is 0, as is a cell that nobody wrote: that the subscriber came to its
    end, to this update, and says that it is right must all hold before its hash is one.
    """
    target, reached, hashed, right = board.books[row].tolist()
    if int(board.cells[processes.SUBSCRIBER]) != processes.DONE:
        return f"{instrument.symbol}: its subscriber did not finish, so no book was compared"
    if reached != target or not right:
        doubt = "" if right else ", and says that its book may be wrong"
        return f"{instrument.symbol}: the subscriber is at update {reached:,} of {target:,}{doubt}"
    if hashed != matcher:
        return (
            f"{instrument.symbol}: the subscriber's book differs from the matcher's"
            f" at update {target:,} (hash {hashed:x}, matcher {matcher:x})"
        )
    return ""


def await_state(
    board: Board,
    cell: int,
    state: int,
    seconds: float,
    *,
    show: Callable[[], None] | None = None,
    every_s: float = PLAIN_S,
) -> None:
    """Wait until a process shows a state, or FAILED; what became of it is judged at the end."""
    deadline = time.monotonic() + seconds
    shown = time.monotonic()
    while int(board.cells[cell]) not in (state, processes.FAILED, processes.DONE):
        if time.monotonic() > deadline:
            return
        time.sleep(0.01)
        if show is not None and time.monotonic() - shown >= every_s:
            shown += every_s
            show()


@contextmanager
def _interrupts(board: Board) -> Iterator[None]:
    """Let a SIGINT end the sending, and a second one the demo."""

    def note(_number: int, _frame: FrameType | None) -> None:
        if board.cells[processes.STOP_SENDING]:
            raise KeyboardInterrupt
        board.cells[processes.STOP_SENDING] = 1

    try:
        before = signal.signal(signal.SIGINT, note)
    except ValueError:  # not the main thread: nobody interrupts it
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def end_children(children: list[int]) -> None:
    """Let the processes leave; kill who doesn't."""
    for pid in children:
        if not wait_for_exit(pid, 1.0):
            os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def prepare() -> None:
    """Load, or compile, the kernels that the driver and the verdict run, before anybody forks."""
    instrument = Instrument("FLOW", "1", "1", "4000", order_capacity=64)
    ingress, reports = Ring.local(64), Ring.local(64)
    model = model_of((instrument,), 1, accounts=1, first_account=1, tag=b"flow0000")
    bell = local_bell()
    flow = flow_of(
        model, client_of(ingress, reports), Origin(1, 1, 0), rate=0, ns_per_tick=1.0,
        start_ticks=0, limit=4, gateway=np.zeros(32, np.int64), bell=bell,
    )  # fmt: skip
    flow_agent.run(flow, True, new_waiter(Strategy.SPIN_THEN_YIELD), bell, 1)
    feed_hash(model.shard, 1)  # the subscriber's is its own, and writable
    for array in model.shard:
        array.flags.writeable = False
    read_depth(model.shard, 1, np.zeros((2, 1, 3), np.int64))
    feed_hash(model.shard, 1)


def main(
    *,
    seconds: float,
    rate: float,
    seed: int,
    shards: int,
    json: bool,
    tamper: Tamper | None = None,
    base: Path | None = None,
) -> int:
    """Run the demo and print it; return 0 if its verdict is good."""
    said = Console(stderr=True, highlight=False)
    live = Console()
    if is_cold():
        said.print(COLD)
    prepare()
    config = VenueConfig(name=f"demo-{os.getpid()}", shards=shards, report_slots=REPORT_SLOTS)
    settings = Drive(seconds, rate, seed)
    title = f"hft demo   {f'{rate:,.0f} commands/s' if rate else 'as fast as it goes'}, seed {seed}"
    before: list[Sample] = []
    if json:
        result = run(settings, config, base=base, tamper=tamper)
        facts = {**asdict(result.last), "problems": result.problems, "agreed": result.agreed}
        print(json_text.dumps({**facts, "holds": result.holds}, default=str))
        return _status(result, config)
    if live.is_terminal:
        with Live(console=live, refresh_per_second=4, transient=False) as picture:

            def redraw(sample: Sample) -> None:
                if not before:
                    os.nice(processes.LOWER)  # the venue has started: it is not inherited
                picture.update(screen.table(sample, before[-1] if before else sample, title))
                before[:] = [*before[-3:], sample]

            result = run(settings, config, base=base, show=redraw, every_s=REDRAW_S, tamper=tamper)
    else:
        print(title, flush=True)

        def say(sample: Sample) -> None:
            if before:
                print(screen.line(sample, before[-1]), flush=True)
            before[:] = [sample]

        result = run(settings, config, base=base, show=say, tamper=tamper)
    print(f"venue      {len(result.workers)} workers: {', '.join(result.workers)}")
    print(screen.summary(result.last, result.problems, result.agreed, len(config.instruments)))
    sys.stdout.flush()
    return _status(result, config)


def _status(result: Result, config: VenueConfig) -> int:
    """Return the exit status; the logs of a venue that nobody will ask about go."""
    if not result.holds:
        return FAILED
    remove_logs(config.name)
    return 0
