"""What a person sees of events: frozen dataclasses with decimals and names.

Built from the raw slots at the edge of the venue (`Exchange`, tools); nothing inside uses them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hftcore.instruments import Instrument
from hftcore.messages import (
    ECHO,
    EVENT,
    FILLS,
    PARTY,
    CommandKind,
    EventKind,
    Flags,
    OrderStatus,
    RejectReason,
    Side,
)


@dataclass(frozen=True)
class Event:
    """One event as a trader reads it; `words` is the record itself (int64[16], slot A then B)."""

    kind: EventKind | CommandKind
    flags: Flags
    symbol: str
    sequence: int
    index: int
    sequenced_ns: int
    feed_sequence: int
    order_id: int
    price: Decimal
    qty: Decimal
    reject_reason: RejectReason
    words: NDArray[np.int64] = field(repr=False, compare=False)

    @property
    def side(self) -> Side:
        """Side of the order; in a trade, of the aggressor."""
        return Side.SELL if self.flags & Flags.SELL else Side.BUY


@dataclass(frozen=True)
class Trade:
    """One match. exec_id is (sequence, index), the same on every protocol."""

    symbol: str
    price: Decimal
    qty: Decimal
    side: Side
    """Side of the aggressor."""
    resting_order_id: int
    aggressor_order_id: int
    exec_id: tuple[int, int]
    sequenced_ns: int


@dataclass(frozen=True)
class Report:
    """What became of one command."""

    symbol: str
    order_id: int
    status: OrderStatus
    cum_qty: Decimal
    """Filled by this command."""
    leaves_qty: Decimal
    reject_reason: RejectReason
    trades: tuple[Trade, ...]
    events: tuple[Event, ...]


@dataclass(frozen=True)
class PriceLevel:
    """One price of a book."""

    price: Decimal
    qty: Decimal
    orders: int


@dataclass(frozen=True)
class BookView:
    """The best levels of a book, best first on both sides."""

    symbol: str
    bids: tuple[PriceLevel, ...]
    asks: tuple[PriceLevel, ...]

    def __str__(self) -> str:
        """Draw the ladder: asks on top, bids below."""
        lines = [f"{self.symbol}"]
        for mark, levels in (("ask", reversed(self.asks)), ("bid", iter(self.bids))):
            lines += [
                f"  {mark} {level.price:>16,f} {level.qty:>16,f}  {level.orders} orders"
                for level in levels
            ]
        return "\n".join(lines)

    __repr__ = __str__


def decode_event(words: NDArray[np.int64], instruments: dict[int, Instrument]) -> Event:
    """Read one logged event: int64[16], slot A then slot B or zeros."""
    head: Any = words[:8].view(EVENT)[0]
    raw = int(head["kind"])
    kind: EventKind | CommandKind = CommandKind(raw - ECHO) if raw >= ECHO else EventKind(raw)
    instrument = instruments.get(int(head["instrument_id"]))
    is_book_event = instrument is not None and raw < ECHO
    party: Any = words[8:].view(PARTY)[0]
    rejected = raw == EventKind.REJECTED
    return Event(
        kind=kind,
        flags=Flags(int(head["flags"])),
        symbol=instrument.symbol if instrument else "",
        sequence=int(head["sequence"]),
        index=int(head["index"]) if raw < ECHO else 0,
        sequenced_ns=int(head["sequenced_ns"]),
        feed_sequence=int(head["feed_sequence"]) if raw < ECHO else 0,
        order_id=int(head["order_id"]) if raw < ECHO else 0,
        price=instrument.price(head["price"]) if instrument and is_book_event else Decimal(0),
        qty=instrument.qty(head["qty"]) if instrument and is_book_event else Decimal(0),
        reject_reason=RejectReason(int(party["reject_reason"])) if rejected else RejectReason.NONE,
        words=words,
    )


def trade_of(event: Event) -> Trade:
    """Read the match out of a TRADE event."""
    fills: Any = event.words[8:].view(FILLS)[0]
    return Trade(
        symbol=event.symbol,
        price=event.price,
        qty=event.qty,
        side=event.side,
        resting_order_id=int(fills["resting_order_id"]),
        aggressor_order_id=int(fills["aggressor_order_id"]),
        exec_id=(event.sequence, event.index),
        sequenced_ns=event.sequenced_ns,
    )


def report_of(events: tuple[Event, ...], instrument: Instrument) -> Report:
    """Sum up the events of one command."""
    first, last = events[0], events[-1]
    trades = tuple(trade_of(event) for event in events if event.kind == EventKind.TRADE)
    filled = sum((trade.qty for trade in trades), Decimal(0))
    leaves = Decimal(0)
    if first.kind == EventKind.REJECTED:
        status = OrderStatus.REJECTED
    elif last.kind == EventKind.CANCELED:
        status = OrderStatus.CANCELED
    elif last.kind == EventKind.EXPIRED:
        status = OrderStatus.EXPIRED
    elif last.kind == EventKind.TRADE:
        status = OrderStatus.FILLED
    else:
        leaves = last.qty
        status = OrderStatus.PARTIALLY_FILLED if trades else OrderStatus.NEW
    return Report(
        symbol=instrument.symbol,
        order_id=first.order_id,
        status=status,
        cum_qty=filled,
        leaves_qty=leaves,
        reject_reason=first.reject_reason,
        trades=trades,
        events=events,
    )
