"""Pinning: what was asked is what the kernel says afterwards, or it is refused."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import suppress

import pytest

from affinity.pin import (
    PlacementRefused,
    format_cpu_list,
    online_cpus,
    parse_cpu_list,
    pin,
    usable_cpus,
)
from ipc.errors import Refused
from tests.processes import Children, poll_until


@pytest.fixture(autouse=True)
def placement_as_before() -> Iterator[None]:
    """Put this process back where it was."""
    before = os.sched_getaffinity(0)
    yield
    for thread in os.listdir("/proc/self/task"):
        with suppress(ProcessLookupError):  # it ended meanwhile
            os.sched_setaffinity(int(thread), before)


def test_pin_puts_every_thread_of_this_process_on_the_cpu() -> None:
    cpu = usable_cpus()[-1]
    release = threading.Event()
    threads = [threading.Thread(target=release.wait) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        assert pin([cpu, cpu]) == (cpu,)
        assert usable_cpus() == (cpu,)
        tasks = [int(name) for name in os.listdir("/proc/self/task")]
        assert len(tasks) >= 4
        assert [os.sched_getaffinity(task) for task in tasks] == [{cpu}] * len(tasks)
    finally:
        release.set()
        for thread in threads:
            thread.join()


def test_pin_of_another_process_is_verified_there(children: Children) -> None:
    cpu = usable_cpus()[0]
    before = usable_cpus()
    child = children.fork(signal.pause)
    assert pin([cpu], child) == (cpu,) == usable_cpus(child)
    assert usable_cpus() == before


def test_pin_to_a_cpu_that_the_host_lacks_is_refused() -> None:
    with pytest.raises(PlacementRefused) as refused:
        pin([1000])
    said = str(refused.value)
    assert isinstance(refused.value, Refused)
    assert "the process can't be pinned; expected: a process of this user, cpus among " in said
    assert "found: cpus 1000 (" in said
    assert f"where: thread {os.getpid()} of process {os.getpid()}; remedy: choose cpus" in said


def test_pin_to_a_cpu_that_the_kernel_leaves_out_is_refused() -> None:
    with pytest.raises(PlacementRefused) as refused:
        pin([*usable_cpus(), 1000])
    said = str(refused.value)
    assert "the kernel put the process elsewhere; expected: cpus " in said
    assert f"1000; found: cpus {format_cpu_list(usable_cpus())}; " in said


@pytest.mark.parametrize("cpus", [[], [-1], [1 << 40]])
def test_pin_to_something_that_is_no_cpu_is_refused(cpus: list[int]) -> None:
    with pytest.raises(PlacementRefused, match="the process can't be pinned"):
        pin(cpus)


def test_pin_of_a_process_that_has_ended_is_refused(children: Children) -> None:
    child = children.fork(lambda: None)
    assert children.exit_code(child) == 0
    for attempt in (lambda: pin(usable_cpus(), child), lambda: usable_cpus(child)):
        with pytest.raises(PlacementRefused, match=f"there is no such process.*found: {child}"):
            attempt()


def test_child_inherits_the_pin(children: Children) -> None:
    cpu = usable_cpus()[-1]
    pin([cpu])
    child = children.fork(signal.pause)
    poll_until(lambda: usable_cpus(child) == (cpu,), "the child to be on the cpu")


def test_usable_cpus_are_online() -> None:
    assert usable_cpus() == tuple(sorted(os.sched_getaffinity(0)))
    assert set(usable_cpus()) <= set(online_cpus())


@pytest.mark.parametrize(
    ("text", "cpus"),
    [("", ()), ("0\n", (0,)), ("0-3,8,10-11", (0, 1, 2, 3, 8, 10, 11)), ("2,4", (2, 4))],
)
def test_cpu_list_is_read_and_written_as_the_kernel_does(text: str, cpus: tuple[int, ...]) -> None:
    assert parse_cpu_list(text) == cpus
    assert format_cpu_list(reversed(cpus)) == text.strip()
