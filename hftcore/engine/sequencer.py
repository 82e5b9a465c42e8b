"""The sequencer's role: one total order. Ingress ring in, stamps on, command ring out.

This one stamps and nothing else: sequence, time, and the order_id that follows from them (an
order's id is the sequence of its NEW_ORDER). Time is whatever the owner last wrote into
`clock_ns`, one stamp a batch, or in a replay the command's recorded time when that is later; it
never decreases.

Comes before: a gateway or a client, over its ingress ring. After: every matcher.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hftcore.errors import ConfigurationRefused
from hftcore.limits import FIRST_SEQUENCE
from hftcore.messages import MAX_SEQUENCE, NEW_ORDER, Flags
from ipc.intrinsics import store_release
from ipc.kernel import kernel
from ipc.ring import (
    POSITION,
    Ring,
    claim,
    end_of_record,
    is_published,
    padded,
    publish,
    release_up_to,
    writable_until,
)

SEQUENCING = np.dtype(
    [
        ("next_sequence", "<i8"),
        ("ingress_position", "<i8"),  # of the next command in the ingress ring
        ("clock_ns", "<i8"),  # UTC nanoseconds, written by the owner
        ("sequenced_ns", "<i8"),  # newest stamp
        ("reader", "<i8"),  # which gating reader of the ingress ring this is
        ("recorded_time", "<i8"),  # 1: a command's own time moves the clock (replays only)
        ("reserved", "<i8", (2,)),
    ]
)

_TWO_SLOTS = int(Flags.TWO_SLOTS)
_WORDS = 8
_ROOM = 3
"""Slots that one command may take: a pad and two."""


class Sequencer(NamedTuple):
    """What the sequencer's poll works on.

    Attributes
    ----------
    state : SEQUENCING[1]
    ingress_words, command_words : int64[slots * 8]
    ingress_cells, command_cells : int64[512]
    commands : NEW_ORDER[slots]
        The command ring's slots, for the stamps.
    """

    state: NDArray[Any]
    ingress_words: NDArray[np.int64]
    ingress_cells: NDArray[np.int64]
    command_words: NDArray[np.int64]
    command_cells: NDArray[np.int64]
    commands: NDArray[Any]


def sequencer_of(
    ingress: Ring, commands: Ring, reader: int = 0, first_sequence: int = FIRST_SEQUENCE
) -> Sequencer:
    """Join two rings; the sequencer gates `ingress` as reader number `reader`.

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
    state = np.zeros(1, SEQUENCING)
    state["next_sequence"] = first_sequence
    state["reader"] = reader
    return Sequencer(
        state,
        ingress.words,
        ingress.cells,
        commands.words,
        commands.cells,
        commands.view(NEW_ORDER),
    )


@kernel
def poll(sequencer: Sequencer, budget: int) -> int:
    """Sequence up to `budget` commands; return how many, 0 also when the ring was full.

    It claims what it is about to write and nothing more, so a tailing reader of the command ring
    has all of the last lap. The sequence after MAX_SEQUENCE stops it: nothing of that poll is done.
    """
    state = sequencer.state[0]
    cells = sequencer.command_cells
    source, target = sequencer.ingress_words, sequencer.command_words
    source_mask = len(source) // _WORDS - 1
    mask = len(target) // _WORDS - 1
    read = state["ingress_position"]
    position = cells[POSITION]
    limit = position  # up to here the readers are known to have read
    sequence = state["next_sequence"]
    # the last sequence ends a poll in order, the one after it fails an assertion
    budget = min(budget, max(MAX_SEQUENCE + 1 - sequence, 1))
    now = max(state["clock_ns"], state["sequenced_ns"])
    done = 0
    while done < budget and is_published(source, source_mask, read):
        first_word = (read & source_mask) * _WORDS
        if source[np.uintp(first_word + 1)] == 0:
            read += 1  # a pad
            continue
        if limit - position < _ROOM:
            limit = writable_until(cells)
            if limit - position < _ROOM:
                break
        assert 1 <= sequence <= MAX_SEQUENCE
        first = position
        slots = 2 if (source[np.uintp(first_word + 1)] >> 8) & _TWO_SLOTS else 1
        end = end_of_record(mask, position, slots)
        assert end <= min(limit, position + mask + 1)
        claim(cells, end)
        if slots == 2:
            position = padded(target, mask, position)
        slot = position & mask
        for slot_of_record in range(slots):
            for word in range(1, _WORDS):
                offset = slot_of_record * _WORDS + word
                target[np.uintp(slot * _WORDS + offset)] = source[np.uintp(first_word + offset)]
        command = sequencer.commands[np.uintp(slot)]
        if state["recorded_time"] != 0:
            now = max(now, command["sequenced_ns"])
        command["sequence"] = sequence
        command["sequenced_ns"] = now
        position += slots
        publish(target, mask, first, position)
        sequence += 1
        read += slots
        done += 1
    state["ingress_position"] = read
    state["next_sequence"] = sequence
    state["sequenced_ns"] = now
    # release: pairs with whoever looks up where the writer is
    store_release(cells, POSITION, position)
    release_up_to(sequencer.ingress_cells, state["reader"], read)
    return done
