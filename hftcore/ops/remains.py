"""What a venue leaves when it dies, and who clears it away.

A venue that stops in order removes its regions, semaphores, sockets and lock file itself. When its
supervisor is killed, its workers see that (the kernel signals them), leave, and whoever of them
gets the supervisor's lock waits for the others and removes everything. When all are killed at once,
the next `hft up` finds what is left and removes it, with a word.

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

from hftcore.errors import Refused, VenueRefused
from hftcore.ops.venue_file import GATEWAY_LOCKS, SUPERVISOR_LOCK
from ipc import signals
from ipc.directory import default_base, opened_directory
from ipc.errors import LockHeld
from ipc.liveness import LOCK_FILE, RoleLock, hold, holder_pid, wait_for_exit

SIGNALS = READY, STOP = ("ready", "stop")
_ORPHANS_S = 5.0
_STEP_S = 0.01


def signal_venue(directory: Path) -> str:
    """Return the name under which a venue's semaphores go: two bases may have one venue's name."""
    if directory.parent == default_base() and "HFT_SHM_DIR" not in os.environ:
        return directory.name
    digest = hashlib.blake2b(os.fsencode(directory.parent), digest_size=4).hexdigest()
    return f"{directory.name}-{digest}"


def take_supervision(directory: Path) -> RoleLock:
    """Take lock 0.

    Raises
    ------
    VenueRefused
        When the venue is up already.
    """
    while True:
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
        # a venue that ended just now may have removed the file between our opening and locking it
        if holder_pid(directory, SUPERVISOR_LOCK) == os.getpid():
            return lock
        lock.release()


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


def clear_as_orphan(directory: Path) -> list[str] | None:
    """Remove a venue whose supervisor was killed; None when another of its workers does.

    Waits for the other workers to leave; who does not (it is stopped, or hangs) is killed: a
    venue's death must not need an operator.
    """
    try:
        lock = take_supervision(directory)
    except (Refused, OSError):
        return None
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
    "clear_as_orphan",
    "living_workers",
    "remains_of",
    "remove_all",
    "signal_venue",
    "step_back",
    "take_supervision",
]
