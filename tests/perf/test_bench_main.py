"""`perf.bench.main`: what it prints, what it refuses, and its exit status."""

from __future__ import annotations

import json
import platform

import pytest

from hftcore.errors import UsageRefused
from ipc.errors import Refused
from perf import bench
from perf.floor import NEAR_BELOW_NS
from perf.harness import repeat_by_regime
from perf.results import Row, SuiteResult

NEAR, FAR = NEAR_BELOW_NS / 2, NEAR_BELOW_NS * 2


@pytest.fixture(autouse=True)
def _toy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(bench.SUITES, "toy", "toy_suite")
    # the floor is measured for 1 s outside a smoke run
    monkeypatch.setattr(bench, "WATCH_S", 0.01)
    monkeypatch.setattr(bench, "TRIPS", 1_000)


@pytest.mark.parametrize(
    ("case", "smoke", "status"),
    [("held", False, 0), ("missed", False, 1), (None, False, 1), (None, True, 0)],
)
def test_exit_status_is_zero_only_when_no_verdict_was_missed(
    case: str | None, smoke: bool, status: int
) -> None:
    assert bench.main("toy", case=case, smoke=smoke) == status


def test_json_alone_stands_on_stdout_and_has_the_fixed_shape(
    capsys: pytest.CaptureFixture[str],
) -> None:
    bench.main("ring", case="rtt", json=True, smoke=True)
    printed = capsys.readouterr()
    report = json.loads(printed.out)
    assert report.keys() == {"host", "rows"}
    assert [row["case"] for row in report["rows"]] == ["rtt"]
    assert report["rows"][0]["p50_ns"] > 0
    assert report["rows"][0]["regime"] in ("near", "far")
    assert "ring/rtt" in printed.err


def test_host_describes_the_class_of_machine_and_names_neither_it_nor_a_path(
    capsys: pytest.CaptureFixture[str],
) -> None:
    bench.main("toy", json=True)
    host = json.loads(capsys.readouterr().out)["host"]
    assert host.keys() >= {
        "host", "kernel", "cpu_model", "cpus", "caches", "python", "numpy", "numba", "commit",
        "config", "date", "floor",
    }  # fmt: skip
    assert host["floor"]["cacheline_rtt_ns"] > 0
    assert platform.node() not in json.dumps(host)
    assert '"/' not in json.dumps(host)


def test_table_prints_rows_and_verdict_lines(capsys: pytest.CaptureFixture[str]) -> None:
    bench.main("toy")
    printed = capsys.readouterr().out
    lines = printed.splitlines()
    assert any(line.startswith("held") and "wanted at least 1 /s" in line for line in lines)
    assert any(line.startswith("MISSED") and "measured 2 /s" in line for line in lines)
    assert "floor: cache line" in printed


def test_an_unknown_suite_is_refused_with_the_known_ones() -> None:
    with pytest.raises(UsageRefused, match="one of ring, "):
        bench.main("rings")


def test_an_unknown_case_is_refused_before_anything_is_measured(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(UsageRefused, match="held, missed"):
        bench.main("toy", case="other")
    assert capsys.readouterr().err == ""


def test_repeats_keep_the_more_frequent_regime_and_leave_the_others_out() -> None:
    floors = iter([NEAR, NEAR, FAR, FAR, FAR, FAR])
    repeats = repeat_by_regime(iter("abcde").__next__, floors.__next__, 3, 60.0)
    # a: near; b: it changed meanwhile; c, d, e: far
    assert (repeats.regime, repeats.values) == ("far", ("c", "d", "e"))
    assert repeats.left_out == ("a", "b")
    assert repeats.cacheline_rtt_ns == (FAR, FAR, FAR)


def test_repeats_stop_at_the_budget_with_what_there_is() -> None:
    repeats = repeat_by_regime(lambda: 1, lambda: NEAR, 1_000, 0.0)
    assert repeats.values == (1,)


def test_repeats_on_a_machine_that_never_stays_are_refused() -> None:
    floors = iter([NEAR, FAR] * 10)
    with pytest.raises(Refused, match="changed its regime"):
        repeat_by_regime(lambda: 1, floors.__next__, 3, 60.0)


def test_suite_that_takes_too_long_is_missed_and_one_in_time_is_not() -> None:
    row = Row(suite="toy", case="toy")
    result = SuiteResult("toy", {}, (row, row))
    for seconds, held in ((bench.SUITE_BAR_S + 1, False), (bench.SUITE_BAR_S - 1, True)):
        timed = bench.judged_by_time(result, seconds, judged=True)
        assert [verdict.held for _, verdict in timed.verdicts] == [held]
        assert timed.holds is held
    assert bench.judged_by_time(result, 1e9, judged=False).holds
