"""Makes a script that fails shorter, and prints it as Python that can be pasted into a test."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace

from tests.reference.records import Origin
from tests.reference.streams import Script


def shrink(script: Script, fails: Callable[[Script], bool], tries: int = 400) -> Script:
    """Leave out commands, in ever smaller pieces, as long as the script still fails.

    Sequences stay as they are, so order ids go on meaning the same orders.
    """
    piece = max(1, len(script.commands) // 2)
    while tries > 0:
        begin = 0
        shorter = False
        while begin < len(script.commands) and tries > 0:
            tries -= 1
            rest = script.commands[:begin] + script.commands[begin + piece :]
            candidate = replace(script, commands=rest)
            if fails(candidate):
                script, shorter = candidate, True
            else:
                begin += piece
        if piece == 1 and not shorter:
            break
        piece = max(1, piece // 2)
    return script


def script_text(script: Script) -> str:
    """Return the script as Python that can be pasted into a test."""
    lines = [f"Script(memories={script.memories}, allow_replay={script.allow_replay}, commands=["]
    lines += [f"    {command_text(command)}," for command in script.commands]
    return "\n".join([*lines, f"])  # seed {script.seed}"])


def command_text(command: object) -> str:
    """Return a record's repr without the fields that have their default values."""
    parts = []
    for item in fields(command):  # type: ignore[arg-type]
        value = getattr(command, item.name)
        if value != item.default:
            shown = command_text(value) if isinstance(value, Origin) else _plain(value)
            parts.append(f"{item.name}={shown}")
    return f"{type(command).__name__}({', '.join(parts)})"


def _plain(value: object) -> str:
    return str(int(value)) if isinstance(value, int) else repr(value)
