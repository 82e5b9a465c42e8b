"""Random traffic of several gateways: what clients may send, and much that they may not."""

from __future__ import annotations

import random
import struct
from dataclasses import replace
from typing import Any

from hftcore.limits import MAX_ACCOUNTS, MAX_QTY
from hftcore.messages import CommandKind, ExecFlags
from tests.reference.book import Venue
from tests.reference.records import (
    Command,
    Listing,
    MassCancel,
    NewOrder,
    OrderChange,
    Origin,
    Other,
    StatusReport,
)

EVERYTHING = (1 << 12) - 1
"""All order types, all times in force."""
STRAY_KINDS = [int(k) for k in CommandKind if k not in (1, 2, 3, 4, 6, 7, 21, 22)] + [77, 255]
JUNK = (0, -1, 2**63 - 1, -(2**63), 1, 7, MAX_QTY + 1)


def listings_of(count: int, shards: int = 1, capacity: int = 12) -> list[Listing]:
    """Return the instruments of a rig, 1 to count, dealt out over the shards."""
    return [
        Listing(
            sequence=0,
            instrument_id=number,
            ladder_ticks=100,
            order_capacity=capacity,
            shard=(number - 1) % shards,
            tick_lot_value=3,
            allowed_types=EVERYTHING if number % 2 else 0b110,
            allowed_tifs=EVERYTHING if number % 2 else 0b110,
            symbol=f"SYM{number}".encode().ljust(16, b"\0"),
        )
        for number in range(1, count + 1)
    ]


class Traffic:
    """Commands from a seed; `venue` is the reference book that runs along, to aim at orders."""

    def __init__(self, seed: int, instruments: int, *, names: int = 12, cancels: int = 3) -> None:
        self.random = random.Random(seed)
        self.instruments = instruments
        self.names = names
        self.cancels = cancels
        """Percent of mass cancels."""
        self.sent: list[Command] = []
        self.serial = 0

    def percent(self, percent: float) -> bool:
        """Return True that often."""
        return self.random.random() * 100 < percent

    def origin(self, named: float) -> Origin:
        """Return where a command comes from: a name of a few, and a gateway that it lies about."""
        self.serial += 1
        name = b""
        if self.percent(named):
            name = f"name {self.random.randrange(self.names)}".encode()
        if self.percent(1):
            name = bytes(self.random.randrange(1, 256) for _ in range(36))
        return Origin(
            client_order_id=name.ljust(36, b"\0"),
            session_id=self.random.choice((1, 2)),
            ingress_id=self.random.choice((0, 9 << 48, -1 << 48)) | self.serial,
            incarnation=1,
        )

    def order_id(self, venue: Venue) -> tuple[int, int, int]:
        """Return (order_id, instrument, account): mostly of an order that is on a book."""
        resting = [(o, number) for number, b in venue.books.items() for o in b.resting]
        if resting and self.percent(80):
            order, number = self.random.choice(resting)
            if self.percent(95):
                return order.order_id, number, order.account_id
        orders = [c for c in self.sent if isinstance(c, NewOrder)]
        last = 1 + len(self.sent)
        return (
            self.random.randint(0, last),
            self.random.randint(1, self.instruments),
            self.account(orders),
        )

    def account(self, _orders: object = None) -> int:
        """Return an account, seldom one that can't be."""
        if self.percent(2):
            return self.random.choice((0, MAX_ACCOUNTS, MAX_ACCOUNTS + 1, 2**32 - 1))
        return self.random.choice((1, 1, 2, 3))

    def command(self, venue: Venue) -> Command:
        """Return the next command; sequence and time mean nothing yet."""
        if self.sent and self.percent(12):  # a repetition, at times changed a little
            command = self.random.choice(self.sent[-30:])
            if isinstance(command, NewOrder | OrderChange):
                self.serial += 1
                origin = replace(command.origin, ingress_id=self.serial)
                command = replace(command, origin=origin)
                if self.percent(20):
                    command = replace(command, qty=command.qty ^ 1)
        else:
            command = self._fresh(venue)
            if self.percent(5):
                command = self._spoiled(command)
        junk = self.random.choice((0, 0, 5, -3))
        command = replace(command, sequence=junk, sequenced_ns=junk)
        if self.percent(5):
            command = replace(command, flags=self.random.choice((1, 2, 16, 32, 64, 0x7F)))
        self.sent.append(command)
        return command

    def _fresh(self, venue: Venue) -> Command:
        number = self.random.random() * 100
        if number < self.cancels:
            return self._mass_cancel()
        number = self.random.random() * 100
        if number < 55:
            return self._new_order()
        if number < 85:
            return self._change(venue)
        if number < 93:
            return self._query(venue)
        return self._stray()

    def _new_order(self) -> NewOrder:
        market = self.percent(10)
        return NewOrder(
            sequence=0,
            instrument_id=self.random.randint(1, self.instruments),
            account_id=self.account(),
            price=50 + self.random.randint(-3, 3),
            qty=self.random.randint(1, 8),
            side=self.random.choice((1, 2)),
            order_type=2 if market else 1,
            time_in_force=2 if market or self.percent(15) else 1,
            exec_flags=int(ExecFlags.HAS_CLIENT_ORDER_ID) if self.percent(10) else 0,
            reject_reason=5 if self.percent(3) else 0,
            origin=self.origin(60),
        )

    def _change(self, venue: Venue) -> OrderChange:
        order_id, instrument, account = self.order_id(venue)
        flags = self.random.choice((0, 0, 16, 16, 8, 8, 24 if self.percent(10) else 0))
        if self.percent(5):
            flags |= self.random.choice((64, 1, 32))
        return OrderChange(
            kind=self.random.choice((2, 3, 3, 4)),
            sequence=0,
            instrument_id=instrument,
            account_id=account,
            order_id=order_id,
            price=50 + self.random.randint(-3, 3),
            qty=self.random.randint(1, 9),
            exec_flags=int(flags),
            origin=self.origin(90 if flags else 20),
        )

    def _query(self, venue: Venue) -> StatusReport:
        order_id, instrument, account = self.order_id(venue)
        return StatusReport(
            sequence=0,
            instrument_id=instrument,
            account_id=account,
            order_id=order_id,
            cum_qty=self.random.choice((0, 99)),
            order_status=self.random.choice((0, 4)),
            exec_flags=int(self.random.choice((0, 8, 8, 32))),
            origin=self.origin(90),
        )

    def _mass_cancel(self) -> MassCancel:
        return MassCancel(
            sequence=0,
            account_id=self.account(),
            instrument_id=self.random.choice((0, self.random.randint(1, self.instruments))),
            session_id=self.random.choice((0, 0, 1, 2)),
            side=self.random.choice((0, 0, 1, 2)),
            parent_sequence=self.random.choice((0, 3)),
            last_order_id=self.random.choice((0, -1)),
            cause=self.random.choice((0, 9)),
            reject_reason=self.random.choice((0, 9)),
            origin=self.origin(50),
        )

    def _stray(self) -> Command:
        """Return what a client may not send, or a session's command."""
        if self.percent(40):
            self.serial += 1
            body = struct.pack("<qIIHBBIq", 0, 1, 1, 9, 0, 0, 0, (9 << 48) | self.serial)
            return Other(
                kind=self.random.choice((21, 22)),
                sequence=0,
                account_id=self.random.choice((1, 2, 3, MAX_ACCOUNTS - 1)),
                body=body,
            )
        return Other(
            kind=self.random.choice(STRAY_KINDS),
            sequence=0,
            instrument_id=self.random.choice((0, 1, 5000)),
            account_id=self.account(),
            body=bytes(self.random.randrange(256) for _ in range(32)),
            second=bytes(self.random.randrange(256) for _ in range(56)),
        )

    def _spoiled(self, command: Command) -> Command:
        """Give one field a value that it should not have."""
        junk: dict[str, Any] = {"instrument_id": (0, 9, 4096, 65_535)}
        if isinstance(command, NewOrder):
            junk |= {
                "side": (0, 3, 255), "order_type": (0, 3, 12, 255), "time_in_force": (0, 5, 8, 255),
                "exec_flags": (1, 8, 64, 0xFFFF), "price": JUNK, "qty": JUNK, "stp_mode": (2, 255),
            }  # fmt: skip
        elif isinstance(command, OrderChange):
            junk |= {"price": JUNK, "qty": JUNK, "order_id": JUNK, "kind": (36,)}
        name = self.random.choice(list(junk))
        return replace(command, **{name: self.random.choice(junk[name])})
