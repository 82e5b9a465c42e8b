"""Which roles go into which worker on which cpu, for every size of host; what is impossible."""

from __future__ import annotations

import pytest

from affinity.pin import PlacementRefused
from hftcore.instruments import DEFAULT_INSTRUMENTS, Instrument
from hftcore.ops.config import VenueConfig
from hftcore.ops.placement import default_shards, place
from ipc.wait import Strategy

MANY = tuple(Instrument(f"I{number}", "1", "1", "10") for number in range(20))


def shape(cpus: int, **settings: object) -> list[tuple[str, tuple[int, ...]]]:
    """Return the name and the cpus of each worker on a host of so many cpus."""
    placed = place(VenueConfig(**settings), range(cpus))  # type: ignore[arg-type]
    return [(worker.name, worker.cpus) for worker in placed.workers]


def test_one_cpu_has_all_compiled_roles_in_one_worker() -> None:
    assert shape(1) == [("sequencer+matcher-0+reporter", (0,)), ("publisher", (0,))]


def test_two_cpus_have_the_matchers_apart_and_leave_the_publisher_to_the_kernel() -> None:
    assert shape(2, shards=2) == [
        ("sequencer+reporter", (0,)),
        ("matcher-0,1", (1,)),
        ("publisher", (0, 1)),
    ]


def test_three_cpus_give_the_first_to_the_publisher() -> None:
    assert shape(3) == [
        ("sequencer+reporter", (1,)),
        ("matcher-0", (2,)),
        ("publisher", (0,)),
    ]


def test_many_cpus_give_each_role_its_own_and_leave_one_for_a_client() -> None:
    assert shape(8) == [
        ("sequencer", (1,)),
        ("matcher-0", (3,)),
        ("matcher-1", (4,)),
        ("matcher-2", (5,)),
        ("matcher-3", (6,)),
        ("reporter", (2,)),
        ("publisher", (0,)),
    ]


@pytest.mark.parametrize(("shards", "groups"), [(1, [1]), (2, [2]), (4, [4])])
def test_matchers_without_cpus_of_their_own_share_a_worker(shards: int, groups: list[int]) -> None:
    placed = place(VenueConfig(shards=shards), range(4)).workers
    sizes = [sum(role.startswith("matcher") for role in each.roles) for each in placed]
    assert [size for size in sizes if size] == groups


@pytest.mark.parametrize("cpus", range(1, 20))
@pytest.mark.parametrize("shards", range(1, 17))
def test_whatever_is_placed_runs_every_role_once_in_compiled_sizes(cpus: int, shards: int) -> None:
    config = VenueConfig(instruments=MANY, shards=shards)
    workers = cpus - 3 if cpus >= 4 else 1
    if shards >= 4 * workers - 1 and shards != 4 * workers:  # a group of 3 is two workers
        with pytest.raises(PlacementRefused, match="fewer shards"):
            place(config, range(cpus))
        return
    placed = place(config, range(cpus))
    roles = [role for worker in placed.workers for role in worker.roles]
    expected = ["sequencer", "reporter", "publisher", *(f"matcher-{n}" for n in range(shards))]
    assert sorted(roles) == sorted(expected)
    for worker in placed.workers:
        matchers = sum(role.startswith("matcher-") for role in worker.roles)
        assert matchers in (0, 1, 2, 4)
        assert not (matchers and "publisher" in worker.roles)
    assert {each.shard for each in placed.config.instruments} <= set(range(shards))


def test_more_matchers_than_fit_are_refused_with_the_remedy() -> None:
    with pytest.raises(PlacementRefused, match=r"at most 4 matchers.*found: 5 matchers"):
        place(VenueConfig(instruments=MANY, shards=5), range(2))


def test_a_cpu_that_cannot_be_used_is_refused() -> None:
    with pytest.raises(PlacementRefused, match=r"cpus among 0-1; found: cpus 7"):
        place(VenueConfig(cpus=(1, 7)), range(2))


def test_loops_sleep_on_two_cpus_yield_on_four_and_spin_when_each_has_one() -> None:
    for cpus, expected in (
        (1, Strategy.SPIN_THEN_FUTEX),
        (2, Strategy.SPIN_THEN_FUTEX),
        (4, Strategy.SPIN_THEN_YIELD),
        (16, Strategy.SPIN),
    ):
        workers = place(VenueConfig(), range(cpus)).workers
        assert {each.strategy for each in workers if each.name != "publisher"} == {expected}, cpus
        assert workers[-1].strategy == Strategy.SPIN_THEN_FUTEX


def test_a_wait_that_was_configured_is_kept() -> None:
    workers = place(VenueConfig(wait="yield"), range(2)).workers
    assert workers[0].strategy == Strategy.SPIN_THEN_YIELD


def test_instruments_are_dealt_to_the_shards_unless_one_names_its_own() -> None:
    dealt = place(VenueConfig(shards=2), range(4)).config.instruments
    assert [each.shard for each in dealt] == [0, 1, 0, 1]
    own = (Instrument("A", shard=1), Instrument("B"), Instrument("C"))
    kept = place(VenueConfig(instruments=own), range(2)).config
    assert ([each.shard for each in kept.instruments], kept.shards) == ([1, 0, 0], 2)


def test_shards_by_cores_leave_a_cpu_for_each_of_the_others() -> None:
    found = [default_shards(cpus, len(DEFAULT_INSTRUMENTS)) for cpus in (1, 2, 4, 6, 8, 64)]
    assert found == [1, 1, 1, 2, 4, 4]
