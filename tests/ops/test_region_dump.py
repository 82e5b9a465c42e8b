"""`hft dump` on shared memory: rings as a tailing reader sees them, counters, cells, histograms."""

from __future__ import annotations

import json
import os
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hftcore import messages
from hftcore.errors import Refused, UsageRefused
from hftcore.ops import dump
from hftcore.ops.decode import STREAMS, Stream
from hftcore.ops.region_dump import first_record, readable_slots
from ipc import counters, histogram, latest
from ipc.directory import venue_directory
from ipc.errors import RegionRefused
from ipc.header import layout_hash
from ipc.intrinsics import load_relaxed, store_release
from ipc.kernel import kernel
from ipc.region import Region
from ipc.ring import CLAIMED, POSITION, SLOT_WORDS, Ring, claim, publish, words_for
from tests.ops.test_dump import accepted, event, lines, new_order, slot, trade


@pytest.fixture
def venue(tmp_path: Path) -> Path:
    return venue_directory("dumped", base=tmp_path / "venues")


def write(ring: Ring, record: bytes) -> None:
    """Publish one record, as a writer of one process would: pad, claim, fill, publish."""
    words = np.frombuffer(record, np.int64)
    slots = len(words) // SLOT_WORDS
    position = ring.position
    if slots == 2 and position % ring.capacity == ring.capacity - 1:
        write(ring, bytes(64))
        position += 1
    ring.cells[CLAIMED] = position + slots
    first = position % ring.capacity * SLOT_WORDS
    ring.words[first : first + len(words)] = words
    for number in range(slots):
        ring.words[first + number * SLOT_WORDS] = position + number + 1
    ring.cells[POSITION] = position + slots


def ring_region(venue: Path, capacity: int, kind: str = "ring commands") -> tuple[Region, Ring]:
    region = Region.create(
        venue, "stream", words_for(capacity) * 8, layout=layout_hash(messages.NEW_ORDER), kind=kind
    )
    return region, Ring.create(region.words, capacity)


def printed(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return lines(capsys.readouterr().out)


def test_a_ring_is_printed_with_its_cursors_and_the_records_still_in_it(
    venue: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    region, ring = ring_region(venue, 8)
    with region:
        for sequence in range(1, 4):
            write(ring, new_order(sequence))
        ring.add_gating_reader(2, 4)
        before = region.words.copy()
        dump.main(str(region.path), json=True)
        assert (region.words == before).all()
        heading, *records = printed(capsys)
        assert (heading["kind"], heading["capacity"], heading["position"]) == (
            "ring commands",
            8,
            6,
        )
        assert heading["cursors"] == {"2": 4}
        assert heading["creator_pid"] == os.getpid()
        assert [(record["at"], record["sequence"]) for record in records] == [
            (0, 1),
            (2, 2),
            (4, 3),
        ]
        dump.main(str(region.path))
        assert "reader 2: cursor=4 lag=2" in capsys.readouterr().out


@pytest.mark.parametrize("stream", STREAMS)
def test_a_ring_is_known_by_the_layout_of_its_stream_whatever_its_kind_says(
    venue: Path, capsys: pytest.CaptureFixture[str], stream: Stream
) -> None:
    # as bytes, an epoch's record is no event of that number of slots, and a watermark no command
    kind = messages.CommandKind.EPOCH if stream == "commands" else messages.EventKind.WATERMARK
    size = words_for(8) * 8
    layout = messages.stream_layout(stream)
    with Region.create(venue, "stream", size, layout=layout, kind="whatever") as region:
        write(Ring.create(region.words, 8), slot(messages.VENUE_STATE, kind=kind, sequence=1))
        dump.main(str(region.path), json=True)
    heading, record = printed(capsys)
    assert (heading["kind"], record["kind"]) == ("whatever", kind.name)


def test_an_empty_ring_is_printed_without_records(
    venue: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    region, _ = ring_region(venue, 8, kind="ring")
    with region:
        dump.main(str(region.path), json=True)
    (heading,) = printed(capsys)
    assert (heading["position"], heading["readable_from"]) == (0, 0)


@pytest.mark.parametrize("singles", range(1, 20))
def test_a_lapped_ring_is_printed_from_a_record_that_is_whole(
    venue: Path, capsys: pytest.CaptureFixture[str], singles: int
) -> None:
    region, ring = ring_region(venue, 16, kind="ring events")
    with region:
        for sequence in range(1, singles + 1):
            write(ring, event(messages.EventKind.BOOKED, sequence, 0, messages.Flags.LAST))
        for sequence in range(singles + 1, singles + 30):
            write(ring, accepted(sequence, messages.Flags.LAST))
        dump.main(str(region.path), json=True)
    heading, *rest = printed(capsys)
    sequences = [line["sequence"] for line in rest if line.get("kind", "PAD") != "PAD"]
    # every record that is still whole, up to the last one, and never a slot B read as a record
    assert sequences == list(range(sequences[0], singles + 30))
    assert len(sequences) >= 7
    assert heading["readable_from"] == heading["position"] - 16


def test_slots_that_are_claimed_again_are_not_read() -> None:
    ring = Ring.local(8)
    for sequence in range(1, 5):
        write(ring, new_order(sequence))
    assert readable_slots(ring)[0] == 0
    ring.cells[CLAIMED] = 11  # the writer has begun to overwrite positions 0 to 2
    first, slots = readable_slots(ring)
    assert (first, len(slots)) == (3, 5)
    assert first_record(slots, first, 8, "commands") == 1
    ring.words[: 3 * SLOT_WORDS : SLOT_WORDS] = 0
    assert readable_slots(ring)[0] == 3


@kernel
def write_positions(cells: Any, words: Any, mask: int, stop: Any) -> None:
    """Publish slots that hold nothing but their own position, one at a time, until told to stop."""
    position = cells[POSITION]
    while load_relaxed(stop, 0) == 0:
        claim(cells, position + 1)
        for word in range(1, SLOT_WORDS):
            words[(position & mask) * SLOT_WORDS + word] = position
        publish(words, mask, position, position + 1)
        position += 1
        store_release(cells, POSITION, position)


def test_no_slot_is_torn_while_the_writer_laps_the_ring() -> None:
    # a small ring: the slots that are copied are those that the writer is about to overwrite
    ring = Ring.local(8)
    stop = np.zeros(1, np.int64)
    writer = threading.Thread(
        target=write_positions, args=(ring.cells, ring.words, 7, stop), daemon=True
    )
    writer.start()
    deadline = time.monotonic() + 20
    moved, before = 0, 0
    while moved < 2_000 and time.monotonic() < deadline:
        first, slots = readable_slots(ring)
        words = slots.view(np.int64)
        positions = first + np.arange(len(words))
        assert (words[:, 0] == positions + 1).all()
        assert (words[:, 1:] == positions[:, None]).all()
        moved += first != before
        before = first
    stop[0] = 1
    writer.join()
    assert moved > 0
    first, slots = readable_slots(ring)
    assert (first, len(slots)) == (ring.position - 8, 8)


def test_published_slots_beyond_the_position_that_was_told_are_read() -> None:
    ring = Ring.local(8)
    write(ring, new_order(1))
    ring.cells[POSITION] = 0  # the writer died after it published
    first, slots = readable_slots(ring)
    assert (first, len(slots)) == (0, 2)


def test_where_both_cuts_hold_printing_begins_where_they_meet() -> None:
    # slots that read as whole records from either slot: B of the first is itself an event
    inner = event(messages.EventKind.BOOKED, 1, 0)
    outer = accepted(1)[:64] + inner
    ambiguous = np.frombuffer(outer + inner + trade(2, 0), np.uint8).reshape(-1, 64)
    assert first_record(ambiguous, 3, 8, "events") == 2
    # nothing fits: begin with the next lap
    noise = np.full((6, 64), 77, np.uint8)
    assert first_record(noise, 3, 8, "events") == 5
    assert first_record(noise, 8, 8, "events") == 0


def test_counters_are_printed_by_name(venue: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = ["commands", "events"]
    size = counters.words_for(2) * 8
    with Region.create(venue, "counted", size, layout=counters.LAYOUT, kind="counters") as region:
        made = counters.Counters.create(region.words, names)
        made.words[8] = 42
        dump.main(str(region.path), json=True)
        _, *values = printed(capsys)
        assert values == [{"counter": "commands", "value": 0}, {"counter": "events", "value": 42}]
        dump.main(str(region.path))
        assert "                  42  events\n" in capsys.readouterr().out


def test_a_histogram_is_printed_as_percentiles(
    venue: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    size = histogram.CELL_WORDS * 8
    with Region.create(venue, "latency", size, layout=histogram.LAYOUT) as region:
        for value in range(100):
            histogram.record(region.words, value)
        dump.main(str(region.path), json=True)
    _, facts = printed(capsys)
    assert (facts["count"], facts["minimum"], facts["maximum"]) == (100, 0, 99)
    assert (facts["p50"], facts["p99"]) == (49, 98)


def test_a_latest_cell_is_printed_as_its_record(
    venue: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    layout = layout_hash(messages.EVENT)
    with Region.create(
        venue, "top", latest.words_for(8) * 8, layout=layout, kind="latest top of book"
    ) as region:
        dump.main(str(region.path), json=True)
        assert printed(capsys)[1] == {"latest": "never written"}
        row = np.zeros(1, messages.EVENT)
        row["price"] = 10_050
        latest.Latest(region.words, messages.EVENT).write(row)
        dump.main(str(region.path), json=True)
        heading, cell = printed(capsys)
        assert (heading["version"], cell["latest"]["price"]) == (2, 10_050)


def test_a_region_is_named_by_venue_and_name_and_the_known_ones_are_listed(
    tmp_path: Path,
    venue: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("hftcore.ops.region_dump.default_base", lambda: tmp_path / "venues")
    region, ring = ring_region(venue, 8)
    with region:
        write(ring, new_order(1))
        dump.main("dumped/stream", json=True)
        assert printed(capsys)[1]["sequence"] == 1
        with pytest.raises(UsageRefused, match="dumped/stream") as refused:
            dump.main("dumped/streams")
    assert refused.value.found == "dumped/streams"


def test_a_region_that_cannot_be_trusted_or_understood_is_refused(venue: Path) -> None:
    with Region.create(venue, "strange", 64, layout=5, kind="else") as region:
        with pytest.raises(Refused, match="can't be printed") as refused:
            dump.main(str(region.path))
        assert refused.value.found == "kind 'else', layout 0x5"
        os.truncate(region.path, 4096)
        with pytest.raises(RegionRefused, match="truncated"):
            dump.main(str(region.path))
        os.chmod(region.path, 0o644)
        with pytest.raises(RegionRefused, match="open to other users"):
            dump.main(str(region.path))


def test_the_heading_in_text_says_what_json_says(
    venue: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    region, _ = ring_region(venue, 8)
    with region:
        dump.main(str(region.path))
        text = capsys.readouterr().out
        dump.main(str(region.path), json=True)
        heading = json.loads(capsys.readouterr().out)
    del heading["cursors"]
    assert text == "  ".join(f"{key}={value}" for key, value in heading.items()) + "\n"
