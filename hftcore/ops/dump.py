"""`hft dump`: records in a file or a region of shared memory, one a line, every field by name.

Three kinds of file: raw 64-byte slots, an .npy array of command rows (int64[n, 16], a row a
record), and a region (its first bytes say so; `hftcore.ops.region_dump` prints those). Raw slots
don't say which stream they are, so both readings are tried on the first records: bytes read as the
wrong stream soon show a kind, an enum value or an event index that can't be. When both readings
hold, the tool asks instead of guessing.

What is printed before damage is printed; then the damage is refused with its offset. Comes after
`hftcore.ops.decode`, which knows the layouts; `hft dump` calls `main`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hftcore import messages
from hftcore.errors import Refused, UsageRefused
from hftcore.ops.decode import STREAMS, Record, Stream, Value, decode, header_of
from hftcore.ops.printer import Printer, explain_all
from ipc.header import MAGIC

SLOT_BYTES = messages.SLOT_BYTES
ROW_WORDS = 2 * SLOT_BYTES // 8
LOOKED_AT = 1000
"""Records that must agree with a stream before it is believed."""

_NPY_MAGIC = b"\x93NUMPY"


@dataclass(frozen=True)
class Entry:
    """The bytes of one record, or of a run of pads, and where they stood."""

    at: int
    slots: bytes
    pads: int = 0


def main(
    target: str | None,
    *,
    kind: str | None = None,
    limit: int | None = None,
    json: bool = False,
    explain: bool = False,
) -> int:
    """Print `target`; return 0.

    Parameters
    ----------
    target : str, optional
        A path, or VENUE/NAME of a region. Without one, `explain` prints every layout.
    kind : str, optional
        "commands" or "events"; default: what the records look like.
    limit : int, optional
        Records to print at most.

    Raises
    ------
    Refused
        Damage, after what precedes it was printed: offset, expected, found.
    """
    stream = _checked_stream(kind)
    printer = Printer(json=json, explain=explain)
    if target is None:
        if not explain:
            raise UsageRefused(
                "nothing was named to dump",
                expected="a file, a region, or --explain to print every layout",
                remedy="hft dump --help",
            )
        explain_all(printer, stream)
        return 0
    path = Path(target)
    begins = _begins(path)
    if begins is None or begins[:8] == MAGIC.to_bytes(8, "little"):
        # here, because it brings the compiler, which files don't need
        from hftcore.ops import region_dump  # noqa: PLC0415

        region_dump.print_region(target, printer, stream, limit)
    elif begins.startswith(_NPY_MAGIC):
        print_records(rows_of(path), f"{path}, row", printer, stream, limit)
    else:
        print_records(slots_of(path), f"{path}, byte", printer, stream, limit)
    printer.finish()
    return 0


def print_records(
    source: Callable[[], Iterator[Entry]],
    where: str,
    printer: Printer,
    stream: Stream | None,
    limit: int | None = None,
) -> None:
    """Decode and print what `source` yields, each time it is asked from the beginning."""
    stream = stream or detected_stream(source, where)
    for entry in islice(source(), limit):
        if entry.pads:
            printer.pads(entry.at, entry.pads)
            continue
        record = decode(stream, entry.slots)
        if record is None:
            raise _not_a_record(stream, entry, where)
        printer.record(entry.at, record)


def slots_of(path: Path) -> Callable[[], Iterator[Entry]]:
    """Read a file of raw slots; runs of pads are one entry."""
    size = path.stat().st_size
    if size == 0:
        raise Refused(
            "there are no records in this file",
            expected=f"slots of {SLOT_BYTES} bytes",
            found="0 bytes",
            where=str(path),
            remedy="name the file that was written to",
        )

    def entries() -> Iterator[Entry]:
        content = np.memmap(path, np.uint8, "r")
        whole = size - size % SLOT_BYTES
        yield from in_slots(content[:whole].reshape(-1, SLOT_BYTES), 0, SLOT_BYTES)
        if whole != size:
            raise Refused(
                "this file ends within a slot",
                expected=f"{SLOT_BYTES} bytes",
                found=f"{size - whole} bytes",
                where=f"{path}, byte {whole}",
                remedy="it was cut off while it was written, or it isn't a file of slots",
            )

    return entries


def in_slots(slots: NDArray[np.uint8], first: int, step: int) -> Iterator[Entry]:
    """Cut slots into records as their headers say, and gather runs of pads.

    Parameters
    ----------
    slots : uint8[n, 64]
        The first begins a record.
    first, step : int
        Where the first slot stands, and how far on the next one does: a byte offset or a position.
    """
    pads = number = 0
    while number < len(slots):
        slot = slots[number].tobytes()
        two_slots = header_of(slot)[1]
        if not any(slot[8:]):
            pads += 1
            number += 1
            continue
        if pads:
            yield Entry(first + (number - pads) * step, b"", pads)
            pads = 0
        record = slots[number : number + 1 + two_slots].tobytes()
        yield Entry(first + number * step, record)
        number += len(record) // SLOT_BYTES
    if pads:
        yield Entry(first + (number - pads) * step, b"", pads)


def rows_of(path: Path) -> Callable[[], Iterator[Entry]]:
    """Read an .npy array of records, one a row of two slots."""
    try:
        rows = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise Refused(
            "this .npy file is damaged",
            expected="a whole numpy array",
            found=str(error),
            where=str(path),
            remedy="write it again with numpy.save",
        ) from error
    if rows.dtype != np.dtype("<i8") or rows.ndim != 2 or rows.shape[1] != ROW_WORDS:
        raise Refused(
            "this array holds no records",
            expected=f"int64[n, {ROW_WORDS}]: a record of one or two slots a row",
            found=f"{rows.dtype}{list(rows.shape)}",
            where=str(path),
            remedy="save the rows of commands, or raw slots without numpy's header",
        )

    def entries() -> Iterator[Entry]:
        for number, row in enumerate(rows):
            record = row.tobytes()
            two_slots = header_of(record)[1]
            yield Entry(number, record if two_slots else record[:SLOT_BYTES])

    return entries


def detected_stream(source: Callable[[], Iterator[Entry]], where: str) -> Stream:
    """Return the only stream that the first records can be, or refuse to guess."""
    readings = {stream: _read_as(stream, source) for stream in STREAMS}
    fitting = [stream for stream, (_, objection) in readings.items() if not objection]
    if len(fitting) == 1:
        return fitting[0]
    if not fitting:
        furthest = sorted(readings, key=lambda stream: readings[stream][0])
        if readings[furthest[0]][0] < readings[furthest[1]][0]:
            return furthest[1]
    found = "; ".join(
        f"as {stream}: {objection or f'{count} records fit'}"
        for stream, (count, objection) in readings.items()
    )
    file = where.rpartition(",")[0]
    if fitting:
        raise UsageRefused(
            "these records may be commands or events",
            expected="records that can only be one of them",
            found=found,
            where=file,
            remedy="say --kind commands or --kind events",
        )
    raise Refused(
        "these are no records",
        expected=f"{SLOT_BYTES}-byte slots of commands or events",
        found=found,
        where=file,
        remedy="name a file of slots; --kind prints what stands before the damage",
    )


def _read_as(stream: Stream, source: Callable[[], Iterator[Entry]]) -> tuple[int, str]:
    """Count the records that fit the stream, and say what the first other one lacks."""
    before: Record | None = None
    count = 0
    try:
        for entry in islice(source(), LOOKED_AT):
            if entry.pads:
                continue
            record = decode(stream, entry.slots)
            if record is None:
                kind, _ = header_of(entry.slots)
                slots = len(entry.slots) // SLOT_BYTES
                return count, f"no kind {kind} of {slots} slots (at {entry.at})"
            if stream == "events" and (record.second or {}).get("command_kind") == "PAD":
                return count, f"it answers no command (at {entry.at})"
            if record.strays:
                return count, f"{', '.join(record.strays)} can't be (at {entry.at})"
            if before is not None and not _follows(stream, before, record):
                return count, f"out of sequence (at {entry.at})"
            before = record
            count += 1
    except Refused:
        pass  # a torn end says nothing about the stream
    return count, ""


def _follows(stream: Stream, before: Record, record: Record) -> bool:
    """Return whether one record can stand behind another in one stream."""
    was, now = before.first, record.first
    same = was["sequence"] == now["sequence"]
    if stream == "commands":
        return now["sequence"] == 0 or not same
    if "index" not in was or "index" not in now:
        return True  # an echo has its command's bytes there
    last = before.name == "WATERMARK" or "LAST" in _listed(was["flags"])
    if same:
        return int(str(now["index"])) == int(str(was["index"])) + 1
    return now["index"] == 0 and (last or record.name == "WATERMARK")


def _listed(value: Value) -> list[str]:
    return value if isinstance(value, list) else [str(value)]


def _checked_stream(kind: str | None) -> Stream | None:
    for stream in STREAMS:
        if kind == stream:
            return stream
    if kind is None:
        return None
    raise UsageRefused(
        "there is no such kind of records",
        expected="one of " + ", ".join(STREAMS),
        found=kind,
        remedy="leave --kind out to have it detected",
    )


def _begins(path: Path) -> bytes | None:
    """Return the first bytes of a file, None when there is no such file."""
    if not path.exists():
        return None
    if path.is_dir():
        raise UsageRefused(
            "a directory can't be dumped",
            expected="a file of slots, an .npy of rows, a .region file",
            found="a directory",
            where=str(path),
            remedy="name one file in it",
        )
    with path.open("rb") as file:
        return file.read(8)


def _not_a_record(stream: Stream, entry: Entry, where: str) -> Refused:
    kind, two_slots = header_of(entry.slots)
    slots = len(entry.slots) // SLOT_BYTES
    cut = two_slots and slots == 1
    return Refused(
        "this record's second slot is missing" if cut else f"this is no record of {stream}",
        expected="two slots, as its header says"
        if cut
        else f"a kind of messages.{stream.upper()} that comes in {slots} slot(s)",
        found=f"kind {kind}, header {entry.slots[8:16].hex(' ')}",
        where=f"{where} {entry.at}",
        remedy="it was cut off while it was written, or this isn't a file of slots"
        if cut
        else "look for what wrote there, or try the other --kind",
    )
