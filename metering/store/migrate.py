"""Bring a database to this release's schema, with alembic; several processes may try at once."""

import asyncio
from functools import cache
from pathlib import Path

import alembic.command
import alembic.config
import alembic.script
import alembic.util
import asyncpg
import sqlalchemy as sa

from metering.errors import DatabaseUnavailableError, SchemaError
from metering.store.faults import translated


def upgrade(database_url: str, revision: str = "head") -> str:
    """Migrate up to `revision` and return the revision reached. Raises DatabaseUnavailableError or SchemaError."""
    _run(alembic.command.upgrade, database_url, revision)
    return asyncio.run(_revision(database_url))


def downgrade(database_url: str, revision: str) -> None:
    """Migrate down to `revision` ("base" leaves nothing)."""
    _run(alembic.command.downgrade, database_url, revision)


@cache
def head() -> str:
    """The revision that this release needs: of the program, and so looked up once."""
    revision = alembic.script.ScriptDirectory.from_config(_config("")).get_current_head()
    assert revision is not None, "there is at least one migration"
    return revision


def _run(command: object, database_url: str, revision: str) -> None:
    assert callable(command)
    try:
        command(_config(database_url), revision)
    except alembic.util.CommandError as error:
        raise SchemaError(f"{error}. The database was migrated by a newer release; run that one.") from error
    except (
        OSError,
        TimeoutError,
        asyncpg.PostgresConnectionError,
        asyncpg.InvalidAuthorizationSpecificationError,
        asyncpg.InvalidCatalogNameError,
        asyncpg.CannotConnectNowError,
    ) as error:
        raise DatabaseUnavailableError(f"The database is away: {error}") from error
    except sa.exc.DBAPIError as error:
        raise SchemaError(f"The migration failed and was rolled back: {error.orig}") from error


def _config(database_url: str) -> alembic.config.Config:
    import migrations

    assert migrations.__file__ is not None
    config = alembic.config.Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["database_url"] = database_url
    return config


async def _revision(database_url: str) -> str:
    with translated():
        connection = await asyncpg.connect(database_url)
        try:
            revision: str = await connection.fetchval("SELECT version_num FROM alembic_version")
        finally:
            await connection.close()
    return revision
