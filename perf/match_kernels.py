"""The two agents around the matcher in its benchmark: the commands' writer, the events' reader.

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
from hftcore.messages import CommandKind, EventKind
from ipc.intrinsics import prefetch, read_tsc, store_release
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

_NEW_ORDER = int(CommandKind.NEW_ORDER)
_TRADE = int(EventKind.TRADE)
_WORDS = 8

EVENTS, TRADES, CHECKSUM, READ_POSITION = 0, 1, 2, 3
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
        What the reader has counted: events, trades, a checksum, and its position.
    """

    matcher: Matcher
    rows: NDArray[Any]
    sent: NDArray[np.int64]
    seen: NDArray[np.int64]


@kernel(inline=True)
def source(bench: Bench, until: int, budget: int, first_sequence: int) -> int:
    """Write up to `budget` of the rows below `until` into the command ring; return how many."""
    inp, cells, rows = bench.matcher.inp, bench.matcher.command_cells, bench.rows
    words = inp.words
    mask = len(inp.orders) - 1
    position = cells[POSITION]
    begin = bench.sent[ROW]
    row = begin
    end = min(until, row + budget)
    limit = min(writable_until(cells), position + 3 * (end - row))
    claim(cells, limit)
    while row < end and limit - position >= 3:
        first = position
        position = padded(words, mask, position)
        slot = position & mask
        wanted = rows[row]
        prefetch(rows, np.uintp(row + 64))
        command = inp.orders[np.uintp(slot)]
        word = slot * _WORDS
        words[np.uintp(word + 1)] = wanted["header"]
        command["sequence"] = first_sequence + row
        command["sequenced_ns"] = begin
        command["price"] = wanted["price"]
        command["qty"] = wanted["qty"]
        # what a new order is, or which order a change names: the order_id is its row's sequence
        names_order = np.int64(wanted["header"] & 0xFF != _NEW_ORDER)
        words[np.uintp(word + 6)] = wanted["detail"] + first_sequence * names_order
        words[np.uintp(word + 7)] = 1  # settled_lag
        origin = ((position + 1) & mask) * _WORDS
        words[np.uintp(origin + 1)] = row  # client_order_id
        words[np.uintp(origin + 2)] = 0
        words[np.uintp(origin + 3)] = 0
        words[np.uintp(origin + 4)] = 0
        words[np.uintp(origin + 5)] = 0
        words[np.uintp(origin + 6)] = row  # ingress_id
        words[np.uintp(origin + 7)] = 0
        position += 2
        publish(words, mask, first, position)
        row += 1
    store_release(cells, POSITION, position)
    bench.sent[ROW] = row
    return row - begin


@kernel(inline=True)
def reader(bench: Bench) -> int:
    """Read every event that is there, both slots; return how many.

    Without branches on the kind of event, so that the figure is the matcher's mispredictions and
    not the reader's: of a one-slot event the second slot counts for nothing.
    """
    out, cells, seen = bench.matcher.out, bench.matcher.event_cells, bench.seen
    words = out.words
    mask = len(out.events) - 1
    position = seen[READ_POSITION]
    count = np.int64(0)
    trades = np.int64(0)
    checksum = seen[CHECKSUM]
    while is_published(words, mask, position):
        slot = position & mask
        header = words[np.uintp(slot * _WORDS + 1)]
        event = out.events[np.uintp(slot)]
        two = (header >> 15) & 1
        trade = np.int64(header & 0xFF == _TRADE)
        present = np.int64(header != 0)  # a pad is nothing
        count += present
        trades += trade
        folded = (event["order_id"] ^ event["price"]) + event["qty"] + event["feed_sequence"]
        checksum += folded & -present
        second = ((position + two) & mask) * _WORDS
        folded = words[np.uintp(second + 1)] ^ words[np.uintp(second + 3)]
        folded += words[np.uintp(second + 4)] ^ words[np.uintp(second + 7)]
        checksum += folded & -two
        position += 1 + two
    seen[EVENTS] += count
    seen[TRADES] += trades
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
            before = bench.matcher.shard.matched[0]
            begin = read_tsc()
            poll(bench.matcher, 1)
            while bench.matcher.shard.matched[0] == before:
                reader(bench)
                poll(bench.matcher, 1)
            ticks[stamped] = read_tsc() - begin
            stamped += 1
        reader(bench)
    return stamped
