"""Keep the rollups fresh: move the horizon forward, and work off what was logged as pending. See docs/adr/0004.

Moving forward takes four steps, so that no event falls between a writer and the refresher:

1. publish the next horizon, and commit;
2. wait until every writer that was at work then has ended: whoever starts now reads the new horizon, and logs what it
   writes below it as pending;
3. roll up what lies between the old horizon and the new one;
4. set the horizon: from here on readers take rollup rows below it.

There are two: the horizon itself moves by quarters of an hour, and the end of the tail, by minutes and parts of them, moves
with every run up to seconds ago. Both are published at once. See docs/adr/0009.

It may be killed anywhere: the next run publishes again and does the same work. One refresher works at a time.
"""

import time
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Final

import msgspec

from metering.periods import Period
from metering.store.event_log import quarter_hour_of, writers_at_work
from metering.store.minutes import NO_STEP, Step, roll_up_minutes
from metering.store.pool import Connection, Database
from metering.store.queries import sql
from metering.store.rollup_tables import rollups_of
from metering.store.turns import alone, ended

# Held by whoever changes rollups or what they are made of: here, and where old data is dropped.
REFRESHER_LOCK: Final = 0x6D65_7472_7266_7368  # "metrrfsh"
# A quarter of an hour is rolled up this long after it ended: what comes later costs more.
_GRACE: Final = timedelta(minutes=2)
# The tail follows the clock at a distance in which most events are in. How long that is depends on who sends: where more than
# one in so many comes later, it grows; where far fewer do, it shrinks again. A late event costs several others (it is
# looked up by name), but until the tail has them, every question about everyone reads all events of the distance.
_TAIL_GRACE_MIN: Final = timedelta(seconds=5)
_ONE_LATE_IN: Final = 20
_FAR_FEWER: Final = 10
_GROW: Final = 1.25
_SHRINK: Final = 0.98
# More entries of the log than this take long. Whoever had so many has caught up when nearly none are left: the last of them
# may be of the day that has the most events.
_BEHIND_ROWS: Final = 5_000
_CAUGHT_UP_ROWS: Final = 500


class Refreshed(msgspec.Struct, frozen=True):
    """What one run did."""

    complete_at: datetime
    worked_off: int
    # There is more to work off at once.
    more: bool
    # How long it took to work off what is below the horizon.
    late_seconds: float


class Refresher:
    """Rolls up what has been recorded."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._rollups = rollups_of(database)
        self._tail_grace = _TAIL_GRACE_MIN
        self._behind = False

    async def run(self, now: datetime | None = None, *, late: bool = True) -> Refreshed | None:
        """Move both horizons up to `now` and work off some of what is pending. None where another refresher is at work.

        Without `late` what is pending below the horizon is left for another time.
        """
        async with alone(self._database, REFRESHER_LOCK) as connection:
            if connection is None:
                return None
            complete_at, step = await self._advance(connection, now or datetime.now(UTC))
            self._adapt(step)
            started = time.monotonic()
            worked_off = await self._work_off(connection) if late else 0
            late_seconds = time.monotonic() - started
            more = worked_off >= self._rollups.pending_rows_max
            worked_off += step.late + step.corrected
            return Refreshed(complete_at, worked_off, more=more, late_seconds=late_seconds)

    async def is_behind(self) -> bool:
        """Whether so much is pending that it will take long, on either engine: tens of seconds, or minutes.

        Once it is so, until nearly nothing is.
        """
        rows = _CAUGHT_UP_ROWS if self._behind else _BEHIND_ROWS
        async with self._database.connection() as connection:
            self._behind = bool(await connection.fetchval(sql("rollups.is_behind"), rows))
        return self._behind

    async def _advance(self, connection: Connection, now: datetime) -> tuple[datetime, Step]:
        """Move both horizons; say where the first is now, and what the tail took up."""
        row = await connection.fetchrow(sql("rollups.read_horizon_and_log"))
        assert row is not None, "the first migration puts one row there"
        complete_at, tail_at, has_logged = row
        until = max(complete_at, quarter_hour_of(now - _GRACE))
        tail_until = max(tail_at, until, (now - self._tail_grace).replace(microsecond=0))
        moves = (until, tail_until) != (complete_at, tail_at)
        if moves:
            await connection.execute(sql("rollups.publish_horizon"), until, tail_until)
            await self._await_writers(connection)
        over = Period(complete_at, until)
        if complete_at < until <= tail_at:
            # The tail has all of these quarters, and in fewer rows than events; what was late for it is added first.
            step = await roll_up_minutes(connection, tail_until)
            await self._rollups.roll_up(connection, over, of_tail=True)
            return until, step
        if complete_at < until:
            await self._rollups.roll_up(connection, over)
        return until, await roll_up_minutes(connection, tail_until) if moves or has_logged else NO_STEP

    def _adapt(self, step: Step) -> None:
        """Follow the clock at a longer distance where many events came too late for the tail; at a shorter one where few did."""
        if step.late * _ONE_LATE_IN > step.events:
            self._tail_grace = min(self._tail_grace * _GROW, _GRACE)
        elif step.late * _ONE_LATE_IN * _FAR_FEWER < step.events:
            self._tail_grace = max(self._tail_grace * _SHRINK, _TAIL_GRACE_MIN)

    async def _await_writers(self, connection: Connection) -> None:
        """Wait until every writer that is at work now has ended; later ones are no concern, and nobody waits for us."""
        await ended(partial(writers_at_work, connection))

    async def _work_off(self, connection: Connection) -> int:
        rows = await connection.fetch(sql("rollups.read_pending"), self._rollups.pending_rows_max)
        if rows:
            quarters = sorted({(row["account"], row["bucket"]) for row in rows})
            await self._rollups.roll_up_again(connection, quarters, [row["id"] for row in rows])
        return len(rows)
