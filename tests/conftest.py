"""What all tests share: a venue's directory, children, and proof that nothing is left behind.

Everything that a test makes in /dev/shm carries this process's pid in its name, so that several
runs on one machine don't meet, and the check at the end knows its own.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from ipc.directory import venue_directory as make_venue_directory
from tests.processes import Children

SHARED = Path("/dev/shm")
MARK = f"hftcore-test-{os.getpid()}"
_PR_SET_CHILD_SUBREAPER = 36


@pytest.fixture(scope="session", autouse=True)
def nothing_is_left_behind() -> Iterator[None]:
    """Fail the run when a process or a piece of shared memory that it made outlives it."""
    # orphans of our children become our children, and so are seen below
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    yield
    described: dict[int, str] = {}
    while left := psutil.Process().children(recursive=True):  # again: one may just be forking
        for child in left:
            described.setdefault(child.pid, str(child.as_dict(["pid", "status", "cmdline"])))
            child.kill()
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
    files = [path for path in SHARED.iterdir() if MARK in path.name]
    for path in files:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert not described, f"tests left processes running: {list(described.values())}"
    assert not files, f"tests left shared memory: {[str(path) for path in files]}"


@pytest.fixture
def venue_name() -> str:
    """Name a venue that no other test uses."""
    return f"{MARK}-{uuid.uuid4().hex[:8]}"


@pytest.fixture
def venue_directory(venue_name: str) -> Iterator[Path]:
    """Make a venue's directory in shared memory, and remove it with all regions in it."""
    base = SHARED / venue_name
    try:
        yield make_venue_directory("venue", base)
    finally:
        shutil.rmtree(base, ignore_errors=True)


@pytest.fixture
def children() -> Iterator[Children]:
    """Start processes that end with the test."""
    started = Children()
    try:
        yield started
    finally:
        started.end_all()
