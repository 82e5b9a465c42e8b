"""Runs seeded streams in a process of its own and prints what came out, for `test_jit_modes`.

    NUMBA_DISABLE_JIT=1 python -m tests.matching.rerun deep 0 2

A process, because the flags of the JIT are read once, before the first kernel is decorated.
"""

from __future__ import annotations

import hashlib
import json
import sys
from dataclasses import replace
from typing import Any

import numpy as np

from hftcore.engine.matcher import FORESEE_FROM
from hftcore.matching.state_hash import book_hash, event_hash
from ipc.intrinsics import add_wrapping
from ipc.kernel import JIT, kernel
from ipc.ring import TWO_SLOTS
from tests.matching.compare import crowded, expected_events, matched_events, without_crowd
from tests.matching.driver import Setup, Venue
from tests.matching.walk import check_shard
from tests.reference.codec import encode_event
from tests.reference.streams import Profile, random_script

PROFILES = {
    "short": Profile(ladders=(2, 65, 4097), commands=100, hostile_percent=15),
    "deep": Profile(
        ladders=(12, 100, 1 << 20),
        capacities=(300,),
        commands=600,
        change_percent=25,
        patient_percent=75,
    ),
}
SETUPS = {
    "short": Setup(event_capacity=16, command_capacity=16, home_count=16, drip=True),
    "deep": Setup(event_capacity=64, home_count=64),
}
HOSTILE = Profile(first_sequence=1 << 20, hostile_percent=40, commands=400)


def outcome(profile: str, first_seed: int, count: int) -> dict[str, object]:
    """Run streams, walk their final state; return hashes of all events and of all books."""
    equal = True
    books: list[int] = []
    records: list[bytes] = []
    for seed in range(first_seed, first_seed + count):
        script = random_script(seed, replace(PROFILES[profile], first_sequence=1 << 40))
        reference, venue = script.venue(), Venue(script, SETUPS[profile])
        expected = [
            encode_event(e) for command in script.commands for e in reference.apply(command)
        ]
        found = [record for _, record in venue.run(script.commands)]
        equal = equal and found == expected
        check_shard(venue.shards[0], reference, 0)
        books += [int(book_hash(venue.shards[0], number)) for number in reference.books]
        records += found
    stream = b"".join(records)
    return {
        "equals the reference": equal,
        "events": len(records),
        "digest": hashlib.sha256(stream).hexdigest(),
        "event hash": int(sum_of_hashes(np.frombuffer(stream, np.int64))),
        "book hashes": books,
        "a large shard equals the reference": large_shard_is_equal(first_seed) if JIT else True,
    }


def large_shard_is_equal(seed: int) -> bool:
    """Return whether a shard that looks ahead, at hostile commands, yields the right events."""
    script = random_script(seed, HOSTILE)
    large = crowded(script, FORESEE_FROM + 100)
    found = matched_events(large, Setup(command_capacity=64))
    return without_crowd(found) == expected_events(script)


@kernel
def sum_of_hashes(words: Any) -> Any:
    """Return the hash of events that follow each other, as an audit adds them up."""
    total = np.int64(0)
    slot = 0
    while slot * 8 < len(words):
        slots = 2 if words[slot * 8 + 1] & TWO_SLOTS else 1
        total = add_wrapping(total, event_hash(words, slot, slots))
        slot += slots
    return total


if __name__ == "__main__":
    print(json.dumps({"jit": JIT, **outcome(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))}))
