"""Shared memory with an identity: one file, one page that says what it is, one payload.

Files are made O_EXCL | O_NOFOLLOW with mode 0600 in a directory that `ipc.directory` has checked,
and `ipc.header` judges the first page. Tools map read-only: numba writes through the records of a
read-only numpy array without noticing, and only PROT_READ stops it.

Ordinary regions reserve every page when they are made, so that a full /dev/shm is an error here
and not a SIGBUS in a matcher later. Sparse ones (price ladders: tens of gigabytes of which few
pages are ever touched) reserve nothing.

Whoever maps a region for writing holds a shared lock on its file (`ipc.ofd`), so that
`remove_stale` can tell what a dead venue left behind from what a living one uses.

Rejected: multiprocessing.shared_memory (a reader that exited took the segment with it), posix_ipc's
shared memory (no directory of our own, so no 0700), memfd (no name, so no tool attaches).
Everything shared is laid over a region's `words`: rings, latest cells, counters, histograms, bells.
"""

from __future__ import annotations

import mmap
import os
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ipc import ofd
from ipc.directory import checked_name, opened_directory
from ipc.errors import RegionRefused
from ipc.header import (
    FORMAT_VERSION,
    HEADER_BYTES,
    MAGIC,
    RegionHeader,
    boot_id,
    checked_header,
    layout_hash,
)
from ipc.mapping import (
    IN_USE_BYTE,
    ask_huge,
    create_file,
    map_file,
    open_file,
    reserve,
    rounded,
)

__all__ = ["Region", "in_use", "layout_hash", "list_regions", "remove_stale"]

SUFFIX = ".region"


class Region:
    """A mapped region. A context manager: it owns the mapping, not the file.

    Attributes
    ----------
    path : Path
    header : RegionHeader
        As written or found when this process mapped the region.
    writable : bool
    huge_pages : bool
        Whether the kernel accepted to back the mapping with huge pages: the file is on hugetlbfs,
        or it took our madvise and its policy for shared memory allows it.
    """

    def __init__(
        self, path: Path, header: RegionHeader, mapping: mmap.mmap, *, writable: bool, huge: bool
    ) -> None:
        self.path = path
        self.header = header
        self.writable = writable
        self.huge_pages = huge
        self._mapping: mmap.mmap | None = mapping

    @classmethod
    def create(
        cls,
        directory: Path,
        name: str,
        payload_bytes: int,
        *,
        layout: int,
        epoch: int = 0,
        kind: str = "",
        sparse: bool = False,
        populate: bool = True,
        huge: bool = False,
    ) -> Region:
        """Make a new region of zeroes and map it for writing.

        Parameters
        ----------
        directory : Path
            From `venue_directory`.
        name : str
            The file is `<name>.region`.
        payload_bytes : int
            A positive multiple of 8.
        layout : int
            `layout_hash` of the payload's dtype.
        epoch : int
            The venue's epoch or start id; who attaches may insist on it.
        kind : str
            What the payload is, for people; at most 64 bytes.
        sparse : bool
            Reserve no pages: tens of gigabytes cost nothing until touched.
        populate : bool
            Map the reserved pages now (a first touch costs 2.2 us otherwise). Not for sparse ones.
        huge : bool
            Ask for transparent huge pages; `huge_pages` says what came of it.

        Raises
        ------
        RegionRefused
            When the name is taken, the directory can't be trusted, or memory is short.
        """
        if payload_bytes <= 0 or payload_bytes % 8:
            raise RegionRefused(
                "a region of this size can't be made",
                expected="a positive multiple of 8 bytes",
                found=f"{payload_bytes} bytes",
                where=name,
                remedy="round the size up",
            )
        path = directory / (checked_name(name) + SUFFIX)
        with opened_directory(directory) as parent:
            descriptor = create_file(parent, path)
            try:
                _note_use(descriptor, path)
                file_bytes = rounded(descriptor, HEADER_BYTES + payload_bytes)
                mapping, accepted = reserve(
                    descriptor, path, file_bytes, sparse=sparse, populate=populate, huge=huge
                )
                header = RegionHeader(
                    magic=MAGIC,
                    format_version=FORMAT_VERSION,
                    sparse=int(sparse),
                    layout=layout,
                    payload_bytes=payload_bytes,
                    file_bytes=file_bytes,
                    venue_epoch=epoch,
                    creator_pid=os.getpid(),
                    created_ns=time.time_ns(),
                    boot_id=boot_id(),
                    kind=kind,
                    name=name,
                )
                header.write(mapping)
                header = RegionHeader.read(descriptor)  # as everybody else will see it
            except BaseException:
                os.unlink(path.name, dir_fd=parent)
                raise
            finally:
                os.close(descriptor)  # the mapping keeps the open file, and with it the lock
        return cls(path, header, mapping, writable=True, huge=accepted)

    @classmethod
    def attach(
        cls,
        directory: Path,
        name: str,
        *,
        layout: int | None = None,
        epoch: int | None = None,
        writable: bool = False,
        populate: bool | None = None,
        huge: bool = False,
    ) -> Region:
        """Map a region that somebody else made.

        Parameters
        ----------
        layout, epoch : int, optional
            What the region must have been made with; None accepts any (tools that only list).
        writable : bool
            Tools leave this False: the mapping is then PROT_READ.
        populate : bool, optional
            Map all pages now; default: when writable. Never for sparse regions, in which even a
            read allocates the page.

        Raises
        ------
        RegionRefused
            When the region is missing, a link, somebody else's, open to others, half made,
            truncated, from another boot, not what was expected, or locked against writers.
        """
        path = directory / (checked_name(name) + SUFFIX)
        with opened_directory(directory) as parent:
            descriptor = open_file(parent, path, os.O_RDWR if writable else os.O_RDONLY)
        try:
            header = checked_header(descriptor, path, layout=layout, epoch=epoch)
            if writable:
                _note_use(descriptor, path)
            mapping = map_file(
                descriptor,
                path,
                header.file_bytes,
                writable=writable,
                sparse=bool(header.sparse),
                populate=writable if populate is None else populate,
            )
            accepted = ask_huge(descriptor, mapping, huge)
        finally:
            os.close(descriptor)
        return cls(path, header, mapping, writable=writable, huge=accepted)

    @property
    def words(self) -> NDArray[np.int64]:
        """The payload as int64 words; read-only when the region is."""
        return self.array(np.dtype("<i8"), self.header.payload_bytes // 8)

    def array(self, dtype: np.dtype[Any], count: int, offset: int = 0) -> NDArray[Any]:
        """View part of the payload as `count` rows of `dtype`, from byte `offset` on.

        The view keeps the memory mapped, also after `close`. `offset` is a multiple of 8.
        """
        if self._mapping is None:
            raise RegionRefused(
                "this region is closed",
                expected="views are taken while it is open",
                where=str(self.path),
                remedy="take the view earlier; it outlives the region",
            )
        end = offset + count * dtype.itemsize
        if offset < 0 or offset % 8 or count < 0 or end > self.header.payload_bytes:
            raise RegionRefused(
                "this is not inside the region",
                expected=f"at most {self.header.payload_bytes} bytes, at a multiple of 8",
                found=f"{count} rows of {dtype.itemsize} bytes at offset {offset}",
                where=str(self.path),
                remedy="create the region as large as what is laid over it",
            )
        return np.frombuffer(self._mapping, dtype, count, HEADER_BYTES + offset)

    def close(self) -> None:
        """Let go of the mapping; it goes at once, or with the last view of it."""
        mapping, self._mapping = self._mapping, None
        if mapping is not None:
            with suppress(BufferError):  # raised while views live; the last of them unmaps
                mapping.close()

    def unlink(self) -> None:
        """Remove the file; do nothing when the name is gone or belongs to a newer region."""
        with opened_directory(self.path.parent) as parent:
            try:
                descriptor = open_file(parent, self.path, os.O_RDONLY)
            except RegionRefused:
                return
            try:
                if RegionHeader.read(descriptor) == self.header:
                    os.unlink(self.path.name, dir_fd=parent)
            finally:
                os.close(descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def in_use(directory: Path, name: str) -> bool:
    """Return whether any process has the region mapped for writing; the kernel knows."""
    path = directory / (checked_name(name) + SUFFIX)
    with opened_directory(directory) as parent:
        descriptor = open_file(parent, path, os.O_RDONLY)
    try:
        return ofd.is_locked(descriptor, IN_USE_BYTE)
    finally:
        os.close(descriptor)


def list_regions(directory: Path) -> tuple[list[RegionHeader], list[RegionRefused]]:
    """Read the first page of every region of a venue, by name; sound or not, nothing is mapped.

    Returns
    -------
    list of RegionHeader, list of RegionRefused
        The pages, and what was refused of files that are nobody's region: links, other users'.
    """
    headers, complaints = [], []
    with opened_directory(directory) as parent:
        for name in _region_files(parent):
            try:
                descriptor = open_file(parent, directory / name, os.O_RDONLY)
            except RegionRefused as refused:
                complaints.append(refused)
                continue
            try:
                headers.append(RegionHeader.read(descriptor))
            finally:
                os.close(descriptor)
    return headers, complaints


def remove_stale(
    directory: Path, *, epoch: int | None = None
) -> tuple[list[str], list[RegionRefused]]:
    """Remove the regions that nobody can use any more.

    Stale is what no process has mapped for writing and what is from another boot, half made,
    damaged, of another format, or older than `epoch`. Whoever calls this holds the venue's role in
    `ipc.liveness`, so that nobody creates regions meanwhile.

    Parameters
    ----------
    epoch : int, optional
        Remove sound regions of earlier epochs too.

    Returns
    -------
    list of str, list of RegionRefused
        The names of what was removed, and what was refused of files that are nobody's region; those
        stay: somebody must find out who put them there.
    """
    removed, complaints = [], []
    with opened_directory(directory) as parent:
        for name in _region_files(parent):
            path = directory / name
            try:
                descriptor = open_file(parent, path, os.O_RDONLY)
            except RegionRefused as refused:
                complaints.append(refused)
                continue
            try:
                if not ofd.is_locked(descriptor, IN_USE_BYTE) and _is_stale(
                    descriptor, path, epoch
                ):
                    os.unlink(name, dir_fd=parent)
                    removed.append(name.removesuffix(SUFFIX))
            finally:
                os.close(descriptor)
    return removed, complaints


def _region_files(parent: int) -> list[str]:
    return sorted(name for name in os.listdir(parent) if name.endswith(SUFFIX))


def _note_use(descriptor: int, path: Path) -> None:
    """Say that this open file is mapped for writing; any number of processes may say so."""
    if not ofd.try_lock(descriptor, IN_USE_BYTE, shared=True):
        raise RegionRefused(
            "this region is locked against writers",
            expected="nobody who holds its first byte alone",
            found="a process that does",
            where=str(path),
            remedy="no part of the venue does that: find out who has the file open, end it",
        )


def _is_stale(descriptor: int, path: Path, epoch: int | None) -> bool:
    try:
        header = checked_header(descriptor, path)
    except RegionRefused:
        return True
    return epoch is not None and header.venue_epoch < epoch
