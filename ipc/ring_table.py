"""A table of rings, so that one compiled kernel serves any number of them.

A kernel's type is that of its arguments. A tuple of rings would mean a compilation for each number
of gateways and shards; here a kernel gets one array with a row a ring, and finds the ring's memory
by the addresses in it. The rings stay regions of their own, each mapped only by those who use it.

A kernel reads a row and calls `words_at` for each of its addresses: the slots as
`words_at(row["words"], row["slots"] * 8)`, the cells as `words_at(row["cells"], CELL_WORDS)`.

The rows hold addresses, so the table keeps the rings that it was made of alive, and is worth
nothing in another process, a forked child apart.

Rejected: rings stacked in one two-dimensional array (one region for all, which every gateway would
map for writing). Comes after `ipc.ring`; before `ipc.merge` and the roles.
"""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Sequence
from typing import Any

import numpy as np
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic
from numba.np.arrayobj import populate_array
from numpy.typing import NDArray

from ipc.errors import RingRefused
from ipc.kernel import JIT
from ipc.ring import Ring

RING_ROW = np.dtype(
    [
        ("words", "<i8"),  # address of the slots
        ("slots", "<i8"),  # how many, a power of two
        ("cells", "<i8"),  # address of the ring's cells
        ("beside", "<i8"),  # address of a line that belongs to the ring's owner, 0: none
    ]
)
BESIDE_WORDS = 8
"""Words of the line beside a ring: for an event ring, its shard's matched_sequence."""

words_at: Any
"""words_at(address, count): the int64[count] at an address; no kernel may return it."""
if JIT:

    @intrinsic
    def _words_at(typing_context: Any, address: Any, count: Any) -> Any:
        array = types.Array(types.int64, 1, "C")

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            made = context.make_array(array)(context, builder)
            pointer = builder.inttoptr(arguments[0], made.data.type)
            word = context.get_constant(types.intp, 8)
            populate_array(
                made,
                data=pointer,
                shape=cgutils.pack_array(builder, [arguments[1]]),
                strides=cgutils.pack_array(builder, [word]),
                itemsize=word,
                meminfo=None,
            )
            return made._getvalue()

        return array(types.int64, types.int64), generate

else:

    def _words_at(address: int, count: int) -> Any:  # type: ignore[misc]
        pointer = ctypes.cast(int(address), ctypes.POINTER(ctypes.c_int64))
        return np.ctypeslib.as_array(pointer, (int(count),))


words_at = _words_at


def table_of(
    rings: Sequence[Ring], beside: Sequence[NDArray[np.int64]] | None = None
) -> NDArray[Any]:
    """Make a table of rings.

    Parameters
    ----------
    rings : sequence of Ring
    beside : sequence of int64[8], optional
        One a ring.

    Returns
    -------
    RING_ROW[rings]

    Raises
    ------
    RingRefused
        When there is no ring, or not one line for each.
    """
    lines = list(beside or ())
    if not rings or (beside is not None and len(lines) != len(rings)):
        raise RingRefused(
            "a table of rings can't be made of this",
            expected="at least one ring, and a line beside each or none",
            found=f"{len(rings)} rings, {len(lines)} lines",
        )
    table = np.zeros(len(rings), RING_ROW)
    for number, ring in enumerate(rings):
        line = lines[number] if lines else None
        assert line is None or (line.dtype == np.int64 and line.size >= BESIDE_WORDS)
        table[number] = (
            ring.words.ctypes.data,
            ring.capacity,
            ring.cells.ctypes.data,
            0 if line is None else line.ctypes.data,
        )
    # the memory lives as long as the addresses: numba takes no subclass that could hold it
    weakref.finalize(table, _let_go, tuple(rings), tuple(lines))
    return table


def _let_go(*kept: Any) -> None:
    """Do nothing; the table's finalizer holds what it was made of until here."""
