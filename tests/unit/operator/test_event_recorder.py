import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from modelexport_operator.kube.client import (
    AlreadyExistsError,
    ClusterError,
    ForbiddenError,
    RejectedError,
    UnavailableError,
)
from modelexport_operator.kube.clock import now
from modelexport_operator.runtime import event_recorder as module
from modelexport_operator.runtime.event_recorder import EventRecorder
from modelexport_operator.status.events import Event
from testplane.objects import Body, make_export
from unit.operator.fakes import at

pytestmark = pytest.mark.usefixtures("virtual_time")


class Sink:
    """Accepts events after a delay, or fails as the test wants."""

    def __init__(self) -> None:
        self.taken: list[str] = []
        self.tried: list[str] = []
        self.seconds = 0.0
        self.fail: Callable[[str], Exception | None] = lambda _: None

    async def create_event(self, event: Body) -> None:
        self.tried.append(event["message"])
        await asyncio.sleep(self.seconds)
        if error := self.fail(event["message"]):
            raise error
        self.taken.append(event["message"])


def make() -> tuple[EventRecorder, Sink]:
    sink = Sink()
    return EventRecorder(sink, now), sink  # type: ignore[arg-type]


def record(recorder: EventRecorder, *messages: str, name: str = "shapes") -> None:
    events = [Event("Normal", "Succeeded", message) for message in messages]
    recorder.record(at(make_export(name=name), 7), events)


@asynccontextmanager
async def sending(recorder: EventRecorder) -> AsyncIterator[None]:
    tasks = [asyncio.create_task(recorder.send_forever()) for _ in range(module.SENDERS)]
    yield
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)


async def test_events_of_export_keep_order() -> None:
    recorder, sink = make()
    sink.fail = lambda message: UnavailableError("busy") if sink.tried.count("1") < 3 else None
    record(recorder, "1", "2")
    record(recorder, "other", name="other")
    async with sending(recorder):
        record(recorder, "3")
        await asyncio.sleep(10)
    assert [message for message in sink.taken if message != "other"] == ["1", "2", "3"]
    assert "other" in sink.taken
    assert len(recorder) == 0


async def test_event_is_retried_then_dropped_with_log(caplog: pytest.LogCaptureFixture) -> None:
    recorder, sink = make()
    sink.fail = lambda message: UnavailableError("busy") if message == "1" else None
    record(recorder, "1", "2")
    async with sending(recorder):
        await asyncio.sleep(600)
    assert (sink.tried.count("1"), sink.taken) == (module.MOST_TRIES, ["2"])
    assert caplog.text.count("event Succeeded was not created: busy") == 1


async def test_event_outlives_api_server_without_roles(caplog: pytest.LogCaptureFixture) -> None:
    recorder, sink = make()
    sink.fail = lambda _: ForbiddenError("cannot create") if len(sink.tried) < 3 else None
    record(recorder, "1", "2")
    async with sending(recorder):
        await asyncio.sleep(10)
    assert sink.taken == ["1", "2"]
    assert caplog.text.count("an event is tried again: cannot create") == 1


@pytest.mark.parametrize("error", [RejectedError("no"), KeyError("odd")])
async def test_rejected_event_is_tried_once(error: ClusterError, caplog: pytest.LogCaptureFixture) -> None:
    recorder, sink = make()
    sink.fail = lambda message: error if message == "1" else None
    record(recorder, "1", "2")
    async with sending(recorder):
        await asyncio.sleep(600)
    assert sink.tried == ["1", "2"]
    assert "event Succeeded was not created" in caplog.text


async def test_existing_event_counts_as_sent(caplog: pytest.LogCaptureFixture) -> None:
    recorder, sink = make()
    sink.fail = lambda _: AlreadyExistsError("409")
    record(recorder, "1")
    async with sending(recorder):
        await asyncio.sleep(1)
    assert (len(recorder), sink.tried, "not created" in caplog.text) == (0, ["1"], False)


async def test_excess_events_are_dropped_with_log(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "MOST_EVENTS", 2)
    recorder, sink = make()
    record(recorder, "1", "2", "3")
    assert "event Succeeded was not created: 2 events are already waiting" in caplog.text
    await recorder.drain(1)
    record(recorder, "4")
    await recorder.drain(1)
    assert sink.taken == ["1", "2", "4"]


async def test_graceful_shutdown_sends_pending_events() -> None:
    recorder, sink = make()
    sink.seconds = 0.1
    for index in range(40):
        record(recorder, f"{index}a", f"{index}b", name=f"export-{index}")
    await recorder.drain(5)
    assert len(sink.taken) == 80
    assert all(sink.taken.index(f"{index}a") < sink.taken.index(f"{index}b") for index in range(40))


async def test_shutdown_does_not_wait_for_silent_server(caplog: pytest.LogCaptureFixture) -> None:
    recorder, sink = make()
    sink.seconds = 3600
    record(recorder, "1", "2")
    begin = asyncio.get_running_loop().time()
    await recorder.drain(5)
    assert asyncio.get_running_loop().time() - begin < 6
    assert caplog.text.count("was not created: the operator is shutting down") == 2
