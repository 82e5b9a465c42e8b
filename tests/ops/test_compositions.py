"""Every composition of workers, in real processes, with rings of the smallest size.

No poll waits for a peer; a worker that runs several roles must not either. The rings have 8 slots,
so each sweep is longer than its event ring and each batch longer than its command ring: whoever
waited for room that only its own next poll could make would stand still for good. The flow comes to
its end, and every book is then what `Exchange` makes of the same commands.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from hftcore import Exchange
from hftcore.client import Client
from hftcore.messages import NEW_ORDER, CommandKind, Flags, OrderType, Side, TimeInForce
from hftcore.ops.book import BookReader
from hftcore.ops.compositions import COMPOSITIONS
from hftcore.ops.launch import running_venue
from hftcore.ops.placement import place as place_workers
from hftcore.ops.venue_file import attached
from hftcore.ops.venue_kernels import composition_of
from ipc.ring import MIN_CAPACITY
from tests.ops.venues import INSTRUMENTS, Place, orders, reap, send_all

LAYOUTS = [(1, 1), (1, 2), (1, 4), (2, 1), (2, 2), (2, 4), (4, 1), (8, 4)]
"""(as_cpus, shards)"""
RESTING, SWEEPS = 40, 3


def sweeping_flow() -> np.ndarray[Any, np.dtype[np.int64]]:
    """Return a random flow with sweeps through many small orders between."""
    parts = []
    for number in range(SWEEPS):
        parts.append(orders(150, seed=number))
        ladder = np.zeros((RESTING + 1, 16), np.int64)
        for row, words in enumerate(ladder):
            order: Any = words[:8].view(NEW_ORDER)[0]
            order["kind"], order["flags"] = CommandKind.NEW_ORDER, Flags.TWO_SLOTS
            order["instrument_id"] = number % len(INSTRUMENTS) + 1
            order["account_id"] = 1
            order["order_type"], order["time_in_force"] = OrderType.LIMIT, TimeInForce.GTC
            last = row == RESTING
            order["side"] = Side.BUY if last else Side.SELL
            order["price"] = 900 if last else 600 + row
            order["qty"] = 100_000 if last else 1
        parts.append(ladder)
        # what the sweep left of the buyer would take everything that comes: take it away
        taker = orders(1, seed=0)
        head: Any = taker[0, :8].view(NEW_ORDER)[0]
        head["instrument_id"], head["side"] = number % len(INSTRUMENTS) + 1, Side.SELL
        head["price"], head["qty"] = 900, 100_000
        parts.append(taker)
    return np.concatenate(parts)


@pytest.mark.parametrize(("as_cpus", "shards"), LAYOUTS)
def test_no_composition_stands_still_with_rings_of_the_smallest_size(
    place: Place, as_cpus: int, shards: int
) -> None:
    flow = sweeping_flow()
    config = place.config(
        as_cpus=as_cpus,
        shards=shards,
        ingress_slots=MIN_CAPACITY,
        command_slots=MIN_CAPACITY,
        event_slots=MIN_CAPACITY,
        wait="futex",
    )
    exchange = Exchange(INSTRUMENTS)
    exchange.play(flow)
    with running_venue(config) as record:
        with Client.connect(place.name, account=1, timeout_s=60) as client:
            send_all(client, flow)
        _, memory = attached(place.name)
        with memory:
            for each in INSTRUMENTS:
                # order ids differ, the venue has commands of its own in its log: levels compare
                view, whole = BookReader(memory, each.symbol, each.order_capacity).read()
                assert (view, whole) == (exchange.book(each.symbol, each.order_capacity), True)
    reap(record)
    assert "not drained" not in place.events_of_log()
    assert place.remains() == []


def test_the_layouts_above_use_every_composition(place: Place) -> None:
    used = {
        composition_of(worker)
        for as_cpus, shards in LAYOUTS
        for worker in place_workers(place.config(as_cpus=as_cpus, shards=shards)).workers
    }
    assert used - {None} == set(COMPOSITIONS)
