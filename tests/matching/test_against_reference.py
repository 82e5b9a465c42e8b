"""The compiled matcher against the reference book: every event, every byte but the ring's word.

Each property runs over seeds; a failure prints the seed, the commands that are needed for it and
the first event that differs, field by field. How the rings are cut and drained, and how large the
index is, varies and must not show. The long run: HFT_EXAMPLES=5000 (seeds a property), with
HFT_SEED=... for others than those from 0 on.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings

from hftcore.engine.matcher import FORESEE_FROM, poll
from hftcore.matching.state import SLICING, SWEEPING
from hftcore.messages import (
    MAX_SEQUENCE,
    CommandKind,
    EventKind,
    ExecFlags,
    RejectReason,
    Side,
    TimeInForce,
)
from tests.matching.compare import (
    check_events,
    crowded,
    examples,
    expected_events,
    matched_events,
    seeds,
    without_crowd,
)
from tests.matching.driver import Setup, Venue
from tests.reference.book import Memory
from tests.reference.codec import decode_event, encode_command
from tests.reference.records import (
    Command,
    Event,
    Listing,
    MassCancel,
    NewOrder,
    OrderChange,
    Other,
    Party,
)
from tests.reference.streams import LADDERS, Profile, Script, random_script, scripts

DEEP = Profile(
    ladders=(3, 12, 100, 4097),
    capacities=(300, 1000),
    instruments=2,
    commands=800,
    hostile_percent=2,
    change_percent=25,
    patient_percent=75,
)
WRAPPING = replace(DEEP, first_sequence=1 << 40, change_percent=40)
SHARDED = Profile(instruments=4, shards=3, commands=300)


def test_random_streams_yield_the_events_of_the_reference() -> None:
    for seed in seeds(200):
        check_events(random_script(seed))


def test_deep_books_yield_the_events_of_the_reference() -> None:
    for seed in seeds(60):
        check_events(random_script(seed, DEEP))


def test_hostile_streams_yield_the_events_of_the_reference() -> None:
    profile = Profile(hostile_percent=50, capacities=(20,), commands=200)
    for seed in seeds(100):
        check_events(random_script(seed, profile))


def test_streams_with_refused_listings_and_unknown_kinds_yield_the_events_of_the_reference() -> (
    None
):
    profile = Profile(hostile_percent=20, refusals_beside_orders=True)
    for seed in seeds(50):
        check_events(random_script(seed, profile))


@pytest.mark.parametrize("ladder", LADDERS)
def test_ladder_of_any_size_yields_the_events_of_the_reference(ladder: int) -> None:
    profile = Profile(ladders=(ladder,), instruments=1, capacities=(40,), commands=250)
    for seed in seeds(15):
        check_events(random_script(seed, profile))


def test_recording_refused_without_allow_replay_yields_the_events_of_the_reference() -> None:
    for seed in seeds(40):
        check_events(random_script(seed, Profile(allow_replay=False)))


def test_several_shards_yield_the_events_of_the_reference() -> None:
    for seed in seeds(50):
        check_events(random_script(seed, SHARDED))


@given(script=scripts(Profile(commands=30)))
@settings(
    max_examples=examples(150),
    deadline=None,
    print_blob=True,
    suppress_health_check=list(HealthCheck),
)
def test_streams_of_hypothesis_yield_the_events_of_the_reference(script: Script) -> None:
    check_events(script, small=True)


def test_slices_of_mass_cancels_yield_the_events_of_the_reference() -> None:
    profile = replace(DEEP, slice_percent=100, change_percent=10, commands=400)
    for seed in seeds(30):
        script = random_script(seed, profile)
        assert any(isinstance(command, MassCancel) for command in script.commands)
        check_events(script)
        check_events(script, Setup(command_capacity=8, event_capacity=8, drip=True))


def slice_script(orders: int, shift: int, **fields: int) -> Script:
    """Return a script whose last but one command is a slice that meets so many orders."""
    commands: list[Command] = [Listing(sequence=1, ladder_ticks=100, order_capacity=60)]
    commands += [Other(kind=CommandKind.TIME, sequence=0) for _ in range(shift)]
    first = len(commands) + 1
    commands += [
        NewOrder(
            sequence=0, account_id=1 + i % 2, price=40 + i % 3 + 10 * (i & 1), qty=2, side=1 + i % 2
        )
        for i in range(orders)
    ]
    whole = MassCancel(
        kind=CommandKind.MASS_CANCEL_SLICE,
        sequence=0,
        first_order_id=first,
        last_order_id=len(commands),
        parent_sequence=len(commands),
    )
    commands.append(replace(whole, **fields))
    commands.append(NewOrder(sequence=0, account_id=1, price=1, qty=1, side=Side.BUY))
    numbered = [
        replace(command, sequence=i + 1, instrument_id=0 if isinstance(command, Other) else 1)
        for i, command in enumerate(commands)
    ]
    return Script([Memory(orders=60, levels=200, words=8)], False, numbered)


@pytest.mark.parametrize("event_capacity", [8, 16])
def test_slice_paused_at_every_event_yields_the_same_events(event_capacity: int) -> None:
    orders = 12
    paused_at: set[int] = set()
    setup = Setup(event_capacity=event_capacity, drip=True)
    for shift in range(event_capacity + 1):
        script = slice_script(orders, shift)
        check_events(script, setup)
        paused_at |= pauses(script, setup, SLICING)
    assert paused_at >= set(range(2, orders)), "the slice was not interrupted everywhere"


@pytest.mark.parametrize(
    ("fields", "canceled"),
    [
        ({}, 10),
        ({"account_id": 2}, 5),
        ({"side": Side.SELL}, 5),
        ({"account_id": 1, "side": Side.SELL}, 0),
        ({"first_order_id": 4, "last_order_id": 6}, 3),
        ({"first_order_id": 6, "last_order_id": 4}, 0),
        ({"first_order_id": 0, "last_order_id": 4095}, 10),
        ({"first_order_id": 0, "last_order_id": 4096}, -1),
        ({"first_order_id": -1, "last_order_id": 5}, -1),
        ({"first_order_id": -(2**63)}, -1),
        ({"last_order_id": 2**63 - 1}, -1),
        ({"first_order_id": 2**63 - 9, "last_order_id": 2**63 - 1}, -1),
        ({"first_order_id": 3, "last_order_id": -(2**63)}, -1),
        ({"first_order_id": MAX_SEQUENCE - 4095, "last_order_id": MAX_SEQUENCE}, 0),
    ],
)
def test_slice_cancels_what_it_names_and_is_refused_beyond_its_bounds(
    fields: dict[str, int], canceled: int
) -> None:
    """canceled: how many orders, -1: OVERFLOW."""
    script = slice_script(10, 0, **fields)
    check_events(script)
    decoded = [decode_event(record) for _, record in matched_events(script)]
    answers = [e for e in decoded if isinstance(e, Event) and e.sequence == 12]
    kinds = [event.kind for event in answers]
    if canceled < 0:
        assert kinds == [EventKind.REJECTED]
        assert isinstance(answers[0].second, Party)
        assert answers[0].second.reject_reason == RejectReason.OVERFLOW
    else:
        assert kinds == [EventKind.CANCELED] * canceled + [EventKind.WATERMARK]
        ids = [event.order_id for event in answers[:-1]]
        assert ids == sorted(set(ids))


def test_change_of_an_order_that_the_gate_knows_is_too_late_and_not_unknown() -> None:
    script = sweep_script(1, "filled", 0)
    late = OrderChange(kind=CommandKind.CANCEL_ORDER, sequence=0, account_id=1, order_id=2)
    for kind in (2, 3, 4):
        for flags, reason in (
            (0, RejectReason.UNKNOWN_ORDER),
            (int(ExecFlags.KNOWN_ORDER), RejectReason.TOO_LATE),
        ):
            change = replace(late, kind=kind, sequence=5, instrument_id=1, exec_flags=flags)
            asked = replace(script, commands=[*script.commands, change])
            check_events(asked)
            last = decode_event(matched_events(asked)[-1][1])
            assert isinstance(last, Event)
            assert isinstance(last.second, Party)
            assert last.second.reject_reason == reason


# --- rings: their size and how they are drained must not show ----------------------------------


@pytest.mark.parametrize("event_capacity", [8, 16, 64])
def test_events_taken_one_by_one_from_a_tiny_ring_are_the_same(event_capacity: int) -> None:
    setup = Setup(command_capacity=8, event_capacity=event_capacity, drip=True)
    for seed in seeds(15):
        check_events(random_script(seed, replace(DEEP, commands=300)), setup)
        check_events(random_script(seed), setup)


@pytest.mark.parametrize("event_capacity", [8, 16])
@pytest.mark.parametrize("ending", ["filled", "booked", "expired", "replaced", "replaced booked"])
def test_sweep_paused_at_every_event_yields_the_same_events(
    ending: str, event_capacity: int
) -> None:
    fills = 12
    paused_at: set[int] = set()
    for shift in range(event_capacity + 1):  # where in the ring the sweep begins
        script = sweep_script(fills, ending, shift)
        check_events(script, Setup(event_capacity=event_capacity, drip=True))
        paused_at |= pauses(script, Setup(event_capacity=event_capacity, drip=True))
    # The last fill is paused behind only if something is left to do.
    assert paused_at >= set(range(2, fills)), "the sweep was not interrupted everywhere"


def sweep_script(fills: int, ending: str, shift: int) -> Script:
    """Return a script in which one order trades `fills` times, over three levels."""
    commands: list[Command] = [Listing(sequence=1, ladder_ticks=100, order_capacity=60)]
    commands += [Other(kind=CommandKind.TIME, sequence=0) for _ in range(shift)]
    resting = [
        NewOrder(sequence=0, account_id=1, price=50 + i % 3, qty=2 + i % 2, side=Side.SELL)
        for i in range(fills)
    ]
    lots = sum(order.qty for order in resting)
    more = 0 if ending in ("filled", "replaced") else 5
    commands += resting
    sweeper = NewOrder(sequence=0, account_id=2, price=52, qty=lots + more, side=Side.BUY)
    if ending == "expired":
        sweeper = replace(sweeper, time_in_force=TimeInForce.IOC)
    if "replaced" in ending:
        commands.append(replace(sweeper, price=1, qty=1))
        change = OrderChange(
            kind=CommandKind.REPLACE_ORDER,
            sequence=0,
            account_id=2,
            order_id=len(commands),
            price=52,
            qty=lots + more,
            exec_flags=int(ExecFlags.HAS_CLIENT_ORDER_ID) if shift % 2 else 0,
        )
        commands.append(change)
    else:
        commands.append(sweeper)
    commands.append(NewOrder(sequence=0, account_id=1, price=1, qty=1, side=Side.BUY))
    numbered = [
        replace(command, sequence=i + 1, instrument_id=0 if isinstance(command, Other) else 1)
        for i, command in enumerate(commands)
    ]
    return Script([Memory(orders=60, levels=200, words=8)], False, numbered)


def pauses(script: Script, setup: Setup, stage: int = SWEEPING) -> set[int]:
    """Return the numbers of the events before which the last sweep or slice was interrupted."""
    venue = Venue(script, setup)
    indexes = set()
    for _ in venue.run(script.commands):
        progress = venue.shards[0].progress[0]
        if progress["stage"] == stage:
            indexes.add(int(progress["index"]))
    return indexes


def test_command_without_output_space_waits_and_changes_nothing() -> None:
    script = sweep_script(4, "booked", 0)
    venue = Venue(script, Setup(event_capacity=8))
    for command in script.commands[:4]:
        assert venue.try_write(encode_command(command))
    assert venue.poll(0) == 3, "three events of two slots: no room for a fourth and its pad"
    before = [array.copy() for array in venue.shards[0]]
    assert venue.poll(0) == 0
    after = list(venue.shards[0])
    assert all((x == y).all() for x, y in zip(before, after, strict=True))


def test_poll_does_as_many_commands_as_it_may() -> None:
    script = random_script(1, Profile(commands=50, instruments=1))
    venue = Venue(script)
    for command in script.commands:
        assert venue.try_write(encode_command(command))
    assert [poll(venue.matchers[0], budget) for budget in (1, 0, 3, 1 << 40)] == [1, 0, 3, 47]
    progress = venue.shards[0].progress[0]
    assert venue.shards[0].matched[0] == script.commands[-1].sequence
    assert progress["command_position"] == venue.position == venue.commands.cursor(0)


def test_poll_that_goes_on_with_a_sweep_says_so() -> None:
    script = sweep_script(30, "booked", 0)
    venue = Venue(script, Setup(event_capacity=16))
    list(venue.run(script.commands[:31]))
    for command in script.commands[31:]:
        assert venue.try_write(encode_command(command))
    for _ in range(100):
        before = venue.events[0].position
        done = venue.poll(0)
        assert (done > 0) == (venue.events[0].position > before), "work done, and not counted"
        while venue.take(0):
            pass
    assert venue.done(0) == venue.position


# --- a large shard: it looks ahead in the command ring -------------------------------------------


@pytest.mark.parametrize("command_capacity", [8, 64, 4096])
def test_commands_to_a_large_shard_yield_the_same_events(command_capacity: int) -> None:
    for seed in seeds(4):
        profile = replace(DEEP, first_sequence=1 << 20, commands=300, hostile_percent=30)
        script = random_script(seed, profile)
        large = crowded(script, FORESEE_FROM + 500)
        setup = Setup(command_capacity=command_capacity)
        assert without_crowd(matched_events(large, setup)) == expected_events(script), (
            f"seed {seed}"
        )


# --- index: it must not matter how often it has wrapped -----------------------------------------


@pytest.mark.parametrize("home_count", [16, 64, 1024])
def test_index_that_wraps_while_old_orders_stay_yields_the_same_events(home_count: int) -> None:
    for seed in seeds(15):
        check_events(random_script(seed, WRAPPING), Setup(home_count=home_count))


def test_memory_larger_than_asked_for_yields_the_same_events() -> None:
    for seed in seeds(30):
        check_events(random_script(seed), Setup(home_count=1 << 14, spare_orders=7))
