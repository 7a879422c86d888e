"""`metering doctor`."""

import asyncio
import platform
import sys
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

import rich.table

from metering import __version__
from metering.cli.console import OUT
from metering.cli.running import with_database
from metering.config import Settings, read_settings
from metering.limits import LIMITS
from metering.probes import Check, Status, read_readiness
from metering.retention import Kept, read_kept
from metering.store.inspect import ServerFacts, inspect_server
from metering.store.pool import Database
from metering.store.stored import stored_of

_POSTGRES_MAJOR_MIN: Final = 15
_MEBIBYTE: Final = 1024 * 1024
# It is given up by whole UTC days, and dropped when nobody is in the way.
_DROP_LAG_WARN: Final = timedelta(days=2)
_STYLES: Final = {Status.PASS: "green", Status.WARN: "yellow", Status.FAIL: "red"}


def doctor(*, data_dir: Path | None = None) -> None:
    """Look at this installation: settings, database, engine, migrations; say what was found and what it means.

    Exits 1 when something is wrong. Example: `metering doctor`

    Parameters
    ----------
    data_dir
        Where the embedded PostgreSQL lives [METERING_DATA_DIR, ./.metering].
    """
    settings = read_settings(data_dir=data_dir)
    embedded = settings.database_url is None
    with with_database(settings) as running:
        checks = [
            Check("release", Status.PASS, f"metering {__version__}, Python {platform.python_version()}", 0),
            *asyncio.run(_database_checks(running, embedded=embedded)),
        ]
    table = rich.table.Table("check", "", "what was found")
    for check in checks:
        table.add_row(check.name, f"[{_STYLES[check.status]}]{check.status.value}[/]", check.detail)
    OUT.print(table)
    if any(check.status is Status.FAIL for check in checks):
        sys.exit(1)


async def _database_checks(settings: Settings, *, embedded: bool) -> list[Check]:
    assert settings.database_url is not None, "with_database gives an address"
    facts = await inspect_server(settings.database_url)
    checks = [_server_check(facts, embedded=embedded), _engine_check(facts)]
    if facts.migrated_as is None:
        return [*checks, Check("migrations", Status.FAIL, "not migrated yet: `metering migrate`", 0)]
    database = await Database.connect(settings, LIMITS)
    try:
        readiness = await read_readiness(database)
        if readiness.status is Status.FAIL:
            return [*checks, *readiness.checks]
        return [*checks, *readiness.checks, *(await _stored_checks(database, settings))]
    finally:
        await database.close()


async def _stored_checks(database: Database, settings: Settings) -> list[Check]:
    async with database.connection() as connection:
        kept = await read_kept(connection)
        sizes = await stored_of(database).bytes_of(connection)
    shown = ", ".join(f"{name} {size / _MEBIBYTE:,.1f} MiB" for name, size in sizes.items())
    return [retention_check(kept, settings), Check("stored", Status.PASS, shown, 0)]


def retention_check(kept: Kept, settings: Settings) -> Check:
    """What is retained, and a warning where what is too old is not dropped."""
    if settings.retention_days is None:
        detail = (
            f"nothing is dropped: METERING_RETENTION_DAYS is not set; events are kept from {_since(kept.raw_from)} on"
        )
        return Check("retention", Status.PASS, detail, 0)
    detail = f"events from {_since(kept.raw_from)} on, rollups from {_since(kept.rollups_from)} on"
    due = kept.now - timedelta(days=settings.retention_days) - _DROP_LAG_WARN
    if kept.raw_from < due or (not kept.is_dropped and kept.raw_dropped_to < due):
        detail += "; older ones are still to be dropped: is the service running, and are the rollups complete?"
        return Check("retention", Status.WARN, detail, 0)
    return Check("retention", Status.PASS, detail, 0)


def _since(instant: datetime) -> str:
    return "the beginning" if instant.year == 1 else f"{instant:%FT%TZ}"


def _server_check(facts: ServerFacts, *, embedded: bool) -> Check:
    where = "embedded" if embedded else "at METERING_DATABASE_URL"
    if facts.version_major < _POSTGRES_MAJOR_MIN:
        detail = f"PostgreSQL {facts.version} {where}; {_POSTGRES_MAJOR_MIN} or newer is needed"
        return Check("server", Status.FAIL, detail, 0)
    return Check("server", Status.PASS, f"PostgreSQL {facts.version} {where}", 0)


def _engine_check(facts: ServerFacts) -> Check:
    engine = facts.migrated_as or "not chosen yet"
    if not facts.timescaledb_loaded:
        return Check("engine", Status.PASS, f"{engine}; the server has no TimescaleDB", 0)
    if facts.migrated_as == "timescaledb":
        return Check("engine", Status.PASS, f"{engine}; TimescaleDB's edition is {facts.timescaledb_license}", 0)
    if facts.migrated_as is None:
        return Check("engine", Status.PASS, f"{engine}; `metering migrate` will look at the server's TimescaleDB", 0)
    detail = (
        f"{engine}, as the database was first migrated; the server has TimescaleDB, of which the Community edition would "
        "be used in a new database (the Apache edition has no continuous aggregates)"
    )
    return Check("engine", Status.WARN, detail, 0)
