"""What each command does to the book, and the dispatch to it: one command in, its events out.

`apply` is all that a role calls. It starts a command only when there is room for its first events,
and a sweep that runs out of room leaves its place in `progress`; the next call with the same
command goes on from there, so no event is lost or written twice. The rules are docs/matching.md.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from hftcore.limits import MAX_INSTRUMENTS, MAX_QTY
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
    ROOM,
    emit,
    emit_answer,
    emit_echo,
    emit_party,
    emit_reject,
    place_two,
)
from hftcore.matching.listing import define_instrument
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
    TimeInForce,
)
from ipc.kernel import kernel

_NEW_ORDER = int(CommandKind.NEW_ORDER)
_CANCEL_ORDER = int(CommandKind.CANCEL_ORDER)
_REPLACE_ORDER = int(CommandKind.REPLACE_ORDER)
_REDUCE_ORDER = int(CommandKind.REDUCE_ORDER)
_INSTRUMENT_DEFINE = int(CommandKind.INSTRUMENT_DEFINE)
_LAST_KIND = int(max(CommandKind))
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
_UNKNOWN_INSTRUMENT = int(RejectReason.UNKNOWN_INSTRUMENT)
_UNKNOWN_KIND = int(RejectReason.UNKNOWN_KIND)
_UNKNOWN_ORDER = int(RejectReason.UNKNOWN_ORDER)
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
    order_id = inp.changes[np.uintp(command_slot)]["order_id"]
    slot = find_order(shard, order_id)
    order = shard.orders[np.uintp(slot)]
    sides = np.int64(-1)
    if slot != 0 and order["account_id"] == command["account_id"]:
        sides = sides_of(shard, book, np.int64(command["instrument_id"]), order)
    if sides < 0:
        return emit_reject(inp, command_slot, out, position, _UNKNOWN_ORDER), True
    ladder = shard.sides[np.uintp(sides)]
    rung = np.int64(order["level"]) - ladder["level_base"]
    leaves = order["leaves_qty"]
    kind = command["kind"]
    qty = command["qty"]
    new_leaves = np.int64(0)
    if kind == _REPLACE_ORDER:
        price = command["price"]
        if price < 1 or price >= book["ladder_ticks"]:
            return emit_reject(inp, command_slot, out, position, _BAD_PRICE), True
        if qty < 1 or qty > MAX_QTY:
            return emit_reject(inp, command_slot, out, position, _BAD_QTY), True
        total = shard.totals[np.uintp(slot)]
        new_leaves = qty - (total - leaves)
        moves = rung != rung_of(ladder, price)
        if new_leaves > 0 and (moves or qty > total):
            return move_order(
                shard, book, inp, command_slot, out, position, limit, slot, sides, rung, moves,
                new_leaves,
            )  # fmt: skip
    elif kind == _REDUCE_ORDER:
        if qty < 1:
            return emit_reject(inp, command_slot, out, position, _BAD_QTY), True
        new_leaves = leaves - qty
    book["feed_sequence"] += 1
    feed_sequence = book["feed_sequence"]
    old_price = price_of(ladder, rung)
    flags = _LAST | (sides & 1)
    if new_leaves <= 0:
        unlink_order(shard, book, ladder, slot, rung)
        forget_order(shard, book, slot)
        return emit_answer(
            inp, command_slot, out, position, command, _CANCELED, flags, feed_sequence,
            order_id, old_price, leaves,
        ), True  # fmt: skip
    shard.levels[np.uintp(np.int64(order["level"]))]["total_qty"] -= leaves - new_leaves
    order["leaves_qty"] = new_leaves
    flags |= _KEPT
    if kind == _REPLACE_ORDER:
        shard.totals[np.uintp(slot)] = qty
        return emit_answer(
            inp, command_slot, out, position, command, _REPLACED, flags, feed_sequence, order_id,
            old_price, new_leaves,
        ), True  # fmt: skip
    shard.totals[np.uintp(slot)] -= leaves - new_leaves
    emit(
        out, position, command, _RESTATED, flags, 0, feed_sequence, order_id, old_price, new_leaves
    )
    return position + 1, True


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


@kernel
def resume(
    shard: Any, book: Any, inp: Any, command_slot: int, out: Any, position: int, limit: int
) -> tuple[int, bool]:
    """Go on with the command whose sweep ran out of output space."""
    command = inp.orders[np.uintp(command_slot)]
    progress = shard.progress[0]
    slot = progress["slot"]
    instrument_id = np.int64(command["instrument_id"])
    if slot == 0:
        order_id = command["sequence"]
        sides = side_index(instrument_id, np.int64(command["side"]))
    else:
        order = shard.orders[np.uintp(slot)]
        order_id = order["order_id"]
        sides = sides_of(shard, book, instrument_id, order)
    return finish_aggressor(
        shard, book, sides, command, out, position, limit, progress["index"], order_id, slot,
        progress["leaves_qty"],
    )  # fmt: skip


@kernel
def apply_rare(shard: Any, inp: Any, command_slot: int, out: Any, position: int) -> int:
    """Answer what `apply` does not match: listings, echoes, refusals, other shards' commands."""
    command = inp.orders[np.uintp(command_slot)]
    kind = np.int64(command["kind"])
    instrument = np.int64(command["instrument_id"])
    if kind == _INSTRUMENT_DEFINE:
        reason = define_instrument(shard, inp, command_slot)
        if reason < 0:
            return position
        if reason == 0:
            return emit_echo(inp, command_slot, out, position)
        return emit_reject(inp, command_slot, out, position, reason)
    # 0 also for what was never defined: shard 0 answers what belongs to nobody
    owner = shard.books[instrument]["shard"] if instrument < MAX_INSTRUMENTS else np.int64(0)
    if owner != shard.progress[0]["shard"]:
        return position
    if kind < 1 or kind > _LAST_KIND:
        return emit_reject(inp, command_slot, out, position, _UNKNOWN_KIND)
    if kind > _REDUCE_ORDER:
        return emit_echo(inp, command_slot, out, position)
    reason = np.int64(command["reject_reason"])
    if reason == 0:
        reason = _UNKNOWN_INSTRUMENT
    return emit_reject(inp, command_slot, out, position, reason)


@kernel(inline=True)
def apply(
    shard: Any, inp: Any, command_slot: int, out: Any, position: int, limit: int
) -> tuple[int, bool]:
    """Do one command.

    Parameters
    ----------
    shard : Shard
        The state. Written.
    inp, command_slot
        Where the command's slot A is; its slot B is the next one.
    out, position, limit
        Where the next event goes, and the position before which the kernel must stop.

    Returns
    -------
    (position, finished)
        Behind the last event written. Not finished: the output was full; call again with the same
        command and more room.
    """
    if limit - position < ROOM:
        return position, False
    command = inp.orders[np.uintp(command_slot)]
    kind = command["kind"]
    instrument = np.int64(command["instrument_id"])
    if (
        kind > _REDUCE_ORDER
        or kind < _NEW_ORDER
        or command["reject_reason"] != 0
        or instrument >= MAX_INSTRUMENTS
        or shard.books[instrument]["ladder_ticks"] == 0
        or shard.books[instrument]["shard"] != shard.progress[0]["shard"]
    ):
        return apply_rare(shard, inp, command_slot, out, position), True
    book = shard.books[instrument]
    if shard.progress[0]["stage"] != FRESH:
        return resume(shard, book, inp, command_slot, out, position, limit)
    if kind == _NEW_ORDER:
        return new_order(shard, book, inp, command_slot, out, position, limit)
    return change_order(shard, book, inp, command_slot, out, position, limit)
