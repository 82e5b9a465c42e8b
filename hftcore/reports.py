"""What a person sees of events: frozen dataclasses with decimals and names.

Built from the raw slots at the edge of the venue (`Exchange`, tools); nothing inside uses them.

What became of an order is not in the events of its last command alone: a cum_qty adds up over all
of them, and an order that rests is filled by the commands of others. So `fold` carries an
`OrderState` per order along the events, and a `Report` is the state of its order after a command.
"""

from __future__ import annotations

from collections.abc import Mapping
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
    MASS_CANCEL,
    ORDER_STATUS,
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


@dataclass(frozen=True, slots=True)
class OrderState:
    """What the events so far say of one order, in lots."""

    instrument_id: int = 0
    account_id: int = 0
    cum_qty: int = 0
    leaves_qty: int = 0
    order_status: OrderStatus = OrderStatus.NEW


@dataclass(frozen=True)
class Report:
    """What became of one command and of the order that it is about, in FIX's words.

    A refused change of an order that rests shows that order as it is; a refused new order, or a
    change of an order that is not (or no longer) this account's, is REJECTED.
    """

    symbol: str
    account_id: int
    """Whose command it was."""
    order_id: int
    order_status: OrderStatus
    cum_qty: Decimal
    """Filled since the order was accepted."""
    leaves_qty: Decimal
    """Still open; 0 in final states."""
    reject_reason: RejectReason
    """NONE: the command was accepted."""
    trades: tuple[Trade, ...]
    """Those of this command."""
    events: tuple[Event, ...]
    client_order_id: str = ""
    """Of the command; "": it had none."""


@dataclass(frozen=True)
class MassCanceled:
    """What became of a mass cancel: how many orders are gone, or why none is."""

    symbol: str
    """The one that was asked for; "": all."""
    account_id: int
    count: int
    reject_reason: RejectReason
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


def book_of(levels: NDArray[np.int64], instrument: Instrument) -> BookView:
    """Read the levels of a book: int64[2, n, 3], bids and asks; price, qty and orders of each."""
    bids, asks = (
        tuple(
            PriceLevel(instrument.price(price), instrument.qty(qty), int(orders))
            for price, qty, orders in side
            if orders
        )
        for side in levels
    )
    return BookView(instrument.symbol, bids, asks)


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


def fold(orders: Mapping[int, OrderState], log: NDArray[np.int64]) -> dict[int, OrderState]:
    """Return the new state of each order that some events are about, by order_id.

    Parameters
    ----------
    orders : mapping
        The states before; an order that is not in it counts from here on only.
    log : int64[n, 16]
        Events in order, slot A then slot B.
    """
    states: dict[int, OrderState] = {}
    head, fills = log[:, :8].view(EVENT)[:, 0], log[:, 8:].view(FILLS)[:, 0]
    for kind, number, order_id, qty, account, *sides in zip(
        *(head[name].tolist() for name in ("kind", "instrument_id", "order_id", "qty")),
        log[:, 8:].view(PARTY)["account_id"][:, 0].tolist(),
        *(fills[name].tolist() for name in _SIDES),
        strict=True,
    ):
        if kind == EventKind.ACCEPTED:
            states[order_id] = OrderState(number, account, 0, qty)
        elif kind == EventKind.TRADE:
            for each, owner, leaves in (sides[:3], sides[3:]):
                cum = (states.get(each) or orders.get(each) or _UNSEEN).cum_qty + qty
                status = OrderStatus.PARTIALLY_FILLED if leaves else OrderStatus.FILLED
                states[each] = OrderState(number, owner, cum, leaves, status)
        elif kind in _CHANGES:
            before = states.get(order_id) or orders.get(order_id) or _UNSEEN
            status = _CHANGES[kind]
            if status is OrderStatus.NEW and before.cum_qty:
                status = OrderStatus.PARTIALLY_FILLED
            leaves = qty if status in _OPEN else 0
            owner, cum = before.account_id, before.cum_qty
            states[order_id] = OrderState(number, owner, cum, leaves, status)
    return states


_UNSEEN = OrderState()
_SIDES = (
    "resting_order_id", "resting_account_id", "resting_leaves_qty",
    "aggressor_order_id", "aggressor_account_id", "aggressor_leaves_qty",
)  # fmt: skip
_OPEN = (OrderStatus.NEW, OrderStatus.PARTIALLY_FILLED)
_CHANGES = {
    int(EventKind.BOOKED): OrderStatus.NEW,
    int(EventKind.REPLACED): OrderStatus.NEW,
    int(EventKind.RESTATED): OrderStatus.NEW,
    int(EventKind.CANCELED): OrderStatus.CANCELED,
    int(EventKind.EXPIRED): OrderStatus.EXPIRED,
}
"""Status after an event of an order without fills; with fills, PARTIALLY_FILLED for NEW."""


def report_of(
    events: tuple[Event, ...],
    instrument: Instrument,
    account_id: int,
    state: OrderState | None,
    client_order_id: str = "",
) -> Report:
    """Sum up one command.

    Parameters
    ----------
    instrument : Instrument
        Of the order; of the command, when there is no such order.
    account_id : int
        Whose command it was.
    state : OrderState or None
        Of the order, after the command.
    client_order_id : str
        That the command brought.
    """
    first = events[0]
    order_id = first.order_id
    if first.kind == CommandKind.ORDER_STATUS:  # a repeated order: as the gate knows it
        known: Any = first.words[:8].view(ORDER_STATUS)[0]
        order_id = int(known["order_id"])
        state = OrderState(
            account_id=account_id,
            cum_qty=int(known["cum_qty"]),
            leaves_qty=int(known["leaves_qty"]),
            order_status=OrderStatus(int(known["order_status"])),
        )
    if state is None or (first.reject_reason and state.account_id != account_id):
        state = OrderState(order_status=OrderStatus.REJECTED)
    return Report(
        symbol=instrument.symbol,
        account_id=account_id,
        order_id=order_id,
        order_status=state.order_status,
        cum_qty=instrument.qty(state.cum_qty),
        leaves_qty=instrument.qty(state.leaves_qty),
        reject_reason=first.reject_reason,
        trades=tuple(trade_of(event) for event in events if event.kind == EventKind.TRADE),
        events=events,
        client_order_id=client_order_id,
    )


def mass_canceled_of(events: tuple[Event, ...], symbol: str, account_id: int) -> MassCanceled:
    """Sum up a mass cancel: its echo, the orders that went, and the count at the end."""
    count, reason = 0, RejectReason.NONE
    for event in events:
        told: Any = event.words[:8].view(MASS_CANCEL)[0]
        if event.kind == CommandKind.MASS_CANCEL:
            reason = RejectReason(int(told["reject_reason"]))
        elif event.kind == CommandKind.MASS_CANCEL_DONE:
            count = int(told["last_order_id"])
        elif event.reject_reason:
            reason = event.reject_reason
    return MassCanceled(symbol, account_id, count, reason, events)
