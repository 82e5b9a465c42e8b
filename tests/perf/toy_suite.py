"""A suite without processes, to test what runs suites: `missed` misses its verdict."""

from __future__ import annotations

from perf.harness import Options
from perf.results import Row, SuiteResult, at_least

CASES = ("held", "missed")


def warm() -> None:
    """Compile nothing."""


def run(options: Options) -> SuiteResult:
    """Judge a number that is known."""
    rows = [
        Row(
            suite="toy",
            case=case,
            throughput_per_s=2.0,
            verdicts=(
                at_least(
                    "rate", 3.0 if case == "missed" else 1.0, 2.0, "/s", judged=not options.smoke
                ),
            ),
        )
        for case in options.cases("toy", CASES)
    ]
    return SuiteResult("toy", {"smoke": options.smoke}, tuple(rows))
