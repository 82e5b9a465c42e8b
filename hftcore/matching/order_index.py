"""From order_id to slot: a home for everyone, an overflow table for who was there before.

Order ids are sequences, so the newest ids are dense and `order_id & mask` spreads them without a
hash: neighbours in time are neighbours in the table. When ids have wrapped around the table, a new
order may find the home of an old one; it takes it, and the old order's entry moves to the overflow
table (Fibonacci hashing, linear probing, at most three quarters full, deletion by backward shift,
8 bytes an entry), because the newest orders are the ones most often asked for. A plain `id & mask`
table with linear probing went quadratic once it had wrapped onto 950,000 resting orders.

A home holds only the slot: the order it names carries the id, and is needed next in any case.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from hftcore.limits import MAX_ORDERS
from ipc.intrinsics import fibonacci_hash
from ipc.kernel import kernel

_SLOT_BITS = 24
_SLOT_MASK = (1 << _SLOT_BITS) - 1
_ID_MASK = (1 << 39) - 1
assert MAX_ORDERS <= _SLOT_MASK


@kernel(inline=True)
def bucket_of(order_id: int, count: int) -> int:
    """Return where in an overflow table of `count` entries the search for an order begins."""
    return fibonacci_hash(order_id & _ID_MASK) & (count - 1)


@kernel(inline=True)
def entry_of(order_id: int, slot: int) -> int:
    """Pack an entry of the overflow table: the low 39 bits of the order_id above 24 of the slot."""
    return ((order_id & _ID_MASK) << _SLOT_BITS) | slot


@kernel(inline=True)
def _is_entry(shard: Any, entry: int, order_id: int) -> bool:
    """Return whether an entry is this order's; low bits that agree are not enough."""
    return (entry >> _SLOT_BITS) == (order_id & _ID_MASK) and (
        shard.orders[np.uintp(entry & _SLOT_MASK)]["order_id"] == order_id
    )


@kernel
def _find_moved(shard: Any, order_id: int) -> int:
    """Return where `order_id` is in the overflow table, or -1."""
    moved = shard.moved
    mask = len(moved) - 1
    place = bucket_of(order_id, len(moved))
    while True:
        entry = moved[np.uintp(place)]
        if entry == 0:
            return -1
        if _is_entry(shard, entry, order_id):
            return place
        place = (place + 1) & mask


@kernel
def _move(shard: Any, order_id: int, slot: int) -> None:
    """Enter an order into the overflow table, which has room for the whole pool."""
    moved = shard.moved
    mask = len(moved) - 1
    place = bucket_of(order_id, len(moved))
    while moved[np.uintp(place)] != 0:
        place = (place + 1) & mask
    moved[np.uintp(place)] = entry_of(order_id, slot)
    shard.progress[0]["moved_ids"] += 1


@kernel
def _remove_moved(shard: Any, order_id: int) -> None:
    """Take an order out of the overflow table and close the gap behind it."""
    moved = shard.moved
    mask = len(moved) - 1
    gap = _find_moved(shard, order_id)
    assert gap >= 0
    place = gap
    while True:
        place = (place + 1) & mask
        entry = moved[np.uintp(place)]
        if entry == 0:
            break
        home = bucket_of(entry >> _SLOT_BITS, len(moved))
        if ((place - home) & mask) >= ((place - gap) & mask):
            moved[np.uintp(gap)] = entry
            gap = place
    moved[np.uintp(gap)] = 0
    shard.progress[0]["moved_ids"] -= 1


@kernel
def _find_old(shard: Any, order_id: int) -> int:
    """Continue `find_order` in the overflow table."""
    place = _find_moved(shard, order_id)
    return np.int64(0) if place < 0 else shard.moved[np.uintp(place)] & _SLOT_MASK


@kernel(inline=True)
def find_order(shard: Any, order_id: int) -> int:
    """Return the slot of a live order, or 0."""
    slot = np.int64(shard.homes[np.uintp(order_id & (len(shard.homes) - 1))])
    # Slot 0 has order_id 0, which no order has.
    if order_id > 0 and shard.orders[slot]["order_id"] == order_id:
        return slot
    if order_id <= 0 or shard.progress[0]["moved_ids"] == 0:
        return np.int64(0)
    return _find_old(shard, order_id)


@kernel(inline=True)
def enter_order(shard: Any, order_id: int, slot: int) -> None:
    """Let `find_order` find a new order."""
    home = np.uintp(order_id & (len(shard.homes) - 1))
    before = np.int64(shard.homes[home])
    if before != 0:
        _move(shard, shard.orders[before]["order_id"], before)
    shard.homes[home] = slot


@kernel(inline=True)
def remove_order(shard: Any, order_id: int, slot: int) -> None:
    """Make `find_order` forget an order."""
    home = np.uintp(order_id & (len(shard.homes) - 1))
    if np.int64(shard.homes[home]) == slot:
        shard.homes[home] = 0
    else:
        _remove_moved(shard, order_id)
