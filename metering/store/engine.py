"""Which engine a database server is: found by what it can do, once, when it is migrated.

Engines differ in two places only: the DDL of the migrations, and how rollups are refreshed. An `if engine` anywhere
else would be a flaw of the design.
"""

from enum import Enum

import asyncpg


class Engine(Enum):
    """What keeps the events."""

    POSTGRES = "postgres"
    TIMESCALEDB = "timescaledb"


# TimescaleDB is the engine where its Community edition is there: continuous aggregates exist only in it. The Apache
# edition, which many hosts carry, is used as the plain PostgreSQL that it is.
TIMESCALEDB_AVAILABLE = """
SELECT EXISTS (SELECT FROM pg_available_extensions WHERE name = 'timescaledb')
   AND current_setting('shared_preload_libraries', true) LIKE '%timescaledb%'
   AND coalesce(current_setting('timescaledb.license', true), 'timescale') = 'timescale'
"""

TIMESCALEDB_IN_USE = "SELECT EXISTS (SELECT FROM pg_extension WHERE extname = 'timescaledb')"

# What this database was migrated as: the first migration decided, and everything since follows it.
MIGRATED_AS = """
SELECT CASE WHEN EXISTS (
    SELECT FROM pg_class WHERE oid = to_regclass('usage_hour') AND relkind = 'v'
) THEN 'timescaledb' ELSE 'postgres' END
"""


async def engine_of(connection: asyncpg.pool.PoolConnectionProxy | asyncpg.Connection) -> Engine:
    """The engine that this (migrated) database runs on."""
    return Engine(await connection.fetchval(MIGRATED_AS))
