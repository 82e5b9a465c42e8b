"""`hft book` and `hft stat` beside a matcher at work: what they show is true, or said not to be."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time

import pytest

from hftcore.client import Client
from hftcore.errors import ConfigurationRefused, OrderRefused
from hftcore.ops.book import BookReader
from hftcore.ops.launch import end, launch, running_venue
from hftcore.ops.venue_file import attached
from tests.ops.venues import Place, orders, reap, send_all
from tests.processes import DEADLINE_S, ROOT, Children

READINGS = 300


def test_a_reading_that_counts_is_of_one_moment_while_the_matcher_writes(
    place: Place, children: Children
) -> None:
    with running_venue(place.config(command_slots=4_096, event_slots=4_096)) as record:

        def trade() -> None:
            with Client.connect(place.name, account=1, timeout_s=60) as client:
                while True:
                    rows = orders(2_000, seed=5)
                    rows[:, 1] = rows[:, 1] & ~0xFFFF0000 | 1 << 16  # all on the first instrument
                    send_all(client, rows)

        pid = children.fork(trade)
        _, memory = attached(place.name)
        with memory:
            reader = BookReader(memory, "AA", depth=40)
            seen = set()
            whole = 0
            deadline = time.monotonic() + DEADLINE_S
            while whole < READINGS or len(seen) < 50 or not reader.torn_readings:
                assert time.monotonic() < deadline, "the matcher never wrote under a reading"
                view, of_one_moment = reader.read()
                if not of_one_moment:
                    continue
                whole += 1
                seen.add(reader.feed_sequence)
                if view.bids and view.asks:
                    assert view.bids[0].price < view.asks[0].price
                for levels, sign in ((view.bids, -1), (view.asks, 1)):
                    prices = [sign * level.price for level in levels]
                    assert prices == sorted(set(prices))
                    assert all(level.qty >= level.orders > 0 for level in levels)
        children.kill(pid)
    reap(record)


def test_a_symbol_or_a_depth_that_can_not_be_is_refused(place: Place) -> None:
    with running_venue(place.config()) as record:
        _, memory = attached(place.name)
        with memory:
            with pytest.raises(ConfigurationRefused, match="AA, BB, CC, DD"):
                BookReader(memory, "ZZ")
            with pytest.raises(OrderRefused, match="depth"):
                BookReader(memory, "AA", -1)
            view, whole = BookReader(memory, "AA", 1 << 30).read()
            assert (view.bids, view.asks, whole) == ((), (), True)
    reap(record)


@pytest.mark.parametrize("verb", [("stat",), ("book", "AA")])
def test_watching_ends_with_the_venue(place: Place, verb: tuple[str, ...]) -> None:
    process, record = launch(place.config())
    arguments = [*verb, "--venue", place.name, "--watch", "--json"]
    with subprocess.Popen(
        [sys.executable, "-m", "hftcore", *arguments],
        cwd=ROOT,
        env=dict(os.environ),
        stdout=subprocess.PIPE,
        text=True,
    ) as watching:
        try:
            assert watching.stdout is not None
            for _ in range(2):
                assert json.loads(watching.stdout.readline())
            assert end(process) == 0
            assert watching.wait(60) == 0
        finally:
            watching.kill()
            end(process)
    reap(record)
