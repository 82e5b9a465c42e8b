"""The gate, the sequencer and the reporter as plain Python: the same log, events and reports.

Numba's integers wrap and Python's do not, numpy's warn: a RuntimeWarning is an error here. The
matcher alone is in tests/matching/test_jit_modes.py, with bounds checks too.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.engine.rerun import outcome
from tests.matching.compare import examples

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("count", "flags"),
    [
        (1, {"NUMBA_DISABLE_JIT": "1", "PYTHONWARNINGS": "error::RuntimeWarning"}),
        (8, {"NUMBA_BOUNDSCHECK": "1"}),
    ],
)
def test_log_events_and_reports_are_the_compiled_ones(count: int, flags: dict[str, str]) -> None:
    count = min(examples(count), 50)
    result = subprocess.run(
        [sys.executable, "-m", "tests.engine.rerun", "0", str(count)],
        cwd=ROOT,
        env={**os.environ, **flags},
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert result.returncode == 0, f"{flags}\n{result.stderr}"
    found = json.loads(result.stdout.splitlines()[-1])
    assert found.pop("jit") is ("NUMBA_DISABLE_JIT" not in flags)
    assert found == outcome(0, count)
