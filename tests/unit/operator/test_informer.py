import asyncio
import gzip
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

import pytest
from aiohttp import web

from modelexport_operator.kube.client import Cluster
from modelexport_operator.kube.resources import JOBS, Scope
from modelexport_operator.metrics.metrics import Metrics
from modelexport_operator.runtime import informer
from modelexport_operator.runtime.controller import Controller
from modelexport_operator.runtime.informer import listen_forever
from testplane.objects import Body
from unit.operator.serving import serve

EXPIRED = {"type": "ERROR", "object": {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old"}}


def make(name: str, version: int) -> Body:
    return {"metadata": {"name": name, "namespace": "team", "resourceVersion": str(version)}, "spec": {}}


class Server:
    """Jobs as an API server serves them: lists in the order of names, watches in the order of versions.

    A watch without a version begins with all objects, in the order of their names. ``cuts`` has the numbers of events
    after which successive watch connections end; further ones stay open.
    """

    def __init__(self, *jobs: Body) -> None:
        self.history: list[tuple[str, Body]] = [("ADDED", job) for job in jobs]
        self.oldest = 0
        self.cuts: list[int] = []
        self.asked: list[str] = []
        self.page = 2
        self.refuse: Callable[[web.Request], web.Response | None] = lambda _: None

    @property
    def version(self) -> int:
        return max((int(body["metadata"]["resourceVersion"]) for _, body in self.history), default=1)

    @property
    def jobs(self) -> list[Body]:
        """The existing Jobs, in the order of names."""
        there: dict[str, Body] = {}
        for change, body in sorted(self.history, key=lambda event: int(event[1]["metadata"]["resourceVersion"])):
            there.pop(body["metadata"]["name"], None)
            if change != "DELETED":
                there[body["metadata"]["name"]] = body
        return [there[name] for name in sorted(there)]

    async def answer(self, request: web.Request) -> web.StreamResponse:
        is_watch = "watch" in request.query
        self.asked.append(f"watch {request.query.get('resourceVersion', '')}".strip() if is_watch else "list")
        if (refusal := self.refuse(request)) is not None:
            return refusal
        return await self._watch(request) if is_watch else self._list(request)

    def _list(self, request: web.Request) -> web.Response:
        begin = int(request.query.get("continue") or 0)
        end, jobs = begin + self.page, self.jobs
        metadata = {"resourceVersion": str(self.version), "continue": str(end) if end < len(jobs) else ""}
        return web.json_response({"kind": "JobList", "metadata": metadata, "items": jobs[begin:end]})

    async def _watch(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        since = request.query.get("resourceVersion")
        if since is None:
            events = [{"type": "ADDED", "object": job} for job in self.jobs]
        elif int(since) < self.oldest:
            events = [EXPIRED]
        else:
            told = sorted(self.history, key=lambda event: int(event[1]["metadata"]["resourceVersion"]))
            news = [event for event in told if int(event[1]["metadata"]["resourceVersion"]) > int(since)]
            events = [{"type": change, "object": body} for change, body in news]
        cut = self.cuts.pop(0) if self.cuts else None
        for event in events[:cut]:
            await response.write(json.dumps(event).encode() + b"\n")
        if cut is None and EXPIRED not in events:
            await asyncio.sleep(600)
        return response


@pytest.fixture(autouse=True)
def in_haste(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(informer, "PAUSE_SECONDS", 0.01)
    monkeypatch.setattr("modelexport_operator.kube.client.RECONNECT_SECONDS", 0.01)


@asynccontextmanager
async def listening(server: Server) -> AsyncIterator[Controller]:
    async with serve(server.answer) as cluster:
        controller = Controller(cluster, Metrics())
        task = asyncio.create_task(listen_forever(cluster, controller, Scope(JOBS)))
        try:
            yield controller
            assert not task.done()
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


def known(controller: Controller) -> dict[str, int]:
    bodies = controller.cache[JOBS].values()
    return {body["metadata"]["name"]: int(body["metadata"]["resourceVersion"]) for body in bodies}


async def until(is_true: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not is_true():
            await asyncio.sleep(0.01)


async def test_interrupted_initial_list_loses_nothing() -> None:
    server = Server(make("a", 30), make("b", 20), make("c", 10))
    server.cuts = [2]
    async with listening(server) as controller:
        await until(lambda: len(server.asked) > 3)
        assert known(controller) == {"a": 30, "b": 20, "c": 10}


async def test_complete_list_is_reported() -> None:
    server = Server(make("a", 30), make("b", 20), make("c", 10))
    server.refuse = lambda request: web.Response(status=500) if len(server.asked) == 2 else None
    known_then: list[int] = []
    async with serve(server.answer) as cluster:
        controller = Controller(cluster, Metrics())
        jobs = controller.cache[JOBS]
        task = asyncio.create_task(
            listen_forever(cluster, controller, Scope(JOBS), lambda: known_then.append(len(jobs)))
        )
        await until(lambda: bool(known_then))
        task.cancel()
    assert known_then == [3]
    assert server.asked[:4] == ["list", "list", "list", "list"]


async def test_watch_starts_at_list_version() -> None:
    server = Server(make("a", 30), make("b", 20), make("c", 10))
    async with listening(server) as controller:
        await until(lambda: len(server.asked) == 3)
        assert known(controller) == {"a": 30, "b": 20, "c": 10}
    assert server.asked == ["list", "list", "watch 30"]


async def test_object_missing_from_new_list_was_deleted() -> None:
    server = Server(make("a", 10), make("b", 20))
    server.cuts = [0]
    server.oldest = 25
    async with listening(server) as controller:
        await until(lambda: len(controller.cache[JOBS]) == 2)
        server.history = [("ADDED", make("b", 20)), ("ADDED", make("c", 40))]
        await until(lambda: known(controller) == {"b": 20, "c": 40})
    assert server.asked.count("list") == 2


async def test_dropped_watch_resumes_without_new_list() -> None:
    server = Server(make("a", 10))
    server.cuts = [1]
    async with listening(server) as controller:
        await until(lambda: known(controller) == {"a": 10})
        server.history += [("MODIFIED", make("a", 20)), ("DELETED", make("a", 30))]
        await until(lambda: known(controller) == {})
    assert server.asked.count("list") == 1


async def test_version_unknown_to_restored_server_is_abandoned() -> None:
    server = Server(make("a", 30))
    server.cuts = [0]
    message = "Too large resource version: 30, current: 20"

    def refuse(request: web.Request) -> web.Response | None:
        is_too_new = int(request.query.get("resourceVersion", "0")) > server.version
        return web.json_response({"reason": "Timeout", "message": message}, status=504) if is_too_new else None

    server.refuse = refuse
    async with listening(server):
        await until(lambda: "watch 30" in server.asked)
        server.history = [("ADDED", make("a", 20))]
        await until(lambda: "watch 20" in server.asked)


async def test_unavailable_server_is_retried_at_same_version() -> None:
    server = Server(make("a", 10))
    server.refuse = lambda request: web.json_response({}, status=503) if "watch" in request.query else None
    async with listening(server):
        await until(lambda: len(server.asked) > 3)
    assert server.asked.count("list") == 1


def lie(**headers: str) -> web.Response:
    return web.Response(body=json.dumps({"metadata": {"resourceVersion": "5"}}).encode(), headers=headers)


PAGES: dict[str, Callable[[], web.Response]] = {
    "no JSON": lambda: web.Response(text="<html>bad gateway</html>"),
    "half a page": lambda: web.Response(text='{"metadata": {"resourceVersion": "5"}, "items": [{'),
    "no object": lambda: web.json_response([]),
    "items that are no list": lambda: web.json_response({"metadata": {"resourceVersion": "5"}, "items": "many"}),
    "an item that is no object": lambda: web.json_response({"metadata": {"resourceVersion": "5"}, "items": [None]}),
    "an item without metadata": lambda: web.json_response({"metadata": {"resourceVersion": "5"}, "items": [{}]}),
    "an item without a name": lambda: web.json_response(
        {"metadata": {"resourceVersion": "5"}, "items": [{"metadata": {"resourceVersion": "1"}}]}
    ),
    "an item without a version": lambda: web.json_response(
        {"metadata": {"resourceVersion": "5"}, "items": [{"metadata": {"name": "a"}}]}
    ),
    "no version": lambda: web.json_response({"metadata": {}, "items": []}),
    "a version that is no number": lambda: web.json_response({"metadata": {"resourceVersion": "x"}, "items": []}),
    "metadata that are no object": lambda: web.json_response({"metadata": [5], "items": []}),
    "a token that is no text": lambda: web.json_response({"metadata": {"resourceVersion": "5", "continue": 7}}),
    "nothing": web.Response,
    "what is not packed": lambda: lie(**{"Content-Encoding": "gzip"}),
    "half of what is packed": lambda: web.Response(
        body=gzip.compress(json.dumps({"metadata": {"resourceVersion": "5"}}).encode())[:-12],
        headers={"Content-Encoding": "gzip"},
    ),
    "an expired token": lambda: web.json_response({"code": 410, "reason": "Expired"}, status=410),
    "an error": lambda: web.json_response({}, status=500),
}


@pytest.mark.parametrize("page", PAGES.values(), ids=PAGES)
async def test_invalid_page_is_retried(page: Callable[[], web.Response]) -> None:
    server = Server(make("a", 10), make("b", 20), make("c", 30))
    answers = [page]
    server.refuse = lambda request: answers.pop()() if answers and "continue" in request.query else None
    async with listening(server) as controller:
        await until(lambda: len(controller.cache[JOBS]) == 3)
        assert not answers


async def test_truncated_response_is_retried() -> None:
    server = Server(make("a", 10))
    asked: list[str] = []

    async def answer(request: web.Request) -> web.StreamResponse:
        asked.append(request.path)
        if len(asked) > 1:
            return await server.answer(request)
        response = web.StreamResponse(headers={"Content-Length": "1000"})
        await response.prepare(request)
        await response.write(b'{"metadata": {"resourceVersion": "5"}}')
        assert request.transport is not None
        request.transport.abort()
        return response

    async with serve(answer) as cluster:
        controller = Controller(cluster, Metrics())
        assert await hear_once(cluster, controller) == {"a": 10}


async def hear_once(cluster: Cluster, controller: Controller) -> dict[str, int]:
    task = asyncio.create_task(listen_forever(cluster, controller, Scope(JOBS)))
    await until(lambda: len(controller.cache[JOBS]) > 0)
    assert not task.done()
    task.cancel()
    return known(controller)


async def test_list_without_items_is_empty() -> None:
    server = Server()
    empty = {"metadata": {"resourceVersion": "5"}, "items": None}
    server.refuse = lambda request: None if "watch" in request.query else web.json_response(empty)
    async with listening(server):
        await until(lambda: server.asked == ["list", "watch 5"])


@pytest.mark.parametrize("nesting", [0, 5_000])
async def test_unreadable_object_does_not_block_others(
    nesting: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("modelexport_operator.kube.watch_stream.OBJECT_LIMIT", 100_000)
    monkeypatch.setattr("modelexport_operator.kube.client.PAGE_BYTES", 50_000)
    bodies = [make(name, version) for name, version in (("a", 10), ("b", 20), ("c", 30))]
    parts = [json.dumps({**body, "spec": {}}, separators=(",", ":")) for body in bodies]
    large = "[" * nesting + "]" * nesting if nesting else json.dumps("x" * 200_000)
    parts[1] = parts[1].replace('"spec":{}', f'"spec":{large}')

    async def answer(request: web.Request) -> web.StreamResponse:
        if "watch" in request.query:
            await asyncio.sleep(600)
        begin = int(request.query.get("continue") or 0)
        end = begin + int(request.query["limit"])
        token = f',"continue":"{end}"' if end < len(parts) else ""
        head = f'{{"kind":"JobList","apiVersion":"batch/v1","metadata":{{"resourceVersion":"40"{token}}}'
        return web.Response(text=f'{head},"items":[{",".join(parts[begin:end])}]}}\n')

    async with serve(answer) as cluster:
        controller = Controller(cluster, Metrics())
        controller.handle_event(JOBS, "ADDED", bodies[1])
        version = await controller.relist(Scope(JOBS))
        listed = await cluster.list_versions(Scope(JOBS))
    assert (version, known(controller)) == ("40", {"a": 10, "c": 30})
    assert listed.objects == {("team", "a"): 10, ("team", "b"): 20, ("team", "c"): 30}
    assert "team/b is left out" in caplog.text


async def test_bookmark_is_noted_and_changes_nothing() -> None:
    noted = asyncio.Event()
    lines = [
        {"type": "ADDED", "object": make("a", 5)},
        {"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": "9"}}},
    ]

    async def answer(request: web.Request) -> web.StreamResponse:
        if "watch" not in request.query:
            return web.json_response({"metadata": {"resourceVersion": "4"}, "items": []})
        return web.Response(text="".join(json.dumps(line) + "\n" for line in lines))

    async with serve(answer) as cluster:
        controller = Controller(cluster, Metrics())
        task = asyncio.create_task(listen_forever(cluster, controller, Scope(JOBS), on_bookmark=noted.set))
        await asyncio.wait_for(noted.wait(), 5)
        task.cancel()
    assert known(controller) == {"a": 5}
