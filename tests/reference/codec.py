"""Between the reference's plain values and the bytes of ring slots, by the layouts of messages.py.

A record is 64 or 128 bytes, word 0 of each slot left 0: it is the ring's. Tests write with
`encode_command` what the matcher reads, and compare what it wrote with `encode_event`; the bytes
cover fields that are zero and nobody names, so a stale byte shows.
"""

from __future__ import annotations

import struct
from functools import cache
from typing import Any

import numpy as np

from hftcore.messages import (
    COMMANDS,
    ECHO,
    EVENT,
    FILLS,
    INSTRUMENT_DEFINE,
    MASS_CANCEL,
    NEW_ORDER,
    ORDER_CHANGE,
    ORDER_STATE,
    ORDER_STATUS,
    ORIGIN,
    PARTY,
    SLOT_BYTES,
    SYMBOL,
    CommandKind,
    EventKind,
    Flags,
)
from tests.reference.records import (
    Command,
    Echo,
    Event,
    Fills,
    Listing,
    MassCancel,
    NewOrder,
    OrderChange,
    OrderState,
    Origin,
    Other,
    Party,
    StatusReport,
)

Dtype = np.dtype[Any]
BODY_BEGIN = 32
"""Bytes of the header that all commands share."""
KIND, FLAGS = 8, 9
"""Where a record of either stream says what it is."""
TWO_SLOTS = int(Flags.TWO_SLOTS)
CHANGES = {kind for kind, shapes in COMMANDS.items() if shapes[0][0] is ORDER_CHANGE}
MASS_CANCELS = {kind for kind, shapes in COMMANDS.items() if shapes[0][0] is MASS_CANCEL}
SECONDS = {Fills: FILLS, Party: PARTY, OrderState: ORDER_STATE}
HEADER = ("kind", "flags", "instrument_id", "account_id", "sequence", "sequenced_ns")
_LETTERS = {"i8": "q", "u8": "Q", "i4": "i", "u4": "I", "i2": "h", "u2": "H", "u1": "B"}


def encode_command(command: Command) -> bytes:
    """Return the command's one or two slots."""
    if isinstance(command, NewOrder):
        slots = [_pack(NEW_ORDER, command), _pack(ORIGIN, command.origin)]
    elif isinstance(command, OrderChange):
        slots = [_pack(ORDER_CHANGE, command), _pack(ORIGIN, command.origin)]
    elif isinstance(command, Listing):
        slots = [_pack(INSTRUMENT_DEFINE, command), _pack(SYMBOL, command)]
    elif isinstance(command, StatusReport):
        slots = [_pack(ORDER_STATUS, command), _pack(ORIGIN, command.origin)]
    elif isinstance(command, MassCancel):
        slots = [_pack(MASS_CANCEL, command)]
        if command.origin is not None:
            slots.append(_pack(ORIGIN, command.origin))
    else:
        assert isinstance(command, Other)
        slots = [_pack(NEW_ORDER, command)[:BODY_BEGIN] + command.body]
        if command.second is not None:
            slots.append(bytes(8) + command.second)
    return _with_size(slots)


def encode_event(event: Event | Echo) -> bytes:
    """Return the event's one or two slots."""
    if isinstance(event, Echo):
        return encode_command(event.command)
    slots = [_pack(EVENT, event)]
    if event.second is not None:
        slots.append(_pack(SECONDS[type(event.second)], event.second))
    return b"".join(slots)


def decode_command(record: bytes) -> Command:
    """Return the command, or the command that an echo repeats (with its kind as it stands)."""
    common = {name: value for name, value in _unpack(NEW_ORDER, record).items() if name in HEADER}
    common["flags"] &= ~TWO_SLOTS
    kind = common["kind"] & ~ECHO  # an echo is laid out like its command
    second = record[SLOT_BYTES:]
    if second and kind == CommandKind.NEW_ORDER:
        return NewOrder(**_unpack(NEW_ORDER, record) | common, origin=_origin(second))
    if second and kind in CHANGES:
        return OrderChange(**_unpack(ORDER_CHANGE, record) | common, origin=_origin(second))
    if second and kind == CommandKind.INSTRUMENT_DEFINE:
        return Listing(**_unpack(SYMBOL, second) | _unpack(INSTRUMENT_DEFINE, record) | common)
    if second and kind == CommandKind.ORDER_STATUS:
        fields = _unpack(ORDER_STATUS, record)
        if not any(fields.pop("reserved")):
            return StatusReport(**fields | common, origin=_origin(second))
    if kind in MASS_CANCELS:
        origin = _origin(second) if second else None
        return MassCancel(**_unpack(MASS_CANCEL, record) | common, origin=origin)
    return Other(**common, body=record[BODY_BEGIN:SLOT_BYTES], second=second[8:] or None)


def decode_event(record: bytes) -> Event | Echo:
    """Return the event, every field of it."""
    if record[KIND] & ECHO:
        return Echo(decode_command(record))
    second: Party | Fills | OrderState | None = None
    if len(record) > SLOT_BYTES:
        if record[KIND] in (EventKind.TRADE, EventKind.REFRESHED):
            second = Fills(**_unpack(FILLS, record[SLOT_BYTES:]))
        elif record[FLAGS] & Flags.STATE:
            second = OrderState(**_unpack(ORDER_STATE, record[SLOT_BYTES:]))
        else:
            second = Party(**_unpack(PARTY, record[SLOT_BYTES:]))
    return Event(**_unpack(EVENT, record), second=second)


def slots_of(record: bytes) -> int:
    """Return how many slots the record that begins here takes; 0 for a pad."""
    if record[KIND : KIND + 8] == bytes(8):
        return 0
    return 2 if record[FLAGS] & TWO_SLOTS else 1


def _origin(second: bytes) -> Origin:
    return Origin(**_unpack(ORIGIN, second))


def _with_size(slots: list[bytes]) -> bytes:
    record = bytearray(b"".join(slots))
    if len(slots) == 2:
        record[FLAGS] |= TWO_SLOTS
    return bytes(record)


@cache
def _format(dtype: Dtype) -> tuple[tuple[str, ...], struct.Struct]:
    """Return the names of a layout's fields after word 0, and how they are packed."""
    assert dtype.names is not None
    assert dtype.fields is not None
    letters = []
    for name in dtype.names[1:]:
        field = dtype.fields[name][0]
        letters.append(f"{field.shape[0]}s" if field.shape else _LETTERS[field.str[1:]])
    return dtype.names[1:], struct.Struct("<8x" + "".join(letters))


def _pack(dtype: Dtype, source: object) -> bytes:
    """Pack the fields of a slot from the attributes of `source`; 0 where it has none."""
    names, layout = _format(dtype)
    empty: dict[str, Any] = {"reserved": b""}
    values = [getattr(source, name, empty.get(name, 0)) for name in names]
    return layout.pack(*values)


def _unpack(dtype: Dtype, record: bytes) -> dict[str, Any]:
    names, layout = _format(dtype)
    return dict(zip(names, layout.unpack(record[:SLOT_BYTES]), strict=True))
