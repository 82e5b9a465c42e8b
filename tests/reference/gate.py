"""The reference gate: hftcore/docs/gate.md as the shortest Python that says it.

Orders and names are dictionaries; everything else is looked up in them by a loop. It is told what
the log showed (how much was settled when a command was judged) and says what the command must look
like in the log. Nothing is shared with the compiled gate but the numbers of `hftcore.messages` and
the bounds. Before it: tests/engine writes commands; after it: `book` carries them out.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from hftcore.accounts.expansion import LOOKS
from hftcore.accounts.names import MAX_NAMES_AN_ORDER
from hftcore.limits import MAX_ACCOUNTS, MAX_QTY, MAX_SLICE_IDS
from hftcore.messages import (
    ECHO,
    SLOT_BYTES,
    CommandKind,
    EventKind,
    ExecFlags,
    Flags,
    OrderStatus,
    OrderType,
    RejectReason,
    Side,
    StpMode,
    TimeInForce,
)
from tests.reference.codec import BODY_BEGIN, encode_command
from tests.reference.records import (
    NO_ID,
    Command,
    Echo,
    Event,
    Fills,
    Listing,
    MassCancel,
    NewOrder,
    OrderChange,
    OrderState,
    Other,
    Party,
    StatusReport,
)

DAY_S = 86_400
VENUE = 0
"""The gateway that may send everything."""
CHANGES = (CommandKind.CANCEL_ORDER, CommandKind.REPLACE_ORDER, CommandKind.REDUCE_ORDER)
SESSIONS = (CommandKind.SESSION_ATTACH, CommandKind.SESSION_DETACH)
FORBIDDEN = 0x7F


@dataclass
class Rule:
    """What an instrument allows."""

    listing: Listing
    listed: bool = False
    min_qty: int = 1
    max_qty: int = MAX_QTY
    min_notional: int = 0
    max_notional: int = 0

    def refusal(self, price: int, qty: int) -> int:
        """Judge tick, lot, quantity and notional; 0: good."""
        notional = price * qty * max(self.listing.tick_lot_value, 1)
        if not 1 <= price < self.listing.ladder_ticks:
            return RejectReason.BAD_PRICE
        if not self.min_qty <= qty <= self.max_qty:
            return RejectReason.BAD_QTY
        if self.max_notional and notional > self.max_notional:
            return RejectReason.NOTIONAL
        return RejectReason.NOTIONAL if notional < self.min_notional else 0


@dataclass
class Known:
    """An order that the gate knows, as settled."""

    command: NewOrder
    leaves: int
    cum: int = 0
    ended_s: int = 0
    """0: open."""
    status: int = OrderStatus.NEW

    @property
    def order_id(self) -> int:
        return self.command.sequence


@dataclass
class Name:
    """A client_order_id in use: of which order, brought by which command."""

    order_id: int
    payload: object
    brought_by: int


@dataclass
class Expansion:
    """The mass cancel at hand."""

    parent: MassCancel
    covered: dict[int, int] = field(default_factory=dict)
    """Newest order_id in a slice, by instrument."""
    last_slice: int = 0
    canceled: int = 0


def payload_of(command: NewOrder | OrderChange) -> object:
    """Return what a repetition has to agree in: all that the sender says of what it wants."""
    flags = command.exec_flags & ~ExecFlags.KNOWN_ORDER
    common = (command.kind, command.instrument_id, command.price, command.qty, flags)
    if isinstance(command, OrderChange):
        return (*common, command.order_id)
    terms = (command.side, command.order_type, command.time_in_force, command.stp_mode)
    return (*common, *terms, command.trade_group)


class Gate:
    """Commands of gateways in, commands of the log out; events say what became of them."""

    def __init__(self, most_known: int, allow_replay: bool = False) -> None:
        self.most_known = most_known
        self.allow_replay = allow_replay
        """Orders that are known at once, and names: open ones and ended ones together."""
        self.rules: dict[int, Rule] = {}
        self.orders: dict[int, Known] = {}
        """By order_id, in the order in which they came."""
        self.ended: list[int] = []
        """Order ids, in the order in which they ended."""
        self.names: dict[tuple[int, bytes], Name] = {}
        self.expansion: Expansion | None = None
        self.forgotten = 0

    # --- a command of a gateway ------------------------------------------------------------------

    def admit(self, command: Command, gateway: int, settled: int) -> Command:
        """Return the command as it stands in the log; sequence and time are stamped already."""
        command = replace(command, flags=int(command.flags & Flags.LINKED))
        if isinstance(command, NewOrder | StatusReport | OrderChange) or (
            isinstance(command, MassCancel) and command.origin is not None
        ):
            assert command.origin is not None
            stamped = with_gateway(command.origin.ingress_id, gateway)
            command = replace(command, origin=replace(command.origin, ingress_id=stamped))
        if isinstance(command, NewOrder) or (
            isinstance(command, OrderChange) and command.kind in CHANGES
        ):
            # fee rates and the trade group come with accounts; nobody's own are taken
            command = replace(command, origin=replace(command.origin, maker_rate=0, taker_rate=0))
            if isinstance(command, NewOrder):
                command = replace(command, trade_group=0)
            return self._judged(command, settled)
        if isinstance(command, StatusReport):
            return self._query(command, settled)
        if isinstance(command, MassCancel) and command.kind == CommandKind.MASS_CANCEL:
            return self._mass_cancel(command, gateway)
        if command.kind in SESSIONS and command.account_id < MAX_ACCOUNTS:
            return session_of(command, gateway)
        if gateway != VENUE:
            return forbidden(command, gateway)
        self._note(command)
        return command

    def _judged(self, command: NewOrder | OrderChange, settled: int) -> Command:
        rule = self.rules.get(command.instrument_id)
        if rule is None or not rule.listed:
            outcome: tuple[Command, int] = command, RejectReason.UNKNOWN_INSTRUMENT
        elif isinstance(command, NewOrder):
            outcome = self._new_order(command, rule, settled)
        else:
            outcome = self._change(command, rule, settled)
        judged, reason = outcome
        if isinstance(judged, StatusReport):
            return judged
        lag = min(command.sequence - settled, 2**32 - 1)
        return replace(judged, settled_lag=lag, reject_reason=int(reason))  # type: ignore[call-arg]

    def _new_order(self, command: NewOrder, rule: Rule, settled: int) -> tuple[Command, int]:
        found = self._named(command)
        if found is not None:
            return self._repetition(command, found, settled)
        reason = self._refusal(command, rule)
        named = command.origin.client_order_id != NO_ID
        if not reason and named and not self._room_for_a_name():
            reason = RejectReason.CAPACITY
        if not reason:
            if len(self.orders) == self.most_known:
                self._forget(self.ended[0])
            self.orders[command.sequence] = Known(command, command.qty)
            if named:
                self._name(command, command.sequence)
        return command, reason

    def _refusal(self, command: NewOrder, rule: Rule) -> int:
        if command.order_type not in set(OrderType):
            return RejectReason.BAD_ORDER_TYPE
        if command.time_in_force not in set(TimeInForce):
            return RejectReason.BAD_TIME_IN_FORCE
        types, tifs = rule.listing.allowed_types, rule.listing.allowed_tifs
        if not (types >> command.order_type & tifs >> command.time_in_force & 1):
            return RejectReason.PROFILE
        if command.exec_flags & ~(ExecFlags.REPLAY_ADD | ExecFlags.HAS_CLIENT_ORDER_ID):
            return RejectReason.PROFILE
        if command.stp_mode > StpMode.NONE:
            return RejectReason.PROFILE
        gtc = command.time_in_force == TimeInForce.GTC
        if gtc and command.order_type != OrderType.LIMIT:
            return RejectReason.BAD_TIME_IN_FORCE
        if command.exec_flags & ExecFlags.REPLAY_ADD and not (gtc and self.allow_replay):
            return RejectReason.PROFILE
        if command.side not in set(Side):
            return RejectReason.BAD_SIDE
        reason = rule.refusal(command.price, command.qty)
        if reason:
            return reason
        return 0 if 1 <= command.account_id < MAX_ACCOUNTS else RejectReason.UNKNOWN_ACCOUNT

    def _change(self, command: OrderChange, rule: Rule, settled: int) -> tuple[Command, int]:
        brings = bool(command.exec_flags & ExecFlags.HAS_CLIENT_ORDER_ID)
        means = bool(command.exec_flags & ExecFlags.BY_CLIENT_ORDER_ID)
        found = self._named(command)
        if brings and means:
            return command, RejectReason.PROFILE
        if brings and found is not None:
            return self._repetition(command, found, settled)
        if means and found is None:
            return command, RejectReason.UNKNOWN_ORDER
        if means and found is not None:
            command = replace(command, order_id=found.order_id)
        taken = ExecFlags.HAS_CLIENT_ORDER_ID | ExecFlags.BY_CLIENT_ORDER_ID
        if command.exec_flags & ~(taken | ExecFlags.KNOWN_ORDER):
            return command, RejectReason.PROFILE
        reason = 0
        if command.kind == CommandKind.REPLACE_ORDER:
            reason = rule.refusal(command.price, command.qty)
        elif command.kind == CommandKind.REDUCE_ORDER and command.qty < 1:
            reason = RejectReason.BAD_QTY
        if reason:
            return command, reason
        order = self._own(command.order_id, command.account_id)
        flags = int(command.exec_flags & taken)
        if order is not None and order.command.instrument_id == command.instrument_id:
            flags |= ExecFlags.KNOWN_ORDER
            if brings and command.origin.client_order_id != NO_ID and not order.ended_s:
                if not self._room_for_a_name():
                    return command, RejectReason.CAPACITY
                self._name(command, order.order_id)
        return replace(command, exec_flags=flags), 0

    def _query(self, command: StatusReport, settled: int) -> Command:
        order = self._own(command.order_id, command.account_id)
        by_name = command.exec_flags & ExecFlags.BY_CLIENT_ORDER_ID
        if by_name:
            found = self._named(command)
            order = self.orders[found.order_id] if found else None
        if order is None:
            return replace(
                command, cum_qty=0, leaves_qty=0, order_status=0,
                reject_reason=int(RejectReason.UNKNOWN_ORDER),
            )  # fmt: skip
        return status_of(order, command, settled, by_name)

    def _mass_cancel(self, command: MassCancel, gateway: int) -> Command:
        command = replace(
            command, parent_sequence=0, first_order_id=0, last_order_id=0, cause=0, reject_reason=0
        )
        account = command.account_id
        if account >= MAX_ACCOUNTS or (account == 0 and gateway != VENUE):
            return replace(command, reject_reason=int(RejectReason.UNKNOWN_ACCOUNT))
        if command.side > Side.SELL:
            return replace(command, reject_reason=int(RejectReason.BAD_SIDE))
        assert self.expansion is None, "one mass cancel at a time"
        self.expansion = Expansion(command)
        return command

    def _note(self, command: Command) -> None:
        rule = self.rules.get(command.instrument_id)
        if isinstance(command, Listing) and rule is None:
            self.rules[command.instrument_id] = Rule(command)
        elif isinstance(command, Other) and rule and command.kind == CommandKind.INSTRUMENT_RULES:
            least, most, rule.min_notional, rule.max_notional = struct.unpack("<4q", command.body)
            rule.min_qty, rule.max_qty = max(least, 1), min(most, MAX_QTY) if most else MAX_QTY

    # --- names and orders ------------------------------------------------------------------------

    def _named(self, command: NewOrder | OrderChange | StatusReport) -> Name | None:
        return self.names.get((command.account_id, command.origin.client_order_id))

    def _own(self, order_id: int, account_id: int) -> Known | None:
        order = self.orders.get(order_id)
        return order if order and order.command.account_id == account_id else None

    def _name(self, command: NewOrder | OrderChange, order_id: int) -> None:
        own = [key for key, name in self.names.items() if name.order_id == order_id]
        if len(own) == MAX_NAMES_AN_ORDER:
            del self.names[own[0]]
        key = command.account_id, command.origin.client_order_id
        self.names[key] = Name(order_id, payload_of(command), command.sequence)

    def _repetition(
        self, command: NewOrder | OrderChange, found: Name, settled: int
    ) -> tuple[Command, int]:
        if found.payload != payload_of(command):
            return command, RejectReason.DUPLICATE_CLIENT_ORDER_ID
        order = self.orders[found.order_id]
        return status_of(order, command, settled, ExecFlags.DUPLICATE), 0

    def _room_for_a_name(self) -> bool:
        while len(self.names) == self.most_known and self.ended:
            self._forget(self.ended[0])
        return len(self.names) < self.most_known

    def _forget(self, order_id: int) -> None:
        self.ended.remove(order_id)
        del self.orders[order_id]
        self.names = {key: name for key, name in self.names.items() if name.order_id != order_id}
        self.forgotten += 1

    def pass_time(self, now_ns: int, most: int = 4_096) -> None:
        """Forget the orders that ended more than a day ago, so many with one time command."""
        for order_id in self.ended[:most]:
            if self.orders[order_id].ended_s + DAY_S < now_ns // 10**9:
                self._forget(order_id)

    # --- the sequencer's own commands ------------------------------------------------------------

    def _meant(self, order: Known) -> bool:
        assert self.expansion is not None
        parent, command = self.expansion.parent, order.command
        return (
            parent.account_id in (0, command.account_id)
            and parent.instrument_id in (0, command.instrument_id)
            and parent.session_id in (0, command.origin.session_id)
            and parent.side in (0, command.side)
        )

    def next_slice(self, header: Command) -> MassCancel | None:
        """Return the next slice of the mass cancel at hand; None: there is none."""
        assert self.expansion is not None
        parent, covered = self.expansion.parent, self.expansion.covered
        still_open = [order for order in self.orders.values() if not order.ended_s]
        for number, order in enumerate(still_open):
            instrument = order.command.instrument_id
            if order.order_id >= parent.sequence:
                return None
            if self._meant(order) and order.order_id > covered.get(instrument, 0):
                last = min(order.order_id + MAX_SLICE_IDS, parent.sequence) - 1
                if parent.session_id:
                    last = min(last, *self._before_another_session(still_open[number:]))
                covered[instrument] = last
                self.expansion.last_slice = header.sequence
                return replace(
                    parent,
                    kind=CommandKind.MASS_CANCEL_SLICE,
                    sequence=header.sequence,
                    sequenced_ns=header.sequenced_ns,
                    flags=0,
                    instrument_id=instrument,
                    parent_sequence=parent.sequence,
                    first_order_id=order.order_id,
                    last_order_id=last,
                    cause=CommandKind.MASS_CANCEL,
                    origin=None,
                )
        return None

    def _before_another_session(self, orders: list[Known]) -> Iterator[int]:
        """Yield how far the slice may go: the last order before one of another session."""
        assert self.expansion is not None
        parent = self.expansion.parent
        last = orders[0].order_id
        for order in orders[1 : LOOKS + 1]:
            ours = parent.account_id in (0, order.command.account_id)
            if ours and order.command.origin.session_id != parent.session_id:
                break
            last = order.order_id
        yield last

    def mass_cancel_done(self, header: Command, settled: int) -> MassCancel:
        """Return the end of the mass cancel at hand; it must be due."""
        assert self.expansion is not None
        expansion, self.expansion = self.expansion, None
        assert expansion.last_slice <= settled, "its last slice has not settled"
        return replace(
            expansion.parent,
            kind=CommandKind.MASS_CANCEL_DONE,
            sequence=header.sequence,
            sequenced_ns=header.sequenced_ns,
            flags=0,
            parent_sequence=expansion.parent.sequence,
            last_order_id=expansion.canceled,
            cause=CommandKind.MASS_CANCEL,
        )

    # --- events ----------------------------------------------------------------------------------

    def settle(self, event: Event | Echo) -> None:
        """Take in what became of a command."""
        if isinstance(event, Echo):
            if event.command.kind == CommandKind.INSTRUMENT_DEFINE | ECHO:
                self.rules[event.command.instrument_id].listed = True
            return
        now_s = event.sequenced_ns // 10**9
        if isinstance(event.second, Fills):
            fills = event.second
            self._fill(fills.resting_order_id, event.qty, fills.resting_leaves_qty, now_s)
            self._fill(fills.aggressor_order_id, event.qty, fills.aggressor_leaves_qty, now_s)
        elif event.kind in (EventKind.REPLACED, EventKind.RESTATED):
            self.orders[event.order_id].leaves = event.qty
        elif event.kind == EventKind.CANCELED:
            self._end(event.order_id, OrderStatus.CANCELED, now_s)
            if isinstance(event.second, OrderState) and self.expansion is not None:
                self.expansion.canceled += 1
        elif event.kind == EventKind.EXPIRED:
            self._end(event.order_id, OrderStatus.EXPIRED, now_s)
        elif event.kind == EventKind.REJECTED:
            assert isinstance(event.second, Party)
            self._settle_rejection(event, event.second, now_s)

    def _fill(self, order_id: int, qty: int, leaves: int, now_s: int) -> None:
        order = self.orders[order_id]
        order.cum += qty
        order.leaves = leaves
        if leaves == 0:
            self._end(order_id, OrderStatus.FILLED, now_s)

    def _end(self, order_id: int, status: OrderStatus, now_s: int) -> None:
        order = self.orders[order_id]
        assert not order.ended_s, "an order ends once"
        order.ended_s, order.status, order.leaves = max(now_s, 1), status, 0
        self.ended.append(order_id)

    def _settle_rejection(self, event: Event, party: Party, now_s: int) -> None:
        if party.command_kind == CommandKind.NEW_ORDER:
            if event.order_id in self.orders:  # else the gate itself refused it
                self._end(event.order_id, OrderStatus.REJECTED, now_s)
        elif party.command_kind == CommandKind.INSTRUMENT_DEFINE:
            rule = self.rules.get(event.instrument_id)
            if rule is not None and not rule.listed:
                del self.rules[event.instrument_id]
        elif party.exec_flags & ExecFlags.HAS_CLIENT_ORDER_ID:
            key = party.account_id, party.client_order_id
            name = self.names.get(key)
            if name is not None and name.brought_by == event.sequence:
                del self.names[key]


def status_of(order: Known, command: Command, settled: int, flags: int) -> StatusReport:
    """Answer with what is settled of an order."""
    status = order.status
    if not order.ended_s:
        status = OrderStatus.PARTIALLY_FILLED if order.cum else OrderStatus.NEW
        if order.order_id > settled:
            status = OrderStatus.PENDING
    assert isinstance(command, NewOrder | OrderChange | StatusReport)
    return StatusReport(
        sequence=command.sequence,
        sequenced_ns=command.sequenced_ns,
        flags=command.flags,
        instrument_id=command.instrument_id,
        account_id=command.account_id,
        cum_qty=order.cum,
        leaves_qty=order.leaves,
        order_id=order.order_id,
        order_status=int(status),
        exec_flags=int(flags),
        origin=command.origin,
    )


def with_gateway(ingress_id: int, gateway: int) -> int:
    """Stamp through which gateway a command came, whatever it says itself."""
    return (ingress_id & (2**48 - 1)) | gateway << 48


def session_of(command: Command, gateway: int) -> Command:
    """Stamp the gateway into a SESSION command."""
    assert isinstance(command, Other)
    due, session, incarnation, _, rest, ingress_id = struct.unpack("<qIIH6sq", command.body)
    ingress_id = with_gateway(ingress_id, gateway)
    body = struct.pack("<qIIH6sq", due, session, incarnation, gateway, rest, ingress_id)
    return replace(command, body=body)


def forbidden(command: Command, gateway: int) -> Other:
    """Return what becomes of a command that its gateway may not send: one of no kind."""
    record = encode_command(command)
    body = record[BODY_BEGIN:SLOT_BYTES]
    second = record[SLOT_BYTES + 8 :] or None
    if second is not None:
        second = second[:46] + gateway.to_bytes(2, "little") + second[48:]
    else:  # its last word becomes an ingress_id
        body = body[:24] + with_gateway(1, gateway).to_bytes(8, "little")
    return Other(
        kind=FORBIDDEN,
        sequence=command.sequence,
        sequenced_ns=command.sequenced_ns,
        flags=command.flags,
        account_id=command.account_id,
        body=body,
        second=second,
    )
