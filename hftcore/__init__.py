"""A trading venue for bare-metal Linux hosts; `Exchange` is the whole of it in one process.

`Client` speaks to one that runs on this host. These and `Instrument` are imported when they are
first asked for: the compiler behind the kernels takes 0.4 s to import, which `hft --help` and a
reader of `hftcore.messages` need not pay.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

import ipc.errors  # noqa: F401  refuses under python -O, whatever is imported of this package

if TYPE_CHECKING:
    from hftcore.client import Client
    from hftcore.exchange import Exchange
    from hftcore.instruments import Instrument

__version__ = "0.1.0"
__all__ = ["Client", "Exchange", "Instrument", "__version__"]

_HOMES = {
    "Client": "hftcore.client",
    "Exchange": "hftcore.exchange",
    "Instrument": "hftcore.instruments",
}


def __getattr__(name: str) -> Any:
    """Import the module that defines `name`, the first time somebody asks."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    """List what may be asked for, imported or not."""
    return sorted([*globals(), *_HOMES])
