"""Gateway slots: which of a venue's places for on-host clients are free, and who has the others.

A slot is a pair of rings (ingress-g, reports-g) and a lock; number 0 is the venue's own. The kernel
drops a lock with its holder, so a client that was killed frees its slot at once, and one that only
stands still keeps it: whoever took it would be a second writer of the ring when it goes on. Pids
are for messages only.

Comes after `venue_file`; before `session`, which lives in a slot.
"""

from __future__ import annotations

from pathlib import Path

from hftcore.arguments import whole
from hftcore.errors import VenueRefused
from hftcore.ops.venue_file import VenueRecord, gateway_lock
from ipc.errors import LockHeld
from ipc.liveness import RoleLock, hold, holder_pid


def take_slot(
    record: VenueRecord, directory: Path, gateway: int | None, name: str
) -> tuple[int, RoleLock]:
    """Take a slot of a venue, until the lock is released.

    Parameters
    ----------
    directory : Path
        The venue's.
    gateway : int or None
        This one, or the first that is free.
    name : str
        What others are told who holds it.

    Raises
    ------
    VenueRefused
        None is free; names the processes that hold them.
    """
    count = record.config.gateways
    if gateway is not None:
        whole(gateway, "gateway", 1, count - 1)
    wanted = range(1, count) if gateway is None else (gateway,)
    for number in wanted:
        try:
            return number, hold(directory, gateway_lock(number), f"gateway-{number} {name}")
        except LockHeld:
            continue
    pids = [holder_pid(directory, gateway_lock(number)) for number in wanted]
    raise VenueRefused(
        "no gateway slot is free" if gateway is None else f"gateway slot {gateway} is taken",
        expected=f"one of {len(wanted)} that no process holds",
        found=f"held by pid {', '.join(map(str, pids))}" if pids else "a venue without any",
        where=f"venue {record.config.name}",
        remedy="end one of them, or start the venue with more gateways",
    )
