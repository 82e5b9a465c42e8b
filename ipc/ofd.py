"""Open-file-description locks: what the kernel knows about who is still there.

A lock of this kind belongs to the open file, not to the process: the kernel drops it when the last
descriptor of that open file is gone, which kill -9 also does and SIGSTOP does not. Asking is a pure
query that takes nothing, so a tool with a read-only descriptor may ask (`is_locked`).

Rejected: classic POSIX locks (closing any descriptor of the file drops them), flock (the question
is asked by taking the lock, which makes an innocent third process fail meanwhile), pid files (pids
are reused). Used by `ipc.liveness` for roles and by `ipc.region` for "somebody writes here".
"""

from __future__ import annotations

import fcntl
import os
import struct

# fcntl.h has had these since Linux 3.15; Python names them from 3.12 on.
_SET_LOCK = 37
_GET_LOCK = 36
_FLOCK = struct.Struct("hhqqi4x")


def _request(kind: int, offset: int) -> bytes:
    return _FLOCK.pack(kind, os.SEEK_SET, offset, 1, 0)


def try_lock(descriptor: int, offset: int, *, shared: bool = False) -> bool:
    """Lock one byte for as long as the open file lives; return False when it is taken.

    Parameters
    ----------
    descriptor : int
        Open for writing, or for reading when `shared`.
    offset : int
        The byte; it need not exist.
    """
    kind = fcntl.F_RDLCK if shared else fcntl.F_WRLCK
    try:
        fcntl.fcntl(descriptor, _SET_LOCK, _request(kind, offset))
    except (BlockingIOError, PermissionError):
        return False
    return True


def is_locked(descriptor: int, offset: int) -> bool:
    """Return whether another open file holds the byte, shared or not. Takes nothing."""
    answer = fcntl.fcntl(descriptor, _GET_LOCK, _request(fcntl.F_WRLCK, offset))
    return bool(_FLOCK.unpack(answer)[0] != fcntl.F_UNLCK)
