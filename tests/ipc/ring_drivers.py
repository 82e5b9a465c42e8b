"""Compiled writers and readers for the tests of the ring, and the records that they exchange.

A record's content follows from its position and its writer's number, so a writer that takes over
needs no state but the ring's, and a reader can check all of it: header, every word, a checksum, one
or two slots, and that no record of an earlier writer follows a later one's. Each driver does a
bounded amount of work and returns, as a poll does.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

from ipc.intrinsics import mix64, pause, store_release
from ipc.ring import (
    CAPACITY,
    NOTHING,
    OVERRUN,
    PAD,
    POSITION,
    SLOT_WORDS,
    TWO_SLOTS,
    claim,
    copy_record,
    is_published,
    newest_position,
    padded,
    publish,
    release_up_to,
    resume_writer,
    writable_until,
)

HEADER = 64
MOST_SLOTS_A_RECORD = 3
"""A pad and two."""

# A reader's state.
AT = 0
RECORDS = 1
PADS = 2
LOST = 3
BAD = 4
AFTER_PAD = 5
WRITER = 6
STATE_WORDS = 8


def new_state(position: int = 0) -> Any:
    """Make a reader's state."""
    state = np.zeros(STATE_WORDS, np.int64)
    state[AT] = position
    return state


@numba.njit(nogil=True)
def wants_two(position: int) -> Any:
    """Return whether the record at this position has two slots."""
    return mix64(position) & 3 == 0


@numba.njit(nogil=True)
def fill(words: Any, first: int, position: int, slots: int, writer: int) -> None:
    """Write a record; `first` is its first word, `writer` the number of who writes."""
    size = slots * SLOT_WORDS
    words[first + 1] = HEADER | TWO_SLOTS if slots == 2 else HEADER
    words[first + 2] = writer
    checksum = mix64(words[first + 1] ^ writer)
    for word in range(3, size - 1):
        if word != SLOT_WORDS:
            words[first + word] = mix64(position * 16 + word)
            checksum = mix64(checksum ^ words[first + word])
    words[first + size - 1] = checksum


@numba.njit(nogil=True)
def is_good(words: Any, first: int, position: int, slots: int) -> Any:
    """Return whether the record is the one that `fill` writes at this position."""
    size = slots * SLOT_WORDS
    good = words[first + 1] == (HEADER | TWO_SLOTS if slots == 2 else HEADER)
    checksum = mix64(words[first + 1] ^ words[first + 2])
    for word in range(3, size - 1):
        if word != SLOT_WORDS:
            good &= words[first + word] == mix64(position * 16 + word)
            checksum = mix64(checksum ^ words[first + word])
    return good and words[first + size - 1] == checksum


@numba.njit(nogil=True)
def fill_batch(cells: Any, words: Any, records: int, end: int, writer: int) -> Any:
    """Claim and fill up to `records` records, from below position `end`; publish nothing.

    Returns
    -------
    int, int
        The position behind them, and how many went; fewer, or none, when there is no room.
    """
    mask = cells[CAPACITY] - 1
    position = cells[POSITION]
    wanted = min(records * MOST_SLOTS_A_RECORD, cells[CAPACITY])
    until = min(writable_until(cells), position + wanted)
    claim(cells, until)
    written = 0
    while written < records and position < end:
        slots = 2 if wants_two(position) else 1
        pad = 1 if slots == 2 and position & mask == mask else 0
        if position + pad + slots > until:
            break
        if slots == 2:
            position = padded(words, mask, position)
        fill(words, (position & mask) * SLOT_WORDS, position, slots, writer)
        position += slots
        written += 1
    return position, written


@numba.njit(nogil=True)
def publish_slots(cells: Any, words: Any, first: int, end: int) -> None:
    """Publish what was filled."""
    publish(words, cells[CAPACITY] - 1, first, end)


@numba.njit(nogil=True)
def write_batch(cells: Any, words: Any, records: int, end: int, writer: int) -> Any:
    """Publish up to `records` records as one batch; return how many went."""
    first = cells[POSITION]
    position, written = fill_batch(cells, words, records, end, writer)
    publish_slots(cells, words, first, position)
    # release: pairs with whoever asks where the writer is
    store_release(cells, POSITION, position)
    return written


@numba.njit(nogil=True)
def write_up_to(
    cells: Any, words: Any, end: int, most_a_batch: int, polls: int, writer: int
) -> Any:
    """Publish batches of changing size until position `end`, or for some polls; say where it is."""
    for _ in range(polls):
        position = cells[POSITION]
        if position >= end:
            break
        records = 1 + (mix64(position + writer) & 255) % most_a_batch
        if write_batch(cells, words, records, end, writer) == 0:
            pause()
    return cells[POSITION]


@numba.njit(nogil=True)
def check(words: Any, first: int, slots: int, state: Any, mask: int, seen: Any) -> None:
    """Judge what was read at the state's position, note it in `seen` and go on behind it."""
    position = state[AT]
    if position < len(seen):
        seen[position] = 1 if words[first + 1] == PAD else words[first + slots * SLOT_WORDS - 1]
    if words[first + 1] == PAD:
        state[BAD] += position & mask != mask
        state[PADS] += 1
        state[AFTER_PAD] = 1
    else:
        due = 2 if state[AFTER_PAD] or wants_two(position) else 1
        state[BAD] += slots != due or not is_good(words, first, position, slots)
        state[BAD] += words[first + 2] < state[WRITER]
        state[WRITER] = words[first + 2]
        state[RECORDS] += 1
        state[AFTER_PAD] = 0
    state[AT] = position + slots


@numba.njit(nogil=True)
def read_gating(cells: Any, words: Any, reader: int, state: Any, end: int, polls: int) -> None:
    """Read as a gating reader, up to position `end`, until `polls` polls found nothing."""
    note_gating(cells, words, reader, state, end, polls, np.zeros(0, np.int64))


@numba.njit(nogil=True)
def note_gating(
    cells: Any, words: Any, reader: int, state: Any, end: int, polls: int, seen: Any
) -> None:
    """Read as `read_gating` does; put each record's checksum into `seen`, by position."""
    mask = cells[CAPACITY] - 1
    idle = 0
    while state[AT] < end and idle < polls:
        if not is_published(words, mask, state[AT]):
            idle += 1
            pause()
            continue
        first = (state[AT] & mask) * SLOT_WORDS
        check(words, first, 2 if words[first + 1] & TWO_SLOTS else 1, state, mask, seen)
        release_up_to(cells, reader, state[AT])


@numba.njit(nogil=True)
def read_tailing(cells: Any, words: Any, state: Any, out: Any, end: int, polls: int) -> None:
    """Read as a tailing reader, up to position `end`, until `polls` polls found nothing."""
    note_tailing(cells, words, state, out, end, polls, np.zeros(0, np.int64))


@numba.njit(nogil=True)
def note_tailing(
    cells: Any, words: Any, state: Any, out: Any, end: int, polls: int, seen: Any
) -> None:
    """Read as `read_tailing` does; put each record's checksum into `seen`, by position."""
    mask = cells[CAPACITY] - 1
    idle = 0
    while state[AT] < end and idle < polls:
        slots = copy_record(cells, words, mask, state[AT], out)
        if slots == OVERRUN:
            newest = newest_position(cells, state[AT])
            state[LOST] += newest - state[AT]
            state[AT] = newest
            state[AFTER_PAD] = 0
            idle += 1
        elif slots == NOTHING:
            idle += 1
            pause()
        else:
            check(out, 0, slots, state, mask, seen)


@numba.njit(nogil=True)
def resume(cells: Any, words: Any) -> Any:
    """Continue where a dead writer left off."""
    return resume_writer(cells, words, cells[CAPACITY] - 1)


@numba.njit(nogil=True)
def copy_at(cells: Any, words: Any, position: int, out: Any) -> Any:
    """Call `copy_record`."""
    return copy_record(cells, words, cells[CAPACITY] - 1, position, out)
