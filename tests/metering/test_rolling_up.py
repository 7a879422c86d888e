"""Nobody waits for whoever makes rollups: not while it waits itself, in the middle of them, with all that it has locked."""

import asyncio
from typing import Final

from metering.rollups.refresh import Refresher
from metering.store.pool import Database
from metering.store.rollup_tables import rollups_of
from metering.store.tables import DAY
from tests.conftest import lock_waiters
from tests.metering.catalog import play
from tests.metering.test_exactness import LAST_HOUR, LAST_WEEK, NOW, calls, counted, horizon, pending, record

# Longer than a commit takes by far, and not as long as the test may.
PATIENCE_SECONDS: Final = 20


def test_a_writer_commits_while_rollups_are_made(database_url: str) -> None:
    """A refresher that is held inside of `roll_up` holds up no writer, late or not; each answer meanwhile and later is exact."""

    async def scenario(database: Database) -> None:
        # TimescaleDB makes whoever writes into a chunk wait for whoever makes it: let both chunks be there.
        await record(database, calls(0, LAST_HOUR, LAST_WEEK))
        before, _ = await horizon(database)
        async with database.connection() as other:
            days = (await rollups_of(database).kept_in(other))[DAY.name]
            async with other.transaction():
                # Whoever rolls up has quarters of an hour in hand by then, and waits with the day that they make.
                await other.execute(f"LOCK TABLE {days} IN SHARE MODE")
                running = asyncio.create_task(Refresher(database).run(NOW))
                await lock_waiters(database_url, 1)
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
