"""An API server within the test's own event loop, with the test's answers."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from aiohttp import web
from kubernetes.aio import client

from modelexport_operator.kube.client import Cluster

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def serve(answer: Answer, token: str = "") -> AsyncIterator[Cluster]:
    """Serve until the context ends, and yield a Cluster that uses this server."""
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    configuration = client.Configuration(host=f"http://127.0.0.1:{runner.addresses[0][1]}")
    if token:
        configuration.api_key = {"BearerToken": f"Bearer {token}"}
    try:
        async with client.ApiClient(configuration) as api:
            yield Cluster(api)
    finally:
        await runner.cleanup()
