"""One client of the API server: it creates objects side by side, and notes when watches tell of what."""

import asyncio
import json
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import aiohttp

from integration.control_plane import TOKEN, ControlPlane

Body = Mapping[str, Any]
AT_ONCE = 16
LONGEST_LINE = 1 << 22


def is_answering(url: str, certificate: Path | None = None) -> bool:
    """Tell whether a server answers the administrator with success, by the certificate given."""
    trust = ssl.create_default_context(cafile=certificate) if certificate else None
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {TOKEN}"})
    try:
        with urllib.request.urlopen(request, context=trust, timeout=5):
            return True
    except (urllib.error.URLError, OSError):
        return False


class Client:
    """A client within the running event loop; use it as an asynchronous context manager."""

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

    async def create_all(self, path: str, bodies: Iterable[Body]) -> None:
        """Create objects, ``AT_ONCE`` at a time."""
        waiting = iter(bodies)
        await asyncio.gather(*(self._create_some(path, waiting) for _ in range(AT_ONCE)))

    async def _create_some(self, path: str, waiting: Iterator[Body]) -> None:
        for body in waiting:
            async with self._session.post(path, json=body) as response:
                assert response.status == 201, await response.text()

    async def watch(self, path: str, hear: Callable[[Body, float], None]) -> None:
        """Tell of every state of every object, with the time of its arrival, until this is cancelled.

        The API server now and then ends the watch of a client that does not keep up; the next one goes on from there.
        """
        version = ""
        while True:
            parameters = {"watch": "true", **({"resourceVersion": version} if version else {})}
            async with self._session.get(path, params=parameters) as response:
                assert response.status == 200, await response.text()
                while line := await response.content.readline():
                    event = json.loads(line)
                    assert event["type"] != "ERROR", event
                    version = event["object"]["metadata"]["resourceVersion"]
                    hear(event["object"], time.monotonic())
