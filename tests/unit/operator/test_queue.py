import asyncio
from collections import Counter

import pytest

from modelexport_operator import queue as module
from modelexport_operator.queue import DirtyQueue, Priority

pytestmark = pytest.mark.usefixtures("virtual_time")


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


async def test_a_key_that_can_wait_comes_once_with_everything_that_is_marked_until_then() -> None:
    queue: DirtyQueue[str] = DirtyQueue()
    queue.mark("a", within=0.03)
    queue.mark("a", within=0.03)
    assert await is_idle(queue)
    assert await take(queue) == "a"
    queue.done("a")
    assert await is_idle(queue, 0.05)


@pytest.mark.parametrize(("first", "second"), [(60.0, 0.02), (0.02, 60.0)])
async def test_of_two_patiences_the_shorter_counts(first: float, second: float) -> None:
    queue: DirtyQueue[str] = DirtyQueue()
    queue.mark("a", within=first)
    queue.mark("a", within=second)
    assert await take(queue) == "a"


async def test_what_can_wait_is_done_with_what_cannot() -> None:
    queue: DirtyQueue[str] = DirtyQueue()
    queue.mark("a", within=0.02)
    queue.mark("a")
    queue.mark("a", within=0.02)
    await take(queue)
    queue.done("a")
    assert await is_idle(queue, 0.05)


async def test_what_is_marked_for_later_during_a_sync_comes_after_it() -> None:
    queue: DirtyQueue[str] = DirtyQueue()
    queue.mark("a")
    await take(queue)
    queue.mark("a", within=0.01)
    queue.done("a", requeue_after=60)
    assert await take(queue) == "a"


async def test_a_later_visit_does_not_replace_an_earlier_cause() -> None:
    queue: DirtyQueue[str] = DirtyQueue()
    queue.mark("a")
    await take(queue)
    queue.done("a", requeue_after=0.01)
    queue.mark("a", within=60)
    assert await take(queue) == "a"


async def test_an_end_marked_during_a_sync_passes_the_backlog() -> None:
    queue: DirtyQueue[str] = DirtyQueue(rest=0.01)
    queue.mark("a", priority=Priority.STEP)
    await take(queue)
    for number in range(100):
        queue.mark(f"b{number}", priority=Priority.STEP)
    queue.mark("a", within=0.005, priority=Priority.END)
    await asyncio.sleep(0.006)
    queue.done("a")
    await asyncio.sleep(0.02)
    assert await take(queue) == "a"


async def test_a_key_keeps_the_higher_of_its_priorities() -> None:
    queue: DirtyQueue[str] = DirtyQueue()
    for key in ("a", "b", "c"):
        queue.mark(key, priority=Priority.NEW)
    queue.mark("c", priority=Priority.END)
    queue.mark("c", priority=Priority.IDLE)
    queue.mark("b", within=60, priority=Priority.STEP)
    assert [await take(queue) for _ in range(3)] == ["c", "b", "a"]


async def test_a_key_for_later_keeps_the_higher_priority() -> None:
    queue: DirtyQueue[str] = DirtyQueue()
    queue.mark("a", within=0.01, priority=Priority.STEP)
    queue.mark("a", within=0.02, priority=Priority.END)
    assert (queue.waiting(Priority.STEP), queue.waiting(Priority.END)) == (0, 1)
    await asyncio.sleep(0.011)
    queue.mark("b", priority=Priority.STEP)
    assert [await take(queue), await take(queue)] == ["a", "b"]
    assert queue.waiting(Priority.END) == 0


async def test_a_key_that_failed_comes_back_with_its_priority() -> None:
    queue: DirtyQueue[str] = DirtyQueue()
    queue.mark("a", priority=Priority.END)
    queue.fail(await take(queue))
    queue.mark("b", priority=Priority.STEP)
    await asyncio.sleep(0.02)
    assert await take(queue) == "a"


async def test_flows_take_turns_and_each_keeps_its_order() -> None:
    queue: DirtyQueue[str] = DirtyQueue(flow=lambda key: key[0])
    for key in ("a1", "a2", "a3", "a4", "b1", "b2", "c1"):
        queue.mark(key)
    assert [await take(queue) for _ in range(7)] == ["a1", "b1", "c1", "a2", "b2", "a3", "a4"]


async def test_no_priority_starves_while_others_never_end() -> None:
    queue: DirtyQueue[str] = DirtyQueue()
    taken: Counter[str] = Counter()
    for priority in Priority:
        queue.mark(priority.name, priority=priority)
    for _ in range(256):
        key = await take(queue)
        taken[key] += 1
        queue.done(key)
        queue.mark(key, priority=Priority[key])
    assert taken == {"END": 192, "STEP": 48, "NEW": 12, "IDLE": 4}
