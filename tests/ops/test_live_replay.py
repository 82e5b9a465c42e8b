"""`hft replay --speed`: recordings through a venue of processes, and how that can fail.

The recordings are small and written by hand, as in tests/marketdata; one real one is replayed where
HFT_DATA has it.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

from hftcore.errors import UsageRefused, VenueRefused
from hftcore.ops import live_replay
from hftcore.ops.launch import running_venue
from hftcore.ops.live_replay import LiveReport, as_text, factor_of, replay_live, send_rows
from hftcore.session import Session
from tests.marketdata import recordings as recorded
from tests.ops.venues import Place, hft, orders

CENT = 100


def itch_file(folder: Path) -> Path:
    """Write a session of two instruments: orders, a trade, a cancel, a delete, a replace."""
    messages = [
        recorded.add(1, "B", 100, 500 * CENT, number=0),
        recorded.add(2, "S", 200, 510 * CENT, number=10_000),
        recorded.add(3, "S", 300, 510 * CENT, number=20_000),
        recorded.add(4, "B", 50, 700 * CENT, number=25_000, stock="OTHER", locate=8),
        recorded.executed(2, 150, number=30_000),
        recorded.cancel(1, 40),
        recorded.replace(3, 5, 250, 509 * CENT),
        recorded.add(6, "B", 10, 490 * CENT, number=200_000),
        recorded.delete(6),
    ]
    path = folder / "session.itch"
    path.write_bytes(recorded.framed(*messages))
    return path


def replayed(place: Place, folder: Path, speed: str, verify: bool = True) -> LiveReport:
    """Replay the session live."""
    return replay_live(itch_file(folder), "itch", None, speed, verify, base=place.base)


def test_a_recording_is_replayed_through_processes_and_four_books_agree(
    place: Place, tmp_path: Path
) -> None:
    said = hft(
        place, "replay", str(itch_file(tmp_path)), "--format", "itch", "--speed", "max",
        "--verify", "--json",
    )  # fmt: skip
    assert said.returncode == 0, said.stdout + said.stderr
    facts = json.loads(said.stdout)
    assert facts["holds"] is True
    assert facts["agreed"] == facts["symbols"] == ["TEST", "OTHER"]
    assert facts["commands"] == facts["answered"] > 8
    assert facts["events"]["TRADE"] == 1
    assert list(place.base.rglob("*")) == []
    assert list((place.state / "hftcore").iterdir()) == [], "no log of a replay that held"


def empty_file(folder: Path) -> Path:
    """Write a session whose books are empty at its end: their hash is that of nothing."""
    path = folder / "empty.itch"
    path.write_bytes(recorded.framed(recorded.add(1, "B", 100, 500 * CENT), recorded.delete(1)))
    return path


def test_a_book_that_is_empty_at_the_end_holds(place: Place, tmp_path: Path) -> None:
    report = replay_live(empty_file(tmp_path), "itch", None, "max", True, base=place.base)
    assert report.problems == ()
    assert report.agreed == ("TEST",)


def test_a_subscriber_that_fails_is_no_subscriber_of_an_empty_book(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise ConnectionError("no feed today")

    monkeypatch.setattr(live_replay, "subscribe", fail)
    report = replay_live(empty_file(tmp_path), "itch", None, "max", True, base=place.base)
    assert report.problems == ("TEST: its subscriber did not finish, so no book was compared",)
    assert report.agreed == ()
    assert as_text(report).splitlines()[-1].endswith("FAILED")


def test_at_a_speed_commands_go_when_they_are_due(place: Place, tmp_path: Path) -> None:
    report = replayed(place, tmp_path, "2", verify=False)
    assert report.holds
    assert report.recorded_seconds == pytest.approx(0.2)
    # each was sent when it was due or later: none is early
    assert all(late >= 0 for late in report.late_ns)
    assert len(report.late_ns) == 3
    text = as_text(report)
    assert "speed 2" in text
    assert text.splitlines()[-1].endswith("replayed whole; no book was compared")


def test_a_recording_that_ends_with_another_book_fails_by_name(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def other_end(self: object, instrument_id: int) -> np.ndarray:
        return np.array([[[500, 61]], [[509, 250]]], np.int64)

    monkeypatch.setattr("hftcore.marketdata.sources.ItchSource.final_book", other_end)
    report = replayed(place, tmp_path, "max")
    assert not report.holds
    assert any(
        problem.startswith("at the end: TEST bid 1: the recording has 61")
        for problem in report.problems
    )
    assert as_text(report).splitlines()[-1].endswith("FAILED")


def test_an_exchange_that_played_something_else_fails_by_name(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = live_replay._in_process

    def without_the_first(instruments: object, rows: np.ndarray, first: int) -> object:
        return whole(instruments, rows[1:], first + 1)  # type: ignore[arg-type]

    monkeypatch.setattr(live_replay, "_in_process", without_the_first)
    report = replayed(place, tmp_path, "max")
    assert any("TEST: the Exchange's book differs" in problem for problem in report.problems)
    assert report.agreed == ("OTHER",)


@pytest.mark.parametrize("before", [0, 2])
def test_a_replay_to_which_somebody_else_sends_is_refused(place: Place, before: int) -> None:
    rows = orders(8, 1)
    with (
        running_venue(place.config(replay=True), base=place.base),
        Session.open(place.name, (1,), base=place.base) as ours,
    ):
        first = ours.attach_sequence + 1
        if before:
            assert send_rows(ours, rows[:before], 0.0, None).problem == ""
            ours.attach_sequence += before
        Session.open(place.name, (2,), base=place.base).close()
        expected = rf"the answer to sequence {first + before}\b.*found: that to sequence"
        with pytest.raises(VenueRefused, match=f"somebody else sends.*{expected}"):
            send_rows(ours, rows[before:], 0.0, None)


@pytest.mark.parametrize(("speed", "factor"), [("max", 0), ("real", 1), ("10", 10), ("0.5x", 0.5)])
def test_a_speed_is_a_word_or_a_factor(speed: str, factor: float) -> None:
    assert factor_of(speed) == factor


@pytest.mark.parametrize("speed", ["fast", "0", "-1", "nan", "inf", ""])
def test_what_is_no_speed_is_refused_with_what_is(speed: str) -> None:
    with pytest.raises(UsageRefused, match="max, real, or how many times"):
        factor_of(speed)


@pytest.mark.realdata
@pytest.mark.skipif("HFT_DATA" not in os.environ, reason="HFT_DATA names no folder")
def test_a_real_recording_holds_live(place: Place) -> None:
    path = Path(os.environ["HFT_DATA"]) / "lobster" / "AAPL_L10_head_message.csv"
    report = replay_live(path, "lobster", None, "max", True, base=place.base)
    assert report.problems == ()
    assert (report.rows, report.agreed) == (999, ("AAPL",))
