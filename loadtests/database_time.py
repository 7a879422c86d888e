"""Where the database spends its time: what is at work, looked at again and again; and how much room everything takes."""

import asyncio
from typing import Final, Self

import asyncpg

from metering.rollups.refresh import REFRESHER_LOCK
from metering.store.event_log import WRITERS_LOCK

_LOOK_SECONDS: Final = 0.05
# Whose a session is, the locks tell that it holds: the writers' until they have committed, the refresher's while it works.
_AT_WORK: Final = """
SELECT count(*) FILTER (WHERE held.lock = $1) AS ingest, count(*) FILTER (WHERE held.lock = $2) AS rollups
FROM pg_stat_activity AS session
JOIN (
    SELECT DISTINCT pid, classid::bigint << 32 | objid::bigint AS lock
    FROM pg_locks WHERE locktype = 'advisory' AND granted AND objsubid = 1
) AS held USING (pid)
WHERE state = 'active' AND wait_event_type IS DISTINCT FROM 'Client'
"""
_SIZES: Final = """
SELECT pg_database_size(current_database()) AS everything, (SELECT sum(pg_total_relation_size(oid)) FROM pg_class
    WHERE relkind = 'r' AND (relname LIKE 'usage\\_%' OR relname = ANY ($1::text[]))) AS rollups,
    (SELECT count(*) FROM event) AS events
"""
_CHUNKS: Final = """
SELECT chunk_name::text AS name
FROM timescaledb_information.continuous_aggregates AS rollup
JOIN timescaledb_information.chunks AS chunk
    ON chunk.hypertable_schema = rollup.materialization_hypertable_schema
    AND chunk.hypertable_name = rollup.materialization_hypertable_name
"""


class DatabaseTime:
    """Looks, on a connection of its own, until it is stopped."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._looks = self._ingest = self._rollups = 0

    async def __aenter__(self) -> Self:
        self._connection = await asyncpg.connect(self._url)
        self._task = asyncio.create_task(self._look())
        return self

    async def __aexit__(self, *exception: object) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        await self._connection.close()

    async def _look(self) -> None:
        while True:
            row = await self._connection.fetchrow(_AT_WORK, WRITERS_LOCK, REFRESHER_LOCK)
            self._looks += 1
            self._ingest += row["ingest"]
            self._rollups += row["rollups"]
            await asyncio.sleep(_LOOK_SECONDS)

    def rows(self) -> list[list[str]]:
        """Sessions at work, on average: seconds of the database in a second."""
        ingest, rollups = self._ingest / self._looks, self._rollups / self._looks
        return [
            ["database time of ingest, sessions at work", f"{ingest:.2f}"],
            ["database time of rollups", f"{rollups:.2f}"],
            ["rollups / ingest", f"{rollups / ingest:.2f}"],
        ]


async def disk(connection: asyncpg.Connection) -> list[list[str]]:
    """Room on disk for a million events, and what of it the rollups take."""
    chunks = []
    if await connection.fetchval("SELECT to_regclass('timescaledb_information.chunks')") is not None:
        chunks = [row["name"] for row in await connection.fetch(_CHUNKS)]
    row = await connection.fetchrow(_SIZES, chunks, timeout=600)
    millions = row["events"] / 1_000_000
    return [
        ["MiB on disk for a million events", f"{row['everything'] / 2**20 / millions:,.0f}"],
        ["of these, rollups", f"{int(row['rollups']) / 2**20 / millions:,.0f}"],
    ]
