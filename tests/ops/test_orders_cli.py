"""`hft order` and `hft cancel` against a running venue, as commands of their own."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from hftcore.client import Client
from hftcore.ops import orders_cli
from hftcore.ops.launch import running_venue
from tests.ops.venues import Place, hft


@pytest.fixture
def venue(place: Place) -> Iterator[Place]:
    """Run a venue."""
    with running_venue(place.config(gateways=4), base=place.base):
        yield place


def test_orders_are_sent_reported_and_canceled_by_each_of_their_names(venue: Place) -> None:
    named = ("--venue", venue.name)
    said = hft(venue, "order", "AA", "sell", "5", "@", "500", "--client-order-id", "a1", *named)
    assert said.returncode == 0, said.stderr
    first, status = said.stdout.splitlines()
    assert first.endswith("(a1)  AA  account 1")
    assert status == "  status     new: filled 0, open 5"

    said = hft(venue, "order", "AA", "buy", "2", "@501", "--account", "2", "--json", *named)
    facts = json.loads(said.stdout)
    assert (facts["order_status"], facts["cum_qty"], facts["leaves_qty"]) == ("filled", "2", "0")
    assert [(trade["price"], trade["qty"]) for trade in facts["trades"]] == [("500", "2")]
    order_id = str(facts["trades"][0]["resting_order_id"])

    said = hft(venue, "cancel", order_id, "--account", "3", *named)
    assert said.returncode == 1, "another's order"
    assert "refused    unknown order" in said.stdout
    said = hft(venue, "cancel", order_id, *named)  # its instrument is found
    assert said.returncode == 0, said.stderr
    assert "canceled" in said.stdout
    said = hft(venue, "cancel", "--client-order-id", "a1", "AA", *named)
    assert said.returncode == 1
    assert "refused    too late" in said.stdout


def test_everything_of_an_account_goes_at_once(
    venue: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    with Client.connect(venue.name, account=5) as client:
        for symbol in ("AA", "AA", "BB"):
            client.submit(symbol, "buy", price=10, qty=1)

    def cancel_all(*symbols: str, json: bool = False) -> int:
        return orders_cli.cancel(
            symbols, venue=venue.name, account=5, client_order_id="", everything=True, json=json
        )

    assert cancel_all("AA") == 0
    assert capsys.readouterr().out == "2 orders of account 5 canceled in AA\n"
    assert cancel_all() == 0
    assert capsys.readouterr().out == "1 order of account 5 canceled in all instruments\n"
    assert cancel_all(json=True) == 0
    assert json.loads(capsys.readouterr().out)["canceled"] == 0


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("order", "AA", "buy", "5"), "QTY @ PRICE"),
        (("order", "AA", "buy", "5", "@", "1", "2"), "QTY @ PRICE"),
        (("cancel",), "an ORDER_ID, or --client-order-id X, or --all"),
        (("cancel", "5", "--all"), "an ORDER_ID, or --client-order-id X, or --all"),
    ],
)
def test_what_is_not_clear_is_refused_with_what_is_wanted(
    place: Place, arguments: tuple[str, ...], expected: str
) -> None:
    said = hft(place, *arguments)
    assert said.returncode == 2
    assert expected in said.stderr


def test_no_venue_and_no_such_order_are_refused_in_words(venue: Place) -> None:
    said = hft(venue, "order", "AA", "buy", "5", "@", "1", "--venue", "nowhere")
    assert (said.returncode, "is not up" in said.stderr) == (1, True)
    said = hft(venue, "cancel", "99999", "--venue", venue.name)
    assert (said.returncode, "no order 99999 on any book" in said.stderr) == (2, True)
    said = hft(venue, "order", "AA", "buy", "5", "@", "1.5", "--venue", venue.name)
    assert (said.returncode, "a multiple of 1" in said.stderr) == (1, True)
