"""Recordings of Nasdaq through the real venue: exact in every row, and every count asserted.

A rule of the conversion that changes moves a count. What each file has as its truth, and the rules
for the parts that LOBSTER does not show, stand in the README of the folder that HFT_DATA names.
"""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest

from hftcore.errors import UsageRefused, VerificationFailed
from hftcore.ops import replay as replaying
from hftcore.ops.replay import ReplayReport, replay

AMZN_5 = "LOBSTER_SampleFile_AMZN_2012-06-21_5.zip"
AMZN_1 = "LOBSTER_SampleFile_AMZN_2012-06-21_1.zip"
ITCH_AAPL = "aapl_20191230_first10000.itch50"
ITCH_RITCH = "ritch_ex20101224.TEST_ITCH_50"


def counted(report: ReplayReport, *names: str) -> tuple[int, ...]:
    """Return some counts."""
    return tuple(report.counts[name] for name in names)


@pytest.mark.realdata
def test_amzn_5_levels_is_exact_in_every_row(recorded: Path) -> None:
    report = replay(recorded / "lobster" / AMZN_5, "lobster", verify=True)
    assert report.problems == ()
    assert (report.counts["rows"], report.compared_rows) == (155_935, 155_935)
    assert counted(report, "adds", "cancels", "deletes", "executions", "hidden") == (
        77_381, 450, 66_685, 8_974, 2_445,
    )  # fmt: skip
    assert counted(report, "seeded_levels", "adopted_levels") == (10, 33_840)
    assert counted(report, "trades", "off_head") == (8_939, 35)
    assert counted(report, "unknown_references", "cut_levels", "cut_orders") == (
        13_849, 35_386, 44_148,
    )  # fmt: skip
    assert counted(report, "misfits", "crossing_adds", "time_reversals") == (0, 0, 0)
    assert (report.events["TRADE"], report.compared_trades) == (8_939, 8_939)
    assert "REJECTED" not in report.events
    assert "EXPIRED" not in report.events
    text = replaying.as_text(report)
    assert "33,840 adopted" in text
    assert "35 off the queue head" in text


@pytest.mark.realdata
def test_amzn_1_level_is_exact_in_every_row(recorded: Path) -> None:
    report = replay(recorded / "lobster" / AMZN_1, "lobster", verify=True)
    assert report.problems == ()
    assert report.compared_rows == 57_515
    assert counted(report, "adopted_levels", "trades", "off_head", "unknown_references") == (
        13_953, 8_966, 8, 10_446,
    )  # fmt: skip


@pytest.mark.realdata
def test_aapl_10_levels_is_exact_in_every_row(recorded: Path) -> None:
    path = recorded / "lobster" / "AAPL_L10_head_message.csv"
    report = replay(path, "lobster", "AAPL", verify=True)
    assert report.problems == ()
    assert report.compared_rows == 999
    assert counted(report, "adopted_levels", "trades", "off_head", "unknown_references") == (
        318, 98, 0, 17,
    )  # fmt: skip


@pytest.mark.realdata
@pytest.mark.parametrize("name", [AMZN_1, AMZN_5])
def test_one_altered_message_size_in_amzn_fails_and_names_the_row(
    recorded: Path, tmp_path: Path, name: str
) -> None:
    with zipfile.ZipFile(recorded / "lobster" / name) as archive:
        archive.extractall(tmp_path)
    (path,) = tmp_path.glob("*_message_?.csv")
    lines = path.read_text().splitlines()
    rows = [
        number
        for number, line in enumerate(lines)
        if line.split(",")[1] == "1" and 20_000 < number < 40_000
    ]
    row = int(np.random.default_rng(5).choice(rows))
    fields = lines[row].split(",")
    fields[3] = str(int(fields[3]) + 1)
    lines[row] = ",".join(fields)
    path.write_text("\n".join(lines) + "\n")
    report = replay(path, "lobster", verify=True)
    assert report.problems[0].startswith(f"row {row + 1} (")
    assert "the recording has" in report.problems[0]
    with pytest.raises(VerificationFailed, match=f"found: row {row + 1} "):
        report.require()


@pytest.mark.realdata
def test_one_altered_size_of_the_amzn_book_fails_and_names_the_row(
    recorded: Path, tmp_path: Path
) -> None:
    with zipfile.ZipFile(recorded / "lobster" / AMZN_5) as archive:
        archive.extractall(tmp_path)
    (path,) = tmp_path.glob("*_orderbook_5.csv")
    lines = path.read_text().splitlines()
    fields = lines[12_344].split(",")
    fields[3] = str(int(fields[3]) + 1)
    lines[12_344] = ",".join(fields)
    path.write_text("\n".join(lines) + "\n")
    report = replay(path, "lobster", verify=True)
    assert report.problems[0].startswith("row 12345 (")
    assert "AMZN bid 1: the recording has" in report.problems[0]


@pytest.mark.realdata
def test_itch_aapl_is_exact_and_every_execution_hits_the_queue_head(recorded: Path) -> None:
    report = replay(recorded / "itch" / ITCH_AAPL, "itch", verify=True)
    assert report.problems == ()
    assert (report.counts["rows"], report.compared_rows) == (10_000, 10_000)
    assert counted(report, "adds", "deletes", "executions", "replaces", "cancels", "prints") == (
        4298, 4658, 426, 528, 24, 66,
    )  # fmt: skip
    assert counted(report, "trades", "off_head", "unknown_references") == (324, 0, 905)
    assert counted(report, "crossing_adds", "misfits", "others") == (0, 0, 0)
    assert report.compared_trades == report.events["TRADE"] == 324


@pytest.mark.realdata
def test_itch_of_three_synthetic_shares_is_replayed_whole(recorded: Path) -> None:
    report = replay(recorded / "itch" / ITCH_RITCH, "itch", verify=True)
    assert report.problems == ()
    assert report.counts["rows"] == 12_012
    assert counted(report, "crossing_adds", "unknown_references") == (4_504, 117)


@pytest.mark.realdata
def test_itch_directory_has_nothing_to_compare(recorded: Path) -> None:
    path = recorded / "itch" / "nasdaq_20191230_first1000.itch"
    report = replay(path, "itch")
    assert report.holds
    assert counted(report, "rows", "others", "commands") == (1000, 1000, 0)
    with pytest.raises(UsageRefused) as caught:
        replay(path, "itch", "AAPPL")
    assert "AAPL" in caught.value.expected
