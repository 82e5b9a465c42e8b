"""What a subscriber sees of a book and of its trades: plain values in the instrument's own units.

Ticks and lots become prices and quantities here and nowhere before. Comes after `l3_book`; before
`subscriber`, which hands these out.
"""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hftcore.marketdata.feed_protocol import FeedInstrument
from hftcore.matching.depth import read_depth
from hftcore.matching.state import Shard
from hftcore.messages import EventKind, Flags, Side


class FeedLevel(NamedTuple):
    """One price of a book."""

    price: Decimal
    qty: Decimal
    orders: int


class FeedBook(NamedTuple):
    """The best levels of a book, best first, as of one update of the feed.

    Attributes
    ----------
    feed_sequence : int
        Of the newest update that is in it.
    right : bool
        False while it may differ from the venue's.
    """

    symbol: str
    bids: list[FeedLevel]
    asks: list[FeedLevel]
    feed_sequence: int
    right: bool


class FeedTrade(NamedTuple):
    """One trade.

    Attributes
    ----------
    side : Side
        Of the aggressor.
    sequenced_ns : int
        UTC nanoseconds; of the command that caused it.
    exec_id : (int, int)
        (sequence, index): the same on every protocol.
    """

    symbol: str
    price: Decimal
    qty: Decimal
    side: Side
    sequenced_ns: int
    feed_sequence: int
    exec_id: tuple[int, int]


def book_of(books: Shard, instrument: FeedInstrument, depth: int, right: bool) -> FeedBook:
    """Read the best `depth` levels of both sides."""
    levels = np.zeros((2, max(depth, 1), 3), np.int64)
    read_depth(books, instrument.instrument_id, levels)
    bids, asks = (
        [
            FeedLevel(instrument.price(price), instrument.qty(qty), int(orders))
            for price, qty, orders in side
            if orders
        ]
        for side in levels
    )
    sequence = int(books.books["feed_sequence"][instrument.instrument_id])
    return FeedBook(instrument.symbol, bids, asks, sequence, right)


def trades_of(instrument: FeedInstrument, events: NDArray[Any]) -> Iterator[FeedTrade]:
    """Read the trades among some updates (EVENT[n])."""
    for event in events[events["kind"] == EventKind.TRADE]:
        yield FeedTrade(
            instrument.symbol,
            instrument.price(event["price"]),
            instrument.qty(event["qty"]),
            Side.SELL if event["flags"] & Flags.SELL else Side.BUY,
            int(event["sequenced_ns"]),
            int(event["feed_sequence"]),
            (int(event["sequence"]), int(event["index"])),
        )
