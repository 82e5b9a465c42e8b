"""Who is alive: a lock that the kernel drops with its holder, and waiting for a process to end.

Each role (the sequencer, matcher 0, ...) has one byte in `roles.lock`, locked for as long as the
process that plays it lives. Kill -9 drops the lock, SIGSTOP does not: a stopped process is alive,
and whoever took its role would be a second writer when it continues. No time-out decides anything.

The lock belongs to the open file (`ipc.ofd`), and fork copies descriptors: a worker forked by a
supervisor would hold the supervisor's role beyond its death. So a child closes what it inherited,
before anything else runs in it.

Beside the byte stands the holder's pid, only for messages: pids are reused, locks are not.
Rejected: heartbeats (a stall is no death), pid files alone. Before this: `ipc.directory`.
"""

from __future__ import annotations

import os
import select
import time
import weakref
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from ipc import ofd
from ipc.directory import check_file, opened_directory
from ipc.errors import LockHeld, RegionRefused

LOCK_FILE = "roles.lock"

ROLE = np.dtype(
    [
        ("pid", "<i8"),  # of the holder, 0 when it left in order; its first byte is the lock
        ("held_ns", "<i8"),  # CLOCK_REALTIME since when, stamped by the holder
        ("name", "S48"),  # for people
    ]
)
assert ROLE.itemsize == 64


class RoleLock:
    """A role that this process plays. A context manager; `hold` makes it.

    Attributes
    ----------
    role : int
    name : str
    """

    def __init__(self, role: int, name: str, descriptor: int) -> None:
        self.role = role
        self.name = name
        self._descriptor = descriptor
        _HELD.add(self)

    @property
    def held(self) -> bool:
        """False after `release`, and in a forked child."""
        return self._descriptor >= 0

    def release(self) -> None:
        """Leave the role in order."""
        if self.held:
            os.pwrite(self._descriptor, bytes(8), self.role * ROLE.itemsize)
            self._forget()

    def _forget(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()


_HELD: weakref.WeakSet[RoleLock] = weakref.WeakSet()


def _drop_inherited() -> None:
    for lock in list(_HELD):
        lock._forget()


os.register_at_fork(after_in_child=_drop_inherited)


def hold(directory: Path, role: int, name: str = "") -> RoleLock:
    """Take a role until this process ends or releases it.

    Parameters
    ----------
    directory : Path
        The venue's, from `venue_directory`.
    role : int
        The role's number, from 0; its meaning is the caller's.
    name : str
        What to call it in messages; at most 48 bytes.

    Raises
    ------
    LockHeld
        When another process, stopped or not, plays the role; says its pid where that is known.
    RegionRefused
        When the directory or the lock file can't be trusted.
    """
    descriptor = _open_lock_file(directory, os.O_RDWR | os.O_CREAT)
    if not ofd.try_lock(descriptor, role * ROLE.itemsize):
        found = _read(descriptor, role)
        os.close(descriptor)
        pid = int(found["pid"])
        known = pid > 0 and Path(f"/proc/{pid}").exists()
        raise LockHeld(
            f"the role {name or role} is taken",
            expected="nobody who plays it (a stopped process is alive)",
            found=f"pid {pid}" if known else "a process that didn't say its pid",
            where=str(directory / LOCK_FILE),
            remedy="stop that process first; it must have ended, not only be stopped",
        )
    row = np.zeros(1, ROLE)
    row[0] = (os.getpid(), time.time_ns(), name.encode())
    os.pwrite(descriptor, row.tobytes(), role * ROLE.itemsize)
    return RoleLock(role, name, descriptor)


def holder_alive(directory: Path, role: int) -> bool:
    """Return whether a process plays the role; one stopped by SIGSTOP does."""
    try:
        descriptor = _open_lock_file(directory, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        return ofd.is_locked(descriptor, role * ROLE.itemsize)
    finally:
        os.close(descriptor)


def holder_pid(directory: Path, role: int) -> int:
    """Return the pid of the process that plays the role, 0 when nobody does."""
    try:
        descriptor = _open_lock_file(directory, os.O_RDONLY)
    except FileNotFoundError:
        return 0
    try:
        if not ofd.is_locked(descriptor, role * ROLE.itemsize):
            return 0
        return int(_read(descriptor, role)["pid"])
    finally:
        os.close(descriptor)


def wait_for_exit(pid: int, timeout_s: float) -> bool:
    """Wait until a process has ended (reaped or not); return whether it has.

    A pid that nobody has counts as ended. Where the pid may have been reused meanwhile, open a
    pidfd early and use `wait_on_pidfd`.
    """
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return wait_on_pidfd(pidfd, timeout_s)
    finally:
        os.close(pidfd)


def wait_on_pidfd(pidfd: int, timeout_s: float) -> bool:
    """Wait until the process of a pidfd has ended; return whether it has."""
    poller = select.poll()
    poller.register(pidfd, select.POLLIN)
    return bool(poller.poll(timeout_s * 1000))


def _open_lock_file(directory: Path, access: int) -> int:
    path = directory / LOCK_FILE
    with opened_directory(directory) as parent:
        try:
            descriptor = os.open(
                path.name, access | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=parent
            )
        except FileNotFoundError:
            raise
        except OSError as error:
            raise RegionRefused(
                "the file of role locks can't be opened",
                expected="a file that the venue made",
                found=error.strerror or str(error),
                where=str(path),
                remedy="find out who put it there, then remove it",
            ) from error
        try:
            check_file(descriptor, path)
        except RegionRefused:
            os.close(descriptor)
            raise
    return descriptor


def _read(descriptor: int, role: int) -> Any:
    row = os.pread(descriptor, ROLE.itemsize, role * ROLE.itemsize).ljust(ROLE.itemsize, b"\0")
    return np.frombuffer(row, ROLE, 1)[0]
