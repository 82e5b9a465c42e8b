"""The venue's log: one JSON object a line, written by every process of it, read by `hft logs`.

Loops count and don't log; what is written here happens a few times a day: a start, a worker that
died and of what, a client that was cut off, the end. A line is one write to a file opened for
appending, so lines of several processes never mix. Each start begins a new file and keeps the ones
before it.

    {"at": "2026-11-20T08:00:00.123456Z", "pid": 7, "who": "supervisor", "event": "ready", ...}

The directory is `$XDG_STATE_HOME/hftcore/<venue>` (default `~/.local/state`), closed to others.
"""

from __future__ import annotations

import json as json_text
import os
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from hftcore.errors import Refused, VenueRefused
from ipc.directory import checked_name

KEPT_STARTS = 9
LOG_FILE = "venue.log"
OUTPUT_FILE = "output.log"
"""What the processes print of themselves: tracebacks, the words of a crash."""
OLD_OUTPUT_FILE = "output.1.log"
_FOLLOW_S = 0.2


def log_directory(venue: str) -> Path:
    """Return the directory of a venue's logs, there or not."""
    home = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(home) / "hftcore" / checked_name(venue)


def made_log_directory(venue: str) -> Path:
    """Return the directory of a venue's logs, made if it was not there.

    Raises
    ------
    VenueRefused
        When it can't be made.
    """
    directory = log_directory(venue)
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise _not_writable(error, directory) from error
    return directory


def remove_logs(venue: str) -> None:
    """Remove the logs of a venue that will not be asked about, and their directory if that was all.

    For venues of one run and a name of its own (a demo, a replay) that ended well.
    """
    directory = log_directory(venue)
    with suppress(OSError):
        for path in directory.iterdir():
            if path.name.startswith(("venue.", "output.")) and path.suffix == ".log":
                path.unlink()
        directory.rmdir()


def turn_output(directory: Path) -> None:
    """Begin `output.log` anew for this process and its children; the last start's is kept.

    Only who holds lock 0 does so: a start that is refused has its words in the file that is there,
    behind those of the venue that runs. A process that prints elsewhere goes on printing there.
    """
    path = directory / OUTPUT_FILE
    with suppress(OSError):
        if not os.path.samestat(os.fstat(1), os.stat(path)):
            return
        path.rename(directory / OLD_OUTPUT_FILE)
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        descriptor = os.open(path, flags | os.O_CLOEXEC, 0o600)
        for standard in (1, 2):
            os.dup2(descriptor, standard)
        os.close(descriptor)


def _not_writable(error: OSError, path: Path) -> VenueRefused:
    return VenueRefused(
        "the venue's log can't be written",
        expected="a directory that this user may write",
        found=error.strerror or str(error),
        where=error.filename or str(path),
        remedy="set XDG_STATE_HOME to a directory of your own",
    )


class Log:
    """A venue's log, open for appending; a fork shares it.

    Attributes
    ----------
    path : Path
    who : str
        Named in each line: "supervisor", or a worker's name.
    echo : bool
        Write each line to the standard error too.
    """

    def __init__(self, path: Path, descriptor: int, who: str, *, echo: bool = False) -> None:
        self.path = path
        self.who = who
        self.echo = echo
        self._descriptor = descriptor

    @classmethod
    def begin(cls, venue: str, *, echo: bool = False) -> Log:
        """Begin the log of a start: the file of the last start becomes the first of the old ones.

        Raises
        ------
        VenueRefused
            When the file can't be made.
        """
        directory = made_log_directory(venue)
        path = directory / LOG_FILE
        try:
            for number in range(KEPT_STARTS, 0, -1):
                older = directory / (f"venue.{number - 1}.log" if number > 1 else LOG_FILE)
                with suppress(FileNotFoundError):
                    older.rename(directory / f"venue.{number}.log")
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
            descriptor = os.open(path, flags | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise _not_writable(error, path) from error
        return cls(path, descriptor, "supervisor", echo=echo)

    @property
    def descriptor(self) -> int:
        """The open file, for what writes to it by itself (a traceback of the interpreter)."""
        return self._descriptor

    def renamed(self, who: str) -> Log:
        """Return the same log for another writer."""
        return Log(self.path, self._descriptor, who, echo=self.echo)

    def write(self, event: str, **facts: Any) -> None:
        """Write a line."""
        at = datetime.fromtimestamp(time.time(), UTC).isoformat().replace("+00:00", "Z")
        fields = {"at": at, "pid": os.getpid(), "who": self.who, "event": event, **facts}
        line = json_text.dumps(fields, default=str)
        with suppress(OSError):  # a full disk must not stop a venue
            os.write(self._descriptor, line.encode() + b"\n")
        if self.echo:
            print(as_text(fields), file=sys.stderr, flush=True)

    def failure(self, event: str, error: BaseException) -> None:
        """Write an error with its reason: the parts of a refusal, or where it came from."""
        if isinstance(error, Refused):
            self.write(event, **refusal_facts(error))
            return
        trace = traceback.extract_tb(error.__traceback__)
        where = [f"{Path(frame.filename).name}:{frame.lineno} {frame.name}" for frame in trace]
        self.write(event, error=f"{type(error).__name__}: {error}", where=where)

    def close(self) -> None:
        """Close the file in this process."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


def refusal_facts(refused: Refused) -> dict[str, str]:
    """Return the parts of a refusal that say something."""
    keys = ("what", "expected", "found", "where", "remedy")
    return {key: getattr(refused, key) for key in keys if getattr(refused, key)}


def as_text(fields: dict[str, Any]) -> str:
    """Write a line for people: time, who, what, then the rest as name=value."""
    rest = {key: value for key, value in fields.items() if key not in ("at", "pid", "who", "event")}
    said = " ".join(f"{key}={_shown(value)}" for key, value in rest.items())
    at = str(fields.get("at", "")).replace("T", " ")
    return f"{at}  {fields.get('who', ''):<20} {fields.get('event', '')}  {said}".rstrip()


def _shown(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ",".join(map(str, value))
    return json_text.dumps(value) if isinstance(value, str) and " " in value else str(value)


def lines(path: Path, *, follow: bool = False) -> Iterator[str]:
    """Yield the lines of a log; when following, also those to come, and of the next starts.

    Raises
    ------
    VenueRefused
        When there is no log.
    """
    try:
        file = path.open()
    except FileNotFoundError:
        raise VenueRefused(
            "there is no log of this venue",
            expected="a venue that was started here",
            found="no such file",
            where=str(path),
            remedy="hft up; logs are kept below $XDG_STATE_HOME/hftcore",
        ) from None
    with file:
        part, is_old = "", False
        while True:
            part += file.readline()
            if part.endswith("\n"):
                yield part[:-1]
                part = ""
            elif not follow:
                return
            elif is_old:
                break  # read to its end after it was replaced
            else:
                is_old = _replaced(path, file.fileno())
                time.sleep(0 if is_old else _FOLLOW_S)
    yield from lines(path, follow=follow)


def _replaced(path: Path, descriptor: int) -> bool:
    """Return whether another file has the name of an open one: a new start."""
    try:
        return os.stat(path).st_ino != os.fstat(descriptor).st_ino
    except FileNotFoundError:
        return False


def main(venue: str, *, follow: bool = False, json: bool = False) -> int:
    """Print a venue's log, of its newest start."""
    for line in lines(log_directory(venue) / LOG_FILE, follow=follow):
        if json:
            print(line, flush=follow)
            continue
        try:
            fields = json_text.loads(line)
        except ValueError:  # the interpreter's own words, of a crash
            fields = None
        print(as_text(fields) if isinstance(fields, dict) else line, flush=follow)
    return 0


__all__ = [
    "Log",
    "as_text",
    "lines",
    "log_directory",
    "made_log_directory",
    "main",
    "refusal_facts",
    "remove_logs",
    "turn_output",
]
