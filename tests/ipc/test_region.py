"""Regions: what they keep, what they take, how long they live."""

from __future__ import annotations

import faulthandler
import os
import signal
import stat
from pathlib import Path
from typing import Any

import numba
import numpy as np
import pytest

from ipc.directory import opened_directory, venue_directory
from ipc.errors import RegionRefused
from ipc.header import FORMAT_VERSION, HEADER_BYTES, MAGIC, boot_id
from ipc.kernel import JIT
from ipc.region import Region, in_use, list_regions, remove_stale
from tests.ipc.region_cells import CELL, LAYOUT, edit, make, refusal
from tests.processes import Children, poll_until


def test_region_that_was_written_is_read_by_who_attaches(venue_directory: Path) -> None:
    with Region.create(
        venue_directory, "cells", 8192, layout=LAYOUT, epoch=7, kind="cells of a test"
    ) as made:
        rows = made.array(CELL, 512)
        rows["price"] = np.arange(512)
        with Region.attach(venue_directory, "cells", layout=LAYOUT, epoch=7) as seen:
            assert seen.array(CELL, 2, 16 * 100)["price"].tolist() == [100, 101]
            assert seen.header == made.header
        header = made.header
    assert (header.magic, header.format_version, header.sparse) == (MAGIC, FORMAT_VERSION, 0)
    assert (header.layout, header.payload_bytes, header.file_bytes) == (LAYOUT, 8192, 12288)
    assert (header.venue_epoch, header.creator_pid) == (7, os.getpid())
    assert (header.boot_id, header.kind, header.name) == (boot_id(), "cells of a test", "cells")
    assert header.created_ns > 0
    assert list_regions(venue_directory) == ([header], [])


def test_new_region_is_zeroed_private_and_has_all_its_pages(venue_directory: Path) -> None:
    path = make(venue_directory)
    with Region.attach(venue_directory, "cells") as region:
        assert not region.words.any()
        assert region.words.size == 1024
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.stat().st_blocks * 512 == path.stat().st_size == 12288


@pytest.mark.parametrize("mask", [0o000, 0o077, 0o777])
def test_new_region_has_the_same_mode_under_any_umask(venue_directory: Path, mask: int) -> None:
    before = os.umask(mask)
    try:
        path = make(venue_directory)
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_sparse_region_of_a_hundred_gigabytes_takes_what_is_touched(venue_directory: Path) -> None:
    size = 100 << 30
    with Region.create(
        venue_directory, "ladder", size, layout=LAYOUT, sparse=True, huge=False
    ) as region:
        region.words[size // 8 - 1] = 5
        region.words[size // 16] = 6
        assert region.path.stat().st_blocks * 512 <= 64 * 1024
        with Region.attach(venue_directory, "ladder", writable=True) as again:
            assert again.words[[size // 8 - 1, size // 16]].tolist() == [5, 6]
        assert region.path.stat().st_blocks * 512 <= 64 * 1024


def test_region_that_asks_for_huge_pages_says_what_it_got(venue_directory: Path) -> None:
    policy = Path("/sys/kernel/mm/transparent_hugepage/shmem_enabled").read_text()
    with Region.create(venue_directory, "wide", 4 << 20, layout=LAYOUT, huge=True) as region:
        assert region.huge_pages == ("[never]" not in policy and "[deny]" not in policy)
        assert region.path.stat().st_blocks * 512 >= 4 << 20
        region.words[:] = 1
    assert not Region.attach(venue_directory, "wide").huge_pages


def test_region_on_hugetlbfs_is_rounded_up_to_its_pages() -> None:
    mounts = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
    places = [Path(words[1]) for words in mounts if words[2] == "hugetlbfs"]
    free = [
        line for line in Path("/proc/meminfo").read_text().splitlines() if "HugePages_F" in line
    ]
    if not places or not free or int(free[0].split()[1]) < 2 or not os.access(places[0], os.W_OK):
        pytest.skip("no hugetlbfs mount with two free pages that this user may write")
    base = places[0] / f"hftcore-test-{os.getpid()}"
    directory = venue_directory(base.name, base)
    try:
        with Region.create(directory, "cells", 3 << 20, layout=LAYOUT) as region:
            assert region.header.file_bytes == 4 << 20
            assert region.huge_pages
            region.words[-1] = 9
            with Region.attach(directory, "cells", layout=LAYOUT) as seen:
                assert seen.words[-1] == 9
        with pytest.raises(RegionRefused, match="there is no room"):
            Region.create(directory, "too-large", 1 << 40, layout=LAYOUT)
    finally:
        for path in directory.iterdir():
            path.unlink()
        directory.rmdir()
        base.rmdir()


def test_view_outlives_the_region_that_gave_it(venue_directory: Path) -> None:
    make(venue_directory)
    region = Region.attach(venue_directory, "cells", writable=True)
    words = region.words
    region.close()
    words[3] = 4
    with Region.attach(venue_directory, "cells") as again:
        assert again.words[3] == 4
    said = refusal(lambda: region.words)
    assert "this region is closed" in said


@pytest.mark.parametrize(
    ("count", "offset"), [(513, 0), (1, 8192), (1, 8184), (1, -8), (1, 4), (-1, 0)]
)
def test_view_beyond_the_payload_is_refused(venue_directory: Path, count: int, offset: int) -> None:
    make(venue_directory)
    with Region.attach(venue_directory, "cells") as region:
        said = refusal(lambda: region.array(CELL, count, offset))
    assert "expected: at most 8192 bytes, at a multiple of 8" in said
    assert f"found: {count} rows of 16 bytes at offset {offset}" in said


@pytest.mark.skipif(not JIT, reason="numpy alone respects its flag")
def test_reader_that_writes_through_a_record_dies_instead(
    venue_directory: Path, children: Children
) -> None:
    @numba.njit
    def write(rows: Any) -> None:
        rows[0]["price"] = 5

    path = make(venue_directory)
    private = np.zeros(4, CELL)
    private.flags.writeable = False
    write(private)
    assert private["price"][0] == 5, "numba respects the flag now: this test may go"

    def disobey() -> None:
        with Region.attach(venue_directory, "cells") as region:
            rows = region.array(CELL, 4)
            assert not rows.flags.writeable
            faulthandler.disable()
            write(rows)

    assert children.exit_code(children.fork(disobey)) == -signal.SIGSEGV
    assert not any(path.read_bytes()[HEADER_BYTES:])


def test_region_whose_writer_was_killed_is_no_longer_in_use(
    venue_directory: Path, children: Children
) -> None:
    make(venue_directory)

    def write() -> None:
        region = Region.attach(venue_directory, "cells", writable=True)
        region.words[0] = 1
        signal.pause()

    with Region.attach(venue_directory, "cells") as seen:
        child = children.fork(write)
        poll_until(lambda: seen.words[0] == 1, "the child to write")
        assert in_use(venue_directory, "cells")
        children.kill(child)
        assert not in_use(venue_directory, "cells"), "a reader doesn't count"


def test_remove_stale_spares_what_lives_and_what_is_sound(venue_directory: Path) -> None:
    make(venue_directory, "old", epoch=1)
    make(venue_directory, "current", epoch=2)
    edit(make(venue_directory, "broken"), magic=0)
    (venue_directory / "roles.lock").write_bytes(b"")
    with Region.create(venue_directory, "alive", 64, layout=LAYOUT, epoch=1) as region:
        edit(region.path, magic=0)
        assert remove_stale(venue_directory) == (["broken"], [])
        assert remove_stale(venue_directory, epoch=2) == (["old"], [])
    assert remove_stale(venue_directory, epoch=2) == (["alive"], [])
    left = sorted(path.name for path in venue_directory.iterdir())
    assert left == ["current.region", "roles.lock"]


def test_unlink_leaves_a_newer_region_of_the_same_name_alone(venue_directory: Path) -> None:
    with Region.create(venue_directory, "cells", 64, layout=LAYOUT) as first:
        first.unlink()
        assert list(venue_directory.iterdir()) == []
        first.unlink()
        path = make(venue_directory)
        first.unlink()
        assert path.exists()
    with Region.attach(venue_directory, "cells") as second:
        second.unlink()
    assert not path.exists()


def test_descriptors_are_not_leaked(venue_directory: Path) -> None:
    before = os.listdir("/proc/self/fd")
    path = make(venue_directory)
    for _ in range(3):
        with Region.attach(venue_directory, "cells", writable=True):
            pass
        refusal(lambda: make(venue_directory))
        refusal(lambda: Region.attach(venue_directory, "cells", epoch=9))
        list_regions(venue_directory)
        in_use(venue_directory, "cells")
    path.chmod(0o644)
    refusal(lambda: Region.attach(venue_directory, "cells"))
    with opened_directory(venue_directory):
        pass
    assert os.listdir("/proc/self/fd") == before
