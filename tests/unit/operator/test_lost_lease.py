"""Twenty leaders lose their Leases amid their writes, and end; the parts are real, and the API server stalls."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

from aiohttp import web
from kubernetes.aio import client

from modelexport_operator.__main__ import _lead, first_error
from modelexport_operator.kube.client import Cluster
from modelexport_operator.kube.resources import CLASSES, EXPORTS
from modelexport_operator.leadership.election import Election, LeaseLostError
from modelexport_operator.metrics.metrics import Metrics
from modelexport_operator.runtime.controller import Controller
from modelexport_operator.settings import Settings
from testplane.objects import Body, make_class, make_export

LOSSES = 20
TURN_SECONDS = 0.25
"""In one turn of so busy a loop the writes time out, the Lease runs out, and the workers are cancelled."""


class Server:
    """Holds Leases, each of which can be acquired once; answers neither a renewal nor a status."""

    def __init__(self) -> None:
        self.leases: dict[str, Body] = {}
        self.claimed = Counter[str]()

    async def answer(self, request: web.Request) -> web.Response:
        lease = {} if request.method == "GET" else await request.json()
        name = lease["metadata"]["name"] if lease else request.path.rpartition("/")[2]
        self.claimed[name] += request.method == "PUT" and "leases" in request.path
        if self.claimed[name] > 1 or request.path.endswith("/status"):
            await asyncio.sleep(3600)
        if "leases" not in request.path:
            return web.json_response({})
        if lease:
            metadata = {**lease["metadata"], "resourceVersion": str(time.monotonic_ns())}
            self.leases[name] = {**lease, "metadata": metadata}
        found = self.leases.get(name)
        return web.json_response(found or {"message": "no Lease"}, status=200 if found else 404)


@asynccontextmanager
async def serve(server: Server) -> AsyncIterator[client.ApiClient]:
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", server.answer)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    configuration = client.Configuration(host=f"http://127.0.0.1:{runner.addresses[0][1]}")
    configuration.connection_pool_maxsize = 0
    try:
        async with client.ApiClient(configuration) as api:
            yield api
    finally:
        await runner.cleanup()


def lead(api: client.ApiClient, name: str) -> "asyncio.Task[None]":
    """A leading operator with an export for each of its workers."""
    settings = Settings(lease_name=name, lease_renew_seconds=7, lease_retry_seconds=0.5, workers=2)
    cluster = Cluster(api)
    election = Election(cluster, settings)
    cluster.seconds_to_write = lambda: election.seconds_left
    controller = Controller(cluster, Metrics())
    for resource, body in [(CLASSES, make_class()), *((EXPORTS, named(i)) for i in range(settings.workers))]:
        body["metadata"]["resourceVersion"] = "1"
        controller.handle_event(resource, "ADDED", body)
    synced = asyncio.Event()
    synced.set()
    watch_check: Any = SimpleNamespace(synced=synced)
    return asyncio.create_task(_lead(election, controller, watch_check, settings))


def named(number: int) -> Body:
    return make_export("ONNX/FP16", name=f"export-{number}", uid=f"uid-{number}")


async def keep_busy() -> None:
    while True:
        time.sleep(TURN_SECONDS)
        await asyncio.sleep(0)


async def test_twenty_lost_leases_leave_no_leader_alive() -> None:
    server = Server()
    async with serve(server) as api:
        leaders = {}
        for number in range(LOSSES):
            leaders[f"lease-{number}"] = lead(api, f"lease-{number}")
            await asyncio.sleep(1 / LOSSES)  # so that they are at different steps at the same time
        while any(server.claimed[name] <= 1 and not task.done() for name, task in leaders.items()):
            await asyncio.sleep(0.05)
        busy = asyncio.create_task(keep_busy())
        _, alive = await asyncio.wait(leaders.values(), timeout=60)
        busy.cancel()
        for task in alive:
            task.cancel()
    assert len(alive) == 0
    assert {type(first_error(task.exception() or Exception())) for task in leaders.values()} == {LeaseLostError}
