import asyncio
from collections import Counter

import pytest

from modelexport_operator.kube.backoff import jitter
from modelexport_operator.runtime import work_queue as module
from modelexport_operator.runtime.work_queue import Priority, WorkQueue

pytestmark = pytest.mark.usefixtures("virtual_time")


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FIRST_DELAY", 0.01)
    monkeypatch.setattr(module, "LAST_DELAY", 0.04)
    monkeypatch.setattr(module, "jitter", float)


async def take(queue: WorkQueue[str], within: float = 1.0) -> str:
    return await asyncio.wait_for(queue.get(), within)


async def is_idle(queue: WorkQueue[str], seconds: float = 0.005) -> bool:
    try:
        await take(queue, seconds)
    except TimeoutError:
        return True
    return False


async def test_key_is_queued_once() -> None:
    queue: WorkQueue[str] = WorkQueue()
    for key in ("a", "b", "a", "a"):
        queue.add(key)
    assert len(queue) == 2
    assert [await take(queue), await take(queue)] == ["a", "b"]
    assert await is_idle(queue)


async def test_key_added_while_processed_comes_again_afterwards() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add("a")
    await take(queue)
    queue.add("a")
    assert len(queue) == 1
    assert await is_idle(queue)
    queue.done("a")
    assert await take(queue) == "a"
    queue.done("a")
    assert await is_idle(queue)


async def test_waiting_worker_wakes_up() -> None:
    queue: WorkQueue[str] = WorkQueue()
    waiting = asyncio.create_task(take(queue))
    await asyncio.sleep(0)
    queue.add("a")
    assert await waiting == "a"


async def test_failing_key_backs_off_up_to_limit() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add("a")
    delays = []
    for _ in range(5):
        await take(queue)
        delays.append(queue.retry("a"))
    assert delays == [0.01, 0.02, 0.04, 0.04, 0.04]


async def test_long_failing_key_is_retried_at_maximum_delay() -> None:
    queue: WorkQueue[str] = WorkQueue()
    assert [queue.retry("a") for _ in range(2000)][-1] == 0.04


async def test_keys_that_failed_together_return_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "jitter", jitter)
    queue: WorkQueue[int] = WorkQueue()
    delays = [queue.retry(key, at_least=10) for key in range(100)]
    assert min(delays) >= 10
    assert max(delays) <= 15
    assert max(delays) - min(delays) > 2.5


async def test_success_resets_backoff() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add("a")
    await take(queue)
    queue.retry("a")
    await take(queue)
    queue.done("a")
    queue.add("a")
    await take(queue)
    assert queue.retry("a") == 0.01


async def test_new_event_neither_shortens_backoff_nor_gets_lost() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add("a")
    await take(queue)
    queue.retry("a", at_least=0.05)
    queue.add("a")
    assert await is_idle(queue, 0.02)
    assert await take(queue) == "a"
    queue.done("a")
    assert await is_idle(queue)


async def test_failing_key_does_not_block_others() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add("a")
    await take(queue)
    queue.retry("a", at_least=60)
    queue.add("b")
    assert await take(queue) == "b"


async def test_key_can_be_requeued_later() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add("a")
    await take(queue)
    queue.done("a", requeue_after=0.02)
    assert await is_idle(queue)
    assert await take(queue) == "a"


async def test_earlier_event_replaces_later_requeue() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add("a")
    await take(queue)
    queue.done("a", requeue_after=0.02)
    queue.add("a")
    await take(queue)
    queue.done("a")
    assert await is_idle(queue, 0.04)


async def test_key_rests_after_sync_and_then_comes_once() -> None:
    queue: WorkQueue[str] = WorkQueue(cooldown=0.05)
    queue.add("a")
    queue.done(await queue.get())
    begin = asyncio.get_running_loop().time()
    queue.add("a")
    queue.add("a")
    queue.add("b")
    assert await queue.get() == "b"
    assert await queue.get() == "a"
    assert asyncio.get_running_loop().time() - begin >= 0.049
    assert len(queue) == 0


async def test_delayed_key_comes_once_for_all_events() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add("a", after=0.03)
    queue.add("a", after=0.03)
    assert await is_idle(queue)
    assert await take(queue) == "a"
    queue.done("a")
    assert await is_idle(queue, 0.05)


@pytest.mark.parametrize(("first", "second"), [(60.0, 0.02), (0.02, 60.0)])
async def test_shorter_delay_wins(first: float, second: float) -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add("a", after=first)
    queue.add("a", after=second)
    assert await take(queue) == "a"


async def test_delayed_event_joins_urgent_one() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add("a", after=0.02)
    queue.add("a")
    queue.add("a", after=0.02)
    await take(queue)
    queue.done("a")
    assert await is_idle(queue, 0.05)


async def test_delayed_event_during_sync_comes_after_it() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add("a")
    await take(queue)
    queue.add("a", after=0.01)
    queue.done("a", requeue_after=60)
    assert await take(queue) == "a"


async def test_later_requeue_does_not_replace_earlier_event() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add("a")
    await take(queue)
    queue.done("a", requeue_after=0.01)
    queue.add("a", after=60)
    assert await take(queue) == "a"


async def test_completion_during_sync_passes_backlog() -> None:
    queue: WorkQueue[str] = WorkQueue(cooldown=0.01)
    queue.add("a", priority=Priority.STEP)
    await take(queue)
    for number in range(100):
        queue.add(f"b{number}", priority=Priority.STEP)
    queue.add("a", after=0.005, priority=Priority.END)
    await asyncio.sleep(0.006)
    queue.done("a")
    await asyncio.sleep(0.02)
    assert await take(queue) == "a"


async def test_key_keeps_highest_priority() -> None:
    queue: WorkQueue[str] = WorkQueue()
    for key in ("a", "b", "c"):
        queue.add(key, priority=Priority.NEW)
    queue.add("c", priority=Priority.END)
    queue.add("c", priority=Priority.IDLE)
    queue.add("b", after=60, priority=Priority.STEP)
    assert [await take(queue) for _ in range(3)] == ["c", "b", "a"]


async def test_delayed_key_keeps_highest_priority() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add("a", after=0.01, priority=Priority.STEP)
    queue.add("a", after=0.02, priority=Priority.END)
    assert (queue.count_delayed(Priority.STEP), queue.count_delayed(Priority.END)) == (0, 1)
    await asyncio.sleep(0.011)
    queue.add("b", priority=Priority.STEP)
    assert [await take(queue), await take(queue)] == ["a", "b"]
    assert queue.count_delayed(Priority.END) == 0


async def test_failed_key_returns_with_its_priority() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add("a", priority=Priority.END)
    queue.retry(await take(queue))
    queue.add("b", priority=Priority.STEP)
    await asyncio.sleep(0.02)
    assert await take(queue) == "a"


async def test_flows_alternate_and_each_keeps_order() -> None:
    queue: WorkQueue[str] = WorkQueue(flow=lambda key: key[0])
    for key in ("a1", "a2", "a3", "a4", "b1", "b2", "c1"):
        queue.add(key)
    assert [await take(queue) for _ in range(7)] == ["a1", "b1", "c1", "a2", "b2", "a3", "a4"]


async def test_no_priority_starves_others() -> None:
    queue: WorkQueue[str] = WorkQueue()
    taken: Counter[str] = Counter()
    for priority in Priority:
        queue.add(priority.name, priority=priority)
    for _ in range(256):
        key = await take(queue)
        taken[key] += 1
        queue.done(key)
        queue.add(key, priority=Priority[key])
    assert taken == {"END": 192, "STEP": 48, "NEW": 12, "IDLE": 4}
