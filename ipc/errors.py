"""The root of the project's one exception tree.

Every refusal says four things: what was expected, what was found, where, and what to do about it.
The tree starts here and not in `hftcore`, because `ipc` and `affinity` refuse things too and may
not import `hftcore`; `hftcore.errors` continues it.
"""

from __future__ import annotations

__all__ = [
    "AssertionsStripped",
    "CellRefused",
    "ClockRefused",
    "KernelCacheRefused",
    "LockHeld",
    "Refused",
    "RegionRefused",
    "RingRefused",
    "SignalRefused",
]


class Refused(Exception):
    """Refuse an input, a file, a region or a host, in words that lead to the remedy.

    Parameters
    ----------
    what : str
        One sentence: what was refused.
    expected, found : str
        What would have been accepted, and what was there instead.
    where : str
        A path, an offset, a line, a key: the place to look at.
    remedy : str
        What the reader can do about it.
    """

    def __init__(
        self, what: str, *, expected: str = "", found: str = "", where: str = "", remedy: str = ""
    ) -> None:
        self.what = what
        self.expected = expected
        self.found = found
        self.where = where
        self.remedy = remedy
        parts = [
            f"{label}: {text}"
            for label, text in (
                ("expected", expected),
                ("found", found),
                ("where", where),
                ("remedy", remedy),
            )
            if text
        ]
        super().__init__("; ".join([what, *parts]))


class AssertionsStripped(Refused, SystemExit):
    """Python runs without assertions.

    A refusal that ends the interpreter when nobody catches it, in words and with no traceback: it
    is raised by the import of the package itself, before any code of ours could print it.
    """

    def __init__(self) -> None:
        super().__init__(
            "hftcore does not run under python -O",
            expected="assertions on: they guard each hand-over between kernels",
            found="assertions stripped (python -O or PYTHONOPTIMIZE)",
            remedy="start without -O and unset PYTHONOPTIMIZE; the assertions cost about 1 %",
        )
        # what the interpreter prints on stderr before it exits with 1
        lines = [
            f"hft: {self.what}",
            f"  expected: {self.expected}",
            f"  found:    {self.found}",
            f"  remedy:   {self.remedy}",
        ]
        self.code = "\n".join(lines)


class KernelCacheRefused(Refused):
    """The directory of compiled kernels can't be trusted or written."""


class RegionRefused(Refused):
    """A shared-memory region can't be created or attached."""


class RingRefused(Refused):
    """A ring was given a shape or a use that it doesn't have."""


class CellRefused(Refused):
    """A latest, counters, histogram or bell was given memory, a name or a use that don't fit."""


class SignalRefused(Refused):
    """A named semaphore can't be created or attached."""


class ClockRefused(Refused):
    """This host's cycle counter can't serve as a clock."""


class LockHeld(Refused):
    """Another live process holds this role."""


if not __debug__:
    raise AssertionsStripped
