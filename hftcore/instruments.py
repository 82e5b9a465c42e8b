"""Instruments: what may be traded, in which steps, and how a decimal number becomes ticks and lots.

Inside the venue there are only whole ticks and whole lots; decimals exist at its edges, here. A
conversion that is not exact is refused, never rounded. tick x lot must be a whole number of the
quote asset's minor units, so that every trade's price x quantity is whole money.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hftcore.errors import ConfigurationRefused, OrderRefused
from hftcore.limits import MAX_INSTRUMENTS, MAX_LADDER_TICKS, MAX_ORDERS
from hftcore.messages import (
    INSTRUMENT_DEFINE,
    SYMBOL,
    CommandKind,
    Flags,
    OrderType,
    TimeInForce,
)

Number = Decimal | int | str | float

MAX_DIGITS = 64
"""Digits before or after the point of a number that is looked at; with more it is no price."""
ALLOWED_TYPES = (OrderType.LIMIT, OrderType.MARKET)
ALLOWED_TIFS = (TimeInForce.GTC, TimeInForce.IOC)
"""What the matcher takes so far; a listing says so."""


def exact(value: Number, what: str) -> Decimal:
    """Turn a number into a Decimal; a float counts as what it prints as."""
    try:
        number = Decimal(repr(value) if isinstance(value, float) else value)
    except (InvalidOperation, TypeError, ValueError):
        number = Decimal("NaN")
    if not number.is_finite():
        raise OrderRefused(
            f"the {what} is not a number",
            expected="a decimal number such as '60000.25'",
            found=repr(value),
        )
    return number


@dataclass(frozen=True)
class Instrument:
    """One tradable pair.

    Attributes
    ----------
    symbol : str
        BASE/QUOTE, at most 16 bytes.
    tick_size, lot_size : str
        Smallest step of the price in the quote asset, and of the quantity in the base asset.
    max_price : str
        Highest price; the ladder holds every tick up to it, and an unused one costs nothing.
    order_capacity : int
        Resting orders at most.
    quote_decimals : int
        Digits of the quote asset's minor unit.
    shard : int
        Which matcher has it.
    """

    symbol: str
    tick_size: str = "0.01"
    lot_size: str = "0.0001"
    max_price: str = "1000000"
    order_capacity: int = 65_536
    quote_decimals: int = 8
    shard: int = 0

    def __post_init__(self) -> None:
        encoded = self.symbol.encode()
        if not 0 < len(encoded) <= 16 or not self.symbol.isascii() or not self.symbol.isprintable():
            raise self._refusal("symbol", "1 to 16 printable ASCII characters", self.symbol)
        for name in ("tick_size", "lot_size", "max_price"):
            if exact(getattr(self, name), name) <= 0:
                raise self._refusal(name, "a number above 0", getattr(self, name))
        if not 2 <= self.ladder_ticks <= MAX_LADDER_TICKS:
            raise self._refusal(
                "max_price",
                f"a multiple of tick_size, at most {MAX_LADDER_TICKS - 1} ticks",
                f"{self.max_price} / {self.tick_size}",
            )
        if not 0 < self.order_capacity <= MAX_ORDERS:
            raise self._refusal("order_capacity", f"1 to {MAX_ORDERS}", str(self.order_capacity))
        value = self.tick * self.lot * (Decimal(10) ** self.quote_decimals)
        if value != value.to_integral_value() or not 0 < value < 1 << 62:
            raise self._refusal(
                "tick_size x lot_size",
                f"a whole number of units of 10^-{self.quote_decimals} of the quote asset",
                f"{self.tick * self.lot}",
            )

    def _refusal(self, key: str, expected: str, found: str) -> ConfigurationRefused:
        return ConfigurationRefused(
            f"the instrument {self.symbol!r} can't be listed",
            expected=expected,
            found=found,
            where=key,
            remedy=f"change {key}",
        )

    @property
    def tick(self) -> Decimal:
        """Smallest step of the price."""
        return Decimal(self.tick_size)

    @property
    def lot(self) -> Decimal:
        """Smallest step of the quantity."""
        return Decimal(self.lot_size)

    @property
    def ladder_ticks(self) -> int:
        """Ticks of the ladder: prices are 1 to ladder_ticks - 1."""
        ticks = Decimal(self.max_price) / self.tick
        return int(ticks) + 1 if ticks == ticks.to_integral_value() else 0

    def ticks(self, price: Number) -> int:
        """Return a price in ticks; refuse one between two ticks."""
        return self._steps(price, self.tick, "price")

    def lots(self, qty: Number) -> int:
        """Return a quantity in lots; refuse one between two lots."""
        return self._steps(qty, self.lot, "qty")

    def price(self, ticks: int) -> Decimal:
        """Return the price of a tick."""
        return self.tick * int(ticks)

    def qty(self, lots: int) -> Decimal:
        """Return the quantity of some lots."""
        return self.lot * int(lots)

    def _steps(self, value: Number, step: Decimal, what: str) -> int:
        number = exact(value, what)
        # as fractions: a quotient of Decimals is rounded at 28 digits
        wide = not -MAX_DIGITS <= int(number.as_tuple().exponent) <= MAX_DIGITS
        steps = Fraction(0) if wide else Fraction(number) / Fraction(step)
        if wide or steps.denominator != 1 or abs(steps) >= 1 << 62:
            raise OrderRefused(
                f"the {what} is not a whole number of steps",
                expected=f"a multiple of {step}",
                found=str(value),
                where=self.symbol,
                remedy=f"round the {what} before you send it",
            )
        return int(steps)


def definition(instrument: Instrument, instrument_id: int) -> NDArray[np.int64]:
    """Return the INSTRUMENT_DEFINE command that lists an instrument: int64[16], two slots."""
    if not 0 < instrument_id < MAX_INSTRUMENTS:
        raise ConfigurationRefused(
            "there are too many instruments",
            expected=f"at most {MAX_INSTRUMENTS - 1}",
            found=str(instrument_id),
        )
    words = np.zeros(16, np.int64)
    head: Any = words[:8].view(INSTRUMENT_DEFINE)[0]
    head["kind"] = CommandKind.INSTRUMENT_DEFINE
    head["flags"] = Flags.TWO_SLOTS
    head["instrument_id"] = instrument_id
    head["ladder_ticks"] = instrument.ladder_ticks
    head["order_capacity"] = instrument.order_capacity
    head["shard"] = instrument.shard
    minor = Decimal(10) ** instrument.quote_decimals
    head["tick_lot_value"] = int(instrument.tick * instrument.lot * minor)
    tail: Any = words[8:].view(SYMBOL)[0]
    encoded = instrument.symbol.encode()
    tail["symbol"][: len(encoded)] = list(encoded)
    tail["allowed_types"] = sum(1 << order_type for order_type in ALLOWED_TYPES)
    tail["allowed_tifs"] = sum(1 << time_in_force for time_in_force in ALLOWED_TIFS)
    for step, size, digits in (
        (instrument.tick, "tick_size", "price_decimals"),
        (instrument.lot, "lot_size", "qty_decimals"),
    ):
        exponent = int(step.normalize().as_tuple().exponent)
        head[digits] = max(0, -exponent)
        tail[size] = int(step.scaleb(max(0, -exponent)))
    return words


DEFAULT_INSTRUMENTS = (
    Instrument("DEC/USD", "0.0001", "0.1", "10000"),
    Instrument("BTC/USD", "0.01", "0.00001", "1000000"),
    Instrument("ETH/USD", "0.01", "0.0001", "100000"),
    Instrument("DEC/BTC", "0.00000001", "1", "1"),
)
"""What a venue lists when nobody says otherwise."""
