"""Runs a whole venue, gate and reporter included, in a process of its own, for `test_jit_off`.

    NUMBA_DISABLE_JIT=1 python -m tests.engine.rerun 0 2

Prints the hashes of the log, the events and the reports; the turns of the polls come from the seed.
"""

from __future__ import annotations

import hashlib
import json
import random
import sys

from ipc.kernel import JIT
from tests.engine.rig import Rig
from tests.engine.test_gate_against_reference import Shape, check
from tests.engine.test_reporter import ATTACH, session
from tests.engine.traffic import Traffic, listings_of
from tests.reference.book import Venue

SHAPE = Shape(gateways=3, shards=2, capacity=16, event_capacity=16, dup_window=3, interval_ns=10**9)


def outcome(first_seed: int, count: int) -> dict[str, object]:
    """Run some seeds; return hashes of all that came out, and how much that was."""
    digest, counted = hashlib.sha256(), [0, 0, 0]
    for seed in range(first_seed, first_seed + count):
        gated, model = check(seed, SHAPE, 120)
        rig = reported(seed)
        reports = [report for reader in rig.report_readers for report in reader.take_all()]
        logged = [one.record for one in (*gated.log, *rig.log)]
        for record in (*logged, *gated.answer_records(), *rig.answer_records(), *reports):
            digest.update(record)
        counted[0] += len(logged)
        counted[1] += len(reports)
        counted[2] += model.gate.forgotten
    return {"digest": digest.hexdigest(), "commands, reports, forgotten": counted}


def reported(seed: int) -> Rig:
    """Run random traffic with a reporter; one of two gateways is cut off on the way."""
    random_ = random.Random(seed)
    listings = listings_of(2, 2)
    rig = Rig(
        listings, gateways=3, shards=2, capacity=16, event_capacity=16, reporter=True,
        report_capacity=64,
    )  # fmt: skip
    rig.play(0, *listings)
    for gateway in (1, 2):
        rig.play(gateway, *[session(ATTACH, account) for account in (1, 2)])
    traffic, aim = Traffic(seed, 2), Venue([])
    for _ in range(200):
        rig.send(random_.choice((1, 2)), traffic.command(aim))
        rig.turn()
    rig.settle()
    return rig


if __name__ == "__main__":
    print(json.dumps({"jit": JIT, **outcome(int(sys.argv[1]), int(sys.argv[2]))}))
