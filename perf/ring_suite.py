"""How fast is the ring, beside what the hardware and the alternative allow?

    rtt              A: ping          --ring--> B: pong --ring--> A   64 bytes, one at a time
    throughput-each  A: write_each    --ring--> B: read_checked       published one by one
    throughput-16    A: write_batches --ring--> B: read_checked       published 16 at a time
    index-ring       the same three over an index ring, each repeat beside the real one
    two-readers      one writer, two gating readers, published 16 at a time
    tailing          one writer, a gating reader, a tailing one that may lose and counts it

Everything runs on `ipc.ring`'s own functions, every message is checked in every word, the cache
line is measured beside each repeat, medians are judged. Bars: a round trip of at most 1.15
cache-line round trips; one by one 190 M/s near and 17 far; by 16, 400 near and 70 far.

Why the round trip can be shorter than the bare line's: a bounced line must be taken back from the
other core before each store, while of a ring the next slots are owned ahead of time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict

import numpy as np

from perf import ring_runs
from perf.floor import ns_per_tick
from perf.harness import Options, Repeats, median
from perf.results import (
    Extra,
    Percentiles,
    Regime,
    Row,
    SuiteResult,
    Verdict,
    at_least,
    at_most,
    content,
)
from perf.ring_kernels import RELEASE_EVERY
from perf.ring_runs import RingRuns, Stream, Trips

NAME = "ring"
RTT_BAR = 1.15
EACH_BARS: dict[Regime, float] = {"near": 190.0, "far": 17.0}
BATCH_BARS: dict[Regime, float] = {"near": 400.0, "far": 70.0}
BATCH = 16

warm = ring_runs.warm


def run(options: Options) -> SuiteResult:
    """Measure the cases that `options` asks for."""
    cases = options.cases(NAME, CASES)
    warm()
    runs = RingRuns(options)
    rows: list[Row] = []
    for case in cases:
        options.progress(f"{NAME}/{case}")
        rows.extend(_CASES[case](runs, not options.smoke))
    config: Extra = {
        "smoke": options.smoke,
        **asdict(runs.parameters),
        "release_every": RELEASE_EVERY,
        "second_reader": "fused with the first" if runs.fused else "on a cpu of its own",
    }
    return SuiteResult(NAME, config, tuple(rows))


def measure_rtt(runs: RingRuns, judged: bool) -> list[Row]:
    """Round trips over two rings, beside the cache line's."""
    there, back = runs.ring(), runs.ring()
    repeats = runs.repeat(lambda: runs.round_trips(there, back))
    ratio = median(
        [
            trips.p50_ns / line
            for trips, line in zip(repeats.values, repeats.cacheline_rtt_ns, strict=True)
        ]
    )
    verdicts = (
        at_most(
            f"p50 of a round trip, in cache-line round trips ({repeats.regime})",
            RTT_BAR,
            ratio,
            "",
            judged=judged,
        ),
        _trips_content(runs, repeats),
    )
    return [_trips_row("rtt", runs, repeats, {"cacheline_ratio": ratio}, verdicts)]


def measure_each(runs: RingRuns, judged: bool) -> list[Row]:
    """Messages published one by one."""
    return [_throughput(runs, "throughput-each", 1, EACH_BARS, judged)]


def measure_batches(runs: RingRuns, judged: bool) -> list[Row]:
    """Messages published 16 at a time."""
    return [_throughput(runs, "throughput-16", BATCH, BATCH_BARS, judged)]


def _throughput(
    runs: RingRuns, case: str, batch: int, bars: dict[Regime, float], judged: bool
) -> Row:
    ring = runs.ring()
    repeats = runs.repeat(lambda: runs.stream(ring, batch))
    rates = _rates(repeats)
    verdicts = (
        at_least(
            f"median of {len(rates)} slices, {_disturbed(repeats)} disturbed ones left out"
            f" ({repeats.regime})",
            bars[repeats.regime],
            median(rates) / 1e6,
            "M messages/s",
            judged=judged,
        ),
        _stream_content(runs, repeats),
    )
    return _stream_row(case, runs, repeats, {"batch": batch}, verdicts)


def measure_index_ring(runs: RingRuns, judged: bool) -> list[Row]:
    """The index ring, each repeat right after one of the real ring; the ratio is what counts."""
    return [_index_trips(runs, judged), _index_stream(runs, 1), _index_stream(runs, BATCH)]


def _index_trips(runs: RingRuns, judged: bool) -> Row:
    ours = runs.ring(), runs.ring()
    theirs = runs.ring(), runs.ring()
    pairs = runs.repeat(lambda: (runs.round_trips(*ours), runs.round_trips_indexed(*theirs)))
    in_slot, indexed = pairs.each(lambda pair: pair[0]), pairs.each(lambda pair: pair[1])
    ratio = median([a.p50_ns / b.p50_ns for a, b in pairs.values])
    extra = {
        "in_slot_p50_ns": median([trips.p50_ns for trips in in_slot.values]),
        "in_slot_over_index": ratio,
    }
    verdicts = (
        at_most(
            f"sequence in the slot: p50 over the index ring's ({pairs.regime})",
            1.0,
            ratio,
            "",
            judged=judged,
        ),
        _trips_content(runs, indexed),
        _trips_content(runs, in_slot),
    )
    return _trips_row("index-ring/rtt", runs, indexed, extra, verdicts)


def _index_stream(runs: RingRuns, batch: int) -> Row:
    ours, theirs = runs.ring(), runs.ring()
    pairs = runs.repeat(lambda: (runs.stream(ours, batch), runs.stream_indexed(theirs, batch)))
    in_slot, indexed = pairs.each(lambda pair: pair[0]), pairs.each(lambda pair: pair[1])
    extra: Extra = {
        "batch": batch,
        "in_slot_per_s": median(_rates(in_slot)),
        "in_slot_over_index": median(_rates(in_slot)) / median(_rates(indexed)),
    }
    verdicts = (_stream_content(runs, indexed), _stream_content(runs, in_slot))
    case = "index-ring/each" if batch == 1 else f"index-ring/{batch}"
    return _stream_row(case, runs, indexed, extra, verdicts)


def measure_two_readers(runs: RingRuns, judged: bool) -> list[Row]:
    """Two gating readers; the rate counts each message once."""
    ring = runs.ring(readers=2)
    repeats = runs.repeat(lambda: runs.two_readers(ring, BATCH))
    extra: Extra = {"batch": BATCH, "readers": "fused" if runs.fused else "one cpu each"}
    verdicts = (_stream_content(runs, repeats, readings=2),)
    return [_stream_row("two-readers", runs, repeats, extra, verdicts)]


def measure_tailing(runs: RingRuns, judged: bool) -> list[Row]:
    """A tailing reader beside a gating one; what it lost is counted, what it has is right."""
    ring = runs.ring()
    repeats = runs.repeat(lambda: runs.tailing(ring, BATCH))
    everything = repeats.values + repeats.left_out
    received = sum(stream.received for stream in everything)
    lost = sum(stream.lost for stream in everything)
    written = len(everything) * runs.messages_a_repeat
    wrong = sum(stream.wrong for stream in everything)
    extra: Extra = {
        "batch": BATCH,
        "readers": "fused" if runs.fused else "one cpu each",
        "received": received,
        "lost": lost,
        "written": written,
    }
    verdicts = (
        Verdict(
            "what the tailing reader received and what it counted as lost",
            f"{written:,} written",
            f"{received:,} + {lost:,}",
            received + lost == written,
        ),
        content("every message that either reader had", wrong, written + received),
    )
    return [_stream_row("tailing", runs, repeats, extra, verdicts)]


def _trips_row(
    case: str, runs: RingRuns, repeats: Repeats[Trips], extra: Extra, verdicts: tuple[Verdict, ...]
) -> Row:
    ticks = np.concatenate([trips.ticks for trips in repeats.values])
    return Row(
        suite=NAME,
        case=case,
        latency=Percentiles.of_samples(ticks, ns_per_tick()),
        cacheline_rtt_ns=repeats.floor_ns,
        regime=repeats.regime,
        extra={**_counts(runs, repeats), "trips": runs.parameters.trips, **extra},
        verdicts=verdicts,
    )


def _stream_row(
    case: str,
    runs: RingRuns,
    repeats: Repeats[Stream],
    extra: Extra,
    verdicts: tuple[Verdict, ...],
) -> Row:
    rates = _rates(repeats)
    return Row(
        suite=NAME,
        case=case,
        throughput_per_s=median(rates),
        cacheline_rtt_ns=repeats.floor_ns,
        regime=repeats.regime,
        extra={
            "best_per_s": max(rates),
            **_counts(runs, repeats),
            "slices": len(rates),
            "slices_disturbed": _disturbed(repeats),
            "messages_a_slice": runs.parameters.messages,
            **extra,
        },
        verdicts=verdicts,
    )


def _rates(repeats: Repeats[Stream]) -> list[float]:
    """Return the rate of every slice that ran undisturbed, of every slice when none did."""
    calm = [rate for stream in repeats.values for rate in stream.rates]
    return calm or [rate for stream in repeats.values for rate in stream.disturbed]


def _disturbed(repeats: Repeats[Stream]) -> int:
    return sum(len(stream.disturbed) for stream in repeats.values)


def _counts(runs: RingRuns, repeats: Repeats[Trips] | Repeats[Stream]) -> Extra:
    return {
        "repeats": len(repeats.values),
        "repeats_left_out": len(repeats.left_out),
        "capacity": runs.parameters.capacity,
    }


def _trips_content(runs: RingRuns, repeats: Repeats[Trips]) -> Verdict:
    everything = repeats.values + repeats.left_out
    wrong = sum(trips.wrong for trips in everything)
    return content("every echo", wrong, len(everything) * runs.parameters.trips)


def _stream_content(runs: RingRuns, repeats: Repeats[Stream], readings: int = 1) -> Verdict:
    everything = repeats.values + repeats.left_out
    wrong = sum(stream.wrong for stream in everything)
    checked = len(everything) * runs.messages_a_repeat * readings
    return content("every message", wrong, checked)


_CASES: dict[str, Callable[[RingRuns, bool], list[Row]]] = {
    "rtt": measure_rtt,
    "throughput-each": measure_each,
    "throughput-16": measure_batches,
    "index-ring": measure_index_ring,
    "two-readers": measure_two_readers,
    "tailing": measure_tailing,
}
CASES = tuple(_CASES)
