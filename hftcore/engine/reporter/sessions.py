"""Which accounts have a session on which gateway: the routes of reports.

Told by the echoes of SESSION_ATTACH, SESSION_DETACH and GATEWAY_DOWN, so a route begins and ends at
a place in the log. A new incarnation of a gateway begins without any.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from hftcore.engine.reporter.state import Reporter
from hftcore.limits import MAX_ACCOUNTS
from hftcore.messages import CommandKind
from ipc.kernel import kernel

_SESSION_ATTACH = int(CommandKind.SESSION_ATTACH)
_SESSION_DETACH = int(CommandKind.SESSION_DETACH)
_GATEWAY_DOWN = int(CommandKind.GATEWAY_DOWN)


@kernel
def note_sessions(reporter: Reporter, words: Any, first: int, head: int) -> None:
    """Change the routes as an echoed session command says."""
    kind = head & 0x7F
    if kind != _SESSION_ATTACH and kind != _SESSION_DETACH and kind != _GATEWAY_DOWN:
        return
    gateway = words[np.uintp(first + 6)] & 0xFFFF
    if gateway >= len(reporter.gateways):
        return
    incarnation = (words[np.uintp(first + 5)] >> 32) & 0xFFFFFFFF
    account = (head >> 32) & 0xFFFFFFFF
    told = reporter.gateways[np.uintp(gateway)]
    if kind == _GATEWAY_DOWN:
        if incarnation == told["incarnation"]:  # else a successor has attached already
            forget_routes(reporter, gateway)
            told["active"] = np.int64(gateway == 0)
        return
    # an echo's header has the account where an event's has its index
    assert account < MAX_ACCOUNTS
    if kind == _SESSION_DETACH:
        detach(reporter, gateway, account)
        return
    if incarnation != told["incarnation"]:
        forget_routes(reporter, gateway)
        told["incarnation"] = incarnation
        told["active"] = 1
        told["limit"] = 0
    bit = np.int64(1) << gateway
    if account != 0 and reporter.routes[np.uintp(account)] & bit == 0:
        reporter.routes[np.uintp(account)] |= bit
        reporter.attached[np.uintp(gateway * MAX_ACCOUNTS + told["accounts"])] = account
        reporter.places[np.uintp(gateway * MAX_ACCOUNTS + account)] = told["accounts"]
        told["accounts"] += 1


@kernel
def forget_routes(reporter: Reporter, gateway: int) -> None:
    """Take away every route to a gateway."""
    told = reporter.gateways[np.uintp(gateway)]
    bit = np.int64(1) << gateway
    for number in range(told["accounts"]):
        account = np.int64(reporter.attached[np.uintp(gateway * MAX_ACCOUNTS + number)])
        reporter.routes[np.uintp(account)] &= ~bit
    told["accounts"] = 0


@kernel
def detach(reporter: Reporter, gateway: int, account: int) -> None:
    """Take away the route from an account to a gateway."""
    told = reporter.gateways[np.uintp(gateway)]
    bit = np.int64(1) << gateway
    if reporter.routes[np.uintp(account)] & bit == 0:
        return
    reporter.routes[np.uintp(account)] &= ~bit
    # the last of the list takes its place
    base = gateway * MAX_ACCOUNTS
    place = np.int64(reporter.places[np.uintp(base + account)])
    told["accounts"] -= 1
    last = np.int64(reporter.attached[np.uintp(base + told["accounts"])])
    reporter.attached[np.uintp(base + place)] = last
    reporter.places[np.uintp(base + last)] = place
