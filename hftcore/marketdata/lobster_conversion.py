"""A LOBSTER recording as commands.

The files show a window of L levels a side and say nothing of what lies below it, so the book that
is rebuilt is that window. Its first row is seeded from the order book file. After every row a side
is cut to L levels (what leaves is canceled and forgotten), and when it then has fewer than the file
shows, the missing deepest level is adopted from the file, as one replay-only order; everything else
follows from the messages. Cancels and executions of orders that are not known (from before the
file, or forgotten) take from the seeded or adopted lots of their price. Under these rules each of
the 155,935 rows of AMZN_5 is exact, and so is each of the 57,515 of AMZN_1.

Comes before: `lobster`, `conversion`. After: `ops.replay`.
"""

from __future__ import annotations

import numpy as np

from hftcore.marketdata.conversion import (
    BUY,
    SELL,
    CommandRows,
    Conversion,
    Counts,
    Listed,
    QueueModel,
)
from hftcore.marketdata.lobster import LobsterRecording, MessageType

_ADD = int(MessageType.ADD)
_CANCEL = int(MessageType.CANCEL)
_DELETE = int(MessageType.DELETE)
_EXECUTION = int(MessageType.EXECUTION)
_HIDDEN = int(MessageType.HIDDEN_EXECUTION)
_CROSS = int(MessageType.CROSS_TRADE)


def list_instrument(recording: LobsterRecording) -> Listed:
    """Return the one instrument of a recording."""
    adds = int(np.count_nonzero(recording.messages[:, 1] == _ADD))
    return Listed.fit(
        1,
        recording.symbol,
        recording.highest_price(),
        not recording.odd_cents(),
        # An adopted level is an order too; at most one a side and row, and at most L rest.
        adds + 2 * recording.levels + 2,
    )


class LobsterConverter:
    """Converts a recording from its first row to its last, some rows at a time."""

    def __init__(self, recording: LobsterRecording, listed: Listed) -> None:
        self.recording = recording
        self.counts = Counts()
        self._levels = recording.levels
        self._units = listed.units_per_tick
        self._instrument = listed.instrument_id
        self._model = QueueModel()
        self._known: dict[int, tuple[int, int, int]] = {}  # file's id: order id, side, price
        self._file_ids: dict[int, int] = {}  # order id: file's id
        self._adopted: tuple[dict[int, int], dict[int, int]] = ({}, {})  # price: order id
        self._rows = CommandRows(0)
        self._trades: list[tuple[int, int]] = []
        self._row = 0
        self._now_ns = 0

    def convert(self, first_sequence: int, first: int, last: int) -> Conversion:
        """Convert rows first to last - 1; each call goes on where the former one ended."""
        assert first == self._row, (first, self._row)
        self._rows = CommandRows(first_sequence)
        self._trades = []
        last_commands = []
        shown, deepest = self._window(first, last)
        messages = self.recording.messages[first:last]
        for message, counts, levels in zip(messages.tolist(), shown, deepest, strict=True):
            at_ns = message[0]
            if at_ns < self._now_ns:
                self.counts.time_reversals += 1
            else:
                self._now_ns = at_ns
            if self._row == 0:
                self._seed()
                self._count(message[1])
            else:
                self._apply(message)
                for side in (BUY, SELL):
                    self._fit(side, counts[side], levels[side])
            self._row += 1
            last_commands.append(len(self._rows) - 1)
        self.counts.rows += len(messages)
        self.counts.commands += len(self._rows)
        return Conversion(
            first_sequence,
            self._rows.array(),
            np.full(len(messages), self._instrument, np.int64),
            np.array(last_commands, np.int64),
            np.array(self._trades, np.int64).reshape(-1, 2),
        )

    def _window(self, first: int, last: int) -> tuple[list[list[int]], list[list[list[int]]]]:
        """Per row and side: how many levels the file shows, and the deepest of them."""
        sides = self.recording.depth(first, last)
        shown = np.count_nonzero(sides[:, :, :, 0], axis=2)
        index = np.maximum(shown - 1, 0)[:, :, None, None]
        deepest = np.take_along_axis(sides, index, axis=2)[:, :, 0]
        return shown.tolist(), deepest.tolist()

    def _count(self, kind: int) -> None:
        counts = self.counts
        if kind == _ADD:
            counts.adds += 1
        elif kind == _CANCEL:
            counts.cancels += 1
        elif kind == _DELETE:
            counts.deletes += 1
        elif kind == _EXECUTION:
            counts.executions += 1
        elif kind == _HIDDEN:
            counts.hidden += 1
        elif kind == _CROSS:
            counts.prints += 1
        else:
            counts.others += 1

    def _seed(self) -> None:
        book = self.recording.orderbook[0].tolist()
        for ask_price, ask_size, bid_price, bid_size in book:
            for side, price, size in ((BUY, bid_price, bid_size), (SELL, ask_price, ask_size)):
                if price:
                    self._adopt(side, price // self._units, size)
                    self.counts.seeded_levels += 1

    def _adopt(self, side: int, price: int, qty: int) -> None:
        order_id = self._rows.rest(self._instrument, self._now_ns, side, price, qty, True)
        self._model.add(side, price, order_id, qty)
        self._adopted[side][price] = order_id

    def _where(self) -> str:
        return f"row {self._row + 1}"

    def _apply(self, message: list[int]) -> None:
        _, kind, file_id, size, price, direction = message
        self._count(kind)
        side = BUY if direction == 1 else SELL
        if kind == _ADD:
            self._add(file_id, side, price // self._units, size)
        elif kind in (_CANCEL, _DELETE, _EXECUTION):
            self._take(kind, file_id, side, price // self._units, size)

    def _add(self, file_id: int, side: int, price: int, size: int) -> None:
        crosses = self._model.crosses(side, price)
        self.counts.crossing_adds += crosses
        if file_id in self._known:
            self.counts.misfit(self._where(), f"adds order {file_id}, which rests already")
        order_id = self._rows.rest(self._instrument, self._now_ns, side, price, size, crosses)
        self._model.add(side, price, order_id, size)
        self._known[file_id] = (order_id, side, price)
        self._file_ids[order_id] = file_id

    def _take(self, kind: int, file_id: int, side: int, price: int, size: int) -> None:
        known = self._known.get(file_id)
        if known is None:
            self.counts.unknown_references += 1
            adopted = self._adopted[side].get(price)
            if adopted is None:
                self.counts.misfit(
                    self._where(),
                    f"order {file_id} is unknown and nothing was adopted at its price",
                )
                return
            order_id = adopted
        else:
            order_id, known_side, known_price = known
            if (known_side, known_price) != (side, price):
                self.counts.misfit(self._where(), f"order {file_id} rests at another price or side")
                side, price = known_side, known_price
        leaves = self._model.leaves(side, price, order_id)
        if size > leaves or (kind == _DELETE and known is not None and size != leaves):
            self.counts.misfit(self._where(), f"{size} off order {file_id}, which has {leaves}")
            size = leaves
        self._write_take(kind, order_id, side, price, size, leaves)
        self._model.take(side, price, order_id, size)
        if size == leaves:
            self._forget(order_id, side, price)

    def _write_take(
        self, kind: int, order_id: int, side: int, price: int, size: int, leaves: int
    ) -> None:
        rows, instrument = self._rows, self._instrument
        if kind == _EXECUTION and self._model.is_first(side, price, order_id):
            self.counts.trades += 1
            self._trades.append((len(rows), order_id))
            rows.aggress(instrument, self._now_ns, side, price, size)
            return
        self.counts.off_head += kind == _EXECUTION
        if kind != _EXECUTION and size == leaves:
            rows.cancel(instrument, self._now_ns, order_id)
        else:
            rows.reduce(instrument, self._now_ns, order_id, size)

    def _forget(self, order_id: int, side: int, price: int) -> None:
        file_id = self._file_ids.pop(order_id, None)
        if file_id is None:
            if self._adopted[side].get(price) == order_id:
                del self._adopted[side][price]
        elif self._known[file_id][0] == order_id:
            del self._known[file_id]

    def _fit(self, side: int, shown: int, deepest: list[int]) -> None:
        """Cut a side to the window, and adopt the level that the file then reveals."""
        keys = self._model.keys[side]
        while len(keys) > self._levels:
            price = abs(keys[-1])
            for order_id in self._model.drop(side, price):
                self._rows.cancel(self._instrument, self._now_ns, order_id)
                self._forget(order_id, side, price)
                self.counts.cut_orders += 1
            self.counts.cut_levels += 1
        if len(keys) >= shown:
            return
        price = deepest[0] // self._units
        if keys and (price if side else -price) <= keys[-1]:
            self.counts.misfit(self._where(), "the file's book shows more levels than were added")
            return
        self.counts.adopted_levels += 1
        self._adopt(side, price, deepest[1])
