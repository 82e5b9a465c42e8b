"""How far a long work is, for people: a bar on the standard error, gone when it is done.

What works calls its `Progress` with what is done and what there is in all, and knows nothing of
terminals; a `ProgressBar` is one. Used by `replay` and `live_replay`.
"""

from __future__ import annotations

from collections.abc import Callable

from rich.console import Console
from rich.progress import (
    BarColumn,
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
)
from rich.progress import Progress as RichProgress

Progress = Callable[[int, int], None]
"""Called with what is done and what there is in all, in rows or bytes."""


class ProgressBar:
    """A progress bar on stderr; of unknown length until the recording is read and checked."""

    def __init__(self) -> None:
        self._bar = RichProgress(
            TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(),
            TimeElapsedColumn(), console=Console(stderr=True), transient=True,
        )  # fmt: skip
        self._task: TaskID = self._bar.add_task("reading", total=None)

    def __enter__(self) -> ProgressBar:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def __call__(self, done: int, total: int) -> None:
        """Show how far the replay is."""
        self._bar.update(self._task, description="replay", total=total, completed=done)


__all__ = ["Progress", "ProgressBar"]
