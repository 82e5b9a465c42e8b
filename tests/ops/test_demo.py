"""`hft demo` as people run it, and that its verdict can be bad.

Real processes throughout: the command itself once for a pipe, once stopped by Ctrl-C, and its parts
from within for what must not hold.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from hftcore.marketdata.subscriber import Subscriber
from hftcore.messages import Side
from hftcore.ops import demo
from hftcore.ops.demo_processes import Board, Drive
from hftcore.ops.demo_screen import Sample, Top, line, rate_text, summary, table, time_text
from tests.ops.venues import Place, hft
from tests.processes import DEADLINE_S, ROOT


def test_demo_ends_with_a_good_verdict_and_leaves_nothing(place: Place) -> None:
    said = hft(place, "demo", "--seconds", "1", "--rate", "5000", "--json")
    assert said.returncode == 0, said.stdout + said.stderr
    facts = json.loads(said.stdout)
    assert facts["holds"] is True
    assert facts["problems"] == []
    assert facts["counts"]["commands_sent"] == facts["counts"]["commands_answered"] == 5_000
    assert facts["counts"]["trades"] == facts["counts"]["expected_trades"] > 0
    assert facts["agreed"] == ["DEC/USD", "BTC/USD", "ETH/USD", "DEC/BTC"]
    assert facts["updates"] > 1_000
    assert list(place.base.rglob("*")) == []
    assert list((place.state / "hftcore").iterdir()) == [], "no log of a demo that held"


def test_demo_as_fast_as_it_goes_on_several_shards_says_how_it_went(place: Place) -> None:
    said = hft(place, "demo", "--seconds", "1.5", "--rate", "0", "--shards", "2", "--seed", "3")
    assert said.returncode == 0, said.stdout + said.stderr
    lines = said.stdout.splitlines()
    assert lines[0].startswith("hft demo   as fast as it goes, seed 3")
    assert "matcher-0,1" in said.stdout
    assert lines[-1].startswith("verdict    every command answered once")


def test_ctrl_c_ends_the_sending_and_not_the_verdict(place: Place) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "hftcore", "demo", "--seconds", "600", "--rate", "2000"],
        cwd=ROOT,
        env={**os.environ, "HFT_SHM_DIR": str(place.base), "XDG_STATE_HOME": str(place.state)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        assert process.stdout is not None
        assert "2,000 commands/s" in process.stdout.readline()
        assert "orders" in process.stdout.readline(), "it has sent"
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: everybody in the group
        rest, errors = process.communicate(timeout=DEADLINE_S)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 0, rest + errors
    assert "each once" in rest
    assert rest.splitlines()[-1].startswith("verdict    every command answered once")
    assert list(place.base.rglob("*")) == []


def drop_an_order(feed: Subscriber) -> None:
    """Take an order out of a subscriber's book, as a feed that lost an update would."""
    assert feed._follower is not None
    books = feed._follower.books
    ladder = books.sides[2 * feed.instruments["BTC/USD"].instrument_id + Side.BUY - 1]
    level = books.levels[int(ladder["level_base"] + ladder["best"])]
    books.orders[int(level["head"])]["leaves_qty"] += 1


def test_a_book_that_differs_by_one_lot_fails_the_demo_by_name(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    status = demo.main(
        seconds=0.5, rate=4_000, seed=1, shards=0, json=False, tamper=drop_an_order,
        base=place.base,
    )  # fmt: skip
    said = capsys.readouterr().out
    assert status == 1
    assert said.splitlines()[-1] == "verdict    FAILED"
    assert "BTC/USD: the subscriber's book differs from the matcher's at update" in said
    assert "books      3 of 4 equal the matcher's: DEC/USD, ETH/USD, DEC/BTC" in said


def test_a_subscriber_that_dies_fails_the_demo(place: Place) -> None:
    def die(_feed: Subscriber) -> None:
        os._exit(3)

    config = place.config(gateways=3, report_slots=1 << 16)
    result = demo.run(Drive(0.3, 1_000, 1), config, base=place.base, tamper=die, end_s=2.0)
    assert not result.holds
    assert any("subscriber did not finish" in problem for problem in result.problems)


COUNTS = {
    "commands_sent": 10, "commands_answered": 10, "trades": 3, "rejects": 0, "misanswered": 0,
    "doubled": 0, "expected_trades": 3, "expected_rejects": 0,
}  # fmt: skip
SAMPLE = Sample(2.0, COUNTS, 12, 0, (1_500, 2_000, 30_000, 4_000_000, 5_000_000),
                {"commands": 5, "events-0": 77}, (Top("A/B", None, None, 0, 0),))  # fmt: skip


@pytest.mark.parametrize(
    ("counts", "problem"),
    [
        ({"commands_answered": 9}, "1 commands were not answered"),
        ({"doubled": 2}, "2 answers came twice"),
        ({"misanswered": 1}, "1 answers are another command's"),
        ({"trades": 4}, "4 trades were reported, the flow foretold 3"),
        ({"rejects": 1}, "1 rejects were reported, the flow foretold 0"),
        ({"commands_sent": 0, "commands_answered": 0}, "nothing was sent"),
    ],
)
def test_each_thing_that_must_hold_is_judged(
    place: Place, counts: dict[str, int], problem: str
) -> None:
    board = Board.create(0)
    board.cells[[1, 3]] = 2  # both processes are done
    sample = Sample(**{**vars(SAMPLE), "counts": COUNTS | counts})
    problems, agreed = demo.judge((), board, [], sample)
    assert (problems, agreed) == ((problem,), ())
    assert summary(sample, problems, agreed, 1).splitlines()[-1] == "verdict    FAILED"


def test_the_line_and_the_table_say_rates_of_the_time_between_two_pictures() -> None:
    before = Sample(**{**vars(SAMPLE), "seconds": 1.0, "counts": COUNTS | {"commands_answered": 4}})
    said = line(SAMPLE, before)
    assert "orders 0.0 k/s" in said
    assert "lag 77 (events-0)" in said
    assert "p50 1.50 us p90 2.00 us p99 30.0 us p99.9 4.00 ms max 5.00 ms" in said
    assert table(SAMPLE, before, "title") is not None


def test_numbers_are_shown_with_three_digits_and_their_unit() -> None:
    assert [time_text(ns) for ns in (999, 1_000, 12_345, 123_456, 1_234_567, 2.5e9)] == [
        "999 ns", "1.00 us", "12.3 us", "123 us", "1.23 ms", "2.50 s",
    ]  # fmt: skip
    assert rate_text(50_000, 1.0) == "50.0 k/s"
    assert rate_text(np.int64(3_000_000), 2.0) == "1.50 M/s"
    assert rate_text(5, 0.0) == "0.0 k/s"


def test_the_board_is_shared_with_a_child_and_starts_empty(tmp_path: Path) -> None:
    board = Board.create(2)
    pid = os.fork()
    if pid == 0:
        board.cells[4] = 7
        board.books[1, 2] = 9
        os._exit(0)
    os.waitpid(pid, 0)
    assert int(board.cells[4]) == 7
    assert board.books.tolist() == [[0, 0, 0, 0], [0, 0, 9, 0]]
    assert board.latency.count == 0
