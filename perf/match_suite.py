"""How many commands a second does the matcher do, and how long does each take?

    rows -> [source] -> command ring -> [matcher] -> event ring -> [reader] -> checksum

One process on one core: the source stamps and writes every command (two slots), the matcher's own
`poll` matches, every report is written to a ring and read there. Sequences start at 2^40, so order
ids are sparse numbers, and the index wraps while old orders stay (crossing and deep get a smaller
index than a venue would, so that theirs does too). The four cases are described in `workloads.py`,
which refuses to measure another stream than it describes.

The answer is checked: trades, lots and orders on every level, every order in its place in the queue
must equal what the generator arrived at command by command (which a test compares with the
reference book), and all repeats must read the same checksum.

Throughput is the median of the repeats; time per command is taken in a run of its own, one stamp
of the processor's counter before and one after each command's poll (some 20 ns of it are the stamps
and the poll's entry). Bars: 33, 31, 35 and 20 M/s; on deep at most 250 MB more memory.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np
import psutil
from numpy.typing import NDArray

from affinity.pin import pin
from hftcore.engine.matcher import matcher_of
from hftcore.matching.state import Shard
from ipc.ring import CURSORS, POSITION, Ring
from perf.floor import CacheLine, ns_per_tick, regime_of
from perf.harness import Options, median
from perf.match_kernels import CHECKSUM, EVENTS, TRADES, Bench, run_batches, run_stamped
from perf.results import (
    Extra,
    Percentiles,
    Row,
    SuiteResult,
    Verdict,
    at_least,
    at_most,
    content,
)
from perf.workloads import CASES as WORKLOADS
from perf.workloads import Case, Workload, build, definition_words, new_shard, queue_hash

NAME = "match"
CASES = tuple(WORKLOADS)
BARS = {"moves": 33.0, "crossing": 31.0, "mixed": 35.0, "deep": 20.0}
"""M commands a second: ahead of every peer of ANCHORS.md."""
MEMORY_BAR_MB = {"deep": 250.0}
FIRST_SEQUENCE = 1 << 40
RING_SLOTS = 4_096
BATCH = 1_024
"""Commands that the source writes before the matcher's turn: half a ring, as under load."""
REPEATS = 5
SMOKE_SCALE = 0.01


@dataclass(frozen=True)
class Passed:
    """One run of a workload."""

    rate: float
    """Timed commands a second."""
    events: int
    trades: int
    checksum: int
    wrong: int
    """Levels, counts and totals that differ from the generator's."""
    memory_mb: float


def warm() -> None:
    """Compile every kernel of the suite in this process."""
    workload = build(WORKLOADS["moves"], scale=0.0001)
    run_once(workload, False)
    stamp_once(workload)


def run(options: Options) -> SuiteResult:
    """Measure the cases that `options` asks for."""
    cases = options.cases(NAME, CASES)
    cpus = options.pinned(2)
    before = os.sched_getaffinity(0)
    line = CacheLine(cpus[0], cpus[1], 2_000)
    rows = []
    try:
        pin([cpus[0]])
        warm()
        for case in cases:
            rows.append(measure(WORKLOADS[case], options, line))
    finally:
        os.sched_setaffinity(0, before)
    config: Extra = {
        "smoke": options.smoke,
        "repeats": REPEATS,
        "ring_slots": RING_SLOTS,
        "batch": BATCH,
        "first_sequence": FIRST_SEQUENCE,
    }
    return SuiteResult(NAME, config, tuple(rows))


def measure(case: Case, options: Options, line: CacheLine) -> Row:
    """Run one case: throughput in repeats, then the time of each command."""
    options.progress(f"{NAME}/{case.name}: generate")
    workload = build(case, scale=SMOKE_SCALE if options.smoke else 1.0)
    options.progress(f"{NAME}/{case.name}: {describe(workload)}")
    lines = [line.rtt_ns()]
    runs = []
    for repeat in range(2 if options.smoke else REPEATS):
        options.progress(f"{NAME}/{case.name}: run {repeat + 1}")
        runs.append(run_once(workload, options.corrupt))
        lines.append(line.rtt_ns())
    ticks = stamp_once(workload)
    rate = median([passed.rate for passed in runs])
    memory = max(passed.memory_mb for passed in runs)
    rtt = median(lines)
    extra: Extra = {
        **{f"profile_{key}": value for key, value in workload.profile.items()},
        "best_throughput_per_s": max(passed.rate for passed in runs),
        "events": runs[0].events,
        "checksum": runs[0].checksum,
        "memory_mb": memory,
    }
    return Row(
        suite=NAME,
        case=case.name,
        throughput_per_s=rate,
        latency=Percentiles.of_samples(ticks, ns_per_tick()),
        cacheline_rtt_ns=rtt,
        regime=regime_of(rtt),
        extra=extra,
        verdicts=verdicts(case, runs, rate, memory, not options.smoke),
    )


def verdicts(
    case: Case, runs: list[Passed], rate: float, memory: float, judged: bool
) -> tuple[Verdict, ...]:
    """Judge a case: content always, numbers unless it was a smoke run."""
    wrong = sum(passed.wrong for passed in runs)
    wrong += sum(passed.checksum != runs[0].checksum for passed in runs)
    found = [
        at_least(
            f"median of {len(runs)} runs", BARS[case.name], rate / 1e6, "M commands/s",
            judged=judged,
        ),
        content("trades, orders, levels, checksums", wrong, sum(p.events for p in runs)),
    ]  # fmt: skip
    if case.name in MEMORY_BAR_MB:
        found.append(at_most("extra memory", MEMORY_BAR_MB[case.name], memory, "MB", judged=judged))
    return tuple(found)


def describe(workload: Workload) -> str:
    """Say what a workload is made of."""
    found = workload.profile
    shares = ", ".join(
        f"{found[verb]:.1%} {verb}s" for verb in ("add", "cancel", "move", "aggressor")
    )
    return (
        f"{workload.case.commands:,} commands, {shares}; {found['trades_per_order']:.2f} trades an "
        f"order; at the end {found['resting']:,.0f} orders on {found['levels']:,.0f} levels"
    )


def prepare(workload: Workload) -> tuple[Shard, Bench]:
    """Make the rings and the shard, list the instrument, put the resting orders in."""
    case = workload.case
    shard = new_shard(case)
    commands, events = Ring.local(RING_SLOTS), Ring.local(RING_SLOTS)
    for ring in (commands, events):
        ring.add_gating_reader(0)
    definition = definition_words(case.order_capacity)
    definition[2] = FIRST_SEQUENCE - 1
    commands.words[: len(definition)] = definition
    commands.words[8], commands.words[0] = 2, 1
    commands.cells[POSITION] = 2
    assert commands.cells[CURSORS] == 0
    bench = Bench(
        matcher_of(shard, commands, events, 0),
        workload.rows,
        np.zeros(8, np.int64),
        np.zeros(8, np.int64),
    )
    run_batches(bench, case.prefill, BATCH, FIRST_SEQUENCE)
    return shard, bench


def run_once(workload: Workload, corrupt: bool) -> Passed:
    """Run a workload as fast as it goes and check the answer."""
    process = psutil.Process()
    memory = process.memory_info().rss
    shard, bench = prepare(workload)
    count = len(workload.rows)
    ticks = run_batches(bench, count, BATCH, FIRST_SEQUENCE)
    memory = process.memory_info().rss - memory
    if corrupt:
        shard.levels["total_qty"][len(shard.levels) // 4] += 1
    wrong = int(np.count_nonzero(shard.levels["total_qty"] != workload.totals))
    wrong += int(np.count_nonzero(shard.levels["count"] != workload.counts))
    wrong += int(queue_hash(shard, FIRST_SEQUENCE)) != workload.queues
    wrong += int(bench.seen[TRADES]) != workload.trades
    wrong += int(shard.progress["live_orders"][0]) != int(workload.profile["resting"])
    timed = count - workload.case.prefill
    return Passed(
        rate=timed / (ticks * ns_per_tick() * 1e-9),
        events=int(bench.seen[EVENTS]),
        trades=int(bench.seen[TRADES]),
        checksum=int(bench.seen[CHECKSUM]),
        wrong=wrong,
        memory_mb=memory / 1e6,
    )


def stamp_once(workload: Workload) -> NDArray[np.int64]:
    """Return how long each timed command took, in ticks."""
    _, bench = prepare(workload)
    count = len(workload.rows)
    ticks = np.zeros(count - workload.case.prefill, np.int64)
    stamped = run_stamped(bench, count, BATCH, FIRST_SEQUENCE, ticks)
    return ticks[:stamped]
