"""A forked worker as its supervisor sees it: whether it has ended, of what, and what to do then.

A death by SIGBUS is not the program's: a sparse region asked the file system of shared memory for a
page that it did not have. Everything else is in the log, or was somebody's kill. Comes after
`worker`; before `supervisor`.
"""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass

from hftcore.ops.remains import free_bytes
from hftcore.ops.worker import Worker


@dataclass
class Running:
    """A worker that was forked."""

    worker: Worker
    pid: int
    pidfd: int
    status: int | None = None
    """As os.waitpid has it, once it was reaped."""


def has_ended(running: Running) -> bool:
    """Return whether a worker has ended, and reap it."""
    if running.status is None:
        pid, status = os.waitpid(running.pid, os.WNOHANG)
        if pid:
            running.status = status
    return running.status is not None


def reason_of(running: Running) -> str:
    """Say of what a worker died."""
    code = os.waitstatus_to_exitcode(running.status or 0)
    if code < 0:
        said = f"signal {-code} ({signal.Signals(-code).name})"
        # a page of a sparse region that the file system could not give
        return said + (": shared memory is full" if -code == signal.SIGBUS else "")
    return f"exit status {code}" + ("" if code else ": it left, and nobody had asked it to")


def remedy_of(running: Running) -> str:
    """Return what to do about a death with a cause outside the program; nothing if it has none."""
    if os.waitstatus_to_exitcode(running.status or 0) != -signal.SIGBUS:
        return ""
    directory = running.worker.memory.directory
    free = free_bytes(directory) >> 20
    return (
        f"the file system of {directory} had no page for a book that grew ({free:,} MB are free "
        "now): enlarge it (mount -o remount,size=...; docker run --shm-size=...), name another by "
        "HFT_SHM_DIR, or narrow the ladders (a lower max_price, a larger tick_size); then hft up"
    )


__all__ = ["Running", "has_ended", "reason_of", "remedy_of"]
