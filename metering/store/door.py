"""The door to the pool: whoever asks or changes something is let in so many at a time, and the rest of the pool stays free.

Without it a few dear questions hold every connection for as long as they may take, and events, probes and keys wait behind them.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from metering.errors import DoorFullError
from metering.limits import Limits


class Door:
    """Lets so many in at a time; a bounded number waits, for a bounded time, in the order in which they came."""

    def __init__(self, pool_connections: int, limits: Limits) -> None:
        # Two at least: an answer to a change may be read while its operation reads already.
        self._inside_max = max(2, pool_connections - limits.connections_kept)
        self._limits = limits
        self._places = asyncio.Semaphore(self._inside_max)
        self._waiting = 0

    @asynccontextmanager
    async def let_in(self) -> AsyncIterator[None]:
        """Wait for a place and hold it. Raises DoorFullError when too many wait already, or it takes too long."""
        if self._waiting >= self._limits.door_waiting_max:
            raise self._full()
        self._waiting += 1
        try:
            async with asyncio.timeout(self._limits.door_seconds_max):
                await self._places.acquire()
        except TimeoutError as error:
            raise self._full() from error
        finally:
            self._waiting -= 1
        try:
            yield
        finally:
            self._places.release()

    def _full(self) -> DoorFullError:
        return DoorFullError(
            f"{self._inside_max:,} operations are at work on the database here, and {self._waiting:,} wait; "
            "ask again in a moment, or for less."
        )
