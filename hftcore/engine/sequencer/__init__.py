"""The sequencer's role: one total order. Events settle, ingress rings are judged, commands go out.

A poll first settles what the matchers have answered, so that the gate judges by the newest state
(`settling`), then writes what is due by itself (`own_commands`: time, the slices of a mass cancel,
its end), then takes from each ingress ring in turn (`ingress`). A refusal goes the same way as what
passes: its shard answers it.

Time is what the owner last wrote into `clock_ns`, one stamp a batch, or in a replay of a recording
the command's own when that is later; it never decreases.

Comes before: gateways and clients, over their ingress rings. After: every matcher.
"""

from __future__ import annotations

import numpy as np

from hftcore.accounts.known_orders import touch_ahead
from hftcore.engine.sequencer.ingress import take_ingress
from hftcore.engine.sequencer.own_commands import write_own
from hftcore.engine.sequencer.settling import settle
from hftcore.engine.sequencer.state import COUNTERS, SEQUENCING, Sequencer, sequencer_of
from ipc.kernel import kernel
from ipc.ring import SLOT_WORDS, is_published
from ipc.ring_table import words_at

__all__ = ["COUNTERS", "SEQUENCING", "Sequencer", "poll", "sequencer_of"]


@kernel
def poll(sequencer: Sequencer, budget: int) -> int:
    """Settle up to `budget` events and sequence up to `budget` commands of each gateway.

    Returns
    -------
    int
        Work done; 0 also when the command ring was full. The sequence after MAX_SEQUENCE stops it.
    """
    state = sequencer.state[0]
    done = settle(sequencer, budget)
    now = max(state["clock_ns"], state["sequenced_ns"])
    if state["as_logged"] == 0:
        done += write_own(sequencer, now)
        if state["interval_ns"] != 0 and now >= state["due_ns"]:
            return done  # no room for the time command, and no command may come before it
    gateways = len(sequencer.ingress)
    ring = state["first_ring"]
    for _ in range(gateways):
        row = sequencer.ingress[np.uintp(ring)]
        source = words_at(row["words"], row["slots"] * SLOT_WORDS)
        if is_published(source, row["slots"] - 1, sequencer.ingress_positions[np.uintp(ring)]):
            done += take_ingress(sequencer, ring, budget, now)
        ring = ring + 1 if ring + 1 < gateways else np.int64(0)
    state["first_ring"] = ring + 1 if ring + 1 < gateways else np.int64(0)
    if done == 0:
        touch_ahead(sequencer.gate.known)
    return done
