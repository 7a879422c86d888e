"""The life of stored data: what is too old is given up, first in words and then in deeds. See docs/adr/0010.

Events are given up in four steps, so that nobody counts less than there was and nothing acknowledged is lost:

1. say from when on events are taken, and commit: who writes from now on refuses older ones;
2. wait until every writer that was at work then has ended, and until the rollups have all that was written;
3. say from when on events are there, and commit: who reads from now on looks below at rollups only, and at the levels that
   were left behind (day by day, for each gauge);
4. wait until every reader that was at work then has ended, and drop.

Rollups are given up in the last two. It may be killed anywhere: the next run goes on where it was. It works while no rollup
is refreshed, and no rollup is refreshed below what is there: that would erase it.
"""

import time
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Final

import msgspec

from metering.config import Settings
from metering.rollups.refresh import REFRESHER_LOCK
from metering.store.event_log import writers_at_work
from metering.store.partitions import days_kept
from metering.store.pool import Connection, Database
from metering.store.queries import sql
from metering.store.rollup_tables import floor_day
from metering.store.stored import stored_of
from metering.store.tables import PARTITIONED_EVENT
from metering.store.turns import alone, ended

# No writer and no reader of ours takes longer; while one does, rollups are not refreshed, so it is not waited for ever.
_OTHERS_SECONDS_MAX: Final = 60
# Nor is it while years are given up at once; a single day of everyone's events may take longer.
_LEVELS_SECONDS_MAX: Final = 30
_LEVELS_STATEMENT_SECONDS_MAX: Final = 3_600


class Ages(msgspec.Struct, frozen=True, kw_only=True):
    """How old what is stored may become; None means that it is kept for ever. Rollups are kept at least as long as events."""

    events: timedelta | None
    rollups: timedelta | None
    # Events older than this are put into the columnstore, where there is one.
    rows: timedelta


def ages_of(settings: Settings) -> Ages:
    """What the settings say."""
    return Ages(
        events=_days(settings.retention_days),
        rollups=_days(settings.rollup_retention_days),
        rows=timedelta(days=settings.columnstore_after_days),
    )


def _days(days: int | None) -> timedelta | None:
    return None if days is None else timedelta(days=days)


class Kept(msgspec.Struct, frozen=True):
    """What is retained, and up to where what is not is dropped."""

    taken_from: datetime
    raw_from: datetime
    rollups_from: datetime
    raw_dropped_to: datetime
    rollups_dropped_to: datetime
    # Below it every hour is rolled up.
    complete_at: datetime
    # The server's clock.
    now: datetime

    @property
    def bounds(self) -> dict[str, datetime]:
        """What is retained, without what passes by itself."""
        names = ("taken_from", "raw_from", "rollups_from", "raw_dropped_to", "rollups_dropped_to")
        return {name: getattr(self, name) for name in names}

    @property
    def is_dropped(self) -> bool:
        """Whether all is dropped that is not retained."""
        return self.raw_from == self.raw_dropped_to and self.rollups_from == self.rollups_dropped_to


class Retention:
    """Gives up what is too old, and makes room for what will come."""

    def __init__(self, database: Database, ages: Ages) -> None:
        self._database = database
        self._ages = ages
        self._stored = stored_of(database)

    async def make_ahead(self, now: datetime) -> None:
        """Have room ready for the coming weeks."""
        await self._stored.make_ahead(now)

    async def convert(self, now: datetime) -> int | None:
        """Put old events into the columnstore, where there is one; say how many chunks. None where somebody else does so."""
        return await self._stored.convert(floor_day(now - self._ages.rows))

    async def run(self, now: datetime) -> Kept | None:
        """Give up and drop what is too old, as far as nobody is in the way. None where somebody else does so, or refreshes.

        `now` is ours; the server's clock must have reached it too: what is dropped does not come back.
        """
        async with alone(self._database, REFRESHER_LOCK) as connection:
            if connection is None:
                return None
            kept = await read_kept(connection)
            await self._give_up(connection, kept, min(now, kept.now))
            kept = await read_kept(connection)
            if not kept.is_dropped:
                await self._drop(connection, kept)
            return await read_kept(connection)

    async def _give_up(self, connection: Connection, kept: Kept, now: datetime) -> None:
        if self._ages.events is not None:
            # Only what is rolled up is given up.
            until = min(floor_day(now - self._ages.events), floor_day(kept.complete_at))
            await connection.execute(sql("retention.take_none_below"), until)
        await self._finish_events(connection)
        if self._ages.rollups is not None:
            raw_from = (await read_kept(connection)).raw_from
            until = min(floor_day(now - self._ages.rollups), raw_from)
            await connection.execute(sql("retention.keep_rollups_from"), until)

    async def _finish_events(self, connection: Connection) -> None:
        """Give the events up in readers' sight too, once no writer writes any and the rollups have them all."""
        kept = await read_kept(connection)
        if kept.taken_from == kept.raw_from:
            return
        if not await ended(partial(writers_at_work, connection), _OTHERS_SECONDS_MAX):
            return
        if not await connection.fetchval(sql("retention.has_pending_below"), kept.taken_from):
            await self._carry_levels(connection, kept)

    async def _carry_levels(self, connection: Connection, kept: Kept) -> None:
        """Give events up day by day, each together with keeping what it leaves behind; the next run goes on from there."""
        stops_at = time.monotonic() + _LEVELS_SECONDS_MAX
        for day in await days_kept(connection, self._database.engine, PARTITIONED_EVENT):
            start = datetime.combine(day, datetime.min.time(), UTC)
            if not kept.raw_from <= start < kept.taken_from:
                continue
            if time.monotonic() > stops_at:
                return
            await _carry_day(connection, start)
        await connection.execute(sql("retention.keep_raw_from"), kept.taken_from)

    async def _drop(self, connection: Connection, kept: Kept) -> None:
        async def readers() -> list[tuple[int, datetime]]:
            rows = await connection.fetch(sql("retention.readers_at_work"))
            return [(row["pid"], row["xact_start"]) for row in rows]

        if not await ended(readers, _OTHERS_SECONDS_MAX):
            return
        if kept.raw_dropped_to < kept.raw_from and await self._stored.drop_raw(connection, kept.raw_from):
            await connection.execute(sql("retention.drop_corrections"), kept.raw_from)
            await connection.execute(sql("retention.raw_dropped"), kept.raw_from)
        if kept.rollups_dropped_to < kept.rollups_from and await self._stored.drop_rollups(
            connection, kept.rollups_from
        ):
            await connection.execute(sql("retention.rollups_dropped"), kept.rollups_from)


async def _carry_day(connection: Connection, start: datetime) -> None:
    end = start + timedelta(days=1)
    async with connection.transaction():
        await connection.execute(sql("retention.carry_levels"), start, end, timeout=_LEVELS_STATEMENT_SECONDS_MAX)
        await connection.execute(sql("retention.carry_no_zeros"), start)
        await connection.execute(sql("retention.keep_raw_from"), end)


async def read_kept(connection: Connection) -> Kept:
    """What is retained now."""
    row = await connection.fetchrow(sql("retention.read_range"))
    assert row is not None, "the migrations put one row into each of the two tables"
    return Kept(**row)
