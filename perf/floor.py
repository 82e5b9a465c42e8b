"""What the machine can do at all: the round trip of one cache line, and how still a core is.

No ring passes a message faster than the hardware passes a line, and no open-loop tail is shorter
than the gaps in which the core runs something else. Both are measured in the same run as what they
stand beside, because a host moves virtual cpus: the same two read 100 ns in one minute and 490 ns
in the next. Below 250 ns the regime is called near, else far.

Two processes bounce one cell each way, compiled by the same decorator as the product. Spinning
without `pause` was taken because it is the faster of the two here (100 ns against 110), so the
floor is the harder one to reach.

Comes before every case; `harness` interleaves it with the repeats.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ipc.clock import calibrate
from ipc.intrinsics import load_acquire, read_tsc, store_release
from ipc.kernel import kernel
from perf.children import Task, run_together, shared_words
from perf.results import Percentiles, Regime

NEAR_BELOW_NS = 250.0
PING = 0
PONG = 16
CELL_WORDS = 32
"""Two cells, each in a pair of cache lines of its own."""
MAX_GAPS = 1 << 16
GAP_NS = 1000.0


@kernel
def bounce(cells: Any, samples: Any) -> Any:
    """Send a count and wait for its return, `samples.size` times.

    Parameters
    ----------
    cells : int64[32]
        Shared; PING is written here, PONG by `bounce_back`.
    samples : int64[n]
        Private; receives each round trip in TSC ticks, one stamp a trip.
    """
    last = read_tsc()
    for trip in range(samples.size):
        # release: pairs with the load in `bounce_back`
        store_release(cells, PING, trip + 1)
        # acquire: pairs with the store in `bounce_back`
        while load_acquire(cells, PONG) != trip + 1:
            pass
        now = read_tsc()
        samples[trip] = now - last
        last = now
    return samples.size


@kernel
def bounce_back(cells: Any, trips: int) -> int:
    """Return each count as soon as it is seen."""
    for trip in range(trips):
        # acquire: pairs with the store in `bounce`
        while load_acquire(cells, PING) != trip + 1:
            pass
        # release: pairs with the load in `bounce`
        store_release(cells, PONG, trip + 1)
    return trips


@kernel
def watch_gaps(gaps: Any, threshold_ticks: int, ticks: int) -> int:
    """Spin on the cycle counter for `ticks` and keep every gap above the threshold.

    Returns
    -------
    int
        Gaps seen; no more than `gaps.size` of them were kept.
    """
    began = read_tsc()
    last = began
    seen = 0
    while last - began < ticks:
        now = read_tsc()
        if now - last > threshold_ticks:
            if seen < gaps.size:
                gaps[seen] = now - last
            seen += 1
        last = now
    return seen


@functools.cache
def ns_per_tick() -> float:
    """Return nanoseconds per TSC tick, calibrated once a process."""
    return calibrate().ns_per_tick


def regime_of(cacheline_rtt_ns: float) -> Regime:
    """Name the regime of a cache-line round trip."""
    return "near" if cacheline_rtt_ns < NEAR_BELOW_NS else "far"


class CacheLine:
    """Measures the round trip of one cache line between two cpus, as often as asked."""

    def __init__(self, here: int, there: int, trips: int) -> None:
        self.here, self.there, self.trips = here, there, trips
        self.cells = shared_words(CELL_WORDS)
        self.samples = shared_words(trips)

    def samples_ns(self) -> NDArray[np.float64]:
        """Return every round trip of one measurement."""
        self.cells[:] = 0
        run_together(
            [
                Task(
                    "cache line, here",
                    self.here,
                    lambda: (bounce(self.cells, self.samples),),
                    (self.cells, self.samples),
                ),
                Task(
                    "cache line, there",
                    self.there,
                    lambda: (bounce_back(self.cells, self.trips),),
                    (self.cells,),
                ),
            ]
        )
        return self.samples.astype(np.float64) * ns_per_tick()

    def rtt_ns(self) -> float:
        """Return the p50 of one measurement."""
        return float(np.median(self.samples_ns()))


@dataclass(frozen=True)
class Floor:
    """The machine's own floor, in the units of the rows that it stands beside."""

    cacheline_rtt_ns: float
    regime: Regime
    cacheline: Percentiles
    gaps_over_1us_per_s: float
    gap_p99_9_ns: float | None
    gap_max_ns: float | None


def measure_floor(cpus: tuple[int, ...], *, trips: int, watch_s: float) -> Floor:
    """Measure the cache line between the first two cpus, and the gaps of each of them.

    Parameters
    ----------
    cpus : tuple of int
        At least two.
    trips : int
        Round trips.
    watch_s : float
        Seconds to watch both cores, at the same time.
    """
    here, there = cpus[:2]
    samples_ns = CacheLine(here, there, trips).samples_ns()
    tick_ns = ns_per_tick()
    gaps = [shared_words(MAX_GAPS) for _ in range(2)]
    threshold, ticks = int(GAP_NS / tick_ns), int(watch_s * 1e9 / tick_ns)
    found = run_together(
        [
            Task(
                f"gaps of cpu {cpu}",
                cpu,
                functools.partial(_watch, kept, threshold, ticks),
                (kept,),
            )
            for cpu, kept in zip((here, there), gaps, strict=True)
        ]
    )
    counts = [seen for (seen,) in found]
    kept = np.concatenate([g[: min(n, MAX_GAPS)] for g, n in zip(gaps, counts, strict=True)])
    jitter = Percentiles.of_samples(kept, tick_ns)
    cacheline = Percentiles.of_samples(samples_ns)
    rtt_ns = float(np.median(samples_ns))
    return Floor(
        cacheline_rtt_ns=rtt_ns,
        regime=regime_of(rtt_ns),
        cacheline=cacheline,
        gaps_over_1us_per_s=sum(counts) / len(counts) / watch_s,
        gap_p99_9_ns=jitter.p99_9_ns,
        gap_max_ns=jitter.max_ns,
    )


def _watch(gaps: NDArray[np.int64], threshold_ticks: int, ticks: int) -> tuple[int, ...]:
    return (watch_gaps(gaps, threshold_ticks, ticks),)


def warm() -> None:
    """Compile what this file measures with, in this process, before anything is forked."""
    nothing = shared_words(0)
    cells = shared_words(CELL_WORDS)
    bounce(cells, nothing)
    bounce_back(cells, 0)
    watch_gaps(nothing, 1, 0)
    ns_per_tick()
