"""`hft replay`: a recording goes through the venue; with --verify its book is held to the file's.

Three steps a block of rows: convert (Python, plain integers), play (the venue's compiled roles on
real rings, in this process), compare. What is compared is the matcher's own book after the last
command of each row, and the order that each of its trades met; the converter's model is not asked.
The first row that differs ends the replay and is named with what the recording has and what the
book has. A replay fails also without --verify when rows contradict each other or the venue refuses
a command: a recording is replayed whole or not at all.

Commands a second are those of the venue alone (with --verify its book is read after each command,
which costs most of the time); the seconds of the conversion stand beside them.

Comes before: `marketdata.sources`, `exchange`. After: `hft replay` calls `main`.
"""

from __future__ import annotations

import json as json_text
import sys
import time
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hftcore.errors import ConfigurationRefused, VerificationFailed
from hftcore.exchange import Exchange
from hftcore.instruments import Instrument, definition
from hftcore.limits import FIRST_SEQUENCE
from hftcore.marketdata.conversion import COMMAND_WORDS, PRICE_UNITS, Conversion, Listed
from hftcore.marketdata.sources import Source, open_source, tick_text
from hftcore.matching.depth import read_depth
from hftcore.matching.state import Shard
from hftcore.messages import EVENT, FILLS, EventKind
from hftcore.ops.progress import Progress, ProgressBar

FAILED = 1


@dataclass(frozen=True)
class ReplayReport:
    """What a replay did, and whether it holds.

    Attributes
    ----------
    counts : dict
        The conversion's counts by name, see `marketdata.conversion.Counts`.
    events : dict
        The venue's events by kind.
    compared_rows, compared_trades : int
        Rows whose book, and trades whose resting order, were held to the recording.
    problems : tuple of str
        Why it does not hold; empty: it does.
    """

    path: str
    format: str
    instruments: tuple[Listed, ...]
    verified: bool
    counts: dict[str, int]
    events: dict[str, int]
    convert_seconds: float
    play_seconds: float
    compared_rows: int = 0
    compared_trades: int = 0
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def holds(self) -> bool:
        """Whether the recording was replayed whole and, if verified, exactly."""
        return not self.problems

    @property
    def commands_per_second(self) -> float:
        """The venue's, without the conversion."""
        return self.counts["commands"] / self.play_seconds if self.play_seconds else 0.0

    def require(self) -> ReplayReport:
        """Return the report if it holds.

        Raises
        ------
        VerificationFailed
            It does not; names the first problem.
        """
        if self.problems:
            raise VerificationFailed(
                "the replay does not hold", found=self.problems[0], where=self.path
            )
        return self


class Judge:
    """Holds the matcher's books and trades to the recording's, block by block."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.compared_rows = 0
        self.compared_trades = 0
        shape = (len(source.instruments) + 1, 2, source.levels, 2)
        self._books = np.zeros(shape, np.int64)  # as each instrument's last block left them

    def judge(self, conversion: Conversion, depth: NDArray[np.int64]) -> str:
        """Compare the book after each row of a block; return the first difference, or nothing."""
        rows, last = conversion.instruments, conversion.last_commands
        expected = self.source.expected()
        found = self._books[rows]
        known = last >= 0
        found[known] = depth[last[known]]
        applies = rows > 0
        self.compared_rows += int(np.count_nonzero(applies))
        wrong = applies & (found != expected).any(axis=(1, 2, 3))
        if wrong.any():
            row = int(np.argmax(wrong))
            difference = self._difference(int(rows[row]), expected[row], found[row])
            return f"{self.source.where(row)}: {difference}"
        self._books[rows[known]] = depth[last[known]]
        return ""

    def _difference(
        self, number: int, expected: NDArray[np.int64], found: NDArray[np.int64]
    ) -> str:
        listed = self.source.instruments[number - 1]
        side, level = np.argwhere((expected != found).any(axis=2))[0].tolist()

        def text(entry: NDArray[np.int64]) -> str:
            price, lots = entry.tolist()
            if price == 0:
                return "nothing"
            return f"{lots} at {price * listed.units_per_tick / PRICE_UNITS:.4f}"

        return (
            f"{listed.symbol} {('bid', 'ask')[side]} {level + 1}: the recording has"
            f" {text(expected[side, level])}, the book has {text(found[side, level])}"
        )

    def judge_whole(self, exchange: Exchange) -> str:
        """Compare every level of every book at the end; return the first difference, or nothing."""
        for listed in self.source.instruments:
            if difference := self.judge_book(exchange.shard, listed.instrument_id):
                return difference
        return ""

    def judge_book(self, shard: Shard, instrument_id: int) -> str:
        """Compare every level of one book at the end; return the difference, or nothing."""
        expected = self.source.final_book(instrument_id)
        found = np.zeros((2, expected.shape[1] + 1, 2), np.int64)
        read_depth(shard, instrument_id, found)
        whole = np.zeros_like(found)
        whole[:, :-1] = expected
        if np.array_equal(whole, found):
            return ""
        return "at the end: " + self._difference(instrument_id, whole, found)

    def judge_trades(self, conversion: Conversion, trades: NDArray[np.int64]) -> str:
        """Compare which order each aggressor met; return the first difference, or nothing."""
        expected = conversion.trades + np.array([conversion.first_sequence, 0])
        self.compared_trades += len(expected)
        if np.array_equal(expected, trades):
            return ""
        shorter = min(len(expected), len(trades))
        same = (expected[:shorter] == trades[:shorter]).all(axis=1)
        first = int(np.argmin(same)) if not same.all() else shorter
        texts = [
            f"command {which[first][0]} trades with order {which[first][1]}"
            if first < len(which)
            else "no more trades"
            for which in (expected, trades)
        ]
        return f"trade {first + 1} of a block: the recording has {texts[0]}, the venue {texts[1]}"


def replay(
    path: Path,
    recording_format: str,
    instrument: str | None = None,
    verify: bool = False,
    progress: Progress | None = None,
) -> ReplayReport:
    """Play a recording through the venue.

    Parameters
    ----------
    recording_format : str
        "itch" or "lobster".
    instrument : str or None
        This symbol only; None: all.
    verify : bool
        Compare the matcher's book after each row with the recording's.

    Raises
    ------
    RecordingRefused, UsageRefused, ConfigurationRefused
        The file, the format or the symbol can't be replayed.
    """
    source = open_source(path, recording_format, instrument)
    exchange = _venue(source) if source.instruments else None
    judge = Judge(source) if verify else None
    _compile_first(verify)
    events: dict[str, int] = {}
    convert_seconds = play_seconds = 0.0
    problem = ""
    while not problem:
        started = time.perf_counter()
        conversion = source.convert(exchange.next_sequence if exchange else FIRST_SEQUENCE)
        convert_seconds += time.perf_counter() - started
        if conversion is None:
            break
        if exchange is None:
            continue
        played = exchange.play(
            conversion.commands, depth=source.levels if verify else 0, log=verify
        )
        play_seconds += played.seconds
        for name, count in played.events.items():
            events[name] = events.get(name, 0) + count
        if judge is not None:
            problem = judge.judge(conversion, played.depth) or judge.judge_trades(
                conversion, _trades(played.log)
            )
        if progress is not None:
            progress(source.done, source.total)
    if judge is not None and exchange is not None and not problem:
        problem = judge.judge_whole(exchange)
    problems = problems_of(source, events, problem, judge)
    return ReplayReport(
        str(path), source.format, source.instruments, verify, source.counts.numbers(), events,
        convert_seconds, play_seconds,
        judge.compared_rows if judge else 0, judge.compared_trades if judge else 0,
        problems, source.notes,
    )  # fmt: skip


def instruments_of(source: Source) -> list[Instrument]:
    """Return a recording's instruments: one share is a lot, money is counted in ticks.

    Each has room for all orders that it adds: what rests at once is known only after a replay.
    """
    instruments = []
    for listed in source.instruments:
        tick = Decimal(listed.units_per_tick) / PRICE_UNITS
        instruments.append(
            Instrument(
                listed.symbol,
                tick_size=str(tick),
                lot_size="1",
                max_price=str(tick * (listed.ladder_ticks - 1)),
                order_capacity=listed.order_capacity,
                quote_decimals=-int(tick.normalize().as_tuple().exponent),
            )
        )
    return instruments


def _venue(source: Source) -> Exchange:
    """Make a venue in this process that lists a recording's instruments."""
    instruments = instruments_of(source)
    try:
        return Exchange(instruments, replay=True)
    except ConfigurationRefused as refused:
        largest = max(source.instruments, key=lambda listed: listed.order_capacity)
        raise ConfigurationRefused(
            f"the recording can't be replayed whole: {refused.what}",
            expected=refused.expected,
            found=f"{refused.found}, in {len(instruments)} instruments",
            where=refused.where,
            remedy=f"choose one with --instrument; {largest.symbol} has the most orders",
        ) from refused


def _compile_first(verify: bool) -> None:
    """Play one command on a venue of its own, so that compiling is not counted as playing."""
    instrument = Instrument("FIRST", "1", "1", "1", order_capacity=1)
    row = definition(instrument, 1).reshape(1, COMMAND_WORDS)
    Exchange([instrument], replay=True).play(row, depth=int(verify), log=verify)


def _trades(log: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the sequence of each trade's aggressor, and the order that it met."""
    events = log[:, :8].view(EVENT)[:, 0]
    met = log[:, 8:].view(FILLS)[:, 0]["resting_order_id"]
    trades = events["kind"] == int(EventKind.TRADE)
    return np.stack([events["sequence"][trades], met[trades]], axis=1)


def problems_of(
    source: Source, events: dict[str, int], difference: str, judge: Judge | None = None
) -> tuple[str, ...]:
    """Return why a replay does not hold: nothing, if it does."""
    problems = [difference] if difference else []
    counts = source.counts
    if counts.misfits:
        problems.append(
            f"{counts.misfits} rows contradict the rows before them; the first: "
            + counts.first_misfit
        )
    if events.get("REJECTED"):
        problems.append(f"the venue refused {events['REJECTED']} commands")
    if judge is not None and judge.compared_rows == 0:
        problems.append("nothing was compared: no row of the recording is about a book")
    return tuple(problems)


def as_facts(report: ReplayReport) -> dict[str, Any]:
    """Return a report as one JSON object."""
    facts = asdict(report)
    facts["instruments"] = [asdict(listed) for listed in report.instruments]
    facts["commands_per_second"] = round(report.commands_per_second)
    facts["holds"] = report.holds
    return facts


def as_text(report: ReplayReport) -> str:
    """Return a report as lines for people; what is 0 and says nothing is left out."""
    counts = report.counts
    symbols = [f"{listed.symbol} (tick {tick_text(listed)})" for listed in report.instruments]
    named = ", ".join(symbols[:8]) + (f" and {len(symbols) - 8} more" if len(symbols) > 8 else "")
    lines = [f"{report.path}: {report.format}, {counts['rows']:,} rows, {named or 'no instrument'}"]

    def line(label: str, **parts: int) -> None:
        shown = [f"{count:,} {name.replace('_', ' ')}" for name, count in parts.items() if count]
        if shown:
            lines.append(f"  {label:<12}{', '.join(shown)}")

    line(
        "rows",
        **{name: counts[name] for name in ("adds", "cancels", "deletes", "replaces", "executions")},
        hidden_executions=counts["hidden"],
        prints=counts["prints"],
        broken_trades=counts["breaks"],
        others=counts["others"],
        of_other_instruments=counts["other_instruments"],
    )
    line(
        "executions",
        made_by_the_matcher=counts["trades"],
        off_the_queue_head_replayed_as_reduces=counts["off_head"],
        at_another_price_replayed_as_reduces=counts["other_price"],
    )
    line(
        "levels",
        seeded=counts["seeded_levels"],
        adopted=counts["adopted_levels"],
        cut=counts["cut_levels"],
        orders_canceled_by_cuts=counts["cut_orders"],
    )
    line(
        "irregular",
        unknown_references=counts["unknown_references"],
        adds_that_cross=counts["crossing_adds"],
        times_that_go_back=counts["time_reversals"],
        contradicting_rows=counts["misfits"],
    )
    lines += [f"  {'note':<12}{note}" for note in report.notes]
    lines.append(
        f"  {'venue':<12}{counts['commands']:,} commands in {report.play_seconds:.3f} s:"
        f" {report.commands_per_second:,.0f} commands/s"
        f"{', its book read after each' if report.verified else ''}"
        f" (conversion {report.convert_seconds:.3f} s)"
    )
    if report.verified:
        lines.append(
            f"  {'compared':<12}the book after {report.compared_rows:,} rows,"
            f" the resting order of {report.compared_trades:,} trades"
        )
    lines += [f"  {'problem':<12}{problem}" for problem in report.problems]
    exact = "every compared row and trade is exact"
    whole = "replayed whole; the books were not compared (--verify)"
    verdict = "FAILED" if report.problems else exact if report.verified else whole
    lines.append(f"  {'verdict':<12}{verdict}")
    return "\n".join(lines)


def main(
    path: Path, recording_format: str, instrument: str | None, verify: bool, json: bool
) -> int:
    """Replay a recording and print the report; return 0 if it holds."""
    with ProgressBar() if sys.stderr.isatty() and not json else nullcontext() as bar:
        report = replay(path, recording_format, instrument, verify, bar)
    print(json_text.dumps(as_facts(report)) if json else as_text(report))
    return 0 if report.holds else FAILED
