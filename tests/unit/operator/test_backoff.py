import asyncio
from collections.abc import AsyncIterator

import pytest

from modelexport_operator.backoff import JITTER, LAST_SECONDS, Backoff
from modelexport_operator.cluster import UnavailableError
from modelexport_operator.resources import JOBS, Scope
from modelexport_operator.settings import Settings
from modelexport_operator.watches import STEADY_SECONDS, listen_forever
from unit.operator.objects import Body


@pytest.mark.parametrize(("roll", "stretch"), [(0.0, 1.0), (1.0, 1 + JITTER)])
def test_pauses_double_up_to_the_longest_and_are_stretched(
    roll: float, stretch: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("random.random", lambda: roll)
    backoff = Backoff(1, 5)
    assert [backoff.next() / stretch for _ in range(5)] == [1, 2, 4, 5, 5]
    backoff.reset()
    assert [backoff.next(at_least=1.5) / stretch for _ in range(3)] == [1.5, 2, 4]


def test_no_pause_is_so_long_that_a_watch_seems_deaf() -> None:
    assert Settings.patience_seconds > LAST_SECONDS * (1 + JITTER)


class FakeCluster:
    """Watches that last for so many seconds each and then fail."""

    def __init__(self, *lasts: float, retry_after: float = 0.0) -> None:
        self.lasts = list(lasts)
        self.retry_after = retry_after
        self.pauses: list[float] = []
        self._failed: float | None = None

    async def watch(self, scope: Scope, version: str) -> AsyncIterator[tuple[str, Body]]:
        loop = asyncio.get_running_loop()
        if self._failed is not None:
            self.pauses.append(loop.time() - self._failed)
        await asyncio.sleep(self.lasts.pop(0) if self.lasts else 1e9)
        self._failed = loop.time()
        if self.lasts is not None:
            raise UnavailableError("cut", self.retry_after)
        yield "", {}


class FakeController:
    async def list_again(self, scope: Scope) -> str:
        return "1"


async def pauses_of(cluster: FakeCluster) -> list[float]:
    listening = asyncio.create_task(listen_forever(cluster, FakeController(), Scope(JOBS)))  # type: ignore[arg-type]
    await asyncio.sleep(1e6)
    listening.cancel()
    return cluster.pauses


@pytest.mark.usefixtures("virtual_time")
async def test_a_watch_that_fails_at_once_is_opened_less_and_less(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("random.random", lambda: 0.0)
    assert await pauses_of(FakeCluster(0, 0, 0, 0, 0)) == pytest.approx([1, 2, 4, 8, 8])


@pytest.mark.usefixtures("virtual_time")
async def test_a_watch_that_lasted_begins_anew_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("random.random", lambda: 0.0)
    assert await pauses_of(FakeCluster(0, 0, STEADY_SECONDS + 1)) == pytest.approx([1, 2, 1])


@pytest.mark.usefixtures("virtual_time")
async def test_a_watch_is_not_opened_before_the_server_wants_it() -> None:
    assert min(await pauses_of(FakeCluster(0, 0, 0, retry_after=30))) >= 30
