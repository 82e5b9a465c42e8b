"""Who clears a venue away: a stopped start, `hft down` after a death, and several who meet at it.

A start that lasts is made of the real supervisor and a compilation that does not end.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

import pytest

from hftcore.errors import VenueRefused
from hftcore.messages import INGRESS_SEQUENCE
from hftcore.ops import remains, supervisor
from hftcore.ops.launch import launch, stop
from hftcore.ops.logs import OLD_OUTPUT_FILE, OUTPUT_FILE, made_log_directory, turn_output
from hftcore.ops.memory import VenueMemory
from hftcore.ops.placement import place as place_workers
from hftcore.ops.venue_gateway import VenueGateway
from ipc.directory import venue_directory
from ipc.errors import RegionRefused
from ipc.ring import place_cursor
from tests.ops.venues import Place
from tests.processes import Children, poll_until

ROUNDS = 150


@pytest.fixture
def start(place: Place, children: Children, monkeypatch: pytest.MonkeyPatch) -> int:
    """Begin a start that stays where kernels are compiled; return the supervisor's pid."""

    def compile_for_ever(_placement: object, _log: object, check: Callable[[], None]) -> None:
        poll_until(lambda: check() is not None, "the end of the start")

    monkeypatch.setattr(supervisor, "compile_ahead", compile_for_ever)
    config = place.config()
    pid = children.fork(lambda: supervisor.Supervisor(config, report=lambda _record: None).run())
    poll_until(lambda: any("stop" in each for each in place.remains()), "the last semaphore")
    return pid


def test_a_venue_that_is_starting_is_stopped_by_down(
    place: Place, children: Children, start: int
) -> None:
    assert stop(place.name) >= 0
    assert children.exit_code(start) == 1
    assert place.remains() == []
    (failed,) = [line for line in place.log_lines() if line["event"] == "venue failed"]
    assert failed["what"] == "the start was stopped"


def test_a_start_that_is_killed_leaves_what_down_removes(
    place: Place, children: Children, start: int
) -> None:
    children.kill(start)
    assert len(place.remains()) > 10
    assert stop(place.name) >= 0
    assert place.remains() == []
    with pytest.raises(VenueRefused, match="is not up"):
        stop(place.name)


def test_a_start_that_is_refused_leaves_what_a_running_one_has(place: Place, start: int) -> None:
    before = place.remains()
    with pytest.raises(VenueRefused, match="already up"):
        launch(place.config())
    assert place.remains() == before
    stop(place.name)


def test_two_who_begin_and_end_a_venue_never_meet_and_never_stumble(
    place: Place, children: Children
) -> None:
    inside = place.state / "inside"

    def begin_and_end() -> None:
        done = 0
        while done < ROUNDS:
            try:
                lock = remains.take_supervision(place.directory)
            except VenueRefused:
                continue  # the other has it
            os.close(os.open(inside, os.O_CREAT | os.O_EXCL))  # nobody else is inside
            inside.unlink()
            remains.remove_all(place.directory, lock)
            done += 1

    pids = [children.fork(begin_and_end) for _ in range(2)]
    assert [children.exit_code(pid) for pid in pids] == [0, 0]
    assert place.remains() == []


def test_a_place_that_can_not_be_trusted_is_refused_and_not_tried_again(place: Place) -> None:
    place.directory.mkdir(mode=0o755)
    place.directory.chmod(0o755)
    with pytest.raises(RegionRefused, match="open to other users"):
        remains.take_supervision(place.directory)


def test_an_orphan_waits_for_a_lock_that_is_taken_for_a_moment(
    place: Place, children: Children
) -> None:
    directory = venue_directory(place.name, place.base)
    lock = remains.take_supervision(directory)
    (directory / "left.region").touch()
    asked = place.state / "asked"

    def clear() -> None:
        asked.touch()
        assert remains.clear_dead(directory) == ["left.region"]

    pid = children.fork(clear)
    poll_until(asked.exists, "the orphan to begin")
    lock.release()
    assert children.exit_code(pid) == 0
    assert place.remains() == []
    assert remains.clear_dead(directory) is None, "nothing is there, and nothing is made"
    assert place.remains() == []


def test_a_command_of_the_venue_that_found_no_room_has_no_number(place: Place) -> None:
    config = place_workers(place.config()).config
    directory = venue_directory(place.name, place.base)
    memory = VenueMemory.create(directory, config, 3, start_id=1)
    try:
        gateway = VenueGateway(memory, lambda: None)
        sent = 0
        while gateway.gateway_down(1, 1, graceful=True):
            sent += 1
        cells, ring = memory.gateways(), memory.ingress(0)
        assert 0 < sent <= config.ingress_slots
        assert not gateway.gateway_down(1, 1, graceful=True)
        assert int(cells[INGRESS_SEQUENCE]) == sent
        place_cursor(ring.cells, 0, ring.position)
        assert gateway.gateway_down(1, 1, graceful=True)
        assert int(cells[INGRESS_SEQUENCE]) == sent + 1
    finally:
        memory.unlink()


def test_output_is_turned_only_by_who_prints_there(place: Place, children: Children) -> None:
    directory = made_log_directory(place.name)
    output = directory / OUTPUT_FILE
    output.write_text("the last start\n")

    def begin() -> None:
        turn_output(directory)  # prints elsewhere: nothing happens
        assert output.read_text() == "the last start\n"
        descriptor = os.open(output, os.O_WRONLY | os.O_APPEND)
        for standard in (1, 2):
            os.dup2(descriptor, standard)
        turn_output(directory)
        os.write(2, b"this start\n")

    assert children.exit_code(children.fork(begin)) == 0
    assert output.read_text() == "this start\n"
    assert (directory / OLD_OUTPUT_FILE).read_text() == "the last start\n"


def test_signals_before_the_semaphore_is_there_stop_a_start_too(
    place: Place, children: Children, start: int
) -> None:
    os.kill(start, signal.SIGTERM)
    assert children.exit_code(start) == 1
    assert place.remains() == []
