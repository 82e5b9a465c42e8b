"""Who may send what, and what of it is not the sender's to say."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hftcore.messages import (
    Flags,
    RejectReason,
)
from tests.accounts.commands import (
    CLIENT,
    judged,
    last_refusal,
    named,
    order,
    query,
    venue,
)
from tests.reference.codec import decode_command, decode_event, encode_command
from tests.reference.records import (
    Echo,
    MassCancel,
    NewOrder,
    Other,
)


@pytest.mark.parametrize("slots", [1, 2])
def test_kind_that_a_client_may_not_send_is_answered_as_unknown(slots: int) -> None:
    allowed = {1, 2, 3, 4, 6, 7} if slots == 2 else {21, 22}
    rig = venue()
    kinds = [kind for kind in range(1, 256) if kind not in allowed]
    for kind in kinds:
        stray = Other(kind=kind, sequence=0, instrument_id=1, account_id=1, body=b"\x01" * 32)
        if slots == 2:
            stray = replace(stray, second=b"\x01" * 56)
        rig.play(CLIENT, stray)
        assert rig.log[-1].record[8] == 0x7F, kind
        assert last_refusal(rig) == RejectReason.UNKNOWN_KIND
    assert rig.shards[0].books[1]["feed_sequence"] == 0


def test_gateway_is_stamped_whatever_the_client_wrote() -> None:
    rig = venue()
    for kind in range(1, 64):
        for lie in (0, 1, 9, 0xFFFF):
            second = b"\x05" * 46 + lie.to_bytes(2, "little") + b"\x05" * 8
            stray = Other(kind=kind, sequence=0, instrument_id=1, account_id=1, second=second)
            (record,) = rig.play(2, stray)[:1]
            assert record[112:120] == b"\x05" * 6 + (2).to_bytes(2, "little"), kind
    for kind in (21, 22):
        (record,) = rig.play(2, Other(kind=kind, sequence=0, account_id=1, body=b"\x09" * 32))
        assert record[62:64] == (2).to_bytes(2, "little")
        assert record[48:50] == (2).to_bytes(2, "little"), "gateway_id"


def test_flags_that_only_events_have_are_taken_off_a_command() -> None:
    """Else the echo of a query would pass for an answer, or for news of another's order."""
    rig = venue()
    rig.play(CLIENT, order("a"))
    for flag in Flags:
        if flag not in (Flags.TWO_SLOTS, Flags.LINKED):
            asked = judged(rig, query(order_id=3, flags=int(flag)))
            assert asked.flags == 0, flag
            echo = decode_event(rig.answers[-1][1])
            assert isinstance(echo, Echo)
            assert echo.command.flags == Flags.LAST


def test_what_the_gate_stamps_is_not_the_clients_to_say() -> None:
    rig = venue()
    passed = judged(rig, order(reject_reason=9, settled_lag=77, sequence=1000, sequenced_ns=5))
    assert isinstance(passed, NewOrder)
    assert (passed.sequence, passed.sequenced_ns, passed.settled_lag) == (3, 0, 1)
    assert passed.reject_reason == 0
    lies = MassCancel(
        sequence=0, account_id=1, parent_sequence=7, first_order_id=7, last_order_id=7, cause=7,
        reject_reason=7, origin=named(""),
    )  # fmt: skip
    asked = decode_command(rig.play(CLIENT, lies)[0])
    assert isinstance(asked, MassCancel)
    told = asked.parent_sequence, asked.first_order_id, asked.last_order_id, asked.cause
    assert (*told, asked.reject_reason) == (0, 0, 0, 0, 0)


def test_commands_are_copied_byte_by_byte_but_for_the_stamps() -> None:
    rig = venue()
    sent = order("x" * 36, trade_group=2**32 - 1, stp_mode=1)
    sent = replace(sent, origin=replace(sent.origin, maker_rate=-5, taker_rate=7, incarnation=3))
    (record,) = rig.play(CLIENT, sent)
    # fee rates and the trade group are the gate's to stamp, whatever a client writes
    origin = replace(sent.origin, ingress_id=CLIENT << 48, maker_rate=0, taker_rate=0)
    stamped = replace(sent, sequence=3, settled_lag=1, trade_group=0, origin=origin)
    assert record == encode_command(stamped)
