"""One slice of a mass cancel: the orders of an account within a range of order_ids, oldest first.

The sequencer cuts a mass cancel into such slices, so that no command is unbounded. How many orders
a slice meets isn't known before its end, so its watermark is an event of its own.

Comes before: `book`, `emit`. After: `dispatch`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from hftcore.limits import MAX_SLICE_IDS
from hftcore.matching.book import forget_order, price_of, unlink_order
from hftcore.matching.emit import ROOM, emit, emit_reject, place_two
from hftcore.matching.order_index import find_order
from hftcore.matching.state import FRESH, SLICING
from hftcore.matching.verbs import sides_of
from hftcore.messages import (
    MAX_SEQUENCE,
    CommandKind,
    EventKind,
    Flags,
    OrderStatus,
    OrderType,
    RejectReason,
    TimeInForce,
)
from ipc.kernel import kernel

_CANCELED = int(EventKind.CANCELED)
_WATERMARK = int(EventKind.WATERMARK)
_OVERFLOW = int(RejectReason.OVERFLOW)
_LAST = int(Flags.LAST)
_STATE = int(Flags.STATE)
_TWO_SLOTS = int(Flags.TWO_SLOTS)
# the last word of ORDER_STATE: order_status, command_kind, order_type, time_in_force
_CANCELED_BY_SLICE = (
    (int(OrderStatus.CANCELED) << 32)
    | (int(CommandKind.MASS_CANCEL_SLICE) << 40)
    | (int(OrderType.LIMIT) << 48)
    | (int(TimeInForce.GTC) << 56)
)


@kernel
def cancel_slice(
    shard: Any, book: Any, inp: Any, command_slot: int, out: Any, position: int, limit: int
) -> tuple[int, bool]:
    """Cancel the orders of a MASS_CANCEL_SLICE (see `dispatch.apply`)."""
    command = inp.orders[np.uintp(command_slot)]
    first = command_slot * 8
    last_order_id = inp.words[np.uintp(first + 6)]
    side = (inp.words[np.uintp(first + 7)] >> 32) & 0xFF
    account = np.int64(command["account_id"])
    progress = shard.progress[0]
    order_id, index = inp.words[np.uintp(first + 5)], np.int64(0)
    in_bounds = order_id >= 0 and 0 <= last_order_id <= MAX_SEQUENCE  # else differences wrap
    if not in_bounds or last_order_id - order_id >= MAX_SLICE_IDS:
        if limit - position < ROOM:
            return position, False
        return emit_reject(inp, command_slot, out, position, _OVERFLOW), True
    if progress["stage"] == SLICING:
        order_id, index = progress["next_order_id"], progress["index"]
    while order_id <= last_order_id:
        slot = find_order(shard, order_id)
        order = shard.orders[np.uintp(slot)]
        sides = np.int64(-1)
        if slot != 0 and (account == 0 or np.int64(order["account_id"]) == account):
            sides = sides_of(shard, book, np.int64(command["instrument_id"]), order)
        if sides >= 0 and (side == 0 or side == 1 + (sides & 1)):
            if limit - position < ROOM:
                progress["stage"] = SLICING
                progress["next_order_id"] = order_id
                progress["index"] = index
                return position, False
            position = cancel_resting(shard, book, command, out, position, slot, sides, index)
            index += 1
        order_id += 1
    if limit - position < ROOM:
        progress["stage"] = SLICING
        progress["next_order_id"] = order_id
        progress["index"] = index
        return position, False
    emit(out, position, command, _WATERMARK, _LAST, index, 0, 0, 0, 0)
    progress["stage"] = FRESH
    return position + 1, True


@kernel
def cancel_resting(
    shard: Any, book: Any, command: Any, out: Any, position: int, slot: int, sides: int, index: int
) -> int:
    """Take one order off the book and tell its owner; return the position behind the event."""
    order = shard.orders[np.uintp(slot)]
    ladder = shard.sides[np.uintp(sides)]
    rung = np.int64(order["level"]) - ladder["level_base"]
    order_id, leaves = order["order_id"], order["leaves_qty"]
    account = np.int64(order["account_id"])
    filled = shard.totals[np.uintp(slot)] - leaves
    unlink_order(shard, book, ladder, slot, rung)
    forget_order(shard, book, slot)
    book["feed_sequence"] += 1
    position = place_two(out, position)
    emit(
        out, position, command, _CANCELED, _STATE | _TWO_SLOTS | (sides & 1), index,
        book["feed_sequence"], order_id, price_of(ladder, rung), leaves,
    )  # fmt: skip
    words = out.words
    target = ((position + 1) & (len(out.events) - 1)) * 8
    words[np.uintp(target + 1)] = order_id
    words[np.uintp(target + 2)] = filled
    words[np.uintp(target + 3)] = 0  # leaves_qty
    words[np.uintp(target + 4)] = 0  # cum_value: the matcher keeps no money
    words[np.uintp(target + 5)] = leaves  # full_qty
    words[np.uintp(target + 6)] = account
    words[np.uintp(target + 7)] = _CANCELED_BY_SLICE
    return position + 2
