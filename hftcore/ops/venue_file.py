"""`venue.json`: what a running venue says of itself, and how tools and clients find it.

The supervisor writes it when everything is ready, in one rename, so it is whole or not there; it
goes with the venue. A tool reads it, maps the regions that it needs read-only, and knows from the
start id that they are of this start. Whether the venue lives is not in it: lock 0 says that.

Lock numbers are here too, because they are part of what a venue shows: 0 is the supervisor's, then
the roles', then one a gateway. Comes after `memory`; before `supervisor`, `stat`, `book`, clients.
"""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from hftcore.errors import VenueRefused
from hftcore.ops.config import VenueConfig
from hftcore.ops.memory import VenueMemory
from ipc.directory import checked_name, default_base, opened_directory
from ipc.errors import RegionRefused
from ipc.liveness import holder_alive, holder_pid

VENUE_FILE = "venue.json"
SUPERVISOR_LOCK = 0
MATCHER_LOCKS, GATEWAY_LOCKS = 16, 64
_ROLE_LOCKS = {"supervisor": 0, "sequencer": 1, "reporter": 2, "publisher": 3}


class WorkerRecord(msgspec.Struct, frozen=True):
    """One worker of a running venue."""

    name: str
    number: int
    pid: int
    roles: tuple[str, ...]
    cpus: tuple[int, ...]
    strategy: str


class VenueRecord(msgspec.Struct, frozen=True):
    """What a running venue says of itself."""

    config: VenueConfig
    """Resolved: nothing left open."""
    start_id: int
    epoch: int
    pid: int
    """Of the supervisor."""
    workers: tuple[WorkerRecord, ...]
    endpoints: dict[str, tuple[str, ...]]
    """Of market data: "feed" and "snapshot"."""
    ready_ns: int
    """UTC, when it was ready."""
    log: str
    notes: tuple[str, ...] = ()
    """What was put right on the way, for whoever started it."""

    def worker_of(self, role: str) -> WorkerRecord:
        """Return the worker that runs a role."""
        return next(worker for worker in self.workers if role in worker.roles)


def role_lock(role: str) -> int:
    """Return the lock number of a role: "sequencer", "matcher-3"."""
    if role in _ROLE_LOCKS:
        return _ROLE_LOCKS[role]
    return MATCHER_LOCKS + int(role.removeprefix("matcher-"))


def gateway_lock(gateway: int) -> int:
    """Return the lock number of a gateway."""
    return GATEWAY_LOCKS + gateway


def write_record(directory: Path, record: VenueRecord) -> None:
    """Put `venue.json` into the venue's directory, whole or not at all."""
    unfinished = f".{VENUE_FILE}.{os.getpid()}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with opened_directory(directory) as parent:
        descriptor = os.open(unfinished, flags, 0o600, dir_fd=parent)
        with os.fdopen(descriptor, "wb") as file:
            file.write(msgspec.json.encode(record))
        os.rename(unfinished, VENUE_FILE, src_dir_fd=parent, dst_dir_fd=parent)


def read_record(directory: Path) -> VenueRecord:
    """Read `venue.json` of a venue that is up.

    Raises
    ------
    VenueRefused
        When no venue is up there, it is not ready yet, or another version made it.
    """
    venue = directory.name
    try:
        up = holder_alive(directory, SUPERVISOR_LOCK)
    except RegionRefused as refused:
        if directory.exists():
            raise
        raise _not_up(venue, directory, "no such directory") from refused
    if not up:
        raise _not_up(venue, directory, "nobody holds its lock")
    try:
        with opened_directory(directory) as parent:
            descriptor = os.open(VENUE_FILE, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=parent)
            with os.fdopen(descriptor, "rb") as file:
                return msgspec.json.decode(file.read(), type=VenueRecord)
    except FileNotFoundError:
        pid = holder_pid(directory, SUPERVISOR_LOCK)
        raise VenueRefused(
            f"the venue {venue} is not ready",
            expected=f"{VENUE_FILE}, which the supervisor writes when all workers run",
            found=f"a supervisor (pid {pid}) that is starting or stopping",
            where=str(directory),
            remedy=f"try again; `hft logs --venue {venue}` says what it is at",
        ) from None
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise VenueRefused(
            f"the record of the venue {venue} can't be read",
            expected="what this version writes",
            found=str(error),
            where=str(directory / VENUE_FILE),
            remedy="programs of two versions are at work: `hft down` with the one that started it",
        ) from error


def directory_of(venue: str, base: Path | None = None) -> Path:
    """Return where a venue's directory is, whether or not it is there."""
    return (default_base() if base is None else base) / checked_name(venue)


def venues(base: Path | None = None) -> list[str]:
    """Return the names of all venues of this user that are up."""
    base = default_base() if base is None else base
    found = []
    for directory in sorted(base.iterdir()) if base.is_dir() else []:
        try:
            if directory.is_dir() and holder_alive(directory, SUPERVISOR_LOCK):
                found.append(directory.name)
        except RegionRefused:
            continue
    return found


def attached(
    venue: str, base: Path | None = None, *, writable: bool = False
) -> tuple[VenueRecord, VenueMemory]:
    """Find a venue that is up; its regions are mapped as they are asked for.

    Parameters
    ----------
    writable : bool
        For clients, which write into their rings; tools leave it False.

    Raises
    ------
    VenueRefused
        When it is not up.
    """
    directory = directory_of(venue, base)
    record = read_record(directory)
    memory = VenueMemory(
        directory, record.config, len(record.workers), record.start_id, writable=writable
    )
    return record, memory


def _not_up(venue: str, directory: Path, found: str) -> VenueRefused:
    others = [name for name in venues(directory.parent) if name != venue]
    listed = f"; up are: {', '.join(others)}" if others else ""
    return VenueRefused(
        f"the venue {venue} is not up",
        expected="a venue that `hft up` started",
        found=found + listed,
        where=str(directory),
        remedy="hft up",
    )


__all__ = [
    "VenueRecord",
    "WorkerRecord",
    "attached",
    "directory_of",
    "gateway_lock",
    "read_record",
    "role_lock",
    "venues",
    "write_record",
]
