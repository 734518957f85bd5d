import asyncio

import pytest

from modelexport.measured import Measured


@pytest.fixture(autouse=True)
def nothing_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Decisions stay the same when `make matrix` measures memory anew."""
    monkeypatch.setattr("modelexport.matrix.last_run", Measured)


@pytest.fixture
async def virtual_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """The loop's clock stands still while there is anything to do, and then jumps to the next timer.

    So what a test expects within some time comes within it, on whatever machine. Nothing may come from outside of the
    loop: it would come from a world with another clock.
    """
    loop = asyncio.get_running_loop()
    # asyncio has no public way to its selector, and only what waits there knows that nothing is left to do.
    selector, now = loop._selector, loop.time()  # type: ignore[attr-defined]
    look = selector.select

    def jump(timeout: float | None) -> list[object]:
        nonlocal now
        found: list[object] = look(timeout and 0)
        now += 0 if found else timeout or 0
        return found

    monkeypatch.setattr(loop, "time", lambda: now)
    monkeypatch.setattr(selector, "select", jump)
