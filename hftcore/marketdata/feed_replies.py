"""Snapshots that were asked for and those that are being sent: everybody's turn comes.

    request --> waiting --copy--> open --chunks, in turns--> sent
                                    \\--> given up: the reader stalls

At most MAX_OPEN snapshots are open. In each service, at most MAX_TURNS of them that can take chunks
get some and go to the end of the line, so a long one does not keep the others from theirs, and one
whose reader takes nothing costs an attempt. When all places are taken and somebody waits, whoever
has stalled longest loses its place, after STALL_NS; without that, after PATIENCE_NS. One reader has
a share of the places and of the waiting requests, so that it can't keep others out by asking.

Comes after `feed_copies`; before `feed_server`, which owns the socket.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from hftcore.marketdata.feed_copies import Copies, Copy
from hftcore.marketdata.feed_protocol import CHUNK_ORDERS, SnapshotReply, SnapshotRequest, encode
from hftcore.marketdata.publisher_state import SNAPSHOTS_REFUSED, SNAPSHOTS_SENT
from hftcore.messages import SLOT_BYTES

MAX_OPEN = 16
"""Snapshots that are being sent at the same time, those of readers that stall included."""
MAX_OPEN_OF_ONE = 4
MAX_TURNS = 4
"""Snapshots that get chunks in one service; twice as many are tried."""
CHUNKS_A_TURN = 8
MAX_WAITING = 256
"""Requests that wait for a copy or for a place."""
MAX_WAITING_OF_ONE = 32
STALL_NS = 50_000_000
"""How long a snapshot may make no progress while others wait for its place."""
PATIENCE_NS = 2_000_000_000
"""How long a snapshot may make no progress at all."""
_ORDER_WORDS = SLOT_BYTES // 8

Send = Callable[[list[Any]], bool | None]
"""Sends the parts of a message; False: no room now, None: nobody is there any more."""


@dataclass(eq=False)
class Reply:
    """A snapshot that is being sent."""

    identity: bytes
    request_id: int
    instrument_id: int
    copy: Copy
    sent: int = 0
    """Words of the orders that are on their way."""
    stalled_ns: int = 0
    """Since when its reader has no room, on the monotonic clock; 0: it has."""


class Replies:
    """The snapshots of one feed.

    Parameters
    ----------
    copies : Copies
    send : callable
        See Send.
    count : callable
        Counts a snapshot as SNAPSHOTS_SENT or SNAPSHOTS_REFUSED.
    start_id, epoch : int
        Of the venue; in every chunk.
    """

    def __init__(
        self, copies: Copies, send: Send, count: Callable[[int], None], start_id: int, epoch: int
    ) -> None:
        self.copies = copies
        self._send, self._count = send, count
        self._start = start_id, epoch
        self._open: deque[Reply] = deque()
        self._waiting: dict[tuple[bytes, int], SnapshotRequest] = {}
        self._waiting_of: Counter[bytes] = Counter()

    def ask(self, identity: bytes, request: SnapshotRequest) -> bool:
        """Take a request; return whether there is room for it."""
        asked = identity, request.instrument_id
        # who asks again has given up on what it asked for before
        self._open = deque(
            reply for reply in self._open if (reply.identity, reply.instrument_id) != asked
        )
        if asked not in self._waiting:
            of_one = self._waiting_of[identity]
            if len(self._waiting) >= MAX_WAITING or of_one >= MAX_WAITING_OF_ONE:
                return False
            self._waiting_of[identity] = of_one + 1
        self._waiting[asked] = request
        return True

    def serve(self, newest: Callable[[int], int], now_ns: int) -> int:
        """Begin snapshots that wait, and send chunks; return how many.

        Parameters
        ----------
        newest : callable
            Returns the feed_sequence of a book now.
        """
        self._begin(newest, now_ns)
        chunks = turns = 0
        for _ in range(min(len(self._open), 2 * MAX_TURNS)):
            if turns == MAX_TURNS:
                break
            reply = self._open.popleft()
            sent = self._send_chunks(reply, now_ns)
            chunks += sent
            turns += sent > 0
        if not self._open:
            self.copies.forget(now_ns)
        return chunks

    def _begin(self, newest: Callable[[int], int], now_ns: int) -> None:
        """Give places to requests that wait, oldest first."""
        of_one = Counter(reply.identity for reply in self._open)
        for (identity, instrument_id), request in list(self._waiting.items()):
            if of_one[identity] >= MAX_OPEN_OF_ONE:
                continue
            stalled = None
            if len(self._open) >= MAX_OPEN:
                stalled = self._longest_stalled(now_ns)
                if stalled is None:
                    return
            copy = self.copies.find(request, newest(instrument_id), now_ns)
            if copy is None:
                continue
            if stalled is not None:
                self._open.remove(stalled)
                of_one[stalled.identity] -= 1
                self._count(SNAPSHOTS_REFUSED)
            del self._waiting[identity, instrument_id]
            self._waiting_of[identity] -= 1
            if not self._waiting_of[identity]:
                del self._waiting_of[identity]
            of_one[identity] += 1
            self._open.append(Reply(identity, request.request_id, instrument_id, copy))

    def _longest_stalled(self, now_ns: int) -> Reply | None:
        """Return the reply that has waited longest for its reader, if that is long enough."""
        stalled = [
            reply
            for reply in self._open
            if reply.stalled_ns and now_ns - reply.stalled_ns > STALL_NS
        ]
        return min(stalled, key=lambda reply: reply.stalled_ns, default=None)

    def _send_chunks(self, reply: Reply, now_ns: int) -> int:
        """Send some chunks of a snapshot; put it back in line unless it is over."""
        orders = reply.copy.orders
        for number in range(CHUNKS_A_TURN):
            chunk = orders[reply.sent : reply.sent + CHUNK_ORDERS * _ORDER_WORDS]
            header = SnapshotReply(
                reply.request_id,
                reply.instrument_id,
                *self._start,
                reply.copy.feed_sequence,
                len(orders) // _ORDER_WORDS,
                reply.sent // _ORDER_WORDS,
            )
            sent = self._send([reply.identity, encode(header), chunk.view(np.uint8)])
            if not sent:
                if number == 0:
                    reply.stalled_ns = reply.stalled_ns or now_ns
                if sent is None or now_ns - (reply.stalled_ns or now_ns) > PATIENCE_NS:
                    self._count(SNAPSHOTS_REFUSED)
                else:
                    self._open.append(reply)
                return number
            reply.sent += len(chunk)
            reply.stalled_ns = 0
            if reply.sent == len(orders):
                self._count(SNAPSHOTS_SENT)
                return number + 1
        self._open.append(reply)
        return CHUNKS_A_TURN
