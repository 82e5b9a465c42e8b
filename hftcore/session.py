"""A session on the venue's own host: one gateway slot, held by this process, over shared memory.

    session --ingress-g--> sequencer ... reporter --reports-g--> session

A venue has slots for a few such sessions, numbered from 1; which one is free is decided by its lock
(`ipc.liveness`), so a client that was killed frees it at once and one that is only stopped keeps
it. Whoever takes a slot goes on in its ingress ring where the last one died, counts its incarnation
up by one, and says with SESSION_ATTACH for which accounts it wants reports. The echo of that is the
first report that counts: whatever lies before it in the ring is somebody else's. The cursor of the
report ring only ever moves on, from session to session, and stays where it is between them: a
reporter that has not heard of a session's end yet can't lap the next one; at worst it cuts off the
one that is gone.

Commands are stamped here with who sent them: session, ingress sequence (1, 2, ... per incarnation),
incarnation. Answers come back in the order sent, so counting is all that matching them up takes.

A report ring is never waited for. Who lets it fill up is cut off: what came before the cut can
still be read, then every call says `CutOff`. What was missed is in the journal only; `reconnect`
takes a new incarnation and goes on from now.

Comes before: `client` (one order at a time), `ops.demo` (the flow), `ops.live_replay`. After: the
sequencer and the reporter. Rejected: a session a thread (one slot has one writer).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from hftcore.arguments import whole
from hftcore.engine.client import Client as Rings
from hftcore.engine.client import client_of, drain, send
from hftcore.errors import CutOff, NoAnswer
from hftcore.limits import MAX_ACCOUNTS
from hftcore.messages import (
    CUT_INCARNATION,
    CUT_SEQUENCE,
    ECHO,
    GATEWAY_WORDS,
    INCARNATION,
    INGRESS_SEQUENCE,
    SESSION,
    CommandKind,
)
from hftcore.ops.gateway_slots import take_slot
from hftcore.ops.memory import VenueMemory
from hftcore.ops.venue_file import VenueRecord, attached, role_lock
from hftcore.orders import stamped
from ipc.errors import RegionRefused
from ipc.liveness import RoleLock, holder_pid
from ipc.ring import place_cursor, resume_writer
from ipc.wait import (
    ASLEEP,
    IDLE_POLLS,
    Strategy,
    lay_bell,
    new_waiter,
    on_idle,
    wake_each,
)

LIVENESS_S = 0.1
"""Between two looks whether the venue still lives, while waiting."""
LOG_ROWS = 4_096
"""Reports read at a time."""
RECORD_SLOTS = 3
"""That one report takes at most: a pad and two."""

_ATTACHED = ECHO + CommandKind.SESSION_ATTACH
_DETACHED = ECHO + CommandKind.SESSION_DETACH


class Session:
    """One gateway slot of a running venue. A context manager: it detaches and frees the slot.

    Attributes
    ----------
    record : VenueRecord
        What the venue says of itself.
    memory : VenueMemory
    gateway : int
        Number of the slot.
    incarnation : int
    sent : int
        Commands sent in this incarnation, SESSION_ATTACH included.
    attach_sequence : int
        Of the newest SESSION_ATTACH: reports are complete from there on.
    rings : engine.client.Client
        Both rings, for kernels.
    timeout_s : float
    """

    def __init__(
        self,
        record: VenueRecord,
        memory: VenueMemory,
        gateway: int,
        lock: RoleLock,
        accounts: Sequence[int],
        timeout_s: float,
    ) -> None:
        self.record = record
        self.memory = memory
        self.gateway = gateway
        self.accounts = tuple(accounts)
        self.timeout_s = timeout_s
        self.incarnation = self.sent = self.attach_sequence = 0
        self._lock = lock
        self._log = np.zeros((LOG_ROWS, 16), np.int64)
        self._early: list[NDArray[np.int64]] = []
        self.cells = memory.gateways()[gateway * GATEWAY_WORDS : (gateway + 1) * GATEWAY_WORDS]
        self._ingress, self._reports = memory.ingress(gateway), memory.reports(gateway)
        worker = record.worker_of("sequencer")
        strategy = Strategy[worker.strategy.upper()]
        self.venue_bell = memory.worker_bell(worker.number)
        self.bell = lay_bell(memory.gateway_bell(gateway), strategy)
        # where the workers sleep, cpus are shared: who yields for long is served last
        yields = 10 if strategy == Strategy.SPIN_THEN_FUTEX else 100
        self.waiter = new_waiter(strategy, yields=yields)
        self.rings: Rings = client_of(self._ingress, self._reports)

    @classmethod
    def open(
        cls,
        venue: str,
        accounts: Sequence[int],
        *,
        gateway: int | None = None,
        base: Path | None = None,
        timeout_s: float = 5.0,
        name: str = "client",
    ) -> Session:
        """Take a slot of a running venue and attach it to some accounts.

        Parameters
        ----------
        accounts : sequence of int
            Whose reports come here; those of an account go to every session that attached to it.
        gateway : int, optional
            The slot to take; default: the first free one.
        name : str
            What others are told who holds the slot.

        Raises
        ------
        OrderRefused
            An account has no number that the venue takes.
        VenueRefused
            No such venue is up, or no slot is free.
        NoAnswer
            The venue doesn't answer in time.
        """
        for account in accounts:
            whole(account, "account", 1, MAX_ACCOUNTS - 1)
        record, memory = attached(venue, base, writable=True)
        try:
            number, lock = take_slot(record, memory.directory, gateway, name)
        except BaseException:
            memory.close()
            raise
        session = cls(record, memory, number, lock, accounts, timeout_s)
        try:
            session._begin()
        except BaseException:
            session._let_go()
            raise
        return session

    def _begin(self) -> None:
        """Take over both rings as a new incarnation, and attach."""
        mask = self._ingress.capacity - 1
        resume_writer(self._ingress.cells, self._ingress.words, mask)
        cells, reports = self.cells, self._reports
        cells[INGRESS_SEQUENCE] = 0
        cells[INCARNATION] += 1
        self.incarnation = int(cells[INCARNATION])
        self.sent = 0
        # the reporter may still write for the one before us, up to where it last knew of room: a
        # lap from the cursor, which was never given up; so it must not go back, were it by the one
        # record that is published before the writer says where it is
        begin, standing = reports.position, reports.cursor(0)
        if begin < standing <= begin + RECORD_SLOTS:
            begin = standing
        place_cursor(reports.cells, 0, begin)
        self.rings.state["event_position"] = begin
        for account in self.accounts:
            self._send_session(CommandKind.SESSION_ATTACH, account)
        self._await_echoes(_ATTACHED)

    def _send_session(self, kind: CommandKind, account: int) -> None:
        row = np.zeros((1, 16), np.int64)
        record: Any = row[0, :8].view(SESSION)[0]
        record["kind"] = kind
        record["account_id"] = account
        record["graceful"] = kind == CommandKind.SESSION_DETACH
        self.send(row)

    def _await_echoes(self, echo: int) -> None:
        """Wait until each account's attach or detach came back.

        What comes before the first is somebody else's; what comes after it is kept for `take`.
        """
        left = set(self.accounts)
        deadline = time.monotonic() + self.timeout_s
        early: list[NDArray[np.int64]] = []
        self._early.clear()
        while left:
            for row in self.wait(deadline, "attaching" if echo == _ATTACHED else "detaching"):
                head: Any = row[:8].view(SESSION)[0]
                kind, ours = int(head["kind"]), int(head["incarnation"]) == self.incarnation
                if kind == echo and ours:
                    left.discard(int(head["account_id"]))
                    self.attach_sequence = int(head["sequence"])
                elif len(left) < len(self.accounts):
                    early.append(row.copy())
        self._early = early

    # -- commands and reports -------------------------------------------------------------------

    def try_send(self, rows: NDArray[np.int64]) -> int:
        """Send as many commands as there is room for; return how many.

        Parameters
        ----------
        rows : int64[n, 16]
            Commands as from `orders`; stamped here.
        """
        self.check()
        ready = stamped(rows, self.gateway, self.incarnation, self.sent + 1)
        count = int(send(self.rings, ready, 0, len(ready)))
        if count:
            self.sent += count
            self.cells[INGRESS_SEQUENCE] = self.sent
            wake_each(self.venue_bell, 1, -1)
        return count

    def send(self, rows: NDArray[np.int64]) -> None:
        """Send commands, waiting for room; reports are not read meanwhile.

        Raises
        ------
        NoAnswer
            There was no room in time.
        """
        done = self.try_send(rows)
        deadline = time.monotonic() + self.timeout_s
        while done < len(rows):
            if time.monotonic() > deadline:
                raise self.no_answer("taking commands", f"{done} of {len(rows)} taken")
            self.idle()
            done += self.try_send(rows[done:])

    def take(self) -> NDArray[np.int64]:
        """Return the reports that are there: int64[n, 16], slot A and slot B, good until next time.

        Raises
        ------
        CutOff
            There are none, and there will be none.
        """
        if self._early:
            early, self._early = np.stack(self._early), []
            return early
        self.rings.state["logged"] = 0
        count = int(drain(self.rings, self._log))
        if count == 0 and self.is_cut:
            # more may have been published between the look and the cut; after it nothing is
            count = int(drain(self.rings, self._log))
            if count == 0:
                self.check()
        return self._log[:count]

    def wait(self, deadline: float, what: str = "answering") -> NDArray[np.int64]:
        """Wait for reports and return them, as `take` does.

        Parameters
        ----------
        deadline : float
            On time.monotonic.
        what : str
            What the venue is waited for, for the message.

        Raises
        ------
        NoAnswer
            None came in time, or the venue ended.
        CutOff
        """
        next_look = time.monotonic() + LIVENESS_S
        while len(rows := self.take()) == 0:
            now = time.monotonic()
            if now > deadline:
                raise self.no_answer(what, f"nothing for {self.timeout_s:g} s")
            if now > next_look:
                next_look = now + LIVENESS_S
                if not self.venue_lives:
                    raise self.no_answer(what, "a venue that has ended")
            self.idle()
        if self.waiter[IDLE_POLLS]:  # what `on_work` does, which is compiled into loops only
            self.waiter[IDLE_POLLS] = 0
            self.bell[ASLEEP] = 0
        return rows

    def idle(self) -> None:
        """Wait a little, as the venue's workers do, after there was nothing to take."""
        on_idle(self.waiter, self.bell)

    @property
    def venue_lives(self) -> bool:
        """Whether the start of the venue that this session belongs to still runs."""
        try:
            return holder_pid(self.memory.directory, role_lock("supervisor")) == self.record.pid
        except RegionRefused:  # its directory is gone, or another's now
            return False

    @property
    def is_cut(self) -> bool:
        """Whether the reporter has given this incarnation up."""
        return self.incarnation > 0 and int(self.cells[CUT_INCARNATION]) == self.incarnation

    def check(self) -> None:
        """Raise CutOff when this incarnation was cut off."""
        if self.is_cut:
            raise CutOff(
                "this client was cut off: it did not read its reports in time",
                expected=f"at most {self._reports.capacity} slots of unread reports",
                found=f"reports from sequence {int(self.cells[CUT_SEQUENCE])} on are missing here",
                where=self.where,
                remedy="they come back only with the journal; `reconnect()` goes on from now",
            )

    @property
    def where(self) -> str:
        """Name this session for messages."""
        return f"venue {self.record.config.name}, gateway {self.gateway}"

    def no_answer(self, what: str, found: str) -> NoAnswer:
        """Return the error for a venue that was waited for in vain."""
        lives = self.venue_lives
        return NoAnswer(
            "the venue does not answer",
            expected=f"{what} within {self.timeout_s:g} s",
            found=found if lives else "a venue that has ended",
            where=self.where,
            remedy="`hft stat` says how far each role is" if lives else "hft up, then connect anew",
        )

    # -- the end --------------------------------------------------------------------------------

    def reconnect(self) -> None:
        """Begin a new incarnation in the same slot, from now on.

        Reports of the time between are not made up for.
        """
        self._begin()

    def close(self) -> None:
        """Detach, as far as the venue still answers, and free the slot."""
        if not self._lock.held:
            return
        try:
            if not self.is_cut and self.venue_lives:
                with suppress(NoAnswer, CutOff):
                    for account in self.accounts:
                        self._send_session(CommandKind.SESSION_DETACH, account)
                    self._await_echoes(_DETACHED)
        finally:
            self._let_go()

    def _let_go(self) -> None:
        # the cursor stays: a detach that was not answered leaves a reporter that still writes
        self._lock.release()
        self.memory.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
