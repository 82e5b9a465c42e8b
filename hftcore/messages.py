"""Every layout that crosses a process, a disk or a socket: enums, reject reasons, records.

A ring slot is 64 bytes, a record is one or two slots. Word 0 of each slot belongs to the ring and
is outside every hash. Word 1 is the header: kind, flags (bit 7: two slots), instrument and, in a
command, the account, in an event, its index. Little-endian, every byte named, 0 is "not set" for
every id and code. Prices are whole ticks, quantities whole lots, money whole minor units.

Two streams. **Commands** (gateway -> sequencer -> matcher, journal): slot A says what to do and
what the gate decided, slot B (ORIGIN) where it came from and at which fee rates. Matching decides
by slot A (a MARKET_BUDGET order alone also by slot B's taker_rate); the rest of B is copied
through. A command of a gateway names its ingress; one that the sequencer itself writes (a phase
change by schedule) has one slot, if its kind allows it. **Events** (matcher -> reporter, publisher,
ledger, history): slot A is the same for every event and holds only what the public may see, slot B
what only the parties may see, so a feed is cut from slot A alone. `ACCEPTED` introduces an order
with everything that identifies it; later events name it by order_id, so the frequent ones (a
cancel, a price move) are one slot.

Slot A never reveals hidden lots. The `ACCEPTED` of an order with display_qty has its total, so it
is not public; its public add is `BOOKED` with the displayed lots under a public reference. Slot B
of every later event of it is FILLS or, told by the flag STATE, ORDER_STATE: private order_id and
leaves. A client_order_id of the command's own then follows in a `STATUS`, which is never public.

An event's identity, and the exec_id on every protocol, is (sequence, index). The last event of a
command carries the LAST flag, or a WATERMARK follows: readers advance their positions there only.
A command that touches no book is echoed: the same bytes with ECHO added to the kind.

Rejected: one layout for all kinds with unions by order type (56 bytes do not hold them); accounts
in slot A (a feed would have to blank them). What most orders lack travels in a linked command
before the order: ORDER_TERMS, or ORDER_REFERENCE with the client_order_id of the order meant. It
names no ingress; the pair counts once, by the linked order's ORIGIN.

Readers, `hft dump` and the documentation derive from the tables at the end; a ring's region has
`stream_layout` as its layout, so that programs of two versions never meet on one.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from enum import IntEnum, IntFlag
from typing import Any, Literal

import numpy as np

FORMAT_VERSION = 1
SLOT_BYTES = 64
MAX_SEQUENCE = (1 << 48) - 1
CLIENT_ORDER_ID_BYTES = 36
ECHO = 0x80


class Side(IntEnum):
    """FIX tag 54."""

    BUY = 1
    SELL = 2


class OrderType(IntEnum):
    """FIX tag 40, widened."""

    LIMIT = 1
    MARKET = 2
    MARKET_BUDGET = 3
    STOP = 4
    STOP_LIMIT = 5
    TAKE_PROFIT = 6
    TAKE_PROFIT_LIMIT = 7
    TRAILING_STOP = 8
    TRAILING_STOP_LIMIT = 9
    ICEBERG = 10
    PEGGED = 11


class TimeInForce(IntEnum):
    """FIX tag 59, widened."""

    GTC = 1
    IOC = 2
    FOK = 3
    DAY = 4
    GTD = 5
    AT_OPEN = 6
    AT_CLOSE = 7


class StpMode(IntEnum):
    """Self-trade prevention: whose remainder goes when both sides are one owner's."""

    UNSET = 0
    NONE = 1
    CANCEL_NEWEST = 2
    CANCEL_OLDEST = 3
    CANCEL_BOTH = 4
    DECREMENT = 5


class PegKind(IntEnum):
    """What a pegged order follows."""

    UNSET = 0
    PRIMARY = 1
    MARKET = 2
    MID = 3


class Phase(IntEnum):
    """Trading phase of an instrument (FIX tag 340, widened)."""

    UNSET = 0
    OPEN = 1
    CLOSED = 2
    PRE_OPEN = 3
    CLOSING_AUCTION = 4
    REOPENING_AUCTION = 5
    HALT = 6
    PAUSE = 7
    DELISTED = 8


class Liquidity(IntEnum):
    """How a fill came about (FIX tag 851)."""

    UNSET = 0
    MAKER = 1
    TAKER = 2
    AUCTION = 3


class ExecType(IntEnum):
    """FIX tag 150: what a gateway's execution report carries; no record here has it."""

    NEW = 1
    TRADE = 2
    CANCELED = 3
    REPLACED = 4
    REJECTED = 5
    EXPIRED = 6
    RESTATED = 7
    TRIGGERED = 8
    STATUS = 9
    TRADE_CANCEL = 10


class OrderStatus(IntEnum):
    """FIX tag 39."""

    NEW = 1
    PARTIALLY_FILLED = 2
    FILLED = 3
    CANCELED = 4
    REJECTED = 5
    EXPIRED = 6
    PENDING = 7


class CommandKind(IntEnum):
    """What a command asks for. Its record is in COMMANDS."""

    PAD = 0
    NEW_ORDER = 1
    CANCEL_ORDER = 2
    REPLACE_ORDER = 3
    REDUCE_ORDER = 4
    ORDER_TERMS = 5
    ORDER_STATUS = 6
    MASS_CANCEL = 7
    MASS_CANCEL_SLICE = 8
    MASS_CANCEL_DONE = 9
    EXPIRE_SLICE = 10
    PHASE_CHANGE = 11
    BAND_CHANGE = 12
    SCHEDULE_ENTRY = 13
    INSTRUMENT_DEFINE = 14
    INSTRUMENT_RULES = 15
    TRADE_BUST = 16
    TIME = 17
    EPOCH = 18
    CHECKPOINT = 19
    EVENT_HASH = 20
    SESSION_ATTACH = 21
    SESSION_DETACH = 22
    SESSION_TIMER = 23
    GATEWAY_DOWN = 24
    ACCOUNT_OPEN = 25
    ACCOUNT_LIMITS = 26
    ACCOUNT_FEES = 27
    KILL_SWITCH = 28
    DEPOSIT = 29
    WITHDRAWAL_HOLD = 30
    WITHDRAWAL_SETTLE = 31
    WITHDRAWAL_VOID = 32
    TRANSFER = 33
    MINT = 34
    BURN = 35
    ORDER_REFERENCE = 36
    ASSET_DEFINE = 37


class EventKind(IntEnum):
    """What happened. Its record is in EVENTS; 128 and above echo CommandKind."""

    PAD = 0
    ACCEPTED = 1
    REJECTED = 2
    BOOKED = 3
    TRADE = 4
    CANCELED = 5
    EXPIRED = 6
    REPLACED = 7
    RESTATED = 8
    TRIGGERED = 9
    REFRESHED = 10
    PREVENTED_MATCH = 11
    STATUS = 12
    AUCTION_INDICATION = 13
    PHASE_CHANGED = 14
    TRADE_BUSTED = 15
    WATERMARK = 16


class Flags(IntFlag):
    """Second byte of the header, commands and events alike."""

    SELL = 1 << 0
    """Event: the order's side is sell (in a TRADE: the aggressor's)."""
    LAST = 1 << 1
    """Event: the last one of its command."""
    RESTS = 1 << 2
    """Event: the order is on the book from here on, at the tail of its level."""
    KEPT_PRIORITY = 1 << 3
    """Event: the order stays where it is in its queue."""
    LINKED = 1 << 4
    """Command: belongs together with the next one; kept or truncated whole."""
    STATE = 1 << 5
    """Event: slot B is ORDER_STATE."""
    ANSWER = 1 << 6
    """Report: the command that caused the event came in through this gateway."""
    TWO_SLOTS = 1 << 7
    """A second slot follows."""


class ExecFlags(IntFlag):
    """Instructions with an order (FIX tag 18 and others)."""

    POST_ONLY = 1 << 0
    REPLAY_ADD = 1 << 1
    """Rests without matching, as the recording says it did. Refused outside a replay."""
    HAS_TERMS = 1 << 2
    """An ORDER_TERMS command precedes this order."""
    BY_CLIENT_ORDER_ID = 1 << 3
    """A client_order_id names the order meant; order_id is stamped by the gate. It is the one in
    ORIGIN, or with HAS_CLIENT_ORDER_ID the one in the ORDER_REFERENCE that precedes."""
    HAS_CLIENT_ORDER_ID = 1 << 4
    """A cancel or replace brings a client_order_id of its own, in ORIGIN."""
    DUPLICATE = 1 << 5
    """A status report that answers a repeated order."""
    KNOWN_ORDER = 1 << 6
    """The gate knows the order as this account's: if it is not on the book, that is too late."""


class RejectReason(IntEnum):
    """Why a command was refused; one reason, by the precedence of SEMANTICS.md."""

    NONE = 0
    # the gate, in its order
    UNKNOWN_INSTRUMENT = 1
    DUPLICATE_CLIENT_ORDER_ID = 2
    PROFILE = 3
    BAD_PRICE = 4
    BAD_QTY = 5
    NOTIONAL = 6
    STATIC_BAND = 7
    ORDER_QTY_LIMIT = 8
    NOTIONAL_LIMIT = 9
    OPEN_ORDERS_LIMIT = 10
    POSITION_LIMIT = 11
    PRICE_COLLAR = 12
    KILL_SWITCH = 13
    UNKNOWN_ACCOUNT = 14
    INSUFFICIENT_FUNDS = 15
    # the matcher, in its order
    PHASE = 20
    DYNAMIC_BAND = 21
    WOULD_TRIGGER = 22
    WOULD_TRADE = 23
    FILL_OR_KILL = 24
    CAPACITY = 25
    # cancel, replace, reduce
    UNKNOWN_ORDER = 30
    TOO_LATE = 31
    NO_CANCEL_PERIOD = 32
    LINKED_LEG = 33
    # everything else
    BAD_SIDE = 40
    BAD_ORDER_TYPE = 41
    BAD_TIME_IN_FORCE = 42
    UNKNOWN_KIND = 43
    BAD_REFERENCE = 44
    ALREADY_BUSTED = 45
    OVERFLOW = 46


@dataclass(frozen=True)
class Field:
    """One field of a record: name, numpy format, and what a reader must know about it."""

    name: str
    format: str
    meaning: str


def layout(*fields: Field) -> np.dtype[Any]:
    """Build the dtype of a slot and refuse one that is not exactly 64 named, aligned bytes."""
    dtype = np.dtype([(field.name, field.format) for field in fields])
    assert dtype.itemsize == SLOT_BYTES, (dtype.itemsize, dtype)
    for field in fields:
        base, offset = dtype.fields[field.name][:2]  # type: ignore[index]
        assert offset % base.base.itemsize == 0, field
    MEANINGS[dtype] = {field.name: field.meaning for field in fields}
    return dtype


MEANINGS: dict[np.dtype[Any], dict[str, str]] = {}
"""Meaning of each field by dtype, for `hft dump --explain` and the documentation."""

_RING = Field("ring_word", "<i8", "position + 1 once published; the ring's, outside hashes")
_COMMAND = (
    _RING,
    Field("kind", "u1", "CommandKind; sender"),
    Field("flags", "u1", "Flags; sender"),
    Field("instrument_id", "<u2", "0: none; sender"),
    Field("account_id", "<u4", "0: the venue; sender"),
    Field("sequence", "<i8", "place in the log, below 2^48; sequencer"),
    Field("sequenced_ns", "<i8", "UTC nanoseconds, never decreases; sequencer"),
)
_JUDGED = (
    Field("settled_lag", "<u4", "sequence - settled_sequence when it was judged; gate"),
    Field("exec_flags", "<u2", "ExecFlags; sender"),
    Field("reject_reason", "<u2", "RejectReason, 0: accepted; gate"),
)
_PRICE = Field("price", "<i8", "ticks; limit, or cap of an order without limit; sender or gate")
_QTY = Field("qty", "<i8", "lots, total (REDUCE_ORDER: lots to take off); sender")

NEW_ORDER = layout(
    *_COMMAND,
    _PRICE,
    Field("qty", "<i8", "lots (MARKET_BUDGET: minor units of the quote asset); sender"),
    Field("side", "u1", "Side; sender"),
    Field("order_type", "u1", "OrderType; sender"),
    Field("time_in_force", "u1", "TimeInForce; sender"),
    Field("stp_mode", "u1", "StpMode; sender"),
    Field("trade_group", "<u4", "scope of self-trade prevention, 0: the account; gate"),
    *_JUDGED,
)
ORDER_CHANGE = layout(
    *_COMMAND,
    _PRICE,
    _QTY,
    Field("order_id", "<i8", "sequence of the order's NEW_ORDER; sender or gate"),
    *_JUDGED,
)
ORIGIN = layout(
    _RING,
    Field("client_order_id", "(36,)u1", "up to 36 bytes, zero-filled, unique per account; client"),
    Field("session_id", "<u4", "0: the venue itself; gateway"),
    Field("ingress_id", "<i8", "gateway << 48 | sequence in its ingress ring; gateway"),
    Field("incarnation", "<u4", "start count of the gateway; gateway"),
    Field("maker_rate", "<i2", "millionths of the notional, negative: rebate; gate"),
    Field("taker_rate", "<i2", "millionths of the notional; gate"),
)
ORDER_TERMS = layout(
    *_COMMAND,
    Field("trigger_price", "<i8", "ticks; stop, take-profit or activation price; sender"),
    Field("display_qty", "<i8", "lots shown at a time, 0: all; sender"),
    Field("expire_ns", "<i8", "UTC nanoseconds, GTD; sender"),
    Field("peg_offset", "<i4", "signed ticks from the peg's reference; sender"),
    Field("trail_bps", "<u2", "basis points behind the best price since activation; sender"),
    Field("peg_kind", "u1", "PegKind; sender"),
    Field("contingency", "u1", "1: one cancels the other, with the next order; sender"),
)
ORDER_STATUS = layout(
    *_COMMAND,
    Field("cum_qty", "<i8", "lots filled, as settled; gate"),
    Field("leaves_qty", "<i8", "lots left, as settled, hidden ones included; gate"),
    Field("order_id", "<i8", "sequence of the order's NEW_ORDER; sender or gate"),
    Field("order_status", "u1", "OrderStatus, PENDING: not settled yet; gate"),
    Field("reserved", "(3,)u1", "zero"),
    Field("exec_flags", "<u2", "ExecFlags; sender, DUPLICATE: gate"),
    Field("reject_reason", "<u2", "RejectReason, 0: accepted; gate"),
)
MASS_CANCEL = layout(
    *_COMMAND,
    Field("parent_sequence", "<i8", "of the command that was expanded, 0: this one; sequencer"),
    Field("first_order_id", "<i8", "lowest order_id of this slice; sequencer"),
    Field("last_order_id", "<i8", "highest order_id of this slice; DONE: orders canceled"),
    Field("session_id", "<u4", "only this session's orders, 0: any; sender"),
    Field("side", "u1", "Side, 0: both; sender"),
    Field("cause", "u1", "CommandKind of the parent; sequencer"),
    Field("reject_reason", "<u2", "RejectReason, 0: accepted; gate"),
)
EXPIRE_SLICE = layout(
    *_COMMAND,
    Field("due_ns", "<i8", "UTC nanoseconds: orders that expire then or before; sequencer"),
    Field("first_order_id", "<i8", "lowest order_id of this slice; sequencer"),
    Field("last_order_id", "<i8", "highest order_id of this slice; sequencer"),
    Field("parent_lag", "<u4", "sequence - sequence of the TIME or PHASE_CHANGE; sequencer"),
    Field("time_in_force", "u1", "TimeInForce that expires, 0: any; sequencer"),
    Field("reserved", "(3,)u1", "zero"),
)
PHASE_CHANGE = layout(
    *_COMMAND,
    Field("reference_price", "<i8", "ticks, 0: unchanged; sequencer"),
    Field("until_ns", "<i8", "UTC nanoseconds of the planned end, 0: open; sequencer"),
    Field("extension", "<i8", "which extension of a call this is, 0: none; sequencer"),
    Field("phase", "u1", "Phase; sequencer"),
    Field("no_cancel", "u1", "1: no-cancel period of a call; sequencer"),
    Field("cause", "<u2", "CommandKind, 0: schedule; sequencer"),
    Field("collar_ticks", "<u4", "widest move of an uncross, 0: none; sequencer"),
)
BAND_CHANGE = layout(
    *_COMMAND,
    Field("reference_price", "<i8", "ticks, of the day; sequencer"),
    Field("dynamic_ticks", "<i8", "widest move of one aggressor, 0: none; sequencer"),
    Field("static_low_bps", "<u4", "below the reference; sequencer"),
    Field("static_high_bps", "<u4", "above the reference; sequencer"),
    Field("max_slippage_ticks", "<i8", "of a market order's protection price; sequencer"),
)
SCHEDULE_ENTRY = layout(
    *_COMMAND,
    Field("at_ns", "<i8", "nanoseconds since midnight UTC; operator"),
    Field("random_ns", "<i8", "width of a random end, 0: none; operator"),
    Field("entry", "<u4", "number of the entry; operator"),
    Field("weekdays", "u1", "bit 0: Monday; operator"),
    Field("phase", "u1", "Phase; operator"),
    Field("no_cancel", "u1", "1: no-cancel period; operator"),
    Field("reserved", "(9,)u1", "zero"),
)
INSTRUMENT_DEFINE = layout(
    *_COMMAND,
    Field("tick_lot_value", "<i8", "minor units of the quote asset per tick and lot; operator"),
    Field("ladder_ticks", "<u4", "prices are 1 to ladder_ticks - 1; operator"),
    Field("order_capacity", "<u4", "resting orders at most; operator"),
    Field("base_asset", "<u2", "asset id; operator"),
    Field("quote_asset", "<u2", "asset id; operator"),
    Field("shard", "<u2", "that matches it; operator"),
    Field("price_decimals", "u1", "digits after the point of a price; operator"),
    Field("qty_decimals", "u1", "digits after the point of a quantity; operator"),
    *_JUDGED,
)
SYMBOL = layout(
    _RING,
    Field("symbol", "(16,)u1", "ASCII, zero-filled; operator"),
    Field("tick_size", "<i8", "in 10^-price_decimals of the quote asset; operator"),
    Field("lot_size", "<i8", "in 10^-qty_decimals of the base asset; operator"),
    Field("allowed_types", "<u4", "bit OrderType: allowed; operator"),
    Field("allowed_tifs", "<u4", "bit TimeInForce: allowed; operator"),
    Field("ingress_id", "<i8", "gateway << 48 | sequence in its ingress ring, 0: none; gateway"),
    Field("incarnation", "<u4", "start count of the gateway; gateway"),
    Field("session_id", "<u4", "0: the venue itself; gateway"),
)
ASSET_DEFINE = layout(
    *_COMMAND,
    Field("code", "(16,)u1", "ASCII, zero-filled; operator"),
    Field("asset_id", "<u2", "operator"),
    Field("decimals", "u1", "digits of the minor unit after the point; operator"),
    Field("reserved", "(5,)u1", "zero"),
    *_JUDGED,
)
INSTRUMENT_RULES = layout(
    *_COMMAND,
    Field("min_qty", "<i8", "lots; operator"),
    Field("max_qty", "<i8", "lots; operator"),
    Field("min_notional", "<i8", "minor units of the quote asset; operator"),
    Field("max_notional", "<i8", "minor units of the quote asset; operator"),
)
TRADE_BUST = layout(
    *_COMMAND,
    Field("price", "<i8", "ticks, of the trade; gate"),
    Field("qty", "<i8", "lots of the trade; gate"),
    Field("busted_feed_sequence", "<i8", "of the trade: its public reference; gate"),
    *_JUDGED,
)
BUST = layout(
    _RING,
    Field("busted_sequence", "<i8", "of the trade; operator"),
    Field("resting_order_id", "<i8", "gate"),
    Field("aggressor_order_id", "<i8", "gate"),
    Field("ingress_id", "<i8", "gateway << 48 | sequence in its ingress ring, 0: none; gateway"),
    Field("incarnation", "<u4", "start count of the gateway; gateway"),
    Field("session_id", "<u4", "of the operator; gateway"),
    Field("resting_account_id", "<u4", "gate"),
    Field("aggressor_account_id", "<u4", "gate"),
    Field("busted_index", "<u4", "of the trade; operator"),
    Field("side", "u1", "Side of the aggressor; gate"),
    Field("liquidity", "u1", "Liquidity of the aggressor; gate"),
    Field("reserved", "(2,)u1", "zero"),
)
VENUE_STATE = layout(
    *_COMMAND,
    Field("epoch", "<i8", "of the venue; sequencer"),
    Field("segment", "<i8", "journal segment that ends (CHECKPOINT); sequencer"),
    Field("due_ns", "<i8", "UTC nanoseconds that fell due (TIME); sequencer"),
    Field("start_id", "<i8", "of this start of the venue (EPOCH); sequencer"),
)
EVENT_HASH = layout(
    *_COMMAND,
    Field("event_hash", "<i8", "sum of the hashes of the instrument's events; reporter"),
    Field("event_count", "<i8", "events hashed; reporter"),
    Field("from_sequence", "<i8", "first command hashed; reporter"),
    Field("to_sequence", "<i8", "last command hashed; reporter"),
)
SESSION = layout(
    *_COMMAND,
    Field("due_ns", "<i8", "UTC nanoseconds of the dead man's timer, 0: off; gateway"),
    Field("session_id", "<u4", "gateway"),
    Field("incarnation", "<u4", "start count of the gateway; gateway"),
    Field("gateway_id", "<u2", "gateway"),
    Field("cancel_on_disconnect", "u1", "1: yes; gateway"),
    Field("graceful", "u1", "1: a logout (SESSION_DETACH); gateway"),
    Field("grace_ms", "<u4", "before cancel-on-disconnect acts; gateway"),
    Field("ingress_id", "<i8", "gateway << 48 | sequence in its ingress ring; gateway"),
)
ACCOUNT_RULE = layout(
    *_COMMAND,
    Field("max_order_qty", "<i8", "lots, 0: no limit; operator"),
    Field("max_notional", "<i8", "minor units, 0: no limit; operator"),
    Field("max_position", "<i8", "lots, 0: no limit; operator"),
    Field("max_open_orders", "<u4", "0: no limit; operator"),
    Field("collar_bps", "<u2", "of a price from the reference, 0: none; operator"),
    Field("reject_reason", "<u2", "RejectReason, 0: accepted; gate"),
)
ACCOUNT_STATE = layout(
    *_COMMAND,
    Field("trade_group", "<u4", "scope of self-trade prevention; operator"),
    Field("maker_rate", "<i2", "millionths of the notional (ACCOUNT_FEES); operator"),
    Field("taker_rate", "<i2", "millionths of the notional (ACCOUNT_FEES); operator"),
    Field("blocked", "u1", "1: kill switch on (KILL_SWITCH); operator"),
    Field("tier", "u1", "fee tier (ACCOUNT_FEES); operator"),
    Field("reserved", "(20,)u1", "zero"),
    Field("reject_reason", "<u2", "RejectReason, 0: accepted; gate"),
)
POSTING = layout(
    *_COMMAND,
    Field("amount", "<i8", "minor units of the asset; sender"),
    Field("pending_sequence", "<i8", "of the WITHDRAWAL_HOLD meant; sender"),
    Field("counter_account_id", "<u4", "the other side; sender or gate"),
    Field("asset_id", "<u2", "sender"),
    Field("reserved", "(2,)u1", "zero"),
    *_JUDGED,
)

EVENT = layout(
    _RING,
    Field("kind", "u1", "EventKind; matcher"),
    Field("flags", "u1", "Flags; matcher"),
    Field("instrument_id", "<u2", "matcher"),
    Field("index", "<u4", "of the event within its command, from 0; matcher"),
    Field("sequence", "<i8", "of the command that caused it; from the command"),
    Field("sequenced_ns", "<i8", "UTC nanoseconds; from the command"),
    Field("feed_sequence", "<i8", "gapless per instrument, 0: not public; matcher"),
    Field("order_id", "<i8", "public reference (TRADE: resting's; TRADE_BUSTED: trade's); matcher"),
    Field("price", "<i8", "ticks; matcher"),
    Field(
        "qty",
        "<i8",
        "lots: ACCEPTED, REJECTED total; TRADE, TRADE_BUSTED traded; CANCELED, EXPIRED taken off"
        " the order; BOOKED, REPLACED, RESTATED leaves; hidden ones never but in ACCEPTED; matcher",
    ),
)
PARTY = layout(
    _RING,
    Field("client_order_id", "(36,)u1", "of the command; from the command"),
    Field("session_id", "<u4", "from the command"),
    Field("command_kind", "u1", "CommandKind that this answers; matcher"),
    Field("order_type", "u1", "OrderType, 0: not a new order; from the command"),
    Field("time_in_force", "u1", "TimeInForce, 0: not a new order; from the command"),
    Field("stp_mode", "u1", "StpMode; from the command"),
    Field("exec_flags", "<u2", "ExecFlags; from the command"),
    Field("reject_reason", "<u2", "RejectReason, 0: none; gate or matcher"),
    Field("account_id", "<u4", "from the command"),
    Field("maker_rate", "<i2", "millionths of the notional; from the command"),
    Field("taker_rate", "<i2", "millionths of the notional; from the command"),
)
FILLS = layout(
    _RING,
    Field("resting_order_id", "<i8", "matcher"),
    Field("aggressor_order_id", "<i8", "matcher"),
    Field("resting_leaves_qty", "<i8", "lots, hidden ones included; matcher"),
    Field("aggressor_leaves_qty", "<i8", "lots; matcher"),
    Field("resting_account_id", "<u4", "matcher"),
    Field("aggressor_account_id", "<u4", "matcher"),
    Field("resting_display_qty", "<i8", "lots shown after the trade; matcher"),
    Field("liquidity", "u1", "Liquidity of the aggressor; matcher"),
    Field("stp_mode", "u1", "StpMode applied (PREVENTED_MATCH); matcher"),
    Field("reserved", "(6,)u1", "zero"),
)
ORDER_STATE = layout(
    _RING,
    Field("order_id", "<i8", "private: sequence of the order's NEW_ORDER; matcher"),
    Field("cum_qty", "<i8", "lots filled; matcher"),
    Field("leaves_qty", "<i8", "lots left, hidden ones included, 0 in a final state; matcher"),
    Field("cum_value", "<i8", "ticks x lots of the fills: / cum_qty is the average price; matcher"),
    Field("full_qty", "<i8", "lots: slot A's qty with the hidden ones; matcher"),
    Field("account_id", "<u4", "of the order; matcher"),
    Field("session_id", "<u4", "from the command"),
    Field("exec_flags", "<u2", "ExecFlags of the command; from the command"),
    Field("reject_reason", "<u2", "RejectReason, 0: none; gate or matcher"),
    Field("order_status", "u1", "OrderStatus; matcher"),
    Field("command_kind", "u1", "CommandKind that caused it; matcher"),
    Field("order_type", "u1", "OrderType of the order; matcher"),
    Field("time_in_force", "u1", "TimeInForce of the order; matcher"),
)
AUCTION = layout(
    _RING,
    Field("imbalance_qty", "<i8", "lots left over at the indicative price; matcher"),
    Field("reference_price", "<i8", "ticks; matcher"),
    Field("collar_low", "<i8", "ticks; matcher"),
    Field("collar_high", "<i8", "ticks; matcher"),
    Field("until_ns", "<i8", "UTC nanoseconds of the planned end, 0: open; matcher"),
    Field("market_qty", "<i8", "lots of market orders within their caps; matcher"),
    Field("phase", "u1", "Phase; matcher"),
    Field("imbalance_side", "u1", "Side, 0: none; matcher"),
    Field("extension", "u1", "which extension of the call; matcher"),
    Field("reserved", "(5,)u1", "zero"),
)

FEED_FRAME = layout(
    Field("topic", "(2,)u1", "b'L3' or b'TR', subscribers filter by it; publisher"),
    Field("instrument_id", "<u2", "subscribers filter by it, with the topic; publisher"),
    Field("count", "<u4", "updates that follow, each an EVENT; publisher"),
    Field("epoch", "<i8", "of the venue; publisher"),
    Field("start_id", "<i8", "of this start of the venue; publisher"),
    Field("first_feed_sequence", "<i8", "of the first update; publisher"),
    Field("previous_feed_sequence", "<i8", "of the last update of the frame before; publisher"),
    Field("last_sequence", "<i8", "sequence of the last update's command; publisher"),
    Field("sent_ns", "<i8", "UTC nanoseconds; publisher"),
    Field("reserved", "(8,)u1", "zero"),
)
"""Header of a market data message; its updates are slot A of public events, word 0 zero."""

POSITION_WORDS = 16
SETTLED, RELEASED, REPORTED, PUBLISHED = (number * POSITION_WORDS for number in range(4))
"""Words of the region of positions, a pair of lines each: sequences, each with one writer
(sequencer; journal, or nobody without one; reporter; publisher)."""
POSITIONS_WORDS = 4 * POSITION_WORDS

GATEWAY_WORDS = 32
INCARNATION, INGRESS_SEQUENCE = 0, 1
"""Words of a gateway's cells that its process writes: its start count, its newest command."""
CUT_INCARNATION, CUT_SEQUENCE = 16, 17
"""Words that the reporter writes: which incarnation it cut off, and the first sequence it missed;
the second is written first."""

Layouts = tuple[np.dtype[Any], np.dtype[Any] | None]
Shapes = tuple[Layouts, ...]


def _range(first: CommandKind, last: CommandKind, *shapes: Layouts) -> dict[CommandKind, Shapes]:
    return dict.fromkeys(map(CommandKind, range(first, last + 1)), shapes)


def _both(first: np.dtype[Any]) -> Shapes:
    """Return the shapes of what the sequencer writes (one slot) and a gateway sends (two)."""
    return ((first, None), (first, ORIGIN))


COMMANDS: dict[CommandKind, Shapes] = {
    CommandKind.NEW_ORDER: ((NEW_ORDER, ORIGIN),),
    **_range(CommandKind.CANCEL_ORDER, CommandKind.REDUCE_ORDER, (ORDER_CHANGE, ORIGIN)),
    CommandKind.ORDER_TERMS: ((ORDER_TERMS, None),),
    CommandKind.ORDER_STATUS: ((ORDER_STATUS, ORIGIN),),
    CommandKind.MASS_CANCEL: ((MASS_CANCEL, ORIGIN),),
    CommandKind.MASS_CANCEL_SLICE: ((MASS_CANCEL, None),),
    CommandKind.MASS_CANCEL_DONE: ((MASS_CANCEL, ORIGIN),),
    CommandKind.EXPIRE_SLICE: ((EXPIRE_SLICE, None),),
    CommandKind.PHASE_CHANGE: _both(PHASE_CHANGE),
    CommandKind.BAND_CHANGE: _both(BAND_CHANGE),
    CommandKind.SCHEDULE_ENTRY: _both(SCHEDULE_ENTRY),
    CommandKind.INSTRUMENT_DEFINE: ((INSTRUMENT_DEFINE, SYMBOL),),
    CommandKind.INSTRUMENT_RULES: _both(INSTRUMENT_RULES),
    CommandKind.TRADE_BUST: ((TRADE_BUST, BUST),),
    **_range(CommandKind.TIME, CommandKind.CHECKPOINT, (VENUE_STATE, None)),
    CommandKind.EVENT_HASH: ((EVENT_HASH, None),),
    **_range(CommandKind.SESSION_ATTACH, CommandKind.GATEWAY_DOWN, (SESSION, None)),
    CommandKind.ACCOUNT_OPEN: ((ACCOUNT_STATE, ORIGIN),),
    CommandKind.ACCOUNT_LIMITS: ((ACCOUNT_RULE, ORIGIN),),
    **_range(CommandKind.ACCOUNT_FEES, CommandKind.KILL_SWITCH, (ACCOUNT_STATE, ORIGIN)),
    **_range(CommandKind.DEPOSIT, CommandKind.BURN, (POSTING, ORIGIN)),
    CommandKind.ORDER_REFERENCE: ((ORDER_CHANGE, ORIGIN),),  # of the order meant; price, qty 0
    CommandKind.ASSET_DEFINE: _both(ASSET_DEFINE),
}
"""Layouts of each command, one for each number of slots that it comes in."""
EVENTS: dict[EventKind, Shapes] = {
    EventKind.ACCEPTED: ((EVENT, PARTY),),
    EventKind.REJECTED: ((EVENT, PARTY),),
    EventKind.BOOKED: ((EVENT, None), (EVENT, ORDER_STATE)),
    EventKind.TRADE: ((EVENT, FILLS),),
    EventKind.CANCELED: ((EVENT, None), (EVENT, PARTY), (EVENT, ORDER_STATE)),
    EventKind.EXPIRED: ((EVENT, None), (EVENT, ORDER_STATE)),
    EventKind.REPLACED: ((EVENT, None), (EVENT, PARTY), (EVENT, ORDER_STATE)),
    EventKind.RESTATED: ((EVENT, None), (EVENT, ORDER_STATE)),
    EventKind.TRIGGERED: ((EVENT, None),),
    EventKind.REFRESHED: ((EVENT, FILLS),),
    EventKind.PREVENTED_MATCH: ((EVENT, FILLS),),
    EventKind.STATUS: ((EVENT, PARTY), (EVENT, ORDER_STATE)),
    EventKind.AUCTION_INDICATION: ((EVENT, AUCTION),),
    EventKind.PHASE_CHANGED: ((EVENT, AUCTION),),
    EventKind.TRADE_BUSTED: ((EVENT, BUST),),
    EventKind.WATERMARK: ((EVENT, None),),
}
"""Layouts of each event; the number of slots and the flag STATE tell which."""


def stream_layout(stream: Literal["commands", "events"]) -> int:
    """Hash what two programs must agree on to share a stream, for the regions of its rings.

    63 bits over FORMAT_VERSION, the stream's kinds with the names, formats and order of all fields
    (no byte is unnamed), and every enum of this module. Events repeat commands, so those count.
    """
    said: list[Any] = [stream, FORMAT_VERSION, SLOT_BYTES, ECHO]
    for kind, shapes in [*COMMANDS.items(), *(EVENTS.items() if stream == "events" else ())]:
        slots = [None if dtype is None else dtype.descr for pair in shapes for dtype in pair]
        said.append((kind.name, int(kind), slots))
    for name, value in sorted(globals().items()):
        if isinstance(value, type) and issubclass(value, IntEnum | IntFlag):
            said += [(name, member.name, int(member)) for member in value]
    digest = hashlib.blake2b(repr(said).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1
