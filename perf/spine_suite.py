"""How many orders a second does the whole spine carry, and how long is the way to a report?

    core 0: [driver] -> ingress -> [sequencer: gate, settlement] -> commands -> core 1: [matcher]
            [report reader] <---------------------------------------- events <------'

Nothing is left out: every command passes the gate (instrument, duplicate client_order_id, profile,
price, quantity, known order), every event settles, every report is read, both slots. No journal.
Driver, sequencer and report reader are agents of one process on the first cpu, the matcher is
alone on the second. The cases named `-routed` have the reporter too, as a fourth agent on the first
cpu: it finds out whom each event concerns and writes it into the driver's report ring.

The memory of the gate's window is touched before, as in a venue that has been up for a while. Flat
out, the median of some repeats counts; open loop, latency is from the planned time of sending to
the first report, in cache-line round trips of the same minutes. The answer is checked: as many
trades, lots and orders on every level and orders in each queue as the generator arrived at.
"""

from __future__ import annotations

import gc
import mmap
import os
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from affinity.pin import pin
from hftcore.accounts.gate import gate_of
from hftcore.accounts.known_orders import touch_heads
from hftcore.engine.matcher import Matcher, matcher_of
from hftcore.engine.reporter import Reporter, reporter_of
from hftcore.engine.sequencer import Sequencer, sequencer_of
from hftcore.matching.state import Shard, allocate, shard_size
from hftcore.messages import SESSION, SYMBOL, CommandKind
from ipc.histogram import Histogram
from ipc.mapping import populate
from ipc.ring import POSITION, Ring, words_for
from perf import floor
from perf import spine_kernels as kernels
from perf.children import Task, run_together, shared_words
from perf.floor import CacheLine, ns_per_tick, regime_of
from perf.harness import Options, median
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
from perf.spine_kernels import Driver
from perf.workloads import CASES as WORKLOADS
from perf.workloads import LADDER_TICKS, Case, Workload, build, definition_words, queue_hash

NAME = "spine"
ROUTED = "-routed"
RATE_BARS = {"moves": 20.0, "mixed": 15.0}
"""M orders a second."""
PACES = {"paced-100k": 100_000.0, "paced-1M": 1_000_000.0}
LATENCY_BAR = 3.0
"""p50 in cache-line round trips."""
RATES = (*RATE_BARS, *(case + ROUTED for case in RATE_BARS))
CASES = (*RATES, *PACES, *(case + ROUTED for case in PACES))
FIRST_SEQUENCE = 1 << 40
FIRST_ORDER_ID = FIRST_SEQUENCE + 2
"""After the listing and the attachment."""
INGRESS_SLOTS, COMMAND_SLOTS, EVENT_SLOTS, REPORT_SLOTS = 256, 1_024, 1_024, 1_024
REPEATS = 5
SMOKE_SCALE = 0.01
PACED_S = 3.0
DUP_WINDOW = 1 << 24


@dataclass(frozen=True)
class Spine:
    """All roles over shared memory, the instrument listed, the driver's account attached."""

    driver: Driver
    sequencer: Sequencer
    reporter: Reporter
    matcher: Matcher
    shard: Shard
    latency: Histogram
    touched: tuple[NDArray[Any], ...]


@dataclass(frozen=True)
class Passed:
    """One run of a workload."""

    rate: float
    reports: int
    wrong: int


def shared_memory(name: str, dtype: np.dtype[Any], count: int, sparse: bool) -> NDArray[Any]:
    """Map a zeroed array that children share (`matching.state.Allocator`)."""
    flags = mmap.MAP_SHARED | mmap.MAP_ANONYMOUS | (0 if sparse else mmap.MAP_POPULATE)
    return np.frombuffer(mmap.mmap(-1, count * dtype.itemsize, flags=flags), dtype, count)


def build_spine(workload: Workload, routed: bool, *, window: int = DUP_WINDOW) -> Spine:
    """Wire the roles as a venue does."""
    case = workload.case
    sizes = (INGRESS_SLOTS, INGRESS_SLOTS, COMMAND_SLOTS, EVENT_SLOTS, INGRESS_SLOTS, REPORT_SLOTS)
    rings = [_ring(size, 2) for size in sizes]
    own, ingress, commands, events, _, reports = rings
    readers = ((own, 1), (ingress, 1), (commands, 1 + routed), (events, 2), (reports, routed))
    for ring, count in readers:
        for reader in range(count):
            ring.add_gating_reader(reader)
    shard = allocate(
        shard_size([(LADDER_TICKS, case.order_capacity)], case.home_count), memory=shared_memory
    )
    gate = gate_of(case.order_capacity + 4 * commands.capacity, window)
    sequencer = sequencer_of(
        [own, ingress], commands, [events], [shard.matched], gate=gate, event_reader=0,
        first_sequence=FIRST_SEQUENCE,
    )  # fmt: skip
    reporter = reporter_of(
        commands, [events], [shard.matched], [rings[4], reports], command_reader=1, event_reader=1,
        first_sequence=FIRST_SEQUENCE,
    )  # fmt: skip
    matcher = matcher_of(shard, commands, events, 0)
    latency = Histogram.local()
    read = reports if routed else events
    reading = np.array([0, kernels.ANSWER] if routed else [1, 0], np.int64)
    driver = Driver(
        workload.rows, np.zeros(8, np.int64), ingress.words, ingress.cells, read.words, read.cells,
        reading, np.zeros(len(workload.rows), np.int64), latency.cells,
    )  # fmt: skip
    touched = (
        *(each for ring in rings for each in (ring.cells, ring.words)),
        shard.orders, shard.totals, shard.homes, shard.moved, shard.levels, shard.bits,
    )  # fmt: skip
    spine = Spine(driver, sequencer, reporter, matcher, shard, latency, touched)
    _open(spine, own, case, routed)
    return spine


def _ring(slots: int, readers: int) -> Ring:
    return Ring.create(shared_words(words_for(slots)), slots, readers)


def _open(spine: Spine, own: Ring, case: Case, routed: bool) -> None:
    """List the instrument through the venue's own ring, attach the driver's account."""
    words = definition_words(case.order_capacity)
    tail: Any = words[8:].view(SYMBOL)[0]
    tail["allowed_types"] = tail["allowed_tifs"] = 0xFFFF
    tail["ingress_id"] = 1
    write_record(own, words)
    kernels.turn(spine.driver, spine.sequencer, spine.reporter, routed, spine.matcher, 20)
    attach = np.zeros(8, np.int64)
    session: Any = attach.view(SESSION)[0]
    session["kind"], session["account_id"] = CommandKind.SESSION_ATTACH, 1
    session["session_id"] = session["incarnation"] = session["ingress_id"] = 1
    driver = spine.driver
    write_record(Ring(driver.ingress_cells, driver.ingress_words), attach)
    kernels.turn(spine.driver, spine.sequencer, spine.reporter, routed, spine.matcher, 20)
    assert driver.seen[kernels.ANSWERED] == (1 if routed else 2)  # its attachment, the listing
    assert spine.sequencer.state["next_sequence"][0] == FIRST_ORDER_ID
    driver.seen[[kernels.ANSWERED, kernels.REPORTS, kernels.CHECKSUM]] = 0


def write_record(ring: Ring, words: NDArray[np.int64]) -> None:
    """Write one command of one or two slots into an ingress ring that does not wrap here."""
    position = ring.position
    begin = position * 8
    ring.words[begin + 1 : begin + 8] = words[1:8]
    if len(words) == 16:
        ring.words[begin + 9 : begin + 16] = words[9:]
        ring.words[begin + 8] = position + 2
    ring.words[begin] = position + 1
    ring.cells[POSITION] = position + len(words) // 8


def warm() -> None:
    """Compile every kernel of the suite in this process."""
    workload = build(WORKLOADS["moves"], scale=0.0001)
    spine = build_spine(workload, True, window=1 << 10)
    count = len(workload.rows)
    roles = (spine.driver, spine.sequencer, spine.reporter)
    kernels.run_alone(*roles, spine.matcher, count, FIRST_ORDER_ID)
    kernels.run_flat_out(*roles, True, 0, FIRST_ORDER_ID)
    kernels.run_paced(*roles, True, 0, FIRST_ORDER_ID, 1.0)
    kernels.run_matcher(spine.matcher, np.ones(8, np.int64))
    floor.warm()


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
            if case in RATES:
                rows.append(measure_rate(case, options, line, cpus))
            else:
                rows.append(measure_latency(case, options, line, cpus))
    finally:
        os.sched_setaffinity(0, before)
    config: Extra = {
        "smoke": options.smoke,
        "repeats": REPEATS,
        "placement": f"driver, sequencer, report reader, reporter: cpu {cpus[0]}; "
        f"matcher: cpu {cpus[1]}",
        "ingress_slots": INGRESS_SLOTS,
        "command_slots": COMMAND_SLOTS,
        "event_slots": EVENT_SLOTS,
        "report_slots": REPORT_SLOTS,
        "dup_window": DUP_WINDOW,
    }
    return SuiteResult(NAME, config, tuple(rows))


def run_spine(
    workload: Workload,
    routed: bool,
    options: Options,
    cpus: tuple[int, ...],
    gap_ticks: float = 0.0,
) -> tuple[Passed, Histogram]:
    """Run a workload in two pinned processes: the resting orders untimed, then the rest."""
    gc.collect()
    spine = build_spine(workload, routed)
    stop = shared_words(8)
    answer = shared_words(8)
    cells = shared_words(len(spine.latency.cells))
    prefill, count = workload.case.prefill, len(workload.rows)
    roles = (spine.driver, spine.sequencer, spine.reporter)

    def drive() -> tuple[int, ...]:
        known = spine.sequencer.gate.known
        touch_heads(known)
        for records in (known.orders, known.names):
            populate(records[: count + 1])
        try:
            kernels.run_flat_out(*roles, routed, prefill, FIRST_ORDER_ID)
            if gap_ticks:
                ticks = kernels.run_paced(*roles, routed, count, FIRST_ORDER_ID, gap_ticks)
            else:
                ticks = kernels.run_flat_out(*roles, routed, count, FIRST_ORDER_ID)
        finally:
            stop[0] = 1
        answer[:] = spine.driver.seen
        cells[:] = spine.latency.cells
        return (int(ticks),)

    def match() -> tuple[int, ...]:
        return (int(kernels.run_matcher(spine.matcher, stop)),)

    tasks = [
        Task("driver, sequencer, reporter", cpus[0], drive, spine.touched),
        Task("matcher", cpus[1], match, spine.touched),
    ]
    (ticks,), _ = run_together(tasks)
    if options.corrupt:
        spine.shard.levels["total_qty"][len(spine.shard.levels) // 4] += 1
    wrong = wrong_answers(spine.shard, workload, answer)
    rate = (count - prefill) * 1e9 / (ticks * ns_per_tick())
    return Passed(rate, int(answer[kernels.REPORTS]), wrong), Histogram(cells)


def wrong_answers(shard: Shard, workload: Workload, seen: NDArray[np.int64]) -> int:
    """Count what differs from the generator's books, trades and answers."""
    wrong = int(np.count_nonzero(shard.levels["total_qty"] != workload.totals))
    wrong += int(np.count_nonzero(shard.levels["count"] != workload.counts))
    wrong += int(queue_hash(shard, FIRST_ORDER_ID)) != workload.queues
    wrong += int(seen[kernels.TRADES]) != workload.trades
    wrong += int(seen[kernels.REJECTS]) != 0
    wrong += int(seen[kernels.ANSWERED]) != len(workload.rows)
    return wrong


def measure_rate(case: str, options: Options, line: CacheLine, cpus: tuple[int, ...]) -> Row:
    """Run a workload as fast as it goes."""
    name, routed = case.removesuffix(ROUTED), case.endswith(ROUTED)
    workload = build(WORKLOADS[name], scale=SMOKE_SCALE if options.smoke else 1.0)
    lines, runs = [line.rtt_ns()], []
    for repeat in range(2 if options.smoke else REPEATS):
        options.progress(f"{NAME}/{case}: run {repeat + 1}")
        runs.append(run_spine(workload, routed, options, cpus)[0])
        lines.append(line.rtt_ns())
    rate, rtt = median([passed.rate for passed in runs]), median(lines)
    wrong = sum(passed.wrong for passed in runs)
    verdicts = (
        at_least(
            f"median of {len(runs)} runs ({regime_of(rtt)})", RATE_BARS[name], rate / 1e6,
            "M orders/s",
            judged=not options.smoke and not routed,
        ),
        content("trades, levels, queues, answers", wrong, sum(run.reports for run in runs)),
    )  # fmt: skip
    extra: Extra = {
        "best_throughput_per_s": max(passed.rate for passed in runs),
        "reports": runs[0].reports,
    }
    return Row(
        suite=NAME, case=case, throughput_per_s=rate, cacheline_rtt_ns=rtt, regime=regime_of(rtt),
        extra=extra, verdicts=verdicts,
    )  # fmt: skip


def measure_latency(case: str, options: Options, line: CacheLine, cpus: tuple[int, ...]) -> Row:
    """Send moves at a planned rate; latency in cache-line round trips."""
    name, routed = case.removesuffix(ROUTED), case.endswith(ROUTED)
    pace = PACES[name]
    scale = 0.002 if options.smoke else min(1.0, pace * PACED_S / WORKLOADS["moves"].commands)
    workload = build(WORKLOADS["moves"], scale=scale)
    lines = [line.rtt_ns()]
    options.progress(f"{NAME}/{case}: {len(workload.rows):,} commands")
    passed, ticks = run_spine(workload, routed, options, cpus, 1e9 / pace / ns_per_tick())
    lines.append(line.rtt_ns())
    rtt = median(lines)
    scale_ns = ns_per_tick()
    p50, p90, p99, p999, p9999, most = (
        value * scale_ns for value in ticks.percentiles((50, 90, 99, 99.9, 99.99, 100))
    )
    ratio = p50 / rtt
    verdicts: tuple[Verdict, ...] = (
        at_most(
            "p50 in cache-line round trips",
            LATENCY_BAR,
            ratio,
            "",
            judged=not options.smoke and not routed,
        ),
        content("trades, levels, queues, answers", passed.wrong, passed.reports),
    )
    return Row(
        suite=NAME,
        case=case,
        rate=pace,
        throughput_per_s=passed.rate,
        latency=Percentiles(p50, p90, p99, p999, p9999, most),
        cacheline_rtt_ns=rtt,
        regime=regime_of(rtt),
        extra={"cacheline_ratio": ratio, "reports": passed.reports},
        verdicts=verdicts,
    )
