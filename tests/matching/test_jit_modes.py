"""The same events with the JIT off and with bounds checks on: one meaning, however it is compiled.

The JIT off: the kernels are plain Python and numpy, slow, so the streams are short. Bounds checks
on: numba then raises IndexError where it would silently write beside an array; the flag has a
cache directory of its own, so a first run compiles everything again.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.matching.compare import examples
from tests.matching.rerun import outcome

ROOT = Path(__file__).resolve().parents[2]


def rerun(profile: str, count: int, **flags: str) -> dict[str, object]:
    """Run streams in a process with other flags and return what it printed."""
    result = subprocess.run(
        [sys.executable, "-m", "tests.matching.rerun", profile, "0", str(count)],
        cwd=ROOT,
        env={**os.environ, **flags},
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert result.returncode == 0, f"{profile} {flags}\n{result.stderr}"
    found: dict[str, object] = json.loads(result.stdout.splitlines()[-1])
    return found


def test_events_with_the_jit_off_are_the_compiled_ones() -> None:
    count = min(examples(2), 50)
    found = rerun("short", count, NUMBA_DISABLE_JIT="1", PYTHONWARNINGS="error::RuntimeWarning")
    assert found.pop("jit") is False
    assert found == outcome("short", 0, count)
    assert found["equals the reference"]


def test_events_with_bounds_checks_on_are_the_compiled_ones() -> None:
    count = min(examples(12), 500)
    found = rerun("deep", count, NUMBA_BOUNDSCHECK="1")
    assert found.pop("jit") is True
    assert found == outcome("deep", 0, count)
    assert found["equals the reference"]
    assert found["a large shard equals the reference"]


def test_bounds_checks_are_on_when_asked_for() -> None:
    """The run above proves nothing if the flag does nothing."""
    script = (
        "import numpy as np\n"
        "from tests.matching.walk import find_all\n"
        "from hftcore.matching.state import allocate, shard_size\n"
        "find_all(allocate(shard_size([(2, 1)])), np.zeros(3, np.int64), np.zeros(2, np.int64))\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", script],
        cwd=ROOT,
        env={**os.environ, "NUMBA_BOUNDSCHECK": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert "IndexError" in result.stderr
