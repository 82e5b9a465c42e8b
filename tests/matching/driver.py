"""Runs a script through the compiled matcher, on rings in private memory, in this one thread.

The rings are the product's own; the driver plays the sequencer (writes commands) and the reader
that holds the matcher back. How large the rings are and how eagerly they are drained is what the
tests vary: it must not change a single event.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from hftcore.engine.matcher import Matcher, matcher_of, poll
from hftcore.matching.state import Shard, ShardSize, allocate, power_of_two
from hftcore.messages import SLOT_BYTES
from ipc.ring import CLAIMED, CURSOR_STRIDE, CURSORS, POSITION, SLOT_WORDS, Ring
from tests.reference.codec import encode_command, slots_of
from tests.reference.records import Command
from tests.reference.streams import Script

POLL_BUDGET = 1 << 20


@dataclass(frozen=True)
class Setup:
    """How the matcher is run; nothing here may show in its events."""

    command_capacity: int = 1 << 10
    event_capacity: int = 1 << 12
    home_count: int | None = None
    """Entries of the order index; None: the shard's own choice."""
    spare_orders: int = 0
    """Memory beyond what the script asks for: it moves slots, levels and bitmaps about."""
    drip: bool = False
    """Take one event at a time, and poll after each."""


USUAL = Setup()


class Venue:
    """The matchers of all shards on one command ring."""

    def __init__(self, script: Script, setup: Setup = USUAL) -> None:
        self.setup = setup
        self.commands = Ring.local(setup.command_capacity)
        self.position = 0
        self.shards: list[Shard] = []
        self.events: list[Ring] = []
        self.matchers: list[Matcher] = []
        self.taken: list[int] = []
        for number, memory in enumerate(script.memories):
            orders = memory.orders + setup.spare_orders
            size = ShardSize(
                order_capacity=orders,
                levels=memory.levels + 1,
                words=memory.words,
                home_count=setup.home_count or power_of_two(orders),
            )
            shard = allocate(
                size, number, shard_count=len(script.memories), allow_replay=script.allow_replay
            )
            ring = Ring.local(setup.event_capacity)
            ring.add_gating_reader(0)
            self.commands.add_gating_reader(number)
            self.shards.append(shard)
            self.events.append(ring)
            self.matchers.append(matcher_of(shard, self.commands, ring, number))
            self.taken.append(0)

    def try_write(self, record: bytes) -> bool:
        """Put one command on the ring, as the sequencer would; False when there is no room."""
        ring = self.commands
        slots = len(record) // SLOT_BYTES
        slowest = min(ring.cursor(number) for number in range(len(self.shards)))
        room = slowest + ring.capacity - self.position
        mask = ring.capacity - 1
        pad = slots == 2 and self.position & mask == mask
        if slots + pad > room:
            return False
        memory = ring.words.data.cast("B")
        for piece in [bytes(SLOT_BYTES)] * pad + [
            record[i : i + SLOT_BYTES] for i in range(0, len(record), SLOT_BYTES)
        ]:
            first = (self.position & mask) * SLOT_BYTES
            memory[first + 8 : first + SLOT_BYTES] = piece[8:]
            self.position += 1
            ring.words[first // 8] = self.position
        return True

    def take(self, number: int) -> bytes | None:
        """Take one event of a shard, as its reader would; word 0 of its slots is made 0."""
        ring = self.events[number]
        mask = ring.capacity - 1
        while True:
            position = self.taken[number]
            first = (position & mask) * SLOT_WORDS
            if ring.words[first] != position + 1:
                return None
            slots = slots_of(ring.words[first : first + SLOT_WORDS].tobytes())
            record = bytearray(ring.words[first : first + SLOT_WORDS * slots].tobytes())
            for slot in range(slots):
                assert int(ring.words[first + slot * SLOT_WORDS]) == position + slot + 1
                record[slot * SLOT_BYTES : slot * SLOT_BYTES + 8] = bytes(8)
            self.taken[number] += max(slots, 1)
            ring.cells[CURSORS : CURSORS + CURSOR_STRIDE][0] = self.taken[number]
            if slots:
                return bytes(record)

    def poll(self, number: int) -> int:
        """Let one matcher work."""
        return int(poll(self.matchers[number], POLL_BUDGET))

    def run(self, commands: list[Command]) -> Iterator[tuple[int, bytes]]:
        """Feed all commands and yield every (shard, event), each shard's in its order."""
        records = [encode_command(command) for command in commands]
        written = 0
        while True:
            before = written, list(self.taken), [self.done(n) for n in range(len(self.shards))]
            while written < len(records) and self.try_write(records[written]):
                written += 1
            for number in range(len(self.shards)):
                self.poll(number)
                while (record := self.take(number)) is not None:
                    yield number, record
                    if self.setup.drip:
                        break
            if (written, self.taken, [self.done(n) for n in range(len(self.shards))]) == before:
                break
        assert written == len(records), "the matcher stopped before the end of the commands"
        for number in range(len(self.shards)):
            assert self.done(number) == self.position, "a command is unfinished, with room for it"
            cells = self.events[number].cells
            assert int(cells[POSITION]) == self.taken[number]
            assert int(cells[CLAIMED]) >= self.taken[number], "a slot was written unannounced"

    def done(self, number: int) -> int:
        """Return the position up to which a matcher has done its commands."""
        return self.commands.cursor(number)


def apply_one(venue: Venue, command: Command) -> list[bytes]:
    """Feed one command to a venue that is otherwise idle; return its events."""
    return [record for _, record in venue.run([command])]
