"""The two agents around the matcher in its benchmark: who writes the commands, who reads the events.

    rows -> [source] -> command ring -> [matcher] -> event ring -> [reader] -> checksum

The source does what a sequencer does after its gate: it stamps and writes both slots of every
command. The reader takes every event out of the ring and folds it into a checksum, so that no
report is written for nothing.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hftcore.engine.matcher import Matcher, poll
from hftcore.messages import CommandKind, EventKind, Flags
from ipc.intrinsics import read_tsc, store_release
from ipc.kernel import kernel
from ipc.ring import (
    POSITION,
    claim,
    is_published,
    padded,
    publish,
    release_up_to,
    writable_until,
)
from perf.workloads import ACCOUNT

_NEW_ORDER = int(CommandKind.NEW_ORDER)
_TWO_SLOTS = int(Flags.TWO_SLOTS)
_TRADE = int(EventKind.TRADE)
_WORDS = 8

EVENTS, TRADES, LOTS, CHECKSUM, READ_POSITION = 0, 1, 2, 3, 4
ROW = 0


class Bench(NamedTuple):
    """The three agents of the benchmark.

    Attributes
    ----------
    matcher : Matcher
    rows : WORKLOAD[n]
    sent : int64[8]
        The source's place in the rows.
    seen : int64[8]
        What the reader has counted: events, trades, lots traded, checksum, its position.
    """

    matcher: Matcher
    rows: NDArray[Any]
    sent: NDArray[np.int64]
    seen: NDArray[np.int64]


@kernel(inline=True)
def source(bench: Bench, until: int, budget: int, first_sequence: int) -> int:
    """Write up to `budget` of the rows below `until` into the command ring; return how many."""
    inp, cells, rows = bench.matcher.inp, bench.matcher.command_cells, bench.rows
    mask = len(inp.orders) - 1
    position = cells[POSITION]
    row = bench.sent[ROW]
    end = min(until, row + budget)
    limit = min(writable_until(cells), position + 3 * (end - row))
    claim(cells, limit)
    begin = row
    while row < end and limit - position >= 3:
        first = position
        position = padded(inp.words, mask, position)
        slot = np.uintp(position & mask)
        wanted = rows[row]
        command = inp.orders[slot]
        command["kind"] = wanted["kind"]
        command["flags"] = _TWO_SLOTS
        command["instrument_id"] = 1
        command["account_id"] = ACCOUNT
        command["sequence"] = first_sequence + row
        command["sequenced_ns"] = begin
        command["price"] = wanted["price"]
        command["qty"] = wanted["qty"]
        if wanted["kind"] == _NEW_ORDER:
            command["side"] = wanted["side"]
            command["order_type"] = wanted["order_type"]
            command["time_in_force"] = wanted["time_in_force"]
            command["stp_mode"] = 0
            command["trade_group"] = 0
        else:
            inp.changes[slot]["order_id"] = first_sequence + np.int64(wanted["reference"])
        command["settled_lag"] = 1
        command["exec_flags"] = 0
        command["reject_reason"] = 0
        origin = ((position + 1) & mask) * _WORDS
        inp.words[np.uintp(origin + 1)] = row
        inp.words[np.uintp(origin + 2)] = 0
        inp.words[np.uintp(origin + 3)] = 0
        inp.words[np.uintp(origin + 4)] = 0
        inp.words[np.uintp(origin + 5)] = 0
        inp.words[np.uintp(origin + 6)] = row
        inp.words[np.uintp(origin + 7)] = 0
        position += 2
        publish(inp.words, mask, first, position)
        row += 1
    store_release(cells, POSITION, position)
    bench.sent[ROW] = row
    return row - begin


@kernel(inline=True)
def reader(bench: Bench) -> int:
    """Read every event that is there; return how many."""
    out, cells, seen = bench.matcher.out, bench.matcher.event_cells, bench.seen
    mask = len(out.events) - 1
    position = seen[READ_POSITION]
    count = np.int64(0)
    trades = np.int64(0)
    lots = np.int64(0)
    checksum = seen[CHECKSUM]
    while is_published(out.words, mask, position):
        slot = np.uintp(position & mask)
        if out.words[slot * np.uintp(_WORDS) + np.uintp(1)] == 0:
            position += 1
            continue
        event = out.events[slot]
        count += 1
        checksum += (event["order_id"] ^ event["price"]) + event["qty"] * np.int64(event["kind"])
        checksum += event["feed_sequence"] + event["sequence"] + np.int64(event["index"])
        if event["flags"] & _TWO_SLOTS:
            if event["kind"] == _TRADE:
                fills = out.fills[np.uintp((position + 1) & mask)]
                trades += 1
                lots += event["qty"]
                checksum += fills["aggressor_leaves_qty"] * 3 + fills["resting_leaves_qty"]
            else:
                party = out.parties[np.uintp((position + 1) & mask)]
                checksum += np.int64(party["account_id"]) + np.int64(party["reject_reason"]) * 7
            position += 2
        else:
            position += 1
    seen[EVENTS] += count
    seen[TRADES] += trades
    seen[LOTS] += lots
    seen[CHECKSUM] = checksum
    seen[READ_POSITION] = position
    release_up_to(cells, 0, position)
    return count


@kernel
def run_batches(bench: Bench, until: int, batch: int, first_sequence: int) -> int:
    """Play the rows below `until`, `batch` commands at a time; return TSC ticks."""
    begin = read_tsc()
    while bench.sent[ROW] < until:
        source(bench, until, batch, first_sequence)
        while poll(bench.matcher, batch) > 0:
            reader(bench)
    reader(bench)
    return read_tsc() - begin


@kernel
def run_stamped(
    bench: Bench, until: int, batch: int, first_sequence: int, ticks: NDArray[np.int64]
) -> int:
    """Play the rows below `until`, a stamp around each command's poll; return commands stamped."""
    stamped = 0
    while bench.sent[ROW] < until:
        sent = source(bench, until, batch, first_sequence)
        for _ in range(sent):
            begin = read_tsc()
            while poll(bench.matcher, 1) == 0:
                reader(bench)
            ticks[stamped] = read_tsc() - begin
            stamped += 1
        reader(bench)
    return stamped
