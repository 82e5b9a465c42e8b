"""Named semaphores by which processes say "ready" and "stop" to each other.

Control plane only: the supervisor makes them, hands them over by name, removes them. They count,
so "all six workers are ready" is six waits. The names are predictable
(`/hftcore-<uid>-<venue>-<name>`), so that a tool finds them; they are made exclusively and with
mode 0600, and who attaches checks the owner: they live in /dev/shm, where everybody may create.

Not for death, which `ipc.liveness` decides, nor for wake-ups in poll loops (`ipc.wait`).
Rejected: signals of Unix (a handler runs between any two bytecodes), pipes (inherited or lost).
"""

from __future__ import annotations

import os
import stat
import time
from pathlib import Path
from types import TracebackType
from typing import Self

import posix_ipc

from ipc.directory import checked_name
from ipc.errors import SignalRefused


def signal_name(venue: str, name: str) -> str:
    """Return the semaphore's name, as posix_ipc takes it."""
    return f"/hftcore-{os.geteuid()}-{checked_name(venue)}-{checked_name(name)}"


def _file_of(full_name: str) -> Path:
    return Path("/dev/shm") / f"sem.{full_name[1:]}"  # where glibc keeps it


class Signal:
    """One named semaphore. A context manager: it closes, and the creator's also unlinks."""

    def __init__(self, full_name: str, semaphore: posix_ipc.Semaphore, *, owner: bool) -> None:
        self.full_name = full_name
        self.owner = owner
        self._semaphore = semaphore

    @classmethod
    def create(cls, venue: str, name: str) -> Signal:
        """Make a signal that nobody has given yet.

        Raises
        ------
        SignalRefused
            When the name is taken.
        """
        full_name = signal_name(venue, name)
        try:
            semaphore = posix_ipc.Semaphore(full_name, posix_ipc.O_CREX, 0o600, 0)
        except posix_ipc.ExistentialError as error:
            raise SignalRefused(
                "a signal of this name is already there",
                expected="no such semaphore",
                found="one that a venue or an attacker made",
                where=str(_file_of(full_name)),
                remedy="stop the venue that uses it, or remove what a dead one left (`remove`)",
            ) from error
        return cls(full_name, semaphore, owner=True)

    @classmethod
    def attach(cls, venue: str, name: str) -> Signal:
        """Open a signal that this user made.

        Raises
        ------
        SignalRefused
            When it is missing, somebody else's, or open to others.
        """
        full_name = signal_name(venue, name)
        path = _file_of(full_name)
        try:
            status = os.lstat(path)
            safe = (
                stat.S_ISREG(status.st_mode)
                and status.st_uid == os.geteuid()
                and not status.st_mode & 0o077
            )
            found = f"{stat.filemode(status.st_mode)}, owner {status.st_uid}"
            # ours, in a sticky directory: nobody can replace it between the look and the opening
            semaphore = posix_ipc.Semaphore(full_name) if safe else None
        except (FileNotFoundError, posix_ipc.ExistentialError):
            semaphore, found = None, "no such semaphore"
        if semaphore is None:
            raise SignalRefused(
                "this signal can't be opened",
                expected=f"a semaphore of user {os.geteuid()} with mode 0600",
                found=found,
                where=str(path),
                remedy="start the process that makes it; if it isn't yours, find out whose it is",
            )
        return cls(full_name, semaphore, owner=False)

    def give(self) -> None:
        """Let one waiter through."""
        self._semaphore.release()

    def wait(self, timeout_s: float) -> bool:
        """Wait until given; return False when that took too long."""
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                self._semaphore.acquire(max(deadline - time.monotonic(), 0))
            except posix_ipc.BusyError:
                return False
            except posix_ipc.SignalError:
                continue  # a handler ran; what it wants stands where the caller looks
            return True

    @property
    def value(self) -> int:
        """How often it was given and not yet waited for."""
        return int(self._semaphore.value)

    def close(self) -> None:
        """Let go of it; the creator also removes the name."""
        self._semaphore.close()
        if self.owner:
            _unlink(self.full_name)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def remove(venue: str, name: str) -> bool:
    """Remove the signal that a dead venue left; return whether there was one."""
    return _unlink(signal_name(venue, name))


def _unlink(full_name: str) -> bool:
    try:
        posix_ipc.unlink_semaphore(full_name)
    except posix_ipc.ExistentialError:
        return False
    return True
