"""Rings of the smallest size, every role in one thread, in any order: everything ends all the same.

A poll that waited for a peer would hang here. What comes out must not show how small the rings
were: the log that the small venue wrote, played again through large rings, yields the same events.
The same log through one shard or four gives each instrument the same events.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace

import pytest

from hftcore.messages import CommandKind, EventKind
from ipc.ring import MIN_CAPACITY
from tests.engine.rig import ALL, Rig
from tests.engine.test_reporter import ATTACH, session
from tests.engine.traffic import Traffic, listings_of
from tests.matching.compare import examples, seeds
from tests.reference.book import Venue
from tests.reference.codec import KIND, decode_command, encode_command
from tests.reference.records import Command, Listing, MassCancel, NewOrder, Origin

INSTRUMENTS = 4


def small_venue(shards: int, capacity: int, orders: int) -> Rig:
    """Return a venue all of whose rings have so many slots."""
    return Rig(
        listings_of(INSTRUMENTS, shards, orders),
        gateways=3, shards=shards, capacity=capacity, event_capacity=capacity, reporter=True,
        report_capacity=capacity, open_orders=3000, dup_window=100, interval_ns=10**9,
    )  # fmt: skip


def roles_of(rig: Rig, random_: random.Random) -> list[Callable[[], int]]:
    """Return everybody who can be given a turn."""
    budgets = (1, 2, ALL)
    matchers = [
        lambda number=number: rig.match(number, random_.choice(budgets))
        for number in range(len(rig.shards))
    ]
    return [
        lambda: rig.sequence(random_.choice(budgets)),
        lambda: rig.report(random_.choice(budgets)),
        rig.look,
        *matchers,
    ]


def drive(rig: Rig, random_: random.Random, sends: list[tuple[int, Command]]) -> None:
    """Send everything, with the roles' turns in random order, until nothing is left to do."""
    roles = roles_of(rig, random_)
    waiting = list(sends)
    idle = 0
    for _ in range(2_000_000):
        if waiting and rig.send(*waiting[0]):
            waiting.pop(0)
            idle = 0
        if random_.random() < 0.05:
            rig.state["clock_ns"] += random_.choice((1, 10**9))
            idle = 0
        done = random_.choice(roles)()
        idle = 0 if done else idle + 1
        if idle > 100 and not waiting:
            rig.settle()
            return
    raise AssertionError(f"{len(waiting)} commands could not be sent")


def played_again(rig: Rig, shards: int, orders: int) -> Rig:
    """Play the log that a venue wrote through one with large rings and so many shards."""
    again = Rig(
        listings_of(INSTRUMENTS, shards, orders), shards=shards, capacity=256, event_capacity=4096
    )
    again.state["as_logged"] = 1
    for logged in rig.log:
        record = logged.record
        if record[KIND] == CommandKind.INSTRUMENT_DEFINE:
            listing = decode_command(record)
            assert isinstance(listing, Listing)
            record = encode_command(replace(listing, shard=(listing.instrument_id - 1) % shards))
        again.play(0, record)
    return again


def by_instrument(rig: Rig) -> dict[int, list[bytes]]:
    """Return the events of each instrument, the echoes of listings apart: those name the shard."""
    found: dict[int, list[bytes]] = {}
    for record in rig.answer_records():
        if record[KIND] != CommandKind.INSTRUMENT_DEFINE | 0x80:
            found.setdefault(int.from_bytes(record[10:12], "little"), []).append(record)
    return found


def check_again(rig: Rig, shards: int, orders: int) -> None:
    """Compare a venue's events with those of its log through large rings, and other shards."""
    same = played_again(rig, shards, orders)
    assert same.answer_records() == rig.answer_records()
    for other in {1, 4} - {shards}:
        again = played_again(rig, other, orders)
        assert by_instrument(again) == by_instrument(rig), f"{shards} shards and {other}"


@pytest.mark.parametrize("capacity", [MIN_CAPACITY, 16])
@pytest.mark.parametrize("shards", [1, 4])
def test_sweeps_and_mass_cancels_of_hundreds_pass_through_the_smallest_rings(
    shards: int, capacity: int
) -> None:
    for seed in seeds(examples(2)):
        random_ = random.Random(seed)
        rig = small_venue(shards, capacity, 400)
        resting = [
            NewOrder(
                sequence=0, instrument_id=number, account_id=1 + i % 2, price=50 + i % 7, qty=1,
                side=2, origin=Origin(session_id=1 + i % 2),
            )
            for i in range(300)
            for number in (1, 3)
        ]  # fmt: skip
        sweep = NewOrder(
            sequence=0, instrument_id=1, account_id=3, price=60, qty=280, side=1, origin=Origin()
        )
        cancel = MassCancel(sequence=0, account_id=1, origin=Origin(ingress_id=1))
        sends: list[tuple[int, Command]] = [
            (0, listing) for listing in listings_of(INSTRUMENTS, shards, 400)
        ]
        drive(rig, random_, sends)
        sends = [(1, session(ATTACH, 1)), (2, session(ATTACH, 2))]
        drive(rig, random_, sends)
        drive(rig, random_, [(random_.choice((1, 2)), command) for command in resting])
        sends = [(1, sweep), (2, cancel), (1, replace(cancel, account_id=2, session_id=2))]
        drive(rig, random_, sends)
        kinds = [record[KIND] for record in rig.answer_records()]
        assert kinds.count(EventKind.TRADE) == 280
        assert kinds.count(EventKind.CANCELED) == 600 - 280
        check_again(rig, shards, 400)


@pytest.mark.parametrize("shards", [1, 4])
def test_random_traffic_through_the_smallest_rings_ends_and_gives_the_same_events(
    shards: int,
) -> None:
    for seed in seeds(examples(6)):
        random_ = random.Random(seed)
        rig = small_venue(shards, MIN_CAPACITY, 20)
        drive(rig, random_, [(0, listing) for listing in listings_of(INSTRUMENTS, shards, 20)])
        traffic, aim = Traffic(seed, INSTRUMENTS), Venue([])
        sends = [(random_.choice((1, 2)), traffic.command(aim)) for _ in range(300)]
        try:
            drive(rig, random_, sends)
            check_again(rig, shards, 20)
        except AssertionError as error:
            raise AssertionError(f"seed {seed}, {shards} shards: {error}") from error
