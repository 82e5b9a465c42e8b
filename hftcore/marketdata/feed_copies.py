"""Copies of books for snapshots: how often one may be made, and who gets an older one.

The feed stands still while a book is copied (0.3 s for a million orders), so whoever asks for
snapshots without end could stop the venue. A copy is therefore followed by ten times as long
without another: who asks meanwhile gets the copy that there is if it is new enough for the frames
that he has kept, or waits. Comes after `feed_protocol`; before `feed_replies`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hftcore.marketdata.feed_protocol import SnapshotRequest

COPY_SHARE = 10
"""A copy that took so long is followed by at least this many times as long without another."""
KEEP_NS = 1_000_000_000
"""How long a copy is kept for who may ask next."""


@dataclass(frozen=True)
class Copy:
    """A book as it was at one moment."""

    feed_sequence: int
    orders: NDArray[np.int64]
    made_ns: int


class Copies:
    """The copies that there are.

    Parameters
    ----------
    make : callable
        Copies the book of an instrument: int64[orders * 8].
    """

    def __init__(self, make: Callable[[int], NDArray[np.int64]]) -> None:
        self.make = make
        self._kept: dict[int, Copy] = {}
        self._next_ns = 0
        """When the next copy may be made, on the monotonic clock."""

    def find(self, request: SnapshotRequest, newest: int, now_ns: int) -> Copy | None:
        """Return a copy that serves a request; None while it has to wait for the next one.

        Parameters
        ----------
        newest : int
            feed_sequence of the book now.
        """
        kept = self._kept.get(request.instrument_id)
        if kept is not None and kept.feed_sequence == newest:
            return kept
        if now_ns < self._next_ns:
            useful = kept is not None and kept.feed_sequence >= request.least_feed_sequence
            return kept if useful else None
        began_ns = time.monotonic_ns()
        copy = Copy(newest, self.make(request.instrument_id), now_ns)
        ended_ns = time.monotonic_ns()
        self._next_ns = ended_ns + COPY_SHARE * (ended_ns - began_ns)
        self._kept[request.instrument_id] = copy
        return copy

    def forget(self, now_ns: int) -> None:
        """Let go of copies that are older than KEEP_NS."""
        self._kept = {n: copy for n, copy in self._kept.items() if copy.made_ns > now_ns - KEEP_NS}
