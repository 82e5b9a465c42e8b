"""Which rungs of a ladder hold orders: a 64-ary bitmap, so the next one is a few instructions away.

Row 0 has a bit a rung, row k a bit for each non-zero word of row k - 1, up to a single word;
three rows cover 2^18 rungs, five 2^30. Rows follow each other in memory, lowest first. Nearly
every step ends in the word where it began, so the first word is tried before anything is computed;
scanning size without a bitmap collapses on sparse books, sorted vectors on wide ones (both
measured on the systems of ANCHORS.md).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ipc.intrinsics import trailing_zeros
from ipc.kernel import kernel

ONE = np.int64(1)
ALL = np.int64(-1)


@kernel
def _set_rows(bits: Any, base: int, size: int, rung: int) -> None:
    """Continue `set_bit` in the rows above, as long as words come to life."""
    position = np.int64(rung) >> 6
    words = (np.int64(size) + 63) >> 6  # of the row below
    offset = np.int64(base)
    while words > 1:
        offset += words
        word = np.uintp(offset + (position >> 6))
        before = bits[word]
        bits[word] = before | (ONE << (position & 63))
        if before != 0:
            return
        words = (words + 63) >> 6
        position >>= 6


@kernel
def _clear_rows(bits: Any, base: int, size: int, rung: int) -> None:
    """Continue `clear_bit_if` in the rows above, as long as words die."""
    position = np.int64(rung) >> 6
    words = (np.int64(size) + 63) >> 6  # of the row below
    offset = np.int64(base)
    while words > 1:
        offset += words
        word = np.uintp(offset + (position >> 6))
        after = bits[word] & ~(ONE << (position & 63))
        bits[word] = after
        if after != 0:
            return
        words = (words + 63) >> 6
        position >>= 6


@kernel(inline=True)
def set_bit(bits: Any, base: int, size: int, rung: int) -> None:
    """Mark `rung` of `size` as occupied; it may be already."""
    word = np.uintp(base + (rung >> 6))
    before = bits[word]
    bits[word] = before | (ONE << (rung & 63))
    if before == 0:
        _set_rows(bits, base, size, rung)


@kernel(inline=True)
def clear_bit_if(bits: Any, base: int, size: int, rung: int, condition: bool) -> None:
    """Mark `rung` of `size` as empty when `condition` holds; without a branch on it."""
    word = np.uintp(base + (rung >> 6))
    after = bits[word] & ~(np.int64(condition) << (rung & 63))
    bits[word] = after
    if after == 0:
        _clear_rows(bits, base, size, rung)


@kernel
def _climb(bits: Any, base: int, size: int, rung: int) -> int:
    """Continue `next_above` past the word of `rung`: up the rows, and down again."""
    position = np.int64(rung)
    words = (np.int64(size) + 63) >> 6
    offset = np.int64(base)
    height = 0
    while True:
        position = (position >> 6) + 1  # the first bit not looked at, one row up
        if position >= words:
            return np.int64(size)
        offset += words
        words = (words + 63) >> 6
        height += 1
        found = bits[np.uintp(offset + (position >> 6))] & (ALL << (position & 63))
        if found != 0:
            position = (position & ~np.int64(63)) + trailing_zeros(found)
            break
    while height > 0:
        height -= 1
        offset -= (np.int64(size) + (ONE << (6 * (height + 1))) - 1) >> (6 * (height + 1))
        position = (position << 6) + trailing_zeros(bits[np.uintp(offset + position)])
    return position


@kernel(inline=True)
def next_above(bits: Any, base: int, size: int, rung: int) -> int:
    """Return the lowest occupied rung at or above `rung`, or `size` when there is none."""
    found = bits[np.uintp(base + (rung >> 6))] & (ALL << (rung & 63))
    if found != 0:
        return (rung & ~np.int64(63)) + trailing_zeros(found)
    return _climb(bits, base, size, rung)


@kernel
def bitmap_words(ladder_ticks: int) -> int:
    """Return the bitmap words of one side of a ladder, all its levels together."""
    words = np.int64(0)
    size = np.int64(ladder_ticks)
    while True:
        size = (size + 63) >> 6
        words += size
        if size == 1:
            return words
