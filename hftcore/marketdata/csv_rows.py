"""Rows of whole numbers in text, read strictly and at once.

LOBSTER's files are comma-separated whole numbers, the first of a message row a time in seconds with
decimals. A general reader (numpy.loadtxt, csv) either takes seconds for a day or accepts what isn't
there: "1.5" as a size, a short row, a blank. One compiled pass over the bytes accepts exactly the
grammar below and otherwise says where it stopped, so that the refusal can name row, column, offset
and what was found. A last row without a line end is accepted: a published sample has one.

    row    = number *("," number) ("\\n" / "\\r\\n" / end of file)
    number = ["-"] 1*18 digit ["." 1*digit]     decimals in the time column only

Comes before: `lobster`.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hftcore.errors import RecordingRefused
from ipc.kernel import kernel


class Stop(IntEnum):
    """Why the pass ended before the end of the text."""

    NONE = 0
    NOT_A_DIGIT = 1
    TOO_LONG = 2
    TOO_FEW_COLUMNS = 3
    TOO_MANY_COLUMNS = 4
    BAD_LINE_END = 5


_NOT_A_DIGIT = int(Stop.NOT_A_DIGIT)
_TOO_LONG = int(Stop.TOO_LONG)
_TOO_FEW_COLUMNS = int(Stop.TOO_FEW_COLUMNS)
_TOO_MANY_COLUMNS = int(Stop.TOO_MANY_COLUMNS)
_BAD_LINE_END = int(Stop.BAD_LINE_END)
_COMMA, _POINT, _MINUS, _ZERO, _NINE = (ord(character) for character in ",.-09")
_NEWLINE, _RETURN = 10, 13
_MOST_DIGITS = 18
_DECIMALS = 9


@kernel
def _digits(text: Any, at: int, most: int) -> tuple[Any, Any]:
    """Read digits: their value (of the first `most`), and the place behind all of them."""
    value: Any = np.int64(0)
    first = at
    while at < len(text) and _ZERO <= text[at] <= _NINE:
        if at - first < most:
            value = value * 10 + (np.int64(text[at]) - _ZERO)
        at += 1
    return value, at


@kernel
def _number(text: Any, at: int, decimals: bool) -> tuple[Any, Any, int]:
    """Read one number: value (in billionths when it may have decimals), place behind, Stop."""
    first = at
    negative = at < len(text) and text[at] == _MINUS
    if negative:
        at += 1
    value, behind = _digits(text, at, _MOST_DIGITS)
    if behind == at:
        return value, at, _NOT_A_DIGIT
    if behind - at > (_DECIMALS if decimals else _MOST_DIGITS):
        return value, first, _TOO_LONG
    at = behind
    if decimals:
        value *= 10**_DECIMALS
        if at < len(text) and text[at] == _POINT:
            at += 1
            fraction, behind = _digits(text, at, _DECIMALS)
            if behind == at:
                return value, at, _NOT_A_DIGIT
            for _ in range(behind - at, _DECIMALS):
                fraction *= 10
            value += fraction
            at = behind
    return (-value if negative else value), at, 0


@kernel
def parse_rows(text: Any, time_first: bool, rows: Any) -> tuple[Any, Any, Any, int]:
    """Read a whole text into rows.

    Parameters
    ----------
    text : uint8[bytes]
    time_first : bool
        The first column has seconds with decimals; it is stored in nanoseconds (what stands behind
        the ninth decimal is dropped: some writers print a double's noise there).
    rows : int64[most rows, columns]
        Written.

    Returns
    -------
    (row, column, offset, stop)
        How many rows were read, 0, the size of the text, 0; or where the pass stopped, all from 0.
    """
    columns = rows.shape[1]
    at: Any = np.int64(0)
    row: Any = np.int64(0)
    while at < len(text):
        for column in range(columns):
            value, at, stop = _number(text, at, time_first and column == 0)
            if stop != 0:
                return row, column, at, stop
            rows[row, column] = value
            last = column == columns - 1
            if at < len(text) and text[at] == _COMMA:
                if last:
                    return row, column, at, _TOO_MANY_COLUMNS
                at += 1
            elif at == len(text) or text[at] == _NEWLINE or text[at] == _RETURN:
                if not last:
                    return row, column, at, _TOO_FEW_COLUMNS
            else:
                return row, column, at, _NOT_A_DIGIT
        if at < len(text) and text[at] == _RETURN:
            at += 1
            if at == len(text) or text[at] != _NEWLINE:
                return row, columns - 1, at, _BAD_LINE_END
        at += 1
        row += 1
    return row, 0, len(text), 0


def _found(text: NDArray[np.uint8], offset: int) -> str:
    if offset >= len(text):
        return "the end of the file"
    rest = text[offset : offset + 24].tobytes()
    if rest[:1] in (b"\n", b"\r"):
        return "the end of the row"
    field = rest.split(b"\n")[0].split(b",")[0] or rest[:1]
    return repr(field.decode("ascii", "backslashreplace"))


def read_rows(
    text: NDArray[np.uint8], names: list[str], time_first: bool, where: str
) -> NDArray[np.int64]:
    """Read a text whose rows all have these columns.

    Raises
    ------
    RecordingRefused
        With the row, the column and the offset where the text stops being what it should be.
    """
    most = int(np.count_nonzero(text == _NEWLINE)) + 1
    rows = np.zeros((most, len(names)), np.int64)
    row, column, offset, stop = parse_rows(text, time_first, rows)
    if stop == 0:
        return rows[:row]
    is_time = time_first and column == 0
    most_digits = _DECIMALS if is_time else _MOST_DIGITS
    expected = {
        Stop.NOT_A_DIGIT: "seconds" if is_time else "a whole number",
        Stop.TOO_LONG: f"at most {most_digits} digits",
        Stop.TOO_FEW_COLUMNS: f"{len(names)} columns",
        Stop.TOO_MANY_COLUMNS: f"{len(names)} columns, then the end of the row",
        Stop.BAD_LINE_END: "a line feed behind the carriage return",
    }[Stop(stop)]
    truncated = offset >= len(text)
    raise RecordingRefused(
        "the recording is truncated" if truncated else "the recording is damaged",
        expected=expected,
        found=_found(text, offset),
        where=f"{where}, row {row + 1}, column {column + 1} ({names[column]}), offset {offset}",
        remedy="fetch the file again, and compare its size",
    )


def field_offset(text: NDArray[np.uint8], row: int, column: int) -> int:
    """Return where a field of a text that was read begins; row and column count from 0."""
    ends = np.flatnonzero(text == _NEWLINE)
    start = int(ends[row - 1]) + 1 if row else 0
    commas = np.flatnonzero(text[start:] == _COMMA)
    return start + (int(commas[column - 1]) + 1 if column else 0)
