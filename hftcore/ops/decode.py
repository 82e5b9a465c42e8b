"""Turn a 64-byte slot into names: the kind, each field, enums and flags spelled out.

Everything is derived from `hftcore.messages`: which layouts a kind has stands in COMMANDS and
EVENTS, and what a field holds stands at the beginning of its meaning. "Side, 0: both; sender" is
an enum of that module, "bit OrderType: ..." a set of its members, "zero" is reserved; a row of
bytes is text. So a new field or kind is printed by name without an edit here, and a test walks all
layouts to hold that. Rejected: a table of printers by field name (three edits a field, and the one
forgotten prints a number).

The same rules judge a record: an enum value or flag that doesn't exist tells that bytes were read
as the wrong stream. Used by `hft dump`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum, IntEnum, IntFlag
from functools import cache
from typing import Any, Literal

import numpy as np

from hftcore import messages

Stream = Literal["commands", "events"]
STREAMS: tuple[Stream, ...] = ("commands", "events")
Value = int | str | list[str]
Layouts = tuple[np.dtype[Any], np.dtype[Any] | None]

NUMBER, MEMBER, FLAGS, BITS, TEXT, RESERVED = range(6)
"""What a column holds: a number; one of an enum; its flags; bit n for member n; text; zero."""


@dataclass(frozen=True)
class Column:
    """One field of a layout, with what its meaning says about how to read it."""

    name: str
    offset: int
    format: str
    meaning: str
    holds: int
    vocabulary: type[IntEnum] | type[IntFlag] | None

    @property
    def is_time(self) -> bool:
        """Return whether the number is a moment."""
        return self.meaning.startswith("UTC nanoseconds")


@cache
def columns_of(layout: np.dtype[Any]) -> tuple[Column, ...]:
    """Derive the columns of one slot from its dtype and the meanings that go with it."""
    meanings = messages.MEANINGS[layout]
    columns = []
    for name in layout.names or ():
        kind, offset = layout.fields[name][:2]  # type: ignore[index]
        holds, vocabulary = _judge(meanings[name], is_row=kind.subdtype is not None)
        size = f"{kind.shape[0]} bytes" if kind.subdtype else kind.str.lstrip("<|")
        columns.append(Column(name, offset, size, meanings[name], holds, vocabulary))
    return tuple(columns)


def _judge(meaning: str, *, is_row: bool) -> tuple[int, type[IntEnum] | type[IntFlag] | None]:
    if meaning == "zero":
        return RESERVED, None
    if is_row:
        return TEXT, None
    begins = re.match(r"(bit )?([A-Z]\w+)", meaning)
    named = getattr(messages, begins[2], None) if begins else None
    if begins and isinstance(named, type) and issubclass(named, Enum):
        if issubclass(named, IntFlag):
            return FLAGS, named
        if issubclass(named, IntEnum):
            return BITS if begins[1] else MEMBER, named
    return NUMBER, None


def all_layouts(stream: Stream) -> Iterator[tuple[int, Layouts]]:
    """Yield every kind of a stream with each of its layouts, echoes not repeated."""
    table = messages.COMMANDS if stream == "commands" else messages.EVENTS
    for kind, shapes in table.items():
        yield from ((int(kind), layouts) for layouts in shapes)


@cache
def layouts_of(stream: Stream, kind: int, two_slots: bool, state: bool = False) -> Layouts | None:
    """Return the layouts of a kind with these flags in its header, or None if there are none."""
    if stream == "events" and kind & messages.ECHO:
        return layouts_of("commands", kind & ~messages.ECHO, two_slots, state)
    for number, layouts in all_layouts(stream):
        is_state = layouts[1] is messages.ORDER_STATE
        if number == kind and (layouts[1] is not None) == two_slots and is_state == state:
            return layouts
    return None


@cache
def name_of(stream: Stream, kind: int) -> str:
    """Return the name of a kind; an echo is the command's name after ECHO_."""
    if stream == "commands":
        return messages.CommandKind(kind).name
    if kind & messages.ECHO:
        return "ECHO_" + messages.CommandKind(kind & ~messages.ECHO).name
    return messages.EventKind(kind).name


@dataclass(frozen=True)
class Record:
    """One decoded record: a name, its first slot, its second if it has one."""

    name: str
    layouts: Layouts
    first: dict[str, Value]
    second: dict[str, Value] | None
    strays: tuple[str, ...]
    """Fields whose value their enum doesn't have."""


def decode(stream: Stream, slots: bytes) -> Record | None:
    """Decode one record; None when its kind doesn't exist in that many slots, or with that flag.

    Parameters
    ----------
    slots : bytes
        64 or 128 of them, as the record's header says.
    """
    kind, _ = header_of(slots)
    state = bool(slots[9] & messages.Flags.STATE)
    layouts = layouts_of(stream, kind, len(slots) > messages.SLOT_BYTES, state)
    if layouts is None:
        return None
    strays: list[str] = []
    first = fields_of(layouts[0], slots[: messages.SLOT_BYTES], strays)
    # the record's name says it already, echo included
    first.pop("kind")
    if "kind" in strays:
        strays.remove("kind")
    second = None
    if layouts[1] is not None:
        second = fields_of(layouts[1], slots[messages.SLOT_BYTES :], strays)
    return Record(name_of(stream, kind), layouts, first, second, tuple(strays))


def header_of(slot: bytes) -> tuple[int, bool]:
    """Return a record's kind and whether it has two slots; a pad's kind is 0."""
    return slot[8], bool(slot[9] & messages.Flags.TWO_SLOTS)


def fields_of(
    layout: np.dtype[Any], slot: bytes, strays: list[str] | None = None
) -> dict[str, Value]:
    """Read one slot as a layout; add the fields that can't be to `strays`."""
    strays = [] if strays is None else strays
    row = np.frombuffer(slot, layout, 1)[0]
    fields: dict[str, Value] = {}
    for column in columns_of(layout):
        if column.holds == TEXT:
            fields[column.name] = _text(row[column.name].tobytes())
        elif column.holds == RESERVED:
            if row[column.name].any():
                fields[column.name] = "0x" + row[column.name].tobytes().hex()
                strays.append(column.name)
        else:
            number = int(row[column.name])
            fields[column.name] = _spelled(column, number)
            if not _exists(column, number):
                strays.append(column.name)
    return fields


def _text(raw: bytes) -> str:
    return raw.rstrip(b"\0").decode("ascii", "backslashreplace")


def _spelled(column: Column, number: int) -> Value:
    if column.vocabulary is None:
        return number
    if column.holds == MEMBER:
        names = _names(column.vocabulary)
        return names.get(number, str(number))
    bits = [bit for bit in range(number.bit_length()) if number >> bit & 1]
    values = [1 << bit if column.holds == FLAGS else bit for bit in bits]
    return [_names(column.vocabulary).get(value, str(value)) for value in values]


def _exists(column: Column, number: int) -> bool:
    """Return whether the enum has this value; 0 is "not set" for every code."""
    if column.vocabulary is None or number == 0:
        return True
    names = _names(column.vocabulary)
    if column.holds == FLAGS:
        return number & ~sum(names) == 0
    if column.holds == BITS:
        return True  # a set of everything may name members to come
    return number in names


@cache
def _names(vocabulary: type[IntEnum] | type[IntFlag]) -> dict[int, str]:
    return {int(member): member.name or "" for member in vocabulary}


def legend(layouts: Layouts) -> Iterator[tuple[int, Column]]:
    """Yield the columns of a record with the number of their slot, in the order of the bytes."""
    for slot, layout in enumerate(layouts, start=1):
        if layout is not None:
            for column in columns_of(layout):
                yield slot, column


def members(column: Column) -> dict[int, str]:
    """Return the values that a column's enum has, by name; empty when it has none."""
    return {} if column.vocabulary is None else _names(column.vocabulary)
