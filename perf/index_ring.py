"""The index ring: what `ipc.ring` is not, kept as the measured loser beside it.

Readers watch one published cursor instead of the slots. The writer publishes any number of slots
with one store, but every message that is published singly moves two lines between the cores, the
slot's and the cursor's, one after the other: nearly twice the round trip, half the rate one by one.
In batches of 16 the two come close, as the cursor's line is then shared by 16 messages.

Used by the ring suite only (`hft bench ring --case index-ring`). It has the same memory, cells,
slots, prefetching, release interval and content check as the real ring, so that the place of the
sequence is the only difference: POSITION is the published cursor here, word 0 of a slot is unused.
"""

from __future__ import annotations

from typing import Any

from ipc.intrinsics import load_acquire, pause, read_tsc, store_release
from ipc.kernel import kernel
from ipc.ring import (
    CAPACITY,
    CURSOR_STRIDE,
    CURSORS,
    POSITION,
    PREFETCH_AHEAD,
    SLOT_WORDS,
    prefetch_slot,
    release_up_to,
    writable_until,
)
from perf.ring_kernels import RELEASE_EVERY, await_readers, fill_message, is_wrong


@kernel
def write_indexed(cells: Any, words: Any, count: int, batch: int) -> Any:
    """Publish `count` messages, the cursor once a `batch`.

    Returns
    -------
    int
        TSC ticks from the first message until the slowest reader has released the last.
    """
    mask = cells[CAPACITY] - 1
    position = cells[POSITION]
    end = position + count
    until = position
    began = read_tsc()
    while position < end:
        stop = min(position + batch, end)
        while until < stop:
            until = writable_until(cells)
        while position < stop:
            prefetch_slot(words, mask, position + PREFETCH_AHEAD)
            fill_message(words, mask, position)
            position += 1
        # release: pairs with the loads of POSITION in the readers below
        store_release(cells, POSITION, position)
    await_readers(cells, end)
    return read_tsc() - began


@kernel
def read_indexed(cells: Any, words: Any, reader: int, count: int) -> int:
    """Read `count` messages, check each; return how many were wrong."""
    mask = cells[CAPACITY] - 1
    position = cells[CURSORS + reader * CURSOR_STRIDE]
    end = position + count
    wrong = 0
    while position < end:
        # acquire: pairs with `write_indexed`
        published = min(load_acquire(cells, POSITION), end)
        if published == position:
            release_up_to(cells, reader, position)
            while load_acquire(cells, POSITION) == position:
                pause()
        while position < published:
            wrong += is_wrong(words, (position & mask) * SLOT_WORDS, position)
            position += 1
            if position & (RELEASE_EVERY - 1) == 0:
                release_up_to(cells, reader, position)
    release_up_to(cells, reader, end)
    return wrong


@kernel
def ping_indexed(there: Any, back: Any, samples: Any) -> int:
    """Send a message and wait for its echo, `samples.size` times; return wrong echoes."""
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
        fill_message(there_words, mask, position)
        # release: pairs with `pong_indexed`
        store_release(there_cells, POSITION, position + 1)
        prefetch_slot(there_words, mask, position + PREFETCH_AHEAD)
        # acquire: pairs with `pong_indexed`
        while load_acquire(back_cells, POSITION) <= position:
            pause()
        wrong += is_wrong(back_words, (position & mask) * SLOT_WORDS, position)
        position += 1
        release_up_to(back_cells, 0, position)
        now = read_tsc()
        samples[trip] = now - last
        last = now
    return wrong


@kernel
def pong_indexed(there: Any, back: Any, trips: int) -> int:
    """Echo `trips` messages, copied whole."""
    there_cells, there_words = there
    back_cells, back_words = back
    mask = there_cells[CAPACITY] - 1
    position = back_cells[POSITION]
    until = position
    for _ in range(trips):
        # acquire: pairs with `ping_indexed`
        while load_acquire(there_cells, POSITION) <= position:
            pause()
        while until <= position:
            until = writable_until(back_cells)
        first = (position & mask) * SLOT_WORDS
        for word in range(1, SLOT_WORDS):
            back_words[first + word] = there_words[first + word]
        # release: pairs with `ping_indexed`
        store_release(back_cells, POSITION, position + 1)
        prefetch_slot(back_words, mask, position + PREFETCH_AHEAD)
        position += 1
        release_up_to(there_cells, 0, position)
    return trips
