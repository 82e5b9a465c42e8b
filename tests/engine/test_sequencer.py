"""The sequencer and the client as writers: what they claim, and which sequences they stamp."""

from __future__ import annotations

import numpy as np
import pytest

from hftcore.engine.client import Client, client_of, send
from hftcore.engine.sequencer import Sequencer, poll, sequencer_of
from hftcore.errors import ConfigurationRefused
from hftcore.messages import MAX_SEQUENCE, NEW_ORDER, CommandKind, Flags
from ipc.ring import CLAIMED, NOTHING, OVERRUN, Ring
from tests.ipc.ring_drivers import copy_at

CAPACITY = 64


def command(number: int) -> np.ndarray:
    """Make a command whose word 5 tells which it is; every third has two slots."""
    row = np.zeros(16, np.int64)
    flags = int(Flags.TWO_SLOTS) if number % 3 == 0 else 0
    row[1] = int(CommandKind.NEW_ORDER) | flags << 8
    row[5] = number
    return row


def wired(first_sequence: int = 1) -> tuple[Ring, Ring, Client, Sequencer]:
    """Join a client and a sequencer; nobody but the sequencer gates anything."""
    ingress, commands = Ring.local(CAPACITY), Ring.local(CAPACITY)
    events = Ring.local(CAPACITY)
    sequencer = sequencer_of(
        [ingress], commands, [events], [np.zeros(8, np.int64)], first_sequence=first_sequence
    )
    ingress.add_gating_reader(0)
    return ingress, commands, client_of(ingress, commands, 0), sequencer


def test_idle_sequencer_and_client_leave_the_whole_last_lap_to_a_tailing_reader() -> None:
    ingress, commands, client, sequencer = wired()
    begins = []
    for number in range(150):
        rows = command(number).reshape(1, -1)
        assert send(client, rows, 0, 1) == 1
        begins.append(commands.position)
        assert poll(sequencer, 256) == 1
    for _ in range(3):
        assert poll(sequencer, 256) == 0
        assert send(client, rows, 0, 0) == 0
    for ring in (ingress, commands):
        assert ring.cells[CLAIMED] == ring.position
    oldest = commands.position - CAPACITY
    out = np.zeros(16, np.int64)
    readable = 0
    for number, begin in enumerate(begins):
        slots = copy_at(commands.cells, commands.words, begin, out)
        if begin >= oldest:
            assert slots not in (NOTHING, OVERRUN)
            readable += 1
            # a pad goes before a record of two slots that would wrap
            assert out[1] == 0 or out[5] == number
        else:
            assert slots == OVERRUN
    assert readable > CAPACITY // 3


def test_client_with_more_rows_than_the_ring_has_slots_claims_at_most_one_lap() -> None:
    ingress, _, client, sequencer = wired()
    rows = np.array([command(number) for number in range(400)])
    sent = 0
    while sent < len(rows):
        before = ingress.position
        sent += send(client, rows, sent, len(rows))
        assert ingress.cells[CLAIMED] == ingress.position <= before + CAPACITY
        while poll(sequencer, 7):
            pass


@pytest.mark.parametrize("first_sequence", [0, -1, MAX_SEQUENCE + 1])
def test_sequencer_that_would_begin_out_of_bounds_is_refused(first_sequence: int) -> None:
    with pytest.raises(ConfigurationRefused, match=f"found: {first_sequence}"):
        wired(first_sequence)


def test_last_sequence_is_stamped_and_the_one_after_it_stops_the_sequencer() -> None:
    _, commands, client, sequencer = wired(MAX_SEQUENCE - 1)
    rows = np.array([command(1)] * 3)
    assert send(client, rows, 0, 3) == 3
    assert poll(sequencer, 2) == 2
    stamped = commands.view(NEW_ORDER)["sequence"][:3].tolist()
    assert stamped == [MAX_SEQUENCE - 1, MAX_SEQUENCE, 0]
    before = commands.cells.copy(), commands.words.copy(), sequencer.state.copy()
    with pytest.raises(AssertionError):
        poll(sequencer, 256)
    assert (commands.cells == before[0]).all()
    assert (commands.words == before[1]).all()
    assert (sequencer.state == before[2]).all()


@pytest.mark.parametrize("sequence", [0, -5])
def test_sequence_that_was_spoiled_stops_the_sequencer(sequence: int) -> None:
    _, commands, client, sequencer = wired()
    send(client, command(1).reshape(1, -1), 0, 1)
    sequencer.state["next_sequence"] = sequence
    with pytest.raises(AssertionError):
        poll(sequencer, 256)
    assert commands.position == commands.cells[CLAIMED] == 0
