"""Listing an instrument: a ladder, two bitmaps and a capacity, cut from the shard's memory.

Definitions come as sequenced commands, because whatever a kernel depends on must be in the log.
Every shard takes notice of every definition, so that shard 0 knows which commands nobody else
answers.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from hftcore.limits import MAX_INSTRUMENTS, MAX_LADDER_TICKS
from hftcore.matching.bitmap import bitmap_words
from hftcore.matching.book import side_index
from hftcore.messages import RejectReason
from ipc.kernel import kernel

_BAD_REFERENCE = int(RejectReason.BAD_REFERENCE)
_CAPACITY = int(RejectReason.CAPACITY)
NOT_OURS = -1
"""The instrument belongs to another shard: noted, and answered there."""


@kernel
def define_instrument(shard: Any, inp: Any, command_slot: int) -> int:
    """List an instrument; return 0, the reason to refuse it, or NOT_OURS."""
    definition = inp.definitions[np.uintp(command_slot)]
    instrument = np.int64(definition["instrument_id"])
    progress = shard.progress[0]
    ours = np.int64(definition["shard"]) == progress["shard"]
    if definition["reject_reason"] != 0:
        return np.int64(definition["reject_reason"]) if progress["shard"] == 0 else NOT_OURS
    ticks = np.int64(definition["ladder_ticks"])
    orders = np.int64(definition["order_capacity"])
    if np.int64(definition["shard"]) >= progress["shard_count"]:
        return _BAD_REFERENCE if progress["shard"] == 0 else NOT_OURS
    fresh = 0 < instrument < MAX_INSTRUMENTS and shard.books[instrument]["definition"] == 0
    if not fresh or ticks < 2 or ticks > MAX_LADDER_TICKS or orders < 1:
        return _BAD_REFERENCE if ours else NOT_OURS
    # The id is used up whatever comes, so that all shards agree whose it is: only its own shard
    # knows whether it has room.
    book = shard.books[instrument]
    book["shard"] = definition["shard"]
    book["definition"] = definition["sequence"]
    if ours:
        words = bitmap_words(ticks)
        if (
            progress["promised_orders"] + orders > len(shard.orders) - 1
            or progress["used_levels"] + 2 * ticks > len(shard.levels)
            or progress["used_words"] + 2 * words > len(shard.bits)
        ):
            return _CAPACITY
        for side in range(1, 3):
            ladder = shard.sides[side_index(instrument, side)]
            ladder["best"] = ticks
            ladder["origin"] = ticks if side == 1 else 0
            ladder["direction"] = -1 if side == 1 else 1
            ladder["level_base"] = progress["used_levels"]
            ladder["bits_base"] = progress["used_words"]
            progress["used_levels"] += ticks
            progress["used_words"] += words
        progress["promised_orders"] += orders
    book["ladder_ticks"] = ticks
    book["matched_here"] = np.int32(ours)
    book["order_capacity"] = orders
    book["tick_lot_value"] = definition["tick_lot_value"]
    return 0 if ours else NOT_OURS
