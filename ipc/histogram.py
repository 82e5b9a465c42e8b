"""A histogram of latencies in shared memory: exact counts, bounded error, readable while it fills.

HDR's layout (Gil Tene): values below 128 have a bucket each, and every octave above has 64 of equal
width. A reported percentile is the highest value of its bucket, so it is never below the true one
and at most 1/64 (1.6 %) above it, from 1 ns to 2^63 - 1. All that in 3712 cells of 8 bytes.

One writer; recording is a shift, an addition and two comparisons (the cost stands at `record`).
Zeroed memory is an empty histogram: the least value is kept as a distance from the top for that.
Readers copy the cells while the writer goes on; each cell is whole, and a copy is some moment's
picture up to the values that were recorded while copying.

Rejected: 32 sub-buckets (3 % error, and no faster), 128 (twice the memory, more cache misses), a
running total (one more store a record, and the sum of the cells says it).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ipc.errors import CellRefused
from ipc.header import layout_hash
from ipc.intrinsics import leading_zeros, load_relaxed, store_relaxed
from ipc.kernel import kernel

SUB_BUCKETS = 64
SUB_BITS = 6
BUCKET_COUNT = (64 - SUB_BITS) * SUB_BUCKETS
MAXIMUM = 0
BELOW_TOP = 1
"""Cell of the least value, as TOP - value: zeroed memory then says that there is none."""
BUCKETS = 8
CELL_WORDS = BUCKETS + BUCKET_COUNT
TOP = (1 << 63) - 1

LAYOUT = layout_hash(
    np.dtype(
        [
            ("maximum", "<i8"),
            ("below_top", "<i8"),
            ("unused", "<i8", (BUCKETS - 2,)),
            ("buckets", "<i8", (BUCKET_COUNT,)),
        ]
    )
)


@kernel(inline=True)
def bucket_of(value: int) -> int:
    """Return the bucket of a value of at least 0."""
    shift: int = 63 - SUB_BITS - leading_zeros(value | SUB_BUCKETS)
    return (shift << SUB_BITS) + (value >> shift)


@kernel(inline=True)
def record(cells: Any, value: int) -> None:
    """Count one value.

    Parameters
    ----------
    cells : int64[3720]
        Shared, written by one writer.
    value : int
        Whatever unit the histogram has, ns as a rule; below 0 counts as 0 (two cores' clocks may
        disagree by a tick).

    Notes
    -----
    0.7 to 1.6 ns a value, depending on how they spread (in a loop, over a base of 0.2 ns).
    """
    value = max(value, 0)
    # the ends first, so that a reader's percentile can't exceed a maximum that it then reads
    if value > load_relaxed(cells, MAXIMUM):
        store_relaxed(cells, MAXIMUM, value)
    if TOP - value > load_relaxed(cells, BELOW_TOP):
        store_relaxed(cells, BELOW_TOP, TOP - value)
    cell = BUCKETS + bucket_of(value)
    store_relaxed(cells, cell, load_relaxed(cells, cell) + 1)


def highest_of(bucket: int) -> int:
    """Return the highest value that falls into a bucket."""
    shift = max(bucket // SUB_BUCKETS - 1, 0)
    return ((bucket - shift * SUB_BUCKETS + 1) << shift) - 1


@dataclass(frozen=True)
class Histogram:
    """A histogram over shared or private memory.

    Attributes
    ----------
    cells : int64[3720]
        Highest, lowest, buckets; zeroed memory is an empty histogram.
    """

    cells: NDArray[np.int64]

    def __post_init__(self) -> None:
        if self.cells.size < CELL_WORDS:
            raise CellRefused(
                "the memory is too small for a histogram",
                expected=f"{CELL_WORDS} words",
                found=f"{self.cells.size} words",
                remedy="take CELL_WORDS words for each histogram",
            )

    @classmethod
    def local(cls) -> Histogram:
        """Make an empty histogram in private memory."""
        return cls(np.zeros(CELL_WORDS, np.int64))

    def snapshot(self) -> Histogram:
        """Copy into private memory; several figures of one copy agree with each other."""
        return Histogram(self.cells[:CELL_WORDS].copy())

    @property
    def count(self) -> int:
        """How many values were recorded."""
        return int(self.cells[BUCKETS:CELL_WORDS].sum())

    @property
    def maximum(self) -> int:
        """The highest value, exactly; 0 when empty."""
        return int(self.cells[MAXIMUM])

    @property
    def minimum(self) -> int:
        """The lowest value, exactly; 0 when empty."""
        below_top = int(self.cells[BELOW_TOP])
        return TOP - below_top if below_top else self.maximum

    def percentiles(self, percents: Sequence[float]) -> list[int]:
        """Return the values at or below which these shares of all values lie, 0 when empty.

        Parameters
        ----------
        percents : sequence of float
            0 to 100; the rank is rounded up (numpy's "inverted_cdf").

        Returns
        -------
        list of int
            Each at least the exact one and at most 1/64 above it; 100 is the maximum, exactly.
        """
        cells = self.cells[:CELL_WORDS].copy()
        upto = np.cumsum(cells[BUCKETS:])
        total = int(upto[-1])
        if total == 0:
            return [0 for _ in percents]
        # rounded first: 99.9 is no binary fraction, and a whole rank must stay whole
        ranks = [min(max(ceil(round(total * part / 100, 6)), 1), total) for part in percents]
        return [
            min(highest_of(int(np.searchsorted(upto, rank))), int(cells[MAXIMUM])) for rank in ranks
        ]

    def percentile(self, percent: float) -> int:
        """Return one of `percentiles`."""
        return self.percentiles([percent])[0]

    def merge(self, other: Histogram) -> None:
        """Add another's values to this one, which nobody else writes meanwhile."""
        theirs = other.snapshot().cells
        ends = slice(MAXIMUM, BELOW_TOP + 1)
        self.cells[ends] = np.maximum(self.cells[ends], theirs[ends])
        self.cells[BUCKETS:CELL_WORDS] += theirs[BUCKETS:]
