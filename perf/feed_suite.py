"""How many updates reach a subscriber, and how soon?

    lossless   writer+publisher (cpu 0) --ipc--> one subscriber (cpu 1), every feed_sequence checked
    books      the same, and each update is applied to the subscriber's L3 book
    paced      100,000 updates/s, open loop --tcp--> four subscribers (cpu 1), each update's age

The events are the matcher's own, recorded from a mixed flow, and pass through a real event ring,
the publisher's poll (its own book included) and libzmq; the subscriber runs the product's kernels.
The publisher waits for the slowest subscriber (`lossless`), so a loss would be a defect: all
subscribers must have every update, in sequence, unaltered, and end with the publisher's book.

Bars: 5 M updates/s to one subscriber; 100,000/s to four with p99 at most 200 us from when an event
was due to be written until it was received. The age is of the update, not of its frame: waiting to
be batched counts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from hftcore.marketdata.feed_server import SPACING_US
from hftcore.marketdata.publisher_state import UPDATES_A_FRAME
from ipc.histogram import BUCKET_COUNT, BUCKETS, CELL_WORDS, highest_of
from perf import feed_kernels, feed_runs
from perf.children import shared_words
from perf.feed_runs import FeedRuns, Outcome, build_books, count_updates
from perf.floor import CacheLine, ns_per_tick
from perf.harness import Options, Repeats, median, repeat_by_regime
from perf.results import (
    Extra,
    Percentiles,
    Row,
    SuiteResult,
    at_least,
    at_most,
    content,
)

NAME = "feed"
LOSSLESS_BAR = 5.0
PACED_BAR_US = 200.0
SUBSCRIBERS = 4
T = TypeVar("T")

warm = feed_runs.warm


def run(options: Options) -> SuiteResult:
    """Measure the cases that `options` asks for."""
    cases = options.cases(NAME, CASES)
    warm()
    runs = FeedRuns(options)
    rows: list[Row] = []
    for case in cases:
        options.progress(f"{NAME}/{case}")
        rows.append(_CASES[case](runs, options))
    config: Extra = {
        "smoke": options.smoke,
        **asdict(runs.parameters),
        "updates_a_frame": UPDATES_A_FRAME,
        "spacing_us": SPACING_US,
        "send_hwm": feed_runs.HWM,
        "placement": f"writer + publisher on cpu {runs.cpus[0]}; subscribers and the I/O threads of"
        f" ZMQ on cpu {runs.cpus[1]}; nice {feed_runs.PRIORITY} where permitted",
        "recording": f"{len(runs.rows):,} events, {runs.spans[1]:,} public, repeated",
    }
    return SuiteResult(NAME, config, tuple(rows))


def measure_lossless(runs: FeedRuns, options: Options) -> Row:
    """Flat out to one subscriber that checks every update."""
    return _throughput("lossless", runs, options, count_updates)


def measure_books(runs: FeedRuns, options: Options) -> Row:
    """Flat out to one subscriber that rebuilds the book."""
    return _throughput("books", runs, options, build_books)


def _throughput(case: str, runs: FeedRuns, options: Options, receive: feed_runs.Receive) -> Row:
    updates = runs.parameters.updates
    repeats = _repeat(runs, options, lambda: runs.run(receive, updates=updates))
    rates = [outcome.per_s[0] for outcome in repeats.values]
    verdicts = (
        at_least(
            f"median of {len(rates)} runs ({repeats.regime})",
            LOSSLESS_BAR,
            median(rates) / 1e6,
            "M updates/s",
            judged=not options.smoke,
        ),
        content("every update, and the end", *_wrong(repeats, updates)),
    )
    return Row(
        suite=NAME,
        case=case,
        throughput_per_s=median(rates),
        cacheline_rtt_ns=repeats.floor_ns,
        regime=repeats.regime,
        extra={
            "best_per_s": max(rates),
            **_counts(repeats),
            "transport": "ipc",
            "subscribers": 1,
            "applies_to_a_book": receive is build_books,
        },
        verdicts=verdicts,
    )


def measure_paced(runs: FeedRuns, options: Options) -> Row:
    """At a fixed rate to four subscribers over tcp: how old an update is when it arrives."""
    amount = runs.parameters
    repeats = _repeat(runs, options, partial(_paced, runs))
    values = np.array([highest_of(bucket) for bucket in range(BUCKET_COUNT)])
    ages = [Percentiles.of_histogram(values, counts, ns_per_tick()) for _, counts in repeats.values]
    p99_us = median([age.p99_ns / 1e3 for age in ages if age.p99_ns is not None])
    outcomes = repeats.each(lambda pair: pair[0])
    late_us = [outcome.late_ns / 1e3 for outcome in outcomes.values]
    verdicts = (
        at_most(
            f"p99 from due to received, median of {len(ages)} runs ({repeats.regime})",
            PACED_BAR_US,
            p99_us,
            "us",
            judged=not options.smoke,
        ),
        content(
            "every update to every subscriber",
            *_wrong(outcomes, SUBSCRIBERS * amount.paced_updates),
        ),
    )
    everything = sum(counts for _, counts in repeats.values)
    return Row(
        suite=NAME,
        case="paced",
        rate=amount.paced_per_s,
        latency=Percentiles.of_histogram(values, np.asarray(everything), ns_per_tick()),
        cacheline_rtt_ns=repeats.floor_ns,
        regime=repeats.regime,
        extra={
            **_counts(outcomes),
            "transport": "tcp",
            "subscribers": SUBSCRIBERS,
            "best_p99_us": min(age.p99_ns / 1e3 for age in ages if age.p99_ns is not None),
            "writer_late_us": max(late_us),
        },
        verdicts=verdicts,
    )


def _paced(runs: FeedRuns) -> tuple[Outcome, NDArray[np.int64]]:
    """Make one paced run; return it with how often each age was seen, over all subscribers."""
    amount = runs.parameters
    cells = shared_words(SUBSCRIBERS * CELL_WORDS).reshape(SUBSCRIBERS, CELL_WORDS)
    next_one = shared_words(1)

    def receive(socket: int, seen: NDArray[np.int64], updates: int, stop: NDArray[np.int64]) -> int:
        own = cells[feed_kernels.take_number(next_one)]
        return int(
            feed_kernels.receive_stamped(
                socket, feed_kernels.new_frame(), seen, updates, stop, own, amount.skipped
            )
        )

    outcome = runs.run(
        receive,
        subscribers=SUBSCRIBERS,
        updates=amount.paced_updates,
        paced_per_s=amount.paced_per_s,
        tcp=True,
    )
    return outcome, cells[:, BUCKETS:].sum(axis=0)


def _repeat(runs: FeedRuns, options: Options, measure: Callable[[], T]) -> Repeats[T]:
    line = CacheLine(runs.cpus[0], runs.cpus[1], 200 if options.smoke else 20_000)
    amount = runs.parameters
    return repeat_by_regime(measure, line.rtt_ns, amount.repeats, amount.budget_s)


def _wrong(repeats: Repeats[Outcome], updates: int) -> tuple[int, int]:
    everything = repeats.values + repeats.left_out
    return sum(outcome.wrong for outcome in everything), len(everything) * updates


def _counts(repeats: Repeats[Outcome]) -> Extra:
    outcomes = repeats.values
    return {
        "repeats": len(outcomes),
        "repeats_left_out": len(repeats.left_out),
        "frames_a_run": median([outcome.frames for outcome in outcomes]),
        "sends_blocked_a_run": median([outcome.blocked for outcome in outcomes]),
    }


_CASES: dict[str, Callable[[FeedRuns, Options], Row]] = {
    "lossless": measure_lossless,
    "books": measure_books,
    "paced": measure_paced,
}
CASES = tuple(_CASES)
