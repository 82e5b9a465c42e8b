"""The subscriber's questions: which instruments there are, and a snapshot of each book.

Everything over one DEALER socket, without waiting: a question is sent, its answer comes in a later
poll or never, and whoever asked asks again. A `Recovery` is what is known of a book meanwhile: the
frames that came, and how far the venue is, so that no older book is taken for the present one.

Comes after `feed_protocol`; before `subscriber`.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import NamedTuple

import msgspec
import numpy as np
import zmq
from numpy.typing import NDArray

from hftcore.marketdata.feed_protocol import (
    InstrumentsReply,
    InstrumentsRequest,
    Refusal,
    SnapshotReply,
    SnapshotRequest,
    decode_reply,
    encode,
)
from hftcore.messages import SLOT_BYTES

RETRY_NS = 500_000_000
"""How long an answer is waited for before the question is asked again."""
MAX_KEPT_BYTES = 128 << 20
"""What a book keeps of the frames that come while it waits for its snapshot. At 64 MB/s of updates
it is two seconds, several times what the largest snapshot takes; beyond, the oldest frames go."""
_FRAME_BYTES = 128
"""What a kept frame takes besides its words."""
_EPOCH, _START, _FIRST, _PREVIOUS = 1, 2, 3, 4
"""Words of a frame."""


@dataclass
class Recovery:
    """A book on its way to being right.

    The frames kept follow each other without a gap up to `newest`, or there are none.
    """

    start: tuple[int, int] = (0, 0)
    """start_id and epoch of the venue whose frames these are."""
    newest: int = 0
    """The newest feed_sequence that the venue has told in any frame, heartbeats included."""
    kept: deque[NDArray[np.int64]] = field(default_factory=deque)
    """Frames that came since, oldest first."""
    kept_bytes: int = 0
    request_id: int = 0
    asked_ns: int = 0
    asked_least: int = 0
    chunks: list[bytes] = field(default_factory=list)
    orders: int = 0
    """Orders in the chunks so far."""

    @property
    def least(self) -> int:
        """The oldest snapshot that leads, by the frames kept, to the newest update told of."""
        return int(self.kept[0][_FIRST]) - 1 if self.kept else self.newest

    def hear(self, words: NDArray[np.int64], keep: bool = True) -> None:
        """Learn from a frame of this book how far the venue is, and keep it if it is of use."""
        start = int(words[_START]), int(words[_EPOCH])
        if start != self.start:
            self.start, self.newest, self.asked_ns = start, 0, 0
            self._drop_all()
        updates = (int(words[0]) >> 32) & 0xFFFFFFFF
        first, previous = int(words[_FIRST]), int(words[_PREVIOUS])
        last = max(first + updates - 1, previous)
        if last < self.newest or (self.kept and last == self.newest):
            return  # nothing new
        if not (keep and updates):
            if last > self.newest:  # what came before does not lead there
                self._drop_all()
        else:
            if max(first - 1, previous) > self.newest:
                self._drop_all()
            self.kept.append(words.copy())
            self.kept_bytes += words.nbytes + _FRAME_BYTES
        self.newest = last
        while self.kept_bytes > MAX_KEPT_BYTES:  # the request goes on: its snapshot may be newer
            self.oldest()

    def oldest(self) -> NDArray[np.int64]:
        """Take out the oldest of the frames kept."""
        words = self.kept.popleft()
        self.kept_bytes -= words.nbytes + _FRAME_BYTES
        return words

    def ask_again(self, at_once: bool) -> None:
        """Give up the request that is running; another one goes out now, or after a while."""
        self.request_id = 0
        if at_once:
            self.asked_ns = 0

    def _drop_all(self) -> None:
        self.kept.clear()
        self.kept_bytes = 0

    def take(self, reply: SnapshotReply, orders: bytes) -> bool:
        """Take one chunk; return whether the snapshot is whole."""
        if reply.request_id != self.request_id or (reply.start_id, reply.epoch) != self.start:
            return False
        if reply.first != self.orders or len(orders) % SLOT_BYTES:
            self.ask_again(at_once=False)  # a chunk was lost
            return False
        self.asked_ns = time.monotonic_ns()
        self.chunks.append(orders)
        self.orders += len(orders) // SLOT_BYTES
        return self.orders == reply.order_count


class Counts(NamedTuple):
    """What a subscriber has been through."""

    frames: int
    updates: int
    gaps: int
    refused: int
    malformed: int
    snapshots: int
    starts: int


class Questions:
    """What was asked, and what came back.

    Parameters
    ----------
    dealer : zmq.Socket
        Connected to the venue's snapshot endpoint.
    """

    def __init__(self, dealer: zmq.Socket[bytes]) -> None:
        self.dealer = dealer
        self.malformed = 0
        """Answers that are none."""
        self._last_id = 0
        self._instruments_id = 0
        self._asked_ns = 0

    @property
    def waits_for_instruments(self) -> bool:
        """Whether the instruments were asked for and are not known yet."""
        return self._asked_ns > 0

    def ask_instruments(self) -> None:
        """Ask which instruments there are, unless that was asked a moment ago."""
        now_ns = time.monotonic_ns()
        if now_ns - self._asked_ns > RETRY_NS:
            self._asked_ns = now_ns
            self._instruments_id = self._ask(InstrumentsRequest)

    def ask_snapshot(self, recovery: Recovery, instrument_id: int) -> None:
        """Ask for a snapshot, unless that was asked a moment ago."""
        now_ns = time.monotonic_ns()
        if now_ns - recovery.asked_ns > RETRY_NS:
            recovery.asked_ns = now_ns
            recovery.chunks, recovery.orders = [], 0
            recovery.asked_least = recovery.least
            recovery.request_id = self._ask(SnapshotRequest, instrument_id, recovery.least)

    def _ask(
        self, request: type[InstrumentsRequest] | type[SnapshotRequest], *arguments: int
    ) -> int:
        self._last_id += 1
        with suppress(zmq.Again):  # nobody is there; asked again later
            self.dealer.send(encode(request(self._last_id, *arguments)), zmq.NOBLOCK)
        return self._last_id

    def answers(self) -> Iterator[tuple[InstrumentsReply | SnapshotReply | Refusal, bytes]]:
        """Yield what has arrived: the answer, and the orders of a snapshot's chunk."""
        with suppress(zmq.Again):
            while True:
                parts = self.dealer.recv_multipart(zmq.NOBLOCK)
                try:
                    reply = decode_reply(parts[0])
                except msgspec.DecodeError:
                    self.malformed += 1
                    continue
                if isinstance(reply, InstrumentsReply):
                    if reply.request_id != self._instruments_id:
                        continue
                    self._asked_ns = 0
                yield reply, parts[1] if len(parts) > 1 else b""
