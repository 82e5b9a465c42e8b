"""The directory that holds a venue's shared memory, and the checks that make it trustworthy.

/dev/shm is writable by everybody. A probe showed what follows: a plain O_CREAT opens a file that an
attacker made first, or follows his link to a file of yours. So each venue has one directory of mode
0700, and every file in it is opened relative to a descriptor of that directory, after the
directory's owner and mode were checked on that very descriptor: what was checked is what is used.

The names in it are predictable (`/dev/shm/hftcore-<uid>/<venue>/<name>.region`), so that a tool
finds them without being told. Before this: nothing. After: `ipc.region` and `ipc.liveness`.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ipc.errors import RegionRefused

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


def default_base() -> Path:
    """Return the directory that holds this user's venues; HFT_SHM_DIR names another."""
    return Path(os.environ.get("HFT_SHM_DIR") or f"/dev/shm/hftcore-{os.geteuid()}")


def checked_name(name: str) -> str:
    """Return `name`, when it is safe as one component of a path."""
    if _NAME.fullmatch(name):
        return name
    raise RegionRefused(
        "this can't be the name of something in a venue's directory",
        expected="1 to 100 of A-Z a-z 0-9 . _ -, the first a letter or a digit",
        found=repr(name),
        remedy="choose another name",
    )


def venue_directory(venue: str, base: Path | None = None) -> Path:
    """Make or find the directory of a venue, closed to everybody else.

    Parameters
    ----------
    venue : str
        The venue's name, one component of a path.
    base : Path, optional
        Holds the venues of this user; default `/dev/shm/hftcore-<uid>`. A directory in a hugetlbfs
        mount puts the regions on its pages.

    Raises
    ------
    RegionRefused
        When the directory or its base is a link, somebody else's, or open to others.
    """
    base = default_base() if base is None else base
    path = base / checked_name(venue)
    for directory in (base, path):
        try:
            with suppress(FileExistsError):
                directory.mkdir(mode=0o700)
        except OSError as error:
            raise RegionRefused(
                "the directory for shared memory can't be made",
                expected="a place in which this user may create directories",
                found=str(error),
                where=str(directory),
                remedy="choose another base directory, or create it with mode 0700",
            ) from error
        with opened_directory(directory):
            pass
    return path


@contextmanager
def opened_directory(path: Path) -> Iterator[int]:
    """Open a directory and check on the descriptor that it is this user's and closed to others.

    Yields
    ------
    int
        A descriptor for `dir_fd=`; closed at the end.

    Raises
    ------
    RegionRefused
        When the directory is missing, a link, somebody else's, or open to others.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        raise RegionRefused(
            "the directory for shared memory can't be opened",
            expected="a directory, not a symbolic link",
            found=error.strerror or str(error),
            where=str(path),
            remedy="start the venue first, or look for who removed or replaced its directory",
        ) from error
    try:
        _check(os.fstat(descriptor), path, mode=0o700)
        yield descriptor
    finally:
        os.close(descriptor)


def check_file(descriptor: int, path: Path) -> os.stat_result:
    """Check that an open file is a regular file of this user, of mode 0600; return its status."""
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        raise RegionRefused(
            "this is not a file of shared memory",
            expected="a regular file",
            found=stat.filemode(status.st_mode),
            where=str(path),
            remedy=f"find out who put it there, then remove {path}",
        )
    _check(status, path, mode=0o600)
    return status


def _check(status: os.stat_result, path: Path, *, mode: int) -> None:
    if status.st_uid != os.geteuid():
        raise RegionRefused(
            "this belongs to another user and can't be trusted",
            expected=f"owner {os.geteuid()} (the user of this process)",
            found=f"owner {status.st_uid}",
            where=str(path),
            remedy="run as the user that runs the venue; if nobody should own it, remove it",
        )
    found = stat.S_IMODE(status.st_mode)
    if found & ~mode and stat.S_ISDIR(status.st_mode):
        raise RegionRefused(
            "this directory is open to other users: no venue's, and nothing in it can be trusted",
            expected=f"mode {mode:04o} or less",
            found=f"mode {found:04o}",
            where=str(path),
            remedy=f"name a file in a venue's directory, such as {default_base()}/<venue>; if this "
            "is one, find out who opened it and what was written, then start with a new one",
        )
    if found & ~mode:
        raise RegionRefused(
            "this is open to other users and can't be trusted",
            expected=f"mode {mode:04o} or less",
            found=f"mode {found:04o}",
            where=str(path),
            remedy=f"find out who opened it and what was written, then chmod {mode:04o} {path}",
        )
