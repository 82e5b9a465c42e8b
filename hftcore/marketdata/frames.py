"""A subscriber's compiled half: frames off the socket, through every check, into the books.

`receive` takes what has arrived, frame by frame, and goes on as long as each frame is the next one
of its instrument. At the first that is anything else (a gap, another start of the venue, an
instrument that waits for its snapshot) it returns, with the frame still in place, and `subscriber`
decides. A frame is applied as a whole by one call; nothing of it is believed before its size and
topic, the instrument and number of each update, its start and its first feed_sequence have been
checked, and an update that does not fit the book stops it.

Comes after `l3_book`, `zmq_calls`; before `subscriber`, and the subscribers of benchmarks.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hftcore.limits import MAX_INSTRUMENTS
from hftcore.marketdata.l3_book import APPLIED, apply_update
from hftcore.marketdata.publisher_state import L3, MAX_FRAME_BYTES
from hftcore.marketdata.zmq_calls import AGAIN, DONTWAIT, INTERRUPTED, zmq_errno, zmq_recv
from hftcore.matching.state import Shard
from hftcore.messages import SLOT_BYTES
from ipc.intrinsics import address_of
from ipc.kernel import kernel

# What became of a frame.
TAKEN = 0
"""Applied, or nothing new: goes on."""
NOTHING = 1
"""No frame has arrived."""
GAP = 2
"""Updates before this frame are missing."""
OTHER_START = 3
"""It is of another start or epoch of the venue."""
WAITING = 4
"""Its book is not known yet; keep it until the snapshot is there."""
REFUSED = 5
"""An update does not fit the book, which is therefore wrong."""
MALFORMED = 6
"""No frame of this protocol."""
SOCKET_FAILED = 7

LINK = np.dtype(
    [
        ("followed", "<i8"),  # 1: this instrument is wanted and its ladder is known
        ("synced", "<i8"),  # 1: the book is the venue's, at its feed_sequence
        ("start_id", "<i8"),  # of the venue
        ("epoch", "<i8"),
        ("heard", "<i8"),  # frames of this instrument, heartbeats included
        ("sent_ns", "<i8"),  # of the newest frame, UTC of the publisher
    ]
)
FRAMES, UPDATES, APPLIED_NOW, STATUS = 0, 1, 2, 3
"""Words of a tally: frames and updates applied, updates of the last frame that were new, and why
the book refused the last one (`l3_book.STATUS_NAMES`)."""

_WORDS = SLOT_BYTES // 8


class Follower(NamedTuple):
    """What a subscriber's kernels work on.

    Attributes
    ----------
    books : Shard
    links : LINK[MAX_INSTRUMENTS]
        By instrument_id.
    frame : int64[MAX_FRAME_BYTES / 8]
        The frame that was received last.
    tally : int64[8]
    """

    books: Shard
    links: NDArray[Any]
    frame: NDArray[np.int64]
    tally: NDArray[np.int64]


def follower_of(books: Shard) -> Follower:
    """Make a subscriber's arrays around some books, none of them synced."""
    return Follower(
        books,
        np.zeros(MAX_INSTRUMENTS, LINK),
        np.zeros(MAX_FRAME_BYTES // 8, np.int64),
        np.zeros(8, np.int64),
    )


@kernel
def apply_frame(follower: Follower, words: Any, size: int) -> int:
    """Apply one frame of topic L3.

    Parameters
    ----------
    words : int64[:]
        The frame.
    size : int
        Its bytes; may exceed the array, which then holds only its beginning.

    Returns
    -------
    int
        What became of it. TAKEN and tally[APPLIED_NOW] updates from its end were new.
    """
    tally = follower.tally
    tally[APPLIED_NOW] = 0
    head = words[0]
    updates = (head >> 32) & 0xFFFFFFFF
    instrument_id = (head >> 16) & 0xFFFF
    if size < SLOT_BYTES or size > len(words) * 8 or size != (1 + updates) * SLOT_BYTES:
        return MALFORMED
    if head & 0xFFFF != L3 or instrument_id >= len(follower.links):
        return MALFORMED
    link = follower.links[np.uintp(instrument_id)]
    if link["followed"] == 0:
        return TAKEN
    first = words[3]
    for number in range(updates):
        at = (1 + number) * _WORDS
        if (words[np.uintp(at + 1)] >> 16) & 0xFFFF != instrument_id:
            return MALFORMED
        if words[np.uintp(at + 4)] != first + number:
            return MALFORMED
    link["heard"] += 1
    link["sent_ns"] = words[6]
    if words[2] != link["start_id"] or words[1] != link["epoch"]:
        return OTHER_START
    if link["synced"] == 0:
        return WAITING
    book = follower.books.books[np.uintp(instrument_id)]
    expected = book["feed_sequence"] + 1
    if first > expected or words[4] >= expected:
        return GAP
    tally[FRAMES] += 1
    # what a snapshot already held is passed over
    for number in range(max(expected - first, 0), updates):
        status = apply_update(follower.books, words, (1 + number) * _WORDS)
        if status != APPLIED:
            tally[STATUS] = status
            return REFUSED
        tally[APPLIED_NOW] += 1
    tally[UPDATES] += tally[APPLIED_NOW]
    return TAKEN


@kernel
def receive(follower: Follower, socket: int, budget: int) -> tuple[int, int]:
    """Receive and apply up to `budget` frames.

    Returns
    -------
    (outcome, size)
        TAKEN: the budget is used up. Otherwise what happened to the last frame, which lies in
        `follower.frame` with this size; NOTHING when no further one is there. With SOCKET_FAILED
        the size is the errno.
    """
    frame = follower.frame
    for _ in range(budget):
        size = zmq_recv(socket, address_of(frame, 0), len(frame) * 8, DONTWAIT)
        if size < 0:
            error = zmq_errno()
            if error == INTERRUPTED:
                continue
            return (NOTHING if error == AGAIN else SOCKET_FAILED), np.int64(error)
        outcome = apply_frame(follower, frame, np.int64(size))
        if outcome != TAKEN:
            return outcome, np.int64(size)
    return TAKEN, np.int64(0)
