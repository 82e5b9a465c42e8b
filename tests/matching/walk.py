"""Walks all of a shard's memory and compares it with the reference book, cell by cell.

Slow on purpose: every level, word and slot is looked at, nothing is taken on trust from a count or
a cached best price. A mismatch is an AssertionError that names the instrument and what differs.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from hftcore.matching.book import side_index
from hftcore.matching.order_index import find_order
from hftcore.matching.state import FRESH, Shard
from hftcore.messages import Side
from ipc.kernel import kernel
from tests.reference.book import Book, Venue


def check_shard(shard: Shard, venue: Venue, number: int) -> None:
    """Compare everything that one shard remembers with the reference venue."""
    live: dict[int, int] = {}
    promised = 0
    for instrument_id, book in venue.books.items():
        if book.listing.shard == number:
            live |= check_book(shard, instrument_id, book)
            promised += book.listing.order_capacity
    progress = shard.progress[0]
    assert progress["stage"] == FRESH
    assert progress["live_orders"] == len(live)
    assert progress["promised_orders"] == promised
    check_pool(shard, live)
    check_index(shard, live)


def check_book(shard: Shard, instrument_id: int, book: Book) -> dict[int, int]:
    """Compare one book; return the slot of each of its orders by order_id."""
    record = shard.books[instrument_id]
    ticks = book.listing.ladder_ticks
    where = f"instrument {instrument_id}"
    assert record["ladder_ticks"] == ticks, where
    assert record["order_capacity"] == book.listing.order_capacity, where
    assert record["order_count"] == len(book.resting), where
    assert record["feed_sequence"] == book.feed_sequence, where
    live: dict[int, int] = {}
    for side in (Side.BUY, Side.SELL):
        live |= check_side(shard, shard.sides[side_index(instrument_id, int(side))], side, book)
    return live


def check_side(shard: Shard, record: Any, side: Side, book: Book) -> dict[int, int]:
    """Compare one side of a book; return order_id to slot."""
    ticks = book.listing.ladder_ticks
    where = f"instrument {book.listing.instrument_id}, {side.name}"
    queues = {rung_of(side, price, ticks): (price, queue) for price, queue in book.levels(side)}
    rungs = sorted(queues)
    assert record["best"] == (rungs[0] if rungs else ticks), where
    base = int(record["level_base"])
    ladder = shard.levels[base : base + ticks]
    for name in ("count", "total_qty", "head", "tail"):
        assert np.flatnonzero(ladder[name]).tolist() == rungs, f"{where}: {name}"
    expected_bits = bitmap_of(rungs, ticks)
    words = shard.bits[record["bits_base"] : record["bits_base"] + len(expected_bits)]
    assert np.array_equal(words, expected_bits), f"{where}: bitmap"
    live: dict[int, int] = {}
    for rung, (price, queue) in queues.items():
        live |= check_level(shard, base + rung, price, queue)
    return live


def rung_of(side: Side, price: int, ticks: int) -> int:
    """Return where a price lies on its side: the better, the lower."""
    return ticks - price if side == Side.BUY else price


def check_level(shard: Shard, number: int, price: int, queue: list[Any]) -> dict[int, int]:
    """Compare one level and its queue, forwards and backwards; return order_id to slot."""
    level = shard.levels[number]
    where = f"price {price}"
    assert level["count"] == len(queue), where
    assert level["total_qty"] == sum(order.leaves for order in queue), where
    slots: dict[int, int] = {}
    slot, before = int(level["head"]), 0
    for order in queue:
        record = shard.orders[slot]
        found = {
            "order_id": int(record["order_id"]),
            "account_id": int(record["account_id"]),
            "leaves": int(record["leaves_qty"]),
            "total": int(shard.totals[slot]),
            "level": int(record["level"]),
            "previous": int(record["previous"]),
        }
        expected = {
            "order_id": order.order_id,
            "account_id": order.account_id,
            "leaves": order.leaves,
            "total": order.total,
            "level": number,
            "previous": before,
        }
        assert found == expected, where
        slots[order.order_id] = slot
        slot, before = int(record["next"]), slot
    assert slot == 0, f"{where}: the queue goes on behind its last order"
    assert level["tail"] == before, where
    return slots


def check_pool(shard: Shard, live: dict[int, int]) -> None:
    """Check that each slot ever used is either a live order's or on the free list, once."""
    free: list[int] = []
    slot = int(shard.progress[0]["free_slot"])
    while slot:
        assert shard.orders[slot]["order_id"] == 0, f"slot {slot} is free and in use"
        free.append(slot)
        assert len(free) <= len(shard.orders), "the free list is a circle"
        slot = int(shard.orders[slot]["next"])
    used = int(shard.progress[0]["used_slots"])
    assert sorted([*free, *live.values()]) == list(range(1, used))


def check_index(shard: Shard, live: dict[int, int]) -> None:
    """Check that the index finds each live order, and nothing else that might be asked for."""
    asked = sorted(live) + [0, -1, 1 << 62, -(1 << 63)]
    if live:
        asked += range(min(live) - 2, min(max(live), min(live) + 200) + 3)
        asked += [order_id + len(shard.homes) for order_id in live]
        asked += [order_id - len(shard.homes) for order_id in live]
    ids = np.array(asked, np.int64)
    slots = np.zeros(len(ids), np.int64)
    find_all(shard, ids, slots)
    assert slots.tolist() == [live.get(order_id, 0) for order_id in asked]
    # every order is found; so as many entries as orders leave no room for a stale one
    moved = np.count_nonzero(shard.moved)
    assert moved == shard.progress[0]["moved_ids"]
    assert np.count_nonzero(shard.homes) + moved == len(live), "the index holds a stale entry"


@kernel
def find_all(shard: Any, ids: Any, slots: Any) -> None:
    """Look up many order ids."""
    for i in range(len(ids)):
        slots[i] = find_order(shard, ids[i])


def bitmap_of(rungs: list[int], ticks: int) -> NDArray[np.int64]:
    """Build the 64-ary bitmap over some occupied rungs, lowest level first."""
    levels = []
    marks, size = rungs, ticks
    while True:
        size = (size + 63) // 64
        words = np.zeros(size, np.uint64)
        for mark in marks:
            words[mark // 64] |= np.uint64(1 << (mark % 64))
        levels.append(words)
        if size == 1:
            return np.concatenate(levels).view(np.int64)
        marks = sorted({mark // 64 for mark in marks})
