"""A client of the API server that creates objects concurrently and reports watch events with their arrival times."""

import asyncio
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import aiohttp

from modelexport_operator.kube.encoding import decode
from testplane.control_plane import TOKEN, ControlPlane

Body = Mapping[str, Any]
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
        return await self._send("POST", path, body)

    async def write_status(self, path: str, body: Body) -> dict[str, Any]:
        """Replace the status of an object below a path, and return the object."""
        return await self._send("PUT", f"{path}/{body['metadata']['name']}/status", body)

    async def _send(self, method: str, path: str, body: Body) -> dict[str, Any]:
        async with self._session.request(method, path, json=body) as response:
            assert response.status in (200, 201), await response.text()
            answer: dict[str, Any] = await response.json()
            return answer

    async def create_all(self, path: str, bodies: Iterable[Body]) -> None:
        """Create objects, ``AT_ONCE`` at a time."""
        waiting = iter(bodies)

        async def create_some() -> None:
            for body in waiting:
                await self.create(path, body)

        await asyncio.gather(*(create_some() for _ in range(AT_ONCE)))

    async def delete_all(self, paths: Iterable[str]) -> None:
        """Delete objects and their dependents, ``AT_ONCE`` at a time."""
        waiting = iter(paths)

        async def delete_some() -> None:
            for path in waiting:
                async with self._session.delete(path, json={"propagationPolicy": "Background"}) as response:
                    assert response.status == 200, await response.text()

        await asyncio.gather(*(delete_some() for _ in range(AT_ONCE)))

    async def count(self, path: str) -> int:
        """Return the number of objects."""
        async with self._session.get(path, params={"limit": "1"}) as response:
            page = await response.json()
        return len(page["items"]) + int(page["metadata"].get("remainingItemCount", 0))

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
