"""Run a few functions at once, each in a pinned process of its own, and leave no process behind.

The children are forked from a parent that has compiled every kernel already: 2 to 5 ms to their
first call, against 0.3 s and more for a fresh interpreter. All measuring happens in children and
the parent only sleeps, so that it takes no core from them and stays free for Ctrl-C: a compiled
spin loop in the main thread would not notice a signal, nor that its peer has died.

Whatever ends the wait (a failed child, a deadline, Ctrl-C), every child is killed and reaped by its
own id before the error goes on. Should the parent itself be killed, the kernel kills the children
(PR_SET_PDEATHSIG).
"""

from __future__ import annotations

import ctypes
import mmap
import os
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ipc.errors import Refused
from ipc.mapping import populate

PR_SET_PDEATHSIG = 1
RESULT_WORDS = 8


class ChildFailed(Refused):
    """A measuring process died, failed, or did not come to an end."""


@dataclass(frozen=True)
class Task:
    """A function to run in a pinned process.

    Attributes
    ----------
    work : Callable
        Runs after every task has reached the start; returns up to 8 integers. What it changes
        outside shared memory is lost with its process.
    touches : tuple of arrays
        Shared arrays to touch before the start: a fork does not copy the page tables of shared
        mappings, and a first touch would fall into the measurement.
    """

    name: str
    cpu: int
    work: Callable[[], tuple[int, ...]]
    touches: tuple[NDArray[Any], ...] = ()


def shared_words(count: int) -> NDArray[np.int64]:
    """Return `count` zeroed int64 words that children forked from now on share with this process.

    The mapping is anonymous: it has no name to clean up and ends with its last process.
    """
    size = max(count, 1) * 8
    flags = mmap.MAP_SHARED | mmap.MAP_ANONYMOUS | mmap.MAP_POPULATE
    return np.frombuffer(mmap.mmap(-1, size, flags=flags), np.int64, count=count)


def run_together(tasks: Sequence[Task], timeout_s: float = 60.0) -> list[tuple[int, ...]]:
    """Run every task at once, each in its own pinned process; return what each returned.

    Raises
    ------
    ChildFailed
        When a task raised, died or missed the deadline; all are gone by then.
    """
    started = shared_words(len(tasks))
    results = shared_words(len(tasks) * (RESULT_WORDS + 1)).reshape(len(tasks), RESULT_WORDS + 1)
    sys.stdout.flush()
    sys.stderr.flush()
    pids: list[int] = []
    # Ctrl-C between a fork and the note of its id would lose the child: hold it back meanwhile.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        try:
            parent = os.getpid()
            for index, task in enumerate(tasks):
                pid = os.fork()
                if pid == 0:
                    _child(task, index, parent, started, results)
                pids.append(pid)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        _wait(tasks, pids, timeout_s)
    finally:
        _end(pids)
    return [tuple(int(word) for word in row[1 : 1 + int(row[0])]) for row in results]


def _child(
    task: Task,
    index: int,
    parent: int,
    started: NDArray[np.int64],
    results: NDArray[np.int64],
) -> None:
    """Live as a child: die with the parent, pin, wait for the others, work, leave."""
    status = 1
    try:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT, signal.SIGTERM})
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)
        os.sched_setaffinity(0, {task.cpu})
        for array in task.touches:
            populate(array)
        started[index] = 1
        while not started.all():
            os.sched_yield()
        words = task.work()
        results[index, 1 : 1 + len(words)] = words
        results[index, 0] = len(words)
        status = 0
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(status)


def _wait(tasks: Sequence[Task], pids: list[int], timeout_s: float) -> None:
    """Wait until every child has ended well."""
    deadline = time.monotonic() + timeout_s
    poller = select.poll()
    waiting: dict[int, int] = {}
    try:
        for index, pid in enumerate(pids):
            descriptor = os.pidfd_open(pid)
            waiting[descriptor] = index
            poller.register(descriptor, select.POLLIN)
        while waiting:
            left = deadline - time.monotonic()
            for descriptor, _ in poller.poll(max(left, 0) * 1000):
                index = waiting.pop(descriptor)
                poller.unregister(descriptor)
                os.close(descriptor)
                _, status = os.waitpid(pids[index], 0)
                pids[index] = 0
                if status != 0:
                    code = os.waitstatus_to_exitcode(status)
                    raise ChildFailed(
                        "a measuring process failed",
                        expected="exit status 0",
                        found=f"signal {-code}" if code < 0 else f"exit status {code}",
                        where=tasks[index].name,
                        remedy="its traceback, if it left one, is on the standard error",
                    )
            if waiting and left <= 0:
                names = ", ".join(tasks[index].name for index in waiting.values())
                raise ChildFailed(
                    "measuring processes did not come to an end",
                    expected=f"an end within {timeout_s:g} s",
                    found=f"still running: {names}",
                    remedy="something else may hold their cpus; see the host's load",
                )
    finally:
        for descriptor in waiting:
            os.close(descriptor)


def _end(pids: list[int]) -> None:
    """Kill and reap every child that was not reaped yet (0 marks those that were)."""
    for pid in pids:
        if pid:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
