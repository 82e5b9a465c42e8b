"""The publisher: every public event once, in order; nothing private, nothing not released."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import zmq
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from hftcore.errors import ConfigurationRefused
from hftcore.marketdata.feed_protocol import FeedInstrument
from hftcore.marketdata.feed_server import FeedFailed, FeedServer
from hftcore.matching.state_hash import feed_hash
from hftcore.messages import (
    ECHO,
    EVENT,
    FEED_FRAME,
    MAX_SEQUENCE,
    POSITIONS_WORDS,
    PUBLISHED,
    RELEASED,
    EventKind,
    Flags,
)
from ipc.clock import now_ticks
from ipc.ring import Ring
from tests.marketdata.feed_rig import (
    ACCOUNT_MARK,
    INSTRUMENTS,
    NAME_MARK,
    READER,
    Model,
    Rig,
    orders_of,
    random_rows,
    write_log,
)
from tests.processes import poll_until

Frame = tuple[Any, NDArray[Any]]


@contextmanager
def listening(rig: Rig, *topics: bytes) -> Iterator[zmq.Socket[bytes]]:
    """Subscribe to the raw frames of a venue, and wait for a heartbeat of each topic."""
    with zmq.Context() as context, context.socket(zmq.SUB) as socket:
        socket.set(zmq.LINGER, 0)
        socket.set(zmq.RCVHWM, 0)
        socket.connect(rig.endpoints[0])
        for topic in topics:
            socket.subscribe(topic)

        silent = set(topics)

        def heard() -> bool:
            rig.turn()
            while socket.poll(0):
                message = socket.recv()
                assert len(message) == FEED_FRAME.itemsize
                silent.difference_update([each for each in silent if message.startswith(each)])
            return not silent

        poll_until(heard, "the subscriptions")
        yield socket


def frames_of(rig: Rig, socket: zmq.Socket[bytes], updates: int) -> list[Frame]:
    """Receive frames until they hold so many updates; heartbeats are left out."""
    frames: list[Frame] = []

    def complete() -> bool:
        rig.turn()
        while socket.poll(0):
            message = socket.recv()
            header = np.frombuffer(message[:64], FEED_FRAME)[0]
            events = np.frombuffer(message[64:], EVENT)
            assert len(events) == header["count"]
            if len(events):
                frames.append((header, events))
        return sum(len(events) for _, events in frames) >= updates

    poll_until(complete, f"{updates} updates")
    return frames


def public(log: NDArray[np.int64]) -> NDArray[Any]:
    """Return slot A of the public events of a log."""
    events = log[:, :8].copy().view(EVENT)[:, 0]
    return events[(events["kind"] & ECHO == 0) & (events["feed_sequence"] > 0)]


def test_frames_hold_every_public_event_once_and_in_order() -> None:
    rng = np.random.default_rng(1)
    with Rig(updates_a_frame=16) as rig, listening(rig, b"L3") as socket:
        expected = public(rig.random(rng, 1_500))
        frames = frames_of(rig, socket, len(expected))
        for number in range(1, len(INSTRUMENTS) + 1):
            mine = [frame for frame in frames if frame[0]["instrument_id"] == number]
            found = np.concatenate([events for _, events in mine])
            wanted = expected[expected["instrument_id"] == number]
            for name in ("kind", "index", "sequence", "feed_sequence", "order_id", "price", "qty"):
                assert (found[name] == wanted[name]).all(), name
            assert not found["ring_word"].any()
            previous = 0
            for header, events in mine:
                assert bytes(header["topic"]) == b"L3"
                assert 1 <= len(events) <= 16
                assert header["previous_feed_sequence"] == previous
                assert header["first_feed_sequence"] == events["feed_sequence"][0] == previous + 1
                assert header["last_sequence"] == events["sequence"][-1]
                assert (header["start_id"], header["epoch"]) == (1, 1)
                previous = events["feed_sequence"][-1]
        assert max(len(events) for _, events in frames) == 16  # under load, full ones
        assert rig.counters["updates_sent"] == len(expected)


def test_topic_of_trades_has_the_trades_and_their_own_chain() -> None:
    rng = np.random.default_rng(2)
    with Rig(updates_a_frame=8) as rig, listening(rig, b"TR\x01\x00") as socket:
        expected = public(rig.random(rng, 1_500))
        expected = expected[
            (expected["kind"] == EventKind.TRADE) & (expected["instrument_id"] == 1)
        ]
        frames = frames_of(rig, socket, len(expected))
        found = np.concatenate([events for _, events in frames])
        assert (found["feed_sequence"] == expected["feed_sequence"]).all()
        previous = 0
        for header, events in frames:
            assert header["instrument_id"] == 1
            assert header["previous_feed_sequence"] == previous
            previous = events["feed_sequence"][-1]


def test_nothing_private_is_in_any_frame() -> None:
    rng = np.random.default_rng(3)
    with Rig() as rig, listening(rig, b"") as socket:
        log = rig.random(rng, 1_000)
        raw = log.tobytes()  # the test can fail: the events are full of both
        accounts = [(ACCOUNT_MARK + owner).to_bytes(4, "little") for owner in (1, 2)]
        assert raw.count(NAME_MARK) > 100
        assert all(raw.count(account) > 100 for account in accounts)
        messages = []
        wanted = len(public(log)) * 64

        def complete() -> bool:
            rig.turn()
            while socket.poll(0):
                messages.append(socket.recv())
            return sum(len(m) - 64 for m in messages if m[:2] == b"L3") >= wanted

        poll_until(complete, "all frames")
        with rig.subscriber() as subscriber:
            rig.until_right(subscriber)
            messages += [subscriber.orders(symbol).tobytes() for symbol in rig.symbols]
        sent = b"".join(messages)
        assert NAME_MARK not in sent
        assert not any(account in sent for account in accounts)
        for message in messages:
            flags = np.frombuffer(message[64:], EVENT)["flags"]
            # whether there is a second slot tells of a client order id, or of hidden lots
            assert not (flags & (Flags.TWO_SLOTS | Flags.STATE | Flags.ANSWER)).any()


def test_event_above_released_waits_until_it_is_released() -> None:
    rng = np.random.default_rng(4)
    positions = np.zeros(POSITIONS_WORDS, np.int64)
    with Rig(positions=positions) as rig, listening(rig, b"L3") as socket:
        log = rig.random(rng, 200, batch=20)
        assert rig.counters["updates_sent"] == 0
        assert positions[PUBLISHED] == 0
        events = public(log)
        for released in (50, 51, 120, MAX_SEQUENCE):
            positions[RELEASED] = released
            rig.drain()
            due = int((events["sequence"] <= released).sum())
            assert rig.counters["updates_sent"] == due
            newest = int(rig.exchange.shard.matched[0])
            assert positions[PUBLISHED] == min(released, newest)
        frames = frames_of(rig, socket, len(events))
        assert sum(len(found) for _, found in frames) == len(events)


def test_snapshot_does_not_show_what_is_not_released() -> None:
    rng = np.random.default_rng(5)
    positions = np.zeros(POSITIONS_WORDS, np.int64)
    with Rig(positions=positions) as rig, rig.subscriber() as subscriber:
        rig.random(rng, 200)
        rig.until(
            subscriber,
            lambda: bool(subscriber.instruments) and all(map(subscriber.is_right, rig.symbols)),
            "right books",
        )
        assert not any(len(subscriber.orders(symbol)) for symbol in rig.symbols)
        positions[RELEASED] = MAX_SEQUENCE
        rig.until_right(subscriber)


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck), print_blob=True)
@given(
    seed=st.integers(0, 2**32 - 1),
    batches=st.lists(st.integers(1, 120), min_size=1, max_size=5),
    width=st.integers(1, 60),
    updates_a_frame=st.sampled_from([1, 2, 7, 64]),
)
def test_published_books_are_the_matchers_after_each_batch(
    seed: int, batches: list[int], width: int, updates_a_frame: int
) -> None:
    rng = np.random.default_rng(seed)
    with Rig(updates_a_frame=updates_a_frame) as rig:
        models = [Model() for _ in INSTRUMENTS]
        books = rig.server.publisher.books
        for count in batches:
            for event in public(rig.random(rng, count, width=width)):
                models[int(event["instrument_id"]) - 1].apply(event)
            for number, model in enumerate(models, 1):
                assert feed_hash(books, number) == feed_hash(rig.exchange.shard, number)
                assert books.books["feed_sequence"][number] == model.feed_sequence
                found = rig.server.snapshot(number).view(EVENT)
                assert orders_of(found) == model.listed()


def test_several_shards_are_published_by_one_publisher() -> None:
    rng = np.random.default_rng(6)
    with Rig() as source:
        log = source.random(rng, 600)
        hashes = list(source.hashes().values())
    rings = [Ring.local(8_192) for _ in range(3)]
    matched = [np.zeros(8, np.int64) for _ in rings]
    positions = np.zeros(POSITIONS_WORDS, np.int64)
    positions[RELEASED] = MAX_SEQUENCE
    for ring in rings:
        ring.add_gating_reader(READER)
    with FeedServer(
        rings,
        matched,
        [FeedInstrument.of(each, number) for number, each in enumerate(INSTRUMENTS, 1)],
        publish_endpoints=[f"inproc://{uuid.uuid4().hex}"],
        snapshot_endpoint=f"inproc://{uuid.uuid4().hex}",
        start_id=1,
        positions=positions,
    ) as server:
        for number, (ring, line) in enumerate(zip(rings, matched, strict=True), 1):
            write_log(ring, line, log[(log[:, 1] >> 16) & 0xFFFF == number])
            assert server.run_slice(int(now_ticks()) + 10**9)
        while server.run_slice(int(now_ticks()) + 10**9):
            pass
        assert [feed_hash(server.publisher.books, n) for n in (1, 2, 3)] == hashes
        # everything is sent up to what the slowest shard has finished
        assert positions[PUBLISHED] == min(int(line[0]) for line in matched)
        assert [ring.cursor(READER) for ring in rings] == [ring.position for ring in rings]


def test_lossless_publisher_waits_for_a_subscriber_and_loses_nothing() -> None:
    rng = np.random.default_rng(7)
    options = {"lossless": True, "send_hwm": 2, "updates_a_frame": 4}
    with Rig(**options) as rig, zmq.Context() as context, context.socket(zmq.SUB) as socket:
        socket.set(zmq.RCVHWM, 2)
        socket.set(zmq.LINGER, 0)
        socket.set(zmq.RCVBUF, 4_096)
        socket.connect(rig.endpoints[0])
        socket.subscribe(b"L3")
        poll_until(lambda: bool(rig.turn() < 0 or rig.counters["subscriptions"]), "a subscriber")
        expected = public(
            rig.exchange.play(random_rows(rng, 1_200, rig.exchange.next_sequence), log=True).log
        )
        for _ in range(500):
            rig.turn()
        assert rig.counters["sends_blocked"] > 0
        assert rig.counters["updates_sent"] < len(expected)
        ring = rig.exchange.events_ring
        assert ring.cursor(READER) < ring.position  # the ring is held back
        frames = frames_of(rig, socket, len(expected))
        found = np.concatenate([events for _, events in frames])
        for number in (1, 2, 3):
            mine = found["feed_sequence"][found["instrument_id"] == number]
            assert (mine == np.arange(1, len(mine) + 1)).all()


def test_publisher_without_lossless_never_waits() -> None:
    rng = np.random.default_rng(8)
    options = {"send_hwm": 2, "updates_a_frame": 4}
    with Rig(**options) as rig, zmq.Context() as context, context.socket(zmq.SUB) as socket:
        socket.set(zmq.RCVHWM, 2)
        socket.set(zmq.LINGER, 0)
        socket.connect(rig.endpoints[0])
        socket.subscribe(b"L3")
        poll_until(lambda: bool(rig.turn() < 0 or socket.poll(0)), "a heartbeat")
        expected = public(rig.random(rng, 3_000))
        assert rig.counters["updates_sent"] == len(expected)
        assert rig.counters["sends_blocked"] == 0
        ring = rig.exchange.events_ring
        assert ring.cursor(READER) == ring.position


def test_event_that_can_not_be_right_stops_the_feed_and_is_named() -> None:
    rng = np.random.default_rng(9)
    with Rig() as rig:
        log = rig.random(rng, 50)
    ring, line = Ring.local(1_024), np.zeros(8, np.int64)
    ring.add_gating_reader(READER)
    with FeedServer(
        [ring],
        [line],
        [FeedInstrument.of(each, number) for number, each in enumerate(INSTRUMENTS, 1)],
        publish_endpoints=[f"inproc://{uuid.uuid4().hex}"],
        snapshot_endpoint=f"inproc://{uuid.uuid4().hex}",
        start_id=1,
    ) as server:
        first = np.flatnonzero(log[:, 4] > 0)
        write_log(ring, line, np.delete(log, first[len(first) // 2], axis=0))
        with pytest.raises(FeedFailed, match="does not fit the publisher's book"):
            server.run_slice(int(now_ticks()) + 10**9)


def test_endpoint_that_is_taken_is_refused_with_the_remedy() -> None:
    with Rig(endpoints=("tcp://127.0.0.1:*", "")) as rig:
        taken = rig.endpoints[0]
        with pytest.raises(ConfigurationRefused, match="choose another endpoint"):
            Rig(endpoints=(taken, ""))
