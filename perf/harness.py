"""What every suite is given, and how a measurement is repeated on a machine that drifts.

A suite is a module with `CASES` (names), `warm()` (compile every kernel in this process) and
`run(options) -> SuiteResult`; `bench.SUITES` names the modules.

Repeats are interleaved with the machine's floor: the cache line before and after each repeat. Where
the two disagree about the regime the host has moved a cpu in between, and the repeat is left out;
of the others those of the more frequent regime are kept. So a row has one regime, and a ratio is
made of two numbers measured within milliseconds. Medians, because a neighbour's burst hits a few
repeats hard; taking the best would report the luckiest instead.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import numpy as np

from hftcore.errors import Refused, UsageRefused
from perf.floor import regime_of
from perf.host import choose_cpus
from perf.results import Regime, SuiteResult

T = TypeVar("T")
U = TypeVar("U")


def _silent(line: str) -> None:
    return None


@dataclass(frozen=True)
class Options:
    """What a suite is asked for.

    Attributes
    ----------
    case : str
        Run this case only; None runs all.
    smoke : bool
        Tiny parameters: numbers are not judged, content still is.
    progress : Callable
        Receives a line of text now and then.
    cpus : tuple of int
        Where to run, first the writer's or the only one; empty: `pinned` chooses.
    corrupt : bool
        Spoil one message of each run, to see that the checks can fail (tests).
    """

    case: str | None = None
    smoke: bool = False
    progress: Callable[[str], None] = _silent
    cpus: tuple[int, ...] = ()
    corrupt: bool = False

    def pinned(self, count: int = 2) -> tuple[int, ...]:
        """Return the cpus to run on: at least two, at most `count`."""
        return self.cpus[:count] or choose_cpus(count)

    def cases(self, suite: str, known: Sequence[str]) -> tuple[str, ...]:
        """Return the cases to run.

        Raises
        ------
        UsageRefused
            When the suite has no such case.
        """
        if self.case is None:
            return tuple(known)
        if self.case not in known:
            raise UsageRefused(
                f"suite {suite} has no case {self.case!r}",
                expected=", ".join(known),
                found=self.case,
                remedy="leave --case out to run all",
            )
        return (self.case,)


class Suite(Protocol):
    """What a suite's module offers."""

    CASES: tuple[str, ...]

    def warm(self) -> None:
        """Compile every kernel of the suite in this process."""

    def run(self, options: Options) -> SuiteResult:
        """Measure."""


@dataclass(frozen=True)
class Repeats(Generic[T]):
    """The repeats of one measurement that belong to one regime.

    Attributes
    ----------
    values : tuple
        What each repeat returned.
    cacheline_rtt_ns : tuple of float
        The cache line beside each: the mean of before and after.
    left_out : tuple
        What the other repeats returned: of the other regime, or the regime changed meanwhile. Their
        times do not count, their content does.
    """

    regime: Regime
    values: tuple[T, ...]
    cacheline_rtt_ns: tuple[float, ...]
    left_out: tuple[T, ...]

    @property
    def floor_ns(self) -> float:
        """The cache line's round trip over all these repeats."""
        return float(np.median(self.cacheline_rtt_ns))

    def each(self, choose: Callable[[T], U]) -> Repeats[U]:
        """Return the same repeats with a part of what each returned."""
        return Repeats(
            self.regime,
            tuple(choose(value) for value in self.values),
            self.cacheline_rtt_ns,
            tuple(choose(value) for value in self.left_out),
        )


def repeat_by_regime(
    measure: Callable[[], T],
    cacheline_rtt_ns: Callable[[], float],
    repeats: int,
    budget_s: float,
) -> Repeats[T]:
    """Measure `repeats` times between measurements of the floor; keep the more frequent regime.

    A change of regime costs a repeat, so up to twice as many are made; after `budget_s` seconds it
    stops with what there is.
    """
    measured: list[tuple[Regime | None, T, float]] = []
    deadline = time.monotonic() + budget_s
    before = cacheline_rtt_ns()
    while len(measured) < 2 * repeats:
        value = measure()
        after = cacheline_rtt_ns()
        stayed = regime_of(before) == regime_of(after)
        measured.append((regime_of(after) if stayed else None, value, (before + after) / 2))
        before = after
        frequent = Counter(found for found, _, _ in measured if found).most_common(1)
        late = time.monotonic() > deadline
        if frequent and (late or frequent[0][1] >= repeats):
            break
    if not frequent:
        raise Refused(
            "the machine changed its regime in every repeat",
            expected="a cache-line round trip that stays near or far for a few milliseconds",
            found=f"{len(measured)} changes in {len(measured)} repeats",
            remedy="run again when the host is quieter",
        )
    regime = frequent[0][0]
    chosen = [(value, rtt) for found, value, rtt in measured if found == regime]
    return Repeats(
        regime,
        tuple(value for value, _ in chosen),
        tuple(rtt for _, rtt in chosen),
        tuple(value for found, value, _ in measured if found != regime),
    )


def median(values: Sequence[float]) -> float:
    """Return the median."""
    return float(np.median(values))
