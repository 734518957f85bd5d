from collections import Counter
from dataclasses import replace
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from modelexport.spec import Sharing
from modelexport_operator.turns import Demand, describe_place, draw, draw_starting, line_up


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


def test_the_namespace_with_the_fewest_running_comes_first() -> None:
    line = line_up([demand("busy", running=3, waiting=2), demand("quiet", running=1, waiting=4)])
    assert [namespace for namespace, _ in line] == ["quiet", "quiet", "busy", "quiet", "busy", "quiet"]


def test_in_a_namespace_the_oldest_export_comes_first_and_then_the_first_by_name() -> None:
    line = line_up(
        [
            demand("team", "c", waiting=1, since="2026-01-01"),
            demand("team", "b", waiting=1, since="2026-01-02"),
            demand("team", "a", waiting=2, since="2026-01-02"),
        ]
    )
    assert [name for _, name in line] == ["c", "a", "a", "b"]


def test_of_namespaces_with_as_many_the_one_with_the_oldest_export_comes_first() -> None:
    line = line_up([demand("a", waiting=1, since="2026-01-02"), demand("b", waiting=1, since="2026-01-01")])
    assert [namespace for namespace, _ in line] == ["b", "a"]


def test_a_hundred_orders_of_one_do_not_keep_another_from_its_first() -> None:
    hundred = [demand("crowd", f"export-{index}", waiting=9) for index in range(100)]
    starting, _ = draw([*hundred, demand("single", waiting=1, since="2026-12-31")], Sharing(parallelism=2))
    assert {namespace for namespace, _ in starting} == {"crowd", "single"}


def test_a_namespace_at_its_limit_leaves_its_place_to_others() -> None:
    demands = [demand("full", running=2, waiting=3), demand("other", running=3, waiting=1)]
    starting, staying = draw(demands, Sharing(parallelism=6, parallelism_per_namespace=4))
    assert [namespace for namespace, _ in starting] == ["full"]
    starting, staying = draw([replace(demands[0], running=4), demands[1]], Sharing(9, parallelism_per_namespace=4))
    assert [namespace for namespace, _ in starting] == ["other"]
    assert [namespace for namespace, _ in staying] == ["full"] * 3


def test_a_limit_that_was_lowered_below_what_runs_starts_nothing() -> None:
    assert draw([demand("team", running=5, waiting=1)], Sharing(parallelism=2))[0] == []


@patient
@given(DEMANDS, LIMITS)
def test_limits_hold_and_no_place_stays_free_that_somebody_could_take(demands: list[Demand], limits: Sharing) -> None:
    starting, staying = draw(demands, limits)
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
def test_the_order_does_not_depend_on_the_order_in_which_exports_are_known(
    demands: list[Demand], limits: Sharing, random: Random
) -> None:
    shuffled = list(demands)
    random.shuffle(shuffled)
    assert draw(shuffled, limits) == draw(demands, limits)


@patient
@given(DEMANDS, LIMITS)
def test_everybody_gets_a_turn_when_what_runs_ends(demands: list[Demand], limits: Sharing) -> None:
    rounds = sum(one.waiting for one in demands)
    for _ in range(rounds):
        started = Counter(draw([replace(one, running=0) for one in demands], limits)[0])
        demands = [replace(one, running=0, waiting=one.waiting - started[one.key]) for one in demands]
    assert sum(one.waiting for one in demands) == 0


@patient
@given(DEMANDS, LIMITS)
def test_those_who_start_are_the_same_without_the_line(demands: list[Demand], limits: Sharing) -> None:
    assert draw_starting(demands, limits) == set(draw(demands, limits)[0])


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
def test_a_place_is_told_the_coarser_the_farther_back(place: int, words: str) -> None:
    assert describe_place(place) == words
