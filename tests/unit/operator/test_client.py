import asyncio
import json
import time
import weakref
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from modelexport.matrix.options import TARGETS_LIMIT
from modelexport_operator.kube import watch_stream
from modelexport_operator.kube.client import (
    MOST_CREATIONS,
    MOST_JOBS,
    AlreadyExistsError,
    Cluster,
    ClusterError,
    ConflictError,
    ExpiredError,
    ForbiddenError,
    NotFoundError,
    RejectedError,
    UnavailableError,
)
from modelexport_operator.kube.resources import CLASSES, JOBS, Scope, scopes_of
from modelexport_operator.kube.watch_stream import OBJECT_LIMIT, Page
from modelexport_operator.metrics.metrics import Metrics
from modelexport_operator.runtime.controller import Controller
from testplane.objects import Body, build_all, make_class, make_export
from unit.operator.serving import Answer, serve

JOB = build_all(make_export("ONNX/FP16"), make_class())["ONNX/FP16"]


def always(status: int, body: Any = None, **headers: str) -> Answer:
    async def answer(_: web.Request) -> web.Response:
        return web.json_response(body or {"message": "the server's words"}, status=status, headers=headers)

    return answer


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (300, UnavailableError),
        (400, RejectedError),
        (401, UnavailableError),
        (403, RejectedError),
        (404, NotFoundError),
        (409, ConflictError),
        (413, RejectedError),
        (422, RejectedError),
        (429, UnavailableError),
        (500, UnavailableError),
        (502, UnavailableError),
        (503, UnavailableError),
        (504, UnavailableError),
    ],
)
async def test_every_response_maps_to_error_type(status: int, kind: type[ClusterError]) -> None:
    async with serve(always(status)) as cluster:
        with pytest.raises(kind, match="the server's words"):
            await cluster.suspend_job("team", "job", suspend=True)


METADATA = {"namespace": "team", "name": "shapes", "uid": "uid-1", "resourceVersion": "7"}
EXPORT: Body = {"metadata": METADATA, "spec": {"a": 1}}
KIND = {"apiVersion": "modelexport.dev/v1alpha1", "kind": "ModelExport"}
EXPORT_PATH = "/apis/modelexport.dev/v1alpha1/namespaces/team/modelexports/shapes"
EVENT: Body = {"metadata": {"namespace": "team", "name": "shapes.1"}}
LEASE: Body = {"metadata": {"namespace": "system", "name": "operator", "resourceVersion": "7"}, "spec": {}}
LEASES_PATH = "/apis/coordination.k8s.io/v1/namespaces/system/leases"


@pytest.mark.parametrize(
    ("call", "request_line", "content_type", "body"),
    [
        (lambda c: c.create_job(JOB), "POST /apis/batch/v1/namespaces/team/jobs", "json", JOB),
        (
            lambda c: c.suspend_job("team", "job", suspend=False),
            "PATCH /apis/batch/v1/namespaces/team/jobs/job",
            "merge-patch+json",
            {"spec": {"suspend": False}},
        ),
        (
            lambda c: c.write_status(EXPORT, {"ready": "1/1"}),
            f"PUT {EXPORT_PATH}/status",
            "json",
            {**KIND, "metadata": EXPORT["metadata"], "status": {"ready": "1/1"}},
        ),
        (
            lambda c: c.delete_export(EXPORT),
            f"DELETE {EXPORT_PATH}",
            "json",
            {"preconditions": {"uid": "uid-1", "resourceVersion": "7"}, "propagationPolicy": "Background"},
        ),
        (lambda c: c.create_event(EVENT), "POST /api/v1/namespaces/team/events", "json", EVENT),
        (lambda c: c.create_lease(LEASE), f"POST {LEASES_PATH}", "json", LEASE),
        (lambda c: c.write_lease(LEASE), f"PUT {LEASES_PATH}/operator", "json", LEASE),
    ],
)
async def test_every_write_targets_its_object_and_payload(
    call: Callable[[Cluster], Awaitable[Any]], request_line: str, content_type: str, body: Any
) -> None:
    asked = []

    async def answer(request: web.Request) -> web.Response:
        asked.append((f"{request.method} {request.path}", request.content_type, await request.json()))
        return web.json_response({"metadata": {"name": "a", "resourceVersion": "8"}})

    async with serve(answer) as cluster:
        await call(cluster)
    assert asked == [(request_line, f"application/{content_type}", body)]


async def test_standby_writes_nothing_but_lease() -> None:
    asked = []

    async def answer(request: web.Request) -> web.Response:
        asked.append(request.method)
        return web.json_response(LEASE)

    async with serve(answer) as cluster:
        cluster.seconds_to_write = lambda: 0.0
        for write in (
            cluster.create_job(JOB),
            cluster.suspend_job("team", "job", suspend=True),
            cluster.write_status(EXPORT, {}),
            cluster.delete_export(EXPORT),
            cluster.create_event(EVENT),
        ):
            with pytest.raises(UnavailableError, match="this operator is not the leader"):
                await write
        await cluster.list_versions(Scope(JOBS))
        await cluster.read_lease("system", "operator")
        await cluster.create_lease(LEASE)
        await cluster.write_lease(LEASE)
    assert asked == ["GET", "GET", "POST", "PUT"]


async def test_write_is_cancelled_at_lease_expiry_but_not_reads() -> None:
    async def answer(request: web.Request) -> web.Response:
        await asyncio.sleep(0.2)
        return web.json_response(LEASE)

    async with serve(answer) as cluster:
        cluster.seconds_to_write = lambda: 0.05
        with pytest.raises(UnavailableError, match="no answer within"):
            await cluster.create_event(EVENT)
        assert await cluster.write_lease(LEASE) == await cluster.read_lease("system", "operator") == LEASE


@pytest.mark.parametrize("iterations", [1, 2])
async def test_frozen_write_is_not_sent_after_waking(iterations: int) -> None:
    asked = []

    async def answer(request: web.Request) -> web.Response:
        asked.append(request.path)
        return web.json_response(LEASE)

    async with serve(answer) as cluster:
        cluster.seconds_to_write = lambda: 0.05
        write = asyncio.create_task(cluster.create_event(EVENT))
        for _ in range(iterations):
            await asyncio.sleep(0)
        time.sleep(0.1)  # blocks the whole process, as SIGSTOP does
        with pytest.raises(UnavailableError, match="no answer within"):
            await write
        await cluster.read_lease("system", "operator")
    assert len(asked) == 1


async def test_cancellation_survives_simultaneous_timeout() -> None:
    arrived = asyncio.Event()

    async def answer(request: web.Request) -> web.Response:
        arrived.set()
        await asyncio.sleep(60)
        return web.json_response({})

    async with serve(answer) as cluster:
        cluster.seconds_to_write = lambda: 1.0
        write = asyncio.create_task(cluster.create_event(EVENT))
        await arrived.wait()
        asyncio.get_running_loop().call_later(1.1, write.cancel)
        time.sleep(1.2)  # the next iteration of the loop finds both due, the timeout first
        with pytest.raises(asyncio.CancelledError):
            await write


async def test_list_and_watch_are_limited_to_namespace() -> None:
    asked = []

    async def answer(request: web.Request) -> web.Response:
        asked.append(request.path)
        return web.json_response({"metadata": {"resourceVersion": "1"}})

    async with serve(answer) as cluster:
        for scope in scopes_of((CLASSES, JOBS), ("team", "other")):
            await cluster.list_versions(scope)
    jobs = "/apis/batch/v1/namespaces/{}/jobs"
    assert asked == ["/apis/modelexport.dev/v1alpha1/exportclasses", jobs.format("team"), jobs.format("other")]


async def test_status_write_returns_new_body_and_sends_token() -> None:
    async def answer(request: web.Request) -> web.Response:
        return web.json_response({**EXPORT, "status": {"ready": request.headers.get("Authorization")}})

    async with serve(answer, token="secret") as cluster:
        assert (await cluster.write_status(EXPORT, {}))["status"] == {"ready": "Bearer secret"}


@pytest.mark.parametrize("answer", [{}, {"metadata": {"name": "a"}}, {"metadata": {"name": 1, "resourceVersion": "1"}}])
async def test_response_without_name_or_version_is_an_error(answer: Body) -> None:
    async with serve(always(200, answer)) as cluster:
        for write in (cluster.write_status(EXPORT, {}), cluster.write_lease(LEASE), cluster.create_lease(LEASE)):
            with pytest.raises(UnavailableError, match="the response has no name or no version"):
                await write


async def test_rejection_shows_server_message_and_errors_show_request() -> None:
    for status, words in ((422, "^the server's words$"), (404, "^POST /apis/batch/v1/.*: 404: the server's words$")):
        async with serve(always(status)) as cluster:
            with pytest.raises(ClusterError, match=words):
                await cluster.create_job(JOB)


OPERATOR = 'User "system:serviceaccount:modelexport-system:modelexport-operator"'
LATEST = 'jobs.batch "shapes" is forbidden'


@pytest.mark.parametrize(
    ("words", "is_for_want_of_right"),
    [
        (f'jobs.batch is forbidden: {OPERATOR} cannot create resource "jobs" in API group "batch"', True),
        (f'forbidden: {OPERATOR} cannot get path "/apis"', True),
        (f"{LATEST}: cannot set blockOwnerDeletion if an ownerReference refers to a resource you can't set", True),
        (f"{LATEST}: not yet ready to handle request", True),
        (f"{LATEST}: exceeded quota: jobs, requested: count/jobs.batch=1", False),
        ('admission webhook "jobs.example.com" denied the request: no', False),
        (f"{LATEST}: unable to create new content in namespace team because it is being terminated", False),
    ],
)
async def test_missing_right_differs_from_refused_object(words: str, is_for_want_of_right: bool) -> None:
    async with serve(always(403, {"message": words, "reason": "Forbidden"})) as cluster:
        with pytest.raises(RejectedError) as caught:
            await cluster.create_job(JOB)
    assert str(caught.value) == words
    assert isinstance(caught.value, ForbiddenError) is is_for_want_of_right


@pytest.mark.parametrize("body", [[1], {"kind": "Status"}, "text"])
async def test_response_without_message_is_shown_verbatim(body: Any) -> None:
    async with serve(always(500, body)) as cluster:
        with pytest.raises(UnavailableError, match=r"500: .+"):
            await cluster.create_job(JOB)


async def test_latest_job_controller_event_explains_missing_pod() -> None:
    asked = []

    async def answer(request: web.Request) -> web.Response:
        asked.append((request.path, request.query["fieldSelector"]))
        told = [("2026-01-02T03:00:09Z", "Error creating: quota"), ("2026-01-02T03:00:05Z", "Error creating: class")]
        items = [{"metadata": {}, "lastTimestamp": at, "message": words} for at, words in told]
        return web.json_response({"items": items})

    job: Body = {"metadata": {"namespace": "team", "name": "job", "uid": "uid-2"}}
    async with serve(answer) as cluster:
        assert await cluster.find_pod_refusal(job) == "quota"
    assert asked == [("/api/v1/namespaces/team/events", "involvedObject.uid=uid-2,reason=FailedCreate")]
    async with serve(always(200, {"items": []})) as cluster:
        assert await cluster.find_pod_refusal(job) is None


async def test_jobs_of_export_are_listed_by_label() -> None:
    asked: list[tuple[str, str]] = []

    async def answer(request: web.Request) -> web.Response:
        asked.append((request.path, request.query["labelSelector"]))
        return web.json_response({"items": [JOB]})

    async with serve(answer) as cluster:
        assert await cluster.read_jobs("team", "uid-1") == [JOB]
    assert asked == [
        ("/apis/batch/v1/namespaces/team/jobs", f"{JOBS.selector},modelexport.dev/export-uid=uid-1"),
    ]


async def test_workloads_of_jobs_are_listed_by_kueue_label() -> None:
    asked: list[tuple[str, str]] = []
    told = {"type": "QuotaReserved", "status": "False", "message": "full", "unread": 1}
    metadata = {
        "name": "job-shapes",
        "ownerReferences": [{"uid": "uid-1", "controller": True}],
        "annotations": {"a": "b"},
    }
    workload = {"metadata": metadata, "spec": {"podSets": []}, "status": {"conditions": [told, {"type": "Other"}]}}

    async def answer(request: web.Request) -> web.Response:
        asked.append((request.path, request.query["labelSelector"]))
        return web.json_response({"metadata": {"continue": "more"}, "items": [workload] * (MOST_JOBS - 1)})

    async with serve(answer) as cluster:
        found = await cluster.read_workloads("team", ["uid-2", "uid-1"])
    query = "/apis/kueue.x-k8s.io/v1beta2/namespaces/team/workloads", "kueue.x-k8s.io/job-uid in (uid-1,uid-2)"
    assert asked == [query, query]
    assert len(found) == MOST_JOBS
    kept = {key: value for key, value in told.items() if key != "unread"}
    owner = {"name": "job-shapes", "ownerReferences": [{"uid": "uid-1", "controller": True}]}
    assert found[0] == {"metadata": owner, "spec": {}, "status": {"conditions": [kept]}}


async def test_existing_job_is_distinguished_from_other_conflicts() -> None:
    async with serve(always(409, {"message": 'jobs.batch "job" already exists', "reason": "AlreadyExists"})) as cluster:
        with pytest.raises(AlreadyExistsError):
            await cluster.create_job(JOB)


@pytest.mark.parametrize("items", [[JOB], []])
async def test_job_is_found_by_name_in_list(items: list[Body]) -> None:
    asked = []

    async def answer(request: web.Request) -> web.Response:
        asked.append((request.path, request.query["fieldSelector"]))
        return web.json_response({"metadata": {"resourceVersion": "5"}, "items": items})

    async with serve(answer) as cluster:
        assert await cluster.find_job("team", "job") == (items[0] if items else None)
    assert asked == [("/apis/batch/v1/namespaces/team/jobs", "metadata.name=job")]


async def test_job_rejected_by_quota_conflict_is_not_created() -> None:
    words = {"message": 'Operation cannot be fulfilled on resourcequotas "jobs"', "reason": "Conflict"}
    async with serve(always(409, words)) as cluster:
        with pytest.raises(ConflictError, match="resourcequotas"):
            await cluster.create_job(JOB)


async def test_retry_after_is_kept() -> None:
    for text, seconds in (("7", 7), ("", 0), ("Mon, 23 Nov 2026 12:00:00 GMT", 0), ("9" * 400, 60), ("\u00b2", 0)):
        async with serve(always(429, **{"Retry-After": text})) as cluster:
            with pytest.raises(UnavailableError) as error:
                await cluster.create_job(JOB)
        assert error.value.retry_after == seconds


async def test_non_json_response_is_reported() -> None:
    async def answer(_: web.Request) -> web.Response:
        return web.Response(status=502, text="<html>bad gateway</html>" + "x" * 1000)

    async with serve(answer) as cluster:
        with pytest.raises(UnavailableError, match="bad gateway") as error:
            await cluster.create_job(JOB)
    assert len(str(error.value)) < 400


async def test_netrc_and_proxy_environment_are_ignored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str | None] = []

    async def answer(request: web.Request) -> web.Response:
        seen.append(request.headers.get("Authorization"))
        return web.json_response(LEASE)

    async with serve(answer) as cluster:
        address = cluster._api.configuration.host
        user = {"name": "user", "user": {}}
        context = {"name": "here", "context": {"cluster": "here", "user": "user"}}
        config = {"clusters": [{"name": "here", "cluster": {"server": address}}], "users": [user]}
        (tmp_path / "config").write_text(json.dumps({**config, "contexts": [context], "current-context": "here"}))
        (tmp_path / "netrc").write_text("machine 127.0.0.1 login somebody password secret\n")
        for name, value in (("NETRC", "netrc"), ("HOME", "")):
            monkeypatch.setenv(name, str(tmp_path / value))
        monkeypatch.setattr("kubernetes.aio.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(tmp_path / "config"))
        monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
        monkeypatch.setenv("NO_PROXY", "")
        async with Cluster.connect() as connected:
            await connected.read_lease("team", "operator")
    assert seen == [None]


async def test_closed_connection_is_retriable() -> None:
    async def answer(request: web.Request) -> web.Response:
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    async with serve(answer) as cluster:
        with pytest.raises(UnavailableError):
            await cluster.create_job(JOB)


async def test_unresponsive_server_times_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("modelexport_operator.kube.client.REQUEST_SECONDS", 0.05)

    async def answer(_: web.Request) -> web.Response:
        await asyncio.sleep(0.3)
        return web.Response()

    async with serve(answer) as cluster:
        with pytest.raises(UnavailableError):
            await cluster.create_job(JOB)


async def test_list_follows_pages_and_requests_own_metadata_only() -> None:
    pages = {"": "next", "next": ""}
    asked = []

    async def answer(request: web.Request) -> web.Response:
        asked.append((request.headers["Accept"], request.query["labelSelector"], request.query["limit"]))
        page = request.query.get("continue", "")
        name, version = f"job-{page or 'first'}", "11" if page else "10"
        item = {"metadata": {"name": name, "namespace": "team", "resourceVersion": version}}
        return web.json_response({"metadata": {"resourceVersion": "40", "continue": pages[page]}, "items": [item]})

    async with serve(answer) as cluster:
        listing = await cluster.list_versions(Scope(JOBS))
    assert listing.version == 40
    assert listing.objects == {("team", "job-first"): 10, ("team", "job-next"): 11}
    assert {limit for *_, limit in asked} == {"500"}
    assert all("PartialObjectMetadataList" in accept and "modelexport-operator" in label for accept, label, _ in asked)


class Items(list[Body]):
    """Objects to which a weak reference is possible."""


async def test_page_leaves_memory_before_next_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    pages: list[weakref.ref[Items]] = []
    alive: list[bool] = []

    def parse(answer: Body) -> Page:
        items = Items(answer["items"])
        pages.append(weakref.ref(items))
        return Page("40", items, answer["metadata"]["continue"])

    async def answer(request: web.Request) -> web.Response:
        alive.extend(page() is not None for page in pages)
        item = {"metadata": {"name": f"job-{len(alive)}", "namespace": "team", "resourceVersion": "10"}}
        return web.json_response({"metadata": {"continue": "next" if len(pages) < 2 else ""}, "items": [item]})

    monkeypatch.setattr(watch_stream, "parse_page", parse)
    async with serve(answer) as cluster:
        controller = Controller(cluster, Metrics())
        for read in (cluster.list_versions, controller.relist):
            pages.clear()
            await read(Scope(JOBS))
            assert len(pages) == 3
    assert not any(alive)


async def test_concurrent_creations_do_not_block_other_writes() -> None:
    under_way, may_go = 0, asyncio.Event()

    async def answer(request: web.Request) -> web.Response:
        nonlocal under_way
        under_way += 1
        await may_go.wait()
        return web.json_response(JOB)

    async with serve(answer) as cluster:
        jobs = [asyncio.create_task(cluster.create_job(JOB)) for _ in range(MOST_CREATIONS + 8)]
        async with asyncio.timeout(30):
            while under_way < MOST_CREATIONS:
                await asyncio.sleep(0.05)
        await asyncio.sleep(0.5)
        assert under_way == MOST_CREATIONS
        deletion = asyncio.create_task(cluster.delete_job("team", "a"))
        async with asyncio.timeout(30):
            while under_way == MOST_CREATIONS:
                await asyncio.sleep(0.05)
        assert under_way == MOST_CREATIONS + 1
        may_go.set()
        await asyncio.gather(*jobs, deletion)
    assert under_way == MOST_CREATIONS + 9


async def test_list_permission_is_probed_with_one_object() -> None:
    asked = []

    async def answer(request: web.Request) -> web.Response:
        asked.append(dict(request.query))
        return web.json_response({"metadata": {"resourceVersion": "40", "continue": "next"}, "items": []})

    async with serve(answer) as cluster:
        await cluster.try_list(Scope(JOBS))
    assert asked == [{"labelSelector": JOBS.selector, "limit": "1"}]
    async with serve(always(403, {"message": "jobs is forbidden"})) as cluster:
        with pytest.raises(RejectedError):
            await cluster.try_list(Scope(JOBS))


async def test_cluster_scoped_list_has_keys_without_namespace() -> None:
    item = {"metadata": {"name": "standard", "resourceVersion": "3"}}
    async with serve(always(200, {"metadata": {"resourceVersion": "4"}, "items": [item]})) as cluster:
        assert (await cluster.list_versions(Scope(CLASSES))).objects == {("", "standard"): 3}


def stream(*connections: list[Any]) -> tuple[Answer, list[dict[str, str]]]:
    """A server of watches: each connection sends some events and ends; the last one stays open."""
    asked: list[dict[str, str]] = []
    waiting = list(connections)

    async def answer(request: web.Request) -> web.StreamResponse:
        asked.append(dict(request.query))
        response = web.StreamResponse()
        await response.prepare(request)
        for event in waiting.pop(0):
            await response.write(json.dumps(event).encode() + b"\n")
        if not waiting:
            await asyncio.sleep(60)
        return response

    return answer, asked


def event(kind: str, version: str) -> Body:
    return {"type": kind, "object": {"metadata": {"name": "job", "resourceVersion": version}}}


async def observe(cluster: Cluster, count: int, version: str = "4") -> list[tuple[str, str]]:
    told = []
    async for events in cluster.watch(Scope(JOBS), version):
        told += [(change, body["metadata"]["resourceVersion"]) for change, body in events]
        if len(told) >= count:
            break
    return told


async def test_ended_watch_resumes_at_last_version() -> None:
    first = [event("ADDED", "5"), event("BOOKMARK", "9")]
    answer, asked = stream(first, [event("MODIFIED", "10")])
    async with serve(answer) as cluster:
        told = await asyncio.wait_for(observe(cluster, 3), 60)
    assert told == [("ADDED", "5"), ("BOOKMARK", "9"), ("MODIFIED", "10")]
    assert asked[0]["labelSelector"] == JOBS.selector
    assert [query.get("resourceVersion") for query in asked] == ["4", "9"]


async def test_expired_watch_is_reported() -> None:
    gone = {"type": "ERROR", "object": {"code": 410, "reason": "Expired", "message": "too old"}}
    answer, _ = stream([event("ADDED", "5")], [gone], [gone])
    async with serve(answer) as cluster:
        with pytest.raises(ExpiredError, match="410"):
            await asyncio.wait_for(observe(cluster, 2), 60)


def raw(*connections: list[bytes]) -> Answer:
    """As ``stream``, with exact bytes."""
    waiting = list(connections)

    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for piece in waiting.pop(0):
            await response.write(piece)
        if not waiting:
            await asyncio.sleep(60)
        return response

    return answer


def line(kind: str, version: str, **more: Any) -> bytes:
    body = {"kind": "Job", "apiVersion": "batch/v1", "metadata": {"name": "job", "resourceVersion": version}, **more}
    return json.dumps({"type": kind, "object": body}, separators=(",", ":")).encode() + b"\n"


@pytest.mark.parametrize("size", [200_000, 5_000_000, 12_000_000])
async def test_watch_reads_objects_of_any_size(size: int) -> None:
    async with serve(raw([line("ADDED", "5", spec="x" * size), line("ADDED", "6")])) as cluster:
        assert await asyncio.wait_for(observe(cluster, 2), 60) == [("ADDED", "5"), ("ADDED", "6")]


async def test_oversized_object_becomes_deletion_and_watch_goes_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    large = line("MODIFIED", "5", spec="x" * (OBJECT_LIMIT + 1))
    async with serve(raw([large, line("ADDED", "6")])) as cluster:
        assert await asyncio.wait_for(observe(cluster, 2), 60) == [("DELETED", "5"), ("ADDED", "6")]
    assert "jobs: /job exceeds the size limit; it is left out" in caplog.text


async def test_incomplete_line_is_delivered_after_resume(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("modelexport_operator.kube.client.RECONNECT_SECONDS", 0.01)
    whole = line("ADDED", "6")
    connections: list[list[bytes]] = [[line("ADDED", "5"), whole[:20]], [whole[:-30]], [], [whole]]
    async with serve(raw(*connections)) as cluster:
        assert await asyncio.wait_for(observe(cluster, 2), 60) == [("ADDED", "5"), ("ADDED", "6")]


@pytest.mark.parametrize(
    ("word", "told"),
    [
        (b"<html>\n", "JSONDecodeError"),
        (b"[]\n", "not a watch event"),
        (b'{"type":"ADDED","object":{"metadata":{"name":"a"}}}\n', "no version"),
        (b'{"type":"ERROR","object":{}}\n', "an error without a message"),
        (b'{"type":"ERROR","object":{"code":500}}\n', "500"),
        (b'{"type":"ERROR","object":{"code":504,"message":"\\u001b[31mslow"}}\n', "504: slow"),
        (b'{"type":"ERROR","object":{"reason":"Expired"}}\n', "Expired"),
        (b'{"type":"BOOKMARK","object":{}}\n', "no version"),
    ],
)
async def test_error_event_requires_new_list(word: bytes, told: str) -> None:
    async with serve(raw([line("ADDED", "5"), word])) as cluster:
        with pytest.raises(ExpiredError, match=told):
            await asyncio.wait_for(observe(cluster, 2), 60)


@pytest.mark.parametrize("text", ["<html>", "[]", "null", "5", '{"metadata": []}', "[" * 100_000, ""])
async def test_non_object_response_is_retriable(text: str) -> None:
    async def answer(_: web.Request) -> web.Response:
        return web.Response(text=text)

    async with serve(answer) as cluster:
        with pytest.raises(UnavailableError):
            await cluster.list_versions(Scope(JOBS))


async def test_page_of_large_objects_is_read_in_smaller_pages() -> None:
    items = [
        {"metadata": {"name": f"job-{i}", "resourceVersion": "5", "labels": {"a": "x" * 500_000}}} for i in range(40)
    ]
    asked = []

    async def answer(request: web.Request) -> web.Response:
        begin, limit = int(request.query.get("continue") or 0), int(request.query["limit"])
        asked.append(limit)
        rest = str(begin + limit) if begin + limit < len(items) else ""
        metadata = {"resourceVersion": "9", "continue": rest}
        return web.json_response({"metadata": metadata, "items": items[begin : begin + limit]})

    async with serve(answer) as cluster:
        listing = await cluster.list_versions(Scope(JOBS))
    assert len(listing.objects) == 40
    assert asked[:4] == [500, 62, 7, 14]
    assert len(asked) < 12  # Not one request for each object, and never far beyond the bound.


async def test_foreign_jobs_are_skipped_and_list_is_limited() -> None:
    owner = {"uid": "uid-2", "controller": True}
    foreign = {**JOB, "metadata": {**JOB["metadata"], "ownerReferences": [owner]}}
    async with serve(always(200, {"items": [foreign] * 50 + [JOB] * 150})) as cluster:
        assert await cluster.read_jobs("team", "uid-1") == [JOB] * MOST_JOBS


async def test_reads_jobs_of_all_targets_and_repeats() -> None:
    jobs = [JOB] * (2 * TARGETS_LIMIT)
    async with serve(always(200, {"items": jobs})) as cluster:
        assert await cluster.read_jobs("team", "uid-1") == jobs


@pytest.mark.parametrize(("status", "kind"), [(403, RejectedError), (503, UnavailableError)])
async def test_rejected_watch_gives_reason(status: int, kind: type[ClusterError]) -> None:
    async with serve(always(status)) as cluster:
        with pytest.raises(kind, match="the server's words"):
            await asyncio.wait_for(observe(cluster, 1), 60)
