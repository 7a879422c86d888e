"""How rollups are refreshed: the one place, besides the migrations, where the engines differ."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Final, Protocol

import asyncpg
import msgspec

from metering.periods import Period
from metering.store import rollup_statements as statements
from metering.store.engine import Engine
from metering.store.minutes import move_horizon
from metering.store.partitions import Partitions, attached_starts
from metering.store.pool import Connection, Database
from metering.store.queries import sql
from metering.store.tables import (
    DAY_SECONDS,
    MINUTE,
    PARTITIONED_EVENT,
    PARTITIONED_QUARTER_HOUR,
    QUARTER_HOUR,
    QUARTER_HOUR_SECONDS,
    ROLLUPS,
    Rollup,
)

_QUARTER_HOUR: Final = timedelta(minutes=15)
_DAY: Final = timedelta(days=1)
# A year that was loaded at once takes minutes; a connection that died silently must not take for ever.
_STATEMENT_SECONDS_MAX: Final = 3_600

_COMPLETE_AT: Final = "SELECT complete_at FROM rollup_horizon"
# What of a day's log is forgotten at once; the rest has its next turn.
_LOGGED_MAX: Final = 200_000
# More refreshes of a day than this cost more to begin than to widen to all of it.
_REFRESHES_MAX: Final = 20
_QUARTERS_MADE: Final = [rollup for rollup in ROLLUPS if rollup.width_seconds == QUARTER_HOUR_SECONDS]
_QUARTER_HOUR_OF_TAIL: Final = msgspec.structs.replace(QUARTER_HOUR, source=MINUTE.name)
_DAYS_MADE: Final = [rollup for rollup in ROLLUPS if rollup.width_seconds == DAY_SECONDS]

_AGGREGATES: Final = """
SELECT view_name AS name, format('%I.%I', materialization_hypertable_schema, materialization_hypertable_name) AS kept_in
FROM timescaledb_information.continuous_aggregates WHERE view_schema = current_schema()
"""

# A quarter of an hour, or a day, of an account.
AccountBucket = tuple[str, datetime]


class Rollups(Protocol):
    """What every engine can do, on the connection that holds the refresher's lock; exact wherever it is killed."""

    # How many log entries are worked off at once: between them the tail has its turn.
    pending_rows_max: int
    # Whether in any snapshot every rollup has what any other one has of the same events.
    agree: bool

    async def roll_up(self, connection: Connection, period: Period, *, of_tail: bool = False) -> None:
        """Roll up quarters of an hour that never were, the days that they complete, and move the horizon to their end.

        `of_tail`: every event of the period is in the tail's rows, or is logged as pending besides.
        """

    async def roll_up_again(
        self, connection: Connection, quarters: Sequence[AccountBucket], log_ids: Sequence[int]
    ) -> None:
        """Roll up these quarters, and the days they lie in, anew; then forget the log entries that asked for it.

        Where an engine rolls up more than these at once, it forgets what was logged for that too.
        """

    async def kept_in(self, connection: Connection) -> Mapping[str, str]:
        """The table that holds the rows of each rollup, by the rollup's name."""


def rollups_of(database: Database) -> Rollups:
    """The rollups of the database's engine."""
    return TimescaleRollups() if database.engine is Engine.TIMESCALEDB else PostgresRollups(database)


class PostgresRollups:
    """Plain tables: rolled up by INSERT ... SELECT, each step in one transaction with the horizon or the log."""

    pending_rows_max = 20_000
    agree = True

    def __init__(self, database: Database) -> None:
        self._database = database
        self._partitions = Partitions(database)

    async def roll_up(self, connection: Connection, period: Period, *, of_tail: bool = False) -> None:
        """See Rollups. Works day by day, so that a year that was loaded at once is no single transaction."""
        for step in await self._steps(connection, period):
            await self._partitions.ensure(PARTITIONED_QUARTER_HOUR, [step.start.date()])
            async with connection.transaction():
                if await connection.fetchval(statements.LOCK_HORIZON) > step.start:
                    return  # somebody else did it: behind a transaction pooler, the refresher's lock fences nothing
                await connection.execute(statements.HASHED)
                for each, part in _made_by(step, floor_day(step.end)):
                    rollup = _QUARTER_HOUR_OF_TAIL if of_tail and each is QUARTER_HOUR else each
                    await _execute(connection, statements.roll_up(rollup), part.start, part.end)
                await move_horizon(connection, step.end)
        async with connection.transaction():
            await move_horizon(connection, period.end)

    async def _steps(self, connection: Connection, period: Period) -> list[Period]:
        """The days, or parts of days, of the period for which there can be events."""
        steps = []
        for start in await attached_starts(connection, PARTITIONED_EVENT):
            for index in range(PARTITIONED_EVENT.width_days):
                day = _midnight(start + timedelta(days=index))
                step_start, step_end = max(day, period.start), min(day + _DAY, period.end)
                if step_start < step_end:
                    steps.append(Period(step_start, step_end))
        return steps

    async def roll_up_again(
        self, connection: Connection, quarters: Sequence[AccountBucket], log_ids: Sequence[int]
    ) -> None:
        """See Rollups."""
        try:
            await self._roll_up_again(connection, quarters, log_ids)
        except asyncpg.CheckViolationError:
            # "No partition found": one that we knew was dropped meanwhile.
            self._partitions.forget()
            raise

    async def _roll_up_again(
        self, connection: Connection, quarters: Sequence[AccountBucket], log_ids: Sequence[int]
    ) -> None:
        """Add what is new in these quarters to every rollup; rewrite only what did not merely grow.

        Late events cost about as much as they are many, and not as much as the days that they belong to.
        """
        late = _late(quarters, _QUARTER_HOUR)
        await self._partitions.ensure(PARTITIONED_QUARTER_HOUR, {bucket.date() for _, bucket in quarters})
        async with connection.transaction():
            days_end = floor_day(await connection.fetchval(statements.LOCK_HORIZON))
            await connection.execute(statements.HASHED)
            await connection.execute(statements.MAKE_CHANGES)
            await connection.execute(statements.found(len(quarters)))
            await _execute(connection, statements.FIND_CHANGES, *late)
            for rollup, part in _made_by(Period(late[2], late[3]), days_end):
                await _execute(connection, statements.merge_changes(rollup), part.start, part.end)
            shrunk = await connection.fetch(statements.FIND_SHRUNK)
            if shrunk:
                await _rewrite(connection, [(row["account"], row["bucket"]) for row in shrunk], days_end)
            await connection.execute(sql("rollups.delete_pending"), log_ids)

    async def kept_in(self, connection: Connection) -> Mapping[str, str]:  # noqa: ARG002 - the other engine needs it
        """See Rollups."""
        return {rollup.name: rollup.name for rollup in ROLLUPS}


async def _rewrite(connection: Connection, quarters: Sequence[AccountBucket], days_end: datetime) -> None:
    """Make these quarters, and the days they lie in, anew: those of the accounts, and those of everyone."""
    days = sorted({(account, floor_day(at)) for account, at in quarters if at < days_end})
    for rollup in ROLLUPS:
        buckets, width = (days, _DAY) if rollup.width_seconds == DAY_SECONDS else (quarters, _QUARTER_HOUR)
        if not buckets:
            continue
        if rollup.has_account:
            late = _late(buckets, width)
            await _execute(connection, statements.drop_late(rollup), *late)
            await _execute(connection, statements.roll_up_late(rollup), *late)
        else:
            starts = sorted({bucket for _, bucket in buckets})
            await _execute(connection, statements.drop_buckets(rollup), starts)
            await _execute(connection, statements.roll_up_buckets(rollup), starts, starts[0], starts[-1] + width)


class TimescaleRollups:
    """Continuous aggregates: refreshed by TimescaleDB, each refresh in transactions of its own.

    The horizon and the log therefore change only after the refresh: until then readers take raw events, and a refresh
    that was interrupted is simply done again. `force`: we know what is stale; TimescaleDB's own log may believe that an
    interrupted refresh was a finished one (its issue 8591).
    """

    pending_rows_max = 20_000
    agree = False

    async def roll_up(
        self,
        connection: Connection,
        period: Period,
        *,
        of_tail: bool = False,  # noqa: ARG002 - the other engine needs it
    ) -> None:
        """See Rollups. A continuous aggregate is made of the events, whatever else there is."""
        await self._refresh(connection, period)
        async with connection.transaction():
            await move_horizon(connection, period.end)

    async def roll_up_again(
        self,
        connection: Connection,
        quarters: Sequence[AccountBucket],
        log_ids: Sequence[int],  # noqa: ARG002 - the other engine needs it
    ) -> None:
        """See Rollups. Day by day, each with all that was logged for it until its turn came.

        A refresh costs as much as there are events in it, of whichever account, and however many of them were late.
        """
        for day in sorted({floor_day(at) for _, at in quarters}):
            await self._refresh_day(connection, day)

    async def _refresh_day(self, connection: Connection, day: datetime) -> None:
        """Refresh what was late on a day, and forget it. What touches is one refresh; what is scattered, the whole day."""
        end = min(day + _DAY, await connection.fetchval(_COMPLETE_AT))
        logged = await connection.fetch(sql("rollups.read_pending_between"), day, end, _LOGGED_MAX)
        periods = _joined([row["bucket"] for row in logged], _QUARTER_HOUR)
        for period in periods if len(periods) <= _REFRESHES_MAX else [Period(day, end)]:
            for rollup in _QUARTERS_MADE:
                await _execute(connection, statements.refresh(rollup), period.start, period.end)
        if await connection.fetchval(_COMPLETE_AT) >= day + _DAY:
            for rollup in _DAYS_MADE:
                await _execute(connection, statements.refresh(rollup), day, day + _DAY)
        await _execute(connection, sql("rollups.delete_pending"), [row["id"] for row in logged])

    async def kept_in(self, connection: Connection) -> Mapping[str, str]:
        """See Rollups. Of a continuous aggregate it is a hypertable of TimescaleDB's own."""
        return {row["name"]: row["kept_in"] for row in await connection.fetch(_AGGREGATES)}

    async def _refresh(self, connection: Connection, period: Period) -> None:
        for rollup, part in _made_by(period, floor_day(period.end)):
            await _execute(connection, statements.refresh(rollup), part.start, part.end)


def _made_by(period: Period, days_end: datetime) -> list[tuple[Rollup, Period]]:
    """What quarters of an hour of this period are part of, in the order of making: they, and days that are over."""
    last_day = floor_day(period.end - timedelta.resolution)
    days = Period(floor_day(period.start), min(last_day + _DAY, days_end))
    parts = [(rollup, days if rollup.width_seconds == DAY_SECONDS else period) for rollup in ROLLUPS]
    return [(rollup, part) for rollup, part in parts if part.start < part.end]


async def _execute(connection: Connection, statement: str, *arguments: object) -> None:
    await connection.execute(statement, *arguments, timeout=_STATEMENT_SECONDS_MAX)


def _late(
    buckets: Sequence[AccountBucket], width: timedelta
) -> tuple[Sequence[str], Sequence[datetime], datetime, datetime]:
    """Accounts, their buckets, and the bounds of all of these: what statements about late buckets are given."""
    accounts, starts = zip(*buckets, strict=True)
    return accounts, starts, min(starts), max(starts) + width


def floor_day(instant: datetime) -> datetime:
    """The beginning of the instant's UTC day."""
    return instant.replace(hour=0, minute=0, second=0, microsecond=0)


def _midnight(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=UTC)


def _joined(starts: Iterable[datetime], width: timedelta) -> list[Period]:
    """Buckets as periods, those that touch as one."""
    periods: list[Period] = []
    for start in sorted(set(starts)):
        if periods and periods[-1].end == start:
            periods[-1] = Period(periods[-1].start, start + width)
        else:
            periods.append(Period(start, start + width))
    return periods
