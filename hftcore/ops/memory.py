"""The shared memory of a venue: every region by name, and the rings and arrays laid over them.

    ingress-<g> --> commands --> events-<s> --> reports-<g>          rings
    shard-<s>-<array>  positions  gateways                           what roles know
    counters-<role>  state-<role>  status  bells                     what tools and sleepers look at

The supervisor makes all of it before it forks, so its workers inherit the mappings and nothing is
opened twice; clients and tools attach by name, tools read-only. Each region carries the venue's
start id as its epoch, so nobody joins rings of two starts. This file is the only one that knows
the names, the sizes, and which reader of a ring is whose.

Comes after `config` and the roles, whose dtypes it lays out; before `supervisor`, `worker`, and
every tool.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from hftcore.engine import reporter, sequencer
from hftcore.marketdata import publisher_state
from hftcore.matching.state import PROGRESS, Shard, allocate, shard_size
from hftcore.messages import (
    GATEWAY_WORDS,
    MAX_SEQUENCE,
    POSITIONS_WORDS,
    RELEASED,
    stream_layout,
)
from hftcore.ops.config import VenueConfig
from ipc import counters
from ipc.header import HEADER_BYTES, layout_hash
from ipc.latest import words_for as latest_words
from ipc.region import Region
from ipc.ring import Ring, words_for
from ipc.wait import BELL_WORDS

COMMANDS, POSITIONS, GATEWAYS, BELLS, STATUS = (
    "commands",
    "positions",
    "gateways",
    "bells",
    "status",
)
SETTLEMENT, REPORTER, PUBLISHER = 0, 1, 2
"""Readers of an event ring. Of the command ring: matcher s is reader s, the reporter the last."""

WORKER_STATUS = np.dtype(
    [
        ("pid", "<i8"),
        ("state", "<i8"),  # WorkerState
        ("cpu", "<i8"),  # that it last ran on
        ("slices", "<i8"),  # returns to Python
        ("turns", "<i8"),  # polls of all its roles
        ("work", "<i8"),  # what those polls did, in commands, events, frames
        ("idle", "<i8"),  # turns that found nothing
        ("sleeps", "<i8"),
        ("updated_ns", "<i8"),  # UTC
        ("reserved", "<i8", (6,)),
    ]
)
"""What a worker says of itself, in a latest cell of its own."""
STATUS_WORDS = latest_words(WORKER_STATUS.itemsize // 8)
_WORD = np.dtype("<i8")

_COUNTERS = {
    "sequencer": sequencer.COUNTERS,
    "reporter": reporter.COUNTERS,
    "publisher": publisher_state.COUNTERS,
}


@dataclass(frozen=True)
class RegionPlan:
    """One region that a venue needs."""

    name: str
    payload_bytes: int
    layout: int
    kind: str
    sparse: bool = False


def counter_names(role: str) -> tuple[str, ...]:
    """Return the names of a role's counters; a matcher counts nothing, its events say it all."""
    return _COUNTERS.get(role, ())


def state_dtype(role: str) -> np.dtype[Any] | None:
    """Return the dtype of a role's state that tools may read, None when it has none."""
    found: np.dtype[Any] | None = {
        "sequencer": sequencer.SEQUENCING,
        "reporter": reporter.REPORTING,
    }.get(role)
    return found


def roles_of(config: VenueConfig) -> list[str]:
    """Return every role of a venue."""
    shards = [f"matcher-{shard}" for shard in range(config.shards)]
    return ["sequencer", *shards, "reporter", "publisher"]


def planned(config: VenueConfig, workers: int) -> list[RegionPlan]:
    """Return every region of a venue, in the order in which they are made."""
    commands, events = stream_layout("commands"), stream_layout("events")

    def ring(name: str, slots: int, layout: int) -> RegionPlan:
        kind = "ring commands" if layout == commands else "ring events"
        return RegionPlan(name, words_for(slots) * 8, layout, kind)

    def cells(name: str, words: int, kind: str) -> RegionPlan:
        return RegionPlan(name, words * 8, layout_hash(_WORD), kind)

    gateways = range(config.gateways)
    found = [
        *(ring(f"ingress-{g}", config.ingress_slots, commands) for g in gateways),
        ring(COMMANDS, config.command_slots, commands),
        *(ring(f"events-{s}", config.event_slots, events) for s in range(config.shards)),
        *(ring(f"reports-{g}", config.report_slots, events) for g in gateways),
        cells(POSITIONS, POSITIONS_WORDS, "cells positions"),
        cells(GATEWAYS, config.gateways * GATEWAY_WORDS, "cells gateways"),
        cells(BELLS, (workers + config.gateways) * BELL_WORDS, "cells bells"),
        RegionPlan(
            STATUS, workers * STATUS_WORDS * 8, layout_hash(WORKER_STATUS), "latest worker status"
        ),
    ]
    for role in roles_of(config):
        names, state = counter_names(role), state_dtype(role)
        if names:
            size_bytes = counters.words_for(len(names)) * 8
            found.append(RegionPlan(f"counters-{role}", size_bytes, counters.LAYOUT, "counters"))
        if state is not None:
            layout = layout_hash(state)
            found.append(RegionPlan(f"state-{role}", state.itemsize, layout, f"state {role}"))
    for shard in range(config.shards):
        found += _shard_plans(config, shard)
    return found


def reserved_bytes(plans: list[RegionPlan]) -> int:
    """Return how much memory the regions take before the first order, sparse ones apart."""
    page = mmap.PAGESIZE
    return sum(
        HEADER_BYTES + -(-plan.payload_bytes // page) * page for plan in plans if not plan.sparse
    )


def _shard_plans(config: VenueConfig, number: int) -> list[RegionPlan]:
    """Return the regions of a shard, by letting `allocate` say what it wants."""
    found: list[RegionPlan] = []

    def note(name: str, dtype: np.dtype[Any], count: int, sparse: bool) -> NDArray[Any]:
        size_bytes = -(-count * dtype.itemsize // 8) * 8
        found.append(
            RegionPlan(
                f"shard-{number}-{name}", size_bytes, layout_hash(dtype), f"array {name}", sparse
            )
        )
        return np.zeros(1, dtype)

    allocate(_size_of(config, number), number, memory=note)
    return found


def _size_of(config: VenueConfig, number: int) -> Any:
    ladders = [
        (each.ladder_ticks, each.order_capacity)
        for each in config.instruments
        if each.shard == number
    ]
    return shard_size(ladders or [(2, 1)])


class VenueMemory:
    """The regions of one venue, mapped as they are asked for. A context manager.

    Attributes
    ----------
    directory : Path
    config : VenueConfig
        Resolved: nothing left open.
    workers : int
    start_id : int
        Every region's epoch.
    writable : bool
    """

    def __init__(
        self, directory: Path, config: VenueConfig, workers: int, start_id: int, *, writable: bool
    ) -> None:
        self.directory = directory
        self.config = config
        self.workers = workers
        self.start_id = start_id
        self.writable = writable
        self._regions: dict[str, Region] = {}

    @classmethod
    def create(
        cls, directory: Path, config: VenueConfig, workers: int, start_id: int
    ) -> VenueMemory:
        """Make every region, lay out the rings and set their readers up.

        Raises
        ------
        RegionRefused
            When there is no room, or a region of the name is there; what was made is removed.
        """
        memory = cls(directory, config, workers, start_id, writable=True)
        try:
            for plan in planned(config, workers):
                memory._regions[plan.name] = Region.create(
                    directory,
                    plan.name,
                    plan.payload_bytes,
                    layout=plan.layout,
                    epoch=start_id,
                    kind=plan.kind,
                    sparse=plan.sparse,
                )
            memory._lay_out()
        except BaseException:
            memory.unlink()
            raise
        return memory

    def _lay_out(self) -> None:
        config = self.config
        rings = [(f"ingress-{g}", config.ingress_slots, 1) for g in range(config.gateways)]
        rings.append((COMMANDS, config.command_slots, config.shards + 1))
        rings += [(f"events-{s}", config.event_slots, 3) for s in range(config.shards)]
        for name, slots, readers in rings:
            ring = Ring.create(self.words(name), slots, readers)
            for reader in range(readers):
                ring.add_gating_reader(reader)
        for g in range(config.gateways):
            # a client sets its own cursor when it attaches; until then nobody writes there
            ring = Ring.create(self.words(f"reports-{g}"), config.report_slots, 1)
            if g == 0:
                ring.add_gating_reader(0)
        # nobody journals yet: whatever is matched may leave the venue
        self.positions()[RELEASED] = MAX_SEQUENCE
        for role in roles_of(config):
            if names := counter_names(role):
                counters.Counters.create(self.words(f"counters-{role}"), names)

    # -- regions --------------------------------------------------------------------------------

    def region(self, name: str, layout: int | None = None, *, writable: bool = True) -> Region:
        """Return a region, mapped now if it was not; for writing only if the memory is."""
        if name not in self._regions:
            self._regions[name] = Region.attach(
                self.directory,
                name,
                layout=layout,
                epoch=self.start_id,
                writable=self.writable and writable,
            )
        return self._regions[name]

    def words(self, name: str) -> NDArray[np.int64]:
        """Return a region's payload as words."""
        return self.region(name).words

    def ring(self, name: str) -> Ring:
        """Return a ring by its region's name."""
        stream = "commands" if name == COMMANDS or name.startswith("ingress") else "events"
        layout = stream_layout("commands" if stream == "commands" else "events")
        return Ring.attach(self.region(name, layout).words)

    def ingress(self, gateway: int) -> Ring:
        """Return the ring by which a gateway's commands come in."""
        return self.ring(f"ingress-{gateway}")

    def commands(self) -> Ring:
        """Return the command ring."""
        return self.ring(COMMANDS)

    def events(self, shard: int) -> Ring:
        """Return a shard's event ring."""
        return self.ring(f"events-{shard}")

    def reports(self, gateway: int) -> Ring:
        """Return a gateway's report ring."""
        return self.ring(f"reports-{gateway}")

    def array(self, name: str, dtype: np.dtype[Any], count: int) -> NDArray[Any]:
        """Return a region's payload as rows; the region must have been made for them."""
        return self.region(name, layout_hash(dtype)).array(dtype, count)

    def shard(self, number: int) -> Shard:
        """Return a shard's arrays; who made the regions calls this once, the shard is new then."""

        def shared(name: str, dtype: np.dtype[Any], count: int, sparse: bool) -> NDArray[Any]:
            array = self.array(f"shard-{number}-{name}", dtype, count)
            # `allocate` writes what a new shard begins with: a tool lets it write into a copy
            return array.copy() if name == "progress" and not self.writable else array

        config = self.config
        shard = allocate(
            _size_of(config, number),
            number,
            shard_count=config.shards,
            allow_replay=config.replay,
            memory=shared,
        )
        if self.writable:
            return shard
        return shard._replace(progress=self.array(f"shard-{number}-progress", PROGRESS, 1))

    def matched(self, shard: int) -> NDArray[np.int64]:
        """Return a shard's line of its matched_sequence."""
        return self.array(f"shard-{shard}-matched", _WORD, 8)

    def state(self, role: str) -> NDArray[Any]:
        """Return a role's state: an array of one record."""
        dtype = state_dtype(role)
        assert dtype is not None, role
        return self.array(f"state-{role}", dtype, 1)

    def positions(self) -> NDArray[np.int64]:
        """Return the sequences by which roles say how far they are."""
        return self.words(POSITIONS)

    def gateways(self) -> NDArray[np.int64]:
        """Return the cells of all gateways, GATEWAY_WORDS each."""
        return self.words(GATEWAYS)

    def bells(self) -> NDArray[np.int64]:
        """Return all bells: one for each worker, then one for each gateway."""
        return self.words(BELLS)

    def worker_bell(self, number: int) -> NDArray[np.int64]:
        """Return a worker's bell."""
        return self.bells()[number * BELL_WORDS : (number + 1) * BELL_WORDS]

    def gateway_bell(self, gateway: int) -> NDArray[np.int64]:
        """Return a gateway's bell."""
        return self.worker_bell(self.workers + gateway)

    def status_cell(self, worker: int) -> NDArray[np.int64]:
        """Return the latest cell in which a worker says how it is."""
        return self.words(STATUS)[worker * STATUS_WORDS : (worker + 1) * STATUS_WORDS]

    def counters(self, role: str) -> counters.Counters:
        """Return a role's counters; without any where it has none."""
        if not counter_names(role):
            return counters.Counters(np.zeros(0, np.int64))
        return counters.Counters(self.region(f"counters-{role}", counters.LAYOUT).words)

    # -- the end --------------------------------------------------------------------------------

    def __iter__(self) -> Iterator[Region]:
        """Go through the regions that are mapped."""
        return iter(self._regions.values())

    def unlink(self) -> None:
        """Remove every region that this process made or mapped."""
        for region in self._regions.values():
            region.unlink()
        self.close()

    def close(self) -> None:
        """Let go of every mapping; arrays that were taken stay valid."""
        for region in self._regions.values():
            region.close()
        self._regions.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


__all__ = ["VenueMemory", "counter_names", "planned", "reserved_bytes", "roles_of", "state_dtype"]
