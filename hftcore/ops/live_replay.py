"""`hft replay --speed`: a recording through a venue in processes of its own, as fast as it was.

    recording -> rows -> session --ingress--> venue started for it --ZMQ--> subscriber
                   |                             |                             |
                   +--> Exchange (in process)    +--- final books, compared ---+

The rows are the same as those of the replay in one process; what differs is the way: rings between
processes, the gate, several shards, the feed. At speed "real" each command is sent when it was
recorded, at a number that many times as fast, at "max" as fast as the venue takes them. How late
the sending was is told, so that nobody takes a loaded machine's replay for an exact one.

An order's id is the sequence of its command, and rows name orders by it: so they are made when the
session is attached and the next sequence is known, and nobody else may send to this venue: the n-th
answer must have the n-th sequence from there on, or the replay is refused. All rows are in memory
before the first is sent.

With --verify three books must agree with the matchers' for every instrument: the recording's at its
end (levels), the subscriber's and `Exchange`'s (hash of every order in its place). Comes after
`replay`, whose source and report it shares, and `demo_processes`; `hft replay` calls `main`.
"""

from __future__ import annotations

import json as json_text
import os
import sys
import time
from contextlib import ExitStack, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hftcore.errors import UsageRefused, VenueRefused
from hftcore.exchange import Exchange
from hftcore.instruments import Instrument
from hftcore.marketdata.conversion import AGGRESSOR_ACCOUNT, RESTING_ACCOUNT
from hftcore.marketdata.sources import Source, open_source
from hftcore.matching.state_hash import feed_hash
from hftcore.messages import EventKind, Flags
from hftcore.ops import demo_processes as processes
from hftcore.ops.config import VenueConfig
from hftcore.ops.demo import (
    REPORT_SLOTS,
    START_S,
    await_state,
    end_children,
    judge_book,
    prepare,
)
from hftcore.ops.demo_processes import Board, fork, subscribe
from hftcore.ops.demo_screen import time_text
from hftcore.ops.launch import running_venue
from hftcore.ops.logs import remove_logs
from hftcore.ops.memory import VenueMemory
from hftcore.ops.progress import Progress, ProgressBar
from hftcore.ops.replay import Judge, instruments_of, problems_of
from hftcore.ops.venue_file import VenueRecord, attached
from hftcore.session import Session

FAILED = 1
BATCH = 1_024
"""Rows between two looks at the reports, at most."""
ANSWER_S = 20.0


@dataclass(frozen=True)
class LiveReport:
    """What a live replay did, and whether it holds."""

    path: str
    format: str
    symbols: tuple[str, ...]
    speed: str
    verified: bool
    rows: int
    commands: int
    answered: int
    events: dict[str, int]
    convert_seconds: float
    send_seconds: float
    """From the first command sent to the last answer."""
    recorded_seconds: float
    """From the first row's time to the last row's."""
    late_ns: tuple[int, ...]
    """By how much commands were sent after their time: p50, p99, the worst; empty at "max"."""
    shards: int
    feed_updates: int
    agreed: tuple[str, ...]
    """Symbols whose books all agree."""
    problems: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def holds(self) -> bool:
        """Whether it was replayed whole and, if verified, exactly."""
        return not self.problems


def factor_of(speed: str) -> float:
    """Return how many times as fast as recorded a speed is; 0: as fast as it goes.

    Raises
    ------
    UsageRefused
    """
    if speed in ("max", "real"):
        return 0.0 if speed == "max" else 1.0
    try:
        factor = float(speed.removesuffix("x"))
    except ValueError:
        factor = 0.0
    if not 0.0 < factor < float("inf"):
        raise UsageRefused(
            "a replay can't have this speed",
            expected="max, real, or how many times as fast as recorded, such as 10",
            found=speed,
            where="--speed",
        )
    return factor


@dataclass
class Sent:
    """How the sending went."""

    answered: int
    events: NDArray[np.int64]
    seconds: float
    late_ns: NDArray[np.int64]
    problem: str


def send_rows(
    session: Session, rows: NDArray[np.int64], factor: float, progress: Progress | None
) -> Sent:
    """Send rows when they are due, and read every report until the last command is answered."""
    recorded = np.maximum.accumulate(rows[:, 3])
    planned = (recorded - recorded[0]) / factor if factor else np.zeros(len(rows))
    late = np.zeros(len(rows) if factor else 0, np.int64)
    first = session.attach_sequence + 1
    counts = np.zeros(256, np.int64)
    sent, newest = 0, first - 1
    began = time.perf_counter_ns()
    deadline = time.monotonic() + ANSWER_S
    while newest < first + len(rows) - 1:
        now = time.perf_counter_ns() - began
        due = int(np.searchsorted(planned[sent : sent + BATCH], now, "right")) if factor else BATCH
        taken = session.try_send(rows[sent : sent + due]) if sent < len(rows) and due else 0
        if factor:
            late[sent : sent + taken] = now - planned[sent : sent + taken]
        sent += taken
        reports = session.take()
        if len(reports):
            counts += np.bincount(reports[:, 1] & 0xFF, minlength=256)
            newest = _answered_up_to(session, reports, newest)
        if taken or len(reports):
            deadline = time.monotonic() + ANSWER_S
            if progress is not None:
                progress(sent, len(rows))
        elif factor and sent < len(rows) and planned[sent] > now:
            time.sleep(min((planned[sent] - now) / 1e9, 0.05))
            deadline = time.monotonic() + ANSWER_S
        elif time.monotonic() > deadline:
            break
        else:
            session.idle()
    seconds = (time.perf_counter_ns() - began) / 1e9
    answered = newest - first + 1
    problem = ""
    if answered != len(rows):
        problem = f"{len(rows) - answered:,} of {len(rows):,} commands were not answered"
    return Sent(answered, counts, seconds, late, problem)


def _answered_up_to(session: Session, reports: NDArray[np.int64], newest: int) -> int:
    """Return the sequence of the newest answer, each of which is the one after that before it.

    Raises
    ------
    VenueRefused
        Another sequence comes next: somebody else sent, and the rows name other orders.
    """
    answers = reports[(reports[:, 1] >> 8) & Flags.ANSWER != 0, 2]
    steps = np.diff(answers, prepend=newest)
    strays = np.flatnonzero((steps != 0) & (steps != 1))
    if len(strays):
        found = int(answers[strays[0]])
        raise VenueRefused(
            "somebody else sends to the venue of this replay: rows name orders by their sequence",
            expected=f"the answer to sequence {found - int(steps[strays[0]]) + 1}",
            found=f"that to sequence {found}",
            where=session.where,
            remedy="replay again, and let no other client attach to this venue",
        )
    return int(answers[-1]) if len(answers) else newest


def replay_live(
    path: Path,
    recording_format: str,
    instrument: str | None,
    speed: str,
    verify: bool,
    progress: Progress | None = None,
    base: Path | None = None,
) -> LiveReport:
    """Replay a recording through a venue that is started for it.

    Raises
    ------
    RecordingRefused, UsageRefused, ConfigurationRefused
        The file, the format, the symbol or the speed can't be replayed.
    VenueRefused
        The venue can't be started, or somebody else sends to it.
    """
    factor = factor_of(speed)
    source = open_source(path, recording_format, instrument)
    instruments = tuple(instruments_of(source))
    judge = Judge(source) if verify else None
    prepare()
    config = VenueConfig(venue_name(), instruments, replay=True, report_slots=REPORT_SLOTS)
    board = Board.create(len(instruments))
    with ExitStack() as stack:
        record = stack.enter_context(running_venue(config, base=base))
        memory = stack.enter_context(attached(config.name, base)[1])
        children: list[int] = []
        stack.callback(end_children, children)
        if verify:
            children.append(fork(lambda: subscribe(record, board), board, processes.SUBSCRIBER))
            await_state(board, processes.SUBSCRIBER, processes.RUNNING, START_S)
        accounts = (RESTING_ACCOUNT, AGGRESSOR_ACCOUNT)
        with Session.open(config.name, accounts, base=base, name="replay") as session:
            began = time.perf_counter()
            rows = _converted(source, session.attach_sequence + 1, verify, progress)
            convert_seconds = time.perf_counter() - began
            sent = send_rows(session, rows, factor, progress)
            first_sequence = session.attach_sequence + 1
        problems = [sent.problem] if sent.problem else []
        agreed: tuple[str, ...] = ()
        events = _named(sent.events)
        if judge is not None:
            found, agreed = _verified(judge, record, memory, board, rows, first_sequence)
            problems += found
        problems += problems_of(source, events, "")
    return LiveReport(
        str(path), source.format, tuple(each.symbol for each in instruments), speed, verify,
        source.counts.numbers()["rows"], len(rows), sent.answered, events,
        convert_seconds, sent.seconds,
        int(rows[:, 3].max() - rows[:, 3].min()) / 1e9 if len(rows) else 0.0,
        tuple(int(np.percentile(sent.late_ns, each)) for each in (50, 99, 100)) if factor else (),
        record.config.shards, int(board.cells[processes.UPDATES]), agreed,
        tuple(problems), source.notes,
    )  # fmt: skip


def venue_name() -> str:
    """Return the name of the venue that this process replays through."""
    return f"replay-{os.getpid()}"


def _converted(
    source: Source, first_sequence: int, verify: bool, progress: Progress | None
) -> NDArray[np.int64]:
    """Convert the whole recording; its rows get the sequences from `first_sequence` on."""
    blocks: list[NDArray[np.int64]] = [np.zeros((0, 16), np.int64)]
    sequence = first_sequence
    while (conversion := source.convert(sequence)) is not None:
        blocks.append(conversion.commands)
        sequence += len(conversion.commands)
        if verify:
            source.expected()  # lets the reference book of the recording follow
        if progress is not None:
            progress(source.done, source.total)
    return np.concatenate(blocks)


def _verified(
    judge: Judge,
    record: VenueRecord,
    memory: VenueMemory,
    board: Board,
    rows: NDArray[np.int64],
    first_sequence: int,
) -> tuple[list[str], tuple[str, ...]]:
    """Compare every book; return what differs, and the symbols of which nothing does."""
    instruments = record.config.instruments
    shards = [memory.shard(number) for number in range(record.config.shards)]
    for number, instrument in enumerate(instruments, 1):
        book: Any = shards[instrument.shard].books[number]
        board.books[number - 1, processes.TARGET] = book["feed_sequence"]
    board.cells[processes.FINISH] = 1
    exchange = _in_process(instruments, rows, first_sequence)
    await_state(board, processes.SUBSCRIBER, processes.DONE, START_S)
    problems, agreed = [], []
    for number, instrument in enumerate(instruments, 1):
        matcher = int(feed_hash(shards[instrument.shard], number))
        played = int(feed_hash(exchange.shard, number))
        differences = (
            judge_book(instrument, board, number - 1, matcher),
            f"{instrument.symbol}: the Exchange's book differs from the matcher's"
            f" (hash {played:x}, matcher {matcher:x})"
            if played != matcher
            else "",
            judge.judge_book(shards[instrument.shard], number),
        )
        found = [difference for difference in differences if difference]
        problems += found
        agreed += [] if found else [instrument.symbol]
    return problems, tuple(agreed)


def _in_process(
    instruments: tuple[Instrument, ...], rows: NDArray[np.int64], first_sequence: int
) -> Exchange:
    """Play the same rows through the venue in one process, under the same sequences."""
    listed = [
        Instrument(
            each.symbol, each.tick_size, each.lot_size, each.max_price, each.order_capacity,
            each.quote_decimals,
        )
        for each in instruments
    ]  # fmt: skip
    exchange = Exchange(listed, replay=True, first_sequence=first_sequence - len(listed))
    if len(rows):
        exchange.play(rows)
    return exchange


def _named(counts: NDArray[np.int64]) -> dict[str, int]:
    """Name the kinds of reports that were read, echoes left out."""
    return {EventKind(kind).name: int(n) for kind, n in enumerate(counts[:128]) if n}


def as_text(report: LiveReport) -> str:
    """Return a report as lines for people."""
    named = ", ".join(report.symbols[:8])
    more = f" and {len(report.symbols) - 8} more" if len(report.symbols) > 8 else ""
    lines = [f"{report.path}: {report.format}, {report.rows:,} rows, {named}{more}"]
    rate = report.commands / report.send_seconds if report.send_seconds else 0.0
    lines.append(
        f"  {'venue':<12}{report.shards} {'shard' if report.shards == 1 else 'shards'} in processes"
        f" of their own; conversion {report.convert_seconds:.3f} s"
    )
    pace = "as fast as it goes" if report.speed == "max" else f"speed {report.speed}"
    lines.append(
        f"  {'sent':<12}{report.commands:,} commands in {report.send_seconds:.3f} s, {pace}:"
        f" {rate:,.0f} commands/s (recorded over {report.recorded_seconds:,.1f} s)"
    )
    if report.late_ns:
        middle, high, worst = map(time_text, report.late_ns)
        lines.append(f"  {'late':<12}p50 {middle}, p99 {high}, at worst {worst}")
    kinds = ", ".join(f"{n:,} {name.lower()}" for name, n in report.events.items())
    lines.append(f"  {'reports':<12}{report.answered:,} commands answered: {kinds}")
    lines += [f"  {'note':<12}{note}" for note in report.notes]
    if report.verified:
        lines.append(
            f"  {'books':<12}{len(report.agreed)} of {len(report.symbols)} agree: the matcher's,"
            f" the recording's, the Exchange's, the subscriber's ({report.feed_updates:,} updates)"
        )
    lines += [f"  {'problem':<12}{problem}" for problem in report.problems]
    good = "every book is exact" if report.verified else "replayed whole; no book was compared"
    lines.append(f"  {'verdict':<12}{'FAILED' if report.problems else good}")
    return "\n".join(lines)


def main(
    path: Path, recording_format: str, instrument: str | None, speed: str, verify: bool, json: bool
) -> int:
    """Replay a recording live and print the report; return 0 if it holds."""
    with ProgressBar() if sys.stderr.isatty() and not json else nullcontext() as bar:
        report = replay_live(path, recording_format, instrument, speed, verify, bar)
    if report.holds:
        remove_logs(venue_name())
    facts = {**asdict(report), "holds": report.holds}
    print(json_text.dumps(facts) if json else as_text(report))
    return 0 if report.holds else FAILED
