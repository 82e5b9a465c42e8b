"""A recording of either format as one thing to replay: commands, block by block, and the truth.

`ops.replay` sees no format: it asks for the instruments, then for conversions until there are no
more, and for each conversion for the book that the recording says there was after each of its rows.
For LOBSTER that is the order book file, for ITCH the reference of `itch_reference`; both in ticks.

Comes before: the converters. After: `ops.replay`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from hftcore.errors import UsageRefused
from hftcore.marketdata import itch_scan, lobster
from hftcore.marketdata.conversion import PRICE_UNITS, TIME_NOTE, Conversion, Counts, Listed
from hftcore.marketdata.itch import PREFIX_BYTES
from hftcore.marketdata.itch_conversion import ItchConverter, list_instruments
from hftcore.marketdata.itch_reference import ReferenceBooks
from hftcore.marketdata.lobster_conversion import LobsterConverter, list_instrument

BLOCK_ROWS = 1 << 14
ITCH_LEVELS = 10
"""Levels a side that are compared after each ITCH message."""


class Source(Protocol):
    """A recording, opened and checked.

    Attributes
    ----------
    instruments : tuple of Listed
        What is replayed.
    levels : int
        Levels a side of `expected`.
    counts : Counts
        Of the rows converted so far.
    total : int
        What `done` comes up to: rows or bytes.
    notes : tuple of str
        What a reader should know of the file.
    """

    format: str
    instruments: tuple[Listed, ...]
    levels: int
    counts: Counts
    total: int
    notes: tuple[str, ...]

    @property
    def done(self) -> int:
        """How much of `total` is converted."""

    def convert(self, first_sequence: int) -> Conversion | None:
        """Convert the next rows; None: there are no more."""

    def expected(self) -> NDArray[np.int64]:
        """Return the recording's book after each row that was converted last.

        Returns
        -------
        int64[rows, 2, levels, 2]
            Bids and asks of the row's instrument from the best, price in ticks and lots, 0: none.
        """

    def final_book(self, instrument_id: int) -> NDArray[np.int64]:
        """Return the book after the last row: as `expected`, of one instrument, all its levels."""

    def where(self, index: int) -> str:
        """Name a row that was converted last, by its index."""


class LobsterSource:
    """A LOBSTER recording and its order book file."""

    format = "lobster"

    def __init__(self, path: Path, symbol: str | None) -> None:
        self._recording = lobster.open_recording(path)
        if symbol is not None and symbol != self._recording.symbol:
            raise UsageRefused(
                "the recording has no such instrument",
                expected=f"one of {self._recording.symbol}",
                found=symbol,
                where="--instrument",
            )
        listed = list_instrument(self._recording)
        self._units = listed.units_per_tick
        self._converter = LobsterConverter(self._recording, listed)
        self._first = self._last = 0
        self.instruments: tuple[Listed, ...] = (listed,)
        self.levels = self._recording.levels
        self.counts = self._converter.counts
        self.total = len(self._recording.messages)
        self.notes = (*self._recording.notes, TIME_NOTE)

    @property
    def done(self) -> int:
        """How many rows are converted."""
        return self._last

    def convert(self, first_sequence: int) -> Conversion | None:
        """Convert the next rows; None: there are no more."""
        if self._last == self.total:
            return None
        self._first, self._last = self._last, min(self._last + BLOCK_ROWS, self.total)
        return self._converter.convert(first_sequence, self._first, self._last)

    def expected(self) -> NDArray[np.int64]:
        """Return the order book file's rows."""
        return _in_ticks(self._recording.depth(self._first, self._last), self._units)

    def final_book(self, instrument_id: int) -> NDArray[np.int64]:
        """Return the last row of the order book file."""
        return _in_ticks(self._recording.depth(self.total - 1, self.total)[0], self._units)

    def where(self, index: int) -> str:
        """Name a row as an editor counts lines."""
        row = self._first + index
        fields = ",".join(map(str, self._recording.messages[row].tolist()))
        return f"row {row + 1} ({fields})"


class ItchSource:
    """An ITCH recording and the reference books that follow it."""

    format = "itch"

    def __init__(self, path: Path, symbol: str | None) -> None:
        self._recording = itch_scan.open_recording(path)
        listed = list_instruments(self._recording, symbol)
        self._converter = ItchConverter(self._recording, listed)
        self._reference = ReferenceBooks(list(listed), ITCH_LEVELS)
        self._units = np.ones(len(listed) + 1, np.int64)
        for entry in listed.values():
            self._units[entry.instrument_id] = entry.units_per_tick
        self._locates = {entry.instrument_id: locate for locate, entry in listed.items()}
        self._offset = 0
        self._block = self._recording.block(0, 0)
        self._row_instruments = np.zeros(0, np.int64)
        self.instruments: tuple[Listed, ...] = tuple(listed.values())
        self.levels = ITCH_LEVELS
        self.counts = self._converter.counts
        self.total = len(self._recording.content)
        self.notes = (*_itch_notes(self._recording), TIME_NOTE)

    @property
    def done(self) -> int:
        """How many bytes are converted."""
        return self._offset

    def convert(self, first_sequence: int) -> Conversion | None:
        """Convert the next messages; None: there are no more."""
        block = self._recording.block(self._offset, BLOCK_ROWS)
        if len(block.types) == 0:
            self._offset = self.total
            return None
        self._block, self._offset = block, block.next_offset
        conversion = self._converter.convert(first_sequence, block)
        self._row_instruments = conversion.instruments
        return conversion

    def expected(self) -> NDArray[np.int64]:
        """Let the reference follow the messages converted last, and return its books."""
        block = self._block
        content = self._recording.content
        depth = self._reference.follow(content, block.offsets, block.next_offset)
        return _in_ticks(depth, self._units[self._row_instruments][:, None, None])

    def final_book(self, instrument_id: int) -> NDArray[np.int64]:
        """Return every level of a reference book."""
        book = self._reference.whole(self._locates[instrument_id])
        return _in_ticks(book, int(self._units[instrument_id]))

    def where(self, index: int) -> str:
        """Name a message by its offset."""
        offset = int(self._block.offsets[index])
        return f"offset {offset} ({chr(self._recording.content[offset + PREFIX_BYTES])})"


def _in_ticks(depth: NDArray[np.int64], units: int | NDArray[np.int64]) -> NDArray[np.int64]:
    in_ticks = depth.copy()
    in_ticks[..., 0] //= units
    return in_ticks


def _itch_notes(recording: itch_scan.ItchRecording) -> tuple[str, ...]:
    if recording.unframed:
        return (f"{recording.unframed} messages have 0 as their length: taken from their types",)
    return ()


SOURCES: dict[str, Callable[[Path, str | None], Source]] = {
    LobsterSource.format: LobsterSource,
    ItchSource.format: ItchSource,
}
"""How a recording of each format is opened."""


def open_source(path: Path, recording_format: str, symbol: str | None) -> Source:
    """Open a recording.

    Raises
    ------
    UsageRefused
        The format or the symbol does not exist; names those that do.
    RecordingRefused
        The file is damaged, truncated or of another format.
    """
    if recording_format not in SOURCES:
        raise UsageRefused(
            "there is no such format",
            expected=f"one of {', '.join(sorted(SOURCES))}",
            found=recording_format,
            where="--format",
        )
    return SOURCES[recording_format](path, symbol)


def tick_text(listed: Listed) -> str:
    """Return the tick of an instrument in dollars."""
    return f"{listed.units_per_tick / PRICE_UNITS:.4f}".rstrip("0")
