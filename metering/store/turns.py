"""One at a time: work that only one process may do, and waiting until those who are at work have ended."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable, Iterable
from contextlib import asynccontextmanager
from math import inf
from typing import Final

from metering.store.pool import Connection, Database

_POLL_SECONDS: Final = 0.01


@asynccontextmanager
async def alone(database: Database, lock: int) -> AsyncIterator[Connection | None]:
    """The connection that holds this advisory lock, on which all its work is done; None where another one works.

    Lock and work live and die in one session: who lost the lock cannot commit beside the next one.
    """
    async with database.connection() as connection:
        try:
            if await connection.fetchval("SELECT pg_try_advisory_lock($1)", lock):
                yield connection
                await connection.execute("SELECT pg_advisory_unlock($1)", lock)
            else:
                yield None
        except BaseException:
            # Whether the lock is held now is not known, and a session that goes back to the pool would keep it.
            connection.terminate()
            raise


async def ended(look: Callable[[], Awaitable[Iterable[Hashable]]], seconds_max: float = inf) -> bool:
    """Wait until everyone who is at work now has ended; later ones are no concern. False when it takes more seconds than that."""
    give_up_at = time.monotonic() + seconds_max
    waiting = set(await look())
    while waiting:
        if time.monotonic() > give_up_at:
            return False
        await asyncio.sleep(_POLL_SECONDS)
        waiting &= set(await look())
    return True
