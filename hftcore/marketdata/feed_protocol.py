"""What subscribers ask the feed's snapshot endpoint, and what it answers.

Control messages are msgspec structs as MessagePack, because they are few and may grow; what is
counted in millions (updates, the orders of a snapshot) is EVENT records of `messages.py`. A request
is one part; a reply is the control message and, of a snapshot, a second part with its orders.

Comes before `feed_server` and `subscriber`; docs/feed.md has the protocol in words.
"""

from __future__ import annotations

from decimal import Decimal

import msgspec

from hftcore.instruments import Instrument

MAX_REQUEST_BYTES = 256
"""Longest request that the venue reads."""
CHUNK_ORDERS = 1_024
"""Orders in one message of a snapshot: 64 KB."""


class FeedInstrument(msgspec.Struct, frozen=True):
    """An instrument as a subscriber needs it: enough to read ticks and lots, and to size a book."""

    instrument_id: int
    symbol: str
    tick_size: str
    lot_size: str
    quote_decimals: int
    ladder_ticks: int
    order_capacity: int

    @classmethod
    def of(cls, instrument: Instrument, instrument_id: int) -> FeedInstrument:
        """Describe a listed instrument."""
        return cls(
            instrument_id,
            instrument.symbol,
            instrument.tick_size,
            instrument.lot_size,
            instrument.quote_decimals,
            instrument.ladder_ticks,
            instrument.order_capacity,
        )

    @property
    def limits(self) -> tuple[int, int, int]:
        """What a book of it needs: (instrument_id, ladder_ticks, order_capacity)."""
        return self.instrument_id, self.ladder_ticks, self.order_capacity

    def price(self, ticks: int) -> Decimal:
        """Return the price of a tick."""
        return Decimal(self.tick_size) * int(ticks)

    def qty(self, lots: int) -> Decimal:
        """Return the quantity of some lots."""
        return Decimal(self.lot_size) * int(lots)


class InstrumentsRequest(msgspec.Struct, frozen=True, tag="instruments"):
    """Which instruments are on the feed?"""

    request_id: int


class SnapshotRequest(msgspec.Struct, frozen=True, tag="snapshot"):
    """Which orders rest on this book?"""

    request_id: int
    instrument_id: int
    least_feed_sequence: int = 0
    """An older one is of no use, because later updates were missed."""


class InstrumentsReply(msgspec.Struct, frozen=True, tag="instruments"):
    """All instruments of the feed, and how often it speaks when nothing happens."""

    request_id: int
    start_id: int
    epoch: int
    heartbeat_ns: int
    instruments: tuple[FeedInstrument, ...]


class SnapshotReply(msgspec.Struct, frozen=True, tag="snapshot"):
    """One chunk of a snapshot; its orders are the message's second part, as BOOKED events.

    All chunks are of one moment: the book at `feed_sequence`, bids first, best level first, oldest
    order first.
    """

    request_id: int
    instrument_id: int
    start_id: int
    epoch: int
    feed_sequence: int
    order_count: int
    """Orders of the whole snapshot."""
    first: int
    """Number of this chunk's first order, from 0."""


class Refusal(msgspec.Struct, frozen=True, tag="refusal"):
    """Why a request is not answered; ask again later, or something else."""

    request_id: int
    reason: str


Request = InstrumentsRequest | SnapshotRequest
Reply = InstrumentsReply | SnapshotReply | Refusal

encode = msgspec.msgpack.Encoder().encode
decode_request = msgspec.msgpack.Decoder(Request).decode
decode_reply = msgspec.msgpack.Decoder(Reply).decode
