"""Percentiles, rows and verdicts: the numbers that a report stands on, from known inputs."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest

from ipc.errors import Refused
from perf.results import Percentiles, Row, SuiteResult, Verdict, at_least, at_most, content

FIXED_KEYS = {
    "suite", "case", "rate", "throughput_per_s", "p50_ns", "p90_ns", "p99_ns", "p99_9_ns",
    "p99_99_ns", "max_ns", "cacheline_rtt_ns", "regime",
}  # fmt: skip


def test_percentiles_of_a_known_histogram_are_its_ranks() -> None:
    # 1 to 10,000, once each: the smallest value that q of all do not exceed is q * 10,000
    values = np.arange(1, 10_001)
    found = Percentiles.of_histogram(values, np.ones(10_000, np.int64))
    assert found == Percentiles(5_000, 9_000, 9_900, 9_990, 9_999, 10_000)


def test_percentiles_of_a_skewed_histogram_step_with_its_counts() -> None:
    values, counts = np.array([10, 20, 30, 40]), np.array([900, 90, 9, 1])
    found = Percentiles.of_histogram(values, counts, ns_per_unit=0.5)
    assert found == Percentiles(5, 5, 10, 15, 20, 20)


def test_percentiles_ignore_empty_buckets_at_both_ends() -> None:
    values, counts = np.array([1, 2, 3, 4]), np.array([0, 5, 0, 0])
    assert Percentiles.of_histogram(values, counts).max_ns == 2


def test_percentiles_of_samples_agree_with_the_histogram_of_the_same_samples() -> None:
    seed = 7
    samples = np.random.default_rng(seed).integers(1, 500, 12_345)
    counts = np.bincount(samples)
    expected = Percentiles.of_histogram(np.arange(counts.size), counts)
    assert Percentiles.of_samples(samples) == expected, f"seed {seed}"


def test_percentiles_of_nothing_are_null() -> None:
    assert Percentiles.of_samples(np.zeros(0, np.int64)) == Percentiles()


def test_a_row_without_numbers_has_every_key_and_nulls() -> None:
    row = Row(suite="s", case="c").as_json()
    assert row.keys() >= FIXED_KEYS
    assert {key for key in FIXED_KEYS if row[key] is not None} == {"suite", "case"}


def test_a_row_with_numbers_carries_them_and_its_extra_keys() -> None:
    latency = Percentiles(1, 2, 3, 4, 5, 6)
    row = Row(
        suite="s", case="c", rate=1e6, throughput_per_s=2e6, latency=latency, cacheline_rtt_ns=100,
        regime="near", extra={"capacity": 64},
        verdicts=(Verdict("what", "wanted", "measured", False),),
    ).as_json()  # fmt: skip
    assert [row[column.name] for column in fields(Percentiles)] == [1, 2, 3, 4, 5, 6]
    assert row["capacity"] == 64
    assert row["verdicts"] == [
        {"what": "what", "wanted": "wanted", "measured": "measured", "held": False}
    ]


def test_an_extra_key_that_is_a_fixed_one_is_refused() -> None:
    with pytest.raises(Refused, match="p50_ns"):
        Row(suite="s", case="c", extra={"p50_ns": 1}).as_json()


@pytest.mark.parametrize(
    ("verdict", "held"),
    [
        (at_least("x", 190, 190.0, "M/s", judged=True), True),
        (at_least("x", 190, 189.9, "M/s", judged=True), False),
        (at_least("x", 190, 1.0, "M/s", judged=False), None),
        (at_most("x", 1.15, 1.15, "", judged=True), True),
        (at_most("x", 1.15, 1.16, "", judged=True), False),
        (at_most("x", 1.15, 9.0, "", judged=False), None),
        (content("x", 0, 10), True),
        (content("x", 1, 10), False),
        (content("x", 0, 0), False),
    ],
)
def test_a_verdict_holds_at_its_bar_and_misses_beyond(verdict: Verdict, held: bool | None) -> None:
    assert verdict.held is held


@pytest.mark.parametrize(
    ("held", "holds"), [((True, None), True), ((True, False), False), ((), True)]
)
def test_a_result_holds_when_no_verdict_was_missed(
    held: tuple[bool | None, ...], holds: bool
) -> None:
    verdicts = tuple(Verdict("x", "", "", each) for each in held)
    result = SuiteResult("s", {}, (Row(suite="s", case="c", verdicts=verdicts),))
    assert result.holds is holds
