"""Ringing several bells with one fence: who sleeps is woken, who does not costs no system call."""

from __future__ import annotations

import mmap

import numpy as np

from ipc.wait import (
    ASLEEP,
    BELL_WORDS,
    MAY_SLEEP,
    SIGNAL,
    SLEEPS,
    TIMEOUTS,
    Strategy,
    lay_bell,
    new_waiter,
    on_idle,
    wake_each,
)
from tests.processes import Children, poll_until


def bells_of(*strategies: Strategy) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Lay out a row of bells in private memory."""
    bells = np.zeros(len(strategies) * BELL_WORDS, np.int64)
    for number, strategy in enumerate(strategies):
        lay_bell(bells[number * BELL_WORDS : (number + 1) * BELL_WORDS], strategy)
    return bells


def test_nobody_who_only_spins_is_rung() -> None:
    bells = bells_of(Strategy.SPIN, Strategy.SPIN_THEN_YIELD)
    bells[ASLEEP] = 1  # whatever stands there: its owner never sleeps
    assert wake_each(bells, 2, -1) == 0
    assert bells[SIGNAL] == 0


def test_every_sleeper_but_oneself_is_rung_within_the_count() -> None:
    bells = bells_of(*[Strategy.SPIN_THEN_FUTEX] * 4)
    bells[ASLEEP::BELL_WORDS] = 1  # key 0 + 1
    assert wake_each(bells, 3, 1) == 2
    assert bells[SIGNAL::BELL_WORDS].tolist() == [1, 0, 1, 0]
    assert wake_each(bells, 3, 1) == 0, "the signal has moved past their keys"


def test_a_bell_that_nobody_laid_out_is_passed_over() -> None:
    bells = np.concatenate([np.zeros(BELL_WORDS, np.int64), bells_of(Strategy.SPIN_THEN_FUTEX)])
    bells[BELL_WORDS + ASLEEP] = 1
    assert bells[MAY_SLEEP] == 0
    assert wake_each(bells, 2, -1) == 1


def test_a_process_that_sleeps_is_woken(children: Children) -> None:
    bells = np.frombuffer(mmap.mmap(-1, 2 * BELL_WORDS * 8), np.int64)
    lay_bell(bells[BELL_WORDS:], Strategy.SPIN_THEN_FUTEX)

    def sleep() -> None:
        waiter = new_waiter(
            Strategy.SPIN_THEN_FUTEX, pauses=0, yields=0, max_sleep_ns=30_000_000_000
        )
        while waiter[SLEEPS] == 0:
            on_idle(waiter, bells[BELL_WORDS:])
        assert waiter[TIMEOUTS] == 0

    pid = children.fork(sleep)
    poll_until(lambda: wake_each(bells, 2, 0) == 1, "the child to fall asleep")
    assert children.exit_code(pid) == 0
