"""The table of ITCH 5.0 against bytes written by hand from the specification, and real captures."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest

from hftcore.marketdata.itch import DTYPES, LAYOUTS, timestamps
from hftcore.marketdata.itch_scan import open_recording
from tests.marketdata.recordings import SESSION, START_NS, framed

LENGTHS = {
    "S": 12, "R": 39, "H": 25, "Y": 20, "L": 26, "V": 35, "W": 12, "K": 28, "J": 35, "h": 21,
    "A": 36, "F": 40, "E": 31, "C": 36, "X": 23, "D": 19, "U": 35, "P": 44, "Q": 40, "B": 19,
    "I": 50, "N": 20, "O": 48,
}  # fmt: skip
"""As the specification's tables add up."""

HEAD = "{kind:02x} 0102 0304 0a0b0c0d0e0f"
AAPL = "4141504c20202020"
ORDER = "1112131415161718"
MATCH = "2122232425262728"
BY_HAND: dict[str, tuple[str, dict[str, object]]] = {
    "S": ("4f", {"event_code": b"O"}),
    "R": (
        f"{AAPL} 51 20 00000064 4e 43 5a20 50 4e 20 31 4e 00000002 59",
        {
            "stock": b"AAPL    ", "market_category": b"Q", "financial_status": b" ",
            "round_lot_size": 100, "round_lots_only": b"N", "issue_classification": b"C",
            "issue_sub_type": b"Z ", "authenticity": b"P", "short_sale_threshold": b"N",
            "ipo_flag": b" ", "luld_reference_price_tier": b"1", "etp_flag": b"N",
            "etp_leverage_factor": 2, "inverse_indicator": b"Y",
        },
    ),
    "H": (f"{AAPL} 54 20 49504f31", {"trading_state": b"T", "reason": b"IPO1"}),
    "Y": (f"{AAPL} 31", {"stock": b"AAPL    ", "reg_sho_action": b"1"}),
    "L": (
        f"4e534451 {AAPL} 59 4e 41",
        {
            "mpid": b"NSDQ", "stock": b"AAPL    ", "primary_market_maker": b"Y",
            "market_maker_mode": b"N", "participant_state": b"A",
        },
    ),
    "V": (
        "0000000000000001 0000000000000002 0000000000000003",
        {"level_1": 1, "level_2": 2, "level_3": 3},
    ),
    "W": ("33", {"breached_level": b"3"}),
    "K": (
        f"{AAPL} 00008ca0 41 000f4240",
        {"release_time": 36_000, "release_qualifier": b"A", "ipo_price": 1_000_000},
    ),
    "J": (
        f"{AAPL} 00000001 00000002 00000003 00000004",
        {
            "collar_reference_price": 1, "upper_collar_price": 2, "lower_collar_price": 3,
            "collar_extension": 4,
        },
    ),
    "h": (f"{AAPL} 51 48", {"market_code": b"Q", "halt_action": b"H"}),
    "A": (
        f"{ORDER} 42 00000064 {AAPL} 002c0e84",
        {
            "order_reference": 0x1112131415161718, "buy_sell": b"B", "shares": 100,
            "stock": b"AAPL    ", "price": 2_887_300,
        },
    ),
    "F": (
        f"{ORDER} 53 00000064 {AAPL} 002c0e84 4e534451",
        {"buy_sell": b"S", "price": 2_887_300, "attribution": b"NSDQ"},
    ),
    "E": (
        f"{ORDER} 00000060 {MATCH}",
        {"order_reference": 0x1112131415161718, "executed_shares": 96,
         "match_number": 0x2122232425262728},
    ),
    "C": (
        f"{ORDER} 00000060 {MATCH} 4e 002c0e84",
        {"executed_shares": 96, "printable": b"N", "execution_price": 2_887_300},
    ),
    "X": (f"{ORDER} 00000060", {"canceled_shares": 96}),
    "D": (ORDER, {"order_reference": 0x1112131415161718}),
    "U": (
        f"{ORDER} {MATCH} 00000060 002c0e84",
        {
            "original_order_reference": 0x1112131415161718,
            "new_order_reference": 0x2122232425262728, "shares": 96, "price": 2_887_300,
        },
    ),
    "P": (
        f"{ORDER} 42 00000064 {AAPL} 002c0e84 {MATCH}",
        {"buy_sell": b"B", "shares": 100, "price": 2_887_300, "match_number": 0x2122232425262728},
    ),
    "Q": (
        f"0000000100000000 {AAPL} 002c0e84 {MATCH} 4f",
        {"shares": 1 << 32, "cross_price": 2_887_300, "cross_type": b"O"},
    ),
    "B": (MATCH, {"match_number": 0x2122232425262728}),
    "I": (
        f"0000000000000005 0000000000000006 42 {AAPL} 00000001 00000002 00000003 4f 4c",
        {
            "paired_shares": 5, "imbalance_shares": 6, "imbalance_direction": b"B",
            "far_price": 1, "near_price": 2, "reference_price": 3, "cross_type": b"O",
            "price_variation": b"L",
        },
    ),
    "N": (f"{AAPL} 42", {"interest_flag": b"B"}),
    "O": (
        f"{AAPL} 59 00000001 00000002 00000003 0000000000000004 00000005 00000006",
        {
            "open_eligibility": b"Y", "minimum_price": 1, "maximum_price": 2,
            "near_execution_price": 3, "near_execution_time": 4, "lower_collar_price": 5,
            "upper_collar_price": 6,
        },
    ),
}  # fmt: skip


def test_every_message_of_the_specification_has_its_length() -> None:
    assert {code: layout.dtype.itemsize for code, layout in LAYOUTS.items()} == LENGTHS
    assert set(BY_HAND) == set(LENGTHS)


@pytest.mark.parametrize("code", BY_HAND)
def test_message_written_by_hand_reads_and_writes_back(code: str) -> None:
    body, fields = BY_HAND[code]
    raw = bytes.fromhex(HEAD.format(kind=ord(code)) + body)
    message = np.frombuffer(raw, DTYPES[code])
    assert message["message_type"][0] == code.encode()
    assert message["stock_locate"][0] == 0x0102
    assert message["tracking_number"][0] == 0x0304
    assert timestamps(message)[0] == 0x0A0B0C0D0E0F
    for name, value in fields.items():
        assert message[name][0] == value, name
    written = np.zeros(1, DTYPES[code])
    for name in written.dtype.names or ():
        written[name] = message[name]
    assert written.tobytes() == raw


@pytest.mark.parametrize("code", BY_HAND)
def test_every_message_is_read_from_a_file(tmp_path: Path, code: str) -> None:
    head = bytes.fromhex(f"{ord(code):02x} 0001 0000 000000000001")
    raw = head + bytes.fromhex(BY_HAND[code][0])
    path = tmp_path / "one.itch"
    path.write_bytes(framed(raw, raw))
    recording = open_recording(path)
    assert recording.counts == {code: 2}
    assert recording.of_type(code).tobytes() == raw * 2
    assert {listing.symbol for listing in recording.listings.values()} <= {"AAPL", ""}


def test_columns_of_a_block_are_the_fields_of_each_message(tmp_path: Path) -> None:
    path = tmp_path / "session.itch"
    path.write_bytes(framed(*SESSION))
    recording = open_recording(path)
    block = recording.block(0, 100)
    assert bytes(block.types.tolist()).decode() == "SAAFAEEEXUCPDEBDADD"
    columns = {name: values.tolist() for name, values in block.columns.items()}
    assert columns["reference"][1:6] == [1, 2, 3, 4, 4]
    assert columns["new_reference"][9] == 5
    assert columns["shares"][1:10] == [100, 50, 70, 30, 10, 20, 5, 40, 60]
    assert columns["price"][9:11] == [1_000_300, 1_000_250]
    assert columns["side"][1:5] == [ord("B"), ord("B"), ord("S"), ord("S")]
    assert columns["timestamp"] == [START_NS] * len(SESSION)
    first = recording.block(0, 4)
    rest = recording.block(first.next_offset, 100)
    assert [*first.types, *rest.types] == [*block.types]
    assert rest.next_offset == len(recording.content)


def test_lengths_of_zero_follow_from_the_types(tmp_path: Path) -> None:
    path = tmp_path / "unframed.itch"
    path.write_bytes(b"".join(b"\0\0" + message for message in SESSION))
    recording = open_recording(path)
    assert (recording.messages, recording.unframed) == (len(SESSION), len(SESSION))


def test_length_of_zero_at_the_end_is_the_end_mark(tmp_path: Path) -> None:
    path = tmp_path / "ended.itch"
    path.write_bytes(framed(*SESSION) + b"\0\0")
    recording = open_recording(path)
    assert recording.messages == len(SESSION)
    assert len(recording.of_type("A")) == 4


def test_listing_says_what_a_venue_must_know(tmp_path: Path) -> None:
    path = tmp_path / "session.itch"
    path.write_bytes(framed(*SESSION))
    (listing,) = open_recording(path).listings.values()
    assert (listing.symbol, listing.adds) == ("TEST", 5)
    assert (listing.lowest, listing.highest) == (1_000_000, 1_000_300)
    assert listing.whole_cents


def packets(path: Path) -> list[bytes]:
    """Return the MoldUDP64 payloads of a capture (Ethernet with one VLAN tag, IPv4, UDP)."""
    content = path.read_bytes()
    offset, payloads = 24, []
    while offset < len(content):
        (length,) = struct.unpack_from("<I", content, offset + 8)
        payloads.append(content[offset + 16 + 18 + 20 + 8 : offset + 16 + length])
        offset += 16 + length
    return payloads


CAPTURED = {
    "AddOrderNoMpidAttribution": ("A", 36), "MarketParticipantPosition": ("L", 26),
    "NetOrderImbalanceIndicator": ("I", 50), "OrderDelete": ("D", 19), "OrderExecuted": ("E", 31),
    "OrderReplace": ("U", 35), "StockTradingAction": ("H", 25),
}  # fmt: skip


@pytest.mark.realdata
@pytest.mark.parametrize("name", CAPTURED)
def test_captured_packet_is_read(recorded: Path, tmp_path: Path, name: str) -> None:
    folder = recorded / "packets" / "Nasdaq.Equities.TotalView.Itch.v5.0"
    (payload,) = packets(folder / f"{name}Message.pcap")
    code, length = CAPTURED[name]
    path = tmp_path / "packet.itch"
    path.write_bytes(payload[20:])  # behind session, sequence and count
    recording = open_recording(path)
    assert recording.counts == {code: 1}
    assert len(payload) == 20 + 2 + length
    assert next(iter(recording.listings), 0) > 0 or code in "DEU"


@pytest.mark.realdata
def test_captured_packets_of_many_messages_are_read(recorded: Path, tmp_path: Path) -> None:
    folder = recorded / "packets" / "Nasdaq.Equities.TotalView.Itch.v5.0"
    payloads = packets(folder / "Multiple.Packets.pcap")
    path = tmp_path / "packets.itch"
    path.write_bytes(b"".join(payload[20:] for payload in payloads))
    recording = open_recording(path)
    said = sum(int.from_bytes(payload[18:20], "big") for payload in payloads)
    assert recording.messages == said > 10
    symbols = {bytes(stock).decode().strip() for stock in recording.of_type("A")["stock"]}
    assert "META" in symbols


@pytest.mark.realdata
def test_first_messages_of_a_day_are_read(recorded: Path) -> None:
    recording = open_recording(recorded / "itch" / "nasdaq_20191230_first1000.itch")
    assert recording.counts == {"S": 1, "R": 993, "H": 3, "Y": 3}
    directory = recording.of_type("R")
    assert directory["stock"][0] == b"A       "
    assert set(directory["round_lot_size"].tolist()) == {10, 100}
    assert recording.listings[2].symbol == "AA"


@pytest.mark.realdata
def test_synthetic_recording_with_lengths_of_zero_is_read(recorded: Path) -> None:
    recording = open_recording(recorded / "itch" / "ritch_ex20101224.TEST_ITCH_50")
    assert recording.messages == recording.unframed == 12_012
    assert recording.counts == {
        "S": 6, "R": 3, "H": 3, "A": 4997, "F": 3, "E": 198, "X": 45, "D": 1745, "U": 12, "P": 5000,
    }  # fmt: skip
    assert [listing.symbol for listing in recording.listings.values()] == ["ALC", "BOB", "CHAR"]
    assert not recording.listings[1].whole_cents


@pytest.mark.realdata
def test_recorded_flow_of_one_share_is_read(recorded: Path) -> None:
    recording = open_recording(recorded / "itch" / "aapl_20191230_first10000.itch50")
    assert recording.counts == {"A": 4298, "D": 4658, "E": 426, "P": 66, "U": 528, "X": 24}
    (listing,) = recording.listings.values()
    assert (listing.symbol, listing.locate, listing.whole_cents) == ("AAPL", 13, True)
