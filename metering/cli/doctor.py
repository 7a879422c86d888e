"""`metering doctor`."""

import asyncio
import platform
import sys
from pathlib import Path
from typing import Final

import rich.table

from metering import __version__
from metering.cli.console import OUT
from metering.cli.running import with_database
from metering.config import Settings, read_settings
from metering.limits import LIMITS
from metering.probes import Check, Status, read_readiness
from metering.store.inspect import ServerFacts, inspect_server
from metering.store.pool import Database

_POSTGRES_MAJOR_MIN: Final = 15
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
        return [*checks, *(await read_readiness(database)).checks]
    finally:
        await database.close()


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
