"""The gate, rule by rule: names and their window, what is settled, who may send what.

`tests/engine/test_gate_against_reference.py` compares all of it with a reference; here each rule
stands alone, so that its failure has a name.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from hftcore.limits import MAX_ACCOUNTS
from hftcore.messages import (
    ECHO,
    CommandKind,
    ExecFlags,
    OrderStatus,
    RejectReason,
)
from tests.accounts.commands import (
    BRINGS,
    CLIENT,
    DUPLICATE,
    MEANS,
    cancel,
    change,
    judged,
    last_refusal,
    named,
    order,
    query,
    reason,
    venue,
)
from tests.reference.codec import decode_command, decode_event
from tests.reference.records import (
    Echo,
    Event,
    NewOrder,
    OrderChange,
    Other,
    Party,
    StatusReport,
)

# --- names -------------------------------------------------------------------------------------


def test_name_that_the_gate_refused_is_free_for_another_order() -> None:
    rig = venue()
    assert reason(judged(rig, order("a", qty=0))) == RejectReason.BAD_QTY
    assert reason(judged(rig, order("a", qty=7))) == 0


def test_name_of_an_order_that_the_matcher_refused_stays_taken() -> None:
    rig = venue(capacity=1)
    assert reason(judged(rig, order("first"))) == 0
    assert reason(judged(rig, order("a"))) == 0
    assert last_refusal(rig) == RejectReason.CAPACITY
    assert reason(judged(rig, order("a", qty=7))) == RejectReason.DUPLICATE_CLIENT_ORDER_ID
    answer = judged(rig, order("a"))
    assert isinstance(answer, StatusReport)
    assert (answer.order_status, answer.exec_flags) == (OrderStatus.REJECTED, DUPLICATE)


def test_repeated_order_is_answered_with_its_status_and_does_nothing() -> None:
    rig = venue()
    rig.play(CLIENT, order("a"), order(side=2, qty=2, account_id=2))
    answer = judged(rig, order("a"))
    assert answer == StatusReport(
        sequence=5, instrument_id=1, account_id=1, cum_qty=2, leaves_qty=3, order_id=3,
        order_status=int(OrderStatus.PARTIALLY_FILLED), exec_flags=DUPLICATE,
        origin=replace(named("a"), ingress_id=CLIENT << 48),
    )  # fmt: skip
    echo = decode_event(rig.answers[-1][1])
    assert isinstance(echo, Echo)
    assert echo.command.kind == CommandKind.ORDER_STATUS | ECHO
    assert rig.gate.known.table["open_count"] == 1


@pytest.mark.parametrize("field", ["price", "qty", "side", "time_in_force", "instrument_id"])
def test_same_name_with_another_payload_is_refused(field: str) -> None:
    rig = venue()
    rig.play(CLIENT, order("a"))
    other = order("a", **{field: 2})
    assert reason(judged(rig, other)) == RejectReason.DUPLICATE_CLIENT_ORDER_ID
    assert reason(judged(rig, replace(other, account_id=2))) == 0, "names are an account's own"


def test_full_window_forgets_exactly_the_order_that_ended_first() -> None:
    rig = venue(open_orders=5, dup_window=3)
    short_lived = [order(f"n{i}", time_in_force=2) for i in range(9)]
    rig.play(CLIENT, *short_lived)  # 8 fit
    for i in range(8, 0, -1):
        answer = judged(rig, short_lived[i])
        assert isinstance(answer, StatusReport), f"n{i} was forgotten"
        assert answer.order_status == OrderStatus.EXPIRED
    again = judged(rig, replace(short_lived[0], qty=3))
    assert isinstance(again, NewOrder)
    assert reason(again) == 0, "n0 is forgotten, so its name is free"
    assert isinstance(judged(rig, replace(short_lived[1], qty=3)), NewOrder), "n1 went for n0"
    assert reason(judged(rig, replace(short_lived[3], qty=3))) != 0


def test_open_orders_are_never_forgotten_for_ended_ones() -> None:
    rig = venue(open_orders=5, dup_window=3)
    rig.play(CLIENT, *[order(f"open{i}") for i in range(4)])
    rig.play(CLIENT, *[order(f"short{i}", time_in_force=2) for i in range(30)])
    for i in range(4):
        answer = judged(rig, order(f"open{i}"))
        assert isinstance(answer, StatusReport)
        assert answer.order_status == OrderStatus.NEW
    assert isinstance(judged(rig, order("short29", time_in_force=2)), StatusReport)
    assert isinstance(judged(rig, order("short25", time_in_force=2)), NewOrder)


def test_ended_order_is_known_for_a_day_of_the_log() -> None:
    rig = venue(interval_ns=10**9)
    rig.play(CLIENT, order("a", time_in_force=2))
    rig.state["clock_ns"] += 86_400 * 10**9
    rig.settle()
    assert reason(judged(rig, order("a"))) == RejectReason.DUPLICATE_CLIENT_ORDER_ID
    rig.state["clock_ns"] += 2 * 10**9
    rig.settle()
    assert reason(judged(rig, order("a"))) == 0


def test_orders_that_came_in_one_burst_are_all_remembered() -> None:
    """Idle moments prepare memory ahead; what is in use by then is not theirs."""
    rig = venue(capacity=300, event_capacity=1024, open_orders=2000)
    sent = [order(f"n{i}") for i in range(200)]
    for at in range(0, 200, 20):
        for one in sent[at : at + 20]:
            assert rig.send(CLIENT, one)
        assert rig.sequence() >= 20
        assert rig.match() >= 20
        rig.look()
    rig.settle()
    for _ in range(10):
        rig.sequence()
    for i, one in enumerate(sent):
        answer = judged(rig, one)
        assert isinstance(answer, StatusReport), f"n{i}"
        assert (answer.order_id, answer.order_status) == (i + 3, OrderStatus.NEW)


# --- changes -----------------------------------------------------------------------------------


def test_change_by_name_is_stamped_with_the_order_it_means() -> None:
    rig = venue()
    rig.play(CLIENT, order("a"), order("b"))
    stamped = judged(rig, cancel("a", exec_flags=MEANS, order_id=99))
    assert isinstance(stamped, OrderChange)
    assert (stamped.order_id, stamped.reject_reason) == (3, 0)
    assert stamped.exec_flags == MEANS | ExecFlags.KNOWN_ORDER
    assert reason(judged(rig, cancel("x", exec_flags=MEANS))) == RejectReason.UNKNOWN_ORDER
    foreign = cancel("b", exec_flags=MEANS, account_id=2)
    assert reason(judged(rig, foreign)) == RejectReason.UNKNOWN_ORDER
    assert reason(judged(rig, cancel("a", exec_flags=MEANS | BRINGS))) == RejectReason.PROFILE


def test_replace_with_a_name_of_its_own_makes_both_names_the_orders() -> None:
    rig = venue()
    moved = change(CommandKind.REPLACE_ORDER, "b", order_id=3, price=49, exec_flags=BRINGS)
    rig.play(CLIENT, order("a"), moved)
    for name in "ab":
        answer = judged(rig, query(name, exec_flags=MEANS))
        assert isinstance(answer, StatusReport)
        assert (answer.order_id, answer.reject_reason) == (3, 0)
    again = judged(rig, moved)
    assert isinstance(again, StatusReport)
    assert again.exec_flags == DUPLICATE
    assert reason(judged(rig, order("b"))) == RejectReason.DUPLICATE_CLIENT_ORDER_ID


def test_replace_that_fails_in_flight_frees_its_name() -> None:
    rig = venue()
    rig.play(CLIENT, order("a"))
    late = change(CommandKind.REPLACE_ORDER, "b", order_id=3, price=49, exec_flags=BRINGS)
    for command in (cancel(order_id=3), late, order("b")):
        assert rig.send(CLIENT, command)
    rig.settle()
    passed, failed, refused = (decode_command(logged.record) for logged in rig.log[-3:])
    assert (reason(passed), reason(failed)) == (0, 0), "nothing was settled yet"
    assert reason(refused) == RejectReason.DUPLICATE_CLIENT_ORDER_ID, "in flight it is taken"
    reasons = [
        event.second.reject_reason
        for event in map(decode_event, rig.answer_records())
        if isinstance(event, Event) and isinstance(event.second, Party)
    ]
    assert RejectReason.TOO_LATE in reasons
    assert reason(judged(rig, order("b"))) == 0


def test_replace_that_the_gate_refuses_takes_no_name() -> None:
    rig = venue()
    bad = change(CommandKind.REPLACE_ORDER, "b", order_id=3, price=100, exec_flags=BRINGS)
    rig.play(CLIENT, order("a"), bad)
    assert reason(judged(rig, order("b"))) == 0


def test_late_cancel_is_too_late_and_a_strangers_is_unknown() -> None:
    rig = venue()
    rig.play(CLIENT, order("a", time_in_force=2))
    for command, expected in (
        (cancel(order_id=3), RejectReason.TOO_LATE),
        (cancel("a", exec_flags=MEANS), RejectReason.TOO_LATE),
        (cancel(order_id=3, account_id=2), RejectReason.UNKNOWN_ORDER),
        (cancel(order_id=3, instrument_id=2), RejectReason.UNKNOWN_ORDER),
        (cancel(order_id=4), RejectReason.UNKNOWN_ORDER),
        (cancel(order_id=0), RejectReason.UNKNOWN_ORDER),
        (cancel(order_id=-3), RejectReason.UNKNOWN_ORDER),
        (cancel(order_id=4, exec_flags=64), RejectReason.UNKNOWN_ORDER),  # it says so itself
    ):
        assert reason(judged(rig, command)) == 0
        assert last_refusal(rig) == expected


# --- what is settled ---------------------------------------------------------------------------


def test_order_that_is_not_settled_is_pending_and_the_lag_tells_how_far() -> None:
    rig = venue()
    first = len(rig.log)
    for command in (order("a"), query("a", exec_flags=MEANS), order("a")):
        assert rig.send(CLIENT, command)
    rig.sequence()
    taken, asked, repeated = (decode_command(logged.record) for logged in rig.log[first:])
    assert isinstance(taken, NewOrder)
    assert taken.settled_lag == 1
    for answer in (asked, repeated):
        assert isinstance(answer, StatusReport)
        assert (answer.order_status, answer.order_id) == (OrderStatus.PENDING, 3)
        assert (answer.cum_qty, answer.leaves_qty) == (0, 5)
    for number in range(4):
        assert rig.send(CLIENT, order(f"b{number}"))
    rig.sequence()
    lags = [decode_command(logged.record).settled_lag for logged in rig.log[-4:]]  # type: ignore[attr-defined]
    assert lags == [4, 5, 6, 7], "nothing was matched, so nothing is settled since"
    rig.settle()
    answer = judged(rig, query("a", exec_flags=MEANS))
    assert isinstance(answer, StatusReport)
    assert answer.order_status == OrderStatus.NEW


def test_query_is_answered_by_id_or_name_and_of_own_orders_only() -> None:
    rig = venue()
    rig.play(CLIENT, order("a"))
    assert reason(judged(rig, query(order_id=3))) == 0
    assert reason(judged(rig, query("a", exec_flags=MEANS))) == 0
    unknown = RejectReason.UNKNOWN_ORDER
    assert reason(judged(rig, query(order_id=3, account_id=2))) == unknown
    assert reason(judged(rig, query(order_id=4))) == unknown
    assert reason(judged(rig, query("", order_id=3, exec_flags=MEANS))) == unknown
    echo = decode_event(rig.answers[-1][1])
    assert isinstance(echo, Echo), "refused or not, the shard echoes it"
    rig.play(CLIENT, cancel(order_id=3))
    answer = judged(rig, query(order_id=3))
    assert isinstance(answer, StatusReport)
    assert (answer.order_status, answer.leaves_qty) == (OrderStatus.CANCELED, 0)


# --- the order of the checks ----------------------------------------------------------------------


def test_first_failure_wins_in_the_documents_order() -> None:
    rig = venue()
    rules = b"".join(n.to_bytes(8, "little") for n in (2, 100, 3 * 100, 3 * 1000))
    rig.play(0, Other(kind=15, sequence=0, instrument_id=2, body=rules))
    rig.play(CLIENT, order("taken", instrument_id=2))
    mended: list[tuple[dict[str, int], RejectReason]] = [
        ({"instrument_id": 2}, RejectReason.UNKNOWN_INSTRUMENT),
        ({"order_type": 3}, RejectReason.BAD_ORDER_TYPE),
        ({"time_in_force": 3}, RejectReason.BAD_TIME_IN_FORCE),
        ({"order_type": 1}, RejectReason.PROFILE),
        ({"time_in_force": 1}, RejectReason.PROFILE),
        ({"exec_flags": 0}, RejectReason.PROFILE),
        ({"side": 1}, RejectReason.BAD_SIDE),
        ({"price": 60}, RejectReason.BAD_PRICE),
        ({"qty": 50}, RejectReason.BAD_QTY),
        ({"qty": 5}, RejectReason.NOTIONAL),
        ({"account_id": 1}, RejectReason.UNKNOWN_ACCOUNT),
    ]
    wrong = order(
        "new", instrument_id=9, order_type=99, time_in_force=99, exec_flags=1, side=9, price=100,
        qty=1, account_id=MAX_ACCOUNTS,
    )  # fmt: skip
    known = replace(wrong, account_id=1, instrument_id=2, origin=named("taken"))
    assert reason(judged(rig, known)) == RejectReason.DUPLICATE_CLIENT_ORDER_ID
    for fields, expected in mended:
        assert reason(judged(rig, wrong)) == expected
        wrong = replace(wrong, **fields)  # type: ignore[arg-type]
    assert reason(judged(rig, wrong)) == 0


@pytest.mark.parametrize(
    ("price", "qty", "expected"),
    [(50, 1, 5), (50, 101, 5), (49, 2, 6), (50, 2, 0), (10, 100, 0), (11, 91, 6), (99, 100, 6)],
)
def test_rules_bound_quantity_and_notional_inclusively(price: int, qty: int, expected: int) -> None:
    rig = venue()
    rules = b"".join(n.to_bytes(8, "little") for n in (2, 100, 3 * 100, 3 * 1000))
    rig.play(0, Other(kind=15, sequence=0, instrument_id=1, body=rules))
    assert reason(judged(rig, order(price=price, qty=qty))) == expected
