"""Gateway 0: how the venue speaks to itself, through the same rings as every client.

The supervisor lists the instruments, begins the epoch and tells of gateways that died by commands,
because whatever a kernel depends on must be in the log. It is the writer of ingress ring 0 and the
reader of report ring 0; it waits in Python, with a deadline, since all of this is rare.

Comes after `memory`; before `supervisor`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hftcore.engine.client import client_of, drain, send
from hftcore.errors import VenueRefused
from hftcore.instruments import Instrument, definition
from hftcore.messages import (
    ECHO,
    EVENT,
    GATEWAY_WORDS,
    INCARNATION,
    INGRESS_SEQUENCE,
    PARTY,
    SESSION,
    SYMBOL,
    VENUE_STATE,
    CommandKind,
    EventKind,
    RejectReason,
)
from hftcore.ops.memory import VenueMemory
from ipc.intrinsics import store_release
from ipc.kernel import kernel
from ipc.wait import wake_each

FIRST_EPOCH = 1
_LISTING_S = 20.0
_STEP_S = 0.0002
_LOG_ROWS = 1024


@kernel
def tell(cells: Any, cell: int, value: int) -> None:
    """Store into a shared cell, for code outside kernels."""
    # release: what was written before is visible to who sees the value
    store_release(cells, cell, value)


class VenueGateway:
    """The venue's own gateway.

    Parameters
    ----------
    memory : VenueMemory
    check : Callable
        Called while waiting; raises when waiting is in vain (a worker died).
    """

    def __init__(self, memory: VenueMemory, check: Callable[[], None]) -> None:
        self.memory = memory
        self._check = check
        self._ingress = memory.ingress(0)
        self._client = client_of(self._ingress, memory.reports(0), 0)
        self._cells = memory.gateways()[:GATEWAY_WORDS]
        self._bells = memory.bells()
        self._sent = 0
        self._log = np.zeros((_LOG_ROWS, 16), np.int64)
        self._none = np.zeros((0, 16), np.int64)
        tell(self._cells, INCARNATION, 1)

    def begin_epoch(self, epoch: int, start_id: int) -> None:
        """Send the first command of a start."""
        row = np.zeros(16, np.int64)
        state: Any = row[:8].view(VENUE_STATE)[0]
        state["kind"], state["epoch"], state["start_id"] = CommandKind.EPOCH, epoch, start_id
        self._send(row)

    def list_instruments(self, instruments: tuple[Instrument, ...]) -> None:
        """List every instrument and wait for the echo of each.

        Raises
        ------
        VenueRefused
            When one is refused, or no answer comes.
        """
        for number, instrument in enumerate(instruments, 1):
            row = definition(instrument, number)
            origin: Any = row[8:].view(SYMBOL)[0]
            origin["incarnation"] = 1
            self._send(row)
            answer = self._answer(number)
            kind = int(answer[1]) & 0xFF
            if kind != CommandKind.INSTRUMENT_DEFINE | ECHO:
                raise self._not_listed(instrument, answer, kind)

    def gateway_down(self, gateway: int, incarnation: int, *, graceful: bool) -> bool:
        """Tell the venue that a gateway's process is gone; return False if there is no room now.

        It does not wait: who watches workers must see that the one it would wait for has died.
        """
        row = np.zeros(16, np.int64)
        session: Any = row[:8].view(SESSION)[0]
        session["kind"] = CommandKind.GATEWAY_DOWN
        session["gateway_id"], session["incarnation"] = gateway, incarnation
        session["graceful"] = graceful
        return self._try_send(row)

    def forget_answers(self) -> None:
        """Read what came back and needs no answer; the ring must not fill up."""
        self._client.state["logged"] = 0
        drain(self._client, self._none)

    def _send(self, row: NDArray[np.int64]) -> None:
        deadline = time.monotonic() + _LISTING_S
        while not self._try_send(row):
            self._wait(deadline, "room in ingress ring 0")

    def _try_send(self, row: NDArray[np.int64]) -> bool:
        """Send a row if there is room; only what was sent has a number."""
        _stamp(row, self._sent + 1)
        if not send(self._client, row.reshape(1, 16), 0, 1):
            return False
        self._sent += 1
        tell(self._cells, INGRESS_SEQUENCE, self._sent)
        wake_each(self._bells, self.memory.workers, -1)
        return True

    def _answer(self, instrument_id: int) -> Any:
        """Wait for the event that answers a command about an instrument."""
        deadline = time.monotonic() + _LISTING_S
        while True:
            self._client.state["logged"] = 0
            drain(self._client, self._log)
            for row in self._log[: int(self._client.state["logged"][0])]:
                if int(row[:8].view(EVENT)[0]["instrument_id"]) == instrument_id:
                    return row.copy()
            self._wait(deadline, f"the answer to the listing of instrument {instrument_id}")

    def _wait(self, deadline: float, what: str) -> None:
        self._check()
        if time.monotonic() > deadline:
            raise VenueRefused(
                "the venue does not answer its supervisor",
                expected=f"{what} within {_LISTING_S:g} s",
                found="nothing",
                where=str(self.memory.directory),
                remedy="see `hft logs`; with too few cpus for what else runs here, try again",
            )
        time.sleep(_STEP_S)

    def _not_listed(
        self, instrument: Instrument, answer: NDArray[np.int64], kind: int
    ) -> VenueRefused:
        reason = f"event {kind}"
        if kind == EventKind.REJECTED:
            reason = RejectReason(int(answer[8:].view(PARTY)[0]["reject_reason"])).name
        return VenueRefused(
            "the venue does not list an instrument",
            expected="its definition echoed",
            found=reason,
            where=f"{instrument.symbol}, shard {instrument.shard}",
            remedy="correct the instrument: CAPACITY is about its shard's memory",
        )


def _stamp(row: NDArray[np.int64], ingress_sequence: int) -> None:
    """Say in a command where it came from, if it has a place for that."""
    kind = int(row[1]) & 0xFF
    if kind == CommandKind.INSTRUMENT_DEFINE:
        row[8:].view(SYMBOL)[0]["ingress_id"] = ingress_sequence  # of gateway 0
    elif kind == CommandKind.GATEWAY_DOWN:
        row[:8].view(SESSION)[0]["ingress_id"] = ingress_sequence


__all__ = ["FIRST_EPOCH", "VenueGateway", "tell"]
