"""A benchmark for the eye: the host, one table of rows, one line a verdict.

Tables are wide (an open-loop latency needs six percentiles), so they are printed at their own width
and never folded: a figure broken in two is worse than a line that scrolls. The same content as JSON
is `bench.as_json`. Comes last, after everything was measured.
"""

from __future__ import annotations

from dataclasses import fields
from typing import IO

from rich.console import Console
from rich.table import Table
from rich.text import Text

from perf.host import Host
from perf.results import Percentiles, Row, SuiteResult, Verdict

WIDTH = 140
STYLES = {"held": "green", "MISSED": "bold red", "not judged": "dim"}


def print_report(host: Host, result: SuiteResult, file: IO[str]) -> None:
    """Print host, rows and verdicts to `file`."""
    console = Console(file=file, highlight=False, width=WIDTH, soft_wrap=True)
    for line in host_lines(host):
        console.print(Text(line, style="dim"))
    console.print()
    console.print(table_of(result.rows))
    for row in result.rows:
        note = ", ".join(
            f"{name} {_figure(value)}" for name, value in row.extra.items() if value is not None
        )
        console.print(Text.assemble((f"{row.case:18}", "bold"), (note, "dim")))
    console.print()
    for row, verdict in result.verdicts:
        console.print(verdict_line(row, verdict))


def host_lines(host: Host) -> list[str]:
    """Return the header, a few lines of text."""
    commit = host.commit or "no commit"
    lines = [
        f"{host.host}; {host.cpu_model}; {host.kernel}; on cpus "
        + ", ".join(map(str, host.cpus_used)),
        "caches " + ", ".join(f"{name} {size}" for name, size in host.caches.items()),
        f"Python {host.python}, numpy {host.numpy}, numba {host.numba}; {commit}"
        + (" with local changes" if host.modified else "")
        + f"; {host.date}",
        "config " + ", ".join(f"{name} {value}" for name, value in host.config.items()),
    ]
    if host.floor is not None:
        floor = host.floor
        lines.append(
            f"floor: cache line there and back p50 {floor.cacheline_rtt_ns:.0f} ns"
            f" ({floor.regime}); a spinning core is stopped for over 1 us"
            f" {floor.gaps_over_1us_per_s:,.0f} times a second,"
            f" p99.9 {_us(floor.gap_p99_9_ns)}, max {_us(floor.gap_max_ns)}"
        )
    return lines


def table_of(rows: tuple[Row, ...]) -> Table:
    """Lay the fixed columns of the rows out as a table."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("case", no_wrap=True)
    for name in ("rate/s", "M/s"):
        table.add_column(name, justify="right", no_wrap=True)
    for column in fields(Percentiles):
        name = column.name.removesuffix("_ns").replace("_", ".")
        table.add_column(f"{name} ns", justify="right", no_wrap=True)
    table.add_column("line ns", justify="right", no_wrap=True)
    table.add_column("regime", no_wrap=True)
    for row in rows:
        table.add_row(
            row.case,
            "" if row.rate is None else f"{row.rate:,.0f}",
            "" if row.throughput_per_s is None else f"{row.throughput_per_s / 1e6:,.4g}",
            *(_ns(getattr(row.latency, column.name)) for column in fields(Percentiles)),
            _ns(row.cacheline_rtt_ns),
            row.regime or "",
        )
    return table


def verdict_line(row: Row, verdict: Verdict) -> Text:
    """Return one verdict: the word, the case, what, wanted, measured."""
    return Text.assemble(
        (f"{verdict.word:11}", STYLES[verdict.word]),
        (f"{row.case:18}", "bold"),
        f"{verdict.what}: wanted {verdict.wanted}, measured {verdict.measured}",
    )


def _ns(value: float | None) -> str:
    return "" if value is None else f"{value:,.0f}"


def _us(value: float | None) -> str:
    return "none" if value is None else f"{value / 1000:,.0f} us"


def _figure(value: int | float | str | bool) -> str:
    if isinstance(value, bool | str):
        return str(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:,.4g}"
