"""The processor's operations: what they compute, compiled and not, and that a spin loop sees."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import pytest

from ipc.intrinsics import (
    add_wrapping,
    address_of,
    compare_exchange,
    fence_acquire,
    fence_full,
    fence_release,
    fetch_add,
    fibonacci_hash,
    leading_zeros,
    load_acquire,
    load_relaxed,
    mix64,
    pause,
    pick,
    prefetch,
    read_tsc,
    store_relaxed,
    store_release,
    trailing_zeros,
)
from ipc.kernel import JIT
from ipc.region import Region, layout_hash
from tests.processes import Children, poll_until, run_python

WORDS = layout_hash(np.dtype("<i8"))


@numba.njit
def touch_everything(cells: Any, out: Any) -> None:
    """Use each intrinsic once; what they did stands in `cells` and `out`."""
    store_relaxed(cells, 0, 11)
    fence_release()
    store_release(cells, 1, 22)
    fence_full()
    out[0] = load_acquire(cells, 0)
    fence_acquire()
    out[1] = load_relaxed(cells, 1)
    out[2] = fetch_add(cells, 2, 5)
    out[3] = fetch_add(cells, 2, -7)
    out[4] = compare_exchange(cells, 3, 0, 33)
    out[5] = compare_exchange(cells, 3, 0, 44)
    out[6] = trailing_zeros(np.int64(-(1 << 63)))
    out[7] = trailing_zeros(np.int64(40))
    out[8] = leading_zeros(np.int64(1))
    out[9] = leading_zeros(np.int64(-1))
    out[10] = mix64(1)
    out[11] = mix64(-1)
    out[12] = add_wrapping(np.int64(9223372036854775807), np.int64(1))
    out[13] = fibonacci_hash(12345)
    out[14] = address_of(cells, 1) - address_of(cells, 0)
    pause()
    prefetch(cells, 3)
    out[15] = read_tsc() > 0
    out[16] = pick(cells[0] == 11, 5, -6)
    out[17] = pick(cells[0] == 12, 5, -6)


EXPECTED = [
    *(11, 22, 0, 5, 1, 0, 63, 3, 63, 0),
    *(6238072747940578789, -5417735806833148549, -(1 << 63), 2704073259, 8, 1, 5, -6),
]


def run_touch_everything() -> tuple[list[int], list[int]]:
    """Return what the intrinsics answered, and the cells afterwards."""
    cells, out = np.zeros(4, np.int64), np.zeros(18, np.int64)
    touch_everything(cells, out)
    return out.tolist(), cells.tolist()


def test_intrinsics_answer_as_the_processor_does() -> None:
    assert run_touch_everything() == (EXPECTED, [11, 22, -2, 33])


def test_intrinsics_with_the_jit_off_answer_the_same() -> None:
    code = (
        "import sys; sys.path.insert(0, 'tests/ipc')\n"
        "from ipc.kernel import JIT\n"
        "from test_intrinsics import *\n"
        "print(JIT, run_touch_everything() == (EXPECTED, [11, 22, -2, 33]))"
    )
    finished = run_python(code, NUMBA_DISABLE_JIT="1")
    assert finished.stdout.split() == ["False", "True"], finished.stderr


@pytest.mark.parametrize("kind", [np.int64, np.uint64, np.int32, np.uint8])
def test_cells_of_each_width_hold_what_was_stored(kind: Any) -> None:
    @numba.njit
    def swap(cells: Any, value: Any) -> Any:
        store_release(cells, 1, value)
        return load_acquire(cells, 1)

    cells = np.zeros(3, kind)
    top = np.iinfo(kind).max
    assert swap(cells, kind(top)) == top
    assert cells.tolist() == [0, top, 0]


@pytest.mark.skipif(not JIT, reason="plain Python takes any array")
def test_something_that_is_no_cell_does_not_compile() -> None:
    @numba.njit
    def load(cells: Any) -> Any:
        return load_acquire(cells, 0)

    for wrong in (np.zeros(4), np.zeros((2, 2), np.int64), np.zeros(8, np.int64)[::2]):
        with pytest.raises(numba.TypingError):
            load(wrong)


@numba.njit(nogil=True)
def spin_while_zero(cells: Any, index: int, most: int) -> Any:
    """Spin until the cell is not 0, or too often; return the cell's value.

    Nothing else is in the loop: a pause would keep the compiler from hoisting even a plain load.
    """
    spins = 0
    while load_acquire(cells, index) == 0 and spins < most:
        spins += 1
    return load_acquire(cells, index) if spins < most else 0


def test_spin_loop_sees_what_another_process_stores(
    venue_directory: Any, children: Children
) -> None:
    spin_while_zero(np.ones(1, np.int64), 0, 1)
    with Region.create(venue_directory, "cells", 4096, layout=WORDS) as region:
        cells = region.words

    def answer() -> None:
        cells[8] = 1
        # one call: within it nothing but the load can bring the news
        cells[16] = spin_while_zero(cells, 0, 1 << 40)

    child = children.fork(answer)
    poll_until(lambda: cells[8] == 1, "the child to spin")
    cells[0] = 77
    assert children.exit_code(child) == 0
    assert cells[16] == 77


@pytest.mark.skipif(not JIT, reason="plain Python doesn't add atomically")
def test_counter_that_three_processes_add_to_loses_nothing(
    venue_directory: Any, children: Children
) -> None:
    @numba.njit(nogil=True)
    def add(cells: Any, times: int) -> None:
        for _ in range(times):
            fetch_add(cells, 0, 1)

    add(np.zeros(1, np.int64), 1)
    with Region.create(venue_directory, "cells", 4096, layout=WORDS) as region:
        cells = region.words
    workers = [children.fork(lambda: add(cells, 300_000)) for _ in range(3)]
    assert [children.exit_code(pid) for pid in workers] == [0, 0, 0]
    assert cells[0] == 900_000
