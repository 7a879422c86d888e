"""Keep the rollups fresh: move the horizon forward, and work off what was logged as pending. See docs/adr/0004.

Moving forward takes four steps, so that no event falls between a writer and the refresher:

1. publish the next horizon, and commit;
2. wait until every writer that was at work then has ended: whoever starts now reads the new horizon, and logs what it
   writes below it as pending;
3. roll up what lies between the old horizon and the new one;
4. set the horizon: from here on readers take rollup rows below it.

It may be killed anywhere: the next run publishes again and does the same work. One refresher works at a time.
"""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

import msgspec

from metering.periods import Period
from metering.store.event_log import WRITERS_LOCK
from metering.store.pool import Connection, Database
from metering.store.queries import sql
from metering.store.rollup_tables import rollups_of
from metering.store.turns import alone

# Held by whoever changes rollups or what they are made of: here, and where old data is dropped.
REFRESHER_LOCK: Final = 0x6D65_7472_7266_7368  # "metrrfsh"
_POLL_SECONDS: Final = 0.01
_PENDING_ROWS_MAX: Final = 20_000
# An hour is rolled up this long after it ended: events of its last seconds are mostly in by then, and cost nothing more.
_GRACE: Final = timedelta(minutes=2)


class Refreshed(msgspec.Struct, frozen=True):
    """What one run did."""

    complete_at: datetime
    worked_off: int
    # There is more to work off at once.
    more: bool


class Refresher:
    """Rolls up what has been recorded."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._rollups = rollups_of(database)

    async def run(self, now: datetime | None = None) -> Refreshed | None:
        """Move the horizon up to `now` and work off some of what is pending. None where another refresher is at work."""
        async with alone(self._database, REFRESHER_LOCK) as connection:
            if connection is None:
                return None
            complete_at = await self._advance(connection, _floor_hour((now or datetime.now(UTC)) - _GRACE))
            worked_off = await self._work_off(connection)
            return Refreshed(complete_at, worked_off, more=worked_off >= _PENDING_ROWS_MAX)

    async def _advance(self, connection: Connection, until: datetime) -> datetime:
        complete_at: datetime = await connection.fetchval("SELECT complete_at FROM rollup_horizon")
        if until <= complete_at:
            return complete_at
        await connection.execute(sql("rollups.publish_horizon"), until)
        await self._await_writers(connection)
        await self._rollups.roll_up(connection, Period(complete_at, until))
        return until

    async def _await_writers(self, connection: Connection) -> None:
        """Wait until every writer that is at work now has ended; later ones are no concern, and nobody waits for us."""
        waiting = set(await self._writers(connection))
        while waiting:
            await asyncio.sleep(_POLL_SECONDS)
            waiting &= set(await self._writers(connection))

    async def _writers(self, connection: Connection) -> Sequence[str]:
        rows = await connection.fetch(sql("rollups.writers_at_work"), WRITERS_LOCK)
        return [row["virtualtransaction"] for row in rows]

    async def _work_off(self, connection: Connection) -> int:
        rows = await connection.fetch(sql("rollups.read_pending"), _PENDING_ROWS_MAX)
        if rows:
            ids = [row["id"] for row in rows]
            hours = sorted({(row["account"], row["bucket"]) for row in rows})
            await self._rollups.roll_up_again(connection, hours, ids)
        return len(rows)


def _floor_hour(instant: datetime) -> datetime:
    return instant.replace(minute=0, second=0, microsecond=0)
