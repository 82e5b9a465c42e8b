"""The cycle counter as a clock. What it measures is compared with the kernel's clock loosely: the
tests prove the arithmetic and the refusals, not this machine's oscillator."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numba
import numpy as np
import pytest

from ipc.clock import TscClock, calibrate, missing_flags, now_ticks, ticks_to_ns
from ipc.errors import ClockRefused
from tests.processes import poll_until

needs_tsc = pytest.mark.skipif(bool(missing_flags()), reason="this host has no invariant TSC")


@numba.njit
def convert(ticks: Any, ns_per_tick: float) -> Any:
    """Call `ticks_to_ns`."""
    return ticks_to_ns(ticks, ns_per_tick)


def test_clock_turns_ticks_into_nanoseconds_and_back() -> None:
    clock = TscClock(ns_per_tick=0.4, base_ticks=1000, base_ns=5_000_000, error_ppm=1.0)
    assert clock.duration_ns(2500) == 1000.0
    assert clock.duration_ns(np.array([5, 10])).tolist() == [2.0, 4.0]
    assert clock.ticks_for(1000) == 2500
    assert clock.at_ns(1000) == 5_000_000
    assert clock.at_ns(1250) == 5_000_100
    assert clock.at_ns(750) == 4_999_900
    assert convert(2500, 0.4) == 1000


@needs_tsc
def test_calibrated_clock_runs_with_the_kernels() -> None:
    clock = calibrate(20_000_000)
    assert clock.error_ppm > 0

    def readings() -> tuple[int, int, int]:
        return time.monotonic_ns(), int(now_ticks()), time.monotonic_ns()

    first = readings()
    poll_until(lambda: time.monotonic_ns() > first[0] + 50_000_000, "some time to pass")
    last = readings()
    told_ns = clock.duration_ns(last[1] - first[1])
    slack_ns = 2 * clock.error_ppm / 1e6 * told_ns + 1000
    # each reading lies between two of the kernel's clock
    assert last[0] - first[2] - slack_ns <= told_ns <= last[2] - first[0] + slack_ns
    assert abs(clock.at_ns(last[1]) - last[0]) <= last[2] - last[0] + 2 * slack_ns


def cpuinfo(path: Path, *flags_of_each: str) -> Path:
    """Write a cpuinfo with these flags, one processor each."""
    text = "".join(
        f"processor\t: {number}\nmodel name\t: X nonstop_tsc\nflags\t\t: {flags}\n\n"
        for number, flags in enumerate(flags_of_each)
    )
    (path / "cpuinfo").write_text(text)
    return path / "cpuinfo"


@pytest.mark.parametrize(
    ("flags", "missing"),
    [
        (("fpu constant_tsc nonstop_tsc", "nonstop_tsc constant_tsc"), []),
        (("fpu constant_tsc nonstop_tsc", "constant_tsc"), ["nonstop_tsc"]),
        (("fpu tsc",), ["constant_tsc", "nonstop_tsc"]),
        ((), ["constant_tsc", "nonstop_tsc"]),
    ],
)
def test_flags_that_one_processor_lacks_are_missing(
    tmp_path: Path, flags: tuple[str, ...], missing: list[str]
) -> None:
    assert missing_flags(cpuinfo(tmp_path, *flags)) == missing


def test_host_without_a_steady_counter_is_refused(tmp_path: Path) -> None:
    path = cpuinfo(tmp_path, "fpu tsc constant_tsc")
    with pytest.raises(ClockRefused) as refused:
        calibrate(1, path)
    assert str(refused.value) == (
        "this host's cycle counter is no clock; expected: the flags constant_tsc and nonstop_tsc; "
        f"found: no nonstop_tsc; where: {path}; "
        "remedy: run on a host with an invariant TSC, or pass the flags through to the guest"
    )
