"""What clients can do to the feed's server: send without end, ask without end, stop reading."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import zmq

from hftcore import Instrument
from hftcore.marketdata import feed_replies
from hftcore.marketdata.feed_copies import Copies, Copy
from hftcore.marketdata.feed_protocol import SnapshotReply, SnapshotRequest, decode_reply, encode
from hftcore.marketdata.feed_replies import MAX_OPEN, MAX_WAITING, MAX_WAITING_OF_ONE, Replies
from hftcore.marketdata.feed_server import SUBSCRIPTIONS_A_SERVICE
from hftcore.marketdata.publisher_state import SNAPSHOTS_REFUSED, SNAPSHOTS_SENT
from tests.marketdata.feed_rig import Rig
from tests.marketdata.test_feed_recovery import resting
from tests.processes import poll_until

LARGE = (Instrument("AAA/USD", "0.01", "1", "2", order_capacity=65_536),)
NEVER_NS = 1 << 60


@contextmanager
def upstream(rig: Rig) -> Iterator[zmq.Socket[bytes]]:
    """Connect a socket that may send whatever it likes to the publisher's."""
    with zmq.Context() as context, context.socket(zmq.XSUB) as socket:
        socket.set(zmq.LINGER, 0)
        socket.set(zmq.SNDHWM, 0)
        socket.connect(rig.endpoints[0])
        yield socket


def test_subscriptions_of_an_xpub_are_read_a_few_at_a_time() -> None:
    with Rig(lossless=True) as rig, upstream(rig) as socket:
        count = 10 * SUBSCRIPTIONS_A_SERVICE
        for number in range(count):
            socket.send(b"\x01L3" + number.to_bytes(4, "little"))
            socket.send(b"\x02whatever")
        socket.poll(200)  # they arrive meanwhile
        steps = []

        def all_counted() -> bool:
            before = rig.counters["subscriptions"]
            rig.server._take_subscriptions()
            steps.append(rig.counters["subscriptions"] - before)
            return rig.counters["subscriptions"] == count

        poll_until(all_counted, "all subscriptions")
        assert max(steps) <= SUBSCRIPTIONS_A_SERVICE


def test_what_clients_send_upstream_does_not_stop_the_feed_nor_stay_in_memory() -> None:
    rng = np.random.default_rng(1)
    with Rig() as rig, upstream(rig) as socket, rig.subscriber() as follower:
        assert rig.server._feed.type == zmq.PUB  # it keeps none of it
        stop = threading.Event()

        def flood() -> None:
            while not stop.is_set():
                for _ in range(100):
                    socket.send(b"\x02x")

        flooder = threading.Thread(target=flood)
        flooder.start()
        try:
            for _ in range(20):
                rig.random(rng, 50)
                rig.until_right(follower)
        finally:
            stop.set()
            flooder.join()


def test_readers_that_stall_do_not_deny_snapshots_to_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rng = np.random.default_rng(2)
    monkeypatch.setattr(feed_replies, "PATIENCE_NS", NEVER_NS)
    with Rig(LARGE, ring_capacity=1 << 17) as rig, zmq.Context() as context:
        rig.play(resting(rng, 40_000, rig.exchange.next_sequence), batch=10_000)
        readers = []
        for _ in range(MAX_OPEN + 4):
            reader = context.socket(zmq.DEALER)
            reader.set(zmq.LINGER, 0)
            reader.set(zmq.RCVHWM, 1)
            reader.set(zmq.RCVBUF, 4_096)
            reader.connect(rig.endpoints[1])
            reader.send(encode(SnapshotRequest(1, 1)))
            readers.append(reader)

        def all_asked() -> bool:
            rig.turn()
            return len(rig.server.replies._open) == MAX_OPEN and all(
                reply.stalled_ns for reply in rig.server.replies._open
            )

        poll_until(all_asked, "readers that stall in every place")
        with rig.subscriber() as follower:
            rig.until_right(follower)
        assert rig.counters["snapshots_sent"] == 1
        for reader in readers:
            reader.close()


class Line:
    """Readers of replies: which of them have room, and what each one got."""

    def __init__(self, orders: int) -> None:
        self.stalled: set[bytes] = set()
        self.gone: set[bytes] = set()
        self.got: dict[bytes, list[int]] = {}
        self.counted: list[int] = []
        copies = Copies(lambda instrument_id: np.zeros(orders * 8, np.int64))
        self.replies = Replies(copies, self.send, self.counted.append, 1, 1)

    def send(self, parts: list[bytes]) -> bool | None:
        """Send as a ROUTER does."""
        if parts[0] in self.gone:
            return None
        if parts[0] in self.stalled:
            return False
        reply = decode_reply(parts[1])
        assert isinstance(reply, SnapshotReply)
        self.got.setdefault(parts[0], []).append(reply.first)
        return True

    def serve(self, now_ns: int) -> int:
        """Do one service."""
        return self.replies.serve(lambda instrument_id: 5, now_ns)


def test_places_go_round_and_a_long_snapshot_keeps_nobody_from_his() -> None:
    line = Line(orders=100 * feed_replies.CHUNK_ORDERS)
    readers = [bytes([number]) for number in range(12)]
    for reader in readers:
        assert line.replies.ask(reader, SnapshotRequest(1, 1))
    for now_ns in range(1, 4):
        line.serve(now_ns)
    assert {reader: len(found) for reader, found in line.got.items()} == dict.fromkeys(readers, 8)
    line.stalled = set(readers[:8])
    for now_ns in range(4, 200):
        line.serve(now_ns)
    whole = [number * feed_replies.CHUNK_ORDERS for number in range(100)]
    assert all(line.got[reader] == whole for reader in readers[8:])
    line.stalled.clear()
    line.gone = set(readers[:2])
    while line.serve(1_000):
        pass
    assert all(line.got[reader] == whole for reader in readers[2:])
    assert sorted(line.counted) == [SNAPSHOTS_SENT] * 10 + [SNAPSHOTS_REFUSED] * 2


def test_whoever_stalls_is_given_up_when_others_wait_or_after_a_while() -> None:
    line = Line(orders=1)
    line.stalled = {bytes([number]) for number in range(MAX_OPEN)}
    for reader in sorted(line.stalled):
        line.replies.ask(reader, SnapshotRequest(1, 1))
    for _ in range(4):
        line.serve(1)
    line.serve(feed_replies.STALL_NS + 2)
    assert not line.counted  # nobody waits
    line.replies.ask(b"other", SnapshotRequest(1, 1))
    for _ in range(4):
        line.serve(feed_replies.STALL_NS + 2)
    assert line.got == {b"other": [0]}
    assert line.counted == [SNAPSHOTS_REFUSED, SNAPSHOTS_SENT]
    for _ in range(4):
        line.serve(feed_replies.PATIENCE_NS + 2)
    assert line.counted.count(SNAPSHOTS_REFUSED) == MAX_OPEN


def test_one_reader_has_a_share_of_the_places_and_of_the_waiting_requests() -> None:
    line = Line(orders=1)
    line.stalled = {b"greedy"}
    taken = [line.replies.ask(b"greedy", SnapshotRequest(1, number)) for number in range(100)]
    assert taken == [number < MAX_WAITING_OF_ONE for number in range(100)]
    assert line.replies.ask(b"greedy", SnapshotRequest(2, 3))  # it asks again: no further one
    assert line.replies.ask(b"modest", SnapshotRequest(1, 1))
    line.serve(NEVER_NS)
    line.serve(NEVER_NS)
    assert line.got == {b"modest": [0]}
    assert len(line.replies._open) == feed_replies.MAX_OPEN_OF_ONE
    line.stalled.clear()
    while line.serve(NEVER_NS):
        pass
    assert len(line.got[b"greedy"]) == MAX_WAITING_OF_ONE
    assert line.replies.ask(b"greedy", SnapshotRequest(3, 50))
    others = [line.replies.ask(str(n).encode(), SnapshotRequest(1, 1)) for n in range(300)]
    assert sum(others) == MAX_WAITING - 1


def test_copy_that_serves_is_shared_by_all_who_ask() -> None:
    line = Line(orders=1)
    made: list[Copy | None] = [
        line.replies.copies.find(SnapshotRequest(1, 1), 5, now_ns) for now_ns in range(3)
    ]
    assert made[0] is made[1] is made[2]
