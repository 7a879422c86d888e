"""A database that is filled with the data set (dataset.py), rolled up, and its customers scored."""

import asyncio
from datetime import UTC, datetime, timedelta

import asyncpg
from dataset import record

from metering.config import Settings
from metering.limits import LIMITS
from metering.store.pool import Database

DAYS = 90
_SECONDS_MAX = 7_200
UNSETTLED = """
SELECT count(*) FROM rollup_horizon
WHERE complete_at < now() - interval '20 minutes' OR EXISTS (SELECT FROM pending_bucket WHERE bucket < complete_at)
"""
_UNSCORED = """
SELECT EXISTS (SELECT FROM health_dirty) OR NOT EXISTS (
    SELECT FROM health_day WHERE as_of = (now() AT TIME ZONE 'UTC')::date - 1 AND completed_at IS NOT NULL
)
"""


async def fill(url: str, events: int) -> None:
    """Record the data set, unless it was recorded before."""
    filled = await Database.connect(Settings(database_url=url), LIMITS)
    try:
        async with filled.connection() as connection:
            if not await connection.fetchval("SELECT EXISTS (SELECT FROM event)"):
                now = datetime.now(UTC)
                await record(filled, events, now - timedelta(days=DAYS), now)
    finally:
        await filled.close()


async def settled(connection: asyncpg.Connection) -> None:
    """Wait until the service has rolled it up, and scored everybody on the last day that is over."""
    async with asyncio.timeout(_SECONDS_MAX):
        # Another process brings it about, so there is nothing to await but time.
        for unfinished in (UNSETTLED, _UNSCORED):
            while await connection.fetchval(unfinished):  # noqa: ASYNC110
                await asyncio.sleep(0.2)
