"""The feed with the JIT off and with bounds checks on: the same frames, the same books."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest

from ipc.kernel import JIT
from tests.marketdata.feed_rig import History, Rig
from tests.processes import run_python

SCRIPT = "from tests.marketdata import test_feed_jit_off as feed; feed.tell()"


def outcome(seed: int = 3, count: int = 120) -> dict[str, object]:
    """Publish random flow to a subscriber; return what its books and the counters say."""
    rng = np.random.default_rng(seed)
    with Rig(updates_a_frame=8) as rig, rig.subscriber() as subscriber:
        history = History(rig.random(rng, count, batch=20))
        rig.until_right(subscriber)
        everything = len(rig.symbols)
        rig.until(subscriber, lambda: history.check(subscriber) == everything, "all books")
        return {
            "hashes": rig.hashes(),
            "updates": rig.counters["updates_sent"],
            "trades": rig.counters["trades_sent"],
        }


@pytest.mark.parametrize("flag", ["NUMBA_DISABLE_JIT", "NUMBA_BOUNDSCHECK"])
def test_feed_under_other_flags_is_the_compiled_one(flag: str) -> None:
    result = run_python(SCRIPT, **{flag: "1"})
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout.splitlines()[-1])
    assert found.pop("jit") is (flag != "NUMBA_DISABLE_JIT")
    assert found == outcome()


def tell() -> None:
    """Print the outcome, for the process above."""
    json.dump({"jit": JIT, **outcome()}, sys.stdout)
