"""A book built from the feed alone: public events in, every resting order in its place out.

The book is a `matching` shard of private memory, and an event moves it with the very kernels that
moved the matcher's (`rest_order`, `append_order`, `unlink_order`, `forget_order`): what a
subscriber sees is not a second idea of a book. Owners and totals are not public and stay 0;
`feed_hash` leaves them out, so a subscriber's book and the matcher's can be compared.

An event that can't be right is refused by a status and changes nothing: an order that is not there,
or there already, lots it does not have, another price or side, a feed_sequence that is not the next
one. Whoever applies decides what that means; the book stays whole in any case.

What each public event does: ACCEPTED and BOOKED put an order at the tail of its level; a TRADE
takes lots off the resting order; CANCELED and EXPIRED take it away; RESTATED and REPLACED with
KEPT_PRIORITY shrink it in its place; REPLACED with RESTS puts it at the tail of its level, REPLACED
with neither takes it away (it trades as aggressor, and what is left is BOOKED).

Comes after `matching`; before `publisher`, which answers snapshot requests from one, and
`subscriber`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hftcore.errors import ConfigurationRefused
from hftcore.limits import MAX_QTY
from hftcore.matching.bitmap import next_above
from hftcore.matching.book import (
    append_order,
    forget_order,
    price_of,
    rest_order,
    rung_of,
    side_index,
    unlink_order,
)
from hftcore.matching.emit import input_of
from hftcore.matching.listing import define_instrument
from hftcore.matching.order_index import find_order
from hftcore.matching.state import Shard, allocate, shard_size
from hftcore.matching.verbs import sides_of
from hftcore.messages import (
    INSTRUMENT_DEFINE,
    SLOT_BYTES,
    CommandKind,
    EventKind,
    Flags,
    RejectReason,
)
from ipc.kernel import kernel

APPLIED = 0
SEQUENCE_GAP = 1
"""The feed_sequence is not the next one."""
UNKNOWN_ORDER = 2
KNOWN_ORDER = 3
"""An order of this id rests already."""
BAD_PRICE = 4
BAD_QTY = 5
BAD_SIDE = 6
NO_ROOM = 7
"""More orders than the instrument may have."""
BAD_KIND = 8
"""No public event, or none that this book understands."""
NOT_LISTED = 9
STATUS_NAMES = (
    "applied", "sequence gap", "unknown order", "known order", "bad price", "bad qty", "bad side",
    "no room", "bad kind", "not listed",
)  # fmt: skip

_WORDS = SLOT_BYTES // 8
_ACCEPTED = int(EventKind.ACCEPTED)
_BOOKED = int(EventKind.BOOKED)
_TRADE = int(EventKind.TRADE)
_CANCELED = int(EventKind.CANCELED)
_EXPIRED = int(EventKind.EXPIRED)
_REPLACED = int(EventKind.REPLACED)
_RESTATED = int(EventKind.RESTATED)
_TRIGGERED = int(EventKind.TRIGGERED)
_INDICATION = int(EventKind.AUCTION_INDICATION)
_BUSTED = int(EventKind.TRADE_BUSTED)
_SELL = int(Flags.SELL)
_RESTS = int(Flags.RESTS)
_KEPT = int(Flags.KEPT_PRIORITY)
assert _SELL == 1  # the low bit of a side's index


def books_of(instruments: Iterable[tuple[int, int, int]]) -> Shard:
    """Make empty books in private memory.

    Parameters
    ----------
    instruments : iterable of (instrument_id, ladder_ticks, order_capacity)

    Raises
    ------
    ConfigurationRefused
        When one can't be listed: an id twice or out of range, a ladder of less than two ticks.
    """
    listed = list(instruments)
    shard = allocate(shard_size([(ticks, orders) for _, ticks, orders in listed]))
    words = np.zeros(2 * _WORDS, np.int64)
    definition: Any = words[:_WORDS].view(INSTRUMENT_DEFINE)[0]
    definition["kind"] = CommandKind.INSTRUMENT_DEFINE
    for number, (instrument_id, ticks, orders) in enumerate(listed, 1):
        definition["sequence"] = number  # tells only that the id is used
        definition["instrument_id"] = instrument_id
        definition["ladder_ticks"], definition["order_capacity"] = ticks, orders
        reason = define_instrument(shard, input_of(words), 0)
        if reason != 0:
            raise ConfigurationRefused(
                "a book can't be made for this instrument",
                expected="an id of its own, a ladder of 2 ticks or more, room for orders",
                found=f"{ticks} ticks, {orders} orders: {RejectReason(reason).name}",
                where=f"instrument {instrument_id}",
            )
    return shard


@kernel(inline=True)
def _add(shard: Any, book: Any, sides: int, order_id: int, price: int, qty: int) -> int:
    """Put a new order at the tail of its level."""
    if order_id <= 0 or find_order(shard, order_id) != 0:
        return KNOWN_ORDER
    if price < 1 or price >= book["ladder_ticks"]:
        return BAD_PRICE
    if qty < 1 or qty > MAX_QTY:
        return BAD_QTY
    if book["order_count"] >= book["order_capacity"]:
        return NO_ROOM
    rest_order(shard, book, shard.sides[np.uintp(sides)], order_id, 0, price, qty, 0)
    return APPLIED


@kernel(inline=True)
def _keep(shard: Any, slot: int, leaves_qty: int) -> None:
    """Give a resting order other leaves; it stays where it is."""
    order = shard.orders[np.uintp(slot)]
    level = shard.levels[np.uintp(np.int64(order["level"]))]
    level["total_qty"] += leaves_qty - order["leaves_qty"]
    order["leaves_qty"] = leaves_qty


@kernel(inline=True)
def _change(
    shard: Any, book: Any, sides: int, slot: int, kind: int, flags: int, price: int, qty: int
) -> int:
    """Apply what happened to the resting order of `slot`, on side `sides`."""
    ladder = shard.sides[np.uintp(sides)]
    order = shard.orders[np.uintp(slot)]
    leaves = order["leaves_qty"]
    rung = np.int64(order["level"]) - ladder["level_base"]
    moves = rung_of(ladder, price) != rung
    if qty < 1:
        return BAD_QTY
    if kind == _REPLACED and flags & _KEPT == 0:
        if flags & _RESTS and (price < 1 or price >= book["ladder_ticks"]):
            return BAD_PRICE
        if qty > MAX_QTY:
            return BAD_QTY
        unlink_order(shard, book, ladder, slot, rung)
        if flags & _RESTS:
            append_order(shard, book, ladder, slot, price, qty)
        else:
            forget_order(shard, book, slot)
        return APPLIED
    if moves:
        return BAD_PRICE
    if kind in (_REPLACED, _RESTATED):
        if qty > leaves or flags & _KEPT == 0:
            return BAD_QTY
        _keep(shard, slot, qty)
        return APPLIED
    if qty > leaves or (kind != _TRADE and qty != leaves):
        return BAD_QTY
    if kind == _TRADE:
        book["last_price"] = price
    if qty < leaves:
        _keep(shard, slot, leaves - qty)
    else:
        unlink_order(shard, book, ladder, slot, rung)
        forget_order(shard, book, slot)
    return APPLIED


@kernel(inline=True)
def apply_update(shard: Any, words: Any, first: int) -> int:
    """Apply one public event.

    Parameters
    ----------
    shard : Shard
        Private; written.
    words : int64[:]
        Slot A of the event, as EVENT lays it out, begins at word `first`.

    Returns
    -------
    int
        APPLIED, or why it was refused; nothing has changed then.
    """
    head = words[np.uintp(first + 1)]
    kind = head & 0xFF
    flags = (head >> 8) & 0xFF
    instrument_id = (head >> 16) & 0xFFFF
    if instrument_id >= len(shard.books):
        return NOT_LISTED
    book = shard.books[np.uintp(instrument_id)]
    if book["matched_here"] == 0:
        return NOT_LISTED
    if words[np.uintp(first + 4)] != book["feed_sequence"] + 1:
        return SEQUENCE_GAP
    order_id = words[np.uintp(first + 5)]
    price = words[np.uintp(first + 6)]
    qty = words[np.uintp(first + 7)]
    status = APPLIED
    if kind in (_ACCEPTED, _BOOKED):
        if flags & _RESTS == 0:
            return BAD_KIND
        sides = side_index(instrument_id, 1 + (flags & _SELL))
        status = _add(shard, book, sides, order_id, price, qty)
    elif _TRADE <= kind <= _RESTATED:
        slot = find_order(shard, order_id)
        sides = np.int64(-1)
        if slot != 0:
            sides = sides_of(shard, book, instrument_id, shard.orders[np.uintp(slot)])
        if sides < 0:
            return UNKNOWN_ORDER
        # a TRADE tells the aggressor's side
        if (sides & 1) ^ (flags & _SELL) != np.int64(kind == _TRADE):
            return BAD_SIDE
        status = _change(shard, book, sides, slot, kind, flags, price, qty)
    elif kind != _TRIGGERED and (kind < _INDICATION or kind > _BUSTED):
        return BAD_KIND
    if status == APPLIED:
        book["feed_sequence"] += 1
    return status


@kernel
def clear_book(shard: Any, instrument_id: int) -> None:
    """Take every order off a book."""
    book = shard.books[np.uintp(instrument_id)]
    ticks = book["ladder_ticks"]
    for side in range(1, 3):
        ladder = shard.sides[np.uintp(side_index(instrument_id, side))]
        while ladder["best"] < ticks:
            rung = ladder["best"]
            slot = np.int64(shard.levels[np.uintp(ladder["level_base"] + rung)]["head"])
            unlink_order(shard, book, ladder, slot, rung)
            forget_order(shard, book, slot)
    book["feed_sequence"] = 0
    book["last_price"] = 0


@kernel
def place_book(shard: Any, instrument_id: int, feed_sequence: int) -> None:
    """Say at which feed_sequence a book is true that was filled from a snapshot."""
    shard.books[np.uintp(instrument_id)]["feed_sequence"] = feed_sequence


@kernel
def rest_all(shard: Any, instrument_id: int, words: Any, first: int, count: int) -> int:
    """Rest the orders of a snapshot, each a BOOKED from word `first` on; return a status."""
    if instrument_id >= len(shard.books):
        return NOT_LISTED
    book = shard.books[np.uintp(instrument_id)]
    if book["matched_here"] == 0:
        return NOT_LISTED
    for number in range(count):
        at = first + number * _WORDS
        head = words[np.uintp(at + 1)]
        if head & 0xFF != _BOOKED or (head >> 16) & 0xFFFF != instrument_id:
            return BAD_KIND
        sides = side_index(instrument_id, 1 + ((head >> 8) & _SELL))
        status = _add(
            shard, book, sides, words[np.uintp(at + 5)], words[np.uintp(at + 6)],
            words[np.uintp(at + 7)],
        )  # fmt: skip
        if status != APPLIED:
            return status
    return APPLIED


@kernel
def copy_orders(shard: Any, instrument_id: int, words: Any) -> int:
    """Copy a book for a snapshot: each order a BOOKED, bids first, best level and oldest first.

    Parameters
    ----------
    words : int64[orders * 8]
        Written; as many orders as the book has (`order_count`).

    Returns
    -------
    int
        Orders copied.
    """
    book = shard.books[np.uintp(instrument_id)]
    ticks = book["ladder_ticks"]
    count = np.int64(0)
    for side in range(1, 3):
        ladder = shard.sides[np.uintp(side_index(instrument_id, side))]
        head = _BOOKED | ((_RESTS | (side - 1)) << 8) | (np.int64(instrument_id) << 16)
        rung = ladder["best"]
        while rung < ticks:
            slot = np.int64(shard.levels[np.uintp(ladder["level_base"] + rung)]["head"])
            while slot != 0:
                order = shard.orders[np.uintp(slot)]
                at = count * _WORDS
                for word in range(_WORDS):
                    words[np.uintp(at + word)] = 0
                words[np.uintp(at + 1)] = head
                words[np.uintp(at + 5)] = order["order_id"]
                words[np.uintp(at + 6)] = price_of(ladder, rung)
                words[np.uintp(at + 7)] = order["leaves_qty"]
                count += 1
                slot = np.int64(order["next"])
            if rung + 1 >= ticks:
                break
            rung = next_above(shard.bits, ladder["bits_base"], ticks, rung + 1)
    return count


def copied_orders(shard: Shard, instrument_id: int) -> NDArray[np.int64]:
    """Return a book's orders as a snapshot has them: int64[orders * 8]."""
    words = np.empty(int(shard.books["order_count"][instrument_id]) * _WORDS, np.int64)
    found = copy_orders(shard, instrument_id, words)
    assert found * _WORDS == len(words)
    return words
