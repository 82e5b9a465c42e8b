"""Venues for tests: real processes, names and places of their own, and a flow that can be counted.

A venue here is what `hft up` starts, in a base directory that carries the test run's mark, with its
log in the test's own directory. `orders` are a flow that trades with itself; every command of a
client is answered once, in order, so "nothing was lost" is a number.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hftcore.client import Client
from hftcore.instruments import Instrument
from hftcore.messages import NEW_ORDER, CommandKind, Flags, OrderType, Side, TimeInForce
from hftcore.ops.config import VenueConfig
from hftcore.ops.logs import LOG_FILE, lines
from hftcore.ops.remains import SIGNALS, signal_venue
from hftcore.ops.venue_file import VenueRecord
from ipc.liveness import wait_for_exit
from ipc.signals import signal_name
from tests.processes import poll_until

INSTRUMENTS = tuple(
    Instrument(symbol, "1", "1", "1000", order_capacity=4_096)
    for symbol in ("AA", "BB", "CC", "DD")
)
SMALL = {
    "instruments": INSTRUMENTS,
    "gateways": 3,
    "ingress_slots": 64,
    "command_slots": 256,
    "event_slots": 256,
    "report_slots": 1 << 16,
    "dup_window": 1 << 12,
}
"""A venue that starts fast; its rings are small, so that whoever stalls stalls the others."""


@dataclass
class Place:
    """Where a test's venue is: everything of it can be found, and nothing else is touched."""

    name: str
    base: Path
    state: Path

    @property
    def directory(self) -> Path:
        """The venue's directory."""
        return self.base / self.name

    def config(self, **settings: Any) -> VenueConfig:
        """Return a small venue's configuration."""
        return VenueConfig(name=self.name, **{**SMALL, **settings})

    def remains(self) -> list[str]:
        """Return everything of the venue that is in shared memory."""
        files = [str(path) for path in self.base.rglob("*")]
        for name in SIGNALS:
            called = signal_name(signal_venue(self.directory), name).removeprefix("/")
            semaphore = Path("/dev/shm") / f"sem.{called}"
            files += [str(semaphore)] if semaphore.exists() else []
        return files

    def log_lines(self) -> list[dict[str, Any]]:
        """Return the log of the newest start."""
        path = self.state / "hftcore" / self.name / LOG_FILE
        return [json.loads(line) for line in lines(path)]

    def events_of_log(self) -> list[str]:
        """Return what the log's lines are about."""
        return [str(line["event"]) for line in self.log_lines()]


def processes_of(record: VenueRecord) -> dict[str, int]:
    """Return the pid of the supervisor and of every worker, by name."""
    return {"supervisor": record.pid, **{each.name: each.pid for each in record.workers}}


def gone(pid: int) -> bool:
    """Return whether a process has ended; a zombie of this test's is reaped."""
    with suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)
    return not Path(f"/proc/{pid}").exists() or wait_for_exit(pid, 0)


def reap(record: VenueRecord) -> None:
    """Wait until no process of a venue is left, and reap those that became ours."""
    for pid in processes_of(record).values():
        poll_until(lambda pid=pid: gone(pid), f"process {pid} of the venue to end")  # type: ignore[misc]


def end(record: VenueRecord) -> None:
    """Kill whatever a failed test left of a venue."""
    for pid in processes_of(record).values():
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    reap(record)


def hft(place: Place, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run `hft` as a process of its own and return what came of it."""
    root = Path(__file__).resolve().parent.parent.parent
    return subprocess.run(
        [sys.executable, "-m", "hftcore", *arguments],
        cwd=root,
        env={
            **os.environ,
            "HFT_SHM_DIR": str(place.base),
            "XDG_STATE_HOME": str(place.state),
            **env,
        },
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def orders(count: int, seed: int, accounts: tuple[int, ...] = (1,)) -> NDArray[np.int64]:
    """Return rows of new orders on all instruments that cross often and rest sometimes."""
    random = np.random.default_rng(seed)
    rows = np.zeros((count, 16), np.int64)
    for row in rows:
        order: Any = row[:8].view(NEW_ORDER)[0]
        order["kind"], order["flags"] = CommandKind.NEW_ORDER, Flags.TWO_SLOTS
        order["instrument_id"] = random.integers(1, len(INSTRUMENTS) + 1)
        order["account_id"] = accounts[int(random.integers(len(accounts)))]
        order["price"] = random.integers(490, 511)
        order["qty"] = random.integers(1, 10)
        order["side"] = Side.BUY if random.integers(2) else Side.SELL
        order["order_type"], order["time_in_force"] = OrderType.LIMIT, TimeInForce.GTC
    return rows


def send_all(client: Client, rows: NDArray[np.int64], batch: int = 64) -> None:
    """Send rows, a batch at a time, and read reports until every one is answered."""
    for first in range(0, len(rows), batch):
        client.send(rows[first : first + batch])
        client.poll_rows()

    def all_answered() -> bool:
        client.poll_rows(0.01)
        return client.unanswered == 0

    poll_until(all_answered, "every command to be answered")
