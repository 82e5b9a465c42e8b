"""How `hft replay` says how far it is: on stderr, from the first second, never within JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hftcore.marketdata.sources import Source, open_source
from hftcore.ops import replay as replaying
from hftcore.ops.replay import main, replay
from tests.marketdata.recordings import SESSION, framed


@pytest.fixture
def session(tmp_path: Path) -> Path:
    """Return a small ITCH recording."""
    path = tmp_path / "session.itch"
    path.write_bytes(framed(*SESSION))
    return path


def test_progress_ends_at_its_total(session: Path) -> None:
    seen: list[tuple[int, int]] = []
    replay(session, "itch", progress=lambda done, total: seen.append((done, total)))
    size = session.stat().st_size
    assert seen == [(size, size)]


def test_progress_bar_is_shown_to_a_person_only(
    session: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    main(session, "itch", None, False, False)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    monkeypatch.setenv("FORCE_COLOR", "1")
    main(session, "itch", None, False, False)
    assert "100%" in capsys.readouterr().err


def test_progress_bar_is_shown_before_the_recording_is_read(
    session: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def watched(*arguments: Any) -> Source:
        seen.append(capsys.readouterr().err)
        return open_source(*arguments)

    seen: list[str] = []
    monkeypatch.setattr(replaying, "open_source", watched)
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    monkeypatch.setenv("FORCE_COLOR", "1")
    main(session, "itch", None, False, False)
    assert "reading" in seen[0]
    printed = capsys.readouterr()
    assert "replay" in printed.err
    assert "100%" not in printed.out
    assert "\x1b" not in printed.out


def test_progress_never_gets_into_json(
    session: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    monkeypatch.setenv("FORCE_COLOR", "1")
    main(session, "itch", None, False, True)
    printed = capsys.readouterr()
    assert json.loads(printed.out)["holds"]
    assert (printed.out.count("\n"), printed.err) == (1, "")
