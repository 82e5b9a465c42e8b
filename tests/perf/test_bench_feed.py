"""The feed suite checks what it measures: one spoiled event of a run is found in every case."""

from __future__ import annotations

import pytest

from perf import bench, feed_suite
from perf.harness import Options


def test_smoke_run_holds_and_has_a_row_for_every_case() -> None:
    result = feed_suite.run(Options(smoke=True))
    assert tuple(row.case for row in result.rows) == feed_suite.CASES
    assert result.holds
    assert "placement" in result.config
    for row, verdict in result.verdicts:
        assert verdict.held is (True if "every" in verdict.what else None), (row.case, verdict)


@pytest.mark.parametrize("case", feed_suite.CASES)
def test_one_spoiled_event_fails_the_case(case: str) -> None:
    result = feed_suite.run(Options(case=case, smoke=True, corrupt=True))
    missed = [verdict for _, verdict in result.verdicts if verdict.held is False]
    assert missed, "a spoiled event went unnoticed"
    assert all(verdict.wanted == "0 wrong" for verdict in missed)


def test_the_suite_is_known_to_the_bench() -> None:
    assert bench.load("feed").CASES == feed_suite.CASES
