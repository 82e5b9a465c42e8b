"""Decoded records as lines: text for people, one JSON object a line for programs.

Text keeps a record on one line so that grep and less work on it: flags joined by |, texts quoted
(control characters escaped, a record can't drive the terminal), moments as UTC. JSON keeps every
number as it is. Comes after `hftcore.ops.decode`; `dump` and `region_dump` write through it.
"""

from __future__ import annotations

import json as json_text
from datetime import UTC, datetime
from typing import Any

import numpy as np

from hftcore.messages import FEED_FRAME
from hftcore.ops.decode import (
    STREAMS,
    Layouts,
    Record,
    Stream,
    Value,
    all_layouts,
    columns_of,
    legend,
    members,
    name_of,
)


class Printer:
    """Writes records as lines of text or of JSON, and at the end explains what it wrote."""

    def __init__(self, *, json: bool = False, explain: bool = False) -> None:
        self.as_json = json
        self._explain = explain
        self._seen: dict[tuple[str, Layouts], None] = {}

    def record(self, at: int, record: Record) -> None:
        """Write one record."""
        self._seen.setdefault((record.name, record.layouts))
        if self.as_json:
            fields: dict[str, Any] = {"at": at, "kind": record.name, **record.first}
            if record.second is not None:
                fields["second_slot"] = record.second
            self.line(fields)
            return
        parts = [f"{at:>10}  {record.name:<16}", as_text(record.layouts[0], record.first)]
        if record.second is not None and record.layouts[1] is not None:
            parts += ["|", as_text(record.layouts[1], record.second)]
        print(*parts)

    def pads(self, at: int, count: int) -> None:
        """Write that slots were left empty."""
        self.line({"at": at, "kind": "PAD", "slots": count}, f"{at:>10}  {'PAD':<16} slots={count}")

    def line(self, fields: dict[str, Any], text: str = "") -> None:
        """Write one object, or its text."""
        print(json_text.dumps(fields) if self.as_json else text)

    def finish(self) -> None:
        """Explain every kind that was written."""
        if self._explain:
            for name, layouts in self._seen:
                self.explain(name, layouts)

    def explain(self, name: str, layouts: Layouts) -> None:
        """Write a kind's fields: slot, offset, format, meaning with unit and stamper, values."""
        if not self.as_json:
            print(f"\n{name}\n  slot  offset  format    field")
        for slot, column in legend(layouts):
            values = members(column)
            listed = ", ".join(f"{number} {member}" for number, member in values.items())
            self.line(
                {
                    "explains": name,
                    "slot": slot,
                    "offset": column.offset,
                    "format": column.format,
                    "field": column.name,
                    "meaning": column.meaning,
                    **({"values": values} if values else {}),
                },
                f"  {slot:>4}  {column.offset:>6}  {column.format:<8}  {column.name:<20} "
                f"{column.meaning}" + (f" ({listed})" if listed else ""),
            )


def explain_all(printer: Printer, stream: Stream | None) -> None:
    """Explain every kind of one stream, or of both and the header of a feed's frame."""
    for each in [stream] if stream else STREAMS:
        for kind, layouts in all_layouts(each):
            printer.explain(name_of(each, kind), layouts)
    if stream is None:
        printer.explain("FEED_FRAME", (FEED_FRAME, None))


def as_text(layout: np.dtype[Any], fields: dict[str, Value]) -> str:
    """Write a slot's fields for people: text quoted, flags joined, moments as UTC."""
    parts = []
    for column in columns_of(layout):
        if column.name in fields:
            value = fields[column.name]
            if isinstance(value, list):
                shown = "|".join(value) or "0"
            elif isinstance(value, str) and column.vocabulary is None:
                shown = json_text.dumps(value)
            elif column.is_time and value:
                shown = _moment(int(value))
            else:
                shown = str(value)
            parts.append(f"{column.name}={shown}")
    return " ".join(parts)


def _moment(unix_ns: int) -> str:
    """Write nanoseconds as UTC, all nine digits; a number that is no moment stays one."""
    try:
        second = datetime.fromtimestamp(unix_ns // 1_000_000_000, UTC)
    except (OverflowError, ValueError):
        return str(unix_ns)
    return f"{second:%Y-%m-%dT%H:%M:%S}.{unix_ns % 1_000_000_000:09}Z"
