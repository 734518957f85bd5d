import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web
from kubernetes.aio import client

from modelexport_operator.cluster import (
    Cluster,
    ClusterError,
    ConflictError,
    GoneError,
    RefusedError,
    UnavailableError,
)
from modelexport_operator.resources import JOBS
from unit.operator.objects import build_all, make_class, make_export

JOB = build_all(make_export("ONNX/FP16"), make_class())["ONNX/FP16"]
Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def serve(answer: Answer) -> AsyncIterator[Cluster]:
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(application)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    configuration = client.Configuration(host=f"http://127.0.0.1:{runner.addresses[0][1]}")
    try:
        async with client.ApiClient(configuration) as api:
            yield Cluster(api)
    finally:
        await runner.cleanup()


def always(status: int, body: Any = None, **headers: str) -> Answer:
    async def answer(_: web.Request) -> web.Response:
        return web.json_response(body or {"message": "the server's words"}, status=status, headers=headers)

    return answer


@pytest.mark.parametrize(
    ("status", "kind"),
    [
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


async def test_a_job_that_exists_already_is_as_good_as_created() -> None:
    async with serve(always(409)) as cluster:
        await cluster.create_job(JOB)


async def test_the_delay_that_the_server_asks_for_is_kept() -> None:
    async with serve(always(429, **{"Retry-After": "7"})) as cluster:
        with pytest.raises(UnavailableError) as error:
            await cluster.create_job(JOB)
    assert error.value.retry_after == 7


async def test_an_answer_that_is_no_json_is_told_too() -> None:
    async def answer(_: web.Request) -> web.Response:
        return web.Response(status=502, text="<html>bad gateway</html>")

    async with serve(answer) as cluster:
        with pytest.raises(UnavailableError, match="bad gateway"):
            await cluster.create_job(JOB)


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
        asked.append((request.headers["Accept"], request.query["labelSelector"]))
        page = request.query.get("continue", "")
        name, version = f"job-{page or 'first'}", "11" if page else "10"
        item = {"metadata": {"name": name, "namespace": "team", "resourceVersion": version}}
        return web.json_response({"metadata": {"resourceVersion": "40", "continue": pages[page]}, "items": [item]})

    async with serve(answer) as cluster:
        listing = await cluster.list_versions(JOBS)
    assert listing.version == 40
    assert listing.objects == {("team", "job-first"): 10, ("team", "job-next"): 11}
    assert all("PartialObjectMetadataList" in accept and "modelexport-operator" in label for accept, label in asked)
