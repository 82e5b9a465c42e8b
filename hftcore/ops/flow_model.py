"""A generated order flow: what a market's traders might send next, decided by a seed alone.

Several instruments, the first ones busier; a mid of each that wanders; new orders at a power-law
distance from it, never crossing; cancels, mostly of young orders; orders that follow the mid;
aggressors, most of them towards the mid, which is how the price of trades follows it.

A flow must know which of its orders are alive, or half of its cancels are of orders that are gone.
Reports tell, but when they arrive depends on the machine, and a flow that listens to them is never
the same twice. So the generator plays each command through the venue's own matching kernels on a
private shard before it is sent: the venue will decide the same, because one gateway's commands are
sequenced in the order sent. What follows: **the n-th command is a function of (seed, instruments,
settings, n)**, byte for byte but for the stamps of the session, on any machine and at any rate;
only how many are sent until somebody stops it is not. And the private shard is one more book to
hold the venue's to, as long as nobody else trades there.

Orders are named by number in their client_order_id (FIX 41): an order_id is known only from a
report. Rejected: drawing from a model of levels (a second matcher to keep right), lists of orders
by reports (not reproducible). Comes before `flow`, which sends what stands here.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hftcore.instruments import Instrument, definition
from hftcore.matching.book import price_of, side_index
from hftcore.matching.dispatch import apply
from hftcore.matching.emit import Input, Output, input_of, output_of
from hftcore.matching.order_index import find_order
from hftcore.matching.state import Shard, allocate, shard_size
from hftcore.messages import CommandKind, EventKind, ExecFlags, Flags, OrderType, Side, TimeInForce
from hftcore.orders import ROW_WORDS
from ipc.intrinsics import mix64
from ipc.kernel import kernel

MARKET = np.dtype(
    [
        ("mid", "<i8"),  # ticks; wanders
        ("step", "<i8"),  # ticks of one step of the mid
        ("unit", "<i8"),  # ticks that distances from the mid are counted in
        ("lots", "<i8"),  # lots that quantities are counted in
        ("resting", "<i8"),  # orders that should rest
        ("weight", "<i8"),  # of 1024 commands those up to here are of this instrument or before
        ("live_count", "<i8"),  # rows of `live` in use
        ("anchor", "<i8"),  # ticks; where the mid began, and half of which it never strays
    ]
)

MIDS = {"DEC/USD": "2.5", "BTC/USD": "60000", "ETH/USD": "3000", "DEC/BTC": "0.00004167"}
"""Where the default instruments begin; others in the middle of their ladder."""
LOTS = {"DEC/USD": 100, "BTC/USD": 1_000, "ETH/USD": 1_000, "DEC/BTC": 10}
"""Their usual quantities, in lots; of others one lot."""
RESTING = 512
"""Orders that rest in the busiest book, unless its capacity is small."""
WIDEST = 4_096
"""Units: the widest distance of a new order from the mid; at most a quarter of the price."""
_OUT_SLOTS = 1024
_TRIES = 16

_NEW = int(CommandKind.NEW_ORDER)
_CANCEL = int(CommandKind.CANCEL_ORDER)
_REPLACE = int(CommandKind.REPLACE_ORDER)
_REDUCE = int(CommandKind.REDUCE_ORDER)
_LIMIT, _MARKET = int(OrderType.LIMIT), int(OrderType.MARKET)
_GTC, _IOC = int(TimeInForce.GTC), int(TimeInForce.IOC)
_BUY, _SELL = int(Side.BUY), int(Side.SELL)
_TRADE = int(EventKind.TRADE)
_REJECTED = int(EventKind.REJECTED)
_TWO_SLOTS = int(Flags.TWO_SLOTS)
_BY_NAME = int(ExecFlags.BY_CLIENT_ORDER_ID)


class FlowModel(NamedTuple):
    """What the generator works on; private.

    Attributes
    ----------
    numbers : int64[8]
        Cells by RANDOM, ACCOUNTS, TAG, TRADES, REJECTS, FIRST_ACCOUNT.
    markets : MARKET[instruments]
    live : int64[instruments, capacity]
        Numbers of the orders of each that may rest: those that were filled since are found out when
        one is drawn.
    shard : Shard
        Every instrument, whatever shard the venue has it on. order_id: the order's number.
    inp, out : Input, Output
        One command; its events.
    """

    numbers: NDArray[np.int64]
    markets: NDArray[Any]
    live: NDArray[np.int64]
    shard: Shard
    inp: Input
    out: Output


RANDOM, ACCOUNTS, TAG, TRADES, REJECTS, FIRST_ACCOUNT = range(6)
"""Cells of `numbers`: state of the random stream, accounts, the names' first eight bytes, what the
private shard made of the commands so far, the lowest account."""


def model_of(
    instruments: tuple[Instrument, ...], seed: int, *, accounts: int, first_account: int, tag: bytes
) -> FlowModel:
    """Make a generator.

    Parameters
    ----------
    instruments : tuple of Instrument
        As the venue lists them: their ids are 1, 2, ...
    accounts, first_account : int
        Orders are dealt to so many accounts, from this one on.
    tag : bytes
        Eight bytes that every client_order_id of this flow begins with.
    """
    assert len(tag) == 8
    assert accounts > 0
    shard = allocate(shard_size([(each.ladder_ticks, each.order_capacity) for each in instruments]))
    inp = input_of(np.zeros(ROW_WORDS, np.int64))
    out = output_of(np.zeros(_OUT_SLOTS * 8, np.int64))
    markets = np.zeros(len(instruments), MARKET)
    shares = np.array([1 / (2 + number) for number in range(len(instruments))])
    upto = np.round(np.cumsum(shares / shares.sum()) * 1024).astype(np.int64)
    capacity = 16
    for number, each in enumerate(instruments):
        inp.words[:] = definition(each, number + 1)
        inp.changes[0]["sequence"] = number + 1
        # the venue's shards are its own affair: here is one for all
        inp.definitions[0]["shard"] = 0
        apply_whole(shard, inp, out)
        mid = each.ladder_ticks // 2
        if each.symbol in MIDS:
            mid = min(each.ticks(MIDS[each.symbol]), mid)
        resting = min(int(RESTING * shares[number] / shares[0]) + 8, each.order_capacity // 2)
        capacity = max(capacity, 8 * resting)
        markets[number] = (
            mid, max(mid // 50_000, 1), max(mid // 200_000, 1), LOTS.get(each.symbol, 1),
            max(resting, 1), upto[number], 0, mid,
        )  # fmt: skip
    inp.words[:] = 0
    numbers = np.zeros(8, np.int64)
    numbers[[RANDOM, ACCOUNTS, FIRST_ACCOUNT]] = seed << 20, accounts, first_account
    numbers[TAG] = int.from_bytes(tag, "little")
    live = np.zeros((len(instruments), capacity), np.int64)
    return FlowModel(numbers, markets, live, shard, inp, out)


@kernel(inline=True)
def draw(numbers: Any, below: int) -> int:
    """Return a random integer in [0, below) and move the random stream on."""
    numbers[RANDOM] += 1
    return (mix64(numbers[RANDOM]) & np.int64(0x7FFFFFFFFFFFFFFF)) % below


@kernel(inline=True)
def name_word(number: int) -> int:
    """Return a number below 2^32 as eight hexadecimal digits in the bytes of one word."""
    word = np.int64(0)
    for place in range(8):
        digit = (number >> (4 * place)) & 15
        letter = 48 + digit + 39 * np.int64(digit > 9)
        word |= letter << (8 * (7 - place))
    return word


@kernel
def apply_whole(shard: Any, inp: Any, out: Any) -> tuple[int, int]:
    """Play the command of `inp` to its end; return its trades and whether it was refused."""
    trades, rejects = np.int64(0), np.int64(0)
    position, finished = np.int64(0), False
    while not finished:
        first = position
        position, finished = apply(shard, inp, 0, out, position, position + len(out.events))
        while first < position:
            event = out.events[np.uintp(first & (len(out.events) - 1))]
            trades += np.int64(event["kind"] == _TRADE)
            rejects += np.int64(event["kind"] == _REJECTED)
            first += 2 if event["flags"] & _TWO_SLOTS else 1
    return trades, rejects


@kernel(inline=True)
def best_of(shard: Any, instrument: int, side: int) -> int:
    """Return the best price of a side; 0, or ladder_ticks, when it is empty."""
    ladder = shard.sides[np.uintp(side_index(instrument, side))]
    return price_of(ladder, ladder["best"])


@kernel(inline=True)
def passive_price(model: Any, instrument: int, side: int) -> int:
    """Draw a price at a power-law distance from the mid, behind the other side's best."""
    market = model.markets[np.uintp(instrument - 1)]
    ticks = model.shard.books[np.uintp(instrument)]["ladder_ticks"]
    widest = min(np.int64(WIDEST), 1 + (market["mid"] >> 2) // market["unit"])
    spread = min(np.int64((1 << 20) // (draw(model.numbers, 1 << 20) + 1)), widest)
    distance = 1 + spread * market["unit"] - draw(model.numbers, market["unit"])
    if side == _BUY:
        return max(min(market["mid"] - distance, best_of(model.shard, instrument, _SELL) - 1), 1)
    best_bid = best_of(model.shard, instrument, _BUY)
    return min(max(market["mid"] + distance, best_bid + 1), ticks - 1)


@kernel
def drawn_order(model: Any, instrument: int) -> int:
    """Draw a resting order of an instrument, a young one as a rule; return its number, or 0."""
    market = model.markets[np.uintp(instrument - 1)]
    live = model.live[instrument - 1]
    for _ in range(_TRIES):
        count = market["live_count"]
        if count == 0:
            break
        chosen = draw(model.numbers, count)
        chosen = count - 1 - draw(model.numbers, 1 + chosen * chosen // count)
        number = live[chosen]
        if find_order(model.shard, number) != 0:
            return number
        live[chosen] = live[count - 1]  # it was filled
        market["live_count"] = count - 1
    return np.int64(0)


@kernel
def remember(model: Any, instrument: int, number: int) -> None:
    """Note an order that rests; when there is no place left, forget those that rest no more."""
    market = model.markets[np.uintp(instrument - 1)]
    live = model.live[instrument - 1]
    if market["live_count"] == len(live):
        kept = 0
        for each in range(len(live)):
            if find_order(model.shard, live[each]) != 0 and kept < len(live) - 1:
                live[kept] = live[each]
                kept += 1
        market["live_count"] = kept
    live[market["live_count"]] = number
    market["live_count"] += 1


@kernel(inline=True)
def add(model: Any, instrument: int) -> None:
    """Compose a new order that rests."""
    order = model.inp.orders[0]
    side = 1 + draw(model.numbers, 2)
    order["price"] = passive_price(model, instrument, side)
    order["side"], order["order_type"], order["time_in_force"] = side, _LIMIT, _GTC


@kernel(inline=True)
def attack(model: Any, instrument: int) -> None:
    """Compose a new order that trades: IOC, market, or a limit that may rest afterwards."""
    shard, order = model.shard, model.inp.orders[0]
    market = model.markets[np.uintp(instrument - 1)]
    ticks = shard.books[np.uintp(instrument)]["ladder_ticks"]
    bid, ask = best_of(shard, instrument, _BUY), best_of(shard, instrument, _SELL)
    towards_mid = _BUY if bid + ask < 2 * market["mid"] else _SELL
    side = towards_mid if draw(model.numbers, 4) != 0 else 3 - towards_mid
    style = draw(model.numbers, 3)
    best = ask if side == _BUY else bid
    reach = 0 if style == 0 else 8 * market["unit"]
    price = best + reach if side == _BUY else best - reach
    order["price"] = min(max(price, 1), ticks - 1)
    order["side"] = side
    order["order_type"] = _MARKET if style == 2 else _LIMIT
    order["time_in_force"] = _GTC if style == 0 else _IOC


@kernel(inline=True)
def change(model: Any, instrument: int, number: int, verb: int) -> None:
    """Compose a cancel, a replace or a reduction of order `number`."""
    shard, numbers = model.shard, model.numbers
    command = model.inp.changes[0]
    slot = find_order(shard, number)
    order = shard.orders[np.uintp(slot)]
    model.inp.orders[0]["account_id"] = order["account_id"]
    command["order_id"] = number
    if verb < 70:
        model.inp.orders[0]["kind"] = _CANCEL
    elif verb < 72:
        model.inp.orders[0]["kind"] = _REDUCE
        command["qty"] = 1 + draw(numbers, order["leaves_qty"])
    else:
        model.inp.orders[0]["kind"] = _REPLACE
        asks = shard.sides[np.uintp(side_index(instrument, _SELL))]
        bids = shard.sides[np.uintp(side_index(instrument, _BUY))]
        sells = np.int64(order["level"]) >= asks["level_base"]
        ladder = asks if sells else bids
        command["qty"] = shard.totals[np.uintp(slot)]
        command["price"] = price_of(ladder, np.int64(order["level"]) - ladder["level_base"])
        if draw(numbers, 4) == 0:
            command["qty"] -= order["leaves_qty"] >> 1  # smaller: it keeps its place
        else:
            command["price"] = passive_price(model, instrument, _SELL if sells else _BUY)


@kernel(inline=True)
def chosen_verb(model: Any, instrument: int) -> int:
    """Choose what to do: below 46 add, 70 cancel, 72 reduce, 91 replace, then attack."""
    numbers = model.numbers
    verb = draw(numbers, 100)
    resting = model.shard.books[np.uintp(instrument)]["order_count"]
    target = model.markets[np.uintp(instrument - 1)]["resting"]
    if resting < target >> 1:
        return np.int64(0)
    if verb < 70:  # as many adds as cancels and fills, more or fewer as the book asks for it
        return np.int64(0) if draw(numbers, 100) < (66 if resting < target else 46) else 46
    return verb


@kernel
def next_command(model: Any, number: int, row: Any) -> int:
    """Compose command `number` (from 1 on, each once), and play it through the private shard.

    Parameters
    ----------
    row : int64[16]
        Receives the command; the stamps of session and ingress are left 0.

    Returns
    -------
    int
        The number of the order that it names: its own, if it is a new one.
    """
    numbers, words = model.numbers, model.inp.words
    ticket, instrument = draw(numbers, 1024), 1
    while ticket >= model.markets[np.uintp(instrument - 1)]["weight"]:
        instrument += 1
    market = model.markets[np.uintp(instrument - 1)]
    if draw(numbers, 16) == 0:
        mid = market["mid"] + market["step"] * (1 - 2 * draw(numbers, 2))
        market["mid"] = min(max(mid, market["anchor"] >> 1), market["anchor"] * 3 >> 1)
    verb = chosen_verb(model, instrument)
    named = drawn_order(model, instrument) if 46 <= verb < 91 else np.int64(0)
    for word in range(ROW_WORDS):
        words[word] = 0
    order = model.inp.orders[0]
    order["kind"], order["flags"], order["instrument_id"] = _NEW, _TWO_SLOTS, instrument
    order["sequence"] = number
    if named != 0:
        change(model, instrument, named, verb)
    else:
        order["account_id"] = numbers[FIRST_ACCOUNT] + draw(numbers, numbers[ACCOUNTS])
        order["qty"] = market["lots"] * (1 + draw(numbers, 100))
        if verb < 91:
            add(model, instrument)
        else:
            attack(model, instrument)
    trades, rejects = apply_whole(model.shard, model.inp, model.out)
    numbers[TRADES] += trades
    numbers[REJECTS] += rejects
    if named == 0 and find_order(model.shard, number) != 0:
        remember(model, instrument, number)
    for word in range(ROW_WORDS):
        row[word] = words[word]
    row[2] = 0  # the venue sequences
    if named != 0:
        row[6] = 0  # and finds the order by its name
        row[7] |= np.int64(_BY_NAME) << 32
    else:
        named = np.int64(number)
    row[9] = numbers[TAG]
    row[10] = name_word(named)
    return named
