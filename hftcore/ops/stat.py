"""`hft stat`: how a running venue is, read from its shared memory without its knowledge.

Everything is mapped read-only: positions, rings, counters and the workers' status cells. Rates are
the difference of two looks. A role's lag is what its ring has and it has not released; of the
sequences, how far each is behind the newest command. Memory is PSS, so that shared pages count once
over all processes. Whether a worker runs is asked of the kernel, and when it last said something
of the clock: its own word is what it said last, and a stopped or dead process says nothing.

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

from affinity.pin import format_cpu_list
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
_SILENT_S = 1.0
"""A worker says how it is after each slice and sleep, some milliseconds; longer is told."""
_PROCESS_STATES = {"T": "halted", "t": "traced", "Z": "dead", "X": "dead", "": "gone"}
"""What /proc calls a process that does not run."""
_WAITS = {"spin_then_yield": "yield", "spin_then_futex": "futex"}
COLUMNS = 80


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
        process_state = _PROCESS_STATES.get(process_state_of(worker.pid))
        facts: dict[str, Any] = {
            "name": worker.name,
            "pid": worker.pid,
            "cpus": list(worker.cpus),
            "strategy": worker.strategy,
            "state": process_state or WORKER_STATES[int(status["state"])],
            "silent_s": round(max(time.time_ns() - int(status["updated_ns"]), 0) / 1e9, 3),
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


def process_state_of(pid: int) -> str:
    """Return the letter by which /proc tells a process's state, nothing when it is gone."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    return ""


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
    """Lay a look out for people, in lines of at most COLUMNS."""
    sequences, lag = facts["sequences"], facts["lag"]
    lines = [
        *folded(
            f"venue {facts['venue']}",
            f"up {facts['up_s']:,.0f} s",
            f"supervisor {facts['pid']}",
            f"memory {facts['pss_bytes'] / 1e6:,.0f} MB",
        ),
        *folded(
            f"commands {sequences['sequenced']:,}",
            f"{facts['commands_per_s']:,.0f}/s",
            "behind by:",
            *(f"{name} {behind:,}" for name, behind in lag.items()),
        ),
        "",
        _WORKER.format(
            "worker", "pid", "cpus", "wait", "state", "work/s", "idle", "sleeps/s", "MB"
        ),
    ]
    for each in facts["workers"]:
        lines += _worker_lines(each)
    lines += ["", f"{'ring':<12} {'slots':>10} {'slots/s':>8}  lag"]
    for ring in facts["rings"]:
        if ring["position"]:
            begin = f"{ring['name']:<12} {ring['slots']:>10,} {short(ring['slots_per_s']):>8}"
            lags = (f"{reader} {short(behind)}" for reader, behind in ring["lag"].items())
            lines += folded(begin, *lags, indent=33)
    lines.append("")
    for role, counted in facts["counters"].items():
        for name, value in counted.items():
            if value:
                each_s = facts["counters_per_s"][role][name]
                lines.append(f"{role:<12} {name:<28} {value:>18,} {each_s:>14,.0f}/s")
    for gateway in facts["gateways"]:
        named = (f"{key} {value}" for key, value in gateway.items() if key != "gateway")
        lines += folded(f"gateway {gateway['gateway']}", *named)
    return "\n".join(lines)


_WORKER = "{:<18} {:>8} {:>8} {:<6} {:<8} {:>7} {:>5} {:>8} {:>4}"


def _worker_lines(each: dict[str, Any]) -> list[str]:
    """Return a worker's line; a long name, and a long silence, have one of their own."""
    turns = each["turns_per_s"]
    numbers = _WORKER.format(
        "" if len(each["name"]) > 18 else each["name"],
        each["pid"],
        format_cpu_list(each["cpus"]),
        _WAITS.get(each["strategy"], each["strategy"]),
        each["state"],
        short(each["work_per_s"]),
        f"{each['idle_per_s'] / turns:.0%}" if turns else "",
        short(each["sleeps_per_s"]),
        f"{each['pss_bytes'] / 1e6:.0f}",
    )
    lines = [each["name"], numbers] if len(each["name"]) > 18 else [numbers]
    if each["silent_s"] > _SILENT_S:
        lines.append(f"{'':<18} silent for {each['silent_s']:,.0f} s")
    return lines


def short(number: float) -> str:
    """Return a number in at most six characters: 999, 12.3k, 4.56M."""
    for unit, name in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= 999.5 * unit / 1e3:
            scaled = number / unit
            return f"{scaled:.{0 if scaled >= 99.95 else 1 if scaled >= 9.995 else 2}f}{name}"
    return f"{number:.0f}"


def folded(*parts: str, indent: int = 2) -> list[str]:
    """Join parts, two spaces between them, into lines of at most COLUMNS; no part is divided."""
    lines = [""]
    for part in parts:
        if lines[-1].strip() and len(lines[-1]) + 2 + len(part) > COLUMNS:
            lines.append(" " * indent + part)
        else:
            lines[-1] += ("  " if lines[-1] else "") + part
    return lines


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


__all__ = ["Look", "as_text", "facts_of", "folded", "look", "main", "pss_bytes", "short"]
