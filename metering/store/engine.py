"""Which engine a database server is: found by what it can do, once, when it is migrated.

Engines differ in three places only: the DDL of the migrations, how rollups are refreshed, and what becomes of old data. An
`if engine` anywhere else would be a flaw of the design.
"""

from enum import Enum

import asyncpg


class Engine(Enum):
    """What keeps the events."""

    POSTGRES = "postgres"
    TIMESCALEDB = "timescaledb"


# Whether the server has TimescaleDB, loaded at its start. The loader defines the setting, and any role may read it.
TIMESCALEDB_LOADED = """
SELECT EXISTS (SELECT FROM pg_available_extensions WHERE name = 'timescaledb')
   AND current_setting('timescaledb.disable_load', true) IS NOT NULL
"""

# 'timescale' is the Community edition, which alone has continuous aggregates; 'apache', which many hosts carry, is used
# as the plain PostgreSQL that it is. Known only where the extension has been created: NULL elsewhere.
TIMESCALEDB_LICENSE = "SELECT current_setting('timescaledb.license', true)"
COMMUNITY = "timescale"

# What this database was migrated as: the first migration decided, and everything since follows it.
MIGRATED_AS = """
SELECT CASE WHEN EXISTS (
    SELECT FROM pg_class WHERE oid = to_regclass('usage_day') AND relkind = 'v'
) THEN 'timescaledb' ELSE 'postgres' END
"""


async def engine_of(connection: asyncpg.pool.PoolConnectionProxy | asyncpg.Connection) -> Engine:
    """The engine that this (migrated) database runs on."""
    return Engine(await connection.fetchval(MIGRATED_AS))
