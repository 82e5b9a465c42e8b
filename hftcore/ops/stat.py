"""`hft stat`: how a running venue is, read from its shared memory without its knowledge.

Everything is mapped read-only: positions, rings, counters and the workers' status cells. Rates are
the difference of two looks. A role's lag is what its ring has and it has not released; of the
sequences, how far each is behind the newest command. Memory is PSS, so that shared pages count once
over all processes.

The values of one look are not of one instant: a lag may be off by what a few microseconds bring.
Comes after `venue_file`; `hft stat` calls `main`.
"""

from __future__ import annotations

import json as json_text
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hftcore.messages import (
    CUT_INCARNATION,
    CUT_SEQUENCE,
    GATEWAY_WORDS,
    INCARNATION,
    INGRESS_SEQUENCE,
    PUBLISHED,
    RELEASED,
    REPORTED,
    SETTLED,
)
from hftcore.ops.compositions import WORKER_STATES, status_of
from hftcore.ops.memory import VenueMemory, roles_of
from hftcore.ops.venue_file import VenueRecord, attached, gateway_lock
from ipc.errors import Refused
from ipc.liveness import holder_pid

POSITION_NAMES = {
    "settled": SETTLED,
    "released": RELEASED,
    "reported": REPORTED,
    "published": PUBLISHED,
}
_COUNTED = ("slices", "turns", "work", "idle", "sleeps")
_BETWEEN_S = 0.5
_WATCH_S = 1.0


@dataclass
class Look:
    """One look at a venue: plain values, with the moment."""

    at_ns: int
    sequences: dict[str, int] = field(default_factory=dict)
    workers: list[dict[str, Any]] = field(default_factory=list)
    rings: list[dict[str, Any]] = field(default_factory=list)
    counters: dict[str, dict[str, int]] = field(default_factory=dict)
    gateways: list[dict[str, int]] = field(default_factory=list)
    supervisor_pss_bytes: int = 0


def look(record: VenueRecord, memory: VenueMemory) -> Look:
    """Read everything once."""
    seen = Look(time.monotonic_ns())
    positions = memory.positions()
    newest = int(memory.state("sequencer")["next_sequence"][0]) - 1
    seen.sequences["sequenced"] = newest
    for name, word in POSITION_NAMES.items():
        seen.sequences[name] = int(positions[word])
    for worker in record.workers:
        status = status_of(memory.status_cell(worker.number))
        facts: dict[str, Any] = {
            "name": worker.name,
            "pid": worker.pid,
            "cpus": list(worker.cpus),
            "strategy": worker.strategy,
            "state": WORKER_STATES[int(status["state"])],
            "pss_bytes": pss_bytes(worker.pid),
        }
        seen.workers.append(facts | {name: int(status[name]) for name in _COUNTED})
    seen.rings = list(_rings(memory))
    for role in roles_of(memory.config):
        if counted := dict(memory.counters(role)):
            seen.counters[role] = counted
    seen.gateways = _gateways(memory)
    seen.supervisor_pss_bytes = pss_bytes(record.pid)
    return seen


def _rings(memory: VenueMemory) -> Any:
    """Yield each ring: its position and how far each of its readers is behind."""
    config = memory.config
    matchers = [f"matcher-{shard}" for shard in range(config.shards)]
    readers = {f"ingress-{g}": ["sequencer"] for g in range(config.gateways)}
    readers["commands"] = [*matchers, "reporter"]
    readers |= {f"events-{s}": ["sequencer", "reporter", "publisher"] for s in range(config.shards)}
    readers |= {f"reports-{g}": ["client"] for g in range(config.gateways)}
    for name, who in readers.items():
        ring = memory.ring(name)
        lags = {
            reader: max(ring.position - ring.cursor(number), 0)
            for number, reader in enumerate(who)
            if ring.cursor(number) <= ring.position  # a cursor that nobody owns is far ahead
        }
        yield {"name": name, "slots": ring.capacity, "position": ring.position, "lag": lags}


def _gateways(memory: VenueMemory) -> list[dict[str, int]]:
    """Return the gateways that were ever used."""
    cells = memory.gateways()
    found = []
    for number in range(1, memory.config.gateways):  # 0 is the venue's own
        own = cells[number * GATEWAY_WORDS : (number + 1) * GATEWAY_WORDS]
        if own[INCARNATION]:
            facts = {
                "gateway": number,
                "pid": holder_pid(memory.directory, gateway_lock(number)),
                "incarnation": int(own[INCARNATION]),
                "ingress_sequence": int(own[INGRESS_SEQUENCE]),
            }
            if own[CUT_INCARNATION] == own[INCARNATION]:
                facts["cut_off_from_sequence"] = int(own[CUT_SEQUENCE])
            found.append(facts)
    return found


def pss_bytes(pid: int) -> int:
    """Return a process's share of memory, 0 when it is gone or another user's."""
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    return 0


def facts_of(record: VenueRecord, first: Look, last: Look) -> dict[str, Any]:
    """Join two looks: the values of the last, and rates a second between them."""
    seconds = max(last.at_ns - first.at_ns, 1) / 1e9

    def rate(new: int, old: int) -> float:
        return round((new - old) / seconds, 1)

    newest = last.sequences["sequenced"]
    workers = [
        new | {f"{name}_per_s": rate(new[name], old[name]) for name in _COUNTED}
        for new, old in zip(last.workers, first.workers, strict=True)
    ]
    before = {ring["name"]: ring["position"] for ring in first.rings}
    return {
        "venue": record.config.name,
        "pid": record.pid,
        "start_id": record.start_id,
        "up_s": round((time.time_ns() - record.ready_ns) / 1e9, 1),
        "sampled_s": round(seconds, 3),
        "commands_per_s": rate(newest, first.sequences["sequenced"]),
        "sequences": last.sequences,
        "lag": {
            name: max(newest - last.sequences[name], 0)
            for name in ("settled", "reported", "published")
        },
        "workers": workers,
        "rings": [
            ring | {"slots_per_s": rate(ring["position"], before[ring["name"]])}
            for ring in last.rings
        ],
        "counters": last.counters,
        "counters_per_s": {
            role: {name: rate(value, first.counters[role][name]) for name, value in counted.items()}
            for role, counted in last.counters.items()
        },
        "gateways": last.gateways,
        "endpoints": record.endpoints,
        "pss_bytes": last.supervisor_pss_bytes + sum(each["pss_bytes"] for each in last.workers),
    }


def as_text(facts: dict[str, Any]) -> str:
    """Lay a look out for people."""
    sequences, lag = facts["sequences"], facts["lag"]
    lines = [
        f"venue {facts['venue']}  up {facts['up_s']:,.0f} s  supervisor {facts['pid']}  "
        f"memory {facts['pss_bytes'] / 1e6:,.0f} MB",
        f"commands {sequences['sequenced']:,}  {facts['commands_per_s']:,.0f}/s    behind by: "
        + "  ".join(f"{name} {behind:,}" for name, behind in lag.items()),
        "",
        f"{'worker':<28} {'pid':>8} {'cpus':>6} {'wait':<16} {'state':<9} {'work/s':>12} "
        f"{'turns/s':>12} {'idle':>5} {'sleeps/s':>9} {'MB':>6}",
    ]
    for each in facts["workers"]:
        turns = each["turns_per_s"]
        idle = f"{each['idle_per_s'] / turns:.0%}" if turns else ""
        cpus = ",".join(map(str, each["cpus"]))
        lines.append(
            f"{each['name']:<28} {each['pid']:>8} {cpus:>6} {each['strategy']:<16} "
            f"{each['state']:<9} {each['work_per_s']:>12,.0f} {turns:>12,.0f} {idle:>5} "
            f"{each['sleeps_per_s']:>9,.0f} {each['pss_bytes'] / 1e6:>6,.0f}"
        )
    lines += ["", f"{'ring':<12} {'slots':>10} {'slots/s':>14}  lag"]
    for ring in facts["rings"]:
        if ring["position"]:
            lags = "  ".join(f"{reader} {behind:,}" for reader, behind in ring["lag"].items())
            lines.append(
                f"{ring['name']:<12} {ring['slots']:>10,} {ring['slots_per_s']:>14,.0f}  {lags}"
            )
    lines.append("")
    for role, counted in facts["counters"].items():
        for name, value in counted.items():
            if value:
                each_s = facts["counters_per_s"][role][name]
                lines.append(f"{role:<12} {name:<28} {value:>16,} {each_s:>14,.0f}/s")
    for gateway in facts["gateways"]:
        lines.append("gateway " + "  ".join(f"{key} {value}" for key, value in gateway.items()))
    return "\n".join(lines)


def main(
    venue: str, *, watch: bool = False, json: bool = False, between_s: float = _BETWEEN_S
) -> int:
    """Print how a venue is; with `watch`, again and again until interrupted or the venue ends."""
    record, memory = attached(venue)
    with memory:
        first = look(record, memory)
        while True:
            time.sleep(_WATCH_S if watch else between_s)
            last = look(record, memory)
            facts = facts_of(record, first, last)
            if json:
                print(json_text.dumps(facts), flush=True)
            else:
                print(("\x1b[H\x1b[2J" if watch else "") + as_text(facts), flush=True)
            if not watch:
                return 0
            first = last
            try:
                if attached(venue)[0].start_id != record.start_id:
                    return 0
            except Refused:
                return 0


__all__ = ["Look", "as_text", "facts_of", "look", "main", "pss_bytes"]
