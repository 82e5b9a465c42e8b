"""`hft warm`: compile every kernel in one process, before several processes want them at once.

Parallel cold compilation can crash (numba#4807), and a cold start costs seconds per role; so one
process compiles, and whatever starts afterwards finds its kernels on the disk. A kernel is compiled
for the types it is called with, so nothing here lists kernels or types: each step drives the real
entry points with tiny arrays and files. STEPS is the one place that names the steps, and
`unreached` tells which kernels none of them drove; a test holds that there are none.

Also here: forgetting the kernels of source states that nobody has used for two weeks, because each
edit of the sources begins a new cache directory. Comes after all modules with kernels; `hft warm`
calls `main`, and hands in the benchmarks' step, because only the command line may import them.
"""

from __future__ import annotations

import json as json_text
import os
import pkgutil
import re
import shutil
import stat
import sys
import time
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from hftcore.exchange import Exchange
from hftcore.instruments import Instrument, definition
from hftcore.marketdata import frames, itch
from hftcore.marketdata.feed_protocol import FeedInstrument
from hftcore.marketdata.feed_server import FeedServer
from hftcore.marketdata.subscriber import Subscriber
from hftcore.matching.state_hash import state_hash
from hftcore.ops import demo, region_dump, replay
from hftcore.ops.compositions import COMPOSITIONS
from hftcore.ops.venue_kernels import load_composition, load_feed, load_rest, mark_compiled
from ipc import clock, kernel, latest, ring, wait

Step = Callable[[], None]

KEPT_DAYS = 14
FEED_READER, FEED_WARM_S = 2, 20.0
_STATE_NAME = re.compile(r"[0-9a-f]{32}")
_INSTALLED = ("ipc", "affinity", "hftcore")


def main(*, json: bool = False, extra: Mapping[str, Step] | None = None) -> int:
    """Run every step and say what was compiled and what was there.

    Parameters
    ----------
    json : bool
        Print one JSON object and no progress.
    extra : mapping
        Further steps by name.

    Returns
    -------
    int
        0, or 1 when a kernel was not reached: a start would compile it after all.
    """
    directory = kernel.CACHE_DIRECTORY
    if directory is None:
        found = "NUMBA_DISABLE_JIT is set: kernels run as the plain Python that they are"
        print(json_text.dumps({"jit": False}) if json else f"nothing to compile: {found}")
        return 0
    began = time.monotonic()
    run_steps({**STEPS, **(extra or {})}, show=not json and sys.stderr.isatty())
    seconds = time.monotonic() - began
    kept = [each for each in kernel.KERNELS if is_kept(each)]
    compiled = sum(1 for each in kept if sum(each.stats.cache_misses.values()))
    missing = unreached(kept)
    removed = prune(directory.parent, keep=directory.name, now=time.time())
    os.utime(directory)  # used today, whether or not anything was added
    facts = {
        "jit": True,
        "kernels": len(kept),
        "compiled": compiled,
        "warm": len(kept) - compiled - len(missing),
        "unreached": missing,
        "seconds": round(seconds, 2),
        "cache_directory": str(directory),
        "removed_directories": removed,
    }
    print(json_text.dumps(facts) if json else as_text(facts))
    return 1 if missing else 0


def as_text(facts: Mapping[str, Any]) -> str:
    """Say in a few lines what was done."""
    compiled, warm = facts["compiled"], facts["warm"]
    lines = [
        f"{facts['kernels']} kernels: {compiled} compiled, {warm} from the cache, "
        f"in {facts['seconds']} s",
        f"cache {facts['cache_directory']}",
    ]
    if not compiled:
        lines[0] += "; everything was warm"
    if facts["unreached"]:
        lines.append("not reached: " + ", ".join(facts["unreached"]))
    if facts["removed_directories"]:
        lines.append(
            f"forgot {facts['removed_directories']} older states of the sources "
            f"(unused for {KEPT_DAYS} days)"
        )
    return "\n".join(lines)


def run_steps(steps: Mapping[str, Step], *, show: bool) -> None:
    """Import every module of the product, so that no kernel is overlooked, and run the steps."""
    columns = (TextColumn("{task.description:<24}"), BarColumn(), MofNCompleteColumn())
    with Progress(
        *columns, TimeElapsedColumn(), console=Console(stderr=True), disable=not show
    ) as progress:
        task = progress.add_task("modules", total=len(steps) + 1)
        for package in _INSTALLED:
            for module in pkgutil.walk_packages(import_module(package).__path__, package + "."):
                if not module.name.endswith("__main__"):
                    import_module(module.name)
        for name, step in steps.items():
            progress.update(task, advance=1, description=name)
            step()
        progress.update(task, advance=1, description="done")


def is_kept(dispatcher: Any) -> bool:
    """Return whether a kernel is kept on the disk; what is compiled into its callers is not."""
    return dispatcher.stats.cache_path is not None


def unreached(dispatchers: list[Any]) -> list[str]:
    """Return the kernels that have nothing on the disk: no step drove them.

    Counting calls would not do: of a kernel that others call nothing is loaded when they are.
    """
    missing = []
    for each in dispatchers:
        code = each.py_func.__code__
        kept = Path(each.stats.cache_path).glob(f"*.{code.co_name}-{code.co_firstlineno}.*.nbi")
        if not any(kept):
            missing.append(f"{each.py_func.__module__}.{code.co_name}")
    return missing


def prune(base: Path, *, keep: str, now: float, days: float = KEPT_DAYS) -> int:
    """Remove the kernels of other source states that were not used for `days`; return how many.

    Only directories, not links, of this user, named as `ipc.kernel` names them, go.
    """
    removed = 0
    for path in sorted(base.iterdir()):
        status = path.lstat()
        if (
            _STATE_NAME.fullmatch(path.name)
            and path.name != keep
            and stat.S_ISDIR(status.st_mode)
            and status.st_uid == os.geteuid()
            and now - status.st_mtime > days * 86_400
        ):
            shutil.rmtree(path, ignore_errors=True)
            removed += not path.exists()
    return removed


def _cells() -> None:
    """Drive what roles share: the ring's successor, latest cells, waiting, the clock."""
    local = ring.Ring.local(ring.MIN_CAPACITY)
    ring.resume_writer(local.cells, local.words, local.capacity - 1)
    cell = latest.Latest.local(np.dtype([("value", "<i8")]))
    cell.write(np.zeros(1, cell.dtype))
    cell.read()
    cell.cell.flags.writeable = False
    cell.read()  # a tool's mapping is read-only: another type, another kernel
    strategy = wait.Strategy.SPIN_THEN_FUTEX
    waiter = wait.new_waiter(strategy, pauses=0, yields=0, max_sleep_ns=1)
    bell = wait.local_bell(strategy)
    for _ in range(3):
        wait.on_idle(waiter, bell)
    bell[wait.ASLEEP] = 1
    wait.wake(bell)
    clock.now_ticks()


def _exchange() -> None:
    """Drive the venue in one process: orders, their changes, books, rows in bulk."""
    instrument = Instrument("WARM/UP", "1", "1", "100", order_capacity=8)
    exchange = Exchange([instrument])
    resting = exchange.submit(instrument.symbol, "sell", price=50, qty=5)
    exchange.submit(instrument.symbol, "buy", price=50, qty=1)
    exchange.reduce(resting, qty=1)
    exchange.replace(resting, price=51, qty=3)
    exchange.cancel(resting)
    exchange.book(instrument.symbol)
    exchange.book_hash(instrument.symbol)
    state_hash(exchange.shard, 1)
    exchange.play(definition(instrument, 1).reshape(1, -1), depth=1)


def _replay() -> None:
    """Drive a recording of one order through each format, comparing the books."""
    with TemporaryDirectory(prefix="hft-warm-") as folder:
        rows = Path(folder) / "WARM_message_1.csv"
        rows.write_text("34200.0,1,1,5,1000000,1\n")
        (Path(folder) / "WARM_orderbook_1.csv").write_text("9999999999,0,1000000,5\n")
        replay.replay(rows, "lobster", verify=True).require()
        order = np.zeros(1, itch.DTYPES["A"])
        order["message_type"], order["stock"], order["buy_sell"] = b"A", b"WARM", b"B"
        order["stock_locate"], order["order_reference"] = 1, 1
        order["shares"], order["price"] = 5, 1_000_000
        messages = Path(folder) / "warm.itch"
        messages.write_bytes(order.nbytes.to_bytes(itch.PREFIX_BYTES, "big") + order.tobytes())
        replay.replay(messages, "itch", verify=True).require()


def _tools() -> None:
    """Drive what tools read with; their mappings are read-only."""
    local = ring.Ring.local(ring.MIN_CAPACITY)
    for shared in (local.cells, local.words):
        shared.flags.writeable = False
    region_dump.readable_slots(local)


def _workers() -> None:
    """Drive every loop that a worker may run, and what a venue calls besides."""
    for name in COMPOSITIONS:
        load_composition(name)
    load_feed()
    load_rest()
    mark_compiled(COMPOSITIONS)


def _feed() -> None:
    """Drive the feed to a subscriber and back: frames, a snapshot, the hash of a book."""
    instrument = Instrument("WARM/UP", "1", "1", "100", order_capacity=8)
    exchange = Exchange([instrument])
    exchange.events_ring.add_gating_reader(FEED_READER)
    exchange.submit(instrument.symbol, "sell", price=50, qty=5)
    with (
        TemporaryDirectory(prefix="hft-warm-") as folder,
        FeedServer(
            [exchange.events_ring],
            [exchange.shard.matched],
            [FeedInstrument.of(instrument, 1)],
            publish_endpoints=[f"ipc://{folder}/feed"],
            snapshot_endpoint=f"ipc://{folder}/snapshot",
            start_id=1,
            reader=FEED_READER,
        ) as server,
        Subscriber(f"ipc://{folder}/feed", f"ipc://{folder}/snapshot") as subscriber,
    ):
        deadline = time.monotonic() + FEED_WARM_S
        while time.monotonic() < deadline and not (
            subscriber.instruments and subscriber.is_right(instrument.symbol)
        ):
            server.run_slice()
            subscriber.poll(1)
        subscriber.book(instrument.symbol)
        subscriber.feed_hash(instrument.symbol)
        subscriber.orders(instrument.symbol)
        frames.apply_frame(frames.follower_of(server.publisher.books), np.zeros(8, np.int64), 64)


STEPS: dict[str, Step] = {
    "rings and cells": _cells,
    "the venue": _exchange,
    "replay": _replay,
    "tools": _tools,
    "the feed": _feed,
    "workers": _workers,
    "the flow": demo.prepare,
}
"""Name of each step and what it drives. What a new role needs is added here."""
