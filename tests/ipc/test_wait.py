"""Waiting loops: no wake-up is lost between two processes, and no strategy is slow to notice.

In the races a sleep may last ten minutes, so a lost wake-up shows as a child that doesn't end. How
the two sides' fences keep a wake-up from being lost is tried apart from sleeping, some ten thousand
times at the same instant: without either fence it fails within a second.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
import numpy as np
import pytest

from ipc.errors import CellRefused
from ipc.intrinsics import load_acquire, mix64, pause, store_release
from ipc.kernel import JIT
from ipc.region import Region, layout_hash
from ipc.wait import (
    ASLEEP,
    BELL_WORDS,
    IDLE_POLLS,
    MAY_SLEEP,
    SIGNAL,
    SLEEPS,
    TIMEOUTS,
    Strategy,
    default_strategy,
    lay_bell,
    local_bell,
    new_waiter,
    on_idle,
    on_work,
    wake,
)
from tests.processes import Children, poll_until, run_python

WORDS = layout_hash(np.dtype("<i8"))
LONG_NS = 600_000_000_000


@numba.njit(nogil=True)
def await_value(cells: Any, cell: int, value: int, waiter: Any, bell: Any) -> None:
    """Poll a cell as a loop does, until it is at least `value`."""
    while load_acquire(cells, cell) < value:
        on_idle(waiter, bell)
    on_work(waiter, bell)


@numba.njit(nogil=True)
def answer(cells: Any, waiter: Any, bell: Any, their_bell: Any, rounds: int) -> None:
    """Wait for each number in cell 0, and repeat it in cell 16."""
    for number in range(1, rounds + 1):
        await_value(cells, 0, number, waiter, bell)
        linger(number + 7)
        store_release(cells, 16, number)
        wake(their_bell)


@numba.njit(nogil=True)
def ask(cells: Any, waiter: Any, bell: Any, their_bell: Any, rounds: int) -> None:
    """Put each number into cell 0, and wait for it in cell 16."""
    for number in range(1, rounds + 1):
        linger(number)
        store_release(cells, 0, number)
        wake(their_bell)
        await_value(cells, 16, number, waiter, bell)


@numba.njit(nogil=True)
def linger(number: int) -> None:
    """Take a changing while, so that wake-ups meet their sleeper in every state."""
    for _ in range(mix64(number) & 255):
        pause()


def shared_words(directory: Path) -> Any:
    """Make a page of shared words."""
    with Region.create(directory, "words", 4096, layout=WORDS) as region:
        return region.words


@pytest.mark.skipif(not JIT, reason="a race for compiled code")
@pytest.mark.parametrize("strategy", list(Strategy))
@pytest.mark.parametrize("pauses", [0, 20])
def test_two_loops_that_wait_for_each_other_lose_no_wake_up(
    venue_directory: Path, children: Children, strategy: Strategy, pauses: int
) -> None:
    rounds = 15_000 if strategy == Strategy.SPIN_THEN_FUTEX else 300
    words = shared_words(venue_directory)
    bells = [lay_bell(words[64 * number :], strategy) for number in (1, 2)]
    waiters = [words[256 + 16 * number :][:16] for number in (0, 1)]
    for waiter in waiters:
        waiter[:] = new_waiter(strategy, pauses=pauses, yields=pauses, max_sleep_ns=LONG_NS)
    ask(words, waiters[0], bells[0], bells[1], 0)
    answer(words, waiters[1], bells[1], bells[0], 0)
    pids = [
        children.fork(lambda: answer(words, waiters[1], bells[1], bells[0], rounds)),
        children.fork(lambda: ask(words, waiters[0], bells[0], bells[1], rounds)),
    ]
    assert [children.exit_code(pid) for pid in pids] == [0, 0]
    assert words[0] == words[16] == rounds
    # A lost wake-up sleeps for LONG_NS: the deadline of `exit_code` finds it. TIMEOUTS can't say
    # so, because it counts a waker's late call for an earlier sleep as well.
    if strategy != Strategy.SPIN_THEN_FUTEX:
        assert bells[0][SIGNAL] == bells[1][SIGNAL] == 0
    elif pauses == 0:
        assert waiters[0][SLEEPS] + waiters[1][SLEEPS] > 0


@numba.njit(nogil=True)
def count_up(cells: Any, cell: int, bell: Any, times: int) -> None:
    """Produce work for the sleeper, again and again."""
    for number in range(1, times + 1):
        linger(number * cell)
        linger(number * cell + 1)
        store_release(cells, cell, number)
        wake(bell)


@numba.njit(nogil=True)
def await_both(cells: Any, waiter: Any, bell: Any, times: int) -> None:
    """Poll two cells until both have reached `times`."""
    first = second = 0
    while first < times or second < times:
        before = first + second
        first, second = load_acquire(cells, 0), load_acquire(cells, 16)
        if first + second > before:
            on_work(waiter, bell)
        else:
            on_idle(waiter, bell)


@pytest.mark.skipif(not JIT, reason="a race for compiled code")
def test_two_wakers_of_one_sleeper_lose_no_wake_up(
    venue_directory: Path, children: Children
) -> None:
    times = 20_000
    words = shared_words(venue_directory)
    bell = lay_bell(words[64:], Strategy.SPIN_THEN_FUTEX)
    waiter = words[256:272]
    waiter[:] = new_waiter(Strategy.SPIN_THEN_FUTEX, pauses=0, yields=0, max_sleep_ns=LONG_NS)
    count_up(words, 0, bell, 0)
    await_both(words, waiter, bell, 0)
    pids = [children.fork(lambda cell=cell: count_up(words, cell, bell, times)) for cell in (0, 16)]
    pids.append(children.fork(lambda: await_both(words, waiter, bell, times)))
    assert [children.exit_code(pid) for pid in pids] == [0, 0, 0]
    assert waiter[SLEEPS] > 0  # and a lost wake-up misses the deadline, see above


@numba.njit(nogil=True)
def meet(cells: Any, mine: int, theirs: int, number: int, waiter: Any) -> None:
    """Wait until the other process is in this round too, then a different moment each time."""
    store_release(cells, mine, number)
    while load_acquire(cells, theirs) < number:
        on_idle(waiter, waiter)  # spins or yields: rings no bell
    on_work(waiter, waiter)
    for _ in range(mix64(number + mine) & 63):
        load_acquire(cells, mine)


@numba.njit(nogil=True)
def publish_and_wake(cells: Any, waiter: Any, bell: Any, rounds: int) -> None:
    """Publish the round's number in cell 0, ring, and tell in cell 16 whether anybody slept."""
    for number in range(1, rounds + 1):
        meet(cells, 32, 48, 2 * number, waiter)
        store_release(cells, 0, number)
        store_release(cells, 16, wake(bell))
        meet(cells, 32, 48, 2 * number + 1, waiter)


@numba.njit(nogil=True)
def announce_and_poll(cells: Any, waiter: Any, bell: Any, sleeper: Any, rounds: int) -> Any:
    """Announce a sleep and poll once more; count the rounds in which both sides saw nothing."""
    lost = 0
    for number in range(1, rounds + 1):
        meet(cells, 48, 32, 2 * number, waiter)
        on_idle(sleeper, bell)
        seen = load_acquire(cells, 0) == number
        meet(cells, 48, 32, 2 * number + 1, waiter)
        if not seen and load_acquire(cells, 16) == 0:
            lost += 1
        on_work(sleeper, bell)
    return lost


@pytest.mark.skipif(not JIT, reason="a race for compiled code")
def test_waker_and_sleeper_at_the_same_instant_never_miss_each_other(
    venue_directory: Path, children: Children
) -> None:
    rounds = 60_000
    words = shared_words(venue_directory)
    bell = lay_bell(words[64:], Strategy.SPIN_THEN_FUTEX)
    sleeper = new_waiter(Strategy.SPIN_THEN_FUTEX, pauses=0, yields=0)
    waiter = new_waiter(Strategy.SPIN_THEN_YIELD, pauses=200)
    publish_and_wake(words, waiter, bell, 0)
    announce_and_poll(words, waiter, bell, sleeper, 0)

    def sleep() -> None:
        words[256] = announce_and_poll(words, waiter, bell, sleeper, rounds)

    pids = [
        children.fork(lambda: publish_and_wake(words, waiter, bell, rounds)),
        children.fork(sleep),
    ]
    assert [children.exit_code(pid) for pid in pids] == [0, 0]
    assert words[0] == rounds
    assert words[256] == 0


def idle_until_asleep(waiter: Any, bell: Any) -> int:
    """Poll idly until the next idle poll would sleep; return how many polls that took."""
    for polls in range(1000):
        if bell[ASLEEP]:
            return polls
        on_idle(waiter, bell)
    raise AssertionError("the loop never announced that it would sleep")


@numba.njit
def wake_once(bell: Any) -> Any:
    """Call `wake`."""
    return wake(bell)


@numba.njit
def work_once(waiter: Any, bell: Any) -> None:
    """Call `on_work`."""
    on_work(waiter, bell)


def test_loop_that_may_sleep_spins_and_yields_first_and_then_announces_it() -> None:
    bell = local_bell(Strategy.SPIN_THEN_FUTEX)
    waiter = new_waiter(Strategy.SPIN_THEN_FUTEX, pauses=5, yields=7, max_sleep_ns=1000)
    assert idle_until_asleep(waiter, bell) == 5 + 7 + 1
    assert waiter[SLEEPS] == 0
    on_idle(waiter, bell)
    assert (waiter[SLEEPS], waiter[TIMEOUTS], bell[ASLEEP]) == (1, 1, 0)
    on_idle(waiter, bell)
    assert bell[ASLEEP] == 1
    work_once(waiter, bell)
    assert (waiter[IDLE_POLLS], bell[ASLEEP]) == (0, 0)


def test_wake_up_between_the_announcement_and_the_sleep_is_not_slept_over(
    children: Children,
) -> None:
    bell = local_bell(Strategy.SPIN_THEN_FUTEX)
    waiter = new_waiter(Strategy.SPIN_THEN_FUTEX, pauses=0, yields=0, max_sleep_ns=LONG_NS)
    idle_until_asleep(waiter, bell)
    assert wake_once(bell) == 1
    assert wake_once(bell) == 0, "the second wake-up of one sleep makes no system call"

    def sleep() -> None:
        on_idle(waiter, bell)
        assert (waiter[SLEEPS], waiter[TIMEOUTS], bell[SIGNAL]) == (1, 0, 1)

    assert children.exit_code(children.fork(sleep)) == 0


def test_wake_of_a_loop_that_is_awake_or_never_sleeps_touches_nothing() -> None:
    for strategy in Strategy:
        bell = local_bell(strategy)
        assert bell[MAY_SLEEP] == (strategy == Strategy.SPIN_THEN_FUTEX)
        assert wake_once(bell) == 0
        assert bell[SIGNAL] == 0


def test_loop_that_spins_or_yields_never_announces_a_sleep() -> None:
    for strategy in (Strategy.SPIN, Strategy.SPIN_THEN_YIELD):
        bell, waiter = local_bell(strategy), new_waiter(strategy, pauses=2)
        for _ in range(500):
            on_idle(waiter, bell)
        assert (bell[ASLEEP], waiter[SLEEPS]) == (0, 0)


def test_futex_compares_the_low_half_of_the_signal() -> None:
    bell = local_bell(Strategy.SPIN_THEN_FUTEX)
    bell[SIGNAL] = (5 << 32) + 0xFFFFFFFF
    waiter = new_waiter(Strategy.SPIN_THEN_FUTEX, pauses=0, yields=0, max_sleep_ns=1000)
    idle_until_asleep(waiter, bell)
    on_idle(waiter, bell)
    assert waiter[TIMEOUTS] == 1


@pytest.mark.skipif(not JIT, reason="a race for compiled code")
def test_sleeper_whose_waker_died_before_waking_goes_on_after_its_longest_sleep(
    venue_directory: Path, children: Children
) -> None:
    words = shared_words(venue_directory)
    bell = lay_bell(words[64:], Strategy.SPIN_THEN_FUTEX)
    waiter = words[256:272]
    waiter[:] = new_waiter(Strategy.SPIN_THEN_FUTEX, pauses=0, yields=0, max_sleep_ns=2_000_000)
    await_value(words, 0, 0, waiter, bell)
    child = children.fork(lambda: await_value(words, 0, 1, waiter, bell))
    poll_until(lambda: waiter[SLEEPS] > 0, "the child to sleep")
    words[0] = 1  # and no wake
    assert children.exit_code(child) == 0


@pytest.mark.skipif(not JIT, reason="plain Python runs handlers inside the loop")
def test_sleeper_that_gets_a_signal_polls_again(venue_directory: Path, children: Children) -> None:
    words = shared_words(venue_directory)
    bell = lay_bell(words[64:], Strategy.SPIN_THEN_FUTEX)
    waiter = words[256:272]
    waiter[:] = new_waiter(Strategy.SPIN_THEN_FUTEX, pauses=0, yields=0, max_sleep_ns=LONG_NS)
    await_value(words, 0, 0, waiter, bell)

    def work() -> None:
        signal.signal(signal.SIGUSR1, lambda *_: None)
        words[32] = 1
        await_value(words, 0, 1, waiter, bell)

    child = children.fork(work)
    poll_until(lambda: words[32] == 1 and waiter[SLEEPS] > 0, "the child to sleep")
    words[0] = 1

    def interrupted() -> bool:
        os.kill(child, signal.SIGUSR1)  # again: the first may come before it is in the kernel
        return bool(waiter[TIMEOUTS] > 0)

    poll_until(interrupted, "the signal to end the sleep")
    assert children.exit_code(child) == 0


def test_waiting_with_the_jit_off_really_sleeps_and_wakes() -> None:
    code = """
import os
import numpy as np
from pathlib import Path
from ipc.kernel import JIT
from ipc.wait import *
from ipc.wait import SLEEPS, TIMEOUTS, BELL_WORDS
import mmap
words = np.frombuffer(mmap.mmap(-1, 4096), np.int64)
bell = lay_bell(words[64:], Strategy.SPIN_THEN_FUTEX)
waiter = new_waiter(Strategy.SPIN_THEN_FUTEX, pauses=2, yields=2, max_sleep_ns=20_000_000_000)
pid = os.fork()
if pid == 0:
    woken = 0
    while not woken:
        words[0] = 1
        woken = wake(bell)
    os._exit(0)
while waiter[SLEEPS] == 0:
    on_idle(waiter, bell)
os.waitpid(pid, 0)
print(JIT, waiter[TIMEOUTS], words[0])
for strategy in Strategy:
    for _ in range(50):
        on_idle(new_waiter(strategy), local_bell(strategy))
"""
    finished = run_python(code, NUMBA_DISABLE_JIT="1")
    assert finished.stdout.split() == ["False", "0", "1"], finished.stderr


@pytest.mark.parametrize(
    ("loops", "cpus", "strategy"),
    [
        (1, 2, Strategy.SPIN),
        (2, 2, Strategy.SPIN_THEN_YIELD),
        (4, 2, Strategy.SPIN_THEN_YIELD),
        (5, 2, Strategy.SPIN_THEN_FUTEX),
        (1, 1, Strategy.SPIN_THEN_YIELD),
        (3, 1, Strategy.SPIN_THEN_FUTEX),
        (8, 64, Strategy.SPIN),
        (0, 1, Strategy.SPIN),
    ],
)
def test_default_strategy_follows_the_loops_and_the_cpus(
    loops: int, cpus: int, strategy: Strategy
) -> None:
    assert default_strategy(loops, cpus) == strategy


def test_default_strategy_without_a_number_takes_the_cpus_of_this_process() -> None:
    usable: Callable[[], int] = lambda: len(os.sched_getaffinity(0))  # noqa: E731
    assert default_strategy(usable()) == Strategy.SPIN_THEN_YIELD
    assert default_strategy(2 * usable() + 1) == Strategy.SPIN_THEN_FUTEX


def test_bell_in_too_little_memory_is_refused() -> None:
    with pytest.raises(CellRefused, match=f"expected: {BELL_WORDS} words; found: 47 words"):
        lay_bell(np.zeros(47, np.int64), Strategy.SPIN)
