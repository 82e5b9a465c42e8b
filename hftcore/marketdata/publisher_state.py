"""What the publisher remembers: frames that are being filled, what was sent, the books behind it.

One instrument has one place: a row of what was sent, and room for two frames, one of all updates
and one of trades alone. The arrays are private to the publisher's process; the rings, the
positions and the counters are shared. Before `publisher`, whose kernels work on all of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hftcore.errors import ConfigurationRefused
from hftcore.limits import MAX_INSTRUMENTS
from hftcore.marketdata.l3_book import books_of
from hftcore.matching.state import Shard
from hftcore.messages import MAX_SEQUENCE, POSITIONS_WORDS, RELEASED, SLOT_BYTES, Flags
from ipc.counters import Counters
from ipc.ring import Ring
from ipc.ring_table import table_of

MAX_FRAME_UPDATES = 256
UPDATES_A_FRAME = 128
"""Default. 64 to 256 were level within the noise of the host (perf/LEDGER.md)."""
MAX_FRAME_BYTES = SLOT_BYTES * (1 + MAX_FRAME_UPDATES)

L3 = int.from_bytes(b"L3", "little")
TRADES = int.from_bytes(b"TR", "little")
"""Topics: the first word of a frame begins with one."""

PUBLIC_FLAGS = int(Flags.SELL | Flags.LAST | Flags.RESTS | Flags.KEPT_PRIORITY)
"""The others would tell that an event has a second slot and of which kind: a client order id of the
command's own, hidden lots."""

PUBLISHING = np.dtype(
    [
        ("socket", "<i8"),  # address of the XPUB socket
        ("start_id", "<i8"),
        ("epoch", "<i8"),
        ("reader", "<i8"),  # which gating reader of every event ring this is
        ("updates_a_frame", "<i8"),
        ("spacing_ns", "<i8"),
        ("pending_count", "<i8"),  # instruments with updates that are not sent yet
        ("flushed_ns", "<i8"),  # UTC: when frames that were not full were sent last
        ("blocked", "<i8"),  # 1: the last send found no room (lossless only)
        ("failure", "<i8"),  # 0, or what has stopped it for good; see FAILURES
        ("failure_place", "<i8"),  # where
        ("published", "<i8"),  # sequence up to which everything was sent
    ]
)
PLACE = np.dtype(
    [
        ("instrument_id", "<i8"),
        ("count", "<i8"),  # updates in its L3 frame
        ("previous", "<i8"),  # feed_sequence of the last update sent on L3
        ("trade_count", "<i8"),
        ("trade_previous", "<i8"),
        ("last_sequence", "<i8"),  # of the newest update's command
        ("sent_ns", "<i8"),  # UTC, newest L3 frame
        ("is_pending", "<i8"),
    ]
)

FAILURES = {1: "an event does not fit the publisher's book", 2: "libzmq refused to send"}
EVENT_REFUSED, SEND_REFUSED = FAILURES

COUNTERS = (
    "updates_sent",
    "trades_sent",
    "frames_sent",
    "heartbeats_sent",
    "events_not_public",
    "sends_blocked",
    "snapshots_sent",
    "snapshots_refused",
    "subscriptions",
)
(
    UPDATES_SENT, TRADES_SENT, FRAMES_SENT, HEARTBEATS_SENT, NOT_PUBLIC, BLOCKED, SNAPSHOTS_SENT,
    SNAPSHOTS_REFUSED, SUBSCRIPTIONS,
) = range(len(COUNTERS))  # fmt: skip
"""Their numbers."""

_WORDS = SLOT_BYTES // 8


class Publisher(NamedTuple):
    """What the publisher's poll works on.

    Attributes
    ----------
    table : RING_ROW[shards]
        The event rings, matched_sequence beside each.
    at : int64[shards]
        Position of the next record of each.
    state : PUBLISHING[1]
    places : PLACE[instruments]
        In the order in which the instruments were given.
    place_of : int64[MAX_INSTRUMENTS]
        Row of `places` by instrument_id, -1: not on this feed.
    frames, trades : int64[instruments * (1 + updates_a_frame) * 8]
        The frame that is being filled, by place: all updates, and trades alone.
    pending : int64[instruments]
        Places with updates that are not sent yet.
    books : Shard
        What was published, as books.
    positions : int64[POSITIONS_WORDS]
        Shared: RELEASED is read, PUBLISHED written.
    counters : int64[counters * 8]
        COUNTERS. Shared, written.
    timespec : int64[2]
    """

    table: NDArray[Any]
    at: NDArray[np.int64]
    state: NDArray[Any]
    places: NDArray[Any]
    place_of: NDArray[np.int64]
    frames: NDArray[np.int64]
    trades: NDArray[np.int64]
    pending: NDArray[np.int64]
    books: Shard
    positions: NDArray[np.int64]
    counters: NDArray[np.int64]
    timespec: NDArray[np.int64]


def publisher_of(
    events: Sequence[Ring],
    matched: Sequence[NDArray[np.int64]],
    instruments: Sequence[tuple[int, int, int]],
    socket: int,
    *,
    start_id: int,
    epoch: int = 1,
    reader: int = 2,
    positions: NDArray[np.int64] | None = None,
    counters: NDArray[np.int64] | None = None,
    updates_a_frame: int = UPDATES_A_FRAME,
    spacing_ns: int = 0,
) -> Publisher:
    """Join the event rings of all shards to a socket.

    Parameters
    ----------
    events, matched : sequences
        One ring a shard, and the line with its matched_sequence.
    instruments : sequence of (instrument_id, ladder_ticks, order_capacity)
        What is on the feed; events of others are skipped.
    socket : int
        `Socket.underlying` of an XPUB socket that this thread alone uses.
    reader : int
        Which gating reader of every event ring this is.
    positions, counters : int64[:], optional
        Shared cells; without them everything counts as released.
    """
    if not 1 <= updates_a_frame <= MAX_FRAME_UPDATES:
        raise ConfigurationRefused(
            "frames of this size can't be sent",
            expected=f"1 to {MAX_FRAME_UPDATES} updates a frame",
            found=str(updates_a_frame),
        )
    if positions is None:
        positions = np.zeros(POSITIONS_WORDS, np.int64)
        positions[RELEASED] = MAX_SEQUENCE
    state = np.zeros(1, PUBLISHING)
    state["socket"], state["start_id"], state["epoch"] = socket, start_id, epoch
    state["reader"], state["spacing_ns"] = reader, spacing_ns
    state["updates_a_frame"] = updates_a_frame
    places = np.zeros(len(instruments), PLACE)
    places["instrument_id"] = [instrument_id for instrument_id, _, _ in instruments]
    place_of = np.full(MAX_INSTRUMENTS, -1, np.int64)
    place_of[places["instrument_id"]] = np.arange(len(instruments))
    size = len(instruments) * (1 + updates_a_frame) * _WORDS
    return Publisher(
        table=table_of(events, matched),
        at=np.array([ring.cursor(reader) for ring in events], np.int64),
        state=state,
        places=places,
        place_of=place_of,
        frames=np.zeros(size, np.int64),
        trades=np.zeros(size, np.int64),
        pending=np.zeros(len(instruments), np.int64),
        books=books_of(instruments),
        positions=positions,
        counters=Counters.local(COUNTERS).words if counters is None else counters,
        timespec=np.zeros(2, np.int64),
    )
