"""The generated flow: the same for a seed whatever the machine does, and honest about answers.

The model is asked directly, the agent runs between two rings in this process; what it does to a
whole venue is tests/ops/test_demo.py.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from hftcore.engine.client import client_of, drain
from hftcore.instruments import DEFAULT_INSTRUMENTS
from hftcore.messages import ORIGIN, CommandKind, EventKind, ExecFlags, Flags
from hftcore.ops import flow as agent
from hftcore.ops.flow import BATCH, Flow, Origin, flow_of, is_idle, poll
from hftcore.ops.flow_model import REJECTS, TRADES, FlowModel, model_of, next_command
from ipc.counters import Counters
from ipc.histogram import Histogram
from ipc.ring import Ring
from ipc.wait import local_bell

TAG = b"00100001"
COUNT = 20_000
GATEWAY = 3


def new_model(seed: int = 1) -> FlowModel:
    """Return a model of the default instruments."""
    return model_of(DEFAULT_INSTRUMENTS, seed, accounts=4, first_account=11, tag=TAG)


def rows_of(model: FlowModel, count: int = COUNT) -> NDArray[np.int64]:
    """Return the first commands of a model."""
    rows = np.zeros((count, 16), np.int64)
    for number in range(count):
        next_command(model, number + 1, rows[number])
    return rows


def origins(rows: NDArray[np.int64]) -> NDArray[Any]:
    """Return slot B of commands."""
    view: NDArray[Any] = rows[:, 8:].view(ORIGIN)[:, 0]
    return view


def test_the_stream_of_a_seed_is_the_same_again_and_another_seed_has_another() -> None:
    first = rows_of(new_model(7))
    assert np.array_equal(first, rows_of(new_model(7)))
    assert not np.array_equal(first, rows_of(new_model(8)))


def test_a_flow_adds_cancels_replaces_and_trades_on_every_instrument_the_first_most() -> None:
    model = new_model()
    rows = rows_of(model)
    kinds = Counter((rows[:, 1] & 0xFF).tolist())
    shares = {CommandKind(kind).name: n / COUNT for kind, n in kinds.items()}
    assert 0.40 < shares["NEW_ORDER"] < 0.65
    assert 0.15 < shares["CANCEL_ORDER"] < 0.40
    assert 0.08 < shares["REPLACE_ORDER"] < 0.25
    assert shares["REDUCE_ORDER"] > 0.005
    instruments = Counter(((rows[:, 1] >> 16) & 0xFFFF).tolist())
    counts = [instruments[number] for number in range(1, len(DEFAULT_INSTRUMENTS) + 1)]
    assert counts == sorted(counts, reverse=True)
    assert counts[-1] > COUNT // 20
    assert set((rows[:, 1] >> 32).tolist()) == {11, 12, 13, 14}
    assert 0.05 < model.numbers[TRADES] / COUNT < 0.5
    resting = model.shard.books["order_count"][1 : len(counts) + 1]
    assert (resting > 100).all()


def test_no_command_is_refused_because_its_order_is_gone() -> None:
    model = new_model()
    rows_of(model)
    assert model.numbers[REJECTS] == 0


def test_a_change_names_its_order_by_the_name_that_the_order_was_sent_with() -> None:
    rows = rows_of(new_model(), 4_000)
    kinds, names = rows[:, 1] & 0xFF, origins(rows)["client_order_id"]
    flags = (rows[:, 7] >> 32) & 0xFFFF
    sent: dict[bytes, int] = {}
    changes = 0
    for number, (kind, name, account) in enumerate(
        zip(kinds.tolist(), map(bytes, names), (rows[:, 1] >> 32).tolist(), strict=True), 1
    ):
        if kind == CommandKind.NEW_ORDER:
            assert name.rstrip(b"\0") == TAG + f"{number:08x}".encode()
            sent[name] = account
        else:
            assert flags[number - 1] == ExecFlags.BY_CLIENT_ORDER_ID
            assert sent[name] == account
            changes += 1
    assert changes > 1_000


class Wires:
    """A flow between two rings of this process; the test plays the venue."""

    def __init__(self, *, rate: float = 0.0, limit: int = 1 << 20) -> None:
        self.ingress, self.reports = Ring.local(1 << 10), Ring.local(1 << 10)
        self.ingress.add_gating_reader(0)
        self.reports.add_gating_reader(0)
        self.latency = Histogram.local()
        self.counters = Counters.local(agent.COUNTERS)
        self.cells = np.zeros(32, np.int64)
        self.flow: Flow = flow_of(
            new_model(),
            client_of(self.ingress, self.reports),
            Origin(GATEWAY, 5, 2, 100),
            rate=rate,
            ns_per_tick=1.0,
            start_ticks=1_000,
            limit=limit,
            latency=self.latency,
            counters=self.counters,
            gateway=self.cells,
            bell=local_bell(),
        )
        self._reader = client_of(self.reports, self.ingress)
        self._log = np.zeros((1 << 12, 16), np.int64)

    def sent(self) -> NDArray[np.int64]:
        """Take what the flow has sent."""
        self._reader.state["logged"] = 0
        return self._log[: drain(self._reader, self._log)].copy()

    def answer(self, sequence: int, name: NDArray[np.int64], kind: int) -> None:
        """Report one event with this name in its slot B."""
        row = np.zeros((1, 16), np.int64)
        row[0, 1] = kind | int(Flags.ANSWER | Flags.TWO_SLOTS | Flags.LAST) << 8
        row[0, 2] = sequence
        row[0, 9:11] = name
        assert agent.client_role.send(self._reader, row, 0, 1) == 1


def test_commands_carry_the_stamps_of_their_session_and_are_numbered_on() -> None:
    wires = Wires(limit=200)
    rows = []
    while sum(map(len, rows)) < 200:
        poll(wires.flow, True)
        rows.append(wires.sent())
    whole = np.concatenate(rows)
    stamps = origins(whole)
    assert (stamps["ingress_id"] == (GATEWAY << 48) + np.arange(3, 203)).all()
    assert set(stamps["session_id"].tolist()) == {GATEWAY}
    assert set(stamps["incarnation"].tolist()) == {5}
    assert wires.cells[1] == 202
    content = whole.copy()
    content[:, 13:] = 0
    assert np.array_equal(content, rows_of(new_model(), 200)), "how it was sent does not show"


def test_with_a_rate_what_is_due_goes_and_nothing_else() -> None:
    wires = Wires(rate=1e6)  # one in 1,000 ticks of a ns, from 1,000 on
    assert agent.compose(wires.flow, 999) == 0
    assert agent.compose(wires.flow, 4_500) == 4
    planned = wires.flow.planned[0, 1:5].tolist()
    assert planned == [1_000, 2_000, 3_000, 4_000], "latency counts from the plan"
    assert agent.compose(wires.flow, 1_000_000) == BATCH, "late ones go at once, a batch a poll"


def test_each_answer_is_matched_with_its_command_and_strangers_are_counted() -> None:
    wires = Wires(limit=4)
    poll(wires.flow, True)
    rows = wires.sent()
    names = [row[9:11] for row in rows]
    wires.answer(101, names[0], EventKind.ACCEPTED)
    wires.answer(101, names[0], EventKind.TRADE)  # of the same command: no second answer
    wires.answer(103, names[2], EventKind.REJECTED)  # another command's
    wires.answer(102, names[1], EventKind.ACCEPTED)  # a sequence that was passed
    poll(wires.flow, False)
    counted = dict(wires.counters)
    assert (counted["commands_sent"], counted["commands_answered"]) == (4, 2)
    assert (counted["trades"], counted["rejects"]) == (1, 1)
    assert (counted["misanswered"], counted["doubled"]) == (1, 1)
    assert wires.latency.count == 2
    assert not is_idle(wires.flow)
    wires.answer(104, names[2], EventKind.ACCEPTED)
    wires.answer(105, names[3], EventKind.ACCEPTED)
    wires.answer(106, names[3], EventKind.ACCEPTED)  # nothing is left that it could answer
    poll(wires.flow, False)
    counted = dict(wires.counters)
    assert (counted["commands_answered"], counted["doubled"]) == (4, 2)
    assert is_idle(wires.flow)


def test_a_full_ingress_ring_stops_the_flow_and_loses_nothing() -> None:
    wires = Wires()
    for _ in range(50):
        poll(wires.flow, True)
    waiting = int(wires.flow.pace["end"][0] - wires.flow.pace["first"][0])
    assert waiting > 0, "a batch is composed and has no room"
    first = wires.sent()
    for _ in range(3):
        poll(wires.flow, True)
    numbers = origins(np.concatenate([first, wires.sent()]))["ingress_id"]
    assert (np.diff(numbers) == 1).all()


@pytest.mark.parametrize("tag", [b"", b"seven77"])
def test_a_tag_of_another_length_is_a_mistake_of_the_caller(tag: bytes) -> None:
    with pytest.raises(AssertionError):
        model_of(DEFAULT_INSTRUMENTS, 1, accounts=1, first_account=1, tag=tag)
