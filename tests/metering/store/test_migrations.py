"""The schema: made by migrations, described by tables.py, the same on every engine, there and back again."""

import asyncio
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import alembic.autogenerate
import alembic.migration
import asyncpg
import pytest
import sqlalchemy as sa
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import create_async_engine

from metering.config import Settings
from metering.errors import SchemaError
from metering.limits import LIMITS
from metering.store import migrate
from metering.store.engine import Engine
from metering.store.partitions import Partitions
from metering.store.pool import Database
from metering.store.queries import all_statements
from metering.store.rollup_statements import refresh, roll_up
from metering.store.tables import METADATA, PARTITIONED, QUARTER_HOUR, ROLLUP_TABLES, ROLLUPS
from tests.conftest import Server


def fetch(url: str, statement: str, *arguments: object) -> list[Any]:
    """The rows of a statement."""

    async def run() -> list[Any]:
        connection = await asyncpg.connect(url)
        try:
            rows: list[Any] = await connection.fetch(statement, *arguments)
            return rows
        finally:
            await connection.close()

    return asyncio.run(run())


def test_tables_are_what_the_migrations_make(database_url: str) -> None:
    """tables.py and the sum of the migrations describe the same tables, columns, types and constraints."""
    ours = set(METADATA.tables)

    def compare(connection: sa.Connection) -> list[Any]:
        context = alembic.migration.MigrationContext.configure(
            connection,
            opts={
                "compare_type": True,
                "include_name": lambda name, kind, _parents: kind != "table" or name in ours,
            },
        )
        return list(alembic.autogenerate.compare_metadata(context, METADATA))

    async def run() -> list[Any]:
        engine = create_async_engine(make_url(database_url).set(drivername="postgresql+asyncpg"))
        try:
            async with engine.connect() as connection:
                return await connection.run_sync(compare)
        finally:
            await engine.dispose()

    assert asyncio.run(run()) == []


def test_rollups_have_the_same_columns_on_every_engine(database_url: str) -> None:
    """Every rollup has the names and types that queries expect, whether it is a table or a continuous aggregate."""
    for name, table in ROLLUP_TABLES.items():
        rows = fetch(
            database_url,
            "SELECT attname, format_type(atttypid, NULL) AS type FROM pg_attribute "
            "WHERE attrelid = $1::text::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attnum",
            name,
        )
        expected = [
            (column.name, str(column.type.compile(dialect=sa.dialects.postgresql.dialect()))) for column in table.c
        ]
        words = {
            "TIMESTAMP WITH TIME ZONE": "timestamp with time zone",
            'TEXT COLLATE "C"': "text",
            "NUMERIC": "numeric",
        }

        assert [(column, words.get(kind, kind.lower())) for column, kind in expected] == [tuple(row) for row in rows]


def test_every_text_is_collated_by_bytes(database_url: str) -> None:
    """No text column depends on the machine's collation: keys compare the same everywhere, and indexes survive upgrades."""
    rows = fetch(
        database_url,
        "SELECT attrelid::regclass::text AS of, attname FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid "
        "WHERE relnamespace = 'public'::regnamespace AND relname <> 'alembic_version' AND atttypid = 'text'::regtype "
        "AND attnum > 0 AND attcollation <> '\"C\"'::regcollation AND relkind IN ('r', 'p', 'v')",
    )

    assert [tuple(row) for row in rows] == []


def test_down_and_up_again(empty_database_url: str) -> None:
    """Migrating up, down to nothing and up again works, and leaves nothing of ours in between."""
    assert migrate.head() == migrate.upgrade(empty_database_url)
    migrate.downgrade(empty_database_url, "base")
    left = fetch(
        empty_database_url,
        "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p', 'v', 'S')",
    )

    assert [row["relname"] for row in left] == ["alembic_version"]
    assert migrate.head() == migrate.upgrade(empty_database_url)


def test_several_processes_may_migrate_at_once(
    empty_database_url: str, run_cli: Callable[..., "subprocess.CompletedProcess[str]"]
) -> None:
    """Four processes that migrate together all end well, and the schema is made once."""
    with ThreadPoolExecutor(4) as pool:
        ended = list(pool.map(lambda _: run_cli("migrate", METERING_DATABASE_URL=empty_database_url), range(4)))

    assert [(process.returncode, process.stderr) for process in ended] == [(0, "")] * 4
    assert len(fetch(empty_database_url, "SELECT FROM rollup_horizon")) == 1


def test_a_newer_schema_is_not_touched(database_url: str) -> None:
    """A database that a newer release took something from is refused with a sentence that says what to do."""
    fetch(database_url, "UPDATE alembic_version SET version_num = '9999'")
    fetch(database_url, f"COMMENT ON TABLE alembic_version IS '{migrate.tightening('9999')}'")

    with pytest.raises(SchemaError, match="newer release"):
        migrate.upgrade(database_url)


def test_every_static_statement_can_be_prepared(database_url: str) -> None:
    """Every statement of sql/*.sql is valid on every engine, and begins with a line that says what it is for."""
    for name, statement in all_statements().items():
        assert statement.startswith("-- "), name
        fetch(database_url, f"PREPARE statement AS {statement}")


def test_a_role_without_privileges_migrates_its_own_database(servers: dict[str, Server], engine: str) -> None:
    """A role that owns its database and no more can migrate it, on the engine that the server has."""
    server = servers[engine]
    url = server.empty()
    name = url.partition("@/")[2].partition("?")[0]
    server.execute(f"CREATE ROLE {name}_owner LOGIN")
    server.execute(f"ALTER DATABASE {name} OWNER TO {name}_owner")
    own = url.replace("postgres@", f"{name}_owner@")
    try:
        migrate.upgrade(own)
        kind = fetch(own, "SELECT relkind::text AS kind FROM pg_class WHERE oid = 'usage_quarter_hour'::regclass")[0][
            "kind"
        ]
    finally:
        server.drop(url)
        server.execute(f"DROP ROLE {name}_owner")

    assert {"postgres": "p", "timescaledb": "v"}[engine] == kind


_BY_SUBSCRIPTION = "usage_quarter_hour_by_subscription"
_BY_PRODUCT = "usage_quarter_hour_by_product"
_BY_ACCOUNT = "usage_quarter_hour_by_account"


@pytest.mark.parametrize(
    ("before", "after", "made"),
    [
        ("0011", "0012", {_BY_PRODUCT: 16, _BY_ACCOUNT: 8}),
        ("0029", "0030", {_BY_SUBSCRIPTION: 32, _BY_PRODUCT: 16, _BY_ACCOUNT: 8}),
    ],
)
def test_rollups_of_quarter_hours_are_filled_from_what_is_there(
    empty_database_url: str, before: str, after: str, made: dict[str, int]
) -> None:
    """These migrations ask no event: their rollups hold what the one with every dimension holds, and so after going back."""
    migrate.upgrade(empty_database_url, before)
    asyncio.run(_roll_up_some_events(empty_database_url))
    fetch(empty_database_url, "DELETE FROM event")
    migrate.upgrade(empty_database_url, after)

    held = {name: _figures(empty_database_url, name) for name in made}

    assert made == {name: len(rows) for name, rows in held.items()}
    assert held == {name: _figures(empty_database_url, "usage_quarter_hour", name) for name in made}
    migrate.downgrade(empty_database_url, before)
    assert _figures(empty_database_url, _BY_ACCOUNT) == held[_BY_ACCOUNT]


_DAY = datetime(2026, 3, 2, tzinfo=UTC)
# Two accounts, four quarters of an hour, two products, with a subscription or without, and users, who are added up.
_SOME_EVENTS = """
INSERT INTO event (account, occurred_at, key, source, event_id, received_at, subscription, "user", product, unit,
                   quantity)
SELECT 'a' || n % 2, timestamptz '2026-03-02 10:00+00' + n * interval '1 minute', int4send(n), 's', n::text, now(),
       CASE WHEN n / 4 % 2 = 0 THEN 'team' END, 'u' || n % 7, 'p' || n / 2 % 2, 'call', n * 0.1
FROM generate_series(0, 59) AS numbered (n)
"""


async def _roll_up_some_events(url: str) -> None:
    """What the release of migration 0011 did with its refresher, for the rollup that others are made of."""
    database = await Database.connect(Settings(database_url=url), LIMITS)
    try:
        for partitioned in PARTITIONED:
            await Partitions(database).ensure(partitioned, [_DAY.date()])
        on_timescaledb = database.engine is Engine.TIMESCALEDB
        rolled_up = (refresh if on_timescaledb else roll_up)(QUARTER_HOUR)
        async with database.connection() as connection:
            await connection.execute(_SOME_EVENTS)
            await connection.execute(rolled_up, _DAY, _DAY + timedelta(days=1))
    finally:
        await database.close()


def _figures(url: str, name: str, grouped_as: str | None = None) -> list[tuple[Any, ...]]:
    """A rollup's rows; or, where it is named as what, those of another one, added up to them."""
    rollup = next(each for each in ROLLUPS if each.name == (grouped_as or name))
    by = ", ".join(("bucket", *rollup.dimensions))
    figures = "sum(quantity), sum(events)::bigint, min(minimum), max(maximum)"
    return [tuple(row) for row in fetch(url, f"SELECT {by}, {figures} FROM {name} GROUP BY {by} ORDER BY {by}")]
