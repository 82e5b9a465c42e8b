"""The latest value of a small record: one writer overwrites, any number of readers copy.

For what only its newest state matters: a top of book, a role's status, the configuration in force.
A ring would make readers work through the past. The shape is a seqlock: the writer makes the
version odd, writes the words, makes it even; a reader copies between two equal even versions. A
reader never holds the writer up, and a writer that died in the middle leaves an odd version, which
readers see as BUSY and the successor repairs with its first write.

Rejected: two buffers and a pointer (a slow reader is overtaken after two writes, so it must check
a version anyway), a retry loop without end (a dead writer would hang its readers).
Laid over a region's `words`, or over private memory: the same code.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ipc.errors import CellRefused
from ipc.intrinsics import (
    fence_acquire,
    fence_release,
    load_acquire,
    load_relaxed,
    pause,
    store_relaxed,
    store_release,
)
from ipc.kernel import kernel

VERSION = 0
VALUES = 1
LINE_PAIR_WORDS = 16
"""Cells of different writers keep two cache lines apart: the prefetcher fetches lines in pairs."""
BUSY = -1
NEVER_WRITTEN = 0


@kernel
def write_latest(cell: Any, values: Any) -> int:
    """Replace the value. Never waits. Only the cell's one writer calls this.

    Parameters
    ----------
    cell : int64[1 + n] or longer
        Shared, written.
    values : int64[n]
        Private.

    Returns
    -------
    int
        The new version: twice the number of writes, more after a writer died in the middle.
    """
    # odd while writing, also when a dead predecessor left it odd: then it is another odd number
    writing: int = (load_relaxed(cell, VERSION) + 1) | 1
    store_relaxed(cell, VERSION, writing)
    # release fence: the odd version is visible before any word below; pairs with the reader's
    fence_release()
    for word in range(values.size):
        store_relaxed(cell, VALUES + word, values[word])
    # release: pairs with the first load in `read_latest`; the words are visible before it
    store_release(cell, VERSION, writing + 1)
    return writing + 1


@kernel
def read_latest(cell: Any, out: Any, attempts: int) -> int:
    """Copy the value, whole or not at all.

    Parameters
    ----------
    cell : int64[1 + n] or longer
        Shared, read only.
    out : int64[n]
        Private, written; worthless when the result is BUSY.
    attempts : int
        How often to try before giving up: a writer is at work for some nanoseconds.

    Returns
    -------
    int
        The version (even, it grows with each write), NEVER_WRITTEN, or BUSY.
    """
    for _ in range(attempts):
        # acquire: pairs with the last store of `write_latest`
        before: int = load_acquire(cell, VERSION)
        if before & 1 == 0:
            for word in range(out.size):
                out[word] = load_relaxed(cell, VALUES + word)
            # acquire fence: the words are read before the version is; pairs with the writer's
            fence_acquire()
            if load_relaxed(cell, VERSION) == before:
                return before
        pause()
    return BUSY


def words_for(values: int) -> int:
    """Return how many words a cell of `values` words takes, rounded up to pairs of lines."""
    return -(-(VALUES + values) // LINE_PAIR_WORDS) * LINE_PAIR_WORDS


@dataclass(frozen=True)
class Latest:
    """A latest-value cell for a record, seen from Python.

    Attributes
    ----------
    cell : int64[words_for(n)]
        Version and words; zeroed memory is a cell that was never written.
    dtype : dtype
        The record; its size is a multiple of 8 bytes.
    """

    cell: NDArray[np.int64]
    dtype: np.dtype[Any]

    def __post_init__(self) -> None:
        needed = words_for(-(-self.dtype.itemsize // 8))
        if self.dtype.itemsize % 8 or self.cell.size < needed:
            raise CellRefused(
                "a latest cell for this record doesn't fit here",
                expected=f"{needed} words, a record of whole words",
                found=f"{self.cell.size} words, a record of {self.dtype.itemsize} bytes",
                remedy="pad the record with a named field, or take `words_for` words",
            )

    @classmethod
    def local(cls, dtype: np.dtype[Any]) -> Latest:
        """Make a cell in private memory."""
        return cls(np.zeros(words_for(-(-dtype.itemsize // 8)), np.int64), dtype)

    def write(self, record: NDArray[Any]) -> int:
        """Replace the value by an array of one record; return the new version."""
        return int(write_latest(self.cell, record.reshape(1).view(np.int64)))

    def read(self, attempts: int = 1000) -> tuple[int, NDArray[Any]]:
        """Return the version (or NEVER_WRITTEN or BUSY) and a copy as an array of one record."""
        out = np.zeros(self.dtype.itemsize // 8, np.int64)
        version = int(read_latest(self.cell, out, attempts))
        return version, out.view(self.dtype)
