"""Commands in: from each gateway's ingress ring into the command ring, judged and stamped.

A command is copied into its slots of the command ring, judged there (`accounts.admission`), stamped
with sequence, time and how far was settled, and published. Commands are taken by up to CHUNK: the
first look at a chunk hashes its names and asks for the heads of their chains, the second asks for
the orders meant, the third judges. One at a time each of these would be a cache miss that nothing
hides. The chunk is claimed as a whole and published command by command.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from hftcore.accounts.admission import FORBIDDEN, PASSED, REPEATED, admit
from hftcore.accounts.expansion import IDLE
from hftcore.accounts.known_orders import foresee_known, foresee_slot
from hftcore.accounts.names import foresee_name, name_hash
from hftcore.engine.sequencer.state import (
    ANSWERED_COUNT,
    CHUNK,
    COMMANDS,
    FORBIDDEN_COUNT,
    NO_ROOM,
    REFUSED_COUNT,
    ROOM,
    Sequencer,
)
from hftcore.messages import MAX_SEQUENCE, CommandKind, ExecFlags, Flags
from ipc.counters import count
from ipc.intrinsics import store_release
from ipc.kernel import kernel
from ipc.ring import (
    CELL_WORDS,
    POSITION,
    claim,
    end_of_record,
    is_published,
    padded,
    prefetch_slot,
    publish,
    release_up_to,
    writable_until,
)
from ipc.ring import SLOT_WORDS as _WORDS
from ipc.ring_table import words_at

_TWO_SLOTS = int(Flags.TWO_SLOTS)
_NEW_ORDER = int(CommandKind.NEW_ORDER)
_MASS_CANCEL = int(CommandKind.MASS_CANCEL)
_NAMED = int(ExecFlags.HAS_CLIENT_ORDER_ID | ExecFlags.BY_CLIENT_ORDER_ID)


@kernel(inline=True)
def take_ingress(sequencer: Sequencer, ring: int, budget: int, now: int) -> int:
    """Sequence up to `budget` commands of one gateway; return how many."""
    state = sequencer.state[0]
    row = sequencer.ingress[np.uintp(ring)]
    source = words_at(row["words"], row["slots"] * _WORDS)
    mask = row["slots"] - 1
    position = sequencer.ingress_positions[np.uintp(ring)]
    cells = sequencer.command_cells
    done = np.int64(0)
    while done < budget:
        room = (state["command_limit"] - cells[POSITION]) // ROOM
        if room < CHUNK:
            # the readers' cursors are lines of other cores: looked at when it matters only
            state["command_limit"] = writable_until(cells)
            room = (state["command_limit"] - cells[POSITION]) // ROOM
        # the sequence after the last is a command that can't be: it fails an assertion
        left = max(MAX_SEQUENCE + 1 - state["next_sequence"], 1)
        most = min(budget - done, np.int64(CHUNK), room, left)
        found, slots = look_ahead(sequencer, source, mask, position, most)
        if found == 0:
            if room == 0:
                count(sequencer.counters, NO_ROOM, 1)
            break
        taken, position, now = take_chunk(
            sequencer, source, mask, position, ring, found, slots, now
        )
        done += taken
        if taken < found:
            break
    state["sequenced_ns"] = max(now, state["sequenced_ns"])
    sequencer.ingress_positions[np.uintp(ring)] = position
    release_up_to(words_at(row["cells"], CELL_WORDS), state["ingress_reader"], position)
    return done


@kernel(inline=True)
def is_pad(head: int, position: int, mask: int) -> bool:
    """Return whether a slot holds no command: a pad, or one of two slots that the ring cuts off.

    A gateway that writes the latter is broken; what it meant is nowhere.
    """
    return head == 0 or ((head >> 8) & _TWO_SLOTS != 0 and position & mask == mask)


@kernel(inline=True)
def look_ahead(
    sequencer: Sequencer, source: Any, mask: int, position: int, most: int
) -> tuple[int, int]:
    """Hash the names of the next commands and ask for what they need.

    Returns
    -------
    (found, slots)
        Commands that are there, at most `most`, and how many slots they will take.
    """
    known = sequencer.gate.known
    out_mask = len(sequencer.command_words) // _WORDS - 1
    begin = sequencer.command_cells[POSITION]
    out = begin
    at = position
    found = np.int64(0)
    while found < most and is_published(source, mask, at):
        first = (at & mask) * _WORDS
        head = source[np.uintp(first + 1)]
        if is_pad(head, at, mask):
            at += 1
            continue
        slots = 2 if (head >> 8) & _TWO_SLOTS else 1
        name = np.int64(0)
        # most changes bring no name: the order_id that they carry is all there is to look up
        named = head & 0xFF == _NEW_ORDER or (source[np.uintp(first + 7)] >> 32) & _NAMED != 0
        if slots == 2 and named:
            name = name_hash(known.key, source, first + _WORDS, (head >> 32) & 0xFFFFFFFF)
            foresee_name(known, name)
        sequencer.hashes[np.uintp(found)] = name
        foresee_known(known, source[np.uintp(first + 6)])
        prefetch_slot(sequencer.command_words, out_mask, out)
        prefetch_slot(sequencer.command_words, out_mask, out + 1)
        out = end_of_record(out_mask, out, slots)
        at += slots
        found += 1
    at = position
    for _ in range(found):
        first = (at & mask) * _WORDS
        head = source[np.uintp(first + 1)]
        foresee_slot(known, source[np.uintp(first + 6)])
        at += 2 if (head >> 8) & _TWO_SLOTS else 1
    return found, out - begin


@kernel(inline=True)
def take_chunk(
    sequencer: Sequencer, source: Any, mask: int, position: int, ring: int, found: int, slots: int,
    now: int,
) -> tuple[int, int, int]:  # fmt: skip
    """Copy, judge, stamp and publish a chunk; return (taken, ingress position, time)."""
    state = sequencer.state[0]
    cells, target = sequencer.command_cells, sequencer.command_words
    out_mask = len(target) // _WORDS - 1
    out = cells[POSITION]
    # the caller asked for no more than there are sequences left
    assert 1 <= state["next_sequence"] <= MAX_SEQUENCE
    claim(cells, out + slots)
    taken = np.int64(0)
    while taken < found:
        first_word = (position & mask) * _WORDS
        head = source[np.uintp(first_word + 1)]
        if is_pad(head, position, mask):
            position += 1
            continue
        kind = head & 0xFF
        if kind == _MASS_CANCEL and sequencer.expansion.state[0]["stage"] != IDLE:
            break  # one at a time: this gateway waits, the others go on
        begin = out
        record = np.int64(2) if (head >> 8) & _TWO_SLOTS else np.int64(1)
        if record == 2:
            out = padded(target, out_mask, out)
        base = (out & out_mask) * _WORDS
        for word in range(1, _WORDS):
            target[np.uintp(base + word)] = source[np.uintp(first_word + word)]
        if record == 2:
            for word in range(_WORDS + 1, 2 * _WORDS):
                target[np.uintp(base + word)] = source[np.uintp(first_word + word)]
        if state["recorded_time"] | state["as_logged"] != 0:
            now = max(now, target[np.uintp(base + 3)])
        stamp(sequencer, target, base, record, ring, sequencer.hashes[np.uintp(taken)], now)
        out += record
        publish(target, out_mask, begin, out)
        state["next_sequence"] += 1
        position += record
        taken += 1
    # release: pairs with whoever looks up where the writer is
    store_release(cells, POSITION, out)
    count(sequencer.counters, COMMANDS, taken)
    return taken, position, now


@kernel(inline=True)
def stamp(
    sequencer: Sequencer, target: Any, base: int, record: int, ring: int, name: int, now: int
) -> None:
    """Judge a command in its slots, unless it is a log's, and stamp it."""
    state = sequencer.state[0]
    sequence = state["next_sequence"]
    if state["as_logged"] != 0:
        assert target[np.uintp(base + 2)] == sequence  # a log has no holes
        return
    target[np.uintp(base + 2)] = sequence
    target[np.uintp(base + 3)] = now
    verdict = admit(
        sequencer.gate, sequencer.expansion, target, base, record, ring, name,
        state["settled_sequence"], sequence,
    )  # fmt: skip
    if verdict != PASSED:
        counter = np.int64(REFUSED_COUNT)
        if verdict == REPEATED:
            counter = np.int64(ANSWERED_COUNT)
        elif verdict == FORBIDDEN:
            counter = np.int64(FORBIDDEN_COUNT)
        count(sequencer.counters, counter, 1)
