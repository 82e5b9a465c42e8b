"""What the sequencer writes by itself: the passing of time, and mass cancels cut into slices."""

from __future__ import annotations

import random
import struct
from collections import Counter
from dataclasses import replace

import pytest

from hftcore.engine.sequencer.state import SLICES
from hftcore.limits import MAX_ACCOUNTS, MAX_SLICE_IDS
from hftcore.messages import ECHO, CommandKind, EventKind, RejectReason
from tests.accounts.commands import CLIENT, cancel, order, reason, venue
from tests.engine.rig import ALL, Logged, Rig
from tests.engine.traffic import Traffic, listings_of
from tests.matching.compare import examples, seeds
from tests.reference.book import Venue
from tests.reference.codec import decode_command, decode_event
from tests.reference.records import Echo, Event, MassCancel, NewOrder, OrderState, Origin

SECOND = 10**9
TIME, SLICE, DONE = (
    int(CommandKind[kind]) for kind in ("TIME", "MASS_CANCEL_SLICE", "MASS_CANCEL_DONE")
)


def kinds(logged: list[Logged]) -> list[int]:
    """Return the kinds of some commands of the log."""
    return [one.record[8] for one in logged]


def due(logged: Logged) -> int:
    """Return what fell due with a time command."""
    return int(struct.unpack("<q", logged.record[48:56])[0])


def mass_cancel(**fields: int) -> MassCancel:
    """Return a mass cancel of account 1."""
    usual = MassCancel(sequence=0, account_id=1, origin=Origin(ingress_id=1))
    return replace(usual, **fields)  # type: ignore[arg-type]


# --- time --------------------------------------------------------------------------------------


def test_time_is_written_before_the_first_command_at_or_after_it() -> None:
    rig = venue(interval_ns=SECOND)
    first = len(rig.log)
    for clock in (SECOND - 1, SECOND, SECOND + 1, 2 * SECOND - 1, 2 * SECOND):
        rig.state["clock_ns"] = clock
        assert rig.send(CLIENT, order())
        rig.sequence()
    assert kinds(rig.log[first:]) == [1, TIME, 1, 1, 1, TIME, 1]
    times = [one for one in rig.log[first:] if one.record[8] == TIME]
    assert [due(one) for one in times] == [SECOND, 2 * SECOND]


def test_idle_venue_writes_the_time_alone_and_skips_what_it_slept_through() -> None:
    rig = venue(interval_ns=SECOND)
    first = len(rig.log)
    for clock in (SECOND, SECOND, int(7.5 * SECOND), 8 * SECOND - 1, 8 * SECOND):
        rig.state["clock_ns"] = clock
        rig.settle()
    assert kinds(rig.log[first:]) == [TIME] * 3
    assert [due(one) for one in rig.log[first:]] == [SECOND, 7 * SECOND, 8 * SECOND]


def test_time_never_goes_back_with_the_clock() -> None:
    rig = venue(interval_ns=SECOND)
    for clock in (5 * SECOND, 3 * SECOND, 5 * SECOND + 1, 0, 6 * SECOND):
        rig.state["clock_ns"] = clock
        rig.play(CLIENT, order())
    stamps = [int.from_bytes(one.record[24:32], "little") for one in rig.log]
    assert stamps == sorted(stamps)
    assert stamps[-1] == 6 * SECOND
    dues = [due(one) for one in rig.log if one.record[8] == TIME]
    assert dues == sorted(set(dues))


def test_no_command_comes_before_a_time_that_found_no_room() -> None:
    """The command ring is full when a time falls due."""
    rig = venue(interval_ns=SECOND)
    while rig.sequence(1) or rig.send(CLIENT, order()):
        rig.send(CLIENT, order())
    before = len(rig.log)
    rig.state["clock_ns"] = SECOND
    rig.sequence()
    assert len(rig.log) == before, "there is no room"
    rig.settle()
    assert kinds(rig.log[before:])[0] == TIME


# --- mass cancels ------------------------------------------------------------------------------


def test_mass_cancel_takes_what_it_names_and_counts_it() -> None:
    for fields, expected in (
        ({}, {3, 4, 5, 6}),
        ({"side": 1}, {3, 5}),
        ({"side": 2}, {4, 6}),
        ({"instrument_id": 2}, {5, 6}),
        ({"session_id": 2}, {4, 5}),
        ({"session_id": 2, "side": 1, "instrument_id": 2}, {5}),
        ({"session_id": 9}, set()),
        ({"instrument_id": 77}, set()),
        ({"account_id": 3}, set()),
        ({"account_id": 2}, {7}),
    ):
        rig = venue()
        session = [Origin(session_id=number) for number in (0, 1, 2)]
        rig.play(
            CLIENT,
            order(price=40, origin=session[1]),  # type: ignore[arg-type]
            order(price=60, side=2, origin=session[2]),  # type: ignore[arg-type]
            order(price=40, instrument_id=2, origin=session[2]),  # type: ignore[arg-type]
            order(price=60, instrument_id=2, side=2, origin=session[1]),  # type: ignore[arg-type]
            order(price=40, account_id=2, origin=session[2]),  # type: ignore[arg-type]
        )
        log = [decode_command(record) for record in rig.play(CLIENT, mass_cancel(**fields))]
        done = log[-1]
        assert isinstance(done, MassCancel)
        assert (done.kind, done.last_order_id) == (DONE, len(expected)), fields
        assert done.parent_sequence == 8
        assert set(canceled_orders(rig)) == expected, fields


def canceled_orders(rig: Rig) -> dict[int, OrderState]:
    """Return the orders that slices took off the book."""
    events = map(decode_event, rig.answer_records())
    return {
        event.order_id: event.second
        for event in events
        if isinstance(event, Event)
        and event.kind == EventKind.CANCELED
        and isinstance(event.second, OrderState)
    }


def test_mass_cancel_of_every_account_is_the_venues_alone() -> None:
    rig = venue()
    rig.play(CLIENT, order(), order(account_id=2))
    for account in (0, MAX_ACCOUNTS):
        refused = decode_command(rig.play(CLIENT, mass_cancel(account_id=account))[0])
        assert reason(refused) == RejectReason.UNKNOWN_ACCOUNT
    assert kinds(rig.log).count(SLICE) == 0
    rig.play(0, mass_cancel(account_id=0))
    assert len(canceled_orders(rig)) == 2


def test_mass_cancel_of_a_session_of_every_account_spares_other_sessions() -> None:
    rig = venue()
    for account, session in ((1, 1), (2, 2), (3, 1), (2, 1), (1, 2)):
        rig.play(CLIENT, order(account_id=account, origin=Origin(session_id=session)))  # type: ignore[arg-type]
    rig.play(0, mass_cancel(account_id=0, session_id=1))
    assert sorted(canceled_orders(rig)) == [3, 5, 6]


def test_slices_are_bounded_and_cover_orders_far_apart() -> None:
    rig = venue(open_orders=4 * MAX_SLICE_IDS)
    rig.play(CLIENT, order(price=40))
    filler = order(price=1, time_in_force=2, side=1, account_id=2)
    sent = 0
    while sent < MAX_SLICE_IDS + 10:
        sent += rig.send(CLIENT, filler)
        if sent % 20 == 0:
            rig.turn()
    rig.settle()
    rig.play(CLIENT, order(price=41), order(price=42))
    log = [decode_command(record) for record in rig.play(CLIENT, mass_cancel())]
    ranges = [
        (one.first_order_id, one.last_order_id)
        for one in log
        if isinstance(one, MassCancel) and one.kind == SLICE
    ]
    asked = log[0].sequence
    assert ranges == [(3, 3 + MAX_SLICE_IDS - 1), (asked - 2, asked - 1)]
    assert len(canceled_orders(rig)) == 3


def test_second_mass_cancel_waits_and_other_gateways_do_not() -> None:
    rig = venue()
    rig.play(CLIENT, order(), order(account_id=2))
    first = len(rig.log)
    assert rig.send(1, mass_cancel())
    assert rig.send(1, order(account_id=3))
    rig.sequence()
    assert rig.send(2, order(account_id=3))
    assert rig.send(2, mass_cancel(account_id=2))
    assert rig.send(2, order(account_id=3))
    assert rig.send(1, order(account_id=3, price=7))
    for _ in range(3):
        rig.sequence()
    waiting = kinds(rig.log[first:])
    assert waiting.count(7) == 1, "its slices have not settled"
    assert waiting.count(1) == 3, "gateway 2 waits behind its mass cancel, gateway 1 does not"
    rig.settle()
    seen = [kind for kind in kinds(rig.log[first:]) if kind != 1]
    assert seen == [7, SLICE, DONE, 7, SLICE, DONE]


def test_orders_that_come_and_go_meanwhile_are_neither_missed_nor_taken() -> None:
    rig = venue(capacity=400, open_orders=3000)
    for number in range(300):
        rig.play(CLIENT, order(price=1 + number % 40, side=1))
    assert rig.send(CLIENT, mass_cancel())
    asked = int(rig.state["next_sequence"][0])
    rig.sequence()
    rig.sequence()
    assert rig.counters_of(SLICES) == 1, "300 orders lie within one slice"
    assert rig.send(CLIENT, order())  # behind it
    assert rig.send(CLIENT, cancel(order_id=10))  # too late
    rig.settle()
    taken = canceled_orders(rig)
    assert sorted(taken) == list(range(3, 303))
    assert rig.shards[0].books[1]["order_count"] == 1
    assert asked + 2 not in taken


@pytest.mark.parametrize("shards", [1, 3])
def test_mass_cancels_among_random_traffic_do_what_brute_force_says(shards: int) -> None:
    """By events alone: every order meant ends before DONE, no other order is in a slice."""
    counted: Counter[int] = Counter()
    for seed in seeds(examples(15)):
        try:
            counted += random_mass_cancels(seed, shards)
        except AssertionError as error:
            raise AssertionError(f"seed {seed}, {shards} shards: {error}") from error
    assert counted["mass cancels"] > 50
    assert counted["canceled"] > 50


def random_mass_cancels(seed: int, shards: int) -> Counter[int]:
    """Run one seed; return how much there was to see."""
    random_ = random.Random(seed)
    listings = listings_of(3, shards, 30)
    rig = Rig(
        listings, gateways=3, shards=shards, capacity=16, event_capacity=32, open_orders=500,
        dup_window=20,
    )  # fmt: skip
    rig.play(0, *listings)
    traffic, aim = Traffic(seed, 3, cancels=6), Venue([])
    for _ in range(1500):
        action = random_.random()
        if action < 0.5:
            rig.send(random_.choice((1, 2)), traffic.command(aim))
        elif action < 0.75:
            rig.sequence(random_.choice((1, 4, ALL)))
        else:
            rig.match(random_.randrange(shards), random_.choice((1, ALL)))
            rig.look()
    rig.settle()
    return check_mass_cancels(rig)


def check_mass_cancels(rig: Rig) -> Counter[int]:
    """Compare what each mass cancel did with a search through all events."""
    commands = {c.sequence: c for c in (decode_command(one.record) for one in rig.log)}
    ended: dict[int, int] = {}
    slices: dict[int, set[int]] = {}
    done: dict[int, MassCancel] = {}
    for event in map(decode_event, rig.answer_records()):
        if isinstance(event, Echo):
            if event.command.kind == DONE | ECHO:
                assert isinstance(event.command, MassCancel)
                done[event.command.parent_sequence] = event.command
            continue
        for order_id in ends(event):
            assert order_id not in ended, "an order ends once"
            ended[order_id] = event.sequence
        cause = commands[event.sequence]
        if isinstance(event.second, OrderState):
            assert isinstance(cause, MassCancel)
            slices.setdefault(cause.parent_sequence, set()).add(event.order_id)
    counted: Counter[int] = Counter()
    for sequence, parent in commands.items():
        if not isinstance(parent, MassCancel) or parent.kind != 7 or parent.reject_reason:
            continue
        end = done.pop(sequence)
        taken = slices.get(sequence, set())
        assert end.last_order_id == len(taken), "the count is that of the CANCELED events"
        meant = {o.sequence for o in commands.values() if is_meant(o, parent)}
        assert taken <= meant, "an order that was not meant"
        late = [order for order in meant if ended.get(order, 1 << 62) > end.sequence]
        assert not late, f"{late} outlived the mass cancel {sequence}"
        counted["mass cancels"] += 1  # type: ignore[index]
        counted["canceled"] += len(taken)  # type: ignore[index]
    assert not done, "an end of nothing"
    return counted


def ends(event: Event) -> list[int]:
    """Return the orders that an event ends."""
    second = event.second
    if event.kind == EventKind.TRADE:
        sides = (
            (second.resting_leaves_qty, second.resting_order_id),  # type: ignore[union-attr]
            (second.aggressor_leaves_qty, second.aggressor_order_id),  # type: ignore[union-attr]
        )
        return [order_id for leaves, order_id in sides if leaves == 0]
    new = event.kind == EventKind.REJECTED and second.command_kind == 1  # type: ignore[union-attr]
    gone = new or event.kind in (EventKind.CANCELED, EventKind.EXPIRED)
    return [event.order_id] if gone else []


def is_meant(command: object, parent: MassCancel) -> bool:
    """Return whether a mass cancel means an order."""
    return (
        isinstance(command, NewOrder)
        and command.kind == CommandKind.NEW_ORDER
        and command.sequence < parent.sequence
        and parent.account_id in (0, command.account_id)
        and parent.instrument_id in (0, command.instrument_id)
        and parent.session_id in (0, command.origin.session_id)
        and parent.side in (0, command.side)
    )


def test_log_that_is_played_again_gets_nothing_added() -> None:
    """as_logged: slices, ends and times are in the log already; the events come out the same."""
    rig = venue(interval_ns=SECOND)
    rig.play(CLIENT, order(), order(side=2, qty=2), mass_cancel())
    rig.state["clock_ns"] += 3 * SECOND
    rig.play(CLIENT, order("late"), cancel(order_id=3))
    again = Rig(listings_of(2, capacity=20), interval_ns=SECOND)
    again.state["as_logged"] = 1
    again.play(0, *[one.record for one in rig.log])
    assert [one.record for one in again.log] == [one.record for one in rig.log]
    assert again.answers == rig.answers
