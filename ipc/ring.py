"""The ring: one writer, n readers, 64-byte slots, the sequence in the slot.

Word 0 of each slot belongs to the ring: it holds the slot's position + 1 once the slot is
published, so a reader finds out about a record and fetches it in one cache-line transfer. An index
ring (readers watch one published cursor) was measured beside it and lost: the cursor's line moves
between the cores as well as the slot's, so a round trip takes 1.3 to 1.6 times as long, and single
messages pass a quarter as fast between far cores; only batches between near cores are some 10 %
faster. Figures of both stand in perf/LEDGER.md; `hft bench ring` repeats them.

Two kinds of reader. *Gating* readers own a cursor cell and hold the writer back. *Tailing* readers
own nothing: before it overwrites anything the writer raises the `claimed` cell (its intent) with a
release fence; a tailing reader copies a record, fences, and believes the copy only when `claimed`
shows that it was not being overwritten. What it loses is counted by position, never torn.

A record is one or two slots. Word 1 is the record's header: 0 marks a pad, and bit 15 (the top bit
of the flags byte) a record of two slots. Such a record never wraps; a pad fills the last slot.

A batch is published from its last slot to its first: who sees the first sees them all, which also
makes the first slot of a two-slot record its last to appear.

Writers call, in this order: `writable_until`, `claim`, fill slots (`padded` before each two-slot
record), `publish`; readers: `is_published`, read, `release_up_to` (gating) or `copy_record`
(tailing). Positions count slots from 0 and never wrap.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ipc.errors import RingRefused
from ipc.intrinsics import (
    fence_acquire,
    fence_release,
    load_acquire,
    load_relaxed,
    prefetch,
    store_relaxed,
    store_release,
)
from ipc.kernel import kernel

SLOT_BYTES = 64
SLOT_WORDS = 8
CELL_WORDS = 512
"""Words before the first slot: one page of cells, so that the slots start on a page."""

# Cells. Each has a pair of cache lines of its own (the prefetcher fetches lines in pairs).
CAPACITY = 0
READERS = 1
"""How many cursor cells the writer looks at; fixed when the ring is made."""
POSITION = 16
CLAIMED = 32
CURSORS = 48
CURSOR_STRIDE = 16
MAX_READERS = (CELL_WORDS - CURSORS) // CURSOR_STRIDE
DEFAULT_READERS = 4
NOT_GATING = 1 << 62
"""A cursor's value while no reader owns it: it never holds the writer back."""

MIN_CAPACITY = 8
TWO_SLOTS = 1 << 15
"""Bit of word 1 that marks a record of two slots."""
PAD = 0
"""Word 1 of a pad."""
OVERRUN = -1
NOTHING = 0
PREFETCH_AHEAD = 4
"""Slots between the one being filled and the one to ask for: the best of 4 to 32 on the whole."""


@kernel(inline=True)
def writable_until(cells: Any) -> int:
    """Return the position up to which the slowest gating reader lets the writer go (exclusive)."""
    slowest = NOT_GATING
    for reader in range(cells[READERS]):
        # acquire: pairs with the reader's `release_up_to`; its reads of the slots are done
        cursor = load_acquire(cells, CURSORS + reader * CURSOR_STRIDE)
        slowest = min(slowest, cursor)
    until: int = slowest + cells[CAPACITY]
    return until


@kernel(inline=True)
def claim(cells: Any, until: int) -> None:
    """Announce that every slot below position `until` may be overwritten from now on.

    What was once announced stays so: a slot may have been touched already. A writer claims no more
    than it is about to write, because what it claims is lost to tailing readers, and never beyond
    one lap from where it is: `resume_writer` relies on that.
    """
    store_relaxed(cells, CLAIMED, max(cells[CLAIMED], until))
    # release fence: the intent is visible before any payload that follows; `copy_record` pairs
    fence_release()


@kernel(inline=True)
def prefetch_slot(words: Any, mask: int, position: int) -> None:
    """Ask for ownership of the slot at `position`, which will be filled some slots later.

    Stores leave a core in order, so one slot whose line the reader's core still holds delays all
    after it. Asking PREFETCH_AHEAD slots early makes batches of 16 some 1.4 times as fast and
    single messages 1.15 times (perf/LEDGER.md). It writes nothing; never needed, only faster.
    """
    prefetch(words, (position & mask) * SLOT_WORDS)


@kernel(inline=True)
def end_of_record(mask: int, position: int, slots: int) -> int:
    """Return the position behind a record of 1 or 2 slots that goes to `position`, pad included."""
    pad = 1 if slots == 2 and position & mask == mask else 0
    return position + pad + slots


@kernel(inline=True)
def padded(words: Any, mask: int, position: int) -> int:
    """Write a pad when a two-slot record would wrap; return where the record goes."""
    if position & mask != mask:
        return position
    first = (position & mask) * SLOT_WORDS
    for word in range(1, SLOT_WORDS):
        words[first + word] = PAD
    return position + 1


@kernel(inline=True)
def publish(words: Any, mask: int, first: int, end: int) -> None:
    """Publish the filled slots [first, end), the first of them last."""
    position = end - 1
    while position >= first:
        # release: pairs with `is_published`; the payload is visible before the position
        store_release(words, (position & mask) * SLOT_WORDS, position + 1)
        position -= 1


@kernel
def resume_writer(cells: Any, words: Any, mask: int) -> int:
    """Let a successor continue where a writer died, and return its position.

    What the dead writer published stays, also beyond the position that it last told. A batch that
    it had published in part (from the end) is taken back: otherwise the stale slots would pass for
    new ones as soon as the successor publishes the slot before them.

    Parameters
    ----------
    cells, words : int64[:]
        The ring, shared, written. The writer is dead (`ipc.liveness`); readers may go on.
    """
    claimed = cells[CLAIMED]
    told = cells[POSITION]
    assert cells[CAPACITY] == mask + 1
    assert 0 <= told <= claimed < NOT_GATING
    # the position that was told may lag by more than a lap; what is claimed tells the last lap
    position: int = max(told, claimed - mask - 1)
    if position > told:
        # it claimed within a lap of where it was, so it had published the slot before: that slot
        # still says so, or holds the last of what was claimed
        before = words[((position - 1) & mask) * SLOT_WORDS]
        assert before in (position, claimed)
    while position < claimed and is_published(words, mask, position):
        position += 1
    # told first: who resumes after this one died in the loop finds the same position
    store_release(cells, POSITION, position)
    for taken_back in range(position, claimed):
        # no reader is here: the slot before `position` is the last that anybody can have seen
        store_release(words, (taken_back & mask) * SLOT_WORDS, 0)
    return position


@kernel(inline=True)
def is_published(words: Any, mask: int, position: int) -> bool:
    """Return whether the slot at `position` may be read (gating readers)."""
    # acquire: pairs with `publish`
    published: int = load_acquire(words, (position & mask) * SLOT_WORDS)
    return published == position + 1


@kernel(inline=True)
def release_up_to(cells: Any, reader: int, position: int) -> None:
    """Give every slot below `position` back to the writer (gating readers, on their own cursor)."""
    # release: pairs with `writable_until`; reads of the slots happen before it
    store_release(cells, CURSORS + reader * CURSOR_STRIDE, position)


@kernel
def place_cursor(cells: Any, reader: int, position: int) -> None:
    """Call `release_up_to`, for who sets a reader up in Python."""
    release_up_to(cells, reader, position)


@kernel(inline=True)
def copy_record(cells: Any, words: Any, mask: int, position: int, out: Any) -> int:
    """Copy the record at `position`, for a tailing reader.

    Parameters
    ----------
    cells, words : int64[:]
        The ring, shared, read only.
    position : int
        Where a record begins.
    out : int64[16]
        Private; receives one or two slots, word 0 included.

    Returns
    -------
    int
        Slots copied (1 or 2), NOTHING when not published yet, OVERRUN when the writer was or may
        have been there meanwhile: the copy is worthless and the reader has a gap.
    """
    first = (position & mask) * SLOT_WORDS
    # acquire: pairs with `publish`
    found = load_acquire(words, first)
    if found != position + 1:
        return OVERRUN if load_relaxed(cells, CLAIMED) > position + mask + 1 else NOTHING
    for word in range(SLOT_WORDS):
        out[word] = words[first + word]
    slots = 1
    if out[1] & TWO_SLOTS and position & mask != mask:
        for word in range(SLOT_WORDS, 2 * SLOT_WORDS):
            out[word] = words[first + word]
        slots = 2
    # acquire fence: the copies are done before the intent is read; pairs with `claim`
    fence_acquire()
    if load_relaxed(cells, CLAIMED) > position + mask + 1:
        return OVERRUN
    return slots


@kernel(inline=True)
def newest_position(cells: Any, position: int) -> int:
    """Return where a tailing reader that was overrun goes on; at `position` if nowhere yet.

    Only the writer's own position is known to be the beginning of a record. The difference is the
    reader's loss, in slots.
    """
    # acquire: pairs with the writer's store of POSITION, after `publish`
    newest: int = load_acquire(cells, POSITION)
    return max(newest, position)


def words_for(capacity: int) -> int:
    """Return how many int64 words a ring of `capacity` slots takes, cells included."""
    return CELL_WORDS + capacity * SLOT_WORDS


@dataclass(frozen=True)
class Ring:
    """A ring over an int64 array: shared memory, or private memory in one process.

    Attributes
    ----------
    cells : int64[512]
        Capacity, the writer's position and intent, one cursor a gating reader. One writer a cell.
    words : int64[capacity * 8]
        The slots.
    """

    cells: NDArray[np.int64]
    words: NDArray[np.int64]

    @classmethod
    def create(
        cls, memory: NDArray[np.int64], capacity: int, readers: int = DEFAULT_READERS
    ) -> Ring:
        """Lay out an empty ring in zeroed `memory`, with cursors for `readers` gating readers.

        Raises
        ------
        RingRefused
            When the capacity is not a power of two of at least 8, the memory does not fit it, or
            there is no room for so many cursors.
        """
        if not 0 <= readers <= MAX_READERS:
            raise RingRefused(
                "a ring of this many gating readers can't be made",
                expected=f"0 to {MAX_READERS}",
                found=str(readers),
            )
        if capacity < MIN_CAPACITY or capacity & (capacity - 1):
            raise RingRefused(
                "a ring of this capacity can't be made",
                expected=f"a power of two of at least {MIN_CAPACITY} slots",
                found=str(capacity),
                remedy="round the capacity up to the next power of two",
            )
        if memory.size < words_for(capacity):
            raise RingRefused(
                "the memory is too small for the ring",
                expected=f"{words_for(capacity)} words",
                found=f"{memory.size} words",
            )
        memory[:CELL_WORDS] = 0
        memory[CURSORS:CELL_WORDS:CURSOR_STRIDE] = NOT_GATING
        memory[READERS] = readers
        memory[CAPACITY] = capacity
        return cls.attach(memory)

    @classmethod
    def attach(cls, memory: NDArray[np.int64]) -> Ring:
        """Find the ring that `create` laid out in `memory`."""
        capacity = int(memory[CAPACITY])
        if (
            capacity < MIN_CAPACITY
            or capacity & (capacity - 1)
            or (memory.size < words_for(capacity))
            or not 0 <= int(memory[READERS]) <= MAX_READERS
        ):
            raise RingRefused(
                "there is no ring in this memory",
                expected=f"a capacity in word 0 that fits {memory.size} words",
                found=str(capacity),
                remedy="the writer creates the ring before readers attach",
            )
        return cls(memory[:CELL_WORDS], memory[CELL_WORDS : words_for(capacity)])

    @classmethod
    def local(cls, capacity: int, readers: int = DEFAULT_READERS) -> Ring:
        """Make a ring in private memory: the twin of a shared one, for one process."""
        return cls.create(np.zeros(words_for(max(capacity, 0)), np.int64), capacity, readers)

    @property
    def capacity(self) -> int:
        """Slots, a power of two."""
        return int(self.cells[CAPACITY])

    @property
    def readers(self) -> int:
        """How many gating readers it has cursors for, numbered from 0."""
        return int(self.cells[READERS])

    @property
    def position(self) -> int:
        """Where the writer will put its next record, as it last said."""
        return int(self.cells[POSITION])

    def view(self, dtype: np.dtype[Any]) -> NDArray[Any]:
        """Return the slots as records of `dtype`, one a slot."""
        if dtype.itemsize != SLOT_BYTES:
            raise RingRefused(
                "a ring's slots can't be seen through this dtype",
                expected=f"{SLOT_BYTES} bytes",
                found=f"{dtype.itemsize} bytes",
            )
        return self.words.view(dtype)

    def add_gating_reader(self, reader: int, position: int | None = None) -> None:
        """Let reader number `reader` hold the writer back from `position` on (default: now).

        For whoever made the ring, or the supervisor in the place of a reader that died, and before
        the writer starts: a running writer may have looked at the cursors just before, and would
        lap the reader once. Afterwards the cursor is the reader's alone.

        Raises
        ------
        RingRefused
            When the ring was made for fewer readers, or what is to be read was overwritten.
        """
        self._check_reader(reader)
        begin = self.position if position is None else position
        oldest = int(self.cells[CLAIMED]) - self.capacity
        if begin < oldest:
            raise RingRefused(
                "a reader can't begin where the writer has been since",
                expected=f"a position from {oldest} on",
                found=str(begin),
                remedy="set readers up before the writer starts",
            )
        place_cursor(self.cells, reader, begin)

    def remove_gating_reader(self, reader: int) -> None:
        """Stop reader number `reader`, which has ended, from holding the writer back."""
        self._check_reader(reader)
        place_cursor(self.cells, reader, NOT_GATING)

    def _check_reader(self, reader: int) -> None:
        if not 0 <= reader < self.readers:
            raise RingRefused(
                "no such reader",
                expected=f"a reader below {self.readers}",
                found=str(reader),
                remedy="make the ring with as many `readers` as will ever gate it",
            )

    def cursor(self, reader: int) -> int:
        """Return the position that gating reader `reader` has released."""
        return int(self.cells[CURSORS + reader * CURSOR_STRIDE])
