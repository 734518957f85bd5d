"""A client of the API server that creates objects concurrently and reports watch events with their arrival times."""

import asyncio
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, cast

import aiohttp

from modelexport_operator.kube.encoding import decode
from testplane.control_plane import TOKEN, ControlPlane

Body = Mapping[str, Any]
T = TypeVar("T")
AT_ONCE = 16
LONGEST_LINE = 1 << 22


def is_answering(url: str, certificate: Path | None = None) -> bool:
    """Return whether a server answers the administrator successfully, over TLS if a certificate is given."""
    trust = ssl.create_default_context(cafile=certificate) if certificate else None
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {TOKEN}"})
    try:
        with urllib.request.urlopen(request, context=trust, timeout=5):
            return True
    except (urllib.error.URLError, OSError):
        return False


async def do_all(work: Callable[[T], Awaitable[object]], items: Iterable[T]) -> None:
    """Do some work for each item, for ``AT_ONCE`` of them at a time."""
    waiting = iter(items)

    async def do_some() -> None:
        for item in waiting:
            await work(item)

    await asyncio.gather(*(do_some() for _ in range(AT_ONCE)))


def _parse(answer: bytes) -> dict[str, Any]:
    return cast(dict[str, Any], decode(answer))


class Client:
    """A client within the running event loop. Use it as an asynchronous context manager."""

    def __init__(self, plane: ControlPlane) -> None:
        trust = ssl.create_default_context(cafile=plane.certificate)
        self._session = aiohttp.ClientSession(
            plane.address,
            connector=aiohttp.TCPConnector(ssl=trust, limit=0),
            headers={"Authorization": f"Bearer {TOKEN}"},
            timeout=aiohttp.ClientTimeout(total=None),
            read_bufsize=LONGEST_LINE,
        )

    async def __aenter__(self) -> "Client":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()

    async def create(self, path: str, body: Body) -> dict[str, Any]:
        """Create an object and return it."""
        return _parse(await self._send("POST", path, body))

    async def write_status(self, path: str, body: Body) -> dict[str, Any]:
        """Replace the status of an object below a path, and return the object."""
        return _parse(await self._send("PUT", f"{path}/{body['metadata']['name']}/status", body))

    async def create_all(self, path: str, bodies: Iterable[Body]) -> None:
        """Create objects, ``AT_ONCE`` at a time."""
        await do_all(partial(self._send, "POST", path), bodies)

    async def delete_all(self, paths: Iterable[str]) -> None:
        """Delete objects and their dependents, ``AT_ONCE`` at a time."""
        await do_all(partial(self._send, "DELETE", body={"propagationPolicy": "Background"}), paths)

    async def _send(self, method: str, path: str, body: Body) -> bytes:
        async with self._session.request(method, path, json=body) as response:
            assert response.status == (201 if method == "POST" else 200), await response.text()
            return await response.read()

    async def watch(self, path: str, observe: Callable[[Body, float], None]) -> None:
        """Pass every state of every object with its arrival time to ``observe``, until cancelled.

        The API server occasionally ends the watch of a client that does not keep up; the next watch resumes there, or
        restarts if the API server cannot resume.
        """
        version = ""
        while True:
            parameters = {"watch": "true", **({"resourceVersion": version} if version else {})}
            async with self._session.get(path, params=parameters) as response:
                assert response.status == 200, await response.text()
                while line := await response.content.readline():
                    event: Any = decode(line)
                    if event["type"] == "ERROR":
                        version = ""
                        break
                    version = event["object"]["metadata"]["resourceVersion"]
                    observe(event["object"], time.monotonic())
