"""How soon is a venue ready, how much memory does it take, how soon does a worker end?

    `hft up` as its users start it: a supervisor that loads, forks and pins its workers, lists the
    instruments and says so; then, on a venue whose workers spin, SIGTERM to each worker.

The kernels are compiled before (the first venue is not timed), so this is the warm start; the cold
one is what `hft warm` takes. Memory is the summed PSS of supervisor and workers, idle. The answer
is checked: the venue that was measured lists its instruments, and nothing of it is left.
"""

from __future__ import annotations

import contextlib
import os
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from hftcore.errors import VenueRefused
from hftcore.ops.config import VenueConfig
from hftcore.ops.launch import running_venue
from hftcore.ops.stat import pss_bytes
from ipc.liveness import wait_on_pidfd
from perf.harness import Options, median
from perf.results import Extra, Row, SuiteResult, at_most, content

NAME = "venue"
CASES = ("up", "end")
READY_BAR_S, MEMORY_BAR_MB, END_BAR_MS = 3.0, 500.0, 100.0
REPEATS = 3
DEADLINE_S = 10.0


def warm() -> None:
    """Compile what a venue needs: start one, and stop it."""
    with _base() as base, running_venue(VenueConfig(name="bench"), base=base):
        pass


def run(options: Options) -> SuiteResult:
    """Measure the cases that `options` asks for."""
    cases = options.cases(NAME, CASES)
    repeats = 1 if options.smoke else REPEATS
    rows = []
    with _base() as base:
        if "up" in cases:
            rows.append(measure_up(base, options, repeats))
        if "end" in cases:
            rows.append(measure_end(base, options))
    config: Extra = {"smoke": options.smoke, "repeats": repeats, "placement": "that of `hft up`"}
    return SuiteResult(NAME, config, tuple(rows))


@contextlib.contextmanager
def _base() -> Iterator[Path]:
    """Hold the venue's shared memory in a directory of its own."""
    with tempfile.TemporaryDirectory(prefix="hftcore-bench-", dir="/dev/shm") as folder:
        yield Path(folder)


def measure_up(base: Path, options: Options, repeats: int) -> Row:
    """Start the built-in venue."""
    ready, memory, wrong = [], [], 0
    for repeat in range(repeats):
        options.progress(f"{NAME}/up: start {repeat + 1}")
        began = time.monotonic()
        with running_venue(VenueConfig(name="bench"), base=base) as record:
            ready.append(time.monotonic() - began)
            pids = [record.pid, *(worker.pid for worker in record.workers)]
            memory.append(sum(pss_bytes(pid) for pid in pids) / 1e6)
            wrong += len(record.config.instruments) != len(VenueConfig().instruments)
        wrong += (base / "bench").exists()
    judged = not options.smoke
    verdicts = (
        at_most("ready, warm", READY_BAR_S, median(ready), "s", judged=judged),
        at_most("summed PSS, idle", MEMORY_BAR_MB, max(memory), "MB", judged=judged),
        content("instruments listed, nothing left", wrong, 2 * repeats),
    )
    extra: Extra = {"ready_s": median(ready), "pss_mb": max(memory)}
    return Row(suite=NAME, case="up", extra=extra, verdicts=verdicts)


def measure_end(base: Path, options: Options) -> Row:
    """Send SIGTERM to each worker of venues whose workers spin."""
    took: dict[str, float] = {}
    number, count = 0, 1
    while number < count:
        with (
            contextlib.suppress(VenueRefused),  # the venue stops because a worker ended
            running_venue(VenueConfig(name="bench", wait="spin"), base=base) as record,
        ):
            count = len(record.workers)
            worker = record.workers[number]
            options.progress(f"{NAME}/end: {worker.name}")
            pidfd = os.pidfd_open(worker.pid)
            try:
                began = time.monotonic()
                os.kill(worker.pid, signal.SIGTERM)
                ended = wait_on_pidfd(pidfd, DEADLINE_S)
                took[worker.name] = (time.monotonic() - began) * 1e3 if ended else 1e9
            finally:
                os.close(pidfd)
        number += 1
    slowest = max(took.values())
    verdicts = (
        at_most(
            "SIGTERM to the slowest worker's end", END_BAR_MS, slowest, "ms",
            judged=not options.smoke,
        ),
        content("workers that ended", sum(ms >= 1e9 for ms in took.values()), len(took)),
    )  # fmt: skip
    extra: Extra = {f"end_ms {name}": ms for name, ms in took.items()}
    return Row(suite=NAME, case="end", extra=extra, verdicts=verdicts)
