"""The layouts of messages.py: what is written once must be readable for ever.

tests/golden/ is append-only. `records.txt` has a line for each layout: its name, 64 bytes in hex,
and every field with its value in those bytes. `numbers.txt` has every member of every enum. A new
layout, field or member is a new line; a line that has to change is a new FORMAT_VERSION.
"""

from __future__ import annotations

import enum
import inspect
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
    MEANINGS,
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
)
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
EVERY_LAYOUT = pytest.mark.parametrize("name", LAYOUTS)


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


@EVERY_LAYOUT
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
    pairs = [*COMMANDS.values(), *(pair for pairs in EVENTS.values() for pair in pairs)]
    for first, second in pairs:
        assert "kind" in (first.names or ())
        assert second is None or "kind" not in (second.names or ())
    for shapes in EVENTS.values():
        sizes = [1 if second is None else 2 for _, second in shapes]
        assert sizes == sorted(set(sizes)), "the number of slots must tell the shape"
        assert all(first is EVENT for first, _ in shapes)


def test_every_layout_is_in_a_table() -> None:
    pairs = [*COMMANDS.values(), *(pair for pairs in EVENTS.values() for pair in pairs)]
    used = {id(dtype) for pair in pairs for dtype in pair if dtype is not None}
    assert {name for name, dtype in LAYOUTS.items() if id(dtype) not in used} == set()


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
