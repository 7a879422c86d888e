"""`metering migrate`."""

import asyncio
from pathlib import Path

from metering.cli.console import say
from metering.cli.running import with_database
from metering.config import Settings, read_settings
from metering.limits import LIMITS
from metering.store import migrate as migrations
from metering.store.pool import Database


def migrate(*, data_dir: Path | None = None) -> None:
    """Bring the database to this release's schema; safe to run again, and in several places at once.

    Example: `METERING_DATABASE_URL=postgresql://metering@db/metering metering migrate`

    Parameters
    ----------
    data_dir
        Where the embedded PostgreSQL lives [METERING_DATA_DIR, ./.metering].
    """
    with with_database(read_settings(data_dir=data_dir)) as settings:
        assert settings.database_url is not None, "with_database gives an address"
        revision = migrations.upgrade(settings.database_url)
        say(f"The database is at revision {revision}, on the engine {asyncio.run(_engine(settings))}.")


async def _engine(settings: Settings) -> str:
    database = await Database.connect(settings, LIMITS)
    try:
        return database.engine.value
    finally:
        await database.close()
