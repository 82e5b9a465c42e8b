"""The four streams of commands that matchers are compared on, generated from a seed.

Written from the descriptions in ANCHORS.md, not from anybody's file:

- moves: exchange-core's published single-symbol profile. 9 % new GTC, 3 % IOC, 6 % cancels, 82 %
  price moves, about 1,000 resting orders on 560 levels. As there, a move takes a random order
  towards the last price by 1 % of its distance, at least a tick, and trades when it gets there.
- crossing: limit orders only, around a still mid; 0.44 trades an order, the book grows to
  1.4 million orders.
- mixed: 50 % adds at a power-law distance from a wandering mid, 40 % cancels, mostly of young
  orders (a power law over age, as in real markets), 10 % aggressors (IOC and market by halves);
  95,000 resting.
- deep: mixed with 950,000 resting; its cancels, uniform over the live orders, miss every cache.

A generator plays its commands through the venue's own kernels as it goes, because it has to know
which orders are alive. `profile` counts what came out; a stream more than 5 % off its description
is refused, so that a figure can't come from an easier stream than its name says.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hftcore.errors import ConfigurationRefused
from hftcore.matching.bitmap import next_above
from hftcore.matching.book import price_of, side_index
from hftcore.matching.dispatch import apply
from hftcore.matching.emit import input_of, output_of
from hftcore.matching.state import Shard, allocate, shard_size
from hftcore.messages import (
    INSTRUMENT_DEFINE,
    CommandKind,
    EventKind,
    Flags,
    OrderType,
    Side,
    TimeInForce,
)
from ipc.intrinsics import add_wrapping, mix64
from ipc.kernel import kernel

WORKLOAD = np.dtype(
    [
        ("header", "<i8"),  # word 1 of the command: kind, flags, instrument, account
        ("price", "<i8"),  # ticks
        ("qty", "<i8"),  # lots
        ("detail", "<i8"),  # word 6: side, type, time in force; of a change, the row of its order
    ]
)

LADDER_TICKS = 1 << 16
MID = LADDER_TICKS // 2
FIRST_ROW_ID = 2
"""order_id of row 0 while a stream is generated; its listing is sequence 1."""
ACCOUNT = 1
MOVES_WIDTH = 1_840
"""Ticks: widest placement of `moves`, which gives its 560 levels."""

_NEW = int(CommandKind.NEW_ORDER)
_CANCEL = int(CommandKind.CANCEL_ORDER)
_REPLACE = int(CommandKind.REPLACE_ORDER)
_LIMIT = int(OrderType.LIMIT)
_MARKET = int(OrderType.MARKET)
_GTC = int(TimeInForce.GTC)
_IOC = int(TimeInForce.IOC)
_BUY = int(Side.BUY)
_TRADE = int(EventKind.TRADE)
_CANCELED = int(EventKind.CANCELED)
_ACCEPTED = int(EventKind.ACCEPTED)
_BOOKED = int(EventKind.BOOKED)
_RESTS = int(Flags.RESTS)
_KEPT = int(Flags.KEPT_PRIORITY)
_REPLACED = int(EventKind.REPLACED)
_TWO_SLOTS = int(Flags.TWO_SLOTS)

MOVES, CROSSING, MIXED, DEEP = 0, 1, 2, 3


@dataclass(frozen=True)
class Case:
    """One workload: how it is generated and what its description promises."""

    name: str
    style: int
    prefill: int
    """Resting orders before the timed commands begin."""
    commands: int
    order_capacity: int
    shares: dict[str, float]
    """Promised share of each verb among the timed commands."""
    resting: int
    """Promised resting orders at the end."""
    levels: int = 0
    """Promised occupied levels at the end, 0: none promised."""
    trades_per_order: float = 0.0
    """Promised, 0: none promised."""
    home_count: int | None = None
    """Entries of the order index; fewer than usual where ids would not wrap around it."""


_MIXED_SHARES = {"add": 0.50, "cancel": 0.40, "aggressor": 0.10}
CASES = {
    case.name: case
    for case in (
        Case(
            "moves", MOVES, 1_000, 3_000_000, 4_096,
            {"add": 0.09, "aggressor": 0.03, "cancel": 0.06, "move": 0.82}, 1_000, levels=560,
        ),
        Case(
            "crossing", CROSSING, 0, 3_000_000, 1_450_000, {"add": 1.0}, 1_400_000,
            trades_per_order=0.44, home_count=1 << 21,
        ),
        Case("mixed", MIXED, 95_000, 3_000_000, 1 << 18, _MIXED_SHARES, 95_000),
        Case(
            "deep", DEEP, 950_000, 3_000_000, 1 << 20, _MIXED_SHARES, 950_000,
            home_count=1 << 21,
        ),
    )
}  # fmt: skip


@kernel(inline=True)
def draw(state: Any, below: int) -> int:
    """Return a random integer in [0, below) and move the stream of `state` on."""
    state[0] += 1
    return (mix64(state[0]) & np.int64(0x7FFFFFFFFFFFFFFF)) % below


@kernel(inline=True)
def power_law(state: Any) -> int:
    """Return a distance in ticks, at least 1: P(more than d) falls like 1/d, cut at 4,096."""
    return min(np.int64((1 << 20) // (draw(state, 1 << 20) + 1)), np.int64(4095)) + 1


@kernel
def choose(style: int, filling: bool, state: Any, shard: Any, live_count: int, resting: int) -> Any:
    """Choose the next command: (kind, time in force, side, price, qty, type); price 0: keep."""
    side = 1 + draw(state, 2)
    sign = -1 if side == _BUY else 1
    if style == CROSSING:
        price = MID + sign * 33 + (draw(state, 201) - 100)
        return _NEW, _GTC, side, price, 1 + draw(state, 5), _LIMIT
    qty = 1 + draw(state, 100)
    if style == MOVES:
        spread = draw(state, 1 << 10)
        width = 1 + ((spread * spread * MOVES_WIDTH) >> 20)
        distance = np.int64(0)
        for _ in range(4):
            distance += draw(state, width)
        distance = 1 + abs(distance // 2 - width)
        verb = draw(state, 100)
        if filling:
            verb = 99
        add = live_count < resting - 8 or (live_count < resting + 8 and draw(state, 10) < 6)
        if verb < 82:
            return _REPLACE, _GTC, side, distance, qty, _LIMIT
        aggressor, cancel = verb < 85, not add and not filling
    else:
        distance = power_law(state)
        verb = 0 if filling else draw(state, 10)
        aggressor, cancel = verb == 9, 5 <= verb < 9
    if aggressor:
        far = best_price(shard, 3 - side) - sign * 64
        price = min(max(far, np.int64(1)), np.int64(LADDER_TICKS - 1))
        return _NEW, _IOC, side, price, qty, _LIMIT if draw(state, 2) == 0 else _MARKET
    if cancel:
        return _CANCEL, _GTC, side, np.int64(0), np.int64(0), _LIMIT
    return _NEW, _GTC, side, distance, qty, _LIMIT


@kernel(inline=True)
def best_price(shard: Any, side: int) -> int:
    """Return the best price of a side; of an empty one, a price that nothing crosses."""
    ladder = shard.sides[side_index(1, side)]
    return price_of(ladder, ladder["best"])


@kernel(inline=True)
def passive_price(shard: Any, mid: int, side: int, distance: int) -> int:
    """Return the price `distance` ticks from the mid on the order's own side of the market."""
    if side == _BUY:
        return max(min(mid - distance, best_price(shard, 2) - 1), np.int64(1))
    return min(max(mid + distance, best_price(shard, 1) + 1), np.int64(LADDER_TICKS - 1))


@kernel(inline=True)
def moved_price(price: int, mid: int, state: Any) -> int:
    """Return a price 1 % of its distance nearer to the mid, at least a tick."""
    away = mid - price
    if away == 0:
        return price + 1 - 2 * draw(state, 2)
    step = (abs(away) + 99) // 100
    return price + step if away > 0 else price - step


@kernel(inline=True)
def follow(
    out: Any, first: int, end: int, live: Any, where: Any, live_count: int, state: Any
) -> int:
    """Keep the set of live orders in step with the events of one command; count trades."""
    position = first
    while position < end:
        event = out.events[np.uintp(position & (len(out.events) - 1))]
        kind = event["kind"]
        row = event["order_id"] - FIRST_ROW_ID
        # a replaced order that trades has left its level; BOOKED brings back what is left of it
        gone = kind == _CANCELED or (kind == _REPLACED and event["flags"] & (_RESTS | _KEPT) == 0)
        if kind == _TRADE:
            fills = out.fills[np.uintp((position + 1) & (len(out.events) - 1))]
            gone = fills["resting_leaves_qty"] == 0
            state[1] += 1
        if gone:
            live_count -= 1
            last = live[live_count]
            live[where[row]] = last
            where[last] = where[row]
        elif (kind == _ACCEPTED and event["flags"] & _RESTS) or kind == _BOOKED:
            live[live_count] = row
            where[row] = live_count
            live_count += 1
        position += 2 if event["flags"] & _TWO_SLOTS else 1
    return live_count


@kernel
def generate(
    style: int, prefill: int, resting: int, state: Any, shard: Any, inp: Any, out: Any, rows: Any,
    live: Any, where: Any, sides: Any, prices: Any,
) -> int:  # fmt: skip
    """Fill `rows` with commands, playing each through `shard`.

    Parameters
    ----------
    state : int64[2]
        The random stream's seed, and the trades counted.

    Returns
    -------
    int
        Orders resting at the end.
    """
    book = shard.books[1]
    mid = np.int64(MID)
    live_count = np.int64(0)
    position = np.int64(0)
    command = inp.orders[0]
    for row in range(len(rows)):
        if style >= MIXED and draw(state, 16) == 0:
            mid += 1 - 2 * draw(state, 2)
        kind, tif, side, price, qty, order_type = choose(
            style, row < prefill, state, shard, live_count, resting
        )
        reference = np.int64(row)
        if kind != _NEW:
            chosen = draw(state, live_count)
            if style == MIXED:
                chosen = live_count - 1 - draw(state, 1 + chosen * chosen // live_count)
            reference = np.int64(live[chosen])
            inp.changes[0]["order_id"] = reference + FIRST_ROW_ID
            side = np.int64(sides[reference])
        if style == MOVES and book["last_price"] != 0:
            mid = book["last_price"]
        if kind == _NEW and tif == _GTC and style != CROSSING:
            price = passive_price(shard, mid, side, price)
        if kind == _REPLACE:
            qty = rows[reference]["qty"]
            price = moved_price(np.int64(prices[reference]), mid, state)
            prices[reference] = price
        if kind == _NEW:
            sides[row] = side
            prices[row] = price
            command["side"], command["order_type"], command["time_in_force"] = side, order_type, tif
        rows[row]["header"] = kind | (_TWO_SLOTS << 8) | (1 << 16) | (ACCOUNT << 32)
        rows[row]["price"], rows[row]["qty"] = price, qty
        rows[row]["detail"] = side | (order_type << 8) | (tif << 16) if kind == _NEW else reference
        command["kind"], command["price"], command["qty"] = kind, price, qty
        command["sequence"] = row + FIRST_ROW_ID
        first = position
        finished = False
        while not finished:
            position, finished = apply(shard, inp, 0, out, position, position + len(out.events))
            live_count = follow(out, first, position, live, where, live_count, state)
            first = position
    return live_count


@kernel
def count_levels(shard: Any) -> int:
    """Return the occupied levels of instrument 1, both sides."""
    count = 0
    for side in range(1, 3):
        ladder = shard.sides[side_index(1, side)]
        rung = ladder["best"]
        while rung < LADDER_TICKS:
            count += 1
            rung = next_above(shard.bits, ladder["bits_base"], LADDER_TICKS, rung + 1)
    return count


@kernel
def queue_hash(shard: Any, first_id: int) -> int:
    """Hash every order of instrument 1 in the order of its queue, named by its row.

    Equal for equal books whatever the sequences began with: order ids count from `first_id`.
    """
    result = np.int64(0)
    for side in range(1, 3):
        ladder = shard.sides[side_index(1, side)]
        rung = ladder["best"]
        while rung < LADDER_TICKS:
            chain = mix64(2 * rung + side)
            slot = np.int64(shard.levels[np.uintp(ladder["level_base"] + rung)]["head"])
            while slot != 0:
                order = shard.orders[np.uintp(slot)]
                chain = mix64(add_wrapping(chain, order["order_id"] - first_id))
                chain = mix64(add_wrapping(chain, order["leaves_qty"]))
                result = add_wrapping(result, chain)
                slot = np.int64(order["next"])
            rung = next_above(shard.bits, ladder["bits_base"], LADDER_TICKS, rung + 1)
    return result


def definition_words(order_capacity: int) -> NDArray[np.int64]:
    """Return the INSTRUMENT_DEFINE (two slots, sequence 1) that every workload begins with."""
    words = np.zeros(16, np.int64)
    definition = words[:8].view(INSTRUMENT_DEFINE)[0]
    definition["kind"] = CommandKind.INSTRUMENT_DEFINE
    definition["flags"] = Flags.TWO_SLOTS
    definition["instrument_id"] = 1
    definition["sequence"] = 1
    definition["ladder_ticks"] = LADDER_TICKS
    definition["order_capacity"] = order_capacity
    definition["tick_lot_value"] = 1
    return words


def new_shard(case: Case) -> Shard:
    """Make the empty shard that a case runs on."""
    return allocate(shard_size([(LADDER_TICKS, case.order_capacity)], case.home_count))


@dataclass(frozen=True)
class Workload:
    """A generated stream and what was counted in it.

    Attributes
    ----------
    rows : WORKLOAD[prefill + commands]
    profile : dict of str to float
        Shares of the verbs, resting orders and levels at the end, trades per order.
    trades : int
        Made in all, prefill included.
    totals, counts : int64[levels], uint32[levels]
        Lots and orders on each level at the end.
    queues : int
        `queue_hash` at the end; with the levels, the answer that a benchmark must arrive at.
    """

    case: Case
    rows: NDArray[Any]
    profile: dict[str, float]
    trades: int
    totals: NDArray[np.int64]
    counts: NDArray[np.uint32]
    queues: int


def profile(
    case: Case, rows: NDArray[Any], shard: Shard, live: int, trades: int
) -> dict[str, float]:
    """Count what a stream is made of, as its description counts it."""
    timed = rows[case.prefill :]
    kinds = timed["header"] & 0xFF
    new = kinds == _NEW
    ioc = new & ((timed["detail"] >> 16) & 0xFF == _IOC)
    return {
        "add": float(np.mean(new & ~ioc)),
        "aggressor": float(np.mean(new & ioc)),
        "cancel": float(np.mean(kinds == _CANCEL)),
        "move": float(np.mean(kinds == _REPLACE)),
        "resting": live,
        "levels": int(count_levels(shard)),
        "trades_per_order": trades / max(1, int(np.count_nonzero(new))),
    }


def build(case: Case, seed: int = 1, scale: float = 1.0) -> Workload:
    """Generate a workload; refuse it when it is more than 5 % off its description.

    Parameters
    ----------
    case : Case
        One of CASES.
    seed : int
        Equal seeds, equal streams.
    scale : float
        Below 1 for a smoke run: fewer commands; the description is then not checked.
    """
    count = case.prefill + int(case.commands * scale)
    rows = np.zeros(count, WORKLOAD)
    shard = new_shard(case)
    inp, out = input_of(np.zeros(16, np.int64)), output_of(np.zeros(1024 * 8, np.int64))
    inp.words[:] = definition_words(case.order_capacity)
    apply(shard, inp, 0, out, 0, 1024)
    inp.words[:] = 0
    command = inp.orders[0]
    command["flags"], command["instrument_id"], command["account_id"] = (
        Flags.TWO_SLOTS, 1, ACCOUNT,
    )  # fmt: skip
    live = np.zeros(case.order_capacity + 1, np.uint32)
    where, prices = np.zeros(count, np.uint32), np.zeros(count, np.uint32)
    sides = np.zeros(count, np.uint8)
    state = np.array([seed, 0], np.int64)
    alive = generate(
        case.style,
        case.prefill,
        case.resting,
        state,
        shard,
        inp,
        out,
        rows,
        live,
        where,
        sides,
        prices,
    )
    found = profile(case, rows, shard, alive, int(state[1]))
    if scale >= 1.0:
        refuse_other_profile(case, found)
    levels = shard.levels
    return Workload(
        case,
        rows,
        found,
        int(state[1]),
        levels["total_qty"].copy(),
        levels["count"].copy(),
        int(queue_hash(shard, FIRST_ROW_ID)),
    )


def refuse_other_profile(case: Case, found: dict[str, float]) -> None:
    """Raise when a stream is more than 5 % off its description."""
    promised = dict(case.shares, resting=case.resting)
    if case.levels:
        promised["levels"] = case.levels
    if case.trades_per_order:
        promised["trades_per_order"] = case.trades_per_order
    for name, value in promised.items():
        if abs(found[name] - value) > 0.05 * value:
            raise ConfigurationRefused(
                f"the workload {case.name} is not what its description says",
                expected=f"{name} {value:g} within 5 %",
                found=f"{found[name]:g}",
                where="perf/workloads.py",
                remedy="mend the generator; never the description",
            )
