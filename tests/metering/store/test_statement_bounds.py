"""How long a statement may take: a question's as long as somebody waits, a score's as long as it needs."""

import asyncio

import pytest

from metering.config import Settings
from metering.errors import TimeLimitError
from metering.limits import Limits
from metering.store.pool import Database
from metering.store.snapshot import Snapshot


def test_work_that_nobody_waits_for_has_a_bound_of_its_own(database_url: str) -> None:
    """On one pool, a snapshot ends a statement after the second that questions have, and another gives it ten."""

    async def scenario() -> None:
        database = await Database.connect(Settings(database_url=database_url), Limits(statement_seconds_max=1))
        try:
            async with Snapshot(database.within(10)) as unhurried:
                rows = await unhurried.fetch("SELECT pg_sleep(2.1)::text AS slept")
            async with Snapshot(database) as hurried:
                with pytest.raises(TimeLimitError, match="longer than the 1 s"):
                    await hurried.fetch("SELECT pg_sleep(2.1)")
        finally:
            await database.close()

        assert [""] == [row["slept"] for row in rows]

    asyncio.run(scenario())
