"""Named semaphores between processes, and whose they are."""

from __future__ import annotations

import os
import signal as unix_signal
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from ipc.errors import RegionRefused, SignalRefused
from ipc.signals import Signal, remove, signal_name
from tests.processes import Children, poll_until

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")


@pytest.fixture
def file_of(venue_name: str) -> Iterator[Path]:
    """Say where the semaphore "ready" lies, and remove it afterwards."""
    path = Path("/dev/shm") / f"sem.{signal_name(venue_name, 'ready')[1:]}"
    yield path
    path.unlink(missing_ok=True)


def test_signal_given_by_other_processes_lets_as_many_waiters_through(
    venue_name: str, file_of: Path, children: Children
) -> None:
    with Signal.create(venue_name, "ready") as ready:
        assert not ready.wait(0.001)
        pids = [children.fork(lambda: Signal.attach(venue_name, "ready").give()) for _ in range(3)]
        assert [ready.wait(60) for _ in range(3)] == [True, True, True]
        assert not ready.wait(0)
        assert ready.value == 0
        assert [children.exit_code(pid) for pid in pids] == [0, 0, 0]
        assert stat.S_IMODE(file_of.stat().st_mode) == 0o600
    assert not file_of.exists()


def test_signal_survives_the_processes_that_only_attach(venue_name: str, file_of: Path) -> None:
    with Signal.create(venue_name, "ready"):
        with Signal.attach(venue_name, "ready") as seen:
            seen.give()
            assert seen.value == 1
        assert file_of.exists()


def test_signal_of_a_name_in_use_is_refused_until_it_is_removed(
    venue_name: str, file_of: Path
) -> None:
    first = Signal.create(venue_name, "ready")
    first.give()
    with pytest.raises(SignalRefused) as refused:
        Signal.create(venue_name, "ready")
    assert f"where: {file_of}; remedy: stop the venue that uses it, or remove" in str(refused.value)
    assert remove(venue_name, "ready")
    assert not remove(venue_name, "ready")
    with Signal.create(venue_name, "ready") as second:
        assert second.value == 0
    first.close()


def test_signal_that_is_missing_is_refused(venue_name: str) -> None:
    with pytest.raises(SignalRefused, match="found: no such semaphore"):
        Signal.attach(venue_name, "ready")


@as_root
def test_signal_of_another_user_is_refused(venue_name: str, file_of: Path) -> None:
    with Signal.create(venue_name, "ready"):
        os.chown(file_of, 65534, 65534)
        with pytest.raises(SignalRefused, match="found: -rw-------, owner 65534"):
            Signal.attach(venue_name, "ready")


def test_signal_that_is_open_to_others_or_a_link_is_refused(
    venue_name: str, file_of: Path, tmp_path: Path
) -> None:
    with Signal.create(venue_name, "ready"):
        file_of.chmod(0o666)
        with pytest.raises(SignalRefused, match="found: -rw-rw-rw-"):
            Signal.attach(venue_name, "ready")
        (tmp_path / "elsewhere").write_bytes(file_of.read_bytes())
        file_of.unlink()
        file_of.symlink_to(tmp_path / "elsewhere")
        with pytest.raises(SignalRefused, match="found: lrwxrwxrwx"):
            Signal.attach(venue_name, "ready")


def test_signal_of_an_unusable_name_is_refused(venue_name: str) -> None:
    with pytest.raises(RegionRefused, match="found: 'a/b'"):
        Signal.create(venue_name, "a/b")


def test_wait_that_a_handler_interrupts_goes_on(venue_name: str, file_of: Path) -> None:
    handled = threading.Event()
    before = unix_signal.signal(unix_signal.SIGUSR1, lambda *_: handled.set())
    try:
        with Signal.create(venue_name, "ready") as ready:

            def disturb() -> None:
                main = threading.main_thread().ident
                assert main is not None

                def disturbed() -> bool:
                    unix_signal.pthread_kill(main, unix_signal.SIGUSR1)
                    return handled.is_set()

                poll_until(disturbed, "the handler to run")
                ready.give()

            thread = threading.Thread(target=disturb)
            thread.start()
            assert ready.wait(60)
            thread.join()
    finally:
        unix_signal.signal(unix_signal.SIGUSR1, before)
    assert handled.is_set()
