"""What is asked before a venue starts: each lack is said with its remedy, and nothing was made.

The lacks are real where this user can make them: a full file system is a tmpfs mounted for the test
(root), a taken port is a socket that listens.
"""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from affinity.pin import PlacementRefused
from hftcore.errors import VenueRefused
from hftcore.instruments import Instrument
from hftcore.ops import preflight
from hftcore.ops.launch import end, launch
from hftcore.ops.logs import LOG_FILE
from hftcore.ops.memory import planned, reserved_bytes
from hftcore.ops.placement import place as place_workers
from hftcore.ops.remains import take_supervision
from hftcore.ops.venue_file import role_lock
from ipc.directory import venue_directory
from ipc.errors import RegionRefused
from ipc.liveness import hold
from tests.ops.venues import Place
from tests.processes import Children, poll_until


def check(place: Place, **settings: object) -> None:
    """Ask everything about a venue in the test's place."""
    preflight.check(
        place_workers(place.config(**settings)), venue_directory(place.name, place.base)
    )


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Mount a file system of 1 MB."""
    with mounted(tmp_path, 1 << 20) as where:
        yield where


@contextmanager
def mounted(tmp_path: Path, size_bytes: int) -> Iterator[Path]:
    """Mount a file system of some size for the length of a block."""
    if os.geteuid() != 0:
        pytest.skip("mounting needs root")
    where = tmp_path / "s"  # a short one: sockets are to be there
    where.mkdir()
    options = f"size={size_bytes},mode=0700"
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(where)],
        check=False,
    )
    if done.returncode:
        pytest.skip("this host lets nobody mount")
    try:
        yield where
    finally:
        subprocess.run(["umount", str(where)], check=True)


def test_a_host_that_has_everything_is_not_refused(place: Place) -> None:
    check(place)


def test_too_little_shared_memory_is_refused_before_anything_is_made(
    place: Place, small_disk: Path
) -> None:
    with pytest.raises(VenueRefused, match="too little shared memory") as refused:
        launch(place.config(), base=small_disk)
    assert "1 MB" in refused.value.found
    assert "HFT_SHM_DIR" in refused.value.remedy
    assert list(small_disk.rglob("*")) == []
    assert not (place.state / "hftcore" / place.name / LOG_FILE).exists()


def test_dead_memory_is_no_lack(place: Place, tmp_path: Path) -> None:
    config = place_workers(place.config()).config
    needed = reserved_bytes(planned(config, 3)) + preflight._growth_bytes(config)
    with mounted(tmp_path, needed + (4 << 20)) as small:
        left = venue_directory(place.name, small) / "commands.region"
        left.write_bytes(bytes(16 << 20))
        process, record = launch(place.config(), base=small)
        assert record.notes == ("removed what a dead venue left: 1 files",)
        assert end(process) == 0
        assert list(small.iterdir()) == []


def test_books_get_room_to_grow_by_their_orders_and_ladders_up_to_a_bound(place: Place) -> None:
    def growth(max_price: str, orders: int) -> int:
        listed = Instrument("AA", "1", "1", max_price, order_capacity=orders)
        return preflight._growth_bytes(place.config(instruments=(listed,)))

    # a narrow ladder has few pages; on a wide one each order has one, and one of the bitmap
    assert growth("1000", 4_096) == (2 * 1_001 * 32 // 4_096 + 2 + 2) * 4_096
    assert growth("100000000", 512) == 2 * 512 * 4_096
    assert growth("100000000", 1 << 20) == preflight.GROWTH_BYTES
    refused = next(preflight._shared_memory(place.base, 1 << 60, 1 << 20))
    assert "1 MB for books to grow" in refused.expected


def test_a_place_for_logs_that_can_not_be_made_is_refused_by_its_variable(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    with pytest.raises(VenueRefused, match="log can't be written") as refused:
        launch(place.config())
    assert "XDG_STATE_HOME" in refused.value.remedy


def test_a_supervisor_that_dies_before_it_reads_is_told_as_such(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.executable", "/bin/false")
    with pytest.raises(VenueRefused, match="died before the venue was ready") as refused:
        launch(place.config())
    assert "exit status 1" in refused.value.found


def test_too_little_disk_for_the_log_is_refused(
    place: Place, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(small_disk))
    with pytest.raises(VenueRefused, match="too little room on the disk") as refused:
        check(place)
    assert "XDG_STATE_HOME" in refused.value.remedy


def test_too_little_memory_is_refused(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    facts = tmp_path / "meminfo"
    facts.write_text("MemTotal: 100 kB\nMemAvailable: 50 kB\n")
    monkeypatch.setattr(preflight, "_MEMORY_FACTS", facts)
    with pytest.raises(VenueRefused, match="too little memory"):
        check(place)


def test_a_taken_port_is_refused_by_its_endpoint(place: Place) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(VenueRefused, match="can't be offered") as refused:
            check(place, feed_port=port)
    assert refused.value.where == f"tcp://127.0.0.1:{port}"
    assert refused.value.found == "Address already in use"
    assert f"sport = :{port}" in refused.value.remedy


def test_an_address_of_another_host_is_refused(place: Place) -> None:
    with pytest.raises(VenueRefused, match="can't be offered"):
        check(place, feed_host="192.0.2.1", feed_port=5_000)


def test_several_lacks_are_told_together(place: Place) -> None:
    with pytest.raises(VenueRefused) as refused:
        check(place, feed_host="192.0.2.1", feed_port=5_000, snapshot_port=5_001)
    assert "also: an endpoint of the feed can't be offered" in refused.value.remedy


def test_a_path_too_long_for_sockets_is_refused(place: Place) -> None:
    place.name = "n" * 90
    with pytest.raises(VenueRefused, match="too long a path"):
        check(place)


def test_a_base_that_is_open_to_others_is_refused(place: Place) -> None:
    place.base.chmod(0o755)
    with pytest.raises(VenueRefused, match="open to other users"):
        launch(place.config())
    place.base.chmod(0o700)


def test_a_base_below_nothing_is_refused(place: Place) -> None:
    with pytest.raises(RegionRefused, match="can't be made"):
        venue_directory(place.name, place.base / "none" / "here")
    with pytest.raises(VenueRefused, match="can't be made"):
        launch(place.config(), base=place.base / "none" / "here")


def test_impossible_cpus_and_shards_are_refused_in_the_words_of_the_placement(
    place: Place,
) -> None:
    with pytest.raises(VenueRefused, match="can't be put on these cpus"):
        launch(place.config(cpus=(4_000,)))
    with pytest.raises(PlacementRefused):
        place_workers(place.config(as_cpus=2, shards=3))
    assert place.remains() == []


def test_workers_of_a_dead_supervisor_that_still_live_are_refused(
    place: Place, children: Children
) -> None:
    directory = venue_directory(place.name, place.base)

    def linger() -> None:
        with hold(directory, role_lock("matcher-0"), "matcher-0"):
            poll_until(lambda: False, "the end")

    pid = children.fork(linger)
    poll_until((directory / "roles.lock").exists, "the lock file")
    with take_supervision(directory):
        poll_until(lambda: bool(_lives(place, pid)), "the worker to be seen")


def _lives(place: Place, pid: int) -> bool:
    try:
        check(place)
    except VenueRefused as refused:
        return refused.found == f"pids {pid}"
    return False


def test_what_is_counted_as_needed_is_what_the_regions_take(place: Place) -> None:
    config = place_workers(place.config()).config
    plans = planned(config, 3)
    assert len({plan.name for plan in plans}) == len(plans)
    larger = place_workers(
        place.config(instruments=(Instrument("AA", "1", "1", "1000", order_capacity=1 << 20),))
    ).config
    assert reserved_bytes(planned(larger, 3)) > reserved_bytes(plans) + (1 << 20) * 40
