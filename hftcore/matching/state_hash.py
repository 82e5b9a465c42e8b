"""Hashes that two runs must share: of an instrument's book, of its state, and of its events.

The hash of a book covers what a trader could tell apart (each order's id, owner, side, price, lots
and place in its queue) and nothing of the layout (slots, memory, index). The hash of the feed
covers what the public can see of it: no owner and no lots that were filled already; so the book
that a subscriber built from the feed has the matcher's. The hash of the state adds whatever else
decides the instrument's future events: its definition, the feed's sequence, the last price. The
hash of an event covers words 1 to 7 of its slots. Both are combined by sum, so shards and segments
can be added up in any order. Full-state hashes walk every order: for audits, tests and shutdown.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from hftcore.matching.bitmap import next_above
from hftcore.matching.book import price_of, side_index
from ipc.intrinsics import add_wrapping, mix64
from ipc.kernel import kernel

_WORDS = 8


@kernel(inline=True)
def _hash_of_orders(shard: Any, instrument_id: int, private: bool) -> int:
    """Walk a book and hash its orders, with what only their owners may see or without."""
    ticks = shard.books[np.uintp(instrument_id)]["ladder_ticks"]
    result = np.int64(0)
    for side in range(1, 3):
        ladder = shard.sides[side_index(instrument_id, side)]
        rung = ladder["best"] if ticks > 0 else ticks
        while rung < ticks:
            slot = np.int64(shard.levels[np.uintp(ladder["level_base"] + rung)]["head"])
            # chained through the queue, so that the order of the queue counts
            chain = mix64(add_wrapping(price_of(ladder, rung) * 2, side))
            while slot != 0:
                order = shard.orders[np.uintp(slot)]
                chain = mix64(add_wrapping(chain, order["order_id"]))
                chain = mix64(add_wrapping(chain, order["leaves_qty"]))
                if private:
                    chain = mix64(add_wrapping(chain, np.int64(order["account_id"])))
                    chain = mix64(add_wrapping(chain, shard.totals[np.uintp(slot)]))
                result = add_wrapping(result, chain)
                slot = np.int64(order["next"])
            if rung + 1 == ticks:
                break
            rung = next_above(shard.bits, ladder["bits_base"], ticks, rung + 1)
    return result


@kernel
def book_hash(shard: Any, instrument_id: int) -> int:
    """Hash an instrument's book.

    Returns
    -------
    int
        0 for an empty book. Equal for equal books, whatever the memory that holds them.
    """
    return _hash_of_orders(shard, instrument_id, True)


@kernel
def feed_hash(shard: Any, instrument_id: int) -> int:
    """Hash what the public sees of a book: each order's id, side, price, leaves and place.

    Returns
    -------
    int
        0 for an empty book. Equal for a matcher's book and one that was built from its feed, as
        long as the matcher is not in the middle of a command.
    """
    return _hash_of_orders(shard, instrument_id, False)


@kernel
def state_hash(shard: Any, instrument_id: int) -> int:
    """Hash all that decides an instrument's future: equal now, equal ever after."""
    book = shard.books[np.uintp(instrument_id)]
    chain = mix64(add_wrapping(book_hash(shard, instrument_id), book["feed_sequence"]))
    chain = mix64(add_wrapping(chain, book["last_price"]))
    chain = mix64(add_wrapping(chain, book["ladder_ticks"]))
    chain = mix64(add_wrapping(chain, book["order_capacity"]))
    return mix64(add_wrapping(chain, book["definition"]))


@kernel(inline=True)
def event_hash(words: Any, slot: int, slots: int) -> int:
    """Hash an event of one or two slots that begins at `slot` of int64[...] `words`."""
    chain = np.int64(0)
    for offset in range(slots):
        first = (slot + offset) * _WORDS
        for word in range(1, _WORDS):
            chain = mix64(add_wrapping(chain, words[np.uintp(first + word)]))
    return chain
