"""An ITCH recording as commands.

A and F rest; E trades when its order is first in the best level and is a reduce otherwise; C
trades only if it happened at the order's own price; X reduces; D cancels; U cancels and rests anew,
because the new reference goes to the tail of its level even at the same price. P and Q are prints
that no visible order took part in, B breaks a trade and leaves the book alone; the rest is read and
counted.

A file that begins in mid-session refers to orders that it never added: those messages change
nothing and are counted. An add that crosses what rests (an instrument that is halted, or an order
at the other side that the file never told the end of) rested all the same: it goes in as a
replay-only add and is counted. References are unique across instruments, so one table holds them.

Comes before: `itch_scan`, `conversion`. After: `ops.replay`.
Source: Nasdaq TotalView-ITCH 5.0, sections 1.3 (add), 1.4 (modify), 1.5 (trade messages).
"""

from __future__ import annotations

import difflib

import numpy as np

from hftcore.errors import ConfigurationRefused, UsageRefused
from hftcore.limits import MAX_INSTRUMENTS
from hftcore.marketdata.conversion import (
    BUY,
    SELL,
    CommandRows,
    Conversion,
    Counts,
    Listed,
    QueueModel,
)
from hftcore.marketdata.itch import LAYOUTS, PRINT_TYPES
from hftcore.marketdata.itch_scan import Block, ItchRecording

_ADD, _ATTRIBUTED, _EXECUTED, _EXECUTED_AT, _CANCEL, _DELETE, _REPLACE = (
    ord(code) for code in "AFECXDU"
)
_BROKEN = ord("B")
_PRINTS = tuple(ord(code) for code in PRINT_TYPES)
_MOST_NAMED = 20


def list_instruments(recording: ItchRecording, symbol: str | None) -> dict[int, Listed]:
    """Return the instruments to replay, by locate code; ids from 1 by order of locate code.

    Parameters
    ----------
    symbol : str or None
        This one only; None: each that the recording has orders of.

    Raises
    ------
    UsageRefused
        The recording knows no such symbol; names those that it knows.
    ConfigurationRefused
        More instruments than a venue has ids for, or prices that no ladder holds.
    """
    listings = recording.listings
    if symbol is not None:
        chosen = [listing for listing in listings.values() if listing.symbol == symbol]
        if not chosen:
            raise _unknown_symbol(symbol, [listing.symbol for listing in listings.values()])
    else:
        chosen = [listing for listing in listings.values() if listing.adds]
    if len(chosen) >= MAX_INSTRUMENTS:
        raise ConfigurationRefused(
            "the recording has more instruments than a venue",
            expected=f"at most {MAX_INSTRUMENTS - 1} with orders",
            found=str(len(chosen)),
            where=str(recording.path),
            remedy="choose one with --instrument",
        )
    return {
        listing.locate: Listed.fit(
            number, listing.symbol, listing.highest, listing.whole_cents, listing.adds
        )
        for number, listing in enumerate(chosen, 1)
    }


def _unknown_symbol(symbol: str, known: list[str]) -> UsageRefused:
    named = sorted(known)
    if len(named) > _MOST_NAMED:
        near = difflib.get_close_matches(symbol, named, _MOST_NAMED, 0.5) or named[:_MOST_NAMED]
        shown = f"{', '.join(near)} and {len(named) - len(near)} more"
    else:
        shown = ", ".join(named) or "no symbol at all"
    return UsageRefused(
        "the recording has no such instrument",
        expected=f"one of {shown}",
        found=symbol,
        where="--instrument",
    )


class ItchConverter:
    """Converts a recording from its first message to its last, a block at a time."""

    def __init__(self, recording: ItchRecording, listed: dict[int, Listed]) -> None:
        self.recording = recording
        self.counts = Counts()
        self._listed = {
            locate: (entry.instrument_id, entry.units_per_tick) for locate, entry in listed.items()
        }
        self._models = {entry.instrument_id: QueueModel() for entry in listed.values()}
        self._orders: dict[int, tuple[int, int, int, int]] = {}
        # reference: order id, instrument, side, price in ticks
        self._rows = CommandRows(0)
        self._trades: list[tuple[int, int]] = []
        self._where = ""
        self._now_ns = 0

    def convert(self, first_sequence: int, block: Block) -> Conversion:
        """Convert the next block of the recording."""
        self._rows = rows = CommandRows(first_sequence)
        self._trades = []
        counts, columns = self.counts, block.columns
        newest: dict[int, int] = {}
        instruments, last_commands = [], []
        for offset, code, locate, at_ns, reference, new_reference, shares, price, side in zip(
            block.offsets.tolist(),
            block.types.tolist(),
            *(
                columns[name].tolist()
                for name in (
                    "stock_locate", "timestamp", "reference", "new_reference", "shares", "price",
                    "side",
                )
            ),
            strict=True,
        ):  # fmt: skip
            if at_ns < self._now_ns:
                counts.time_reversals += 1
            else:
                self._now_ns = at_ns
            instrument, units = self._listed.get(locate, (0, 1))
            self._where = f"offset {offset} ({chr(code)})"
            before = len(rows)
            if self._is_for_book(code, instrument, locate):
                if code in (_ADD, _ATTRIBUTED):
                    counts.adds += 1
                    bought = BUY if side == ord("B") else SELL
                    self._add(reference, instrument, bought, price // units, shares)
                else:
                    self._change(code, reference, instrument, shares, price, new_reference, units)
            if len(rows) > before:
                newest[instrument] = len(rows) - 1
            instruments.append(instrument)
            last_commands.append(newest.get(instrument, -1))
        counts.rows += len(instruments)
        counts.commands += len(rows)
        return Conversion(
            first_sequence,
            rows.array(),
            np.array(instruments, np.int64),
            np.array(last_commands, np.int64),
            np.array(self._trades, np.int64).reshape(-1, 2),
        )

    def _is_for_book(self, code: int, instrument: int, locate: int) -> bool:
        """Count a message that changes no book of this replay; say whether it does."""
        counts = self.counts
        if code in _PRINTS:
            counts.prints += 1
        elif code == _BROKEN:
            counts.breaks += 1
        elif code not in _BOOK:
            counts.others += 1
        elif instrument == 0:
            counts.other_instruments += 1
        else:
            return True
        return False

    def _add(self, reference: int, instrument: int, side: int, price: int, shares: int) -> None:
        model = self._models[instrument]
        if reference in self._orders:
            self.counts.misfit(self._where, f"adds order {reference}, which rests already")
        crosses = model.crosses(side, price)
        self.counts.crossing_adds += crosses
        order_id = self._rows.rest(instrument, self._now_ns, side, price, shares, crosses)
        model.add(side, price, order_id, shares)
        self._orders[reference] = (order_id, instrument, side, price)

    def _change(
        self, code: int, reference: int, instrument: int, shares: int, price: int,
        new_reference: int, units: int,
    ) -> None:  # fmt: skip
        counts = self.counts
        if code == _CANCEL:
            counts.cancels += 1
        elif code == _DELETE:
            counts.deletes += 1
        elif code == _REPLACE:
            counts.replaces += 1
        else:
            counts.executions += 1
        order = self._orders.get(reference)
        if order is None:
            counts.unknown_references += 1
            return
        order_id, owner, side, at_price = order
        if owner != instrument:
            counts.misfit(self._where, f"order {reference} is another instrument's")
            return
        if code in (_DELETE, _REPLACE):
            leaves = self._models[instrument].leaves(side, at_price, order_id)
            self._rows.cancel(instrument, self._now_ns, order_id)
            self._take(reference, order, leaves, leaves)
            if code == _REPLACE:
                self._add(new_reference, instrument, side, price // units, shares)
            return
        trades = code == _EXECUTED or (code == _EXECUTED_AT and price == at_price * units)
        counts.other_price += code == _EXECUTED_AT and not trades
        self._take_lots(reference, order, shares, trades)

    def _take_lots(
        self, reference: int, order: tuple[int, int, int, int], shares: int, trades: bool
    ) -> None:
        order_id, instrument, side, price = order
        model = self._models[instrument]
        leaves = model.leaves(side, price, order_id)
        if shares > leaves:
            self.counts.misfit(self._where, f"{shares} off order {reference}, which has {leaves}")
            shares = leaves
        if trades and model.is_first(side, price, order_id):
            self.counts.trades += 1
            self._trades.append((len(self._rows), order_id))
            self._rows.aggress(instrument, self._now_ns, side, price, shares)
        else:
            self.counts.off_head += trades
            self._rows.reduce(instrument, self._now_ns, order_id, shares)
        self._take(reference, order, shares, leaves)

    def _take(
        self, reference: int, order: tuple[int, int, int, int], shares: int, leaves: int
    ) -> None:
        order_id, instrument, side, price = order
        self._models[instrument].take(side, price, order_id, shares)
        if shares == leaves:
            del self._orders[reference]


_BOOK = frozenset((_ADD, _ATTRIBUTED, _EXECUTED, _EXECUTED_AT, _CANCEL, _DELETE, _REPLACE))
assert all(chr(code) in LAYOUTS for code in _BOOK)
