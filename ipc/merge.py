"""Several streams, each in sequence order, read as one: who is next, and up to where all is known.

Each stream is a ring whose records carry their sequence in word 2, with a line beside it (see
`ipc.ring_table`) whose first word is a promise of its writer: every record up to this sequence is
published. A record may be taken when no other stream can still bring an earlier one: each of them
shows a later record, or has promised as much.

The promise is read before the ring is found empty: in the other order a record could appear, and
the promise rise, between the two looks. Records of one sequence lie on one stream, all in a row.
With one stream there is nothing to wait for, and its promise, a line that its writer's core owns,
is not looked at: who reads it knows from the records how far it is.

Comes after `ipc.ring_table`; before the sequencer's settlement and the reporter, which both fold
all shards' events.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ipc.intrinsics import load_acquire
from ipc.kernel import kernel
from ipc.ring import PAD, SLOT_WORDS, is_published
from ipc.ring_table import BESIDE_WORDS, words_at

NO_STREAM = -1
NO_PROMISE = -1
_NO_BOUND = np.int64(1 << 62)
_SEQUENCE_WORD = 2


@kernel
def next_stream(table: Any, positions: Any) -> tuple[int, int, int]:
    """Find the stream whose next record comes first.

    Parameters
    ----------
    table : RING_ROW[n]
        The streams, each with a promise beside it.
    positions : int64[n]
        Of the next record of each; moved over pads.

    Returns
    -------
    (stream, until, passed)
        NO_STREAM when no record can be taken yet. Of the stream, records up to the sequence `until`
        may be taken in a row. Every record up to the sequence `passed` has been taken; of a single
        stream that has nothing, that is not looked up: NO_PROMISE.
    """
    stream = np.int64(NO_STREAM)
    first = _NO_BOUND  # sequence of the earliest record that is there
    second = _NO_BOUND  # of the earliest on another stream than that
    bound = _NO_BOUND  # what the empty streams have promised, the least of them
    for each in range(len(table)):
        row = table[np.uintp(each)]
        words = words_at(row["words"], row["slots"] * SLOT_WORDS)
        mask = row["slots"] - 1
        position = positions[np.uintp(each)]
        promised = np.int64(NO_PROMISE)
        there = is_published(words, mask, position)
        if there and words[np.uintp((position & mask) * SLOT_WORDS + 1)] == PAD:
            position += 1
            positions[np.uintp(each)] = position
            there = is_published(words, mask, position)
        if not there and len(table) > 1:
            # acquire: pairs with the writer's store; the records that it promises are published,
            # so the ring is looked at again
            promised = load_acquire(words_at(row["beside"], BESIDE_WORDS), 0)
            there = is_published(words, mask, position)
            if there and words[np.uintp((position & mask) * SLOT_WORDS + 1)] == PAD:
                position += 1
                positions[np.uintp(each)] = position
                there = is_published(words, mask, position)
        if not there:
            bound = min(bound, promised)
            continue
        sequence = words[np.uintp((position & mask) * SLOT_WORDS + _SEQUENCE_WORD)]
        if sequence < first:
            second = first
            first = sequence
            stream = np.int64(each)
        else:
            second = min(second, sequence)
    assert stream == NO_STREAM or first < second  # records of one sequence lie on one stream
    if first > bound:
        stream = np.int64(NO_STREAM)
    return stream, min(second - 1, bound), min(first - 1, bound)
