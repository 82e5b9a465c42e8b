"""The client for programs on the venue's own host: orders over shared memory, reports back.

    with Client.connect("venue", account=1) as client:
        report = client.submit("BTC/USD", "buy", price="60000", qty="0.5")

The same calls as `Exchange` (both are an `OrderEntry`), answered by a running venue: a call sends
one command, waits for what comes back, and returns the same Report. Fills that come later, because
somebody else traded with a resting order, are seen by `poll`. For many commands at once `send`
takes rows and returns at once, and `poll` or `poll_rows` brings the answers in the order sent.

What this client knows of its orders it knows from reports since it attached: of an order of an
earlier connection the filled quantity counts from then on. Comes before: `orders`, `session`;
after: a trader's program. hftcore/docs/clients.md has an example that runs.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from hftcore.errors import OrderRefused
from hftcore.instruments import Instrument
from hftcore.messages import ECHO, NEW_ORDER, ORIGIN, CommandKind, EventKind, Flags
from hftcore.orders import ROW_WORDS, OrderEntry
from hftcore.reports import (
    Event,
    MassCanceled,
    OrderState,
    Report,
    decode_event,
    fold,
    mass_canceled_of,
    report_of,
)
from hftcore.session import Session

_DONE = ECHO + CommandKind.MASS_CANCEL_DONE


class Client(OrderEntry):
    """A trader's connection to a venue on this host. A context manager; `connect` makes it.

    Attributes
    ----------
    session : Session
        The gateway slot below.
    """

    def __init__(self, session: Session) -> None:
        self.session = session
        self._instruments = dict(enumerate(session.record.config.instruments, 1))
        self._ids = {each.symbol: number for number, each in self._instruments.items()}
        self._default_account = session.accounts[0]
        self._start()

    def _start(self) -> None:
        self._orders: dict[int, OrderState] = {}
        self._names: dict[tuple[int, str], int] = {}
        self._unread: list[NDArray[np.int64]] = []
        self._base = self.session.sent  # commands of the session itself
        self._answered = 0
        self._last_answer = self.session.attach_sequence

    @classmethod
    def connect(
        cls,
        venue: str = "venue",
        *,
        account: int | Sequence[int] = 1,
        gateway: int | None = None,
        timeout_s: float = 5.0,
        base: Path | None = None,
    ) -> Client:
        """Connect to a venue that `hft up` (or `running_venue`) started on this host.

        Parameters
        ----------
        account : int or sequence of int
            Whose orders this client sends and whose reports it gets; the first is the default of
            every call. Nobody else's reports come here.
        gateway : int, optional
            The slot to take; default: the first free one.
        timeout_s : float
            How long a call waits for the venue.
        base : Path, optional
            Directory of this user's venues.

        Raises
        ------
        VenueRefused
            No such venue is up, or no slot is free.
        """
        accounts = [account] if isinstance(account, int) else list(account)
        if not accounts:
            raise OrderRefused("a client trades for an account", expected="one or more", found="0")
        return cls(Session.open(venue, accounts, gateway=gateway, timeout_s=timeout_s, base=base))

    # -- one command at a time ------------------------------------------------------------------

    def _reported(self, row: NDArray[np.int64], instrument: Instrument) -> Report:
        """Send a command, wait for its answer, and report the state of its order after it."""
        events, states = self._answer(row, EventKind.PAD)
        order_id = events[0].order_id
        state = states.get(order_id) or self._orders.get(order_id)
        account_id = int(row[:8].view(NEW_ORDER)[0]["account_id"])
        if state is not None and state.account_id == account_id:
            instrument = self._instruments[state.instrument_id]
        name = _text(row[8:].view(ORIGIN)[0]["client_order_id"])
        return report_of(events, instrument, account_id, state, name)

    def _mass_canceled(self, row: NDArray[np.int64], symbol: str) -> MassCanceled:
        """Send a mass cancel and wait until its last order is gone."""
        account_id = int(row[:8].view(NEW_ORDER)[0]["account_id"])
        events, _ = self._answer(row, _DONE)
        return mass_canceled_of(events, symbol, account_id)

    def _answer(
        self, row: NDArray[np.int64], until: int
    ) -> tuple[tuple[Event, ...], dict[int, OrderState]]:
        """Send a command; return the events of its answer and what changed since it was sent.

        Parameters
        ----------
        until : int
            Kind of the event that ends the answer, when it is not the last of its command.
        """
        account = int(row[:8].view(NEW_ORDER)[0]["account_id"])
        if account not in self.session.accounts:
            raise OrderRefused(
                "this client is not connected for the account",
                expected=", ".join(map(str, self.session.accounts)),
                found=str(account),
                where=self.session.where,
                remedy="connect with account=(1, 2, ...)",
            )
        self.send(row.reshape(1, -1))
        wanted = self.session.sent - self._base
        ours: list[NDArray[np.int64]] = []
        changed: dict[int, OrderState] = {}
        deadline = time.monotonic() + self.session.timeout_s
        while not (ours and _ends(ours[0], ours[-1], until)):
            rows = self.session.wait(deadline)
            changed.update(self._follow(rows))
            numbers = self._numbers(rows)
            done = False
            for report, number in zip(rows, numbers.tolist(), strict=True):
                kind = int(report[1]) & 0xFF
                slices = ours and not done and kind in (EventKind.CANCELED, until)
                if number == wanted or (until and number == 0 and slices):
                    ours.append(report.copy())
                    done = _ends(ours[0], ours[-1], until)
                else:
                    self._unread.append(report.reshape(1, -1).copy())
        return tuple(decode_event(words, self._instruments) for words in ours), changed

    def _numbers(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return which command each report answers, counted from 1; 0: none of this client's."""
        answers = ((rows[:, 1] >> 8) & Flags.ANSWER != 0) & (rows[:, 1] & 0xFF != _DONE)
        sequences = rows[answers, 2]
        before = np.concatenate([[self._last_answer], sequences[:-1]])
        numbers = np.zeros(len(rows), np.int64)
        numbers[answers] = self._answered + np.cumsum(sequences != before)
        if len(sequences):
            self._answered = int(numbers[answers][-1])
            self._last_answer = int(sequences[-1])
        return numbers

    def _follow(self, rows: NDArray[np.int64]) -> dict[int, OrderState]:
        """Carry the states and names of the orders along some reports; return what changed."""
        states = fold(self._orders, rows)
        for order_id, state in states.items():
            if state.leaves_qty:
                self._orders[order_id] = state
            else:
                self._orders.pop(order_id, None)
        accepted = rows[rows[:, 1] & 0xFF == EventKind.ACCEPTED]
        for row in accepted:
            name = _text(row[8:].view(ORIGIN)[0]["client_order_id"])
            if name:
                order_id = int(row[5])
                self._names[states[order_id].account_id, name] = order_id
        return states

    # -- many commands, and what comes by itself ------------------------------------------------

    def send(self, rows: NDArray[np.int64]) -> None:
        """Send commands without waiting for answers, only for room.

        Reports that arrive meanwhile are kept for `poll`, so that this client is not cut off.

        Parameters
        ----------
        rows : int64[n, 16]
            As `orders` makes them.
        """
        if rows.ndim != 2 or rows.shape[1] != ROW_WORDS or rows.dtype != np.int64:
            raise OrderRefused(
                "these are not rows of commands",
                expected="int64[n, 16]",
                found=f"{rows.dtype}{list(rows.shape)}",
            )
        session, done = self.session, 0
        deadline = time.monotonic() + session.timeout_s
        while (done := done + session.try_send(rows[done:])) < len(rows):
            if len(found := session.take()):
                self._unread.append(self._read(found))
                deadline = time.monotonic() + session.timeout_s
            elif time.monotonic() > deadline or not session.venue_lives:
                raise session.no_answer("taking commands", f"{done} of {len(rows)} taken")
            else:
                session.idle()

    def _read(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        self._numbers(rows)
        self._follow(rows)
        return rows.copy()

    def poll(self, timeout_s: float = 0.0) -> tuple[Event, ...]:
        """Return the events that arrived since, those of a returned Report left out.

        Parameters
        ----------
        timeout_s : float
            How long to wait when there are none.

        Raises
        ------
        CutOff
            Everything that was published for this client is read, and nothing more will come.
        """
        rows = self.poll_rows(timeout_s)
        return tuple(decode_event(words, self._instruments) for words in rows)

    def poll_rows(self, timeout_s: float = 0.0) -> NDArray[np.int64]:
        """Return what `poll` does as rows: int64[n, 16], slot A and slot B of each event."""
        deadline = time.monotonic() + timeout_s
        session = self.session
        while not self._unread:
            rows = session.take()
            if len(rows):
                self._unread.append(self._read(rows))
            elif time.monotonic() >= deadline:
                return np.zeros((0, ROW_WORDS), np.int64)
            else:
                session.idle()
        found, self._unread = self._unread, []
        return np.concatenate(found)

    @property
    def unanswered(self) -> int:
        """Commands sent whose answer has not been read yet."""
        return self.session.sent - self._base - self._answered

    @property
    def orders(self) -> dict[int, OrderState]:
        """The orders that rest, by order_id, as far as reports since the connection tell."""
        return dict(self._orders)

    def order_id_of(self, client_order_id: str, account: int | None = None) -> int:
        """Return the order_id of an order by the name it was sent with; 0: none is known."""
        account = self._default_account if account is None else account
        return self._names.get((account, client_order_id), 0)

    # -- the end --------------------------------------------------------------------------------

    def reconnect(self) -> None:
        """Go on from now after a cut: a new incarnation; what is known of orders is forgotten."""
        self.session.reconnect()
        self._start()

    def close(self) -> None:
        """Detach in order and free the slot; orders stay on the book."""
        self.session.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _ends(first: NDArray[np.int64], last: NDArray[np.int64], until: int) -> bool:
    """Return whether an answer ends with this report."""
    if until and first[1] & 0xFF != EventKind.REJECTED:
        return bool(last[1] & 0xFF == until)
    return bool((last[1] >> 8) & Flags.LAST)


def _text(name: Any) -> str:
    """Read a client_order_id."""
    return bytes(name).rstrip(b"\0").decode(errors="replace")
