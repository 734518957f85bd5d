"""The faults that a proxy injects into answers, and the rules that choose the requests."""

import asyncio
import json
import random
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

from aiohttp import web

from integration.proxy import WRITES, Exchange, Treatment

SEED = 14
LONG_LINE = 20 << 20
"""Bytes; more than an API server sends of one object."""


DENIAL = (
    'jobs.batch is forbidden: User "system:serviceaccount:modelexport-system:modelexport-operator" cannot create '
    'resource "jobs" in API group "batch" in the namespace "team"'
)
"""As RBAC says it."""


def answer(status: int, retry_after: int | None = None, message: str = "injected") -> Treatment:
    """Answer with an error, and carry nothing out."""
    headers = {} if retry_after is None else {"Retry-After": str(retry_after)}
    body = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": status, "message": message}

    async def treat(exchange: Exchange) -> web.StreamResponse:
        return web.Response(status=status, headers=headers, text=json.dumps(body), content_type="application/json")

    return treat


async def lose_answer(exchange: Exchange) -> web.StreamResponse:
    """Carry a request out, and cut the connection before the answer."""
    async with exchange.forward() as answer:
        await answer.read()
    return exchange.cut()


async def cut_in_the_middle(exchange: Exchange) -> web.StreamResponse:
    """Carry a request out, send half of the answer, and cut the connection."""
    async with exchange.forward() as answer:
        content = await answer.read()
        response = await exchange.begin(answer, **{"Content-Length": str(len(content))})
        await response.write(content[: len(content) // 2])
    return exchange.cut()


async def stay_silent(exchange: Exchange) -> web.StreamResponse:
    """Take a request, carry nothing out, and keep the connection open without a word."""
    await asyncio.sleep(3600)
    return exchange.cut()


def delay(seconds: float) -> Treatment:
    """Carry a request out some seconds later."""

    async def treat(exchange: Exchange) -> web.StreamResponse:
        await asyncio.sleep(seconds)
        async with exchange.forward() as answer:
            response = await exchange.begin(answer)
            await response.write(await answer.read())
            return response

    return treat


def end_after(lines: int) -> Treatment:
    """End the stream of a watch regularly after some lines."""

    async def treat(exchange: Exchange) -> web.StreamResponse:
        async with exchange.forward() as answer:
            response, left = await exchange.begin(answer), lines
            async for line in answer.content:
                await response.write(line)
                left -= line.endswith(b"\n")
                if not left:
                    break
            return response

    return treat


def say(words: bytes) -> Treatment:
    """Answer a watch with the given lines, and end its stream."""

    async def treat(exchange: Exchange) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(exchange.request)
        await response.write(words)
        return response

    return treat


def _error(code: int, reason: str) -> bytes:
    status = {"kind": "Status", "code": code, "reason": reason, "message": "injected"}
    return json.dumps({"type": "ERROR", "object": status}).encode() + b"\n"


GARBAGE = {
    "half a line": b'{"type":"MODIFIED","object":{"kind":"Job","metadata":{"na',
    "no JSON": b"<html>502 Bad Gateway</html>\n",
    "a number": b"42\n",
    "an event without an object": b'{"type":"MODIFIED"}\n',
    "ERROR without a reason": b'{"type":"ERROR","object":{"kind":"Status"}}\n',
    "ERROR 500": _error(500, "InternalError"),
    "ERROR 410": _error(410, "Expired"),
    "a long line": b'{"type":"MODIFIED","object":"' + b"x" * LONG_LINE + b'"}\n',
}
"""What no API server should say on a watch."""


@dataclass
class Rule:
    """A fault and the requests that it applies to.

    Attributes:
        treat: handles a request in place of the proxy.
        verbs: the methods of the requests.
        plural: their resource; empty for any.
        is_watch: whether they are watches.
        share: the share of them that is treated.
        times: the largest number that is treated.
    """

    treat: Treatment
    verbs: Sequence[str] = WRITES
    plural: str = ""
    is_watch: bool = False
    share: float = 1.0
    times: float = float("inf")

    def covers(self, exchange: Exchange) -> bool:
        """Whether the rule applies to a request."""
        parts = exchange.request.path.split("/")
        return (
            self.times > 0
            and exchange.request.method in self.verbs
            and exchange.is_watch == self.is_watch
            and (not self.plural or self.plural in parts)
        )


def watches(treat: Treatment, plural: str = "", times: float = float("inf")) -> Rule:
    """A rule for newly opened watches."""
    return Rule(treat, ("GET",), plural, is_watch=True, times=times)


@dataclass
class Injector:
    """Chooses the treatment of each request; the first rule that applies decides.

    Attributes:
        rules: the rules, which may be replaced at any time.
        injected: the number of treated requests.
    """

    rules: Sequence[Rule] = ()
    injected: int = 0
    _random: random.Random = field(default_factory=lambda: random.Random(SEED))
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def choose(self, exchange: Exchange) -> Treatment | None:
        """Return the treatment of a request."""
        with self._lock:
            for rule in self.rules:
                if rule.covers(exchange) and self._random.random() < rule.share:
                    rule.times -= 1
                    self.injected += 1
                    return rule.treat
        return None
