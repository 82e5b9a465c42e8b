"""Scenario files: order scripts with their expected reports, against both books.

The reference book says whether the file tells the rules right, the compiled matcher whether it
keeps them; after each step all of the matcher's memory is compared with the reference's.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.matching.driver import Setup, apply_one
from tests.matching.driver import Venue as Compiled
from tests.matching.scenario import Scenario
from tests.matching.walk import check_shard
from tests.reference.book import Memory, Venue
from tests.reference.codec import decode_event
from tests.reference.records import Command, Echo, Event
from tests.reference.streams import Script

FOLDER = Path(__file__).resolve().parents[1] / "scenarios"
FILES = sorted(FOLDER.glob("*.txt"))
MEMORY = Memory(orders=20, levels=500, words=40)


def allows_replay(path: Path) -> bool:
    """Return whether a scenario is about a recording."""
    return path.name.startswith("replay_")


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_reference_follows_the_scenario(path: Path) -> None:
    venue = Venue([MEMORY], allow_replay=allows_replay(path))
    scenario = Scenario(venue.apply)
    text = path.read_text()
    assert scenario.run(text, lambda: scenario.book_lines(venue)) == text


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_matcher_follows_the_scenario(path: Path) -> None:
    reference = Venue([MEMORY], allow_replay=allows_replay(path))
    venue = Compiled(Script([MEMORY], allows_replay(path)), Setup(event_capacity=16))

    def apply(command: Command) -> list[Event | Echo]:
        reference.apply(command)
        events = [decode_event(record) for record in apply_one(venue, command)]
        check_shard(venue.shards[0], reference, 0)
        return events

    scenario = Scenario(apply)
    text = path.read_text()
    assert scenario.run(text, lambda: scenario.book_lines(reference)) == text


def test_scenario_with_another_report_is_noticed() -> None:
    path = FOLDER / "limit_price_priority.txt"
    text = path.read_text()
    for word, other in (
        ("rests", "sits"),
        (" #1", " #2"),
        ("B 5 @ 50", "B 4 @ 50"),
        ("0 l", "1 l"),
    ):
        assert word in text
        changed = text.replace(word, other, 1)
        assert rewritten(changed) != changed


def test_scenario_as_it_stands_is_what_the_reference_writes() -> None:
    text = (FOLDER / "limit_price_priority.txt").read_text()
    assert rewritten(text) == text


def rewritten(text: str) -> str:
    """Return the text with the reports of the reference."""
    venue = Venue([MEMORY])
    scenario = Scenario(venue.apply)
    return scenario.run(text, lambda: scenario.book_lines(venue))
