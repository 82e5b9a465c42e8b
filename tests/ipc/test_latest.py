"""The latest-value cell: never torn, never a wait without end, also after its writer died."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numba
import numpy as np
import pytest

from ipc.errors import CellRefused
from ipc.intrinsics import load_acquire
from ipc.kernel import JIT
from ipc.latest import (
    BUSY,
    NEVER_WRITTEN,
    VERSION,
    Latest,
    read_latest,
    words_for,
    write_latest,
)
from ipc.region import Region, layout_hash
from tests.processes import Children, poll_until

TOP = np.dtype([("bid", "<i8"), ("ask", "<i8"), ("bid_qty", "<i4"), ("ask_qty", "<i4")])
WORDS = layout_hash(np.dtype("<i8"))
FIELDS = 40


@numba.njit(nogil=True)
def write_series(cell: Any, values: Any, first: int, last: int) -> None:
    """Write records all of whose words are the same number, one after the other."""
    for number in range(first, last):
        values[:] = number
        write_latest(cell, values)


@numba.njit(nogil=True)
def read_series(cell: Any, out: Any, reads: int, result: Any) -> None:
    """Read, and count in `result`: whole, torn, older than before, busy."""
    for _ in range(reads):
        version = read_latest(cell, out, 100)
        if version == -1:
            result[3] += 1
            continue
        result[0] += 1
        for word in range(1, out.size):
            if out[word] != out[0]:
                result[1] += 1
                break
        result[2] += version < result[4]
        result[4] = version


def test_latest_returns_what_was_written_last() -> None:
    latest = Latest.local(TOP)
    assert latest.read()[0] == NEVER_WRITTEN
    for number in range(1, 4):
        version = latest.write(np.array([(number, 2 * number, 3, 4)], TOP))
        assert version == 2 * number
        assert latest.read()[0] == version
        assert latest.read()[1].tolist() == [(number, 2 * number, 3, 4)]


@pytest.mark.skipif(not JIT, reason="a race for compiled code")
def test_latest_that_another_process_overwrites_is_never_torn(
    venue_directory: Path, children: Children
) -> None:
    with Region.create(venue_directory, "top", 8 * words_for(FIELDS), layout=WORDS) as region:
        cell = region.words
    values, result = np.zeros(FIELDS, np.int64), np.zeros(8, np.int64)
    write_series(cell, values, 0, 1)
    read_series(cell, values, 1, result)

    def write() -> None:
        first = 1
        while True:
            write_series(cell, values, first, first + 10_000)
            first += 10_000

    child = children.fork(write)
    with Region.attach(venue_directory, "top") as seen:
        words = seen.words

        def enough() -> bool:
            read_series(words, values, 20_000, result)
            return bool(result[0] > 150_000 and load_acquire_here(words) > 300_000)

        poll_until(enough, "many whole reads")
    children.kill(child)
    assert result[1] == 0
    assert result[2] == 0


@numba.njit
def load_acquire_here(cell: Any) -> Any:
    """Return the cell's version."""
    return load_acquire(cell, VERSION)


@pytest.mark.skipif(not JIT, reason="a race for compiled code")
def test_latest_whose_writer_was_killed_is_whole_or_busy_and_can_be_written_again(
    venue_directory: Path, children: Children
) -> None:
    with Region.create(venue_directory, "top", 8 * words_for(FIELDS), layout=WORDS) as region:
        cell = region.words
    values, result = np.zeros(FIELDS, np.int64), np.zeros(8, np.int64)
    write_series(cell, values, 0, 1)
    pick = random.Random(3)
    for round_ in range(20):
        before = cell[VERSION]
        child = children.fork(lambda: write_series(cell, values, 1, 1 << 50))
        wanted = before + pick.randrange(2, 20_000)
        poll_until(lambda wanted=wanted: cell[VERSION] >= wanted, "the child to write")
        children.kill(child)
        read_series(cell, values, 1, result)
        values[:] = -round_
        version = write_latest(cell, values)
        assert version % 2 == 0
        assert read_latest(cell, values, 1) == version
        assert set(values) == {-round_}
    assert result[1] == 0


def test_latest_that_was_left_half_written_is_busy_until_the_next_write() -> None:
    latest = Latest.local(TOP)
    latest.write(np.array([(1, 2, 3, 4)], TOP))
    latest.cell[VERSION] += 1
    assert latest.read(attempts=5)[0] == BUSY
    version = latest.write(np.array([(5, 6, 7, 8)], TOP))
    assert version == 6
    assert latest.read()[1].tolist() == [(5, 6, 7, 8)]


@pytest.mark.parametrize(
    ("dtype", "words"), [(TOP, 2), (np.dtype([("a", "<i4")]), 100), (TOP, 0), (TOP, 15)]
)
def test_latest_of_a_record_that_does_not_fit_is_refused(dtype: np.dtype[Any], words: int) -> None:
    with pytest.raises(CellRefused, match=f"expected: 16 words, .*found: {words} words"):
        Latest(np.zeros(words, np.int64), dtype)
