"""A whole venue of several gateways and shards in this one thread, polled by hand.

The rings and polls are the product's; the rig plays the clients, and looks on: at the command ring
and the event rings as one more gating reader each. Who is polled when, how large the rings are and
how many commands a poll may do is the tests' choice, and must not show in what comes out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hftcore.accounts.gate import gate_of
from hftcore.engine import matcher as matcher_role
from hftcore.engine import reporter as reporter_role
from hftcore.engine import sequencer as sequencer_role
from hftcore.engine.matcher import matcher_of
from hftcore.engine.reporter import reporter_of
from hftcore.engine.sequencer import sequencer_of
from hftcore.engine.sequencer.state import EVENTS
from hftcore.matching.state import allocate, shard_size
from hftcore.messages import SLOT_BYTES
from ipc.ring import CURSOR_STRIDE, CURSORS, POSITION, SLOT_WORDS, Ring
from tests.reference.book import Memory, bitmap_words
from tests.reference.codec import encode_command, slots_of
from tests.reference.records import Command, Listing

ALL = 1 << 20
"""A budget that no poll uses up."""


class Reader:
    """A gating reader of a ring; `take` returns the next record, word 0 of its slots made 0."""

    def __init__(self, ring: Ring, number: int) -> None:
        self.ring, self.number, self.position = ring, number, 0
        ring.add_gating_reader(number)

    def take(self) -> bytes | None:
        """Return the next record, or None."""
        mask = self.ring.capacity - 1
        words = self.ring.words
        while True:
            first = (self.position & mask) * SLOT_WORDS
            if words[first] != self.position + 1:
                return None
            slots = slots_of(words[first : first + SLOT_WORDS].tobytes())
            record = bytearray(words[first : first + SLOT_WORDS * slots].tobytes())
            for slot in range(slots):
                assert int(words[first + slot * SLOT_WORDS]) == self.position + slot + 1
                record[slot * SLOT_BYTES : slot * SLOT_BYTES + 8] = bytes(8)
            self.position += max(slots, 1)
            self.ring.cells[CURSORS + CURSOR_STRIDE * self.number] = self.position
            if slots:
                return bytes(record)

    def take_all(self) -> list[bytes]:
        """Return all records that are there."""
        return list(iter(self.take, None))


class Writer:
    """The writer of a ring."""

    def __init__(self, ring: Ring) -> None:
        self.ring, self.position = ring, 0

    def try_write(self, record: bytes) -> bool:
        """Publish one record; False when there is no room."""
        ring = self.ring
        mask = ring.capacity - 1
        slots = len(record) // SLOT_BYTES
        pad = slots == 2 and self.position & mask == mask
        slowest = min(ring.cursor(number) for number in range(ring.readers))
        if self.position + slots + pad > slowest + ring.capacity:
            return False
        memory = ring.words.data.cast("B")
        pieces = [record[i : i + SLOT_BYTES] for i in range(0, len(record), SLOT_BYTES)]
        for piece in [bytes(SLOT_BYTES)] * pad + pieces:
            first = (self.position & mask) * SLOT_BYTES
            memory[first + 8 : first + SLOT_BYTES] = piece[8:]
            self.position += 1
            ring.words[first // 8] = self.position
        ring.cells[POSITION] = self.position
        return True


@dataclass(frozen=True)
class Logged:
    """A command as it came out of the sequencer, and what had been settled by then."""

    record: bytes
    events_settled: int
    settled_sequence: int
    clock_ns: int


class Rig:
    """Gateways, sequencer, shards, and a reporter if asked for.

    Parameters
    ----------
    listings : sequence of Listing
        What the shards must have room for; they are not sent.
    """

    def __init__(
        self,
        listings: Sequence[Listing],
        *,
        gateways: int = 1,
        shards: int = 1,
        capacity: int = 64,
        event_capacity: int = 0,
        report_capacity: int = 0,
        open_orders: int = 1000,
        dup_window: int = 1000,
        interval_ns: int = 0,
        first_sequence: int = 1,
        reporter: bool = False,
    ) -> None:
        self.ingress = [Ring.local(capacity, 1) for _ in range(gateways)]
        self.commands = Ring.local(capacity, shards + 2)
        self.events = [Ring.local(event_capacity or capacity, 3) for _ in range(shards)]
        self.clients = [Writer(ring) for ring in self.ingress]
        for ring in self.ingress:
            ring.add_gating_reader(0)
        self.shards = [
            allocate(shard_size(_ladders(listings, n)), n, shard_count=shards)
            for n in range(shards)
        ]
        self.gate = gate_of(open_orders, dup_window)
        self.sequencer = sequencer_of(
            self.ingress,
            self.commands,
            self.events,
            [shard.matched for shard in self.shards],
            gate=self.gate,
            first_sequence=first_sequence,
        )
        self.state = self.sequencer.state
        self.state["interval_ns"] = interval_ns
        self.matchers = [
            matcher_of(shard, self.commands, ring, number)
            for number, (shard, ring) in enumerate(zip(self.shards, self.events, strict=True))
        ]
        for number in range(shards):
            self.commands.add_gating_reader(number)
            self.events[number].add_gating_reader(0)
        self.log_reader = Reader(self.commands, shards + 1)
        self.event_readers = [Reader(ring, 2) for ring in self.events]
        self.log: list[Logged] = []
        self.answers: list[tuple[int, bytes]] = []
        """(shard, event), each shard's in its order."""
        if reporter:
            self._add_reporter(report_capacity or capacity, first_sequence)
        self.has_reporter = reporter

    def _add_reporter(self, capacity: int, first_sequence: int) -> None:
        """Put the reporter beside the others, with a report ring for each gateway."""
        shards = len(self.shards)
        self.reports = [Ring.local(capacity, 1) for _ in self.ingress]
        self.report_readers = [Reader(ring, 0) for ring in self.reports]
        self.commands.add_gating_reader(shards)
        for ring in self.events:
            ring.add_gating_reader(1)
        self.reporter = reporter_of(
            self.commands,
            self.events,
            [shard.matched for shard in self.shards],
            self.reports,
            command_reader=shards,
            event_reader=1,
            positions=self.sequencer.positions,
            first_sequence=first_sequence,
        )

    def counters_of(self, number: int) -> int:
        """Return one of the sequencer's counters."""
        return int(self.sequencer.counters[number * 8])

    # --- who is polled -------------------------------------------------------------------------

    def send(self, gateway: int, command: Command | bytes) -> bool:
        """Write a command into a gateway's ingress ring; False when there is no room."""
        record = command if isinstance(command, bytes) else encode_command(command)
        return self.clients[gateway].try_write(record)

    def sequence(self, budget: int = ALL) -> int:
        """Poll the sequencer, and take what it wrote into the log."""
        done = int(sequencer_role.poll(self.sequencer, budget))
        settled = self.counters_of(EVENTS)
        state = self.state[0]
        self.log += [
            Logged(record, settled, int(state["settled_sequence"]), int(state["clock_ns"]))
            for record in self.log_reader.take_all()
        ]
        return done

    def match(self, shard: int = 0, budget: int = ALL) -> int:
        """Poll a matcher."""
        return int(matcher_role.poll(self.matchers[shard], budget))

    def report(self, budget: int = ALL) -> int:
        """Poll the reporter."""
        return int(reporter_role.poll(self.reporter, budget))

    def look(self) -> int:
        """Take events that the rig has not seen yet."""
        before = len(self.answers)
        for number, reader in enumerate(self.event_readers):
            self.answers += [(number, record) for record in reader.take_all()]
        return len(self.answers) - before

    def turn(self) -> int:
        """Poll everybody once; return the work done."""
        done = self.sequence()
        for number in range(len(self.shards)):
            done += self.match(number)
        if self.has_reporter:
            done += self.report()
        return done + self.look()

    def settle(self) -> None:
        """Poll everybody until nothing is left to do."""
        for _ in range(1_000_000):
            if self.turn() == 0:
                return
        raise AssertionError("the venue does not come to rest")

    def play(self, gateway: int, *commands: Command | bytes) -> list[bytes]:
        """Send commands one by one, each to its end; return what went into the log."""
        before = len(self.log)
        for command in commands:
            assert self.send(gateway, command)
            self.settle()
        return [logged.record for logged in self.log[before:]]

    def answer_records(self) -> list[bytes]:
        """Return the events of all shards in the log's order."""
        return [
            record
            for _, record in sorted(
                self.answers, key=lambda answer: int.from_bytes(answer[1][16:24], "little")
            )
        ]


def _ladders(listings: Sequence[Listing], shard: int) -> list[tuple[int, int]]:
    mine = [(x.ladder_ticks, x.order_capacity) for x in listings if x.shard == shard]
    return mine or [(2, 1)]


def memories_of(listings: Sequence[Listing], shards: int) -> list[Memory]:
    """Return what the rig's shards have, for the reference venue."""
    found = []
    for shard in range(shards):
        ladders = _ladders(listings, shard)
        size = shard_size(ladders)
        words = sum(2 * bitmap_words(ticks) for ticks, _ in ladders)
        found.append(Memory(size.order_capacity, size.levels, words))
    return found
