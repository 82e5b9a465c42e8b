"""LOBSTER files: what is read, and what is refused with row, column, offset, expected and found."""

from __future__ import annotations

import shutil
import tempfile
import zipfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hftcore.errors import RecordingRefused, Refused, UsageRefused
from hftcore.marketdata.lobster import open_recording
from hftcore.marketdata.sources import open_source
from tests.marketdata.recordings import ROWS, lobster_pair


@pytest.fixture
def pair(tmp_path: Path) -> Path:
    """Return the message file of a small pair."""
    return lobster_pair(tmp_path, ROWS)


def book_of(message_file: Path) -> Path:
    """Return the order book file beside a message file."""
    return message_file.with_name(message_file.name.replace("message", "orderbook"))


def archive(message_file: Path, path: Path) -> Path:
    """Pack a pair as LOBSTER does."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        for file in (message_file, book_of(message_file)):
            packed.write(file, file.name)
    return path


def refused(path: Path) -> RecordingRefused:
    """Return the refusal of a recording."""
    with pytest.raises(RecordingRefused) as caught:
        open_recording(path)
    return caught.value


def test_pair_is_read_whichever_file_is_named(pair: Path, tmp_path: Path) -> None:
    packed = archive(pair, tmp_path / "packed.zip")
    for path in (pair, book_of(pair), packed):
        recording = open_recording(path)
        assert (recording.symbol, recording.levels) == ("TEST", 2)
        assert recording.messages.shape == (15, 6)
        assert recording.messages[4].tolist() == [34_200 * 10**9 + 4, 4, 4, 10, 1_000_200, -1]
        assert recording.depth(3, 4).tolist() == [
            [[[1_000_000, 150], [0, 0]], [[1_000_200, 30], [1_000_300, 70]]]
        ]
        assert recording.notes == ()


@pytest.mark.parametrize(
    ("written", "nanoseconds"),
    [
        ("34200", 34_200_000_000_000),
        ("34200.5", 34_200_500_000_000),
        ("34200.017459617", 34_200_017_459_617),
        ("34200.632812672004", 34_200_632_812_672),
    ],
)
def test_time_is_read_exactly(pair: Path, written: str, nanoseconds: int) -> None:
    pair.write_text(pair.read_text().replace("34200.000000000", written, 1))
    assert open_recording(pair).messages[0, 0] == nanoseconds


def test_carriage_returns_and_a_missing_last_line_end_are_read(pair: Path) -> None:
    pair.write_bytes(pair.read_bytes().replace(b"\n", b"\r\n"))
    book_of(pair).write_bytes(book_of(pair).read_bytes()[:-1])
    recording = open_recording(pair)
    assert len(recording.messages) == 15
    assert recording.notes == ("TEST_2012-06-21_orderbook_2.csv: the last row has no line end",)


MESSAGE_FAULTS = [
    (3, "34200.000000002,1,3,70,1000300,-1\rx", 6, "direction", "a line feed", "'x'"),
    (3, "34200.000000002,1,3,7O,1000300,-1", 4, "size", "a whole number", "'O'"),
    (3, "34200.000000002,1,3,,1000300,-1", 4, "size", "a whole number", "','"),
    (3, "34200.000000002,1,3,1.5,1000300,-1", 4, "size", "a whole number", "'.5'"),
    (3, "34200.000000002,1,3, 70,1000300,-1", 4, "size", "a whole number", "' 70'"),
    (3, "34200.000000002,1,3,70,1000300", 5, "price", "6 columns", "the end of the row"),
    (3, "34200.000000002,1,3,70,1000300,-1,9", 6, "direction", "6 columns, then", "','"),
    (3, "34200.,1,3,70,1000300,-1", 1, "time", "seconds", "','"),
    (3, "abc,1,3,70,1000300,-1", 1, "time", "seconds", "'abc'"),
    (3, "", 1, "time", "seconds", "the end of the row"),
    (3, "34200.000000002,1,3,1234567890123456789,1,1", 4, "size", "at most 18 digits", "'12345"),
    (3, "86400.0,1,3,70,1000300,-1", 1, "time", "below 86400", "86400000000000"),
    (3, "34200.000000002,8,3,70,1000300,-1", 2, "type", "a type of 1 to 7", "8"),
    (3, "34200.000000002,1,0,70,1000300,-1", 3, "order id", "an order id", "0"),
    (3, "34200.000000002,1,3,0,1000300,-1", 4, "size", "a size of 1 to", "0"),
    (3, "34200.000000002,4,3,-70,1000300,-1", 4, "size", "a size of 1 to", "-70"),
    (3, "34200.000000002,1,3,70,0,-1", 5, "price", "a price of 1 to", "0"),
    (3, "34200.000000002,1,3,70,2000000001,-1", 5, "price", "a price of 1 to", "2000000001"),
    (3, "34200.000000002,1,3,70,1000300,0", 6, "direction", "a direction of 1 or -1", "0"),
    (1, "34200.000000002,1,3,70,1000300,2", 6, "direction", "a direction of 1 or -1", "2"),
]


@pytest.mark.parametrize(("row", "line", "column", "name", "expected", "found"), MESSAGE_FAULTS)
def test_damaged_message_names_row_column_and_offset(
    pair: Path, row: int, line: str, column: int, name: str, expected: str, found: str
) -> None:
    lines = pair.read_text().splitlines()
    lines[row - 1] = line
    pair.write_text("\n".join(lines) + "\n")
    refusal = refused(pair)
    before = len("\n".join(lines[: row - 1])) + (row > 1)
    at = int(refusal.where.rpartition("offset ")[2])
    assert f"row {row}, column {column} ({name}), offset" in refusal.where
    assert before <= at <= before + len(line)
    assert expected in refusal.expected
    assert refusal.found.startswith(found)


BOOK_FAULTS = [
    ("1000300,7O,1000000,150", 2, "ask size 1", "a whole number"),
    ("1000300,0,1000000,150", 2, "ask size 1", "a size of 1 to"),
    ("0,70,1000000,150", 1, "ask price 1", "a price of 1 to"),
    ("1000300,70,-1000000,150", 3, "bid price 1", "a price of 1 to"),
    ("9999999999,70,1000000,150", 2, "ask size 1", "0 where there is no level"),
]


@pytest.mark.parametrize(("start", "column", "name", "expected"), BOOK_FAULTS)
def test_damaged_order_book_names_row_column_and_offset(
    pair: Path, start: str, column: int, name: str, expected: str
) -> None:
    path = book_of(pair)
    good = "1000300,70,1000000,150"
    assert path.read_text().splitlines()[2].startswith(good)
    lines = path.read_text().splitlines()
    lines[2] = lines[2].replace(good, start)
    path.write_text("\n".join(lines) + "\n")
    refusal = refused(pair)
    assert f"orderbook_2.csv, row 3, column {column} ({name}), offset" in refusal.where
    assert expected in refusal.expected


def test_every_truncation_of_a_row_is_refused_at_its_offset(pair: Path) -> None:
    whole = pair.read_bytes()
    ends = [at + 1 for at, byte in enumerate(whole) if byte == ord("\n")]
    for size in range(1, len(whole)):
        pair.write_bytes(whole[:size])
        if size + 1 == len(whole):
            assert open_recording(pair).notes  # but for its line end the file is whole
            continue
        refusal = refused(pair)
        if size in ends or size + 1 in ends:
            assert refusal.found == f"{whole[: size + 1].count(10)} messages, 15 order books"
            assert f"message_2.csv, row {whole[: size + 1].count(10) + 1}" in refusal.where
        elif "differ in length" not in refusal.what:
            row = whole[:size].count(10) + 1
            assert f"row {row}, column" in refusal.where
            assert f"offset {size}" in refusal.where
            assert "truncated" in refusal.what


def test_order_book_of_other_columns_is_refused(pair: Path) -> None:
    book_of(pair).write_text(pair.read_text())
    refusal = refused(pair)
    assert refusal.found == "6 columns"
    assert "four columns a level" in refusal.expected


def test_archive_without_the_pair_and_damaged_archives_are_refused(
    pair: Path, tmp_path: Path
) -> None:
    path = tmp_path / "other.zip"
    with zipfile.ZipFile(path, "w") as packed:
        packed.writestr("readme.txt", "nothing")
    assert refused(path).found == "readme.txt"
    packed_bytes = archive(pair, path).read_bytes()
    path.write_bytes(packed_bytes[:-10])
    assert "whole" in refused(path).expected
    path.write_bytes(packed_bytes[:100] + b"\xff" * 8 + packed_bytes[108:])
    assert "whole" in refused(path).expected


def test_missing_file_other_name_and_empty_file_are_refused(pair: Path, tmp_path: Path) -> None:
    other = tmp_path / "prices.csv"
    other.write_text("1\n")
    assert "'message' or 'orderbook'" in refused(other).expected
    lone = tmp_path / "alone" / pair.name
    lone.parent.mkdir()
    shutil.copy(pair, lone)
    assert "the orderbook file of the pair" in refused(lone).expected
    lone.with_name(book_of(pair).name).write_text("")
    assert refused(lone).found == "0 bytes"


def test_unknown_instrument_and_format_are_named_with_the_known_ones(pair: Path) -> None:
    assert open_source(pair, "lobster", "TEST").instruments[0].symbol == "TEST"
    with pytest.raises(UsageRefused) as caught:
        open_source(pair, "lobster", "BEST")
    assert (caught.value.expected, caught.value.found) == ("one of TEST", "BEST")
    with pytest.raises(UsageRefused) as caught:
        open_source(pair, "pcap", None)
    assert (caught.value.expected, caught.value.found) == ("one of itch, lobster", "pcap")


def replayed(path: Path) -> int | Refused:
    """Open and convert a recording; its rows, or the refusal."""
    try:
        source = open_source(path, "lobster", None)
    except Refused as refusal:
        return refusal
    sequence = 1
    while (conversion := source.convert(sequence)) is not None:
        sequence += len(conversion.commands)
        assert len(source.expected()) == len(conversion.instruments)
    return source.counts.rows


@settings(deadline=None, max_examples=300)
@given(st.booleans(), st.integers(0, 10_000), st.integers(0, 255), st.booleans())
def test_flipped_or_cut_files_are_refused_or_replayed_whole(
    in_book: bool, place: int, value: int, cut: bool
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = lobster_pair(Path(folder), ROWS)
        damaged = book_of(path) if in_book else path
        content = bytearray(damaged.read_bytes())
        place %= len(content)
        if cut:
            del content[place:]
        else:
            content[place] = value
        damaged.write_bytes(content)
        outcome = replayed(path)
    if isinstance(outcome, Refused):
        assert all((outcome.expected, outcome.found, outcome.where))
    else:
        assert outcome == 15


@settings(deadline=None, max_examples=200)
@given(st.integers(0, 10_000), st.integers(0, 255))
def test_flipped_byte_of_an_archive_is_refused_or_changes_nothing(place: int, value: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        packed = archive(lobster_pair(Path(folder), ROWS), Path(folder) / "packed.zip")
        content = bytearray(packed.read_bytes())
        content[place % len(content)] = value
        packed.write_bytes(content)
        outcome = replayed(packed)
    if isinstance(outcome, Refused):
        assert all((outcome.expected, outcome.found, outcome.where))
    else:
        assert outcome == 15


@pytest.mark.realdata
def test_published_samples_are_read(recorded: Path) -> None:
    folder = recorded / "lobster"
    for name, rows, levels in (
        ("LOBSTER_SampleFile_AMZN_2012-06-21_5.zip", 155_935, 5),
        ("LOBSTER_SampleFile_AMZN_2012-06-21_1.zip", 57_515, 1),
        ("AAPL_L10_head_message.csv", 999, 10),
    ):
        recording = open_recording(folder / name)
        assert recording.symbol == name.removeprefix("LOBSTER_SampleFile_")[:4]
        assert recording.messages.shape == (rows, 6)
        assert recording.orderbook.shape == (rows, levels, 4)
        assert not recording.odd_cents()
