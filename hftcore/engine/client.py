"""A client in the venue's own process: rows of commands into the ingress ring, events out.

`send` is the writer of an ingress ring, `drain` a gating reader of an event ring. Drained events
are counted by kind and, when there is room for them, copied into a log; with a log that is full
`drain` stops, so nothing is lost.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hftcore.messages import Flags
from ipc.intrinsics import store_release
from ipc.kernel import kernel
from ipc.ring import (
    POSITION,
    Ring,
    claim,
    end_of_record,
    is_published,
    padded,
    publish,
    release_up_to,
    writable_until,
)

CLIENT = np.dtype(
    [
        ("event_position", "<i8"),  # of the next event to read
        ("logged", "<i8"),  # rows of the log in use
        ("reader", "<i8"),  # which gating reader of the event ring this is
        ("counts", "<i8", (256,)),  # events by kind
    ]
)

_TWO_SLOTS = int(Flags.TWO_SLOTS)
_WORDS = 8
_ROOM = 3
"""Slots that one command may take: a pad and two."""


class Client(NamedTuple):
    """What a client's polls work on.

    Attributes
    ----------
    state : CLIENT[1]
    ingress_words, event_words : int64[slots * 8]
    ingress_cells, event_cells : int64[512]
    """

    state: NDArray[Any]
    ingress_words: NDArray[np.int64]
    ingress_cells: NDArray[np.int64]
    event_words: NDArray[np.int64]
    event_cells: NDArray[np.int64]


def client_of(ingress: Ring, events: Ring, reader: int = 0) -> Client:
    """Join two rings; the client gates `events` as reader number `reader`."""
    state = np.zeros(1, CLIENT)
    state["reader"] = reader
    return Client(state, ingress.words, ingress.cells, events.words, events.cells)


@kernel
def send(client: Client, rows: Any, first: int, end: int) -> int:
    """Write rows [first, end) of commands into the ingress ring; return how many had room.

    Parameters
    ----------
    rows : int64[n, 16]
        Slot A and slot B of each command; slot B is sent when the flags say two slots.
    """
    words, cells = client.ingress_words, client.ingress_cells
    mask = len(words) // _WORDS - 1
    position = cells[POSITION]
    limit = writable_until(cells) if first < end else position
    row = first
    while row < end and limit - position >= _ROOM:
        begin = position
        slots = 2 if (rows[row, 1] >> 8) & _TWO_SLOTS else 1
        until = end_of_record(mask, position, slots)
        assert until <= min(limit, position + mask + 1)
        claim(cells, until)
        if slots == 2:
            position = padded(words, mask, position)
        target = (position & mask) * _WORDS
        for word in range(1, slots * _WORDS):
            if word != _WORDS:
                words[np.uintp(target + word)] = rows[row, word]
        position += slots
        publish(words, mask, begin, position)
        row += 1
    store_release(cells, POSITION, position)
    return row - first


@kernel
def drain(client: Client, log: Any) -> int:
    """Read every event that is there.

    Parameters
    ----------
    log : int64[n, 16]
        Receives the events from row `logged` on (word 0 and an absent slot B as 0); with n = 0
        events are counted only.

    Returns
    -------
    int
        Events read.
    """
    state = client.state[0]
    words = client.event_words
    mask = len(words) // _WORDS - 1
    position = state["event_position"]
    counts = state["counts"]
    logged = state["logged"]
    count = 0
    while (len(log) == 0 or logged < len(log)) and is_published(words, mask, position):
        first = (position & mask) * _WORDS
        head = words[np.uintp(first + 1)]
        if head == 0:
            position += 1  # a pad
            continue
        flags = (head >> 8) & 0xFF
        slots = 2 if flags & _TWO_SLOTS else 1
        counts[np.uintp(head & 0xFF)] += 1
        if len(log) > 0:
            for word in range(2 * _WORDS):
                present = word % _WORDS != 0 and word < slots * _WORDS
                log[logged, word] = words[np.uintp(first + word)] if present else 0
            logged += 1
        position += slots
        count += 1
    state["event_position"] = position
    state["logged"] = logged
    release_up_to(client.event_cells, state["reader"], position)
    return count
