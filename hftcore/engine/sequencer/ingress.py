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

from hftcore.accounts.admission import (
    FORBIDDEN,
    FORBIDDEN_KIND,
    PASSED,
    REPEATED,
    VENUE,
    admit,
)
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
from ipc.intrinsics import pick, store_release
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
_GATEWAY_DOWN = int(CommandKind.GATEWAY_DOWN)
_EPOCH = int(CommandKind.EPOCH)
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
        sequencer.looked[np.uintp(found)] = (at << 1) | (slots - 1)
        foresee_known(known, source[np.uintp(first + 6)])
        prefetch_slot(sequencer.command_words, out_mask, out)
        prefetch_slot(sequencer.command_words, out_mask, out + 1)
        out = end_of_record(out_mask, out, slots)
        at += slots
        found += 1
    for each in range(found):
        first = ((sequencer.looked[np.uintp(each)] >> 1) & mask) * _WORDS
        foresee_slot(known, source[np.uintp(first + 6)])
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
        # where the first look found it: a gateway may write into its ring at any time
        position = sequencer.looked[np.uintp(taken)] >> 1
        record = (sequencer.looked[np.uintp(taken)] & 1) + 1
        first_word = (position & mask) * _WORDS
        head = source[np.uintp(first_word + 1)]
        if must_wait(sequencer, source, first_word, ring, head & 0xFF):
            return finish_chunk(sequencer, out, taken, position, now)
        begin = out
        if record == 2:
            out = padded(target, out_mask, out)
        base = (out & out_mask) * _WORDS
        target[np.uintp(base + 1)] = whole_head(head, record)
        for word in range(2, _WORDS):
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
    return finish_chunk(sequencer, out, taken, position, now)


@kernel(inline=True)
def finish_chunk(
    sequencer: Sequencer, out: int, taken: int, position: int, now: int
) -> tuple[int, int, int]:
    """Say how far the command ring is written; return what `take_chunk` does."""
    # release: pairs with whoever looks up where the writer is
    store_release(sequencer.command_cells, POSITION, out)
    count(sequencer.counters, COMMANDS, taken)
    return taken, position, now


@kernel(inline=True)
def whole_head(head: int, record: int) -> int:
    """Return a command's header with as many slots as were found, and never that of a pad."""
    head = (head & ~np.int64(_TWO_SLOTS << 8)) | (_TWO_SLOTS << 8) * (record - 1)
    return pick(head == 0, np.int64(FORBIDDEN_KIND), head)


@kernel(inline=True)
def must_wait(sequencer: Sequencer, source: Any, first_word: int, ring: int, kind: int) -> bool:
    """Return whether a command can't be taken yet; its gateway waits, the others go on.

    A mass cancel waits for the one before it. A GATEWAY_DOWN waits until what lay in the dead
    gateway's ring has been taken: nothing of it may come after its end.
    """
    if kind == _MASS_CANCEL:
        return sequencer.expansion.state[0]["stage"] != IDLE
    if kind != _GATEWAY_DOWN or ring != VENUE:
        return False
    return not is_drained(sequencer, source[np.uintp(first_word + 6)] & 0xFFFF)


@kernel
def is_drained(sequencer: Sequencer, gateway: int) -> bool:
    """Return whether all has been taken that a gateway's ring held when this was first asked.

    A successor may write into it already; it can't have written more than a lap since.
    """
    state = sequencer.state[0]
    if gateway >= len(sequencer.ingress):
        return True
    row = sequencer.ingress[np.uintp(gateway)]
    position = sequencer.ingress_positions[np.uintp(gateway)]
    words = words_at(row["words"], row["slots"] * _WORDS)
    if state["awaited"] == 0:
        state["awaited"] = position + row["slots"] + 1
    if is_published(words, row["slots"] - 1, position) and position < state["awaited"] - 1:
        return False
    state["awaited"] = 0
    return True


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
    if ring == VENUE and target[np.uintp(base + 1)] & 0xFF == _EPOCH:
        # time commands begin behind it
        state["epoch"] = target[np.uintp(base + 4)]
        state["start_id"] = target[np.uintp(base + 7)]
        state["due_ns"] = now
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
