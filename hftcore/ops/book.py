"""`hft book`: the ladder of an instrument, read from the matcher's own arrays while it writes them.

The arrays are mapped read-only, so the matcher notices nothing; nothing keeps it from writing in
the middle of our reading either. A reading counts when the book's feed_sequence and its shard's
matched_sequence are the same before and after and a second reading agrees: every public change
moves the one, every command the other. On a book that changes all the time this fails sometimes;
then the newest reading is shown with a word that it may mix two moments.

Comes after `venue_file`; `hft book` and the demo call `BookReader`.
"""

from __future__ import annotations

import json as json_text
import time

import numpy as np
from numpy.typing import NDArray

from hftcore.arguments import depth_of
from hftcore.matching.depth import read_depth
from hftcore.ops.memory import VenueMemory
from hftcore.ops.venue_file import attached
from hftcore.reports import BookView, book_of
from ipc.errors import Refused

ATTEMPTS = 200
_WATCH_S = 0.5


class BookReader:
    """Reads one instrument's book from a running venue.

    Attributes
    ----------
    symbol : str
    torn_readings : int
        How many readings were given up on so far because the matcher was at work.
    """

    def __init__(self, memory: VenueMemory, symbol: str, depth: int = 10) -> None:
        config = memory.config
        self.symbol = symbol
        self._id = config.instrument_id(symbol)
        self._instrument = config.instruments[self._id - 1]
        self._shard = memory.shard(self._instrument.shard)
        depth = min(depth_of(depth), self._instrument.order_capacity)  # no more levels than orders
        self._levels = np.zeros((2, depth, 3), np.int64)
        self._again = np.zeros_like(self._levels)
        self.torn_readings = 0

    def read(self, attempts: int = ATTEMPTS) -> tuple[BookView, bool]:
        """Return the best levels, and whether they are of one moment."""
        for _ in range(attempts):
            before = self._moment()
            read_depth(self._shard, self._id, self._levels)
            read_depth(self._shard, self._id, self._again)
            if self._moment() == before and np.array_equal(self._levels, self._again):
                return self._view(self._levels), True
            self.torn_readings += 1
        return self._view(self._again), False

    @property
    def feed_sequence(self) -> int:
        """Of the newest public event of this book."""
        return int(self._shard.books["feed_sequence"][self._id])

    def _moment(self) -> tuple[int, int]:
        return self.feed_sequence, int(self._shard.matched[0])

    def _view(self, levels: NDArray[np.int64]) -> BookView:
        return book_of(levels.copy(), self._instrument)


def main(
    venue: str, symbol: str, *, depth: int = 10, watch: bool = False, json: bool = False
) -> int:
    """Print a book; with `watch`, again and again until interrupted or the venue ends."""
    record, memory = attached(venue)
    with memory:
        reader = BookReader(memory, symbol, depth)
        while True:
            view, whole = reader.read()
            if json:
                print(json_text.dumps(_facts(view, reader, whole)), flush=True)
            else:
                note = "" if whole else "\n(the matcher was at work: this may mix two moments)"
                print(("\x1b[H\x1b[2J" if watch else "") + f"{view}{note}", flush=True)
            if not watch:
                return 0
            time.sleep(_WATCH_S)
            try:
                if attached(venue)[0].start_id != record.start_id:
                    return 0
            except Refused:
                return 0


def _facts(view: BookView, reader: BookReader, whole: bool) -> dict[str, object]:
    sides = {
        name: [[str(level.price), str(level.qty), level.orders] for level in levels]
        for name, levels in (("bids", view.bids), ("asks", view.asks))
    }
    return {
        "symbol": reader.symbol,
        "feed_sequence": reader.feed_sequence,
        "one_moment": whole,
        **sides,
    }


__all__ = ["BookReader", "main"]
