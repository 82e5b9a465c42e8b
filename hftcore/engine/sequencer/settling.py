"""Events in: all shards' events, in the log's order, into what the gate knows."""

from __future__ import annotations

from typing import Any

import numpy as np

from hftcore.accounts.known_orders import foresee_slot
from hftcore.accounts.settlement import MASS_CANCELED, settle_event
from hftcore.engine.sequencer.state import EVENTS, Sequencer
from hftcore.messages import SETTLED, Flags
from ipc.counters import count
from ipc.intrinsics import store_release
from ipc.kernel import kernel
from ipc.merge import NO_STREAM, next_stream
from ipc.ring import CELL_WORDS, is_published, release_up_to
from ipc.ring import SLOT_WORDS as _WORDS
from ipc.ring_table import words_at

_TWO_SLOTS = int(Flags.TWO_SLOTS)
_LAST_BIT = 8 + int(Flags.LAST).bit_length() - 1
_AHEAD = 48
"""Slots whose orders are asked for together."""


@kernel(inline=True)
def settle(sequencer: Sequencer, budget: int) -> int:
    """Take events in, in the log's order over all shards; return how many."""
    state = sequencer.state[0]
    done = np.int64(0)
    while True:
        shard, until, passed = next_stream(sequencer.events, sequencer.event_positions)
        if shard == NO_STREAM or done >= budget:
            break
        taken, finished = settle_run(sequencer, shard, until, budget - done)
        done += taken
        if len(sequencer.events) == 1:
            passed = finished
            break
    if passed > state["settled_sequence"]:
        state["settled_sequence"] = passed
        # release: pairs with whoever looks how far settlement is
        store_release(sequencer.positions, SETTLED, passed)
    if done > 0:
        count(sequencer.counters, EVENTS, done)
    return done


@kernel(inline=True)
def settle_run(sequencer: Sequencer, shard: int, until: int, budget: int) -> tuple[int, int]:
    """Settle events of one shard up to sequence `until`.

    Returns
    -------
    (taken, finished)
        How many, and the sequence of the newest command of which all were.
    """
    row = sequencer.events[np.uintp(shard)]
    words = words_at(row["words"], row["slots"] * _WORDS)
    mask = row["slots"] - 1
    position = sequencer.event_positions[np.uintp(shard)]
    done = np.int64(0)
    finished = np.int64(0)
    seen = position
    while done < budget and is_published(words, mask, position):
        first = (position & mask) * _WORDS
        head = words[np.uintp(first + 1)]
        if head == 0:
            position += 1  # a pad
            continue
        if words[np.uintp(first + 2)] > until:
            break
        if seen <= position:
            seen = foresee_orders(sequencer, words, mask, position)
        second = ((position + 1) & mask) * _WORDS
        if settle_event(sequencer.gate, words, first, second) == MASS_CANCELED:
            sequencer.expansion.state[0]["canceled"] += 1
        # of an unfinished command, all before it is finished
        finished = words[np.uintp(first + 2)] - (1 - ((head >> _LAST_BIT) & 1))
        position += 2 if (head >> 8) & _TWO_SLOTS else 1
        done += 1
    sequencer.event_positions[np.uintp(shard)] = position
    release_up_to(words_at(row["cells"], CELL_WORDS), sequencer.state[0]["event_reader"], position)
    return done, finished


@kernel(inline=True)
def foresee_orders(sequencer: Sequencer, words: Any, mask: int, position: int) -> int:
    """Ask for the orders of the events that are there; return the position behind the last.

    Only of those: to look at a slot that the matcher is about to write takes its line away from it.
    """
    known = sequencer.gate.known
    end = position + _AHEAD
    while position < end and is_published(words, mask, position):
        # of a second slot, any word: a prefetch of nothing
        foresee_slot(known, words[np.uintp((position & mask) * _WORDS + 5)])
        position += 1
    return position
