"""An aggressor against the book: best price first, oldest order first, a TRADE for each fill.

The hottest loop of the venue. A level is settled once, after its last fill, not after each. The
loop stops between two fills when the output is full; the book is whole then, and the same call
goes on later from what is left (a sweep of 100,000 fills exceeds any ring).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from hftcore.matching.book import empty_level, forget_order, price_of, rung_of
from hftcore.matching.emit import ROOM, emit_trade
from hftcore.matching.order_index import bucket_of
from hftcore.messages import Flags
from ipc.intrinsics import prefetch
from ipc.kernel import kernel

_LAST = int(Flags.LAST)


@kernel(inline=True)
def crosses(opposite: Any, price: int) -> bool:
    """Return whether an order at this price would trade now with the side `opposite`."""
    return opposite["best"] <= rung_of(opposite, price)


@kernel(inline=True)
def foresee_fills(shard: Any, slot: int) -> None:
    """Ask for what the next fill, of the order in `slot`, and the one behind it will need."""
    order = shard.orders[np.uintp(slot)]
    prefetch(shard.orders, np.uintp(np.int64(order["next"])))
    order_id = order["order_id"]
    prefetch(shard.homes, np.uintp(order_id & (len(shard.homes) - 1)))
    if shard.progress[0]["moved_ids"] != 0:
        prefetch(shard.moved, np.uintp(bucket_of(order_id, len(shard.moved))))


@kernel(inline=True)
def sweep(
    shard: Any,
    book: Any,
    opposite: Any,
    command: Any,
    out: Any,
    position: int,
    limit: int,
    index: int,
    order_id: int,
    sell_flag: int,
    price: int,
    leaves_qty: int,
) -> tuple[int, int, int]:
    """Trade until the aggressor is filled, nothing crosses, or the output is full.

    Parameters
    ----------
    opposite : SIDE
        The side of the book that it trades with. Written.
    sell_flag : int
        Flags.SELL when the aggressor sells.

    Returns
    -------
    (position, index, leaves_qty)
        Behind the last event; number of the next event; lots left. Lots are left and the book
        still crosses when the output was full.
    """
    feed_sequence = book["feed_sequence"]
    worst = rung_of(opposite, price)
    while leaves_qty > 0 and opposite["best"] <= worst and limit - position >= ROOM:
        best = opposite["best"]
        best_price = price_of(opposite, best)
        level = shard.levels[np.uintp(opposite["level_base"] + best)]
        slot = np.int64(level["head"])
        traded = np.int64(0)
        removed = np.int64(0)
        while limit - position >= ROOM:
            order = shard.orders[np.uintp(slot)]
            resting = order["leaves_qty"]
            behind = np.int64(order["next"])
            foresee_fills(shard, behind)
            fill = min(leaves_qty, resting)
            leaves_qty -= fill
            resting -= fill
            traded += fill
            feed_sequence += 1
            position = emit_trade(
                out, position, command, sell_flag | (_LAST if leaves_qty == 0 else 0), index,
                feed_sequence, order, best_price, fill, order_id, leaves_qty, resting,
            )  # fmt: skip
            index += 1
            if resting > 0:
                order["leaves_qty"] = resting
                break
            forget_order(shard, book, slot)
            removed += 1
            slot = behind
            if behind == 0 or leaves_qty == 0:
                break
        level["head"] = slot
        level["total_qty"] -= traded
        level["count"] -= np.uint32(removed)
        book["last_price"] = best_price
        shard.orders[np.uintp(slot)]["previous"] = 0
        if slot == 0:
            level["tail"] = 0
            empty_level(shard, book, opposite, best, True)
    book["feed_sequence"] = feed_sequence
    return position, index, leaves_qty
