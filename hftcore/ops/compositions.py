"""The compiled loops of workers: the polls of some roles, turned for a millisecond at a time.

A worker runs one loop: it lets each of its roles do a bounded amount of work, wakes whoever sleeps
and may have something to do because of it, waits as its strategy says when there was nothing, and
comes back to Python when its slice is over, because only there a signal is noticed. The polls are
the ones that `Exchange` runs; nothing of an order's way is decided here.

Roles that a worker lacks are None: Numba drops what is said of them at compile time, so one source
gives every composition of COMPOSITIONS and no other. Several matchers are a tuple of one type.

The sequencer's clock is UTC from the cycle counter: the base is renewed with each slice, so that
it neither drifts nor jumps by more than NTP moves it, and a turn costs 8 ns of reading, not a
command. A status cell is written once a slice.

Comes after the engine's roles; before `worker`, which owns the loop, and `warm`.
"""

from __future__ import annotations

import time
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hftcore.engine.matcher import poll as poll_matcher
from hftcore.engine.reporter import poll as poll_reporter
from hftcore.engine.sequencer import poll as poll_sequencer
from hftcore.ops.memory import WORKER_STATUS, VenueMemory
from hftcore.ops.placement import MATCHERS_A_WORKER, WorkerPlan
from ipc.clock import now_ticks
from ipc.intrinsics import read_tsc
from ipc.kernel import kernel
from ipc.latest import Latest, write_latest
from ipc.wait import (
    SLEEPS,
    lay_bell,
    new_waiter,
    on_idle,
    on_work,
    wake_each,
)

COMPOSITIONS: dict[str, tuple[bool, int, bool]] = {
    "sequencer": (True, 0, False),
    "reporter": (False, 0, True),
    "sequencer+reporter": (True, 0, True),
    **{f"matcher x {n}": (False, n, False) for n in MATCHERS_A_WORKER},
    **{f"sequencer+matcher x {n}+reporter": (True, n, True) for n in MATCHERS_A_WORKER},
}
"""Every compiled loop: with a sequencer, so many matchers, with a reporter."""

SLICE_NS = 1_000_000
"""Between two looks at signals; a sleep may add MAX_SLEEP_NS."""
MAX_SLEEP_NS = 5_000_000
BUDGET = 256
"""What a poll may do in one turn, in commands or events: some tens of microseconds."""

# Cells of a loop, private to it.
SLICE_TICKS, BASE_TICKS, BASE_NS, POLL_BUDGET, OWN_BELL, BELLS_TO_RING, KEEP_CLOCK = range(7)
LOOP_WORDS = 8

WORKER_STATES = ("stopped", "starting", "running")
STOPPED, STARTING, RUNNING = range(len(WORKER_STATES))
_STATE, _SLICES, _TURNS, _WORK, _IDLE, _SLEEPS, _UPDATED = 1, 3, 4, 5, 6, 7, 8
"""Words of WORKER_STATUS."""


class Loop(NamedTuple):
    """What a worker's loop works on besides its roles.

    Attributes
    ----------
    cells : int64[8]
        Private, written.
    ns_per_tick : float64[1]
    waiter : int64[16]
        Private, written.
    bell : int64[48]
        This worker's. Shared, written.
    bells : int64[n * 48]
        Everybody's. Shared, written where an owner sleeps.
    status : int64[15]
        Private, written: WORKER_STATUS as words.
    status_cell : int64[16]
        Shared, written.
    """

    cells: NDArray[np.int64]
    ns_per_tick: NDArray[np.float64]
    waiter: NDArray[np.int64]
    bell: NDArray[np.int64]
    bells: NDArray[np.int64]
    status: NDArray[np.int64]
    status_cell: NDArray[np.int64]


def loop_of(memory: VenueMemory, plan: WorkerPlan, ns_per_tick: float) -> Loop:
    """Make the loop of a worker, and lay out its bell; before any worker starts."""
    cells = np.zeros(LOOP_WORDS, np.int64)
    cells[SLICE_TICKS] = round(SLICE_NS / ns_per_tick)
    cells[POLL_BUDGET] = BUDGET
    cells[OWN_BELL] = plan.number
    cells[KEEP_CLOCK] = memory.config.replay  # a recording brings its own time
    # a client waits for reports and for room in its ingress ring; matchers have nothing for it
    serves_clients = "sequencer" in plan.roles or "reporter" in plan.roles
    cells[BELLS_TO_RING] = memory.workers + (memory.config.gateways if serves_clients else 0)
    status = np.zeros(1, WORKER_STATUS)
    status["state"] = STARTING
    return Loop(
        cells,
        np.array([ns_per_tick]),
        _waiter_of(plan),
        lay_bell(memory.worker_bell(plan.number), plan.strategy),
        memory.bells(),
        status.view(np.int64),
        memory.status_cell(plan.number),
    )


def _waiter_of(plan: WorkerPlan) -> NDArray[np.int64]:
    """Make a worker's waiter: one that polls from Python sleeps sooner, and not as long."""
    if "publisher" in plan.roles:
        return new_waiter(plan.strategy, pauses=0, yields=10, max_sleep_ns=SLICE_NS)
    return new_waiter(plan.strategy, max_sleep_ns=MAX_SLEEP_NS)


def renew_clock(loop: Loop) -> None:
    """Take the time: what the cycle counter shows from now on is told from here."""
    loop.cells[BASE_TICKS] = now_ticks()
    loop.cells[BASE_NS] = time.time_ns()


def status_of(cell: NDArray[np.int64]) -> Any:
    """Read what a worker says of itself: a WORKER_STATUS record, zeroes if it never did."""
    version, rows = Latest(cell, WORKER_STATUS).read()
    return rows[0] if version > 0 else np.zeros(1, WORKER_STATUS)[0]


@kernel(inline=True)
def utc_ns(loop: Loop, now: int) -> Any:
    """Turn a reading of the cycle counter into UTC nanoseconds."""
    elapsed = (now - loop.cells[BASE_TICKS]) * loop.ns_per_tick[0]
    return loop.cells[BASE_NS] + np.int64(elapsed)


@kernel
def account(loop: Loop, work: Any) -> None:
    """Close a turn: wake who may have something to do, or wait."""
    status = loop.status
    status[_TURNS] += 1
    if work > 0:
        status[_WORK] += work
        on_work(loop.waiter, loop.bell)
        wake_each(loop.bells, loop.cells[BELLS_TO_RING], loop.cells[OWN_BELL])
    else:
        status[_IDLE] += 1
        on_idle(loop.waiter, loop.bell)


@kernel
def tell_status(loop: Loop, now: int) -> None:
    """Close a slice: say how this worker is."""
    status = loop.status
    status[_SLICES] += 1
    status[_SLEEPS] = loop.waiter[SLEEPS]
    status[_UPDATED] = utc_ns(loop, now)
    write_latest(loop.status_cell, status)


@kernel
def turn(sequencer: Any, matchers: Any, reporter: Any, loop: Loop) -> Any:
    """Turn the polls of a worker's roles until the slice is over.

    Parameters
    ----------
    sequencer, reporter : agent or None
    matchers : tuple of Matcher, or None
    loop : Loop

    Returns
    -------
    int
        Work done in the last turn.
    """
    now = read_tsc()
    until = now + loop.cells[SLICE_TICKS]
    budget = loop.cells[POLL_BUDGET]
    work = np.int64(0)
    while now < until:
        work = np.int64(0)
        if sequencer is not None:
            if loop.cells[KEEP_CLOCK] == 0:
                sequencer.state[0]["clock_ns"] = utc_ns(loop, now)
            work += poll_sequencer(sequencer, budget)
        if matchers is not None:
            for each in range(len(matchers)):
                work += poll_matcher(matchers[each], budget)
        if reporter is not None:
            work += poll_reporter(reporter, budget)
        account(loop, work)
        now = read_tsc()
    tell_status(loop, now)
    return work


def turn_service(service: Any, loop: Loop) -> None:
    """Turn a role that polls from Python, as `turn` does.

    Parameters
    ----------
    service : object
        Its `run_slice(until_ticks)` returns the work that it did.
    """
    now = int(now_ticks())
    until = now + int(loop.cells[SLICE_TICKS])
    while now < until:
        account(loop, service.run_slice(until))
        now = int(now_ticks())
    tell_status(loop, now)


def tell_state(loop: Loop, state: int) -> None:
    """Say in which state the worker is now."""
    loop.status[_STATE] = state
    tell_status(loop, int(now_ticks()))


__all__ = [
    "COMPOSITIONS",
    "Loop",
    "loop_of",
    "renew_clock",
    "status_of",
    "tell_state",
    "turn",
    "turn_service",
]
