"""Commands that nobody sent: the passing of time, the slices of a mass cancel, its end."""

from __future__ import annotations

import numpy as np

from hftcore.accounts.expansion import IDLE, is_slicing, next_slice, write_done
from hftcore.accounts.known_orders import forget_expired, known_for_s
from hftcore.engine.sequencer.state import (
    CHUNK,
    COMMANDS,
    KNOWN_FOR,
    ROOM,
    SLICES,
    TIMES,
    Sequencer,
)
from hftcore.messages import MAX_SEQUENCE, CommandKind, Flags
from ipc.counters import count, set_counter
from ipc.intrinsics import store_release
from ipc.kernel import kernel
from ipc.ring import POSITION, claim, end_of_record, padded, publish, writable_until
from ipc.ring import SLOT_WORDS as _WORDS

_TWO_SLOTS = int(Flags.TWO_SLOTS)
_TIME = int(CommandKind.TIME)
_NANOSECONDS = 1_000_000_000
_FORGET = 4_096
"""Expired orders that are forgotten with each time command: some hundred microseconds of work."""


@kernel(inline=True)
def write_own(sequencer: Sequencer, now: int) -> int:
    """Write what is due without anybody asking; return how many commands."""
    state = sequencer.state[0]
    done = np.int64(0)
    if state["interval_ns"] != 0 and now >= state["due_ns"]:
        done += write_time(sequencer, now)
    if sequencer.expansion.state[0]["stage"] != IDLE:
        done += expand(sequencer, now)
    return done


@kernel
def write_time(sequencer: Sequencer, now: int) -> int:
    """Write the time command that is due; return 0 when there is no room for it."""
    state = sequencer.state[0]
    own = sequencer.own
    own[:] = 0
    own[1] = _TIME
    own[4] = state["epoch"]
    own[6] = max(state["due_ns"], now - now % state["interval_ns"])
    own[7] = state["start_id"]
    if append_own(sequencer, 1, now) == 0:
        return 0
    state["due_ns"] = own[6] + state["interval_ns"]
    count(sequencer.counters, TIMES, 1)
    now_s = now // _NANOSECONDS
    forget_expired(sequencer.gate.known, now_s, _FORGET)
    set_counter(sequencer.counters, KNOWN_FOR, known_for_s(sequencer.gate.known, now_s))
    return 1


@kernel
def expand(sequencer: Sequencer, now: int) -> int:
    """Go on with a mass cancel: some slices, or its end when the last of them has settled."""
    state = sequencer.state[0]
    expansion = sequencer.expansion
    done = np.int64(0)
    while is_slicing(expansion) and done < CHUNK:
        if writable_until(sequencer.command_cells) - sequencer.command_cells[POSITION] < ROOM:
            return done
        found = next_slice(expansion, sequencer.gate.known, sequencer.own)
        if found < 0:
            return done + 1  # the scan goes on next time
        if found > 0:
            expansion.state[0]["last_slice"] = state["next_sequence"]
            append_own(sequencer, 1, now)
            count(sequencer.counters, SLICES, 1)
            done += 1
    if not is_slicing(expansion) and expansion.state[0]["last_slice"] <= state["settled_sequence"]:
        write_done(expansion, sequencer.own)
        if append_own(sequencer, 2, now) != 0:
            expansion.state[0]["stage"] = IDLE
            done += 1
    return done


@kernel
def append_own(sequencer: Sequencer, slots: int, now: int) -> int:
    """Sequence the command in `own`; return 0 when there is no room for it."""
    state = sequencer.state[0]
    cells, target = sequencer.command_cells, sequencer.command_words
    mask = len(target) // _WORDS - 1
    first = cells[POSITION]
    if writable_until(cells) - first < ROOM or state["next_sequence"] > MAX_SEQUENCE:
        return 0
    end = end_of_record(mask, first, slots)
    claim(cells, end)
    position = padded(target, mask, first) if slots == 2 else first
    base = (position & mask) * _WORDS
    own = sequencer.own
    own[2] = state["next_sequence"]
    own[3] = now
    if slots == 2:
        own[1] |= _TWO_SLOTS << 8
    for word in range(1, slots * _WORDS):
        if word != _WORDS:
            target[np.uintp(base + word)] = own[word]
    publish(target, mask, first, end)
    state["next_sequence"] += 1
    state["sequenced_ns"] = now
    # release: pairs with whoever looks up where the writer is
    store_release(cells, POSITION, end)
    count(sequencer.counters, COMMANDS, 1)
    return 1
