"""What a venue leaves when it dies, and who clears it away.

A venue that stops in order removes its regions, semaphores, sockets and lock file itself. When its
supervisor is killed, its workers see that (the kernel signals them), leave, and whoever of them
gets the supervisor's lock waits for the others and removes everything. When all are killed at once,
or the supervisor before its first fork, the next `hft up` or `hft down` finds what is left and
removes it, with a word.

Whoever removes holds lock 0, so nobody builds meanwhile; and nothing is removed while a worker
lives. A client that outlived its venue keeps its mappings, which have no names any more.
Comes after `venue_file`; before `worker`, `preflight`, `supervisor`.
"""

from __future__ import annotations

import hashlib
import os
import signal
import stat
import time
from contextlib import suppress
from pathlib import Path

from hftcore.errors import VenueRefused
from hftcore.ops.venue_file import GATEWAY_LOCKS, SUPERVISOR_LOCK
from ipc import signals
from ipc.directory import default_base, opened_directory, venue_directory
from ipc.errors import LockHeld, RegionRefused
from ipc.liveness import LOCK_FILE, RoleLock, hold, holder_pid, wait_for_exit

SIGNALS = READY, STOP = ("ready", "stop")
_ORPHANS_S = 5.0
"""For workers whose supervisor is gone to leave; then they are killed."""
_VANISHING_S = 5.0
"""For a directory to stay once it was made: each venue that ends there may remove it once."""
_STEP_S = 0.01


def signal_venue(directory: Path) -> str:
    """Return the name under which a venue's semaphores go: two bases may have one venue's name."""
    if directory.parent == default_base() and "HFT_SHM_DIR" not in os.environ:
        return directory.name
    digest = hashlib.blake2b(os.fsencode(directory.parent), digest_size=4).hexdigest()
    return f"{directory.name}-{digest}"


def take_supervision(directory: Path) -> RoleLock:
    """Make the venue's directory and take lock 0.

    A venue that is ending removes its directory and lock file, at any moment between our looking
    and our locking: what was locked then has no name any more, and we begin again.

    Raises
    ------
    VenueRefused
        When the venue is up already.
    RegionRefused
        When the directory or its base can't be made or trusted.
    """
    deadline = time.monotonic() + _VANISHING_S
    while True:
        try:
            venue_directory(directory.name, directory.parent)
            if (lock := _locked(directory)) is not None:
                return lock
        except FileNotFoundError:
            pass  # removed between opening it and making the lock file in it
        except RegionRefused as refused:
            vanished = isinstance(refused.__cause__, FileNotFoundError)
            if not vanished or not directory.parent.is_dir():
                raise
        if time.monotonic() > deadline:
            raise VenueRefused(
                f"the directory of the venue {directory.name} vanishes again and again",
                expected="one that stays",
                found=f"none that stayed within {_VANISHING_S:g} s",
                where=str(directory),
                remedy="find out who removes it: another start and stop of this name in a loop?",
            )
        time.sleep(_STEP_S)


def _locked(directory: Path) -> RoleLock | None:
    """Take lock 0 of a directory that is there; None when its file lost its name meanwhile."""
    try:
        lock = hold(directory, SUPERVISOR_LOCK, "supervisor")
    except LockHeld as held:
        raise VenueRefused(
            f"the venue {directory.name} is already up",
            expected="no venue of this name",
            found=f"a supervisor, {held.found}",
            where=str(directory),
            remedy=f"hft down --venue {directory.name}, or start one of another name",
        ) from held
    is_ours = False
    try:
        is_ours = holder_pid(directory, SUPERVISOR_LOCK) == os.getpid()
    finally:
        if not is_ours:
            lock.release()
    return lock if is_ours else None


def free_bytes(directory: Path) -> int:
    """Return how much room the file system of a venue's directory has."""
    status = os.statvfs(directory)
    return status.f_bavail * status.f_frsize


def living_workers(directory: Path) -> list[int]:
    """Return the pids of processes that hold a role of this venue, clients apart."""
    found = {holder_pid(directory, role) for role in range(SUPERVISOR_LOCK + 1, GATEWAY_LOCKS)}
    return sorted(found - {0, os.getpid()})


def remains_of(directory: Path) -> list[str]:
    """Return the names of everything a venue left behind, its lock file apart."""
    venue = signal_venue(directory)
    with opened_directory(directory) as parent:
        files = [name for name in sorted(os.listdir(parent)) if name != LOCK_FILE]
    semaphores = [
        f"semaphore {name}" for name in SIGNALS
        if (Path("/dev/shm") / f"sem.{signals.signal_name(venue, name)[1:]}").exists()
    ]  # fmt: skip
    return files + semaphores


def clear(directory: Path) -> list[str]:
    """Remove what is left of a venue, its lock file and directory apart; return the names.

    The caller holds lock 0, and no worker lives.
    """
    found = remains_of(directory)
    with opened_directory(directory) as parent:
        for name in os.listdir(parent):
            status = os.stat(name, dir_fd=parent, follow_symlinks=False)
            if name != LOCK_FILE and not stat.S_ISDIR(status.st_mode):
                os.unlink(name, dir_fd=parent)
    for name in SIGNALS:
        signals.remove(signal_venue(directory), name)
    return found


def remove_all(directory: Path, lock: RoleLock) -> list[str]:
    """Remove a venue, its lock file and directory included; give lock 0 back."""
    found = clear(directory)
    with suppress(OSError):
        # a client that holds its gateway's lock on this file holds it on a file without a name
        (directory / LOCK_FILE).unlink()
        directory.rmdir()
    lock.release()
    return found


def step_back(directory: Path, lock: RoleLock) -> None:
    """Give lock 0 back after a refusal; what somebody else left stays, an empty directory goes."""
    if remains_of(directory) or living_workers(directory):
        lock.release()
    else:
        remove_all(directory, lock)


def clear_dead(directory: Path) -> list[str] | None:
    """Remove a venue whose supervisor is gone; None when another process does, or did.

    Waits for its workers to leave; who does not (it is stopped, or hangs) is killed: a venue's
    death must not need an operator. Lock 0 may be taken for a while, by another worker that clears
    or by an `hft up` that is refused because we live: we ask again until there is nothing left.
    """
    deadline = time.monotonic() + 2 * _ORPHANS_S
    while True:
        try:
            lock = _locked(directory)
        except VenueRefused:
            lock = None
        except (FileNotFoundError, RegionRefused):
            return None  # the directory is gone
        if lock is not None:
            break
        if time.monotonic() > deadline:
            return None
        time.sleep(_STEP_S)
    deadline = time.monotonic() + _ORPHANS_S
    while (living := living_workers(directory)) and time.monotonic() < deadline:
        time.sleep(_STEP_S)
    for pid in living:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
            wait_for_exit(pid, _ORPHANS_S)
    return remove_all(directory, lock)


__all__ = [
    "clear",
    "clear_dead",
    "free_bytes",
    "living_workers",
    "remains_of",
    "remove_all",
    "signal_venue",
    "step_back",
    "take_supervision",
]
