"""The compiled halves of the ring suite: writers and readers built from `ipc.ring`'s own functions.

    writer: writable_until -> claim -> fill -> publish     reader: is_published -> check -> release

No private fork of the ring: what is measured is what the venue runs. A message fills its slot:
word 1 a header as every record has, word 2 its position, words 3 to 7 the position plus a constant
of that word. Readers compare every word, so a message that is stale, torn between two laps or
spoiled is counted as wrong; comparing all costs no more than a checksum would (seven adds and
compares, about 1 ns).

A kernel starts at the ring's own position (writer) or at its cursor (reader) and leaves them where
it stopped, so the repeats of a case go on along one ring, many laps, as in a venue.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ipc.intrinsics import load_relaxed, pause, read_tsc, store_release
from ipc.kernel import kernel
from ipc.ring import (
    CAPACITY,
    CLAIMED,
    CURSOR_STRIDE,
    CURSORS,
    NOTHING,
    OVERRUN,
    POSITION,
    PREFETCH_AHEAD,
    SLOT_WORDS,
    claim,
    copy_record,
    is_published,
    prefetch_slot,
    publish,
    release_up_to,
    writable_until,
)

HEADER = 1
RELEASE_EVERY = 64
CLAIM_EVERY = 16
"""A claim a message would alternate two lines in the store queue: 300 M/s against 410."""
TAIL_POLL = 16


@kernel(inline=True)
def fill_message(words: Any, mask: int, position: int) -> None:
    """Write the payload of the message at `position`; word 0 stays the ring's."""
    first = (position & mask) * SLOT_WORDS
    words[first + 1] = HEADER
    words[first + 2] = position
    words[first + 3] = position + 0x1111
    words[first + 4] = position + 0x22222
    words[first + 5] = position + 0x333333
    words[first + 6] = position + 0x4444444
    words[first + 7] = position + 0x55555555


@kernel(inline=True)
def is_wrong(words: Any, first: int, position: int) -> int:
    """Return 1 when the message that begins at word `first` is not the one of `position`."""
    difference = (
        (words[first + 1] ^ HEADER)
        | (words[first + 2] ^ position)
        | (words[first + 3] ^ (position + 0x1111))
        | (words[first + 4] ^ (position + 0x22222))
        | (words[first + 5] ^ (position + 0x333333))
        | (words[first + 6] ^ (position + 0x4444444))
        | (words[first + 7] ^ (position + 0x55555555))
    )
    return 1 if difference != 0 else 0


@kernel(inline=True)
def await_readers(cells: Any, position: int) -> None:
    """Spin until every gating reader has released everything below `position`."""
    while writable_until(cells) - cells[CAPACITY] < position:
        pause()


@kernel
def write_each(cells: Any, words: Any, count: int) -> Any:
    """Publish `count` messages one by one, as fast as the readers allow.

    Returns
    -------
    int
        TSC ticks from the first message until the slowest gating reader has released the last.
    """
    mask = cells[CAPACITY] - 1
    position = cells[POSITION]
    end = position + count
    until = position
    began = read_tsc()
    while position < end:
        while until <= position:
            until = writable_until(cells)
        stop = min(position + CLAIM_EVERY, until, end)
        claim(cells, stop)
        while position < stop:
            prefetch_slot(words, mask, position + PREFETCH_AHEAD)
            fill_message(words, mask, position)
            publish(words, mask, position, position + 1)
            position += 1
    store_release(cells, POSITION, position)
    await_readers(cells, end)
    return read_tsc() - began


@kernel
def write_batches(cells: Any, words: Any, count: int, batch: int) -> Any:
    """Publish `count` messages, `batch` at a time; returns ticks as `write_each` does."""
    mask = cells[CAPACITY] - 1
    position = cells[POSITION]
    end = position + count
    until = position
    began = read_tsc()
    while position < end:
        stop = min(position + batch, end)
        while until < stop:
            until = writable_until(cells)
        claim(cells, stop)
        for ahead in range(position, stop):
            prefetch_slot(words, mask, ahead + PREFETCH_AHEAD)
        for filled in range(position, stop):
            fill_message(words, mask, filled)
        publish(words, mask, position, stop)
        position = stop
    store_release(cells, POSITION, position)
    await_readers(cells, end)
    return read_tsc() - began


@kernel
def write_spoiled(cells: Any, words: Any) -> int:
    """Publish one message of which one bit is wrong: the checks must find it."""
    mask = cells[CAPACITY] - 1
    position = cells[POSITION]
    while writable_until(cells) <= position:
        pause()
    claim(cells, position + 1)
    fill_message(words, mask, position)
    words[(position & mask) * SLOT_WORDS + 5] ^= 1
    publish(words, mask, position, position + 1)
    store_release(cells, POSITION, position + 1)
    return 1


@kernel
def read_checked(cells: Any, words: Any, reader: int, count: int) -> int:
    """Read `count` messages as gating reader `reader`, check each; return how many were wrong.

    It releases every RELEASE_EVERY slots and before it waits: a reader that waited with slots in
    hand could wait for a writer that waits for those slots.
    """
    mask = cells[CAPACITY] - 1
    position = cells[CURSORS + reader * CURSOR_STRIDE]
    end = position + count
    wrong = 0
    while position < end:
        if not is_published(words, mask, position):
            release_up_to(cells, reader, position)
            while not is_published(words, mask, position):
                pause()
        wrong += is_wrong(words, (position & mask) * SLOT_WORDS, position)
        position += 1
        if position & (RELEASE_EVERY - 1) == 0:
            release_up_to(cells, reader, position)
    release_up_to(cells, reader, end)
    return wrong


@kernel(inline=True)
def poll_checked(cells: Any, words: Any, reader: int, position: int, end: int) -> tuple[int, int]:
    """Read what is published of [position, end) and release it: position reached, wrong ones."""
    mask = cells[CAPACITY] - 1
    began = position
    wrong = 0
    while position < end and is_published(words, mask, position):
        wrong += is_wrong(words, (position & mask) * SLOT_WORDS, position)
        position += 1
    if position != began:
        release_up_to(cells, reader, position)
    return position, wrong


@kernel
def read_two(cells: Any, words: Any, count: int) -> int:
    """Be gating readers 0 and 1 in turns, as roles composed in one worker; return wrong ones."""
    first = cells[CURSORS]
    second = cells[CURSORS + CURSOR_STRIDE]
    end = first + count
    wrong = 0
    while first < end or second < end:
        first, wrong_first = poll_checked(cells, words, 0, first, min(first + RELEASE_EVERY, end))
        second, wrong_second = poll_checked(
            cells, words, 1, second, min(second + RELEASE_EVERY, end)
        )
        wrong += wrong_first + wrong_second
    return wrong


@kernel(inline=True)
def poll_tailing(
    cells: Any, words: Any, position: int, end: int, copy: Any
) -> tuple[int, int, int]:
    """Copy up to TAIL_POLL records: position reached, received, wrong. The rest was lost.

    After an overrun it goes on half a ring behind the writer's intent, not at the oldest slot: that
    one would be gone again before the copy is done.
    """
    mask = cells[CAPACITY] - 1
    received = wrong = 0
    for _ in range(TAIL_POLL):
        if position >= end:
            break
        slots = copy_record(cells, words, mask, position, copy)
        if slots == NOTHING:
            break
        if slots == OVERRUN:
            claimed = load_relaxed(cells, CLAIMED)
            position = min(max(position + 1, claimed - (mask + 1) // 2), end)
        else:
            wrong += is_wrong(copy, 0, position)
            received += 1
            position += slots
    return position, received, wrong


@kernel
def read_and_tail(cells: Any, words: Any, count: int, copy: Any) -> tuple[int, int, int, int]:
    """Be gating reader 0 and a tailing reader in turns, the tailing one at a quarter of the pace.

    Returns
    -------
    tuple
        Wrong ones of the gating reader; received, lost and wrong ones of the tailing reader.
    """
    gating = cells[CURSORS]
    tailing = gating
    end = gating + count
    wrong_gating = received = lost = wrong_tailing = 0
    while gating < end or tailing < end:
        gating, wrong = poll_checked(cells, words, 0, gating, min(gating + RELEASE_EVERY, end))
        wrong_gating += wrong
        before = tailing
        tailing, copied, wrong = poll_tailing(cells, words, tailing, end, copy)
        received += copied
        lost += tailing - before - copied
        wrong_tailing += wrong
    return wrong_gating, received, lost, wrong_tailing


@kernel
def tail(cells: Any, words: Any, position: int, count: int, copy: Any) -> tuple[int, int, int, int]:
    """Be a tailing reader only, from `position` on; answer as `read_and_tail` does."""
    end = position + count
    received = lost = wrong_ones = 0
    while position < end:
        before = position
        position, copied, wrong = poll_tailing(cells, words, position, end, copy)
        received += copied
        lost += position - before - copied
        wrong_ones += wrong
    return 0, received, lost, wrong_ones


@kernel
def ping(there: Any, back: Any, samples: Any) -> int:
    """Send a message and wait for its echo, `samples.size` times; return wrong echoes.

    Parameters
    ----------
    there, back : tuple of int64[:] and int64[:]
        Cells and words of two rings, shared: one each way.
    samples : int64[n]
        Each round trip in TSC ticks, one stamp a trip.

    Notes
    -----
    One `pause` a look: without it 122 ns near instead of 60 to 90, with four 130 to 190.
    """
    there_cells, there_words = there
    back_cells, back_words = back
    mask = there_cells[CAPACITY] - 1
    position = there_cells[POSITION]
    until = position
    wrong = 0
    last = read_tsc()
    for trip in range(samples.size):
        while until <= position:
            until = writable_until(there_cells)
        claim(there_cells, position + 1)
        fill_message(there_words, mask, position)
        publish(there_words, mask, position, position + 1)
        prefetch_slot(there_words, mask, position + PREFETCH_AHEAD)
        while not is_published(back_words, mask, position):
            pause()
        wrong += is_wrong(back_words, (position & mask) * SLOT_WORDS, position)
        position += 1
        release_up_to(back_cells, 0, position)
        now = read_tsc()
        samples[trip] = now - last
        last = now
    store_release(there_cells, POSITION, position)
    return wrong


@kernel
def pong(there: Any, back: Any, trips: int, spoiled: int) -> int:
    """Echo `trips` messages, copied whole; spoil the one at position `spoiled` (-1: none)."""
    there_cells, there_words = there
    back_cells, back_words = back
    mask = there_cells[CAPACITY] - 1
    position = back_cells[POSITION]
    until = position
    for _ in range(trips):
        while not is_published(there_words, mask, position):
            pause()
        while until <= position:
            until = writable_until(back_cells)
        claim(back_cells, position + 1)
        first = (position & mask) * SLOT_WORDS
        for word in range(1, SLOT_WORDS):
            back_words[first + word] = there_words[first + word]
        if position == spoiled:
            back_words[first + 5] ^= 1
        publish(back_words, mask, position, position + 1)
        prefetch_slot(back_words, mask, position + PREFETCH_AHEAD)
        position += 1
        release_up_to(there_cells, 0, position)
    store_release(back_cells, POSITION, position)
    return trips


def new_copy() -> Any:
    """Return the private buffer that `copy_record` fills."""
    return np.zeros(2 * SLOT_WORDS, np.int64)
