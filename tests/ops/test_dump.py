"""`hft dump`: every layout by name, the stream told apart, damage named by its offset."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hftcore import messages
from hftcore.errors import Refused, UsageRefused
from hftcore.messages import (
    COMMANDS,
    EVENT,
    FEED_FRAME,
    FILLS,
    MEANINGS,
    NEW_ORDER,
    ORIGIN,
    CommandKind,
    EventKind,
    ExecFlags,
    Flags,
    OrderType,
    Side,
    TimeInForce,
)
from hftcore.ops import decode, dump
from hftcore.ops.decode import STREAMS, Stream


def slot(layout: np.dtype[Any], **fields: Any) -> bytes:
    """Return one slot; text is zero-filled."""
    row = np.zeros(1, layout)
    for name, value in fields.items():
        if isinstance(value, bytes):
            row[name] = np.frombuffer(value.ljust(row.dtype[name].itemsize, b"\0"), np.uint8)
        else:
            row[name] = value
    return row.tobytes()


def new_order(
    sequence: int, *, client_order_id: bytes = b"my-1", ingress_id: int = 0, **fields: Any
) -> bytes:
    """Return a NEW_ORDER, two slots."""
    chosen = {
        "kind": CommandKind.NEW_ORDER,
        "flags": Flags.TWO_SLOTS,
        "instrument_id": 1,
        "account_id": 7,
        "sequence": sequence,
        "price": 10_050,
        "qty": 25,
        "side": Side.BUY,
        "order_type": OrderType.LIMIT,
        "time_in_force": TimeInForce.GTC,
        "exec_flags": ExecFlags.POST_ONLY | ExecFlags.HAS_TERMS,
        **fields,
    }
    origin = slot(ORIGIN, client_order_id=client_order_id, session_id=3, ingress_id=ingress_id)
    return slot(NEW_ORDER, **chosen) + origin


def event(kind: EventKind, sequence: int, index: int, flags: int = 0, **fields: Any) -> bytes:
    """Return an event's first slot."""
    return slot(EVENT, kind=kind, sequence=sequence, index=index, flags=flags, **fields)


def trade(sequence: int, index: int, flags: int = 0) -> bytes:
    """Return a TRADE, two slots."""
    first = event(EventKind.TRADE, sequence, index, flags | Flags.TWO_SLOTS, price=10_050, qty=5)
    return first + slot(FILLS, resting_order_id=9, liquidity=2)


def accepted(sequence: int, flags: int = 0) -> bytes:
    """Return an ACCEPTED, two slots."""
    first = event(EventKind.ACCEPTED, sequence, 0, flags | Flags.TWO_SLOTS, order_id=sequence)
    return first + slot(messages.PARTY, client_order_id=b"my-1", command_kind=1)


def lines(text: str) -> list[dict[str, Any]]:
    """Parse the output of --json."""
    return [json.loads(line) for line in text.splitlines()]


def all_records() -> Iterator[tuple[Stream, str, decode.Layouts, bytes]]:
    """Yield a record of every kind and layout, each number in it another one."""
    number = 1
    for stream in STREAMS:
        for kind, layouts in decode.all_layouts(stream):
            record = b""
            for layout in layouts:
                if layout is None:
                    continue
                row = np.zeros(1, layout)
                for column in decode.columns_of(layout):
                    number += 1
                    values = list(decode.members(column))
                    if column.name == "kind":
                        row[column.name] = kind
                    elif column.name == "flags":
                        state = Flags.STATE if layouts[1] is messages.ORDER_STATE else 0
                        row[column.name] = state | (Flags.TWO_SLOTS if layouts[1] else 0)
                    elif column.holds == decode.TEXT:
                        size = row.dtype[column.name].itemsize
                        text = np.frombuffer(f"id {number}".encode().ljust(size, b"\0"), np.uint8)
                        row[column.name] = text
                    elif values:
                        row[column.name] = values[number % len(values)]
                    elif column.holds != decode.RESERVED:
                        row[column.name] = number % 100
                record += row.tobytes()
            yield stream, decode.name_of(stream, kind), layouts, record


def test_every_field_of_every_layout_is_printed_with_its_name_and_value(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    seen = set()
    for stream, name, layouts, record in all_records():
        path = tmp_path / "records"
        path.write_bytes(record)
        dump.main(str(path), kind=stream, json=True)
        (printed,) = lines(capsys.readouterr().out)
        assert printed["kind"] == name
        for number, layout in enumerate(layouts):
            if layout is None:
                continue
            fields = printed if number == 0 else printed["second_slot"]
            row = np.frombuffer(record[number * 64 : number * 64 + 64], layout, 1)[0]
            for field in layout.names or ():
                if field == "reserved":
                    assert field not in fields
                elif isinstance(fields[field], int) and field != "kind":
                    assert fields[field] == row[field], (name, field)
                else:
                    assert fields[field] != "", (name, field)
                seen.add((layout, field))
    everything = {(layout, field) for layout, meanings in MEANINGS.items() for field in meanings}
    # a frame of the feed is in no file: its header is explained only
    assert seen == {(layout, field) for layout, field in everything if layout is not FEED_FRAME}
    dump.main(None, explain=True, json=True)
    explained = [
        each for each in lines(capsys.readouterr().out) if each["explains"] == "FEED_FRAME"
    ]
    assert {each["field"] for each in explained} == set(FEED_FRAME.names or ())


def test_no_enum_or_flag_of_the_layouts_is_printed_as_a_number() -> None:
    spelled = {"Side", "OrderType", "TimeInForce", "StpMode", "CommandKind", "EventKind"}
    spelled |= {"Flags", "ExecFlags", "RejectReason", "PegKind", "Phase", "Liquidity"}
    spelled |= {"OrderStatus"}
    found = set()
    for layout, meanings in MEANINGS.items():
        for column in decode.columns_of(layout):
            named = {name for name in spelled if meanings[column.name].startswith(name)}
            if named:
                assert column.vocabulary is getattr(messages, named.pop()), column
                found.add(column.vocabulary.__name__ if column.vocabulary else "")
    assert found == spelled


def test_a_command_is_printed_as_one_line_of_names(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "commands"
    path.write_bytes(new_order(17, sequenced_ns=1_700_000_000_000_000_001))
    dump.main(str(path))
    assert capsys.readouterr().out == (
        "         0  NEW_ORDER        ring_word=0 flags=TWO_SLOTS instrument_id=1 account_id=7"
        " sequence=17 sequenced_ns=2023-11-14T22:13:20.000000001Z price=10050 qty=25 side=BUY"
        " order_type=LIMIT time_in_force=GTC stp_mode=UNSET trade_group=0 settled_lag=0"
        " exec_flags=POST_ONLY|HAS_TERMS reject_reason=NONE |"
        ' ring_word=0 client_order_id="my-1" session_id=3 ingress_id=0 incarnation=0'
        " maker_rate=0 taker_rate=0\n"
    )


def test_an_echo_is_read_as_the_command_that_it_repeats(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "events"
    path.write_bytes(slot(messages.VENUE_STATE, kind=CommandKind.EPOCH | messages.ECHO, epoch=4))
    dump.main(str(path), json=True)
    (printed,) = lines(capsys.readouterr().out)
    assert (printed["kind"], printed["epoch"]) == ("ECHO_EPOCH", 4)


def test_the_flag_state_tells_a_private_second_slot_from_an_answer() -> None:
    for flag, second in ((0, messages.PARTY), (Flags.STATE, messages.ORDER_STATE)):
        first = event(EventKind.CANCELED, 1, 0, flag | Flags.TWO_SLOTS)
        record = decode.decode("events", first + slot(second))
        assert record is not None
        assert set(record.second or ()) == set(MEANINGS[second])
    stray = event(EventKind.TRADE, 1, 0, Flags.STATE | Flags.TWO_SLOTS) + slot(FILLS)
    assert decode.decode("events", stray) is None


def test_a_client_order_id_cannot_drive_the_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "commands"
    path.write_bytes(new_order(1, client_order_id=b'\x1b[2J"\n\xff'))
    dump.main(str(path))
    printed = capsys.readouterr().out
    assert printed.count("\n") == 1
    assert r'client_order_id="\u001b[2J\"\n\\xff"' in printed


def test_reserved_bytes_are_printed_only_when_they_are_not_zero(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "commands"
    for reserved, shown in ((b"", False), (b"\0\x05", True)):
        path.write_bytes(slot(messages.POSTING, kind=CommandKind.ORDER_TERMS, reserved=reserved))
        record = slot(messages.POSTING, kind=CommandKind.MINT, flags=128, reserved=reserved)
        path.write_bytes(record + slot(ORIGIN))
        dump.main(str(path), kind="commands")
        assert ('reserved="0x0005"' in capsys.readouterr().out) == shown


@pytest.mark.parametrize(
    ("records", "kinds"),
    [
        ([new_order(1), new_order(2)], ["NEW_ORDER", "NEW_ORDER"]),
        ([new_order(0, account_id=0), new_order(0, account_id=0)], ["NEW_ORDER", "NEW_ORDER"]),
        # as events: these would answer command kinds 1 and 2, but begin in mid-command ...
        ([new_order(1, ingress_id=1), new_order(2, ingress_id=2)], ["NEW_ORDER", "NEW_ORDER"]),
        # ... or without the one before having ended
        (
            [new_order(n, ingress_id=n, account_id=0) for n in (1, 2)],
            ["NEW_ORDER", "NEW_ORDER"],
        ),
        (
            [accepted(5), trade(5, 1), trade(5, 2, Flags.LAST), accepted(6, Flags.LAST)],
            ["ACCEPTED", "TRADE", "TRADE", "ACCEPTED"],
        ),
        ([trade(5, 8), trade(5, 9, Flags.LAST)], ["TRADE", "TRADE"]),
    ],
)
def test_the_stream_of_raw_slots_is_told_from_the_records(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], records: list[bytes], kinds: list[str]
) -> None:
    path = tmp_path / "records"
    path.write_bytes(b"".join(records))
    dump.main(str(path), json=True)
    assert [line["kind"] for line in lines(capsys.readouterr().out)] == kinds


def test_records_that_may_be_either_stream_are_not_guessed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "records"
    # as an event: a first one in mid-command that answers command kind 1, the ingress_id's low byte
    path.write_bytes(new_order(1, ingress_id=1))
    with pytest.raises(UsageRefused, match="--kind commands or --kind events") as refused:
        dump.main(str(path))
    assert refused.value.found == "as commands: 1 records fit; as events: 1 records fit"
    dump.main(str(path), kind="commands", json=True)
    dump.main(str(path), kind="events", json=True)
    printed = lines(capsys.readouterr().out)
    assert [line["kind"] for line in printed] == ["NEW_ORDER", "ACCEPTED"]


def test_bytes_that_are_no_records_are_refused_under_both_readings(tmp_path: Path) -> None:
    path = tmp_path / "noise"
    path.write_bytes(bytes(range(64, 128)) * 4)
    with pytest.raises(Refused, match="these are no records") as refused:
        dump.main(str(path))
    assert "as commands: no kind 72 of" in refused.value.found
    assert "as events: no kind 72 of" in refused.value.found
    assert refused.value.where == str(path)


@pytest.mark.parametrize(
    ("tail", "what", "where", "found"),
    [
        (b"\1" * 17, "this file ends within a slot", 256, "17 bytes"),
        (new_order(3)[:64], "this record's second slot is missing", 256, "kind 1,"),
        (slot(EVENT, kind=99), "this is no record of commands", 256, "kind 99,"),
        (slot(NEW_ORDER, kind=CommandKind.NEW_ORDER), "this is no record of", 256, "kind 1,"),
    ],
)
def test_damage_is_refused_with_its_offset_after_what_precedes_it_was_printed(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    tail: bytes,
    what: str,
    where: int,
    found: str,
) -> None:
    path = tmp_path / "commands"
    path.write_bytes(new_order(1) + new_order(2) + tail)
    with pytest.raises(Refused, match=what) as refused:
        dump.main(str(path), json=True)
    assert refused.value.where == f"{path}, byte {where}"
    assert refused.value.found.startswith(found)
    assert refused.value.expected
    assert refused.value.remedy
    assert [line["sequence"] for line in lines(capsys.readouterr().out)] == [1, 2]


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "empty"
    path.write_bytes(b"")
    with pytest.raises(Refused, match="no records"):
        dump.main(str(path))


def test_runs_of_pads_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "commands"
    path.write_bytes(bytes(128) + new_order(1) + bytes(64) + new_order(2) + bytes(640))
    dump.main(str(path), json=True)
    printed = [
        (line["at"], line["kind"], line.get("slots")) for line in lines(capsys.readouterr().out)
    ]
    assert printed == [
        (0, "PAD", 2),
        (128, "NEW_ORDER", None),
        (256, "PAD", 1),
        (320, "NEW_ORDER", None),
        (448, "PAD", 10),
    ]


def test_limit_stops_after_so_many_records(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "commands"
    path.write_bytes(b"".join(new_order(sequence) for sequence in range(1, 10)))
    dump.main(str(path), json=True, limit=3)
    assert [line["sequence"] for line in lines(capsys.readouterr().out)] == [1, 2, 3]


def test_rows_of_an_npy_array_are_printed_one_record_a_row(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "rows.npy"
    one_slot = slot(messages.VENUE_STATE, kind=CommandKind.EPOCH, sequence=2, epoch=1)
    rows = np.frombuffer(new_order(1) + one_slot + bytes(64), "<i8").reshape(2, 16)
    np.save(path, rows)
    dump.main(str(path), json=True)
    printed = lines(capsys.readouterr().out)
    assert [(line["at"], line["kind"]) for line in printed] == [(0, "NEW_ORDER"), (1, "EPOCH")]
    assert "second_slot" not in printed[1]


def test_an_npy_array_of_another_shape_type_or_length_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "rows.npy"
    for array in (
        np.zeros((2, 8), np.int64),
        np.zeros((2, 16), np.float64),
        np.zeros(16, np.int64),
    ):
        np.save(path, array)
        with pytest.raises(Refused, match="holds no records") as refused:
            dump.main(str(path))
        assert refused.value.found == f"{array.dtype}{list(array.shape)}"
    np.save(path, np.array([{}], object), allow_pickle=True)
    with pytest.raises(Refused, match="damaged"):
        dump.main(str(path))
    np.save(path, np.zeros((2, 16), np.int64))
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(Refused, match="damaged"):
        dump.main(str(path))


def test_explain_adds_meaning_and_values_of_the_kinds_that_were_printed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "commands"
    path.write_bytes(new_order(1))
    dump.main(str(path), explain=True)
    printed = capsys.readouterr().out
    assert "UTC nanoseconds, never decreases; sequencer" in printed
    assert "Side; sender (1 BUY, 2 SELL)" in printed
    assert "lots traded" not in printed
    for meaning in (*MEANINGS[NEW_ORDER].values(), *MEANINGS[ORIGIN].values()):
        assert meaning in printed


def test_explain_without_a_file_prints_every_layout(capsys: pytest.CaptureFixture[str]) -> None:
    dump.main(None, explain=True, json=True)
    printed = lines(capsys.readouterr().out)
    assert {line["explains"] for line in printed} == {
        *(kind.name for kind in COMMANDS),
        *(kind.name for kind in messages.EVENTS),
        "FEED_FRAME",
    }
    dump.main(None, explain=True, json=True, kind="events")
    assert "NEW_ORDER" not in {line["explains"] for line in lines(capsys.readouterr().out)}


def test_what_cannot_be_dumped_is_refused_with_what_can(tmp_path: Path) -> None:
    with pytest.raises(UsageRefused, match="commands, events"):
        dump.main("x", kind="orders")
    with pytest.raises(UsageRefused, match="nothing was named"):
        dump.main(None)
    with pytest.raises(UsageRefused, match="directory"):
        dump.main(str(tmp_path))
    with pytest.raises(UsageRefused, match="no such file or region"):
        dump.main(str(tmp_path / "absent"))
