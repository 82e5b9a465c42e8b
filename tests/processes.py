"""Processes that tests start: real ones, ended by their id whatever happens.

A test forks, so that what is compiled already needs no second compilation, and waits for its
children with a deadline. A child never returns into pytest, dies with it, and hands its answer back
through shared memory or its exit code.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path

from ipc.liveness import wait_for_exit

ROOT = Path(__file__).resolve().parent.parent
DEADLINE_S = 60.0
_PR_SET_PDEATHSIG = 1
_IDLE = threading.Event()


def poll_until(condition: Callable[[], bool], what: str, deadline_s: float = DEADLINE_S) -> None:
    """Ask again and again until the condition holds; fail when that takes too long."""
    deadline = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < deadline, f"waited {deadline_s} s for this: {what}"
        _IDLE.wait(0.0005)


def run_python(
    code: str, root: Path = ROOT, flags: tuple[str, ...] = (), **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run code in a fresh interpreter that imports from `root`, with no flag of numba but these."""
    inherited = {name: value for name, value in os.environ.items() if name[:6] != "NUMBA_"}
    return subprocess.run(
        [sys.executable, *flags, "-c", code],
        cwd=root,
        env={**inherited, "PYTHONPATH": str(root), "PYTHONDONTWRITEBYTECODE": "1", **environment},
        capture_output=True,
        text=True,
        timeout=2 * DEADLINE_S,
        check=False,
    )


class Children:
    """The processes of one test."""

    def __init__(self) -> None:
        self.running: set[int] = set()

    def fork(self, work: Callable[[], object]) -> int:
        """Run `work` in a child; it exits with 0, or with 1 and a traceback on stderr."""
        parent = os.getpid()
        pid = os.fork()
        if pid:
            self.running.add(pid)
            return pid
        code = 1
        try:
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
            if os.getppid() == parent:
                work()
                code = 0
        except BaseException:
            traceback.print_exc()
            sys.stderr.flush()
        finally:
            os._exit(code)

    def exit_code(self, pid: int, deadline_s: float = DEADLINE_S) -> int:
        """Wait for a child to end; return its exit code, or minus the signal that killed it."""
        assert wait_for_exit(pid, deadline_s), f"child {pid} is still running"
        self.running.discard(pid)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    def kill(self, pid: int) -> None:
        """Kill a child, stopped or not, and reap it."""
        os.kill(pid, signal.SIGKILL)
        assert self.exit_code(pid) == -signal.SIGKILL

    def stop(self, pid: int) -> None:
        """Stop a child, and wait until it stands still."""
        os.kill(pid, signal.SIGSTOP)
        poll_until(lambda: _state(pid) == "T", "the child to stop")

    def go_on(self, pid: int) -> None:
        """Let a stopped child continue."""
        os.kill(pid, signal.SIGCONT)

    def end_all(self) -> None:
        """Kill whatever still runs."""
        for pid in list(self.running):
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            self.running.discard(pid)


def _state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
