"""Endings of tasks: how what goes on in the background is told to stop."""

import asyncio
from collections.abc import Iterable
from contextlib import suppress
from typing import Final

# Where a connection breaks just then, that takes the place of the cancellation: it is said again.
_CANCELLED_AGAIN_SECONDS: Final = 0.5


async def end(tasks: Iterable[asyncio.Task[None]]) -> None:
    """Cancel these tasks, again and again until each has ended. Raises what one ended of, unless that is the cancellation."""
    ending = list(tasks)
    at_work = set(ending)
    while at_work:
        for task in at_work:
            task.cancel()
        _, at_work = await asyncio.wait(at_work, timeout=_CANCELLED_AGAIN_SECONDS)
    for task in ending:
        with suppress(asyncio.CancelledError):
            await task
