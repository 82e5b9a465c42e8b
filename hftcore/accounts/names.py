"""Names of orders: which client_order_id of which account means which order.

A table of heads by hash, with chains through the entries, as in `known_orders`. Names are not
stored, only 64 bits of a hash whose key is secret and new at each start: nobody can find two names
that collide, nor make a chain long. Two names of one account agree by chance once in 2^63.

A head is the number of the newest entry of its chain and, in the bits above, a Bloom filter of one
bit an entry: six of seven names that are new are known to be so without a look at the entries,
which nobody has touched since they were written.

Name 0 is never used: 0 is "none". Comes before `known_orders`, whose tables the kernels here get.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ipc.intrinsics import mix64, multiply_add_wrapping, pick, prefetch
from ipc.kernel import kernel

NAME = np.dtype(
    [
        ("hash", "<i8"),
        ("slot", "<u4"),  # of its order
        ("chain", "<u4"),  # next name of its chain
        ("next", "<u4"),  # older name of the same order; of a free one: next free one
        ("payload", "<u4"),  # hash of the command that brought it
        ("account_id", "<u4"),
        ("brought_by", "<u4"),  # low half of the sequence of the command that brought it
    ]
)
assert NAME.itemsize == 32
KEY_WORDS = 8
MAX_NAMES_AN_ORDER = 64
"""Of an order with more, the oldest is forgotten: nobody can use up the names of all."""
NUMBER_BITS = 25
MAX_NUMBER = (1 << NUMBER_BITS) - 1
_BLOOM = 0xFFFFFFFF & ~MAX_NUMBER


@kernel(inline=True)
def name_hash(key: Any, words: Any, first: int, account_id: int) -> int:
    """Hash the client_order_id of an ORIGIN that begins at word `first`; 0 when it is empty.

    Multilinear over the five words with a secret odd key, then mixed: any two names of an account
    agree with probability 2^-63 or so, whoever chooses them.
    """
    last = words[np.uintp(first + 5)] & 0xFFFFFFFF
    seen = last
    total = multiply_add_wrapping(last, key[4], multiply_add_wrapping(account_id, key[5], 0))
    for word in range(1, 5):
        part = words[np.uintp(first + word)]
        seen |= part
        total = multiply_add_wrapping(part, key[word - 1], total)
    if seen == 0:
        return np.int64(0)
    found = mix64(total)
    return pick(found == 0, np.int64(1), found)


@kernel(inline=True)
def foresee_name(known: Any, name: int) -> None:
    """Ask for the head of a name's chain, by its hash."""
    heads = known.name_heads
    prefetch(heads, np.uintp(name & (len(heads) - 1)))


@kernel(inline=True)
def bloom_bit(name_hash_: int) -> int:
    """Return the bit of a head that says that a name with this hash may be in the chain."""
    return np.int64(1) << (NUMBER_BITS + ((((name_hash_ >> 40) & 0x7F) * 7) >> 7))


@kernel(inline=True)
def find_name(known: Any, name_hash_: int, account_id: int) -> int:
    """Return the number of a name by its hash, or 0."""
    heads = known.name_heads
    head = np.int64(heads[np.uintp(name_hash_ & (len(heads) - 1))])
    at = head & MAX_NUMBER if head & bloom_bit(name_hash_) else np.int64(0)
    while at != 0:
        name = known.names[np.uintp(at)]
        if name["hash"] == name_hash_ and np.int64(name["account_id"]) == account_id:
            break
        at = np.int64(name["chain"])
    return at


@kernel(inline=True)
def enter_name(
    known: Any, name_hash_: int, account_id: int, payload: int, slot: int, sequence: int
) -> None:
    """Give an order a name, the newest of those it has."""
    table = known.table[0]
    order = known.orders[np.uintp(slot)]
    if order["name_count"] >= MAX_NAMES_AN_ORDER:
        drop_oldest_name(known, slot)
    number = table["free_name"]
    if number != 0:
        table["free_name"] = np.int64(known.names[np.uintp(number)]["next"])
    else:
        number = table["used_names"]
        assert number < len(known.names)  # `room_for_name` was asked
        table["used_names"] = number + 1
    heads = known.name_heads
    bucket = np.uintp(name_hash_ & (len(heads) - 1))
    name = known.names[np.uintp(number)]
    name["hash"] = name_hash_
    name["slot"] = slot
    head = np.int64(heads[bucket])
    name["chain"] = head & MAX_NUMBER
    name["next"] = order["first_name"]
    name["payload"] = payload
    name["account_id"] = account_id
    name["brought_by"] = sequence & 0xFFFFFFFF
    heads[bucket] = number | (head & _BLOOM) | bloom_bit(name_hash_)
    order["first_name"] = number
    order["name_count"] += np.uint32(1)
    table["name_count"] += 1


@kernel
def drop_name(known: Any, name: int) -> None:
    """Take a name away from its order, because the replace that brought it failed."""
    order = known.orders[np.uintp(np.int64(known.names[np.uintp(name)]["slot"]))]
    behind = known.names[np.uintp(name)]["next"]
    at = np.int64(order["first_name"])
    if at == name:
        order["first_name"] = behind
    else:
        while np.int64(known.names[np.uintp(at)]["next"]) != name:
            at = np.int64(known.names[np.uintp(at)]["next"])
        known.names[np.uintp(at)]["next"] = behind
    order["name_count"] -= np.uint32(1)
    free_name(known, name)


@kernel
def drop_oldest_name(known: Any, slot: int) -> None:
    """Take its oldest name away from an order that has several."""
    name = np.int64(known.orders[np.uintp(slot)]["first_name"])
    while known.names[np.uintp(name)]["next"] != 0:
        name = np.int64(known.names[np.uintp(name)]["next"])
    drop_name(known, name)


@kernel
def free_name(known: Any, number: int) -> None:
    """Take a name out of its chain, for another order to use."""
    table = known.table[0]
    name = known.names[np.uintp(number)]
    heads = known.name_heads
    bucket = np.uintp(name["hash"] & (len(heads) - 1))
    head = np.int64(heads[bucket])
    at = head & MAX_NUMBER
    if at == number:
        behind = np.int64(name["chain"])
        heads[bucket] = behind | (head & _BLOOM) if behind != 0 else 0
    else:
        while np.int64(known.names[np.uintp(at)]["chain"]) != number:
            at = np.int64(known.names[np.uintp(at)]["chain"])
        known.names[np.uintp(at)]["chain"] = name["chain"]
    name["next"] = table["free_name"]
    table["free_name"] = number
    table["name_count"] -= 1
