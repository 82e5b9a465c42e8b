"""The gate: may this order command pass? The first failure decides, in SEMANTICS.md's order.

Instrument, duplicate client_order_id, profile, tick, lot and quantity, notional; limits and funds
find their place behind these. The verdict is written into the command itself, which goes on in
either case: the instrument's shard answers a refusal, so history is complete and reports have one
way. A replay applies the verdicts and judges nothing.

A command is judged where it lies already, in the slots of the command ring. Prices are whole ticks
and quantities whole lots by their layout, so what is left of tick and lot is their range.

Comes after `known_orders`; before the sequencer, which stamps what passes.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hftcore.accounts.known_orders import (
    DEFAULT_WINDOW,
    KnownOrders,
    enter_known,
    find_known,
    foresee_end,
    is_open,
    known_orders_of,
    room_for_name,
)
from hftcore.accounts.names import enter_name, find_name
from hftcore.limits import MAX_ACCOUNTS, MAX_INSTRUMENTS, MAX_QTY
from hftcore.messages import (
    CommandKind,
    ExecFlags,
    Flags,
    OrderStatus,
    OrderType,
    RejectReason,
    StpMode,
    TimeInForce,
)
from ipc.intrinsics import mix64, multiply_add_wrapping
from ipc.kernel import kernel

RULE = np.dtype(
    [
        ("listed", "<i8"),  # UNLISTED, LISTING or LISTED
        ("ladder_ticks", "<i8"),  # prices are 1 to ladder_ticks - 1
        ("min_qty", "<i8"),  # lots
        ("max_qty", "<i8"),  # lots
        ("min_product", "<i8"),  # ticks x lots, 0: none
        ("max_product", "<i8"),  # ticks x lots, 0: none, -1: nothing passes
        ("tick_lot_value", "<i8"),  # minor units of the quote asset
        ("allowed_types", "<u4"),  # bit OrderType
        ("allowed_tifs", "<u4"),  # bit TimeInForce
    ]
)
assert RULE.itemsize == 64
UNLISTED, LISTING, LISTED = 0, 1, 2

_NEW_ORDER = int(CommandKind.NEW_ORDER)
_CANCEL_ORDER = int(CommandKind.CANCEL_ORDER)
_REPLACE_ORDER = int(CommandKind.REPLACE_ORDER)
_REDUCE_ORDER = int(CommandKind.REDUCE_ORDER)
_ORDER_STATUS = int(CommandKind.ORDER_STATUS)
_HAS_NAME = int(ExecFlags.HAS_CLIENT_ORDER_ID)
_BY_NAME = int(ExecFlags.BY_CLIENT_ORDER_ID)
_KNOWN_ORDER = int(ExecFlags.KNOWN_ORDER)
_DUPLICATE = int(ExecFlags.DUPLICATE)
_REPLAY_ADD = int(ExecFlags.REPLAY_ADD)
_TWO_SLOTS = int(Flags.TWO_SLOTS) << 8
_LAST_TYPE = int(max(OrderType))
_LAST_TIF = int(max(TimeInForce))
_LIMIT = int(OrderType.LIMIT)
_GTC = int(TimeInForce.GTC)
_NO_PREVENTION = int(StpMode.NONE)
_PENDING = int(OrderStatus.PENDING)
_NEW = int(OrderStatus.NEW)
_PARTIALLY_FILLED = int(OrderStatus.PARTIALLY_FILLED)
_UNKNOWN_INSTRUMENT = int(RejectReason.UNKNOWN_INSTRUMENT)
_DUPLICATE_NAME = int(RejectReason.DUPLICATE_CLIENT_ORDER_ID)
_PROFILE = int(RejectReason.PROFILE)
_BAD_PRICE = int(RejectReason.BAD_PRICE)
_BAD_QTY = int(RejectReason.BAD_QTY)
_NOTIONAL = int(RejectReason.NOTIONAL)
_UNKNOWN_ACCOUNT = int(RejectReason.UNKNOWN_ACCOUNT)
_UNKNOWN_ORDER = int(RejectReason.UNKNOWN_ORDER)
_BAD_SIDE = int(RejectReason.BAD_SIDE)
_BAD_ORDER_TYPE = int(RejectReason.BAD_ORDER_TYPE)
_BAD_TIME_IN_FORCE = int(RejectReason.BAD_TIME_IN_FORCE)
_CAPACITY = int(RejectReason.CAPACITY)

# Words of an order command, as NEW_ORDER, ORDER_CHANGE and ORDER_STATUS lay them out.
HEAD, PRICE, QTY, DETAIL, JUDGED = 1, 4, 5, 6, 7
_FLAGS_SHIFT, _REASON_SHIFT = 32, 48
"""Where exec_flags and reject_reason lie in the word JUDGED."""

ANSWERED = -1
"""A verdict: the command has become the status report of an order that it repeats."""


class Gate(NamedTuple):
    """What the gate judges by. One writer: the sequencer.

    Attributes
    ----------
    rules : RULE[MAX_INSTRUMENTS]
        By instrument_id.
    known : KnownOrders
    allow_replay : int64[1]
        1: REPLAY_ADD is understood.
    """

    rules: NDArray[Any]
    known: KnownOrders
    allow_replay: NDArray[np.int64]


def gate_of(open_orders: int, window: int = DEFAULT_WINDOW, *, allow_replay: bool = False) -> Gate:
    """Make a gate that knows no instrument yet.

    Parameters
    ----------
    open_orders : int
        Orders that can be open or in flight at once.
    window : int
        Ended orders that are remembered for their client_order_id.
    allow_replay : bool
        Whether recordings may be replayed (REPLAY_ADD).
    """
    return Gate(
        np.zeros(MAX_INSTRUMENTS, RULE),
        known_orders_of(open_orders, window),
        np.array([allow_replay], np.int64),
    )


@kernel(inline=True)
def payload_of(key: Any, words: Any, first: int) -> int:
    """Hash what an order command asks for: 32 bits that its repetition has as well."""
    exec_flags = (words[np.uintp(first + JUDGED)] >> _FLAGS_SHIFT) & 0xFFFF & ~_KNOWN_ORDER
    # kind, instrument and flags; who asks is part of the name
    total = (words[np.uintp(first + HEAD)] & 0xFFFF00FF) | (exec_flags << _FLAGS_SHIFT)
    for word in range(PRICE, JUDGED):
        total = multiply_add_wrapping(words[np.uintp(first + word)], key[word - PRICE], total)
    return mix64(total) & 0xFFFFFFFF


@kernel(inline=True)
def judge(gate: Gate, words: Any, first: int, name: int, settled: int, sequence: int) -> int:
    """Judge an order command where it lies; enter a new order that passes.

    Parameters
    ----------
    words, first : int64[:], int
        The command's slot A begins at word `first`; its order_id, flags or all of it may be
        rewritten.
    name : int
        Hash of the client_order_id in its ORIGIN, 0: none.
    settled, sequence : int
        Up to where events are settled; which sequence the command will have.

    Returns
    -------
    int
        RejectReason, 0 when it passes, or ANSWERED.
    """
    head = words[np.uintp(first + HEAD)]
    kind = head & 0xFF
    instrument = (head >> 16) & 0xFFFF
    account = (head >> 32) & 0xFFFFFFFF
    if instrument >= MAX_INSTRUMENTS:
        return _UNKNOWN_INSTRUMENT
    rule = gate.rules[np.uintp(instrument)]
    if rule["listed"] != LISTED:
        return _UNKNOWN_INSTRUMENT
    if kind == _NEW_ORDER:
        return judge_new(gate, rule, words, first, name, settled, sequence, account)
    return judge_change(gate, rule, words, first, name, settled, sequence, account)


@kernel(inline=True)
def judge_new(
    gate: Gate, rule: Any, words: Any, first: int, name: int, settled: int, sequence: int,
    account: int,
) -> int:  # fmt: skip
    """Judge a NEW_ORDER (see `judge`)."""
    if name != 0:
        found = find_name(gate.known, name, account)
        if found != 0:
            return answer_repetition(gate, words, first, found, settled)
    detail = words[np.uintp(first + DETAIL)]
    side = detail & 0xFF
    order_type = (detail >> 8) & 0xFF
    time_in_force = (detail >> 16) & 0xFF
    if order_type < 1 or order_type > _LAST_TYPE:
        return _BAD_ORDER_TYPE
    if time_in_force < 1 or time_in_force > _LAST_TIF:
        return _BAD_TIME_IN_FORCE
    types, tifs = np.int64(rule["allowed_types"]), np.int64(rule["allowed_tifs"])
    if (types >> order_type) & (tifs >> time_in_force) & 1 == 0:
        return _PROFILE
    exec_flags = (words[np.uintp(first + JUDGED)] >> _FLAGS_SHIFT) & 0xFFFF
    if exec_flags & ~(_REPLAY_ADD | _HAS_NAME) or (detail >> 24) & 0xFF > _NO_PREVENTION:
        return _PROFILE
    if time_in_force == _GTC and order_type != _LIMIT:
        return _BAD_TIME_IN_FORCE
    if exec_flags & _REPLAY_ADD and (time_in_force != _GTC or gate.allow_replay[0] == 0):
        return _PROFILE
    if side < 1 or side > 2:
        return _BAD_SIDE
    price, qty = words[np.uintp(first + PRICE)], words[np.uintp(first + QTY)]
    reason = judge_price_and_qty(rule, price, qty)
    if reason != 0:
        return reason
    if account < 1 or account >= MAX_ACCOUNTS:
        return _UNKNOWN_ACCOUNT
    if name != 0 and not room_for_name(gate.known):
        return _CAPACITY
    head = words[np.uintp(first + HEAD)]
    session = words[np.uintp(first + 8 + 5)] >> 32 & 0xFFFFFFFF if head & _TWO_SLOTS else 0
    instrument = (head >> 16) & 0xFFFF
    slot = enter_known(gate.known, sequence, account, session, instrument, side, qty)
    if name != 0:
        enter_name(
            gate.known, name, account, payload_of(gate.known.key, words, first), slot, sequence
        )
    return 0


@kernel(inline=True)
def judge_price_and_qty(rule: Any, price: int, qty: int) -> int:
    """Judge tick, lot, quantity and notional."""
    if price < 1 or price >= rule["ladder_ticks"]:
        return _BAD_PRICE
    if qty < rule["min_qty"] or qty > rule["max_qty"]:
        return _BAD_QTY
    # divided, because the product may not fit 64 bits
    if rule["max_product"] != 0 and qty > rule["max_product"] // price:
        return _NOTIONAL
    if rule["min_product"] != 0 and qty < -(-rule["min_product"] // price):
        return _NOTIONAL
    return 0


@kernel(inline=True)
def judge_change(
    gate: Gate, rule: Any, words: Any, first: int, name: int, settled: int, sequence: int,
    account: int,
) -> int:  # fmt: skip
    """Judge a cancel, replace or reduce (see `judge`); stamp which order it means."""
    judged = words[np.uintp(first + JUDGED)]
    exec_flags = (judged >> _FLAGS_SHIFT) & 0xFFFF
    kind = words[np.uintp(first + HEAD)] & 0xFF
    if exec_flags & (_HAS_NAME | _BY_NAME):
        reason = judge_named_change(gate, words, first, name, settled, account)
        if reason != 0:
            return reason
    if exec_flags & ~(_HAS_NAME | _BY_NAME | _KNOWN_ORDER):
        return _PROFILE
    if kind == _REPLACE_ORDER:
        price, qty = words[np.uintp(first + PRICE)], words[np.uintp(first + QTY)]
        reason = judge_price_and_qty(rule, price, qty)
        if reason != 0:
            return reason
    elif kind == _REDUCE_ORDER and words[np.uintp(first + QTY)] < 1:
        return _BAD_QTY
    slot = find_known(gate.known, words[np.uintp(first + DETAIL)])
    order = gate.known.orders[np.uintp(slot)]
    exec_flags &= ~_KNOWN_ORDER
    instrument = (words[np.uintp(first + HEAD)] >> 16) & 0xFFFF
    ours = slot != 0 and np.int64(order["account_id"]) == account
    if ours and np.int64(order["instrument_id"]) == instrument:
        exec_flags |= _KNOWN_ORDER
        if kind == _CANCEL_ORDER:
            foresee_end(gate.known, order)
        if exec_flags & _HAS_NAME and name != 0 and is_open(order):
            if not room_for_name(gate.known):
                return _CAPACITY
            enter_name(
                gate.known, name, account, payload_of(gate.known.key, words, first), slot, sequence
            )
    words[np.uintp(first + JUDGED)] = (judged & 0xFFFFFFFF) | (exec_flags << _FLAGS_SHIFT)
    return 0


@kernel
def judge_named_change(
    gate: Gate, words: Any, first: int, name: int, settled: int, account: int
) -> int:
    """Judge the name in a change: one of its own, or that of the order it means."""
    exec_flags = (words[np.uintp(first + JUDGED)] >> _FLAGS_SHIFT) & 0xFFFF
    if exec_flags & _HAS_NAME and exec_flags & _BY_NAME:
        return _PROFILE  # the other name would come in an ORDER_REFERENCE, which is not taken yet
    found = find_name(gate.known, name, account) if name != 0 else np.int64(0)
    if exec_flags & _HAS_NAME:
        if found != 0:
            return answer_repetition(gate, words, first, found, settled)
        return 0
    if found == 0:
        return _UNKNOWN_ORDER
    slot = np.int64(gate.known.names[np.uintp(found)]["slot"])
    words[np.uintp(first + DETAIL)] = gate.known.orders[np.uintp(slot)]["order_id"]
    return 0


@kernel
def answer_repetition(gate: Gate, words: Any, first: int, found: int, settled: int) -> int:
    """Turn a repeated command into a status report of its order; refuse another one."""
    name = gate.known.names[np.uintp(found)]
    if np.int64(name["payload"]) != payload_of(gate.known.key, words, first):
        return _DUPLICATE_NAME
    head = words[np.uintp(first + HEAD)]
    words[np.uintp(first + HEAD)] = (head & ~np.int64(0xFF)) | _ORDER_STATUS
    write_status(gate.known, words, first, np.int64(name["slot"]), settled, _DUPLICATE)
    return ANSWERED


@kernel
def answer_query(gate: Gate, words: Any, first: int, name: int, settled: int) -> int:
    """Answer an ORDER_STATUS that a client asks for; return the verdict."""
    account = (words[np.uintp(first + HEAD)] >> 32) & 0xFFFFFFFF
    exec_flags = (words[np.uintp(first + JUDGED)] >> _FLAGS_SHIFT) & 0xFFFF
    slot = find_known(gate.known, words[np.uintp(first + DETAIL)])
    if exec_flags & _BY_NAME:
        found = find_name(gate.known, name, account) if name != 0 else np.int64(0)
        slot = np.int64(gate.known.names[np.uintp(found)]["slot"]) if found != 0 else np.int64(0)
    if slot == 0 or np.int64(gate.known.orders[np.uintp(slot)]["account_id"]) != account:
        words[np.uintp(first + PRICE)] = 0  # what the gate stamps is not the sender's to say
        words[np.uintp(first + QTY)] = 0
        words[np.uintp(first + JUDGED)] = exec_flags << _FLAGS_SHIFT
        return _UNKNOWN_ORDER
    write_status(gate.known, words, first, slot, settled, exec_flags & _BY_NAME)
    return ANSWERED


@kernel
def write_status(
    known: KnownOrders, words: Any, first: int, slot: int, settled: int, exec_flags: int
) -> None:
    """Stamp an ORDER_STATUS with what is settled of an order, PENDING while nothing is."""
    order = known.orders[np.uintp(slot)]
    status = np.int64(order["order_status"])
    if is_open(order):
        status = _PARTIALLY_FILLED if order["cum_qty"] > 0 else _NEW
        if order["order_id"] > settled:
            status = _PENDING
    words[np.uintp(first + PRICE)] = order["cum_qty"]
    words[np.uintp(first + QTY)] = order["leaves_qty"]
    words[np.uintp(first + DETAIL)] = order["order_id"]
    words[np.uintp(first + JUDGED)] = status | (exec_flags << _FLAGS_SHIFT)


# -- instruments --------------------------------------------------------------------------------


@kernel
def note_definition(gate: Gate, words: Any, first: int) -> None:
    """Remember what an INSTRUMENT_DEFINE allows, until its shard has answered (`note_listing`)."""
    instrument = (words[np.uintp(first + HEAD)] >> 16) & 0xFFFF
    if instrument >= MAX_INSTRUMENTS or gate.rules[np.uintp(instrument)]["listed"] != UNLISTED:
        return
    rule = gate.rules[np.uintp(instrument)]
    rule["listed"] = LISTING
    rule["tick_lot_value"] = words[np.uintp(first + 4)]
    rule["ladder_ticks"] = words[np.uintp(first + 5)] & 0xFFFFFFFF
    rule["min_qty"] = 1
    rule["max_qty"] = MAX_QTY
    allowed = words[np.uintp(first + 8 + 5)]
    rule["allowed_types"] = allowed & 0xFFFFFFFF
    rule["allowed_tifs"] = (allowed >> 32) & 0xFFFFFFFF


@kernel
def note_listing(gate: Gate, instrument: int, listed: bool) -> None:
    """Let orders of an instrument pass from here on, or never: its shard has answered."""
    if instrument < MAX_INSTRUMENTS and gate.rules[np.uintp(instrument)]["listed"] == LISTING:
        gate.rules[np.uintp(instrument)]["listed"] = LISTED if listed else UNLISTED


@kernel
def note_rules(gate: Gate, words: Any, first: int) -> None:
    """Take over INSTRUMENT_RULES: quantities in lots, notionals as ticks x lots; 0: no bound."""
    instrument = (words[np.uintp(first + HEAD)] >> 16) & 0xFFFF
    if instrument >= MAX_INSTRUMENTS or gate.rules[np.uintp(instrument)]["listed"] == UNLISTED:
        return
    rule = gate.rules[np.uintp(instrument)]
    value = max(rule["tick_lot_value"], np.int64(1))
    most = words[np.uintp(first + 5)]
    rule["min_qty"] = max(words[np.uintp(first + 4)], np.int64(1))
    rule["max_qty"] = min(most, np.int64(MAX_QTY)) if most > 0 else np.int64(MAX_QTY)
    rule["min_product"] = -(-max(words[np.uintp(first + 6)], np.int64(0)) // value)
    highest = max(words[np.uintp(first + 7)], np.int64(0))
    product = highest // value
    rule["max_product"] = -1 if product == 0 and highest != 0 else product
