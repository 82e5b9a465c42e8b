"""The book: orders on levels, levels on the ladder. Put one in, take one out, keep the best.

Every function leaves the book whole: totals, counts, bitmap, best prices and index agree when it
returns. The tests walk all of it after each command (`tests/matching/walk.py`).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from hftcore.matching.bitmap import clear_bit_if, next_above, set_bit
from hftcore.matching.order_index import enter_order, remove_order
from ipc.intrinsics import pick, prefetch
from ipc.kernel import kernel


@kernel(inline=True)
def side_index(instrument_id: int, side: int) -> int:
    """Return where the SIDE record of a book's bids (1) or asks (2) is; ^ 1 is the other one."""
    return instrument_id * 2 + side - 1


@kernel(inline=True)
def rung_of(ladder: Any, price: int) -> int:
    """Return the rung of a price on one side of a book: lower is better, on both sides."""
    return ladder["origin"] + ladder["direction"] * price


@kernel(inline=True)
def price_of(ladder: Any, rung: int) -> int:
    """Return the price of a rung."""
    return (rung - ladder["origin"]) * ladder["direction"]


@kernel(inline=True)
def take_slot(shard: Any) -> int:
    """Return a free slot of the pool: the one freed last, or a new one."""
    progress = shard.progress[0]
    slot = progress["free_slot"]
    if slot != 0:
        progress["free_slot"] = np.int64(shard.orders[np.uintp(slot)]["next"])
    else:
        slot = progress["used_slots"]
        assert slot < len(shard.orders)
        progress["used_slots"] = slot + 1
    return slot


@kernel(inline=True)
def free_slot(shard: Any, slot: int) -> None:
    """Give a slot back to the pool."""
    progress = shard.progress[0]
    order = shard.orders[np.uintp(slot)]
    order["order_id"] = 0
    order["next"] = progress["free_slot"]
    progress["free_slot"] = slot
    prefetch(shard.totals, np.uintp(slot))  # the next order gets this slot


@kernel(inline=True)
def append_order(
    shard: Any, book: Any, ladder: Any, slot: int, price: int, leaves_qty: int
) -> None:
    """Put the order of `slot` at the tail of its level. No branch depends on the book's shape."""
    rung = rung_of(ladder, price)
    number = ladder["level_base"] + rung
    level = shard.levels[np.uintp(number)]
    tail = np.int64(level["tail"])
    head = np.int64(level["head"])
    order = shard.orders[np.uintp(slot)]
    order["next"] = 0
    order["previous"] = tail
    order["level"] = number
    order["leaves_qty"] = leaves_qty
    shard.orders[np.uintp(tail)]["next"] = slot  # slot 0 takes the writes that are meant for none
    level["head"] = pick(head == 0, slot, head)
    level["tail"] = slot
    level["count"] += np.uint32(1)
    level["total_qty"] += leaves_qty
    set_bit(shard.bits, ladder["bits_base"], book["ladder_ticks"], rung)
    ladder["best"] = min(ladder["best"], rung)


@kernel(inline=True)
def empty_level(shard: Any, book: Any, ladder: Any, rung: int, empty: bool) -> None:
    """Take a level off the ladder when it has lost its last order."""
    ticks = book["ladder_ticks"]
    clear_bit_if(shard.bits, ladder["bits_base"], ticks, rung, empty)
    if empty and rung == ladder["best"]:
        ladder["best"] = next_above(shard.bits, ladder["bits_base"], ticks, rung)


@kernel(inline=True)
def unlink_order(shard: Any, book: Any, ladder: Any, slot: int, rung: int) -> None:
    """Take the order of `slot` out of its queue; it keeps its slot and its index entry."""
    order = shard.orders[np.uintp(slot)]
    level = shard.levels[np.uintp(np.int64(order["level"]))]
    before = np.int64(order["previous"])
    behind = np.int64(order["next"])
    head = np.int64(level["head"])
    tail = np.int64(level["tail"])
    shard.orders[np.uintp(before)]["next"] = behind
    shard.orders[np.uintp(behind)]["previous"] = before
    level["head"] = pick(before == 0, behind, head)
    level["tail"] = pick(behind == 0, before, tail)
    level["total_qty"] -= order["leaves_qty"]
    level["count"] -= np.uint32(1)
    empty_level(shard, book, ladder, rung, (before | behind) == 0)


@kernel(inline=True)
def rest_order(
    shard: Any,
    book: Any,
    ladder: Any,
    order_id: int,
    account_id: int,
    price: int,
    leaves_qty: int,
    total_qty: int,
) -> None:
    """Give a new order a slot, an index entry and the tail of its level."""
    slot = take_slot(shard)
    order = shard.orders[np.uintp(slot)]
    order["order_id"] = order_id
    order["account_id"] = account_id
    shard.totals[np.uintp(slot)] = total_qty
    enter_order(shard, order_id, slot)
    append_order(shard, book, ladder, slot, price, leaves_qty)
    book["order_count"] += 1
    shard.progress[0]["live_orders"] += 1


@kernel(inline=True)
def forget_order(shard: Any, book: Any, slot: int) -> None:
    """Free the slot and the index entry of an order that is in no queue any more."""
    remove_order(shard, shard.orders[np.uintp(slot)]["order_id"], slot)
    free_slot(shard, slot)
    book["order_count"] -= 1
    shard.progress[0]["live_orders"] -= 1
