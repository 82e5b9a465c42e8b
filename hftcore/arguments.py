"""Checks of what people pass to the Python API, before it becomes fields of a command.

A field holds whole numbers of some bits; numpy would cut, wrap or refuse in words of its own. Here
a wrong argument is refused with what was expected and found, and nothing is sent. Prices and
quantities have their checks in `instruments`. Comes before: a caller. After: `exchange`.
"""

from __future__ import annotations

import operator
from typing import Any

from hftcore.errors import OrderRefused, Refused
from hftcore.messages import CLIENT_ORDER_ID_BYTES


def named(enum: Any, name: str, what: str) -> Any:
    """Find an enum's member by its name in any case."""
    found = enum.__members__.get(str(name).upper())
    if found is None:
        raise OrderRefused(
            f"there is no such {what}",
            expected=", ".join(member.name.lower() for member in enum),
            found=repr(name),
        )
    return found


def whole(
    value: int, what: str, least: int, most: int, refusal: type[Refused] = OrderRefused
) -> int:
    """Refuse what is not a whole number that fits its field."""
    try:
        number = operator.index(value)
    except TypeError:
        number = least - 1
    if not least <= number <= most:
        raise refusal(
            f"this {what} can't be used",
            expected=f"a whole number, {least} to {most}",
            found=repr(value),
        )
    return number


def depth_of(levels: int) -> int:
    """Refuse a number of levels that no book has."""
    return whole(levels, "depth", 0, (1 << 31) - 1)


def client_order_id_bytes(text: str) -> bytes:
    """Return the bytes of a client_order_id; refuse what does not come back the same."""
    name = text.encode(errors="replace") if isinstance(text, str) else b"\0"
    if b"\0" in name or name.decode() != text:
        raise OrderRefused(
            "the client_order_id is not text",
            expected="characters that UTF-8 has, without the zero character",
            found=ascii(text),
        )
    if len(name) > CLIENT_ORDER_ID_BYTES:
        raise OrderRefused(
            "the client_order_id is too long",
            expected=f"at most {CLIENT_ORDER_ID_BYTES} bytes",
            found=f"{len(name)} bytes",
        )
    return name
