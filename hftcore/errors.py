"""The exception tree that began in `ipc.errors`, continued for what knows orders and files."""

from __future__ import annotations

from ipc.errors import Refused


class ConfigurationRefused(Refused):
    """An instrument, a limit or an option that can't be."""


class OrderRefused(Refused):
    """A call of the Python API that can't be turned into a command."""


class RecordingRefused(Refused):
    """A file of market data that is damaged, truncated or of another format."""


class VerificationFailed(Refused):
    """A replay whose book differs from the recording's."""


class UsageRefused(Refused):
    """A command line that names something that does not exist."""


__all__ = [
    "ConfigurationRefused",
    "OrderRefused",
    "RecordingRefused",
    "Refused",
    "UsageRefused",
    "VerificationFailed",
]
