"""What a database server is and can do, asked before anything else is known of it."""

import asyncpg
import msgspec

from metering.limits import LIMITS
from metering.store.engine import MIGRATED_AS, TIMESCALEDB_LICENSE, TIMESCALEDB_LOADED
from metering.store.faults import translated


class ServerFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What `metering doctor` tells."""

    version: str
    version_major: int
    timescaledb_loaded: bool
    # Known only where the extension has been created.
    timescaledb_license: str | None
    # The engine that the database was migrated as; None when it never was.
    migrated_as: str | None


async def inspect_server(database_url: str) -> ServerFacts:
    """Ask the server. Raises DatabaseUnavailableError when it does not answer."""
    with translated():
        connection = await asyncpg.connect(database_url, timeout=LIMITS.database_connect_seconds_max)
        try:
            version = await connection.fetchval("SHOW server_version")
            migrated = await connection.fetchval("SELECT to_regclass('alembic_version') IS NOT NULL")
            return ServerFacts(
                version=version,
                version_major=connection.get_server_version().major,
                timescaledb_loaded=await connection.fetchval(TIMESCALEDB_LOADED),
                timescaledb_license=await connection.fetchval(TIMESCALEDB_LICENSE),
                migrated_as=await connection.fetchval(MIGRATED_AS) if migrated else None,
            )
        finally:
            await connection.close()
