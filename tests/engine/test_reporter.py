"""The reporter: who hears of what, once each, and what becomes of a gateway that does not read."""

from __future__ import annotations

import random
import struct
from dataclasses import replace

import pytest

from hftcore.engine.reporter import COUNTERS, CUTS
from hftcore.engine.reporter.state import LOST, UNROUTED
from hftcore.limits import MAX_ACCOUNTS
from hftcore.messages import (
    CUT_INCARNATION,
    CUT_SEQUENCE,
    ECHO,
    GATEWAY_WORDS,
    MAX_SEQUENCE,
    RELEASED,
    REPORTED,
    CommandKind,
    EventKind,
    Flags,
)
from ipc.ring import CURSOR_STRIDE, CURSORS
from tests.engine.rig import ALL, Rig
from tests.engine.traffic import Traffic, listings_of
from tests.matching.compare import examples, seeds, sequence_of
from tests.reference.book import Venue
from tests.reference.codec import FLAGS, KIND
from tests.reference.records import MassCancel, NewOrder, Origin, Other, StatusReport

ATTACH, DETACH, DOWN = (
    int(CommandKind[kind]) for kind in ("SESSION_ATTACH", "SESSION_DETACH", "GATEWAY_DOWN")
)
ANSWER = int(Flags.ANSWER)


def session(kind: int, account: int, incarnation: int = 1, gateway: int = 0) -> Other:
    """Return a SESSION command; its gateway_id counts only in a GATEWAY_DOWN."""
    body = struct.pack("<qIIHBBIq", 0, gateway, incarnation, gateway, 0, 0, 0, 1)
    return Other(kind=kind, sequence=0, account_id=account, body=body)


def venue(*attached: tuple[int, int], report_capacity: int = 1024, shards: int = 1) -> Rig:
    """Return a venue of four gateways, with sessions: (gateway, account)."""
    listings = listings_of(2, shards, 200)
    rig = Rig(
        listings, gateways=4, shards=shards, capacity=64, event_capacity=256, reporter=True,
        report_capacity=report_capacity,
    )  # fmt: skip
    rig.play(0, *listings)
    for gateway, account in attached:
        rig.play(gateway, session(ATTACH, account))
    for reader in rig.report_readers:
        reader.take_all()
    return rig


def order(account: int, side: int = 1, **fields: int) -> NewOrder:
    """Return an order of 5 at 50."""
    usual = NewOrder(sequence=0, instrument_id=1, account_id=account, price=50, qty=5, side=side)
    return replace(usual, **fields)  # type: ignore[arg-type]


def heard(rig: Rig, gateway: int) -> list[tuple[int, bool]]:
    """Return (kind, whether it is an answer) of each new report of a gateway."""
    records = rig.report_readers[gateway].take_all()
    return [(record[KIND], bool(record[FLAGS] & ANSWER)) for record in records]


def told(rig: Rig, gateway: int) -> tuple[int, int]:
    """Return a gateway's cells: which incarnation was cut off, and from which sequence on."""
    first = gateway * GATEWAY_WORDS
    cells = rig.reporter.cells
    return int(cells[first + CUT_INCARNATION]), int(cells[first + CUT_SEQUENCE])


def counter(rig: Rig, number: int) -> int:
    """Return one of the reporter's counters."""
    return int(rig.reporter.counters[number * 8])


ACCEPTED, TRADE, CANCELED = int(EventKind.ACCEPTED), int(EventKind.TRADE), int(EventKind.CANCELED)


# --- routes ------------------------------------------------------------------------------------


def test_each_event_goes_once_to_every_gateway_concerned_and_is_an_answer_at_one() -> None:
    rig = venue((1, 1), (2, 1), (2, 2), (3, 3))
    rig.play(1, order(1))
    assert [heard(rig, gateway) for gateway in range(4)] == [
        [],
        [(ACCEPTED, True)],
        [(ACCEPTED, False)],
        [],
    ]
    rig.play(2, order(2, side=2))  # meets account 1's: gateway 2 has sessions of both
    assert heard(rig, 1) == [(TRADE, False)], "of the other's order only what concerns account 1"
    assert heard(rig, 2) == [(ACCEPTED, True), (TRADE, True)]
    assert heard(rig, 3) == heard(rig, 0) == []


def test_gateway_is_answered_also_without_a_session_of_the_account() -> None:
    rig = venue((1, 1), (2, 9))
    rig.play(2, order(7))
    rig.play(2, StatusReport(sequence=0, instrument_id=1, account_id=7, order_id=5))
    assert heard(rig, 2) == [(ACCEPTED, True), (CommandKind.ORDER_STATUS | ECHO, True)]
    assert heard(rig, 1) == []


def test_report_is_the_event_with_nothing_but_the_answer_flag_added() -> None:
    rig = venue((1, 1), (2, 2))
    rig.play(1, order(1, side=2))
    rig.play(2, order(2))
    events = rig.answer_records()[-3:]
    reports = rig.report_readers[1].take_all()
    assert len(reports) == 2
    for report, event in zip(reports, (events[0], events[2]), strict=True):
        answer = ANSWER if event is events[0] else 0
        assert report == event[:FLAGS] + bytes([event[FLAGS] | answer]) + event[FLAGS + 1 :]


def test_account_that_cannot_be_is_not_taken_for_another_by_its_low_bits() -> None:
    rig = venue((1, 5), (2, 9))
    rig.play(2, order(MAX_ACCOUNTS + 5))
    assert heard(rig, 2) == [(EventKind.REJECTED, True)]
    assert heard(rig, 1) == []


def test_forged_ingress_id_of_a_kind_that_is_forbidden_is_answered_to_its_sender() -> None:
    rig = venue((1, 5), (2, 9))
    for kind in (int(CommandKind.TRADE_BUST), 99):
        forged = b"\0" * 40 + struct.pack("<q", (1 << 48) | 3) + b"\0" * 8
        rig.play(2, Other(kind=kind, sequence=0, account_id=9, second=forged))
        assert heard(rig, 2) == [(EventKind.REJECTED, True)]
        assert heard(rig, 1) == []


def test_detached_account_is_heard_of_no_more() -> None:
    rig = venue((1, 1), (1, 2), (2, 1))
    rig.play(1, session(DETACH, 1))
    assert heard(rig, 1) == [(DETACH | ECHO, True)]
    heard(rig, 2)
    rig.play(2, order(1), order(2, price=40))
    assert heard(rig, 1) == [(ACCEPTED, False)], "account 2 is still attached"
    assert heard(rig, 2) == [(ACCEPTED, True)] * 2
    rig.play(1, session(DETACH, 3), session(ATTACH, 1), session(ATTACH, 1))
    assert len(heard(rig, 1)) == 3
    rig.play(2, order(1, price=41))
    assert heard(rig, 1) == [(ACCEPTED, False)], "once, however often it attached"


def test_new_incarnation_begins_without_the_routes_of_the_old_one() -> None:
    rig = venue((1, 1), (1, 2))
    rig.play(1, session(ATTACH, 1, incarnation=2))
    assert heard(rig, 1) == [(ATTACH | ECHO, True)]
    rig.play(2, order(1), order(2))
    assert heard(rig, 1) == [(ACCEPTED, False)]


def test_gateway_down_ends_its_routes_unless_a_successor_has_attached() -> None:
    rig = venue((1, 1), (2, 2))
    rig.play(1, session(ATTACH, 1, incarnation=2))
    heard(rig, 1)
    rig.play(0, session(DOWN, 0, incarnation=1, gateway=1))
    rig.play(2, order(1))
    assert heard(rig, 1) == [(ACCEPTED, False)], "that was about its predecessor"
    rig.play(0, session(DOWN, 0, incarnation=2, gateway=1))
    rig.play(2, order(1))
    assert heard(rig, 1) == []
    assert told(rig, 1) == (0, 0), "it is gone, not cut off"
    rig.play(1, session(ATTACH, 1, incarnation=3))
    rig.play(2, order(1))
    assert heard(rig, 1) == [(ATTACH | ECHO, True), (ACCEPTED, False)]


def test_mass_cancel_is_told_to_each_owner_and_its_end_to_the_one_who_asked() -> None:
    rig = venue((1, 1), (2, 2), (3, 3))
    rig.play(1, order(1), order(1))
    rig.play(2, order(2))
    for gateway in range(4):
        heard(rig, gateway)
    rig.play(0, MassCancel(sequence=0, account_id=0, origin=Origin(ingress_id=5)))
    done = int(CommandKind.MASS_CANCEL_DONE) | ECHO
    assert heard(rig, 0) == [(CommandKind.MASS_CANCEL | ECHO, True), (done, True)]
    assert heard(rig, 1) == [(CANCELED, False)] * 2
    assert heard(rig, 2) == [(CANCELED, False)]
    assert heard(rig, 3) == []


# --- a gateway that does not read --------------------------------------------------------------


def test_full_report_ring_cuts_off_that_gateway_alone() -> None:
    rig = venue((1, 1), (2, 1), (3, 1), report_capacity=64)
    first = int(rig.state["next_sequence"][0])
    kept: list[list[bytes]] = [[], [], [], []]
    for price in range(1, 60):
        rig.play(2, order(1, price=price, qty=price))
        kept[2] += rig.report_readers[2].take_all()
        kept[3] += rig.report_readers[3].take_all()
    everything = [sequence_of(record) for record in kept[3]]
    assert everything == [sequence_of(record) for record in kept[2]]
    assert everything == list(range(first, first + 59))
    incarnation, missed = told(rig, 1)
    assert incarnation == 1
    assert counter(rig, CUTS) == 1
    assert counter(rig, LOST) == everything[-1] - missed
    left = [sequence_of(record) for record in rig.report_readers[1].take_all()]
    assert left == [sequence for sequence in everything if sequence < missed]
    assert told(rig, 2) == told(rig, 3) == (0, 0)
    rig.play(2, order(1))
    assert heard(rig, 1) == [], "room again, but what comes now would hide what is missing"
    rig.play(1, session(ATTACH, 1, incarnation=1))
    assert heard(rig, 1) == [], "this incarnation is over"
    rig.play(1, session(ATTACH, 1, incarnation=2))
    rig.play(2, order(1))
    assert heard(rig, 1) == [(ATTACH | ECHO, True), (ACCEPTED, False)]
    assert told(rig, 1) == (1, missed), "about its predecessor"


@pytest.mark.parametrize("offset", range(8))
def test_cut_sequence_is_the_first_that_is_not_complete(offset: int) -> None:
    """The ring fills up in the middle of a sweep: the command counts as missed."""
    rig = venue((1, 1), (2, 2), report_capacity=32)
    for _ in range(offset):
        rig.play(1, StatusReport(sequence=0, instrument_id=1, account_id=1, order_id=1))
    rig.play(2, *[order(2, qty=1) for _ in range(40)])
    rig.report_readers[2].take_all()
    rig.play(1, order(1, side=2, qty=40))
    sweep = rig.log[-1].record
    assert told(rig, 1) == (1, sequence_of(sweep))
    last = rig.report_readers[1].take_all()[-1]
    assert sequence_of(last) == sequence_of(sweep)
    assert not last[FLAGS] & Flags.LAST


# --- release, order, positions -----------------------------------------------------------------


def test_nothing_is_reported_before_it_is_released() -> None:
    rig = venue((1, 1))
    positions = rig.sequencer.positions
    assert positions[REPORTED] == rig.log[-1].record[16]
    first = int(rig.state["next_sequence"][0])
    positions[RELEASED] = first + 1
    rig.play(1, *[order(1, price=price) for price in range(1, 7)])
    reports = rig.report_readers[1].take_all()
    assert [sequence_of(record) for record in reports] == [first, first + 1]
    assert positions[REPORTED] == first + 1
    positions[RELEASED] = first + 3
    rig.settle()
    assert positions[REPORTED] == first + 3
    assert len(heard(rig, 1)) == 2
    positions[RELEASED] = MAX_SEQUENCE
    rig.settle()
    assert positions[REPORTED] == first + 5
    assert len(heard(rig, 1)) == 2


@pytest.mark.parametrize("shards", [1, 3])
def test_reports_of_random_turns_are_the_events_concerned_in_the_logs_order(shards: int) -> None:
    """Brute force over all events: whoever had a session then, or had asked, has it once."""
    for seed in seeds(examples(8)):
        listings = listings_of(3, shards, 12)
        random_ = random.Random(seed)
        rig = Rig(
            listings, gateways=3, shards=shards, capacity=16, event_capacity=16, reporter=True,
            report_capacity=4096, open_orders=300,
        )  # fmt: skip
        for number, command in enumerate(listings):
            assert rig.send(0, command), number
            rig.settle()
        sessions = {1: {1, 3}, 2: {2, 3}}
        for gateway, accounts in sessions.items():
            rig.play(gateway, *[session(ATTACH, account) for account in sorted(accounts)])
        for reader in rig.report_readers:
            reader.take_all()
        rig.answers.clear()
        traffic, aim = Traffic(seed, 3), Venue([])
        for _ in range(1200):
            action = random_.random()
            if action < 0.4:
                command = traffic.command(aim)
                if command.kind not in (ATTACH, DETACH):
                    rig.send(random_.choice((1, 2)), command)
            elif action < 0.6:
                rig.sequence(random_.choice((1, ALL)))
            elif action < 0.8:
                rig.match(random_.randrange(shards), random_.choice((1, ALL)))
                rig.look()
            else:
                rig.report(random_.choice((1, 2, ALL)))
                check_reported(rig)
        rig.settle()
        check_reports(rig, sessions, seed)


def check_reported(rig: Rig) -> None:
    """REPORTED may not run ahead of what lies in the report rings."""
    rig.look()
    reported = int(rig.sequencer.positions[REPORTED])
    done = int(rig.reporter.counters[0])
    due = [record for record in rig.answer_records() if sequence_of(record) <= reported]
    assert done - (3 + 4) >= len(due), "listings and sessions, and all that is due"


def check_reports(rig: Rig, sessions: dict[int, set[int]], seed: int) -> None:
    """Compare each gateway's reports with a search through all events."""
    commands = {sequence_of(logged.record): logged.record for logged in rig.log}
    nobody = 0
    expected: dict[int, list[bytes]] = {1: [], 2: []}
    for event in rig.answer_records():
        command = commands[sequence_of(event)]
        accounts = {int.from_bytes(command[12:16], "little")}
        if event[KIND] == TRADE:
            accounts |= {int.from_bytes(event[i : i + 4], "little") for i in (104, 108)}
        elif event[FLAGS] & Flags.STATE:
            accounts.add(int.from_bytes(event[112:116], "little"))
        asked = int.from_bytes(command[112:120], "little") >> 48 if len(command) == 128 else 0
        for gateway, theirs in sessions.items():
            if gateway == asked or accounts & theirs:
                flags = event[FLAGS] | (ANSWER if gateway == asked else 0)
                report = event[:FLAGS] + bytes([flags]) + event[FLAGS + 1 :]
                expected[gateway].append(report)
        nobody += asked not in sessions and not any(accounts & s for s in sessions.values())
    for gateway, reports in expected.items():
        assert rig.report_readers[gateway].take_all() == reports, f"seed {seed}"
    assert counter(rig, UNROUTED) == nobody + 3, "the listings, which nobody asked for"
    assert counter(rig, LOST) == 0
    assert len(COUNTERS) == 5
    assert rig.sequencer.positions[REPORTED] == max(commands)


def test_report_ring_is_never_waited_for() -> None:
    """With every client asleep everything else goes on to the end."""
    rig = venue((1, 1), (2, 2), (3, 1), report_capacity=8)
    for _ in range(30):
        rig.play(1, order(1, side=2))
        rig.play(2, order(2))
    assert rig.sequencer.positions[REPORTED] == rig.state["next_sequence"][0] - 1
    assert [told(rig, gateway)[0] for gateway in range(4)] == [0, 1, 1, 1]
    for ring in rig.reports[1:]:
        assert ring.position - int(ring.cells[CURSORS + 0 * CURSOR_STRIDE]) <= 8
