"""One command in, its events out: `apply` is all of matching that a role calls.

It starts a command only when there is room for its first events, and a sweep that runs out of room
leaves its place in `progress`; the next call with the same command goes on from there, so no event
is lost or written twice.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from hftcore.limits import MAX_INSTRUMENTS
from hftcore.matching.book import side_index
from hftcore.matching.emit import ROOM, emit_echo, emit_reject
from hftcore.matching.listing import define_instrument
from hftcore.matching.mass_cancel import cancel_slice
from hftcore.matching.state import FRESH
from hftcore.matching.verbs import change_order, finish_aggressor, new_order, sides_of
from hftcore.messages import CommandKind, RejectReason
from ipc.kernel import kernel

_NEW_ORDER = int(CommandKind.NEW_ORDER)
_REDUCE_ORDER = int(CommandKind.REDUCE_ORDER)
_MASS_CANCEL_SLICE = int(CommandKind.MASS_CANCEL_SLICE)
_INSTRUMENT_DEFINE = int(CommandKind.INSTRUMENT_DEFINE)
_LAST_KIND = int(max(CommandKind))
_UNKNOWN_INSTRUMENT = int(RejectReason.UNKNOWN_INSTRUMENT)
_UNKNOWN_KIND = int(RejectReason.UNKNOWN_KIND)


@kernel
def resume(
    shard: Any, book: Any, inp: Any, command_slot: int, out: Any, position: int, limit: int
) -> tuple[int, bool]:
    """Go on with the command whose sweep ran out of output space."""
    command = inp.orders[np.uintp(command_slot)]
    progress = shard.progress[0]
    slot = progress["slot"]
    instrument_id = np.int64(command["instrument_id"])
    if slot == 0:
        order_id = command["sequence"]
        sides = side_index(instrument_id, np.int64(command["side"]))
    else:
        order = shard.orders[np.uintp(slot)]
        order_id = order["order_id"]
        sides = sides_of(shard, book, instrument_id, order)
    return finish_aggressor(
        shard, book, sides, command, out, position, limit, progress["index"], order_id, slot,
        progress["leaves_qty"],
    )  # fmt: skip


@kernel
def apply_rare(shard: Any, inp: Any, command_slot: int, out: Any, position: int) -> int:
    """Answer what `apply` does not match: listings, echoes, refusals; pass over the rest."""
    command = inp.orders[np.uintp(command_slot)]
    kind = np.int64(command["kind"])
    instrument = np.int64(command["instrument_id"])
    if inp.words[np.uintp(command_slot * 8 + 1)] == 0:
        return position  # a pad
    if kind == _INSTRUMENT_DEFINE:
        reason = define_instrument(shard, inp, command_slot)
        if reason < 0:
            return position
        if reason == 0:
            return emit_echo(inp, command_slot, out, position)
        return emit_reject(inp, command_slot, out, position, reason)
    # 0 also for what was never defined: shard 0 answers what belongs to nobody
    owner = shard.books[instrument]["shard"] if instrument < MAX_INSTRUMENTS else np.int64(0)
    if owner != shard.progress[0]["shard"]:
        return position
    if kind < 1 or kind > _LAST_KIND:
        return emit_reject(inp, command_slot, out, position, _UNKNOWN_KIND)
    if kind > _REDUCE_ORDER:
        return emit_echo(inp, command_slot, out, position)
    reason = np.int64(command["reject_reason"])
    if reason == 0:
        reason = _UNKNOWN_INSTRUMENT
    return emit_reject(inp, command_slot, out, position, reason)


@kernel(inline=True)
def apply(
    shard: Any, inp: Any, command_slot: int, out: Any, position: int, limit: int
) -> tuple[int, bool]:
    """Do one command.

    Parameters
    ----------
    shard : Shard
        The state. Written.
    inp, command_slot
        Where the command's slot A is; its slot B is the next one.
    out, position, limit
        Where the next event goes, and the position before which the kernel must stop.

    Returns
    -------
    (position, finished)
        Behind the last event written. Not finished: the output was full; call again with the same
        command and more room.
    """
    if limit - position < ROOM:
        return position, False
    command = inp.orders[np.uintp(command_slot)]
    kind = command["kind"]
    instrument = np.int64(command["instrument_id"])
    if (
        kind > _REDUCE_ORDER
        or kind < _NEW_ORDER
        or command["reject_reason"] != 0
        or instrument >= MAX_INSTRUMENTS
        or shard.books[instrument]["matched_here"] == 0
    ):
        if kind == _MASS_CANCEL_SLICE and instrument < MAX_INSTRUMENTS:
            book = shard.books[instrument]
            if book["matched_here"] != 0:
                return cancel_slice(shard, book, inp, command_slot, out, position, limit)
        return apply_rare(shard, inp, command_slot, out, position), True
    book = shard.books[instrument]
    if shard.progress[0]["stage"] != FRESH:
        return resume(shard, book, inp, command_slot, out, position, limit)
    if kind == _NEW_ORDER:
        return new_order(shard, book, inp, command_slot, out, position, limit)
    return change_order(shard, book, inp, command_slot, out, position, limit)
