"""What each order command does to the book: new, cancel, reduce, replace (docs/matching.md).

A command is checked, answered, and done; where it trades, `finish_aggressor` sweeps and books or
expires what is left. Comes before: `book`, `sweep`, `emit`. After: `dispatch`, which calls these.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from hftcore.limits import MAX_QTY
from hftcore.matching.book import (
    append_order,
    forget_order,
    price_of,
    rest_order,
    rung_of,
    side_index,
    unlink_order,
)
from hftcore.matching.emit import (
    emit,
    emit_answer,
    emit_party,
    emit_reject,
    place_two,
)
from hftcore.matching.order_index import find_order
from hftcore.matching.state import FRESH, SWEEPING
from hftcore.matching.sweep import crosses, sweep
from hftcore.messages import (
    CommandKind,
    EventKind,
    ExecFlags,
    Flags,
    OrderType,
    RejectReason,
    Side,
    StpMode,
    TimeInForce,
)
from ipc.kernel import kernel

_REPLACE_ORDER = int(CommandKind.REPLACE_ORDER)
_REDUCE_ORDER = int(CommandKind.REDUCE_ORDER)
_ACCEPTED = int(EventKind.ACCEPTED)
_BOOKED = int(EventKind.BOOKED)
_CANCELED = int(EventKind.CANCELED)
_EXPIRED = int(EventKind.EXPIRED)
_REPLACED = int(EventKind.REPLACED)
_RESTATED = int(EventKind.RESTATED)
_BUY = int(Side.BUY)
_SELL = int(Side.SELL)
assert int(Flags.SELL) == 1  # the low bit of a side's index
_LAST = int(Flags.LAST)
_RESTS = int(Flags.RESTS)
_KEPT = int(Flags.KEPT_PRIORITY)
_TWO_SLOTS = int(Flags.TWO_SLOTS)
_LIMIT = int(OrderType.LIMIT)
_MARKET = int(OrderType.MARKET)
_GTC = int(TimeInForce.GTC)
_IOC = int(TimeInForce.IOC)
_REPLAY_ADD = int(ExecFlags.REPLAY_ADD)
_UNKNOWN_FLAGS = 0xFFFF & ~int(ExecFlags.REPLAY_ADD | ExecFlags.HAS_CLIENT_ORDER_ID)
_NO_PREVENTION = int(StpMode.NONE)
_UNKNOWN_ORDER = int(RejectReason.UNKNOWN_ORDER)
_TOO_LATE = int(RejectReason.TOO_LATE)
_KNOWN_ORDER = int(ExecFlags.KNOWN_ORDER)
_BAD_SIDE = int(RejectReason.BAD_SIDE)
_BAD_ORDER_TYPE = int(RejectReason.BAD_ORDER_TYPE)
_BAD_TIME_IN_FORCE = int(RejectReason.BAD_TIME_IN_FORCE)
_BAD_PRICE = int(RejectReason.BAD_PRICE)
_BAD_QTY = int(RejectReason.BAD_QTY)
_PROFILE = int(RejectReason.PROFILE)
_CAPACITY = int(RejectReason.CAPACITY)


@kernel(inline=True)
def check_new_order(shard: Any, book: Any, command: Any) -> int:
    """Return the reason to refuse a new order, or 0."""
    side = command["side"]
    if side != _BUY and side != _SELL:
        return _BAD_SIDE
    order_type = command["order_type"]
    if order_type != _LIMIT and order_type != _MARKET:
        return _BAD_ORDER_TYPE
    gtc = command["time_in_force"] == _GTC
    if command["time_in_force"] != _IOC and not (gtc and order_type == _LIMIT):
        return _BAD_TIME_IN_FORCE
    if command["price"] < 1 or command["price"] >= book["ladder_ticks"]:
        return _BAD_PRICE
    if command["qty"] < 1 or command["qty"] > MAX_QTY:
        return _BAD_QTY
    if command["exec_flags"] & _UNKNOWN_FLAGS or command["stp_mode"] > _NO_PREVENTION:
        return _PROFILE
    if command["exec_flags"] & _REPLAY_ADD and not (gtc and shard.progress[0]["allow_replay"]):
        return _PROFILE
    if gtc and book["order_count"] >= book["order_capacity"]:
        return _CAPACITY
    return 0


@kernel(inline=True)
def finish_aggressor(
    shard: Any, book: Any, sides: int, command: Any, out: Any, position: int, limit: int,
    index: int, order_id: int, slot: int, leaves_qty: int,
) -> tuple[int, bool]:  # fmt: skip
    """Trade an accepted aggressor, then book or expire what is left of it.

    Parameters
    ----------
    sides : int
        `side_index` of its own side.
    slot : int
        The slot of an order that is being replaced, 0 for a new order.

    Returns
    -------
    (position, finished)
        finished is False when the output was full: call again with the same command.
    """
    price = command["price"]
    opposite = shard.sides[np.uintp(sides ^ 1)]
    sell_flag = sides & 1
    position, index, leaves_qty = sweep(
        shard, book, opposite, command, out, position, limit, index, order_id, sell_flag, price,
        leaves_qty,
    )  # fmt: skip
    progress = shard.progress[0]
    if leaves_qty > 0:
        if crosses(opposite, price):
            progress["stage"] = SWEEPING
            progress["index"] = index
            progress["leaves_qty"] = leaves_qty
            progress["slot"] = slot
            return position, False
        flags = _LAST | sell_flag
        if slot == 0 and command["time_in_force"] == _IOC:
            emit(out, position, command, _EXPIRED, flags, index, 0, order_id, price, leaves_qty)
        else:
            book["feed_sequence"] += 1
            emit(
                out, position, command, _BOOKED, flags | _RESTS, index, book["feed_sequence"],
                order_id, price, leaves_qty,
            )  # fmt: skip
            ladder = shard.sides[np.uintp(sides)]
            if slot == 0:
                rest_order(
                    shard, book, ladder, order_id, command["account_id"], price, leaves_qty,
                    command["qty"],
                )  # fmt: skip
            else:
                append_order(shard, book, ladder, slot, price, leaves_qty)
        position += 1
    elif slot != 0:
        forget_order(shard, book, slot)
    progress["stage"] = FRESH
    return position, True


@kernel(inline=True)
def new_order(
    shard: Any, book: Any, inp: Any, command_slot: int, out: Any, position: int, limit: int
) -> tuple[int, bool]:
    """Accept or refuse an order, let it trade, and book or expire what is left."""
    command = inp.orders[np.uintp(command_slot)]
    reason = check_new_order(shard, book, command)
    if reason != 0:
        return emit_reject(inp, command_slot, out, position, reason), True
    sides = side_index(np.int64(command["instrument_id"]), np.int64(command["side"]))
    price = command["price"]
    qty = command["qty"]
    order_id = command["sequence"]
    rests = command["time_in_force"] == _GTC and (
        not crosses(shard.sides[np.uintp(sides ^ 1)], price)
        or (command["exec_flags"] & _REPLAY_ADD) != 0
    )
    flags = _TWO_SLOTS | (sides & 1)
    feed_sequence = np.int64(0)
    if rests:
        flags |= _RESTS | _LAST
        feed_sequence = book["feed_sequence"] + 1
        book["feed_sequence"] = feed_sequence
    position = place_two(out, position)
    emit(out, position, command, _ACCEPTED, flags, 0, feed_sequence, order_id, price, qty)
    emit_party(inp, command_slot, out, position + 1, command, 0)
    position += 2
    if rests:
        ladder = shard.sides[np.uintp(sides)]
        rest_order(shard, book, ladder, order_id, command["account_id"], price, qty, qty)
        return position, True
    return finish_aggressor(shard, book, sides, command, out, position, limit, 1, order_id, 0, qty)


@kernel(inline=True)
def sides_of(shard: Any, book: Any, instrument_id: int, order: Any) -> int:
    """Return the `side_index` of a resting order, or -1 when it is another instrument's.

    A book's bids are followed by its asks in the levels, so the side is a comparison.
    """
    sides = side_index(instrument_id, 1)
    offset = np.int64(order["level"]) - shard.sides[np.uintp(sides)]["level_base"]
    ticks = book["ladder_ticks"]
    if offset < 0 or offset >= 2 * ticks:
        return np.int64(-1)
    return sides + np.int64(offset >= ticks)


@kernel(inline=True)
def change_order(
    shard: Any, book: Any, inp: Any, command_slot: int, out: Any, position: int, limit: int
) -> tuple[int, bool]:
    """Cancel, reduce or replace a resting order."""
    command = inp.orders[np.uintp(command_slot)]
    slot = find_order(shard, inp.words[np.uintp(command_slot * 8 + 6)])  # order_id
    order = shard.orders[np.uintp(slot)]
    sides = np.int64(-1)
    if slot != 0 and order["account_id"] == command["account_id"]:
        sides = sides_of(shard, book, np.int64(command["instrument_id"]), order)
    if sides < 0:
        known = command["exec_flags"] & _KNOWN_ORDER
        reason = _TOO_LATE if known else _UNKNOWN_ORDER
        return emit_reject(inp, command_slot, out, position, reason), True
    kind = command["kind"]
    if kind == _REPLACE_ORDER:
        return replace_order(shard, book, inp, command_slot, out, position, limit, slot, sides)
    qty = command["qty"]
    if kind == _REDUCE_ORDER and qty < 1:
        return emit_reject(inp, command_slot, out, position, _BAD_QTY), True
    leaves = order["leaves_qty"]
    if kind == _REDUCE_ORDER and qty < leaves:
        total = shard.totals[np.uintp(slot)] - qty
        keep_order(shard, slot, leaves - qty, total)
        book["feed_sequence"] += 1
        ladder = shard.sides[np.uintp(sides)]
        price = price_of(ladder, np.int64(order["level"]) - ladder["level_base"])
        emit(
            out, position, command, _RESTATED, _KEPT | _LAST | (sides & 1), 0,
            book["feed_sequence"], order["order_id"], price, leaves - qty,
        )  # fmt: skip
        return position + 1, True
    return end_order(shard, book, inp, command_slot, out, position, slot, sides), True


@kernel(inline=True)
def replace_order(
    shard: Any, book: Any, inp: Any, command_slot: int, out: Any, position: int, limit: int,
    slot: int, sides: int,
) -> tuple[int, bool]:  # fmt: skip
    """Give a resting order a new price and a new total."""
    command = inp.orders[np.uintp(command_slot)]
    order = shard.orders[np.uintp(slot)]
    price = command["price"]
    qty = command["qty"]
    if price < 1 or price >= book["ladder_ticks"]:
        return emit_reject(inp, command_slot, out, position, _BAD_PRICE), True
    if qty < 1 or qty > MAX_QTY:
        return emit_reject(inp, command_slot, out, position, _BAD_QTY), True
    ladder = shard.sides[np.uintp(sides)]
    rung = np.int64(order["level"]) - ladder["level_base"]
    total = shard.totals[np.uintp(slot)]
    new_leaves = qty - (total - order["leaves_qty"])
    if new_leaves <= 0:
        return end_order(shard, book, inp, command_slot, out, position, slot, sides), True
    moves = rung != rung_of(ladder, price)
    if moves or qty > total:
        return move_order(
            shard, book, inp, command_slot, out, position, limit, slot, sides, rung, moves,
            new_leaves,
        )  # fmt: skip
    keep_order(shard, slot, new_leaves, qty)
    book["feed_sequence"] += 1
    return emit_answer(
        inp, command_slot, out, position, command, _REPLACED, _KEPT | _LAST | (sides & 1),
        book["feed_sequence"], order["order_id"], price, new_leaves,
    ), True  # fmt: skip


@kernel(inline=True)
def keep_order(shard: Any, slot: int, leaves_qty: int, total_qty: int) -> None:
    """Shrink an order where it is."""
    order = shard.orders[np.uintp(slot)]
    level = shard.levels[np.uintp(np.int64(order["level"]))]
    level["total_qty"] -= order["leaves_qty"] - leaves_qty
    order["leaves_qty"] = leaves_qty
    shard.totals[np.uintp(slot)] = total_qty


@kernel(inline=True)
def end_order(
    shard: Any, book: Any, inp: Any, command_slot: int, out: Any, position: int, slot: int,
    sides: int,
) -> int:  # fmt: skip
    """Take a resting order off the book for good: CANCELED."""
    command = inp.orders[np.uintp(command_slot)]
    order = shard.orders[np.uintp(slot)]
    ladder = shard.sides[np.uintp(sides)]
    rung = np.int64(order["level"]) - ladder["level_base"]
    order_id = order["order_id"]
    leaves = order["leaves_qty"]
    unlink_order(shard, book, ladder, slot, rung)
    forget_order(shard, book, slot)
    book["feed_sequence"] += 1
    return emit_answer(
        inp, command_slot, out, position, command, _CANCELED, _LAST | (sides & 1),
        book["feed_sequence"], order_id, price_of(ladder, rung), leaves,
    )  # fmt: skip


@kernel(inline=True)
def move_order(
    shard: Any, book: Any, inp: Any, command_slot: int, out: Any, position: int, limit: int,
    slot: int, sides: int, rung: int, moves: bool, new_leaves: int,
) -> tuple[int, bool]:  # fmt: skip
    """Replace an order that loses its place: to the tail of a level, or against the book."""
    command = inp.orders[np.uintp(command_slot)]
    order_id = shard.orders[np.uintp(slot)]["order_id"]
    price = command["price"]
    ladder = shard.sides[np.uintp(sides)]
    shard.totals[np.uintp(slot)] = command["qty"]
    unlink_order(shard, book, ladder, slot, rung)
    rests = not (moves and crosses(shard.sides[np.uintp(sides ^ 1)], price))
    flags = sides & 1
    if rests:
        flags |= _RESTS | _LAST
    book["feed_sequence"] += 1
    position = emit_answer(
        inp, command_slot, out, position, command, _REPLACED, flags, book["feed_sequence"],
        order_id, price, new_leaves,
    )  # fmt: skip
    if rests:
        append_order(shard, book, ladder, slot, price, new_leaves)
        return position, True
    return finish_aggressor(
        shard, book, sides, command, out, position, limit, 1, order_id, slot, new_leaves
    )
