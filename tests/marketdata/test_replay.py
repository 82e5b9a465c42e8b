"""`hft replay`: recordings through the real venue, its book held to the recording row by row.

The recordings here are small and hand-written, or drawn from a seed (`recordings.py`); what was
recorded on Nasdaq is replayed in test_recorded.py.
"""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from hftcore.errors import ConfigurationRefused, Refused, UsageRefused, VerificationFailed
from hftcore.marketdata.conversion import TIME_NOTE, CommandRows
from hftcore.ops import replay as replaying
from hftcore.ops.replay import ReplayReport, main, replay
from tests.marketdata.recordings import (
    ROWS,
    SESSION,
    add,
    cancel,
    consistent_rows,
    delete,
    executed,
    executed_at,
    framed,
    lobster_pair,
    replace,
    system_event,
)


@pytest.fixture
def session(tmp_path: Path) -> Path:
    """Return a small ITCH recording."""
    path = tmp_path / "session.itch"
    path.write_bytes(framed(*SESSION))
    return path


def counted(report: ReplayReport, *names: str) -> tuple[int, ...]:
    """Return some counts."""
    return tuple(report.counts[name] for name in names)


def test_session_is_replayed_exactly(session: Path) -> None:
    report = replay(session, "itch", verify=True)
    assert report.problems == ()
    assert (report.compared_rows, report.compared_trades) == (18, 3)
    assert report.events["TRADE"] == 3
    assert report.events["ACCEPTED"] == 9
    assert "EXPIRED" not in report.events
    assert "REJECTED" not in report.events


def test_rows_are_replayed_exactly(tmp_path: Path) -> None:
    report = replay(lobster_pair(tmp_path, ROWS), "lobster", verify=True)
    assert report.problems == ()
    assert (report.compared_rows, report.compared_trades) == (15, 2)
    assert counted(report, "adopted_levels", "cut_levels", "off_head") == (1, 1, 1)


def test_without_verify_nothing_is_compared(session: Path) -> None:
    report = replay(session, "itch")
    assert report.holds
    assert (report.verified, report.compared_rows) == (False, 0)
    assert report.counts["commands"] == 16


def test_recording_that_is_too_much_for_one_venue_is_refused_with_the_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hftcore.matching.state.MAX_ORDERS", 3)
    path = tmp_path / "two.itch"
    path.write_bytes(
        framed(
            add(1, "B", 5, 1_000_000),
            *(add(n, "B", 5, 1_000_000, stock="BEST", locate=9) for n in (2, 3, 4)),
        )
    )
    with pytest.raises(ConfigurationRefused) as caught:
        replay(path, "itch")
    assert "can't be replayed whole" in caught.value.what
    assert caught.value.found.startswith("4 orders, ")
    assert caught.value.found.endswith(" in 2 instruments")
    assert caught.value.remedy == "choose one with --instrument; BEST has the most orders"
    assert replay(path, "itch", "BEST").holds


@pytest.mark.parametrize("recording_format", ["itch", "lobster"])
def test_report_says_that_times_have_no_date(
    session: Path, tmp_path: Path, recording_format: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = session if recording_format == "itch" else lobster_pair(tmp_path, ROWS)
    main(path, recording_format, None, False, False)
    assert f"  note        {TIME_NOTE}\n" in capsys.readouterr().out
    main(path, recording_format, None, False, True)
    assert json.loads(capsys.readouterr().out)["notes"] == [TIME_NOTE]


def test_two_instruments_are_replayed_apart(tmp_path: Path) -> None:
    path = tmp_path / "two.itch"
    path.write_bytes(
        framed(
            add(1, "B", 5, 1_000_000),
            add(2, "S", 5, 900_001, stock="BEST", locate=9),
            executed(1, 5),
            executed(2, 3, locate=9),
        )
    )
    report = replay(path, "itch", verify=True)
    assert report.problems == ()
    assert [listed.units_per_tick for listed in report.instruments] == [100, 1]
    assert report.compared_rows == 4
    report = replay(path, "itch", "BEST", verify=True)
    assert report.problems == ()
    assert (report.compared_rows, report.counts["other_instruments"]) == (2, 2)


def test_recording_without_orders_compares_nothing_and_says_so(tmp_path: Path) -> None:
    path = tmp_path / "idle.itch"
    path.write_bytes(framed(system_event("O"), delete(5)))
    assert replay(path, "itch").holds
    report = replay(path, "itch", verify=True)
    assert report.problems == ("nothing was compared: no row of the recording is about a book",)


def test_altered_book_fails_and_names_the_row(tmp_path: Path) -> None:
    path = lobster_pair(tmp_path, ROWS)
    book = path.with_name(path.name.replace("message", "orderbook"))
    lines = book.read_text().splitlines()
    assert lines[7].startswith("1000200,20,1000000,150")
    lines[7] = lines[7].replace("1000000,150", "1000000,151")
    book.write_text("\n".join(lines) + "\n")
    report = replay(path, "lobster", verify=True)
    assert len(report.problems) == 1
    assert report.problems[0].startswith("row 8 (")
    assert report.problems[0].endswith(
        "TEST bid 1: the recording has 151 at 100.0000, the book has 150 at 100.0000"
    )
    with pytest.raises(VerificationFailed) as caught:
        report.require()
    assert "row 8" in caught.value.found
    assert replay(path, "lobster").holds  # it was not asked to compare


def test_altered_message_fails_and_names_the_row(tmp_path: Path) -> None:
    path = lobster_pair(tmp_path, ROWS)
    path.write_text(path.read_text().replace(",4,4,10,1000200,", ",4,4,11,1000200,"))
    report = replay(path, "lobster", verify=True)
    assert report.problems[0].startswith("row 5 (")


def test_contradicting_message_fails_without_verify_too(tmp_path: Path) -> None:
    path = tmp_path / "some.itch"
    path.write_bytes(framed(add(1, "B", 5, 10_000), executed(1, 6)))
    report = replay(path, "itch")
    assert not report.holds
    assert report.problems[0].startswith(
        "1 rows contradict the rows before them; the first: offset"
    )


def test_wrong_trade_is_found_though_the_book_is_right(
    session: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def swapped(log: NDArray[np.int64]) -> NDArray[np.int64]:
        trades = met(log)
        trades[1, 1] += 1
        return trades

    met = replaying._trades
    monkeypatch.setattr(replaying, "_trades", swapped)
    report = replay(session, "itch", verify=True)
    assert "trade 2 of a block" in report.problems[0]
    assert "with order 5, the venue" in report.problems[0]


def test_level_that_is_deeper_than_the_compared_ones_is_found_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def rest(rows: CommandRows, *order: int) -> int:
        instrument, at_ns, side, price, qty, flag = order
        return rest_as_asked(rows, instrument, at_ns, side, price, qty + (price == 100), bool(flag))

    rest_as_asked = CommandRows.rest
    path = tmp_path / "deep.itch"
    path.write_bytes(framed(*(add(n, "B", 5, 9_900 + 100 * n) for n in range(1, 13))))
    assert replay(path, "itch", verify=True).problems == ()
    path.write_bytes(framed(*(add(n, "B", 5, 11_300 - 100 * n) for n in range(1, 14))))
    monkeypatch.setattr(CommandRows, "rest", rest)
    (problem,) = replay(path, "itch", verify=True).problems
    assert problem.startswith(
        "at the end: TEST bid 13: the recording has 5 at 1.0000, the book has 6"
    )


def broken_reduce(rows: CommandRows, instrument: int, at_ns: int, order_id: int, qty: int) -> None:
    """Take one lot more off than was asked."""
    rows._values.append((4, instrument, 1, at_ns, 0, qty + 1, order_id, 0, 0))


@pytest.mark.parametrize("recording_format", ["itch", "lobster"])
def test_broken_conversion_is_found(
    session: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recording_format: str
) -> None:
    monkeypatch.setattr(CommandRows, "reduce", broken_reduce)
    path = session if recording_format == "itch" else lobster_pair(tmp_path, ROWS)
    report = replay(path, recording_format, verify=True)
    assert report.problems
    assert "the recording has" in report.problems[0]


def test_refused_command_is_a_problem(session: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def cancel_unknown(rows: CommandRows, instrument: int, at_ns: int, order_id: int) -> None:
        rows._values.append((2, instrument, 1, at_ns, 0, 0, order_id + 1000, 0, 0))

    monkeypatch.setattr(CommandRows, "cancel", cancel_unknown)
    assert replay(session, "itch").problems == ("the venue refused 4 commands",)


@pytest.mark.parametrize("block_rows", [1, 2, 7])
def test_blocks_do_not_show(
    session: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block_rows: int
) -> None:
    monkeypatch.setattr("hftcore.marketdata.sources.BLOCK_ROWS", block_rows)
    for path, name in ((session, "itch"), (lobster_pair(tmp_path, ROWS), "lobster")):
        report = replay(path, name, verify=True)
        assert report.problems == ()
        assert report.compared_rows == (18 if name == "itch" else 15)


def consistent_flow(seed: int, count: int) -> list[bytes]:
    """Return messages that contradict nothing: what is taken off was there; books may cross."""
    draw = random.Random(seed)
    lots: dict[int, int] = {}
    prices: dict[int, int] = {}
    messages, newest = [], 0
    for _ in range(count):
        kind = draw.choice("AAAFEEECXDU") if lots else "A"
        reference = draw.choice([*lots, 9_999]) if lots else 0
        there = lots.get(reference, 5)
        taken = draw.randint(1, there)
        price = draw.randint(1, 6) * 100
        if kind in "AFU":
            newest += 1
        if kind in "AF":
            lots[newest], prices[newest] = draw.randint(1, 9), price
            named = "NSDQ" if kind == "F" else ""
            messages.append(add(newest, draw.choice("BS"), lots[newest], price, attribution=named))
            continue
        if kind == "U":
            messages.append(replace(reference, newest, taken, price))
            if reference in lots:
                lots[newest], prices[newest] = taken, price
            taken = there
        elif kind == "D":
            messages.append(delete(reference))
            taken = there
        elif kind == "C":
            at_price = draw.choice((prices.get(reference, price), price))
            messages.append(executed_at(reference, taken, at_price))
        else:
            messages.append((executed if kind == "E" else cancel)(reference, taken))
        if reference in lots:
            lots[reference] -= taken
            if lots[reference] == 0:
                del lots[reference]
    return messages


@settings(deadline=None, max_examples=100)
@given(st.integers(0, 1 << 32), st.integers(1, 150))
def test_any_flow_that_does_not_contradict_itself_is_exact(
    tmp_path_factory: pytest.TempPathFactory, seed: int, count: int
) -> None:
    path = tmp_path_factory.mktemp("flow") / "flow.itch"
    path.write_bytes(framed(*consistent_flow(seed, count)))
    report = replay(path, "itch", verify=True)
    assert report.problems == ()
    assert report.compared_rows == count
    assert report.counts["misfits"] == 0
    shutil.rmtree(path.parent)


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 1 << 32), st.integers(1, 150), st.integers(1, 3))
def test_any_market_is_exact_in_every_window(
    tmp_path_factory: pytest.TempPathFactory, seed: int, count: int, levels: int
) -> None:
    rows, hidden = consistent_rows(seed, count, levels)
    path = lobster_pair(tmp_path_factory.mktemp("market"), rows, levels, hidden)
    report = replay(path, "lobster", verify=True)
    assert report.problems == ()
    assert report.compared_rows == count - len(hidden)
    shutil.rmtree(path.parent)


def test_markets_meet_every_rule(tmp_path: Path) -> None:
    rows, hidden = consistent_rows(1, 3000)
    report = replay(lobster_pair(tmp_path, rows, 2, hidden), "lobster", verify=True)
    assert report.problems == ()
    assert len(hidden) > 20
    for name in ("trades", "off_head", "adopted_levels", "cut_orders", "unknown_references"):
        assert report.counts[name] > 20, name


def test_flows_meet_every_rule(tmp_path: Path) -> None:
    path = tmp_path / "flow.itch"
    path.write_bytes(framed(*consistent_flow(1, 2000)))
    report = replay(path, "itch", verify=True)
    assert report.problems == ()
    for name in ("trades", "off_head", "other_price", "crossing_adds", "unknown_references"):
        assert report.counts[name] > 20, name


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10_000), st.integers(0, 255))
def test_flipped_byte_is_refused_or_ends_in_a_verdict(
    tmp_path_factory: pytest.TempPathFactory, place: int, value: int
) -> None:
    content = bytearray(framed(*SESSION))
    content[place % len(content)] = value
    path = tmp_path_factory.mktemp("flipped") / "flipped.itch"
    path.write_bytes(content)
    try:
        report = replay(path, "itch", verify=True)
    except Refused:
        return
    assert report.holds == (not report.problems)


def test_main_prints_text_and_json_and_returns_the_verdict(
    session: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(session, "itch", None, True, False) == 0
    text = capsys.readouterr().out
    assert "every compared row and trade is exact" in text
    assert "1 off the queue head replayed as reduces" in text
    assert "1 unknown references, 1 adds that cross" in text
    assert "commands/s" in text
    assert main(session, "itch", "TEST", True, True) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["holds"], facts["counts"]["trades"]) == (True, 3)
    assert facts["instruments"][0]["symbol"] == "TEST"
    assert facts["commands_per_second"] > 0
    path = lobster_pair(tmp_path, ROWS)
    path.write_text(path.read_text().replace(",4,4,10,1000200,", ",4,4,11,1000200,"))
    assert main(path, "lobster", None, True, False) == 1
    text = capsys.readouterr().out
    assert "FAILED" in text
    assert "row 5" in text
    with pytest.raises(UsageRefused):
        main(session, "pcap", None, True, False)
