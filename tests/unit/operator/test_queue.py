import asyncio

import pytest

from modelexport_operator import queue as module
from modelexport_operator.queue import DirtyQueue


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FIRST_DELAY", 0.01)
    monkeypatch.setattr(module, "LAST_DELAY", 0.04)


async def take(queue: DirtyQueue[str], within: float = 1.0) -> str:
    return await asyncio.wait_for(queue.take(), within)


async def is_idle(queue: DirtyQueue[str], seconds: float = 0.005) -> bool:
    try:
        await take(queue, seconds)
    except TimeoutError:
        return True
    return False


async def test_a_key_waits_once_however_often_it_is_marked() -> None:
    queue: DirtyQueue[str] = DirtyQueue()
    for key in ("a", "b", "a", "a"):
        queue.mark(key)
    assert len(queue) == 2
    assert [await take(queue), await take(queue)] == ["a", "b"]
    assert await is_idle(queue)


async def test_a_key_that_is_marked_while_it_is_worked_on_comes_again_afterwards_and_not_before() -> None:
    queue: DirtyQueue[str] = DirtyQueue()
    queue.mark("a")
    await take(queue)
    queue.mark("a")
    assert len(queue) == 1
    assert await is_idle(queue)
    queue.done("a")
    assert await take(queue) == "a"
    queue.done("a")
    assert await is_idle(queue)


async def test_a_waiting_worker_wakes_up() -> None:
    queue: DirtyQueue[str] = DirtyQueue()
    waiting = asyncio.create_task(take(queue))
    await asyncio.sleep(0)
    queue.mark("a")
    assert await waiting == "a"


async def test_a_failing_key_backs_off_further_and_further_up_to_a_limit() -> None:
    queue: DirtyQueue[str] = DirtyQueue()
    queue.mark("a")
    delays = []
    for _ in range(5):
        await take(queue)
        delays.append(queue.fail("a"))
    assert delays == [0.01, 0.02, 0.04, 0.04, 0.04]


async def test_a_key_that_fails_for_days_is_still_tried_at_the_longest_delay() -> None:
    queue: DirtyQueue[str] = DirtyQueue()
    assert [queue.fail("a") for _ in range(2000)][-1] == 0.04


async def test_a_success_ends_the_back_off() -> None:
    queue: DirtyQueue[str] = DirtyQueue()
    queue.mark("a")
    await take(queue)
    queue.fail("a")
    await take(queue)
    queue.done("a")
    queue.mark("a")
    await take(queue)
    assert queue.fail("a") == 0.01


async def test_a_cause_does_not_shorten_the_back_off_and_is_not_lost() -> None:
    queue: DirtyQueue[str] = DirtyQueue()
    queue.mark("a")
    await take(queue)
    queue.fail("a", at_least=0.05)
    queue.mark("a")
    assert await is_idle(queue, 0.02)
    assert await take(queue) == "a"
    queue.done("a")
    assert await is_idle(queue)


async def test_one_failing_key_does_not_hold_up_another() -> None:
    queue: DirtyQueue[str] = DirtyQueue()
    queue.mark("a")
    await take(queue)
    queue.fail("a", at_least=60)
    queue.mark("b")
    assert await take(queue) == "b"


async def test_a_key_can_ask_to_come_again_later() -> None:
    queue: DirtyQueue[str] = DirtyQueue()
    queue.mark("a")
    await take(queue)
    queue.done("a", requeue_after=0.02)
    assert await is_idle(queue)
    assert await take(queue) == "a"


async def test_an_earlier_cause_replaces_the_later_visit() -> None:
    queue: DirtyQueue[str] = DirtyQueue()
    queue.mark("a")
    await take(queue)
    queue.done("a", requeue_after=0.02)
    queue.mark("a")
    await take(queue)
    queue.done("a")
    assert await is_idle(queue, 0.04)


async def test_a_key_rests_after_a_sync_and_then_comes_once_for_everything_that_was_marked() -> None:
    queue: DirtyQueue[str] = DirtyQueue(rest=0.05)
    queue.mark("a")
    queue.done(await queue.take())
    begin = asyncio.get_running_loop().time()
    queue.mark("a")
    queue.mark("a")
    queue.mark("b")
    assert await queue.take() == "b"
    assert await queue.take() == "a"
    assert asyncio.get_running_loop().time() - begin >= 0.049
    assert len(queue) == 0
