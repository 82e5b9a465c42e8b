"""The publisher's role: public events out of every shard's event ring, batched, onto ZMQ.

    event ring of shard 0 --+
    event ring of shard 1 --+--> poll --> frames by instrument --zmq_send--> L3 and TR subscribers
    released_sequence ------+       \\--> its own books --> snapshots (`feed_server`)

A frame is a header and up to `updates_a_frame` updates of one instrument: slot A of its public
events, nothing of slot B. It leaves when it is full or when the rings are drained, so an update
that comes alone leaves at once and a busy feed is batched without a timer. With a spacing, frames
that are not full also keep that distance from the flush before: the first update after a pause
still leaves at once, but waking ZMQ's I/O thread (7 us) is not paid for every update.

Copied word by word out of ring memory, because word 0 is the ring's and some flags are private: 64
bytes an update, and libzmq copies the frame once more. A frame that points into the ring instead
would pin ring slots until the slowest subscriber had them.

The event rings are gated: a position moves on when an update lies in a frame. Nothing above
`released_sequence` is looked at. PUBLISHED tells up to which command everything was sent.

Never in a matcher's worker: zmq_send may cost microseconds. Comes after `l3_book`, `zmq_calls`;
before `feed_server`, which owns the sockets and turns the polls.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from hftcore.marketdata.l3_book import APPLIED, apply_update
from hftcore.marketdata.publisher_state import (
    BLOCKED,
    EVENT_REFUSED,
    FRAMES_SENT,
    HEARTBEATS_SENT,
    L3,
    NOT_PUBLIC,
    PUBLIC_FLAGS,
    SEND_REFUSED,
    TRADES,
    TRADES_SENT,
    UPDATES_SENT,
    Publisher,
)
from hftcore.marketdata.zmq_calls import AGAIN, DONTWAIT, INTERRUPTED, utc_ns, zmq_errno, zmq_send
from hftcore.messages import ECHO, PUBLISHED, RELEASED, SLOT_BYTES, EventKind, Flags
from ipc.counters import count
from ipc.intrinsics import address_of, load_acquire, read_tsc, store_release
from ipc.kernel import kernel
from ipc.ring import CELL_WORDS, is_published, release_up_to
from ipc.ring_table import BESIDE_WORDS, words_at

_WORDS = SLOT_BYTES // 8
_TWO_SLOTS = int(Flags.TWO_SLOTS) << 8
_KEPT_BITS = ~((0xFF & ~PUBLIC_FLAGS) << 8)
_TRADE = int(EventKind.TRADE)
_SENT, _NOT_NOW = 0, 1


@kernel
def send_frame(publisher: Publisher, place: int, topic: int, now_ns: int) -> int:
    """Send the frame of a place, a heartbeat if it is empty; _NOT_NOW when there is no room."""
    state = publisher.state[0]
    row = publisher.places[np.uintp(place)]
    is_l3 = topic == L3
    words = publisher.frames if is_l3 else publisher.trades
    updates = row["count"] if is_l3 else row["trade_count"]
    previous = row["previous"] if is_l3 else row["trade_previous"]
    first = place * (1 + state["updates_a_frame"]) * _WORDS
    last = previous
    begin = previous + 1
    if updates > 0:
        begin = words[np.uintp(first + _WORDS + 4)]
        last = words[np.uintp(first + updates * _WORDS + 4)]
    # as FEED_FRAME lays it out
    words[np.uintp(first)] = topic | (row["instrument_id"] << 16) | (updates << 32)
    words[np.uintp(first + 1)] = state["epoch"]
    words[np.uintp(first + 2)] = state["start_id"]
    words[np.uintp(first + 3)] = begin
    words[np.uintp(first + 4)] = previous
    words[np.uintp(first + 5)] = row["last_sequence"]
    words[np.uintp(first + 6)] = now_ns
    words[np.uintp(first + 7)] = 0
    size = (1 + updates) * SLOT_BYTES
    if zmq_send(state["socket"], address_of(words, first), size, DONTWAIT) < 0:
        error = zmq_errno()
        if error != AGAIN and error != INTERRUPTED:
            state["failure"] = SEND_REFUSED
            state["failure_place"] = error
        state["blocked"] = 1
        count(publisher.counters, BLOCKED, 1)
        return _NOT_NOW
    state["blocked"] = 0
    if is_l3:
        row["count"] = 0
        row["previous"] = last
        row["sent_ns"] = now_ns
    else:
        row["trade_count"] = 0
        row["trade_previous"] = last
    count(publisher.counters, FRAMES_SENT if updates > 0 else HEARTBEATS_SENT, 1)
    count(publisher.counters, UPDATES_SENT if is_l3 else TRADES_SENT, updates)
    return _SENT


@kernel(inline=True)
def _copy_update(words: Any, source: int, target_words: Any, target: int) -> None:
    """Copy slot A into a frame, without the ring's word and without private flags."""
    target_words[np.uintp(target)] = 0
    target_words[np.uintp(target + 1)] = words[np.uintp(source + 1)] & _KEPT_BITS
    for word in range(2, _WORDS):
        target_words[np.uintp(target + word)] = words[np.uintp(source + word)]


@kernel(inline=True)
def _add_update(publisher: Publisher, words: Any, first: int) -> int:
    """Put one public event into the frames of its instrument, and into the book."""
    state = publisher.state[0]
    head = words[np.uintp(first + 1)]
    place = np.int64(-1)
    instrument_id = (head >> 16) & 0xFFFF
    if instrument_id < len(publisher.place_of):
        place = publisher.place_of[np.uintp(instrument_id)]
    if place < 0:
        return _SENT  # not on this feed
    row = publisher.places[np.uintp(place)]
    most = state["updates_a_frame"]
    if row["count"] == most or row["trade_count"] == most:  # could not be sent when it was full
        if row["count"] == most and _send_full(publisher, place, L3) != _SENT:
            return _NOT_NOW
        if row["trade_count"] == most and _send_full(publisher, place, TRADES) != _SENT:
            return _NOT_NOW
    if apply_update(publisher.books, words, first) != APPLIED:
        state["failure"] = EVENT_REFUSED
        state["failure_place"] = words[np.uintp(first + 2)]
        return _NOT_NOW
    base = place * (1 + most) * _WORDS
    row["count"] += 1
    _copy_update(words, first, publisher.frames, base + row["count"] * _WORDS)
    row["last_sequence"] = words[np.uintp(first + 2)]
    if head & 0xFF == _TRADE:
        row["trade_count"] += 1
        _copy_update(words, first, publisher.trades, base + row["trade_count"] * _WORDS)
        if row["trade_count"] == most:
            _send_full(publisher, place, TRADES)
    if row["count"] == most:
        _send_full(publisher, place, L3)
    if row["is_pending"] == 0:
        row["is_pending"] = 1
        publisher.pending[np.uintp(state["pending_count"])] = place
        state["pending_count"] += 1
    return _SENT


@kernel
def _send_full(publisher: Publisher, place: int, topic: int) -> int:
    """Send a frame that is full."""
    return send_frame(publisher, place, topic, utc_ns(publisher.timespec))


@kernel
def _take(publisher: Publisher, ring: int, released: int, budget: int) -> tuple[int, int]:
    """Take up to `budget` events out of one ring.

    Returns
    -------
    (taken, passed)
        Every event of a command up to the sequence `passed` is in a frame.
    """
    state = publisher.state[0]
    row = publisher.table[np.uintp(ring)]
    words = words_at(row["words"], row["slots"] * _WORDS)
    mask = row["slots"] - 1
    # acquire: pairs with the matcher's store; read before the ring is found empty, so that every
    # event that it promises is in a frame by then
    promised = load_acquire(words_at(row["beside"], BESIDE_WORDS), 0)
    position = publisher.at[np.uintp(ring)]
    taken = 0
    private = 0
    passed = promised
    while True:
        if not is_published(words, mask, position):
            break
        first = (position & mask) * _WORDS
        head = words[np.uintp(first + 1)]
        if head == 0:
            position += 1  # a pad
            continue
        sequence = words[np.uintp(first + 2)]
        if taken == budget or sequence > released:
            passed = min(passed, sequence - 1)
            break
        if head & ECHO or words[np.uintp(first + 4)] == 0:
            private += 1
        elif _add_update(publisher, words, first) != _SENT:
            passed = min(passed, sequence - 1)
            break
        position += 2 if head & _TWO_SLOTS else 1
        taken += 1
    if taken > 0:
        publisher.at[np.uintp(ring)] = position
        count(publisher.counters, NOT_PUBLIC, private)
        release_up_to(words_at(row["cells"], CELL_WORDS), state["reader"], position)
    return taken, passed


@kernel
def flush(publisher: Publisher, now_ns: int) -> int:
    """Send every frame that has updates; return how many instruments still have some."""
    state = publisher.state[0]
    left = np.int64(0)
    for number in range(state["pending_count"]):
        place = publisher.pending[np.uintp(number)]
        row = publisher.places[np.uintp(place)]
        if row["count"] > 0:
            send_frame(publisher, place, L3, now_ns)
        if row["trade_count"] > 0:
            send_frame(publisher, place, TRADES, now_ns)
        if row["count"] > 0 or row["trade_count"] > 0:
            publisher.pending[np.uintp(left)] = place
            left += 1
        else:
            row["is_pending"] = 0
    state["pending_count"] = left
    state["flushed_ns"] = now_ns
    return left


@kernel
def poll(publisher: Publisher, budget: int) -> int:
    """Publish up to `budget` events of each shard.

    Returns
    -------
    int
        Events taken out of the rings; 0 when there was nothing to do, or no room for it.
    """
    state = publisher.state[0]
    if state["failure"] != 0:
        return 0
    # acquire: pairs with the journal's store; what it calls safe may be read
    released = load_acquire(publisher.positions, RELEASED)
    taken = 0
    passed = np.int64(released)
    drained = True
    for ring in range(len(publisher.table)):
        done, reached = _take(publisher, ring, released, budget)
        taken += done
        passed = min(passed, reached)
        drained = drained and done < budget
    if state["pending_count"] > 0 and drained:
        now_ns = utc_ns(publisher.timespec)
        if now_ns - state["flushed_ns"] >= state["spacing_ns"] or now_ns < state["flushed_ns"]:
            flush(publisher, now_ns)
    if state["pending_count"] == 0 and passed > state["published"]:
        state["published"] = passed
        # release: pairs with whoever asks how far the feed is
        store_release(publisher.positions, PUBLISHED, passed)
    return taken


@kernel
def run(publisher: Publisher, budget: int, until_ticks: int) -> int:
    """Poll until there is nothing to do or the cycle counter shows `until_ticks`.

    Returns
    -------
    int
        Events taken out of the rings.
    """
    state = publisher.state[0]
    total = np.int64(0)
    while True:
        done = poll(publisher, budget)
        total += done
        waits = state["pending_count"] > 0 and state["blocked"] == 0  # for the spacing
        if state["failure"] != 0 or (done == 0 and not waits):
            return total
        if read_tsc() >= until_ticks:
            return total


@kernel
def send_heartbeats(publisher: Publisher, interval_ns: int) -> int:
    """Send an empty frame for each instrument that was silent for so long; return how many.

    It tells the last feed_sequence, so a subscriber notices that it lost the end of a burst.
    """
    now_ns = utc_ns(publisher.timespec)
    sent = 0
    for place in range(len(publisher.places)):
        row = publisher.places[np.uintp(place)]
        if row["is_pending"] == 0 and now_ns - row["sent_ns"] >= interval_ns:
            if send_frame(publisher, place, L3, now_ns) != _SENT:
                return sent
            send_frame(publisher, place, TRADES, now_ns)
            sent += 1
    return sent
