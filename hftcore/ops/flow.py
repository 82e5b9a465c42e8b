"""The flow as an agent: sends what `flow_model` generates when it is due, and times every answer.

    flow_model --> batch --> ingress-g ... reports-g --> counts, histogram

Open loop: command n has a planned time, start + n / rate, whatever became of those before it. When
the venue or the machine is late, the commands that fell due meanwhile are sent at once, and their
latency counts from their planned times, so a stall is not hidden by the sender having waited too
(coordinated omission). At rate 0 there is no plan: a command is due when it has been composed, and
time spent waiting for room in the ingress ring counts.

The n-th command is answered by the n-th sequence that comes back with the flag ANSWER; its first
event names the order that the command named, and that is compared. So "each was answered exactly
once" is checked and not assumed: `misanswered` counts answers that are another command's, `doubled`
sequences that came back. What the flow does next does not depend on reports (see `flow_model`).

Comes before: `gateway` in demo and tests. After: sequencer and reporter over the gateway's rings.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hftcore.engine import client as client_role
from hftcore.engine.client import Client
from hftcore.messages import INGRESS_SEQUENCE, EventKind, Flags
from hftcore.ops.flow_model import REJECTS as MODEL_REJECTS
from hftcore.ops.flow_model import TAG, FlowModel, name_word, next_command
from hftcore.ops.flow_model import TRADES as MODEL_TRADES
from hftcore.orders import ROW_WORDS
from ipc import histogram
from ipc.counters import Counters, set_counter, words_for
from ipc.histogram import Histogram
from ipc.intrinsics import read_tsc, store_release
from ipc.kernel import kernel
from ipc.wait import on_idle, on_work, wake_each

COUNTERS = (
    "commands_sent",
    "commands_answered",
    "trades",
    "rejects",
    "misanswered",
    "doubled",
    "expected_trades",
    "expected_rejects",
)
SENT, ANSWERED, TRADES, REJECTS, MISANSWERED, DOUBLED, EXPECTED_TRADES, EXPECTED_REJECTS = range(8)
"""Numbers of the counters; those expected are what the model's own matching made."""

BATCH = 64
"""Commands composed at a time: as many as fall due in a slice at 50,000 a second."""
REPORTS = 512
"""Reports read at a time."""
IN_FLIGHT = 1 << 18
"""Commands without an answer at most; more than all rings of a venue hold as a rule."""

PACE = np.dtype(
    [
        ("sent", "<i8"),  # commands composed and given to the ring
        ("answered", "<i8"),  # distinct sequences with ANSWER
        ("last_sequence", "<i8"),  # of the newest answer
        ("limit", "<i8"),  # commands to send at most
        ("start_ticks", "<i8"),  # planned time of command 0
        ("ticks_by_rate", "<f8"),  # ticks from one planned time to the next, 0: no plan
        ("ns_per_tick", "<f8"),
        ("first", "<i8"),  # row of the batch that goes next
        ("end", "<i8"),  # behind the last composed row
        ("ingress_id", "<i8"),  # of command 0: gateway << 48 | the session's commands before
        ("incarnation", "<i8"),
        ("session_word", "<i8"),  # session_id where ORIGIN has it
        ("trades", "<i8"),
        ("rejects", "<i8"),
        ("misanswered", "<i8"),
        ("doubled", "<i8"),
    ]
)

_ANSWER, _TWO_SLOTS = int(Flags.ANSWER), int(Flags.TWO_SLOTS)
_TRADE, _REJECTED = int(EventKind.TRADE), int(EventKind.REJECTED)


class Flow(NamedTuple):
    """What the flow's poll works on.

    Attributes
    ----------
    pace : PACE[1]
    model : FlowModel
    client : Client
        The gateway's rings.
    batch : int64[BATCH, 16]
        Commands composed, some of them not sent yet.
    reports : int64[REPORTS, 16]
        Events read.
    planned : int64[2, IN_FLIGHT]
        Of each command without an answer: planned time in ticks, number of the order that it names.
    latency : int64[3720]
        Histogram in ns, shared.
    counters : int64[8 * 8]
        Shared; COUNTERS.
    gateway : int64[32]
        The gateway's cells, shared; INGRESS_SEQUENCE is written.
    bell : int64[48]
        The sequencer's.
    """

    pace: NDArray[Any]
    model: FlowModel
    client: Client
    batch: NDArray[np.int64]
    reports: NDArray[np.int64]
    planned: NDArray[np.int64]
    latency: NDArray[np.int64]
    counters: NDArray[np.int64]
    gateway: NDArray[np.int64]
    bell: NDArray[np.int64]


@dataclass(frozen=True)
class Origin:
    """What every command of a session is stamped with."""

    gateway: int
    incarnation: int
    sent: int
    """Commands that the session sent before."""
    attach_sequence: int = 0
    """Up to here answers are the session's own."""


def flow_of(
    model: FlowModel,
    client: Client,
    origin: Origin,
    *,
    rate: float,
    ns_per_tick: float,
    start_ticks: int,
    limit: int = 1 << 31,
    latency: Histogram | None = None,
    counters: Counters | None = None,
    gateway: NDArray[np.int64],
    bell: NDArray[np.int64],
) -> Flow:
    """Join a generator to a gateway's rings.

    Parameters
    ----------
    rate : float
        Commands a second; 0: as fast as they go.
    start_ticks : int
        When the first is due.
    limit : int
        Commands in all; below 2^32, which their names can count.
    """
    pace = np.zeros(1, PACE)
    pace["last_sequence"] = origin.attach_sequence
    pace["limit"] = min(limit, (1 << 32) - 1)
    pace["start_ticks"] = start_ticks
    pace["ticks_by_rate"] = 1e9 / rate / ns_per_tick if rate else 0.0
    pace["ns_per_tick"] = ns_per_tick
    pace["ingress_id"] = origin.gateway << 48 | origin.sent
    pace["incarnation"] = origin.incarnation
    pace["session_word"] = origin.gateway << 32
    return Flow(
        pace,
        model,
        client,
        np.zeros((BATCH, ROW_WORDS), np.int64),
        np.zeros((REPORTS, ROW_WORDS), np.int64),
        np.zeros((2, IN_FLIGHT), np.int64),
        (latency or Histogram.local()).cells,
        (counters or Counters.local(COUNTERS)).words,
        gateway,
        bell,
    )


def counter_words() -> int:
    """Return how many words the flow's counters take."""
    return words_for(len(COUNTERS))


@kernel
def compose(flow: Flow, now: int) -> int:
    """Fill the batch with the commands that are due; return how many."""
    pace = flow.pace[0]
    interval = pace["ticks_by_rate"]
    # the batch holds those of `sent` that are still to go: counted when composed
    number = pace["sent"] + 1
    until = min(pace["limit"], pace["answered"] + IN_FLIGHT)
    row = np.int64(0)
    while row < BATCH and number <= until:
        planned = now
        if interval > 0.0:
            planned = pace["start_ticks"] + np.int64(interval * (number - 1))
            if planned > now:
                break
        slot = number & (IN_FLIGHT - 1)
        flow.planned[0, slot] = planned
        flow.planned[1, slot] = next_command(flow.model, number, flow.batch[row])
        flow.batch[row, 13] |= pace["session_word"]
        flow.batch[row, 14] = pace["ingress_id"] + number
        flow.batch[row, 15] = pace["incarnation"]
        number += 1
        row += 1
    pace["sent"] = number - 1
    pace["first"] = 0
    pace["end"] = row
    return row


@kernel
def account_for(flow: Flow, reports: int) -> None:
    """Count some reports, and time those that are the first event of an answer."""
    pace = flow.pace[0]
    for row in range(reports):
        event = flow.reports[row]
        kind = event[1] & 0xFF
        pace["trades"] += np.int64(kind == _TRADE)
        pace["rejects"] += np.int64(kind == _REJECTED)
        sequence = event[2]
        if (event[1] >> 8) & _ANSWER == 0 or sequence == pace["last_sequence"]:
            continue
        if sequence < pace["last_sequence"] or pace["answered"] == pace["sent"]:
            pace["doubled"] += 1
            continue
        pace["last_sequence"] = sequence
        pace["answered"] += 1
        slot = pace["answered"] & (IN_FLIGHT - 1)
        # slot B is ORIGIN or PARTY, which have the client_order_id at the same place
        named = event[9] == flow.model.numbers[TAG] and event[10] == name_word(
            flow.planned[1, slot]
        )
        if (event[1] >> 8) & _TWO_SLOTS and not named:
            pace["misanswered"] += 1
        ticks = read_tsc() - flow.planned[0, slot]
        histogram.record(flow.latency, np.int64(ticks * pace["ns_per_tick"]))


@kernel
def poll(flow: Flow, sending: bool) -> int:
    """Read what reports are there, then send what is due; return how many of both.

    Parameters
    ----------
    sending : bool
        False: only read, to the end of a run.
    """
    pace = flow.pace[0]
    flow.client.state[0]["logged"] = 0
    done = client_role.drain(flow.client, flow.reports)
    account_for(flow, done)
    if sending and pace["first"] == pace["end"]:
        compose(flow, read_tsc())
    if pace["first"] < pace["end"]:
        sent = client_role.send(flow.client, flow.batch, pace["first"], pace["end"])
        pace["first"] += sent
        done += sent
        if sent > 0:
            newest = flow.batch[pace["first"] - 1, 14] & ((1 << 48) - 1)
            # release: who takes over after us counts on from what is in the ring
            store_release(flow.gateway, INGRESS_SEQUENCE, newest)
            wake_each(flow.bell, 1, -1)
    set_counter(flow.counters, SENT, pace["sent"] - (pace["end"] - pace["first"]))
    set_counter(flow.counters, ANSWERED, pace["answered"])
    set_counter(flow.counters, TRADES, pace["trades"])
    set_counter(flow.counters, REJECTS, pace["rejects"])
    set_counter(flow.counters, MISANSWERED, pace["misanswered"])
    set_counter(flow.counters, DOUBLED, pace["doubled"])
    set_counter(flow.counters, EXPECTED_TRADES, flow.model.numbers[MODEL_TRADES])
    set_counter(flow.counters, EXPECTED_REJECTS, flow.model.numbers[MODEL_REJECTS])
    return done


@kernel
def run(flow: Flow, sending: bool, waiter: Any, bell: Any, slice_ticks: int) -> int:
    """Poll for a slice of time; return what was done in it.

    A sleep of the waiter is in the latencies of what falls due meanwhile: keep it short.
    """
    until = read_tsc() + slice_ticks
    done = np.int64(0)
    while read_tsc() < until:
        found = poll(flow, sending)
        done += found
        if found == 0:
            on_idle(waiter, bell)
        else:
            on_work(waiter, bell)
    return done


def is_idle(flow: Flow) -> bool:
    """Return whether every command that was composed is sent and answered."""
    pace = flow.pace[0]
    return bool(pace["first"] == pace["end"] and pace["answered"] >= pace["sent"])


__all__ = ["COUNTERS", "Flow", "Origin", "flow_of", "is_idle", "poll", "run"]
