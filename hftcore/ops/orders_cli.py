"""`hft order` and `hft cancel`: one command to a running venue, and what became of it.

    hft order BTC/USD buy 0.5 @ 60000.00 --client-order-id a1
    hft cancel --client-order-id a1 BTC/USD

Through the on-host client, so a slot of the venue is held for the moment and given back. Whoever
runs another client for the same account meanwhile is not disturbed: reports of an account go to
every session that is attached to it. The exit status is 0 when the venue did what was asked, 1 when
it refused.

Comes after `client`; the command line calls `order` and `cancel`.
"""

from __future__ import annotations

import json as json_text
from collections.abc import Sequence
from typing import Any

from hftcore.client import Client
from hftcore.errors import UsageRefused
from hftcore.matching.book import side_index
from hftcore.messages import RejectReason, Side
from hftcore.ops.venue_file import attached
from hftcore.reports import MassCanceled, Report

REFUSED = 1


def order(
    symbol: str,
    side: str,
    words: Sequence[str],
    *,
    venue: str,
    account: int,
    market: bool,
    time_in_force: str,
    client_order_id: str,
    json: bool,
) -> int:
    """Send a new order and print its report.

    Parameters
    ----------
    words : sequence of str
        QTY [@] PRICE.
    market : bool
        Take what is there, at PRICE at worst.
    """
    given = [word for part in words for word in part.replace("@", " ").split()]
    if len(given) != 2:
        raise UsageRefused(
            "an order has a quantity and a price",
            expected="QTY @ PRICE, such as 0.5 @ 60000",
            found=" ".join(words) or "nothing",
            remedy="hft order --help",
        )
    qty, price = given
    with Client.connect(venue, account=account) as client:
        report = client.submit(
            symbol,
            side,
            price=price,
            qty=qty,
            order_type="market" if market else "limit",
            time_in_force=time_in_force,
            client_order_id=client_order_id,
        )
    return said(report, json)


def cancel(
    words: Sequence[str],
    *,
    venue: str,
    account: int,
    client_order_id: str,
    everything: bool,
    json: bool,
) -> int:
    """Cancel one order, by either of its ids, or all of an account; print what came of it.

    Parameters
    ----------
    words : sequence of str
        [ORDER_ID] [SYMBOL].
    """
    ids = [int(word) for word in words if word.isdecimal()]
    symbols = [word for word in words if not word.isdecimal()]
    if len(ids) + bool(client_order_id) + everything != 1 or len(symbols) > 1:
        raise UsageRefused(
            "what is to be canceled is not clear",
            expected="an ORDER_ID, or --client-order-id X, or --all; then a SYMBOL",
            found=" ".join(words) or "nothing",
            remedy="hft cancel --help",
        )
    symbol = symbols[0] if symbols else ""
    with Client.connect(venue, account=account) as client:
        if everything:
            return said_all(client.mass_cancel(symbol), json)
        symbol = symbol or _symbol_of(client, ids[0] if ids else 0)
        report = client.cancel(
            ids[0] if ids else 0, symbol, original_client_order_id=client_order_id
        )
    return said(report, json)


def _symbol_of(client: Client, order_id: int) -> str:
    """Find the instrument of an order that rests: its level tells, in the matcher's memory."""
    session = client.session
    listed = session.record.config.instruments
    if len(listed) == 1:
        return listed[0].symbol
    _, memory = attached(session.record.config.name, session.memory.directory.parent)
    with memory:
        for number, instrument in enumerate(listed, 1):
            shard = memory.shard(instrument.shard)
            found = shard.orders["level"][shard.orders["order_id"] == order_id]
            bids = int(shard.sides[side_index(number, Side.BUY)]["level_base"])
            if order_id and len(found) and 0 <= int(found[0]) - bids < 2 * instrument.ladder_ticks:
                return instrument.symbol
    raise UsageRefused(
        "the order's instrument can't be found",
        expected=f"a SYMBOL, one of {', '.join(each.symbol for each in listed)}",
        found=f"no order {order_id} on any book" if order_id else "a client_order_id alone",
        remedy="add the symbol",
    )


def said(report: Report, json: bool) -> int:
    """Print a report; return the exit status that goes with it."""
    print(json_text.dumps(facts_of(report)) if json else as_text(report))
    return REFUSED if report.reject_reason else 0


def said_all(canceled: MassCanceled, json: bool) -> int:
    """Print what became of a mass cancel; return the exit status."""
    reason = canceled.reject_reason
    if json:
        facts = {"canceled": canceled.count, "reject_reason": _lower(reason)}
        print(json_text.dumps({"symbol": canceled.symbol, "account": canceled.account_id, **facts}))
    elif reason:
        print(f"refused: {_words(reason)}")
    else:
        orders = "1 order" if canceled.count == 1 else f"{canceled.count:,} orders"
        where = canceled.symbol or "all instruments"
        print(f"{orders} of account {canceled.account_id} canceled in {where}")
    return REFUSED if reason else 0


def facts_of(report: Report) -> dict[str, Any]:
    """Return a report as one JSON object; numbers with a point as text, so that none is rounded."""
    return {
        "symbol": report.symbol,
        "account": report.account_id,
        "order_id": report.order_id,
        "client_order_id": report.client_order_id,
        "order_status": _lower(report.order_status),
        "cum_qty": f"{report.cum_qty:f}",
        "leaves_qty": f"{report.leaves_qty:f}",
        "reject_reason": _lower(report.reject_reason),
        "trades": [
            {
                "price": f"{trade.price:f}",
                "qty": f"{trade.qty:f}",
                "exec_id": list(trade.exec_id),
                "resting_order_id": trade.resting_order_id,
            }
            for trade in report.trades
        ],
    }


def as_text(report: Report) -> str:
    """Say a report in a few lines."""
    name = f" ({report.client_order_id})" if report.client_order_id else ""
    lines = [f"order {report.order_id}{name}  {report.symbol}  account {report.account_id}"]
    if report.reject_reason:
        lines.append(f"  refused    {_words(report.reject_reason)}")
    lines.append(
        f"  status     {_words(report.order_status)}:"
        f" filled {report.cum_qty:f}, open {report.leaves_qty:f}"
    )
    lines += [
        f"  trade      {trade.qty:f} at {trade.price:f}"
        f" (exec {trade.exec_id[0]}.{trade.exec_id[1]}, with order {trade.resting_order_id})"
        for trade in report.trades
    ]
    return "\n".join(lines)


def _lower(member: Any) -> str:
    return "" if member is RejectReason.NONE else str(member.name.lower())


def _words(member: Any) -> str:
    return _lower(member).replace("_", " ")
