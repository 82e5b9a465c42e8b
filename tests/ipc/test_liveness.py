"""Roles held by real processes: alive, stopped, killed, forked."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ipc.errors import LockHeld, RegionRefused
from ipc.liveness import (
    LOCK_FILE,
    RoleLock,
    hold,
    holder_alive,
    holder_pid,
    wait_for_exit,
    wait_on_pidfd,
)
from tests.processes import Children, poll_until

SEQUENCER, MATCHER = 0, 3


def hold_for_ever(directory: Path, role: int) -> None:
    """Take a role and wait to be killed."""
    lock = hold(directory, role, "matcher-0")
    assert lock.held
    signal.pause()


def test_role_is_taken_once_and_free_after_release(venue_directory: Path) -> None:
    assert not holder_alive(venue_directory, MATCHER)
    assert holder_pid(venue_directory, MATCHER) == 0
    with hold(venue_directory, MATCHER, "matcher-0"):
        assert holder_alive(venue_directory, MATCHER)
        assert holder_pid(venue_directory, MATCHER) == os.getpid()
        assert not holder_alive(venue_directory, SEQUENCER)
        with hold(venue_directory, SEQUENCER):
            assert holder_alive(venue_directory, SEQUENCER)
        assert not holder_alive(venue_directory, SEQUENCER)
        assert holder_alive(venue_directory, MATCHER), "closing one lock dropped another"
    assert not holder_alive(venue_directory, MATCHER)
    hold(venue_directory, MATCHER).release()


def test_role_that_is_taken_is_refused_with_the_pid_of_who_plays_it(
    venue_directory: Path, children: Children
) -> None:
    child = children.fork(lambda: hold_for_ever(venue_directory, MATCHER))
    poll_until(lambda: holder_pid(venue_directory, MATCHER) == child, "the child to take the role")
    with pytest.raises(LockHeld) as refused:
        hold(venue_directory, MATCHER, "matcher-0")
    assert str(refused.value) == (
        "the role matcher-0 is taken; expected: nobody who plays it (a stopped process is alive); "
        f"found: pid {child}; where: {venue_directory / LOCK_FILE}; "
        "remedy: stop that process first; it must have ended, not only be stopped"
    )


def test_second_lock_of_the_same_process_is_refused(venue_directory: Path) -> None:
    with (
        hold(venue_directory, MATCHER),
        pytest.raises(LockHeld, match=f"the role 3 is taken.*found: pid {os.getpid()}"),
    ):
        hold(venue_directory, MATCHER)
    hold(venue_directory, MATCHER).release()


def test_holder_that_is_stopped_is_alive_and_one_that_is_killed_is_not(
    venue_directory: Path, children: Children
) -> None:
    child = children.fork(lambda: hold_for_ever(venue_directory, MATCHER))
    poll_until(lambda: holder_alive(venue_directory, MATCHER), "the child to take the role")
    children.stop(child)
    assert holder_alive(venue_directory, MATCHER)
    with pytest.raises(LockHeld):
        hold(venue_directory, MATCHER)
    children.kill(child)
    assert not holder_alive(venue_directory, MATCHER)
    assert holder_pid(venue_directory, MATCHER) == 0, "a pid without a lock means nothing"
    hold(venue_directory, MATCHER).release()


def test_holder_that_was_killed_but_not_reaped_is_dead(
    venue_directory: Path, children: Children
) -> None:
    child = children.fork(lambda: hold_for_ever(venue_directory, MATCHER))
    poll_until(lambda: holder_alive(venue_directory, MATCHER), "the child to take the role")
    os.kill(child, signal.SIGKILL)
    assert wait_for_exit(child, 60)
    assert not holder_alive(venue_directory, MATCHER)


def test_child_of_a_holder_does_not_keep_the_role_beyond_its_parent(
    venue_directory: Path, children: Children
) -> None:
    grandchildren: Path = venue_directory / "grandchild"

    def supervise() -> None:
        lock = hold(venue_directory, SEQUENCER)
        worker = os.fork()
        if worker == 0:
            assert not lock.held
            assert holder_alive(venue_directory, SEQUENCER)
            signal.pause()
        grandchildren.write_text(str(worker))
        grandchildren.rename(venue_directory / "ready")
        signal.pause()

    child = children.fork(supervise)
    ready = venue_directory / "ready"
    poll_until(ready.exists, "the supervisor to fork")
    worker = int(ready.read_text())
    try:
        assert holder_pid(venue_directory, SEQUENCER) == child
        children.kill(child)
        assert not wait_for_exit(worker, 0), "the worker must outlive its supervisor here"
        assert not holder_alive(venue_directory, SEQUENCER)
    finally:
        os.kill(worker, signal.SIGKILL)
        os.waitpid(worker, 0)  # orphans come to this process (conftest)


def test_release_in_a_forked_child_leaves_the_parents_role(
    venue_directory: Path, children: Children
) -> None:
    with hold(venue_directory, MATCHER) as lock:
        assert children.exit_code(children.fork(lock.release)) == 0
        assert lock.held
        assert holder_pid(venue_directory, MATCHER) == os.getpid()


def test_program_that_a_holder_starts_does_not_inherit_the_role(venue_directory: Path) -> None:
    lock: RoleLock = hold(venue_directory, MATCHER)
    with subprocess.Popen(
        [sys.executable, "-c", "import signal; signal.pause()"], close_fds=False
    ) as program:
        try:
            lock.release()
            # exec closes descriptors one by one, and Popen goes on after the first
            poll_until(lambda: not holder_alive(venue_directory, MATCHER), "exec to finish")
        finally:
            program.kill()


def test_lock_file_that_is_a_link_or_open_to_others_is_refused(
    venue_directory: Path, tmp_path: Path
) -> None:
    path = venue_directory / LOCK_FILE
    path.symlink_to(tmp_path / "victim")
    with pytest.raises(RegionRefused, match="the file of role locks can't be opened"):
        hold(venue_directory, MATCHER)
    assert not (tmp_path / "victim").exists()
    path.unlink()
    hold(venue_directory, MATCHER).release()
    path.chmod(0o666)
    with pytest.raises(RegionRefused, match="expected: mode 0600 or less; found: mode 0666"):
        hold(venue_directory, MATCHER)


def test_wait_for_exit_tells_the_dead_from_the_living(children: Children) -> None:
    child = children.fork(signal.pause)
    pidfd = os.pidfd_open(child)
    assert not wait_for_exit(child, 0.001)
    assert not wait_on_pidfd(pidfd, 0)
    children.stop(child)
    assert not wait_for_exit(child, 0.001)
    os.kill(child, signal.SIGKILL)
    assert wait_on_pidfd(pidfd, 60)
    assert wait_for_exit(child, 60), "dead, and not reaped yet"
    assert children.exit_code(child) == -signal.SIGKILL
    assert wait_for_exit(child, 60), "no such process any more"
    assert wait_on_pidfd(pidfd, 60)
    os.close(pidfd)
