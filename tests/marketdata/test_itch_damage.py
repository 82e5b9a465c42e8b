"""ITCH recordings that are damaged, truncated or something else: offset, expected, found."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hftcore.errors import ConfigurationRefused, RecordingRefused, Refused, UsageRefused
from hftcore.marketdata.itch_conversion import list_instruments
from hftcore.marketdata.itch_scan import open_recording
from hftcore.marketdata.sources import open_source
from tests.marketdata.recordings import SESSION, add, delete, framed, system_event

WHOLE = framed(*SESSION)
STARTS = [0]
for _message in SESSION:
    STARTS.append(STARTS[-1] + 2 + len(_message))


def refused(content: bytes) -> RecordingRefused:
    """Return the refusal of these bytes."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "damaged.itch"
        path.write_bytes(content)
        with pytest.raises(RecordingRefused) as caught:
            open_recording(path)
        return caught.value


def replaced(number: int, at: int, new: bytes) -> bytes:
    """Return the session with bytes of one message replaced."""
    place = STARTS[number] + 2 + at
    return WHOLE[:place] + new + WHOLE[place + len(new) :]


def test_every_truncation_names_the_offset_of_the_message_it_cut() -> None:
    for size in range(1, len(WHOLE)):
        if size in STARTS:
            continue
        refusal = refused(WHOLE[:size])
        start = max(at for at in STARTS if at < size)
        assert refusal.where.endswith(f", offset {start}"), size
        there = size - start
        if there == 1:
            assert refusal.expected == "a length of 2 bytes"
            assert refusal.found == "1 byte, then the end of the file"
        else:
            assert refusal.found == f"{there - 2} bytes, then the end of the file", size
            assert "truncated" in refusal.remedy


def test_truncation_behind_a_length_of_zero_is_not_an_end_mark() -> None:
    unframed = b"".join(b"\0\0" + message for message in SESSION)
    refusal = refused(unframed + b"\0\0")
    assert refusal.where.endswith(f"offset {len(unframed)}")
    refusal = refused(b"\0\0")
    assert refusal.where.endswith("offset 0")


FAULTS = [
    (replaced(2, 0, b"Z"), 2, "one of S R H Y", "'Z' (0x5a) behind a length of 36"),
    (replaced(2, 0, b"\xff"), 2, "one of S R H Y", "0xff"),
    (replaced(2, -2, b"\0\x25"), 2, "36 as the length of 'A' (add_order), or 0", "37"),
    (replaced(3, 19, b"Q"), 3, "'B' or 'S' as the side in 'F'", "'Q'"),
    (replaced(4, 32, bytes(4)), 4, "a price of 1 to 2000000000", "0"),
    (replaced(4, 32, b"\xff" * 4), 4, "a price of 1 to 2000000000", "4294967295"),
    (replaced(9, 31, bytes(4)), 9, "a price of 1 to 2000000000", "0"),
    (replaced(5, 19, bytes(4)), 5, "at least 1 share in 'E' (order_executed)", "0"),
    (replaced(8, 19, bytes(4)), 8, "at least 1 share in 'X' (order_cancel)", "0"),
    (
        replaced(6, 5, (86_400_000_000_000).to_bytes(6)),
        6,
        "nanoseconds since midnight, below 86400000000000, in 'E'",
        "86400000000000",
    ),
    (replaced(16, 24, b"BEST"), 16, "the symbol that locate code 7 had before", "BEST"),
]


@pytest.mark.parametrize(("content", "number", "expected", "found"), FAULTS)
def test_damaged_field_names_offset_expected_and_found(
    content: bytes, number: int, expected: str, found: str
) -> None:
    refusal = refused(content)
    assert refusal.where.endswith(f", offset {STARTS[number]}")
    assert expected in refusal.expected
    assert found in refusal.found


@pytest.mark.parametrize(
    ("content", "remedy"),
    [
        (b"PK\x03\x04" + bytes(200), "zip"),
        (b"\x1f\x8b\x08\x00" + bytes(200), "gzip"),
        (b"34200.017459617,5,0,1,2238200,-1\n", "--format lobster"),
        (b"\xd4\xc3\xb2\xa1" + bytes(200), "packet capture"),
        (b"\x00\x05hello", "is it ITCH 5.0"),
    ],
)
def test_other_format_is_recognised_at_offset_0(content: bytes, remedy: str) -> None:
    refusal = refused(content)
    assert "not an ITCH 5.0 recording" in refusal.what
    assert refusal.where.endswith(", offset 0")
    assert remedy in refusal.remedy


def test_empty_and_missing_files_are_refused(tmp_path: Path) -> None:
    assert refused(b"").found == "0 bytes"
    with pytest.raises(RecordingRefused) as caught:
        open_recording(tmp_path / "missing.itch")
    assert "No such file" in caught.value.found
    with pytest.raises(RecordingRefused):
        open_recording(tmp_path)


def test_unknown_instrument_is_named_with_the_known_ones(tmp_path: Path) -> None:
    path = tmp_path / "two.itch"
    path.write_bytes(framed(add(1, "B", 1, 100), add(2, "B", 1, 100, stock="BEST", locate=9)))
    recording = open_recording(path)
    with pytest.raises(UsageRefused) as caught:
        list_instruments(recording, "NEST")
    assert (caught.value.expected, caught.value.found) == ("one of BEST, TEST", "NEST")
    assert [entry.symbol for entry in list_instruments(recording, "BEST").values()] == ["BEST"]
    assert [entry.instrument_id for entry in list_instruments(recording, None).values()] == [1, 2]


def test_unknown_instrument_among_many_names_the_nearest(tmp_path: Path) -> None:
    path = tmp_path / "many.itch"
    symbols = [f"SYM{number:03d}" for number in range(100)]
    path.write_bytes(
        framed(*(add(n, "B", 1, 100, stock=s, locate=n) for n, s in enumerate(symbols, 1)))
    )
    with pytest.raises(UsageRefused) as caught:
        list_instruments(open_recording(path), "SYM0421")
    assert "SYM042" in caught.value.expected
    assert "more" in caught.value.expected


def test_prices_that_no_ladder_holds_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "wide.itch"
    path.write_bytes(framed(add(1, "B", 1, 5_001), add(2, "S", 1, 1_999_999_900)))
    with pytest.raises(ConfigurationRefused) as caught:
        list_instruments(open_recording(path), None)
    assert caught.value.found == "199,999.9900"
    assert caught.value.where == "TEST"


def test_whole_cents_up_to_the_highest_price_fit_one_ladder(tmp_path: Path) -> None:
    path = tmp_path / "wide.itch"
    path.write_bytes(framed(add(1, "B", 1, 5_000), add(2, "S", 1, 1_999_999_900)))
    (entry,) = list_instruments(open_recording(path), None).values()
    assert (entry.units_per_tick, entry.ladder_ticks) == (100, 20_000_000)


def test_recording_without_orders_lists_nothing(tmp_path: Path) -> None:
    path = tmp_path / "idle.itch"
    path.write_bytes(framed(system_event("O"), delete(5)))
    assert list_instruments(open_recording(path), None) == {}


def replayed(content: bytes) -> int | Refused:
    """Open and convert a recording, and let the reference follow; its rows, or the refusal."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "fuzzed.itch"
        path.write_bytes(content)
        try:
            source = open_source(path, "itch", None)
        except Refused as refusal:
            return refusal
        sequence = 1
        while (conversion := source.convert(sequence)) is not None:
            sequence += len(conversion.commands)
            assert len(source.expected()) == len(conversion.instruments)
        return source.counts.rows


@settings(deadline=None, max_examples=200)
@given(st.integers(0, len(WHOLE) - 1), st.integers(0, 255))
def test_flipped_byte_is_refused_or_replayed_whole(place: int, value: int) -> None:
    outcome = replayed(WHOLE[:place] + bytes([value]) + WHOLE[place + 1 :])
    if isinstance(outcome, Refused):
        assert outcome.expected
        assert outcome.found
        if isinstance(outcome, RecordingRefused):
            assert int(outcome.where.rpartition("offset ")[2]) in STARTS[:-1]
    else:
        assert outcome == len(SESSION)


@settings(deadline=None, max_examples=100)
@given(st.binary(min_size=1, max_size=200))
def test_random_bytes_are_refused(content: bytes) -> None:
    outcome = replayed(content)
    assert isinstance(outcome, RecordingRefused)
    assert outcome.expected
    assert outcome.found
