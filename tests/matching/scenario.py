"""The language of the scenario files: what traders send, and the reports they get, line by line.

    list 1: 100 ticks, 10 orders
    A ann  sell 5 @ 50
      -> accepted A sell 5 @ 50, rests #1
    B bob  buy 7 @ 51 ioc
      -> accepted B buy 7 @ 51
      -> trade A 5 @ 50 with B: ann 0 left, bob 2 left #2
      -> expired B buy 2 @ 51
    bob  cancel A
      -> rejected cancel of A: UNKNOWN_ORDER
    book

A step begins at the margin, an expected report with an arrow. A letter before a trader names his
order for later steps. `#n` is the number that the public feed gives to an event; without it the
event is not public. `book` shows the queues, oldest order first. Blank lines and lines with `#` at
the margin are for the reader. Each step is one command; `report_lines` says what came of it, and
`run` gives back the whole file as it should be, so a test only compares two texts.

Words behind a step: `ioc`, `fok`, `market`, `stop`; `on 2` for another instrument than 1; `replay`
for an order out of a recording; `side 7` in place of buy or sell; `as NAME` for a client order id;
`refused REASON` for the gate's verdict. Steps without a trader: `list`, `time`, `kind 99`, `book`.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from hftcore.messages import (
    ECHO,
    CommandKind,
    EventKind,
    ExecFlags,
    Flags,
    OrderType,
    RejectReason,
    Side,
    StpMode,
    TimeInForce,
)
from tests.reference.book import Book, Venue
from tests.reference.records import (
    Command,
    Echo,
    Event,
    Fills,
    Listing,
    NewOrder,
    OrderChange,
    Origin,
    Other,
    Party,
)

ACCOUNTS = {"ann": 1, "bob": 2, "cyd": 3}
TRADERS = {number: name for name, number in ACCOUNTS.items()}
INSTRUCTIONS = {"replay": ExecFlags.REPLAY_ADD, "post-only": ExecFlags.POST_ONLY}
TYPES = {
    "market": (OrderType.MARKET, TimeInForce.IOC),
    "gtc-market": (OrderType.MARKET, TimeInForce.GTC),
    "ioc": (OrderType.LIMIT, TimeInForce.IOC),
    "fok": (OrderType.LIMIT, TimeInForce.FOK),
    "stop": (OrderType.STOP, TimeInForce.GTC),
}
Apply = Callable[[Command], list[Event | Echo]]
LISTING = re.compile(r"list (\d+): (\d+) ticks, (\d+) orders(?: on shard (\d+))?")
NEW = re.compile(r"(\w+) (\w+)\s+(buy|sell|side \d+) (-?\d+) @ (-?\d+)(.*)")
CHANGE = re.compile(
    r"(\w+)\s+(cancel|reduce|replace) (-?\w+)(?: (?:by )?(-?\d+))?(?: @ (-?\d+))?(.*)"
)


class Scenario:
    """One run of a scenario file against something that applies commands."""

    def __init__(self, apply: Apply) -> None:
        self.apply = apply
        self.sequence = 0
        self.orders: dict[str, int] = {}
        self.listings: dict[int, Listing] = {}

    def run(self, text: str, show_book: Callable[[], list[str]]) -> str:
        """Return the file's text with the reports that really came in place of the expected."""
        lines = []
        for line in text.splitlines():
            if line.startswith("  "):
                continue
            lines.append(line)
            if line == "book":
                lines += show_book()
            elif line and not line.startswith("#"):
                command = self.command_of(line)
                lines += [f"  -> {self.report(event)}" for event in self.apply(command)]
        return "\n".join(lines) + "\n"

    # --- steps ---------------------------------------------------------------------------------

    def command_of(self, line: str) -> Command:
        """Turn a step into the command that it stands for."""
        self.sequence += 1
        if match := LISTING.fullmatch(line):
            number, ticks, orders, shard = (int(group or 0) for group in match.groups())
            return Listing(
                sequence=self.sequence,
                instrument_id=number,
                ladder_ticks=ticks,
                order_capacity=orders,
                shard=shard,
            )
        if line == "time":
            return Other(kind=CommandKind.TIME, sequence=self.sequence)
        if match := re.fullmatch(r"kind (\d+)", line):
            return Other(kind=int(match[1]), sequence=self.sequence, instrument_id=1)
        if match := NEW.fullmatch(line):
            return self._new_order(*match.groups())
        match = CHANGE.fullmatch(line)
        assert match, f"not a step: {line!r}"
        return self._change(*match.groups())

    def _new_order(
        self, label: str, trader: str, side: str, qty: str, price: str, words: str
    ) -> NewOrder:
        self.orders[label] = self.sequence
        order_type, time_in_force = OrderType.LIMIT, TimeInForce.GTC
        for word in words.split():
            order_type, time_in_force = TYPES.get(word, (order_type, time_in_force))
        sides = {"buy": Side.BUY, "sell": Side.SELL}
        return NewOrder(
            sequence=self.sequence,
            instrument_id=_number_after("on", words, 1),
            account_id=ACCOUNTS[trader],
            side=sides[side] if side in sides else int(side.split()[1]),
            qty=int(qty),
            price=int(price),
            order_type=order_type,
            time_in_force=time_in_force,
            exec_flags=sum(int(INSTRUCTIONS.get(word, 0)) for word in words.split()),
            stp_mode=StpMode.CANCEL_NEWEST if "cancel-newest" in words.split() else StpMode.UNSET,
            reject_reason=_verdict(words),
            origin=_origin(words),
        )

    def _change(
        self, trader: str, verb: str, order: str, qty: str | None, price: str | None, words: str
    ) -> OrderChange:
        return OrderChange(
            kind=CommandKind[f"{verb.upper()}_ORDER"],
            sequence=self.sequence,
            instrument_id=_number_after("on", words, 1),
            account_id=ACCOUNTS[trader],
            order_id=self.orders[order] if order in self.orders else int(order),
            qty=int(qty or 0),
            price=int(price or 0),
            exec_flags=int(ExecFlags.HAS_CLIENT_ORDER_ID) if " as " in words else 0,
            reject_reason=_verdict(words),
            origin=_origin(words),
        )

    # --- reports -------------------------------------------------------------------------------

    def report(self, event: Event | Echo) -> str:
        """Return an event as a line of a scenario."""
        if isinstance(event, Echo):
            command = event.command
            name = CommandKind(command.kind & ~ECHO).name.lower()
            number = f" {command.instrument_id}" if command.instrument_id else ""
            return f"echo of {name}{number}"
        text = self._body(event)
        if event.flags & Flags.RESTS:
            text += ", rests"
        if event.flags & Flags.KEPT_PRIORITY:
            text += ", keeps its place"
        if isinstance(event.second, Party) and event.second.client_order_id.strip(b"\0"):
            text += f", as {event.second.client_order_id.rstrip(bytes(1)).decode()}"
        return text + (f" #{event.feed_sequence}" if event.feed_sequence else "")

    def _body(self, event: Event) -> str:
        name = self._name_of(event.order_id)
        kind = EventKind(event.kind)
        side = "sell" if event.flags & Flags.SELL else "buy"
        if isinstance(event.second, Fills):
            fills = event.second
            assert fills.resting_order_id == event.order_id
            return (
                f"trade {name} {event.qty} @ {event.price}"
                f" with {self._name_of(fills.aggressor_order_id)}:"
                f" {TRADERS[fills.resting_account_id]} {fills.resting_leaves_qty} left,"
                f" {TRADERS[fills.aggressor_account_id]} {fills.aggressor_leaves_qty} left"
            )
        if kind == EventKind.REJECTED:
            assert isinstance(event.second, Party)
            reason = RejectReason(event.second.reject_reason).name
            return f"rejected {self._rejected(event, event.second, name, side)}: {reason}"
        return f"{kind.name.lower()} {name} {side} {event.qty} @ {event.price}"

    def _rejected(self, event: Event, party: Party, name: str, side: str) -> str:
        kind = party.command_kind
        if kind == CommandKind.NEW_ORDER:
            return f"{name} {side} {event.qty} @ {event.price}"
        if kind == CommandKind.INSTRUMENT_DEFINE:
            return f"listing of {event.instrument_id}"
        if kind in set(CommandKind):
            return f"{CommandKind(kind).name.removesuffix('_ORDER').lower()} of {name}"
        return f"kind {kind}"

    def _name_of(self, order_id: int) -> str:
        names = {number: name for name, number in self.orders.items()}
        return names.get(order_id, str(order_id))

    def book_lines(self, venue: Venue) -> list[str]:
        """Return the queues of all books, best price first."""
        lines = []
        for number, book in venue.books.items():
            only = len(venue.books) == 1
            shown = self._queues(book)
            lines += [f"  {line}" if only else f"  {number}: {line}" for line in shown]
        return lines or ["  empty"]

    def _queues(self, book: Book) -> list[str]:
        lines = []
        for side, name in ((Side.SELL, "ask"), (Side.BUY, "bid")):
            for price, queue in book.levels(side):
                orders = ", ".join(f"{self._name_of(o.order_id)} {o.leaves}" for o in queue)
                lines.append(f"{name} {price}: {orders}")
        return lines or ["empty"]


def _number_after(word: str, words: str, default: int) -> int:
    match = re.search(rf"\b{word} (\d+)", words)
    return int(match[1]) if match else default


def _verdict(words: str) -> int:
    match = re.search(r"\brefused (\w+)", words)
    return int(RejectReason[match[1]]) if match else 0


def _origin(words: str) -> Origin:
    match = re.search(r"\bas (\w+)", words)
    return Origin(client_order_id=(match[1] if match else "").encode().ljust(36, b"\0"))
