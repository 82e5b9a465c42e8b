"""Reading an ITCH recording: check every frame once, then hand out blocks of plain columns.

Two compiled passes over the mapped file. `survey` walks it from end to end before anything is
used: framing, types, and those fields that a book depends on; it also gathers what a venue must
know in advance: symbols, price ranges, how many orders each instrument adds. `read_block` then
copies the fields of COLUMNS of the next messages into int64 columns, so that a converter loops over
plain integers and a day's file needs no more memory than one block.

Rejected: numpy fancy indexing by type (an index of a whole day is gigabytes), and struct.unpack by
message (0.5 us a message before any work is done; each kernel takes 0.025).

Comes before: `itch` (the table). After: `itch_conversion`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hftcore.errors import RecordingRefused
from hftcore.marketdata.itch import (
    COLUMNS,
    DAY_NS,
    DTYPES,
    LENGTHS,
    MAX_PRICE,
    PLACES,
    PREFIX_BYTES,
    symbol_text,
)
from hftcore.marketdata.itch_faults import Fault, refusal
from ipc.kernel import kernel

_NAMES = list(COLUMNS)
_LOCATE = _NAMES.index("stock_locate")
_TIMESTAMP = _NAMES.index("timestamp")
_SHARES = _NAMES.index("shares")
_PRICE = _NAMES.index("price")
_SIDE = _NAMES.index("side")
_STOCK = _NAMES.index("stock")
_BUY, _SELL = ord("B"), ord("S")
_ADD, _ATTRIBUTED, _REPLACE, _TRADE = ord("A"), ord("F"), ord("U"), ord("P")
_NANOSECONDS = DAY_NS
_HIGHEST = MAX_PRICE
_PREFIX = PREFIX_BYTES


_TRUNCATED_PREFIX = int(Fault.TRUNCATED_PREFIX)
_TRUNCATED_MESSAGE = int(Fault.TRUNCATED_MESSAGE)
_UNKNOWN_TYPE = int(Fault.UNKNOWN_TYPE)
_WRONG_LENGTH = int(Fault.WRONG_LENGTH)
_BAD_SIDE = int(Fault.BAD_SIDE)
_BAD_PRICE = int(Fault.BAD_PRICE)
_BAD_SHARES = int(Fault.BAD_SHARES)
_BAD_TIMESTAMP = int(Fault.BAD_TIMESTAMP)
_OTHER_SYMBOL = int(Fault.OTHER_SYMBOL)

LOCATES = 1 << 16
ADDS, LOWEST, HIGHEST, ODD, STOCK_AT = range(5)
"""Columns of a survey's row: orders added, lowest and highest price, prices that are not whole
cents, offset of the symbol + 1."""


@kernel
def big_endian(content: Any, offset: int, size: int) -> Any:
    """Return the unsigned integer at an offset (eight bytes wrap into int64)."""
    value: Any = np.int64(0)
    for index in range(offset, offset + size):
        value = (value << 8) | np.int64(content[index])
    return value


@kernel
def _read(content: Any, code: int, column: int, start: int) -> Any:
    return big_endian(content, start + PLACES[code, column, 0], PLACES[code, column, 1])


@kernel
def _fault_in(content: Any, code: int, start: int) -> int:
    """Check the fields of one whole message that a book depends on; return a Fault."""
    if _read(content, code, _TIMESTAMP, start) >= _NANOSECONDS:
        return _BAD_TIMESTAMP
    if code == _TRADE:
        return 0
    if PLACES[code, _SIDE, 1] != 0:
        side = _read(content, code, _SIDE, start)
        if side not in (_BUY, _SELL):
            return _BAD_SIDE
    if PLACES[code, _PRICE, 1] != 0:
        price = _read(content, code, _PRICE, start)
        if price < 1 or price > _HIGHEST:
            return _BAD_PRICE
    if PLACES[code, _SHARES, 1] == 4 and _read(content, code, _SHARES, start) < 1:
        return _BAD_SHARES
    return 0


@kernel
def _note(content: Any, code: int, start: int, locates: Any) -> int:
    """Enter one whole message into its instrument's row of the survey; return a Fault."""
    locate = _read(content, code, _LOCATE, start)
    if locate == 0:
        return 0
    adds = code in (_ADD, _ATTRIBUTED)
    if PLACES[code, _STOCK, 1] != 0:
        at = start + PLACES[code, _STOCK, 0]
        known = locates[locate, STOCK_AT] - 1
        if known < 0:
            locates[locate, STOCK_AT] = at + 1
        elif adds:
            for index in range(8):
                if content[known + index] != content[at + index]:
                    return _OTHER_SYMBOL
    if adds or code == _REPLACE:
        price = _read(content, code, _PRICE, start)
        if locates[locate, LOWEST] == 0 or price < locates[locate, LOWEST]:
            locates[locate, LOWEST] = price
        locates[locate, HIGHEST] = max(locates[locate, HIGHEST], price)
        locates[locate, ODD] += price % 100 != 0
        locates[locate, ADDS] += adds
    return 0


@kernel
def survey_messages(content: Any, types: Any, locates: Any) -> tuple[int, int, int, int]:
    """Walk a whole recording, checking each frame.

    Parameters
    ----------
    content : uint8[bytes]
        The file.
    types : int64[256]
        Messages by type. Written.
    locates : int64[LOCATES, 5]
        What each instrument needs. Written.

    Returns
    -------
    (messages, offset, fault, unframed)
        offset: where the walk ended, or the prefix of the message at fault. unframed: messages
        whose prefix is 0.
    """
    end = len(content)
    offset: Any = np.int64(0)
    messages: Any = np.int64(0)
    unframed: Any = np.int64(0)
    while offset < end:
        if end - offset < _PREFIX:
            return messages, offset, _TRUNCATED_PREFIX, unframed
        prefix = big_endian(content, offset, _PREFIX)
        start = offset + _PREFIX
        if start == end:
            if prefix == 0 and messages > 0 and unframed == 0:
                return messages, end, 0, unframed
            return messages, offset, _TRUNCATED_MESSAGE, unframed
        code: Any = np.int64(content[start])
        length = LENGTHS[code]
        if length == 0:
            return messages, offset, _UNKNOWN_TYPE, unframed
        if prefix not in (length, 0):
            return messages, offset, _WRONG_LENGTH, unframed
        if end - start < length:
            return messages, offset, _TRUNCATED_MESSAGE, unframed
        fault = _fault_in(content, code, start)
        if fault == 0:
            fault = _note(content, code, start, locates)
        if fault != 0:
            return messages, offset, fault, unframed
        unframed += prefix == 0
        types[code] += 1
        messages += 1
        offset = start + length
    return messages, offset, 0, unframed


@kernel
def read_messages(
    content: Any, offset: int, types: Any, offsets: Any, columns: Any
) -> tuple[int, int]:
    """Copy the next messages of a surveyed recording into columns.

    Parameters
    ----------
    offset : int
        Of a message's prefix.
    types : uint8[block], offsets : int64[block], columns : int64[len(COLUMNS), block]
        One element a message. Written; `stock` stays 0, see `offsets`.

    Returns
    -------
    (messages, offset)
        How many were copied, and the offset behind the last.
    """
    end = len(content)
    count: Any = np.int64(0)
    while count < len(types) and end - offset > _PREFIX:
        start = offset + _PREFIX
        code: Any = np.int64(content[start])
        types[count] = code
        offsets[count] = offset
        for column in range(_STOCK):
            columns[column, count] = _read(content, code, column, start)
        count += 1
        offset = start + LENGTHS[code]
    return count, offset


@dataclass(frozen=True)
class Listing:
    """What a recording says of one instrument.

    Attributes
    ----------
    adds : int
        Orders that it adds: an upper bound of what may rest at once.
    lowest, highest : int
        Prices of its orders, x 10,000; 0: none.
    whole_cents : bool
        Every price of its orders is a multiple of a cent.
    """

    symbol: str
    locate: int
    adds: int
    lowest: int
    highest: int
    whole_cents: bool


@dataclass(frozen=True)
class Block:
    """Consecutive messages as columns; `columns` is by the names of COLUMNS."""

    types: NDArray[np.uint8]
    offsets: NDArray[np.int64]
    columns: dict[str, NDArray[np.int64]]
    next_offset: int


@dataclass(frozen=True)
class ItchRecording:
    """A whole file that has been surveyed, so that reading it can't fail any more.

    Attributes
    ----------
    content : uint8[bytes]
        The mapped file, read only.
    counts : dict
        Messages by type.
    listings : dict
        Instruments by locate code.
    """

    path: Path
    content: NDArray[np.uint8] = field(repr=False)
    messages: int
    counts: dict[str, int]
    unframed: int
    listings: dict[int, Listing] = field(repr=False)

    def block(self, offset: int, most: int) -> Block:
        """Return the next messages, at most so many, from the offset of a prefix."""
        types = np.zeros(most, np.uint8)
        offsets = np.zeros(most, np.int64)
        columns = np.zeros((len(COLUMNS), most), np.int64)
        count, offset = read_messages(self.content, offset, types, offsets, columns)
        named = {name: columns[index, :count] for index, name in enumerate(COLUMNS)}
        return Block(types[:count], offsets[:count], named, int(offset))

    def of_type(self, code: str) -> NDArray[Any]:
        """Return every message of a type as an array of its dtype (copies them)."""
        parts = []
        offset = 0
        while offset < len(self.content):
            block = self.block(offset, 1 << 16)
            if len(block.types) == 0:
                break
            starts = block.offsets[block.types == ord(code)] + PREFIX_BYTES
            parts.append(self.content[starts[:, None] + np.arange(DTYPES[code].itemsize)])
            offset = block.next_offset
        return np.ascontiguousarray(np.concatenate(parts)).view(DTYPES[code])[:, 0]


def _listings(content: NDArray[np.uint8], locates: NDArray[np.int64]) -> dict[int, Listing]:
    listings = {}
    for locate in np.flatnonzero(locates.any(axis=1)).tolist():
        adds, lowest, highest, odd, stock_at = locates[locate].tolist()
        symbol = symbol_text(content[stock_at - 1 : stock_at + 7].tobytes()) if stock_at else ""
        listings[locate] = Listing(symbol, locate, adds, lowest, highest, odd == 0)
    return listings


def open_recording(path: Path) -> ItchRecording:
    """Map a recording and survey it from end to end.

    Raises
    ------
    RecordingRefused
        It can't be read, is empty, or a message in it can't be: with the offset of that message's
        length prefix.
    """
    try:
        size = path.stat().st_size
        content = np.memmap(path, np.uint8, "r") if size else np.zeros(0, np.uint8)
    except (OSError, ValueError) as error:
        raise RecordingRefused(
            "the recording can't be read",
            expected="a file of ITCH 5.0 messages",
            found=str(error),
            where=str(path),
            remedy="correct the path, or the permissions of the file",
        ) from error
    if size == 0:
        raise RecordingRefused(
            "the recording is empty",
            expected="ITCH 5.0 messages",
            found="0 bytes",
            where=f"{path}, offset 0",
            remedy="fetch the file again, and compare its size",
        )
    types = np.zeros(256, np.int64)
    locates = np.zeros((LOCATES, 5), np.int64)
    plain = np.frombuffer(content, np.uint8)
    messages, offset, fault, unframed = survey_messages(plain, types, locates)
    if fault:
        raise refusal(path, plain, int(offset), Fault(fault))
    counts = {chr(code): int(types[code]) for code in np.flatnonzero(types).tolist()}
    return ItchRecording(
        path, plain, int(messages), counts, int(unframed), _listings(plain, locates)
    )
