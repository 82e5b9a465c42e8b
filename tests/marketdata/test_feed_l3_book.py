"""The book built from the feed: a public event moves it, one that can't be right does not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from hftcore.errors import ConfigurationRefused
from hftcore.marketdata import l3_book
from hftcore.marketdata.l3_book import (
    APPLIED,
    books_of,
    clear_book,
    copied_orders,
    place_book,
    rest_all,
)
from hftcore.matching.state import Shard
from hftcore.matching.state_hash import book_hash, feed_hash
from hftcore.messages import ECHO, EVENT, EventKind, Flags
from ipc.kernel import kernel
from tests.marketdata.feed_rig import INSTRUMENTS, Model, Rig, orders_of
from tests.matching.walk import find_all

LADDER, CAPACITY = 100, 4
SELL, RESTS, KEPT, LAST = (int(flag) for flag in (Flags.SELL, Flags.RESTS, Flags.KEPT_PRIORITY, 2))


@kernel
def apply_one(shard: Any, words: Any) -> int:
    """Apply the event that `words` holds."""
    return l3_book.apply_update(shard, words, 0)


def event(
    kind: int, order_id: int, price: int, qty: int, flags: int = 0, instrument_id: int = 1
) -> NDArray[np.int64]:
    """Make an event; its feed_sequence is filled in by `apply`."""
    words = np.zeros(8, np.int64)
    row = words.view(EVENT)[0]
    row["kind"], row["flags"], row["instrument_id"] = kind, flags, instrument_id
    row["order_id"], row["price"], row["qty"] = order_id, price, qty
    return words


def apply(shard: Shard, words: NDArray[np.int64], gap: int = 0) -> int:
    """Apply an event as the next one, or further ahead."""
    instrument_id = int(words.view(EVENT)["instrument_id"][0])
    words[4] = 1 + gap
    if instrument_id < len(shard.books):
        words[4] += shard.books["feed_sequence"][instrument_id]
    return int(apply_one(shard, words))


def book() -> Shard:
    """Return a book: two bids at 10 (orders 1, 2: 5 and 6 lots), an ask at 20 (order 3: 7 lots)."""
    shard = books_of([(1, LADDER, CAPACITY)])
    assert apply(shard, event(EventKind.ACCEPTED, 1, 10, 5, RESTS)) == APPLIED
    assert apply(shard, event(EventKind.BOOKED, 2, 10, 6, RESTS)) == APPLIED
    assert apply(shard, event(EventKind.ACCEPTED, 3, 20, 7, RESTS | SELL)) == APPLIED
    return shard


def listed(shard: Shard) -> list[tuple[int, ...]]:
    """Return the orders of a book, without the side."""
    return [(each[0], each[2], each[3]) for each in orders_of(copied_orders(shard, 1).view(EVENT))]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (event(EventKind.TRADE, 1, 10, 2, SELL), [(1, 10, 3), (2, 10, 6), (3, 20, 7)]),
        (event(EventKind.TRADE, 1, 10, 5, SELL), [(2, 10, 6), (3, 20, 7)]),
        (event(EventKind.TRADE, 3, 20, 7), [(1, 10, 5), (2, 10, 6)]),
        (event(EventKind.CANCELED, 1, 10, 5), [(2, 10, 6), (3, 20, 7)]),
        (event(EventKind.EXPIRED, 2, 10, 6), [(1, 10, 5), (3, 20, 7)]),
        (event(EventKind.RESTATED, 1, 10, 1, KEPT), [(1, 10, 1), (2, 10, 6), (3, 20, 7)]),
        (event(EventKind.REPLACED, 1, 10, 4, KEPT), [(1, 10, 4), (2, 10, 6), (3, 20, 7)]),
        (event(EventKind.REPLACED, 1, 10, 9, RESTS), [(2, 10, 6), (1, 10, 9), (3, 20, 7)]),
        (event(EventKind.REPLACED, 1, 11, 9, RESTS), [(1, 11, 9), (2, 10, 6), (3, 20, 7)]),
        (event(EventKind.REPLACED, 1, 20, 9), [(2, 10, 6), (3, 20, 7)]),
        (event(EventKind.PHASE_CHANGED, 0, 0, 0), [(1, 10, 5), (2, 10, 6), (3, 20, 7)]),
    ],
)
def test_event_does_to_the_book_what_it_says(
    words: NDArray[np.int64], expected: list[tuple[int, ...]]
) -> None:
    shard = book()
    assert apply(shard, words) == APPLIED
    assert listed(shard) == expected
    assert shard.books["feed_sequence"][1] == 4
    assert shard.books["order_count"][1] == len(expected)


@pytest.mark.parametrize(
    ("words", "status"),
    [
        (event(EventKind.ACCEPTED, 1, 10, 5, RESTS), l3_book.KNOWN_ORDER),
        (event(EventKind.ACCEPTED, 0, 10, 5, RESTS), l3_book.KNOWN_ORDER),
        (event(EventKind.ACCEPTED, -4, 10, 5, RESTS), l3_book.KNOWN_ORDER),
        (event(EventKind.ACCEPTED, 9, 10, 5), l3_book.BAD_KIND),
        (event(EventKind.ACCEPTED, 9, 0, 5, RESTS), l3_book.BAD_PRICE),
        (event(EventKind.ACCEPTED, 9, LADDER, 5, RESTS), l3_book.BAD_PRICE),
        (event(EventKind.ACCEPTED, 9, -1, 5, RESTS), l3_book.BAD_PRICE),
        (event(EventKind.ACCEPTED, 9, 10, 0, RESTS), l3_book.BAD_QTY),
        (event(EventKind.ACCEPTED, 9, 10, 1 << 62, RESTS), l3_book.BAD_QTY),
        (event(EventKind.TRADE, 9, 10, 1, SELL), l3_book.UNKNOWN_ORDER),
        (event(EventKind.TRADE, 1, 10, 6, SELL), l3_book.BAD_QTY),
        (event(EventKind.TRADE, 1, 10, 0, SELL), l3_book.BAD_QTY),
        (event(EventKind.TRADE, 1, 10, -1, SELL), l3_book.BAD_QTY),
        (event(EventKind.TRADE, 1, 11, 1, SELL), l3_book.BAD_PRICE),
        (event(EventKind.TRADE, 1, 10, 1), l3_book.BAD_SIDE),
        (event(EventKind.CANCELED, 1, 10, 4), l3_book.BAD_QTY),
        (event(EventKind.CANCELED, 1, 11, 5), l3_book.BAD_PRICE),
        (event(EventKind.CANCELED, 1, 10, 5, SELL), l3_book.BAD_SIDE),
        (event(EventKind.RESTATED, 1, 10, 6, KEPT), l3_book.BAD_QTY),
        (event(EventKind.RESTATED, 1, 10, 4), l3_book.BAD_QTY),
        (event(EventKind.REPLACED, 1, 11, 4, KEPT), l3_book.BAD_PRICE),
        (event(EventKind.REPLACED, 1, LADDER, 4, RESTS), l3_book.BAD_PRICE),
        (event(EventKind.REPLACED, 1, 1 << 40, 4, RESTS), l3_book.BAD_PRICE),
        (event(EventKind.REPLACED, 1, 11, 0, RESTS), l3_book.BAD_QTY),
        (event(EventKind.REJECTED, 1, 10, 5), l3_book.BAD_KIND),
        (event(EventKind.WATERMARK, 1, 10, 5), l3_book.BAD_KIND),
        (event(14 | ECHO, 1, 10, 5), l3_book.BAD_KIND),
        (event(EventKind.CANCELED, 1, 10, 5, instrument_id=2), l3_book.NOT_LISTED),
        (event(EventKind.CANCELED, 1, 10, 5, instrument_id=0xFFFF), l3_book.NOT_LISTED),
    ],
)
def test_event_that_can_not_be_right_is_refused_and_changes_nothing(
    words: NDArray[np.int64], status: int
) -> None:
    shard = book()
    before = copied_orders(shard, 1).tobytes(), shard.books.tobytes(), shard.levels.tobytes()
    assert apply(shard, words) == status
    assert (
        copied_orders(shard, 1).tobytes(),
        shard.books.tobytes(),
        shard.levels.tobytes(),
    ) == before


@pytest.mark.parametrize("gap", [-1, 1, 1 << 40])
def test_event_that_is_not_the_next_one_is_refused(gap: int) -> None:
    shard = book()
    assert apply(shard, event(EventKind.CANCELED, 1, 10, 5), gap) == l3_book.SEQUENCE_GAP
    assert len(listed(shard)) == 3


def test_order_beyond_the_instruments_capacity_is_refused() -> None:
    shard = book()
    assert apply(shard, event(EventKind.BOOKED, 4, 10, 1, RESTS)) == APPLIED
    assert apply(shard, event(EventKind.BOOKED, 5, 10, 1, RESTS)) == l3_book.NO_ROOM


def test_random_events_never_damage_the_book() -> None:
    rng = np.random.default_rng(1)
    shard = books_of([(1, 12, 40), (2, 12, 40)])
    taken = np.zeros(10, np.int64)
    for _ in range(20_000):
        words = event(
            int(rng.integers(0, 18)),
            int(rng.integers(0, 60)),
            int(rng.integers(0, 13)),
            int(rng.integers(0, 4)),
            int(rng.integers(0, 256)),
            int(rng.integers(0, 4)),
        )
        taken[apply(shard, words)] += 1
    assert taken[APPLIED] > 1_000
    assert (taken > 0).sum() >= 7
    slots = np.zeros(60, np.int64)
    find_all(shard, np.arange(60), slots)
    live = np.flatnonzero(slots)
    for number in (1, 2):  # what is there can be listed, cleared, and put back
        orders = copied_orders(shard, number)
        sequence = int(shard.books["feed_sequence"][number])
        hashed = feed_hash(shard, number)
        assert set(orders.view(EVENT)["order_id"].tolist()) <= set(live.tolist())
        clear_book(shard, number)
        assert feed_hash(shard, number) == 0
        assert shard.books["order_count"][number] == 0
        assert rest_all(shard, number, orders, 0, len(orders) // 8) == APPLIED
        place_book(shard, number, sequence)
        assert feed_hash(shard, number) == hashed
    assert len(live) == shard.books["order_count"].sum() == shard.progress["live_orders"][0]


def test_books_from_a_feed_are_the_models_and_the_matchers() -> None:
    rng = np.random.default_rng(2)
    shard = books_of(
        [
            (number, each.ladder_ticks, each.order_capacity)
            for number, each in enumerate(INSTRUMENTS, 1)
        ]
    )
    models = [Model() for _ in INSTRUMENTS]
    with Rig() as rig:
        for words in rig.random(rng, 2_000)[:, :8].copy():
            row = words.view(EVENT)[0]
            if row["kind"] & ECHO or not row["feed_sequence"]:
                continue
            assert apply_one(shard, words) == APPLIED
            models[int(row["instrument_id"]) - 1].apply(row)
        for number, model in enumerate(models, 1):
            assert orders_of(copied_orders(shard, number).view(EVENT)) == model.listed()
            assert feed_hash(shard, number) == feed_hash(rig.exchange.shard, number) != 0
            # owners and totals are not public
            assert book_hash(shard, number) != book_hash(rig.exchange.shard, number)


def test_feed_hash_tells_books_apart_that_the_public_can_tell_apart() -> None:
    hashes = {feed_hash(book(), 1)}
    for words in (
        event(EventKind.TRADE, 1, 10, 2, SELL),
        event(EventKind.CANCELED, 3, 20, 7, SELL),
        event(EventKind.REPLACED, 1, 10, 5, RESTS),  # only its place
        event(EventKind.REPLACED, 1, 9, 5, RESTS),
    ):
        shard = book()
        assert apply(shard, words) == APPLIED
        hashes.add(feed_hash(shard, 1))
    assert len(hashes) == 5


def test_instrument_that_no_book_can_be_made_for_is_refused() -> None:
    with pytest.raises(ConfigurationRefused, match="instrument 1"):
        books_of([(1, LADDER, 1), (1, LADDER, 1)])
    with pytest.raises(ConfigurationRefused, match="1 ticks"):
        books_of([(1, 1, 1)])
