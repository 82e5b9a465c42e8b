"""The agents around the publisher in its benchmark: who writes the events, who receives the frames.

The writer puts recorded events of the venue's own matcher into the event ring, again and again: a
recording ends with an empty book, so its next turn only needs later sequences and order ids. A
subscriber either checks every update and counts it, or applies it to its books as well. While it
finds nothing it gives its cpu away: on two cpus ZMQ's own threads need it.

Stamps of a paced run are ticks in the field that is otherwise sequenced_ns, and they say when the
event was due, not when the writer came to it.
"""

from __future__ import annotations

import os
from typing import Any, NamedTuple

import numpy as np
from numba import types
from numpy.typing import NDArray

from hftcore.marketdata import publisher as publisher_role
from hftcore.marketdata.frames import NOTHING, TAKEN, Follower, receive
from hftcore.marketdata.publisher_state import L3, MAX_FRAME_BYTES, Publisher
from hftcore.marketdata.zmq_calls import DONTWAIT, zmq_recv
from hftcore.messages import SLOT_BYTES, Flags
from ipc.histogram import record
from ipc.intrinsics import (
    add_wrapping,
    address_of,
    fetch_add,
    load_acquire,
    read_tsc,
    store_release,
)
from ipc.kernel import JIT, kernel
from ipc.ring import POSITION, claim, padded, publish, writable_until

_WORDS = SLOT_BYTES // 8
_TWO_SLOTS = int(Flags.TWO_SLOTS)
_ROOM = 3

ROW, TURN, UPDATES, CHECKSUM = 0, 1, 2, 3
"""Words of a writer's state: next row, how often it has begun again, public events, their sum."""
COUNT, NEXT, WRONG, SUM, FRAMES = 0, 1, 2, 3, 4
"""Words of what a subscriber has seen: updates, the next feed_sequence, what was wrong, their sum,
and frames."""

_sched_yield: Any
if JIT:
    _sched_yield = types.ExternalFunction("sched_yield", types.int32())
else:
    _sched_yield = os.sched_yield


class Writer(NamedTuple):
    """Who writes events into the ring, in the matcher's place.

    Attributes
    ----------
    cells, words : int64[:]
        The event ring. Written.
    matched : int64[8]
        matched_sequence. Written.
    rows : int64[n, 16]
        The recording: slot A and slot B of each event.
    state : int64[8]
    spans : int64[2]
        Sequences and feed_sequences that one turn of the recording takes.
    """

    cells: NDArray[np.int64]
    words: NDArray[np.int64]
    matched: NDArray[np.int64]
    rows: NDArray[np.int64]
    state: NDArray[np.int64]
    spans: NDArray[np.int64]


@kernel(inline=True)
def write_events(writer: Writer, until: int, budget: int, stamp: int) -> int:
    """Write events until `until` public ones are written in all; return how many now.

    Parameters
    ----------
    stamp : int
        Goes into every event in the place of sequenced_ns.
    """
    words, rows, state = writer.words, writer.rows, writer.state
    mask = len(words) // _WORDS - 1
    position = writer.cells[POSITION]
    limit = min(writable_until(writer.cells), position + _ROOM * budget)
    claim(writer.cells, limit)
    sequence = writer.matched[0]
    began = position
    written = np.int64(0)
    while limit - position >= _ROOM and state[UPDATES] < until and written < budget:
        row = state[ROW]
        head = rows[row, 1]
        sequence = rows[row, 2] + state[TURN] * writer.spans[0]
        slots = 1
        if (head >> 8) & _TWO_SLOTS:
            slots = 2
            position = padded(words, mask, position)
        first = (position & mask) * _WORDS
        for word in range(1, _WORDS):
            words[np.uintp(first + word)] = rows[row, word]
        words[np.uintp(first + 2)] = sequence
        words[np.uintp(first + 3)] = stamp
        if rows[row, 4] != 0:
            words[np.uintp(first + 4)] = rows[row, 4] + state[TURN] * writer.spans[1]
            state[UPDATES] += 1
            state[CHECKSUM] = add_wrapping(state[CHECKSUM], rows[row, 6] + rows[row, 7])
        words[np.uintp(first + 5)] = rows[row, 5] + state[TURN] * writer.spans[0]
        if slots == 2:
            for word in range(1, _WORDS):
                words[np.uintp(first + _WORDS + word)] = rows[row, _WORDS + word]
        position += slots
        written += 1
        state[ROW] = row + 1
        if row + 1 == len(rows):
            state[ROW] = 0
            state[TURN] += 1
    publish(words, mask, began, position)
    # release: as the matcher does, after its events
    store_release(writer.cells, POSITION, position)
    store_release(writer.matched, 0, sequence)
    return written


@kernel
def publish_flat_out(writer: Writer, publisher: Publisher, until: int, begin: int) -> int:
    """Write and publish as fast as it goes until `until` updates are sent; return ticks.

    The writer fills half of the ring at a time, the publisher takes 256 events at a time: it finds
    the ring filled, as it does behind a matcher under load, and sends full frames.
    """
    started = read_tsc()
    while True:
        write_events(writer, until, begin, 0)
        done = publisher_role.poll(publisher, 256)
        while done == 256:
            done = publisher_role.poll(publisher, 256)
        state = publisher.state[0]
        if state["failure"] != 0:
            return -1
        if state["blocked"] != 0:
            _sched_yield()
        if writer.state[UPDATES] >= until and done == 0 and state["pending_count"] == 0:
            return read_tsc() - started


@kernel
def publish_paced(
    writer: Writer, publisher: Publisher, until: int, gap_ticks: float, late: Any
) -> int:
    """Write each event when it is due and publish it; return ticks.

    Parameters
    ----------
    gap_ticks : float
        Between two public events.
    late : int64[1]
        Written: the furthest that the writer was behind, ticks.
    """
    started = read_tsc()
    sent = writer.state[UPDATES]
    base = sent
    while True:
        due = started + np.int64((sent - base) * gap_ticks)
        now = read_tsc()
        if now >= due and sent < until:
            late[0] = max(late[0], now - due)
            before = sent
            while sent == before:  # events that are not public come along
                if write_events(writer, until, 1, due) == 0:
                    break
                sent = writer.state[UPDATES]
        publisher_role.poll(publisher, 256)
        state = publisher.state[0]
        if state["failure"] != 0:
            return -1
        if sent >= until and state["pending_count"] == 0 and publisher_role.poll(publisher, 1) == 0:
            return read_tsc() - started


@kernel
def receive_counted(socket: int, frame: Any, seen: Any, until: int, stop: Any) -> int:
    """Receive frames and check each update's feed_sequence, without a book; return ticks.

    Parameters
    ----------
    frame : int64[:]
        Scratch, as large as the largest frame.
    seen : int64[8]
        Written.
    until : int
        Updates after which it returns.
    stop : int64[:]
        Shared: returns when [0] is set and nothing arrives.
    """
    started = np.int64(0)
    while seen[COUNT] < until:
        size = np.int64(zmq_recv(socket, address_of(frame, 0), len(frame) * 8, DONTWAIT))
        if size < 0:
            # acquire: pairs with the store of who gives the run up
            if load_acquire(stop, 0) != 0:
                break
            _sched_yield()
            continue
        updates = (frame[0] >> 32) & 0xFFFFFFFF
        if started == 0 and updates > 0:
            started = read_tsc()
        if size != (1 + updates) * SLOT_BYTES or frame[0] & 0xFFFF != L3:
            seen[WRONG] += 1
            continue
        seen[FRAMES] += np.int64(updates > 0)
        for number in range(1, updates + 1):
            at = number * _WORDS
            sequence = frame[np.uintp(at + 4)]
            seen[WRONG] += np.int64(sequence != seen[NEXT])
            seen[NEXT] = sequence + 1
            total = frame[np.uintp(at + 6)] + frame[np.uintp(at + 7)]
            seen[SUM] = add_wrapping(seen[SUM], total)
        seen[COUNT] += updates
    return read_tsc() - started


@kernel
def receive_books(follower: Follower, socket: int, seen: Any, until: int, stop: Any) -> int:
    """Receive frames into books as a subscriber does; return ticks."""
    started = np.int64(0)
    while follower.tally[1] < until:
        outcome, _ = receive(follower, socket, 64)
        if outcome == NOTHING:
            if load_acquire(stop, 0) != 0:
                break
            _sched_yield()
        elif outcome != TAKEN:
            seen[WRONG] += 1
            break
        if started == 0 and follower.tally[1] > 0:
            started = read_tsc()
    seen[COUNT] = follower.tally[1]
    seen[FRAMES] = follower.tally[0]
    return read_tsc() - started


@kernel
def receive_stamped(
    socket: int, frame: Any, seen: Any, until: int, stop: Any, histogram: Any, skip: int
) -> int:
    """Receive paced frames; record for each update how long ago it was due, in ticks.

    Parameters
    ----------
    histogram : int64[3720]
        `ipc.histogram`, written.
    skip : int
        Updates at the beginning that are not recorded.
    """
    while seen[COUNT] < until:
        size = np.int64(zmq_recv(socket, address_of(frame, 0), len(frame) * 8, 0))
        now = read_tsc()
        if size < 0:
            if load_acquire(stop, 0) != 0:
                break
            continue
        updates = (frame[0] >> 32) & 0xFFFFFFFF
        if size != (1 + updates) * SLOT_BYTES or frame[0] & 0xFFFF != L3:
            seen[WRONG] += 1
            continue
        seen[FRAMES] += np.int64(updates > 0)
        for number in range(1, updates + 1):
            at = number * _WORDS
            sequence = frame[np.uintp(at + 4)]
            seen[WRONG] += np.int64(sequence != seen[NEXT])
            seen[NEXT] = sequence + 1
            total = frame[np.uintp(at + 6)] + frame[np.uintp(at + 7)]
            seen[SUM] = add_wrapping(seen[SUM], total)
            if seen[COUNT] + number > skip:
                record(histogram, now - frame[np.uintp(at + 3)])
        seen[COUNT] += updates
    return read_tsc()


@kernel
def take_number(cell: Any) -> int:
    """Return how many processes have asked before; [0] of a shared cell counts them."""
    return fetch_add(cell, 0, 1)


def new_frame() -> NDArray[np.int64]:
    """Make room for the largest frame."""
    return np.zeros(MAX_FRAME_BYTES // 8, np.int64)
