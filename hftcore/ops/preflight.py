"""What can go wrong is said before anything starts, with what to do about it.

Shared memory is reserved when a region is made, so a lack of it would be noticed anyway, halfway
through; ports when the publisher binds them, in another process. Here all of it is asked first and
told together, so that one visit to the machine mends everything.

Comes after `placement` (which refuses cpus) and `memory` (which knows the sizes); the supervisor
asks it when it holds the venue's lock and before it makes the first region.
"""

from __future__ import annotations

import mmap
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from hftcore.errors import VenueRefused
from hftcore.matching.bitmap import bitmap_words
from hftcore.matching.state import LEVEL
from hftcore.ops.config import VenueConfig
from hftcore.ops.logs import log_directory
from hftcore.ops.memory import planned, reserved_bytes
from hftcore.ops.placement import Placement
from hftcore.ops.remains import free_bytes, living_workers
from ipc.kernel import CACHE_DIRECTORY

GROWTH_BYTES = 64 << 20
"""Shared memory and RAM wanted for books to grow, at most; see `_growth_bytes`."""
WORKER_BYTES = 48 << 20
"""Memory of a worker of its own, beside what it shares with the supervisor; measured 15 to 40."""
DISK_BYTES = 64 << 20
"""Wanted free for the log and for kernels that must be compiled."""
IPC_PATH_BYTES = 107
"""Longest path of a socket that Linux takes."""
_MEMORY_FACTS = Path("/proc/meminfo")


def endpoints_of(config: VenueConfig, directory: Path) -> dict[str, tuple[str, ...]]:
    """Return where a venue offers market data: "feed" and "snapshot"."""
    feed = [f"ipc://{directory / 'feed.socket'}"]
    if config.feed_port:
        feed.append(f"tcp://{config.feed_host}:{config.feed_port}")
    snapshot = f"ipc://{directory / 'snapshot.socket'}"
    if config.snapshot_port:
        snapshot = f"tcp://{config.feed_host}:{config.snapshot_port}"
    return {"feed": tuple(feed), "snapshot": (snapshot,)}


def check(placement: Placement, directory: Path) -> None:
    """Refuse to start a venue on a host that lacks something for it.

    Raises
    ------
    VenueRefused
        Names everything that is wrong: the first in full, the others in its remedy.
    """
    problems = list(_problems(placement, directory))
    if not problems:
        return
    first, *others = problems
    if others:
        first.remedy += "".join(f"\n  also: {each.what}: {each.remedy}" for each in others)
    raise first


def check_workers(directory: Path) -> None:
    """Refuse to start a venue, or to clear away what is there, while workers of the last live.

    Raises
    ------
    VenueRefused
    """
    for problem in _orphans(directory):
        raise problem


def _growth_bytes(config: VenueConfig) -> int:
    """Return how much memory the sparse ladders are expected to take.

    A ladder's page is taken when the first order comes to one of its 128 ticks, and is not given
    back. At one moment at most `order_capacity` ticks have orders, each on a page of its own at
    worst, with one of the bitmap's. As that is 256 MB for an instrument of default capacity, and
    books keep to some percent of their price, no more than GROWTH_BYTES are asked for.

    What this does not cover: over a day orders may walk through all prices of a ladder and touch
    every page of it (6 GB for 100 M ticks), until the file system is full and the matcher dies of
    SIGBUS. Only price bands will bound that.
    """
    page = mmap.PAGESIZE
    pages = 0
    for each in config.instruments:
        ladder = 2 * each.ladder_ticks * LEVEL.itemsize // page + 2
        bits = 2 * bitmap_words(each.ladder_ticks) * 8 // page + 2
        pages += min(each.order_capacity, ladder) + min(each.order_capacity, bits)
    return min(pages * page, GROWTH_BYTES)


def _problems(placement: Placement, directory: Path) -> Iterator[VenueRefused]:
    config = placement.config
    needed = reserved_bytes(planned(config, len(placement.workers)))
    growth = _growth_bytes(config)
    yield from _orphans(directory)
    yield from _shared_memory(directory, needed, growth)
    yield from _ram(needed + growth + WORKER_BYTES * len(placement.workers))
    yield from _disk(log_directory(config.name), "XDG_STATE_HOME")
    if CACHE_DIRECTORY is not None:
        yield from _disk(CACHE_DIRECTORY, "HFT_CACHE_DIR")
    for endpoints in endpoints_of(config, directory).values():
        for endpoint in endpoints:
            yield from _endpoint(endpoint)


def _orphans(directory: Path) -> Iterator[VenueRefused]:
    living = living_workers(directory)
    if living:
        yield VenueRefused(
            "workers of the last start still run",
            expected="nobody who holds a role of this venue",
            found=f"pids {', '.join(map(str, living))}",
            where=str(directory),
            remedy="they leave by themselves unless they are stopped: kill -CONT, or kill -9 them",
        )


def _shared_memory(directory: Path, regions: int, growth: int) -> Iterator[VenueRefused]:
    free = free_bytes(directory)
    if free < regions + growth:
        yield VenueRefused(
            "there is too little shared memory",
            expected=f"{_mb(regions + growth)} free: {_mb(regions)} for the regions, "
            f"{_mb(growth)} for books to grow (a page of 4 kB for each order far from the others)",
            found=f"{_mb(free)}",
            where=str(directory),
            remedy="mount -o remount,size=... the file system (docker run --shm-size=...), name "
            "another by HFT_SHM_DIR, or give the configuration smaller rings, fewer gateways, "
            "lower order capacities, narrower ladders (max_price)",
        )


def _ram(needed: int) -> Iterator[VenueRefused]:
    free = 1024 * next(
        int(line.split()[1])
        for line in _MEMORY_FACTS.read_text().splitlines()
        if line.startswith("MemAvailable")
    )
    if free < needed:
        yield VenueRefused(
            "there is too little memory",
            expected=f"{_mb(needed)} available: regions and workers",
            found=f"{_mb(free)}",
            where=str(_MEMORY_FACTS),
            remedy="end what else runs here, or configure smaller rings and capacities",
        )


def _disk(path: Path, variable: str) -> Iterator[VenueRefused]:
    there = next(each for each in (path, *path.parents) if each.exists())
    status = os.statvfs(there)
    free = status.f_bavail * status.f_frsize
    if not os.access(there, os.W_OK | os.X_OK):
        yield VenueRefused(
            "a directory can't be written",
            expected="one in which this user may make files",
            found=f"{there} belongs to user {os.stat(there).st_uid}",
            where=str(path),
            remedy=f"set {variable} to a directory of your own",
        )
    elif free < DISK_BYTES:
        yield VenueRefused(
            "there is too little room on the disk",
            expected=f"{_mb(DISK_BYTES)} free for logs and compiled kernels",
            found=f"{_mb(free)}",
            where=str(there),
            remedy=f"free some, or set {variable} to a directory on another disk",
        )


def _endpoint(endpoint: str) -> Iterator[VenueRefused]:
    """Try an endpoint, as ZMQ will: an address that is taken is refused here."""
    protocol, _, place = endpoint.partition("://")
    if protocol == "ipc":
        if len(os.fsencode(place)) > IPC_PATH_BYTES:
            yield VenueRefused(
                "the venue's directory has too long a path for sockets",
                expected=f"at most {IPC_PATH_BYTES} bytes",
                found=f"{len(os.fsencode(place))} bytes",
                where=place,
                remedy="choose a shorter name for the venue, or a shorter HFT_SHM_DIR",
            )
        return
    host, _, port = place.rpartition(":")
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, int(port), type=socket.SOCK_STREAM)[
            0
        ]
        with socket.socket(family, kind) as tried:
            tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            tried.bind(address)
    except OSError as error:
        yield VenueRefused(
            "an endpoint of the feed can't be offered",
            expected="a free port, and an address of this host",
            found=error.strerror or str(error),
            where=endpoint,
            remedy="choose another feed_host, feed_port or snapshot_port, or end what listens "
            f"there (ss -ltnp 'sport = :{port}')",
        )


def _mb(size_bytes: int) -> str:
    return f"{size_bytes / (1 << 20):,.0f} MB"


__all__ = ["check", "check_workers", "endpoints_of"]
