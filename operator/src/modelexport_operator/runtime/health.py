"""The HTTP server of the operator: ``/healthz``, ``/readyz`` and ``/metrics``."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web

from modelexport_operator.leadership.election import Leadership
from modelexport_operator.metrics.metrics import CONTENT_TYPE, Metrics
from modelexport_operator.runtime.watch_check import WatchCheck


@asynccontextmanager
async def serve_http(
    watch_check: WatchCheck, leadership: Leadership, metrics: Metrics, host: str, port: int
) -> AsyncIterator[None]:
    """Serve while the context lasts.

    ``/healthz`` fails when a restart can help: a watch is behind, or the Lease is lost, which should have ended the
    process. ``/readyz`` fails when the operator cannot work, for whatever cause: the cache is not synced, a watch is
    behind, or the API server does not answer. A standby that waits to become the leader is ready.
    """

    async def healthz(_: web.Request) -> web.Response:
        return _answer(_explain_loss(leadership) or _explain_lag(watch_check))

    async def readyz(_: web.Request) -> web.Response:
        problem = _explain_loss(leadership) or _explain_lag(watch_check)
        if not watch_check.synced.is_set():
            problem = problem or "the cache is not synced yet"
        if watch_check.is_stale:
            problem = problem or "the API server does not answer"
        return _answer(problem or leadership.problem)

    async def show_metrics(_: web.Request) -> web.Response:
        return web.Response(body=metrics.render(), headers={"Content-Type": CONTENT_TYPE})

    application = web.Application()
    application.add_routes(
        [web.get("/healthz", healthz), web.get("/readyz", readyz), web.get("/metrics", show_metrics)]
    )
    runner = web.AppRunner(application, access_log=None, handle_signals=False)
    await runner.setup()
    await web.TCPSite(runner, host, port).start()
    try:
        yield
    finally:
        await runner.cleanup()


def _answer(problem: str) -> web.Response:
    return web.Response(text=f"{problem or 'ok'}\n", status=503 if problem else 200)


def _explain_loss(leadership: Leadership) -> str:
    return "the Lease is lost; this operator is shutting down" if leadership.is_lost else ""


def _explain_lag(watch_check: WatchCheck) -> str:
    behind = ", ".join(f"{count} {resource.plural}" for resource, count in watch_check.lagging.items())
    return f"the watch is behind by {behind}" if behind else ""
