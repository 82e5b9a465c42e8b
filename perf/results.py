"""What a benchmark says: rows, percentiles, verdicts, and the JSON that they become.

One shape for every suite, `{"host": {...}, "rows": [...]}`, so that two runs can be compared by a
program that knows no suite. A number that was not measured is null, never 0. A verdict belongs to
the row that it judges; a verdict on a number is not judged in a smoke run (`held` is null there), a
verdict on the content always is. Percentiles come from counts of values, so a histogram and a list
of samples have the same definition of p99: the smallest value that at least 99 % do not exceed.

Comes after the measurement, before `report` (tables) and `bench` (exit status).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ipc.errors import Refused

Regime = Literal["near", "far"]
Extra = Mapping[str, int | float | str | bool | None]

QUANTILES = {
    "p50_ns": 0.5,
    "p90_ns": 0.9,
    "p99_ns": 0.99,
    "p99_9_ns": 0.999,
    "p99_99_ns": 0.9999,
}


@dataclass(frozen=True)
class Percentiles:
    """Latency in nanoseconds; all null where no latency was measured."""

    p50_ns: float | None = None
    p90_ns: float | None = None
    p99_ns: float | None = None
    p99_9_ns: float | None = None
    p99_99_ns: float | None = None
    max_ns: float | None = None

    @classmethod
    def of_histogram(
        cls, values: NDArray[Any], counts: NDArray[np.int64], ns_per_unit: float = 1.0
    ) -> Percentiles:
        """Read percentiles off a histogram.

        Parameters
        ----------
        values : number[n]
            The value of each bucket, ascending, in units of `ns_per_unit`.
        counts : int64[n]
            How often each was seen.
        """
        total = int(counts.sum())
        if total == 0:
            return cls()
        seen = np.cumsum(counts)
        # the epsilon keeps 0.999 * 1000 from landing a hair above 999
        ranks = [max(1, int(np.ceil(q * total - 1e-6))) for q in QUANTILES.values()]
        found = values[np.searchsorted(seen, ranks)] * ns_per_unit
        highest = values[np.flatnonzero(counts)[-1]] * ns_per_unit
        named = {name: float(value) for name, value in zip(QUANTILES, found, strict=True)}
        return cls(**named, max_ns=float(highest))

    @classmethod
    def of_samples(cls, samples: NDArray[Any], ns_per_unit: float = 1.0) -> Percentiles:
        """Read percentiles off single measurements, in any order."""
        values, counts = np.unique(samples, return_counts=True)
        return cls.of_histogram(values, counts.astype(np.int64), ns_per_unit)


@dataclass(frozen=True)
class Verdict:
    """Say what was wanted, what was measured, and whether it held (None: not judged)."""

    what: str
    wanted: str
    measured: str
    held: bool | None

    @property
    def word(self) -> str:
        """The verdict in a word or two."""
        return "not judged" if self.held is None else "held" if self.held else "MISSED"


@dataclass(frozen=True, kw_only=True)
class Row:
    """One measured case.

    Attributes
    ----------
    rate : float
        The planned rate per second of an open-loop case; null when as fast as it can.
    throughput_per_s : float
        The median of the repeats.
    cacheline_rtt_ns, regime
        The machine's floor, measured within this case's own repeats.
    extra
        Whatever else the case has to say; becomes further keys of the JSON row.
    """

    suite: str
    case: str
    rate: float | None = None
    throughput_per_s: float | None = None
    latency: Percentiles = field(default_factory=Percentiles)
    cacheline_rtt_ns: float | None = None
    regime: Regime | None = None
    extra: Extra = field(default_factory=dict)
    verdicts: tuple[Verdict, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """Return the row as plain JSON values, the fixed keys first."""
        row: dict[str, Any] = {
            "suite": self.suite,
            "case": self.case,
            "rate": self.rate,
            "throughput_per_s": _rounded(self.throughput_per_s),
        }
        for column in fields(Percentiles):
            row[column.name] = _rounded(getattr(self.latency, column.name))
        row["cacheline_rtt_ns"] = _rounded(self.cacheline_rtt_ns)
        row["regime"] = self.regime
        clash = row.keys() & self.extra.keys()
        if clash or "verdicts" in self.extra:
            raise Refused(
                "a benchmark row says one thing twice",
                expected="extra keys that are not fixed ones",
                found=", ".join(sorted(clash)) or "verdicts",
                where=f"{self.suite}/{self.case}",
            )
        row.update({name: _rounded(value) for name, value in self.extra.items()})
        row["verdicts"] = [
            {"what": v.what, "wanted": v.wanted, "measured": v.measured, "held": v.held}
            for v in self.verdicts
        ]
        return row


@dataclass(frozen=True)
class SuiteResult:
    """What `run` of a suite returns: its parameters and its rows."""

    suite: str
    config: Extra
    rows: tuple[Row, ...]

    @property
    def verdicts(self) -> tuple[tuple[Row, Verdict], ...]:
        """Every verdict beside the row that it judges."""
        return tuple((row, verdict) for row in self.rows for verdict in row.verdicts)

    @property
    def holds(self) -> bool:
        """Whether no verdict was missed."""
        return all(verdict.held is not False for _, verdict in self.verdicts)


def at_least(what: str, wanted: float, measured: float, unit: str, *, judged: bool) -> Verdict:
    """Judge that a number reaches a bar."""
    return Verdict(
        what,
        f"at least {wanted:g} {unit}".strip(),
        f"{measured:.4g} {unit}".strip(),
        measured >= wanted if judged else None,
    )


def at_most(what: str, wanted: float, measured: float, unit: str, *, judged: bool) -> Verdict:
    """Judge that a number stays at or below a bar."""
    return Verdict(
        what,
        f"at most {wanted:g} {unit}".strip(),
        f"{measured:.4g} {unit}".strip(),
        measured <= wanted if judged else None,
    )


def content(what: str, wrong: int, checked: int) -> Verdict:
    """Judge that everything that was read is what was written; always judged."""
    return Verdict(what, "0 wrong", f"{wrong:,} wrong of {checked:,}", wrong == 0 and checked > 0)


def _rounded(value: Any) -> Any:
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        return round(value, 1) if abs(value) >= 10 else round(value, 4)
    return value
