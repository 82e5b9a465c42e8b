"""The hash of a layout, and the way of a header to memory and back."""

from __future__ import annotations

import mmap
from typing import Any

import numpy as np
import pytest

from ipc.header import FORMAT_VERSION, HEADER, HEADER_BYTES, MAGIC, RegionHeader, layout_hash
from tests.ipc.region_cells import CELL, LAYOUT


@pytest.mark.parametrize(
    "other",
    [
        [("price", "<i8"), ("qty", "<i4"), ("flags", "<u2"), ("unused", "u1", (1,)), ("x", "u1")],
        [("price", "<i8"), ("qty", "<i4"), ("flags", "<i2"), ("unused", "u1", (2,))],
        [("price", "<i8"), ("size", "<i4"), ("flags", "<u2"), ("unused", "u1", (2,))],
        [("qty", "<i4"), ("price", "<i8"), ("flags", "<u2"), ("unused", "u1", (2,))],
        [("price", ">i8"), ("qty", "<i4"), ("flags", "<u2"), ("unused", "u1", (2,))],
    ],
)
def test_layout_hash_of_another_layout_is_another(other: list[Any]) -> None:
    assert np.dtype(other).itemsize == CELL.itemsize
    assert layout_hash(np.dtype(other)) != LAYOUT


def test_layout_hash_sees_offsets_sizes_and_nested_records() -> None:
    spread = {"names": ["a"], "formats": ["<i8"], "offsets": [0], "itemsize": 16}
    moved = {**spread, "offsets": [8]}
    longer = {**spread, "itemsize": 24}
    inner = [np.dtype([("in", np.dtype(form), (2,))]) for form in (spread, moved, longer)]
    inner += [np.dtype([("in", "<i8", shape)]) for shape in (1, 2, (2, 1), (1, 2))]
    hashes = {layout_hash(np.dtype(form)) for form in (spread, moved, longer)}
    assert len(hashes | {layout_hash(dtype) for dtype in inner}) == 10


def test_layout_hash_is_the_same_for_ever_and_fits_int64() -> None:
    assert layout_hash(np.dtype("<i8")) == 1286320872357324831
    assert LAYOUT == layout_hash(np.dtype(CELL.descr)) < 1 << 63


def test_header_with_a_long_or_foreign_kind_survives_the_way_to_memory_and_back() -> None:
    memory = mmap.mmap(-1, HEADER_BYTES)
    header = RegionHeader(
        MAGIC, FORMAT_VERSION, 0, LAYOUT, 8, 8192, 1, 2, 3, "boot", "Bücher " * 20, "name"
    )
    header.write(memory)
    row = np.frombuffer(memory[:], HEADER, 1)[0]
    assert row["kind"].decode("utf-8", "replace").startswith("Bücher Bücher")
    assert row["name"] == b"name"
