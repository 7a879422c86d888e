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
    """Migrate up to `revision` and return the revision reached, which is a newer release's where this one works on it.

    Raises DatabaseUnavailableError or SchemaError.
    """
    try:
        _run(alembic.command.upgrade, database_url, revision)
    except SchemaError:
        reached, noted = asyncio.run(_reached(database_url))
        if reached is None or not works_on(reached, noted):
            raise
    else:
        reached, _ = asyncio.run(_reached(database_url))
        assert reached is not None, "a migration was run"
    return reached


def downgrade(database_url: str, revision: str) -> None:
    """Migrate down to `revision` ("base" leaves nothing)."""
    _run(alembic.command.downgrade, database_url, revision)


@cache
def head() -> str:
    """The revision that this release needs: of the program, and so looked up once."""
    revision = alembic.script.ScriptDirectory.from_config(_config("")).get_current_head()
    assert revision is not None, "there is at least one migration"
    return revision


def tightening(revision: str | None) -> str:
    """What a database says of the last migration that took something away (of the kind `post`); None for no such."""
    return f"tightened by {revision or 'none'}"


def works_on(revision: str, noted: str | None) -> bool:
    """Whether this release works on the schema of a newer one, where that says this of its tightening.

    A release works on whatever was only added to, so it has to know the last migration that took something away.
    """
    ours = _revisions()
    return revision not in ours and noted in {tightening(None), *map(tightening, ours)}


@cache
def _revisions() -> frozenset[str]:
    scripts = alembic.script.ScriptDirectory.from_config(_config("")).walk_revisions()
    return frozenset(script.revision for script in scripts)


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


async def _reached(database_url: str) -> tuple[str | None, str | None]:
    """The revision that a database is at, and what it says of its tightening; None for what is not there."""
    with translated():
        connection = await asyncpg.connect(database_url)
        try:
            if await connection.fetchval("SELECT to_regclass('alembic_version')") is None:
                return None, None
            row = await connection.fetchrow(
                "SELECT max(version_num), obj_description('alembic_version'::regclass, 'pg_class') FROM alembic_version"
            )
            assert row is not None, "an aggregate is of one row"
            return row[0], row[1]
        finally:
            await connection.close()
