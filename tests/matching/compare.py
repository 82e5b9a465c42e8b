"""Compares the matcher's events with the reference's, and makes a failure small and readable."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import fields, replace

from hftcore.messages import EventKind, Side
from tests.matching.driver import USUAL, Setup, Venue
from tests.reference.book import Memory, bitmap_words
from tests.reference.codec import decode_event, encode_event
from tests.reference.records import Command, Echo, Event, Listing, NewOrder
from tests.reference.shrinking import command_text, script_text, shrink
from tests.reference.streams import Script

CROWD = 77
"""The instrument of `crowded`; streams don't use it."""

Run = Callable[[Script], list[tuple[int, bytes]]]


def examples(default: int) -> int:
    """Return how many examples a property tries: HFT_EXAMPLES, else what CI has time for."""
    return int(os.environ.get("HFT_EXAMPLES", default))


def seeds(default: int) -> range:
    """Return the seeds of a property, from HFT_SEED on (default 0)."""
    first = int(os.environ.get("HFT_SEED", "0"))
    return range(first, first + examples(default))


def expected_events(script: Script) -> list[tuple[int, bytes]]:
    """Return every (shard, event) that the reference yields for a script."""
    venue = script.venue()
    events = []
    for command in script.commands:
        shard = venue.answering_shard(command)
        events += [(shard, encode_event(event)) for event in venue.apply(command)]
    return events


def matched_events(script: Script, setup: Setup = USUAL) -> list[tuple[int, bytes]]:
    """Return every (shard, event) that the matcher yields, in the order of the log."""
    events = list(Venue(script, setup).run(script.commands))
    return sorted(events, key=lambda event: sequence_of(event[1]))  # stable within a command


def crowded(script: Script, orders: int) -> Script:
    """Return a script whose commands meet a shard that holds so many orders of CROWD already.

    The reference would take minutes for them; what it says of the other instruments holds as well.
    """
    listing = Listing(sequence=1, instrument_id=CROWD, ladder_ticks=64, order_capacity=orders)
    resting = [
        NewOrder(
            sequence=2 + i,
            instrument_id=CROWD,
            account_id=1 + i % 3,
            price=1 + i % 31 if i % 2 else 33 + i % 31,
            qty=1 + i % 9,
            side=Side.BUY if i % 2 else Side.SELL,
        )
        for i in range(orders)
    ]
    assert resting[-1].sequence < script.commands[0].sequence
    first = script.memories[0]
    more = Memory(
        orders=first.orders + orders,
        levels=first.levels + 2 * listing.ladder_ticks,
        words=first.words + 2 * bitmap_words(listing.ladder_ticks),
    )
    return replace(
        script,
        memories=[more, *script.memories[1:]],
        commands=[listing, *resting, *script.commands],
    )


def without_crowd(events: list[tuple[int, bytes]]) -> list[tuple[int, bytes]]:
    """Leave out the events of the instrument that only makes the shard large."""
    return [event for event in events if int.from_bytes(event[1][10:12], "little") != CROWD]


def sequence_of(record: bytes) -> int:
    """Return the sequence of an event's command."""
    return int.from_bytes(record[16:24], "little", signed=True)


def check_events(script: Script, setup: Setup = USUAL, *, small: bool = False) -> None:
    """Fail with a shrunk script when the matcher's events are not the reference's.

    Parameters
    ----------
    small : bool
        Leave the shrinking to the caller (hypothesis).
    """

    def run(script: Script) -> list[tuple[int, bytes]]:
        return matched_events(script, setup)

    if differs(script, run):
        shrunk = script if small else shrink(script, lambda script: differs(script, run))
        raise AssertionError(explain(shrunk, run, str(setup)))


def differs(script: Script, run: Run) -> bool:
    """Return whether matcher and reference differ, or the matcher stops by an assertion."""
    try:
        return expected_events(script) != run(script)
    except (AssertionError, IndexError):
        return True


def explain(script: Script, run: Run, setting: str) -> str:
    """Describe the first difference: seed, script, and the event field by field."""
    text = f"\nseed {script.seed}, {setting}\n{script_text(script)}\n"
    try:
        found = run(script)
    except (AssertionError, IndexError) as error:
        return f"{text}the matcher stopped: {error!r}"
    expected = expected_events(script)
    commands = {command.sequence: command for command in script.commands}
    for i in range(max(len(expected), len(found))):
        ours = expected[i] if i < len(expected) else None
        theirs = found[i] if i < len(found) else None
        if ours != theirs:
            return f"{text}first difference: event {i} of the stream\n" + _difference(
                commands, ours, theirs
            )
    return text + "no difference (the failure did not repeat)"


def _difference(
    commands: dict[int, Command],
    expected: tuple[int, bytes] | None,
    found: tuple[int, bytes] | None,
) -> str:
    sequences = {sequence_of(event[1]) for event in (expected, found) if event}
    lines = [f"command: {command_text(commands[s])}" for s in sorted(sequences) if s in commands]
    if expected is None or found is None:
        lines += [f"expected: {_shown(expected)}", f"found:    {_shown(found)}"]
        return "\n".join(lines)
    left = {"shard": expected[0]} | flat(decode_event(expected[1]))
    right = {"shard": found[0]} | flat(decode_event(found[1]))
    width = max(map(len, [*left, *right]))
    for name in [*left, *(name for name in right if name not in left)]:
        ours, theirs = left.get(name, "-"), right.get(name, "-")
        mark = "" if ours == theirs else f"   <-- found {theirs}"
        lines.append(f"  {name:{width}}  {ours}{mark}")
    if left == right:
        lines += ["bytes that no field names:", expected[1].hex(), found[1].hex()]
    return "\n".join(lines)


def _shown(event: tuple[int, bytes] | None) -> str:
    return "no event" if event is None else f"shard {event[0]}: {flat(decode_event(event[1]))}"


def flat(record: object) -> dict[str, object]:
    """Return the fields of a record and of what it holds, by dotted name."""
    result: dict[str, object] = {}
    for item in fields(record):  # type: ignore[arg-type]
        value = getattr(record, item.name)
        if hasattr(value, "__dataclass_fields__"):
            result[item.name] = type(value).__name__
            result |= {f"{item.name}.{name}": inner for name, inner in flat(value).items()}
        elif item.name == "kind" and isinstance(record, Event) and value in set(EventKind):
            result[item.name] = EventKind(value).name
        else:
            result[item.name] = int(value) if isinstance(value, int) else value
    if isinstance(record, Echo):
        result["echo"] = True
    return result
