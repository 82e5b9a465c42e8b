"""The ring between real processes: order, content, stalls, deaths.

Drivers and records are in `ring_drivers`; what a child read comes back through a region of words.
The ring of 8 slots is there because everything meets in it: pads, full rings, laps.
"""

from __future__ import annotations

import ctypes
import faulthandler
import mmap
import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ipc.kernel import JIT
from ipc.region import Region, layout_hash
from ipc.ring import MAX_READERS, SLOT_WORDS, Ring, words_for
from tests.ipc.ring_drivers import (
    AT,
    BAD,
    LOST,
    PADS,
    RECORDS,
    STATE_WORDS,
    fill_batch,
    new_state,
    note_gating,
    note_tailing,
    publish_slots,
    read_gating,
    read_tailing,
    resume,
    write_batch,
    write_up_to,
)
from tests.processes import DEADLINE_S, Children, poll_until

pytestmark = pytest.mark.skipif(not JIT, reason="millions of records are for compiled code")
WORDS = layout_hash(np.dtype("<i8"))
FOR_EVER = 1 << 60
POLLS = 100
NOT_NOTED = np.zeros(0, np.int64)


class SharedRing:
    """A ring in a region, and a row of shared words for each process's state."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        with Region.create(directory, "states", 32 * STATE_WORDS * 8, layout=WORDS) as region:
            self.states = region.words.reshape(32, STATE_WORDS)

    def make(self, capacity: int, gating_readers: int) -> Ring:
        """Create the ring with gating readers 0 to n - 1, at position 0."""
        with Region.create(
            self.directory, "ring", 8 * words_for(capacity), layout=WORDS, kind="ring"
        ) as region:
            ring = Ring.create(region.words, capacity, gating_readers)
        for reader in range(gating_readers):
            ring.add_gating_reader(reader, 0)
        return ring

    def attach(self, *, writable: bool = True) -> Ring:
        """Map the ring once more, as another process does."""
        with Region.attach(self.directory, "ring", layout=WORDS, writable=writable) as region:
            return Ring.attach(region.words)


@pytest.fixture
def shared(venue_directory: Path) -> SharedRing:
    """Compile the drivers before anything forks, then make the shared words."""
    ring = Ring.local(8)
    ring.add_gating_reader(0)
    write_up_to(ring.cells, ring.words, 20, 2, 3, 1)
    read_gating(ring.cells, ring.words, 0, new_state(), 1, 1)
    resume(ring.cells, ring.words)
    return SharedRing(venue_directory)


def writer(shared: SharedRing, end: int, most: int, number: int = 1) -> Callable[[], None]:
    """Make the work of a writing child, the ring's writer `number`: continue up to `end`."""

    def work() -> None:
        ring = shared.attach()
        resume(ring.cells, ring.words)
        while write_up_to(ring.cells, ring.words, end, most, POLLS, number) < end:
            os.sched_yield()

    return work


def gating_reader(
    shared: SharedRing, reader: int, end: int, seen: Any = NOT_NOTED
) -> Callable[[], None]:
    """Make the work of a child that reads up to `end` and leaves its state in row `reader`."""

    def work() -> None:
        ring = shared.attach()
        state = shared.states[reader]
        while state[AT] < end:
            note_gating(ring.cells, ring.words, reader, state, end, POLLS, seen)
            os.sched_yield()

    return work


def read_here(ring: Ring, state: Any, end: int) -> None:
    """Read as gating reader 0 in this process, up to `end`, with a deadline."""
    deadline = time.monotonic() + DEADLINE_S
    while state[AT] < end:
        assert time.monotonic() < deadline, f"reading came to {state[AT]} of {end}"
        read_gating(ring.cells, ring.words, 0, state, end, POLLS)
        os.sched_yield()


@pytest.mark.parametrize(
    ("capacity", "end", "most"), [(8, 400_000, 2), (64, 1_000_000, 4), (4096, 3_000_000, 200)]
)
def test_ring_between_two_processes_delivers_every_record_in_order(
    shared: SharedRing, children: Children, capacity: int, end: int, most: int
) -> None:
    ring = shared.make(capacity, 1)
    child = children.fork(writer(shared, end, most))
    state = new_state()
    read_here(ring, state, end)
    assert children.exit_code(child) == 0
    assert state[BAD] == 0
    assert state[AT] == ring.position
    assert state[RECORDS] > end // 2
    assert state[PADS] > 0


def test_ring_with_two_gating_readers_and_a_tail_gives_all_of_them_the_same(
    shared: SharedRing, children: Children
) -> None:
    end = 600_000
    shared.make(256, 2)
    with Region.create(shared.directory, "seen", 3 * 8 * end, layout=WORDS) as region:
        seen = region.words.reshape(3, end)
    readers = [children.fork(gating_reader(shared, reader, end, seen[reader])) for reader in (0, 1)]
    child = children.fork(writer(shared, end, 8))
    tail = shared.attach(writable=False)
    state, out = new_state(), np.zeros(16, np.int64)

    def reached() -> bool:
        note_tailing(tail.cells, tail.words, state, out, end, POLLS, seen[2])
        os.sched_yield()
        return bool(state[AT] >= end)

    poll_until(reached, "the tailing reader to reach the end")
    assert [children.exit_code(pid) for pid in (*readers, child)] == [0, 0, 0]
    first, second = shared.states[0], shared.states[1]
    assert list(first) == list(second)
    assert first[BAD] == state[BAD] == 0
    assert first[AT] == state[AT] == tail.position
    assert np.count_nonzero(seen[0]) == first[RECORDS] + first[PADS]
    assert (seen[0] == seen[1]).all()
    read = np.flatnonzero(seen[2])
    assert len(read) == state[RECORDS] + state[PADS]
    assert (seen[2][read] == seen[0][read]).all()
    assert len(read) == np.count_nonzero(seen[0]) or state[LOST] > 0
    # On two cores the tail may have lost all of it; what still stands in the ring it reads now.
    late = new_state()
    late[AT] = np.flatnonzero(seen[0])[-50]
    note_tailing(tail.cells, tail.words, late, out, end, POLLS, seen[2])
    assert late[RECORDS] + late[PADS] >= 50 - 8
    read = np.flatnonzero(seen[2])
    assert (seen[2][read] == seen[0][read]).all()


@pytest.mark.parametrize("capacity", [8, 512])
def test_writer_killed_under_load_leaves_whole_records_and_a_successor_continues(
    shared: SharedRing, children: Children, capacity: int
) -> None:
    ring = shared.make(capacity, 1)
    state = new_state()
    pick = random.Random(capacity)
    for number in range(1, 41):
        child = children.fork(writer(shared, FOR_EVER, 2 if capacity == 8 else 100, number))
        read_here(ring, state, int(state[AT]) + pick.randrange(1, 3000))
        children.kill(child)
        read_gating(ring.cells, ring.words, 0, state, FOR_EVER, 1)
        assert state[BAD] == 0
    end = int(state[AT]) + 1000
    child = children.fork(writer(shared, end, 2, 99))
    read_here(ring, state, end)
    assert children.exit_code(child) == 0
    assert state[BAD] == 0
    assert state[AT] == ring.position


def publish_until_the_first_page(ring: Ring, first: int, end: int) -> None:
    """Publish, and die of the first store into the page of slots 0 to 63."""
    address = ctypes.c_void_p(ring.words.ctypes.data)
    assert ctypes.CDLL(None).mprotect(address, mmap.PAGESIZE, mmap.PROT_READ) == 0
    faulthandler.disable()
    publish_slots(ring.cells, ring.words, first, end)


@pytest.mark.parametrize("inside", [1, 2, 5])
def test_writer_that_dies_while_it_publishes_has_shown_nothing_of_the_batch(
    shared: SharedRing, children: Children, inside: int
) -> None:
    ring = shared.make(128, 1)
    state = new_state()
    publish_slots(ring.cells, ring.words, 0, 0)
    while ring.position < 64 - inside:
        write_batch(ring.cells, ring.words, 1, FOR_EVER, 1)
    first = ring.position
    assert first < 64, "the batch must begin in the first page of slots and end in the second"
    end, _ = fill_batch(ring.cells, ring.words, 12, FOR_EVER, 1)
    child = children.fork(lambda: publish_until_the_first_page(ring, first, end))
    assert children.exit_code(child) == -signal.SIGSEGV
    published = [position for position in range(first, end) if is_published_at(ring, position)]
    assert published == list(range(64, end)), "from the last slot to the first"

    read_gating(ring.cells, ring.words, 0, state, FOR_EVER, 5)
    assert state[AT] == first
    assert resume(ring.cells, ring.words) == first
    while ring.position < first + 300:
        write_batch(ring.cells, ring.words, 1, FOR_EVER, 2)
        read_gating(ring.cells, ring.words, 0, state, FOR_EVER, 1)
        assert state[BAD] == 0
        assert state[AT] == ring.position


def is_published_at(ring: Ring, position: int) -> bool:
    """Return whether the slot says that it holds this position."""
    return bool(ring.words[position % ring.capacity * SLOT_WORDS] == position + 1)


def test_gating_reader_stopped_under_load_holds_the_writer_and_loses_nothing(
    shared: SharedRing, children: Children
) -> None:
    capacity, end = 64, 300_000
    ring = shared.make(capacity, 1)
    reader = children.fork(gating_reader(shared, 0, end))
    child = children.fork(writer(shared, end, 4))
    for target in range(20_000, 120_000, 20_000):
        poll_until(lambda target=target: ring.cursor(0) >= target, f"the reader at {target}")
        children.stop(reader)
        # full: not even a pad and two slots fit any more
        poll_until(lambda: ring.position >= ring.cursor(0) + capacity - 2, "the ring to fill")
        held_at = ring.cursor(0)
        write_attempts = ring.position
        assert write_attempts <= held_at + capacity
        assert ring.cursor(0) == held_at
        children.go_on(reader)
    assert [children.exit_code(pid) for pid in (reader, child)] == [0, 0]
    assert shared.states[0][BAD] == 0
    assert shared.states[0][LOST] == 0
    assert shared.states[0][AT] == ring.position


def test_tailing_reader_that_is_lapped_counts_each_slot_and_reads_nothing_torn(
    shared: SharedRing, children: Children
) -> None:
    shared.make(64, 0)
    tail = shared.attach(writable=False)
    state, out = new_state(), np.zeros(16, np.int64)
    read_tailing(tail.cells, tail.words, state, out, 1, 1)  # compiles before the writer starts
    goal = shared.states[31]

    def write() -> None:
        ring = shared.attach()
        while goal[1] == 0:
            write_up_to(ring.cells, ring.words, int(goal[0]), 8, POLLS, 1)
            if goal[0] <= ring.position:
                os.sched_yield()

    child = children.fork(write)
    pick = random.Random(7)
    deadline = time.monotonic() + DEADLINE_S
    for _ in range(1000):
        # what the ring holds, so that everything may be read, or laps, that overrun the reader
        goal[0] = tail.position + pick.choice((20, 1000, 20_000))
        while state[AT] < goal[0]:
            assert time.monotonic() < deadline, f"reading came to {state[AT]} of {goal[0]}"
            # a few at a time: the writer is about a lap ahead when reading goes on
            end = min(int(goal[0]), int(state[AT]) + pick.randrange(1, 60))
            read_tailing(tail.cells, tail.words, state, out, end, 50)
            if state[AT] >= tail.position:
                os.sched_yield()
    goal[1] = 1
    assert children.exit_code(child) == 0
    assert state[RECORDS] > 0
    assert state[LOST] > 0
    taken = state[AT] - state[LOST]
    assert state[BAD] == 0
    assert state[AT] == tail.position
    assert state[RECORDS] + state[PADS] <= taken <= 2 * state[RECORDS] + state[PADS]


def test_ring_has_room_for_as_many_gating_readers_as_it_says(shared: SharedRing) -> None:
    ring = shared.make(64, MAX_READERS)
    write_up_to(ring.cells, ring.words, 1000, 4, 1000, 1)
    assert 62 <= ring.position <= 64
    states = [new_state() for _ in range(MAX_READERS)]
    for reader, state in enumerate(states):
        read_gating(ring.cells, ring.words, reader, state, 60, 10)
        assert state[BAD] == 0
    write_up_to(ring.cells, ring.words, 1000, 4, 1000, 1)
    assert ring.position >= 62 + 60
