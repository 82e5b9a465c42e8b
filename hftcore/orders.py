"""Orders as people give them, made into rows of commands: checked, in ticks and lots, two slots.

One surface for every way into the venue from Python: whoever tries a strategy on `Exchange`, the
venue in one process, and then on a running venue through `Client` calls the same methods with the
same arguments and reads the same reports. So the methods stand once, in `OrderEntry`; what differs
is only how a row is answered, and that is what the two classes bring.

A row is int64[16], slot A and slot B of a command (messages.py). Slot B, ORIGIN, has the
client_order_id; `stamped` adds session, ingress and incarnation of whoever sends it. Two ways to
name an order in a change: its order_id, or the client_order_id that it was sent with (FIX 41,
OrigClOrdID), which the gate looks up. `client_order_id` in a replace is always a new name.

Comes before: a caller, `arguments` for the checks. After: `exchange`, `client`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hftcore.arguments import client_order_id_bytes, named, whole
from hftcore.errors import OrderRefused
from hftcore.instruments import Instrument, Number
from hftcore.messages import (
    MASS_CANCEL,
    NEW_ORDER,
    ORDER_CHANGE,
    ORIGIN,
    SESSION,
    CommandKind,
    ExecFlags,
    Flags,
    OrderType,
    Side,
    TimeInForce,
)
from hftcore.reports import MassCanceled, Report

ROW_WORDS = 16
"""Words of a command as a row: slot A, slot B."""

DEFAULT_ACCOUNT = 1


def blank_row(
    kind: CommandKind, number: int, account: int, client_order_id: str = ""
) -> NDArray[np.int64]:
    """Return a command of two slots of which only the header and the ORIGIN's name are set.

    Parameters
    ----------
    number : int
        instrument_id, 0: none.
    """
    account = whole(account, "account", 1, (1 << 32) - 1)
    name = client_order_id_bytes(client_order_id)
    row = np.zeros(ROW_WORDS, np.int64)
    head: Any = row[:8].view(NEW_ORDER)[0]
    head["kind"] = kind
    head["flags"] = Flags.TWO_SLOTS
    head["instrument_id"] = number
    head["account_id"] = account
    origin: Any = row[8:].view(ORIGIN)[0]
    origin["client_order_id"][: len(name)] = list(name)
    return row


def new_order_row(
    instrument: Instrument,
    number: int,
    side: str,
    *,
    price: Number,
    qty: Number,
    order_type: str = "limit",
    time_in_force: str = "",
    account: int = DEFAULT_ACCOUNT,
    client_order_id: str = "",
) -> NDArray[np.int64]:
    """Return a NEW_ORDER; see `OrderEntry.submit`."""
    row = blank_row(CommandKind.NEW_ORDER, number, account, client_order_id)
    order: Any = row[:8].view(NEW_ORDER)[0]
    order["price"] = instrument.ticks(price)
    order["qty"] = instrument.lots(qty)
    order["side"] = named(Side, side, "side")
    kind = named(OrderType, order_type, "order_type")
    order["order_type"] = kind
    default = "ioc" if kind == OrderType.MARKET else "gtc"
    order["time_in_force"] = named(TimeInForce, time_in_force or default, "time_in_force")
    return row


def change_row(
    kind: CommandKind,
    instrument: Instrument,
    number: int,
    order_id: int,
    *,
    price: Number | None = None,
    qty: Number | None = None,
    account: int = DEFAULT_ACCOUNT,
    client_order_id: str = "",
    original_client_order_id: str = "",
) -> NDArray[np.int64]:
    """Return a CANCEL_ORDER, REPLACE_ORDER or REDUCE_ORDER of an order, named by either id.

    Parameters
    ----------
    order_id : int
        0 with an original_client_order_id: the gate looks it up.
    """
    if original_client_order_id and (order_id or client_order_id):
        raise OrderRefused(
            "a change names its order twice"
            if order_id
            else "a change by client_order_id brings a new client_order_id",
            expected="an order_id, or the client_order_id that the order was sent with, alone",
            found=f"{original_client_order_id!r} and {order_id or client_order_id!r}",
            remedy="name the order by its order_id",
        )
    row = blank_row(kind, number, account, original_client_order_id or client_order_id)
    change: Any = row[:8].view(ORDER_CHANGE)[0]
    change["order_id"] = whole(order_id, "order_id", -(1 << 63), (1 << 63) - 1)
    if original_client_order_id:
        change["exec_flags"] = ExecFlags.BY_CLIENT_ORDER_ID
    elif client_order_id:
        change["exec_flags"] = ExecFlags.HAS_CLIENT_ORDER_ID
    if price is not None:
        change["price"] = instrument.ticks(price)
    if qty is not None:
        change["qty"] = instrument.lots(qty)
    return row


def mass_cancel_row(number: int, side: str, account: int) -> NDArray[np.int64]:
    """Return a MASS_CANCEL; number 0: of every instrument, side "": both."""
    row = blank_row(CommandKind.MASS_CANCEL, number, account)
    wanted: Any = row[:8].view(MASS_CANCEL)[0]
    wanted["side"] = named(Side, side, "side") if side else 0
    return row


def stamped(
    rows: NDArray[np.int64], gateway: int, incarnation: int, first: int
) -> NDArray[np.int64]:
    """Return commands with the stamps of who sends them; its ingress sequences begin at `first`."""
    ready = rows.copy()
    numbers = np.arange(first, first + len(ready)) | gateway << 48
    kinds = ready[:, 1] & 0xFF
    own = (kinds >= CommandKind.SESSION_ATTACH) & (kinds <= CommandKind.GATEWAY_DOWN)
    two = (ready[:, 1] >> 8) & Flags.TWO_SLOTS != 0
    for chosen, record in (
        (two, ready[:, 8:].view(ORIGIN)[:, 0]),
        (own, ready[:, :8].view(SESSION)[:, 0]),
    ):
        record["session_id"][chosen] = gateway
        record["ingress_id"][chosen] = numbers[chosen]
        record["incarnation"][chosen] = incarnation
    ready[:, :8].view(SESSION)[:, 0]["gateway_id"][own] = gateway
    return ready


class OrderEntry(ABC):
    """What a trader can ask for, wherever the venue runs.

    Attributes
    ----------
    _instruments : dict of int to Instrument
        What is listed, by instrument_id.
    _ids : dict of str to int
        instrument_id by symbol.
    """

    _instruments: dict[int, Instrument]
    _ids: dict[str, int]
    _default_account = DEFAULT_ACCOUNT

    @abstractmethod
    def _reported(self, row: NDArray[np.int64], instrument: Instrument) -> Report:
        """Send a command and return what became of its order."""

    @abstractmethod
    def _mass_canceled(self, row: NDArray[np.int64], symbol: str) -> MassCanceled:
        """Send a mass cancel and return what came of it when its last order is gone."""

    def instrument(self, symbol: str) -> Instrument:
        """Return the instrument of a symbol; refuse an unknown one."""
        if not isinstance(symbol, str) or symbol not in self._ids:
            raise OrderRefused(
                "there is no such symbol",
                expected=", ".join(self._ids) or "none is listed",
                found=repr(symbol),
            )
        return self._instruments[self._ids[symbol]]

    def submit(
        self,
        symbol: str,
        side: str,
        *,
        price: Number,
        qty: Number,
        order_type: str = "limit",
        time_in_force: str = "",
        account: int | None = None,
        client_order_id: str = "",
    ) -> Report:
        """Send a new order and return what became of it.

        Parameters
        ----------
        price : decimal
            The limit; of a market order, the worst price it may trade at.
        order_type, time_in_force : str
            "limit" (default "gtc", or "ioc") or "market" ("ioc").
        account : int
            Whose order; default: 1, or the account that the client connected for.
        client_order_id : str
            Your own name for it, at most 36 bytes, unique per account.
        """
        instrument = self.instrument(symbol)
        row = new_order_row(
            instrument,
            self._ids[symbol],
            side,
            price=price,
            qty=qty,
            order_type=order_type,
            time_in_force=time_in_force,
            account=self._default_account if account is None else account,
            client_order_id=client_order_id,
        )
        return self._reported(row, instrument)

    def cancel(
        self,
        order: Report | int = 0,
        symbol: str = "",
        *,
        account: int | None = None,
        original_client_order_id: str = "",
    ) -> Report:
        """Cancel a resting order.

        Parameters
        ----------
        order : Report or int
            What `submit` returned, or an order_id; with an order_id, its symbol too.
        account : int
            Who asks; default: the account of the Report, else as in `submit`.
        original_client_order_id : str
            In the place of `order`: the client_order_id that the order was sent with.
        """
        return self._change(
            CommandKind.CANCEL_ORDER, order, symbol, account,
            original_client_order_id=original_client_order_id,
        )  # fmt: skip

    def replace(
        self,
        order: Report | int = 0,
        symbol: str = "",
        *,
        price: Number,
        qty: Number,
        account: int | None = None,
        client_order_id: str = "",
        original_client_order_id: str = "",
    ) -> Report:
        """Give a resting order a new price and a new total quantity (filled lots included)."""
        return self._change(
            CommandKind.REPLACE_ORDER, order, symbol, account, price, qty,
            client_order_id, original_client_order_id,
        )  # fmt: skip

    def reduce(
        self,
        order: Report | int = 0,
        symbol: str = "",
        *,
        qty: Number,
        account: int | None = None,
        original_client_order_id: str = "",
    ) -> Report:
        """Take a quantity off a resting order, which keeps its place."""
        return self._change(
            CommandKind.REDUCE_ORDER, order, symbol, account, None, qty,
            original_client_order_id=original_client_order_id,
        )  # fmt: skip

    def mass_cancel(
        self, symbol: str = "", *, side: str = "", account: int | None = None
    ) -> MassCanceled:
        """Cancel all resting orders of an account.

        Parameters
        ----------
        symbol, side : str
            Of this instrument, this side only; default: all.
        """
        number = 0
        if symbol:
            self.instrument(symbol)
            number = self._ids[symbol]
        row = mass_cancel_row(number, side, self._default_account if account is None else account)
        return self._mass_canceled(row, symbol)

    def _change(
        self,
        kind: CommandKind,
        order: Report | int,
        symbol: str,
        account: int | None,
        price: Number | None = None,
        qty: Number | None = None,
        client_order_id: str = "",
        original_client_order_id: str = "",
    ) -> Report:
        if isinstance(order, Report):
            symbol = symbol or order.symbol
            account = order.account_id if account is None else account
            order = order.order_id
        instrument = self.instrument(symbol)
        row = change_row(
            kind,
            instrument,
            self._ids[symbol],
            order,
            price=price,
            qty=qty,
            account=self._default_account if account is None else account,
            client_order_id=client_order_id,
            original_client_order_id=original_client_order_id,
        )
        return self._reported(row, instrument)
