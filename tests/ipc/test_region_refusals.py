"""Each way in which a region is refused, in the words that it says."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from ipc import ofd
from ipc.directory import checked_name, default_base, venue_directory
from ipc.header import MAGIC, boot_id
from ipc.mapping import IN_USE_BYTE
from ipc.region import Region, list_regions, remove_stale
from tests.ipc.region_cells import LAYOUT, edit, make, refusal

NOBODY = 65534
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")


def test_create_of_a_name_in_use_is_refused_as_live(venue_directory: Path) -> None:
    with Region.create(venue_directory, "cells", 64, layout=LAYOUT, epoch=3) as region:
        said = refusal(lambda: make(venue_directory))
        assert said == (
            "a region of this name is already there; expected: no such file; "
            f"found: live: mapped for writing; by pid {os.getpid()}, epoch 3, this boot; "
            f"where: {region.path}; remedy: stop the venue that runs"
        )


def test_create_of_a_name_left_behind_is_refused_as_stale(venue_directory: Path) -> None:
    path = make(venue_directory, epoch=3)
    said = refusal(lambda: make(venue_directory))
    assert f"found: stale: nobody writes there; by pid {os.getpid()}, epoch 3, this boot" in said
    assert "remedy: `remove_stale`, or attach to it" in said
    edit(path, boot_id=b"another")
    assert "another boot" in refusal(lambda: make(venue_directory))


@pytest.mark.parametrize("size", [0, -8, 12])
def test_create_of_a_size_that_is_no_multiple_of_eight_is_refused(
    venue_directory: Path, size: int
) -> None:
    said = refusal(lambda: Region.create(venue_directory, "cells", size, layout=LAYOUT))
    assert f"expected: a positive multiple of 8 bytes; found: {size} bytes" in said


@pytest.mark.parametrize("huge", [False, True])
def test_create_without_room_is_refused_and_leaves_nothing(
    venue_directory: Path, huge: bool
) -> None:
    status = os.statvfs(venue_directory)
    # more than the file system has; with huge pages more than can be mapped, because those are
    # touched first, and filling the machine is not for a test
    size = 1 << 47 if huge else status.f_blocks * status.f_frsize * 2
    said = refusal(lambda: Region.create(venue_directory, "large", size, layout=LAYOUT, huge=huge))
    assert said.startswith("there is no room for this region; expected: ")
    assert "free (" in said
    assert os.strerror(errno.ENOSPC) in said or os.strerror(errno.ENOMEM) in said
    assert f"where: {venue_directory / 'large.region'}; remedy: remove what an old venue" in said
    assert list(venue_directory.iterdir()) == []


@pytest.mark.parametrize("name", ["", ".", "../x", "a/b", ".hidden", "a b", "x" * 101])
def test_name_that_is_no_plain_word_is_refused(venue_directory: Path, name: str) -> None:
    assert "found: " + repr(name) in refusal(lambda: make(venue_directory, name))
    assert refusal(lambda: checked_name(name))


def test_attach_to_a_missing_region_is_refused(venue_directory: Path) -> None:
    said = refusal(lambda: Region.attach(venue_directory, "cells"))
    assert said == (
        "this region can't be opened; expected: a file that the venue made; "
        f"found: No such file or directory; where: {venue_directory / 'cells.region'}; "
        "remedy: start the process that makes it first, or correct the name"
    )


def test_symbolic_link_is_followed_neither_to_create_nor_to_attach(
    venue_directory: Path, tmp_path: Path
) -> None:
    victim = tmp_path / "precious"
    victim.write_bytes(b"precious")
    link = venue_directory / "cells.region"
    for target in (victim, tmp_path / "nothing"):
        link.symlink_to(target)
        for attempt in (
            lambda: make(venue_directory),
            lambda: Region.attach(venue_directory, "cells"),
            lambda: Region.attach(venue_directory, "cells", writable=True),
        ):
            said = refusal(attempt)
            assert "found: a symbolic link" in said
            assert f"where: {link}; remedy: find out who put it there, then remove it" in said
        link.unlink()
    assert victim.read_bytes() == b"precious"
    assert not (tmp_path / "nothing").exists()


def test_files_that_are_no_regions_do_not_keep_the_others_from_being_listed_and_removed(
    venue_directory: Path,
) -> None:
    for name in ("a", "z"):
        edit(make(venue_directory, name), boot_id=b"another")
    (venue_directory / "link.region").symlink_to("a.region")
    (venue_directory / "folder.region").mkdir()
    os.mkfifo(venue_directory / "pipe.region", 0o600)
    said = ["found: drwx", "found: a symbolic link", "found: prw"]
    headers, complaints = list_regions(venue_directory)
    assert [header.name for header in headers] == ["a", "z"]
    assert [words in str(found) for words, found in zip(said, complaints, strict=True)] == [
        True
    ] * 3
    removed, complaints = remove_stale(venue_directory)
    assert removed == ["a", "z"]
    assert [words in str(found) for words, found in zip(said, complaints, strict=True)] == [
        True
    ] * 3
    assert len(list(venue_directory.iterdir())) == 3


def test_attach_to_write_where_somebody_keeps_writers_out_is_refused(venue_directory: Path) -> None:
    path = make(venue_directory)
    descriptor = os.open(path, os.O_RDWR)
    try:
        assert ofd.try_lock(descriptor, IN_USE_BYTE)
        said = refusal(lambda: Region.attach(venue_directory, "cells", writable=True))
        assert said.startswith("this region is locked against writers; ")
        assert f"where: {path}; " in said
        Region.attach(venue_directory, "cells").close()
    finally:
        os.close(descriptor)
    with (
        Region.attach(venue_directory, "cells", writable=True),
        Region.attach(venue_directory, "cells", writable=True),
    ):
        pass


@as_root
def test_region_of_another_user_is_refused(venue_directory: Path) -> None:
    path = make(venue_directory)
    os.chown(path, NOBODY, NOBODY)
    said = refusal(lambda: Region.attach(venue_directory, "cells"))
    assert said == (
        "this belongs to another user and can't be trusted; "
        "expected: owner 0 (the user of this process); found: owner 65534; "
        f"where: {path}; "
        "remedy: run as the user that runs the venue; if nobody should own it, remove it"
    )


@as_root
def test_directory_of_another_user_is_refused(venue_directory: Path) -> None:
    make(venue_directory)
    os.chown(venue_directory, NOBODY, NOBODY)
    for attempt in (
        lambda: Region.attach(venue_directory, "cells"),
        lambda: make(venue_directory, "more"),
    ):
        said = refusal(attempt)
        assert f"found: owner {NOBODY}; where: {venue_directory}; " in said


@pytest.mark.parametrize("mode", [0o640, 0o602, 0o666])
def test_region_that_is_open_to_others_is_refused(venue_directory: Path, mode: int) -> None:
    path = make(venue_directory)
    path.chmod(mode)
    said = refusal(lambda: Region.attach(venue_directory, "cells"))
    assert f"expected: mode 0600 or less; found: mode {mode:04o}; where: {path}; " in said
    assert f"then chmod 0600 {path}" in said


@pytest.mark.parametrize("mode", [0o750, 0o701, 0o777])
def test_directory_that_is_open_to_others_is_refused(venue_directory: Path, mode: int) -> None:
    make(venue_directory)
    venue_directory.chmod(mode)
    said = refusal(lambda: Region.attach(venue_directory, "cells"))
    assert f"expected: mode 0700 or less; found: mode {mode:04o}; where: {venue_directory}" in said
    assert said.startswith("this directory is open to other users: no venue's, ")
    assert f"remedy: name a file in a venue's directory, such as {default_base()}/<venue>" in said
    assert "chmod" not in said


def test_base_directory_that_is_open_or_a_link_is_refused(tmp_path: Path) -> None:
    base = tmp_path / "base"
    base.mkdir(mode=0o755)
    base.chmod(0o755)
    assert "found: mode 0755" in refusal(lambda: venue_directory("venue", base))
    (tmp_path / "link").symlink_to(base)
    assert "Not a directory" in refusal(lambda: venue_directory("venue", tmp_path / "link"))
    said = refusal(lambda: venue_directory("venue", tmp_path / "no" / "base"))
    assert "the directory for shared memory can't be made" in said


def test_something_that_is_no_file_is_refused(venue_directory: Path) -> None:
    (venue_directory / "cells.region").mkdir(mode=0o700)
    assert "found: drwx" in refusal(lambda: Region.attach(venue_directory, "cells"))


def test_attach_expecting_another_layout_is_refused(venue_directory: Path) -> None:
    path = make(venue_directory)
    said = refusal(lambda: Region.attach(venue_directory, "cells", layout=LAYOUT + 1))
    assert said == (
        f"this region has another layout; expected: {LAYOUT + 1:#x}; found: {LAYOUT:#x}; "
        f"where: {path}; remedy: programs of two versions are at work here: "
        "stop the venue and start all of one"
    )


def test_attach_expecting_another_epoch_is_refused(venue_directory: Path) -> None:
    path = make(venue_directory, epoch=4)
    said = refusal(lambda: Region.attach(venue_directory, "cells", epoch=5))
    assert said == (
        f"this region is of another epoch; expected: 5; found: 4; where: {path}; "
        "remedy: stop the venue, remove what it left (`remove_stale`), start it again"
    )


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"magic": 0}, "this region is half made; expected: a magic; found: none: its creator"),
        ({"magic": 12345}, f"this is not a region; expected: magic {MAGIC:#x}; found: 0x3039"),
        ({"format_version": 2}, "this region has another format; expected: 1; found: 2"),
        ({"boot_id": b"1234"}, f"this region is stale; expected: boot {boot_id()}; found: boot 1"),
        ({"payload_bytes": 99999}, "this region is truncated; expected: 12288 bytes"),
    ],
)
def test_attach_to_an_unsound_header_is_refused_until_it_is_removed(
    venue_directory: Path, fields: dict[str, Any], said: str
) -> None:
    edit(make(venue_directory), **fields)
    assert refusal(lambda: Region.attach(venue_directory, "cells")).startswith(said)
    assert remove_stale(venue_directory) == (["cells"], [])
    make(venue_directory)


@pytest.mark.parametrize("size", [0, 100, 4096, 8192, 12287, 20480])
def test_attach_to_a_file_of_another_size_is_refused(venue_directory: Path, size: int) -> None:
    path = make(venue_directory)
    os.truncate(path, size)
    said = refusal(lambda: Region.attach(venue_directory, "cells"))
    if size < 100:
        assert "half made" in said
    else:
        assert f"expected: 12288 bytes; found: {size} bytes; where: {path}" in said
