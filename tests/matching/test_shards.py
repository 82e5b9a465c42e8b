"""Several shards on one command ring: each command is answered by exactly one of them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hftcore.messages import RejectReason
from tests.matching.compare import expected_events, matched_events, seeds, sequence_of
from tests.reference.book import Memory
from tests.reference.codec import decode_event
from tests.reference.records import Command, Event, Listing, NewOrder, Party
from tests.reference.streams import Profile, Script, random_script

MEMORIES = [Memory(orders=10, levels=400, words=16), Memory(orders=10, levels=400, words=16)]


def reasons(*commands: Command) -> list[int | None]:
    """Return, for each command, why it was refused by its one answer; 0: not refused."""
    numbered = [replace(command, sequence=i + 1) for i, command in enumerate(commands)]
    script = Script(MEMORIES, False, numbered)
    answers: dict[int, list[int]] = {}
    for _, record in matched_events(script):
        event = decode_event(record)
        party = event.second if isinstance(event, Event) else None
        reason = party.reject_reason if isinstance(party, Party) else 0
        answers.setdefault(sequence_of(record), []).append(reason)
    assert all(len(answer) == 1 for answer in answers.values()), "two shards answered"
    return [answers.get(command.sequence, [None])[0] for command in numbered]


def test_one_shard_or_three_give_each_instrument_the_same_events() -> None:
    for seed in seeds(15):
        script = random_script(seed, Profile(shards=3, instruments=4))
        together = Memory(
            *(sum(sizes) for sizes in zip(*map(_sizes, script.memories), strict=True))
        )
        single = [
            replace(command, shard=0) if isinstance(command, Listing) else command
            for command in script.commands
        ]
        one = matched_events(replace(script, memories=[together], commands=single))
        three = matched_events(script)
        assert without_listings(one) == without_listings(three), f"seed {seed}"


def _sizes(memory: Memory) -> tuple[int, int, int]:
    return memory.orders, memory.levels, memory.words


def without_listings(events: list[tuple[int, bytes]]) -> list[bytes]:
    """Return the events but the echoes of listings, which name the shard."""
    return [record for _, record in events if record[8] != 14 | 0x80]


@pytest.mark.parametrize("shard", [0, 1])
def test_orders_behind_a_listing_that_its_shard_refused_are_answered(shard: int) -> None:
    """The reference: whatever is not listed is refused, by shard 0."""
    greedy = Listing(sequence=0, instrument_id=1, ladder_ticks=50, order_capacity=11, shard=shard)
    order = NewOrder(sequence=0, instrument_id=1, account_id=1, price=5, qty=1, side=1)
    assert reasons(greedy, order) == [RejectReason.CAPACITY, RejectReason.UNKNOWN_INSTRUMENT]


def test_id_that_one_shard_refused_is_used_up_on_every_shard() -> None:
    full = Listing(sequence=0, instrument_id=1, ladder_ticks=50, order_capacity=10, shard=1)
    greedy = Listing(sequence=0, instrument_id=2, ladder_ticks=50, order_capacity=10, shard=1)
    order = NewOrder(sequence=0, instrument_id=2, account_id=1, price=5, qty=1, side=1)
    assert reasons(full, greedy, replace(greedy, shard=0), order) == [
        0,
        RejectReason.CAPACITY,
        RejectReason.BAD_REFERENCE,
        RejectReason.UNKNOWN_INSTRUMENT,
    ]


def test_second_listing_is_refused_whichever_shard_it_names() -> None:
    first = Listing(sequence=0, instrument_id=1, ladder_ticks=50, order_capacity=5, shard=1)
    order = NewOrder(sequence=0, instrument_id=1, account_id=1, price=5, qty=1, side=1)
    assert reasons(first, replace(first, shard=0), first, order) == [
        0,
        RejectReason.BAD_REFERENCE,
        RejectReason.BAD_REFERENCE,
        0,
    ]


def test_listing_for_a_shard_that_does_not_exist_is_refused() -> None:
    stray = Listing(sequence=0, instrument_id=1, ladder_ticks=50, order_capacity=5, shard=9)
    assert reasons(stray) == [RejectReason.BAD_REFERENCE]


def test_expected_and_matched_events_of_shards_are_equal() -> None:
    for seed in seeds(15):
        script = random_script(seed, Profile(shards=2, capacities=(3,), commands=150))
        assert matched_events(script) == expected_events(script), f"seed {seed}"
