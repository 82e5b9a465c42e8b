"""The ring suite checks what it measures: one spoiled message of a run is found in every case."""

from __future__ import annotations

import os

import numpy as np
import pytest

from ipc.ring import SLOT_WORDS, Ring
from perf import bench, ring_kernels, ring_suite
from perf.harness import Options

SMOKE = Options(smoke=True)
IN_SLOT_CASES = tuple(case for case in ring_suite.CASES if case != "index-ring")


def test_smoke_run_holds_and_has_a_row_for_every_case() -> None:
    result = ring_suite.run(SMOKE)
    assert {row.case.split("/")[0] for row in result.rows} == set(ring_suite.CASES)
    assert result.holds
    for row, verdict in result.verdicts:
        on_content = "every" in verdict.what or "received" in verdict.what
        assert verdict.held is (True if on_content else None), (row.case, verdict)


@pytest.mark.parametrize("case", ring_suite.CASES)
def test_one_spoiled_message_fails_the_case(case: str) -> None:
    result = ring_suite.run(Options(case=case, smoke=True, corrupt=True))
    missed = [verdict for _, verdict in result.verdicts if verdict.held is False]
    assert missed, "a spoiled message went unnoticed"
    assert all(verdict.wanted == "0 wrong" for verdict in missed)
    assert not result.holds


@pytest.mark.parametrize("case", ["two-readers", "tailing"])
def test_readers_on_cpus_of_their_own_read_everything_too(case: str) -> None:
    # the writer and the second reader share a cpu here: slow, but the path of three cpus
    first, second = sorted(os.sched_getaffinity(0))[:2]
    result = ring_suite.run(Options(case=case, smoke=True, cpus=(first, second, first)))
    assert result.rows[0].as_json()["readers"] == "one cpu each"
    assert result.holds


@pytest.mark.parametrize("word", range(1, SLOT_WORDS))
def test_a_wrong_bit_in_any_word_of_a_message_is_counted(word: int) -> None:
    ring = Ring.local(64)
    ring.add_gating_reader(0, NO_BACK_PRESSURE)
    ring_kernels.write_each(ring.cells, ring.words, 20)
    ring.words[7 * SLOT_WORDS + word] ^= 1 << 40
    ring.add_gating_reader(0, 0)
    assert ring_kernels.read_checked(ring.cells, ring.words, 0, 20) == 1


def test_a_message_of_an_earlier_lap_is_counted_as_wrong() -> None:
    ring = Ring.local(64)
    ring.add_gating_reader(0, NO_BACK_PRESSURE)
    ring_kernels.write_each(ring.cells, ring.words, 64)
    payload = ring.words.reshape(64, SLOT_WORDS)[5, 1:].copy()
    ring_kernels.write_batches(ring.cells, ring.words, 64, 16)
    ring.words.reshape(64, SLOT_WORDS)[5, 1:] = payload
    ring.add_gating_reader(0, 64)
    assert ring_kernels.read_checked(ring.cells, ring.words, 0, 64) == 1


def test_a_lapped_tailing_reader_counts_what_it_lost() -> None:
    ring = Ring.local(64)
    ring.add_gating_reader(0, NO_BACK_PRESSURE)
    ring_kernels.write_batches(ring.cells, ring.words, 1_000, 16)
    answer = ring_kernels.tail(ring.cells, ring.words, 0, 1_000, ring_kernels.new_copy())
    _, received, lost, wrong = answer
    assert (received + lost, wrong) == (1_000, 0)
    assert 0 < received <= ring.capacity


def test_positions_go_on_over_the_writers_of_one_ring() -> None:
    ring = Ring.local(64)
    ring.add_gating_reader(0, NO_BACK_PRESSURE)
    ring_kernels.write_each(ring.cells, ring.words, 10)
    ring_kernels.write_batches(ring.cells, ring.words, 10, 4)
    ring_kernels.write_spoiled(ring.cells, ring.words)
    assert ring.position == 21
    assert np.array_equal(ring.words[::SLOT_WORDS][:21], np.arange(1, 22))


def test_an_unknown_case_is_refused_with_the_known_ones() -> None:
    with pytest.raises(bench.UsageRefused, match="throughput-each, throughput-16"):
        ring_suite.run(Options(case="througput"))


NO_BACK_PRESSURE = 1 << 40
"""A cursor far ahead: the writers above do not wait for a reader that comes later."""
