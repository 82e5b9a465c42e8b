"""`hft`: what it prints and returns when things go wrong, and that it starts fast.

Most tests call `main` in this process; what a process alone can show (the -O refusal, Ctrl-C, a
closed pipe, what is imported) runs `python -m hftcore`.
"""

from __future__ import annotations

import errno
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import hftcore
from hftcore import cli
from hftcore.errors import Refused
from hftcore.marketdata.sources import SOURCES
from tests.ops.test_dump import new_order

ROOT = Path(__file__).resolve().parent.parent
DEADLINE_S = 60


def hft(*arguments: str) -> int:
    """Run `hft` in this process and return its exit status."""
    with pytest.raises(SystemExit) as stopped:
        cli.main(list(arguments))
    assert isinstance(stopped.value.code, int)
    return stopped.value.code


@contextmanager
def started(
    *arguments: str, options: tuple[str, ...] = (), **env: str
) -> Iterator[subprocess.Popen[str]]:
    """Run `python -m hftcore` as a process of its own, which ends with the test."""
    with subprocess.Popen(
        [sys.executable, *options, "-m", "hftcore", *arguments],
        cwd=ROOT,
        env={**os.environ, **env},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def test_a_command_that_does_not_exist_is_answered_with_those_that_do(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert hft("fly") == 2
    assert capsys.readouterr().err == (
        "hft: no such command 'fly'\n"
        "  expected: one of replay, demo, bench, warm, dump, up, down, stat, book, logs, order, "
        "cancel\n"
        "  remedy:   hft --help\n"
    )


def test_an_option_that_does_not_exist_is_answered_with_those_that_do(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert hft("dump", "--knd", "events") == 2
    assert capsys.readouterr().err == (
        "hft: no such option: --knd\n"
        "  expected: one of --kind, --limit, --explain, --json\n"
        "  remedy:   hft dump --help\n"
    )


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["replay"], "missing argument 'FILE'"),
        (["replay", "x"], "missing option '--format'"),
        (["bench"], "missing argument 'SUITE'"),
        (["dump", "x", "--limit", "0"], "invalid value for '--limit'"),
        (["dump", "x", "--limit", "many"], "invalid value for '--limit'"),
        (["dump", "--limit"], "option '--limit' requires an argument"),
        (["warm", "everything"], "got unexpected extra argument"),
    ],
)
def test_a_wrong_command_line_is_refused_in_words(
    capsys: pytest.CaptureFixture[str], arguments: list[str], complaint: str
) -> None:
    assert hft(*arguments) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith(f"hft: {complaint}")
    assert re.search(r"\n  remedy:   hft (\w+ )?--help\n$", printed.err)


def test_a_suite_a_format_a_kind_that_does_not_exist_is_answered_with_the_known_ones(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recording = tmp_path / "recording"
    recording.write_bytes(b"")
    for arguments, known in (
        (("bench", "speed"), ("ring", "match")),
        (("bench", "ring", "--case", "slowest"), ("rtt",)),
        (("replay", str(recording), "--format", "csv"), ("itch", "lobster")),
        (("dump", str(recording), "--kind", "orders"), ("commands", "events")),
    ):
        assert hft(*arguments) == 2
        expected = capsys.readouterr().err.splitlines()[1]
        assert expected.startswith("  expected: ")
        assert all(name in expected for name in known), expected


@pytest.mark.parametrize("arguments", [("replay", "x"), ("replay", "x", "--format")])
def test_a_format_that_is_not_said_is_answered_with_the_known_ones(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...]
) -> None:
    assert set(cli.FORMATS) == set(SOURCES)
    assert hft(*arguments) == 2
    said = capsys.readouterr().err.splitlines()
    assert "'--format'" in said[0]
    assert said[1] == "  expected: one of itch, lobster"
    assert re.fullmatch(r"  remedy:   hft (replay )?--help", said[2])


@pytest.mark.parametrize(
    "arguments",
    [
        ("replay", "--format", "itch"),
        ("replay", "--format", "lobster"),
    ],
)
@pytest.mark.parametrize("name", ["missing.bin", "missing_message_1.csv", "missing.zip"])
def test_a_file_that_is_missing_is_refused_with_a_remedy(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], name: str
) -> None:
    path = tmp_path / name
    assert hft(arguments[0], str(path), *arguments[1:]) == 1
    said = capsys.readouterr().err
    assert re.search(rf"\n  where:    .*{name}", said), said
    assert re.search(r"\n  remedy:   .", said), said


def test_bench_promises_no_open_loop(capsys: pytest.CaptureFixture[str]) -> None:
    assert hft("bench", "--help") == 0
    assert "open loop" not in " ".join(capsys.readouterr().out.split())


def test_a_refusal_is_printed_with_all_its_parts_and_no_traceback(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / f"{'long-name-' * 12}.slots"  # no line is wrapped: paths stay whole
    path.write_bytes(new_order(1) + b"torn")
    assert hft("dump", str(path), "--kind", "commands") == 1
    printed = capsys.readouterr()
    assert printed.out.count("NEW_ORDER") == 1
    assert printed.err == (
        "hft: this file ends within a slot\n"
        "  expected: 64 bytes\n"
        "  found:    4 bytes\n"
        f"  where:    {path}, byte 128\n"
        "  remedy:   it was cut off while it was written, or it isn't a file of slots\n"
    )


def test_a_refusal_cannot_style_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    cli.report(Refused("[bold]plain[/bold]", found="[red]x[/red]"))
    assert capsys.readouterr().err == "hft: [bold]plain[/bold]\n  found:    [red]x[/red]\n"


def test_a_file_that_the_system_refuses_is_a_refusal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / ("x" * 300)  # too long for a name: whoever runs the test, root too
    assert hft("dump", str(path)) == 1
    printed = capsys.readouterr().err
    assert f"  found:    {os.strerror(errno.ENAMETOOLONG)}\n  where:    {path}\n" in printed


def test_a_mistake_of_ours_is_not_dressed_up_as_a_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hftcore.ops.dump.main", lambda *_, **__: 1 // 0)
    with pytest.raises(ZeroDivisionError):
        cli.main(["dump", "x"])


def test_the_status_of_the_work_is_the_status_of_the_command(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("hftcore.ops.dump.main", lambda *_, **__: 7)
    assert hft("dump", "x") == 7


def test_help_names_every_command_and_version_the_version(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for arguments in ((), ("--help",)):
        assert hft(*arguments) == 0
        printed = capsys.readouterr().out
        for begins in ("Drive a", "Measure the", "Compile every", "Print records"):
            assert begins in printed
    assert hft("--version") == 0
    assert capsys.readouterr().out == f"hftcore {hftcore.__version__}\n"


def test_help_starts_without_the_compiler_and_the_package_still_offers_its_names() -> None:
    script = (
        "import sys, hftcore.cli\n"
        "try: hftcore.cli.main(['dump', '--help'])\n"
        "except SystemExit: pass\n"
        "assert not {'numba', 'numpy', 'llvmlite'} & set(sys.modules)\n"
        "from hftcore import Exchange, Instrument\n"
        "import hftcore.exchange, hftcore.instruments\n"
        "assert Exchange is hftcore.exchange.Exchange\n"
        "assert Instrument is hftcore.instruments.Instrument\n"
        "assert {'Exchange', 'Instrument'} <= set(dir(hftcore))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_a_name_that_the_package_lacks_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'Exchnage'"):
        _ = hftcore.Exchnage


@pytest.mark.parametrize(("options", "optimize"), [(("-O",), ""), ((), "1")])
def test_python_without_assertions_is_refused_in_words(
    options: tuple[str, ...], optimize: str
) -> None:
    with started("--help", options=options, PYTHONOPTIMIZE=optimize) as process:
        out, err = process.communicate(timeout=DEADLINE_S)
    assert (process.returncode, out) == (1, "")
    assert err.startswith("hft: hftcore does not run under python -O\n  expected: assertions on")
    assert "  remedy:   start without -O and unset PYTHONOPTIMIZE" in err
    assert "Traceback" not in err


def test_ctrl_c_ends_quietly_with_130(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    with started("dump", str(fifo)) as process:
        writer = opened_by_a_reader(fifo)
        process.send_signal(signal.SIGINT)
        os.close(writer)  # the signal may have come just before the read that would block
        out, err = process.communicate(timeout=DEADLINE_S)
    assert (process.returncode, out, err) == (130, "", "")


def opened_by_a_reader(fifo: Path) -> int:
    """Return a descriptor for writing as soon as somebody reads."""
    deadline = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline:
        try:
            return os.open(fifo, os.O_WRONLY | os.O_NONBLOCK)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
    raise AssertionError("nobody opened the pipe")


def test_a_reader_that_goes_away_ends_the_output_quietly(tmp_path: Path) -> None:
    path = tmp_path / "commands"
    path.write_bytes(b"".join(new_order(sequence) for sequence in range(1, 3000)))
    with started("dump", str(path)) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert "sequence=1 " in process.stdout.readline()
        process.stdout.close()
        err = process.stderr.read()
        assert (process.wait(DEADLINE_S), err) == (1, "")
