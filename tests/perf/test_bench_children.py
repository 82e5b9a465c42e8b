"""Measuring processes: pinned, started together, and gone whatever happens."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from perf.children import ChildFailed, Task, run_together, shared_words

ROOT = Path(__file__).resolve().parents[2]
CPU = min(os.sched_getaffinity(0))
DEADLINE_S = 30.0

SPINNERS = """
import os
from perf.children import Task, run_together

def spin():
    os.write(1, f"{os.getpid()}\\n".encode())
    while True:
        pass

cpu = min(os.sched_getaffinity(0))
run_together([Task("first", cpu, spin), Task("second", cpu, spin)])
"""


def is_alive(pid: int) -> bool:
    """Return whether a process runs; one that only waits to be reaped does not."""
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def becomes_true(condition: Callable[[], bool]) -> bool:
    """Poll a condition until it holds or the deadline has passed."""
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        if time.monotonic() > deadline:
            return False
        os.sched_yield()
    return True


def spin() -> tuple[int, ...]:
    """Never return."""
    while True:
        pass


def test_tasks_run_pinned_in_processes_of_their_own_and_return_their_words() -> None:
    cpus = sorted(os.sched_getaffinity(0))[:2]
    shared = shared_words(len(cpus))

    def work(index: int) -> tuple[int, ...]:
        shared[index] = os.getpid()
        (cpu,) = os.sched_getaffinity(0)
        return index, cpu

    tasks = [Task(str(i), cpu, lambda i=i: work(i), (shared,)) for i, cpu in enumerate(cpus)]
    assert run_together(tasks) == [(i, cpu) for i, cpu in enumerate(cpus)]
    assert len({os.getpid(), *shared.tolist()}) == len(cpus) + 1
    assert not any(is_alive(pid) for pid in shared.tolist())


def test_a_task_that_raises_is_named_and_its_peer_is_killed(
    capfd: pytest.CaptureFixture[str],
) -> None:
    pids = shared_words(1)

    def fail() -> tuple[int, ...]:
        while pids[0] == 0:
            os.sched_yield()
        raise ValueError("the task's own words")

    def peer() -> tuple[int, ...]:
        pids[0] = os.getpid()
        return spin()

    with pytest.raises(ChildFailed, match="where: the one that fails"):
        run_together([Task("its peer", CPU, peer), Task("the one that fails", CPU, fail)])
    assert not is_alive(int(pids[0]))
    assert "the task's own words" in capfd.readouterr().err


def test_a_task_that_is_killed_is_named_with_the_signal() -> None:
    def die() -> tuple[int, ...]:
        os.kill(os.getpid(), signal.SIGKILL)
        return ()

    with pytest.raises(ChildFailed, match="signal 9"):
        run_together([Task("killed", CPU, die), Task("peer", CPU, spin)])


def test_a_task_past_its_deadline_is_killed_and_named() -> None:
    before = set(psutil.Process().children())
    with pytest.raises(ChildFailed, match="still running: endless"):
        run_together([Task("endless", CPU, spin), Task("quick", CPU, lambda: (1,))], timeout_s=0.2)
    assert set(psutil.Process().children()) <= before


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_no_child_outlives_a_parent_that_is_stopped(sent: signal.Signals) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", SPINNERS],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as parent:
        assert parent.stdout is not None
        pids = [int(parent.stdout.readline()) for _ in range(2)]
        assert all(is_alive(pid) for pid in pids)
        parent.send_signal(sent)
        assert parent.wait(DEADLINE_S) != 0
    assert becomes_true(lambda: not any(is_alive(pid) for pid in pids))
    for pid in pids:
        # orphans of our child are ours where this process is their subreaper
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, 0)
