"""A mass cancel, cut into slices: ranges of order_ids of one instrument each, oldest first.

The gate knows every order that may be on a book, in entry order. A scan of that list finds the next
order that is meant and was not covered yet, and makes a slice of the range that begins with it: at
most MAX_SLICE_IDS ids, below the mass cancel's own sequence, so it never meets a later order. In it
the matcher takes the account's orders of that instrument and side. It knows no sessions, so a mass
cancel of one session ends its slice before the next order of another.

The scan stops after LOOKS orders and goes on with the next poll; an order that ends meanwhile
moves it on (`known_orders.end_known`). One mass cancel is expanded at a time.

Comes after `known_orders`; before the sequencer, which writes the slices.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hftcore.accounts.known_orders import KnownOrders
from hftcore.limits import MAX_INSTRUMENTS, MAX_SLICE_IDS
from hftcore.messages import CommandKind
from ipc.kernel import kernel

EXPANSION = np.dtype(
    [
        ("stage", "<i8"),  # IDLE, SLICING or SETTLING
        ("last_slice", "<i8"),  # sequence of the newest slice, 0: none
        ("canceled", "<i8"),  # orders that settlement has seen canceled
        ("reserved", "<i8", (5,)),
    ]
)
IDLE, SLICING, SETTLING = 0, 1, 2
LOOKS = 256
"""Open orders that one scan looks at."""

_SLICE = int(CommandKind.MASS_CANCEL_SLICE)
_DONE = int(CommandKind.MASS_CANCEL_DONE)
_MASS_CANCEL = int(CommandKind.MASS_CANCEL)


class Expansion(NamedTuple):
    """The mass cancel at hand.

    Attributes
    ----------
    state : EXPANSION[1]
    parent : int64[16]
        The MASS_CANCEL and its ORIGIN.
    covered : int64[MAX_INSTRUMENTS]
        Newest order_id that a slice covers, by instrument.
    """

    state: NDArray[Any]
    parent: NDArray[np.int64]
    covered: NDArray[np.int64]


def expansion_of() -> Expansion:
    """Make one that has nothing to do."""
    return Expansion(
        np.zeros(1, EXPANSION), np.zeros(16, np.int64), np.zeros(MAX_INSTRUMENTS, np.int64)
    )


@kernel
def begin_expansion(expansion: Expansion, known: KnownOrders, words: Any, first: int) -> None:
    """Keep a MASS_CANCEL that has been sequenced; its slices follow."""
    for word in range(1, 16):
        expansion.parent[word] = words[np.uintp(first + word)]
    expansion.covered[:] = 0
    state = expansion.state[0]
    state["stage"] = SLICING
    state["canceled"] = 0
    state["last_slice"] = 0
    known.table[0]["scan"] = known.table[0]["open_head"]


@kernel(inline=True)
def is_slicing(expansion: Expansion) -> bool:
    """Return whether slices are still to be written."""
    return expansion.state[0]["stage"] == SLICING


@kernel
def next_slice(expansion: Expansion, known: KnownOrders, own: Any) -> int:
    """Write the next slice into `own`.

    Returns
    -------
    int
        1: written. 0: there are no more. -1: nothing yet, the scan goes on next time.
    """
    parent = expansion.parent
    wanted_instrument = (parent[1] >> 16) & 0xFFFF
    account = (parent[1] >> 32) & 0xFFFFFFFF
    session = parent[7] & 0xFFFFFFFF
    side = (parent[7] >> 32) & 0xFF
    table = known.table[0]
    for _ in range(LOOKS):
        slot = table["scan"]
        order = known.orders[np.uintp(slot)]
        if slot == 0 or order["order_id"] >= parent[2]:
            table["scan"] = 0
            expansion.state[0]["stage"] = SETTLING
            return 0
        table["scan"] = np.int64(order["next"])
        instrument = np.int64(order["instrument_id"])
        if (
            (account == 0 or np.int64(order["account_id"]) == account)
            and (wanted_instrument == 0 or instrument == wanted_instrument)
            and (session == 0 or np.int64(order["session_id"]) == session)
            and (side == 0 or np.int64(order["side"]) == side)
            and order["order_id"] > expansion.covered[np.uintp(instrument)]
        ):
            first = order["order_id"]
            last = min(first + MAX_SLICE_IDS, parent[2]) - 1
            if session != 0:
                last = min(last, before_another_session(known, slot, account, session))
            expansion.covered[np.uintp(instrument)] = last
            write_slice(parent, own, instrument, first, last)
            return 1
    return -1


@kernel
def before_another_session(known: KnownOrders, slot: int, account: int, session: int) -> int:
    """Return the order_id up to which no other session of the account has an order."""
    last = known.orders[np.uintp(slot)]["order_id"]
    for _ in range(LOOKS):
        slot = np.int64(known.orders[np.uintp(slot)]["next"])
        order = known.orders[np.uintp(slot)]
        meant = account == 0 or np.int64(order["account_id"]) == account
        if slot == 0 or (meant and np.int64(order["session_id"]) != session):
            break
        last = order["order_id"]
    return last


@kernel(inline=True)
def write_slice(parent: Any, own: Any, instrument: int, first: int, last: int) -> None:
    """Fill in a MASS_CANCEL_SLICE."""
    own[:] = 0
    account = parent[1] & ~np.int64(0xFFFFFFFF)
    own[1] = _SLICE | (instrument << 16) | account
    own[4] = parent[2]
    own[5] = first
    own[6] = last
    # session and side as asked, the parent's kind as the cause
    own[7] = (parent[7] & 0xFF_FFFFFFFF) | (_MASS_CANCEL << 40)


@kernel
def write_done(expansion: Expansion, own: Any) -> None:
    """Fill in the MASS_CANCEL_DONE that answers the mass cancel with its count."""
    parent = expansion.parent
    own[:] = 0
    for word in range(8, 16):
        own[word] = parent[word]
    own[1] = (parent[1] & ~np.int64(0xFFFF)) | _DONE
    own[4] = parent[2]
    own[6] = expansion.state[0]["canceled"]
    own[7] = (parent[7] & 0xFF_FFFFFFFF) | (_MASS_CANCEL << 40)
