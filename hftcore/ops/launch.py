"""Starting and stopping a venue from outside: `hft up`, `hft down`, and `running_venue` for tests.

A venue gets a fresh interpreter, whoever starts it: no threads, sockets or signal handlers of the
caller come along, so a notebook with ZMQ contexts may start one as well as a shell. The new
process reads its configuration from stdin and writes one line to a pipe: its record when the venue
is ready, or the refusal, in its parts, so that `hft up` prints what a direct call would have.

`hft up` detaches it (a session of its own, stdout and stderr into a file beside the log).
`running_venue` keeps it as a child that the kernel ends should the caller die, and guarantees the
end of it. Comes after `supervisor`; before `venue_cli`, `demo`, tests.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec

from hftcore.errors import Refused, VenueRefused
from hftcore.ops.config import VenueConfig
from hftcore.ops.logs import OUTPUT_FILE, made_log_directory, refusal_facts
from hftcore.ops.remains import STOP, clear_dead, signal_venue
from hftcore.ops.venue_file import SUPERVISOR_LOCK, VENUE_FILE, VenueRecord, directory_of
from ipc.directory import default_base
from ipc.errors import RegionRefused, SignalRefused
from ipc.kernel import CACHE_DIRECTORY
from ipc.liveness import holder_pid, wait_on_pidfd
from ipc.signals import Signal

START_S = 300.0
"""For a venue to be ready, compilation included."""
STOP_S = 20.0
_PR_SET_PDEATHSIG = 1
COLD = "first start: compiling the kernels, which takes about a minute ..."
"""To be said, when `is_cold`, before anything that waits for a venue."""


class Launch(msgspec.Struct, frozen=True):
    """What the new process reads from its stdin."""

    config: VenueConfig
    base: str
    status_fd: int
    die_with: int
    """Pid of the parent whose death ends the venue, 0: nobody's."""


class Said(msgspec.Struct, frozen=True):
    """What it answers, once."""

    ready: VenueRecord | None = None
    refused: dict[str, str] | None = None


def is_cold() -> bool:
    """Return whether no venue has started since the sources changed: kernels must be compiled."""
    return CACHE_DIRECTORY is not None and not any(CACHE_DIRECTORY.glob("venue-*"))


def launch(
    config: VenueConfig, *, base: Path | None = None, detach: bool = False
) -> tuple[subprocess.Popen[bytes], VenueRecord]:
    """Start a venue and wait until it is ready.

    Parameters
    ----------
    base : Path, optional
        Holds the venues' directories.
    detach : bool
        It outlives this process; otherwise it ends with it.

    Returns
    -------
    process, VenueRecord
        The supervisor, and what it says of the venue.

    Raises
    ------
    VenueRefused
        As the supervisor says it; nothing is left then.
    """
    output = made_log_directory(config.name) / OUTPUT_FILE
    said, say = os.pipe()
    asked = Launch(
        config,
        str(default_base() if base is None else base),
        say,
        0 if detach else os.getpid(),
    )
    try:
        # behind what a venue of this name that runs has said: the supervisor begins a new file
        with output.open("ab") as errors:
            begin = errors.tell()
            process = subprocess.Popen(
                [sys.executable, "-m", "hftcore.ops.launch"],
                stdin=subprocess.PIPE,
                stdout=errors,
                stderr=errors,
                pass_fds=(say,),
                # a Ctrl-C is for the caller, which ends the venue when it has done with it
                start_new_session=True,
                cwd="/" if detach else None,
                env=_environment(),
            )
    finally:
        os.close(say)
    try:
        assert process.stdin is not None
        with suppress(BrokenPipeError), process.stdin as pipe:  # it died: `_heard` says of what
            pipe.write(msgspec.json.encode(asked))
        return process, _heard(said, process, output, begin)
    except BaseException:
        end(process)
        raise


def _environment() -> dict[str, str]:
    """Let the new interpreter find the package wherever this one did."""
    root = str(Path(__file__).resolve().parent.parent.parent)
    inherited = os.environ.get("PYTHONPATH")
    return {**os.environ, "PYTHONPATH": f"{root}{os.pathsep}{inherited}" if inherited else root}


def _heard(said: int, process: subprocess.Popen[bytes], output: Path, begin: int) -> VenueRecord:
    with os.fdopen(said, "rb") as pipe:
        words = pipe.readline()  # to the end of the line: its workers inherited the pipe
    if not words:
        code = process.wait()
        words = output.read_bytes()
        # shorter than it was: the supervisor got so far as to begin a new one
        words = words[begin if len(words) >= begin else 0 :]
        lines = words.decode(errors="replace").strip().splitlines()
        raise VenueRefused(
            "the supervisor died before the venue was ready",
            expected="a word from it",
            found=f"signal {-code}"
            if code < 0
            else f"exit status {code}; {' / '.join(lines[-3:])}",
            where=str(output),
            remedy=f"`hft logs` and {output} have what it said",
        )
    heard = msgspec.json.decode(words, type=Said)
    if heard.ready is not None:
        return heard.ready
    facts = heard.refused or {"what": "the venue was refused"}
    process.wait()
    raise VenueRefused(
        facts["what"], **{key: value for key, value in facts.items() if key != "what"}
    )


def serve_launch() -> int:
    """Be the new process: read the configuration, run the supervisor, answer once."""
    from hftcore.ops.supervisor import Supervisor  # noqa: PLC0415  callers need not load it

    asked = msgspec.json.decode(sys.stdin.buffer.read(), type=Launch)
    if asked.die_with:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
        if os.getppid() != asked.die_with:
            return 1
    os.set_inheritable(asked.status_fd, False)

    def say(said: Said) -> None:
        with os.fdopen(asked.status_fd, "wb") as pipe:
            pipe.write(msgspec.json.encode(said) + b"\n")

    ready: list[VenueRecord] = []

    def report(record: VenueRecord) -> None:
        ready.append(record)
        say(Said(ready=record))

    supervisor = Supervisor(asked.config, base=Path(asked.base), report=report)
    try:
        return supervisor.run()
    except Refused as refused:
        if ready:
            raise
        say(Said(refused=refusal_facts(refused)))
        return 1


@contextmanager
def running_venue(config: VenueConfig, *, base: Path | None = None) -> Iterator[VenueRecord]:
    """Run a venue for the length of a block: started before it, gone after it, come what may.

    The venue also ends when this process dies; call it from a thread that lives as long as the
    block.

    Parameters
    ----------
    base : Path, optional
        Holds the venues' directories.

    Raises
    ------
    VenueRefused
        When it can't be started, or did not end in order (a worker died).
    """
    process, record = launch(config, base=base)
    try:
        yield record
    except BaseException:
        end(process)
        raise
    status = end(process)
    if status != 0:
        raise VenueRefused(
            "the venue did not end in order",
            expected="exit status 0",
            found=f"signal {-status}" if status < 0 else f"exit status {status}",
            where=record.log,
            remedy="the log names the worker that died, and of what",
        )


def end(process: subprocess.Popen[bytes]) -> int:
    """Ask a supervisor to stop, and return its exit status when it has."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    try:
        return process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()


def stop(venue: str, *, base: Path | None = None) -> float:
    """Stop a venue that `hft up` started, and wait until it is gone; return the seconds it took.

    One that is starting gives up. Of one that is dead what it left is removed.

    Raises
    ------
    VenueRefused
        When it is not up, or does not end.
    """
    directory = directory_of(venue, base)
    began = time.monotonic()
    try:
        pid = holder_pid(directory, SUPERVISOR_LOCK)
        pidfd = os.pidfd_open(pid) if pid else -1
    except (RegionRefused, ProcessLookupError):
        pidfd = -1
    if pidfd < 0:
        # the lock is free: there may be what a supervisor that was killed could not remove
        if directory.is_dir() and clear_dead(directory):
            return time.monotonic() - began
        raise VenueRefused(
            f"the venue {venue} is not up",
            expected="a venue that `hft up` started",
            found="nobody holds its lock",
            where=str(directory),
            remedy="hft up",
        )
    try:
        _ask_to_stop(directory, pidfd)
        if not wait_on_pidfd(pidfd, STOP_S):
            raise VenueRefused(
                f"the venue {venue} does not end",
                expected=f"an end within {STOP_S:g} s",
                found=f"its supervisor runs (pid {pid})",
                where=str(directory),
                remedy=f"see hft logs --venue {venue}; is it stopped (kill -CONT {pid})? As a last "
                f"resort kill -9 {pid}, then hft down --venue {venue} again: it removes what is "
                "left",
            )
    finally:
        os.close(pidfd)
    return time.monotonic() - began


def _ask_to_stop(directory: Path, pidfd: int) -> None:
    """Give the signal `stop`; to a supervisor that is starting, or stopping already, SIGTERM too.

    While it starts the semaphore may not be there yet, or be a dead venue's that it will remove.
    """
    try:
        with Signal.attach(signal_venue(directory), STOP) as wanted:
            wanted.give()
        starting = not (directory / VENUE_FILE).exists()
    except SignalRefused:
        starting = True
    if starting:
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(pidfd, signal.SIGTERM)


__all__ = ["COLD", "end", "is_cold", "launch", "running_venue", "serve_launch", "stop"]


if __name__ == "__main__":
    raise SystemExit(serve_launch())
