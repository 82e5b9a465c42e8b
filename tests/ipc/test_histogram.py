"""The histogram against numpy's exact percentiles, and while it fills."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise
from math import ceil
from pathlib import Path
from typing import Any

import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ipc.errors import CellRefused
from ipc.histogram import (
    BUCKET_COUNT,
    CELL_WORDS,
    LAYOUT,
    TOP,
    Histogram,
    bucket_of,
    highest_of,
    record,
)
from ipc.region import Region
from tests.processes import Children, poll_until

PERCENTS = [0, 10, 50, 90, 99, 99.9, 99.99, 100]
# small, of every magnitude, and at the edges of octaves
VALUES = st.one_of(
    st.integers(0, 300),
    st.integers(0, TOP),
    st.builds(lambda bit, step: max((1 << bit) + step, 0), st.integers(0, 62), st.integers(-2, 2)),
)


@numba.njit(nogil=True)
def record_all(cells: Any, values: Any) -> None:
    """Record an array."""
    for index in range(values.size):
        record(cells, values[index])


@numba.njit
def buckets_of(values: Any, out: Any) -> None:
    """Find the bucket of each value."""
    for index in range(values.size):
        out[index] = bucket_of(values[index])


def filled(values: list[int]) -> Histogram:
    """Make a histogram of these values."""
    histogram = Histogram.local()
    record_all(histogram.cells, np.array(values, np.int64))
    return histogram


@settings(deadline=None, print_blob=True, max_examples=300)
@given(st.lists(VALUES, min_size=1, max_size=200))
def test_percentiles_are_exact_or_up_to_one_part_in_64_above(values: list[int]) -> None:
    histogram = filled(values)
    ordered = sorted(values)
    ranks = [max(ceil(Fraction(str(part)) * len(values) / 100), 1) for part in PERCENTS]
    exact = [ordered[rank - 1] for rank in ranks]
    for percent, true, told in zip(PERCENTS, exact, histogram.percentiles(PERCENTS), strict=True):
        assert true <= told <= true + true // 64, f"p{percent}"
    assert histogram.count == len(values)
    assert histogram.maximum == max(values) == histogram.percentile(100)
    assert histogram.minimum == min(values)


@settings(deadline=None, print_blob=True)
@given(st.lists(VALUES, max_size=50), st.lists(VALUES, max_size=50))
def test_merged_histograms_are_the_histogram_of_all_values(
    first: list[int], second: list[int]
) -> None:
    merged = filled(first)
    merged.merge(filled(second))
    assert merged.cells.tolist() == filled(first + second).cells.tolist()


def test_each_bucket_begins_where_the_one_before_ends() -> None:
    highest = [highest_of(bucket) for bucket in range(BUCKET_COUNT)]
    assert highest[:128] == list(range(128))
    assert highest[-1] == TOP
    assert all(low < high for low, high in pairwise(highest))
    edges = np.array([value for top in highest[:-1] for value in (top, top + 1)], np.int64)
    found = np.zeros_like(edges)
    buckets_of(edges, found)
    assert found.tolist() == [n for bucket in range(BUCKET_COUNT - 1) for n in (bucket, bucket + 1)]


def test_lognormal_latencies_agree_with_numpy() -> None:
    # a count at which no percentile falls on a whole rank, where numpy's fractions may round up
    values = np.random.default_rng(1).lognormal(7, 1.5, 199_933).astype(np.int64)
    histogram = Histogram.local()
    record_all(histogram.cells, values)
    exact = np.percentile(values, PERCENTS, method="inverted_cdf")
    told = np.array(histogram.percentiles(PERCENTS))
    assert (told >= exact).all()
    assert (told <= exact * (1 + 1 / 64)).all()


def test_whole_rank_stays_whole() -> None:
    for count in (1000, 20_000, 100_000):
        histogram = filled(list(range(count)))
        for percent, rank in ((99.9, count * 999 // 1000), (29, count * 29 // 100)):
            bucket = highest_of(int(np.searchsorted(histogram.cells[8:].cumsum(), rank)))
            assert histogram.percentile(percent) == min(bucket, count - 1)


def test_empty_histogram_says_zero() -> None:
    histogram = Histogram.local()
    assert (histogram.count, histogram.minimum, histogram.maximum) == (0, 0, 0)
    assert histogram.percentiles([50, 100]) == [0, 0]


def test_value_below_zero_counts_as_zero() -> None:
    histogram = filled([-5, -(1 << 63), 3])
    assert (histogram.count, histogram.minimum, histogram.maximum) == (3, 0, 3)
    assert histogram.percentile(50) == 0


def test_snapshot_stays_as_it_was_taken() -> None:
    histogram = filled([1, 2, 3])
    copy = histogram.snapshot()
    record_all(histogram.cells, np.array([9], np.int64))
    assert (copy.count, copy.maximum) == (3, 3)


def test_histogram_that_fills_is_read_by_another_process(
    venue_directory: Path, children: Children
) -> None:
    with Region.create(venue_directory, "latency", 8 * CELL_WORDS, layout=LAYOUT) as region:
        histogram = Histogram(region.words)
    values = np.arange(1000, 2000)
    record_all(Histogram.local().cells, values)

    def write() -> None:
        while histogram.count < 2_000_000:
            record_all(histogram.cells, values)

    child = children.fork(write)
    with Region.attach(venue_directory, "latency", layout=LAYOUT) as region:
        seen = Histogram(region.words)
    counts = [0]

    def complete() -> bool:
        counts.append(seen.count)
        if counts[-1]:
            assert 1000 <= seen.percentile(50) <= 1999
        return counts[-1] >= 2_000_000

    poll_until(complete, "the child to record two million values")
    assert children.exit_code(child) == 0
    assert counts == sorted(counts)
    assert (seen.minimum, seen.maximum) == (1000, 1999)


def test_histogram_in_too_little_memory_is_refused() -> None:
    with pytest.raises(CellRefused, match="expected: 3720 words; found: 100 words"):
        Histogram(np.zeros(100, np.int64))
