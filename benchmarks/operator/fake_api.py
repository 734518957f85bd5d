"""A fake API server in one process that also plays the Job controller, the scheduler and the kubelet.

It answers at once and validates nothing, so a measurement sees the operator alone. Objects are as large as real ones:
they carry the fields that the API server and the kubelet add.
"""

import asyncio
import itertools
import json
import random
from collections import Counter, defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

from aiohttp import web

from modelexport import names
from modelexport_operator.jobs.conversion_job import output_of
from modelexport_operator.kube.encoding import encode
from modelexport_operator.kube.types import POD_JOB_LABEL
from testplane.objects import complete, ended, publish_into, result_text

Body = Any
"""An object as plain data, as JSON has it."""
Key = tuple[str, str]

GROUPS = {
    "/apis/modelexport.dev/v1alpha1": {"modelexports": "ModelExport", "exportclasses": "ExportClass"},
    "/apis/batch/v1": {"jobs": "Job"},
    "/api/v1": {"pods": "Pod", "nodes": "Node", "events": "Event", "namespaces": "Namespace"},
}
KINDS = {plural: kind for kinds in GROUPS.values() for plural, kind in kinds.items()}
API_VERSIONS = {plural: root.split("/", 2)[2] for root, kinds in GROUPS.items() for plural in kinds}
CLUSTER_WIDE = ("exportclasses", "nodes", "namespaces")
PAGE = 500
EXPIRED = b'{"type":"ERROR","object":{"kind":"Status","code":410,"reason":"Expired","message":"too old"}}\n'
STEP_SECONDS = 0.2
"""Seconds between the steps of a Pod."""
MANAGED = [
    {
        "manager": f"manager-{number}",
        "operation": "Update",
        "apiVersion": "v1",
        "time": "2026-01-02T03:04:05Z",
        "fieldsType": "FieldsV1",
        "fieldsV1": {f"f:{'abcdefgh'[i % 8]}{i}": {"f:status": {}, "f:type": {}, ".": {}} for i in range(20)},
    }
    for number in range(2)
]
"""Managed fields as large as those of a Job or a Pod."""


class FakeApi:
    """Stores all objects, and serves all watches."""

    def __init__(self, run_seconds: float, spread: float = 0.0) -> None:
        self.requests: Counter[str] = Counter()
        self._run_seconds = run_seconds
        self._spread = spread
        self._chance = random.Random(0)
        self._objects: defaultdict[str, dict[Key, Body]] = defaultdict(dict)
        self._history: defaultdict[str, list[tuple[int, bytes]]] = defaultdict(list)
        self._watches: defaultdict[str, set[asyncio.Queue[bytes | None]]] = defaultdict(set)
        self._oldest: defaultdict[str, int] = defaultdict(int)
        self._versions = itertools.count(1)
        self._version = 0
        self._tasks: set[asyncio.Task[None]] = set()

    def objects(self, plural: str) -> list[Body]:
        """Return all objects of a kind."""
        return list(self._objects[plural].values())

    def put(self, plural: str, body: Body) -> Body:
        """Store an object as its next version."""
        metadata = body["metadata"]
        key = metadata.get("namespace", ""), metadata["name"]
        change = "MODIFIED" if key in self._objects[plural] else "ADDED"
        self._version = next(self._versions)
        body = {
            "kind": KINDS[plural],
            "apiVersion": API_VERSIONS[plural],
            **body,
            "metadata": {
                "uid": f"uid-{self._version}",
                "creationTimestamp": _now(),
                "managedFields": MANAGED,
                **metadata,
                "resourceVersion": str(self._version),
            },
        }
        self._objects[plural][key] = body
        self._send_event(plural, change, body)
        return body

    def delete(self, plural: str, body: Body) -> None:
        """Delete an object."""
        metadata = body["metadata"]
        del self._objects[plural][metadata.get("namespace", ""), metadata["name"]]
        self._version = next(self._versions)
        self._send_event(plural, "DELETED", {**body, "metadata": {**metadata, "resourceVersion": str(self._version)}})

    def is_watched(self, plural: str) -> bool:
        """Whether a watch of a kind is open."""
        return bool(self._watches[plural])

    def cut(self, plural: str, last: bytes = b"") -> None:
        """End the connections of all watches of a kind, after these last bytes."""
        for queue in self._watches[plural]:
            queue.put_nowait(last)
            queue.put_nowait(None)
        self._watches[plural].clear()

    def compact(self, plural: str) -> None:
        """Forget the history of a kind: a watch from an older version is refused."""
        self._oldest[plural] = self._version
        self._history[plural].clear()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answer a request as an API server does, as far as the operator needs it."""
        if request.path in ("/api", "/apis"):
            return web.json_response(_discovery())
        if request.path in GROUPS:
            return web.json_response(_resources(request.path))
        namespace, plural, name, subresource = _parse(request.path)
        self.requests[f"{'WATCH' if 'watch' in request.query else request.method} {plural}"] += 1
        if "watch" in request.query:
            return await self._watch(request, plural)
        if request.method == "GET":
            return _json(self._objects[plural].get((namespace, name))) if name else self._list(request, plural)
        body = json.loads(await request.read())
        if request.method == "POST":
            return self._create(plural, namespace, body)
        assert (request.method, subresource) == ("PUT", "status"), f"not supported: {request.method} {request.path}"
        return self._write_status(plural, (namespace, name), body)

    def _write_status(self, plural: str, key: Key, body: Body) -> web.Response:
        known = self._objects[plural][key]
        if body["metadata"]["resourceVersion"] != known["metadata"]["resourceVersion"]:
            return web.json_response({"message": "conflict", "reason": "Conflict"}, status=409)
        return _json(self.put(plural, {**known, "status": body["status"]}))

    def _create(self, plural: str, namespace: str, body: Body) -> web.Response:
        if (namespace, body["metadata"]["name"]) in self._objects[plural]:
            return web.json_response({"message": "there", "reason": "AlreadyExists"}, status=409)
        if plural == "events":
            return _json({**body, "metadata": {**body["metadata"], "resourceVersion": "1"}})  # no client watches them
        created = self.put(plural, body)
        if plural == "jobs":
            task = asyncio.create_task(self._play(created))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return _json(created)

    async def _play(self, job: Body) -> None:
        """Run a Job to success, in the steps of the real controllers and of the kubelet."""
        begun = {"startTime": _now(), "active": 1, "ready": 0, "uncountedTerminatedPods": {}}
        pod = self.put("pods", pod_of(job))
        job = self.put("jobs", {**job, "status": begun})
        conditions = [{"type": "PodScheduled", "status": "True", "lastTransitionTime": _now()}]
        pod = {**pod, "spec": {**pod["spec"], "nodeName": "node-1"}}
        pod = self.put("pods", {**pod, "status": {"phase": "Pending", "conditions": conditions}})
        await asyncio.sleep(STEP_SECONDS)
        running = [{"name": names.PUBLISH, "state": {"running": {"startedAt": _now()}}, "image": "converter:1"}]
        pod = self.put("pods", {**pod, "status": {**pod["status"], "phase": "Running", "containerStatuses": running}})
        job = self.put("jobs", {**job, "status": {**begun, "ready": 1}})
        await asyncio.sleep(self._run_seconds + self._chance.uniform(0, self._spread))
        answer = publish_into(output_of(job), result_text())
        over = {"phase": "Succeeded", "containerStatuses": ended(0, answer, "Completed")}
        pod = self.put("pods", {**pod, "status": {**pod["status"], **over}})
        ending = {**begun, "active": 0, "uncountedTerminatedPods": {"succeeded": [pod["metadata"]["uid"]]}}
        job = self.put("jobs", {**job, "status": ending})
        self.put("jobs", {**job, "status": complete(_now())})

    def _send_event(self, plural: str, change: str, body: Body) -> None:
        line = encode({"type": change, "object": body}) + b"\n"
        self._history[plural].append((self._version, line))
        for queue in self._watches[plural]:
            queue.put_nowait(line)

    def _list(self, request: web.Request, plural: str) -> web.Response:
        begin, limit = int(request.query.get("continue") or 0), int(request.query.get("limit") or PAGE)
        bodies = self.objects(plural)[begin : begin + limit]
        if "PartialObjectMetadata" in request.headers.get("Accept", ""):
            bodies = [{"metadata": body["metadata"]} for body in bodies]
        more = str(begin + limit) if begin + limit < len(self._objects[plural]) else ""
        metadata = {"resourceVersion": str(self._version), "continue": more}
        return _json({"kind": f"{KINDS[plural]}List", "metadata": metadata, "items": bodies})

    async def _watch(self, request: web.Request, plural: str) -> web.StreamResponse:
        response = web.StreamResponse()
        response.content_type = "application/json"
        await response.prepare(request)
        queue: asyncio.Queue[bytes | None] = asyncio.Queue()
        since = request.query.get("resourceVersion")
        if since and int(since) < self._oldest[plural]:
            await response.write(EXPIRED)
            return response
        if since:
            lines = [line for version, line in self._history[plural] if version > int(since)]
        else:
            lines = [encode({"type": "ADDED", "object": body}) + b"\n" for body in self.objects(plural)]
        self._watches[plural].add(queue)
        try:
            for line in lines:
                await response.write(line)
            while True:
                pieces = [await queue.get()]
                while not queue.empty():
                    pieces.append(queue.get_nowait())
                await response.write(b"".join(filter(None, pieces)))
                if None in pieces:
                    return response
        finally:
            self._watches[plural].discard(queue)


@asynccontextmanager
async def serve(api: FakeApi) -> AsyncIterator[str]:
    """Serve on loopback; yields the address."""
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", api.handle)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


def pod_of(job: Body) -> Body:
    """The Pod of a Job, as its controller creates it."""
    metadata, template = job["metadata"], job["spec"]["template"]
    labels = {**template["metadata"]["labels"], POD_JOB_LABEL: metadata["name"]}
    owner = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "name": metadata["name"],
        "uid": metadata["uid"],
        "controller": True,
    }
    about = {"name": f"{metadata['name']}-abcde", "namespace": metadata["namespace"], "labels": labels}
    spec = {**template["spec"], "schedulerName": "default-scheduler", "dnsPolicy": "ClusterFirst", "priority": 0}
    return {
        "metadata": {**about, "ownerReferences": [owner]},
        "spec": spec,
        "status": {"phase": "Pending", "qosClass": "Burstable"},
    }


def _parse(path: str) -> tuple[str, str, str, str]:
    """Return namespace, plural, name and subresource of a path."""
    root = next(root for root in GROUPS if path.startswith(f"{root}/"))
    rest = path.removeprefix(f"{root}/").split("/")
    namespace = ""
    if rest[0] == "namespaces" and len(rest) > 2:
        namespace, rest = rest[1], rest[2:]
    plural, name, subresource = [*rest, "", ""][:3]
    return namespace, plural, name, subresource


def _discovery() -> Body:
    versions = [root.removeprefix("/apis/") for root in GROUPS if root.startswith("/apis/")]
    groups = [
        {
            "name": version.partition("/")[0],
            "versions": [{"groupVersion": version, "version": version.partition("/")[2]}],
            "preferredVersion": {"groupVersion": version, "version": version.partition("/")[2]},
        }
        for version in versions
    ]
    return {"versions": ["v1"], "groups": groups}


def _resources(root: str) -> Body:
    verbs = ["get", "list", "watch", "patch"]
    resources = [
        {"name": plural, "singularName": "", "kind": kind, "namespaced": plural not in CLUSTER_WIDE, "verbs": verbs}
        for plural, kind in GROUPS[root].items()
    ]
    return {"groupVersion": root.split("/", 2)[2], "resources": resources}


def _json(body: Body | None) -> web.Response:
    if body is None:
        return web.json_response({"message": "not found"}, status=404)
    return web.Response(body=encode(body), content_type="application/json")


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
