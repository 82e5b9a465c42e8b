"""The reporter's role: who must hear of an event, and into which report ring it goes.

Events of all shards are taken in the log's order, together with the commands that caused them: the
command tells through which gateway it came and whose it was, the event itself whose orders it met.
An event goes once to each gateway concerned: the one that is answered (Flags.ANSWER), and those on
which the accounts have sessions (SESSION_ATTACH, SESSION_DETACH, GATEWAY_DOWN, all echoed by
shard 0, make the routes). Nothing leaves before it is released.

A report ring is never waited for. A gateway that lets its ring fill up is cut off: it may read what
is in the ring, and attaches again as a new incarnation. The others notice nothing.

Rejected: a table of order_id to owner (a cache miss an event on a large book; the command lies in
the ring anyway and is read in order). Comes after the matchers; before gateways and clients.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from hftcore.accounts.admission import FORBIDDEN_KIND
from hftcore.engine.reporter.sessions import note_sessions
from hftcore.engine.reporter.state import (
    COUNTERS,
    CUTS,
    EVENTS,
    LOST,
    REPORTING,
    REPORTS,
    UNROUTED,
    Reporter,
    reporter_of,
)
from hftcore.limits import MAX_ACCOUNTS
from hftcore.messages import (
    CUT_INCARNATION,
    CUT_SEQUENCE,
    ECHO,
    GATEWAY_WORDS,
    RELEASED,
    REPORTED,
    CommandKind,
    EventKind,
    Flags,
)
from ipc.counters import count
from ipc.intrinsics import load_acquire, store_release, trailing_zeros
from ipc.kernel import kernel
from ipc.merge import NO_STREAM, next_stream
from ipc.ring import (
    CELL_WORDS,
    CURSORS,
    POSITION,
    PREFETCH_AHEAD,
    claim,
    end_of_record,
    is_published,
    padded,
    prefetch_slot,
    publish,
    release_up_to,
)
from ipc.ring import SLOT_WORDS as _WORDS
from ipc.ring_table import words_at

__all__ = ["COUNTERS", "CUTS", "REPORTING", "Reporter", "poll", "reporter_of"]

_ROOM = 3
_LAST_BIT = 8 + int(Flags.LAST).bit_length() - 1
_TWO_SLOTS = int(Flags.TWO_SLOTS)
_STATE = int(Flags.STATE)
_ANSWER = int(Flags.ANSWER)
_TRADE = int(EventKind.TRADE)
_SESSION_ATTACH = int(CommandKind.SESSION_ATTACH)
_SESSION_DETACH = int(CommandKind.SESSION_DETACH)
_TRADE_BUST = int(CommandKind.TRADE_BUST)


@kernel
def poll(reporter: Reporter, budget: int) -> int:
    """Report up to `budget` events; return how many."""
    state = reporter.state[0]
    done = np.int64(0)
    # acquire: pairs with the journal's store; what is released is on the disk
    released = load_acquire(reporter.positions, RELEASED)
    while True:
        shard, until, passed = next_stream(reporter.events, reporter.event_positions)
        if shard == NO_STREAM or done >= budget:
            break
        taken, finished = report_run(reporter, shard, min(until, released), budget - done)
        if taken == 0:
            break  # not released yet
        done += taken
        if len(reporter.events) == 1:
            passed = finished
            break
    passed = min(passed, released)
    if passed > state["reported_sequence"]:
        state["reported_sequence"] = passed
        # release: pairs with a successor's or a tool's load; the reports are published
        store_release(reporter.positions, REPORTED, passed)
    if done > 0:
        count(reporter.counters, EVENTS, done)
        release_up_to(reporter.command_cells, state["command_reader"], state["command_position"])
    return done


@kernel(inline=True)
def report_run(reporter: Reporter, shard: int, until: int, budget: int) -> tuple[int, int]:
    """Report events of one shard up to sequence `until`.

    Returns
    -------
    (taken, finished)
        How many, and the sequence of the newest command of which all were.
    """
    row = reporter.events[np.uintp(shard)]
    words = words_at(row["words"], row["slots"] * _WORDS)
    mask = row["slots"] - 1
    position = reporter.event_positions[np.uintp(shard)]
    state = reporter.state[0]
    done = np.int64(0)
    finished = np.int64(0)
    unrouted = np.int64(0)
    while done < budget and is_published(words, mask, position):
        first = (position & mask) * _WORDS
        head = words[np.uintp(first + 1)]
        if head == 0:
            position += 1  # a pad
            continue
        sequence = words[np.uintp(first + 2)]
        if sequence > until:
            break
        if sequence != state["sequence"]:
            find_command(reporter, sequence)
        second = ((position + 1) & mask) * _WORDS
        if head & 0xFF >= ECHO:
            note_sessions(reporter, words, first, head)
        answered = state["answered"]
        targets = answered | routes_of(reporter, words, second, head)
        if targets == 0:
            unrouted += 1
        slots = 2 if (head >> 8) & _TWO_SLOTS else 1
        while targets != 0:
            gateway = trailing_zeros(targets)
            targets &= targets - 1
            flags = np.int64(_ANSWER << 8) if (answered >> gateway) & 1 else np.int64(0)
            deliver(reporter, gateway, words, first, second, slots, flags, sequence)
        # of an unfinished command, all before it is finished
        finished = sequence - (1 - ((head >> _LAST_BIT) & 1))
        position += slots
        done += 1
    reporter.event_positions[np.uintp(shard)] = position
    if unrouted > 0:
        count(reporter.counters, UNROUTED, unrouted)
    release_up_to(words_at(row["cells"], CELL_WORDS), state["event_reader"], position)
    return done, finished


@kernel(inline=True)
def find_command(reporter: Reporter, sequence: int) -> None:
    """Move on to the command of this sequence; it is there, because a matcher has read it."""
    state = reporter.state[0]
    words = reporter.command_words
    mask = len(words) // _WORDS - 1
    position = state["command_position"]
    while True:
        assert is_published(words, mask, position)
        first = (position & mask) * _WORDS
        head = words[np.uintp(first + 1)]
        if head != 0 and words[np.uintp(first + 2)] == sequence:
            break
        position += 2 if (head >> 8) & _TWO_SLOTS else 1
    kind = head & 0xFF
    ingress_id = np.int64(0)
    if (head >> 8) & _TWO_SLOTS:
        second = ((position + 1) & mask) * _WORDS
        ingress_id = words[np.uintp(second + (4 if kind == _TRADE_BUST else 6))]
    elif kind == _SESSION_ATTACH or kind == _SESSION_DETACH or kind == FORBIDDEN_KIND:
        ingress_id = words[np.uintp(first + 7)]
    state["command_position"] = position
    state["sequence"] = sequence
    account = (head >> 32) & 0xFFFFFFFF
    # one that can't be, refused by the gate, must not pass for another in the table of routes
    state["account_id"] = account if account < MAX_ACCOUNTS else np.int64(0)
    gateway = (ingress_id >> 48) & 0xFFFF
    there = ingress_id != 0 and gateway < len(reporter.gateways)
    state["answered"] = np.int64(1) << gateway if there else np.int64(0)


@kernel(inline=True)
def routes_of(reporter: Reporter, words: Any, second: int, head: int) -> int:
    """Return the gateways on which the accounts that an event concerns have sessions, as bits."""
    routes = reporter.routes
    found = routes[np.uintp(reporter.state[0]["account_id"] & (MAX_ACCOUNTS - 1))]
    if head & 0xFF == _TRADE:
        resting = words[np.uintp(second + 5)] & (MAX_ACCOUNTS - 1)
        found |= routes[np.uintp(resting)]
    elif (head >> 8) & _STATE:
        owner = words[np.uintp(second + 6)] & (MAX_ACCOUNTS - 1)
        found |= routes[np.uintp(owner)]
    return found


@kernel(inline=True)
def deliver(
    reporter: Reporter, gateway: int, words: Any, first: int, second: int, slots: int, flags: int,
    sequence: int,
) -> None:  # fmt: skip
    """Copy an event into a gateway's report ring, or cut the gateway off."""
    target_of = reporter.gateways[np.uintp(gateway)]
    if target_of["active"] == 0:
        count(reporter.counters, LOST, 1)
        return
    row = reporter.reports[np.uintp(gateway)]
    target = words_at(row["words"], row["slots"] * _WORDS)
    cells = words_at(row["cells"], CELL_WORDS)
    mask = row["slots"] - 1
    begin = target_of["position"]
    if target_of["limit"] - begin < _ROOM:
        # acquire: pairs with the client's `release_up_to`; no cursor lets it ahead of itself
        cursor = load_acquire(cells, CURSORS)
        target_of["limit"] = min(cursor, begin) + row["slots"]
        if target_of["limit"] - begin < _ROOM:
            cut_off(reporter, gateway, sequence)
            return
    end = end_of_record(mask, begin, slots)
    claim(cells, end)
    position = padded(target, mask, begin) if slots == 2 else begin
    base = (position & mask) * _WORDS
    prefetch_slot(target, mask, position + 2 * PREFETCH_AHEAD)
    target[np.uintp(base + 1)] = words[np.uintp(first + 1)] | flags
    for word in range(2, _WORDS):
        target[np.uintp(base + word)] = words[np.uintp(first + word)]
    if slots == 2:
        for word in range(1, _WORDS):
            target[np.uintp(base + _WORDS + word)] = words[np.uintp(second + word)]
    publish(target, mask, begin, end)
    target_of["position"] = end
    # release: pairs with whoever looks up where the writer is
    store_release(cells, POSITION, end)
    count(reporter.counters, REPORTS, 1)


@kernel
def cut_off(reporter: Reporter, gateway: int, sequence: int) -> None:
    """Stop writing to a gateway whose ring is full, and tell it from which sequence on."""
    cells = reporter.cells
    base = gateway * GATEWAY_WORDS
    reporter.gateways[np.uintp(gateway)]["active"] = 0
    store_release(cells, base + CUT_SEQUENCE, sequence)
    # release: pairs with the client's load; the sequence above is visible before
    incarnation = reporter.gateways[np.uintp(gateway)]["incarnation"]
    store_release(cells, base + CUT_INCARNATION, incarnation)
    count(reporter.counters, CUTS, 1)
