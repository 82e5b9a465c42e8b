"""What a shared region says of itself in its first page, and how that page is judged.

Whoever attaches believes nothing: the page names the layout (a hash of the dtype), the format, the
epoch and the boot, and each mismatch is refused with what was expected, what was found, where, and
the remedy. The magic is written last, so a file without it is half made.

`layout_hash` also goes into journal segments and snapshots: two programs that disagree about one
field's offset must not get as far as reading a price. Before this: `ipc.directory`; after:
`ipc.region`.
"""

from __future__ import annotations

import hashlib
import mmap
import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from ipc.errors import RegionRefused

HEADER_BYTES = 4096
MAGIC = int.from_bytes(b"HFTREG1\0", "little")
FORMAT_VERSION = 1

HEADER = np.dtype(
    [
        ("magic", "<i8"),  # written last
        ("format_version", "<i4"),  # of this page
        ("sparse", "<i4"),  # 1 when the pages are not reserved
        ("layout", "<i8"),  # layout_hash of the payload
        ("payload_bytes", "<i8"),
        ("file_bytes", "<i8"),  # page and payload, rounded up to the file system's page
        ("venue_epoch", "<i8"),  # as the creator said
        ("creator_pid", "<i8"),
        ("created_ns", "<i8"),  # CLOCK_REALTIME, stamped by the creator
        ("boot_id", "S40"),  # /proc/sys/kernel/random/boot_id
        ("kind", "S64"),  # what the payload is, for people
        ("name", "S104"),
        ("unused", "u1", (HEADER_BYTES - 272,)),
    ]
)
assert HEADER.itemsize == HEADER_BYTES


def layout_hash(dtype: np.dtype[Any]) -> int:
    """Hash a dtype's names, formats, offsets and sizes, nested ones included.

    Returns
    -------
    int
        63 bits, so that it fits int64. Equal layouts give equal hashes, on any machine.
    """
    digest = hashlib.blake2b(_described(dtype).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def _described(dtype: np.dtype[Any]) -> str:
    if dtype.subdtype is not None:
        item, shape = dtype.subdtype
        return f"{shape}{_described(item)}"
    if dtype.fields is None:
        return dtype.str
    fields = [f"{name}@{offset}:{_described(kind)}" for name, (kind, offset) in _fields(dtype)]
    return f"{{{','.join(fields)}}}{dtype.itemsize}"


def _fields(dtype: np.dtype[Any]) -> list[tuple[str, tuple[np.dtype[Any], int]]]:
    fields: Any = dtype.fields  # name: (dtype, offset) or, with a title, three of them
    return [(name, fields[name][:2]) for name in dtype.names or ()]


@cache
def boot_id() -> str:
    """Return the kernel's name for this boot, which shared memory doesn't outlive."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


@dataclass(frozen=True)
class RegionHeader:
    """A region's first page, read. The fields are HEADER's."""

    magic: int
    format_version: int
    sparse: int
    layout: int
    payload_bytes: int
    file_bytes: int
    venue_epoch: int
    creator_pid: int
    created_ns: int
    boot_id: str
    kind: str
    name: str

    @classmethod
    def read(cls, descriptor: int) -> RegionHeader:
        """Read the fields of an open file's first page; judge nothing, not even its length."""
        page = os.pread(descriptor, HEADER_BYTES, 0).ljust(HEADER_BYTES, b"\0")
        row = np.frombuffer(page, HEADER, 1)[0]
        values: dict[str, Any] = {
            name: row[name].decode("utf-8", "replace") if kind.kind == "S" else int(row[name])
            for name, (kind, _) in _fields(HEADER)
            if name != "unused"
        }
        return cls(**values)

    def write(self, mapping: mmap.mmap) -> None:
        """Write the page into a fresh mapping, the magic last."""
        row = np.zeros(1, HEADER)
        for name, (kind, _) in _fields(HEADER)[1:-1]:
            value = getattr(self, name)
            row[name] = value.encode() if kind.kind == "S" else value
        mapping[8:HEADER_BYTES] = row.tobytes()[8:]
        # who reads this magic reads the rest as well: x86 keeps stores in order, and the reader's
        # pread copies upwards
        mapping[:8] = self.magic.to_bytes(8, "little")


def checked_header(
    descriptor: int, path: Path, *, layout: int | None = None, epoch: int | None = None
) -> RegionHeader:
    """Read the first page and refuse the region unless it is whole and what was expected.

    Parameters
    ----------
    layout, epoch : int, optional
        What the region must have been made with; None accepts any.

    Raises
    ------
    RegionRefused
        Half made, no region at all, another format, stale, truncated, another layout or epoch.
    """
    size = os.fstat(descriptor).st_size
    header = RegionHeader.read(descriptor)
    old = "stop the venue, remove what it left (`remove_stale`), start it again"
    mixed = "programs of two versions are at work here: stop the venue and start all of one"

    def refuse(what: str, expected: object, found: object, remedy: str = old) -> None:
        raise RegionRefused(
            what, expected=str(expected), found=str(found), where=str(path), remedy=remedy
        )

    if header.magic == 0:
        refuse("this region is half made", "a magic", "none: its creator is still at it, or died")
    if header.magic != MAGIC:
        refuse("this is not a region", f"magic {MAGIC:#x}", f"{header.magic:#x}")
    if header.format_version != FORMAT_VERSION:
        refuse("this region has another format", FORMAT_VERSION, header.format_version, mixed)
    if header.boot_id != boot_id():
        refuse("this region is stale", f"boot {boot_id()}", f"boot {header.boot_id}")
    if header.file_bytes != size or size < HEADER_BYTES + header.payload_bytes:
        refuse("this region is truncated", f"{header.file_bytes} bytes", f"{size} bytes")
    if layout is not None and header.layout != layout:
        refuse("this region has another layout", f"{layout:#x}", f"{header.layout:#x}", mixed)
    if epoch is not None and header.venue_epoch != epoch:
        refuse("this region is of another epoch", epoch, header.venue_epoch)
    return header
