"""The on-host client against a real venue: the calls of `Exchange`, and what shared memory adds.

One venue serves all tests that leave it as it was; accounts are a test's own, so that nobody's
orders meet. Its rings are small: a client that does not read is cut off soon.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from itertools import count
from pathlib import Path

import numpy as np
import pytest

from hftcore import Exchange
from hftcore import session as session_module
from hftcore.client import Client
from hftcore.engine.client import Client as Rings
from hftcore.engine.client import drain
from hftcore.errors import CutOff, NoAnswer, OrderRefused, VenueRefused
from hftcore.instruments import Instrument
from hftcore.messages import CommandKind, EventKind, Flags, OrderStatus, RejectReason
from hftcore.ops.config import VenueConfig
from hftcore.ops.launch import end, launch, running_venue
from hftcore.ops.venue_file import VenueRecord, gateway_lock
from hftcore.orders import new_order_row
from hftcore.reports import Report
from hftcore.session import Session
from ipc.liveness import holder_alive
from tests.conftest import MARK, SHARED
from tests.processes import DEADLINE_S, ROOT, Children, poll_until, run_python

NAME = "clients"
BASE = SHARED / f"{MARK}-clients"
STOCK = Instrument("ABC/USD", "0.01", "1", "1000", order_capacity=8_192)
OTHER = Instrument("XYZ/USD", "0.05", "10", "500", order_capacity=1_024)
REPORT_SLOTS = 256
_ACCOUNTS = count(100)


@pytest.fixture(scope="module")
def venue(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VenueRecord]:
    """Run a venue for the tests of this file."""
    BASE.mkdir(mode=0o700)
    config = VenueConfig(
        name=NAME, instruments=(STOCK, OTHER), gateways=5, report_slots=REPORT_SLOTS,
        dup_window=1 << 12,
    )  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        try:
            with running_venue(config, base=BASE) as record:
                yield record
        finally:
            shutil.rmtree(BASE, ignore_errors=True)


def connect(*accounts: int, **options: int | float) -> Client:
    """Connect to the tests' venue."""
    return Client.connect(NAME, account=accounts, base=BASE, **options)  # type: ignore[arg-type]


def fresh_account() -> int:
    """Return an account that no other test uses."""
    return next(_ACCOUNTS)


def row_of(account: int, side: str, price: str, qty: int = 1) -> np.ndarray:
    """Return a new order of the stock as a row."""
    return new_order_row(STOCK, 1, side, price=price, qty=qty, account=account)


def outline(report: Report) -> tuple[object, ...]:
    """Return what a report says but for the ids that a venue gives."""
    return (
        report.symbol, report.account_id, report.order_status, report.cum_qty, report.leaves_qty,
        report.reject_reason, report.client_order_id,
        tuple((trade.price, trade.qty, trade.side) for trade in report.trades),
        tuple((event.kind, event.flags & ~(Flags.ANSWER | Flags.TWO_SLOTS), event.price, event.qty)
              for event in report.events),
    )  # fmt: skip


def a_day(market: Exchange | Client, one: int, two: int) -> list[tuple[object, ...]]:
    """Trade a little; return the outlines of all reports."""
    resting = market.submit("ABC/USD", "sell", price="10.00", qty=50, account=one)
    named = market.submit(
        "ABC/USD", "sell", price="10.10", qty=9, account=one, client_order_id="nine"
    )
    taken = market.submit("ABC/USD", "buy", price="10.20", qty=20, account=two)
    reports = [
        resting, named, taken,
        market.reduce(resting, qty=5),
        market.replace(resting, price="10.05", qty=40, client_order_id="forty"),
        market.submit("ABC/USD", "buy", price="10.05", qty=3, account=two, order_type="market"),
        market.cancel(resting),
        market.cancel(resting),
        market.cancel(named, account=two),
        market.cancel(symbol="ABC/USD", account=one, original_client_order_id="nine"),
        market.submit("ABC/USD", "buy", price="10.00", qty=3, account=two, time_in_force="ioc"),
        market.submit("XYZ/USD", "buy", price="10.05", qty=30, account=two),
        market.submit("ABC/USD", "buy", price="1001", qty=3, account=two),
    ]  # fmt: skip
    gone_orders = market.mass_cancel("XYZ/USD", account=two)
    assert (gone_orders.count, gone_orders.reject_reason) == (1, RejectReason.NONE)
    assert market.mass_cancel(account=two).count == 0
    return list(map(outline, reports))


def test_the_calls_and_the_reports_are_those_of_the_exchange(venue: VenueRecord) -> None:
    one, two = fresh_account(), fresh_account()
    exchange = Exchange([STOCK, OTHER])
    with connect(one, two) as client:
        live = a_day(client, one, two)
    assert live == a_day(exchange, one, two)
    assert live[2][2:5] == (OrderStatus.FILLED, Decimal(20), Decimal(0))


def test_a_fill_that_comes_later_is_seen_by_poll_and_counted(venue: VenueRecord) -> None:
    one, two = fresh_account(), fresh_account()
    with connect(one) as seller, connect(two) as buyer:
        resting = seller.submit("ABC/USD", "sell", price="20", qty=10, client_order_id="mine")
        buyer.submit("ABC/USD", "buy", price="20", qty=4)
        events = seller.poll(5.0)
        assert [event.kind for event in events] == [EventKind.TRADE]
        assert not events[0].flags & Flags.ANSWER
        assert seller.poll() == ()
        state = seller.orders[resting.order_id]
        assert (state.cum_qty, state.leaves_qty) == (4, 6)
        assert seller.order_id_of("mine") == resting.order_id
        canceled = seller.cancel(resting)
        assert (canceled.cum_qty, canceled.order_status) == (4, OrderStatus.CANCELED)
        assert buyer.poll() == ()


def test_a_repeated_order_is_told_its_status_and_another_under_its_name_refused(
    venue: VenueRecord,
) -> None:
    with connect(fresh_account()) as client:
        first = client.submit("ABC/USD", "buy", price="5", qty=7, client_order_id="again")
        again = client.submit("ABC/USD", "buy", price="5", qty=7, client_order_id="again")
        assert (again.order_id, again.reject_reason) == (first.order_id, RejectReason.NONE)
        other = client.submit("ABC/USD", "buy", price="5", qty=8, client_order_id="again")
        assert other.reject_reason == RejectReason.DUPLICATE_CLIENT_ORDER_ID
        assert client.mass_cancel().count == 1


def test_rows_in_bulk_are_answered_in_the_order_sent(venue: VenueRecord) -> None:
    account = fresh_account()
    rows = np.stack([row_of(account, "buy", f"{price}") for price in range(1, 301)])
    with connect(account) as client:
        prices: list[int] = []
        for first in range(0, len(rows), 50):  # more at once would fill its small report ring
            client.send(rows[first : first + 50])
            poll_until(lambda: _read(client, prices), "the answers to a batch")
        assert prices == [price * 100 for price in range(1, 301)]
        assert len(client.orders) == 300
        for symbol in ("ABC/USD", "XYZ/USD"):
            assert client.mass_cancel(symbol, side="sell").count == 0
        # 300 cancels come in one answer: they are read as fast as they come, or it is cut off
        canceled = sum(client.cancel(order, "ABC/USD").order_status == OrderStatus.CANCELED
                       for order in list(client.orders))  # fmt: skip
        assert canceled == 300


def _read(client: Client, prices: list[int]) -> bool:
    prices += client.poll_rows()[:, 6].tolist()
    return client.unanswered == 0


def test_a_client_that_does_not_read_is_cut_off_alone_and_goes_on_after_a_reconnect(
    venue: VenueRecord,
) -> None:
    lazy, diligent = fresh_account(), fresh_account()
    with connect(lazy) as client, connect(diligent) as other:
        rows = np.stack([row_of(lazy, "buy", "1.00")] * 32)
        sent = 0
        while not client.session.is_cut:
            sent += client.session.try_send(rows) if not client.session.is_cut else 0
            assert sent < 20 * REPORT_SLOTS
            other.submit("ABC/USD", "buy", price="2", qty=1)
        published: list[int] = []
        with pytest.raises(CutOff, match=r"reports from sequence \d+ on .* gateway \d") as cut:
            _read_to_the_end(client, published)
        assert 0 < sum(published) < sent
        assert "journal" in cut.value.remedy
        with pytest.raises(CutOff):
            client.submit("ABC/USD", "buy", price="3", qty=1)
        assert other.submit("ABC/USD", "buy", price="2", qty=1).order_status == OrderStatus.NEW
        incarnation = client.session.incarnation
        client.reconnect()
        assert client.session.incarnation == incarnation + 1
        report = client.submit("ABC/USD", "buy", price="3", qty=1)
        assert report.order_status == OrderStatus.NEW
        assert client.cancel(report).order_status == OrderStatus.CANCELED


def _read_to_the_end(client: Client, published: list[int]) -> None:
    while True:
        published.append(len(client.poll_rows()))


def test_what_was_published_between_a_look_and_the_cut_is_still_read(
    venue: VenueRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    account = fresh_account()
    with connect(account) as client:
        taking = client.session
        rows = np.stack([row_of(account, "buy", "1.00")] * REPORT_SLOTS)
        taking.try_send(rows)
        poll_until(lambda: taking.is_cut, "the cut")
        looks = 0

        def too_early(rings: Rings, log: np.ndarray) -> int:
            nonlocal looks
            looks += 1
            return 0 if looks == 1 else int(drain(rings, log))

        monkeypatch.setattr(session_module, "drain", too_early)
        assert len(taking.take()) > 0
        with pytest.raises(CutOff):
            _read_to_the_end(client, [])


def test_a_session_is_not_lapped_by_what_still_comes_for_the_one_before_it(
    venue: VenueRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    account, slot = fresh_account(), 3
    with connect(account) as trader:
        rows = np.stack([row_of(account, "buy", "1.00")] * 16)

        def fill_the_ring() -> None:
            before = trader.session.sent
            while trader.session.sent < before + REPORT_SLOTS:
                trader.send(rows)
                poll_until(lambda: _read(trader, []), "the answers to a batch")

        attach = Session._send_session

        def later(session: Session, kind: CommandKind, of: int) -> None:
            if kind == CommandKind.SESSION_DETACH:
                return  # it is lost, so its echo never comes
            fill_the_ring()
            attach(session, kind, of)

        first = connect(account, gateway=slot, timeout_s=0.2)
        with _supervisor_stopped(venue):  # or it may be told in time that the first one is gone
            with monkeypatch.context() as patch:
                patch.setattr(Session, "_send_session", later)
                first.close()
                reports = trader.session.memory.reports(slot)
                assert reports.cursor(0) <= reports.position, "it was not given up"
                fill_the_ring()  # more than the reporter knew of room for
                second = connect(account, gateway=slot)
            with second:
                report = second.submit("ABC/USD", "buy", price="1", qty=1)
                assert report.order_status == OrderStatus.NEW
                assert second.session.memory.reports(slot).position < 3 * REPORT_SLOTS


@contextmanager
def _supervisor_stopped(venue: VenueRecord) -> Iterator[None]:
    os.kill(venue.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(venue.pid, signal.SIGCONT)


def test_a_killed_clients_slot_is_free_at_once_and_the_next_one_goes_on(
    venue: VenueRecord, children: Children
) -> None:
    account, slot = fresh_account(), 4
    rows = np.stack([row_of(account, "buy", "4.00")] * 8)

    def live() -> None:
        client = connect(account, gateway=slot)
        while True:
            client.send(rows)
            client.poll_rows()

    with connect(fresh_account()) as other:
        pid = children.fork(live)
        lock = gateway_lock(slot)
        cells = other.session.memory.gateways()[slot * 32 :]
        poll_until(lambda: int(cells[1]) > 64, "the client to send")
        incarnation = int(cells[0])
        assert holder_alive(BASE / NAME, lock)
        children.kill(pid)
        assert not holder_alive(BASE / NAME, lock)
        with connect(account, gateway=slot) as client:
            assert client.session.incarnation == incarnation + 1
            report = client.submit("ABC/USD", "buy", price="6", qty=1, client_order_id="next")
            assert report.order_status == OrderStatus.NEW
            assert client.cancel(report).order_status == OrderStatus.CANCELED
        assert other.submit("ABC/USD", "buy", price="2", qty=1).order_status == OrderStatus.NEW


def test_a_slot_in_use_and_a_venue_without_a_free_one_are_refused(venue: VenueRecord) -> None:
    clients = [connect(fresh_account()) for _ in range(venue.config.gateways - 1)]
    try:
        with pytest.raises(VenueRefused, match=rf"no gateway slot is free.*{os.getpid()}"):
            connect(1)
        with pytest.raises(VenueRefused, match="gateway slot 2 is taken"):
            connect(1, gateway=2)
    finally:
        for client in clients:
            client.close()
    connect(1).close()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda client: client.submit("NO", "buy", price=1, qty=1), "no such symbol"),
        (lambda client: client.submit("ABC/USD", "buy", price="1.001", qty=1), "whole number"),
        (lambda client: client.submit("ABC/USD", "buy", price=1, qty=1, account=9), "account"),
        (lambda client: client.send(np.zeros((1, 8), np.int64)), "rows of commands"),
        (lambda client: client.cancel(5, "ABC/USD", original_client_order_id="x"), "twice"),
        (
            lambda client: client.replace(
                symbol="ABC/USD", price=1, qty=1, client_order_id="a", original_client_order_id="b"
            ),
            "brings a new client_order_id",
        ),
    ],
)
def test_what_is_no_command_is_refused_before_anything_is_sent(
    venue: VenueRecord, call: object, message: str
) -> None:
    with connect(fresh_account()) as client:
        sent = client.session.sent
        with pytest.raises(OrderRefused, match=message):
            call(client)  # type: ignore[operator]
        assert client.session.sent == sent


def test_a_venue_that_is_not_up_is_refused_with_those_that_are(venue: VenueRecord) -> None:
    with pytest.raises(VenueRefused, match=f"is not up.*up are: {NAME}"):
        Client.connect("nowhere", base=BASE)


def test_the_documented_example_runs_as_it_stands(venue: VenueRecord) -> None:
    text = (ROOT / "hftcore" / "docs" / "clients.md").read_text()
    (example,) = re.findall(r"```python\n(.*?)```", text, re.S)
    assert example.count("\n") < 40
    said = run_python(example.replace('"venue"', f'"{NAME}"'), HFT_SHM_DIR=str(BASE),
                      EXAMPLE_SYMBOL="ABC/USD")  # fmt: skip
    assert said.returncode == 0, said.stderr
    (shown,) = re.findall(r"```text\n(.*?)```", text, re.S)
    assert _without_ids(said.stdout) == _without_ids(shown)


def _without_ids(text: str) -> str:
    return re.sub(r"\d{2,}", "N", text)


def test_a_venue_that_dies_is_told_as_an_error_and_not_waited_for(
    tmp_path: Path, venue_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    base = SHARED / f"{venue_name}-dying"
    base.mkdir(mode=0o700)
    config = VenueConfig(name=venue_name, instruments=(STOCK,), gateways=2, dup_window=1 << 12)
    process, record = launch(config, base=base)
    try:
        client = Client.connect(venue_name, base=base, timeout_s=60.0)
        client.submit("ABC/USD", "buy", price=1, qty=1)
        os.kill(record.worker_of("sequencer").pid, signal.SIGKILL)
        assert process.wait(DEADLINE_S) != 0
        with pytest.raises(NoAnswer, match="has ended"):
            client.submit("ABC/USD", "buy", price=1, qty=1)
        client.close()
    finally:
        end(process)
        shutil.rmtree(base, ignore_errors=True)
