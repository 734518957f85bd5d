"""An API server that gives a separate operator process the test's answers, true or not."""

import asyncio
import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from aiohttp import web

from testplane.process import Operator

Body = dict[str, Any]
GROUPS = {
    "modelexport.dev/v1alpha1": (("modelexports", "ModelExport", True), ("exportclasses", "ExportClass", False)),
    "batch/v1": (("jobs", "Job", True),),
    "v1": (
        ("pods", "Pod", True),
        ("nodes", "Node", False),
        ("events", "Event", True),
        ("namespaces", "Namespace", False),
    ),
}
KINDS = {plural: kind for resources in GROUPS.values() for plural, kind, _ in resources}


class ApiServer:
    """Lists the given objects; its first watch of each kind sends ``words``, further ones wait.

    The first lists of each kind are answered as ``lists`` says (``None``: truly).
    """

    def __init__(self) -> None:
        self.objects: dict[str, list[Body]] = {plural: [] for plural in KINDS}
        self.lists: dict[str, list[web.Response | None]] = {}
        self.words: dict[str, list[bytes]] = {}
        self.watches: Counter[str] = Counter()
        self.port = 0

    @property
    def version(self) -> int:
        """The greatest version of all objects."""
        known = (int(body["metadata"]["resourceVersion"]) for bodies in self.objects.values() for body in bodies)
        return max(known, default=1)

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Answer the requests of an operator as an API server does."""
        path = request.path.strip("/")
        plural = path.rpartition("/")[2]
        if request.method != "GET":
            return web.json_response({"metadata": {}, "message": "only read here"}, status=403)
        if plural in KINDS:
            return await (self._watch if request.query.get("watch") else self._list)(request, plural)
        if path in ("api", "apis"):
            groups = [{"name": g.partition("/")[0], **_versions(g)} for g in GROUPS if "/" in g]
            return web.json_response({"versions": ["v1"], "groups": groups})
        group = path.removeprefix("apis/").removeprefix("api/")
        return web.json_response({"groupVersion": group, "resources": [*map(_resource, GROUPS.get(group, ()))]})

    async def _list(self, request: web.Request, plural: str) -> web.StreamResponse:
        if (answers := self.lists.get(plural)) and (answer := answers.pop(0)) is not None:
            return answer
        bodies = self.objects[plural]
        begin, limit = int(request.query.get("continue") or 0), int(request.query.get("limit") or 500)
        page, end = bodies[begin : begin + limit], begin + limit
        metadata = {"resourceVersion": str(self.version), "continue": str(end) if end < len(bodies) else ""}
        return web.json_response({"kind": f"{KINDS[plural]}List", "metadata": metadata, "items": page})

    async def _watch(self, request: web.Request, plural: str) -> web.StreamResponse:
        self.watches[plural] += 1
        response = web.StreamResponse()
        await response.prepare(request)
        if "resourceVersion" not in request.query:
            for body in self.objects[plural]:
                await response.write(json.dumps({"type": "ADDED", "object": body}).encode() + b"\n")
        words = self.words.pop(plural, None)
        for piece in words or ():
            await response.write(piece)
        if words is None:
            await asyncio.sleep(600)
        return response


def _versions(group: str) -> Body:
    version = {"groupVersion": group, "version": group.partition("/")[2]}
    return {"versions": [version], "preferredVersion": version}


def _resource(resource: tuple[str, str, bool]) -> Body:
    plural, kind, namespaced = resource
    verbs = ["get", "list", "watch", "patch"]
    return {"name": plural, "singularName": "", "kind": kind, "namespaced": namespaced, "verbs": verbs}


@contextmanager
def served(api: ApiServer) -> Iterator[ApiServer]:
    """Serve in a thread until the context ends."""
    ready, ends = threading.Event(), []

    async def serve() -> None:
        stop = asyncio.Event()
        ends.append(partial(asyncio.get_running_loop().call_soon_threadsafe, stop.set))
        application = web.Application()
        application.router.add_route("*", "/{path:.*}", api.answer)
        runner = web.AppRunner(application, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        api.port = runner.addresses[0][1]
        ready.set()
        await stop.wait()
        await runner.cleanup()

    thread = threading.Thread(target=lambda: asyncio.run(serve()), daemon=True)
    thread.start()
    assert ready.wait(30)
    try:
        yield api
    finally:
        ends[0]()
        thread.join(30)


def wait_for(is_true: Callable[[], bool], operator: Operator, seconds: float = 60) -> None:
    """Wait for an effect of an operator, which must stay alive."""
    end = time.monotonic() + seconds
    while not is_true():
        assert operator.is_alive(), operator.log.read_text()[-2000:]
        assert time.monotonic() < end, operator.log.read_text()[-2000:]
        time.sleep(0.1)
