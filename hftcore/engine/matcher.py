"""The matcher's role: commands from one ring, through the kernels, events into another.

`poll` takes what is in the command ring, command by command, and publishes each command's events at
once. It returns when the ring is empty, when it has done its share, or when the event ring is full;
it never waits. What it must not forget lies in the shard's `progress`.

While a book is large, the order slot, its neighbours and its level are cache misses that a command
can't avoid but a ring can foresee: the commands ahead are already there, so their lines are asked
for 12, 8 and 4 commands before they are needed. That is worth 1.5 to 2 times on a million resting
orders and costs some percent on a thousand; the number of live orders decides.

Comes before: the sequencer, over the command ring. After: reporter, publisher, settlement.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hftcore.limits import MAX_INSTRUMENTS
from hftcore.matching.book import rung_of, side_index
from hftcore.matching.dispatch import apply
from hftcore.matching.emit import ROOM, Input, Output, input_of, output_of
from hftcore.matching.order_index import bucket_of
from hftcore.matching.state import Shard
from hftcore.messages import CommandKind, Flags
from ipc.intrinsics import pick, prefetch, store_release
from ipc.kernel import kernel
from ipc.ring import (
    POSITION,
    PREFETCH_AHEAD,
    Ring,
    claim,
    is_published,
    prefetch_slot,
    publish,
    release_up_to,
    writable_until,
)

FORESEE_FROM = 16_384
"""Live orders from which on the poll looks ahead; below, the book is in the cache anyway."""

FAR, NEAR, NEXT = 32, 20, 8
"""Commands ahead, in slots of two: the index entry; the order and the level to rest on; the order's
neighbours, its level, its entry in the overflow table."""

_TWO_SLOTS = int(Flags.TWO_SLOTS)
_NEW_ORDER = int(CommandKind.NEW_ORDER)


class Matcher(NamedTuple):
    """What the matcher's poll works on.

    Attributes
    ----------
    shard : Shard
        The books. Written.
    inp, out : Input, Output
        The slots of the command and the event ring.
    command_cells, event_cells : int64[512]
        The rings' cells.
    reader : int64[1]
        Which gating reader of the command ring this matcher is.
    """

    shard: Shard
    inp: Input
    out: Output
    command_cells: NDArray[np.int64]
    event_cells: NDArray[np.int64]
    reader: NDArray[np.int64]


def matcher_of(shard: Shard, commands: Ring, events: Ring, reader: int) -> Matcher:
    """Join a shard to its rings; the matcher gates `commands` as reader number `reader`."""
    return Matcher(
        shard,
        input_of(commands.words),
        output_of(events.words),
        commands.cells,
        events.cells,
        np.array([reader], np.int64),
    )


@kernel(inline=True)
def foresee(shard: Shard, inp: Input, position: int) -> None:
    """Ask for the cache lines that the commands ahead of `position` will need.

    Every command is treated as a new order and as a change at once: what that fetches for nothing
    is a line that is there already, while a branch on the kind is mispredicted half of the time.
    All of it is published: to look at a slot that the sequencer is about to write takes its line
    away from it. A slot may be a second one: then the addresses mean nothing, but a prefetch never
    faults, and what is read here is masked or checked.
    """
    mask = len(inp.orders) - 1
    homes = shard.homes
    homes_mask = len(homes) - 1
    ahead = np.uintp((position + 2 * FAR) & mask)
    prefetch(homes, np.uintp(named_id(inp, ahead) & homes_mask))
    ahead = np.uintp((position + 2 * NEAR) & mask)
    slot = np.int64(homes[np.uintp(named_id(inp, ahead) & homes_mask)])
    prefetch(shard.orders, np.uintp(slot))
    prefetch(shard.levels, np.uintp(level_of(shard, inp.orders[ahead])))
    ahead = np.uintp((position + 2 * NEXT) & mask)
    order_id = named_id(inp, ahead)
    slot = np.int64(homes[np.uintp(order_id & homes_mask)])
    occupant = shard.orders[np.uintp(slot)]["order_id"]
    found = occupant == order_id
    order = shard.orders[np.uintp(pick(found, slot, 0))]
    prefetch(shard.orders, np.uintp(np.int64(order["next"])))
    prefetch(shard.orders, np.uintp(np.int64(order["previous"])))
    prefetch(shard.levels, np.uintp(np.int64(order["level"])))
    # who is not at home: the old order that a new one drives out, or the one that is looked for
    away = pick(inp.orders[ahead]["kind"] == _NEW_ORDER, occupant, order_id)
    prefetch(shard.moved, np.uintp(bucket_of(pick(found, 0, away), len(shard.moved))))


@kernel(inline=True)
def foresee_order(shard: Shard, inp: Input, position: int) -> None:
    """Ask for the order that a command ahead names: all that a small book gains from foresight."""
    mask = len(inp.orders) - 1
    ahead = np.uintp((position + 2 * NEXT) & mask)
    home = np.uintp(inp.changes[ahead]["order_id"] & (len(shard.homes) - 1))
    prefetch(shard.orders, np.uintp(np.int64(shard.homes[home])))


@kernel(inline=True)
def named_id(inp: Input, slot: int) -> int:
    """Return the order_id that a command will look up, or enter if it is a new order."""
    # word 2 of NEW_ORDER is its sequence, word 6 of ORDER_CHANGE the order_id
    word = pick(inp.orders[slot]["kind"] == _NEW_ORDER, 2, 6)
    return inp.words[np.uintp(np.int64(slot) * 8 + word)]


@kernel(inline=True)
def level_of(shard: Shard, command: Any) -> int:
    """Return the level that a new order would rest on; any number when the slot holds none."""
    instrument = np.int64(command["instrument_id"]) & (MAX_INSTRUMENTS - 1)
    ladder = shard.sides[np.uintp(side_index(instrument, 2 - (command["side"] & 1)))]
    return ladder["level_base"] + rung_of(ladder, command["price"])


@kernel
def poll(matcher: Matcher, budget: int) -> int:
    """Do up to `budget` commands.

    Returns
    -------
    int
        Commands done or gone on with; 0 when there was nothing to do or no room for it.
    """
    shard, inp, out = matcher.shard, matcher.inp, matcher.out
    progress = shard.progress[0]
    mask = len(inp.orders) - 1
    event_mask = len(out.events) - 1
    position = progress["command_position"]
    if not is_published(inp.words, mask, position):
        return 0  # and nothing is stored: others read these lines while they wait
    event_position = matcher.event_cells[POSITION]
    limit = event_position
    window = np.int64(min(256, (event_mask + 1) >> 1))
    ahead = progress["live_orders"] >= FORESEE_FROM
    sequence = shard.matched[0]
    done = 0
    seen = max(position, progress["seen_position"])  # up to here slots are known to be published
    while done < budget and is_published(inp.words, mask, position):
        slot = position & mask
        horizon = position + 2 * FAR + 1
        while seen < horizon and is_published(inp.words, mask, seen):
            seen += 1
        if limit - event_position < max(window >> 1, ROOM):
            if progress["event_limit"] - event_position < window:
                # the readers' cursors are lines of other cores: looked at when it matters only
                progress["event_limit"] = writable_until(matcher.event_cells)
            limit = min(progress["event_limit"], event_position + window)
            claim(matcher.event_cells, limit)
        if ahead and seen == horizon:
            foresee(shard, inp, position)
        elif seen > position + 2 * NEXT:
            foresee_order(shard, inp, position)
        prefetch_slot(out.words, event_mask, event_position + PREFETCH_AHEAD)
        prefetch_slot(out.words, event_mask, event_position + PREFETCH_AHEAD + 1)
        first = event_position
        event_position, finished = apply(shard, inp, slot, out, first, limit)
        publish(out.words, event_mask, first, event_position)
        if not finished:
            if event_position == first:
                break  # no room
            limit = event_position  # claim more, then go on with the same command
            done += 1
            continue
        command = inp.orders[np.uintp(slot)]
        done += np.int64(inp.words[np.uintp(slot * 8 + 1)] != 0)  # a pad is nothing
        sequence = max(sequence, command["sequence"])
        position += 2 if command["flags"] & _TWO_SLOTS else 1
    progress["command_position"] = position
    progress["seen_position"] = seen
    # release: pairs with whoever settles; the events are published before their sequence is
    store_release(shard.matched, 0, sequence)
    # release: pairs with whoever looks up where the writer is
    store_release(matcher.event_cells, POSITION, event_position)
    release_up_to(matcher.command_cells, matcher.reader[0], position)
    return done
