"""The layouts of messages.py: what is written once must be readable for ever.

tests/golden/ is append-only. `records.txt` has a line for each layout: its name, 64 bytes in hex,
and every field with its value in those bytes. `numbers.txt` has every member of every enum. A new
layout, field or member is a new line; a line that has to change is a new FORMAT_VERSION, once
there has been a release.
"""

from __future__ import annotations

import enum
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hftcore import messages
from hftcore.messages import (
    COMMANDS,
    ECHO,
    EVENT,
    EVENTS,
    FILLS,
    MEANINGS,
    NEW_ORDER,
    ORDER_STATE,
    ORIGIN,
    PARTY,
    SLOT_BYTES,
    CommandKind,
    EventKind,
    ExecFlags,
    Field,
    Flags,
    RejectReason,
    layout,
    stream_layout,
)
from ipc.directory import venue_directory
from ipc.errors import RegionRefused
from ipc.region import Region
from ipc.ring import PAD, SLOT_WORDS
from ipc.ring import SLOT_BYTES as RING_SLOT_BYTES
from ipc.ring import TWO_SLOTS as RING_TWO_SLOTS

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
LAYOUTS: dict[str, np.dtype[Any]] = {
    name: value for name, value in vars(messages).items() if isinstance(value, np.dtype)
}
FIRST_SLOTS = {name for name, dtype in LAYOUTS.items() if "kind" in (dtype.names or ())}
COMMAND_LAYOUTS = FIRST_SLOTS - {"EVENT"}
ENUMS = [
    value
    for _, value in inspect.getmembers(messages, inspect.isclass)
    if issubclass(value, enum.IntEnum | enum.IntFlag) and value.__module__ == messages.__name__
]
CONSTANTS = ("FORMAT_VERSION", "SLOT_BYTES", "MAX_SEQUENCE", "CLIENT_ORDER_ID_BYTES", "ECHO")
NOT_OF_A_RING = {"FEED_FRAME"}
"""A message's header: no ring ever holds it, so no word of it is the ring's."""
EVERY_LAYOUT = pytest.mark.parametrize("name", LAYOUTS)
SHAPES = [pair for table in (COMMANDS, EVENTS) for shapes in table.values() for pair in shapes]


def places(name: str) -> dict[str, tuple[np.dtype[Any], int]]:
    """Return the dtype and the offset of each field of a layout."""
    dtype = LAYOUTS[name]
    assert dtype.fields is not None
    return {field: (entry[0], entry[1]) for field, entry in dtype.fields.items()}


def golden_records() -> dict[str, tuple[bytes, dict[str, str]]]:
    """Return bytes and fields of each golden record, by the name of its layout."""
    records = {}
    for line in (GOLDEN / "records.txt").read_text().splitlines():
        if line and not line.startswith("#"):
            name, text, *values = line.split()
            records[name] = (bytes.fromhex(text), dict(value.split("=") for value in values))
    return records


def golden_numbers() -> dict[str, int]:
    """Return the value of each golden number."""
    lines = (GOLDEN / "numbers.txt").read_text().splitlines()
    pairs = [line.split() for line in lines if line and not line.startswith("#")]
    assert len({name for name, _ in pairs}) == len(pairs)
    return {name: int(value) for name, value in pairs}


# --- layouts -----------------------------------------------------------------------------------


@EVERY_LAYOUT
def test_layout_is_one_slot_of_named_little_endian_aligned_fields(name: str) -> None:
    assert LAYOUTS[name].itemsize == SLOT_BYTES == RING_SLOT_BYTES == SLOT_WORDS * 8
    end = 0
    for field, (dtype, offset) in places(name).items():
        assert offset == end, f"{field}: bytes {end} to {offset} have no name"
        assert offset % dtype.base.itemsize == 0, f"{field} is not aligned"
        assert dtype.base.str[0] in "<|", f"{field} is not little-endian"
        assert dtype.base.kind in "iu", f"{field} is not an integer"
        end = offset + dtype.itemsize
    assert end == SLOT_BYTES


@pytest.mark.parametrize("name", sorted(set(LAYOUTS) - NOT_OF_A_RING))
def test_first_word_of_every_slot_belongs_to_the_ring(name: str) -> None:
    assert places(name)["ring_word"] == (np.dtype("<i8"), 0)


@EVERY_LAYOUT
def test_each_field_has_a_meaning(name: str) -> None:
    meanings = MEANINGS[LAYOUTS[name]]
    assert list(meanings) == list(LAYOUTS[name].names or ())
    assert all(meanings.values())


def test_no_two_layouts_share_their_meanings() -> None:
    assert len(MEANINGS) == len(LAYOUTS)


@pytest.mark.parametrize("name", sorted(FIRST_SLOTS))
def test_header_lies_at_the_same_place_in_every_first_slot(name: str) -> None:
    header = {
        "kind": ("|u1", 8), "flags": ("|u1", 9), "instrument_id": ("<u2", 10),
        "sequence": ("<i8", 16), "sequenced_ns": ("<i8", 24),
    }  # fmt: skip
    found = {field: (dtype.str, offset) for field, (dtype, offset) in places(name).items()}
    assert {field: found[field] for field in header} == header
    assert found["index" if name == "EVENT" else "account_id"] == ("<u4", 12)


@pytest.mark.parametrize("field", ["price", "qty", "exec_flags", "reject_reason", "settled_lag"])
def test_field_that_several_commands_have_lies_at_the_same_place(field: str) -> None:
    found = {places(name)[field] for name in COMMAND_LAYOUTS if field in places(name)}
    assert len(found) == 1


def test_name_and_session_lie_at_the_same_place_in_origin_and_party() -> None:
    for field in ("client_order_id", "session_id"):
        assert places("ORIGIN")[field] == places("PARTY")[field]
    assert places("ORIGIN")["client_order_id"][0].shape == (messages.CLIENT_ORDER_ID_BYTES,)


def test_rates_have_the_same_type_in_origin_and_party() -> None:
    for field in ("maker_rate", "taker_rate"):
        assert ORIGIN[field] == PARTY[field] == np.dtype("<i2")


def test_two_slots_is_the_bit_that_the_ring_looks_at() -> None:
    slot = np.zeros(1, EVENT)
    assert int(slot.view(np.int64)[1]) == PAD
    slot["flags"] = int(Flags.TWO_SLOTS)
    assert int(slot.view(np.int64)[1]) == RING_TWO_SLOTS


def test_layout_of_another_size_or_alignment_is_refused() -> None:
    ring_word = Field("ring_word", "<i8", "the ring's")
    with pytest.raises(AssertionError):
        layout(ring_word, Field("short", "(55,)u1", "one byte is missing"))
    with pytest.raises(AssertionError):
        layout(
            ring_word,
            Field("odd", "u1", "moves the next one"),
            Field("moved", "<i8", "not aligned"),
            Field("rest", "(47,)u1", "fills the slot"),
        )


# --- tables ------------------------------------------------------------------------------------


def test_every_command_kind_has_a_record() -> None:
    assert set(COMMANDS) == set(CommandKind) - {CommandKind.PAD}


def test_every_event_kind_has_a_record() -> None:
    assert set(EVENTS) == set(EventKind) - {EventKind.PAD}


def test_every_record_begins_with_a_header_and_goes_on_without() -> None:
    for first, second in SHAPES:
        assert "kind" in (first.names or ())
        assert second is None or "kind" not in (second.names or ())


def test_the_header_tells_which_shape_a_record_has() -> None:
    for commands in COMMANDS.values():
        sizes = [1 if second is None else 2 for _, second in commands]
        assert sizes == sorted(set(sizes)), "the number of slots must tell"
        assert len({id(first) for first, _ in commands}) == 1
    for events in EVENTS.values():
        told = [(second is not None, second is ORDER_STATE) for _, second in events]
        assert told == sorted(set(told)), "the number of slots and STATE must tell"
        assert all(first is EVENT for first, _ in events)


def test_every_command_that_a_gateway_may_send_can_name_its_ingress() -> None:
    venue_alone = {
        CommandKind.MASS_CANCEL_SLICE, CommandKind.EXPIRE_SLICE, CommandKind.TIME,
        CommandKind.EPOCH, CommandKind.CHECKPOINT, CommandKind.EVENT_HASH,
    }  # fmt: skip
    for kind, shapes in COMMANDS.items():
        names = {name for dtype in shapes[-1] if dtype is not None for name in dtype.names or ()}
        counted_with_the_next = kind == CommandKind.ORDER_TERMS
        found = {"ingress_id", "incarnation", "session_id"} <= names
        assert found != (kind in venue_alone or counted_with_the_next), kind


def test_events_after_an_icebergs_accepted_can_hold_its_private_side() -> None:
    shown = ("BOOKED", "CANCELED", "EXPIRED", "REPLACED", "RESTATED", "STATUS")
    for name in shown:
        assert (EVENT, ORDER_STATE) in EVENTS[EventKind[name]]
    for name in ("TRADE", "REFRESHED", "PREVENTED_MATCH"):
        assert EVENTS[EventKind[name]] == ((EVENT, FILLS),)


def test_every_layout_is_in_a_table() -> None:
    used = {id(dtype) for pair in SHAPES for dtype in pair if dtype is not None}
    unused = {name for name, dtype in LAYOUTS.items() if id(dtype) not in used}
    assert unused == NOT_OF_A_RING


def test_message_header_tells_its_updates_by_fields_that_no_ring_touches() -> None:
    """Subscribers filter by the first bytes, so topic and instrument come first."""
    for name in NOT_OF_A_RING:
        assert "ring_word" not in places(name)
        assert "kind" not in places(name)
    assert places("FEED_FRAME")["topic"] == (np.dtype("(2,)u1"), 0)
    assert places("FEED_FRAME")["instrument_id"] == (np.dtype("<u2"), 2)


# --- golden bytes ------------------------------------------------------------------------------


@EVERY_LAYOUT
def test_golden_record_is_what_its_fields_are_written_as(name: str) -> None:
    expected, values = golden_records()[name]
    assert list(values) == list(LAYOUTS[name].names or ())
    slot = np.zeros(1, LAYOUTS[name])
    for field, text in values.items():
        if slot[field].ndim == 2:
            slot[field][0] = np.frombuffer(bytes.fromhex(text), np.uint8)
        else:
            slot[field][0] = int(text)
    assert slot.tobytes().hex() == expected.hex()


@EVERY_LAYOUT
def test_golden_record_is_read_as_its_fields(name: str) -> None:
    record, values = golden_records()[name]
    slot = np.frombuffer(record, LAYOUTS[name])[0]
    for field, text in values.items():
        found = slot[field].tobytes().hex() if slot[field].ndim else str(int(slot[field]))
        assert found == text, field


def test_golden_records_can_tell_every_byte_from_every_other() -> None:
    for name, (record, _) in golden_records().items():
        assert len(set(record)) == SLOT_BYTES, f"{name}: two bytes are equal"


def test_golden_numbers_are_those_of_the_enums() -> None:
    found = {f"{one.__name__}.{member.name}": int(member) for one in ENUMS for member in one}
    found |= {name: int(getattr(messages, name)) for name in CONSTANTS}
    assert found == golden_numbers()


def test_numbers_fit_the_fields_that_hold_them() -> None:
    assert max(CommandKind) < ECHO, "an echo is its command's kind with the top bit"
    assert max(EventKind) < ECHO
    assert max(RejectReason) < 1 << 16
    assert max(ExecFlags) < 1 << 16
    assert max(Flags) < 1 << 8
    for one in ENUMS:
        if issubclass(one, enum.IntEnum):
            assert len(set(one)) == len(one.__members__), f"{one.__name__}: a number twice"


# --- the layout of a stream --------------------------------------------------------------------

Change = Callable[[pytest.MonkeyPatch], None]


def another_side(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(messages, "Side", enum.IntEnum("Side", {"BUY": 2, "SELL": 1}))


def another_version(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(messages, "FORMAT_VERSION", messages.FORMAT_VERSION + 1)


def another_origin(patch: pytest.MonkeyPatch) -> None:
    fields = [(name, ORIGIN[name]) for name in ORIGIN.names or ()]
    fields[-2:] = reversed(fields[-2:])  # the same sizes, the rates exchanged
    patch.setitem(COMMANDS, CommandKind.NEW_ORDER, ((NEW_ORDER, np.dtype(fields)),))


def one_kind_less(patch: pytest.MonkeyPatch) -> None:
    patch.delitem(COMMANDS, CommandKind.ASSET_DEFINE)


CHANGES: list[Change] = [another_side, another_version, another_origin, one_kind_less]


def test_stream_layout_tells_the_streams_apart_and_fits_int64() -> None:
    found = [stream_layout("commands"), stream_layout("events")]
    assert found == [stream_layout("commands"), stream_layout("events")]
    assert found[0] != found[1]
    assert all(0 < value < 1 << 63 for value in found)


def test_only_the_events_depend_on_the_table_of_events(monkeypatch: pytest.MonkeyPatch) -> None:
    before = stream_layout("commands"), stream_layout("events")
    monkeypatch.setitem(EVENTS, EventKind.EXPIRED, ((EVENT, PARTY),))
    assert stream_layout("commands") == before[0]
    assert stream_layout("events") != before[1]


@pytest.mark.parametrize("stream", ["commands", "events"])
@pytest.mark.parametrize("change", CHANGES)
def test_region_of_an_altered_layout_is_refused_on_attach(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Change, stream: Any
) -> None:
    directory = venue_directory("mixed", base=tmp_path / "venues")
    old = stream_layout(stream)
    with Region.create(directory, "stream", 4096, layout=old, kind=f"ring {stream}"):
        Region.attach(directory, "stream", layout=stream_layout(stream)).close()
        change(monkeypatch)
        new = stream_layout(stream)
        assert new != old
        with pytest.raises(RegionRefused, match="another layout") as refused:
            Region.attach(directory, "stream", layout=new)
    assert (refused.value.expected, refused.value.found) == (f"{new:#x}", f"{old:#x}")
    assert "two versions" in (refused.value.remedy or "")
