"""What one shard remembers: a handful of arrays, in private or in shared memory.

An order is 32 hot bytes, two to a cache line, in a pool that the shard's instruments share; the
rest that must be known of an order but not on every touch is in a cold array beside it. A level is
32 bytes, one per tick and side, in memory that is mapped sparse: an untouched tick costs nothing,
so the ladder of a share up to $199,999.99 (20 M ticks) is as fast as one of a hundred ticks. Each
side of each instrument has a run of levels and a 64-ary bitmap over them.

Bids and asks are one code. Rungs are numbered so that a lower one is a better price on both sides
(asks: rung = price, bids: rung = ladder_ticks - price), and what differs stands in two SIDE
records a book, picked by index. Branching on the side cost a misprediction in every step.

Slot 0 and level 0 are never used: 0 is "none".

A kernel gets all of it as one `Shard`, a named tuple of arrays: fields by name in compiled code and
with the JIT off, one argument to hand on. Comes before: `messages`. After: every kernel here, and
`engine.matcher`, which owns a Shard.
"""

from __future__ import annotations

import contextlib
import mmap
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hftcore.errors import ConfigurationRefused
from hftcore.limits import MAX_INSTRUMENTS, MAX_LEVELS, MAX_ORDERS
from hftcore.matching.bitmap import bitmap_words

ORDER = np.dtype(
    [
        ("order_id", "<i8"),  # 0: the slot is free
        ("leaves_qty", "<i8"),  # lots
        ("next", "<u4"),  # slot behind in the queue; in a free slot: next free slot
        ("previous", "<u4"),  # slot before in the queue
        ("level", "<u4"),  # of the shard's levels; tells instrument, side and rung
        ("account_id", "<u4"),
    ]
)
LEVEL = np.dtype(
    [
        ("total_qty", "<i8"),  # lots of all orders here
        ("hidden_qty", "<i8"),  # lots of them that are not shown
        ("head", "<u4"),  # slot of the oldest order
        ("tail", "<u4"),  # slot of the newest order
        ("count", "<u4"),  # orders
        ("reserved", "<u4"),
    ]
)
SIDE = np.dtype(
    [
        ("best", "<i8"),  # lowest occupied rung; ladder_ticks: the side is empty
        ("origin", "<i8"),  # rung = origin + direction * price
        ("direction", "<i8"),  # 1: asks, -1: bids
        ("level_base", "<i8"),  # level of rung 0
        ("bits_base", "<i8"),  # first bitmap word
        ("reserved", "<i8", (3,)),
    ]
)
BOOK = np.dtype(
    [
        ("ladder_ticks", "<i8"),  # prices are 1 to ladder_ticks - 1; 0: not listed
        ("feed_sequence", "<i8"),  # of the newest public event
        ("order_count", "<i8"),  # resting orders
        ("order_capacity", "<i8"),  # resting orders at most
        ("last_price", "<i8"),  # ticks; of the newest trade, 0: none
        ("tick_lot_value", "<i8"),  # minor units of the quote asset per tick and lot
        ("shard", "<i4"),  # which matcher has it
        ("matched_here", "<i4"),  # 1: this one, and it is listed
        ("definition", "<i8"),  # sequence of its INSTRUMENT_DEFINE
    ]
)
PROGRESS = np.dtype(
    [
        ("shard", "<i8"),  # number of this shard
        ("allow_replay", "<i8"),  # 1: REPLAY_ADD is understood
        ("free_slot", "<i8"),  # first slot of the free list, 0: empty
        ("used_slots", "<i8"),  # slots ever used; the next one is untouched memory
        ("live_orders", "<i8"),  # resting orders of all instruments
        ("promised_orders", "<i8"),  # sum of order_capacity
        ("used_levels", "<i8"),  # levels given to instruments
        ("used_words", "<i8"),  # bitmap words given to instruments
        ("moved_ids", "<i8"),  # orders whose index entry is in the overflow table
        ("command_position", "<i8"),  # of the next command in the ring
        ("stage", "<i8"),  # of the unfinished command: FRESH, SWEEPING or SLICING
        ("index", "<i8"),  # of its next event
        ("leaves_qty", "<i8"),  # lots its aggressor has left
        ("slot", "<i8"),  # its order's slot, 0: none (REPLACE_ORDER)
        ("shard_count", "<i8"),  # shards of the venue
        ("next_order_id", "<i8"),  # at which an unfinished slice of a mass cancel goes on
        ("event_limit", "<i8"),  # up to here the event ring is known to have room
        ("seen_position", "<i8"),  # up to here the command ring's slots are known to be published
        ("reserved", "<i8", (6,)),
    ]
)

HUGE_PAGE_BYTES = 1 << 21
_PRIVATE = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
MAP_NORESERVE = 0x4000  # Linux; the mmap module has it from Python 3.13 on

FRESH = 0
"""A stage: no command is unfinished."""
SWEEPING = 1
"""A stage: an aggressor stopped between two fills because the output was full."""
SLICING = 2
"""A stage: a slice of a mass cancel stopped between two orders for the same reason."""


class Shard(NamedTuple):
    """The arrays of one shard. One writer: its matcher.

    Attributes
    ----------
    progress : PROGRESS[1]
        Where it is, and the command it has not finished. Its matcher's alone.
    matched : int64[8]
        [0]: matched_sequence, every command up to here is finished; a line of its own, for others
        to read with an acquire.
    books : BOOK[MAX_INSTRUMENTS]
        By instrument_id; ladder_ticks 0 where nothing is listed.
    sides : SIDE[2 * MAX_INSTRUMENTS]
        By `side_index`: bids and asks of each book.
    orders : ORDER[order_capacity + 1]
        The pool, by slot from 1.
    totals : int64[order_capacity + 1]
        Lots of each order in all, filled ones included; cold, read by a replace only.
    levels : LEVEL[levels]
        Ladders, sparse.
    bits : int64[words]
        64-ary bitmaps over the ladders, sparse.
    homes : uint32[power of two]
        Slot by order_id modulo its length, 0: none.
    moved : int64[power of two]
        Overflow table: slot and the low bits of the order_id of each order whose home a newer one
        took (`order_index.entry_of`), 0: free.
    """

    progress: NDArray[Any]
    matched: NDArray[np.int64]
    books: NDArray[Any]
    sides: NDArray[Any]
    orders: NDArray[Any]
    totals: NDArray[np.int64]
    levels: NDArray[Any]
    bits: NDArray[np.int64]
    homes: NDArray[np.uint32]
    moved: NDArray[np.int64]


class ShardSize(NamedTuple):
    """How much memory a shard has: what `shard_size` computes and `allocate` takes."""

    order_capacity: int
    levels: int
    words: int
    home_count: int


def shard_size(ladders: list[tuple[int, int]], home_count: int | None = None) -> ShardSize:
    """Compute the size of a shard that can list these instruments.

    Parameters
    ----------
    ladders : list of (ladder_ticks, order_capacity)
        One for each instrument.
    home_count : int, optional
        Entries of the order index; default: 8/3 to 16/3 for each order, so that few
        orders meet another one's home.
    """
    order_capacity = sum(orders for _, orders in ladders)
    levels = 1 + sum(2 * ticks for ticks, _ in ladders)
    words = sum(2 * int(bitmap_words(ticks)) for ticks, _ in ladders)
    if not 0 < order_capacity <= MAX_ORDERS or levels > MAX_LEVELS:
        raise ConfigurationRefused(
            "the instruments don't fit one shard",
            expected=f"1 to {MAX_ORDERS} orders and at most {MAX_LEVELS} levels in all",
            found=f"{order_capacity} orders, {levels} levels (two for each tick)",
            remedy="put them on several shards, or give them smaller ladders or capacities",
        )
    if home_count is None:
        home_count = power_of_two(order_capacity * 8 // 3)
    return ShardSize(order_capacity, levels, max(words, 1), home_count)


def power_of_two(least: int) -> int:
    """Return the smallest power of two that is at least `least` and at least 16."""
    return 1 << max(least - 1, 15).bit_length()


Allocator = Callable[[str, np.dtype[Any], int, bool], NDArray[Any]]


def private_memory(name: str, dtype: np.dtype[Any], count: int, sparse: bool) -> NDArray[Any]:
    """Map a zeroed private array.

    A sparse array costs nothing where it is not touched. Any other is asked for in huge pages and
    touched now: a million orders at random places would miss the TLB at each step, and a first
    touch costs more than the order that it happens to.
    """
    size = max(count * dtype.itemsize, 1)
    if sparse or size < HUGE_PAGE_BYTES:
        memory = mmap.mmap(-1, size, flags=_PRIVATE | MAP_NORESERVE)
        return np.frombuffer(memory, dtype, count)
    size = -(-size // HUGE_PAGE_BYTES) * HUGE_PAGE_BYTES
    memory = mmap.mmap(-1, size + HUGE_PAGE_BYTES, flags=_PRIVATE)
    with contextlib.suppress(OSError):  # a kernel without transparent huge pages: plain ones
        memory.madvise(mmap.MADV_HUGEPAGE)
    whole = np.frombuffer(memory, np.uint8)
    aligned = -whole.ctypes.data % HUGE_PAGE_BYTES
    array = whole[aligned : aligned + count * dtype.itemsize]
    array[:: mmap.PAGESIZE] = 0
    return array.view(dtype)


def allocate(
    size: ShardSize,
    number: int = 0,
    *,
    shard_count: int = 1,
    allow_replay: bool = False,
    memory: Allocator = private_memory,
) -> Shard:
    """Make an empty shard.

    Parameters
    ----------
    size : ShardSize
        From `shard_size`.
    number : int
        Which shard of the venue this is; shard 0 answers what belongs to no instrument.
    shard_count : int
        How many there are; shard 0 refuses a listing for any other.
    allow_replay : bool
        Whether recordings may be replayed (REPLAY_ADD).
    memory : Allocator
        Gives a zeroed array for (name, dtype, count, sparse): private, or regions to be shared.
    """
    moved_count = power_of_two(size.order_capacity * 4 // 3)
    slots = size.order_capacity + 1
    shard = Shard(
        progress=memory("progress", PROGRESS, 1, False),
        matched=memory("matched", np.dtype(np.int64), 8, False),
        books=memory("books", BOOK, MAX_INSTRUMENTS, True),
        sides=memory("sides", SIDE, 2 * MAX_INSTRUMENTS, True),
        orders=memory("orders", ORDER, slots, False),
        totals=memory("totals", np.dtype(np.int64), slots, False),
        levels=memory("levels", LEVEL, size.levels, True),
        bits=memory("bits", np.dtype(np.int64), size.words, True),
        homes=memory("homes", np.dtype(np.uint32), size.home_count, False),
        moved=memory("moved", np.dtype(np.int64), moved_count, False),
    )
    shard.progress["shard"] = number
    shard.progress["shard_count"] = shard_count
    shard.progress["allow_replay"] = allow_replay
    shard.progress["used_slots"] = 1
    shard.progress["used_levels"] = 1
    return shard
