"""Nasdaq TotalView-ITCH 5.0: one table of every message, and what derives from it.

The table lists the 23 messages of the specification in its words. From it come a numpy dtype of
each (big-endian, no padding; a `timestamp` of six bytes is a two-byte and a four-byte field), the
length that frames a message of each type, and the place of each field that the scanning kernels of
`itch_scan` read. Nothing else in the project knows an ITCH offset.

A recording is messages with a big-endian length of two bytes before each (Nasdaq's own files, and
what MoldUDP64 carries in a packet). Some writers leave that length 0: it then follows from the
type. A length of 0 at the very end of a file that has real lengths is the end mark of Nasdaq's
binary files. Anything else is refused with the offset, what was expected and what was found, and
the whole file is checked before its first message is used.

Comes before: `itch_scan`. After: `itch_conversion`, `ops.replay`.
Source: Nasdaq TotalView-ITCH 5.0, sections 1.1 to 1.9 (message formats).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

PREFIX_BYTES = 2
MAX_PRICE = 2_000_000_000
"""$200,000.0000, the highest price that the specification knows."""
DAY_NS = 86_400_000_000_000

_HEADER = "message_type a1, stock_locate u2, tracking_number u2, timestamp u6"
_TABLE = {
    "S": ("system_event", "event_code a1"),
    "R": (
        "stock_directory",
        "stock a8, market_category a1, financial_status a1, round_lot_size u4, round_lots_only a1,"
        " issue_classification a1, issue_sub_type a2, authenticity a1, short_sale_threshold a1,"
        " ipo_flag a1, luld_reference_price_tier a1, etp_flag a1, etp_leverage_factor u4,"
        " inverse_indicator a1",
    ),
    "H": ("stock_trading_action", "stock a8, trading_state a1, reserved a1, reason a4"),
    "Y": ("reg_sho_restriction", "stock a8, reg_sho_action a1"),
    "L": (
        "market_participant_position",
        "mpid a4, stock a8, primary_market_maker a1, market_maker_mode a1, participant_state a1",
    ),
    "V": ("mwcb_decline_level", "level_1 u8, level_2 u8, level_3 u8"),
    "W": ("mwcb_status", "breached_level a1"),
    "K": (
        "quoting_period_update",
        "stock a8, release_time u4, release_qualifier a1, ipo_price u4",
    ),
    "J": (
        "luld_auction_collar",
        "stock a8, collar_reference_price u4, upper_collar_price u4, lower_collar_price u4,"
        " collar_extension u4",
    ),
    "h": ("operational_halt", "stock a8, market_code a1, halt_action a1"),
    "A": (
        "add_order",
        "order_reference u8, buy_sell a1, shares u4, stock a8, price u4",
    ),
    "F": (
        "add_order_attributed",
        "order_reference u8, buy_sell a1, shares u4, stock a8, price u4, attribution a4",
    ),
    "E": ("order_executed", "order_reference u8, executed_shares u4, match_number u8"),
    "C": (
        "order_executed_with_price",
        "order_reference u8, executed_shares u4, match_number u8, printable a1, execution_price u4",
    ),
    "X": ("order_cancel", "order_reference u8, canceled_shares u4"),
    "D": ("order_delete", "order_reference u8"),
    "U": (
        "order_replace",
        "original_order_reference u8, new_order_reference u8, shares u4, price u4",
    ),
    "P": (
        "trade",
        "order_reference u8, buy_sell a1, shares u4, stock a8, price u4, match_number u8",
    ),
    "Q": ("cross_trade", "shares u8, stock a8, cross_price u4, match_number u8, cross_type a1"),
    "B": ("broken_trade", "match_number u8"),
    "I": (
        "net_order_imbalance",
        "paired_shares u8, imbalance_shares u8, imbalance_direction a1, stock a8, far_price u4,"
        " near_price u4, reference_price u4, cross_type a1, price_variation a1",
    ),
    "N": ("retail_price_improvement", "stock a8, interest_flag a1"),
    "O": (
        "direct_listing_price_discovery",
        "stock a8, open_eligibility a1, minimum_price u4, maximum_price u4,"
        " near_execution_price u4, near_execution_time u8, lower_collar_price u4,"
        " upper_collar_price u4",
    ),
}

BOOK_TYPES = "AFECXDU"
"""Messages that change a book."""
PRINT_TYPES = "PQ"
"""Trades that no visible order of the book took part in."""


@dataclass(frozen=True)
class Layout:
    """One message: its name, its dtype, and where each field lies.

    Attributes
    ----------
    places : dict
        Offset and bytes of each field by name, `timestamp` as one of six bytes.
    """

    name: str
    dtype: np.dtype[Any]
    places: dict[str, tuple[int, int]]


def _layout(name: str, body: str) -> Layout:
    fields: list[tuple[str, str]] = []
    places: dict[str, tuple[int, int]] = {}
    offset = 0
    for entry in f"{_HEADER}, {body}".split(","):
        field, code = entry.split()
        size = int(code[1:])
        places[field] = (offset, size)
        offset += size
        if size == 6:
            fields += [(f"{field}_high", ">u2"), (f"{field}_low", ">u4")]
        else:
            fields.append((field, f"S{size}" if code[0] == "a" else f">u{size}"))
    dtype = np.dtype(fields)
    assert dtype.itemsize == offset, name
    return Layout(name, dtype, places)


LAYOUTS: dict[str, Layout] = {code: _layout(*entry) for code, entry in _TABLE.items()}
"""Every message of ITCH 5.0 by its type."""

DTYPES: dict[str, np.dtype[Any]] = {code: layout.dtype for code, layout in LAYOUTS.items()}

COLUMNS: dict[str, tuple[str, ...]] = {
    "stock_locate": ("stock_locate",),
    "timestamp": ("timestamp",),
    "reference": ("order_reference", "original_order_reference"),
    "new_reference": ("new_order_reference",),
    "shares": ("shares", "executed_shares", "canceled_shares"),
    "price": ("price", "execution_price"),
    "side": ("buy_sell",),
    "stock": ("stock",),
}
"""What the kernels read of a message, each by the names that the table has for it."""


def _length_table() -> NDArray[np.int64]:
    """Bytes of a message by its type, 0: there is no such type."""
    lengths = np.zeros(256, np.int64)
    for code, layout in LAYOUTS.items():
        lengths[ord(code)] = layout.dtype.itemsize
    return lengths


def _place_table() -> NDArray[np.int64]:
    """Offset and bytes of each of COLUMNS by message type; 0 bytes: the message has none."""
    places = np.zeros((256, len(COLUMNS), 2), np.int64)
    for code, layout in LAYOUTS.items():
        for column, names in enumerate(COLUMNS.values()):
            for name in names:
                if name in layout.places:
                    places[ord(code), column] = layout.places[name]
    return places


LENGTHS = _length_table()
PLACES = _place_table()


def timestamps(messages: NDArray[Any]) -> NDArray[np.int64]:
    """Return nanoseconds since midnight of messages of one type."""
    high = messages["timestamp_high"].astype(np.int64)
    return (high << 32) | messages["timestamp_low"].astype(np.int64)


def symbol_text(stock: bytes) -> str:
    """Return the symbol of a `stock` field: ASCII, filled with blanks on the right."""
    return stock.rstrip(b" \0").decode("ascii", "backslashreplace")
