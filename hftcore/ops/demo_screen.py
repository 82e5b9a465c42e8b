"""What the demo shows while it runs and when it ends: a live table, plain lines, a summary.

On a terminal a table is redrawn four times a second; elsewhere (a pipe, CI) one line a second says
the same in short. Both are drawn from `Sample`s, pictures of the venue at one moment, so that rates
are differences of two of them. Prices come from the matchers' shared memory, read while they write:
a best level may be a moment old, it is only looked at.

Comes after `demo`, which takes the samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

PERCENTILES = (50.0, 90.0, 99.0, 99.9)


@dataclass(frozen=True)
class Top:
    """Best bid and ask of an instrument: price and quantity, None where a side is empty."""

    symbol: str
    bid: tuple[Decimal, Decimal] | None
    ask: tuple[Decimal, Decimal] | None
    orders: int
    updates: int
    """Public updates so far."""


@dataclass(frozen=True)
class Sample:
    """The venue at one moment of the demo."""

    seconds: float
    """Since the first command."""
    counts: dict[str, int]
    """The flow's counters."""
    updates: int
    """That the subscriber has applied."""
    gaps: int
    latency_ns: tuple[int, ...]
    """At PERCENTILES, and the maximum."""
    lags: dict[str, int]
    """Slots between each ring's writer and its slowest reader."""
    tops: tuple[Top, ...]


def time_text(nanoseconds: float) -> str:
    """Return a duration in three digits and its unit."""
    for unit, size in (("s", 1e9), ("ms", 1e6), ("us", 1e3)):
        if nanoseconds >= size:
            value = nanoseconds / size
            return f"{value:.{0 if value >= 100 else 1 if value >= 10 else 2}f} {unit}"
    return f"{nanoseconds:.0f} ns"


def rate_text(count: int, seconds: float) -> str:
    """Return events a second, short."""
    rate = count / seconds if seconds > 0 else 0.0
    return f"{rate / 1e6:.2f} M/s" if rate >= 999_500 else f"{rate / 1e3:.1f} k/s"


def _rates(now: Sample, before: Sample) -> dict[str, str]:
    seconds = now.seconds - before.seconds
    return {
        "orders": rate_text(
            now.counts["commands_answered"] - before.counts["commands_answered"], seconds
        ),
        "trades": rate_text(now.counts["trades"] - before.counts["trades"], seconds),
        "updates": rate_text(now.updates - before.updates, seconds),
    }


def _latencies(sample: Sample) -> list[tuple[str, str]]:
    names = [f"p{percent:g}" for percent in PERCENTILES] + ["max"]
    return list(zip(names, map(time_text, sample.latency_ns), strict=True))


def line(now: Sample, before: Sample) -> str:
    """Say in one line how it goes, for a log."""
    rates = _rates(now, before)
    latencies = " ".join(f"{name} {value}" for name, value in _latencies(now))
    ring, lag = max(now.lags.items(), key=lambda item: item[1])
    return (
        f"{now.seconds:5.1f} s  orders {rates['orders']}  trades {rates['trades']}"
        f"  feed {rates['updates']}  {latencies}  lag {lag:,} ({ring})"
    )


def table(now: Sample, before: Sample, title: str) -> Any:
    """Draw the live table; it fits 80 columns."""
    rates = _rates(now, before)
    head = Table.grid(padding=(0, 2))
    for _ in range(6):
        head.add_column(justify="right")
    head.add_row(
        "orders", rates["orders"], "trades", rates["trades"], "feed updates", rates["updates"]
    )
    head.add_row(
        "sent", f"{now.counts['commands_sent']:,}", "traded", f"{now.counts['trades']:,}",
        "refused", f"{now.counts['rejects']:,}",
    )  # fmt: skip
    rows = Table.grid(padding=(0, 2))
    rows.add_row("latency", _pairs(_latencies(now)))
    rows.add_row("lag", _pairs([(ring, f"{lag:,}") for ring, lag in now.lags.items()]))
    books = Table(box=None, pad_edge=False, padding=(0, 2), header_style="dim")
    books.add_column("instrument")
    for name in ("bid qty", "bid", "ask", "ask qty", "orders"):
        books.add_column(name, justify="right")
    for top in now.tops:
        books.add_row(top.symbol, *_sides(top), f"{top.orders:,}")
    clock = Text(f"{title}   {now.seconds:.1f} s", "bold")
    return Group(clock, Text(), head, Text(), rows, Text(), books)


def _pairs(pairs: Sequence[tuple[str, str]]) -> Text:
    text = Text()
    for name, value in pairs:
        # a pair is not divided at the end of a line
        text.append(name + "\N{NO-BREAK SPACE}", "dim").append(
            value.replace(" ", "\N{NO-BREAK SPACE}") + "   "
        )
    return text


def _sides(top: Top) -> tuple[str, str, str, str]:
    bid, ask = ("", ""), ("", "")
    if top.bid:
        bid = (f"{top.bid[1]:f}", f"{top.bid[0]:f}")
    if top.ask:
        ask = (f"{top.ask[0]:f}", f"{top.ask[1]:f}")
    return (*bid, *ask)


def summary(last: Sample, problems: Sequence[str], agreed: Sequence[str], symbols: int) -> str:
    """Say what ran and whether it holds."""
    counts = last.counts
    latencies = ", ".join(f"{name} {value}" for name, value in _latencies(last))
    lines = [
        f"sent       {counts['commands_sent']:,} commands in {last.seconds:.1f} s"
        f" ({rate_text(counts['commands_sent'], last.seconds)}),"
        f" {counts['trades']:,} trades, {counts['rejects']:,} refused",
        f"answered   {counts['commands_answered']:,} commands, each once"
        if not counts["doubled"] and counts["commands_answered"] == counts["commands_sent"]
        else f"answered   {counts['commands_answered']:,} commands",
        f"latency    {latencies}",
        "           of a command, from its planned send time to its answer",
        f"feed       {last.updates:,} updates rebuilt by a subscriber, {last.gaps} gaps",
        f"books      {len(agreed)} of {symbols} equal the matcher's"
        + (f": {', '.join(agreed)}" if agreed else ""),
    ]
    lines += [f"problem    {problem}" for problem in problems]
    lines.append(
        "verdict    FAILED"
        if problems
        else "verdict    every command answered once, every rebuilt book is the matcher's"
    )
    return "\n".join(lines)
