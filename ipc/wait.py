"""What a poll loop does when there was nothing to do: spin, yield, or sleep until rung.

A loop calls `on_work` after a poll that found something and `on_idle` after one that didn't.
Measured between two processes (round trip, p50): on two cores spinning 0.5 us, yielding 0.5 us,
futex 43 us; on one core spinning 8000 us (each burns its slice), yielding 2 us, futex 3.5 us. So:
spin where every loop has a core, yield where loops share cores, sleep where they are many or the
machine has other things to do (`default_strategy`).

Sleeping needs a *bell* in shared memory, one a sleeper, and whoever produces work for it calls
`wake` after publishing. A wake-up must not be lost, and `wake` must cost nothing while nobody
sleeps: one load where the sleeper never does, a full fence (5 to 10 ns) where it may and does not.

Why none is lost. The sleeper stores ASLEEP, executes a full fence, polls once more, and sleeps only
when SIGNAL still has the value that it read before ASLEEP. The waker publishes, executes a full
fence, loads ASLEEP. Of two full fences one comes first. If the sleeper's does, the waker sees
ASLEEP, raises SIGNAL and wakes: then either the kernel finds SIGNAL changed and refuses to sleep,
or the sleeper sleeps already and is woken. If the waker's does, the last poll sees what was
published. Without the fences both loads may pass the stores before them (x86 does that), each side
misses the other, and the sleeper sleeps on published work. A second waker that finds SIGNAL moved
past the sleeper's key leaves the system call to the first. A waker may be killed between
publishing and waking: no protocol helps, so no sleep is longer than the waiter's `max_sleep_ns`.

Rejected: membarrier(2), which would free the waker of its fence (it interrupts every hot core each
time that anybody dozes off); nanosleep (150 us and more on one core).
"""

from __future__ import annotations

import ctypes
import os
from enum import IntEnum
from typing import Any

import numpy as np
from numba import types
from numpy.typing import NDArray

from ipc.errors import CellRefused
from ipc.intrinsics import (
    address_of,
    fence_full,
    fetch_add,
    load_acquire,
    load_relaxed,
    pause,
    store_relaxed,
)
from ipc.kernel import JIT, kernel


class Strategy(IntEnum):
    """How a loop waits."""

    SPIN = 0
    SPIN_THEN_YIELD = 1
    SPIN_THEN_FUTEX = 2


# A bell, shared: three cells, each with a pair of cache lines of its own.
MAY_SLEEP = 0
"""1 when the bell's owner may sleep; written once, before anybody waits or wakes."""
ASLEEP = 16
"""0, or the sleeper's key + 1 from its announcement on. One writer: the owner."""
SIGNAL = 32
"""The futex; wakers count it up. The one cell here that has several writers."""
BELL_WORDS = 48

# A waiter, private to its loop.
STRATEGY = 0
IDLE_POLLS = 1
PAUSES = 2
YIELDS = 3
MAX_SLEEP_NS = 4
SLEEPS = 5
TIMEOUTS = 6
TIMESPEC = 8
WAITER_WORDS = 16

_FUTEX = 202  # x86-64
_FUTEX_WAIT = 0
_FUTEX_WAKE = 1

_syscall: Any
_sched_yield: Any
if JIT:
    # syscall(2) takes a variable number of arguments; on x86-64 integers travel alike either way
    _syscall = types.ExternalFunction("syscall", types.int64(*[types.int64] * 7))
    _sched_yield = types.ExternalFunction("sched_yield", types.int32())
else:
    _libc_syscall = ctypes.CDLL(None).syscall
    _libc_syscall.restype = ctypes.c_long

    def _syscall(*words: int) -> int:
        return int(_libc_syscall(*[ctypes.c_long(int(word)) for word in words]))

    _sched_yield = os.sched_yield


@kernel
def _sleep(waiter: Any, bell: Any, key: int) -> None:
    """Sleep until rung, but not when SIGNAL is not `key` any more, and not for too long."""
    waiter[SLEEPS] += 1
    waiter[TIMESPEC] = waiter[MAX_SLEEP_NS] // 1_000_000_000
    waiter[TIMESPEC + 1] = waiter[MAX_SLEEP_NS] % 1_000_000_000
    _syscall(
        _FUTEX,
        address_of(bell, SIGNAL),  # little-endian: the futex is the low half of the word
        _FUTEX_WAIT,
        key,  # of which the kernel takes the low half as well
        address_of(waiter, TIMESPEC),
        0,
        0,
    )
    # acquire: pairs with the waker's addition; what it published is visible to the next poll
    if load_acquire(bell, SIGNAL) == key:
        # or a signal handler ran, or a waker was late with its call for an earlier sleep
        waiter[TIMEOUTS] += 1


@kernel
def on_idle(waiter: Any, bell: Any) -> None:
    """Wait a little, as the strategy says; the caller polls again afterwards.

    Parameters
    ----------
    waiter : int64[16]
        Private, written; from `new_waiter`.
    bell : int64[48]
        Shared; ASLEEP written. Touched only when the strategy sleeps.
    """
    idle = waiter[IDLE_POLLS]
    waiter[IDLE_POLLS] = idle + 1
    if waiter[STRATEGY] == Strategy.SPIN or idle < waiter[PAUSES]:
        pause()
        return
    if waiter[STRATEGY] == Strategy.SPIN_THEN_YIELD or idle < waiter[PAUSES] + waiter[YIELDS]:
        _sched_yield()
        return
    announced = load_relaxed(bell, ASLEEP)
    if announced:
        _sleep(waiter, bell, announced - 1)
        store_relaxed(bell, ASLEEP, 0)
        return
    # acquire: pairs with the waker's addition, as in `_sleep`
    key = load_acquire(bell, SIGNAL)
    store_relaxed(bell, ASLEEP, key + 1)
    # full fence: ASLEEP is visible before the caller's last poll; pairs with `wake`
    fence_full()


@kernel(inline=True)
def on_work(waiter: Any, bell: Any) -> None:
    """Note that the last poll found work: be quick from now on."""
    if waiter[IDLE_POLLS]:
        waiter[IDLE_POLLS] = 0
        if waiter[STRATEGY] == Strategy.SPIN_THEN_FUTEX:
            store_relaxed(bell, ASLEEP, 0)


@kernel
def _ring(bell: Any, asleep: int) -> int:
    if load_relaxed(bell, SIGNAL) != asleep - 1:
        return 0  # another waker raised it since the sleeper read it, and makes the call
    fetch_add(bell, SIGNAL, 1)
    _syscall(_FUTEX, address_of(bell, SIGNAL), _FUTEX_WAKE, 1, 0, 0, 0)
    return 1


@kernel(inline=True)
def wake(bell: Any) -> int:
    """Wake the bell's owner if it sleeps or is about to; call after publishing, once a batch.

    Parameters
    ----------
    bell : int64[48]
        Shared; SIGNAL written when the owner sleeps.

    Returns
    -------
    int
        1 when the system call was made.
    """
    if load_relaxed(bell, MAY_SLEEP) == 0:
        return 0
    # full fence: what was published is visible before ASLEEP is read; pairs with `on_idle`
    fence_full()
    asleep = load_relaxed(bell, ASLEEP)
    if asleep == 0:
        return 0
    return _ring(bell, asleep)


@kernel
def wake_each(bells: Any, count: int, own: int) -> int:
    """Do `wake` for the first `count` bells of a row, but for number `own`, with one fence.

    Parameters
    ----------
    bells : int64[n * 48]
        Shared; SIGNAL written where an owner sleeps.

    Returns
    -------
    int
        System calls made.
    """
    may_sleep = 0
    for bell in range(count):
        may_sleep |= load_relaxed(bells, bell * BELL_WORDS + MAY_SLEEP)
    if may_sleep == 0:
        return 0
    # full fence: what was published is visible before any ASLEEP is read; pairs with `on_idle`
    fence_full()
    calls = 0
    for bell in range(count):
        asleep = load_relaxed(bells, bell * BELL_WORDS + ASLEEP)
        if asleep != 0 and bell != own:
            calls += _ring(bells[bell * BELL_WORDS : (bell + 1) * BELL_WORDS], asleep)
    return calls


def lay_bell(words: NDArray[np.int64], strategy: Strategy) -> NDArray[np.int64]:
    """Lay out a bell in zeroed memory, before its owner and wakers start; return its words.

    Raises
    ------
    CellRefused
        When the memory is too small.
    """
    if words.size < BELL_WORDS:
        raise CellRefused(
            "the memory is too small for a bell",
            expected=f"{BELL_WORDS} words",
            found=f"{words.size} words",
            remedy="take BELL_WORDS words for each loop that may sleep",
        )
    words[MAY_SLEEP] = int(strategy == Strategy.SPIN_THEN_FUTEX)
    return words[:BELL_WORDS]


def local_bell(strategy: Strategy = Strategy.SPIN) -> NDArray[np.int64]:
    """Make a bell in private memory: for loops that never sleep, and for threads."""
    return lay_bell(np.zeros(BELL_WORDS, np.int64), strategy)


def new_waiter(
    strategy: Strategy, *, pauses: int = 20, yields: int = 100, max_sleep_ns: int = 1_000_000
) -> NDArray[np.int64]:
    """Make the private state of one waiting loop.

    Parameters
    ----------
    pauses : int
        Idle polls that only pause, about 20 ns each. Few: on a shared core they are lost time.
    yields : int
        Idle polls that yield before SPIN_THEN_FUTEX sleeps; together about what a wake-up costs.
    max_sleep_ns : int
        The longest sleep; the price of a waker's death between publishing and waking.

    Returns
    -------
    int64[16]
    """
    waiter = np.zeros(WAITER_WORDS, np.int64)
    waiter[[STRATEGY, PAUSES, YIELDS, MAX_SLEEP_NS]] = strategy, pauses, yields, max_sleep_ns
    return waiter


def default_strategy(spinning_loops: int, cpus: int | None = None) -> Strategy:
    """Choose how loops wait on a machine that runs `spinning_loops` of them.

    Parameters
    ----------
    spinning_loops : int
        Loops that would spin at the same time, in all processes of the venue.
    cpus : int, optional
        Cpus that they may use; default: those of this process.

    Returns
    -------
    Strategy
        SPIN when a cpu is left for everything else, SPIN_THEN_YIELD with at most two loops a cpu,
        SPIN_THEN_FUTEX beyond.
    """
    usable = len(os.sched_getaffinity(0)) if cpus is None else cpus
    if spinning_loops < usable:
        return Strategy.SPIN
    if spinning_loops <= 2 * usable:
        return Strategy.SPIN_THEN_YIELD
    return Strategy.SPIN_THEN_FUTEX
