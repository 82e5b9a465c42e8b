"""The feed's sockets: frames out on PUB, snapshots on request, heartbeats when nothing happens.

One thread owns all of it and turns `run_slice`: the compiled poll as long as there are events,
then, at most once a millisecond, what may be done in Python: requests, chunks of snapshots,
heartbeats. Each of them is bounded, whatever clients send. Between two slices nothing is held that
could stop the venue.

**A slow subscriber never stops the venue**: by default the socket is a PUB, which drops what a
subscriber has no room for (SEND_HWM frames each). It costs that subscriber alone a gap, which it
sees by the frames' sequences and mends by a snapshot. A PUB also throws away what clients send
upstream; an XPUB keeps it in memory until somebody reads it, however much that is. With `lossless`
it is an XPUB with XPUB_NODROP: the publisher waits for the slowest subscriber instead and, gating
the event rings, the matchers wait too: right for a benchmark or a test that counts every update,
wrong for a venue, where any client that connects and stops reading would hold up trading.

A snapshot is copied in one piece between two polls, so it is one moment's book, and sent in chunks
(`feed_replies`). The feed stands still while a book is copied, so copies may take a tenth of the
time at most: who asks meanwhile gets the copy that there is, or waits.

Create it in the process that runs it: ZMQ's threads don't survive a fork. Comes after `publisher`,
`feed_replies`; before `ops`, which runs one in a worker of its own.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

import msgspec
import numpy as np
import zmq
from numpy.typing import NDArray

from hftcore.errors import ConfigurationRefused, Refused
from hftcore.marketdata.feed_copies import Copies
from hftcore.marketdata.feed_protocol import (
    MAX_REQUEST_BYTES,
    FeedInstrument,
    InstrumentsReply,
    InstrumentsRequest,
    Refusal,
    decode_request,
    encode,
)
from hftcore.marketdata.feed_replies import CHUNKS_A_TURN, Replies
from hftcore.marketdata.l3_book import copied_orders
from hftcore.marketdata.publisher import run, send_frame, send_heartbeats
from hftcore.marketdata.publisher_state import (
    FAILURES,
    L3,
    SNAPSHOTS_REFUSED,
    SUBSCRIPTIONS,
    UPDATES_A_FRAME,
    Publisher,
    publisher_of,
)
from ipc.counters import COUNTER_WORDS
from ipc.ring import Ring

SEND_HWM = 4_096
"""Frames that wait for one subscriber before it loses some: at most 34 MB of full ones."""
HEARTBEAT_MS = 100
SPACING_US = 25
"""Between two flushes. At 100,000 updates a second 25 make 51,000 frames a second, p50 84 us over
tcp to 4 subscribers; 60 make 25,000 and 99 us, 120 make 14,000 and 136 us; p99 is level."""
BUDGET = 1_024
"""Events of a shard between two looks at the clock."""
SERVICE_NS = 1_000_000
"""Between two looks at the sockets that Python serves."""
REQUESTS_A_SERVICE = 4
SUBSCRIPTIONS_A_SERVICE = 64
"""What is read of an XPUB's clients at a time: they may send without end."""


class FeedFailed(Refused):
    """The feed can't go on: an event that can't be right, or a socket that refuses."""


class FeedServer:
    """The market data of one venue start, for all its shards.

    Parameters
    ----------
    events, matched : sequences
        The event ring of each shard, and the line with its matched_sequence.
    instruments : sequence of FeedInstrument
        What is on the feed.
    publish_endpoints : sequence of str
        Where frames are published, ipc:// or tcp://; a port may be `*`.
    snapshot_endpoint : str
        Where requests are answered.
    start_id, epoch : int
        Of the venue; in every frame.
    reader : int
        Which gating reader of every event ring the publisher is.
    positions, counters : int64[:], optional
        The venue's positions (RELEASED, PUBLISHED) and this role's counters.
    io_cpus : sequence of int
        Cpus for ZMQ's I/O thread; empty: wherever the process may run.
    lossless : bool
        Wait for the slowest subscriber. Benchmarks and tests only.
    spacing_us : int
        Least distance of two flushes of frames that are not full.

    Raises
    ------
    ConfigurationRefused
        When an endpoint can't be bound.
    """

    def __init__(
        self,
        events: Sequence[Ring],
        matched: Sequence[NDArray[np.int64]],
        instruments: Sequence[FeedInstrument],
        *,
        publish_endpoints: Sequence[str],
        snapshot_endpoint: str,
        start_id: int,
        epoch: int = 1,
        reader: int = 2,
        positions: NDArray[np.int64] | None = None,
        counters: NDArray[np.int64] | None = None,
        io_cpus: Sequence[int] = (),
        lossless: bool = False,
        updates_a_frame: int = UPDATES_A_FRAME,
        spacing_us: int = SPACING_US,
        heartbeat_ms: int = HEARTBEAT_MS,
        send_hwm: int = SEND_HWM,
    ) -> None:
        self.instruments = tuple(instruments)
        self._heartbeat_ns = heartbeat_ms * 1_000_000
        self._context = zmq.Context()
        try:
            for cpu in io_cpus:
                self._context.set(zmq.THREAD_AFFINITY_CPU_ADD, cpu)
            self._lossless = lossless
            self._feed = self._context.socket(zmq.XPUB if lossless else zmq.PUB)
            self._feed.set(zmq.SNDHWM, send_hwm)
            if lossless:
                self._feed.set(zmq.XPUB_NODROP, 1)
                self._feed.set(zmq.XPUB_VERBOSE, 1)  # every newcomer is counted
            self._feed.set(zmq.MAXMSGSIZE, MAX_REQUEST_BYTES)
            self.publish_endpoints = tuple(_bound(self._feed, where) for where in publish_endpoints)
            self._router = self._context.socket(zmq.ROUTER)
            self._router.set(zmq.ROUTER_MANDATORY, 1)
            self._router.set(zmq.SNDHWM, 2 * CHUNKS_A_TURN)
            self._router.set(zmq.MAXMSGSIZE, MAX_REQUEST_BYTES)
            self.snapshot_endpoint = _bound(self._router, snapshot_endpoint)
            self.publisher: Publisher = publisher_of(
                events,
                matched,
                [instrument.limits for instrument in instruments],
                self._feed.underlying,
                start_id=start_id,
                epoch=epoch,
                reader=reader,
                positions=positions,
                counters=counters,
                updates_a_frame=updates_a_frame,
                spacing_ns=spacing_us * 1_000,
            )
        except BaseException:
            self.close()
            raise
        self._start_id, self._epoch = start_id, epoch
        self.copies = Copies(self.snapshot)
        self.replies = Replies(self.copies, self._send, self._count, start_id, epoch)
        self._service_at_ns = self._heartbeat_at_ns = 0

    def run_slice(self, until_ticks: int = 0) -> int:
        """Publish until the cycle counter shows `until_ticks` or nothing is left to do.

        Returns
        -------
        int
            Events taken, requests and chunks; 0: wait before you call again, a millisecond at most.

        Raises
        ------
        FeedFailed
            When the feed can't be continued without being wrong.
        """
        state = self.publisher.state[0]
        done = int(run(self.publisher, BUDGET, until_ticks))
        if state["failure"]:
            raise self._failure()
        # frames that keep their distance are no reason to sleep, those without room are
        done += int(state["pending_count"] > 0 and not state["blocked"])
        now_ns = time.monotonic_ns()
        if now_ns >= self._service_at_ns:
            done += self._serve(now_ns)
            self._service_at_ns = now_ns + SERVICE_NS
        return done

    def snapshot(self, instrument_id: int) -> NDArray[np.int64]:
        """Return the orders of a book as a snapshot has them: each a BOOKED event, 8 words."""
        return copied_orders(self.publisher.books, instrument_id)

    def close(self) -> None:
        """Close the sockets; what was sent and not taken yet is dropped."""
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

    def _failure(self) -> FeedFailed:
        state = self.publisher.state[0]
        return FeedFailed(
            FAILURES[int(state["failure"])],
            expected="every event in order, and a socket that sends",
            found=f"sequence or errno {int(state['failure_place'])}",
            where="publisher",
            remedy="restart the venue and keep its log: this is a defect, not an operator's error",
        )

    def _serve(self, now_ns: int) -> int:
        """Do what Python does: heartbeats, requests, chunks, and an XPUB's subscriptions."""
        if self._lossless:
            self._take_subscriptions()
        if now_ns >= self._heartbeat_at_ns:
            send_heartbeats(self.publisher, self._heartbeat_ns // 2)
            self._heartbeat_at_ns = now_ns + self._heartbeat_ns // 2
        done = 0
        with suppress(zmq.Again):
            while done < REQUESTS_A_SERVICE:
                self._answer(self._router.recv_multipart(zmq.NOBLOCK))
                done += 1
        return done + self.replies.serve(self._newest, now_ns)

    def _newest(self, instrument_id: int) -> int:
        return int(self.publisher.books.books["feed_sequence"][instrument_id])

    def _take_subscriptions(self) -> None:
        """Count what subscribers subscribed; libzmq has acted on it already."""
        with suppress(zmq.Again):
            for _ in range(SUBSCRIPTIONS_A_SERVICE):
                if self._feed.recv(zmq.NOBLOCK)[:1] == b"\x01":
                    self._count(SUBSCRIPTIONS)

    def _tell_place(self, instrument_id: int) -> None:
        """Say where the feed is: who asks for a snapshot has probably just subscribed."""
        place = int(self.publisher.place_of[instrument_id])
        row = self.publisher.places[place]
        now_ns = time.time_ns()
        if not row["is_pending"] and now_ns - int(row["sent_ns"]) >= SERVICE_NS:
            send_frame(self.publisher, place, L3, now_ns)

    def _answer(self, parts: list[bytes]) -> None:
        """Answer one request, or begin to."""
        identity = parts[0]
        try:
            request = decode_request(parts[-1])
        except msgspec.DecodeError:
            self._refuse(identity, 0, "this is no request of the feed's protocol")
            return
        if isinstance(request, InstrumentsRequest):
            self._send(
                [
                    identity,
                    encode(
                        InstrumentsReply(
                            request.request_id,
                            self._start_id,
                            self._epoch,
                            self._heartbeat_ns,
                            self.instruments,
                        )
                    ),
                ]
            )
            return
        known = {instrument.instrument_id for instrument in self.instruments}
        if request.instrument_id not in known:
            self._refuse(identity, request.request_id, "no such instrument is on this feed")
            return
        self._tell_place(request.instrument_id)
        if not self.replies.ask(identity, request):
            self._refuse(identity, request.request_id, "too many ask for snapshots; ask again")

    def _refuse(self, identity: bytes, request_id: int, reason: str) -> None:
        self._send([identity, encode(Refusal(request_id, reason))])
        self._count(SNAPSHOTS_REFUSED)

    def _send(self, parts: list[Any]) -> bool | None:
        """Send one reply; False: no room now, None: nobody is there any more."""
        try:
            self._router.send_multipart(parts, zmq.NOBLOCK)
        except zmq.Again:
            return False
        except zmq.ZMQError as error:
            if error.errno != zmq.EHOSTUNREACH:
                raise
            return None
        return True

    def _count(self, counter: int) -> None:
        self.publisher.counters[counter * COUNTER_WORDS] += 1


def _bound(socket: zmq.Socket[bytes], endpoint: str) -> str:
    """Bind a socket and return where it is, its port resolved."""
    try:
        socket.bind(endpoint)
    except zmq.ZMQError as error:
        raise ConfigurationRefused(
            "the feed can't be offered here",
            expected="a free ipc:// or tcp:// endpoint of this host",
            found=str(error),
            where=endpoint,
            remedy="choose another endpoint, or end what listens there (ss -ltnp)",
        ) from error
    return bytes(socket.get(zmq.LAST_ENDPOINT)).rstrip(b"\0").decode()
