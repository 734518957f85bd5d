"""The HTTP side of the operator: ``/healthz``, ``/readyz`` and ``/metrics``."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web

from modelexport_operator.audit import Audit
from modelexport_operator.election import Leadership
from modelexport_operator.metrics import CONTENT_TYPE, Metrics


@asynccontextmanager
async def serve_http(
    audit: Audit, leadership: Leadership, metrics: Metrics, host: str, port: int
) -> AsyncIterator[None]:
    """Serve while the context lasts.

    ``/healthz`` fails when a restart can help: a watch has fallen behind, or the Lease is lost, which should have ended
    the process. ``/readyz`` fails when the operator does not do its work, for whatever cause: it has not heard
    everything yet, a watch is behind, or the API server is silent. One that waits for its turn to lead is ready.
    """

    async def healthz(_: web.Request) -> web.Response:
        return _answer(_explain_loss(leadership) or _explain_lag(audit))

    async def readyz(_: web.Request) -> web.Response:
        return _answer(
            _explain_loss(leadership) or _explain_lag(audit) or _explain_unreadiness(audit) or leadership.problem
        )

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
    return "the Lease is lost, and this operator ends" if leadership.is_lost else ""


def _explain_lag(audit: Audit) -> str:
    behind = ", ".join(f"{count} {resource.plural}" for resource, count in audit.lagging.items())
    return f"the watch has not told of {behind}" if behind else ""


def _explain_unreadiness(audit: Audit) -> str:
    if not audit.primed.is_set():
        return "what exists has not been heard of yet"
    return "the API server does not answer" if audit.is_blind else ""
