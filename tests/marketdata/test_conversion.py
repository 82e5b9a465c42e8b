"""What each kind of recorded row becomes: commands, order ids, counts. No venue takes part here."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from hftcore.marketdata.conversion import Conversion, QueueModel
from hftcore.marketdata.sources import Source, open_source
from hftcore.messages import NEW_ORDER, ORDER_CHANGE, ORIGIN, CommandKind, ExecFlags, Flags
from tests.marketdata.recordings import (
    ROWS,
    SESSION,
    START_NS,
    Row,
    add,
    cancel,
    delete,
    executed,
    executed_at,
    framed,
    lobster_pair,
    replace,
)

FIRST = 10


def converted(source: Source) -> Conversion:
    """Convert a small recording in one go."""
    conversion = source.convert(FIRST)
    assert conversion is not None
    assert source.convert(FIRST + len(conversion.commands)) is None
    return conversion


def itch(directory: Path, *messages: bytes) -> tuple[Source, Conversion]:
    """Write and convert ITCH messages."""
    path = directory / "some.itch"
    path.write_bytes(framed(*messages))
    source = open_source(path, "itch", None)
    return source, converted(source)


def texts(commands: NDArray[np.int64]) -> list[str]:
    """Return commands as words: what, order id, side, lots, ticks, flags."""
    found = []
    for number, row in enumerate(commands):
        new = row[:8].view(NEW_ORDER)[0]
        change = row[:8].view(ORDER_CHANGE)[0]
        kind = CommandKind(new["kind"])
        assert new["flags"] == Flags.TWO_SLOTS
        assert new["order_type"] == 1 or kind != CommandKind.NEW_ORDER
        assert new["sequence"] == 0
        assert not row[8:].view(ORIGIN)[0]["client_order_id"].any()
        if kind != CommandKind.NEW_ORDER:
            assert new["account_id"] == 1
            lots = f" {change['qty']}" if kind == CommandKind.REDUCE_ORDER else ""
            found.append(f"{kind.name.split('_')[0].lower()} {change['order_id']}{lots}")
            continue
        side = {1: "buy", 2: "sell"}[int(new["side"])]
        resting = new["time_in_force"] == 1
        assert new["account_id"] == (1 if resting else 2)
        what = f"rest {FIRST + number}" if resting else "aggress"
        flag = " replay" if new["exec_flags"] == ExecFlags.REPLAY_ADD else ""
        found.append(f"{what} {side} {new['qty']} at {new['price']}{flag}")
    return found


def test_session_becomes_these_commands(tmp_path: Path) -> None:
    source, conversion = itch(tmp_path, *SESSION)
    assert texts(conversion.commands) == [
        "rest 10 buy 100 at 10000",
        "rest 11 buy 50 at 10000",
        "rest 12 sell 70 at 10003",
        "rest 13 sell 30 at 10002",
        "aggress buy 10 at 10002",
        "aggress buy 20 at 10002",
        "reduce 11 5",  # order 1 stands before it
        "reduce 10 40",
        "cancel 12",  # replaced by a new reference
        "rest 19 sell 60 at 10003",
        "reduce 19 10",  # executed at another price
        "cancel 10",
        "aggress sell 45 at 10000",
        "rest 23 buy 20 at 10003 replay",  # crosses, and rested all the same
        "cancel 19",
        "cancel 23",
    ]
    assert conversion.trades.tolist() == [[4, 13], [5, 13], [12, 11]]
    counts = source.counts.numbers()
    assert {name: count for name, count in counts.items() if count} == {
        "rows": 19, "adds": 5, "executions": 5, "cancels": 1, "deletes": 4, "replaces": 1,
        "prints": 1, "breaks": 1, "others": 1, "commands": 16, "trades": 3, "off_head": 1,
        "other_price": 1, "unknown_references": 1, "crossing_adds": 1,
    }  # fmt: skip
    assert source.counts.first_misfit == ""
    assert conversion.last_commands.tolist() == [
        -1, 0, 1, 2, 3, 4, 5, 6, 7, 9, 10, 10, 11, 12, 12, 12, 13, 14, 15,
    ]  # fmt: skip
    assert conversion.instruments.tolist() == [0] + [1] * 18


def test_recorded_time_travels_in_sequenced_ns_and_never_goes_back(tmp_path: Path) -> None:
    source, conversion = itch(
        tmp_path,
        add(1, "B", 1, 100, number=5),
        add(2, "B", 1, 100, number=3),
        add(3, "B", 1, 100, number=6),
    )
    stamps = conversion.commands[:, :8].view(NEW_ORDER)["sequenced_ns"][:, 0]
    assert (stamps - START_NS).tolist() == [5000, 5000, 6000]
    assert source.counts.time_reversals == 1


def test_replaced_order_loses_its_place_at_the_same_price(tmp_path: Path) -> None:
    _, conversion = itch(
        tmp_path,
        add(1, "B", 50, 10_000),
        add(2, "B", 50, 10_000),
        replace(1, 3, 40, 10_000),
        executed(2, 50),
        executed(3, 40),
    )
    assert conversion.trades.tolist() == [[4, FIRST + 1], [5, FIRST + 3]]


def test_execution_at_the_orders_own_price_trades(tmp_path: Path) -> None:
    source, conversion = itch(tmp_path, add(1, "S", 50, 10_000), executed_at(1, 20, 10_000))
    assert texts(conversion.commands)[1] == "aggress buy 20 at 100"
    assert (source.counts.trades, source.counts.other_price) == (1, 0)


def test_order_that_is_first_of_a_worse_level_does_not_trade(tmp_path: Path) -> None:
    source, conversion = itch(
        tmp_path, add(1, "S", 50, 10_000), add(2, "S", 50, 10_100), executed(2, 50)
    )
    assert texts(conversion.commands)[2] == f"reduce {FIRST + 1} 50"
    assert (source.counts.trades, source.counts.off_head) == (0, 1)


def test_orders_from_before_the_recording_change_nothing(tmp_path: Path) -> None:
    source, conversion = itch(
        tmp_path,
        add(1, "B", 1, 100),
        executed(7, 1),
        executed_at(7, 1, 1),
        cancel(7, 1),
        delete(7),
        replace(7, 8, 1, 1),
        delete(8),
    )
    assert len(conversion.commands) == 1
    assert source.counts.unknown_references == 6
    assert source.counts.misfits == 0


@pytest.mark.parametrize(
    ("messages", "row", "said"),
    [
        ((add(1, "B", 5, 100), executed(1, 6)), 1, "6 off order 1, which has 5"),
        ((add(1, "B", 5, 100), cancel(1, 6)), 1, "6 off order 1, which has 5"),
        ((add(1, "B", 5, 100), add(1, "B", 5, 100)), 1, "rests already"),
        (
            (
                add(1, "B", 5, 100),
                add(2, "B", 5, 100, stock="BEST", locate=9),
                delete(1, locate=9),
            ),
            2,
            "another instrument's",
        ),
    ],
)
def test_message_that_contradicts_the_ones_before_is_counted_and_named(
    tmp_path: Path, messages: tuple[bytes, ...], row: int, said: str
) -> None:
    source, _ = itch(tmp_path, *messages)
    offset = sum(2 + len(message) for message in messages[:row])
    assert source.counts.misfits == 1
    assert source.counts.first_misfit.startswith(f"offset {offset} (")
    assert said in source.counts.first_misfit


def test_instrument_that_was_not_chosen_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "two.itch"
    path.write_bytes(
        framed(add(1, "B", 5, 100), add(2, "B", 5, 150, stock="BEST", locate=9), delete(1))
    )
    source = open_source(path, "itch", "BEST")
    conversion = converted(source)
    assert texts(conversion.commands) == [f"rest {FIRST} buy 5 at 150"]
    assert source.counts.other_instruments == 2
    assert conversion.instruments.tolist() == [0, 1, 0]
    both = converted(open_source(path, "itch", None))
    assert both.instruments.tolist() == [1, 2, 1]
    assert both.last_commands.tolist() == [0, 1, 2]


def test_prices_that_are_not_whole_cents_make_finer_ticks(tmp_path: Path) -> None:
    source, conversion = itch(tmp_path, add(1, "B", 5, 150), add(2, "S", 5, 200))
    assert source.instruments[0].units_per_tick == 1
    assert texts(conversion.commands)[0] == "rest 10 buy 5 at 150"


def test_lobster_rows_become_these_commands(tmp_path: Path) -> None:
    source = open_source(lobster_pair(tmp_path, ROWS), "lobster", None)
    conversion = converted(source)
    assert texts(conversion.commands) == [
        "rest 10 buy 100 at 10000 replay",  # the first row is seeded
        "rest 11 buy 50 at 10000",
        "rest 12 sell 70 at 10003",
        "rest 13 sell 30 at 10002",
        "aggress buy 10 at 10002",
        "rest 15 buy 10 at 9998",
        "rest 16 buy 10 at 9999",
        "cancel 15",  # outside the window of two
        "reduce 11 20",  # order 1 stands before it
        "reduce 10 40",
        "cancel 16",
        "rest 21 buy 10 at 9998 replay",  # revealed again
        "aggress sell 60 at 10000",
        "cancel 12",
        "cancel 11",
    ]


WINDOW = [
    (1, 1, 100, 1_000_000, 1),
    (1, 2, 50, 990_000, 1),
    (1, 3, 25, 980_000, 1),
    (1, 4, 10, 995_000, 1),
    (1, 5, 10, 995_000, 1),
    (3, 4, 10, 995_000, 1),
    (3, 5, 10, 995_000, 1),
    (2, 2, 20, 990_000, 1),
    (4, 1, 100, 1_000_000, 1),
    (4, 2, 30, 990_000, 1),
]


def test_window_is_cut_and_its_deepest_level_is_adopted(tmp_path: Path) -> None:
    source = open_source(lobster_pair(tmp_path, WINDOW), "lobster", None)
    conversion = converted(source)
    assert texts(conversion.commands) == [
        "rest 10 buy 100 at 10000 replay",
        "rest 11 buy 50 at 9900",
        "rest 12 buy 25 at 9800",
        "cancel 12",  # a third level is outside the window of two
        "rest 14 buy 10 at 9950",
        "cancel 11",
        "rest 16 buy 10 at 9950",
        "cancel 14",
        "cancel 16",
        "rest 19 buy 50 at 9900 replay",  # adopted
        "reduce 19 20",  # order 2 is forgotten: off the adopted lots
        "aggress sell 100 at 10000",
        "rest 22 buy 25 at 9800 replay",
        "aggress sell 30 at 9900",
    ]
    counts = source.counts
    assert (counts.seeded_levels, counts.adopted_levels) == (1, 2)
    assert (counts.cut_levels, counts.cut_orders) == (2, 2)
    assert counts.unknown_references == 3
    assert counts.misfits == 0
    assert conversion.last_commands[-1] == len(conversion.commands) - 1


def rewritten(directory: Path, start: list[Row], *lines: Row) -> Source:
    """Convert a pair whose last messages were replaced; the order book file stays as it was."""
    path = lobster_pair(directory, start)
    texts = path.read_text().splitlines()
    for number, row in enumerate(lines, len(texts) - len(lines)):
        texts[number] = texts[number].split(",")[0] + "," + ",".join(map(str, row))
    path.write_text("\n".join(texts) + "\n")
    source = open_source(path, "lobster", None)
    converted(source)
    return source


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ((4, 2, 60, 990_000, 1), "row 3: 60 off order 2, which has 50"),
        ((3, 2, 40, 990_000, 1), "row 3: 40 off order 2, which has 50"),
        ((1, 2, 10, 990_000, 1), "row 3: adds order 2, which rests already"),
        ((3, 2, 50, 980_000, 1), "row 3: order 2 rests at another price or side"),
        ((3, 7, 50, 970_000, 1), "row 3: order 7 is unknown and nothing was adopted"),
    ],
)
def test_row_that_contradicts_the_ones_before_is_counted_and_named(
    tmp_path: Path, row: Row, said: str
) -> None:
    source = rewritten(tmp_path, WINDOW[:3], row)
    assert source.counts.misfits >= 1
    assert source.counts.first_misfit.startswith(said)


def test_order_that_is_gone_is_unknown(tmp_path: Path) -> None:
    gone = (3, 2, 50, 990_000, 1)
    source = rewritten(tmp_path, WINDOW[:4], gone, gone)
    # Its level is adopted again, as the order book file still shows it: from there it is taken.
    assert (source.counts.unknown_references, source.counts.adopted_levels) == (1, 2)
    (tmp_path / "seeded").mkdir()
    seeded = (3, 1, 100, 1_000_000, 1)
    ask = (1, 2, 50, 1_010_000, -1)
    source = rewritten(tmp_path / "seeded", [WINDOW[0], ask, seeded, ask], seeded)
    assert source.counts.first_misfit.startswith("row 4: order 1 is unknown and nothing was")
    assert source.counts.unknown_references == 2


def test_order_that_is_added_twice_keeps_its_newer_place(tmp_path: Path) -> None:
    source = rewritten(
        tmp_path,
        [*WINDOW[:3], (1, 4, 5, 995_000, 1), (1, 5, 5, 995_000, 1)],
        (1, 2, 7, 1_000_000, 1),  # row 3: order 2 once more, elsewhere
        (1, 4, 5, 995_000, 1),  # row 4: pushes the older place out of the window
        (3, 2, 7, 1_000_000, 1),
    )
    assert (source.counts.misfits, source.counts.unknown_references) == (1, 0)


def test_level_that_nobody_added_is_not_adopted_before_the_deepest(tmp_path: Path) -> None:
    source = rewritten(tmp_path, WINDOW[:2] + [(1, 3, 5, 1_010_000, 1)], (5, 3, 5, 1_010_000, 1))
    assert source.counts.misfits == 0  # two levels are there, as many as the file shows
    source = rewritten(tmp_path, [WINDOW[0], (1, 3, 5, 1_010_000, 1)], (5, 3, 5, 1_010_000, 1))
    assert source.counts.first_misfit == (
        "row 2: the file's book shows more levels than were added"
    )
    assert source.counts.adopted_levels == 0


def test_model_knows_who_would_trade_first() -> None:
    model = QueueModel()
    model.add(0, 100, 1, 5)
    model.add(0, 101, 2, 5)
    model.add(0, 101, 3, 5)
    model.add(1, 103, 4, 5)
    assert model.is_first(0, 101, 2)
    assert not model.is_first(0, 101, 3)
    assert not model.is_first(0, 100, 1)
    assert model.crosses(0, 103)
    assert not model.crosses(0, 102)
    assert model.crosses(1, 101)
    assert not model.crosses(1, 102)
    model.take(0, 101, 2, 5)
    model.take(0, 101, 3, 4)
    assert model.is_first(0, 101, 3)
    assert model.drop(0, 101) == {3: 1}
    assert model.is_first(0, 100, 1)
