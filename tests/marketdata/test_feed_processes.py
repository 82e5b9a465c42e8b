"""The feed between real processes: a subscriber that is stopped, a venue that is killed."""

from __future__ import annotations

import mmap
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from hftcore.marketdata.l3_book import APPLIED, apply_update, books_of
from hftcore.marketdata.subscriber import Subscriber
from hftcore.matching.state_hash import feed_hash
from hftcore.messages import ECHO
from ipc.kernel import kernel
from tests.marketdata.feed_rig import INSTRUMENTS, Rig
from tests.processes import Children, poll_until

SYMBOLS = [instrument.symbol for instrument in INSTRUMENTS]
ROUNDS, OBSERVATIONS, DONE, HELLO = range(4)
HEAD_WORDS = 8
ROOM = 200_000
"""Observations that fit: each an instrument, a feed_sequence and a hash."""


@kernel
def rebuild(books, words, hashes):  # type: ignore[no-untyped-def]
    """Apply a log's public events; note the hash of each book after each of its updates."""
    wrong = 0
    for first in range(0, len(words), 16):
        head = words[first + 1]
        if head & ECHO or words[first + 4] == 0:
            continue
        wrong += apply_update(books, words, first) != APPLIED
        number = (head >> 16) & 0xFFFF
        hashes[number, words[first + 4]] = feed_hash(books, number)
    return wrong


def shared(count: int) -> NDArray[np.int64]:
    """Map zeroed memory that children share."""
    return np.frombuffer(mmap.mmap(-1, count * 8), np.int64)


def follow(cells: NDArray[np.int64], feed: str, snapshots: str) -> Callable[[], None]:
    """Return a child's work: note what each book looks like whenever it says that it is right."""
    seen = cells[HEAD_WORDS:].reshape(-1, 3)

    def work() -> None:
        with Subscriber(feed, snapshots, receive_hwm=8) as subscriber:
            while not cells[DONE]:
                subscriber.poll(5)
                cells[HELLO] = bool(subscriber.instruments) and all(
                    map(subscriber.is_right, subscriber.instruments)
                )
                for number, symbol in enumerate(SYMBOLS, 1):
                    if subscriber.instruments and subscriber.is_right(symbol):
                        at = int(cells[OBSERVATIONS])
                        found = subscriber.feed_sequence(symbol), subscriber.feed_hash(symbol)
                        if at < ROOM:
                            seen[at] = (number, *found)
                            cells[OBSERVATIONS] = at + 1
                cells[ROUNDS] += 1

    return work


def newest(cells: NDArray[np.int64]) -> list[int]:
    """Return the feed_sequence that the child has reported last for each book."""
    seen = cells[HEAD_WORDS:].reshape(-1, 3)[: int(cells[OBSERVATIONS])]
    return [int(seen[seen[:, 0] == n, 1][-1]) if (seen[:, 0] == n).any() else -1 for n in (1, 2, 3)]


@pytest.mark.parametrize("transport", ["ipc", "tcp"])
def test_stopped_subscriber_is_never_wrong_and_recovers(
    children: Children, tmp_path: Path, transport: str
) -> None:
    rng = np.random.default_rng(1)
    cells = shared(HEAD_WORDS + 3 * ROOM)
    ends = (f"ipc://{tmp_path}/feed", f"ipc://{tmp_path}/snap")
    if transport == "tcp":
        ends = ("tcp://127.0.0.1:*", "tcp://127.0.0.1:*")
    with Rig(endpoints=ends, send_hwm=8, updates_a_frame=8) as rig:
        child = children.fork(follow(cells, *rig.endpoints))
        logs = []

        def caught_up() -> bool:
            rig.turn()
            return newest(cells) == list(rig.sequences().values())

        poll_until(lambda: bool(rig.turn() < 0 or cells[HELLO]), "the child's books to be right")
        for _ in range(2):
            logs.append(rig.random(rng, 300, batch=20))
            children.stop(child)
            for _ in range(60):  # more than its queues and the kernel's hold
                logs.append(rig.random(rng, 500))
            assert newest(cells) != list(rig.sequences().values())
            children.go_on(child)
            logs.append(rig.random(rng, 300, batch=20))
            poll_until(caught_up, "the child to recover")
        cells[DONE] = 1
        assert children.exit_code(child) == 0
        expected = list(rig.sequences().values())
    log = np.ascontiguousarray(np.concatenate(logs))
    hashes = np.zeros((4, max(expected) + 1), np.int64)
    books = books_of(
        [
            (number, each.ladder_ticks, each.order_capacity)
            for number, each in enumerate(INSTRUMENTS, 1)
        ]
    )
    assert rebuild(books, log.reshape(-1), hashes) == 0
    seen = cells[HEAD_WORDS:].reshape(-1, 3)[: int(cells[OBSERVATIONS])]
    assert len(seen) > 10
    assert (hashes[seen[:, 0], seen[:, 1]] == seen[:, 2]).all(), "a book said right and was wrong"
    # it did miss most of what was published while it stood still
    assert len(np.unique(seen[:, :2], axis=0)) < sum(expected) // 2


def test_venue_that_is_killed_and_started_again_is_followed(
    children: Children, tmp_path: Path
) -> None:
    ends = (f"ipc://{tmp_path}/feed", f"ipc://{tmp_path}/snap")
    told = shared(8)

    def serve(start_id: int) -> Callable[[], None]:
        def work() -> None:
            rng = np.random.default_rng(start_id)
            with Rig(endpoints=ends, start_id=start_id) as rig:
                rig.random(rng, 500)
                told[1:4] = list(rig.hashes().values())
                told[0] = start_id
                deadline = time.monotonic() + 60
                while time.monotonic() < deadline:
                    rig.turn()

        return work

    first = children.fork(serve(1))
    poll_until(lambda: told[0] == 1, "the venue")
    with Subscriber(*ends) as subscriber:

        def same() -> bool:
            subscriber.poll(5)
            return (
                subscriber.start_id == told[0]
                and all(map(subscriber.is_right, subscriber.instruments))
                and [subscriber.feed_hash(symbol) for symbol in SYMBOLS] == told[1:4].tolist()
            )

        poll_until(same, "the first start's books")
        before = told[1:4].tolist()
        children.kill(first)

        def silent() -> bool:
            subscriber.poll(5)
            return not any(map(subscriber.is_right, SYMBOLS))

        poll_until(silent, "the silence to be noticed")
        children.fork(serve(2))
        poll_until(lambda: told[0] == 2, "the second start")
        poll_until(same, "the second start's books")
        assert before != told[1:4].tolist()
        assert subscriber.counts.starts == 1
