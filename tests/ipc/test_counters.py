"""Named counters: counted by kernels, read by name, one line each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numba
import numpy as np
import pytest

from ipc.counters import COUNTER, LAYOUT, Counters, count, set_counter, words_for
from ipc.errors import CellRefused
from ipc.region import Region
from tests.processes import Children

NAMES = ["matcher-0.fills", "matcher-0.lag", "x" * 56]


@numba.njit(nogil=True)
def count_to(words: Any, counter: int, times: int) -> None:
    """Count by one."""
    for _ in range(times):
        count(words, counter, 1)


@numba.njit
def set_to(words: Any, counter: int, value: int) -> None:
    """Set to a level."""
    set_counter(words, counter, value)


def test_counters_of_another_process_are_read_by_name(
    venue_directory: Path, children: Children
) -> None:
    count_to(np.zeros(8, np.int64), 0, 1)
    with Region.create(venue_directory, "counters", 8 * words_for(5), layout=LAYOUT) as region:
        counters = Counters.create(region.words, NAMES)
    workers = [
        children.fork(lambda index=index: count_to(counters.words, index, 1000 * (index + 1)))
        for index in range(3)
    ]
    assert [children.exit_code(pid) for pid in workers] == [0, 0, 0]
    with Region.attach(venue_directory, "counters", layout=LAYOUT) as region:
        seen = Counters(region.words)
    assert seen.names == NAMES
    assert list(seen) == [(NAMES[0], 1000), (NAMES[1], 2000), (NAMES[2], 3000)]
    assert seen["matcher-0.lag"] == 2000


def test_counter_that_is_set_holds_the_level_and_its_neighbours_stay() -> None:
    counters = Counters.local(NAMES)
    set_to(counters.words, counters.index("matcher-0.lag"), -7)
    assert list(counters) == [(NAMES[0], 0), (NAMES[1], -7), (NAMES[2], 0)]


def test_counter_has_one_cache_line() -> None:
    assert COUNTER.itemsize == 64


@pytest.mark.parametrize("names", [["a", "a"], [""], ["x" * 57], ["größe"]])
def test_counters_of_unusable_names_are_refused(names: list[str]) -> None:
    with pytest.raises(CellRefused, match="expected: different names of 1 to 56 ASCII letters"):
        Counters.local(names)


def test_counters_that_do_not_fit_are_refused() -> None:
    with pytest.raises(CellRefused, match="24 words; found: 23 words"):
        Counters.create(np.zeros(23, np.int64), NAMES)


def test_counter_that_is_not_there_is_refused_with_the_names_that_are() -> None:
    with pytest.raises(CellRefused, match="expected: one of a, b; found: 'c'"):
        Counters.local(["a", "b"])["c"]
