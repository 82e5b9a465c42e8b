"""The Python API of the venue in one process: what a notebook sees."""

from __future__ import annotations

from decimal import Decimal

import numpy as np
import psutil
import pytest

from hftcore import Exchange, Instrument
from hftcore.errors import OrderRefused
from hftcore.instruments import definition
from hftcore.messages import (
    INSTRUMENT_DEFINE,
    NEW_ORDER,
    SYMBOL,
    CommandKind,
    EventKind,
    ExecFlags,
    Flags,
    OrderStatus,
    RejectReason,
    Side,
)
from hftcore.reports import Report


def one_share(**changes: object) -> Exchange:
    """Return a venue that lists ABC/USD in cents and whole shares."""
    settings: dict[str, object] = {"tick_size": "0.01", "lot_size": "1", "max_price": "1000"}
    return Exchange([Instrument("ABC/USD", **(settings | changes))])  # type: ignore[arg-type]


def test_orders_that_cross_trade_at_the_resting_price() -> None:
    exchange = Exchange()
    resting = exchange.submit("BTC/USD", "sell", price="60000", qty="0.5")
    report = exchange.submit("BTC/USD", "buy", price="60010", qty="0.7", account=2)
    (trade,) = report.trades
    assert (trade.price, trade.qty, trade.side) == (Decimal("60000.00"), Decimal("0.5"), Side.BUY)
    assert (trade.resting_order_id, trade.aggressor_order_id) == (
        resting.order_id,
        report.order_id,
    )
    assert trade.exec_id == (report.order_id, 1)
    assert report.order_status == OrderStatus.PARTIALLY_FILLED
    assert report.leaves_qty == Decimal("0.2")
    assert exchange.trades == [trade]
    book = exchange.book("BTC/USD")
    assert book.asks == ()
    assert [(level.price, level.qty, level.orders) for level in book.bids] == [
        (Decimal("60010.00"), Decimal("0.20000"), 1)
    ]


def test_an_order_can_be_replaced_reduced_and_canceled() -> None:
    exchange = one_share()
    first = exchange.submit("ABC/USD", "buy", price="10.00", qty=10)
    second = exchange.submit("ABC/USD", "buy", price="10.00", qty=10)
    assert exchange.reduce(first, qty=4).leaves_qty == 6
    assert exchange.replace(second, price="10.01", qty=12).leaves_qty == 12
    assert str(exchange.book("ABC/USD")).splitlines() == [
        "ABC/USD",
        "  bid            10.01               12  1 orders",
        "  bid            10.00                6  1 orders",
    ]
    assert exchange.cancel(first).order_status == OrderStatus.CANCELED
    again = exchange.cancel(first.order_id, "ABC/USD")
    assert (again.order_status, again.reject_reason) == (
        OrderStatus.REJECTED,
        RejectReason.TOO_LATE,
    )


def state(report: Report) -> tuple[str, int, int]:
    """Return what a report says of its order."""
    return report.order_status.name, int(report.cum_qty), int(report.leaves_qty)


def test_reports_after_a_partial_fill_add_up_over_the_orders_life() -> None:
    exchange = one_share()
    order = exchange.submit("ABC/USD", "sell", price="10", qty=10)
    assert state(order) == ("NEW", 0, 10)
    aggressor = exchange.submit("ABC/USD", "buy", price="10", qty=4, account=2)
    assert state(aggressor) == ("FILLED", 4, 0)
    assert state(exchange.reduce(order, qty=1)) == ("PARTIALLY_FILLED", 4, 5)
    assert state(exchange.replace(order, price="10", qty=12)) == ("PARTIALLY_FILLED", 4, 8)
    refused = exchange.replace(order, price="5000", qty=12)
    assert refused.reject_reason == RejectReason.BAD_PRICE
    assert state(refused) == ("PARTIALLY_FILLED", 4, 8)
    exchange.submit("ABC/USD", "buy", price="9", qty=3, account=2)
    assert state(exchange.replace(order, price="9", qty=12)) == ("PARTIALLY_FILLED", 7, 5)
    assert state(exchange.replace(order, price="9.50", qty=20)) == ("PARTIALLY_FILLED", 7, 13)
    assert state(exchange.cancel(order)) == ("CANCELED", 7, 0)
    assert state(exchange.cancel(order)) == ("REJECTED", 0, 0)


def test_order_that_a_replace_fills_is_filled_with_all_of_it() -> None:
    exchange = one_share()
    order = exchange.submit("ABC/USD", "sell", price="10", qty=5)
    exchange.submit("ABC/USD", "buy", price="10", qty=2, account=2)
    exchange.submit("ABC/USD", "buy", price="9", qty=3, account=2)
    filled = exchange.replace(order, price="9", qty=5)
    assert state(filled) == ("FILLED", 5, 0)
    assert sum(trade.qty for trade in filled.trades) == 3


def test_fills_by_rows_are_followed_when_they_are_logged_and_else_left_out() -> None:
    for log, expected in ((True, ("PARTIALLY_FILLED", 1, 8)), (False, ("NEW", 0, 8))):
        exchange = one_share()
        order = exchange.submit("ABC/USD", "sell", price="0.01", qty=10, account=2)
        exchange.play(rows_of(1), log=log)
        assert state(exchange.reduce(order, qty=1)) == expected


def test_change_asks_for_the_account_of_the_report_it_is_given() -> None:
    exchange = one_share()
    order = exchange.submit("ABC/USD", "buy", price="10", qty=10, account=7)
    assert order.account_id == 7
    reduced = exchange.reduce(order, qty=1)
    assert (reduced.account_id, state(reduced)) == (7, ("NEW", 0, 9))
    assert state(exchange.replace(reduced, price="11", qty=9)) == ("NEW", 0, 9)
    for refused in (
        exchange.cancel(order, account=8),
        exchange.cancel(order.order_id, "ABC/USD"),
    ):
        assert refused.reject_reason == RejectReason.UNKNOWN_ORDER
        assert state(refused) == ("REJECTED", 0, 0)  # nobody is told of another's order
    assert exchange.cancel(order.order_id, "ABC/USD", account=7).account_id == 7


def test_refused_cancel_of_a_resting_order_reports_its_true_leaves() -> None:
    exchange = Exchange()
    order = exchange.submit("BTC/USD", "buy", price="10", qty="3")
    refused = exchange.cancel(order, "ETH/USD")
    assert refused.reject_reason == RejectReason.UNKNOWN_ORDER
    assert (refused.symbol, refused.order_status) == ("BTC/USD", OrderStatus.NEW)
    assert (refused.leaves_qty, exchange.cancel(refused).order_status) == (3, OrderStatus.CANCELED)


def test_late_change_is_too_late_and_of_an_order_that_never_was_unknown() -> None:
    exchange = one_share()
    order = exchange.submit("ABC/USD", "buy", price="10", qty=5)
    exchange.submit("ABC/USD", "sell", price="10", qty=5, account=2)
    for late in (
        exchange.cancel(order),
        exchange.reduce(order, qty=1),
        exchange.replace(order, price="10", qty=9),
    ):
        assert late.reject_reason == RejectReason.TOO_LATE
    unknown = exchange.cancel(order.order_id + 7, "ABC/USD")
    assert unknown.reject_reason == RejectReason.UNKNOWN_ORDER


def test_names_of_as_many_ended_orders_as_the_window_has_are_remembered() -> None:
    instrument = Instrument("ABC/USD", "0.01", "1", "1000", order_capacity=1)
    exchange = Exchange([instrument], ring_capacity=8, dup_window=1)
    known = 1 + 2 * 8 + 1  # one open, those in the rings, the window

    def submit(name: str, price: str) -> Report:
        return exchange.submit(
            "ABC/USD", "buy", price=price, qty=1, time_in_force="ioc", client_order_id=name
        )

    first = submit("0", "1")
    for number in range(1, known):
        submit(str(number), "1")
    again = submit("0", "1")
    assert (again.order_id, again.order_status) == (first.order_id, OrderStatus.EXPIRED)
    assert submit("0", "2").reject_reason == RejectReason.DUPLICATE_CLIENT_ORDER_ID
    submit("one more", "1")
    assert submit("0", "2").order_id > first.order_id, "the oldest is forgotten"
    assert submit("2", "2").reject_reason == RejectReason.DUPLICATE_CLIENT_ORDER_ID


def test_market_order_expires_beyond_its_protection_price() -> None:
    exchange = one_share()
    exchange.submit("ABC/USD", "sell", price="10.00", qty=5)
    exchange.submit("ABC/USD", "sell", price="10.50", qty=5)
    report = exchange.submit("ABC/USD", "buy", order_type="market", price="10.20", qty=8)
    assert (report.order_status, report.cum_qty) == (OrderStatus.EXPIRED, 5)


def test_full_book_refuses_an_order_that_may_rest_with_a_reason() -> None:
    exchange = one_share(order_capacity=1)
    exchange.submit("ABC/USD", "buy", price="10.00", qty=5)
    refused = exchange.submit("ABC/USD", "buy", price="10.00", qty=5)
    assert (refused.order_status, refused.reject_reason) == (
        OrderStatus.REJECTED,
        RejectReason.CAPACITY,
    )
    assert exchange.submit("ABC/USD", "sell", price="10", qty=5, time_in_force="ioc").cum_qty == 5


def test_every_price_of_a_us_share_fits_one_book() -> None:
    exchange = one_share(max_price="199999.99")
    for price in ("0.01", "199999.99"):
        exchange.submit("ABC/USD", "buy", price=price, qty=1, account=2)
    assert [level.price for level in exchange.book("ABC/USD").bids] == [
        Decimal("199999.99"),
        Decimal("0.01"),
    ]


def test_ladder_of_a_billion_ticks_costs_nothing_where_it_is_not_touched() -> None:
    exchange = one_share()  # compile first
    exchange.submit("ABC/USD", "buy", price="1", qty=1)
    exchange.book("ABC/USD")
    process = psutil.Process()
    before = process.memory_info().rss
    exchange = one_share(max_price="10737418.23", order_capacity=1_000)
    ladder = exchange.instrument("ABC/USD").ladder_ticks
    assert ladder == 1 << 30
    exchange.submit("ABC/USD", "sell", price="10737418.23", qty=5)
    exchange.submit("ABC/USD", "buy", price="0.01", qty=5)
    report = exchange.submit("ABC/USD", "buy", price="10737418.23", qty=7)
    assert report.trades[0].price == Decimal("10737418.23")
    assert [level.price for level in exchange.book("ABC/USD").bids] == [
        Decimal("10737418.23"),
        Decimal("0.01"),
    ]
    assert process.memory_info().rss - before < 8 << 20


def test_clock_stands_still_until_it_is_moved() -> None:
    exchange = Exchange(start_ns=1_700_000_000_000_000_000)
    first = exchange.submit("BTC/USD", "buy", price="1", qty="1").events[0]
    exchange.advance(1.5)
    second = exchange.submit("BTC/USD", "buy", price="1", qty="1").events[0]
    assert first.sequenced_ns == 1_700_000_000_000_000_000
    assert second.sequenced_ns - first.sequenced_ns == 1_500_000_000
    with pytest.raises(OrderRefused, match="time does not go back"):
        exchange.advance(-1)


def test_book_of_more_levels_than_memory_shows_those_there_are() -> None:
    assert one_share().book("ABC/USD", (1 << 31) - 1).bids == ()


def test_definition_carries_what_the_instrument_says() -> None:
    words = definition(Instrument("DEC/BTC", "0.00000001", "1", "1", order_capacity=7), 3)
    head, tail = words[:8].view(INSTRUMENT_DEFINE)[0], words[8:].view(SYMBOL)[0]
    assert (head["instrument_id"], head["ladder_ticks"], head["order_capacity"]) == (
        3,
        100_000_001,
        7,
    )
    assert (head["tick_lot_value"], head["price_decimals"], head["qty_decimals"]) == (1, 8, 0)
    assert bytes(tail["symbol"]).rstrip(b"\0") == b"DEC/BTC"
    assert (tail["tick_size"], tail["lot_size"]) == (1, 1)


def rows_of(count: int, kind: int = CommandKind.NEW_ORDER) -> np.ndarray:
    """Return buys of one lot at 1, 2, 3 ... ticks."""
    rows = np.zeros((count, 16), np.int64)
    orders = rows[:, :8].copy().view(NEW_ORDER)[:, 0]
    orders["kind"], orders["flags"], orders["instrument_id"] = kind, Flags.TWO_SLOTS, 1
    orders["account_id"], orders["qty"], orders["side"] = 1, 1, Side.BUY
    orders["price"] = np.arange(1, count + 1)
    orders["order_type"], orders["time_in_force"] = 1, 1
    rows[:, :8] = orders.view(np.int64).reshape(count, 8)
    return rows


def test_play_returns_counts_depth_and_log_that_agree() -> None:
    exchange = one_share()
    first = exchange.next_sequence
    told: list[int] = []
    played = exchange.play(rows_of(9_000), depth=2, log=True, progress=told.append)
    assert told == [4_096, 8_192, 9_000]
    assert (played.count, played.events) == (9_000, {"ACCEPTED": 9_000})
    assert played.log[:, 2].tolist() == list(range(first, first + 9_000))
    assert played.depth[:, 0, 0, 0].tolist() == list(range(1, 9_001))
    assert played.depth[0, 0, 1].tolist() == [0, 0]
    assert played.depth[5, 0, 1].tolist() == [5, 1]
    assert not played.depth[:, 1].any()


def test_rings_of_the_smallest_size_play_the_same() -> None:
    hashes = []
    for capacity in (8, 4_096):
        exchange = Exchange([Instrument("ABC/USD", "0.01", "1", "1000")], ring_capacity=capacity)
        assert exchange.play(rows_of(500)).events == {"ACCEPTED": 500}
        report = exchange.submit("ABC/USD", "sell", price="0.01", qty=600)
        assert (len(report.trades), report.leaves_qty) == (500, 100)
        hashes.append(exchange.book_hash("ABC/USD"))
    assert hashes[0] == hashes[1] != 0


def test_replay_only_add_is_refused_outside_a_replay() -> None:
    rows = rows_of(1)
    rows[0, :8].view(NEW_ORDER)[0]["exec_flags"] = ExecFlags.REPLAY_ADD
    assert one_share().play(rows).events == {"REJECTED": 1}
    instruments = [Instrument("ABC/USD", "0.01", "1", "1000")]
    assert Exchange(instruments, replay=True).play(rows).events == {"ACCEPTED": 1}


def test_recorded_time_moves_the_clock_in_a_replay_only() -> None:
    rows = rows_of(2)
    rows[:, 3] = [5_000, 4_000]
    stamps = []
    for replay in (True, False):
        exchange = Exchange([Instrument("ABC/USD", "0.01", "1", "1000")], replay=replay)
        stamps.append(exchange.play(rows, log=True).log[:, 3].tolist())
    assert stamps == [[5_000, 5_000], [0, 0]]


def test_rows_of_another_shape_are_refused() -> None:
    with pytest.raises(OrderRefused, match=r"expected: int64\[n, 16\]; found: int64\[3, 8\]"):
        one_share().play(np.zeros((3, 8), np.int64))


def test_events_tell_the_whole_story_in_order() -> None:
    exchange = one_share()
    exchange.submit("ABC/USD", "sell", price="10", qty=5, client_order_id="first")
    exchange.submit("ABC/USD", "buy", price="10", qty=9)
    assert [(event.kind, event.sequence, event.index) for event in exchange.events] == [
        (CommandKind.INSTRUMENT_DEFINE, 1, 0),
        (EventKind.ACCEPTED, 2, 0),
        (EventKind.ACCEPTED, 3, 0),
        (EventKind.TRADE, 3, 1),
        (EventKind.BOOKED, 3, 2),
    ]
