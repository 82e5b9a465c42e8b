"""Commands and events as plain frozen values: what the reference book reads and writes.

One class for each shape the matcher treats in its own way; everything else it can only echo, so
`Other` keeps the rest of its bytes as they are. Bytes are the business of `codec`.
"""

from __future__ import annotations

from dataclasses import dataclass

NO_ID = bytes(36)


@dataclass(frozen=True)
class Origin:
    """Slot B of a command: where it came from."""

    client_order_id: bytes = NO_ID
    session_id: int = 0
    ingress_id: int = 0
    incarnation: int = 0
    maker_rate: int = 0
    taker_rate: int = 0


@dataclass(frozen=True, kw_only=True)
class Command:
    """What all commands share. `flags` is without TWO_SLOTS, which follows from the shape."""

    kind: int
    sequence: int
    sequenced_ns: int = 0
    flags: int = 0
    instrument_id: int = 0
    account_id: int = 0


@dataclass(frozen=True, kw_only=True)
class Judged(Command):
    """A command that the gate has judged."""

    settled_lag: int = 0
    exec_flags: int = 0
    reject_reason: int = 0


@dataclass(frozen=True, kw_only=True)
class NewOrder(Judged):
    """NEW_ORDER."""

    kind: int = 1
    price: int
    qty: int
    side: int
    order_type: int = 1
    time_in_force: int = 1
    stp_mode: int = 0
    trade_group: int = 0
    origin: Origin = Origin()


@dataclass(frozen=True, kw_only=True)
class OrderChange(Judged):
    """CANCEL_ORDER, REPLACE_ORDER, REDUCE_ORDER, ORDER_REFERENCE."""

    order_id: int
    price: int = 0
    qty: int = 0
    origin: Origin = Origin()


@dataclass(frozen=True, kw_only=True)
class Listing(Judged):
    """INSTRUMENT_DEFINE."""

    kind: int = 14
    tick_lot_value: int = 1
    ladder_ticks: int
    order_capacity: int
    base_asset: int = 0
    quote_asset: int = 0
    shard: int = 0
    price_decimals: int = 0
    qty_decimals: int = 0
    symbol: bytes = bytes(16)
    tick_size: int = 1
    lot_size: int = 1
    allowed_types: int = 0
    allowed_tifs: int = 0
    ingress_id: int = 0
    incarnation: int = 0
    session_id: int = 0


@dataclass(frozen=True, kw_only=True)
class StatusReport(Command):
    """ORDER_STATUS: a question, and after the gate its answer."""

    kind: int = 6
    cum_qty: int = 0
    leaves_qty: int = 0
    order_id: int = 0
    order_status: int = 0
    exec_flags: int = 0
    reject_reason: int = 0
    origin: Origin = Origin()


@dataclass(frozen=True, kw_only=True)
class MassCancel(Command):
    """MASS_CANCEL, MASS_CANCEL_SLICE (without origin), MASS_CANCEL_DONE."""

    kind: int = 7
    parent_sequence: int = 0
    first_order_id: int = 0
    last_order_id: int = 0
    session_id: int = 0
    side: int = 0
    cause: int = 0
    reject_reason: int = 0
    origin: Origin | None = None


@dataclass(frozen=True, kw_only=True)
class Other(Command):
    """Any other kind, existing or not: 32 bytes after the header, and slot B's 56, if any."""

    body: bytes = bytes(32)
    second: bytes | None = None


@dataclass(frozen=True)
class Party:
    """Slot B of an event that answers one party."""

    client_order_id: bytes
    session_id: int
    command_kind: int
    order_type: int
    time_in_force: int
    stp_mode: int
    exec_flags: int
    reject_reason: int
    account_id: int
    maker_rate: int
    taker_rate: int


@dataclass(frozen=True)
class Fills:
    """Slot B of a trade."""

    resting_order_id: int
    aggressor_order_id: int
    resting_leaves_qty: int
    aggressor_leaves_qty: int
    resting_account_id: int
    aggressor_account_id: int
    resting_display_qty: int
    liquidity: int
    stp_mode: int
    reserved: bytes


@dataclass(frozen=True, kw_only=True)
class OrderState:
    """Slot B of an event about an order that is not its command's sender's (flag STATE)."""

    order_id: int
    cum_qty: int
    leaves_qty: int = 0
    cum_value: int = 0
    full_qty: int
    account_id: int
    session_id: int = 0
    exec_flags: int = 0
    reject_reason: int = 0
    order_status: int
    command_kind: int
    order_type: int
    time_in_force: int


@dataclass(frozen=True, kw_only=True)
class Event:
    """An event, every field of both its slots."""

    kind: int
    flags: int
    instrument_id: int
    index: int
    sequence: int
    sequenced_ns: int
    feed_sequence: int
    order_id: int
    price: int
    qty: int
    second: Party | Fills | OrderState | None


@dataclass(frozen=True)
class Echo:
    """A command that touched no book, given back: its kind with ECHO, its flags with LAST."""

    command: Command
