"""The example of docs/feed.md runs as it stands there, against a venue in another process."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np

from tests.marketdata.feed_rig import Rig
from tests.processes import DEADLINE_S, ROOT, poll_until

PAGE = ROOT / "hftcore" / "docs" / "feed.md"


def example() -> str:
    """Return the code of the page."""
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    return str(code)


def test_example_is_short() -> None:
    assert example().count("\n") < 40


def test_example_follows_a_venue(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    script, heard = tmp_path / "follow.py", tmp_path / "heard"
    script.write_text(example())
    ends = (f"ipc://{tmp_path}/feed", f"ipc://{tmp_path}/snapshot")
    with Rig(endpoints=ends) as rig, heard.open("w") as output:
        follower = subprocess.Popen(
            [sys.executable, "-u", str(script), *rig.endpoints, str(DEADLINE_S)],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        try:

            def complete() -> bool:
                rig.random(rng, 10)
                assert follower.poll() is None, heard.read_text()
                text = heard.read_text()
                return text.count(" trade ") > 10 and all(
                    re.search(rf"{symbol} #\d+ bid \S+ at \S+, ask \S+ at \S+", text)
                    for symbol in rig.symbols
                )

            poll_until(complete, "trades and the top of every book")
            last = rig.exchange.trades
            assert not last  # those of `play` are told by the feed alone
        finally:
            follower.kill()
            follower.wait()


def test_page_names_what_the_protocol_has() -> None:
    text = PAGE.read_text()
    for name in ("order_count", "feed_sequence", "heartbeat_ns", "previous_feed_sequence"):
        assert name in text
