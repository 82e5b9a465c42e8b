"""The processor's cycle counter as a clock: 8 ns a reading against 20 for clock_gettime.

Stamps in hot loops are ticks (`read_tsc`); whoever reports them turns ticks into nanoseconds with
one multiplication. That works where the counter runs at one rate in all states of the processor,
which Linux says in /proc/cpuinfo (constant_tsc, nonstop_tsc); elsewhere `calibrate` refuses.

The rate is measured against CLOCK_MONOTONIC between two brackets: of some readings of the kernel's
clock between two of the counter, the tightest counts. Its width over the distance of the brackets
bounds the error, and the clock carries that bound. With the JIT off the counter is
perf_counter_ns, and a tick is a nanosecond.

Rejected: the frequency that the kernel prints at boot (not on every host, and rounded), the
processor's name (2.6 GHz there is 2.5961 here).
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ipc.errors import ClockRefused
from ipc.intrinsics import read_tsc
from ipc.kernel import kernel

INVARIANT_FLAGS = ("constant_tsc", "nonstop_tsc")
_CPUINFO = Path("/proc/cpuinfo")


@kernel
def now_ticks() -> Any:
    """Return the cycle counter, for code outside kernels (about 0.1 us with the call)."""
    return read_tsc()


@kernel(inline=True)
def ticks_to_ns(ticks: Any, ns_per_tick: float) -> Any:
    """Turn a duration in ticks into whole nanoseconds."""
    return int(ticks * ns_per_tick)


@dataclass(frozen=True)
class TscClock:
    """The counter's rate and its place on CLOCK_MONOTONIC.

    Attributes
    ----------
    ns_per_tick : float
    base_ticks, base_ns : int
        The same moment on both clocks.
    error_ppm : float
        Bound of the rate's error, parts in a million; one is 3.6 ms an hour.
    """

    ns_per_tick: float
    base_ticks: int
    base_ns: int
    error_ppm: float

    def duration_ns(self, ticks: Any) -> Any:
        """Turn ticks (a number or an array) into nanoseconds (float)."""
        return ticks * self.ns_per_tick

    def at_ns(self, ticks: int) -> int:
        """Turn a stamp into nanoseconds on CLOCK_MONOTONIC; good near the calibration."""
        return self.base_ns + round((ticks - self.base_ticks) * self.ns_per_tick)

    def ticks_for(self, duration_ns: float) -> int:
        """Turn a duration into ticks."""
        return round(duration_ns / self.ns_per_tick)


def missing_flags(cpuinfo: Path = _CPUINFO) -> list[str]:
    """Return which of the flags of a steady counter some processor lacks."""
    flags = [
        set(line.partition(":")[2].split())
        for line in cpuinfo.read_text().splitlines()
        if line.startswith("flags")
    ]
    common = set.intersection(*flags) if flags else set()
    return [flag for flag in INVARIANT_FLAGS if flag not in common]


def calibrate(duration_ns: int = 50_000_000, cpuinfo: Path = _CPUINFO) -> TscClock:
    """Measure the counter's rate; takes `duration_ns` and a little.

    Raises
    ------
    ClockRefused
        When the counter changes its rate or stops in some states of the processor.
    """
    missing = missing_flags(cpuinfo)
    if missing:
        raise ClockRefused(
            "this host's cycle counter is no clock",
            expected=f"the flags {' and '.join(INVARIANT_FLAGS)}",
            found=f"no {' and no '.join(missing)}",
            where=str(cpuinfo),
            remedy="run on a host with an invariant TSC, or pass the flags through to the guest",
        )
    now_ticks()  # compile before measuring
    first_ticks, first_ns, first_width = _bracket()
    until_ns = first_ns + duration_ns
    while (left_ns := until_ns - time.monotonic_ns()) > 0:
        time.sleep(left_ns / 1e9)
    last_ticks, last_ns, last_width = _bracket()
    ticks = last_ticks - first_ticks
    return TscClock(
        ns_per_tick=(last_ns - first_ns) / ticks,
        base_ticks=last_ticks,
        base_ns=last_ns,
        error_ppm=(first_width + last_width) / 2 / ticks * 1e6,
    )


def _bracket(attempts: int = 50) -> tuple[int, int, int]:
    """Read both clocks at one moment: ticks (middle), ns, ticks (width of the bracket)."""
    best = (0, 0, 1 << 62)
    for _ in range(attempts):
        before = int(now_ticks())
        ns = time.monotonic_ns()
        after = int(now_ticks())
        if after - before < best[2]:
            best = ((before + after) // 2, ns, after - before)
    return best
