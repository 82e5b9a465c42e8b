"""`hft dump` of what a venue has besides rings and counters: positions, states, statuses, arrays.

What these regions hold is said by their kind, two words that the supervisor wrote when it made
them; the layout must agree, or the region is of another version. An array is shown by its rows that
are not zero. Sparse ones (ladders, bitmaps) are left alone: reading a page of theirs takes memory,
and there are millions. Comes after `memory`; `region_dump` calls it for what it does not know.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from hftcore.matching import state
from hftcore.messages import (
    GATEWAY_WORDS,
)
from hftcore.ops.compositions import WORKER_STATES, status_of
from hftcore.ops.memory import STATUS_WORDS, WORKER_STATUS, state_dtype
from hftcore.ops.printer import Printer
from hftcore.ops.stat import POSITION_NAMES
from ipc.header import layout_hash
from ipc.region import Region
from ipc.wait import ASLEEP, BELL_WORDS, MAY_SLEEP, SIGNAL

ROWS = 20
"""Rows of an array that are shown when nobody says how many."""
_WORD = np.dtype("<i8")
ARRAYS = {
    "progress": state.PROGRESS,
    "books": state.BOOK,
    "sides": state.SIDE,
    "orders": state.ORDER,
    "levels": state.LEVEL,
    "homes": np.dtype(np.uint32),
    **dict.fromkeys(("matched", "totals", "bits", "moved"), _WORD),
}
_CELLS = {
    "positions": POSITION_NAMES,
    "gateways": {
        "incarnation": 0,
        "ingress_sequence": 1,
        "cut_incarnation": 16,
        "cut_sequence": 17,
    },
    "bells": {"may_sleep": MAY_SLEEP, "asleep": ASLEEP, "signal": SIGNAL},
}
_STRIDES = {"gateways": GATEWAY_WORDS, "bells": BELL_WORDS}


def print_venue_region(region: Region, printer: Printer, limit: int | None) -> bool:
    """Print a region by its kind; return False when the kind or its layout is unknown here."""
    header = region.header
    first, _, name = header.kind.partition(" ")
    if first == "cells":
        known = name in _CELLS and header.layout == layout_hash(_WORD)
    elif header.kind == "latest worker status":
        known = header.layout == layout_hash(WORKER_STATUS)
    else:
        known = _is(header.layout, state_dtype(name) if first == "state" else ARRAYS.get(name))
    if not known:
        return False
    _line({"region": header.name, "kind": header.kind, "epoch": header.venue_epoch}, printer)
    if first == "cells":
        _print_cells(region.words, name, printer)
    elif first == "latest":
        _print_statuses(region.words, printer)
    elif first == "array":
        _print_array(region, ARRAYS[name], printer, limit or ROWS)
    else:
        dtype = state_dtype(name)
        assert dtype is not None
        _print_row(region.array(dtype, 1)[0], printer, {"role": name})
    return True


def _is(layout: int, dtype: np.dtype[Any] | None) -> bool:
    return dtype is not None and layout == layout_hash(dtype)


def _print_cells(words: NDArray[np.int64], name: str, printer: Printer) -> None:
    stride = _STRIDES.get(name, words.size)
    for number in range(words.size // stride):
        own = words[number * stride : (number + 1) * stride]
        facts = {cell: int(own[word]) for cell, word in _CELLS[name].items()}
        numbered = {name.removesuffix("s"): number} if name in _STRIDES else {}
        _line(numbered | facts, printer)


def _print_statuses(words: NDArray[np.int64], printer: Printer) -> None:
    for worker in range(words.size // STATUS_WORDS):
        status = status_of(words[worker * STATUS_WORDS : (worker + 1) * STATUS_WORDS])
        said = WORKER_STATES[int(status["state"])]
        _print_row(status, printer, {"worker": worker, "state": said})


def _print_array(region: Region, dtype: np.dtype[Any], printer: Printer, limit: int) -> None:
    if region.header.sparse:
        said = "sparse: its pages are not looked at; `hft book` reads what is in use"
        printer.line({"sparse": True}, said)
        return
    rows = region.array(dtype, region.header.payload_bytes // dtype.itemsize)
    used = np.flatnonzero(rows.view(np.uint8).reshape(len(rows), -1).any(axis=1))
    _line({"rows": len(rows), "not_zero": len(used)}, printer)
    for row in used[:limit]:
        if dtype.names is None:
            _line({"row": int(row), "value": int(rows[row])}, printer)
        else:
            _print_row(rows[row], printer, {"row": int(row)})


def _print_row(row: Any, printer: Printer, before: dict[str, Any]) -> None:
    """Print a record's fields; what `before` names already and what is reserved is left out."""
    names = [name for name in row.dtype.names if name not in before and name != "reserved"]
    _line(before | {name: int(row[name]) for name in names}, printer)


def _line(facts: dict[str, Any], printer: Printer) -> None:
    printer.line(facts, "  ".join(f"{key}={value}" for key, value in facts.items()))


__all__ = ["print_venue_region"]
