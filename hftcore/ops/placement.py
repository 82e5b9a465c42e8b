"""Who runs where: cpus in, workers out, each with its roles, its cpu and its way to wait.

A role is not a process. What can be fused with what is a short, fixed list, because each
composition is a compiled loop that must be warm before the venue starts:

    1 cpu     [sequencer + matchers + reporter]  [publisher]                     all on that cpu
    2, 3      [sequencer + reporter]  [matchers]  [publisher]                    a cpu each
    4 and on  [sequencer]  [matcher] ...  [reporter]  [publisher]                a cpu each

With 2 cpus the publisher is not pinned: it sleeps most of the time and goes where there is room.
With 3 and more the first cpu is for housekeeping: the publisher, its ZMQ thread, clients, the
kernel's interrupts; what spins has the others. ZMQ is never called from a matcher's worker (its I/O
thread and its locks would stand between two orders). A worker takes 1, 2 or 4 matchers.

How a worker waits follows from how many loops there are in all, a client and a subscriber counted:
with 2 cpus they sleep, with 4 they yield, with a cpu for each they spin. Comes after `config`;
before `supervisor`, which starts what stands here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from affinity.pin import PlacementRefused, format_cpu_list, usable_cpus
from hftcore.limits import MAX_SHARDS
from hftcore.ops.config import VenueConfig, resolved
from ipc.wait import Strategy, default_strategy

MATCHERS_A_WORKER = (1, 2, 4)
"""Compiled loops exist for these numbers of matchers."""
OUTSIDE_LOOPS = 2
"""A client and a subscriber, which run on the same cpus."""
STRATEGIES = {
    "spin": Strategy.SPIN,
    "yield": Strategy.SPIN_THEN_YIELD,
    "futex": Strategy.SPIN_THEN_FUTEX,
}


@dataclass(frozen=True)
class WorkerPlan:
    """One process.

    Attributes
    ----------
    name : str
        Its roles, joined.
    number : int
        Of its bell, from 0.
    roles : tuple of str
        "sequencer", "matcher-0", ..., "reporter", "publisher".
    cpus : tuple of int
        That it is pinned to.
    strategy : Strategy
    """

    name: str
    number: int
    roles: tuple[str, ...]
    cpus: tuple[int, ...]
    strategy: Strategy


@dataclass(frozen=True)
class Placement:
    """The workers of a venue, and its configuration with nothing left open."""

    config: VenueConfig
    cpus: tuple[int, ...]
    workers: tuple[WorkerPlan, ...]


def place(config: VenueConfig, usable: Sequence[int] | None = None) -> Placement:
    """Decide which process runs which roles on which cpu.

    Parameters
    ----------
    usable : sequence of int, optional
        Cpus that this user may use; default: those of this process.

    Raises
    ------
    PlacementRefused
        When a cpu can't be used, or the matchers don't fit the workers.
    """
    allowed = tuple(sorted(usable_cpus() if usable is None else usable))
    cpus = config.cpus or allowed
    strangers = set(cpus) - set(allowed)
    if strangers:
        raise PlacementRefused(
            "the venue can't be put on these cpus",
            expected=f"cpus among {format_cpu_list(allowed)}",
            found=f"cpus {format_cpu_list(strangers)}",
            where="VenueConfig.cpus",
            remedy="choose cpus that are online and in the cpuset, or leave `cpus` empty",
        )
    imagined = config.as_cpus or len(cpus)
    config = resolved(config, default_shards(imagined, len(config.instruments)))
    groups = [
        (roles, tuple(sorted({cpus[each % len(cpus)] for each in own})))
        for roles, own in _groups(config, tuple(range(imagined)))
    ]
    count = len(groups)
    strategy = (
        STRATEGIES[config.wait]
        if config.wait
        else default_strategy(count + OUTSIDE_LOOPS, len(cpus))
    )
    workers = tuple(
        WorkerPlan(
            _name(roles),
            number,
            roles,
            own,
            # what calls ZMQ waits for sockets too: it sleeps
            Strategy.SPIN_THEN_FUTEX if "publisher" in roles else strategy,
        )
        for number, (roles, own) in enumerate(groups)
    )
    return Placement(config, tuple(cpus), workers)


def default_shards(cpus: int, instruments: int) -> int:
    """Return how many matchers fit: what sequencer, reporter, housekeeping and a client leave."""
    return max(1, min(cpus - 4, instruments, MAX_SHARDS))


def matcher_role(shard: int) -> str:
    """Return the name of a shard's matcher."""
    return f"matcher-{shard}"


def _groups(
    config: VenueConfig, cpus: tuple[int, ...]
) -> list[tuple[tuple[str, ...], tuple[int, ...]]]:
    """Return the roles of each worker, and its cpus by their place among those of the venue."""
    matchers = tuple(matcher_role(shard) for shard in range(config.shards))
    if len(cpus) == 1:
        (together,) = _divided(matchers, 1, cpus)
        return [(("sequencer", *together, "reporter"), cpus), (("publisher",), cpus)]
    if len(cpus) < 4:
        (together,) = _divided(matchers, 1, cpus)
        first, second = cpus[-2:]
        rest = cpus[:1] if len(cpus) == 3 else cpus
        return [
            (("sequencer", "reporter"), (first,)),
            (together, (second,)),
            (("publisher",), rest),
        ]
    housekeeping, sequencer, reporter, *others = cpus
    divided = _divided(matchers, len(others), cpus)
    return [
        (("sequencer",), (sequencer,)),
        *((group, (cpu,)) for group, cpu in zip(divided, others, strict=False)),
        (("reporter",), (reporter,)),
        (("publisher",), (housekeeping,)),
    ]


def _divided(
    matchers: tuple[str, ...], workers: int, cpus: tuple[int, ...]
) -> list[tuple[str, ...]]:
    """Divide matchers among at most so many workers, in groups of the compiled sizes."""
    for size in MATCHERS_A_WORKER:
        groups = [matchers[first : first + size] for first in range(0, len(matchers), size)]
        if len(groups[-1]) not in MATCHERS_A_WORKER:  # 3 left of 4
            last = groups.pop()
            groups += [last[:2], last[2:]]
        if len(groups) <= workers:
            return groups
    raise PlacementRefused(
        "the matchers don't fit the cpus",
        expected=f"at most {workers * max(MATCHERS_A_WORKER)} matchers in {workers} worker(s) of "
        f"{', '.join(map(str, MATCHERS_A_WORKER))} each, on {len(cpus)} cpu(s)",
        found=f"{len(matchers)} matchers (one a shard)",
        where="VenueConfig.shards",
        remedy="put the instruments on fewer shards (1, 2 or 4), or allow more cpus",
    )


def _name(roles: tuple[str, ...]) -> str:
    """Join the names of roles: matcher-0 and matcher-1 become matcher-0,1."""
    matchers = [role for role in roles if role.startswith("matcher-")]
    parts = [role for role in roles if role not in matchers[1:]]
    if len(matchers) > 1:
        numbers = ",".join(role.removeprefix("matcher-") for role in matchers)
        parts[parts.index(matchers[0])] = f"matcher-{numbers}"
    return "+".join(parts)


__all__ = ["Placement", "WorkerPlan", "default_shards", "matcher_role", "place"]
