"""Keeps the event loop of an operator busy from outside by many concurrent requests for its metrics."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import aiohttp

from testplane.process import Operator

ASKERS = 24
"""A turn of the event loop renders the metrics so often: some tenths of a second."""


@contextmanager
def busy_loop(operator: Operator) -> Iterator[None]:
    """Request the metrics of an operator without a pause, until the context ends."""
    stop = threading.Event()
    thread = threading.Thread(target=lambda: asyncio.run(_ask_all(f"http://127.0.0.1:{operator.port}/metrics", stop)))
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


async def _ask_all(url: str, stop: threading.Event) -> None:
    timeout = aiohttp.ClientTimeout(total=5)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=timeout) as session:
        await asyncio.gather(*(_ask(session, url, stop) for _ in range(ASKERS)))


async def _ask(session: aiohttp.ClientSession, url: str, stop: threading.Event) -> None:
    while not stop.is_set():
        try:
            async with session.get(url) as response:
                await response.read()
        except (aiohttp.ClientError, OSError, TimeoutError):
            await asyncio.sleep(0.1)
