"""The driver and the report reader of the spine's benchmark, and the loops that turn the polls.

    core 0: [driver] -> ingress -> [sequencer: gate, settlement] -> commands -> core 1: [matcher]
            [report reader] <---------------------------------------- events <------'
    routed: [report reader] <- reports <- [reporter] <-- commands, events

The driver writes whole commands (both slots, a client_order_id on each new order) into its ingress
ring. It names orders by the order_id that they will have, as it is the only one who sends: what
comes back is compared with what must come back.

A command is answered by the first event of its sequence (routed: by the first report that carries
Flags.ANSWER); commands are answered in the order sent. Open loop: a command has a planned time,
and latency counts from there.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hftcore.engine import matcher as matcher_role
from hftcore.engine import reporter as reporter_role
from hftcore.engine import sequencer as sequencer_role
from hftcore.messages import CommandKind, EventKind, Flags
from ipc.histogram import record
from ipc.intrinsics import load_acquire, pause, read_tsc, store_release
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

ROW, POSITION_READ, ANSWERED, LAST_SEQUENCE, REPORTS, TRADES, CHECKSUM, REJECTS = range(8)
"""Words of a driver's `seen`."""

_WORDS = 8
_NEW_ORDER = int(CommandKind.NEW_ORDER)
_TRADE = int(EventKind.TRADE)
_REJECTED = int(EventKind.REJECTED)
ANSWER = int(Flags.ANSWER) << 8
BUDGET = 64
BURST = 64


class Driver(NamedTuple):
    """What the driver works on.

    Attributes
    ----------
    rows : WORKLOAD[n]
    seen : int64[8]
    ingress_words, ingress_cells, report_words, report_cells : int64[:]
        Its ingress ring, and the event or report ring that it reads.
    reading : int64[2]
        Which gating reader of it this is, and the flags (of word 1) that mark an answer.
    planned : int64[n]
        When each row was to be sent, TSC ticks; filled by the open loop.
    latency : int64[:]
        Histogram of ticks.
    """

    rows: NDArray[Any]
    seen: NDArray[np.int64]
    ingress_words: NDArray[np.int64]
    ingress_cells: NDArray[np.int64]
    report_words: NDArray[np.int64]
    report_cells: NDArray[np.int64]
    reading: NDArray[np.int64]
    planned: NDArray[np.int64]
    latency: NDArray[np.int64]


@kernel(inline=True)
def drive(driver: Driver, until: int, first_order_id: int) -> int:
    """Send the rows below `until` as far as there is room, a burst at most; return how many."""
    words, cells, rows, seen = (
        driver.ingress_words,
        driver.ingress_cells,
        driver.rows,
        driver.seen,
    )
    row = seen[ROW]
    if row >= until:
        return np.int64(0)
    mask = len(words) // _WORDS - 1
    position = cells[POSITION]
    room = (writable_until(cells) - position) // 3
    end = min(until, row + BURST, row + room)
    begin = row
    claim(cells, position + 3 * (end - row))
    while row < end:
        first = position
        position = padded(words, mask, position)
        word = (position & mask) * _WORDS
        wanted = rows[np.uintp(row)]
        header = wanted["header"]
        is_new = np.int64(header & 0xFF == _NEW_ORDER)
        words[np.uintp(word + 1)] = header
        words[np.uintp(word + 2)] = 0
        words[np.uintp(word + 3)] = 0
        words[np.uintp(word + 4)] = wanted["price"]
        words[np.uintp(word + 5)] = wanted["qty"]
        words[np.uintp(word + 6)] = wanted["detail"] + first_order_id * (1 - is_new)
        words[np.uintp(word + 7)] = 0
        origin = word + _WORDS
        words[np.uintp(origin + 1)] = (row + 1) * is_new  # client_order_id
        words[np.uintp(origin + 2)] = 0x2D726564726F * is_new
        words[np.uintp(origin + 3)] = 0
        words[np.uintp(origin + 4)] = 0
        words[np.uintp(origin + 5)] = np.int64(1) << 32  # session_id
        words[np.uintp(origin + 6)] = row + 2  # ingress_id; 1 was the attachment
        words[np.uintp(origin + 7)] = 1  # incarnation
        position += 2
        publish(words, mask, first, position)
        row += 1
    store_release(cells, POSITION, position)
    seen[ROW] = row
    return row - begin


@kernel(inline=True)
def read_reports(driver: Driver, paced: bool) -> int:
    """Read every report that is there, both slots, into a checksum; return how many."""
    words, seen = driver.report_words, driver.seen
    mask = len(words) // _WORDS - 1
    position = seen[POSITION_READ]
    checksum, last = seen[CHECKSUM], seen[LAST_SEQUENCE]
    answer = driver.reading[1]
    reports, answered = np.int64(0), seen[ANSWERED]
    trades, rejects = np.int64(0), np.int64(0)
    while is_published(words, mask, position):
        first = (position & mask) * _WORDS
        header = words[np.uintp(first + 1)]
        two = (header >> 15) & 1
        present = np.int64(header != 0)  # a pad is nothing
        sequence = words[np.uintp(first + 2)]
        if header & answer == answer and sequence != last and header != 0:
            last = sequence
            if paced:
                record(driver.latency, read_tsc() - driver.planned[np.uintp(answered)])
            answered += 1
        reports += present
        trades += np.int64(header & 0xFF == _TRADE)
        rejects += np.int64(header & 0xFF == _REJECTED)
        folded = words[np.uintp(first + 5)] ^ words[np.uintp(first + 6)]
        folded += words[np.uintp(first + 7)] + words[np.uintp(first + 4)]
        checksum += folded & -present
        second = ((position + two) & mask) * _WORDS
        folded = words[np.uintp(second + 1)] ^ words[np.uintp(second + 3)]
        checksum += folded & -two
        position += 1 + two
    if reports > 0:
        seen[POSITION_READ] = position
        seen[CHECKSUM] = checksum
        seen[LAST_SEQUENCE] = last
        seen[ANSWERED] = answered
        seen[REPORTS] += reports
        seen[TRADES] += trades
        seen[REJECTS] += rejects
        release_up_to(driver.report_cells, driver.reading[0], position)
    return reports


@kernel
def run_flat_out(
    driver: Driver, sequencer: Any, reporter: Any, routed: bool, until: int, first_order_id: int
) -> int:
    """Send the rows below `until` as fast as it goes; return ticks until all are answered."""
    begin = read_tsc()
    while driver.seen[ANSWERED] < until:
        done = drive(driver, until, first_order_id)
        done += sequencer_role.poll(sequencer, BUDGET)
        if routed:
            done += reporter_role.poll(reporter, BUDGET)
        done += read_reports(driver, False)
        if done == 0:
            pause()
    return read_tsc() - begin


@kernel
def run_paced(
    driver: Driver, sequencer: Any, reporter: Any, routed: bool, until: int, first_order_id: int,
    gap: float,
) -> int:  # fmt: skip
    """Send a row every `gap` ticks, open loop; return ticks until all are answered."""
    first = driver.seen[ROW]
    begin = read_tsc()
    start = begin + 100_000
    while driver.seen[ANSWERED] < until:
        row = driver.seen[ROW]
        due = row
        now = read_tsc()
        while due < until and due < row + BURST and start + np.int64((due - first) * gap) <= now:
            driver.planned[np.uintp(due)] = start + np.int64((due - first) * gap)
            due += 1
        done = drive(driver, due, first_order_id)
        done += sequencer_role.poll(sequencer, BUDGET)
        if routed:
            done += reporter_role.poll(reporter, BUDGET)
        done += read_reports(driver, True)
        if done == 0:
            pause()
    return read_tsc() - begin


@kernel
def run_matcher(matcher: Any, stop: Any) -> int:
    """Turn the matcher's poll until told to stop; return polls that found work."""
    busy = np.int64(0)
    while load_acquire(stop, 0) == 0:
        if matcher_role.poll(matcher, BUDGET) == 0:
            pause()
        else:
            busy += 1
    return busy


@kernel
def run_alone(
    driver: Driver, sequencer: Any, reporter: Any, matcher: Any, until: int, first_order_id: int
) -> None:
    """Play the rows below `until` with all roles in one thread, routed: for tests."""
    while driver.seen[ANSWERED] < until:
        drive(driver, until, first_order_id)
        sequencer_role.poll(sequencer, BUDGET)
        matcher_role.poll(matcher, BUDGET)
        reporter_role.poll(reporter, BUDGET)
        read_reports(driver, False)


@kernel
def turn(
    driver: Driver, sequencer: Any, reporter: Any, routed: bool, matcher: Any, times: int
) -> None:
    """Turn every role but the sending some times, in one thread."""
    for _ in range(times):
        sequencer_role.poll(sequencer, BUDGET)
        matcher_role.poll(matcher, BUDGET)
        if routed:
            reporter_role.poll(reporter, BUDGET)
        read_reports(driver, False)
