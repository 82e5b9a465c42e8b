"""Random command streams: one generator, fed by a seed or by hypothesis.

A stream is made against a reference venue that runs along, so cancels and replaces mostly aim at
orders that are alive. Few prices make crossing frequent, small capacities make CAPACITY happen, and
every field is now and then given a value that it must not have. Use `random_script(seed, ...)` for
long streams and `scripts(...)` where hypothesis shall shrink, `shrinking` for the
same with a seed.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, TypeVar

from hypothesis import strategies as st

from hftcore.limits import MAX_INSTRUMENTS, MAX_QTY, MAX_SLICE_IDS
from hftcore.messages import COMMANDS, CommandKind, ExecFlags, OrderType, Side, TimeInForce
from tests.reference.book import Book, Memory, Venue, bitmap_words
from tests.reference.records import (
    Command,
    Listing,
    MassCancel,
    NewOrder,
    OrderChange,
    Origin,
    Other,
    StatusReport,
)

T = TypeVar("T")
BOUNDARIES = (0, -1, 1, 2**31, 2**63 - 1, -(2**63), MAX_QTY + 1, 2**32 + 5)
FIELD_BITS = {
    "side": 8, "order_type": 8, "time_in_force": 8, "stp_mode": 8, "exec_flags": 16,
    "reject_reason": 16, "instrument_id": 16, "account_id": 32, "trade_group": 32,
}  # fmt: skip
LADDERS = (2, 3, 64, 65, 100, 4096, 4097, 262_145, 1 << 20)
WITH_RECORDS = (1, 2, 3, 4, 6, 7, 8, 9, CommandKind.INSTRUMENT_DEFINE, CommandKind.ORDER_REFERENCE)
"""Kinds that have a record of their own in `records`; the others only have bytes."""
OTHER_KINDS = tuple(kind for kind in COMMANDS if kind not in WITH_RECORDS)
UNKNOWN_KINDS = (max(CommandKind) + 1, 100, 127, 128, 129, 255)


class Draw(Protocol):
    """What hypothesis hands to a composite strategy."""

    def __call__(self, strategy: st.SearchStrategy[T]) -> T:
        """Return an example."""


class Choices(Protocol):
    """Where the generator's decisions come from."""

    def integer(self, low: int, high: int) -> int:
        """Return one of low to high, both included."""

    def pick(self, options: Sequence[T]) -> T:
        """Return one of the options."""

    def percent(self, percent: int) -> bool:
        """Return True that often."""


class Seeded:
    """Decisions from a seed."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def integer(self, low: int, high: int) -> int:
        return self.random.randint(low, high)

    def pick(self, options: Sequence[T]) -> T:
        return self.random.choice(options)

    def percent(self, percent: int) -> bool:
        return self.random.random() * 100 < percent


class Drawn:
    """Decisions from hypothesis, which shrinks them towards the first option and towards no."""

    def __init__(self, draw: Draw) -> None:
        self.draw = draw

    def integer(self, low: int, high: int) -> int:
        return self.draw(st.integers(low, high))

    def pick(self, options: Sequence[T]) -> T:
        return self.draw(st.sampled_from(options))

    def percent(self, percent: int) -> bool:
        return self.draw(st.integers(0, 99)) >= 100 - percent


@dataclass(frozen=True)
class Profile:
    """What kind of stream is wanted."""

    commands: int = 300
    ladders: tuple[int, ...] = LADDERS
    instruments: int = 4
    capacities: tuple[int, ...] = (1, 2, 5, 20, 60)
    first_sequence: int = 1
    smallest_gap: int = 1
    largest_gap: int = 1
    """Sequences from one command to the next: consecutive ids hash too evenly to collide."""
    allow_replay: bool = True
    hostile_percent: int = 6
    shards: int = 1
    change_percent: int = 45
    patient_percent: int = 60
    """New orders that are good till canceled."""
    slice_percent: int = 0
    """Of the commands that are neither an order nor a change: slices of mass cancels."""
    refusals_beside_orders: bool = False
    """Also listings that are refused, and commands of kinds that don't exist."""


@dataclass(frozen=True)
class Script:
    """Commands, and the memory of the shards that they are for."""

    memories: list[Memory]
    allow_replay: bool
    commands: list[Command] = field(default_factory=list)
    seed: int | None = None

    def venue(self) -> Venue:
        """Return the reference venue that this script is for."""
        return Venue(self.memories, allow_replay=self.allow_replay)


def random_script(seed: int, profile: Profile = Profile()) -> Script:
    """Make a stream from a seed."""
    return replace(_generate(Seeded(seed), profile), seed=seed)


@st.composite
def scripts(draw: Draw, profile: Profile = Profile()) -> Script:
    """Let hypothesis make a stream of up to `profile.commands` commands."""
    commands = draw(st.integers(0, profile.commands))
    return _generate(Drawn(draw), replace(profile, commands=commands))


def _generate(choices: Choices, profile: Profile) -> Script:
    count = choices.integer(1, profile.instruments)
    listings = [_listing(choices, profile, i + 1) for i in range(count)]
    memories = [_memory_for(listings, shard) for shard in range(profile.shards)]
    script = Script(memories, profile.allow_replay)
    venue = script.venue()
    seen: list[int] = []
    sequence = profile.first_sequence - 1
    for i in range(count + profile.commands):
        sequence += choices.integer(profile.smallest_gap, profile.largest_gap)
        if i < count:
            command: Command = replace(listings[i], sequence=sequence)
        else:
            command = _command(choices, profile, venue, seen, sequence)
            if choices.percent(profile.hostile_percent):
                command = _spoiled(choices, command)
        command = replace(command, sequenced_ns=1_000_000 + 7 * i)
        if command.kind == CommandKind.NEW_ORDER:
            seen.append(sequence)
        venue.apply(command)
        script.commands.append(command)
    return script


def _listing(choices: Choices, profile: Profile, instrument_id: int) -> Listing:
    return Listing(
        sequence=0,
        instrument_id=instrument_id,
        ladder_ticks=choices.pick(profile.ladders),
        order_capacity=choices.pick(profile.capacities),
        shard=(instrument_id - 1) % profile.shards,
        symbol=f"SYM{instrument_id}".encode().ljust(16, b"\0"),
    )


def _memory_for(listings: list[Listing], shard: int) -> Memory:
    """Return what these listings take, and a little more for one that a stream adds."""
    mine = [listing for listing in listings if listing.shard == shard]
    return Memory(
        orders=sum(listing.order_capacity for listing in mine) + 3,
        levels=sum(2 * listing.ladder_ticks for listing in mine) + 200,
        words=sum(2 * bitmap_words(listing.ladder_ticks) for listing in mine) + 8,
    )


def _command(
    choices: Choices, profile: Profile, venue: Venue, seen: list[int], sequence: int
) -> Command:
    instrument_id = choices.pick(sorted(venue.books)) if venue.books else 1
    book = venue.books.get(instrument_id)
    number = choices.integer(0, 99)
    account_id = choices.integer(1, 3)
    if book is not None and not book.resting and choices.percent(80):
        number = 0  # nothing to change
    if number < 95 - profile.change_percent or book is None:
        return _new_order(choices, profile, book, sequence, instrument_id, account_id)
    if number < 95:
        return _change(choices, book, seen, sequence, instrument_id, account_id)
    if number < 97 and profile.refusals_beside_orders:
        listing = _listing(choices, profile, choices.integer(1, 6))
        return replace(listing, sequence=sequence)
    if number == 98 or choices.percent(profile.slice_percent):
        return _slice(choices, book, seen, sequence, instrument_id)
    if number == 99 and choices.percent(30):
        return StatusReport(
            sequence=sequence,
            instrument_id=instrument_id,
            account_id=account_id,
            order_id=choices.pick(seen) if seen else 0,
            order_status=choices.integer(1, 7),
            origin=_origin(choices, sequence),
        )
    unknown = number == 97 and profile.refusals_beside_orders
    return Other(
        kind=choices.pick(UNKNOWN_KINDS if unknown else OTHER_KINDS),
        sequence=sequence,
        instrument_id=choices.pick((0, instrument_id)),
        account_id=account_id,
        body=bytes((sequence * 31 + i * 7) % 256 for i in range(32)),
        second=bytes((sequence + i) % 256 for i in range(56)) if choices.percent(50) else None,
    )


def _price(choices: Choices, book: Book | None) -> int:
    """Return a price that is often met again: five in the middle, else ends and word borders."""
    ladder = book.listing.ladder_ticks if book else 100
    if choices.percent(85):
        return max(1, min(ladder - 1, ladder // 2 + choices.integer(-2, 2)))
    borders = [1, 2, 63, 64, 65, 127, 128, 4095, 4096, 4097, 262_143, 262_144, ladder - 1]
    return choices.pick([price for price in borders if price < ladder])


def _qty(choices: Choices) -> int:
    return choices.integer(1, 12) if choices.percent(95) else choices.pick((MAX_QTY, MAX_QTY - 1))


def _origin(choices: Choices, sequence: int) -> Origin:
    if choices.percent(50):
        return Origin()
    return Origin(
        client_order_id=f"client-{sequence}".encode().ljust(36, b"\0"),
        session_id=sequence % 1000 + (1 << 31),
        ingress_id=(3 << 48) | sequence,
        incarnation=sequence % 7,
        maker_rate=-(sequence % 30_000),
        taker_rate=sequence % 30_000,
    )


def _new_order(
    choices: Choices,
    profile: Profile,
    book: Book | None,
    sequence: int,
    instrument_id: int,
    account_id: int,
) -> NewOrder:
    order_type, time_in_force = OrderType.LIMIT, TimeInForce.IOC
    if choices.percent(profile.patient_percent):
        time_in_force = TimeInForce.GTC
    elif choices.percent(50):
        order_type = OrderType.MARKET
    exec_flags = int(ExecFlags.DUPLICATE) if choices.percent(1) else 0
    if choices.percent(5):
        exec_flags |= ExecFlags.HAS_CLIENT_ORDER_ID
    if choices.percent(10 if profile.allow_replay else 1):
        exec_flags |= ExecFlags.REPLAY_ADD
    return NewOrder(
        sequence=sequence,
        instrument_id=instrument_id,
        account_id=account_id,
        price=_price(choices, book),
        qty=_qty(choices),
        side=choices.pick((Side.BUY, Side.SELL)),
        order_type=order_type,
        time_in_force=time_in_force,
        stp_mode=choices.integer(2, 5) if choices.percent(2) else choices.integer(0, 1),
        trade_group=choices.integer(0, 2),
        settled_lag=sequence % 11,
        exec_flags=exec_flags,
        origin=_origin(choices, sequence),
    )


def _change(
    choices: Choices,
    book: Book,
    seen: list[int],
    sequence: int,
    instrument_id: int,
    account_id: int,
) -> OrderChange:
    kind = choices.pick(
        (
            CommandKind.CANCEL_ORDER,
            CommandKind.REPLACE_ORDER,
            CommandKind.REPLACE_ORDER,
            CommandKind.REDUCE_ORDER,
        )
    )
    price, qty = _price(choices, book), _qty(choices)
    if book.resting and choices.percent(90):
        order = choices.pick(book.resting)
        order_id = order.order_id
        if choices.percent(95):
            account_id = order.account_id
        if choices.percent(40):
            price = order.price
        if choices.percent(40):
            qty = max(1, choices.pick((order.total, order.leaves)) + choices.integer(-2, 2))
    else:
        order_id = choices.pick(seen) if seen else sequence
    return OrderChange(
        kind=kind,
        sequence=sequence,
        instrument_id=instrument_id,
        account_id=account_id,
        price=price,
        qty=qty,
        order_id=order_id,
        settled_lag=sequence % 13,
        exec_flags=(int(ExecFlags.HAS_CLIENT_ORDER_ID) if choices.percent(40) else 0)
        | (int(ExecFlags.KNOWN_ORDER) if choices.percent(40) else 0),
        origin=_origin(choices, sequence),
    )


def _slice(
    choices: Choices, book: Book, seen: list[int], sequence: int, instrument_id: int
) -> MassCancel:
    """Return a slice as the sequencer cuts it, or a whole mass cancel that is only echoed."""
    first = last = sequence - 1
    if book.resting:
        ids = [order.order_id for order in book.resting]
        first = choices.pick((min(ids), choices.pick(ids)))
        last = choices.pick((max(ids), choices.pick(ids), sequence - 1, first))
    elif seen:
        first = choices.pick(seen)
    last = min(last, first + MAX_SLICE_IDS - choices.integer(1, 2))
    kind = CommandKind.MASS_CANCEL_SLICE if choices.percent(95) else CommandKind.MASS_CANCEL
    return MassCancel(
        kind=kind,
        sequence=sequence,
        instrument_id=instrument_id,
        account_id=choices.pick((0, 1, 2, 3)),
        parent_sequence=sequence - 1,
        first_order_id=first,
        last_order_id=last,
        session_id=choices.pick((0, 0, 7)),
        side=choices.pick((0, 0, 1, 2)),
        cause=CommandKind.MASS_CANCEL,
        origin=_origin(choices, sequence) if kind == CommandKind.MASS_CANCEL else None,
    )


def _spoiled(choices: Choices, command: Command) -> Command:
    """Give one field a value that it should not have."""
    if isinstance(command, Listing):
        name = choices.pick(("instrument_id", "ladder_ticks", "order_capacity", "reject_reason"))
        values: dict[str, tuple[int, ...]] = {
            "instrument_id": (0, MAX_INSTRUMENTS, 65_535),
            "ladder_ticks": (0, 1, 2**31, 2**32 - 1),
            "order_capacity": (0, 2**31, 2**32 - 1),
            "reject_reason": (1, 3, 999),
        }
        return _with(command, name, choices.pick(values[name]))
    names = ["instrument_id"]
    if isinstance(command, NewOrder):
        names += ["price", "qty", "side", "order_type", "time_in_force", "stp_mode"]
    if isinstance(command, OrderChange):
        names += ["price", "qty", "order_id", "account_id"]
    if isinstance(command, MassCancel):
        names += ["first_order_id", "last_order_id", "side", "account_id"]
    if isinstance(command, NewOrder | OrderChange):
        names += ["reject_reason"]
    name = choices.pick(names)
    if name == "instrument_id":
        return replace(command, instrument_id=choices.pick((0, 5, 9, MAX_INSTRUMENTS, 65_535)))
    if name in FIELD_BITS:
        top = 2 ** FIELD_BITS[name] - 1
        return _with(command, name, choices.pick((0, top, top // 2, 3, 2, 7)))
    return _with(command, name, choices.pick(BOUNDARIES))


def _with(command: Command, name: str, value: Any) -> Command:
    return replace(command, **{name: value})
