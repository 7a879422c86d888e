"""What rolling up costs: as much as there is to roll up, whatever PostgreSQL knows of the tables."""

import asyncio
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import pytest

from metering.config import Settings
from metering.limits import LIMITS
from metering.store import rollup_statements as statements
from metering.store.partitions import Partitions
from metering.store.pool import Database
from metering.store.tables import PARTITIONED_EVENT, PARTITIONED_QUARTER_HOUR
from metering.store.tables import QUARTER_HOUR as QUARTER_HOURS
from tests.conftest import Server
from tests.metering.plans import nodes_of, plan_of, rows_seen

START: Final = datetime(2026, 3, 23, tzinfo=UTC)
MINUTE: Final = timedelta(minutes=1)
QUARTER_HOUR: Final = timedelta(minutes=15)
ACCOUNTS: Final = [f"account {number}" for number in range(10)]
QUARTERS: Final = [START + number * QUARTER_HOUR for number in range(300)]
EVENTS: Final = len(ACCOUNTS) * len(QUARTERS)


@pytest.fixture
def postgres_url(servers: dict[str, Server]) -> Iterator[str]:
    """A database of plain PostgreSQL: TimescaleDB does not find late buckets by itself."""
    with servers["postgres"].cloned() as url:
        yield url


def test_late_buckets_of_a_partition_that_was_just_filled_are_looked_up(postgres_url: str) -> None:
    """A partition of which there are no statistics yet is not compared with each bucket: what is read stays in proportion.

    PostgreSQL takes such a partition for nearly empty, and would compare all of its events with all of the late buckets:
    a backfilled year was not worked off in ten minutes.
    """

    async def find_changes() -> Mapping[str, Any]:
        database = await Database.connect(Settings(database_url=postgres_url), LIMITS)
        try:
            await Partitions(database).ensure(PARTITIONED_EVENT, [at.date() for at in QUARTERS])
            async with database.transaction() as connection:
                accounts, buckets = zip(*[(account, at) for account in ACCOUNTS for at in QUARTERS], strict=True)
                await connection.execute(FILL, accounts, buckets)
                for statement in (statements.HASHED, statements.MAKE_CHANGES, statements.found(EVENTS)):
                    await connection.execute(statement)
                explained = await connection.fetchval(
                    f"EXPLAIN (ANALYZE, TIMING OFF, FORMAT JSON) {statements.FIND_CHANGES}",
                    accounts,
                    buckets,
                    buckets[0],
                    QUARTERS[-1] + QUARTER_HOUR,
                )
                assert EVENTS == await connection.fetchval("SELECT count(*) FROM late_change")
        finally:
            await database.close()
        return plan_of(explained)

    plan = asyncio.run(find_changes())
    nodes = list(nodes_of(plan))
    assert any(node["Node Type"] == "Nested Loop" for node in nodes)
    assert max(rows_seen(node) for node in nodes) < 2 * EVENTS


def test_the_rows_of_an_account_lie_side_by_side(postgres_url: str) -> None:
    """A question about an account reads as few pages of a rollup as its rows need, not one for each row."""

    async def roll_up() -> list[Any]:
        database = await Database.connect(Settings(database_url=postgres_url), LIMITS)
        try:
            for partitioned in (PARTITIONED_EVENT, PARTITIONED_QUARTER_HOUR):
                await Partitions(database).ensure(partitioned, [START.date()])
            async with database.transaction() as connection:
                hours = [START + number * 4 * QUARTER_HOUR for number in range(24)]
                accounts, instants = zip(
                    *[(f"account {number}", at) for at in hours for number in range(200)], strict=True
                )
                await connection.execute(FILL, accounts, instants)
                await connection.execute(statements.HASHED)
                await connection.execute(statements.roll_up(QUARTER_HOURS), START, START + 96 * QUARTER_HOUR)
                return await connection.fetch(PAGES)
        finally:
            await database.close()

    found = asyncio.run(roll_up())
    assert 200 == len(found)
    assert 30 < found[0]["all_pages"]
    # Two, where they go over the end of one.
    assert all((24, True) == (row["rows"], row["pages"] <= 2) for row in found)


PAGES: Final = """
SELECT account, count(*) AS rows, count(DISTINCT (ctid::text::point)[0]) AS pages,
       (SELECT count(DISTINCT (ctid::text::point)[0]) FROM usage_quarter_hour) AS all_pages
FROM usage_quarter_hour GROUP BY account
"""


def test_a_minute_of_everyone_is_found_by_its_time(postgres_url: str) -> None:
    """The minute that is not over is read at once, not by a search for each account that there is."""

    async def read() -> Mapping[str, Any]:
        database = await Database.connect(Settings(database_url=postgres_url), LIMITS)
        try:
            async with database.connection() as connection:
                await connection.execute(FILL_MINUTES, START)
                explained = await connection.fetchval(OF_MINUTE, START + 10 * MINUTE, START + 11 * MINUTE)
        finally:
            await database.close()
        return plan_of(explained)

    nodes = list(nodes_of(asyncio.run(read())))
    assert 1_000 == max(node["Actual Rows"] for node in nodes)
    assert max(rows_seen(node) for node in nodes) < 2_000
    assert 1 == sum(node.get("Index Searches", 0) for node in nodes)


FILL_MINUTES: Final = """
INSERT INTO usage_minute_by_subscription (bucket, account, product, unit, quantity, events, minimum, maximum)
SELECT $1::timestamptz + minute * interval '1 minute', 'account ' || number, 'p', 'call', 1, 1, 1, 1
FROM generate_series(0, 16) AS minute, generate_series(1, 1000) AS number
"""
OF_MINUTE: Final = """
EXPLAIN (ANALYZE, TIMING OFF, FORMAT JSON)
SELECT sum(quantity) FROM usage_minute_by_subscription WHERE bucket >= $1 AND bucket < $2
"""


FILL: Final = """
INSERT INTO event (account, occurred_at, key, source, event_id, received_at, product, unit, quantity)
SELECT account, at, sha256(convert_to(account || at::text, 'UTF8')), 'test', 'an event', at, 'p', 'call', 1
FROM unnest($1::text[], $2::timestamptz[]) AS given (account, at)
"""
