import asyncio
from collections.abc import AsyncIterator

import pytest

from modelexport_operator.kube.backoff import JITTER, LAST_SECONDS, Backoff
from modelexport_operator.kube.client import UnavailableError
from modelexport_operator.kube.resources import JOBS, Scope
from modelexport_operator.runtime.informer import STEADY_SECONDS, listen_forever
from modelexport_operator.settings import Settings
from testplane.objects import Body


@pytest.mark.parametrize(("roll", "stretch"), [(0.0, 1.0), (1.0, 1 + JITTER)])
def test_delays_double_up_to_maximum_with_jitter(roll: float, stretch: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("random.random", lambda: roll)
    backoff = Backoff(1, 5)
    assert [backoff.next() / stretch for _ in range(5)] == [1, 2, 4, 5, 5]
    backoff.reset()
    assert [backoff.next(at_least=1.5) / stretch for _ in range(3)] == [1.5, 2, 4]


def test_no_delay_makes_watch_seem_stale() -> None:
    assert Settings.watch_lag_tolerance_seconds > LAST_SECONDS * (1 + JITTER)


class FakeCluster:
    """Has watches that last for so many seconds each and then fail."""

    def __init__(self, *lasts: float, retry_after: float = 0.0) -> None:
        self.lasts = list(lasts)
        self.retry_after = retry_after
        self.pauses: list[float] = []
        self._failed: float | None = None

    async def watch(self, scope: Scope, version: str) -> AsyncIterator[list[tuple[str, Body]]]:
        loop = asyncio.get_running_loop()
        if self._failed is not None:
            self.pauses.append(loop.time() - self._failed)
        await asyncio.sleep(self.lasts.pop(0) if self.lasts else 1e9)
        self._failed = loop.time()
        if self.lasts is not None:
            raise UnavailableError("cut", self.retry_after)
        yield []


class FakeController:
    async def relist(self, scope: Scope) -> str:
        return "1"


async def pauses_of(cluster: FakeCluster) -> list[float]:
    listening = asyncio.create_task(listen_forever(cluster, FakeController(), Scope(JOBS)))  # type: ignore[arg-type]
    await asyncio.sleep(1e6)
    listening.cancel()
    return cluster.pauses


@pytest.mark.usefixtures("virtual_time")
async def test_instantly_failing_watch_is_reopened_less_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("random.random", lambda: 0.0)
    assert await pauses_of(FakeCluster(0, 0, 0, 0, 0)) == pytest.approx([1, 2, 4, 8, 8])


@pytest.mark.usefixtures("virtual_time")
async def test_long_lived_watch_restarts_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("random.random", lambda: 0.0)
    assert await pauses_of(FakeCluster(0, 0, STEADY_SECONDS + 1)) == pytest.approx([1, 2, 1])


@pytest.mark.usefixtures("virtual_time")
async def test_watch_respects_retry_after() -> None:
    assert min(await pauses_of(FakeCluster(0, 0, 0, retry_after=30))) >= 30
