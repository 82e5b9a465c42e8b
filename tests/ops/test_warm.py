"""`hft warm`: it reaches every kernel, the second run finds them all, and only old states go."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from hftcore.ops import warm
from hftcore.ops.launch import is_cold
from ipc.kernel import CACHE_DIRECTORY, JIT, kernel

ROOT = Path(__file__).resolve().parent.parent.parent
DAY_S = 86_400


def run_warm(*options: str, **env: str) -> str:
    """Run `hft warm` as a process of its own, whose kernels are the product's alone."""
    return subprocess.run(
        [sys.executable, "-m", "hftcore", "warm", *options],
        cwd=ROOT,
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        check=True,
    ).stdout


@pytest.mark.skipif(not JIT, reason="without the JIT there are no kernels to keep")
def test_warm_reaches_every_kernel_and_the_next_run_compiles_nothing() -> None:
    first: dict[str, Any] = json.loads(run_warm("--json"))
    assert first["unreached"] == []
    assert first["compiled"] + first["warm"] == first["kernels"]
    assert first["cache_directory"] == str(CACHE_DIRECTORY)
    second = run_warm()
    assert second.startswith(f"{first['kernels']} kernels: 0 compiled, {first['kernels']} from ")
    assert "; everything was warm\n" in second
    assert f"cache {first['cache_directory']}\n" in second
    assert not is_cold(), "a start would say that it compiles"


def test_without_the_jit_there_is_nothing_to_compile() -> None:
    assert json.loads(run_warm("--json", NUMBA_DISABLE_JIT="1")) == {"jit": False}


@kernel
def _never_called(number: int) -> int:
    return number + 1


@pytest.mark.skipif(not JIT, reason="without the JIT there are no kernels to keep")
def test_a_kernel_that_no_step_drove_is_named_until_it_is_called() -> None:
    dispatcher: Any = _never_called
    for kept in Path(dispatcher.stats.cache_path).glob("*_never_called*"):
        kept.unlink()
    assert warm.is_kept(dispatcher)
    assert warm.unreached([dispatcher]) == [f"{__name__}._never_called"]
    assert _never_called(1) == 2
    assert warm.unreached([dispatcher]) == []


def test_prune_removes_only_states_of_ours_that_nobody_used_for_long(tmp_path: Path) -> None:
    now = 1_000 * DAY_S
    ages = {
        "a" * 32: 15,  # goes
        "b" * 32: 13,
        "c" * 32: 400,  # the state in use
        "d" * 31: 400,
        "D" * 32: 400,
        "notes": 400,
    }
    for name, days in ages.items():
        (tmp_path / name / "inner").mkdir(parents=True)
        (tmp_path / name / "inner" / "kernel.nbc").write_text("x")
        os.utime(tmp_path / name, (now - days * DAY_S,) * 2)
    (tmp_path / ("e" * 32)).write_text("a file")
    os.utime(tmp_path / ("e" * 32), (0, 0))
    elsewhere = tmp_path / "notes"
    (tmp_path / ("f" * 32)).symlink_to(elsewhere)
    os.utime(tmp_path / ("f" * 32), (0, 0), follow_symlinks=False)
    before = {path.name for path in tmp_path.iterdir()}

    assert warm.prune(tmp_path, keep="c" * 32, now=now) == 1

    assert before - {path.name for path in tmp_path.iterdir()} == {"a" * 32}
    assert (elsewhere / "inner" / "kernel.nbc").exists()


def test_the_report_says_what_was_not_reached_and_what_was_forgotten() -> None:
    facts = {
        "kernels": 5,
        "compiled": 3,
        "warm": 1,
        "unreached": ["m.f"],
        "seconds": 1.5,
        "cache_directory": "somewhere",
        "removed_directories": 2,
    }
    assert warm.as_text(facts) == (
        "5 kernels: 3 compiled, 1 from the cache, in 1.5 s\n"
        "cache somewhere\n"
        "not reached: m.f\n"
        "forgot 2 older states of the sources (unused for 14 days)"
    )
