"""The hash of the state covers what the hash of the book leaves out."""

from __future__ import annotations

from hftcore import Exchange, Instrument
from hftcore.engine.matcher import matcher_of, poll
from hftcore.matching.state import allocate, shard_size
from hftcore.matching.state_hash import state_hash
from hftcore.messages import EVENT, PARTY, RejectReason
from ipc.ring import Ring


def venue() -> Exchange:
    """Return a venue with one resting order, order_id 2."""
    exchange = Exchange([Instrument("ABC/USD", "0.01", "1", "1000")])
    exchange.submit("ABC/USD", "buy", price="10", qty=5)
    return exchange


def test_state_hash_tells_states_apart_whose_books_are_equal() -> None:
    plain, busier, traded = venue(), venue(), venue()
    order = busier.submit("ABC/USD", "buy", price="9", qty=1)
    busier.cancel(order.order_id, "ABC/USD")
    for side in ("sell", "buy"):
        traded.submit("ABC/USD", side, price="11", qty=1)
    books = {exchange.book_hash("ABC/USD") for exchange in (plain, busier, traded)}
    states = {state_hash(exchange.shard, 1) for exchange in (plain, busier, traded)}
    assert len(books) == 1
    assert len(states) == 3
    assert state_hash(venue().shard, 1) in states


def test_command_of_kind_zero_counts_as_a_command_and_a_pad_does_not() -> None:
    commands, events = Ring.local(16), Ring.local(64)
    for ring in (commands, events):
        ring.add_gating_reader(0)
    matcher = matcher_of(allocate(shard_size([(10, 10)])), commands, events, 0)
    headers = [7 << 32, 0, 7 << 32]  # an account and no kind; a pad; the same again
    for position, header in enumerate(headers):
        commands.words[position * 8 + 1] = header
        commands.words[position * 8 + 2] = position + 1
        commands.words[position * 8] = position + 1
    assert [poll(matcher, 1) for _ in range(3)] == [1, 1, 0]
    assert matcher.shard.matched[0] == 3
    assert events.position == 4
    assert events.view(EVENT)["sequence"][[0, 2]].tolist() == [1, 3]
    reasons = events.view(PARTY)["reject_reason"][[1, 3]].tolist()
    assert reasons == [RejectReason.UNKNOWN_KIND] * 2
