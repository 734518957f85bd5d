import asyncio
from collections.abc import Iterator

import pytest

from modelexport.matrix.measured import Measured
from modelexport.planning.progress import expect_steps


@pytest.fixture(autouse=True)
def nothing_is_measured(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Ignore measured numbers, so that a new `make matrix` changes no decision."""
    monkeypatch.setattr("modelexport.matrix.support.measurements", Measured)
    expect_steps.cache_clear()
    yield
    expect_steps.cache_clear()


@pytest.fixture
async def virtual_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stop the loop's clock while tasks are ready, and let it jump to the next timer when none is.

    So timeouts do not depend on the speed of the machine. No event may come from outside of the loop, where another
    clock runs. The clock starts at the same whole number each time: sums of pauses round alike on a machine that has
    run for a minute and on one that has run for a year.
    """
    loop = asyncio.get_running_loop()
    # asyncio has no public access to its selector, and only the selector knows that the loop is idle.
    selector, now = loop._selector, 1024.0  # type: ignore[attr-defined]
    look = selector.select

    def jump(timeout: float | None) -> list[object]:
        nonlocal now
        found: list[object] = look(timeout and 0)
        now += 0 if found else timeout or 0
        return found

    monkeypatch.setattr(loop, "time", lambda: now)
    monkeypatch.setattr(selector, "select", jump)
