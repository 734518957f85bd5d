"""A proxy between the operator and the API server that fails at the request that the test chooses.

Only writes to one namespace count. A fault strikes at one write: before it reaches the server, or after the server
has carried it out and before the operator receives the answer.
"""

import asyncio
import json
import ssl
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from dataclasses import dataclass, field

from aiohttp import ClientError, ClientResponse, ClientSession, ClientTimeout, TCPConnector, web

from testcluster.ports import free_port
from testplane.control_plane import ControlPlane

WRITES = ("POST", "PUT", "PATCH", "DELETE")
FORBIDDEN = 403
HOP_HEADERS = ("Host", "Transfer-Encoding", "Connection", "Content-Length", "Content-Encoding")


@dataclass(frozen=True)
class Fault:
    """A fault at the ``at``-th write: ``status`` replaces the server's answer, and ``then`` is called."""

    at: int
    after: bool = False
    status: int | None = None
    then: Callable[[], object] = lambda: None
    times: int = 1


@dataclass(frozen=True)
class Exchange:
    """A request; ``forward`` sends it to the server and yields the unread answer."""

    request: web.Request
    forward: Callable[[], AbstractAsyncContextManager[ClientResponse]]

    @property
    def is_watch(self) -> bool:
        """Whether the answer is a stream of events."""
        return self.request.query.get("watch") == "true"

    def cut(self) -> web.Response:
        """Cut the connection; return a stream whose data are lost."""
        if self.request.transport is not None:
            self.request.transport.abort()
        return web.Response(status=500)

    async def begin(self, answer: ClientResponse, **headers: str) -> web.StreamResponse:
        """Send the head of an answer."""
        response = web.StreamResponse(status=answer.status, headers={**_answer_headers(answer.headers), **headers})
        await response.prepare(self.request)
        return response


Treatment = Callable[[Exchange], Awaitable[web.StreamResponse]]
"""Another way to answer than to pass the server's answer on."""


@dataclass
class Proxy:
    """A running proxy; its behaviour can be changed at any time."""

    address: str
    namespace: str = ""
    fault: Fault | None = None
    writes: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    """Everything that was ever asked for, in all namespaces."""
    forbidden: list[tuple[float, bytes]] = field(default_factory=list)
    """The bodies of all writes that were answered with 403, each with the time of the answer on the monotonic clock."""
    deaf_to: str = ""
    """Watches of this plural are kept open, and nothing of them is passed on, also when this has changed again."""
    choose: Callable[[Exchange], Treatment | None] = lambda _: None
    """Asked for every request how it is treated; ``None``: like any other."""
    loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.new_event_loop)
    streams: dict[int, Exchange] = field(default_factory=dict)
    """The watches that are open."""

    def watch_over(self, namespace: str, fault: Fault | None = None) -> None:
        """Count the writes to a namespace from now on, and strike at one of them."""
        self.namespace, self.fault, self.writes = namespace, fault, []

    def cut_watches(self) -> None:
        """Cut the connections of all watches."""
        self.loop.call_soon_threadsafe(lambda: [exchange.cut() for exchange in list(self.streams.values())])


@contextmanager
def start_proxy(plane: ControlPlane) -> Iterator[Proxy]:
    """Run a proxy in a thread."""
    port = free_port()
    proxy = Proxy(f"http://127.0.0.1:{port}")
    loop = proxy.loop
    started, stop = threading.Event(), asyncio.Event()
    thread = threading.Thread(target=lambda: loop.run_until_complete(_serve(proxy, plane, port, started, stop)))
    thread.start()
    started.wait()
    try:
        yield proxy
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
        loop.close()


async def _serve(proxy: Proxy, plane: ControlPlane, port: int, started: threading.Event, stop: asyncio.Event) -> None:
    trust = ssl.create_default_context(cafile=plane.certificate)
    async with ClientSession(connector=TCPConnector(ssl=trust, limit=0), auto_decompress=False) as upstream:

        async def handle(request: web.Request) -> web.StreamResponse:
            response = await _handle(proxy, upstream, plane.address, request)
            if response.status == FORBIDDEN and request.method in WRITES:
                proxy.forbidden.append((time.monotonic(), await request.read()))
            return response

        application = web.Application(client_max_size=2**24)
        application.router.add_route("*", "/{path:.*}", handle)
        runner = web.AppRunner(application, handler_cancellation=True, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", port).start()
        started.set()
        await stop.wait()
        await runner.cleanup()


async def _handle(proxy: Proxy, upstream: ClientSession, address: str, request: web.Request) -> web.StreamResponse:
    body = await request.read()
    proxy.asked.append(f"{request.method} {request.path}")
    fault = _count(proxy, request)
    if fault is not None and not fault.after:
        return _strike(fault, request)
    headers = {key: value for key, value in request.headers.items() if key not in HOP_HEADERS}
    url, timeout = address + request.path_qs, ClientTimeout(total=None)
    exchange = Exchange(
        request,
        lambda: upstream.request(request.method, url, data=body or None, headers=headers, timeout=timeout),
    )
    treat = proxy.choose(exchange)
    try:
        if treat is not None:
            return await treat(exchange)
        async with exchange.forward() as answer:
            if fault is not None:
                await answer.read()
                return _strike(fault, request)
            return await _pass_on(proxy, exchange, answer)
    except ClientError:
        return exchange.cut()  # The server behind the proxy is down.


async def _pass_on(proxy: Proxy, exchange: Exchange, answer: ClientResponse) -> web.StreamResponse:
    if exchange.is_watch:
        proxy.streams[id(exchange)] = exchange
    try:
        response, is_dead = await exchange.begin(answer), False
        async for chunk in answer.content.iter_any():
            is_dead = is_dead or _is_swallowed(proxy, exchange)
            if not is_dead:
                await response.write(chunk)
        return response
    finally:
        proxy.streams.pop(id(exchange), None)


def _count(proxy: Proxy, request: web.Request) -> Fault | None:
    """Count a write, and return the fault that strikes at it."""
    if request.method not in WRITES or not proxy.namespace or f"/namespaces/{proxy.namespace}/" not in request.path:
        return None
    proxy.writes.append(f"{request.method} {request.path}")
    fault, count = proxy.fault, len(proxy.writes)
    return fault if fault is not None and fault.at <= count < fault.at + fault.times else None


def _strike(fault: Fault, request: web.Request) -> web.Response:
    fault.then()
    if fault.status is None:
        assert request.transport is not None
        request.transport.abort()
    body = {"kind": "Status", "status": "Failure", "code": fault.status, "message": "injected by the test"}
    return web.Response(status=fault.status or 500, text=json.dumps(body), content_type="application/json")


def _is_swallowed(proxy: Proxy, exchange: Exchange) -> bool:
    return bool(proxy.deaf_to) and exchange.is_watch and exchange.request.path.endswith(f"/{proxy.deaf_to}")


def _answer_headers(headers: object) -> dict[str, str]:
    kept = ("Content-Type", "Content-Encoding", "Retry-After")
    return {key: value for key, value in headers.items() if key in kept}  # type: ignore[attr-defined]
