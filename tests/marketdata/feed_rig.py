"""What the feed's tests share: a venue in one process, its publisher, and random flow through both.

The matcher's own event ring feeds the publisher, which gates it as reader 2 as in a real venue. The
rig turns everything by hand in one thread, so a test decides who runs when.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

import numpy as np
import zmq
from numpy.typing import NDArray

from hftcore import Exchange, Instrument
from hftcore.marketdata.feed_protocol import FeedInstrument
from hftcore.marketdata.feed_server import FeedServer
from hftcore.marketdata.subscriber import Subscriber
from hftcore.matching.state_hash import feed_hash
from hftcore.messages import (
    ECHO,
    EVENT,
    NEW_ORDER,
    ORDER_CHANGE,
    ORIGIN,
    CommandKind,
    EventKind,
    Flags,
    OrderType,
    Side,
    TimeInForce,
)
from ipc.clock import now_ticks
from ipc.counters import Counters
from ipc.ring import POSITION, Ring
from tests.processes import poll_until

INSTRUMENTS = (
    Instrument("AAA/USD", "0.01", "1", "2", order_capacity=4_096),
    Instrument("BBB/USD", "1", "0.1", "500", order_capacity=64),
    Instrument("CCC/USD", "0.5", "1", "100", order_capacity=4_096),
)
READER = 2
SLICE_TICKS = 10_000_000
ACCOUNT_MARK = 0xEC0D0
"""Accounts of random flow begin here, so that their bytes can be looked for."""
NAME_MARK = b"SECRETNAME"


def random_rows(
    rng: np.random.Generator,
    count: int,
    next_sequence: int,
    instruments: int = 3,
    width: int = 60,
) -> NDArray[np.int64]:
    """Make random commands: new orders of all kinds, and changes of earlier ones, some unknown."""
    rows = np.zeros((count, 16), np.int64)
    for number, row in enumerate(rows):
        new = rng.random() < 0.6
        order: Any = row[:8].view(NEW_ORDER)[0]
        order["flags"] = Flags.TWO_SLOTS
        order["account_id"] = ACCOUNT_MARK + int(rng.integers(1, 3))
        order["instrument_id"] = int(rng.integers(1, instruments + 1))
        order["price"] = int(rng.integers(60 - width // 2, 60 + width // 2 + 1))
        order["qty"] = int(rng.integers(1, 30))
        origin: Any = row[8:].view(ORIGIN)[0]
        name = NAME_MARK + str(next_sequence + number).encode()
        origin["client_order_id"][: len(name)] = list(name)
        if new:
            order["kind"] = CommandKind.NEW_ORDER
            order["side"] = Side.BUY if rng.random() < 0.5 else Side.SELL
            market = rng.random() < 0.1
            order["order_type"] = OrderType.MARKET if market else OrderType.LIMIT
            at_once = market or rng.random() < 0.2
            order["time_in_force"] = TimeInForce.IOC if at_once else TimeInForce.GTC
        else:
            change: Any = row[:8].view(ORDER_CHANGE)[0]
            change["kind"] = int(rng.choice([2, 3, 3, 4]))
            # its own instrument and account are guessed: some miss, and are refused
            change["order_id"] = max(next_sequence + number - int(rng.integers(1, 40)), 1)
    return rows


class Rig:
    """An `Exchange` whose events are published."""

    def __init__(
        self,
        instruments: tuple[Instrument, ...] = INSTRUMENTS,
        *,
        start_id: int = 1,
        endpoints: tuple[str, str] = ("", ""),
        ring_capacity: int = 8_192,
        **options: Any,
    ) -> None:
        self.exchange = Exchange(instruments, ring_capacity=ring_capacity)
        ring = self.exchange.events_ring
        ring.add_gating_reader(READER)
        feed, snapshots = endpoints
        self.server = FeedServer(
            [ring],
            [self.exchange.shard.matched],
            [FeedInstrument.of(each, number) for number, each in enumerate(instruments, 1)],
            publish_endpoints=[feed or f"ipc://@hftcore-test-{uuid.uuid4().hex}"],
            snapshot_endpoint=snapshots or f"ipc://@hftcore-test-{uuid.uuid4().hex}",
            start_id=start_id,
            **{"heartbeat_ms": 20, **options},
        )
        self.symbols = [each.symbol for each in instruments]

    @property
    def endpoints(self) -> tuple[str, str]:
        """Where the feed and the snapshots are."""
        return self.server.publish_endpoints[0], self.server.snapshot_endpoint

    @property
    def counters(self) -> Counters:
        """What the publisher counted."""
        return Counters(self.server.publisher.counters)

    def subscriber(self, **options: Any) -> Subscriber:
        """Make a subscriber of this venue."""
        return Subscriber(*self.endpoints, **options)

    def turn(self) -> int:
        """Let the publisher work until it is idle."""
        return self.server.run_slice(int(now_ticks()) + SLICE_TICKS)

    def play(self, rows: NDArray[np.int64], batch: int = 200) -> NDArray[np.int64]:
        """Play commands and publish what comes of them; return the events."""
        logs = []
        for first in range(0, len(rows), batch):
            logs.append(self.exchange.play(rows[first : first + batch], log=True).log)
            self.drain()
        return np.concatenate(logs)

    def drain(self) -> None:
        """Publish until nothing is left."""
        while self.turn():
            pass

    def random(
        self, rng: np.random.Generator, count: int, batch: int = 200, **options: Any
    ) -> NDArray[np.int64]:
        """Play random commands; return the events."""
        rows = random_rows(rng, count, self.exchange.next_sequence, len(self.symbols), **options)
        return self.play(rows, batch)

    def hashes(self) -> dict[str, int]:
        """Return what each book of the matcher looks like to the public."""
        return {
            symbol: int(feed_hash(self.exchange.shard, number))
            for number, symbol in enumerate(self.symbols, 1)
        }

    def sequences(self) -> dict[str, int]:
        """Return each book's feed_sequence."""
        books = self.exchange.shard.books["feed_sequence"]
        return {symbol: int(books[number]) for number, symbol in enumerate(self.symbols, 1)}

    def until(self, subscriber: Subscriber, condition: Callable[[], bool], what: str) -> None:
        """Turn publisher and subscriber until something holds."""

        def turned() -> bool:
            self.turn()
            subscriber.poll()
            return condition()

        poll_until(turned, what)

    def until_right(self, subscriber: Subscriber) -> None:
        """Turn both until the subscriber has everything, and compare the books."""

        def complete() -> bool:
            if set(subscriber.instruments) != set(self.symbols):
                return False
            sequences = {symbol: subscriber.feed_sequence(symbol) for symbol in self.symbols}
            right = all(map(subscriber.is_right, self.symbols))
            return right and sequences == self.sequences()

        self.until(subscriber, complete, "the subscriber's books to be right")
        assert {symbol: subscriber.feed_hash(symbol) for symbol in self.symbols} == self.hashes()

    def close(self) -> None:
        """Close the sockets."""
        self.server.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class Model:
    """A book as the public may know it, in the plainest Python: the judge of what `right` means."""

    def __init__(self) -> None:
        self.orders: list[list[int]] = []
        """[order_id, side flag, price, qty], oldest place first."""
        self.feed_sequence = 0

    def apply(self, event: Any) -> None:
        """Apply one public event, as docs/matching.md says."""
        self.feed_sequence += 1
        assert event["feed_sequence"] == self.feed_sequence
        kind, flags = EventKind(int(event["kind"])), Flags(int(event["flags"]))
        order_id, price, qty = int(event["order_id"]), int(event["price"]), int(event["qty"])
        side = int(bool(flags & Flags.SELL))
        found = [order for order in self.orders if order[0] == order_id]
        if kind in (EventKind.ACCEPTED, EventKind.BOOKED):
            assert not found
            self.orders.append([order_id, side, price, qty])
            return
        (order,) = found
        if kind == EventKind.TRADE:
            order[3] -= qty
        elif flags & Flags.KEPT_PRIORITY:
            order[3] = qty
        else:  # canceled, or moved: it leaves its place
            self.orders.remove(order)
            if flags & Flags.RESTS:
                self.orders.append([order_id, side, price, qty])
        assert order[3] >= 0
        self.orders = [order for order in self.orders if order[3]]

    def listed(self) -> list[tuple[int, ...]]:
        """Return the orders as `orders_of` does."""
        return [
            tuple(order)
            for order in sorted(self.orders, key=lambda order: (order[1], _badness(order)))
        ]


def _badness(order: list[int]) -> int:
    return order[2] if order[1] else -order[2]


def orders_of(events: NDArray[Any]) -> list[tuple[int, ...]]:
    """Return the orders of a snapshot or of a subscriber's book: id, side flag, price, qty."""
    return [
        (int(each["order_id"]), int(each["flags"]) & 1, int(each["price"]), int(each["qty"]))
        for each in events
    ]


class History:
    """What each book looked like after each of its updates."""

    def __init__(self, log: NDArray[np.int64]) -> None:
        self.books: dict[tuple[int, int], list[tuple[int, ...]]] = {}
        models: dict[int, Model] = {}
        for event in log[:, :8].copy().view(EVENT)[:, 0]:
            if event["kind"] & ECHO or not event["feed_sequence"]:
                continue
            number = int(event["instrument_id"])
            model = models.setdefault(number, Model())
            self.books.setdefault((number, 0), [])
            model.apply(event)
            self.books[number, model.feed_sequence] = model.listed()

    def check(self, subscriber: Subscriber) -> int:
        """Compare every book that says it is right; return how many did."""
        right = 0
        for symbol, instrument in subscriber.instruments.items():
            if subscriber.is_right(symbol):
                at = (instrument.instrument_id, subscriber.feed_sequence(symbol))
                found = orders_of(subscriber.orders(symbol))
                assert found == self.books.get(at, []), f"{symbol} says it is right at {at}"
                right += 1
        return right


def write_log(ring: Ring, matched: NDArray[np.int64], log: NDArray[np.int64]) -> None:
    """Write recorded events into an event ring, as a matcher does; the ring must have room."""
    position, mask = ring.position, ring.capacity - 1
    words = ring.words.reshape(-1, 8)
    for row in log:
        slots = 2 if (int(row[1]) >> 8) & Flags.TWO_SLOTS else 1
        if slots == 2 and position & mask == mask:
            words[mask] = [position + 1, 0, 0, 0, 0, 0, 0, 0]
            position += 1
        for slot in range(slots):
            words[(position + slot) & mask, 1:] = row[8 * slot + 1 : 8 * slot + 8]
            words[(position + slot) & mask, 0] = position + slot + 1
        position += slots
        matched[0] = row[2]
    ring.cells[POSITION] = position


class Proxy:
    """Stands between publisher and subscriber, and passes on what the test lets through."""

    def __init__(self, rig: Rig) -> None:
        self.context = zmq.Context()
        self.inward = self.context.socket(zmq.SUB)
        self.inward.set(zmq.RCVHWM, 0)
        self.inward.connect(rig.endpoints[0])
        self.inward.subscribe(b"L3")
        self.outward = self.context.socket(zmq.PUB)
        self.outward.set(zmq.SNDHWM, 0)
        self.endpoint = f"ipc://@hftcore-test-{uuid.uuid4().hex}"
        self.outward.bind(self.endpoint)
        self.passed = self.dropped = 0

    def pump(self, choose: Callable[[bytes], bytes | None] = lambda frame: frame) -> None:
        """Pass on what has arrived; `choose` returns a frame, another one, or None."""
        while self.inward.poll(0):
            frame = choose(self.inward.recv())
            if frame is None:
                self.dropped += 1
            else:
                self.passed += 1
                self.outward.send(frame)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.context.destroy(linger=0)
