"""What the reporter works on: its place in the streams, the report rings, the routes to them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hftcore.limits import FIRST_SEQUENCE, MAX_ACCOUNTS, MAX_GATEWAYS
from hftcore.matching.state import private_memory
from hftcore.messages import GATEWAY_WORDS, MAX_SEQUENCE, POSITIONS_WORDS, RELEASED
from ipc.counters import words_for
from ipc.ring import Ring
from ipc.ring_table import table_of

REPORTING = np.dtype(
    [
        ("command_position", "<i8"),  # of the command whose events come next
        ("command_reader", "<i8"),  # which gating reader of the command ring this is
        ("event_reader", "<i8"),  # which gating reader of each event ring this is
        ("reported_sequence", "<i8"),
        ("answered", "<i8"),  # bit of the gateway of the command at hand, 0: none
        ("account_id", "<i8"),  # of the command at hand
        ("sequence", "<i8"),  # of the command at hand
        ("reserved", "<i8"),
    ]
)
GATEWAY = np.dtype(
    [
        ("active", "<i8"),  # 1: reports are written
        ("incarnation", "<i8"),  # newest that has attached
        ("accounts", "<i8"),  # how many are in its list
        ("limit", "<i8"),  # up to here its ring is known to have room
        ("position", "<i8"),  # of its next report; the ring's own cells its process may write
        ("reserved", "<i8", (3,)),
    ]
)
COUNTERS = ("events", "reports", "concern nobody", "cut off", "lost to cut gateways")
EVENTS, REPORTS, UNROUTED, CUTS, LOST = range(len(COUNTERS))


class Reporter(NamedTuple):
    """What the reporter's poll works on.

    Attributes
    ----------
    state : REPORTING[1]
    command_words, command_cells : int64[slots * 8], int64[512]
    events : RING_ROW[shards]
        Event rings; beside each its shard's matched_sequence.
    event_positions : int64[shards]
        Of the next event in each.
    reports : RING_ROW[gateways]
    gateways : GATEWAY[gateways]
    routes : int64[MAX_ACCOUNTS]
        Bit g: the account has a session on gateway g.
    attached : uint32[MAX_GATEWAYS * MAX_ACCOUNTS]
        Lists of the accounts of each gateway, for taking their bits away.
    places : uint32[MAX_GATEWAYS * MAX_ACCOUNTS]
        Where in its gateway's list an account is.
    cells : int64[gateways * GATEWAY_WORDS]
        Shared; tells a gateway that it was cut off.
    positions : int64[POSITIONS_WORDS]
        Shared; RELEASED is read, REPORTED written.
    counters : int64[8 * len(COUNTERS)]
    """

    state: NDArray[Any]
    command_words: NDArray[np.int64]
    command_cells: NDArray[np.int64]
    events: NDArray[Any]
    event_positions: NDArray[np.int64]
    reports: NDArray[Any]
    gateways: NDArray[Any]
    routes: NDArray[np.int64]
    attached: NDArray[np.uint32]
    places: NDArray[np.uint32]
    cells: NDArray[np.int64]
    positions: NDArray[np.int64]
    counters: NDArray[np.int64]


def reporter_of(
    commands: Ring,
    events: Sequence[Ring],
    matched: Sequence[NDArray[np.int64]],
    reports: Sequence[Ring],
    *,
    command_reader: int,
    event_reader: int,
    cells: NDArray[np.int64] | None = None,
    positions: NDArray[np.int64] | None = None,
    counters: NDArray[np.int64] | None = None,
    state: NDArray[Any] | None = None,
    first_sequence: int = FIRST_SEQUENCE,
) -> Reporter:
    """Join the rings.

    Parameters
    ----------
    events, matched : sequence of Ring, of int64[8]
        One a shard, and beside it the shard's matched_sequence.
    reports : sequence of Ring
        One a gateway.
    cells, positions, counters, state
        Shared memory where gateways, tools and other roles look at it; private when left out. A
        fresh `positions` releases everything at once: there is no journal.
    """
    assert len(reports) <= MAX_GATEWAYS
    if positions is None:
        positions = np.zeros(POSITIONS_WORDS, np.int64)
        positions[RELEASED] = MAX_SEQUENCE
    if counters is None:
        counters = np.zeros(words_for(len(COUNTERS)), np.int64)
    if cells is None:
        cells = np.zeros(len(reports) * GATEWAY_WORDS, np.int64)
    state = np.zeros(1, REPORTING) if state is None else state
    state["command_reader"] = command_reader
    state["event_reader"] = event_reader
    state["reported_sequence"] = first_sequence - 1
    gateways = np.zeros(len(reports), GATEWAY)
    gateways["active"][0] = 1  # the venue's own
    gateways["position"] = [ring.position for ring in reports]
    pairs = MAX_GATEWAYS * MAX_ACCOUNTS
    return Reporter(
        state,
        commands.words,
        commands.cells,
        table_of(events, matched),
        np.zeros(len(events), np.int64),
        table_of(reports),
        gateways,
        private_memory("routes", np.dtype(np.int64), MAX_ACCOUNTS, True),
        private_memory("attached", np.dtype(np.uint32), pairs, True),
        private_memory("places", np.dtype(np.uint32), pairs, True),
        cells,
        positions,
        counters,
    )
