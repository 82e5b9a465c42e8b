"""The whole venue in one process and one thread: for a notebook, a test, a replay.

    client --ingress ring--> sequencer --command ring--> matcher --event ring--> client

The rings are the real rings, the polls the real polls; only the processes are missing, and the
clock stands still until somebody moves it. `Exchange` is also where the roles are wired: they never
import each other.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import numpy as np
from numpy.typing import NDArray

from hftcore.accounts.gate import gate_of
from hftcore.accounts.known_orders import DEFAULT_WINDOW
from hftcore.arguments import depth_of, whole
from hftcore.engine.client import client_of
from hftcore.engine.matcher import matcher_of
from hftcore.engine.sequencer import sequencer_of
from hftcore.errors import ConfigurationRefused, OrderRefused
from hftcore.instruments import DEFAULT_INSTRUMENTS, Instrument, definition
from hftcore.limits import FIRST_SEQUENCE
from hftcore.matching.depth import read_depth
from hftcore.matching.state import allocate, shard_size
from hftcore.matching.state_hash import book_hash
from hftcore.messages import (
    MAX_SEQUENCE,
    NEW_ORDER,
    ORIGIN,
    CommandKind,
    EventKind,
)
from hftcore.orders import OrderEntry
from hftcore.play import Played, Roles, play_rows
from hftcore.reports import (
    BookView,
    Event,
    MassCanceled,
    OrderState,
    Report,
    Trade,
    book_of,
    decode_event,
    fold,
    mass_canceled_of,
    report_of,
    trade_of,
)
from ipc.ring import Ring


class Exchange(OrderEntry):
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
    dup_window : int
        Ended orders whose client_order_id is remembered, a day at most.

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
        dup_window: int = 1 << 16,
    ) -> None:
        whole(ring_capacity, "ring_capacity", 1, 1 << 30, ConfigurationRefused)
        whole(first_sequence, "first_sequence", 1, MAX_SEQUENCE, ConfigurationRefused)
        whole(start_ns, "start_ns", 0, (1 << 63) - 1, ConfigurationRefused)
        whole(dup_window, "dup_window", 1, DEFAULT_WINDOW, ConfigurationRefused)
        self._instruments = dict(enumerate(instruments, 1))
        self._ids: dict[str, int] = {}
        self.ingress, self.commands, self.events_ring = (
            Ring.local(ring_capacity) for _ in range(3)
        )
        ladders = [(i.ladder_ticks, i.order_capacity) for i in self._instruments.values()]
        size = shard_size(ladders)
        self.shard = allocate(size, allow_replay=replay)
        # every command in a ring may be an order of its own
        gate = gate_of(size.order_capacity + 2 * ring_capacity, dup_window, allow_replay=replay)
        self.sequencer = sequencer_of(
            [self.ingress],
            self.commands,
            [self.events_ring],
            [self.shard.matched],
            gate=gate,
            event_reader=1,
            first_sequence=first_sequence,
        )
        self.sequencer.state["recorded_time"] = replay
        self.sequencer.state["clock_ns"] = start_ns
        self.matcher = matcher_of(self.shard, self.commands, self.events_ring, 0)
        self.client = client_of(self.ingress, self.events_ring, 0)
        self.roles = Roles(self.client, self.sequencer, self.matcher)
        for ring in (self.ingress, self.commands, self.events_ring):
            ring.add_gating_reader(0)
        self.events_ring.add_gating_reader(1)
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

    # -- orders (`OrderEntry` has the calls) ----------------------------------------------------

    def _reported(self, row: NDArray[np.int64], instrument: Instrument) -> Report:
        """Play a command and report the state of its order after it."""
        events, states = self._executed(row)
        order_id = events[0].order_id
        state = states.get(order_id) or self._orders.get(order_id)
        account_id = int(row[:8].view(NEW_ORDER)[0]["account_id"])
        if state is not None and state.account_id == account_id:
            instrument = self._instruments[state.instrument_id]
        name = bytes(row[8:].view(ORIGIN)[0]["client_order_id"]).rstrip(b"\0").decode()
        return report_of(events, instrument, account_id, state, name)

    def _mass_canceled(self, row: NDArray[np.int64], symbol: str) -> MassCanceled:
        """Play a mass cancel, its slices included."""
        account_id = int(row[:8].view(NEW_ORDER)[0]["account_id"])
        return mass_canceled_of(self._executed(row)[0], symbol, account_id)

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
