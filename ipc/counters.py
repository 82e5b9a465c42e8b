"""Named counters: one cache line each, one writer each, readable by anybody by name.

Loops count and don't log. A counter's line holds its value and its name, so a tool that maps the
region read-only lists everything without knowing who counts what. A line has one writer, so
counting is a plain addition and no locked instruction: about a nanosecond.

The values carry no order between them: a reader may see a later counter's increment before an
earlier one's. What must be ordered goes through a ring.
Rejected: a table of names apart from the values (two things to keep in step), one atomic counter
for several writers (4.7 ns and a line that travels between cores).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ipc.errors import CellRefused
from ipc.header import layout_hash
from ipc.intrinsics import load_relaxed, store_relaxed
from ipc.kernel import kernel

COUNTER = np.dtype(
    [
        ("value", "<i8"),  # written by the counter's one writer
        ("name", "S56"),  # ASCII; written once, by who makes the region
    ]
)
COUNTER_WORDS = 8
assert COUNTER.itemsize == COUNTER_WORDS * 8
LAYOUT = layout_hash(COUNTER)


@kernel(inline=True)
def count(words: Any, counter: int, amount: int) -> None:
    """Add to a counter; only its one writer does.

    Parameters
    ----------
    words : int64[counters * 8]
        Shared, written.
    counter : int
        From `Counters.index`.
    """
    cell = counter * COUNTER_WORDS
    store_relaxed(words, cell, load_relaxed(words, cell) + amount)


@kernel(inline=True)
def set_counter(words: Any, counter: int, value: int) -> None:
    """Set a counter to a level (a lag, a depth); only its one writer does."""
    store_relaxed(words, counter * COUNTER_WORDS, value)


def words_for(counters: int) -> int:
    """Return how many words `counters` counters take."""
    return counters * COUNTER_WORDS


@dataclass(frozen=True)
class Counters:
    """Counters over shared or private memory.

    Attributes
    ----------
    words : int64[counters * 8]
    """

    words: NDArray[np.int64]

    @classmethod
    def create(cls, words: NDArray[np.int64], names: Sequence[str]) -> Counters:
        """Name the counters in zeroed memory, in this order, beginning at 0.

        Raises
        ------
        CellRefused
            When a name is empty, doubled, not ASCII or longer than 56, or the memory too small.
        """
        good = [name for name in names if name.isascii() and 0 < len(name) <= 56]
        if len(set(good)) != len(names) or words.size < words_for(len(names)):
            raise CellRefused(
                "these counters can't be made here",
                expected=f"different names of 1 to 56 ASCII letters, {words_for(len(names))} words",
                found=f"{words.size} words, names {', '.join(map(repr, names))}",
                remedy="correct the names, or make the region larger",
            )
        counters = cls(words)
        counters._rows()["name"][: len(names)] = [name.encode() for name in names]
        return counters

    @classmethod
    def local(cls, names: Sequence[str]) -> Counters:
        """Make counters in private memory."""
        return cls.create(np.zeros(words_for(len(names)), np.int64), names)

    def _rows(self) -> NDArray[Any]:
        return self.words[: self.words.size // COUNTER_WORDS * COUNTER_WORDS].view(COUNTER)

    @property
    def names(self) -> list[str]:
        """The names, in order."""
        return [name.decode() for name in self._rows()["name"] if name]

    def index(self, name: str) -> int:
        """Return the number that kernels count with."""
        try:
            return self.names.index(name)
        except ValueError:
            raise CellRefused(
                "there is no such counter",
                expected=f"one of {', '.join(self.names)}",
                found=repr(name),
                remedy="the names are given where the counters are created",
            ) from None

    def __getitem__(self, name: str) -> int:
        """Read one counter."""
        return int(self.words[self.index(name) * COUNTER_WORDS])

    def __iter__(self) -> Iterator[tuple[str, int]]:
        """Read all counters, as (name, value)."""
        for index, name in enumerate(self.names):
            yield name, int(self.words[index * COUNTER_WORDS])
