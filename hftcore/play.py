"""Bulk play: rows of commands through all roles of one thread, at the speed of the kernels.

The loop that turns the roles' polls in a fixed order until nothing is left to do. `Exchange` is
wired to it; a replay of a recording spends its time here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hftcore.engine import client as client_role
from hftcore.engine import matcher as matcher_role
from hftcore.engine import sequencer as sequencer_role
from hftcore.engine.client import Client
from hftcore.engine.matcher import Matcher
from hftcore.engine.sequencer import Sequencer
from hftcore.matching.depth import read_depth
from hftcore.messages import ECHO, CommandKind, EventKind
from ipc.kernel import kernel

SLICE = 4_096
"""Commands between two looks at the progress callback."""

_NO_LOG = np.zeros((0, 16), np.int64)


@kernel
def run(client: Any, sequencer: Any, matcher: Any, rows: Any, end: int, log: Any, at: Any) -> int:
    """Play rows [at[0], end) until all their events are read or the log is full.

    Parameters
    ----------
    rows : int64[n, 16]
        Commands.
    log : int64[m, 16]
        Receives events; m = 0: none are kept.
    at : int64[:]
        at[0]: the next row to send; written.

    Returns
    -------
    int
        1 when nothing is left to do, 0 when the log is full.
    """
    while True:
        done = client_role.send(client, rows, at[0], end)
        at[0] += done
        done += sequencer_role.poll(sequencer, 256)
        done += matcher_role.poll(matcher, 256)
        done += client_role.drain(client, log)
        if done == 0:
            idle = at[0] == end and (len(log) == 0 or client.state[0]["logged"] < len(log))
            return 1 if idle else 0


@kernel
def run_deep(
    client: Any, sequencer: Any, matcher: Any, rows: Any, end: int, log: Any, at: Any, depth: Any
) -> int:
    """Play rows one at a time and write the best levels of its book after each into `depth`.

    Parameters
    ----------
    at : int64[2]
        The next row to send, and the next whose depth is to be written; written.
    """
    while at[1] < end:
        row = at[1]
        if run(client, sequencer, matcher, rows, row + 1, log, at) == 0:
            return 0
        read_depth(matcher.shard, (rows[row, 1] >> 16) & 0xFFFF, depth[row])
        at[1] = row + 1
    return 1


@dataclass(frozen=True)
class Played:
    """What came of a bulk of commands.

    Attributes
    ----------
    count : int
        Commands played.
    seconds : float
        Wall time in the polls.
    events : dict of str to int
        Events by kind.
    depth : int64[count, 2, levels, 2]
        After each command, the best levels of its instrument (see `read_depth`); empty if not
        asked for.
    log : int64[n, 16]
        The events themselves, slot A then slot B, word 0 zero; empty if not asked for.
    """

    count: int
    seconds: float
    events: dict[str, int]
    depth: NDArray[np.int64]
    log: NDArray[np.int64]


class Roles(NamedTuple):
    """Who takes part."""

    client: Client
    sequencer: Sequencer
    matcher: Matcher


def play_rows(
    roles: Roles,
    rows: NDArray[np.int64],
    depth: int,
    *,
    log: bool,
    progress: Callable[[int], None] | None,
) -> Played:
    """Play commands until all their events are read (see `Exchange.play`)."""
    levels = np.zeros((len(rows) if depth else 0, 2, depth, 2), np.int64)
    chunk = np.zeros((SLICE if len(rows) > 1 else 64, 16), np.int64) if log else _NO_LOG
    state = roles.client.state
    before = state["counts"][0].copy()
    at = np.zeros(2, np.int64)
    kept: list[NDArray[np.int64]] = []
    begin = perf_counter()
    for first in range(0, len(rows), SLICE):
        end = min(first + SLICE, len(rows))
        while not (
            run_deep(*roles, rows, end, chunk, at, levels)
            if depth
            else run(*roles, rows, end, chunk, at)
        ):
            kept.append(_emptied(chunk, state))
        if progress:
            progress(end)
    seconds = perf_counter() - begin
    kept.append(_emptied(chunk, state))
    events = _by_name(state["counts"][0] - before)
    return Played(len(rows), seconds, events, levels, np.concatenate(kept))


def _emptied(chunk: NDArray[np.int64], state: NDArray[Any]) -> NDArray[np.int64]:
    """Take the events out of the log."""
    logged = int(state["logged"][0])
    state["logged"] = 0
    return chunk[:logged].copy()


def _by_name(counts: NDArray[np.int64]) -> dict[str, int]:
    """Name the counted kinds of events."""
    return {
        EventKind(kind).name if kind < ECHO else f"ECHO {CommandKind(kind - ECHO).name}": int(n)
        for kind, n in enumerate(counts)
        if n
    }
