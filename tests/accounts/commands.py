"""Commands for the gate's tests, and what the gate made of them."""

from __future__ import annotations

from dataclasses import replace

from hftcore.messages import CommandKind, EventKind, ExecFlags
from tests.engine.rig import Rig
from tests.engine.traffic import listings_of
from tests.reference.codec import decode_command, decode_event
from tests.reference.records import (
    Command,
    Event,
    MassCancel,
    NewOrder,
    OrderChange,
    Origin,
    Party,
    StatusReport,
)

CLIENT = 1
BRINGS = int(ExecFlags.HAS_CLIENT_ORDER_ID)
MEANS = int(ExecFlags.BY_CLIENT_ORDER_ID)
DUPLICATE = int(ExecFlags.DUPLICATE)


def venue(capacity: int = 20, **settings: int) -> Rig:
    """Return a venue that lists two instruments."""
    listings = listings_of(2, capacity=capacity)
    rig = Rig(listings, gateways=3, **settings)  # type: ignore[arg-type]
    rig.play(0, *listings)
    return rig


def named(name: str, session: int = 1) -> Origin:
    """Return an origin with a client_order_id."""
    return Origin(client_order_id=name.encode().ljust(36, b"\0"), session_id=session)


def order(name: str = "", **fields: int) -> NewOrder:
    """Return a buy of 5 at 50 of account 1."""
    usual = NewOrder(
        sequence=0, instrument_id=1, account_id=1, price=50, qty=5, side=1, origin=named(name)
    )
    return replace(usual, **fields)  # type: ignore[arg-type]


def change(kind: CommandKind, name: str = "", **fields: int) -> OrderChange:
    """Return a change by account 1, to 50 and 5."""
    usual = OrderChange(
        kind=int(kind), sequence=0, instrument_id=1, account_id=1, order_id=0, price=50, qty=5,
        origin=named(name),
    )  # fmt: skip
    return replace(usual, **fields)  # type: ignore[arg-type]


def query(name: str = "", **fields: int) -> StatusReport:
    """Return a question for an order's status."""
    usual = StatusReport(sequence=0, instrument_id=1, account_id=1, origin=named(name))
    return replace(usual, **fields)  # type: ignore[arg-type]


def cancel(name: str = "", **fields: int) -> OrderChange:
    """Return a cancel."""
    return change(CommandKind.CANCEL_ORDER, name, **fields)


def judged(rig: Rig, command: Command, gateway: int = CLIENT) -> Command:
    """Play one command and return it as it went into the log."""
    (record,) = rig.play(gateway, command)
    return decode_command(record)


def reason(command: Command) -> int:
    """Return the gate's verdict."""
    assert isinstance(command, NewOrder | OrderChange | StatusReport | MassCancel)
    return command.reject_reason


def last_refusal(rig: Rig) -> int:
    """Return the reason in the newest event."""
    event = decode_event(rig.answers[-1][1])
    assert isinstance(event, Event)
    assert event.kind == EventKind.REJECTED
    assert isinstance(event.second, Party)
    return event.second.reject_reason
