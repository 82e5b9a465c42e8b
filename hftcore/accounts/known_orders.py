"""What the gate knows of orders: those that are open, those that ended lately, and their names.

An order enters when its NEW_ORDER passes the gate and stays in entry order on the list of open ones
until settlement sees its end. Then it waits in the queue of ended ones, so that a repeated
client_order_id is answered and a late cancel is told "too late", until it is the oldest of more
than the pool keeps, or a day old. So the window is the pool's size less the open orders.

Orders are found through a table of heads with chains through the records (neighbours in time are
neighbours in the table). Chains need no tombstones and no rebuilding, so a table that has been full
for weeks costs what an empty one does. Their names are in `names`, in a table of the same shape.

Slot 0 is never used: 0 is "none". Comes after `names`; before `gate` and `settlement`.
"""

from __future__ import annotations

import mmap
import secrets
from contextlib import suppress
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hftcore.accounts.names import KEY_WORDS, MAX_NUMBER, NAME, free_name
from hftcore.errors import ConfigurationRefused
from ipc.intrinsics import pick, prefetch
from ipc.kernel import kernel

KNOWN_ORDER = np.dtype(
    [
        ("order_id", "<i8"),  # 0: the slot is free
        ("cum_qty", "<i8"),  # lots filled, as settled
        ("leaves_qty", "<i8"),  # lots left, as settled
        ("name_count", "<u4"),  # names it has, at most MAX_NAMES_AN_ORDER
        ("reserved", "<u4"),
        ("account_id", "<u4"),
        ("session_id", "<u4"),
        ("next", "<u4"),  # slot behind: on the list of open orders, in the queue of ended ones
        ("previous", "<u4"),  # slot before on the list of open orders
        ("chain", "<u4"),  # next slot of its chain
        ("first_name", "<u4"),  # newest of its names, 0: none
        ("ended_s", "<u4"),  # UTC seconds of its end, by the log's time
        ("instrument_id", "<u2"),
        ("side", "u1"),
        ("order_status", "u1"),  # OrderStatus, as settled
    ]
)
TABLE = np.dtype(
    [
        ("used_slots", "<i8"),  # slots ever used
        ("used_names", "<i8"),
        ("free_slot", "<i8"),
        ("free_name", "<i8"),
        ("open_head", "<i8"),  # oldest open order
        ("open_tail", "<i8"),
        ("open_count", "<i8"),
        ("ended_head", "<i8"),  # who ended first
        ("ended_tail", "<i8"),
        ("ended_count", "<i8"),
        ("name_count", "<i8"),
        ("scan", "<i8"),  # slot at which a scan of the open orders stands, 0: none
        ("touched", "<i8"),  # slots and names below this have memory
        ("reserved", "<i8", (3,)),
    ]
)
assert (KNOWN_ORDER.itemsize, TABLE.itemsize) == (64, 128)

WINDOW_S = 86_400
"""How long an ended order is known at most."""
DEFAULT_WINDOW = 1 << 24
"""How many ended orders are known at most."""
MAX_KNOWN = MAX_NUMBER
AHEAD, STRIDE = 1 << 17, 64
"""Orders for which memory is touched ahead (12 MB), and at a time: a page."""
_MAP_NORESERVE = 0x4000  # Linux; the mmap module has it from Python 3.13 on


class KnownOrders(NamedTuple):
    """The tables. One writer: the sequencer.

    Attributes
    ----------
    table : TABLE[1]
    orders : KNOWN_ORDER[slots]
    order_heads : uint32[power of two]
        First slot of each chain, by order_id.
    names : NAME[slots]
    name_heads : uint32[power of two]
        First name of each chain, by hash.
    key : int64[8]
        Odd, secret.
    """

    table: NDArray[Any]
    orders: NDArray[Any]
    order_heads: NDArray[np.uint32]
    names: NDArray[Any]
    name_heads: NDArray[np.uint32]
    key: NDArray[np.int64]


def known_orders_of(open_orders: int, window: int = DEFAULT_WINDOW) -> KnownOrders:
    """Make empty tables in private memory that costs nothing where it is not touched.

    Parameters
    ----------
    open_orders : int
        Orders that can be open or in flight at once.
    window : int
        Ended orders that are known besides, at least.
    """
    slots = open_orders + window + 1
    if open_orders < 1 or window < 1 or slots > MAX_KNOWN:
        raise ConfigurationRefused(
            "the gate can't know that many orders",
            expected=f"at least 1 open and 1 ended, at most {MAX_KNOWN} in all",
            found=f"{open_orders} open, {window} ended",
            remedy="give the instruments smaller capacities, or choose a smaller dup_window",
        )
    heads = 1 << max(slots - 1, 1023).bit_length() - 1
    key = np.array([secrets.randbits(62) * 2 + 1 for _ in range(KEY_WORDS)], np.int64)
    known = KnownOrders(
        np.zeros(1, TABLE),
        _sparse(KNOWN_ORDER, slots),
        _sparse(np.dtype(np.uint32), heads),
        _sparse(NAME, slots),
        _sparse(np.dtype(np.uint32), heads, huge=True),
        key,
    )
    known.table["used_slots"] = known.table["used_names"] = known.table["touched"] = 1
    return known


def _sparse(dtype: np.dtype[Any], count: int, huge: bool = False) -> NDArray[Any]:
    """Map memory that costs nothing yet, in huge pages if asked and where the kernel has them.

    The heads of names are touched at random: in small pages every first name would fault, and every
    later one miss the TLB. Everything else is touched in order, and while it is in use a huge page
    would be a stall: to find one the kernel may move memory about for milliseconds.
    """
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_NORESERVE
    memory = mmap.mmap(-1, count * dtype.itemsize, flags=flags)
    if huge:
        with suppress(OSError):  # a kernel without transparent huge pages: plain ones
            memory.madvise(mmap.MADV_HUGEPAGE)
    return np.frombuffer(memory, dtype, count)


def touch_heads(known: KnownOrders) -> None:
    """Give the heads of names and the first records their memory, in the process that uses them."""
    known.name_heads[:: mmap.PAGESIZE // known.name_heads.itemsize] = 0
    while touch_ahead(known):
        pass


@kernel
def touch_ahead(known: KnownOrders) -> int:
    """Give the next records their memory before they are needed; return 1 when something was done.

    For idle moments: a first touch costs half a microsecond.
    """
    table = known.table[0]
    # what is in use has been touched already, and must not be written here
    touched = max(table["touched"], table["used_slots"], table["used_names"])
    if touched >= min(table["used_slots"] + AHEAD, np.int64(len(known.orders))):
        return 0
    end = min(touched + STRIDE, np.int64(len(known.orders)))
    known.orders[np.uintp(end - 1)]["order_id"] = 0
    known.names[np.uintp(end - 1)]["hash"] = 0
    table["touched"] = end
    return 1


@kernel(inline=True)
def find_known(known: KnownOrders, order_id: int) -> int:
    """Return the slot of an order, or 0."""
    heads = known.order_heads
    slot = np.int64(heads[np.uintp(order_id & (len(heads) - 1))])
    while slot != 0 and known.orders[np.uintp(slot)]["order_id"] != order_id:
        slot = np.int64(known.orders[np.uintp(slot)]["chain"])
    return slot


@kernel(inline=True)
def foresee_known(known: KnownOrders, order_id: int) -> None:
    """Ask for the head of an order's chain, some commands before `foresee_slot`."""
    heads = known.order_heads
    prefetch(heads, np.uintp(order_id & (len(heads) - 1)))


@kernel(inline=True)
def foresee_slot(known: KnownOrders, order_id: int) -> None:
    """Ask for the first order of its chain: nearly always the one that is meant."""
    heads = known.order_heads
    slot = np.int64(heads[np.uintp(order_id & (len(heads) - 1))])
    prefetch(known.orders, np.uintp(slot))


@kernel(inline=True)
def foresee_end(known: KnownOrders, order: Any) -> None:
    """Ask for an order's neighbours on the list: when it ends, they are joined."""
    prefetch(known.orders, np.uintp(np.int64(order["previous"])))
    prefetch(known.orders, np.uintp(np.int64(order["next"])))


@kernel(inline=True)
def is_open(order: Any) -> bool:
    """Return whether an order has not ended, as settled."""
    return order["ended_s"] == 0


@kernel(inline=True)
def enter_known(
    known: KnownOrders,
    order_id: int,
    account_id: int,
    session_id: int,
    instrument_id: int,
    side: int,
    qty: int,
) -> int:
    """Take an order in, at the tail of the open ones; return its slot."""
    table = known.table[0]
    slot = table["used_slots"]
    if slot < len(known.orders):
        table["used_slots"] = slot + 1
    else:
        if table["free_slot"] == 0:
            forget_oldest(known)
        slot = table["free_slot"]
        assert slot != 0  # the pool holds all that can be open or in flight, and one more
        table["free_slot"] = np.int64(known.orders[np.uintp(slot)]["next"])
    heads = known.order_heads
    bucket = np.uintp(order_id & (len(heads) - 1))
    tail = table["open_tail"]
    order = known.orders[np.uintp(slot)]
    order["order_id"] = order_id
    order["cum_qty"] = 0
    order["leaves_qty"] = qty
    order["account_id"] = account_id
    order["session_id"] = session_id
    order["next"] = 0
    order["previous"] = tail
    order["chain"] = heads[bucket]
    order["first_name"] = 0
    order["name_count"] = 0
    order["ended_s"] = 0
    order["instrument_id"] = instrument_id
    order["side"] = side
    order["order_status"] = 1  # OrderStatus.NEW
    heads[bucket] = slot
    known.orders[np.uintp(tail)]["next"] = slot  # slot 0 takes the write that is meant for none
    table["open_tail"] = slot
    table["open_head"] = pick(tail == 0, slot, table["open_head"])
    table["open_count"] += 1
    return slot


@kernel(inline=True)
def end_known(known: KnownOrders, slot: int, order_status: int, now_s: int) -> None:
    """Move an order from the open ones to the ended ones; nothing if it has ended before."""
    order = known.orders[np.uintp(slot)]
    if slot == 0 or not is_open(order):
        return
    table = known.table[0]
    before, behind = np.int64(order["previous"]), np.int64(order["next"])
    known.orders[np.uintp(before)]["next"] = behind
    known.orders[np.uintp(behind)]["previous"] = before
    table["open_head"] = pick(before == 0, behind, table["open_head"])
    table["open_tail"] = pick(behind == 0, before, table["open_tail"])
    table["scan"] = pick(table["scan"] == slot, behind, table["scan"])
    table["open_count"] -= 1
    order["order_status"] = order_status
    order["leaves_qty"] = 0
    order["ended_s"] = max(now_s, np.int64(1))
    order["next"] = 0
    tail = table["ended_tail"]
    known.orders[np.uintp(tail)]["next"] = slot
    table["ended_tail"] = slot
    table["ended_head"] = pick(tail == 0, slot, table["ended_head"])
    table["ended_count"] += 1


@kernel
def forget_oldest(known: KnownOrders) -> None:
    """Forget the order that ended first, with its names, if there is one."""
    table = known.table[0]
    slot = table["ended_head"]
    if slot == 0:
        return
    order = known.orders[np.uintp(slot)]
    behind = np.int64(order["next"])
    table["ended_head"] = behind
    table["ended_tail"] = pick(behind == 0, np.int64(0), table["ended_tail"])
    table["ended_count"] -= 1
    name = np.int64(order["first_name"])
    while name != 0:
        older = np.int64(known.names[np.uintp(name)]["next"])
        free_name(known, name)
        name = older
    heads = known.order_heads
    bucket = np.uintp(order["order_id"] & (len(heads) - 1))
    at = np.int64(heads[bucket])
    if at == slot:
        heads[bucket] = order["chain"]
    else:
        while np.int64(known.orders[np.uintp(at)]["chain"]) != slot:
            at = np.int64(known.orders[np.uintp(at)]["chain"])
        known.orders[np.uintp(at)]["chain"] = order["chain"]
    order["order_id"] = 0
    order["next"] = table["free_slot"]
    table["free_slot"] = slot


@kernel
def forget_expired(known: KnownOrders, now_s: int, budget: int) -> int:
    """Forget up to `budget` orders that ended more than a day ago; return how many."""
    table = known.table[0]
    done = 0
    while done < budget and table["ended_head"] != 0:
        oldest = known.orders[np.uintp(table["ended_head"])]
        if np.int64(oldest["ended_s"]) + WINDOW_S >= now_s:
            break
        forget_oldest(known)
        done += 1
    return done


@kernel
def known_for_s(known: KnownOrders, now_s: int) -> int:
    """Return how many seconds ago the order ended that ended first, 0 when none has."""
    oldest = known.orders[np.uintp(known.table[0]["ended_head"])]
    return now_s - np.int64(oldest["ended_s"]) if known.table[0]["ended_head"] != 0 else np.int64(0)


@kernel(inline=True)
def room_for_name(known: KnownOrders) -> bool:
    """Return whether a name can be entered, after forgetting ended orders if need be."""
    table = known.table[0]
    return (
        table["free_name"] != 0
        or table["used_names"] < len(known.names)
        or make_room_for_name(known)
    )


@kernel
def make_room_for_name(known: KnownOrders) -> bool:
    """Forget ended orders until a name is free; False when none is left to forget."""
    table = known.table[0]
    while table["free_name"] == 0 and table["ended_head"] != 0:
        forget_oldest(known)
    return table["free_name"] != 0
