"""Order books from ITCH messages, the obvious way: what `hft replay --verify` compares with.

Shares nothing with the converter but the file and where each message begins: it unpacks the raw
bytes with layouts of its own, has no queues, no commands and no matcher, only lots by price. So a
mistake in the table of `itch`, in the scanning kernels, in the conversion or in the matcher makes
the two differ.

Comes before: the recording's bytes. After: `ops.replay`.
Source: Nasdaq TotalView-ITCH 5.0, sections 1.3 and 1.4.
"""

from __future__ import annotations

import struct
from bisect import bisect_left, insort

import numpy as np
from numpy.typing import NDArray

_ADD = struct.Struct(">xH8xQcI8xI")
_REFERENCE = struct.Struct(">Q")
_LOTS = struct.Struct(">I")
_REPLACE = struct.Struct(">QII")


class ReferenceBooks:
    """The books of some instruments of one recording.

    Attributes
    ----------
    lots : dict
        By locate code: two dicts, of buys and of sells, lots by price x 10,000.
    """

    def __init__(self, locates: list[int], levels: int) -> None:
        self.lots: dict[int, tuple[dict[int, int], dict[int, int]]] = {
            locate: ({}, {}) for locate in locates
        }
        self._keys: dict[int, tuple[list[int], list[int]]] = {
            locate: ([], []) for locate in locates
        }
        self._levels = levels
        self._orders: dict[int, list[int]] = {}  # reference: locate, side, price, lots
        self._tops = {locate: [0] * (4 * levels) for locate in locates}

    def follow(
        self, content: NDArray[np.uint8], offsets: NDArray[np.int64], next_offset: int
    ) -> NDArray[np.int64]:
        """Apply consecutive messages.

        Parameters
        ----------
        offsets : int64[rows]
            Of each message's length prefix.
        next_offset : int
            Behind the last of them.

        Returns
        -------
        int64[rows, 2, levels, 2]
            After each message, of its instrument: bids and asks from the best, price x 10,000 and
            lots; 0 where there is none.
        """
        ends = [*offsets.tolist()[1:], next_offset]
        tops = []
        none = [0] * (4 * self._levels)
        for offset, end in zip(offsets.tolist(), ends, strict=True):
            message = content[offset + 2 : end].tobytes()
            locate = int.from_bytes(message[1:3], "big")
            if locate in self.lots and self.apply(message, locate):
                self._tops[locate] = self._top(locate)
            tops.append(self._tops.get(locate, none))
        return np.array(tops, np.int64).reshape(-1, 2, self._levels, 2)

    def whole(self, locate: int) -> NDArray[np.int64]:
        """Return every level of a book: int64[2, deepest side, 2], from the best."""
        bids, asks = self.lots[locate]
        book = np.zeros((2, max(len(bids), len(asks)), 2), np.int64)
        for side, levels in enumerate((sorted(bids.items(), reverse=True), sorted(asks.items()))):
            if levels:
                book[side, : len(levels)] = levels
        return book

    def apply(self, message: bytes, locate: int) -> bool:
        """Apply one message; say whether it changed a book."""
        kind = message[:1]
        if kind in (b"A", b"F"):
            _, reference, side, lots, price = _ADD.unpack_from(message)
            self._rest(reference, locate, 0 if side == b"B" else 1, price, lots)
            return True
        if kind not in (b"E", b"C", b"X", b"D", b"U"):
            return False
        (reference,) = _REFERENCE.unpack_from(message, 11)
        order = self._orders.get(reference)
        if order is None or order[0] != locate:
            return False
        if kind in (b"D", b"U"):
            self._take(reference, order, order[3])
            if kind == b"U":
                new_reference, lots, price = _REPLACE.unpack_from(message, 19)
                self._rest(new_reference, locate, order[1], price, lots)
        else:
            self._take(reference, order, _LOTS.unpack_from(message, 19)[0])
        return True

    def _rest(self, reference: int, locate: int, side: int, price: int, lots: int) -> None:
        book = self.lots[locate][side]
        if price not in book:
            insort(self._keys[locate][side], price)
        book[price] = book.get(price, 0) + lots
        self._orders[reference] = [locate, side, price, lots]

    def _take(self, reference: int, order: list[int], lots: int) -> None:
        locate, side, price, leaves = order
        book = self.lots[locate][side]
        lots = min(lots, leaves)
        order[3] -= lots
        book[price] -= lots
        if order[3] == 0:
            del self._orders[reference]
        if book[price] == 0:
            del book[price]
            keys = self._keys[locate][side]
            del keys[bisect_left(keys, price)]

    def _top(self, locate: int) -> list[int]:
        bids, asks = self._keys[locate]
        bid_lots, ask_lots = self.lots[locate]
        top = [
            value for price in bids[: -self._levels - 1 : -1] for value in (price, bid_lots[price])
        ]
        top += [0] * (2 * self._levels - len(top))
        top += [value for price in asks[: self._levels] for value in (price, ask_lots[price])]
        return top + [0] * (4 * self._levels - len(top))
