"""Ending tasks, also where a cancellation is lost on the way."""

import asyncio
from collections.abc import Collection
from contextlib import suppress
from typing import Final

# Where a connection breaks just then, that takes the place of the cancellation: it is said again.
_AGAIN_SECONDS: Final = 0.5


async def cancel(tasks: "Collection[asyncio.Task[None]]") -> None:
    """Cancel these tasks until all of them have ended. Raises what one of them failed with."""
    at_work = set(tasks)
    while at_work:
        for task in at_work:
            task.cancel()
        _, at_work = await asyncio.wait(at_work, timeout=_AGAIN_SECONDS)
    for task in tasks:
        with suppress(asyncio.CancelledError):
            await task
