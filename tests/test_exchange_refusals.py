"""What the Python API refuses, in words, before anything is sent."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from hftcore import Exchange, Instrument
from hftcore.errors import ConfigurationRefused, OrderRefused, Refused
from tests.test_exchange import one_share, rows_of


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"symbol": "XYZ/USD"}, "there is no such symbol; expected: ABC/USD; found: 'XYZ/USD'"),
        ({"side": "up"}, "there is no such side; expected: buy, sell; found: 'up'"),
        ({"order_type": "magic"}, "there is no such order_type; expected: limit, market"),
        ({"time_in_force": "never"}, "there is no such time_in_force; expected: gtc, ioc"),
        ({"price": "10.001"}, "price is not a whole number of steps; expected: a multiple of 0.01"),
        ({"price": "cheap"}, "the price is not a number"),
        ({"qty": "1e400"}, "qty is not a whole number of steps"),
        ({"qty": float("nan")}, "the qty is not a number"),
        ({"account": 0}, "this account can't be used; expected: a whole number, 1 to 4294967295"),
        ({"account": 1 << 32}, "found: 4294967296"),
        ({"account": "x"}, "this account can't be used; expected: .* found: 'x'"),
        ({"account": 1.5}, "found: 1.5"),
        ({"symbol": ["ABC/USD"]}, "there is no such symbol"),
        ({"client_order_id": "a\0"}, r"not text; expected: .* found: 'a\\x00'"),
        ({"client_order_id": "\ud800"}, r"not text; expected: .* found: '\\ud800'"),
        ({"client_order_id": b"a"}, "not text; expected: .* found: b'a'"),
        ({"client_order_id": "x" * 37}, "at most 36 bytes; found: 37 bytes"),
    ],
)
def test_call_that_makes_no_command_is_refused_and_nothing_is_sent(
    arguments: dict[str, object], message: str
) -> None:
    exchange = one_share()
    before = exchange.next_sequence
    usual: dict[str, object] = {"symbol": "ABC/USD", "side": "buy", "price": "10", "qty": "1"}
    call = usual | arguments
    symbol, side = call.pop("symbol"), call.pop("side")
    with pytest.raises(OrderRefused, match=message.replace("(", r"\(")):
        exchange.submit(symbol, side, **call)  # type: ignore[arg-type]
    assert exchange.next_sequence == before


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda venue: venue.book("ABC/USD", -1), "this depth can't be used; .* found: -1"),
        (lambda venue: venue.book("ABC/USD", 1.5), "this depth can't be used; .* found: 1.5"),
        (lambda venue: venue.play(rows_of(1), depth=-1), "this depth can't be used"),
        (lambda venue: venue.advance(float("nan")), "no span of time; expected: .* found: nan"),
        (lambda venue: venue.advance(float("inf")), "no span of time; expected: .* found: inf"),
        (lambda venue: venue.advance("1"), "no span of time; expected: .* found: '1'"),
        (lambda venue: venue.advance(1e10), "this clock can't be used"),
        (lambda venue: venue.cancel(1.5, "ABC/USD"), "this order_id can't be used; .* found: 1.5"),
        (lambda venue: venue.cancel(1 << 63, "ABC/USD"), "this order_id can't be used"),
        (lambda venue: venue.cancel("2", "ABC/USD"), "this order_id can't be used; .* found: '2'"),
        (lambda venue: venue.cancel(2), "there is no such symbol; expected: ABC/USD"),
        (lambda venue: venue.execute(np.zeros(5, np.int64)), r"found: int64\[1, 5\]"),
    ],
)
def test_argument_that_can_mean_nothing_is_refused_and_nothing_is_sent(
    call: Callable[[Exchange], object], message: str
) -> None:
    exchange = one_share()
    before = exchange.next_sequence
    with pytest.raises(OrderRefused, match=message) as refused:
        call(exchange)
    assert refused.value.expected
    assert refused.value.found
    assert exchange.next_sequence == before
    assert exchange.advance(0) == 0


@pytest.mark.parametrize(
    "arguments",
    [
        {"ring_capacity": 0},
        {"ring_capacity": -8},
        {"ring_capacity": 4},
        {"ring_capacity": 100},
        {"ring_capacity": 1 << 62},
        {"ring_capacity": "8"},
        {"first_sequence": 0},
        {"first_sequence": -1},
        {"first_sequence": 1 << 48},
        {"first_sequence": 1 << 70},
        {"first_sequence": 1.5},
        {"start_ns": -1},
        {"start_ns": 1 << 63},
    ],
)
def test_venue_that_cannot_be_is_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(Refused) as refused:
        Exchange(**arguments)
    assert refused.value.expected
    assert refused.value.found == repr(next(iter(arguments.values())))


def test_listing_that_fails_is_refused_in_words() -> None:
    one = Instrument("ABC/USD", "0.01", "1", "1000")
    with pytest.raises(ConfigurationRefused, match="two instruments have one symbol") as refused:
        Exchange([one, Instrument("ABC/USD", "1", "1", "10")])
    assert (refused.value.found, refused.value.where) == ("ABC/USD", "instruments 1 and 2")
    with pytest.raises(ConfigurationRefused, match="does not list the instrument") as refused:
        Exchange([one, Instrument("DEF/USD", "0.01", "1", "1000", shard=1)])
    assert (refused.value.found, refused.value.where) == ("BAD_REFERENCE (shard 1)", "DEF/USD")
    with pytest.raises(ConfigurationRefused, match="don't fit one shard"):
        Exchange([])


@pytest.mark.parametrize(
    ("changes", "where"),
    [
        ({"symbol": ""}, "symbol"),
        ({"symbol": "ABCDEFGHIJKLMNOPQ"}, "symbol"),
        ({"symbol": "Ä/USD"}, "symbol"),
        ({"tick_size": "0"}, "tick_size"),
        ({"lot_size": "-1"}, "lot_size"),
        ({"max_price": "10.005"}, "max_price"),
        ({"max_price": "100000000"}, "max_price"),
        ({"order_capacity": 0}, "order_capacity"),
        ({"quote_decimals": 1}, "tick_size x lot_size"),
    ],
)
def test_instrument_that_cannot_be_listed_is_refused(
    changes: dict[str, object], where: str
) -> None:
    settings: dict[str, object] = {"symbol": "ABC/USD", "lot_size": "1", "max_price": "1000"}
    with pytest.raises(ConfigurationRefused) as refused:
        Instrument(**(settings | changes))  # type: ignore[arg-type]
    assert refused.value.where == where


@pytest.mark.parametrize(
    "price", ["10.0000000000000000000000000000000000001", "1e999999999", "1e-999999999"]
)
def test_price_with_more_digits_than_a_tick_is_refused_not_rounded(price: str) -> None:
    with pytest.raises(OrderRefused, match="not a whole number of steps"):
        Exchange().submit("BTC/USD", "buy", price=price, qty=1)
