"""The best levels of a book, read off the ladder: for a screen, a snapshot, a check."""

from __future__ import annotations

from typing import Any

import numpy as np

from hftcore.matching.bitmap import next_above
from hftcore.matching.book import price_of, side_index
from ipc.kernel import kernel


@kernel
def read_depth(shard: Any, instrument_id: int, depth: Any) -> None:
    """Write the best levels of both sides.

    Parameters
    ----------
    depth : int64[2, n, 2 or 3]
        Written: bids, then asks; best first; (price ticks, total lots[, orders]), 0 where the side
        has no more.
    """
    ticks = shard.books[np.uintp(instrument_id)]["ladder_ticks"]
    for side in range(2):
        ladder = shard.sides[np.uintp(side_index(instrument_id, side + 1))]
        rung = ladder["best"] if ticks > 0 else ticks
        for row in range(depth.shape[1]):
            if rung >= ticks:
                depth[side, row, 0] = 0
                depth[side, row, 1] = 0
                if depth.shape[2] > 2:
                    depth[side, row, 2] = 0
                continue
            level = shard.levels[np.uintp(ladder["level_base"] + rung)]
            depth[side, row, 0] = price_of(ladder, rung)
            depth[side, row, 1] = level["total_qty"]
            if depth.shape[2] > 2:
                depth[side, row, 2] = np.int64(level["count"])
            rung += 1
            if rung < ticks:
                rung = next_above(shard.bits, ladder["bits_base"], ticks, rung)
