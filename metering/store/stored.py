"""What is stored, by age: how it is dropped, put into the columnstore, and how large it is. The engines differ here.

On plain PostgreSQL whole partitions are dropped, and rows of the rollups that are plain tables are deleted. On TimescaleDB
whole chunks are dropped, of events and of continuous aggregates, and old chunks of events become columns.

Each drop is done again where it was broken off, and drops the same again: nothing.
"""

import asyncio
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final, Protocol

import asyncpg

from metering.store.engine import Engine
from metering.store.partitions import Partitions, drop_partitions
from metering.store.pool import Connection, Database
from metering.store.queries import sql
from metering.store.tables import PARTITIONED, PARTITIONED_RAW, ROLLUPS, Partitioned
from metering.store.turns import alone

_ROLLUP_NAMES: Final = tuple(rollup.name for rollup in ROLLUPS)
_PARTITIONED_ROLLUPS: Final = tuple(each for each in PARTITIONED if each.table in _ROLLUP_NAMES)
_PLAIN_ROLLUPS: Final = tuple(set(_ROLLUP_NAMES) - {each.table for each in _PARTITIONED_ROLLUPS})

COLUMNSTORE_LOCK: Final = 0x6D65_7472_636F_6C73  # "metrcols"
# Others queue behind whoever waits for a table's lock: so long, and then we try again later.
_LOCK_TIMEOUT: Final = "5s"
# A week of events takes long to convert, and a year of daily rows to delete.
_STATEMENT_SECONDS_MAX: Final = 3_600
_ROWS_DELETED_MAX: Final = 20_000
_WEEKS_AHEAD: Final = 2
_LOOK_SECONDS: Final = 0.5
# Seen twice to be waited for: who merely passes by is not made to give way for.
_LOOKS_BLOCKED_MAX: Final = 2


class Stored(Protocol):
    """What every engine can do. `connection` is outside of a transaction, and held by nobody else."""

    async def make_ahead(self, now: datetime) -> None:
        """Have room ready for the coming weeks, so that no writer has to make it."""

    async def drop_raw(self, connection: Connection, before: datetime) -> bool:
        """Drop what was recorded before this UTC midnight. False where somebody was in the way: try again later."""

    async def drop_rollups(self, connection: Connection, before: datetime) -> bool:
        """Drop the rollups' rows before this UTC midnight. False where somebody was in the way: try again later."""

    async def convert(self, before: datetime) -> int | None:
        """Put what was recorded before this instant, and is no column yet, into the columnstore; say how many chunks.

        None where another process does.
        """

    async def bytes_of(self, connection: Connection) -> Mapping[str, int]:
        """What events, identities and rollups take on disk, indexes included."""


def stored_of(database: Database) -> Stored:
    """What the database's engine stores."""
    return TimescaleStored(database) if database.engine is Engine.TIMESCALEDB else PostgresStored(database)


class PostgresStored:
    """Partitions, and plain tables of daily rows."""

    def __init__(self, database: Database) -> None:
        self._partitions = Partitions(database)

    async def make_ahead(self, now: datetime) -> None:
        """See Stored."""
        days = [(now + timedelta(weeks=weeks)).date() for weeks in range(_WEEKS_AHEAD + 1)]
        for partitioned in PARTITIONED:
            await self._partitions.ensure(partitioned, days)

    async def drop_raw(self, connection: Connection, before: datetime) -> bool:
        """See Stored."""
        return await self._drop(connection, PARTITIONED_RAW, before)

    async def drop_rollups(self, connection: Connection, before: datetime) -> bool:
        """See Stored."""
        for name in _PLAIN_ROLLUPS:
            await _delete_before(connection, name, before)
        return await self._drop(connection, _PARTITIONED_ROLLUPS, before)

    async def _drop(self, connection: Connection, tables: Sequence[Partitioned], before: datetime) -> bool:
        done = True
        await connection.execute(_WAIT_BRIEFLY)
        try:
            for partitioned in tables:
                await drop_partitions(connection, partitioned, before)
        except asyncpg.LockNotAvailableError:
            done = False
        await connection.execute(_WAIT_AS_EVER)
        return done

    async def convert(self, before: datetime) -> int:  # noqa: ARG002 - the other engine needs it
        """See Stored: plain PostgreSQL has no columnstore."""
        return 0

    async def bytes_of(self, connection: Connection) -> Mapping[str, int]:
        """See Stored."""
        return await _bytes_of(connection, _BYTES_OF_PARTITIONS)


class TimescaleStored:
    """Chunks of hypertables and of continuous aggregates."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def make_ahead(self, now: datetime) -> None:
        """See Stored: chunks make themselves."""

    async def drop_raw(self, connection: Connection, before: datetime) -> bool:
        """See Stored."""
        for partitioned in PARTITIONED_RAW:
            until = before - timedelta(days=partitioned.kept_longer_days)
            if not await self._drop(
                connection, partitioned.table, until.date() if partitioned.column == "day" else until
            ):
                return False
        return True

    async def drop_rollups(self, connection: Connection, before: datetime) -> bool:
        """See Stored. From the days down to what they are made of."""
        for name in reversed(_ROLLUP_NAMES):
            if not await self._drop(connection, name, before):
                return False
        return True

    async def _drop(self, connection: Connection, table: str, before: object) -> bool:
        kind = "timestamptz" if isinstance(before, datetime) else "date"
        try:
            async with connection.transaction():
                await connection.execute(f"SET LOCAL lock_timeout = '{_LOCK_TIMEOUT}'")
                await connection.execute(
                    f"SELECT drop_chunks('{table}', older_than => $1::{kind})", before, timeout=_STATEMENT_SECONDS_MAX
                )
        except (asyncpg.LockNotAvailableError, asyncpg.DeadlockDetectedError):
            return False
        return True

    async def convert(self, before: datetime) -> int | None:
        """See Stored. One process at a time; what late events left in rows is packed again, which nobody waits for."""
        async with alone(self._database, COLUMNSTORE_LOCK) as connection:
            if connection is None:
                return None
            converted = 0
            for row in await connection.fetch(_CHUNKS_TO_CONVERT, [each.table for each in PARTITIONED_RAW], before):
                converted += await self._convert(connection, row["name"])
            return converted

    async def _convert(self, connection: Connection, chunk: str) -> bool:
        """Convert a chunk, unless somebody has to wait for it: then it is left as it was, for another time.

        TimescaleDB locks the chunk against writers meanwhile, which may take minutes, and a late event is not to wait.
        """
        done = True
        await connection.execute(_WAIT_BRIEFLY)
        converting = asyncio.create_task(
            connection.execute(f"CALL convert_to_columnstore('{chunk}')", timeout=_STATEMENT_SECONDS_MAX)
        )
        try:
            await self._give_way(converting, connection.get_server_pid())
            await converting
        except (asyncpg.QueryCanceledError, asyncpg.LockNotAvailableError, asyncpg.DeadlockDetectedError):
            done = False
        finally:
            converting.cancel()
        await connection.execute(_WAIT_AS_EVER)
        return done

    async def _give_way(self, converting: "asyncio.Task[str]", pid: int) -> None:
        """Cancel what this session does when others are seen to wait for it; return when it has ended."""
        looks_blocked = 0
        while not (await asyncio.wait({converting}, timeout=_LOOK_SECONDS))[0]:
            async with self._database.connection() as watching:
                blocks = await watching.fetchval(sql("retention.blocks_others"), pid)
                looks_blocked = looks_blocked + 1 if blocks else 0
                if looks_blocked >= _LOOKS_BLOCKED_MAX:
                    await watching.execute("SELECT pg_cancel_backend($1)", pid)

    async def bytes_of(self, connection: Connection) -> Mapping[str, int]:
        """See Stored."""
        return await _bytes_of(connection, _BYTES_OF_HYPERTABLE)


async def _delete_before(connection: Connection, table: str, before: datetime) -> None:
    """Delete a plain rollup's old rows, some at a time: no transaction is long, and readers never look at them."""
    deleted = "DELETE"
    while deleted != "DELETE 0":
        deleted = await connection.execute(
            f"DELETE FROM {table} WHERE ctid = ANY (ARRAY("
            f"SELECT ctid FROM {table} WHERE bucket < $1 LIMIT {_ROWS_DELETED_MAX}))",
            before,
            timeout=_STATEMENT_SECONDS_MAX,
        )


async def _bytes_of(connection: Connection, statement: str) -> Mapping[str, int]:
    tables = {**{each.table: [each.table] for each in PARTITIONED_RAW}, "rollups": list(_ROLLUP_NAMES)}
    return {name: await connection.fetchval(statement, each) for name, each in tables.items()}


# For the session: a partition is not detached inside a transaction.
_WAIT_BRIEFLY: Final = f"SET lock_timeout = '{_LOCK_TIMEOUT}'"
_WAIT_AS_EVER: Final = "RESET lock_timeout"

# Never converted, or with rows beside its columns since (a bit of the status). The oldest first.
_CHUNKS_TO_CONVERT: Final = """
SELECT chunk.name
FROM timescaledb_information.chunks AS shown,
     format('%I.%I', shown.chunk_schema, shown.chunk_name) AS chunk (name)
WHERE shown.hypertable_schema = current_schema() AND shown.hypertable_name = ANY ($1::text[]) AND shown.range_end <= $2
  AND (NOT shown.is_compressed OR _timescaledb_functions.chunk_status(chunk.name::regclass) & 8 > 0)
ORDER BY shown.range_end, chunk.name
"""

_BYTES_OF_PARTITIONS: Final = """
WITH named AS (SELECT name::regclass AS oid FROM unnest($1::text[]) AS given (name))
SELECT sum(pg_total_relation_size(oid))::bigint
FROM (SELECT oid FROM named UNION ALL SELECT inhrelid FROM pg_inherits WHERE inhparent IN (SELECT oid FROM named)) AS all_of
"""

_BYTES_OF_HYPERTABLE: Final = """
SELECT sum(hypertable_size(named.name::regclass))::bigint FROM unnest($1::text[]) AS named (name)
"""
