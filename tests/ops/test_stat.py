"""What `hft stat` prints fits a terminal of 80 columns, whatever the numbers are.

How it reads a venue is in test_supervisor, where venues are.
"""

from __future__ import annotations

import pytest

from hftcore.ops.stat import COLUMNS, as_text, folded, short

WORKER = {
    "name": "sequencer+matcher-0,1,2,3+reporter", "pid": 4_194_304, "cpus": [0, 2, 4, 6],
    "strategy": "spin_then_yield", "state": "starting", "silent_s": 12_345.6,
    "pss_bytes": 9_999_000_000, "work_per_s": 99_999_999.0, "turns_per_s": 1e9, "idle_per_s": 1e9,
    "sleeps_per_s": 12_345.0,
}  # fmt: skip
FACTS = {
    "venue": "v" * 60, "pid": 4_194_304, "up_s": 9e6, "pss_bytes": 1e12, "commands_per_s": 9e6,
    "sequences": {"sequenced": 10**15},
    "lag": {"settled": 10**9, "reported": 10**9, "published": 10**9},
    "workers": [WORKER, WORKER | {"name": "publisher", "silent_s": 0.0}],
    "rings": [
        {"name": "commands", "slots": 1 << 24, "position": 5, "slots_per_s": 9e7,
         "lag": {f"matcher-{shard}": 1 << 24 for shard in range(8)} | {"reporter": 7}},
        {"name": "events-0", "slots": 8, "position": 0, "slots_per_s": 0.0, "lag": {}},
    ],
    "counters": {"sequencer": {"commands": 10**15, "refused": 0}},
    "counters_per_s": {"sequencer": {"commands": 9e6, "refused": 0.0}},
    "gateways": [{"gateway": 1, "pid": 4_194_304, "incarnation": 1, "ingress_sequence": 10**12,
                  "cut_off_from_sequence": 10**15}],
}  # fmt: skip


def test_the_largest_numbers_and_names_fit_the_terminal() -> None:
    lines = as_text(FACTS).splitlines()
    assert max(map(len, lines)) <= COLUMNS
    (at,) = [number for number, line in enumerate(lines) if line.startswith("sequencer+matcher")]
    assert " starting " in lines[at + 1]
    assert lines[at + 2].strip() == "silent for 12,346 s"
    assert not any("events-0" in line for line in lines), "a ring that nobody used"


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0"), (999, "999"), (1_000, "1.00k"), (12_345, "12.3k"), (999_499, "999k"),
     (999_500, "1.00M"), (4_560_000, "4.56M"), (2.5e9, "2.50G")],
)  # fmt: skip
def test_a_number_is_shown_in_three_digits(number: float, text: str) -> None:
    assert short(number) == text


def test_parts_are_folded_and_never_divided() -> None:
    assert folded("a", "b") == ["a  b"]
    assert folded("x" * 79, "y") == ["x" * 79, "  y"]
    assert folded("z" * 100) == ["z" * 100]
