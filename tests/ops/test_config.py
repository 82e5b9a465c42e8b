"""A venue's configuration: what is refused, and how it comes out of a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from hftcore.errors import ConfigurationRefused
from hftcore.instruments import DEFAULT_INSTRUMENTS, Instrument
from hftcore.ops.config import VenueConfig, load_config

TWO = (Instrument("A", "1", "1", "10"), Instrument("B", "1", "1", "10", shard=3))


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ({"name": "../other"}, "name"),
        ({"instruments": ()}, "instruments"),
        ({"instruments": (TWO[0], TWO[0])}, "instruments"),
        ({"instruments": TWO, "shards": 2}, "instruments: B: shard"),
        ({"shards": 17}, "shards"),
        ({"gateways": 0}, "gateways"),
        ({"gateways": 33}, "gateways"),
        ({"command_slots": 100}, "command_slots"),
        ({"event_slots": 4}, "event_slots"),
        ({"feed_port": 70_000}, "feed_port"),
        ({"feed_port": 5_000, "snapshot_port": 5_000}, "snapshot_port"),
        ({"wait": "sleep"}, "wait"),
        ({"cpus": (0, 0)}, "cpus"),
    ],
)
def test_what_can_not_be_is_refused_with_its_key(settings: dict[str, Any], key: str) -> None:
    with pytest.raises(ConfigurationRefused) as refused:
        VenueConfig(**settings)
    assert refused.value.where == f"VenueConfig.{key}"
    assert refused.value.expected


def test_a_configuration_survives_the_way_through_json() -> None:
    config = VenueConfig("other", TWO, shards=4, cpus=(0, 1), replay=True)
    assert msgspec.json.decode(msgspec.json.encode(config), type=VenueConfig) == config


def test_a_symbol_that_is_not_listed_is_answered_with_those_that_are() -> None:
    assert VenueConfig().instrument_id(DEFAULT_INSTRUMENTS[1].symbol) == 2
    with pytest.raises(ConfigurationRefused, match="DEC/USD, BTC/USD"):
        VenueConfig().instrument_id("XXX")


def test_a_file_that_names_a_venue_is_loaded(tmp_path: Path) -> None:
    file = tmp_path / "venue.py"
    file.write_text(
        "from hftcore.ops.config import VenueConfig\nVENUE = VenueConfig('mine', gateways=2)\n"
    )
    assert load_config(file) == VenueConfig("mine", gateways=2)


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("x = 1\n", "no VENUE"),
        ("VENUE = 3\n", "VENUE is a int"),
        ("x = 1\nVENUE = (\n", r"SyntaxError.*where: .*venue.py:2"),
        ("x = 1\ny = 2\nraise KeyError('z')\n", r"KeyError: 'z'.*where: .*venue.py:3"),
    ],
)
def test_a_file_that_names_none_or_does_not_run_is_refused(
    tmp_path: Path, source: str, found: str
) -> None:
    file = tmp_path / "venue.py"
    file.write_text(source)
    with pytest.raises(ConfigurationRefused, match=found):
        load_config(file)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationRefused, match="No such file"):
        load_config(tmp_path / "none.py")
