"""What the matcher remembers: every cell against the reference book, and the hash of it.

A walk after each command shows an error where it happens, long before an event betrays it.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from hftcore.matching.state_hash import book_hash
from hftcore.messages import CommandKind, Side
from tests.matching.compare import seeds
from tests.matching.driver import USUAL, Setup, Venue, apply_one
from tests.matching.walk import check_shard
from tests.reference.book import Book, Memory
from tests.reference.codec import encode_event
from tests.reference.records import Command, Listing, NewOrder, OrderChange
from tests.reference.shrinking import script_text, shrink
from tests.reference.streams import Profile, Script, random_script

SMALL = Profile(ladders=(2, 3, 64, 65, 100, 4097), capacities=(2, 20, 200), commands=200)
WRAPPING = replace(
    SMALL, first_sequence=1 << 40, capacities=(200,), instruments=2, patient_percent=90
)


def walks(script: Script, setup: Setup) -> str:
    """Walk all memory after each command; return what is wrong after which command, or ""."""
    reference = script.venue()
    venue = Venue(script, setup)
    for command in script.commands:
        expected = [encode_event(event) for event in reference.apply(command)]
        try:
            assert apply_one(venue, command) == expected
            for number, shard in enumerate(venue.shards):
                check_shard(shard, reference, number)
        except (AssertionError, IndexError) as error:
            return f"after sequence {command.sequence}: {error!r}"
    return ""


def check_walk(script: Script, setup: Setup = USUAL) -> None:
    """Fail with a shrunk script when memory and reference differ after some command."""
    if walks(script, setup):
        shrunk = shrink(script, lambda script: bool(walks(script, setup)))
        raise AssertionError(f"\n{setup}\n{script_text(shrunk)}\n{walks(shrunk, setup)}")


def test_memory_after_each_command_is_that_of_the_reference() -> None:
    for seed in seeds(25):
        check_walk(random_script(seed, SMALL))


@pytest.mark.parametrize("home_count", [16, 64])
def test_memory_while_the_index_wraps_is_that_of_the_reference(home_count: int) -> None:
    for seed in seeds(8):
        check_walk(random_script(seed, WRAPPING), Setup(home_count=home_count))


@pytest.mark.parametrize("capacity", [8, 64, 200])
def test_memory_while_order_ids_collide_in_the_index_is_that_of_the_reference(
    capacity: int,
) -> None:
    crowd = replace(WRAPPING, capacities=(capacity,), instruments=1, largest_gap=100_000)
    for seed in seeds(12):
        check_walk(random_script(seed, crowd), Setup(home_count=16))


def test_memory_of_orders_whose_ids_agree_in_all_low_bits_is_that_of_the_reference() -> None:
    """Whatever part of an order_id the index keeps or hashes, it must tell these apart."""
    for bits in (16, 24, 32, 39):
        far_apart = replace(
            WRAPPING,
            first_sequence=7,
            smallest_gap=1 << bits,
            largest_gap=1 << bits,
            instruments=1,
        )
        for seed in seeds(6):
            check_walk(random_script(seed, far_apart), Setup(home_count=64))


def test_memory_of_several_shards_is_that_of_the_reference() -> None:
    for seed in seeds(8):
        check_walk(random_script(seed, replace(SMALL, shards=2)))


def test_large_ladders_at_the_end_of_a_stream_are_those_of_the_reference() -> None:
    profile = Profile(ladders=(262_145, 1 << 20), capacities=(100,), instruments=2)
    for seed in seeds(12):
        script = random_script(seed, profile)
        reference, venue = script.venue(), Venue(script)
        for command in script.commands:
            reference.apply(command)
        list(venue.run(script.commands))
        check_shard(venue.shards[0], reference, 0)


def test_used_up_shard_remembers_of_a_refused_listing_that_its_id_is_used() -> None:
    script = Script(
        [Memory(orders=3, levels=30, words=4)],
        False,
        [
            Listing(sequence=1, instrument_id=1, ladder_ticks=10, order_capacity=3),
            Listing(sequence=2, instrument_id=2, ladder_ticks=2, order_capacity=1),
            NewOrder(sequence=3, instrument_id=2, price=1, qty=1, side=1),
        ],
    )
    venue, reference = Venue(script), script.venue()
    apply_one(venue, script.commands[0])
    before = [array.copy() for array in venue.shards[0]]
    apply_one(venue, script.commands[1])
    refused = venue.shards[0].books[2]
    assert refused["definition"] == 2
    refused["definition"] = 0
    for array, now in zip(before[2:], venue.shards[0][2:], strict=True):
        assert (array == now).all()
    refused["definition"] = 2
    apply_one(venue, script.commands[2])
    for command in script.commands:
        reference.apply(command)
    check_shard(venue.shards[0], reference, 0)


# --- the hash ----------------------------------------------------------------------------------


def hashes(script: Script, setup: Setup = USUAL) -> dict[int, int]:
    """Run a script and return the hash of each listed instrument's book."""
    reference, venue = script.venue(), Venue(script, setup)
    for command in script.commands:
        reference.apply(command)
    list(venue.run(script.commands))
    return {
        number: int(book_hash(venue.shards[book.listing.shard], number))
        for number, book in reference.books.items()
    }


def test_hash_of_a_book_does_not_depend_on_memory() -> None:
    layouts = [
        Setup(),
        Setup(home_count=16, event_capacity=16),
        Setup(home_count=1 << 12, spare_orders=500, command_capacity=8),
    ]
    for seed in seeds(30):
        script = random_script(seed)
        found = [hashes(script, setup) for setup in layouts]
        assert found[0] == found[1] == found[2], f"seed {seed}"


def test_hash_differs_for_all_books_that_differ() -> None:
    """Every state of many streams: one hash a book, one book a hash."""
    book_of: dict[int, object] = {}
    hash_of: dict[object, int] = {}
    for seed in seeds(20):
        script = random_script(seed, Profile(ladders=(4, 100), instruments=1, commands=150))
        reference, venue = script.venue(), Venue(script)
        for command in script.commands:
            reference.apply(command)
            apply_one(venue, command)
            state = canonical(reference.books[1])
            found = int(book_hash(venue.shards[0], 1))
            where = f"seed {seed}, sequence {command.sequence}"
            assert hash_of.setdefault(state, found) == found, where
            assert book_of.setdefault(found, state) == state, where
    assert len(book_of) > 100


def canonical(book: Book) -> object:
    """Return all that a trader could tell of a book, and the lots that a replace counts from."""
    return tuple(
        (side, price, tuple((o.order_id, o.account_id, o.leaves, o.total) for o in queue))
        for side in (Side.BUY, Side.SELL)
        for price, queue in book.levels(side)
    )


LISTING = Listing(sequence=1, instrument_id=1, ladder_ticks=100, order_capacity=10)
FIRST = NewOrder(sequence=10, instrument_id=1, account_id=1, price=50, qty=5, side=Side.BUY)
SECOND = NewOrder(sequence=11, instrument_id=1, account_id=1, price=50, qty=5, side=Side.BUY)


def hash_after(*commands: Command, listing: Listing = LISTING) -> int:
    """Return the hash of instrument 1 after a listing and these commands."""
    memory = Memory(orders=40, levels=1000, words=20)
    return hashes(Script([memory], False, [listing, *commands]))[1]


def test_hash_of_an_empty_book_is_zero() -> None:
    assert hash_after() == 0
    cancel = OrderChange(
        kind=CommandKind.CANCEL_ORDER, sequence=12, instrument_id=1, account_id=1, order_id=10
    )
    assert hash_after(FIRST, cancel) == 0


@pytest.mark.parametrize(
    "other",
    [
        replace(SECOND, qty=6),
        replace(SECOND, price=51),
        replace(SECOND, account_id=2),
        replace(SECOND, side=Side.SELL, price=51),
        replace(SECOND, sequence=12),
    ],
    ids=["one lot", "price", "account", "side", "order_id"],
)
def test_hash_differs_with_every_attribute_of_an_order(other: NewOrder) -> None:
    assert hash_after(FIRST, other) != hash_after(FIRST, SECOND)


def test_hash_differs_with_the_order_of_a_queue() -> None:
    grown = OrderChange(
        kind=CommandKind.REPLACE_ORDER,
        sequence=12,
        instrument_id=1,
        account_id=1,
        order_id=10,
        price=50,
        qty=5,
    )
    overtaken = hash_after(replace(FIRST, qty=4), SECOND, grown)
    assert overtaken != hash_after(FIRST, SECOND)


def test_hash_is_the_same_on_another_way_to_the_same_book() -> None:
    """Other slots, another ladder, another capacity, orders that came and went in between."""
    passer = NewOrder(sequence=9, instrument_id=1, account_id=3, price=50, qty=1, side=Side.BUY)
    gone = OrderChange(
        kind=CommandKind.CANCEL_ORDER, sequence=12, instrument_id=1, account_id=3, order_id=9
    )
    wider = replace(LISTING, ladder_ticks=300, order_capacity=25)
    way_round = hash_after(passer, FIRST, SECOND, gone, listing=wider)
    assert way_round == hash_after(FIRST, SECOND) != 0
