"""Admission: every command of every gateway, judged and stamped where it lies in the command ring.

Order commands go to the gate. Queries are answered from what is known, mass cancels begin their
expansion, session commands are told which gateway they came through, listings are noted. What a
gateway may not send becomes a command that is answered as unknown: refusing it in its own layout
would need a field for the reason in every record.

Comes after `gate` and `expansion`; before the sequencer's ingress.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from hftcore.accounts.expansion import Expansion, begin_expansion
from hftcore.accounts.gate import (
    ANSWERED,
    Gate,
    answer_query,
    judge,
    note_definition,
    note_rules,
)
from hftcore.limits import MAX_ACCOUNTS
from hftcore.messages import CommandKind, Flags, RejectReason, Side
from ipc.kernel import kernel

PASSED, REFUSED, REPEATED, FORBIDDEN = range(4)
"""What `admit` returns; REPEATED: answered from the window of known names."""
FORBIDDEN_KIND = 0x7F
"""Kind that a command gets whose own kind its gateway may not send."""

_WORDS = 8
_TWO_SLOTS = int(Flags.TWO_SLOTS)
_NEW_ORDER = int(CommandKind.NEW_ORDER)
_REDUCE_ORDER = int(CommandKind.REDUCE_ORDER)
_ORDER_STATUS = int(CommandKind.ORDER_STATUS)
_MASS_CANCEL = int(CommandKind.MASS_CANCEL)
_INSTRUMENT_DEFINE = int(CommandKind.INSTRUMENT_DEFINE)
_INSTRUMENT_RULES = int(CommandKind.INSTRUMENT_RULES)
_TRADE_BUST = int(CommandKind.TRADE_BUST)
_SESSION_ATTACH = int(CommandKind.SESSION_ATTACH)
_SESSION_DETACH = int(CommandKind.SESSION_DETACH)
_SELL = int(Side.SELL)
_BAD_SIDE = int(RejectReason.BAD_SIDE)
_UNKNOWN_ACCOUNT = int(RejectReason.UNKNOWN_ACCOUNT)
_FLAGS_OF_EVENTS = (0xFF & ~int(Flags.TWO_SLOTS | Flags.LINKED)) << 8
_GATEWAY_SHIFT, _REASON_SHIFT = 48, 48
_INGRESS_MASK = (1 << _GATEWAY_SHIFT) - 1
VENUE = 0
"""The gateway that may send everything: the venue's own."""


@kernel(inline=True)
def admit(
    gate: Gate, expansion: Expansion, words: Any, first: int, slots: int, gateway: int, name: int,
    settled: int, sequence: int,
) -> int:  # fmt: skip
    """Judge a command and stamp what the gate stamps.

    Parameters
    ----------
    words, first, slots : int64[:], int, int
        Slot A begins at word `first`; slot B, if there are two, 8 words on. Sequence and time are
        stamped already.
    gateway : int
        Whose ingress ring it came through.
    name, settled, sequence : int
        See `gate.judge`.

    Returns
    -------
    int
        PASSED, REFUSED, REPEATED or FORBIDDEN.
    """
    words[np.uintp(first + 1)] &= ~np.int64(_FLAGS_OF_EVENTS)  # an echo would repeat them
    kind = words[np.uintp(first + 1)] & 0xFF
    if kind < _NEW_ORDER or kind > _REDUCE_ORDER:
        return admit_rare(gate, expansion, words, first, slots, gateway, name, settled)
    if slots == 1 and gateway != VENUE:
        return forbid(words, first, gateway)
    if slots == 2:
        stamp_gateway(words, first + _WORDS + 6, gateway)
        words[np.uintp(first + _WORDS + 7)] &= 0xFFFFFFFF  # fee rates, until accounts have them
    if kind == _NEW_ORDER:
        words[np.uintp(first + 6)] &= 0xFFFFFFFF  # trade_group, likewise
    reason = judge(gate, words, first, name, settled, sequence)
    if reason == ANSWERED:
        return REPEATED
    lag = min(sequence - settled, np.int64(0xFFFFFFFF))
    exec_flags = words[np.uintp(first + 7)] & 0xFFFF_0000_0000
    words[np.uintp(first + 7)] = exec_flags | lag | (reason << _REASON_SHIFT)
    return PASSED if reason == 0 else REFUSED


@kernel(inline=True)
def stamp_gateway(words: Any, word: int, gateway: int) -> None:
    """Write the gateway into an ingress_id: which one it is, is not its own to say."""
    words[np.uintp(word)] = (words[np.uintp(word)] & _INGRESS_MASK) | (gateway << _GATEWAY_SHIFT)


@kernel
def admit_rare(
    gate: Gate, expansion: Expansion, words: Any, first: int, slots: int, gateway: int, name: int,
    settled: int,
) -> int:  # fmt: skip
    """Judge and take note of what is no order command (see `admit`)."""
    kind = words[np.uintp(first + 1)] & 0xFF
    account = (words[np.uintp(first + 1)] >> 32) & 0xFFFFFFFF
    if slots == 2 and (kind != _TRADE_BUST or gateway != VENUE):  # a BUST has it elsewhere
        stamp_gateway(words, first + _WORDS + 6, gateway)
    if kind == _ORDER_STATUS and slots == 2:
        reason = answer_query(gate, words, first, name, settled)
        return PASSED if reason == ANSWERED else refuse(words, first, reason)
    if kind == _MASS_CANCEL and slots == 2:
        for word in range(4, 7):
            words[np.uintp(first + word)] = 0  # the sequencer's, as are cause and reject_reason
        words[np.uintp(first + 7)] &= 0xFF_FFFFFFFF
        if account >= MAX_ACCOUNTS or (account == 0 and gateway != VENUE):
            return refuse(words, first, _UNKNOWN_ACCOUNT)
        if (words[np.uintp(first + 7)] >> 32) & 0xFF > _SELL:
            return refuse(words, first, _BAD_SIDE)
        begin_expansion(expansion, gate.known, words, first)
        return PASSED
    if (kind == _SESSION_ATTACH or kind == _SESSION_DETACH) and slots == 1:
        if account >= MAX_ACCOUNTS:
            return forbid(words, first, gateway)
        words[np.uintp(first + 6)] = (words[np.uintp(first + 6)] & ~np.int64(0xFFFF)) | gateway
        stamp_gateway(words, first + 7, gateway)
        return PASSED
    if gateway != VENUE:
        return forbid(words, first, gateway)
    if kind == _INSTRUMENT_DEFINE and slots == 2:
        note_definition(gate, words, first)
    elif kind == _INSTRUMENT_RULES:
        note_rules(gate, words, first)
    return PASSED


@kernel
def refuse(words: Any, first: int, reason: int) -> int:
    """Stamp the reason into a record that has it in its last two bytes."""
    kept = words[np.uintp(first + 7)] & ((1 << _REASON_SHIFT) - 1)
    words[np.uintp(first + 7)] = kept | (reason << _REASON_SHIFT)
    return REFUSED


@kernel
def forbid(words: Any, first: int, gateway: int) -> int:
    """Make a command that its gateway may not send one that is answered as unknown.

    Of one slot, its last word becomes an ingress_id, so that the answer finds its way.
    """
    head = words[np.uintp(first + 1)] & ~np.int64(0xFFFF00FF)
    words[np.uintp(first + 1)] = head | FORBIDDEN_KIND
    if (head >> 8) & _TWO_SLOTS == 0:
        words[np.uintp(first + 7)] = (gateway << _GATEWAY_SHIFT) | 1
    return FORBIDDEN
