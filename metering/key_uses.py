"""When keys were last used: noted in memory at each request, and written for all of them together now and then."""

import asyncio
import time
from contextlib import suppress

from metering.cancelling import cancel
from metering.errors import DatabaseError
from metering.limits import Limits
from metering.store.pool import Database
from metering.store.queries import sql
from metering.telemetry import logger


class KeyUses:
    """The uses of keys since they were written last. A process that is killed forgets them."""

    def __init__(self, database: Database, limits: Limits) -> None:
        self._database = database
        self._limits = limits
        # By prefix, on the monotonic clock.
        self._used: dict[str, float] = {}
        self._closing = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Write again and again until it is closed."""
        self._task = asyncio.create_task(self._loop(), name="key-uses")

    async def close(self) -> None:
        """Write what is left, as far as the database answers soon."""
        self._closing.set()
        if self._task is not None:
            await asyncio.wait([self._task], timeout=self._limits.closing_seconds_max)
            await cancel([self._task])

    def note(self, prefix: str) -> None:
        """The key is used now."""
        self._used[prefix] = time.monotonic()

    async def write(self) -> None:
        """Write when keys were used, if any was. What cannot be written now waits for the next time."""
        used, self._used = self._used, {}
        if not used:
            return
        now = time.monotonic()
        ages = [now - at for at in used.values()]
        try:
            async with self._database.connection() as connection:
                await connection.execute(sql("keys.write_uses"), list(used), ages)
        except DatabaseError as error:
            self._used = {**used, **self._used}
            logger().warning("key_uses_postponed", reason=str(error))

    async def _loop(self) -> None:
        while not self._closing.is_set():
            with suppress(TimeoutError):
                await asyncio.wait_for(self._closing.wait(), self._limits.key_uses_seconds)
            await self.write()
