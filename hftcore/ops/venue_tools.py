"""`hft up` and `hft down`, with the words they print. What they do is in `launch` and `supervisor`.

`hft up` returns when the venue is ready; with `--foreground` it is the supervisor itself, says its
log on the standard error, and tells systemd when it is ready (NOTIFY_SOCKET, Type=notify).
"""

from __future__ import annotations

import dataclasses
import json as json_text
import os
import socket
import sys
import time
from pathlib import Path

import msgspec

from affinity.pin import format_cpu_list
from hftcore.ops.config import VenueConfig, load_config
from hftcore.ops.launch import COLD, is_cold, launch, stop
from hftcore.ops.venue_file import VenueRecord


def up(
    config: Path | None, *, venue: str | None = None, foreground: bool = False, json: bool = False
) -> int:
    """Start a venue and say what runs where."""
    wanted = VenueConfig() if config is None else load_config(config)
    if venue is not None:
        wanted = dataclasses.replace(wanted, name=venue)
    began = time.monotonic()

    def say(record: VenueRecord) -> None:
        seconds = time.monotonic() - began
        print(as_json(record, seconds) if json else as_text(record, seconds), flush=True)
        _notify_systemd()

    if foreground:
        from hftcore.ops.supervisor import Supervisor  # noqa: PLC0415  0.3 s that others need not

        return Supervisor(wanted, report=say, echo=True).run()
    if is_cold():
        print(COLD, file=sys.stderr, flush=True)
    _, record = launch(wanted, detach=True)
    say(record)
    return 0


def down(venue: str, *, json: bool = False) -> int:
    """Stop a venue and wait until nothing of it is left."""
    seconds = round(stop(venue), 2)
    facts = {"venue": venue, "stopped_after_s": seconds}
    print(json_text.dumps(facts) if json else f"venue {venue} is down, after {seconds} s")
    return 0


def as_text(record: VenueRecord, seconds: float) -> str:
    """Lay out what runs where."""
    config = record.config
    lines = [f"venue {config.name} is up, after {seconds:.2f} s; supervisor {record.pid}"]
    lines += [f"note: {note}" for note in record.notes]
    lines.append(f"  {'worker':<32} {'pid':>8}  {'cpus':<8} wait")
    lines += [
        f"  {each.name:<32} {each.pid:>8}  {format_cpu_list(each.cpus):<8} {each.strategy}"
        for each in record.workers
    ]
    for number, each in enumerate(config.instruments, 1):
        lines.append(
            f"  instrument {number:<4} {each.symbol:<16} tick {each.tick_size:<12} "
            f"lot {each.lot_size:<10} shard {each.shard}"
        )
    for name, places in record.endpoints.items():
        lines += [f"  {name:<10} {place}" for place in places]
    lines.append(f"  {'log':<10} {record.log}")
    return "\n".join(lines)


def as_json(record: VenueRecord, seconds: float) -> str:
    """Return the venue's record as one line of JSON, with how long it took."""
    facts = msgspec.to_builtins(record)
    return json_text.dumps({**facts, "ready_after_s": round(seconds, 2)})


def _notify_systemd() -> None:
    """Tell systemd that the service is ready, when it asked to be told (sd_notify(3))."""
    place = os.environ.get("NOTIFY_SOCKET")
    if place:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told:
            told.connect(f"\0{place[1:]}" if place.startswith("@") else place)
            told.sendall(b"READY=1")


__all__ = ["as_text", "down", "up"]
