"""Settlement: what events say of the orders that the gate knows.

A fold over all events in (sequence, index) order. Here: fills, lots left and ends of orders, names
that a failed replace gives back, and which instruments are listed. Balances will be folded in the
same pass. `ACCEPTED` and `BOOKED` say nothing that the gate did not enter already.

Comes after `known_orders` and `gate`; before the sequencer, which reads the events from the rings.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from hftcore.accounts.gate import Gate, note_listing
from hftcore.accounts.known_orders import end_known, find_known
from hftcore.accounts.names import drop_name, find_name, name_hash
from hftcore.messages import ECHO, CommandKind, EventKind, ExecFlags, Flags, OrderStatus
from ipc.kernel import kernel

_REJECTED = int(EventKind.REJECTED)
_TRADE = int(EventKind.TRADE)
_CANCELED = int(EventKind.CANCELED)
_EXPIRED = int(EventKind.EXPIRED)
_REPLACED = int(EventKind.REPLACED)
_RESTATED = int(EventKind.RESTATED)
_NEW_ORDER = int(CommandKind.NEW_ORDER)
_INSTRUMENT_DEFINE = int(CommandKind.INSTRUMENT_DEFINE)
_MASS_CANCEL_SLICE = int(CommandKind.MASS_CANCEL_SLICE)
_HAS_NAME = int(ExecFlags.HAS_CLIENT_ORDER_ID)
_STATE = int(Flags.STATE)
_FILLED = int(OrderStatus.FILLED)
_ENDED_CANCELED = int(OrderStatus.CANCELED)
_ENDED_EXPIRED = int(OrderStatus.EXPIRED)
_ENDED_REJECTED = int(OrderStatus.REJECTED)
_NANOSECONDS = 1_000_000_000

MASS_CANCELED = 1
"""What `settle_event` returns of an order that a mass cancel took off the book."""


@kernel(inline=True)
def settle_event(gate: Gate, words: Any, first: int, second: int) -> int:
    """Take one event in.

    Parameters
    ----------
    words, first, second : int64[:], int, int
        Slot A begins at word `first`, slot B, if there is one, at `second`.

    Returns
    -------
    int
        MASS_CANCELED, or 0.
    """
    head = words[np.uintp(first + 1)]
    kind = head & 0xFF
    if kind == _TRADE:
        qty = words[np.uintp(first + 7)]
        now_ns = words[np.uintp(first + 3)]
        settle_fill(gate, words[np.uintp(second + 1)], qty, words[np.uintp(second + 3)], now_ns)
        settle_fill(gate, words[np.uintp(second + 2)], qty, words[np.uintp(second + 4)], now_ns)
    elif kind == _REPLACED or kind == _RESTATED:
        slot = find_known(gate.known, words[np.uintp(first + 5)])
        if slot != 0:
            gate.known.orders[np.uintp(slot)]["leaves_qty"] = words[np.uintp(first + 7)]
    elif kind == _CANCELED or kind == _EXPIRED:
        slot = find_known(gate.known, words[np.uintp(first + 5)])
        status = _ENDED_CANCELED if kind == _CANCELED else _ENDED_EXPIRED
        end_known(gate.known, slot, status, words[np.uintp(first + 3)] // _NANOSECONDS)
        by_mass = words[np.uintp(second + 7)] >> 40 & 0xFF == _MASS_CANCEL_SLICE
        if (head >> 8) & _STATE and by_mass:
            return MASS_CANCELED
    elif kind == _REJECTED:
        settle_rejection(gate, words, first, second)
    elif kind == ECHO | _INSTRUMENT_DEFINE:
        note_listing(gate, (head >> 16) & 0xFFFF, True)
    return 0


@kernel(inline=True)
def settle_fill(gate: Gate, order_id: int, qty: int, leaves_qty: int, now_ns: int) -> None:
    """Add a fill to an order; one without lots left has ended."""
    slot = find_known(gate.known, order_id)
    order = gate.known.orders[np.uintp(slot)]
    if slot != 0:
        order["cum_qty"] += qty
        order["leaves_qty"] = leaves_qty
        if leaves_qty == 0:
            end_known(gate.known, slot, _FILLED, now_ns // _NANOSECONDS)


@kernel
def settle_rejection(gate: Gate, words: Any, first: int, second: int) -> None:
    """End a new order that the matcher refused; free the name of a replace that it refused."""
    command_kind = words[np.uintp(second + 6)] & 0xFF
    known = gate.known
    if command_kind == _NEW_ORDER:
        # one that the gate refused was never entered: slot 0, and nothing happens
        slot = find_known(known, words[np.uintp(first + 5)])
        end_known(known, slot, _ENDED_REJECTED, words[np.uintp(first + 3)] // _NANOSECONDS)
    elif command_kind == _INSTRUMENT_DEFINE:
        note_listing(gate, (words[np.uintp(first + 1)] >> 16) & 0xFFFF, False)
    elif (words[np.uintp(second + 6)] >> 32) & _HAS_NAME:
        account = words[np.uintp(second + 7)] & 0xFFFFFFFF
        name = find_name(known, name_hash(known.key, words, second, account), account)
        brought_by = np.int64(known.names[np.uintp(name)]["brought_by"])
        if name != 0 and brought_by == words[np.uintp(first + 2)] & 0xFFFFFFFF:
            drop_name(known, name)
