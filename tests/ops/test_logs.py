"""The venue's log: one object a line, a file a start, read as it grows."""

from __future__ import annotations

import json
import os
from itertools import islice
from pathlib import Path

import pytest

from hftcore.errors import ConfigurationRefused, VenueRefused
from hftcore.ops import logs
from hftcore.ops.logs import KEPT_STARTS, LOG_FILE, Log, lines, log_directory
from tests.processes import Children, poll_until


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put the logs into the test's own directory."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    return tmp_path


def test_a_line_says_when_who_what_and_the_facts(capsys: pytest.CaptureFixture[str]) -> None:
    log = Log.begin("v")
    log.renamed("matcher-0").write("running", cpus=(1,), note="two words")
    log.close()
    (line,) = lines(log.path)
    fields = json.loads(line)
    assert fields.pop("at").endswith("Z")
    assert fields == {
        "pid": os.getpid(), "who": "matcher-0", "event": "running", "cpus": [1],
        "note": "two words",
    }  # fmt: skip
    assert logs.main("v") == 0
    shown = capsys.readouterr().out
    assert shown.endswith('matcher-0            running  cpus=1 note="two words"\n')
    assert logs.main("v", json=True) == 0
    assert capsys.readouterr().out == line + "\n"


def test_a_failure_is_logged_with_its_reason() -> None:
    log = Log.begin("v")
    log.failure("worker failed", ConfigurationRefused("no", expected="yes", remedy="say yes"))
    try:
        raise IndexError("seven")
    except IndexError as error:
        log.failure("worker failed", error)
    log.close()
    first, second = map(json.loads, lines(log.path))
    assert (first["what"], first["expected"], first["remedy"]) == ("no", "yes", "say yes")
    assert second["error"] == "IndexError: seven"
    assert second["where"][0].startswith("test_logs.py:")


def test_each_start_has_a_file_and_the_oldest_goes() -> None:
    for start in range(KEPT_STARTS + 3):
        log = Log.begin("v")
        log.write("starting", start=start)
        log.close()
    directory = log_directory("v")
    kept = {path.name: json.loads(path.read_text())["start"] for path in directory.iterdir()}
    last = KEPT_STARTS + 2
    assert kept == {
        LOG_FILE: last,
        **{f"venue.{number}.log": last - number for number in range(1, KEPT_STARTS + 1)},
    }
    assert directory.stat().st_mode & 0o777 == 0o700
    assert (directory / LOG_FILE).stat().st_mode & 0o777 == 0o600


def test_lines_of_several_processes_never_mix(children: Children) -> None:
    log = Log.begin("v")

    def write(who: str) -> None:
        for number in range(200):
            log.renamed(who).write("line", number=number, filler=who * 100)

    for pid in [children.fork(lambda who=who: write(who)) for who in "abc"]:  # type: ignore[misc]
        assert children.exit_code(pid) == 0
    seen = [json.loads(line) for line in lines(log.path)]
    assert len(seen) == 600
    for who in "abc":
        assert [each["number"] for each in seen if each["who"] == who] == list(range(200))


def test_following_goes_on_with_new_lines_and_with_the_next_start(children: Children) -> None:
    log = Log.begin("v")
    log.write("first")
    log.write("second")
    log.close()  # before the fork: the child has the file open when it reads it, not earlier

    def follow() -> None:
        followed = [json.loads(line)["event"] for line in islice(lines(log.path, follow=True), 3)]
        assert followed == ["first", "second", "third"]

    pid = children.fork(follow)
    poll_until(lambda: _reads(pid, log.path), "the child to follow")
    again = Log.begin("v")
    again.write("third")
    assert children.exit_code(pid) == 0


def _reads(pid: int, path: Path) -> bool:
    """Return whether a process has a file open."""
    return any(os.path.realpath(each) == str(path) for each in Path(f"/proc/{pid}/fd").iterdir())


def test_a_venue_that_never_started_has_no_log() -> None:
    with pytest.raises(VenueRefused, match="no log of this venue"):
        logs.main("never")


def test_a_place_that_can_not_be_written_is_refused(
    state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (state / "file").write_text("")
    monkeypatch.setenv("XDG_STATE_HOME", str(state / "file"))
    with pytest.raises(VenueRefused, match="log can't be written"):
        Log.begin("v")
