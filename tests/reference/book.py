"""The reference matcher: hftcore/docs/matching.md as the shortest Python that says it.

A book is one list of resting orders, oldest first; everything else (best price, level, queue) is
looked up in it by a loop over all of it. Nothing here is fast and nothing is shared with the
compiled matcher but the numbers of `hftcore.messages`: where the two differ, one of them or the
document is wrong. Before it: `streams` and the scenario files write the commands; after it: the
tests of tests/matching compare.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from hftcore.limits import MAX_INSTRUMENTS, MAX_LADDER_TICKS, MAX_QTY, MAX_SLICE_IDS
from hftcore.messages import (
    ECHO,
    MAX_SEQUENCE,
    CommandKind,
    EventKind,
    ExecFlags,
    Flags,
    Liquidity,
    OrderStatus,
    OrderType,
    RejectReason,
    Side,
    StpMode,
    TimeInForce,
)
from tests.reference.records import (
    Command,
    Echo,
    Event,
    Fills,
    Judged,
    Listing,
    MassCancel,
    NewOrder,
    OrderChange,
    OrderState,
    Origin,
    Party,
)

BOOK_KINDS = {
    CommandKind.NEW_ORDER,
    CommandKind.CANCEL_ORDER,
    CommandKind.REPLACE_ORDER,
    CommandKind.REDUCE_ORDER,
    CommandKind.INSTRUMENT_DEFINE,
}
"""What the matcher carries out; every other kind that exists is echoed. A MASS_CANCEL_SLICE is
carried out too, unless its instrument has no book."""

PUBLIC = {
    EventKind.BOOKED,
    EventKind.TRADE,
    EventKind.CANCELED,
    EventKind.REPLACED,
    EventKind.RESTATED,
}


@dataclass
class Order:
    """An order, resting or just arrived. Its order_id never changes."""

    order_id: int
    account_id: int
    side: int
    price: int
    total: int
    leaves: int


@dataclass
class Book:
    """One instrument."""

    listing: Listing
    resting: list[Order] = field(default_factory=list)
    """Oldest first, all prices and both sides together."""
    feed_sequence: int = 0

    def best_opposite(self, side: int, price: int) -> Order | None:
        """Return the order that an aggressor meets first, if its price allows a trade."""
        if side == Side.BUY:
            asks = [order for order in self.resting if order.side == Side.SELL]
            met = min(asks, key=lambda order: order.price, default=None)
            return met if met is not None and met.price <= price else None
        bids = [order for order in self.resting if order.side == Side.BUY]
        met = max(bids, key=lambda order: order.price, default=None)  # max: the first of equals
        return met if met is not None and met.price >= price else None

    def levels(self, side: int) -> list[tuple[int, list[Order]]]:
        """Return (price, queue) of each occupied level, best first."""
        prices = sorted({order.price for order in self.resting if order.side == side})
        if side == Side.BUY:
            prices.reverse()
        return [
            (price, [o for o in self.resting if o.side == side and o.price == price])
            for price in prices
        ]


@dataclass(frozen=True)
class Memory:
    """What a shard may promise to the instruments that it lists."""

    orders: int
    levels: int
    words: int


def bitmap_words(ticks: int) -> int:
    """Return the words of a 64-ary bitmap over so many ticks, up to its single top word."""
    words = (ticks + 63) // 64
    return words if words <= 1 else words + bitmap_words(words)


class Venue:
    """All instruments of all shards: commands in, events out."""

    def __init__(self, memories: list[Memory], *, allow_replay: bool = False) -> None:
        self.left = list(memories)
        self.allow_replay = allow_replay
        self.books: dict[int, Book] = {}
        self.used_ids: set[int] = set()
        """Ids that some shard listed or had no room for: never to be listed again."""

    # --- one command ---------------------------------------------------------------------------

    def apply(self, command: Command) -> list[Event | Echo]:
        """Carry out one command and return all its events."""
        events = list(self._answer(command))
        assert events, "each command yields at least one event"
        return [self._numbered(command, event, i, len(events)) for i, event in enumerate(events)]

    def answering_shard(self, command: Command) -> int:
        """Return the number of the shard whose events answer a command (asked before `apply`)."""
        if isinstance(command, Listing):
            return 0 if command.reject_reason else command.shard
        book = self.books.get(command.instrument_id)
        return book.listing.shard if book else 0

    def _numbered(
        self, command: Command, event: Event | Echo, index: int, count: int
    ) -> Event | Echo:
        if isinstance(event, Echo):
            assert count == 1
            return event
        flags = event.flags
        if index == count - 1:
            flags |= Flags.LAST
        if event.second is not None:
            flags |= Flags.TWO_SLOTS
        if isinstance(event.second, OrderState):
            flags |= Flags.STATE
        feed_sequence = 0
        rests = event.kind == EventKind.ACCEPTED and event.flags & Flags.RESTS
        if event.kind in PUBLIC or rests:
            book = self.books[command.instrument_id]
            book.feed_sequence += 1
            feed_sequence = book.feed_sequence
        return replace(event, flags=flags, index=index, feed_sequence=feed_sequence)

    def _answer(self, command: Command) -> Iterator[Event | Echo]:
        if command.kind not in set(CommandKind) - {CommandKind.PAD}:
            yield self._rejected(command, RejectReason.UNKNOWN_KIND)
        elif isinstance(command, MassCancel) and self._is_slice(command):
            yield from self._cancel_slice(command, self.books[command.instrument_id])
        elif command.kind not in BOOK_KINDS:
            yield echo(command)  # also when refused: the echo carries the gate's verdict
        elif isinstance(command, Judged) and command.reject_reason:
            yield self._rejected(command, command.reject_reason)
        elif isinstance(command, Listing):
            yield self._list(command)
        elif command.instrument_id not in self.books:
            yield self._rejected(command, RejectReason.UNKNOWN_INSTRUMENT)
        else:
            yield from self._match(command, self.books[command.instrument_id])

    def _match(self, command: Command, book: Book) -> Iterator[Event]:
        if isinstance(command, NewOrder):
            yield from self._new_order(command, book)
            return
        assert isinstance(command, OrderChange)
        if command.kind == CommandKind.CANCEL_ORDER:
            yield self._cancel(command, book)
        elif command.kind == CommandKind.REDUCE_ORDER:
            yield self._reduce(command, book)
        else:
            yield from self._replace(command, book)

    # --- INSTRUMENT_DEFINE ---------------------------------------------------------------------

    def _list(self, command: Listing) -> Event | Echo:
        used = command.instrument_id in self.used_ids
        good_id = 0 < command.instrument_id < MAX_INSTRUMENTS and not used
        good_shard = command.shard < len(self.left)
        good_ladder = 2 <= command.ladder_ticks <= MAX_LADDER_TICKS
        if not good_id or not good_shard or not good_ladder or command.order_capacity < 1:
            return self._rejected(command, RejectReason.BAD_REFERENCE)
        self.used_ids.add(command.instrument_id)
        left = self.left[command.shard]
        left = Memory(
            left.orders - command.order_capacity,
            left.levels - 2 * command.ladder_ticks,
            left.words - 2 * bitmap_words(command.ladder_ticks),
        )
        if min(left.orders, left.levels, left.words) < 0:
            return self._rejected(command, RejectReason.CAPACITY)
        self.left[command.shard] = left
        self.books[command.instrument_id] = Book(command)
        return echo(command)

    # --- NEW_ORDER -----------------------------------------------------------------------------

    def _new_order(self, command: NewOrder, book: Book) -> Iterator[Event]:
        reason = self._refusal(command, book)
        if reason:
            yield self._rejected(command, reason)
            return
        order = Order(
            order_id=command.sequence,
            account_id=command.account_id,
            side=command.side,
            price=command.price,
            total=command.qty,
            leaves=command.qty,
        )
        replayed = bool(command.exec_flags & ExecFlags.REPLAY_ADD)
        crosses = book.best_opposite(order.side, order.price) is not None and not replayed
        may_rest = command.time_in_force == TimeInForce.GTC
        if may_rest and not crosses:
            book.resting.append(order)
            yield event_of(
                command, EventKind.ACCEPTED, order, order.leaves, Flags.RESTS, party(command)
            )
            return
        yield event_of(command, EventKind.ACCEPTED, order, order.leaves, second=party(command))
        yield from self._trade(command, book, order)
        if order.leaves and may_rest:
            book.resting.append(order)
            yield event_of(command, EventKind.BOOKED, order, order.leaves, Flags.RESTS)
        elif order.leaves:
            yield event_of(command, EventKind.EXPIRED, order, order.leaves)

    def _refusal(self, command: NewOrder, book: Book) -> int:
        """Return the first reason why a new order can't be taken, or 0."""
        limit = command.order_type == OrderType.LIMIT
        gtc = command.time_in_force == TimeInForce.GTC
        ioc = command.time_in_force == TimeInForce.IOC
        if command.side not in (Side.BUY, Side.SELL):
            return RejectReason.BAD_SIDE
        if command.order_type not in (OrderType.LIMIT, OrderType.MARKET):
            return RejectReason.BAD_ORDER_TYPE
        if not (ioc or (limit and gtc)):
            return RejectReason.BAD_TIME_IN_FORCE
        if not price_is_on_ladder(command.price, book):
            return RejectReason.BAD_PRICE
        if not 1 <= command.qty <= MAX_QTY:
            return RejectReason.BAD_QTY
        known = ExecFlags.REPLAY_ADD | ExecFlags.HAS_CLIENT_ORDER_ID
        if command.exec_flags & ~known or command.stp_mode not in (StpMode.UNSET, StpMode.NONE):
            return RejectReason.PROFILE
        replayed = command.exec_flags & ExecFlags.REPLAY_ADD
        if replayed and not (self.allow_replay and limit and gtc):
            return RejectReason.PROFILE
        if gtc and len(book.resting) >= book.listing.order_capacity:
            return RejectReason.CAPACITY
        return RejectReason.NONE

    def _trade(self, command: Command, book: Book, aggressor: Order) -> Iterator[Event]:
        """Fill an aggressor that is not on the book, best price first, oldest order first."""
        while aggressor.leaves:
            resting = book.best_opposite(aggressor.side, aggressor.price)
            if resting is None:
                return
            qty = min(aggressor.leaves, resting.leaves)
            aggressor.leaves -= qty
            resting.leaves -= qty
            if resting.leaves == 0:
                book.resting.remove(resting)
            fills = Fills(
                resting_order_id=resting.order_id,
                aggressor_order_id=aggressor.order_id,
                resting_leaves_qty=resting.leaves,
                aggressor_leaves_qty=aggressor.leaves,
                resting_account_id=resting.account_id,
                aggressor_account_id=aggressor.account_id,
                resting_display_qty=resting.leaves,
                liquidity=Liquidity.TAKER,
                stp_mode=0,
                reserved=bytes(6),
            )
            side = Flags.SELL if aggressor.side == Side.SELL else Flags(0)
            trade = event_of(command, EventKind.TRADE, resting, qty, second=fills)
            yield replace(trade, flags=int(side))

    # --- CANCEL_ORDER, REDUCE_ORDER, REPLACE_ORDER ---------------------------------------------

    def _find(self, command: OrderChange, book: Book) -> Order | None:
        """Return the order meant, if it rests on this book and is the sender's."""
        for order in book.resting:
            if order.order_id == command.order_id and order.account_id == command.account_id:
                return order
        return None

    def _not_found(self, command: OrderChange) -> Event:
        known = command.exec_flags & ExecFlags.KNOWN_ORDER
        reason = RejectReason.TOO_LATE if known else RejectReason.UNKNOWN_ORDER
        return self._rejected(command, reason)

    def _cancel(self, command: OrderChange, book: Book) -> Event:
        order = self._find(command, book)
        if order is None:
            return self._not_found(command)
        return self._canceled(command, book, order)

    def _canceled(self, command: OrderChange, book: Book, order: Order) -> Event:
        book.resting.remove(order)
        return event_of(command, EventKind.CANCELED, order, order.leaves, second=own_party(command))

    def _reduce(self, command: OrderChange, book: Book) -> Event:
        order = self._find(command, book)
        if order is None:
            return self._not_found(command)
        if command.qty < 1:
            return self._rejected(command, RejectReason.BAD_QTY)
        if command.qty >= order.leaves:
            return self._canceled(command, book, order)
        order.leaves -= command.qty
        order.total -= command.qty
        return event_of(command, EventKind.RESTATED, order, order.leaves, Flags.KEPT_PRIORITY)

    def _replace(self, command: OrderChange, book: Book) -> Iterator[Event]:
        order = self._find(command, book)
        if order is None:
            yield self._not_found(command)
            return
        if not price_is_on_ladder(command.price, book):
            yield self._rejected(command, RejectReason.BAD_PRICE)
            return
        if not 1 <= command.qty <= MAX_QTY:
            yield self._rejected(command, RejectReason.BAD_QTY)
            return
        filled = order.total - order.leaves
        if command.qty <= filled:
            yield self._canceled(command, book, order)
            return
        same_price = command.price == order.price
        kept = same_price and command.qty <= order.total
        order.price = command.price
        order.total = command.qty
        order.leaves = command.qty - filled
        second = own_party(command)
        if kept:
            yield event_of(
                command, EventKind.REPLACED, order, order.leaves, Flags.KEPT_PRIORITY, second
            )
            return
        book.resting.remove(order)
        crosses = book.best_opposite(order.side, order.price) is not None
        if same_price or not crosses:
            book.resting.append(order)
            yield event_of(command, EventKind.REPLACED, order, order.leaves, Flags.RESTS, second)
            return
        yield event_of(command, EventKind.REPLACED, order, order.leaves, second=second)
        yield from self._trade(command, book, order)
        if order.leaves:
            book.resting.append(order)
            yield event_of(command, EventKind.BOOKED, order, order.leaves, Flags.RESTS)

    # --- MASS_CANCEL_SLICE ---------------------------------------------------------------------

    def _is_slice(self, command: MassCancel) -> bool:
        return command.kind == CommandKind.MASS_CANCEL_SLICE and command.instrument_id in self.books

    def _cancel_slice(self, command: MassCancel, book: Book) -> Iterator[Event]:
        """Cancel the orders meant, lowest order_id first; the watermark tells the end."""
        first, last = command.first_order_id, command.last_order_id
        sound = first >= 0 and 0 <= last <= MAX_SEQUENCE
        if not sound or last - first + 1 > MAX_SLICE_IDS:
            yield self._rejected(command, RejectReason.OVERFLOW)
            return
        for order in sorted(book.resting, key=lambda order: order.order_id):
            if (
                first <= order.order_id <= last
                and command.account_id in (0, order.account_id)
                and command.side in (0, order.side)
            ):
                book.resting.remove(order)
                state = OrderState(
                    order_id=order.order_id,
                    cum_qty=order.total - order.leaves,
                    full_qty=order.leaves,
                    account_id=order.account_id,
                    order_status=OrderStatus.CANCELED,
                    command_kind=command.kind,
                    order_type=OrderType.LIMIT,
                    time_in_force=TimeInForce.GTC,
                )
                yield event_of(command, EventKind.CANCELED, order, order.leaves, second=state)
        nothing = replace(self._rejected(command, 0), kind=EventKind.WATERMARK, second=None)
        yield nothing  # but a place in the log

    # --- answers -------------------------------------------------------------------------------

    def _rejected(self, command: Command, reason: int) -> Event:
        order_id = price = qty = flags = 0
        if isinstance(command, NewOrder):
            order_id, price, qty = command.sequence, command.price, command.qty
            flags = int(Flags.SELL) if command.side == Side.SELL else 0
        elif isinstance(command, OrderChange):
            order_id, price, qty = command.order_id, command.price, command.qty
        return Event(
            kind=EventKind.REJECTED,
            flags=flags,
            instrument_id=command.instrument_id,
            index=0,
            sequence=command.sequence,
            sequenced_ns=command.sequenced_ns,
            feed_sequence=0,
            order_id=order_id,
            price=price,
            qty=qty,
            second=party(command, reason),
        )


def price_is_on_ladder(price: int, book: Book) -> bool:
    """Return whether an order may have this price."""
    return 1 <= price <= book.listing.ladder_ticks - 1


def echo(command: Command) -> Echo:
    """Give a command back as an event."""
    return Echo(replace(command, kind=command.kind | ECHO, flags=command.flags | Flags.LAST))


def event_of(
    command: Command,
    kind: EventKind,
    order: Order,
    qty: int,
    flags: int = 0,
    second: Party | Fills | OrderState | None = None,
) -> Event:
    """Make an event about an order; `Venue.apply` numbers it."""
    side = Flags.SELL if order.side == Side.SELL else 0
    return Event(
        kind=kind,
        flags=int(flags | side),
        instrument_id=command.instrument_id,
        index=0,
        sequence=command.sequence,
        sequenced_ns=command.sequenced_ns,
        feed_sequence=0,
        order_id=order.order_id,
        price=order.price,
        qty=qty,
        second=second,
    )


def own_party(command: OrderChange) -> Party | None:
    """Return slot B for a change that brought a client order id of its own, else nothing."""
    return party(command) if command.exec_flags & ExecFlags.HAS_CLIENT_ORDER_ID else None


def party(command: Command, reason: int | None = None) -> Party:
    """Tell the party of a command what it needs to recognise it."""
    new = command if isinstance(command, NewOrder) else None
    judged = command if isinstance(command, Judged) else None
    origin = command.origin if isinstance(command, NewOrder | OrderChange) else Origin()
    return Party(
        client_order_id=origin.client_order_id,
        session_id=origin.session_id,
        command_kind=command.kind,
        order_type=new.order_type if new else 0,
        time_in_force=new.time_in_force if new else 0,
        stp_mode=new.stp_mode if new else 0,
        exec_flags=judged.exec_flags if judged else 0,
        reject_reason=(judged.reject_reason if judged else 0) if reason is None else reason,
        account_id=command.account_id,
        maker_rate=origin.maker_rate,
        taker_rate=origin.taker_rate,
    )
