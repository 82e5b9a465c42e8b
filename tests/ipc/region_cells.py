"""A small region for tests, ways to spoil it, and what a refusal says."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ipc.errors import RegionRefused
from ipc.header import HEADER, HEADER_BYTES
from ipc.region import Region, layout_hash

CELL = np.dtype([("price", "<i8"), ("qty", "<i4"), ("flags", "<u2"), ("unused", "u1", (2,))])
LAYOUT = layout_hash(CELL)


def make(directory: Path, name: str = "cells", **options: Any) -> Path:
    """Create a region of three pages and close it; return its path."""
    with Region.create(directory, name, 8192, layout=LAYOUT, **options) as region:
        return region.path


def edit(path: Path, **fields: Any) -> None:
    """Overwrite fields of a region's header on disk."""
    row = np.frombuffer(path.read_bytes()[:HEADER_BYTES], HEADER, 1).copy()
    for name, value in fields.items():
        row[name] = value
    with path.open("r+b") as file:
        file.write(row.tobytes())


def refusal(attempt: Callable[[], object]) -> str:
    """Return what the refusal of an attempt says."""
    with pytest.raises(RegionRefused) as refused:
        attempt()
    return str(refused.value)
