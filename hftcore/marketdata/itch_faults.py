"""What can be wrong with an ITCH recording, and the words for it.

The surveying kernel of `itch_scan` stops at the first fault with a code and an offset; this turns
them into a refusal that says what was expected at which offset and what stands there.
"""

from __future__ import annotations

from enum import IntEnum
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hftcore.errors import RecordingRefused
from hftcore.marketdata.itch import (
    COLUMNS,
    DAY_NS,
    LAYOUTS,
    MAX_PRICE,
    PLACES,
    PREFIX_BYTES,
    symbol_text,
)

_NAMES = list(COLUMNS)


class Fault(IntEnum):
    """What `survey` stopped at."""

    NONE = 0
    TRUNCATED_PREFIX = 1
    TRUNCATED_MESSAGE = 2
    UNKNOWN_TYPE = 3
    WRONG_LENGTH = 4
    BAD_SIDE = 5
    BAD_PRICE = 6
    BAD_SHARES = 7
    BAD_TIMESTAMP = 8
    OTHER_SYMBOL = 9


def _looks_like(content: NDArray[np.uint8]) -> str:
    start = content[:4].tobytes()
    if start[:2] == b"\x1f\x8b":
        return "decompress it first: it is a gzip file"
    if start[:2] == b"PK":
        return "it is a zip archive: unpack it, or is it a LOBSTER sample (--format lobster)?"
    if start in (b"\xd4\xc3\xb2\xa1", b"\xa1\xb2\xc3\xd4"):
        return "it is a packet capture: take the messages out of the packets first"
    if all(byte in b"0123456789.,-" for byte in start):
        return "it is text: a LOBSTER file (--format lobster)?"
    return "is it ITCH 5.0 with a length of two bytes before each message?"


def refusal(path: Path, content: NDArray[np.uint8], offset: int, fault: Fault) -> RecordingRefused:
    """Put a fault into words: what was expected at which offset, and what is there."""
    rest = content[offset:]
    prefix = int.from_bytes(rest[:PREFIX_BYTES].tobytes(), "big")
    code = chr(rest[PREFIX_BYTES]) if len(rest) > PREFIX_BYTES else ""
    layout = LAYOUTS.get(code)
    length = layout.dtype.itemsize if layout else 0
    message = f"{code!r} ({layout.name})" if layout else "a message"
    inside = rest[PREFIX_BYTES : PREFIX_BYTES + length].tobytes()

    def value(column: str) -> int:
        place, size = PLACES[ord(code), _NAMES.index(column)].tolist()
        return int.from_bytes(inside[place : place + size], "big")

    expected, found = {
        Fault.TRUNCATED_PREFIX: lambda: ("a length of 2 bytes", "1 byte, then the end of the file"),
        Fault.TRUNCATED_MESSAGE: lambda: (
            f"{length} bytes of {message}" if layout else "a message behind its length",
            f"{len(rest) - PREFIX_BYTES} bytes, then the end of the file",
        ),
        Fault.UNKNOWN_TYPE: lambda: (
            f"a message type, one of {' '.join(LAYOUTS)}",
            f"{code!r} (0x{ord(code):02x}) behind a length of {prefix}",
        ),
        Fault.WRONG_LENGTH: lambda: (f"{length} as the length of {message}, or 0", str(prefix)),
        Fault.BAD_SIDE: lambda: (f"'B' or 'S' as the side in {message}", repr(chr(value("side")))),
        Fault.BAD_PRICE: lambda: (
            f"a price of 1 to {MAX_PRICE} (x 10,000) in {message}",
            str(value("price")),
        ),
        Fault.BAD_SHARES: lambda: (f"at least 1 share in {message}", str(value("shares"))),
        Fault.BAD_TIMESTAMP: lambda: (
            f"nanoseconds since midnight, below {DAY_NS}, in {message}",
            str(value("timestamp")),
        ),
        Fault.OTHER_SYMBOL: lambda: (
            f"the symbol that locate code {value('stock_locate')} had before, in {message}",
            symbol_text(value("stock").to_bytes(8, "big")),
        ),
    }[fault]()
    at_start = offset == 0 and fault in (Fault.UNKNOWN_TYPE, Fault.WRONG_LENGTH)
    truncated = fault in (Fault.TRUNCATED_PREFIX, Fault.TRUNCATED_MESSAGE)
    remedy = "the file is damaged: fetch it again, and compare its size and checksum"
    if at_start:
        remedy = _looks_like(content)
    elif truncated:
        remedy = f"the file is truncated: fetch it again, or cut it to {offset} bytes"
    return RecordingRefused(
        "this is not an ITCH 5.0 recording" if at_start else "the ITCH recording is damaged",
        expected=expected,
        found=found,
        where=f"{path}, offset {offset}",
        remedy=remedy,
    )
