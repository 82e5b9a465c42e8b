"""The whole venue in one process and one thread: for a notebook, a test, a replay.

    client --ingress ring--> sequencer --command ring--> matcher --event ring--> client

The rings are the real rings, the polls the real polls; only the processes are missing, and the
clock stands still until somebody moves it. `Exchange` is also where the roles are wired: they never
import each other.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hftcore.arguments import client_order_id_bytes, depth_of, named, whole
from hftcore.engine.client import client_of
from hftcore.engine.matcher import matcher_of
from hftcore.engine.sequencer import sequencer_of
from hftcore.errors import ConfigurationRefused, OrderRefused
from hftcore.instruments import DEFAULT_INSTRUMENTS, Instrument, Number, definition
from hftcore.limits import FIRST_SEQUENCE
from hftcore.matching.depth import read_depth
from hftcore.matching.state import allocate, shard_size
from hftcore.matching.state_hash import book_hash
from hftcore.messages import (
    MAX_SEQUENCE,
    NEW_ORDER,
    ORDER_CHANGE,
    ORIGIN,
    CommandKind,
    EventKind,
    ExecFlags,
    Flags,
    OrderType,
    Side,
    TimeInForce,
)
from hftcore.play import Played, Roles, play_rows
from hftcore.reports import (
    BookView,
    Event,
    OrderState,
    Report,
    Trade,
    book_of,
    decode_event,
    fold,
    report_of,
    trade_of,
)
from ipc.ring import Ring


class Exchange:
    """A venue in this process.

    Parameters
    ----------
    instruments : iterable of Instrument
        What it lists; default: DEC/USD, BTC/USD, ETH/USD, DEC/BTC.
    replay : bool
        Understand REPLAY_ADD, and let commands carry their recorded time.
    ring_capacity : int
        Slots of each of the three rings, a power of two.
    first_sequence : int
        Sequence of the first command.
    start_ns : int
        What the clock shows at first, UTC nanoseconds; `advance` moves it.

    Raises
    ------
    ConfigurationRefused
        An instrument can't be listed here, or a parameter can't be.

    Examples
    --------
    >>> exchange = Exchange()
    >>> resting = exchange.submit("BTC/USD", "sell", price="60000", qty="0.5")
    >>> exchange.submit("BTC/USD", "buy", price="60010", qty="0.2").trades[0].price
    Decimal('60000.00')
    """

    def __init__(
        self,
        instruments: Iterable[Instrument] = DEFAULT_INSTRUMENTS,
        *,
        replay: bool = False,
        ring_capacity: int = 4_096,
        first_sequence: int = FIRST_SEQUENCE,
        start_ns: int = 0,
    ) -> None:
        whole(ring_capacity, "ring_capacity", 1, 1 << 30, ConfigurationRefused)
        whole(first_sequence, "first_sequence", 1, MAX_SEQUENCE, ConfigurationRefused)
        whole(start_ns, "start_ns", 0, (1 << 63) - 1, ConfigurationRefused)
        self._instruments = dict(enumerate(instruments, 1))
        self._ids: dict[str, int] = {}
        self.ingress, self.commands, self.events_ring = (
            Ring.local(ring_capacity) for _ in range(3)
        )
        ladders = [(i.ladder_ticks, i.order_capacity) for i in self._instruments.values()]
        self.shard = allocate(shard_size(ladders), allow_replay=replay)
        self.sequencer = sequencer_of(self.ingress, self.commands, 0, first_sequence)
        self.sequencer.state["recorded_time"] = replay
        self.sequencer.state["clock_ns"] = start_ns
        self.matcher = matcher_of(self.shard, self.commands, self.events_ring, 0)
        self.client = client_of(self.ingress, self.events_ring, 0)
        self.roles = Roles(self.client, self.sequencer, self.matcher)
        for ring in (self.ingress, self.commands, self.events_ring):
            ring.add_gating_reader(0)
        self._log: list[NDArray[np.int64]] = []
        self._orders: dict[int, OrderState] = {}  # those that rest
        for number, item in self._instruments.items():
            self._list(item, number)

    def _list(self, instrument: Instrument, number: int) -> None:
        """List an instrument; refuse what the venue does not echo."""
        if instrument.symbol in self._ids:
            raise ConfigurationRefused(
                "two instruments have one symbol",
                expected="each symbol once",
                found=instrument.symbol,
                where=f"instruments {self._ids[instrument.symbol]} and {number}",
                remedy="rename one, or leave it out",
            )
        answers = self.execute(definition(instrument, number))
        if [answer.kind for answer in answers] != [CommandKind.INSTRUMENT_DEFINE]:
            reasons = [answer.reject_reason.name for answer in answers]
            raise ConfigurationRefused(
                "the venue does not list the instrument",
                expected="shard 0, the only one of an Exchange, and limits that fit it",
                found=f"{', '.join(reasons) or 'no answer'} (shard {instrument.shard})",
                where=instrument.symbol,
                remedy="correct the instrument; BAD_REFERENCE and no answer are about its shard",
            )
        self._ids[instrument.symbol] = number

    # -- orders ---------------------------------------------------------------------------------

    def submit(
        self,
        symbol: str,
        side: str,
        *,
        price: Number,
        qty: Number,
        order_type: str = "limit",
        time_in_force: str = "",
        account: int = 1,
        client_order_id: str = "",
    ) -> Report:
        """Send a new order and return what became of it.

        Parameters
        ----------
        price : decimal
            The limit; of a market order, the worst price it may trade at.
        order_type, time_in_force : str
            "limit" (default "gtc", or "ioc") or "market" ("ioc").
        """
        instrument, row = self._row(CommandKind.NEW_ORDER, symbol, account, client_order_id)
        order: Any = row[:8].view(NEW_ORDER)[0]
        order["price"] = instrument.ticks(price)
        order["qty"] = instrument.lots(qty)
        order["side"] = named(Side, side, "side")
        kind = named(OrderType, order_type, "order_type")
        order["order_type"] = kind
        default = "ioc" if kind == OrderType.MARKET else "gtc"
        order["time_in_force"] = named(TimeInForce, time_in_force or default, "time_in_force")
        return self._reported(row, instrument)

    def cancel(
        self, order: Report | int, symbol: str = "", *, account: int | None = None
    ) -> Report:
        """Cancel a resting order.

        Parameters
        ----------
        order : Report or int
            What `submit` returned, or an order_id; with an order_id, its symbol too.
        account : int
            Who asks; default: the account of the Report, or 1.
        """
        return self._change(CommandKind.CANCEL_ORDER, order, symbol, account)

    def replace(
        self,
        order: Report | int,
        symbol: str = "",
        *,
        price: Number,
        qty: Number,
        account: int | None = None,
        client_order_id: str = "",
    ) -> Report:
        """Give a resting order a new price and a new total quantity (filled lots included)."""
        return self._change(
            CommandKind.REPLACE_ORDER, order, symbol, account, price, qty, client_order_id
        )

    def reduce(
        self, order: Report | int, symbol: str = "", *, qty: Number, account: int | None = None
    ) -> Report:
        """Take a quantity off a resting order, which keeps its place."""
        return self._change(CommandKind.REDUCE_ORDER, order, symbol, account, None, qty)

    def _change(
        self,
        kind: CommandKind,
        order: Report | int,
        symbol: str,
        account: int | None,
        price: Number | None = None,
        qty: Number | None = None,
        client_order_id: str = "",
    ) -> Report:
        if isinstance(order, Report):
            symbol = symbol or order.symbol
            account = order.account_id if account is None else account
            order = order.order_id
        account = 1 if account is None else account
        instrument, row = self._row(kind, symbol, account, client_order_id)
        change: Any = row[:8].view(ORDER_CHANGE)[0]
        change["order_id"] = whole(order, "order_id", -(1 << 63), (1 << 63) - 1)
        if price is not None:
            change["price"] = instrument.ticks(price)
        if qty is not None:
            change["qty"] = instrument.lots(qty)
        return self._reported(row, instrument)

    def _reported(self, row: NDArray[np.int64], instrument: Instrument) -> Report:
        """Play a command and report the state of its order after it."""
        events, states = self._executed(row)
        order_id = events[0].order_id
        state = states.get(order_id) or self._orders.get(order_id)
        account_id = int(row[:8].view(NEW_ORDER)[0]["account_id"])
        if state is not None and state.account_id == account_id:
            instrument = self._instruments[state.instrument_id]
        return report_of(events, instrument, account_id, state)

    def _row(
        self, kind: CommandKind, symbol: str, account: int, client_order_id: str
    ) -> tuple[Instrument, NDArray[np.int64]]:
        instrument = self.instrument(symbol)
        account = whole(account, "account", 1, (1 << 32) - 1)
        name = client_order_id_bytes(client_order_id)
        row = np.zeros(16, np.int64)
        head: Any = row[:8].view(NEW_ORDER)[0]
        head["kind"] = kind
        head["flags"] = Flags.TWO_SLOTS
        head["instrument_id"] = self._ids[symbol]
        head["account_id"] = account
        if name and kind != CommandKind.NEW_ORDER:
            head["exec_flags"] = ExecFlags.HAS_CLIENT_ORDER_ID
        origin: Any = row[8:].view(ORIGIN)[0]
        origin["client_order_id"][: len(name)] = list(name)
        return instrument, row

    # -- what happened --------------------------------------------------------------------------

    @property
    def events(self) -> list[Event]:
        """Every event since the venue began, oldest first (those of `play` excepted)."""
        return [decode_event(words, self._instruments) for words in self._log]

    @property
    def trades(self) -> list[Trade]:
        """Every trade since the venue began, oldest first (those of `play` excepted)."""
        return [
            trade_of(decode_event(words, self._instruments))
            for words in self._log
            if words[1] & 0xFF == EventKind.TRADE
        ]

    def book(self, symbol: str, depth: int = 10) -> BookView:
        """Return the best levels of a book."""
        instrument = self.instrument(symbol)
        depth = min(depth_of(depth), instrument.order_capacity)  # no more levels than orders
        levels = np.zeros((2, depth, 3), np.int64)
        read_depth(self.shard, self._ids[symbol], levels)
        return book_of(levels, instrument)

    def book_hash(self, symbol: str) -> int:
        """Return the hash of a book: equal books, equal hashes, in any process and layout."""
        self.instrument(symbol)
        return int(book_hash(self.shard, self._ids[symbol]))

    def instrument(self, symbol: str) -> Instrument:
        """Return the instrument of a symbol; refuse an unknown one."""
        if not isinstance(symbol, str) or symbol not in self._ids:
            raise OrderRefused(
                "there is no such symbol",
                expected=", ".join(self._ids) or "none is listed",
                found=repr(symbol),
            )
        return self._instruments[self._ids[symbol]]

    def advance(self, seconds: float) -> int:
        """Move the clock on and return what it shows, in UTC nanoseconds."""
        if not isinstance(seconds, int | float) or not math.isfinite(seconds):
            raise OrderRefused(
                "this is no span of time", expected="a number of seconds", found=repr(seconds)
            )
        if seconds < 0:
            raise OrderRefused(
                "time does not go back", expected="0 seconds or more", found=str(seconds)
            )
        state = self.sequencer.state
        now = max(int(state["clock_ns"][0]), int(state["sequenced_ns"][0]))
        shown = now + round(seconds * 1e9)
        state["clock_ns"] = whole(shown, "clock", 0, (1 << 63) - 1)
        return shown

    @property
    def next_sequence(self) -> int:
        """The sequence that the next command will get."""
        return int(self.sequencer.state["next_sequence"][0])

    # -- commands as rows -----------------------------------------------------------------------

    def execute(self, row: NDArray[np.int64]) -> tuple[Event, ...]:
        """Play one command (int64[16], slot A then B) and return its events."""
        return self._executed(row)[0]

    def _executed(self, row: NDArray[np.int64]) -> tuple[tuple[Event, ...], dict[int, OrderState]]:
        """Play one command; return its events and the state of each order they are about."""
        log = self._played(row.reshape(1, -1), 0, True, None).log
        self._log.extend(log)
        events = tuple(decode_event(words, self._instruments) for words in log)
        return events, self._followed(log)

    def _followed(self, log: NDArray[np.int64]) -> dict[int, OrderState]:
        """Carry the states of the orders along some events; return those that changed."""
        states = fold(self._orders, log)
        for order_id, state in states.items():
            if state.leaves_qty:
                self._orders[order_id] = state
            else:
                self._orders.pop(order_id, None)
        return states

    def play(
        self,
        rows: NDArray[np.int64],
        depth: int = 0,
        *,
        log: bool = False,
        progress: Callable[[int], None] | None = None,
    ) -> Played:
        """Play commands at the speed of the kernels.

        Without `log` the fills of orders are not followed: what a later `Report` says of cum_qty
        and order_status leaves them out. The events are in neither `events` nor `trades`.

        Parameters
        ----------
        rows : int64[n, 16]
            Slot A and slot B of each command, as in messages.py; sequence and time are stamped.
        depth : int
            Record this many best levels after each command.
        log : bool
            Return the events.
        progress : callable
            Called now and then with the number of commands played so far.
        """
        played = self._played(rows, depth_of(depth), log, progress)
        if log:
            self._followed(played.log)
        return played

    def _played(
        self,
        rows: NDArray[np.int64],
        depth: int,
        log: bool,
        progress: Callable[[int], None] | None,
    ) -> Played:
        if rows.ndim != 2 or rows.shape[1] != 16 or rows.dtype != np.int64:
            raise OrderRefused(
                "these are not rows of commands",
                expected="int64[n, 16]",
                found=f"{rows.dtype}{list(rows.shape)}",
            )
        if self.next_sequence + len(rows) > MAX_SEQUENCE:
            raise OrderRefused(
                "the sequences are used up",
                expected=f"at most {MAX_SEQUENCE}",
                found=f"{self.next_sequence} + {len(rows)}",
            )
        return play_rows(self.roles, rows, depth, log=log, progress=progress)
