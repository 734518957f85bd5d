from collections import Counter
from dataclasses import replace
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from modelexport.api.spec import Sharing
from modelexport_operator.scheduling.fair_share import Demand, allocate, describe_position, fair_order, select_starting


def demand(namespace: str, name: str = "a", *, running: int = 0, waiting: int = 0, since: str = "2026-01-01") -> Demand:
    return Demand((namespace, name), None, since, running, waiting)


DEMANDS = st.lists(
    st.builds(
        Demand,
        st.tuples(st.sampled_from("abc"), st.sampled_from("wxyz")),
        st.none(),
        st.sampled_from(["2026-01-01", "2026-01-02"]),
        st.integers(0, 4),
        st.integers(0, 4),
    ),
    unique_by=lambda demand: demand.key,
)
LIMITS = st.builds(Sharing, st.none() | st.integers(1, 9), st.none() | st.integers(1, 4))

patient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
"""An example that takes long says something of the machine, not of the line."""


def running_in(demands: list[Demand]) -> Counter[str]:
    counted: Counter[str] = Counter()
    for one in demands:
        counted[one.key[0]] += one.running
    return counted


def test_namespace_with_fewest_running_comes_first() -> None:
    line = fair_order([demand("busy", running=3, waiting=2), demand("quiet", running=1, waiting=4)])
    assert [namespace for namespace, _ in line] == ["quiet", "quiet", "busy", "quiet", "busy", "quiet"]


def test_oldest_export_in_namespace_comes_first_then_by_name() -> None:
    line = fair_order(
        [
            demand("team", "c", waiting=1, since="2026-01-01"),
            demand("team", "b", waiting=1, since="2026-01-02"),
            demand("team", "a", waiting=2, since="2026-01-02"),
        ]
    )
    assert [name for _, name in line] == ["c", "a", "a", "b"]


def test_namespace_tie_goes_to_oldest_export() -> None:
    line = fair_order([demand("a", waiting=1, since="2026-01-02"), demand("b", waiting=1, since="2026-01-01")])
    assert [namespace for namespace, _ in line] == ["b", "a"]


def test_hundred_requests_do_not_delay_first_of_another() -> None:
    hundred = [demand("crowd", f"export-{index}", waiting=9) for index in range(100)]
    starting, _ = allocate([*hundred, demand("single", waiting=1, since="2026-12-31")], Sharing(parallelism=2))
    assert {namespace for namespace, _ in starting} == {"crowd", "single"}


def test_namespace_at_limit_leaves_slots_to_others() -> None:
    demands = [demand("full", running=2, waiting=3), demand("other", running=3, waiting=1)]
    starting, staying = allocate(demands, Sharing(parallelism=6, parallelism_per_namespace=4))
    assert [namespace for namespace, _ in starting] == ["full"]
    starting, staying = allocate([replace(demands[0], running=4), demands[1]], Sharing(9, parallelism_per_namespace=4))
    assert [namespace for namespace, _ in starting] == ["other"]
    assert [namespace for namespace, _ in staying] == ["full"] * 3


def test_limit_lowered_below_running_starts_nothing() -> None:
    assert allocate([demand("team", running=5, waiting=1)], Sharing(parallelism=2))[0] == []


@patient
@given(DEMANDS, LIMITS)
def test_limits_hold_and_no_usable_slot_stays_free(demands: list[Demand], limits: Sharing) -> None:
    starting, staying = allocate(demands, limits)
    assert Counter(starting) + Counter(staying) == Counter({d.key: d.waiting for d in demands if d.waiting})
    before, started = running_in(demands), Counter(namespace for namespace, _ in starting)
    total = before.total() + started.total()
    most, each = limits.parallelism or 10**9, limits.parallelism_per_namespace or 10**9
    assert not starting or total <= most
    assert all(before[namespace] + count <= each for namespace, count in started.items())
    could = [namespace for namespace, _ in staying if before[namespace] + started[namespace] < each]
    assert total >= most or not could


@patient
@given(DEMANDS, LIMITS, st.randoms())
def test_order_does_not_depend_on_input_order(demands: list[Demand], limits: Sharing, random: Random) -> None:
    shuffled = list(demands)
    random.shuffle(shuffled)
    assert allocate(shuffled, limits) == allocate(demands, limits)


@patient
@given(DEMANDS, LIMITS)
def test_everyone_starts_as_running_targets_end(demands: list[Demand], limits: Sharing) -> None:
    rounds = sum(one.waiting for one in demands)
    for _ in range(rounds):
        started = Counter(allocate([replace(one, running=0) for one in demands], limits)[0])
        demands = [replace(one, running=0, waiting=one.waiting - started[one.key]) for one in demands]
    assert sum(one.waiting for one in demands) == 0


@patient
@given(DEMANDS, LIMITS)
def test_allocation_is_same_without_queue_positions(demands: list[Demand], limits: Sharing) -> None:
    assert select_starting(demands, limits) == set(allocate(demands, limits)[0])


@pytest.mark.parametrize(
    ("place", "words"),
    [
        (1, "number 1 in line"),
        (10, "number 10 in line"),
        (11, "among the next 20 in line"),
        (20, "among the next 20 in line"),
        (21, "among the next 50 in line"),
        (101, "among the next 200 in line"),
        (9000, "among the next 10000 in line"),
    ],
)
def test_distant_queue_position_is_rounded(place: int, words: str) -> None:
    assert describe_position(place) == words
