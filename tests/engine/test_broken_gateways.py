"""What a broken or hostile gateway can do with its own ring, and what it can't do to the others."""

from __future__ import annotations

import numpy as np

from hftcore.accounts.names import MAX_NAMES_AN_ORDER
from hftcore.engine.sequencer.ingress import look_ahead, take_chunk
from hftcore.limits import MAX_ACCOUNTS
from hftcore.messages import CommandKind, ExecFlags, Flags, RejectReason
from ipc.ring import CURSORS, POSITION, READERS
from tests.accounts.commands import CLIENT, judged, named, order
from tests.accounts.commands import venue as gate_venue
from tests.engine.test_reporter import ATTACH, DETACH, DOWN, session, venue
from tests.reference.codec import encode_command
from tests.reference.records import NewOrder, OrderChange, Other

TWO_SLOTS = int(Flags.TWO_SLOTS) << 8


def test_command_of_two_slots_that_the_rings_end_cuts_off_is_passed_over() -> None:
    rig = gate_venue()
    writer = rig.clients[CLIENT]
    capacity = writer.ring.capacity
    while writer.position & (capacity - 1) != capacity - 1:
        rig.play(CLIENT, Other(kind=21, sequence=0, account_id=1, body=bytes(24) + b"\x01" * 8))
    logged = len(rig.log)
    cut = encode_command(order("cut off"))[:64]
    assert writer.try_write(cut)  # one slot, that says it has two, in the last place
    rig.settle()
    assert len(rig.log) == logged
    assert judged(rig, order("after it")).reject_reason == 0


def test_command_that_changes_between_two_looks_is_taken_as_it_was_first_seen() -> None:
    """A gateway may write into its ring at any time; what was claimed for it must not change."""
    for lie in (0, 1, 1 | TWO_SLOTS):
        rig = gate_venue()
        for name in ("one", "two", "three"):
            assert rig.send(CLIENT, order(name))
        words = rig.ingress[CLIENT].words
        mask = rig.ingress[CLIENT].capacity - 1
        before = rig.commands.position
        found, slots = look_ahead(rig.sequencer, words, mask, 0, 3)
        assert (found, slots) == (3, 6)
        for slot in (0, 2):
            words[slot * 8 + 1] = lie
        taken, position, _ = take_chunk(
            rig.sequencer, words, mask, 0, CLIENT, found, slots, np.int64(0)
        )
        assert (taken, position) == (3, 6)
        assert rig.commands.position == before + 6
        rig.sequencer.ingress_positions[CLIENT] = position
        rig.settle()
        assert len(rig.log[-3:]) == 3
        assert [logged.record[9] & 0x80 for logged in rig.log[-3:]] == [0x80] * 3


def test_names_of_one_order_are_its_newest_so_that_nobody_uses_up_those_of_all() -> None:
    rig = gate_venue()
    first = judged(rig, order("first"))
    assert isinstance(first, NewOrder)
    for number in range(MAX_NAMES_AN_ORDER):
        change = OrderChange(
            kind=int(CommandKind.REPLACE_ORDER), sequence=0, instrument_id=1, account_id=1,
            order_id=first.sequence, price=10, qty=5 + number,
            exec_flags=int(ExecFlags.HAS_CLIENT_ORDER_ID), origin=named(f"name {number}"),
        )  # fmt: skip
        assert judged(rig, change).reject_reason == 0
    assert rig.gate.known.table["name_count"][0] == MAX_NAMES_AN_ORDER
    other = judged(rig, order("name 5", qty=77))
    assert other.reject_reason == RejectReason.DUPLICATE_CLIENT_ORDER_ID
    assert judged(rig, order("first", qty=77)).reject_reason == 0, "the oldest is free again"


def test_gateway_down_comes_after_all_that_its_ring_held() -> None:
    rig = venue((2, 7))
    # gateway 1 attached and died before the sequencer looked; the venue noticed at once
    assert rig.send(0, session(DOWN, 0, incarnation=1, gateway=1))
    assert rig.send(1, session(ATTACH, 7))
    rig.state["first_ring"] = 0  # the venue's own ring is looked at first
    rig.settle()
    kinds = [logged.record[8] for logged in rig.log[-2:]]
    assert kinds == [ATTACH, DOWN]
    assert rig.reporter.gateways["active"][1] == 0
    assert rig.reporter.routes[7] == 1 << 2


def test_detaching_costs_the_same_however_many_accounts_are_attached() -> None:
    rig = venue((1, 5), (1, 6), (1, 7))
    rig.play(1, session(DETACH, 99))  # never attached
    rig.play(1, session(DETACH, 5))
    gateway = rig.reporter.gateways[1]
    assert gateway["accounts"] == 2
    assert sorted(rig.reporter.attached[MAX_ACCOUNTS : MAX_ACCOUNTS + 2].tolist()) == [6, 7]
    rig.play(1, session(DETACH, 7))
    rig.play(1, session(DETACH, 7))
    assert rig.reporter.attached[MAX_ACCOUNTS] == 6
    assert gateway["accounts"] == 1
    assert (rig.reporter.routes[5], rig.reporter.routes[6], rig.reporter.routes[7]) == (0, 2, 0)


def test_reporter_believes_nothing_that_a_client_writes_into_its_report_ring() -> None:
    rig = venue((1, 5))
    cells = rig.reports[1].cells
    cells[READERS] = 1 << 20
    cells[CURSORS] = 1 << 50  # ahead of everything
    cells[POSITION] = 3
    capacity = rig.reports[1].capacity
    for _ in range(capacity):
        rig.play(1, session(ATTACH, 5))
    assert rig.reporter.gateways["active"][1] == 1
    assert rig.reporter.gateways["position"][1] >= capacity
    cells[CURSORS] = -(1 << 50)  # far behind: it is cut off, no more
    while rig.reporter.gateways["active"][1]:
        rig.play(1, session(ATTACH, 5))
