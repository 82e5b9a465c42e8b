"""One flow through a venue of processes, and four opinions on what its books must be.

The log is read from the command ring, which is large enough here to hold all of it. Then, for each
instrument: the matcher's book in shared memory, the subscriber's from the ZMQ feed, the book of
`Exchange` on the same log, and the reference model's, queue by queue. With four shards `Exchange`
still has one, so that is one shard against four on the same commands.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from hftcore import Exchange
from hftcore.instruments import Instrument
from hftcore.marketdata.subscriber import Subscriber
from hftcore.matching.state import Shard, shard_size
from hftcore.matching.state_hash import book_hash, feed_hash
from hftcore.messages import CommandKind
from hftcore.ops import demo_processes as processes
from hftcore.ops.demo import prepare
from hftcore.ops.demo_processes import Board, Drive, drive
from hftcore.ops.launch import running_venue
from hftcore.ops.venue_file import VenueRecord, attached
from ipc.ring import TWO_SLOTS, Ring
from tests.matching.walk import check_book
from tests.ops.venues import INSTRUMENTS, Place
from tests.processes import Children, poll_until
from tests.reference.book import Memory, Venue
from tests.reference.codec import decode_command

COMMANDS = 4_000
CHANGES = (CommandKind.CANCEL_ORDER, CommandKind.REPLACE_ORDER, CommandKind.REDUCE_ORDER)
SLOTS = 1 << 15
"""Of the command ring: more than the whole log takes."""


def log_of(ring: Ring) -> NDArray[np.int64]:
    """Return every command of a ring that was never lapped: int64[n, 16], word 0 zero."""
    assert ring.position < ring.capacity
    rows, position = [], 0
    while position < ring.position:
        words = ring.words[position * 8 : position * 8 + 16]
        slots = 2 if words[1] & TWO_SLOTS else 1
        if words[1]:
            row = np.zeros(16, np.int64)
            row[: slots * 8] = words[: slots * 8]
            row[[0, 8]] = 0
            rows.append(row)
        position += slots
    return np.array(rows)


def exchange_of(log: NDArray[np.int64]) -> Exchange:
    """Play a venue's log through the venue in one process, as it stands."""
    listed = (log[:, 1] & 0xFF) == CommandKind.INSTRUMENT_DEFINE
    rest = log[log[:, 2] > log[listed, 2].max()]
    exchange = Exchange(INSTRUMENTS)  # lists by itself, under other sequences
    exchange.sequencer.state["next_sequence"] = rest[0, 2]
    exchange.sequencer.state["as_logged"] = 1
    played = exchange.play(rest)
    assert played.count == len(rest)
    return exchange


def reference_of(log: NDArray[np.int64], instruments: tuple[Instrument, ...], shards: int) -> Venue:
    """Play a venue's log through the reference model."""
    memories = []
    for shard in range(shards):
        ladders = [
            (each.ladder_ticks, each.order_capacity) for each in instruments if each.shard == shard
        ]
        size = shard_size(ladders)
        memories.append(Memory(size.order_capacity, size.levels, size.words))
    reference = Venue(memories)
    for row in log:
        slots = 2 if row[1] & TWO_SLOTS else 1
        reference.apply(decode_command(row[: slots * 8].tobytes()))
    return reference


@pytest.fixture(params=[1, 4])
def busy(
    request: pytest.FixtureRequest, place: Place, children: Children
) -> Iterator[tuple[VenueRecord, Board, Subscriber]]:
    """Run a venue, drive the flow through it to its end, and follow its feed."""
    config = place.config(
        shards=request.param, command_slots=SLOTS, report_slots=1 << 17,
    )  # fmt: skip
    prepare()
    board = Board.create(len(INSTRUMENTS))
    with running_venue(config, base=place.base) as record:
        settings = Drive(1.0, COMMANDS, 11)
        with Subscriber(record.endpoints["feed"][0], record.endpoints["snapshot"][0]) as feed:
            feed.wait_until_right()
            pid = children.fork(lambda: drive(record, place.base, settings, board))
            poll_until(lambda: _driven(feed, board), "the flow to end")
            assert children.exit_code(pid) == 0
            yield record, board, feed


def _driven(feed: Subscriber, board: Board) -> bool:
    feed.poll(1)
    return int(board.cells[processes.DRIVER]) == processes.DONE


def test_matcher_subscriber_exchange_and_reference_have_the_same_books(
    busy: tuple[VenueRecord, Board, Subscriber], place: Place
) -> None:
    record, board, feed = busy
    instruments = record.config.instruments
    counted = dict(board.counters)
    assert counted["commands_sent"] == counted["commands_answered"] == COMMANDS
    assert counted["trades"] == counted["expected_trades"] > COMMANDS // 20
    assert (counted["rejects"], counted["doubled"], counted["misanswered"]) == (0, 0, 0)
    _, memory = attached(record.config.name, place.base)
    with memory:
        shards: list[Shard] = [memory.shard(number) for number in range(record.config.shards)]
        log = log_of(memory.commands())
        exchange = exchange_of(log)
        reference = reference_of(log, instruments, record.config.shards)
        for number, instrument in enumerate(instruments, 1):
            shard = shards[instrument.shard]
            assert int(book_hash(shard, number)) == exchange.book_hash(instrument.symbol)
            check_book(shard, number, reference.books[number])
            target = int(shard.books[number]["feed_sequence"])
            poll_until(lambda: _reached(feed, instrument.symbol, target), "the feed to come")  # noqa: B023
            assert feed.is_right(instrument.symbol)
            assert feed.feed_hash(instrument.symbol) == int(feed_hash(shard, number))
            assert shard.books[number]["order_count"] > 50
    kinds = set((log[:, 1] & 0xFF).tolist())
    assert {CommandKind.EPOCH, CommandKind.SESSION_ATTACH, *CHANGES} <= kinds


def _reached(feed: Subscriber, symbol: str, target: int) -> bool:
    feed.poll(1)
    return feed.feed_sequence(symbol) >= target


def test_a_log_that_was_lapped_is_not_taken_for_one(tmp_path: Path) -> None:
    ring = Ring.local(8)
    ring.cells[16] = 9
    with pytest.raises(AssertionError):
        log_of(ring)
