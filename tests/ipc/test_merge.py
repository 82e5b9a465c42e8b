"""Several streams read as one: the order of a sort, whatever the writers' interleaving.

The writers are as the matchers: records in sequence order, all of a sequence on one stream in a
row, a promise that never runs ahead of what is published. What is taken must be the sorted whole,
and nothing may be taken while a stream could still bring something earlier.
"""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest

from ipc.merge import NO_STREAM, next_stream
from ipc.ring import SLOT_WORDS, Ring
from ipc.ring_table import BESIDE_WORDS, table_of
from tests.engine.rig import Reader, Writer
from tests.matching.compare import seeds

Record = tuple[int, int]
"""Sequence and number within it."""


class Stream:
    """One writer with its ring, its promise, and the records that it will publish."""

    def __init__(self, capacity: int) -> None:
        self.ring = Ring.local(capacity, 1)
        self.reader = Reader(self.ring, 0)
        self.writer = Writer(self.ring)
        self.promise = np.zeros(BESIDE_WORDS, np.int64)
        self.plan: list[tuple[Record, int]] = []
        self.published: list[Record] = []

    def write(self) -> bool:
        """Publish the next record of the plan, if there is room."""
        if not self.plan:
            return False
        (sequence, number), slots = self.plan[0]
        words = np.zeros(SLOT_WORDS * slots, np.int64)
        words[1] = 1 | (slots - 1) << 15
        words[2], words[3] = sequence, number
        if not self.writer.try_write(words.tobytes()):
            return False
        self.published.append(self.plan.pop(0)[0])
        return True

    def most_promised(self, last: int) -> int:
        """Return the most that may be promised: all before the next record of the plan."""
        return self.plan[0][0][0] - 1 if self.plan else last


def planned(random_: random.Random, streams: int, sequences: int) -> list[Stream]:
    """Deal sequences out over the streams, with gaps and several records each."""
    found = [Stream(random_.choice((8, 16, 64))) for _ in range(streams)]
    sequence = 0
    for _ in range(sequences):
        sequence += random_.choice((1, 1, 1, 2, 5))
        stream = random_.choice(found)
        for number in range(random_.choice((1, 1, 2, 7))):
            stream.plan.append(((sequence, number), random_.choice((1, 2))))
    return found


def take(streams: list[Stream], table: Any, positions: Any, budget: int) -> list[Record]:
    """Take records as a role does; return them. `passed` must be true."""
    taken: list[Record] = []
    while True:
        number, until, passed = map(int, next_stream(table, positions))
        for stream in streams:
            # all that is published by now, or still to come, of what is said to have passed
            left = stream.published[:1] + [record for record, _ in stream.plan[:1]]
            assert all(record[0] > passed for record in left), "something earlier was left behind"
        if number == NO_STREAM or len(taken) >= budget:
            return taken
        stream = streams[number]
        before = len(taken)
        stream.reader.position = int(positions[number])
        while stream.published and stream.published[0][0] <= until and len(taken) < budget:
            record = stream.reader.take()
            assert record is not None
            words = np.frombuffer(record, np.int64)
            assert (int(words[2]), int(words[3])) == stream.published[0]
            taken.append(stream.published.pop(0))
        positions[number] = stream.reader.position
        assert len(taken) > before, "a stream was named, and nothing of it may be taken"


@pytest.mark.parametrize("streams", [1, 2, 3, 5])
def test_any_interleaving_of_writers_is_read_in_sequence_order(streams: int) -> None:
    for seed in seeds(40):
        random_ = random.Random(seed * 10 + streams)
        found = planned(random_, streams, 60)
        last = max(record[0] for stream in found for record, _ in stream.plan)
        expected = sorted(record for stream in found for record, _ in stream.plan)
        table = table_of([stream.ring for stream in found], [stream.promise for stream in found])
        positions = np.zeros(streams, np.int64)
        taken: list[Record] = []
        for _ in range(20_000):
            stream = random_.choice(found)
            for _ in range(random_.choice((0, 1, 1, 5))):
                stream.write()
            if random_.random() < 0.4:
                most = stream.most_promised(last)
                stream.promise[0] = random_.randint(int(stream.promise[0]), max(most, 0))
            if random_.random() < 0.5:
                taken += take(found, table, positions, random_.choice((1, 3, 1000)))
            if not any(stream.plan for stream in found):
                break
        for stream in found:
            while stream.plan:
                assert stream.write()
            stream.promise[0] = last
        taken += take(found, table, positions, 1 << 20)
        assert taken == expected, f"seed {seed}"


def wired(*sequences: list[int]) -> tuple[list[Stream], Any, Any]:
    """Return streams that have published records of one slot with these sequences."""
    streams = []
    for each in sequences:
        stream = Stream(8)
        stream.plan = [((sequence, 0), 1) for sequence in each]
        while stream.write():
            pass
        streams.append(stream)
    table = table_of([stream.ring for stream in streams], [stream.promise for stream in streams])
    return streams, table, np.zeros(len(streams), np.int64)


def test_record_waits_until_every_other_stream_has_promised_or_shown_a_later_one() -> None:
    streams, table, positions = wired([5], [], [9])
    for promise, stream in ((0, NO_STREAM), (4, NO_STREAM), (5, 0), (8, 0)):
        streams[1].promise[0] = promise
        found, until, passed = next_stream(table, positions)
        assert found == stream
        assert passed == min(promise, 4)
        if stream == 0:
            assert until == promise, "records up to the bound may be taken in a row"
    streams[1].promise[0] = 100
    assert next_stream(table, positions) == (0, 8, 4)


def test_single_stream_waits_for_nobody() -> None:
    _, table, positions = wired([5, 6])
    found, until, passed = next_stream(table, positions)
    assert (found, passed) == (0, 4)
    assert until >= 6


def test_empty_streams_have_passed_what_the_least_of_them_promised() -> None:
    streams, table, positions = wired([], [], [])
    for stream, promise in zip(streams, (7, 3, 9), strict=True):
        stream.promise[0] = promise
    assert next_stream(table, positions)[0] == NO_STREAM
    assert next_stream(table, positions)[2] == 3


def test_pad_before_a_record_is_passed_over() -> None:
    stream = Stream(8)
    stream.plan = [((1, i), 1) for i in range(7)] + [((2, 0), 2)]
    for _ in range(7):
        assert stream.write()
    stream.reader.take_all()
    assert stream.write()  # after a pad
    table = table_of([stream.ring], [stream.promise])
    positions = np.array([7])
    found, _, passed = next_stream(table, positions)
    assert (found, passed, positions.tolist()) == (0, 1, [8])
