"""What a venue is made of: instruments, shards, gateways, ring sizes, endpoints, cpus.

One frozen value that everybody reads: the supervisor makes the regions of it, `venue.json` carries
it to the tools, a test makes one by hand. `hft up --config FILE.py` runs a Python file that defines
`VENUE = VenueConfig(...)`; hosts.yaml will describe the same fields.

What depends on the machine (how many shards, which instrument on which) is left open in it and
settled by `resolved`, once, by whoever starts the venue. Comes before `placement` and `memory`.
"""

from __future__ import annotations

import dataclasses
import runpy
from dataclasses import dataclass
from pathlib import Path

from hftcore.accounts.known_orders import MAX_KNOWN
from hftcore.errors import ConfigurationRefused
from hftcore.instruments import DEFAULT_INSTRUMENTS, Instrument
from hftcore.limits import MAX_GATEWAYS, MAX_INSTRUMENTS, MAX_SHARDS
from ipc.directory import checked_name
from ipc.errors import RegionRefused

WAITS = ("", "spin", "yield", "futex")
MIN_SLOTS, MAX_SLOTS = 8, 1 << 24
"""Slots of a ring; `ipc.ring` has the lower bound."""
_RINGS = ("ingress_slots", "command_slots", "event_slots", "report_slots")


@dataclass(frozen=True)
class VenueConfig:
    """One venue on one host.

    Attributes
    ----------
    name : str
        Of its directory in shared memory, its log and its semaphores.
    instruments : tuple of Instrument
        Their ids are 1, 2, ... in this order.
    shards : int
        Matchers; 0: as many as fit the cpus. Instruments are dealt to them in turn unless one of
        them names a shard other than 0.
    gateways : int
        Slots for clients, number 0 included, which is the venue's own.
    ingress_slots, command_slots, event_slots, report_slots : int
        Slots of each ring, powers of two. A client that lets `report_slots` fill up is cut off.
    dup_window : int
        Ended orders whose client_order_id is still known; some 100 bytes each.
    replay : bool
        REPLAY_ADD is understood, and time is what the commands' recorded time says.
    feed_host : str
        Address that the ports below are opened on.
    feed_port, snapshot_port : int
        TCP ports of market data and of its snapshots; 0: on this host only, by ipc://.
    cpus : tuple of int
        Cpus that workers may use, the first for everything that doesn't spin; empty: all usable.
    as_cpus : int
        Place as on a host with so many cpus; workers then share those that there are. For trying
        a layout out, and for tests; 0: as it is.
    wait : str
        How workers wait: "spin", "yield", "futex"; empty: by the number of cpus.
    """

    name: str = "venue"
    instruments: tuple[Instrument, ...] = DEFAULT_INSTRUMENTS
    shards: int = 0
    gateways: int = 8
    ingress_slots: int = 8_192
    command_slots: int = 65_536
    event_slots: int = 65_536
    report_slots: int = 32_768
    dup_window: int = 1 << 20
    replay: bool = False
    feed_host: str = "127.0.0.1"
    feed_port: int = 0
    snapshot_port: int = 0
    cpus: tuple[int, ...] = ()
    as_cpus: int = 0
    wait: str = ""

    def __post_init__(self) -> None:
        try:
            checked_name(self.name)
        except RegionRefused as refused:
            raise _refusal("name", refused.expected, self.name) from None
        count = len(self.instruments)
        if not 1 <= count < MAX_INSTRUMENTS:
            raise _refusal("instruments", f"1 to {MAX_INSTRUMENTS - 1} instruments", count)
        for key, least, most in (
            ("shards", 0, MAX_SHARDS),
            ("gateways", 1, MAX_GATEWAYS),
            ("as_cpus", 0, 4_096),
            ("dup_window", 1, MAX_KNOWN >> 1),
            ("feed_port", 0, 65_535),
            ("snapshot_port", 0, 65_535),
        ):
            if not least <= getattr(self, key) <= most:
                raise _refusal(key, f"{least} to {most}", getattr(self, key))
        for key in _RINGS:
            slots = getattr(self, key)
            if not MIN_SLOTS <= slots <= MAX_SLOTS or slots & (slots - 1):
                raise _refusal(key, f"a power of two, {MIN_SLOTS} to {MAX_SLOTS}", slots)
        if self.wait not in WAITS:
            raise _refusal("wait", ", ".join(repr(each) for each in WAITS), repr(self.wait))
        if len(set(self.cpus)) != len(self.cpus):
            raise _refusal("cpus", "each cpu once", self.cpus)
        if self.feed_port and self.feed_port == self.snapshot_port:
            raise _refusal("snapshot_port", "a port other than feed_port", self.snapshot_port)
        self._check_instruments()

    def _check_instruments(self) -> None:
        symbols = [each.symbol for each in self.instruments]
        for symbol in symbols:
            if symbols.count(symbol) > 1:
                raise _refusal("instruments", "each symbol once", symbol)
        most = (self.shards or MAX_SHARDS) - 1
        for each in self.instruments:
            if not 0 <= each.shard <= most:
                raise _refusal(f"instruments: {each.symbol}: shard", f"0 to {most}", each.shard)

    def instrument_id(self, symbol: str) -> int:
        """Return the id of a symbol; refuse one that is not listed.

        Raises
        ------
        ConfigurationRefused
        """
        for number, each in enumerate(self.instruments, 1):
            if each.symbol == symbol:
                return number
        raise ConfigurationRefused(
            "there is no such symbol",
            expected=", ".join(each.symbol for each in self.instruments),
            found=symbol,
            where=f"venue {self.name}",
        )


def resolved(config: VenueConfig, shards: int) -> VenueConfig:
    """Settle what the machine decides: the number of shards, and which instrument is on which.

    Parameters
    ----------
    shards : int
        To use when the configuration leaves it open.
    """
    given = [each.shard for each in config.instruments]
    count = config.shards or max(shards, max(given) + 1)
    instruments = config.instruments
    if not any(given):
        instruments = tuple(
            dataclasses.replace(each, shard=number % count)
            for number, each in enumerate(instruments)
        )
    return dataclasses.replace(config, shards=count, instruments=instruments)


def load_config(path: Path) -> VenueConfig:
    """Run a Python file and return what it calls VENUE.

    Raises
    ------
    ConfigurationRefused
        When it can't be run, or defines no VENUE that is a VenueConfig.
    """
    try:
        found = runpy.run_path(str(path)).get("VENUE")
    except ConfigurationRefused:
        raise
    except Exception as error:
        trace, line = error.__traceback__, getattr(error, "lineno", None)
        while trace is not None:
            if trace.tb_frame.f_code.co_filename == str(path):
                line = trace.tb_lineno
            trace = trace.tb_next
        raise ConfigurationRefused(
            "the configuration can't be read",
            expected="a Python file that runs",
            found=f"{type(error).__name__}: {error}",
            where=f"{path}:{line}" if line else str(path),
            remedy="correct the file; it is run as it stands",
        ) from error
    if not isinstance(found, VenueConfig):
        raise ConfigurationRefused(
            "the configuration names no venue",
            expected="VENUE = VenueConfig(...), from hftcore.ops.config",
            found="no VENUE" if found is None else f"VENUE is a {type(found).__name__}",
            where=str(path),
            remedy="define it at the top level of the file",
        )
    return found


def _refusal(key: str, expected: str, found: object) -> ConfigurationRefused:
    return ConfigurationRefused(
        "this venue can't be configured",
        expected=expected,
        found=str(found),
        where=f"VenueConfig.{key}",
        remedy=f"change {key.partition(':')[0]}",
    )


__all__ = ["VenueConfig", "load_config", "resolved"]
