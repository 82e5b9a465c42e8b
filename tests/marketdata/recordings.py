"""Small recordings, written by hand: ITCH messages as bytes, LOBSTER rows as text.

ITCH is packed here with struct, offset by offset as the specification prints it, and not with the
product's table; LOBSTER books are written by a few lines that keep two dicts. Both are what the
tests of this folder damage, truncate and replay.
"""

from __future__ import annotations

import random
import struct
from pathlib import Path

LOCATE = 7
START_NS = 34_200_000_000_000


def framed(*messages: bytes) -> bytes:
    """Put its length before each message."""
    return b"".join(struct.pack(">H", len(message)) + message for message in messages)


def header(kind: str, number: int = 0, locate: int = LOCATE) -> bytes:
    """Type, locate code, tracking number, and a time of `number` microseconds after the open."""
    return kind.encode() + struct.pack(">HH", locate, 0) + (START_NS + number * 1000).to_bytes(6)


def add(
    reference: int, side: str, shares: int, price: int, *, number: int = 0, stock: str = "TEST",
    locate: int = LOCATE, attribution: str = "",
) -> bytes:  # fmt: skip
    """A, or F when there is an attribution."""
    body = struct.pack(">QcI8sI", reference, side.encode(), shares, stock.ljust(8).encode(), price)
    kind = "F" if attribution else "A"
    return header(kind, number, locate) + body + attribution.encode()


def executed(reference: int, shares: int, *, number: int = 0, locate: int = LOCATE) -> bytes:
    """E."""
    return header("E", number, locate) + struct.pack(">QIQ", reference, shares, 1)


def executed_at(reference: int, shares: int, price: int, *, locate: int = LOCATE) -> bytes:
    """C."""
    return header("C", 0, locate) + struct.pack(">QIQcI", reference, shares, 1, b"Y", price)


def cancel(reference: int, shares: int, *, locate: int = LOCATE) -> bytes:
    """X."""
    return header("X", 0, locate) + struct.pack(">QI", reference, shares)


def delete(reference: int, *, locate: int = LOCATE) -> bytes:
    """D."""
    return header("D", 0, locate) + struct.pack(">Q", reference)


def replace(
    reference: int, new_reference: int, shares: int, price: int, *, locate: int = LOCATE
) -> bytes:
    """U."""
    return header("U", 0, locate) + struct.pack(">QQII", reference, new_reference, shares, price)


def broken() -> bytes:
    """B."""
    return header("B") + struct.pack(">Q", 1)


def trade(shares: int, price: int, *, stock: str = "TEST") -> bytes:
    """P: a print that no order of the book took part in."""
    body = struct.pack(">QcI8sIQ", 0, b"B", shares, stock.ljust(8).encode(), price, 1)
    return header("P") + body


def system_event(code: str) -> bytes:
    """S."""
    return header("S", 0, 0) + code.encode()


SESSION = (
    system_event("O"),
    add(1, "B", 100, 1_000_000),
    add(2, "B", 50, 1_000_000),
    add(3, "S", 70, 1_000_300, attribution="NSDQ"),
    add(4, "S", 30, 1_000_200),
    executed(4, 10),
    executed(4, 20),
    executed(2, 5),
    cancel(1, 40),
    replace(3, 5, 60, 1_000_300),
    executed_at(5, 10, 1_000_250),
    trade(10, 1_000_150),
    delete(1),
    executed(2, 45),
    broken(),
    delete(99),
    add(6, "B", 20, 1_000_300),
    delete(5),
    delete(6),
)
"""Nineteen messages of one instrument that touch every rule of the conversion."""

Row = tuple[int, int, int, int, int]
"""Type, order id, size, price, direction."""


def lobster_row(levels: int, bids: dict[int, int], asks: dict[int, int]) -> str:
    """Return one row of an order book file."""
    fields: list[int] = []
    above = sorted(asks.items())
    below = sorted(bids.items(), reverse=True)
    for level in range(levels):
        fields += above[level] if level < len(above) else (9_999_999_999, 0)
        fields += below[level] if level < len(below) else (-9_999_999_999, 0)
    return ",".join(map(str, fields))


def lobster_pair(
    directory: Path, messages: list[Row], levels: int = 2, hidden: frozenset[int] = frozenset()
) -> Path:
    """Write a pair of files that agree; return the message file.

    Each message is type, order id, size, price, direction; the book is what they make of it from
    nothing (the files show only its best levels), sizes of a price added up. `hidden` messages
    change it and get no row.
    """
    books: dict[int, dict[int, int]] = {1: {}, -1: {}}
    texts, rows = [], []
    for number, (kind, order_id, size, price, direction) in enumerate(messages):
        book = books[direction]
        if kind == 1:
            book[price] = book.get(price, 0) + size
        elif kind in (2, 3, 4):
            book[price] -= size
            if book[price] == 0:
                del book[price]
        if number in hidden:
            continue
        texts.append(f"34200.{number:09d},{kind},{order_id},{size},{price},{direction}\n")
        rows.append(lobster_row(levels, books[1], books[-1]) + "\n")
    path = directory / "TEST_2012-06-21_message_2.csv"
    path.write_text("".join(texts))
    path.with_name("TEST_2012-06-21_orderbook_2.csv").write_text("".join(rows))
    return path


def consistent_rows(seed: int, count: int, levels: int = 2) -> tuple[list[Row], frozenset[int]]:
    """Return messages that never cross, and which of them happen below a window of levels.

    Of those a LOBSTER file has no row; they show only when their level is revealed.
    """
    draw = random.Random(seed)
    orders: dict[int, tuple[int, int, int]] = {}
    rows: list[Row] = []
    hidden: set[int] = set()

    def window(direction: int) -> list[int]:
        prices = {price for side, price, _ in orders.values() if side == direction}
        return sorted(prices, reverse=direction == 1)[:levels]

    newest = 0
    while len(rows) < count:
        kind = draw.choice((1, 1, 1, 2, 3, 3, 4, 4)) if orders else 1
        if kind == 1:
            newest += 1
            direction = draw.choice((1, -1))
            price = 1_000_000 - direction * 100 * draw.randint(1, 6)
            orders[newest] = (direction, price, draw.randint(1, 9))
            order_id, size = newest, orders[newest][2]
            seen = price in window(direction)
        else:
            order_id = draw.choice(list(orders))
            direction, price, there = orders[order_id]
            shown = window(direction)
            seen = price in shown
            if kind == 4 and price != shown[0]:
                continue
            size = there if kind == 3 else draw.randint(1, there)
            del orders[order_id]
            if size < there:
                orders[order_id] = (direction, price, there - size)
        if not seen:
            hidden.add(len(rows))
        rows.append((kind, order_id, size, price, direction))
    return rows, frozenset(hidden)


ROWS = [
    (1, 1, 100, 1_000_000, 1),
    (1, 2, 50, 1_000_000, 1),
    (1, 3, 70, 1_000_300, -1),
    (1, 4, 30, 1_000_200, -1),
    (4, 4, 10, 1_000_200, -1),
    (1, 5, 10, 999_800, 1),
    (1, 6, 10, 999_900, 1),
    (5, 0, 33, 1_000_150, 1),
    (4, 2, 20, 1_000_000, 1),
    (2, 1, 40, 1_000_000, 1),
    (3, 6, 10, 999_900, 1),
    (4, 1, 60, 1_000_000, 1),
    (3, 3, 70, 1_000_300, -1),
    (7, 0, 0, -1, -1),
    (3, 2, 30, 1_000_000, 1),
]
"""Fifteen rows in a window of two levels; row 7 pushes a level out, row 11 reveals it again."""
