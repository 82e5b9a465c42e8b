"""Where the recorded market data is: the folder that the environment variable HFT_DATA names."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def recorded() -> Path:
    """Return the folder of recordings; skip without one, but never on CI and never by mistake."""
    named = os.environ.get("HFT_DATA")
    if not named:
        if os.environ.get("CI") == "true":
            pytest.fail("HFT_DATA is not set, and CI must not skip what needs recorded data")
        pytest.skip("HFT_DATA does not name a folder of recorded market data")
    folder = Path(named)
    if not (folder / "lobster").is_dir() or not (folder / "itch").is_dir():
        pytest.fail(f"HFT_DATA names {folder}, which has no recordings")
    return folder
