"""The ring in one process: against a model, at its edges, and with a writer that dies half way."""

from __future__ import annotations

from collections import deque
from typing import Any

import numba
import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from ipc.errors import RingRefused
from ipc.intrinsics import store_release
from ipc.ring import (
    CLAIMED,
    CURSOR_STRIDE,
    CURSORS,
    MAX_READERS,
    NOT_GATING,
    POSITION,
    Ring,
    claim,
    words_for,
)
from tests.ipc.ring_drivers import (
    AT,
    BAD,
    LOST,
    RECORDS,
    new_state,
    read_gating,
    read_tailing,
    resume,
    wants_two,
    write_batch,
)

FAR = 1 << 60


@numba.njit
def announce(cells: Any, until: int) -> None:
    """Claim, for tests that die before they publish."""
    claim(cells, until)


@numba.njit
def tell_position(cells: Any, position: int) -> None:
    """Store the writer's position, as a writer does."""
    store_release(cells, POSITION, position)


def model_of(position: int, capacity: int) -> list[tuple[int, bool]]:
    """Return the slots of the next record: (slots, is it a record), a pad first if need be."""
    if not wants_two(position):
        return [(1, True)]
    if position % capacity == capacity - 1:
        return [(1, False), (2, True)]
    return [(2, True)]


class RingAgainstDeque(RuleBasedStateMachine):
    """One writer, one gating and one tailing reader, in any order of small steps."""

    @initialize(capacity=st.sampled_from([8, 16, 64]), gated=st.booleans())
    def start(self, capacity: int, gated: bool) -> None:
        """Make the ring; without a gating reader the writer runs freely."""
        self.ring = Ring.local(capacity)
        self.gated = gated
        if gated:
            self.ring.add_gating_reader(0)
        self.capacity = capacity
        self.unread: deque[tuple[int, bool]] = deque()
        self.written = 0  # slots
        self.held = 0  # slots that the gating reader has not released
        self.gating, self.tail = new_state(), new_state()
        self.records_read = self.tail_records = 0
        self.out = np.zeros(16, np.int64)

    @rule(records=st.integers(1, 5))
    def write(self, records: int) -> None:
        """Publish one batch, which must be as large as the room allows."""
        wrote = write_batch(self.ring.cells, self.ring.words, records, FAR, 1)
        room = self.capacity - self.held if self.gated else self.capacity
        room = min(room, records * 3)
        for done in range(records):
            slots = model_of(self.written, self.capacity)
            size = sum(count for count, _ in slots)
            if size > room:
                assert wrote == done
                break
            room -= size
            self.unread.extend(slots)
            self.written += size
            self.held += size
        else:
            assert wrote == records

    @rule(slots=st.integers(1, 9))
    def read_some(self, slots: int) -> None:
        """Read as the gating reader: exactly what the model says comes next."""
        if not self.gated:
            return
        end = int(self.gating[AT]) + slots
        while self.unread and self.written - self.held < end:
            count, is_record = self.unread.popleft()
            self.held -= count
            self.records_read += is_record
        read_gating(self.ring.cells, self.ring.words, 0, self.gating, end, 1)
        assert self.gating[AT] == self.written - self.held
        assert self.gating[RECORDS] == self.records_read

    @rule(slots=st.integers(1, 200))
    def read_behind(self, slots: int) -> None:
        """Read as the tailing reader: what it lost and what it read are all there was."""
        before = self.tail.copy()
        end = int(self.tail[AT]) + slots
        read_tailing(self.ring.cells, self.ring.words, self.tail, self.out, end, 2)
        assert self.tail[AT] <= self.written
        assert self.tail[AT] >= min(end, self.written)
        untouched = self.ring.cells[CLAIMED] <= before[AT] + self.capacity
        assert untouched == (self.tail[LOST] == before[LOST])

    @invariant()
    def nothing_is_torn_and_the_positions_agree(self) -> None:
        """Check what holds between any two steps."""
        if hasattr(self, "ring"):
            assert self.gating[BAD] == self.tail[BAD] == 0
            assert self.ring.position == self.written
            assert self.ring.cursor(0) == (self.written - self.held if self.gated else NOT_GATING)


TestRingAgainstDeque = RingAgainstDeque.TestCase
TestRingAgainstDeque.settings = settings(
    max_examples=60, stateful_step_count=40, deadline=None, print_blob=True
)


def test_writer_that_dies_before_it_tells_its_position_keeps_what_it_published() -> None:
    ring = Ring.local(8)
    state = new_state()
    ring.add_gating_reader(0)
    write_batch(ring.cells, ring.words, 2, FAR, 1)
    end = ring.position
    tell_position(ring.cells, 0)
    assert resume(ring.cells, ring.words) == end == ring.position
    read_gating(ring.cells, ring.words, 0, state, FAR, 1)
    assert state[AT] == end
    assert state[BAD] == 0


def test_writer_that_dies_laps_after_it_told_its_position_keeps_what_it_published() -> None:
    ring = Ring.local(8)
    while ring.position < 100:
        write_batch(ring.cells, ring.words, 2, FAR, 1)
    end = ring.position
    tell_position(ring.cells, 3)
    assert resume(ring.cells, ring.words) == end


@pytest.mark.parametrize(("told", "claimed"), [(-1, 4), (5, 4), (4, 1 << 62), (0, 40)])
def test_writer_whose_cells_cannot_be_is_not_resumed(told: int, claimed: int) -> None:
    ring = Ring.local(8)
    write_batch(ring.cells, ring.words, 2, FAR, 1)
    ring.cells[POSITION], ring.cells[CLAIMED] = told, claimed
    before = ring.cells.copy(), ring.words.copy()
    with pytest.raises(AssertionError):
        resume(ring.cells, ring.words)
    assert (ring.cells == before[0]).all()
    assert (ring.words == before[1]).all()


def test_record_that_is_being_overwritten_is_an_overrun_while_its_sequence_still_stands() -> None:
    ring = Ring.local(8)
    state, out = new_state(), np.zeros(16, np.int64)
    while ring.position < 5:
        write_batch(ring.cells, ring.words, 1, FAR, 1)
    end = ring.position
    announce(ring.cells, 8)  # the last lap but one is given up, this one is not
    read_tailing(ring.cells, ring.words, state, out, 1, 1)
    assert state[AT] > 0
    state = new_state()
    announce(ring.cells, 9)  # now slot 0 is, and the writer has come as far as its fourth word
    ring.words[3] = 4711
    read_tailing(ring.cells, ring.words, state, out, 1, 1)
    assert (state[RECORDS], state[BAD], state[LOST], state[AT]) == (0, 0, end, end)


def test_tailing_reader_without_a_newer_position_counts_no_loss() -> None:
    ring = Ring.local(8)
    state, out = new_state(), np.zeros(16, np.int64)
    write_batch(ring.cells, ring.words, 1, FAR, 1)
    announce(ring.cells, 100)  # the writer means to run far ahead, and has not said a word
    state[AT] = position = ring.position
    read_tailing(ring.cells, ring.words, state, out, FAR, 10)
    assert state[AT] == position
    assert state[LOST] == 0


@pytest.mark.parametrize("capacity", [0, 4, 12, -8])
def test_ring_of_a_capacity_that_is_no_power_of_two_is_refused(capacity: int) -> None:
    with pytest.raises(RingRefused, match="expected: a power of two of at least 8 slots"):
        Ring.local(capacity)


def test_ring_in_too_little_memory_is_refused() -> None:
    with pytest.raises(RingRefused, match=f"expected: {words_for(64)} words; found: 1000 words"):
        Ring.create(np.zeros(1000, np.int64), 64)


@pytest.mark.parametrize("capacity", [0, 1 << 20, 9, -8])
def test_memory_without_a_ring_is_refused(capacity: int) -> None:
    memory = np.zeros(words_for(8), np.int64)
    memory[0] = capacity
    with pytest.raises(RingRefused, match="there is no ring in this memory"):
        Ring.attach(memory)


@pytest.mark.parametrize("reader", [-1, 2, 29, 100])
def test_reader_of_a_number_that_the_ring_lacks_is_refused(reader: int) -> None:
    ring = Ring.local(8, readers=2)
    before = ring.cells.copy()
    for attempt in (ring.add_gating_reader, ring.remove_gating_reader):
        with pytest.raises(RingRefused, match="expected: a reader below 2; found: "):
            attempt(reader)
    assert (ring.cells == before).all()


@pytest.mark.parametrize("readers", [-1, MAX_READERS + 1])
def test_ring_of_a_number_of_readers_that_has_no_room_is_refused(readers: int) -> None:
    with pytest.raises(RingRefused, match=f"expected: 0 to {MAX_READERS}; found: {readers}"):
        Ring.local(8, readers)


def test_adding_a_reader_writes_its_own_cursor_and_no_other_cell() -> None:
    ring = Ring.local(8)
    before = ring.cells.copy()
    ring.add_gating_reader(3, 5)
    assert np.flatnonzero(ring.cells != before).tolist() == [CURSORS + 3 * CURSOR_STRIDE]
    assert (ring.readers, ring.cursor(3)) == (4, 5)


def test_reader_that_would_begin_where_the_writer_has_been_since_is_refused() -> None:
    ring = Ring.local(8)
    while ring.position < 20:
        write_batch(ring.cells, ring.words, 1, FAR, 1)
    oldest = int(ring.cells[CLAIMED]) - 8
    with pytest.raises(
        RingRefused, match=f"expected: a position from {oldest} on; found: {oldest - 1}"
    ):
        ring.add_gating_reader(0, oldest - 1)
    assert ring.cursor(0) == NOT_GATING
    ring.add_gating_reader(0, oldest)
    assert ring.cursor(0) == oldest


def test_claim_of_less_than_was_claimed_takes_nothing_back() -> None:
    ring = Ring.local(8)
    announce(ring.cells, 7)
    announce(ring.cells, 5)
    assert ring.cells[CLAIMED] == 7


def test_view_of_slots_through_a_dtype_of_another_size_is_refused() -> None:
    with pytest.raises(RingRefused, match="expected: 64 bytes; found: 16 bytes"):
        Ring.local(8).view(np.dtype([("a", "<i8"), ("b", "<i8")]))


def test_gating_reader_that_is_removed_no_longer_holds_the_writer() -> None:
    ring = Ring.local(8)
    ring.add_gating_reader(3)
    for _ in range(20):
        write_batch(ring.cells, ring.words, 1, FAR, 1)
    assert ring.position <= 8
    ring.remove_gating_reader(3)
    for _ in range(20):
        write_batch(ring.cells, ring.words, 1, FAR, 1)
    assert ring.position > 20
