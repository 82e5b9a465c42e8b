"""How events are written: straight into the slots of the output ring, stamped from the command.

The kernels here know slots and positions but no ring: the role that owns the ring hands them the
slots and how far they may go, and publishes what they filled. Word 0 of a slot is the ring's and is
not touched. Every byte of words 1 to 7 is written, because hashes cover them and the slot holds
what was there a lap ago.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hftcore.messages import (
    ECHO,
    EVENT,
    FILLS,
    INSTRUMENT_DEFINE,
    NEW_ORDER,
    ORDER_CHANGE,
    SLOT_BYTES,
    CommandKind,
    EventKind,
    ExecFlags,
    Flags,
    Liquidity,
    Side,
)
from ipc.intrinsics import pick
from ipc.kernel import kernel

ROOM = 4
"""Free slots that a kernel wants before it starts a command or a fill: a pad, two, and one."""

_WORDS = SLOT_BYTES // 8
_NEW_ORDER = int(CommandKind.NEW_ORDER)
_REDUCE_ORDER = int(CommandKind.REDUCE_ORDER)
_TRADE = int(EventKind.TRADE)
_REJECTED = int(EventKind.REJECTED)
_LAST = int(Flags.LAST)
_TWO_SLOTS = int(Flags.TWO_SLOTS)
_SELL = int(Flags.SELL)
_SELL_SIDE = int(Side.SELL)
_TAKER = int(Liquidity.TAKER)
_HAS_ID = int(ExecFlags.HAS_CLIENT_ORDER_ID)


class Input(NamedTuple):
    """The slots of a command ring, seen through the layouts that the kernels read."""

    words: NDArray[np.int64]
    orders: NDArray[Any]
    changes: NDArray[Any]
    definitions: NDArray[Any]


class Output(NamedTuple):
    """The slots of an event ring, seen through the layouts that the kernels write."""

    words: NDArray[np.int64]
    events: NDArray[Any]
    fills: NDArray[Any]


def input_of(words: NDArray[np.int64]) -> Input:
    """See int64[slots * 8] as commands."""
    return Input(
        words, words.view(NEW_ORDER), words.view(ORDER_CHANGE), words.view(INSTRUMENT_DEFINE)
    )


def output_of(words: NDArray[np.int64]) -> Output:
    """See int64[slots * 8] as events."""
    return Output(words, words.view(EVENT), words.view(FILLS))


@kernel(inline=True)
def place_two(out: Output, position: int) -> int:
    """Return where a two-slot event goes, after a pad when it would wrap (as `ipc.ring.padded`)."""
    mask = len(out.events) - 1
    if position & mask != mask:
        return position
    first = (position & mask) * _WORDS
    for word in range(1, _WORDS):
        out.words[np.uintp(first + word)] = 0
    return position + 1


@kernel(inline=True)
def emit(
    out: Output,
    position: int,
    command: Any,
    kind: int,
    flags: int,
    index: int,
    feed_sequence: int,
    order_id: int,
    price: int,
    qty: int,
) -> None:
    """Write slot A of an event, word by word as EVENT lays it out."""
    words = out.words
    first = (position & (len(out.events) - 1)) * _WORDS
    # kind, flags, instrument_id, index in one store
    words[np.uintp(first + 1)] = (
        kind | (flags << 8) | (np.int64(command["instrument_id"]) << 16) | (index << 32)
    )
    words[np.uintp(first + 2)] = command["sequence"]
    words[np.uintp(first + 3)] = command["sequenced_ns"]
    words[np.uintp(first + 4)] = feed_sequence
    words[np.uintp(first + 5)] = order_id
    words[np.uintp(first + 6)] = price
    words[np.uintp(first + 7)] = qty


@kernel(inline=True)
def emit_party(
    inp: Input, command_slot: int, out: Output, position: int, command: Any, reject_reason: int
) -> None:
    """Write slot B of an event that answers its command: who asked, under which name.

    Word by word, because ORIGIN, NEW_ORDER and PARTY are laid out for it: words 1 to 5 (name and
    session) and the upper half of word 7 (rates) lie at the same place in ORIGIN, the bytes of word
    6 and exec_flags where NEW_ORDER has them. A test compares the outcome field by field.
    """
    words = out.words
    target = (position & (len(out.events) - 1)) * _WORDS
    source = command_slot * _WORDS
    rates = np.int64(0)
    if command["flags"] & _TWO_SLOTS:
        for word in range(1, 6):
            words[np.uintp(target + word)] = inp.words[np.uintp(source + _WORDS + word)]
        rates = inp.words[np.uintp(source + 2 * _WORDS - 1)] & ~np.int64(0xFFFFFFFF)
    else:
        for word in range(1, 6):
            words[np.uintp(target + word)] = 0
    kind = np.int64(command["kind"])
    terms = inp.words[np.uintp(source + 6)] & 0xFFFFFF00
    judged = np.int64(command["exec_flags"]) | (np.int64(reject_reason) << 16)
    words[np.uintp(target + 6)] = pick(kind == _NEW_ORDER, terms, 0) | kind | (judged << 32)
    words[np.uintp(target + 7)] = rates | np.int64(command["account_id"])


@kernel(inline=True)
def emit_answer(
    inp: Input,
    command_slot: int,
    out: Output,
    position: int,
    command: Any,
    kind: int,
    flags: int,
    feed_sequence: int,
    order_id: int,
    price: int,
    qty: int,
) -> int:
    """Write the first event of a cancel, reduce or replace; with PARTY if it brought a name."""
    if command["exec_flags"] & _HAS_ID:
        position = place_two(out, position)
        emit(
            out, position, command, kind, flags | _TWO_SLOTS, 0, feed_sequence, order_id, price, qty
        )
        emit_party(inp, command_slot, out, position + 1, command, 0)
        return position + 2
    emit(out, position, command, kind, flags, 0, feed_sequence, order_id, price, qty)
    return position + 1


@kernel(inline=True)
def emit_trade(
    out: Output,
    position: int,
    command: Any,
    flags: int,
    index: int,
    feed_sequence: int,
    resting: Any,
    price: int,
    qty: int,
    aggressor_id: int,
    aggressor_leaves: int,
    resting_leaves: int,
) -> int:
    """Write a TRADE and its FILLS, word by word; return the position behind them."""
    position = place_two(out, position)
    resting_id = resting["order_id"]
    emit(
        out, position, command, _TRADE, flags | _TWO_SLOTS, index, feed_sequence, resting_id,
        price, qty,
    )  # fmt: skip
    words = out.words
    first = ((position + 1) & (len(out.events) - 1)) * _WORDS
    words[np.uintp(first + 1)] = resting_id
    words[np.uintp(first + 2)] = aggressor_id
    words[np.uintp(first + 3)] = resting_leaves
    words[np.uintp(first + 4)] = aggressor_leaves
    words[np.uintp(first + 5)] = np.int64(resting["account_id"]) | (
        np.int64(command["account_id"]) << 32
    )
    words[np.uintp(first + 6)] = resting_leaves  # all of it is shown
    words[np.uintp(first + 7)] = _TAKER  # liquidity; stp_mode and reserved are 0
    return position + 2


@kernel
def emit_reject(
    inp: Input, command_slot: int, out: Output, position: int, reject_reason: int
) -> int:
    """Refuse a command: REJECTED with the one reason; return the position behind it.

    Of a command that is no order command only the header is known to mean what it means there.
    """
    command = inp.orders[np.uintp(command_slot)]
    position = place_two(out, position)
    flags = _LAST | _TWO_SLOTS
    kind = np.int64(command["kind"])
    if _NEW_ORDER <= kind <= _REDUCE_ORDER:
        order_id = inp.changes[np.uintp(command_slot)]["order_id"]
        if kind == _NEW_ORDER:
            order_id = command["sequence"]
            if command["side"] == _SELL_SIDE:
                flags |= _SELL
        emit(
            out, position, command, _REJECTED, flags, 0, 0, order_id, command["price"],
            command["qty"],
        )  # fmt: skip
        emit_party(inp, command_slot, out, position + 1, command, reject_reason)
        return position + 2
    emit(out, position, command, _REJECTED, flags, 0, 0, 0, 0, 0)
    target = ((position + 1) & (len(out.events) - 1)) * _WORDS
    for word in range(1, 6):
        out.words[np.uintp(target + word)] = 0
    out.words[np.uintp(target + 6)] = kind | (np.int64(reject_reason) << 48)
    out.words[np.uintp(target + 7)] = np.int64(command["account_id"])
    return position + 2


@kernel
def emit_echo(inp: Input, command_slot: int, out: Output, position: int) -> int:
    """Answer a command that touches no book with itself; return the position behind it."""
    command = inp.orders[np.uintp(command_slot)]
    slots = 1
    if command["flags"] & _TWO_SLOTS:
        slots = 2
        position = place_two(out, position)
    target = (position & (len(out.events) - 1)) * _WORDS
    source = command_slot * _WORDS
    for slot in range(slots):
        for word in range(1, _WORDS):
            offset = slot * _WORDS + word
            out.words[np.uintp(target + offset)] = inp.words[np.uintp(source + offset)]
    echo = out.events[np.uintp(position & (len(out.events) - 1))]
    echo["kind"] = command["kind"] | ECHO
    echo["flags"] = command["flags"] | _LAST
    return position + slots
