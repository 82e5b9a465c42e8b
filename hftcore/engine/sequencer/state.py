"""What the sequencer works on: its place in the log, the rings, what the gate knows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hftcore.accounts.expansion import Expansion, expansion_of
from hftcore.accounts.gate import Gate, gate_of
from hftcore.errors import ConfigurationRefused
from hftcore.limits import FIRST_SEQUENCE
from hftcore.messages import MAX_SEQUENCE, POSITIONS_WORDS, RELEASED
from ipc.counters import words_for
from ipc.ring import Ring
from ipc.ring_table import table_of

SEQUENCING = np.dtype(
    [
        ("next_sequence", "<i8"),
        ("settled_sequence", "<i8"),  # every event up to here is settled
        ("clock_ns", "<i8"),  # UTC nanoseconds, written by the owner
        ("sequenced_ns", "<i8"),  # newest stamp
        ("ingress_reader", "<i8"),  # which gating reader of each ingress ring this is
        ("event_reader", "<i8"),  # which gating reader of each event ring this is
        ("recorded_time", "<i8"),  # 1: a command's own time moves the clock (replays only)
        ("as_logged", "<i8"),  # 1: commands are a log's; they are not judged, nothing is added
        ("due_ns", "<i8"),  # when the next time command is due
        ("interval_ns", "<i8"),  # between two of them, 0: none are written
        ("epoch", "<i8"),
        ("start_id", "<i8"),
        ("first_ring", "<i8"),  # the ingress ring that the next poll begins with
        ("command_limit", "<i8"),  # up to here the command ring is known to have room
        ("awaited", "<i8"),  # a dead gateway's ring is drained here; position + 1, 0: none awaited
        ("reserved", "<i8"),
    ]
)

COUNTERS = (
    "commands", "refused", "answered from the window", "forbidden", "events settled",
    "time commands", "mass cancel slices", "no room in the command ring",
    "ended orders are known for, s",
)  # fmt: skip
(
    COMMANDS, REFUSED_COUNT, ANSWERED_COUNT, FORBIDDEN_COUNT, EVENTS, TIMES, SLICES, NO_ROOM,
    KNOWN_FOR,
) = range(len(COUNTERS))  # fmt: skip

CHUNK = 64
"""Commands that are looked at together, and events or slices between two looks elsewhere."""
ROOM = 3
"""Slots that one command may take: a pad and two."""


class Sequencer(NamedTuple):
    """What the sequencer's poll works on.

    Attributes
    ----------
    state : SEQUENCING[1]
    ingress : RING_ROW[gateways]
    ingress_positions : int64[gateways]
        Of the next command in each.
    command_words, command_cells : int64[slots * 8], int64[512]
    events : RING_ROW[shards]
        Event rings; beside each its shard's matched_sequence.
    event_positions : int64[shards]
        Of the next event to settle in each.
    gate : Gate
    expansion : Expansion
        The mass cancel that is being cut into slices.
    positions : int64[POSITIONS_WORDS]
        Shared; SETTLED is written.
    counters : int64[8 * len(COUNTERS)]
    own : int64[16]
        A command of the sequencer's own, before it is sequenced.
    hashes : int64[CHUNK]
        Hashed names of the chunk at hand.
    looked : int64[CHUNK]
        Where the first look found its commands: position << 1 | slots - 1.
    """

    state: NDArray[Any]
    ingress: NDArray[Any]
    ingress_positions: NDArray[np.int64]
    command_words: NDArray[np.int64]
    command_cells: NDArray[np.int64]
    events: NDArray[Any]
    event_positions: NDArray[np.int64]
    gate: Gate
    expansion: Expansion
    positions: NDArray[np.int64]
    counters: NDArray[np.int64]
    own: NDArray[np.int64]
    hashes: NDArray[np.int64]
    looked: NDArray[np.int64]


def sequencer_of(
    ingress: Sequence[Ring],
    commands: Ring,
    events: Sequence[Ring],
    matched: Sequence[NDArray[np.int64]],
    *,
    gate: Gate | None = None,
    positions: NDArray[np.int64] | None = None,
    counters: NDArray[np.int64] | None = None,
    state: NDArray[Any] | None = None,
    ingress_reader: int = 0,
    event_reader: int = 0,
    first_sequence: int = FIRST_SEQUENCE,
) -> Sequencer:
    """Join the rings.

    Parameters
    ----------
    ingress, events : sequence of Ring
        One a gateway; one a shard. It gates them as reader `ingress_reader` and `event_reader`.
    matched : sequence of int64[8]
        Each shard's line of its matched_sequence.
    gate, positions, counters, state
        Shared memory where tools or other roles look at it; private when left out. A fresh
        `positions` releases everything at once: there is no journal.

    Raises
    ------
    ConfigurationRefused
        When no command can have the first sequence.
    """
    if not 1 <= first_sequence <= MAX_SEQUENCE:
        raise ConfigurationRefused(
            "a sequencer can't begin with this sequence",
            expected=f"1 to {MAX_SEQUENCE}",
            found=str(first_sequence),
        )
    if positions is None:
        positions = np.zeros(POSITIONS_WORDS, np.int64)
        positions[RELEASED] = MAX_SEQUENCE
    if counters is None:
        counters = np.zeros(words_for(len(COUNTERS)), np.int64)
    state = np.zeros(1, SEQUENCING) if state is None else state
    state["next_sequence"] = first_sequence
    state["settled_sequence"] = first_sequence - 1
    state["ingress_reader"] = ingress_reader
    state["event_reader"] = event_reader
    return Sequencer(
        state,
        table_of(ingress),
        np.zeros(len(ingress), np.int64),
        commands.words,
        commands.cells,
        table_of(events, matched),
        np.zeros(len(events), np.int64),
        gate_of(1 << 16, 1 << 16) if gate is None else gate,
        expansion_of(),
        positions,
        counters,
        np.zeros(16, np.int64),
        np.zeros(CHUNK, np.int64),
        np.zeros(CHUNK, np.int64),
    )
