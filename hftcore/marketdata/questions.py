"""The subscriber's questions: which instruments there are, and a snapshot of each book.

Everything over one DEALER socket, without waiting: a question is sent, its answer comes in a later
poll or never, and whoever asked asks again. Comes after `feed_protocol`; before `subscriber`.
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
_FIRST = 3
"""Word of a frame: its first feed_sequence."""


@dataclass
class Recovery:
    """A book on its way to being right."""

    kept: deque[NDArray[np.int64]] = field(default_factory=deque)
    """Frames that came since, oldest first."""
    request_id: int = 0
    asked_ns: int = 0
    chunks: list[bytes] = field(default_factory=list)
    orders: int = 0
    """Orders in the chunks so far."""

    def take(self, reply: SnapshotReply, orders: bytes) -> bool:
        """Take one chunk; return whether the snapshot is whole."""
        if reply.request_id != self.request_id:
            return False
        if reply.first != self.orders or len(orders) % SLOT_BYTES:
            self.request_id = 0  # a chunk was lost: asked again after a while
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
            least = int(recovery.kept[0][_FIRST]) - 1 if recovery.kept else 0
            recovery.request_id = self._ask(SnapshotRequest, instrument_id, least)

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
