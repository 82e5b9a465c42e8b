"""What stands in a region of shared memory, read without disturbing who uses it.

The region is mapped read-only and never locked. A ring's records are taken as a tailing reader
takes them: copy, acquire fence, and believe only what the writer's `claimed` cell shows that it had
not begun to overwrite. All slots are copied at once, because printing takes longer than a lap.

The oldest slot left may be the second of a record whose first is gone. Nothing in a slot says so,
but a lap always begins with a record; so both ways to cut the slots up to the next lap are tried,
and where both hold, printing begins where they meet.

Rings of commands or events, counters, histograms and latest cells are known by their layout hash;
of a ring with another one (a test's, one of single records) the kind's text tells. What a venue has
besides is printed by `venue_dump`. `hft dump` comes here from `hftcore.ops.dump`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hftcore import messages
from hftcore.errors import Refused, UsageRefused
from hftcore.ops.decode import STREAMS, Stream, decode, fields_of, header_of
from hftcore.ops.dump import Entry, in_slots, print_records
from hftcore.ops.printer import Printer, as_text
from hftcore.ops.venue_dump import print_venue_region
from ipc import counters, histogram
from ipc.directory import default_base
from ipc.header import RegionHeader, layout_hash
from ipc.intrinsics import fence_acquire, load_acquire, load_relaxed
from ipc.kernel import kernel
from ipc.latest import BUSY, NEVER_WRITTEN, Latest
from ipc.region import SUFFIX, Region
from ipc.ring import CLAIMED, MAX_READERS, NOT_GATING, SLOT_WORDS, Ring

PERCENTS = (50, 90, 99, 99.9, 99.99)


def print_region(target: str, printer: Printer, stream: Stream | None, limit: int | None) -> None:
    """Print the region that a path or VENUE/NAME names.

    Raises
    ------
    Refused
        No such region, or one that can't be trusted or has a payload unknown here.
    """
    directory, name = found_region(target)
    with Region.attach(directory, name) as region:
        header = region.header
        records = {layout_hash(layout): layout for layout in messages.MEANINGS}
        rings = {messages.stream_layout(each): each for each in STREAMS}
        kind = header.kind.split()
        if header.layout == counters.LAYOUT:
            _print_counters(region, printer)
        elif header.layout == histogram.LAYOUT:
            _print_histograms(region, printer)
        elif kind[:1] == ["latest"] and header.layout in records:
            _print_latest(region, records[header.layout], printer)
        elif header.layout in rings:
            _print_ring(region, printer, stream or rings[header.layout], limit)
        elif kind[:1] == ["ring"]:
            named = next((each for each in STREAMS if each in kind), None)
            _print_ring(region, printer, stream or named, limit)
        elif print_venue_region(region, printer, limit):
            pass
        else:
            raise Refused(
                "this region's payload can't be printed",
                expected="a ring, counters, a histogram, or a kind that begins with ring or latest",
                found=f"kind {header.kind!r}, layout {header.layout:#x}",
                where=str(region.path),
                remedy="if programs of two versions are at work, dump with the one that made it;"
                " else name the kind where the region is created",
            )


def found_region(target: str) -> tuple[Path, str]:
    """Return the directory and the name of the region that a path or VENUE/NAME means."""
    path = Path(target)
    if path.exists():
        return path.parent, path.name.removesuffix(SUFFIX)
    base = default_base()
    known = sorted(f"{each.parent.name}/{each.stem}" for each in base.glob(f"*/*{SUFFIX}"))
    if target not in known:
        raise UsageRefused(
            "there is no such file or region",
            expected="a file, or one of the regions " + (", ".join(known) or f"below {base}: none"),
            found=target,
            remedy="name a path, or VENUE/NAME",
        )
    return base / path.parent, path.name


def _heading(header: RegionHeader, printer: Printer, facts: dict[str, Any]) -> None:
    said = {
        "region": header.name,
        "kind": header.kind,
        "epoch": header.venue_epoch,
        "creator_pid": header.creator_pid,
        "created_ns": header.created_ns,
        **facts,
    }
    shown = {key: value for key, value in said.items() if not isinstance(value, dict)}
    printer.line(said, "  ".join(f"{key}={value}" for key, value in shown.items()))


def _print_counters(region: Region, printer: Printer) -> None:
    _heading(region.header, printer, {})
    for name, value in counters.Counters(region.words):
        printer.line({"counter": name, "value": value}, f"{value:>20}  {name}")


def _print_histograms(region: Region, printer: Printer) -> None:
    _heading(region.header, printer, {})
    for number in range(region.words.size // histogram.CELL_WORDS):
        first = number * histogram.CELL_WORDS
        cells = region.words[first : first + histogram.CELL_WORDS]
        copied = histogram.Histogram(cells).snapshot()
        values = zip(PERCENTS, copied.percentiles(PERCENTS), strict=True)
        facts = {
            "histogram": number,
            "count": copied.count,
            "minimum": copied.minimum,
            **{f"p{percent:g}": value for percent, value in values},
            "maximum": copied.maximum,
        }
        printer.line(facts, "  ".join(f"{key}={value}" for key, value in facts.items()))


def _print_latest(region: Region, layout: np.dtype[Any], printer: Printer) -> None:
    version, rows = Latest(region.words, layout).read()
    states = {BUSY: "busy: its writer is at work, or died", NEVER_WRITTEN: "never written"}
    _heading(region.header, printer, {"version": version})
    if version in states:
        printer.line({"latest": states[version]}, states[version])
        return
    fields = fields_of(layout, rows.tobytes())
    printer.line({"latest": fields}, as_text(layout, fields))


def _print_ring(region: Region, printer: Printer, stream: Stream | None, limit: int | None) -> None:
    ring = Ring.attach(region.words)
    first, slots = readable_slots(ring)
    position = first + len(slots)
    cursors = {
        reader: ring.cursor(reader)
        for reader in range(MAX_READERS)
        if ring.cursor(reader) != NOT_GATING
    }
    facts = {
        "capacity": ring.capacity,
        "position": position,
        "readable_from": first,
        "cursors": cursors,
    }
    _heading(region.header, printer, facts)
    if not printer.as_json:
        for reader, cursor in cursors.items():
            print(f"reader {reader}: cursor={cursor} lag={position - cursor}")
    begin = first_record(slots, first, ring.capacity, stream)
    if begin:
        at = first + begin
        printer.line(
            {"skipped_slots": begin, "records_from": at},
            f"{begin} slots before position {at} can't be told apart and are left out",
        )
    if begin < len(slots):

        def entries() -> Any:
            return in_slots(slots[begin:], first + begin, 1)

        print_records(entries, f"{region.path}, position", printer, stream, limit)


def readable_slots(ring: Ring) -> tuple[int, NDArray[np.uint8]]:
    """Copy every slot that the writer has left readable.

    Returns
    -------
    tuple
        The position of the first, and the slots as uint8[n, 64].
    """
    copied = np.zeros(ring.capacity * SLOT_WORDS, np.int64)
    span = np.zeros(2, np.int64)
    copy_readable(ring.cells, ring.words, ring.capacity, ring.position, copied, span)
    first, end = int(span[0]), int(span[1])
    order = np.arange(first, end) % ring.capacity
    return first, copied.view(np.uint8).reshape(-1, messages.SLOT_BYTES)[order]


@kernel
def copy_readable(
    cells: Any, words: Any, capacity: int, position: int, copied: Any, span: Any
) -> None:
    """Copy the slots of a ring that were published and not claimed again meanwhile.

    Parameters
    ----------
    cells, words : int64[:]
        The ring, shared, read only.
    position : int
        Where the writer last said that it is; published slots beyond are taken too.
    copied : int64[capacity * 8]
        Private, written: a slot where the ring has it.
    span : int64[2]
        Private, written: the first position that is whole, and the end.
    """
    first = max(load_relaxed(cells, CLAIMED) - capacity, 0)
    end = first
    until = first + capacity  # a fast writer may be followed for one lap, no longer
    while end < until:
        slot = (end & (capacity - 1)) * SLOT_WORDS
        # acquire: pairs with `publish`
        if load_acquire(words, slot) != end + 1:
            if end >= position:
                break
            first = end + 1  # overwritten meanwhile, or taken back
        else:
            for word in range(SLOT_WORDS):
                copied[slot + word] = words[slot + word]
        end += 1
    # acquire fence: the copies are done before the intent is read; pairs with `claim`
    fence_acquire()
    span[0] = min(max(first, load_relaxed(cells, CLAIMED) - capacity), end)
    span[1] = end


def first_record(slots: NDArray[np.uint8], first: int, capacity: int, stream: Stream | None) -> int:
    """Return the number of the first slot that is known to begin a record.

    Parameters
    ----------
    first : int
        The position of `slots[0]`.
    stream : Stream, optional
        Default: either.
    """
    if first % capacity == 0:
        return 0
    lap = min(-first % capacity, len(slots))  # a record begins here, or the writer's next will
    chains = [
        chain
        for start in (0, 1)
        for each in ([stream] if stream else STREAMS)
        if (chain := _chain(slots, start, lap, each)) is not None
    ]
    if not chains:
        return lap
    shared = set(chains[0]).intersection(*chains[1:])
    return min(shared, default=lap)


def _chain(slots: NDArray[np.uint8], start: int, end: int, stream: Stream) -> list[int] | None:
    """Return where records begin from `start` on, None when they don't fit up to `end`."""
    begins = []
    for entry in in_slots(slots[start:end], start, 1):
        begins.append(entry.at)
        if not entry.pads and not _fits(stream, entry):
            return None
    return [*begins, end]


def _fits(stream: Stream, entry: Entry) -> bool:
    if header_of(entry.slots)[1] and len(entry.slots) == messages.SLOT_BYTES:
        return False
    record = decode(stream, entry.slots)
    return record is not None and not record.strays


__all__ = ["first_record", "found_region", "print_region", "readable_slots"]
