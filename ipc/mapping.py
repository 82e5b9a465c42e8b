"""The system calls behind a region: make or open the file, give it pages, map it.

Everything is relative to a directory descriptor that `ipc.directory` has checked. Pages are taken
with posix_fallocate, which says ENOSPC where a plain ftruncate would let the first touch die of
SIGBUS. MAP_POPULATE then fills the page tables; it works on old kernels too.

Huge pages need another order: fallocate takes small pages whatever the mapping wants, so the
advice comes first, then every page is touched (MADV_POPULATE_WRITE reports an error instead of
raising SIGBUS), then fallocate confirms that all is there. Used by `ipc.region` only.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from ipc import ofd
from ipc.directory import check_file
from ipc.errors import RegionRefused
from ipc.header import RegionHeader, boot_id

IN_USE_BYTE = 0
"""The byte of its file that everybody locks, shared, who maps a region for writing."""
_MAP_NORESERVE = 0x4000  # Python names it from 3.13 on
_MADV_POPULATE_WRITE = 23  # Linux 5.14
_LIBC = ctypes.CDLL(None)
_SHMEM_HUGE = Path("/sys/kernel/mm/transparent_hugepage/shmem_enabled")


def create_file(parent: int, path: Path) -> int:
    """Make the file and return its descriptor; refuse when anything has its name, a link too."""
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        descriptor = os.open(path.name, flags, 0o600, dir_fd=parent)
    except FileExistsError:
        descriptor = open_file(parent, path, os.O_RDONLY)
    else:
        os.fchmod(descriptor, 0o600)  # whatever the umask took away
        return descriptor
    try:
        header = RegionHeader.read(descriptor)
        live = ofd.is_locked(descriptor, IN_USE_BYTE)
        here = header.boot_id == boot_id()
        state = "live: mapped for writing" if live else "stale: nobody writes there"
        boot = "this boot" if here else "another boot, or half made"
        raise RegionRefused(
            "a region of this name is already there",
            expected="no such file",
            found=f"{state}; by pid {header.creator_pid}, epoch {header.venue_epoch}, {boot}",
            where=str(path),
            remedy="stop the venue that runs" if live else "`remove_stale`, or attach to it",
        )
    finally:
        os.close(descriptor)


def open_file(parent: int, path: Path, access: int) -> int:
    """Open an existing file, follow no link, check owner and mode; return its descriptor."""
    try:
        flags = access | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK  # a pipe would make it wait
        descriptor = os.open(path.name, flags, dir_fd=parent)
    except OSError as error:
        link = error.errno == errno.ELOOP
        raise RegionRefused(
            "this region can't be opened",
            expected="a file that the venue made",
            found="a symbolic link" if link else error.strerror or str(error),
            where=str(path),
            remedy="find out who put it there, then remove it"
            if link
            else "start the process that makes it first, or correct the name",
        ) from error
    try:
        check_file(descriptor, path)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def rounded(descriptor: int, size_bytes: int) -> int:
    """Round up to the file system's page: 4 KiB on tmpfs, 2 MiB or 1 GiB on hugetlbfs."""
    page_bytes = max(os.fstatvfs(descriptor).f_bsize, mmap.PAGESIZE)
    return -(-size_bytes // page_bytes) * page_bytes


def reserve(
    descriptor: int, path: Path, file_bytes: int, *, sparse: bool, populate: bool, huge: bool
) -> tuple[mmap.mmap, bool]:
    """Give the new file its size and, unless it is sparse, its pages; map it.

    Returns
    -------
    mmap, bool
        The mapping, and whether it may get huge pages.
    """

    def allocate() -> None:
        if not sparse:
            os.posix_fallocate(descriptor, 0, file_bytes)

    try:
        os.ftruncate(descriptor, file_bytes)
        if not huge:
            allocate()
    except OSError as error:
        raise _no_space(descriptor, path, file_bytes, error) from error
    mapping = map_file(
        descriptor,
        path,
        file_bytes,
        writable=True,
        sparse=sparse,
        populate=populate and not huge,
    )
    accepted = ask_huge(descriptor, mapping, huge)
    if huge and not sparse:
        # fallocate takes small pages, so the advice comes first and touching does the rest
        with suppress(OSError):
            mapping.madvise(_MADV_POPULATE_WRITE)
        try:
            allocate()
        except OSError as error:
            raise _no_space(descriptor, path, file_bytes, error) from error
    return mapping, accepted


def map_file(
    descriptor: int, path: Path, file_bytes: int, *, writable: bool, sparse: bool, populate: bool
) -> mmap.mmap:
    """Map the whole file, shared; PROT_READ unless `writable`."""
    flags = mmap.MAP_SHARED
    if sparse:
        flags |= _MAP_NORESERVE
    elif populate:
        flags |= mmap.MAP_POPULATE
    access = mmap.PROT_READ | (mmap.PROT_WRITE if writable else 0)
    try:
        return mmap.mmap(descriptor, file_bytes, flags=flags, prot=access)
    except OSError as error:
        raise _no_space(descriptor, path, file_bytes, error) from error


def populate(words: NDArray[Any]) -> None:
    """Fill this process's page tables for an array that it will write, without changing it.

    A fork does not copy the page tables of shared mappings, and what was only read is mapped
    read-only at first: a prefetch for writing then costs 55 ns, each time, until somebody writes.
    """
    begin = words.ctypes.data & ~(mmap.PAGESIZE - 1)
    end = words.ctypes.data + words.nbytes
    if _LIBC.madvise(ctypes.c_void_p(begin), ctypes.c_size_t(end - begin), _MADV_POPULATE_WRITE):
        # a kernel before Linux 5.14: read instead
        words.reshape(-1)[:: mmap.PAGESIZE // words.itemsize].sum()


def ask_huge(descriptor: int, mapping: mmap.mmap, huge: bool) -> bool:
    """Ask for huge pages when `huge`; return whether the mapping may get them."""
    if os.fstatvfs(descriptor).f_bsize > mmap.PAGESIZE:
        return True
    if not huge:
        return False
    try:
        mapping.madvise(mmap.MADV_HUGEPAGE)
        policy = _SHMEM_HUGE.read_text()
    except OSError:
        return False
    return "[never]" not in policy and "[deny]" not in policy


def _no_space(descriptor: int, path: Path, file_bytes: int, error: OSError) -> RegionRefused:
    status = os.fstatvfs(descriptor)
    return RegionRefused(
        "there is no room for this region",
        expected=f"{file_bytes} free bytes",
        found=f"{status.f_bavail * status.f_bsize} free ({error.strerror})",
        where=str(path),
        remedy="remove what an old venue left there, enlarge the file system (mount -o "
        "remount,size=...), reserve more huge pages, or lower the capacities",
    )
