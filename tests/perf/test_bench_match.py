"""The match suite: its streams are what they say, and its answer is the reference book's."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from hftcore.errors import ConfigurationRefused
from hftcore.matching.dispatch import apply
from hftcore.matching.emit import input_of, output_of
from hftcore.messages import CommandKind, EventKind, Flags, OrderType, Side, TimeInForce
from perf import match_suite
from perf.harness import Options
from perf.workloads import (
    ACCOUNT,
    CASES,
    CROSSING,
    DEEP,
    FIRST_ROW_ID,
    LADDER_TICKS,
    MIXED,
    MOVES,
    Case,
    Workload,
    build,
    definition_words,
    new_shard,
    queue_hash,
    refuse_other_profile,
)
from tests.reference.book import Memory, Venue
from tests.reference.records import Command, Event, Listing, NewOrder, OrderChange


def small(style: int, prefill: int) -> Workload:
    """Build a stream that the naive book can follow."""
    case = Case("small", style, prefill, 1_500, 4_000, {}, prefill)
    return build(case, scale=0.999)


def commands_of(workload: Workload) -> list[Command]:
    """Decode a stream's rows into the reference's commands."""
    commands: list[Command] = []
    for row, (header, price, qty, detail) in enumerate(workload.rows.tolist()):
        kind = CommandKind(header & 0xFF)
        common = {"sequence": row + FIRST_ROW_ID, "instrument_id": 1, "account_id": ACCOUNT}
        if kind == CommandKind.NEW_ORDER:
            commands.append(
                NewOrder(
                    **common,
                    price=price,
                    qty=qty,
                    side=Side(detail & 0xFF),
                    order_type=OrderType(detail >> 8 & 0xFF),
                    time_in_force=TimeInForce(detail >> 16 & 0xFF),
                )
            )
        else:
            commands.append(
                OrderChange(
                    kind=kind, **common, price=price, qty=qty, order_id=detail + FIRST_ROW_ID
                )
            )
    return commands


@pytest.mark.parametrize(
    ("style", "prefill"), [(MOVES, 100), (CROSSING, 0), (MIXED, 300), (DEEP, 300)]
)
def test_stream_ends_in_the_book_of_the_reference(style: int, prefill: int) -> None:
    workload = small(style, prefill)
    listing = Listing(sequence=1, instrument_id=1, ladder_ticks=LADDER_TICKS, order_capacity=4_000)
    reference = Venue([Memory(4_000, 4 * LADDER_TICKS, 1 << 20)])
    trades = 0
    for command in (listing, *commands_of(workload)):
        trades += sum(
            isinstance(event, Event) and event.kind == EventKind.TRADE
            for event in reference.apply(command)
        )
    assert trades == workload.trades > 0
    book = reference.books[1]
    for side in Side:
        for price, queue in book.levels(side):
            rung = LADDER_TICKS - price if side == Side.BUY else price
            level = 1 + (0 if side == Side.BUY else LADDER_TICKS) + rung
            assert workload.totals[level] == sum(order.leaves for order in queue)
            assert workload.counts[level] == len(queue)
    assert workload.counts.sum() == len(book.resting) == workload.profile["resting"]


def test_queue_hash_sees_the_order_of_a_queue() -> None:
    hashes = []
    for sequences in ((5, 6), (6, 5), (5, 6)):
        shard = new_shard(CASES["moves"])
        inp, out = input_of(np.zeros(16, np.int64)), output_of(np.zeros(128, np.int64))
        inp.words[:] = definition_words(10)
        apply(shard, inp, 0, out, 0, 16)
        inp.words[:] = 0
        order = inp.orders[0]
        order["kind"], order["flags"], order["instrument_id"] = 1, Flags.TWO_SLOTS, 1
        order["side"], order["order_type"], order["time_in_force"] = 1, 1, 1
        order["price"], order["qty"], order["account_id"] = 100, 7, ACCOUNT
        for sequence in sequences:
            order["sequence"] = sequence
            apply(shard, inp, 0, out, 0, 16)
        hashes.append(queue_hash(shard, FIRST_ROW_ID))
    assert hashes[0] != hashes[1]
    assert hashes[0] == hashes[2] != 0


def test_equal_seeds_give_equal_streams_and_others_do_not() -> None:
    case = Case("small", MIXED, 200, 500, 4_000, {}, 200)
    first, again, other = (build(case, seed, scale=0.999) for seed in (1, 1, 2))
    assert (first.rows == again.rows).all()
    assert (first.rows != other.rows).any()


@pytest.mark.parametrize("name", list(CASES))
def test_stream_off_its_description_is_refused(name: str) -> None:
    case = CASES[name]
    found = {**case.shares, "resting": case.resting, "levels": case.levels}
    found["trades_per_order"] = case.trades_per_order
    refuse_other_profile(case, found)
    for key in (*case.shares, "resting"):
        with pytest.raises(ConfigurationRefused, match=key):
            refuse_other_profile(case, {**found, key: found[key] * 1.06})


def test_smoke_run_checks_its_answer_and_judges_no_number() -> None:
    result = match_suite.run(Options(case="moves", smoke=True))
    (row,) = result.rows
    held = {verdict.what: verdict.held for verdict in row.verdicts}
    assert list(held.values()) == [None, True]
    assert row.latency.p99_9_ns is not None
    assert (row.throughput_per_s or 0) > 0


def test_spoiled_level_is_missed() -> None:
    result = match_suite.run(Options(case="moves", smoke=True, corrupt=True))
    assert not result.holds


def test_spoiled_answer_of_the_generator_is_missed() -> None:
    workload = build(replace(CASES["moves"], commands=2_000), scale=0.999)
    assert match_suite.run_once(workload, False).wrong == 0
    assert match_suite.run_once(replace(workload, queues=workload.queues + 1), False).wrong == 1
    assert match_suite.run_once(replace(workload, trades=workload.trades + 1), False).wrong == 1
