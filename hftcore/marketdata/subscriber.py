"""The subscriber's client: books of a venue, rebuilt from its feed, that know when they are right.

    venue --XPUB--> SUB ----> `frames.receive` --> books
          <-ROUTER-> DEALER -> instruments, snapshots

A newcomer needs the two endpoints and nothing else: it asks for the instruments, subscribes, asks
for a snapshot of each book, keeps the frames that arrive meanwhile, and joins the two by
feed_sequence. A gap, an update that does not fit, or another start of the venue makes a book not
right at once, and the same path leads back.

**What right means**: the book is exactly the venue's at `feed_sequence`, no frame has told of a
newer update, and the feed has been heard from lately (a heartbeat counts, and tells if the tail of
a burst was lost). A book that may be wrong says that it is not right, so whoever trades by it asks
`is_right` first. A snapshot older than what the venue has told is not put in place.

Single-threaded: everything happens within `poll`. Comes after `frames`, `questions`, `feed_book`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any, Self

import numpy as np
import zmq
from numpy.typing import NDArray

from hftcore.errors import Refused
from hftcore.marketdata import frames
from hftcore.marketdata.feed_book import FeedBook, FeedTrade, book_of, trades_of
from hftcore.marketdata.feed_protocol import FeedInstrument, InstrumentsReply, SnapshotReply
from hftcore.marketdata.frames import Follower, apply_frame, follower_of, receive
from hftcore.marketdata.l3_book import (
    APPLIED,
    books_of,
    clear_book,
    copied_orders,
    place_book,
    rest_all,
)
from hftcore.marketdata.questions import RETRY_NS, Counts, Questions, Recovery
from hftcore.matching.state_hash import feed_hash
from hftcore.messages import EVENT, SLOT_BYTES

RECEIVE_HWM = 100_000
FRAMES_A_CALL = 256
_WORDS = SLOT_BYTES // 8


class SubscriberRefused(Refused):
    """A symbol that is not on the feed, or a venue that does not answer."""


OnUpdates = Callable[[str, NDArray[Any]], None]
OnTrade = Callable[[FeedTrade], None]


class Subscriber:
    """Follow a venue's books.

    Parameters
    ----------
    feed_endpoint, snapshot_endpoint : str
        Of the venue's feed.
    symbols : iterable of str, optional
        What to follow; default: everything on the feed.
    on_updates : callable, optional
        Called with (symbol, EVENT[n]) after they were applied; the array is valid within the call.
    on_trade : callable, optional
        Called with each trade. Neither hears what fell into a gap.
    receive_hwm : int
        Frames that wait in this process before the venue keeps, then drops, further ones.

    Examples
    --------
    >>> with Subscriber("tcp://127.0.0.1:5601", "tcp://127.0.0.1:5602") as feed:  # doctest: +SKIP
    ...     feed.wait_until_right()
    ...     feed.book("BTC/USD").bids[0].price
    """

    def __init__(
        self,
        feed_endpoint: str,
        snapshot_endpoint: str,
        symbols: Iterable[str] | None = None,
        *,
        on_updates: OnUpdates | None = None,
        on_trade: OnTrade | None = None,
        receive_hwm: int = RECEIVE_HWM,
    ) -> None:
        self._symbols = None if symbols is None else tuple(symbols)
        self._on_updates, self._on_trade = on_updates, on_trade
        self.instruments: dict[str, FeedInstrument] = {}
        self.start_id = self.epoch = 0
        self._ids: dict[int, str] = {}
        self._follower: Follower | None = None
        self._recoveries: dict[int, Recovery] = {}
        self._heard: dict[int, tuple[int, int]] = {}
        self._silence_ns = 0
        self._lost = dict.fromkeys(Counts._fields[2:], 0)
        self._passed = np.zeros(2, np.int64)
        self._context = zmq.Context()
        self._sub = self._context.socket(zmq.SUB)
        self._sub.set(zmq.RCVHWM, receive_hwm)
        dealer = self._context.socket(zmq.DEALER)
        self._questions = Questions(dealer)
        for socket, endpoint in ((self._sub, feed_endpoint), (dealer, snapshot_endpoint)):
            socket.set(zmq.LINGER, 0)
            socket.set(zmq.RECONNECT_IVL, 20)
            socket.set(zmq.RECONNECT_IVL_MAX, 500)
            socket.connect(endpoint)
        self._poller = zmq.Poller()
        self._poller.register(self._sub, zmq.POLLIN)
        self._poller.register(dealer, zmq.POLLIN)

    # -- what it knows --------------------------------------------------------------------------

    def is_right(self, symbol: str) -> bool:
        """Return whether the book is the venue's at its feed_sequence, as far as one can know."""
        instrument_id = self._id_of(symbol)
        assert self._follower is not None
        link = self._follower.links[instrument_id]
        frames_heard, heard_ns = self._heard.get(instrument_id, (0, 0))
        if int(link["heard"]) != frames_heard:  # within a callback: heard since the last look
            heard_ns = time.monotonic_ns()
        known = bool(link["synced"]) and instrument_id not in self._recoveries
        return known and time.monotonic_ns() - heard_ns < self._silence_ns

    def book(self, symbol: str, depth: int = 10) -> FeedBook:
        """Return the best levels of a book, and whether it is right."""
        right = self.is_right(symbol)
        assert self._follower is not None
        return book_of(self._follower.books, self.instruments[symbol], depth, right)

    def feed_sequence(self, symbol: str) -> int:
        """Return up to which update a book is built."""
        instrument_id = self._id_of(symbol)
        assert self._follower is not None
        return int(self._follower.books.books["feed_sequence"][instrument_id])

    def feed_hash(self, symbol: str) -> int:
        """Return the hash of a book; the matcher's at the same feed_sequence is equal."""
        instrument_id = self._id_of(symbol)
        assert self._follower is not None
        return int(feed_hash(self._follower.books, instrument_id))

    def orders(self, symbol: str) -> NDArray[Any]:
        """Return every resting order as an EVENT: bids, asks; best level first, oldest first."""
        instrument_id = self._id_of(symbol)
        assert self._follower is not None
        return copied_orders(self._follower.books, instrument_id).view(EVENT)

    @property
    def counts(self) -> Counts:
        """What happened so far."""
        applied = self._passed.copy()
        if self._follower is not None:
            applied += self._follower.tally[:2]
        lost = dict(self._lost, malformed=self._lost["malformed"] + self._questions.malformed)
        return Counts(int(applied[0]), int(applied[1]), **lost)

    def _id_of(self, symbol: str) -> int:
        if symbol not in self.instruments:
            raise SubscriberRefused(
                "this book is not followed",
                expected=", ".join(self.instruments) or "an answer of the venue first",
                found=repr(symbol),
                remedy="poll until `instruments` has it, or correct the symbol",
            )
        return self.instruments[symbol].instrument_id

    # -- what happens ---------------------------------------------------------------------------

    def poll(self, timeout_ms: int = 0) -> int:
        """Take in what has arrived, waiting up to `timeout_ms` for something; return updates."""
        before = self.counts.updates
        self._ask()
        self._poller.poll(int(timeout_ms))
        self._take_replies()
        self._take_frames()
        self._ask()
        return self.counts.updates - before

    def wait_until_right(self, timeout_s: float = 10.0) -> None:
        """Poll until every followed book is right.

        Raises
        ------
        SubscriberRefused
            When that takes too long.
        """
        deadline = time.monotonic() + timeout_s
        while not (self.instruments and all(map(self.is_right, self.instruments))):
            if time.monotonic() > deadline:
                late = [symbol for symbol in self.instruments if not self.is_right(symbol)]
                raise SubscriberRefused(
                    "the books did not become right",
                    expected=f"an answer and a heartbeat of the venue within {timeout_s:g} s",
                    found=", ".join(late) or "no answer to the first question",
                    remedy="check the endpoints, and that the venue is up (hft stat)",
                )
            self.poll(20)

    def close(self) -> None:
        """Close the sockets."""
        self._context.destroy(linger=0)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    # -- frames ---------------------------------------------------------------------------------

    def _take_frames(self) -> None:
        """Apply every frame that is there; deal with those that are out of order."""
        follower = self._follower
        if follower is None:
            return
        one_by_one = self._on_updates is not None or self._on_trade is not None
        for _ in range(FRAMES_A_CALL):  # then the replies are looked at again
            outcome, size = receive(
                follower, self._sub.underlying, 1 if one_by_one else FRAMES_A_CALL
            )
            if outcome == frames.NOTHING:
                break
            if outcome == frames.TAKEN:
                if one_by_one:
                    self._tell(follower.frame)
                continue
            self._mend(outcome, follower.frame, int(size))
        now_ns = time.monotonic_ns()
        for instrument_id in self._ids:
            count = int(follower.links["heard"][instrument_id])
            if self._heard.get(instrument_id, (-1, 0))[0] != count:
                self._heard[instrument_id] = count, now_ns

    def _tell(self, words: NDArray[np.int64]) -> None:
        """Hand the new updates of the frame just applied to whoever asked for them."""
        assert self._follower is not None
        new = int(self._follower.tally[frames.APPLIED_NOW])
        updates = (int(words[0]) >> 32) & 0xFFFFFFFF
        if not new:
            return
        symbol = self._ids[(int(words[0]) >> 16) & 0xFFFF]
        events = words[(1 + updates - new) * _WORDS : (1 + updates) * _WORDS].view(EVENT)
        if self._on_updates is not None:
            self._on_updates(symbol, events)
        if self._on_trade is not None:
            for trade in trades_of(self.instruments[symbol], events):
                self._on_trade(trade)

    def _mend(self, outcome: int, words: NDArray[np.int64], size: int) -> None:
        """Deal with a frame that could not be applied."""
        if outcome == frames.SOCKET_FAILED:
            raise SubscriberRefused(
                "the feed can't be received any more",
                expected="a socket that receives",
                found=f"errno {size}: {zmq.strerror(size)}",
                remedy="make another Subscriber; this one's sockets are of no use",
            )
        if outcome == frames.MALFORMED:
            self._lost["malformed"] += 1
            return
        if outcome == frames.OTHER_START:
            if (int(words[2]), int(words[1])) != (self.start_id, self.epoch):
                if not self._questions.waits_for_instruments:
                    self._lost["starts"] += 1
                self._questions.ask_instruments()
        elif outcome == frames.GAP:
            self._lost["gaps"] += 1
        elif outcome == frames.REFUSED:
            self._lost["refused"] += 1
        instrument_id = (int(words[0]) >> 16) & 0xFFFF
        recovery = self._recoveries.get(instrument_id) or self._lose(instrument_id)
        recovery.hear(words[: size // 8], keep=outcome != frames.REFUSED)

    def _lose(self, instrument_id: int) -> Recovery:
        """Note that a book may be wrong from now on, and begin again."""
        assert self._follower is not None
        link = self._follower.links[instrument_id]
        link["synced"] = 0
        own = int(self._follower.books.books["feed_sequence"][instrument_id])
        recovery = Recovery((int(link["start_id"]), int(link["epoch"])), own)
        self._recoveries[instrument_id] = recovery
        return recovery

    # -- requests and replies -------------------------------------------------------------------

    def _ask(self) -> None:
        """Ask what is unknown, and ask again what was not answered."""
        if self._follower is None or self._questions.waits_for_instruments:
            self._questions.ask_instruments()
            return
        for instrument_id, recovery in self._recoveries.items():
            self._questions.ask_snapshot(recovery, instrument_id)

    def _take_replies(self) -> None:
        for reply, orders in self._questions.answers():
            if isinstance(reply, InstrumentsReply):
                self._take_instruments(reply)
            elif isinstance(reply, SnapshotReply):
                self._take_chunk(reply, orders)
            else:
                self._lost["refused"] += 1

    def _take_instruments(self, reply: InstrumentsReply) -> None:
        """Learn what is on the feed; make the books, unless they fit what was there before."""
        wanted = {
            each.symbol: each
            for each in reply.instruments
            if self._symbols is None or each.symbol in self._symbols
        }
        missing = set(self._symbols or ()) - set(wanted)
        if missing:
            raise SubscriberRefused(
                "this venue's feed does not have the symbol",
                expected=", ".join(each.symbol for each in reply.instruments),
                found=", ".join(sorted(missing)),
            )
        self.start_id, self.epoch = reply.start_id, reply.epoch
        self._silence_ns = max(4 * reply.heartbeat_ns, RETRY_NS)
        if self._follower is None or wanted != self.instruments:
            self.instruments = wanted
            self._make_books()
        assert self._follower is not None
        for instrument_id in self._ids:
            link = self._follower.links[instrument_id]
            start = self.start_id, self.epoch
            if (int(link["start_id"]), int(link["epoch"])) != start:
                link["start_id"], link["epoch"], link["synced"] = *start, 0
                recovery = self._recoveries.get(instrument_id)
                if recovery is None or recovery.start != start:
                    self._recoveries[instrument_id] = Recovery(start)

    def _make_books(self) -> None:
        """Make empty books for the instruments, and subscribe to them."""
        if self._follower is not None:
            self._passed += self._follower.tally[:2]
        for instrument_id in self._ids:
            self._sub.unsubscribe(_topic(instrument_id))
        self._follower = follower_of(books_of([each.limits for each in self.instruments.values()]))
        self._ids = {each.instrument_id: symbol for symbol, each in self.instruments.items()}
        self._heard.clear()
        self._recoveries = {n: one for n, one in self._recoveries.items() if n in self._ids}
        for instrument_id in self._ids:
            self._follower.links["followed"][instrument_id] = 1
            self._sub.subscribe(_topic(instrument_id))

    def _take_chunk(self, reply: SnapshotReply, orders: bytes) -> None:
        """Collect a snapshot; put it in place when it is whole."""
        recovery = self._recoveries.get(reply.instrument_id)
        if (reply.start_id, reply.epoch) != (self.start_id, self.epoch):
            self._questions.ask_instruments()
        elif recovery is not None and recovery.take(reply, orders):
            self._place(reply, recovery)

    def _place(self, reply: SnapshotReply, recovery: Recovery) -> None:
        """Make a book of a snapshot and of the frames that came meanwhile."""
        follower, instrument_id = self._follower, reply.instrument_id
        assert follower is not None
        if reply.feed_sequence < recovery.least:  # what is between the two was missed
            self._lost["gaps"] += 1
            recovery.ask_again(at_once=reply.feed_sequence >= recovery.asked_least)
            return
        clear_book(follower.books, instrument_id)
        for chunk in recovery.chunks:
            words = np.frombuffer(chunk, np.int64)
            if rest_all(follower.books, instrument_id, words, 0, len(words) // _WORDS) != APPLIED:
                self._lost["refused"] += 1
                clear_book(follower.books, instrument_id)
                recovery.ask_again(at_once=False)
                return
        place_book(follower.books, instrument_id, reply.feed_sequence)
        recovery.chunks = []
        follower.links["synced"][instrument_id] = 1
        self._lost["snapshots"] += 1
        while recovery.kept:  # it is not right before it is as far as it heard that the venue is
            words = recovery.oldest()
            outcome = int(apply_frame(follower, words, words.nbytes))
            if outcome != frames.TAKEN:
                follower.links["synced"][instrument_id] = 0
                recovery.ask_again(at_once=True)
                self._mend(outcome, words, words.nbytes)
                return
            self._tell(words)
        del self._recoveries[instrument_id]


def _topic(instrument_id: int) -> bytes:
    return b"L3" + instrument_id.to_bytes(2, "little")
