"""LOBSTER recordings: a message file and the order book after each of its rows.

A recording is a pair of CSV files, `..._message_L.csv` and `..._orderbook_L.csv`, or the zip
archive that LOBSTER publishes them in. Message row: seconds since midnight, type, order id, size,
price x 10,000, direction of the order (1 buy, -1 sell). Order book row: ask price, ask size, bid
price, bid size, level by level; a level that isn't there has the price 9999999999 (asks) or
-9999999999 (bids) and no size. Both are read whole and strictly: each refusal names file, row
(from 1), column, offset, what was expected and what was found.

Comes before: `csv_rows`. After: `lobster_conversion`, `ops.replay`.
Source: LOBSTER_SampleFiles_ReadMe.txt; type 6 (cross trade) as in later LOBSTER files.
"""

from __future__ import annotations

import lzma
import struct
import zipfile
import zlib
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hftcore.errors import RecordingRefused
from hftcore.marketdata.csv_rows import field_offset, read_rows

MESSAGE_COLUMNS = ["time", "type", "order id", "size", "price", "direction"]
TIME, TYPE, ORDER_ID, SIZE, PRICE, DIRECTION = range(6)
NO_PRICE = 9_999_999_999
"""Price of a level that isn't there, negative on the buy side."""
MAX_PRICE = 2_000_000_000
MAX_SIZE = (1 << 32) - 1
DAY_NS = 86_400_000_000_000
MAX_BOOK_LEVELS = 1000


class MessageType(IntEnum):
    """Column 2 of a message row."""

    ADD = 1
    CANCEL = 2
    """Part of an order."""
    DELETE = 3
    EXECUTION = 4
    HIDDEN_EXECUTION = 5
    CROSS_TRADE = 6
    HALT = 7


@dataclass(frozen=True)
class TextFile:
    """The bytes of one of the two files and the name by which a refusal calls it."""

    name: str
    text: NDArray[np.uint8] = field(repr=False)


@dataclass(frozen=True)
class LobsterRecording:
    """A pair of files, read and checked row by row.

    Attributes
    ----------
    symbol : str
        What stands before the first "_" of the message file's name, else "LOBSTER".
    levels : int
        How many levels a side the order book file shows.
    messages : int64[rows, 6]
        By TIME to DIRECTION; time in nanoseconds, price x 10,000.
    orderbook : int64[rows, levels, 4]
        Ask price, ask size, bid price, bid size; price and size 0 where there is no level.
    """

    path: Path
    symbol: str
    levels: int
    messages: NDArray[np.int64] = field(repr=False)
    orderbook: NDArray[np.int64] = field(repr=False)
    message_file: str
    orderbook_file: str
    notes: tuple[str, ...]

    def depth(self, first: int, last: int) -> NDArray[np.int64]:
        """Return the book after rows first to last - 1, [rows, bids or asks, levels, 2]."""
        book = self.orderbook[first:last]
        return np.stack([book[:, :, 2:], book[:, :, :2]], axis=1)

    def odd_cents(self) -> bool:
        """Say whether any price of an order is not a whole cent."""
        seen = np.isin(self.messages[:, TYPE], (1, 2, 3, 4))
        return bool(
            (self.messages[seen, PRICE] % 100).any() or (self.orderbook[:, :, (0, 2)] % 100).any()
        )

    def highest_price(self) -> int:
        """Return the highest price of an order or a level."""
        seen = self.messages[np.isin(self.messages[:, TYPE], (1, 2, 3, 4)), PRICE]
        return int(max(seen.max(initial=0), self.orderbook[:, :, (0, 2)].max()))


def _unreadable(path: Path, error: Exception | str, expected: str) -> RecordingRefused:
    return RecordingRefused(
        "the LOBSTER recording can't be read",
        expected=expected,
        found=str(error) or type(error).__name__,
        where=str(path),
        remedy="give the .zip of LOBSTER, or one of its two .csv files with the other beside it",
    )


def _from_archive(path: Path) -> tuple[TextFile, TextFile]:
    damage = (
        zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error,
        EOFError, OSError, RuntimeError, NotImplementedError, ValueError, OverflowError,
    )  # fmt: skip
    files = []
    try:
        with zipfile.ZipFile(path) as archive:
            for kind in ("_message_", "_orderbook_"):
                names = [
                    name
                    for name in archive.namelist()
                    if kind in name.lower() and name.lower().endswith(".csv")
                ]
                if len(names) != 1:
                    raise _unreadable(
                        path, ", ".join(archive.namelist()), f"one ...{kind}... .csv in the archive"
                    )
                text = np.frombuffer(archive.read(names[0]), np.uint8)
                files.append(TextFile(f"{path}:{names[0]}", text))
    except damage as error:
        raise _unreadable(path, error, "a zip archive that is whole") from error
    return files[0], files[1]


def _from_pair(path: Path) -> tuple[TextFile, TextFile]:
    name = path.name
    files = []
    for kind, other in (("message", "orderbook"), ("orderbook", "message")):
        if kind in name:
            chosen = path
        elif other in name:
            chosen = path.with_name(kind.join(name.rsplit(other, 1)))
        else:
            raise _unreadable(path, name, "a name with 'message' or 'orderbook' in it, or a .zip")
        try:
            files.append(TextFile(str(chosen), np.frombuffer(chosen.read_bytes(), np.uint8)))
        except OSError as error:
            raise _unreadable(chosen, error, f"the {kind} file of the pair") from error
    return files[0], files[1]


def _refuse_field(
    file: TextFile, place: tuple[int, int, str], expected: str, found: int
) -> RecordingRefused:
    row, column, name = place
    offset = field_offset(file.text, row, column)
    return RecordingRefused(
        "the LOBSTER recording is damaged",
        expected=expected,
        found=str(found),
        where=f"{file.name}, row {row + 1}, column {column + 1} ({name}), offset {offset}",
        remedy="fetch the file again, and compare its size",
    )


def _check_messages(file: TextFile, messages: NDArray[np.int64]) -> None:
    """Refuse the first field that no message can have."""
    kinds = messages[:, TYPE]
    visible = np.isin(kinds, (1, 2, 3, 4))
    low, high = np.int64(np.iinfo(np.int64).min), np.int64(np.iinfo(np.int64).max)
    rules = (
        (TIME, 0, DAY_NS - 1, "seconds since midnight, below 86400", np.ones(len(kinds), bool)),
        (TYPE, 1, 7, "a type of 1 to 7", np.ones(len(kinds), bool)),
        (ORDER_ID, 1, high, "an order id", visible),
        (SIZE, 1, MAX_SIZE, f"a size of 1 to {MAX_SIZE}", visible),
        (PRICE, 1, MAX_PRICE, f"a price of 1 to {MAX_PRICE}", visible),
        (PRICE, low, MAX_PRICE, f"a price of at most {MAX_PRICE}", ~visible),
        (DIRECTION, -1, 1, "a direction of 1 or -1", np.ones(len(kinds), bool)),
    )
    faults = []
    for column, least, most, expected, applies in rules:
        values = messages[:, column]
        wrong = applies & ((values < least) | (values > most))
        if column == DIRECTION:
            wrong |= applies & (values == 0)
        if wrong.any():
            faults.append((int(np.argmax(wrong)), column, expected))
    if faults:
        row, column, expected = min(faults)
        place = (row, column, MESSAGE_COLUMNS[column])
        raise _refuse_field(file, place, expected, int(messages[row, column]))


def _check_orderbook(file: TextFile, rows: NDArray[np.int64], names: list[str]) -> None:
    """Refuse the first field that no level can have."""
    prices, sizes = rows[:, 0::2], rows[:, 1::2]
    missing = np.abs(prices) == NO_PRICE
    wrong = np.zeros(rows.shape, bool)
    wrong[:, 0::2] = ~missing & ((prices < 1) | (prices > MAX_PRICE))
    wrong[:, 1::2] = np.where(missing, sizes != 0, (sizes < 1) | (sizes > MAX_SIZE))
    if wrong.any():
        row, column = divmod(int(np.argmax(wrong)), rows.shape[1])
        expected = f"a price of 1 to {MAX_PRICE}, or {NO_PRICE} or -{NO_PRICE} for no level"
        if column % 2:
            empty = bool(missing[row, column // 2])
            expected = "0 where there is no level" if empty else f"a size of 1 to {MAX_SIZE}"
        place = (row, column, names[column])
        raise _refuse_field(file, place, expected, int(rows[row, column]))


def _read_orderbook(file: TextFile) -> NDArray[np.int64]:
    head = file.text[: 64 * 4 * MAX_BOOK_LEVELS].tobytes().split(b"\n", 1)[0]
    columns = head.count(b",") + 1
    if columns % 4:
        raise RecordingRefused(
            "this is not a LOBSTER order book",
            expected="four columns a level: ask price, ask size, bid price, bid size",
            found=f"{columns} columns",
            where=f"{file.name}, row 1, offset 0",
            remedy="is it the orderbook file of the pair?",
        )
    names = [
        f"{side} {what} {level}"
        for level in range(1, columns // 4 + 1)
        for side in ("ask", "bid")
        for what in ("price", "size")
    ]
    rows = read_rows(file.text, names, False, file.name)
    _check_orderbook(file, rows, names)
    levels = rows.reshape(len(rows), columns // 4, 4)
    return np.where(np.abs(levels) == NO_PRICE, 0, levels)


def open_recording(path: Path) -> LobsterRecording:
    """Read and check a recording.

    Parameters
    ----------
    path : Path
        A .zip, or one of the two .csv files with the other beside it.

    Raises
    ------
    RecordingRefused
        It can't be read, a field is not what it should be, or the two files differ in length.
    """
    message_file, book_file = (_from_archive if path.suffix == ".zip" else _from_pair)(path)
    for file in (message_file, book_file):
        if len(file.text) == 0:
            raise RecordingRefused(
                "the recording is empty",
                expected="rows of comma-separated numbers",
                found="0 bytes",
                where=f"{file.name}, offset 0",
                remedy="fetch the file again, and compare its size",
            )
    messages = read_rows(message_file.text, MESSAGE_COLUMNS, True, message_file.name)
    _check_messages(message_file, messages)
    orderbook = _read_orderbook(book_file)
    if len(messages) != len(orderbook):
        shorter = message_file if len(messages) < len(orderbook) else book_file
        raise RecordingRefused(
            "the two files of the recording differ in length",
            expected="one order book row for each message",
            found=f"{len(messages)} messages, {len(orderbook)} order books",
            where=f"{shorter.name}, row {min(len(messages), len(orderbook)) + 1},"
            f" offset {len(shorter.text)}",
            remedy="one of them is truncated: fetch both again",
        )
    notes = tuple(
        f"{Path(file.name).name}: the last row has no line end"
        for file in (message_file, book_file)
        if file.text[-1] != ord("\n")
    )
    name = Path(message_file.name.rsplit(":", 1)[-1]).name
    symbol = name.split("_", 1)[0] if "_" in name else "LOBSTER"
    return LobsterRecording(
        path, symbol, orderbook.shape[1], messages, orderbook,
        message_file.name, book_file.name, notes,
    )  # fmt: skip
