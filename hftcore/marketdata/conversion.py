"""What the converters share: the queues they keep, the commands they write, what they count.

A recording says what happened; the venue must be told what to do so that the same happens. For
that a converter keeps its own plain model of the queues, and only to choose the command: an
execution of the order that is first in the best level goes in as an aggressor, and the matcher
makes the trade; any other execution can't be a trade of a price-time book, so it takes its lots off
as a reduce and is counted. Nothing of the model reaches a verification: that compares the matcher's
book with the recording's.

Commands are rows of 16 int64 words: slot A, then slot B, as `messages` lays them out. The venue
stamps sequences in order, so the order id of a new order is known here already: the sequence that
its row will get. The recorded time travels in `sequenced_ns`; rows of both formats tell
the time of day and no date, so in a replay that field counts from the midnight before, in the
exchange's time zone, and not from 1970 in UTC as it does elsewhere (`TIME_NOTE`).

Conversion is Python over plain integers, 5 to 15 us a row; a day of one share is seconds.
Comes before: `lobster`, `itch_scan`. After: `lobster_conversion`,
`itch_conversion`, and `ops.replay`, which plays the rows.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from dataclasses import dataclass, field, fields

import numpy as np
from numpy.typing import NDArray

from hftcore.errors import ConfigurationRefused
from hftcore.limits import MAX_LADDER_TICKS, MAX_ORDERS
from hftcore.messages import (
    NEW_ORDER,
    ORDER_CHANGE,
    CommandKind,
    ExecFlags,
    Flags,
    OrderType,
    Side,
    TimeInForce,
)

COMMAND_WORDS = 16
RESTING_ACCOUNT = 1
"""Owner of every order that rests."""
AGGRESSOR_ACCOUNT = 2
"""Owner of the orders that make the recorded trades; never the resting one, so no self-trade."""
BUY, SELL = 0, 1
"""Side index of this package: Side - 1."""
PRICE_UNITS = 10_000
"""ITCH and LOBSTER prices are dollars x 10,000."""

TIME_NOTE = "times are nanoseconds since midnight where it was recorded: no date, not UTC"
"""What a reader of `sequenced_ns` must know; each replay's report says it."""

_NEW = int(CommandKind.NEW_ORDER)
_CANCEL = int(CommandKind.CANCEL_ORDER)
_REDUCE = int(CommandKind.REDUCE_ORDER)
_GTC = int(TimeInForce.GTC)
_IOC = int(TimeInForce.IOC)
_REPLAY_ADD = int(ExecFlags.REPLAY_ADD)


@dataclass(frozen=True)
class Listed:
    """One instrument of a replay.

    Attributes
    ----------
    units_per_tick : int
        Price units of the recording in a tick: 100 when all its prices are whole cents (the tick is
        a cent), else 1 (the tick is 0.0001).
    ladder_ticks, order_capacity : int
        What the venue must have room for.
    """

    instrument_id: int
    symbol: str
    units_per_tick: int
    ladder_ticks: int
    order_capacity: int

    @classmethod
    def fit(
        cls, instrument_id: int, symbol: str, highest: int, whole_cents: bool, adds: int
    ) -> Listed:
        """Choose tick and ladder for the prices of a recording.

        Raises
        ------
        ConfigurationRefused
            The highest price needs more ticks than one ladder has.
        """
        units = 100 if whole_cents else 1
        ladder_ticks = max(highest // units + 1, 2)
        if ladder_ticks > MAX_LADDER_TICKS:
            raise ConfigurationRefused(
                f"{symbol} does not fit one ladder",
                expected=f"prices below {MAX_LADDER_TICKS * units / PRICE_UNITS:,.4f} where some"
                " are not whole cents",
                found=f"{highest / PRICE_UNITS:,.4f}",
                where=symbol,
                remedy="choose other instruments with --instrument",
            )
        return cls(instrument_id, symbol, units, ladder_ticks, min(max(adds, 1), MAX_ORDERS))


@dataclass
class Counts:
    """What a conversion met; every row of the recording is in one of the first group.

    Attributes
    ----------
    trades, off_head, other_price : int
        Visible executions: as an aggressor that the matcher trades; as a reduce because the order
        was not first in the best level; as a reduce because it traded at another price.
    unknown_references : int
        Rows about an order that the recording never added, or no longer shows.
    crossing_adds : int
        Orders that rested though they crossed; they go in as replay-only adds.
    seeded_levels, adopted_levels : int
        Levels that came from the order book file: at its first row, and revealed later.
    cut_levels, cut_orders : int
        What left the window of levels that the recording shows, canceled.
    misfits : int
        Rows that contradict the rows before them; `first_misfit` names the first.
    """

    rows: int = 0
    adds: int = 0
    cancels: int = 0
    deletes: int = 0
    replaces: int = 0
    executions: int = 0
    hidden: int = 0
    prints: int = 0
    breaks: int = 0
    others: int = 0
    other_instruments: int = 0

    commands: int = 0
    trades: int = 0
    off_head: int = 0
    other_price: int = 0
    unknown_references: int = 0
    crossing_adds: int = 0
    seeded_levels: int = 0
    adopted_levels: int = 0
    cut_levels: int = 0
    cut_orders: int = 0
    time_reversals: int = 0
    misfits: int = 0
    first_misfit: str = ""

    def misfit(self, where: str, what: str) -> None:
        """Count a row that contradicts the rows before it."""
        if self.misfits == 0:
            self.first_misfit = f"{where}: {what}"
        self.misfits += 1

    def numbers(self) -> dict[str, int]:
        """Return the counts by name."""
        return {item.name: getattr(self, item.name) for item in fields(self) if item.type == "int"}


@dataclass(frozen=True)
class Conversion:
    """Consecutive rows of a recording as commands.

    Attributes
    ----------
    commands : int64[commands, 16]
        Command k gets the sequence `first_sequence` + k.
    instruments : int64[rows]
        Instrument of each row, 0: none.
    last_commands : int64[rows]
        The newest command, up to this row, of the row's instrument; -1: none in this conversion.
    trades : int64[trades, 2]
        Index of each aggressor among the commands, and the order that it must trade with.
    """

    first_sequence: int
    commands: NDArray[np.int64] = field(repr=False)
    instruments: NDArray[np.int64] = field(repr=False)
    last_commands: NDArray[np.int64] = field(repr=False)
    trades: NDArray[np.int64] = field(repr=False)


class QueueModel:
    """The queues of one instrument: order ids and lots by side and price, oldest first.

    Attributes
    ----------
    levels : two dicts, of buys and of sells
        Lots by order id, by price.
    keys : two lists
        Prices from the best; those of buys negative, so that both ascend.
    """

    __slots__ = ("keys", "levels")

    def __init__(self) -> None:
        self.levels: tuple[dict[int, dict[int, int]], dict[int, dict[int, int]]] = ({}, {})
        self.keys: tuple[list[int], list[int]] = ([], [])

    def add(self, side: int, price: int, order_id: int, qty: int) -> None:
        """Put an order at the tail of its level."""
        level = self.levels[side].get(price)
        if level is None:
            self.levels[side][price] = {order_id: qty}
            insort(self.keys[side], price if side else -price)
        else:
            level[order_id] = qty

    def take(self, side: int, price: int, order_id: int, qty: int) -> None:
        """Take lots off an order, at most all it has."""
        level = self.levels[side][price]
        if level[order_id] > qty:
            level[order_id] -= qty
            return
        del level[order_id]
        if not level:
            self.drop(side, price)

    def drop(self, side: int, price: int) -> dict[int, int]:
        """Take a level off and return what it held."""
        keys = self.keys[side]
        del keys[bisect_left(keys, price if side else -price)]
        return self.levels[side].pop(price)

    def leaves(self, side: int, price: int, order_id: int) -> int:
        """Return the lots of an order."""
        return self.levels[side][price][order_id]

    def is_first(self, side: int, price: int, order_id: int) -> bool:
        """Say whether an aggressor would meet this order before any other."""
        return self.keys[side][0] == (price if side else -price) and order_id == next(
            iter(self.levels[side][price])
        )

    def crosses(self, side: int, price: int) -> bool:
        """Say whether an order would trade at once."""
        against = self.keys[1 - side]
        return bool(against) and -against[0] >= (price if side else -price)


class CommandRows:
    """The commands of one conversion, in the making; values are plain ints until `array`."""

    __slots__ = ("_values", "first_sequence")

    def __init__(self, first_sequence: int) -> None:
        self.first_sequence = first_sequence
        self._values: list[tuple[int, int, int, int, int, int, int, int, int]] = []

    def __len__(self) -> int:
        return len(self._values)

    def rest(
        self, instrument: int, at_ns: int, side: int, price: int, qty: int, replay_add: bool
    ) -> int:
        """Write an order that rests; return its order id."""
        order_id = self.first_sequence + len(self._values)
        flags = _REPLAY_ADD if replay_add else 0
        self._values.append(
            (_NEW, instrument, RESTING_ACCOUNT, at_ns, price, qty, side + 1, _GTC, flags)
        )
        return order_id

    def aggress(self, instrument: int, at_ns: int, side: int, price: int, qty: int) -> None:
        """Write an order that trades at once with what rests on a side."""
        self._values.append(
            (_NEW, instrument, AGGRESSOR_ACCOUNT, at_ns, price, qty, 2 - side, _IOC, 0)
        )

    def reduce(self, instrument: int, at_ns: int, order_id: int, qty: int) -> None:
        """Write a reduce: lots off an order that keeps its place."""
        self._values.append((_REDUCE, instrument, RESTING_ACCOUNT, at_ns, 0, qty, order_id, 0, 0))

    def cancel(self, instrument: int, at_ns: int, order_id: int) -> None:
        """Write a cancel."""
        self._values.append((_CANCEL, instrument, RESTING_ACCOUNT, at_ns, 0, 0, order_id, 0, 0))

    def array(self) -> NDArray[np.int64]:
        """Return the rows as the words of both slots."""
        words = np.zeros((len(self._values), COMMAND_WORDS), np.int64)
        if not self._values:
            return words
        values = np.array(self._values, np.int64).T
        kinds, instruments, accounts, at_ns, prices, quantities, subjects, tifs, flags = values
        change = words[:, :8].view(ORDER_CHANGE)[:, 0]
        change["kind"] = kinds
        change["flags"] = int(Flags.TWO_SLOTS)
        change["instrument_id"] = instruments
        change["account_id"] = accounts
        change["sequenced_ns"] = at_ns
        change["price"] = prices
        change["qty"] = quantities
        change["exec_flags"] = flags
        new = kinds == _NEW
        change["order_id"] = np.where(new, 0, subjects)
        order = words[:, :8].view(NEW_ORDER)[:, 0]
        order["side"][new] = subjects[new]
        order["order_type"][new] = int(OrderType.LIMIT)
        order["time_in_force"][new] = tifs[new]
        return words


assert (int(Side.BUY), int(Side.SELL)) == (BUY + 1, SELL + 1)
