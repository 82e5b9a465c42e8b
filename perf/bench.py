"""`hft bench SUITE`: find the suite, measure the floor, run, report, judge.

A new suite is one line in SUITES and a module with `CASES`, `warm()` and `run(options)`
(`harness.Suite`). Modules are imported when their suite is asked for, so a suite that needs an
optional package does not stop the others.

On stdout stands either the report or, with `--json`, one JSON object and nothing else; progress
goes to stderr. The exit status is 0 only when no verdict was missed.
"""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from importlib import import_module
from json import dumps
from typing import Any, cast

from hftcore.errors import UsageRefused
from perf import floor
from perf.harness import Options, Suite
from perf.host import Host, describe_host
from perf.report import print_report, verdict_line
from perf.results import SuiteResult, at_most

SUITES = {
    "ring": "perf.ring_suite",
    "match": "perf.match_suite",
    "feed": "perf.feed_suite",
    "spine": "perf.spine_suite",
    "venue": "perf.venue_suite",
}
"""Each suite's name and the module that offers it."""

SUITE_BAR_S = 45.0
HELD, MISSED = 0, 1
TRIPS, WATCH_S = 100_000, 1.0
"""How long the machine's floor is measured at the beginning of a run; a smoke run does a tenth."""


def main(suite: str, case: str | None = None, *, json: bool = False, smoke: bool = False) -> int:
    """Run a suite and print it; return 0 when every verdict held, else 1.

    Raises
    ------
    UsageRefused
        When there is no such suite or case; it names those that there are.
    """
    options = Options(case=case, smoke=smoke, progress=_progress)
    host, result = measure(suite, options)
    if json:
        print(dumps(as_json(host, result), indent=2))
        for row, verdict in result.verdicts:
            print(verdict_line(row, verdict).plain, file=sys.stderr)
    else:
        print_report(host, result, sys.stdout)
    return HELD if result.holds else MISSED


def measure(suite: str, options: Options) -> tuple[Host, SuiteResult]:
    """Run a suite beside the machine's floor."""
    module = load(suite)
    options.cases(suite, module.CASES)
    options = replace(options, cpus=options.pinned(3))
    floor.warm()
    options.progress("floor")
    measured = floor.measure_floor(
        options.cpus,
        trips=TRIPS // 10 if options.smoke else TRIPS,
        watch_s=WATCH_S / 10 if options.smoke else WATCH_S,
    )
    module.warm()
    began = time.monotonic()
    result = module.run(options)
    result = judged_by_time(result, time.monotonic() - began, judged=not options.smoke)
    return describe_host(options.cpus, measured, result.config), result


def judged_by_time(result: SuiteResult, seconds: float, *, judged: bool) -> SuiteResult:
    """Add to the last row how long the suite took with its kernels compiled."""
    if not result.rows:
        return result
    last = result.rows[-1]
    verdict = at_most("the suite, kernels compiled", SUITE_BAR_S, seconds, "s", judged=judged)
    return replace(
        result, rows=(*result.rows[:-1], replace(last, verdicts=(*last.verdicts, verdict)))
    )


def load(suite: str) -> Suite:
    """Import a suite's module."""
    if suite not in SUITES:
        raise UsageRefused(
            f"there is no benchmark suite {suite!r}",
            expected="one of " + ", ".join(SUITES),
            found=suite,
            remedy=f"hft bench {next(iter(SUITES))}",
        )
    return cast(Suite, import_module(SUITES[suite]))


def warm() -> None:
    """Compile every kernel of every suite in this process, for `hft warm`."""
    for suite in SUITES:
        load(suite).warm()


def as_json(host: Host, result: SuiteResult) -> dict[str, Any]:
    """Return a run as plain JSON values; the shape is fixed."""
    return {"host": host.as_json(), "rows": [row.as_json() for row in result.rows]}


def _progress(line: str) -> None:
    print(f"  {line}", file=sys.stderr, flush=True)
