"""The subscriber's books: right when they say so, and right again after whatever happened."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest
import zmq

from hftcore.marketdata.feed_book import FeedTrade
from hftcore.marketdata.feed_protocol import CHUNK_ORDERS, Refusal, SnapshotRequest, decode_reply
from hftcore.marketdata.feed_protocol import encode as encoded
from hftcore.marketdata.subscriber import Subscriber, SubscriberRefused
from hftcore.messages import EVENT, FEED_FRAME
from tests.marketdata.feed_rig import INSTRUMENTS, History, Proxy, Rig, random_rows
from tests.processes import poll_until

SYMBOLS = [instrument.symbol for instrument in INSTRUMENTS]


def count_of(frame: bytes) -> int:
    """Return how many updates a frame holds."""
    return int(np.frombuffer(frame[:64], FEED_FRAME)["count"][0])


def behind(rig: Rig, proxy: Proxy, **options: Any) -> Subscriber:
    """Make a subscriber behind a proxy, with right books."""
    subscriber = Subscriber(proxy.endpoint, rig.endpoints[1], **options)

    def right() -> bool:
        rig.turn()
        proxy.pump()
        subscriber.poll()
        known = set(subscriber.instruments) == set(rig.symbols)
        return known and all(map(subscriber.is_right, rig.symbols))

    poll_until(right, "right books behind the proxy")
    return subscriber


def settle(rig: Rig, proxy: Proxy, subscriber: Subscriber, history: History) -> None:
    """Let everything through until the books are the matcher's; never wrong on the way."""

    def complete() -> bool:
        rig.turn()
        proxy.pump()
        subscriber.poll()
        right = history.check(subscriber) == len(rig.symbols)
        found = {symbol: subscriber.feed_sequence(symbol) for symbol in rig.symbols}
        return right and found == rig.sequences()

    poll_until(complete, "the books to be right again")
    assert {symbol: subscriber.feed_hash(symbol) for symbol in rig.symbols} == rig.hashes()


def test_subscriber_that_joins_late_gets_the_books_and_goes_on() -> None:
    rng = np.random.default_rng(1)
    with Rig() as rig:
        log = [rig.random(rng, 1_000)]
        with rig.subscriber() as subscriber:
            for _ in range(30):
                log.append(rig.random(rng, 40))
                subscriber.poll()
            rig.until_right(subscriber)
            History(np.concatenate(log)).check(subscriber)
            assert subscriber.counts.snapshots >= len(SYMBOLS)
            assert subscriber.start_id == 1
            log.append(rig.random(rng, 500))
            rig.until_right(subscriber)
            assert subscriber.counts.updates > 100
            book = subscriber.book("AAA/USD", depth=3)
            best = rig.exchange.book("AAA/USD", depth=3)
            for mine, theirs in ((book.bids, best.bids), (book.asks, best.asks)):
                levels = [(level.price, level.qty, level.orders) for level in theirs]
                assert [tuple(level) for level in mine] == levels
            assert book.right
            assert book.feed_sequence == rig.sequences()["AAA/USD"]


def test_frames_dropped_on_purpose_make_a_book_not_right_until_it_is_again() -> None:
    rng = np.random.default_rng(2)
    with Rig(updates_a_frame=8) as rig, Proxy(rig) as proxy, behind(rig, proxy) as subscriber:
        drops = np.random.default_rng(22)
        logs, wrong_moments = [], 0
        for _ in range(40):
            logs.append(rig.random(rng, 60))
            history = History(np.concatenate(logs))
            proxy.pump(lambda frame: frame if drops.random() > 0.15 else None)
            subscriber.poll()
            right = history.check(subscriber)
            wrong_moments += len(SYMBOLS) - right
        assert proxy.dropped > 20
        assert subscriber.counts.gaps > 3
        assert wrong_moments > 3
        settle(rig, proxy, subscriber, history)


@pytest.mark.parametrize("seed", range(3))
def test_subscriber_that_stood_still_is_never_wrong_and_recovers(seed: int) -> None:
    rng = np.random.default_rng(seed)
    options = {"updates_a_frame": 4, "send_hwm": 4}
    with Rig(**options) as rig, rig.subscriber(receive_hwm=4) as subscriber:
        rig.until_right(subscriber)
        logs = []
        for _ in range(4):
            logs.append(rig.random(rng, 2_000))  # it does not poll: the socket drops for it
            with Proxy(rig) as unused:  # passes nothing on
                settle(rig, unused, subscriber, History(np.concatenate(logs)))
        assert subscriber.counts.gaps > 0
        assert subscriber.counts.snapshots > len(SYMBOLS)


def test_heartbeat_reveals_that_the_end_of_a_burst_was_lost() -> None:
    rng = np.random.default_rng(4)
    with Rig() as rig, Proxy(rig) as proxy, behind(rig, proxy) as subscriber:
        history = History(rig.random(rng, 200))
        before = {symbol: subscriber.feed_sequence(symbol) for symbol in SYMBOLS}

        def only_heartbeats() -> bool:
            rig.turn()
            proxy.pump(lambda frame: None if count_of(frame) else frame)
            subscriber.poll()
            history.check(subscriber)
            return subscriber.counts.gaps >= len(SYMBOLS)

        assert all(map(subscriber.is_right, SYMBOLS))
        assert before != rig.sequences()
        poll_until(only_heartbeats, "the heartbeats to tell")
        settle(rig, proxy, subscriber, history)
        assert proxy.dropped > 0


def test_feed_that_falls_silent_is_not_believed_any_more() -> None:
    rng = np.random.default_rng(5)
    with Rig() as rig, rig.subscriber() as subscriber:
        rig.random(rng, 100)
        rig.until_right(subscriber)

        def silent() -> bool:
            subscriber.poll()
            return not any(map(subscriber.is_right, SYMBOLS))

        poll_until(silent, "silence to count")
        assert not subscriber.book("AAA/USD").right
        rig.until_right(subscriber)
        assert subscriber.counts.gaps == 0


def test_another_start_of_the_venue_is_noticed_and_followed() -> None:
    rng = np.random.default_rng(6)
    with Rig(start_id=1) as rig, rig.subscriber() as subscriber:
        endpoints = rig.endpoints
        rig.random(rng, 500)
        rig.until_right(subscriber)
        rig.close()
        other = (*INSTRUMENTS[:2], INSTRUMENTS[2].__class__("DDD/USD", "0.5", "1", "100"))
        with Rig(other, start_id=2, endpoints=endpoints) as again:
            history = History(again.random(rng, 300))

            def followed() -> bool:
                again.turn()
                subscriber.poll()
                if subscriber.start_id != 2:
                    return False
                assert set(subscriber.instruments) == set(again.symbols)
                return history.check(subscriber) == 3

            poll_until(followed, "the new start")
            again.until_right(subscriber)
            assert subscriber.counts.starts >= 1
            with pytest.raises(SubscriberRefused, match="not followed"):
                subscriber.is_right("CCC/USD")


def test_update_that_does_not_fit_the_book_is_refused_and_mended() -> None:
    rng = np.random.default_rng(7)
    with Rig(updates_a_frame=4) as rig, Proxy(rig) as proxy, behind(rig, proxy) as subscriber:
        history = History(rig.random(rng, 300))
        kinds = np.random.default_rng(77)

        def spoiled(frame: bytes) -> bytes:
            if not count_of(frame) or kinds.random() > 0.3:
                return frame
            words = np.frombuffer(frame, np.int64).copy()
            words[8 + int(kinds.choice([5, 6, 7]))] = 1 << 40  # an order_id, a price or a qty
            return words.tobytes()

        proxy.pump(spoiled)
        subscriber.poll()
        history.check(subscriber)
        assert subscriber.counts.refused > 0
        settle(rig, proxy, subscriber, history)


@pytest.mark.parametrize(
    "message",
    [
        b"L3\x01\x00",
        b"L3\x01\x00" + bytes(60) + bytes(63),
        b"L3\x01\x00" + (9).to_bytes(4, "little") + bytes(56) + bytes(64),
        b"L3\x01\x00" + bytes(100_000),
        b"L3\x01\x00" + (0xFFFFFFFF).to_bytes(4, "little") + bytes(56),
    ],
    ids=["short", "torn", "fewer updates than it says", "too long", "too many updates"],
)
def test_message_that_is_no_frame_is_counted_and_changes_nothing(message: bytes) -> None:
    rng = np.random.default_rng(8)
    with Rig() as rig, Proxy(rig) as proxy, behind(rig, proxy) as subscriber:
        history = History(rig.random(rng, 100))
        settle(rig, proxy, subscriber, history)
        malformed = subscriber.counts.malformed
        proxy.outward.send(message)
        poll_until(
            lambda: subscriber.poll() >= 0 and subscriber.counts.malformed > malformed, "a count"
        )
        assert history.check(subscriber) == len(SYMBOLS)
        settle(rig, proxy, subscriber, history)


def test_snapshot_of_a_large_book_comes_in_chunks_of_one_moment() -> None:
    rng = np.random.default_rng(9)
    with Rig() as rig:
        rows = random_rows(rng, 3 * CHUNK_ORDERS, rig.exchange.next_sequence, 1, width=8)
        order = rows[:, :8]
        order[:, 1] = order[:, 1] & ~0xFF | 1  # all of them new
        order[:, 4] = np.where(np.arange(len(rows)) % 2, 50, 70) + rng.integers(0, 8, len(rows))
        order[:, 6] = np.where(np.arange(len(rows)) % 2, 1, 2) | 1 << 8 | 1 << 16  # side, GTC
        rig.play(rows)
        resting = int(rig.exchange.shard.books["order_count"][1])
        assert resting > 2 * CHUNK_ORDERS
        with rig.subscriber(symbols=["AAA/USD"]) as subscriber:
            chunks = 0
            while not subscriber.instruments or not subscriber.is_right("AAA/USD"):
                rig.random(rng, 3)  # the book moves between the chunks
                rig.turn()
                subscriber.poll()
                chunks += 1
                assert chunks < 10_000
            rig.until(
                subscriber,
                lambda: subscriber.feed_sequence("AAA/USD") == rig.sequences()["AAA/USD"],
                "the rest",
            )
            assert subscriber.feed_hash("AAA/USD") == rig.hashes()["AAA/USD"]
            assert list(subscriber.instruments) == ["AAA/USD"]


def test_callbacks_hear_every_update_and_every_trade() -> None:
    rng = np.random.default_rng(10)
    heard: dict[str, list[int]] = {symbol: [] for symbol in SYMBOLS}
    trades: list[FeedTrade] = []

    def on_updates(symbol: str, events: np.ndarray[Any, Any]) -> None:
        assert events.dtype == EVENT
        heard[symbol] += events["feed_sequence"].tolist()

    with Rig() as rig:
        with rig.subscriber(on_updates=on_updates, on_trade=trades.append) as subscriber:
            rig.until_right(subscriber)
            rows = random_rows(rng, 400, rig.exchange.next_sequence)
            made = [trade for row in rows for trade in trades_in(rig, row)]
            rig.drain()
            rig.until_right(subscriber)
        for symbol, last in rig.sequences().items():
            assert heard[symbol] == list(range(1, last + 1))
        assert len(made) > 20
        found = [(t.symbol, t.price, t.qty, t.side, t.exec_id) for t in trades]
        assert sorted(found) == sorted(made)


def trades_in(rig: Rig, row: np.ndarray[Any, Any]) -> list[tuple[Any, ...]]:
    """Play one command and return its trades as the exchange's own API tells them."""
    before = len(rig.exchange.trades)
    rig.exchange.execute(row)
    made = rig.exchange.trades[before:]
    return [(trade.symbol, trade.price, trade.qty, trade.side, trade.exec_id) for trade in made]


def test_symbol_that_is_not_on_the_feed_is_refused_by_name() -> None:
    with Rig() as rig, rig.subscriber(symbols=["AAA/USD", "ZZZ/USD"]) as subscriber:

        def asked() -> bool:
            rig.turn()
            subscriber.poll()
            return False

        with pytest.raises(SubscriberRefused, match="ZZZ/USD"):
            poll_until(asked, "a refusal")


def test_venue_that_does_not_answer_is_named_within_the_deadline() -> None:
    with (
        Subscriber("ipc://@hftcore-nobody", "ipc://@hftcore-nobody-2") as subscriber,
        pytest.raises(SubscriberRefused, match="no answer to the first question"),
    ):
        subscriber.wait_until_right(0.2)


@pytest.mark.parametrize(
    ("request_bytes", "reason"),
    [
        (b"", "no request"),
        (b"\xff" * 200, "no request"),
        (encoded({"type": "snapshot", "request_id": "x"}), "no request"),
        (encoded(SnapshotRequest(7, 999)), "no such instrument"),
    ],
)
def test_request_that_is_none_is_refused_and_the_feed_goes_on(
    request_bytes: bytes, reason: str
) -> None:
    rng = np.random.default_rng(11)
    with Rig() as rig, zmq.Context() as context, context.socket(zmq.DEALER) as socket:
        socket.set(zmq.LINGER, 0)
        socket.connect(rig.endpoints[1])
        socket.send(request_bytes)
        poll_until(lambda: bool(rig.turn() < 0 or socket.poll(0)), "an answer")
        reply = decode_reply(socket.recv())
        assert isinstance(reply, Refusal)
        assert reason in reply.reason
        with rig.subscriber() as subscriber:
            rig.random(rng, 100)
            rig.until_right(subscriber)


def test_client_that_asks_without_end_gets_no_more_than_its_share_of_copies() -> None:
    rng = np.random.default_rng(12)
    with Rig() as rig, zmq.Context() as context, context.socket(zmq.DEALER) as socket:
        socket.set(zmq.LINGER, 0)
        socket.connect(rig.endpoints[1])
        copies = 0
        copy = rig.server.copies.make

        def counted(instrument_id: int) -> np.ndarray[Any, Any]:
            nonlocal copies
            copies += 1
            began = time.monotonic()
            while time.monotonic() < began + 0.02:  # as long as a large book takes
                pass
            return copy(instrument_id)

        rig.server.copies.make = counted
        began = time.monotonic()
        while time.monotonic() < began + 1:
            if socket.poll(0, zmq.POLLOUT):  # as fast as the venue reads them
                socket.send(encoded(SnapshotRequest(1, 1)))
            rig.random(rng, 5)
            while socket.poll(0):
                socket.recv_multipart()
        assert 1 <= copies <= 1 + (time.monotonic() - began) / 0.2
        with rig.subscriber() as subscriber:  # who needs a fresh one waits for it
            rig.until_right(subscriber)
