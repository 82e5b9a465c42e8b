"""Where the venues of these tests are: a base directory in shared memory with the run's mark."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import SHARED
from tests.ops.venues import Place


@pytest.fixture
def place(venue_name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    """Give a test's venue a name, a base directory and a place for its log."""
    base = SHARED / f"{venue_name}-base"
    base.mkdir(mode=0o700)
    monkeypatch.setenv("HFT_SHM_DIR", str(base))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    try:
        yield Place(venue_name, base, tmp_path)
    finally:
        shutil.rmtree(base, ignore_errors=True)
