from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from aiohttp import web

from modelexport_operator.kube.client import UnavailableError
from modelexport_operator.kube.clock import ServerClock
from modelexport_operator.kube.resources import JOBS, Scope
from unit.operator.serving import serve

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


class World:
    """A server, and a client with a wrong clock."""

    def __init__(self, skew: timedelta = timedelta(0)) -> None:
        self.passed = 0.0
        self.clock = ServerClock(lambda: 5000 + self.passed, lambda: NOW + timedelta(seconds=self.passed) + skew)

    def answer(self, odd: timedelta = timedelta(0)) -> None:
        at = (NOW + timedelta(seconds=self.passed) + odd).replace(microsecond=0)
        self.clock.observe(format_datetime(at, usegmt=True))

    def wait(self, seconds: float) -> None:
        self.passed += seconds

    @property
    def lateness(self) -> float:
        return (NOW + timedelta(seconds=self.passed) - self.clock()).total_seconds()


@pytest.mark.parametrize("minutes", [-10, 10])
def test_wrong_local_clock_has_no_effect(minutes: int) -> None:
    world = World(timedelta(minutes=minutes))
    world.wait(0.25)
    world.answer()
    for _ in range(20):
        world.wait(0.7)
        assert 0 <= world.lateness < 1
        world.answer()
    world.wait(3600)
    assert 0 <= world.lateness < 1
    assert world.clock.local_error == pytest.approx(60 * minutes, abs=1)


def test_clock_is_local_before_first_response() -> None:
    assert World().clock() == NOW


@pytest.mark.parametrize("date", [None, "", "yesterday", "Fri, 99 Foo 2026 25:00:00 GMT"])
def test_invalid_date_is_ignored(date: str | None) -> None:
    world = World()
    world.clock.observe(date)
    assert world.clock() == NOW
    world.answer()
    world.clock.observe(date)
    assert world.lateness == 0


@pytest.mark.parametrize("years", [-3, 3])
def test_outlier_date_is_ignored(years: int) -> None:
    world = World()
    for _ in range(5):
        world.wait(1)
        world.answer()
    for _ in range(4):
        world.wait(1)
        world.answer(odd=timedelta(days=365 * years))
        assert abs(world.lateness) < 1


def test_adjusted_server_clock_is_followed() -> None:
    world = World()
    for seconds in (0, 600):
        for _ in range(9):
            world.wait(1)
            world.answer(odd=timedelta(seconds=seconds))
        assert world.lateness == -seconds


@pytest.mark.parametrize("status", [200, 500])
async def test_every_response_sets_clock(status: int) -> None:
    async def answer(_: web.Request) -> web.Response:
        headers = {"Date": "Fri, 02 Jan 2026 03:04:05 GMT"}
        return web.json_response({"metadata": {"resourceVersion": "1"}}, status=status, headers=headers)

    async with serve(answer) as cluster:
        if status == 200:
            await cluster.list_versions(Scope(JOBS))
        else:
            with pytest.raises(UnavailableError):
                await cluster.list_versions(Scope(JOBS))
        assert timedelta(0) <= cluster.clock() - NOW < timedelta(minutes=1)
