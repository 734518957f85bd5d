"""Tasks in place of those of kopf."""

import asyncio
from contextlib import suppress


async def spawn_tasks(**_: object) -> list[asyncio.Task[None]]:
    """Start a task that fails at once, and one that loses its first cancellation."""
    return [asyncio.create_task(fail()), asyncio.create_task(lose_cancellation())]


async def fail() -> None:
    raise ValueError("half a line")


async def lose_cancellation() -> None:
    with suppress(asyncio.CancelledError):
        await asyncio.Event().wait()
    await asyncio.Event().wait()
