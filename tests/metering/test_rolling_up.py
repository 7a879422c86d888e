"""Nobody waits for whoever makes rollups: not while it waits itself, in the middle of them, with all that it has locked."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Final

from metering.rollups.refresh import Refreshed, Refresher
from metering.store import migrate
from metering.store.pool import Database
from metering.store.rollup_tables import rollups_of
from metering.store.tables import DAY
from tests.conftest import lock_waiters
from tests.metering.catalog import play
from tests.metering.test_exactness import LAST_HOUR, LAST_WEEK, NOW, calls, counted, horizon, pending, record

# Longer than a commit takes by far, and not as long as the test may.
PATIENCE_SECONDS: Final = 20
WEEK_BEFORE: Final = LAST_WEEK - timedelta(days=7)
SECOND: Final = timedelta(seconds=1)


@asynccontextmanager
async def held_refresher(database: Database, database_url: str) -> AsyncIterator[asyncio.Task[Refreshed | None]]:
    """A run of the refresher that has quarters of an hour in hand, and waits with the first day that they make."""
    async with database.connection() as other:
        days = (await rollups_of(database).kept_in(other))[DAY.name]
        async with other.transaction():
            await other.execute(f"LOCK TABLE {days} IN SHARE MODE")
            running = asyncio.create_task(Refresher(database).run(NOW))
            await lock_waiters(database_url, 1)
            yield running


def test_a_writer_commits_while_rollups_are_made(database_url: str) -> None:
    """A refresher that is held inside of `roll_up` holds up no writer, late or not; each answer meanwhile and later is exact."""

    async def scenario(database: Database) -> None:
        # TimescaleDB makes whoever writes into a chunk wait for whoever makes it: let both chunks be there.
        await record(database, calls(0, LAST_HOUR, LAST_WEEK))
        before, _ = await horizon(database)
        async with held_refresher(database, database_url) as running:
            async with asyncio.timeout(PATIENCE_SECONDS):
                await record(database, calls(2, LAST_HOUR, LAST_WEEK, NOW))
                assert 5 == await counted(database)
            assert not running.done()
            complete_at, published_at = await horizon(database)
            assert before <= complete_at < published_at
            assert 2 == await pending(database)
        done = await running

        assert done is not None
        assert (2, 0) == (done.worked_off, await pending(database))
        assert 5 == await counted(database)

    play(database_url, scenario)


def test_what_was_late_meanwhile_for_a_day_has_its_turn_with_it(database_url: str, engine: str) -> None:
    """TimescaleDB refreshes a day with all that is in it: what is logged for it until its turn comes asks for no other one."""

    async def scenario(database: Database) -> None:
        await record(database, calls(0, WEEK_BEFORE, LAST_WEEK))
        await Refresher(database).run(NOW)
        await record(database, calls(2, WEEK_BEFORE, LAST_WEEK))
        async with held_refresher(database, database_url) as running:
            # It has the first of both days in hand.
            await record(database, calls(4, LAST_WEEK))
            assert 3 == await pending(database)
            assert 5 == await counted(database)
        done = await running

        assert done is not None
        assert 2 == done.worked_off
        assert (0 if engine == "timescaledb" else 1) == await pending(database)
        assert 5 == await counted(database)
        await Refresher(database).run(NOW)
        assert 0 == await pending(database)
        assert 5 == await counted(database)

    play(database_url, scenario)


def test_the_minute_that_is_not_over_has_a_row_of_everyone_for_each_step(database_url: str) -> None:
    """What is in time and what is late are added with the step that takes them up; no account's minute is read for it."""

    async def scenario(database: Database) -> None:
        await record(database, calls(0, NOW - 30 * SECOND, NOW - 10 * SECOND))
        await Refresher(database).run(NOW)
        await record(database, calls(2, NOW - 20 * SECOND, NOW - 4 * SECOND))
        await Refresher(database).run(NOW + 2 * SECOND)
        async with database.connection() as connection:
            rows = await connection.fetch("SELECT bucket, events FROM usage_minute_of_everyone ORDER BY events")
            assert [(NOW - 60 * SECOND, events) for events in (1, 1, 2)] == [tuple(row) for row in rows]

            await connection.execute("DELETE FROM usage_minute_by_subscription")
        assert 4 == await counted(database)

    play(database_url, scenario)


def test_the_tail_of_the_release_before_begins_anew(empty_database_url: str) -> None:
    """Its minute that is not over had no row of everyone; after the migration every event counts, before a step and after."""

    async def scenario(database: Database) -> None:
        await record(database, calls(0, LAST_WEEK, LAST_HOUR, NOW - 90 * SECOND, NOW - 10 * SECOND))
        await Refresher(database).run(NOW)
        await record(database, calls(4, NOW - 20 * SECOND))
        async with database.connection() as connection:
            await connection.execute("DELETE FROM usage_minute_of_everyone WHERE bucket = $1", NOW - 60 * SECOND)
        assert 5 > await counted(database)
        await asyncio.to_thread(migrate.upgrade, empty_database_url, "0032")
        assert 5 == await counted(database)
        await Refresher(database).run(NOW + 2 * SECOND)
        assert 5 == await counted(database)

    migrate.upgrade(empty_database_url, "0031")
    play(empty_database_url, scenario)
