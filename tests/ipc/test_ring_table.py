"""A table of rings: one compiled kernel for any number of them, and memory that stays."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import numpy as np
import pytest

from ipc.errors import RingRefused
from ipc.kernel import JIT, kernel
from ipc.ring import CAPACITY, CELL_WORDS, POSITION, SLOT_WORDS, Ring
from ipc.ring_table import BESIDE_WORDS, table_of, words_at


@kernel
def stamp_all(table: Any, value: int) -> int:
    """Write to each ring's first word, its cells and the line beside it; return the slots."""
    slots = 0
    for number in range(len(table)):
        row = table[np.uintp(number)]
        words = words_at(row["words"], row["slots"] * SLOT_WORDS)
        cells = words_at(row["cells"], CELL_WORDS)
        words[0] = value + number
        words[len(words) - 1] = value
        cells[POSITION] = value + number
        words_at(row["beside"], BESIDE_WORDS)[0] = value + number
        slots += cells[CAPACITY]
    return slots


def made(count: int) -> tuple[list[Ring], list[Any], Any]:
    """Return rings of 8, 16, 8, 16 ... slots, lines beside them, and their table."""
    rings = [Ring.local(8 << (number & 1)) for number in range(count)]
    lines = [np.zeros(BESIDE_WORDS, np.int64) for _ in rings]
    return rings, lines, table_of(rings, lines)


def test_one_kernel_signature_serves_any_number_of_rings() -> None:
    for count in (1, 2, 5, 32):
        rings, lines, table = made(count)
        assert stamp_all(table, 100) == sum(ring.capacity for ring in rings)
        for number, (ring, line) in enumerate(zip(rings, lines, strict=True)):
            assert ring.words[0] == ring.position == line[0] == 100 + number
            assert ring.words[-1] == 100
            assert np.count_nonzero(ring.words) == 2, "nothing else was written"
    if JIT:
        assert len(stamp_all.signatures) == 1


def test_rings_live_exactly_as_long_as_their_table() -> None:
    rings, lines, table = made(3)
    kept = [weakref.ref(thing) for thing in (*(ring.words for ring in rings), *lines)]
    del rings, lines
    gc.collect()
    assert all(thing() is not None for thing in kept)
    assert stamp_all(table, 7) == 8 + 16 + 8
    assert [thing()[0] for thing in kept] == [7, 8, 9, 7, 8, 9]  # type: ignore[index]
    del table
    gc.collect()
    assert all(thing() is None for thing in kept), "a table that is gone holds on to its rings"


@pytest.mark.parametrize(("rings", "lines"), [(0, None), (2, 1), (1, 2), (2, 0)])
def test_table_of_no_rings_or_of_unequal_lines_is_refused(rings: int, lines: int | None) -> None:
    beside = None if lines is None else [np.zeros(BESIDE_WORDS, np.int64)] * lines
    with pytest.raises(RingRefused, match="a table of rings") as refused:
        table_of([Ring.local(8)] * rings, beside)
    assert refused.value.found == f"{rings} rings, {lines or 0} lines"
