"""Pin a process to cpus, and see whether the kernel obeyed.

The kernel intersects what was asked with the process's cpuset and says nothing: a request for cpus
2 and 3 in a container that owns 0 to 2 leaves the process on 2 alone. So every pin is read back,
thread by thread, because affinity belongs to threads and libraries start some.

Before this: whoever decided on a placement (`hft up`, a benchmark). After: nothing; a pin lasts
until the process ends and is inherited by its children.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from ipc.errors import Refused


class PlacementRefused(Refused):
    """A process can't be put where it was asked to be."""


def pin(cpus: Iterable[int], pid: int = 0) -> tuple[int, ...]:
    """Bind every thread of a process to these cpus, and verify.

    Parameters
    ----------
    cpus : iterable of int
        At least one.
    pid : int
        0 is this process.

    Returns
    -------
    tuple of int
        The cpus, sorted.

    Raises
    ------
    PlacementRefused
        When there is no such process or cpu, it is offline or outside the cpuset, the process is
        another user's, or the kernel put a thread elsewhere.
    """
    wanted = set(cpus)
    process = pid or os.getpid()
    pinned: set[int] = set()
    # a thread may be born between the listing and the pinning of its parent, unpinned
    while fresh := _threads(process) - pinned:
        for thread in fresh:
            _pin_thread(thread, process, wanted)
        pinned |= fresh
    return tuple(sorted(wanted))


def usable_cpus(pid: int = 0) -> tuple[int, ...]:
    """Return the cpus on which a process (0: this one) may run now, sorted."""
    try:
        return tuple(sorted(os.sched_getaffinity(pid)))
    except ProcessLookupError:
        raise _no_process(pid) from None


def online_cpus() -> tuple[int, ...]:
    """Return the cpus that are switched on, sorted; fewer may be usable."""
    return parse_cpu_list(Path("/sys/devices/system/cpu/online").read_text())


def parse_cpu_list(text: str) -> tuple[int, ...]:
    """Read the kernel's notation for sets of cpus: "0-3,8,10-11"."""
    cpus: set[int] = set()
    for part in text.strip().split(","):
        first, _, last = part.partition("-")
        if first:
            cpus.update(range(int(first), int(last or first) + 1))
    return tuple(sorted(cpus))


def format_cpu_list(cpus: Iterable[int]) -> str:
    """Write a set of cpus in the kernel's notation."""
    runs: list[list[int]] = []
    for cpu in sorted(set(cpus)):
        if runs and runs[-1][1] == cpu - 1:
            runs[-1][1] = cpu
        else:
            runs.append([cpu, cpu])
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in runs)


def _threads(process: int) -> set[int]:
    try:
        return {int(name) for name in os.listdir(f"/proc/{process}/task")}
    except FileNotFoundError:
        raise _no_process(process) from None


def _pin_thread(thread: int, process: int, wanted: set[int]) -> None:
    where = f"thread {thread} of process {process}"
    try:
        os.sched_setaffinity(thread, wanted)
        found = os.sched_getaffinity(thread)
    except ProcessLookupError:
        if thread == process:
            raise _no_process(process) from None
        return  # the thread has ended meanwhile
    except (OSError, ValueError, OverflowError) as error:
        raise PlacementRefused(
            "the process can't be pinned",
            expected=f"a process of this user, cpus among {format_cpu_list(usable_cpus())}",
            found=f"cpus {format_cpu_list(wanted) or 'none'} ({error})",
            where=where,
            remedy="choose cpus that are online and in the cpuset (`usable_cpus()` lists them)",
        ) from error
    if found != wanted:
        raise PlacementRefused(
            "the kernel put the process elsewhere",
            expected=f"cpus {format_cpu_list(wanted)}",
            found=f"cpus {format_cpu_list(found)}",
            where=where,
            remedy="the rest is offline or outside the cpuset: choose other cpus, or enlarge it",
        )


def _no_process(pid: int) -> PlacementRefused:
    return PlacementRefused(
        "there is no such process",
        expected="the pid of a live process",
        found=str(pid),
        where=f"/proc/{pid}",
        remedy="it has ended: look at its exit code",
    )
