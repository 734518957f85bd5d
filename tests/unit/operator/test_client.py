import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from modelexport_operator.cluster import (
    MOST_JOBS,
    Cluster,
    ClusterError,
    ConflictError,
    ExistsError,
    ExpiredError,
    GoneError,
    RefusedError,
    UnavailableError,
)
from modelexport_operator.resources import CLASSES, JOBS, Scope, scopes_of
from modelexport_operator.stream import OBJECT_LIMIT
from unit.operator.objects import Body, build_all, make_class, make_export
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
        (400, RefusedError),
        (401, UnavailableError),
        (403, RefusedError),
        (404, GoneError),
        (409, ConflictError),
        (413, RefusedError),
        (422, RefusedError),
        (429, UnavailableError),
        (500, UnavailableError),
        (502, UnavailableError),
        (503, UnavailableError),
        (504, UnavailableError),
    ],
)
async def test_every_answer_becomes_what_can_be_done_about_it(status: int, kind: type[ClusterError]) -> None:
    async with serve(always(status)) as cluster:
        with pytest.raises(kind, match="the server's words"):
            await cluster.suspend_job("team", "job", suspend=True)


EXPORT = {"metadata": {"namespace": "team", "name": "shapes", "uid": "uid-1", "resourceVersion": "7"}, "spec": {"a": 1}}
KIND = {"apiVersion": "modelexport.dev/v1alpha1", "kind": "ModelExport"}
EXPORT_PATH = "/apis/modelexport.dev/v1alpha1/namespaces/team/modelexports/shapes"
EVENT = {"metadata": {"namespace": "team", "name": "shapes.1"}}
LEASE = {"metadata": {"namespace": "system", "name": "operator", "resourceVersion": "7"}, "spec": {}}
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
async def test_every_write_goes_to_its_object_and_says_what_it_means(
    call: Callable[[Cluster], Awaitable[Any]], request_line: str, content_type: str, body: Any
) -> None:
    asked = []

    async def answer(request: web.Request) -> web.Response:
        asked.append((f"{request.method} {request.path}", request.content_type, await request.json()))
        return web.json_response({"answer": 1})

    async with serve(answer) as cluster:
        await call(cluster)
    assert asked == [(request_line, f"application/{content_type}", body)]


async def test_an_operator_that_does_not_lead_writes_nothing_but_the_lease() -> None:
    asked = []

    async def answer(request: web.Request) -> web.Response:
        asked.append(request.method)
        return web.json_response({"metadata": {"resourceVersion": "1"}})

    async with serve(answer) as cluster:
        cluster.seconds_to_write = lambda: 0.0
        for write in (
            cluster.create_job(JOB),
            cluster.suspend_job("team", "job", suspend=True),
            cluster.write_status(EXPORT, {}),
            cluster.delete_export(EXPORT),
            cluster.create_event(EVENT),
        ):
            with pytest.raises(UnavailableError, match="this operator does not lead"):
                await write
        await cluster.list_versions(Scope(JOBS))
        await cluster.read_lease("system", "operator")
        await cluster.create_lease(LEASE)
        await cluster.write_lease(LEASE)
    assert asked == ["GET", "GET", "POST", "PUT"]


async def test_a_write_is_given_up_when_the_time_to_lead_is_over_and_what_is_read_or_claimed_is_not() -> None:
    async def answer(request: web.Request) -> web.Response:
        await asyncio.sleep(0.2)
        return web.json_response({})

    async with serve(answer) as cluster:
        cluster.seconds_to_write = lambda: 0.05
        with pytest.raises(UnavailableError, match="no answer within"):
            await cluster.create_event(EVENT)
        assert await cluster.write_lease(LEASE) == await cluster.read_lease("system", "operator") == {}


@pytest.mark.parametrize("turns", [1, 2])
async def test_a_write_that_was_frozen_on_its_way_is_not_sent_when_the_process_wakes_up(turns: int) -> None:
    asked = []

    async def answer(request: web.Request) -> web.Response:
        asked.append(request.path)
        return web.json_response({})

    async with serve(answer) as cluster:
        cluster.seconds_to_write = lambda: 0.05
        write = asyncio.create_task(cluster.create_event(EVENT))
        for _ in range(turns):
            await asyncio.sleep(0)
        time.sleep(0.1)  # the whole process stands still, as under SIGSTOP
        with pytest.raises(UnavailableError, match="no answer within"):
            await write
        await cluster.read_lease("system", "operator")
    assert len(asked) == 1


async def test_a_cancel_is_kept_when_it_comes_with_the_timeout() -> None:
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
        time.sleep(1.2)  # the next turn of the loop finds both due, the timeout first
        with pytest.raises(asyncio.CancelledError):
            await write


async def test_a_listing_and_a_watch_of_one_namespace_ask_for_no_other() -> None:
    asked = []

    async def answer(request: web.Request) -> web.Response:
        asked.append(request.path)
        return web.json_response({"metadata": {"resourceVersion": "1"}})

    async with serve(answer) as cluster:
        for scope in scopes_of((CLASSES, JOBS), ("team", "other")):
            await cluster.list_versions(scope)
    jobs = "/apis/batch/v1/namespaces/{}/jobs"
    assert asked == ["/apis/modelexport.dev/v1alpha1/exportclasses", jobs.format("team"), jobs.format("other")]


async def test_the_new_body_is_what_a_written_status_returns_and_the_token_is_shown() -> None:
    async def answer(request: web.Request) -> web.Response:
        return web.json_response({"token": request.headers.get("Authorization")})

    async with serve(answer, token="secret") as cluster:
        assert await cluster.write_status(EXPORT, {}) == {"token": "Bearer secret"}


async def test_a_refusal_is_told_in_the_servers_words_alone_and_other_errors_with_the_request() -> None:
    for status, words in ((422, "^the server's words$"), (404, "^POST /apis/batch/v1/.*: 404: the server's words$")):
        async with serve(always(status)) as cluster:
            with pytest.raises(ClusterError, match=words):
                await cluster.create_job(JOB)


@pytest.mark.parametrize("body", [[1], {"kind": "Status"}, "text"])
async def test_an_answer_without_a_message_is_told_as_it_is(body: Any) -> None:
    async with serve(always(500, body)) as cluster:
        with pytest.raises(UnavailableError, match=r"500: .+"):
            await cluster.create_job(JOB)


async def test_why_a_job_has_no_pod_is_what_the_job_controller_said_last() -> None:
    asked = []

    async def answer(request: web.Request) -> web.Response:
        asked.append((request.path, request.query["fieldSelector"]))
        told = [("2026-01-02T03:00:09Z", "Error creating: quota"), ("2026-01-02T03:00:05Z", "Error creating: class")]
        items = [{"metadata": {}, "lastTimestamp": at, "message": words} for at, words in told]
        return web.json_response({"items": items})

    job = {"metadata": {"namespace": "team", "name": "job", "uid": "uid-2"}}
    async with serve(answer) as cluster:
        assert await cluster.find_pod_refusal(job) == "quota"
    assert asked == [("/api/v1/namespaces/team/events", "involvedObject.uid=uid-2,reason=FailedCreate")]
    async with serve(always(200, {"items": []})) as cluster:
        assert await cluster.find_pod_refusal(job) is None


async def test_the_jobs_of_an_export_are_read_by_its_label() -> None:
    asked: list[tuple[str, str]] = []

    async def answer(request: web.Request) -> web.Response:
        asked.append((request.path, request.query["labelSelector"]))
        return web.json_response({"items": [JOB]})

    async with serve(answer) as cluster:
        assert await cluster.read_jobs("team", "uid-1") == [JOB]
    assert asked == [
        ("/apis/batch/v1/namespaces/team/jobs", f"{JOBS.selector},modelexport.dev/export-uid=uid-1"),
    ]


async def test_a_job_that_exists_already_is_told_from_other_conflicts() -> None:
    async with serve(always(409, {"message": 'jobs.batch "job" already exists', "reason": "AlreadyExists"})) as cluster:
        with pytest.raises(ExistsError):
            await cluster.create_job(JOB)


@pytest.mark.parametrize("items", [[JOB], []])
async def test_the_job_of_a_name_is_found_by_a_list(items: list[Body]) -> None:
    asked = []

    async def answer(request: web.Request) -> web.Response:
        asked.append((request.path, request.query["fieldSelector"]))
        return web.json_response({"metadata": {"resourceVersion": "5"}, "items": items})

    async with serve(answer) as cluster:
        assert await cluster.find_job("team", "job") == (items[0] if items else None)
    assert asked == [("/apis/batch/v1/namespaces/team/jobs", "metadata.name=job")]


async def test_a_job_that_a_changing_quota_kept_out_is_not_taken_for_created() -> None:
    words = {"message": 'Operation cannot be fulfilled on resourcequotas "jobs"', "reason": "Conflict"}
    async with serve(always(409, words)) as cluster:
        with pytest.raises(ConflictError, match="resourcequotas"):
            await cluster.create_job(JOB)


async def test_the_delay_that_the_server_asks_for_is_kept() -> None:
    for text, seconds in (("7", 7), ("", 0), ("Mon, 23 Nov 2026 12:00:00 GMT", 0), ("9" * 400, 60), ("\u00b2", 0)):
        async with serve(always(429, **{"Retry-After": text})) as cluster:
            with pytest.raises(UnavailableError) as error:
                await cluster.create_job(JOB)
        assert error.value.retry_after == seconds


async def test_an_answer_that_is_no_json_is_told_too() -> None:
    async def answer(_: web.Request) -> web.Response:
        return web.Response(status=502, text="<html>bad gateway</html>" + "x" * 1000)

    async with serve(answer) as cluster:
        with pytest.raises(UnavailableError, match="bad gateway") as error:
            await cluster.create_job(JOB)
    assert len(str(error.value)) < 400


async def test_no_netrc_and_no_proxy_of_the_environment_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str | None] = []

    async def answer(request: web.Request) -> web.Response:
        seen.append(request.headers.get("Authorization"))
        return web.json_response({"metadata": {}})

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


async def test_a_closed_connection_is_worth_another_try() -> None:
    async def answer(request: web.Request) -> web.Response:
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    async with serve(answer) as cluster:
        with pytest.raises(UnavailableError):
            await cluster.create_job(JOB)


async def test_a_server_that_does_not_answer_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("modelexport_operator.cluster.REQUEST_SECONDS", 0.05)

    async def answer(_: web.Request) -> web.Response:
        await asyncio.sleep(0.3)
        return web.Response()

    async with serve(answer) as cluster:
        with pytest.raises(UnavailableError):
            await cluster.create_job(JOB)


async def test_a_listing_follows_all_pages_and_asks_only_for_metadata_of_ours() -> None:
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


async def test_a_listing_of_a_kind_without_namespaces_has_keys_without_one() -> None:
    item = {"metadata": {"name": "standard", "resourceVersion": "3"}}
    async with serve(always(200, {"metadata": {"resourceVersion": "4"}, "items": [item]})) as cluster:
        assert (await cluster.list_versions(Scope(CLASSES))).objects == {("", "standard"): 3}


def stream(*connections: list[Any]) -> tuple[Answer, list[dict[str, str]]]:
    """A server of watches: each connection tells some events and ends; the last one stays open."""
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


async def hear(cluster: Cluster, count: int, version: str = "4") -> list[tuple[str, str]]:
    told = []
    async for change, body in cluster.watch(Scope(JOBS), version):
        told.append((change, body["metadata"]["resourceVersion"]))
        if len(told) == count:
            break
    return told


async def test_a_watch_that_ends_goes_on_where_it_was() -> None:
    first = [event("ADDED", "5"), event("BOOKMARK", "9")]
    answer, asked = stream(first, [event("MODIFIED", "10")])
    async with serve(answer) as cluster:
        told = await asyncio.wait_for(hear(cluster, 3), 60)
    assert told == [("ADDED", "5"), ("BOOKMARK", "9"), ("MODIFIED", "10")]
    assert asked[0]["labelSelector"] == JOBS.selector
    assert [query.get("resourceVersion") for query in asked] == ["4", "9"]


async def test_a_watch_that_has_lost_changes_says_so() -> None:
    gone = {"type": "ERROR", "object": {"code": 410, "reason": "Expired", "message": "too old"}}
    answer, _ = stream([event("ADDED", "5")], [gone], [gone])
    async with serve(answer) as cluster:
        with pytest.raises(ExpiredError, match="410"):
            await asyncio.wait_for(hear(cluster, 2), 60)


def raw(*connections: list[bytes]) -> Answer:
    """As ``stream``, byte by byte as the test wants it."""
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
async def test_a_watch_reads_objects_of_any_size(size: int) -> None:
    async with serve(raw([line("ADDED", "5", spec="x" * size), line("ADDED", "6")])) as cluster:
        assert await asyncio.wait_for(hear(cluster, 2), 60) == [("ADDED", "5"), ("ADDED", "6")]


async def test_an_object_that_is_larger_than_any_is_told_as_gone_and_the_watch_goes_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    large = line("MODIFIED", "5", spec="x" * (OBJECT_LIMIT + 1))
    async with serve(raw([large, line("ADDED", "6")])) as cluster:
        assert await asyncio.wait_for(hear(cluster, 2), 60) == [("DELETED", "5"), ("ADDED", "6")]
    assert "jobs: /job is larger than what is read; it is left out" in caplog.text


async def test_half_a_line_is_told_when_the_watch_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("modelexport_operator.cluster.RECONNECT_SECONDS", 0.01)
    whole = line("ADDED", "6")
    connections = ([line("ADDED", "5"), whole[:20]], [whole[:-30]], [], [whole])
    async with serve(raw(*connections)) as cluster:
        assert await asyncio.wait_for(hear(cluster, 2), 60) == [("ADDED", "5"), ("ADDED", "6")]


@pytest.mark.parametrize(
    ("word", "told"),
    [
        (b"<html>\n", "JSONDecodeError"),
        (b"[]\n", "no event"),
        (b'{"type":"ADDED","object":{"metadata":{"name":"a"}}}\n', "no version"),
        (b'{"type":"ERROR","object":{}}\n', "an error without a word"),
        (b'{"type":"ERROR","object":{"code":500}}\n', "500"),
        (b'{"type":"ERROR","object":{"code":504,"message":"\\u001b[31mslow"}}\n', "504: slow"),
        (b'{"type":"ERROR","object":{"reason":"Expired"}}\n', "Expired"),
        (b'{"type":"BOOKMARK","object":{}}\n', "no version"),
    ],
)
async def test_a_word_that_ends_a_watch_asks_for_a_new_list(word: bytes, told: str) -> None:
    async with serve(raw([line("ADDED", "5"), word])) as cluster:
        with pytest.raises(ExpiredError, match=told):
            await asyncio.wait_for(hear(cluster, 2), 60)


@pytest.mark.parametrize("text", ["<html>", "[]", "null", "5", '{"metadata": []}', "[" * 100_000, ""])
async def test_an_answer_that_is_no_object_is_worth_another_try(text: str) -> None:
    async def answer(_: web.Request) -> web.Response:
        return web.Response(text=text)

    async with serve(answer) as cluster:
        with pytest.raises(UnavailableError):
            await cluster.list_versions(Scope(JOBS))


async def test_a_page_of_large_objects_is_read_in_smaller_pages() -> None:
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
    assert len(asked) < 12  # Not one request for each object, and never far beyond what fits.


async def test_of_the_jobs_of_an_export_those_of_others_are_left_out_and_not_all_are_read() -> None:
    owner = {"uid": "uid-2", "controller": True}
    foreign = {**JOB, "metadata": {**JOB["metadata"], "ownerReferences": [owner]}}
    async with serve(always(200, {"items": [foreign] * 50 + [JOB] * 50})) as cluster:
        assert await cluster.read_jobs("team", "uid-1") == [JOB] * MOST_JOBS


@pytest.mark.parametrize(("status", "kind"), [(403, RefusedError), (503, UnavailableError)])
async def test_a_watch_that_is_refused_says_why(status: int, kind: type[ClusterError]) -> None:
    async with serve(always(status)) as cluster:
        with pytest.raises(kind, match="the server's words"):
            await asyncio.wait_for(hear(cluster, 1), 60)
