"""How a book becomes right again: never by a snapshot older than what the venue has told.

The venue's cached copies are made old on purpose, frames are dropped or spoiled between publisher
and subscriber, and the snapshot of a busy book is slowed down.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from hftcore import Instrument
from hftcore.marketdata import feed_replies, frames, questions, subscriber
from hftcore.marketdata.feed_protocol import SnapshotRequest
from hftcore.marketdata.questions import Recovery
from hftcore.marketdata.subscriber import Subscriber, SubscriberRefused
from hftcore.messages import EVENT, FEED_FRAME, NEW_ORDER, Side
from tests.marketdata.feed_rig import History, Proxy, Rig, random_rows
from tests.processes import poll_until

ONE = (Instrument("AAA/USD", "0.01", "1", "2", order_capacity=4_096),)
FAR_NS = 1 << 60
Choose = Callable[[bytes], bytes | None]


def count_of(frame: bytes) -> int:
    """Return how many updates a frame holds."""
    return int(np.frombuffer(frame[:64], FEED_FRAME)["count"][0])


def heartbeats_alone(frame: bytes) -> bytes | None:
    """Lose every frame with updates."""
    return None if count_of(frame) else frame


def spoiled(frame: bytes) -> bytes:
    """Give each frame's first update an order_id that no book has."""
    words = np.frombuffer(frame, np.int64).copy()
    if count_of(frame):
        words[8 + 5] = 1 << 40
    return words.tobytes()


def turn(rig: Rig, proxy: Proxy, follower: Subscriber, choose: Choose) -> None:
    """Let publisher, proxy and subscriber do one round."""
    rig.turn()
    proxy.pump(choose)
    follower.poll()


def resting(rng: np.random.Generator, count: int, sequence: int) -> NDArray[np.int64]:
    """Make new orders that rest far from the middle."""
    rows = random_rows(rng, count, sequence, 1)
    orders = rows[:, :8].copy().view(NEW_ORDER)[:, 0]
    sells = np.arange(count) % 2
    orders["kind"], orders["order_type"], orders["time_in_force"] = 1, 1, 1
    orders["side"] = np.where(sells, Side.SELL, Side.BUY)
    orders["price"] = np.where(sells, 85, 25) + rng.integers(0, 8, count)
    rows[:, :8] = orders.view(np.int64).reshape(-1, 8)
    return rows


def keep_an_old_copy(rig: Rig) -> list[int]:
    """Leave the venue with a copy of the book as it is now; return what later requests ask for."""
    copies, newest = rig.server.copies, rig.sequences()["AAA/USD"]
    assert copies.find(SnapshotRequest(1, 1), newest, FAR_NS) is not None
    copies._next_ns = FAR_NS  # as after a copy of a very large book
    find, asked = copies.find, []

    def noted(request: SnapshotRequest, newest: int, now_ns: int) -> Any:
        asked.append(request.least_feed_sequence)
        return find(request, newest, now_ns)

    copies.find = noted  # type: ignore[method-assign]
    return asked


@pytest.mark.parametrize("loss", [heartbeats_alone, spoiled], ids=["lost tail", "refused"])
def test_old_copy_is_not_taken_for_the_book_after_a_loss(loss: Choose) -> None:
    rng = np.random.default_rng(1)
    with (
        Rig(ONE, updates_a_frame=4) as rig,
        Proxy(rig) as proxy,
        Subscriber(proxy.endpoint, rig.endpoints[1]) as follower,
    ):
        log = [rig.random(rng, 200)]

        def complete() -> bool:
            turn(rig, proxy, follower, lambda frame: frame)
            known = bool(follower.instruments) and follower.is_right("AAA/USD")
            return known and follower.feed_sequence("AAA/USD") == rig.sequences()["AAA/USD"]

        poll_until(complete, "a right book")
        asked = keep_an_old_copy(rig)
        old = rig.sequences()["AAA/USD"]
        log.append(rig.random(rng, 50))
        poll_until(complete, "some updates more")
        had = follower.feed_sequence("AAA/USD")
        assert had > old
        log.append(rig.random(rng, 3))
        assert rig.sequences()["AAA/USD"] > had

        def asks() -> bool:
            turn(rig, proxy, follower, loss)
            return bool(asked)

        poll_until(asks, "a request for a snapshot")
        for _ in range(200):  # an answer would have come by now
            turn(rig, proxy, follower, heartbeats_alone)
            assert not follower.is_right("AAA/USD")
            assert follower.feed_sequence("AAA/USD") >= had
        assert min(asked) > had
        rig.server.copies._next_ns = 0
        poll_until(complete, "the book to be right again")
        assert History(np.concatenate(log)).check(follower) == 1
        assert follower.feed_hash("AAA/USD") == rig.hashes()["AAA/USD"]


def test_snapshot_older_than_a_heartbeat_that_came_meanwhile_is_not_placed() -> None:
    rng = np.random.default_rng(2)
    with Rig(ONE) as rig, Proxy(rig) as proxy:
        rig.random(rng, 100)
        with Subscriber(proxy.endpoint, rig.endpoints[1]) as follower:

            def until(choose: Choose, condition: Callable[[], bool], what: str) -> None:
                def turned() -> bool:
                    turn(rig, proxy, follower, choose)
                    return condition()

                poll_until(turned, what)

            asked, find = keep_an_old_copy(rig), rig.server.copies.find
            rig.random(rng, 30)  # it will be told of, and nothing more

            def held(*arguments: Any) -> None:
                find(*arguments)

            rig.server.copies.find = held  # type: ignore[method-assign]
            until(lambda frame: None, lambda: bool(asked), "a request")
            assert asked[0] == 0
            until(heartbeats_alone, lambda: follower._recoveries[1].newest > 0, "a heartbeat")
            rig.server.copies.find = find  # type: ignore[method-assign]
            until(heartbeats_alone, lambda: follower.counts.gaps > 0, "a snapshot to be refused")
            assert not follower.is_right("AAA/USD")
            assert follower.counts.snapshots == 0
            rig.server.copies._next_ns = 0
            until(lambda frame: frame, lambda: follower.is_right("AAA/USD"), "a right book")
            assert follower.feed_hash("AAA/USD") == rig.hashes()["AAA/USD"]


def test_busy_book_whose_snapshot_takes_thousands_of_frames_recovers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rng = np.random.default_rng(3)
    monkeypatch.setattr(feed_replies, "CHUNK_ORDERS", 4)
    monkeypatch.setattr(feed_replies, "CHUNKS_A_TURN", 1)
    with Rig(ONE, updates_a_frame=1) as rig:
        rig.play(resting(rng, 400, rig.exchange.next_sequence))
        with rig.subscriber() as follower:
            rounds = 0
            while not follower.instruments or not follower.is_right("AAA/USD"):
                rig.random(rng, 100, width=4)  # its chunks come one a round
                follower.poll()
                rounds += 1
                assert rounds < 400, "a book that never recovers"
            rig.until_right(follower)
            assert follower.counts.snapshots == 1


def frame_of(first: int, updates: int, start_id: int = 1) -> NDArray[np.int64]:
    """Make a frame's words; updates that hold nothing but their numbers."""
    words = np.zeros((1 + updates, 8), np.int64)
    words[0, :5] = frames.L3 | 1 << 16 | updates << 32, 1, start_id, first, first - 1
    words[1:, 1] = 1 << 16
    words[1:, 4] = np.arange(first, first + updates)
    return words.reshape(-1)


def test_frames_that_do_not_fit_any_more_go_and_the_request_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    size = frame_of(1, 1).nbytes + questions._FRAME_BYTES
    monkeypatch.setattr(questions, "MAX_KEPT_BYTES", 10 * size)
    recovery = Recovery((1, 1), request_id=7, asked_ns=5)
    for first in range(1, 31):
        recovery.hear(frame_of(first, 1))
    assert [int(words[3]) for words in recovery.kept] == list(range(21, 31))
    assert (recovery.least, recovery.newest) == (20, 30)
    assert (recovery.request_id, recovery.asked_ns) == (7, 5)


@pytest.mark.parametrize(
    ("heard", "least", "newest", "kept"),
    [
        ([(11, 2)], 10, 12, 1),
        ([(11, 2), (13, 1)], 10, 13, 2),
        ([(9, 2), (11, 1)], 8, 11, 2),
        ([(5, 2)], 10, 10, 0),
        ([(14, 2)], 13, 15, 1),
        ([(11, 2), (15, 1)], 14, 15, 1),
        ([(11, 2), (13, 0)], 10, 12, 1),
        ([(11, 2), (20, 0)], 19, 19, 0),
        ([(20, 0)], 19, 19, 0),
        ([(20, 0), (11, 2)], 19, 19, 0),
        ([(20, 0), (18, 2)], 17, 19, 1),
        ([(5, 0)], 10, 10, 0),
    ],
)
def test_least_snapshot_is_what_leads_to_the_newest_update_told_of(
    heard: list[tuple[int, int]], least: int, newest: int, kept: int
) -> None:
    recovery = Recovery((1, 1), newest=10)
    for first, updates in heard:
        recovery.hear(frame_of(first, updates))
    assert (recovery.least, recovery.newest, len(recovery.kept)) == (least, newest, kept)
    recovery.hear(frame_of(3, 1, start_id=2))  # another start counts from the beginning
    assert (recovery.start, recovery.least, recovery.newest) == ((2, 1), 2, 3)


@pytest.mark.parametrize("word", [1, 4], ids=["instrument", "number"])
def test_frame_that_is_malformed_in_the_middle_leaves_nothing_applied(word: int) -> None:
    rng = np.random.default_rng(4)
    heard: list[int] = []

    def on_updates(symbol: str, events: NDArray[Any]) -> None:
        assert events.dtype == EVENT, symbol
        heard.extend(events["feed_sequence"].tolist())

    def torn(frame: bytes) -> bytes:
        words = np.frombuffer(frame, np.int64).copy()
        if count_of(frame) > 1:
            words[16 + word] ^= 1 << 20  # of the second update
        return words.tobytes()

    with (
        Rig(ONE) as rig,
        Proxy(rig) as proxy,
        Subscriber(proxy.endpoint, rig.endpoints[1], on_updates=on_updates) as follower,
    ):

        def right() -> bool:
            turn(rig, proxy, follower, lambda frame: frame)
            return bool(follower.instruments) and follower.is_right("AAA/USD")

        poll_until(right, "a right book")
        log = rig.random(rng, 100)
        poll_until(
            lambda: bool(turn(rig, proxy, follower, torn)) or follower.counts.malformed > 0,
            "a malformed frame",
        )
        assert heard == list(range(1, follower.feed_sequence("AAA/USD") + 1))
        assert follower.counts.updates == len(heard)
        History(log).check(follower)
        poll_until(right, "a right book again")


def test_socket_that_fails_is_an_error_and_not_a_malformed_frame(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with Rig(ONE) as rig, rig.subscriber() as follower:
        rig.until_right(follower)
        no_socket = np.zeros(1_024, np.int64)
        assert frames.receive(follower._follower, no_socket.ctypes.data, 1)[0] == (
            frames.SOCKET_FAILED
        )
        monkeypatch.setattr(subscriber, "receive", lambda *_: (frames.SOCKET_FAILED, 88))
        with pytest.raises(SubscriberRefused, match="errno 88"):
            follower.poll()
        assert follower.counts.malformed == 0
