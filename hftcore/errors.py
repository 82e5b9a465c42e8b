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


class VenueRefused(Refused):
    """A venue that can't be started, found, or asked."""


class NoAnswer(Refused):
    """A venue that did not answer in time, or has ended."""


class CutOff(Refused):
    """A client that did not read its reports in time and gets no more of them."""


__all__ = [
    "ConfigurationRefused",
    "CutOff",
    "NoAnswer",
    "OrderRefused",
    "RecordingRefused",
    "Refused",
    "UsageRefused",
    "VenueRefused",
    "VerificationFailed",
]
