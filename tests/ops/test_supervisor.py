"""A venue in real processes: it comes up, is looked at, goes down, and dies in every way.

Whatever happens, afterwards nothing is in shared memory and no process is left, and the log says
why. Nothing is timed: every wait has a deadline that only a hanging venue reaches.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hftcore.client import Client
from hftcore.errors import Refused
from hftcore.ops import dump
from hftcore.ops.book import BookReader
from hftcore.ops.launch import launch, running_venue, stop
from hftcore.ops.logs import OUTPUT_FILE
from hftcore.ops.stat import as_text, facts_of, look
from hftcore.ops.venue_file import attached, read_record
from tests.ops.venues import Place, end, gone, hft, orders, processes_of, reap, send_all
from tests.processes import ROOT, Children, poll_until

STANDSTILL_S = 2.0
ROLES = ("supervisor", "sequencer+reporter", "matcher-0", "publisher")
TWO_CPUS = (
    {"cpus": tuple(sorted(os.sched_getaffinity(0))[:2])} if len(os.sched_getaffinity(0)) > 1 else {}
)

VICTIMS = [
    *((2, victim) for victim in ROLES),
    # each of the roles that two cpus fuse, in a worker of its own
    (4, "sequencer"),
    (4, "reporter"),
]
"""(as_cpus, worker)"""

pytestmark = pytest.mark.skipif(not TWO_CPUS, reason="these placements need two cpus")


def test_a_venue_comes_up_trades_is_seen_and_leaves_nothing(place: Place) -> None:
    with running_venue(place.config(**TWO_CPUS)) as record:
        assert set(processes_of(record)) == set(ROLES)
        with (
            Client.connect(place.name, account=1) as seller,
            Client.connect(place.name, account=2) as buyer,
        ):
            seller.submit("AA", "sell", price=500, qty=5)
            bought = buyer.submit("AA", "buy", price=505, qty=2)
            assert [str(trade.price) for trade in bought.trades] == ["500"]
            _, memory = attached(place.name)
            with memory:
                view, whole = BookReader(memory, "AA").read()
                assert whole
                assert [(int(ask.price), int(ask.qty)) for ask in view.asks] == [(500, 3)]
                first = look(record, memory)
                facts = facts_of(record, first, look(record, memory))
        assert max(map(len, as_text(facts).splitlines())) <= 80
        assert facts["sequences"]["settled"] >= 2 + len(place.config().instruments)
        assert {each["state"] for each in facts["workers"]} == {"running"}
    reap(record)
    assert place.remains() == []
    events = place.events_of_log()
    assert events[0] == "starting"
    assert events[-1] == "cleared away"
    assert "not drained" not in events
    assert {"ready", "stopping", "summary"} <= set(events)


def test_every_region_of_a_venue_can_be_dumped(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    with running_venue(place.config(shards=2, **TWO_CPUS)) as record:
        with Client.connect(place.name, account=1) as client:
            send_all(client, orders(50, seed=3))
        regions = sorted(place.directory.glob("*.region"))
        assert len(regions) > 30
        capsys.readouterr()
        for path in regions:
            assert dump.main(str(path), limit=3) == 0, path
            assert path.stem in capsys.readouterr().out
        assert dump.main(f"{place.name}/status") == 0
        assert "state=running" in capsys.readouterr().out
        assert dump.main(f"{place.name}/state-sequencer", json=True) == 0
        state = json.loads(capsys.readouterr().out.splitlines()[-1])
        assert state["next_sequence"] > 50
    reap(record)


def test_hft_up_stat_book_logs_down(place: Place, tmp_path: Path) -> None:
    config = tmp_path / "venue.py"
    config.write_text(
        "from hftcore.instruments import Instrument\n"
        "from hftcore.ops.config import VenueConfig\n"
        f"VENUE = VenueConfig({place.name!r}, (Instrument('AA', '1', '1', '1000'),), gateways=2,\n"
        "    report_slots=256)\n"
    )
    begun = hft(place, "up", "--config", str(config), "--json")
    assert begun.returncode == 0, begun.stderr
    said = json.loads(begun.stdout)
    record, memory = attached(place.name)
    memory.close()
    try:
        assert said["pid"] == record.pid
        named = ("--venue", place.name)
        output = place.state / "hftcore" / place.name / OUTPUT_FILE
        with output.open("a") as printed:
            printed.write("what the venue printed\n")
        second = hft(place, "up", "--config", str(config))
        assert output.read_text().startswith("what the venue printed\n")
        assert second.returncode == 1
        assert second.stderr.startswith(f"hft: the venue {place.name} is already up\n")
        assert f"found:    a supervisor, pid {record.pid}\n" in second.stderr
        assert "remedy:   hft down" in second.stderr
        shown = json.loads(hft(place, "stat", *named, "--json").stdout)
        assert {worker["pid"] for worker in shown["workers"]} < set(processes_of(record).values())
        assert shown["sequences"]["sequenced"] >= 2
        assert place.name in hft(place, "stat", *named).stdout
        empty = json.loads(hft(place, "book", "AA", *named, "--json").stdout)
        assert (empty["bids"], empty["asks"], empty["one_moment"]) == ([], [], True)
        unknown = hft(place, "book", "ZZ", *named)
        assert (unknown.returncode, "expected: AA" in unknown.stderr) == (1, True)
        assert " ready " in hft(place, "logs", *named).stdout
        assert hft(place, "down", *named).returncode == 0
    finally:
        end(record)
    assert place.remains() == []
    again = hft(place, "down", "--venue", place.name)
    assert again.returncode == 1
    assert again.stderr.startswith(f"hft: the venue {place.name} is not up\n")


@pytest.mark.parametrize(("as_cpus", "victim"), VICTIMS)
def test_a_killed_process_ends_the_venue_and_the_log_says_of_what(
    place: Place, as_cpus: int, victim: str
) -> None:
    process, record = launch(place.config(as_cpus=as_cpus, wait="futex", **TWO_CPUS))
    pids = processes_of(record)
    try:
        with Client.connect(place.name, account=1) as client:
            client.send(orders(200, seed=1))
            os.kill(pids[victim], signal.SIGKILL)
            status = process.wait(60)
            reap(record)
    except Refused:
        status = process.wait(60)  # the client noticed first
    finally:
        end(record)
    assert place.remains() == []
    lines = place.log_lines()
    if victim == "supervisor":
        assert status == -signal.SIGKILL
        assert any(line["event"] == "supervisor died" for line in lines)
        assert lines[-1]["event"] == "cleared away"
        return
    assert status == 1
    (died,) = [line for line in lines if line["event"] == "worker died"]
    assert died["worker"] == victim
    assert died["died"] == pids[victim]
    assert died["reason"] == "signal 9 (SIGKILL)"
    assert set(died["roles"]) == set(victim.split("+"))


@pytest.mark.parametrize(("as_cpus", "victim"), VICTIMS)
def test_a_stopped_process_goes_on_where_it_was_and_nothing_is_lost(
    place: Place, as_cpus: int, victim: str, children: Children
) -> None:
    config = place.config(as_cpus=as_cpus, wait="futex", **TWO_CPUS)
    with running_venue(config) as record:
        pid = processes_of(record)[victim]
        rows = orders(20_000, seed=2)
        with Client.connect(place.name, account=1, timeout_s=60) as client:
            client.send(rows[:100])
            children.stop(pid)
            sent = 100
            until = time.monotonic() + STANDSTILL_S

            def stood_long_enough() -> bool:
                # the rings fill up, as far as they can, and the others wait
                nonlocal sent
                sent += client.session.try_send(rows[sent : sent + 64])
                client.poll_rows()
                return time.monotonic() > until

            poll_until(stood_long_enough, "a standstill under load")
            children.go_on(pid)
            send_all(client, rows[sent:])
            assert client.unanswered == 0
        _, memory = attached(place.name)
        with memory:
            counted = dict(memory.counters("sequencer"))
    reap(record)
    # the client's rows, its sessions, the listing, the epoch, and what time wrote by itself
    assert counted["commands"] - counted["time commands"] >= len(rows) + 4 + 1
    assert place.remains() == []


def test_a_killed_supervisor_is_cleared_away_though_a_worker_stands_still(
    place: Place, children: Children
) -> None:
    process, record = launch(place.config(**TWO_CPUS))
    try:
        children.stop(processes_of(record)["matcher-0"])
        process.kill()
        assert process.wait(60) == -signal.SIGKILL
        reap(record)
        poll_until(lambda: place.remains() == [], "the workers to clear the venue away")
    finally:
        end(record)


def test_in_the_foreground_the_venue_says_when_it_is_ready_and_ends_on_ctrl_c(
    place: Place,
) -> None:
    told = place.state / "notify.socket"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(told))
        systemd.settimeout(120)
        with subprocess.Popen(
            [sys.executable, "-m", "hftcore", "up", "--foreground", "--venue", place.name],
            cwd=ROOT,
            env={**os.environ, "NOTIFY_SOCKET": str(told)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            process_group=0,
        ) as process:
            try:
                assert systemd.recv(100) == b"READY=1"
                record = read_record(place.directory)
                assert record.pid == process.pid
                os.killpg(process.pid, signal.SIGINT)  # as a terminal does
                out, err = process.communicate(timeout=60)
            finally:
                process.kill()
    reap(record)
    assert process.returncode == 0
    assert out.startswith(f"venue {place.name} is up, after ")
    assert "stopping  why=SIGINT" in err
    assert "not drained" not in err
    assert place.remains() == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_worker_that_spins_in_compiled_code_ends_on_a_signal(
    place: Place, number: signal.Signals
) -> None:
    process, record = launch(place.config(wait="spin", **TWO_CPUS))
    try:
        pid = processes_of(record)["matcher-0"]
        os.kill(pid, number)
        poll_until(lambda: gone(pid), "the worker to end", deadline_s=10)
        # nobody had asked it to leave: the venue ends and says so
        assert process.wait(60) == 1
        reap(record)
    finally:
        end(record)
    (died,) = [line for line in place.log_lines() if line["event"] == "worker died"]
    assert died["reason"].startswith("exit status 0")
    assert place.remains() == []


def test_what_a_dead_venue_left_is_removed_by_the_next(place: Place) -> None:
    process, record = launch(place.config(**TWO_CPUS))
    for pid in processes_of(record).values():
        os.kill(pid, signal.SIGSTOP)  # so that nobody clears up
    for pid in processes_of(record).values():
        os.kill(pid, signal.SIGKILL)
    process.wait(60)
    reap(record)
    assert place.remains() != []
    with running_venue(place.config(**TWO_CPUS)) as second:
        assert second.notes[0].startswith("removed what a dead venue left: ")
    reap(second)
    assert place.remains() == []


def test_a_worker_without_a_page_of_shared_memory_is_said_to_lack_room(place: Place) -> None:
    process, record = launch(place.config(**TWO_CPUS))
    try:
        os.kill(processes_of(record)["matcher-0"], signal.SIGBUS)
        assert process.wait(60) == 1
        reap(record)
    finally:
        end(record)
    (died,) = [line for line in place.log_lines() if line["event"] == "worker died"]
    assert died["reason"].endswith("(SIGBUS): shared memory is full")
    assert died["where"] == str(place.directory)
    assert "remount,size=" in died["remedy"]
    assert "max_price" in died["remedy"]
    assert place.remains() == []


def test_stat_tells_a_worker_that_is_stopped(place: Place, children: Children) -> None:
    with running_venue(place.config(**TWO_CPUS)) as record:
        pid = processes_of(record)["matcher-0"]
        _, memory = attached(place.name)
        with memory:
            children.stop(pid)
            try:

                def shown() -> str:
                    seen = look(record, memory)
                    return as_text(facts_of(record, seen, seen))

                poll_until(lambda: "silent for 2 s" in shown(), "two seconds of silence")
                (line,) = [each for each in shown().splitlines() if each.startswith("matcher-0")]
                assert " halted " in line
            finally:
                children.go_on(pid)
            poll_until(lambda: "halted" not in shown(), "the worker to run again")
            poll_until(lambda: "silent" not in shown(), "the worker to say so")
    reap(record)


def test_a_client_that_dies_is_reported_as_a_gateway_that_is_down(
    place: Place, children: Children
) -> None:
    with running_venue(place.config(**TWO_CPUS)) as record:

        def trade() -> None:
            client = Client.connect(place.name, account=7, gateway=1)
            client.submit("AA", "buy", price=400, qty=1)
            os.kill(os.getpid(), signal.SIGKILL)

        pid = children.fork(trade)
        assert children.exit_code(pid) == -signal.SIGKILL
        poll_until(lambda: "client died" in place.events_of_log(), "the supervisor to notice")
    reap(record)
    (died,) = [line for line in place.log_lines() if line["event"] == "client died"]
    assert (died["gateway"], died["was"]) == (1, pid)


def test_a_supervisor_that_is_told_to_stop_by_the_signal_ends_in_order(place: Place) -> None:
    process, record = launch(place.config(**TWO_CPUS))
    try:
        assert stop(place.name) >= 0
        assert process.wait(60) == 0
        reap(record)
    finally:
        end(record)
    assert place.remains() == []
    assert "the signal stop" in [line.get("why") for line in place.log_lines()]
