"""How rollups are refreshed: the one place, besides the migrations, where the engines differ."""

from collections.abc import Iterable, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Final, Protocol

import asyncpg

from metering.periods import Period
from metering.store.engine import Engine
from metering.store.partitions import Partitions, attached_starts
from metering.store.pool import Connection, Database
from metering.store.queries import sql
from metering.store.tables import DAILY_ROLLUPS, PARTITIONED_EVENT, PARTITIONED_USAGE_HOUR, USAGE_HOUR, Rollup

_HOUR: Final = timedelta(hours=1)
_DAY: Final = timedelta(days=1)
# A year that was loaded at once takes minutes; a connection that died silently must not take for ever.
_STATEMENT_SECONDS_MAX: Final = 3_600

# An hour of an account.
AccountHour = tuple[str, datetime]


class Rollups(Protocol):
    """What every engine can do, on the connection that holds the refresher's lock; exact wherever it is killed."""

    async def roll_up(self, connection: Connection, period: Period) -> None:
        """Roll up whole hours that never were, the days that they complete, and move the horizon to the period's end."""

    async def roll_up_again(self, connection: Connection, hours: Sequence[AccountHour], log_ids: Sequence[int]) -> None:
        """Roll up these hours, and the days they lie in, anew; then forget the log entries that asked for it."""


def rollups_of(database: Database) -> Rollups:
    """The rollups of the database's engine."""
    return TimescaleRollups() if database.engine is Engine.TIMESCALEDB else PostgresRollups(database)


class PostgresRollups:
    """Plain tables: rolled up by INSERT ... SELECT, each step in one transaction with the horizon or the log."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._partitions = Partitions(database)

    async def roll_up(self, connection: Connection, period: Period) -> None:
        """See Rollups. Works day by day, so that a year that was loaded at once is no single transaction."""
        for step in await self._steps(connection, period):
            await self._partitions.ensure(PARTITIONED_USAGE_HOUR, [step.start.date()])
            async with connection.transaction():
                if await connection.fetchval(_LOCK_HORIZON) > step.start:
                    return  # somebody else did it: behind a transaction pooler, the refresher's lock fences nothing
                await connection.execute(_HASHED)
                await connection.execute(_ROLL_UP_HOURS, step.start, step.end, timeout=_STATEMENT_SECONDS_MAX)
                days = Period(floor_day(step.start), floor_day(step.end))
                if days.start < days.end:
                    for rollup in DAILY_ROLLUPS:
                        statement = _roll_up_days(rollup)
                        await connection.execute(statement, days.start, days.end, timeout=_STATEMENT_SECONDS_MAX)
                await connection.execute(sql("rollups.complete_horizon"), step.end)
        await connection.execute(sql("rollups.complete_horizon"), period.end)

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

    async def roll_up_again(self, connection: Connection, hours: Sequence[AccountHour], log_ids: Sequence[int]) -> None:
        """See Rollups."""
        try:
            await self._roll_up_again(connection, hours, log_ids)
        except asyncpg.CheckViolationError:
            # "No partition found": one that we knew was dropped meanwhile.
            self._partitions.forget()
            raise

    async def _roll_up_again(
        self, connection: Connection, hours: Sequence[AccountHour], log_ids: Sequence[int]
    ) -> None:
        accounts, buckets = zip(*hours, strict=True)
        late = (accounts, buckets, min(buckets), max(buckets) + _HOUR)
        await self._partitions.ensure(PARTITIONED_USAGE_HOUR, {bucket.date() for bucket in buckets})
        async with connection.transaction():
            complete_at = await connection.fetchval(_LOCK_HORIZON)
            await connection.execute(_HASHED)
            await connection.execute(_DROP_HOURS, *late, timeout=_STATEMENT_SECONDS_MAX)
            await connection.execute(_ROLL_UP_HOURS_AGAIN, *late, timeout=_STATEMENT_SECONDS_MAX)
            days = sorted(
                {(account, floor_day(hour)) for account, hour in hours if floor_day(hour) < floor_day(complete_at)}
            )
            if days:
                await self._roll_up_days_again(connection, days)
            await connection.execute(sql("rollups.delete_pending"), log_ids)

    async def _roll_up_days_again(self, connection: Connection, days: Sequence[AccountHour]) -> None:
        accounts, starts = zip(*days, strict=True)
        late = (accounts, starts, min(starts), max(starts) + _DAY)
        for rollup in DAILY_ROLLUPS:
            await connection.execute(_drop_days(rollup), *late, timeout=_STATEMENT_SECONDS_MAX)
            await connection.execute(_roll_up_days_again(rollup), *late, timeout=_STATEMENT_SECONDS_MAX)


class TimescaleRollups:
    """Continuous aggregates: refreshed by TimescaleDB, each refresh in transactions of its own.

    The horizon and the log therefore change only after the refresh: until then readers take raw events, and a refresh
    that was interrupted is simply done again. `force`: we know what is stale; TimescaleDB's own log may believe that an
    interrupted refresh was a finished one (its issue 8591).
    """

    async def roll_up(self, connection: Connection, period: Period) -> None:
        """See Rollups."""
        await self._refresh(connection, period)
        await connection.execute(sql("rollups.complete_horizon"), period.end)

    async def roll_up_again(self, connection: Connection, hours: Sequence[AccountHour], log_ids: Sequence[int]) -> None:
        """See Rollups. By whole days, joined where they touch: a refresh costs more to begin than to widen."""
        complete_at: datetime = await connection.fetchval("SELECT complete_at FROM rollup_horizon")
        for period in _joined({floor_day(hour) for _, hour in hours}):
            await self._refresh(connection, Period(period.start, min(period.end, complete_at)))
        await connection.execute(sql("rollups.delete_pending"), log_ids)

    async def _refresh(self, connection: Connection, period: Period) -> None:
        days = Period(floor_day(period.start), floor_day(period.end))
        await connection.execute(_refresh(USAGE_HOUR), period.start, period.end, timeout=_STATEMENT_SECONDS_MAX)
        if days.start < days.end:
            for rollup in DAILY_ROLLUPS:
                await connection.execute(_refresh(rollup), days.start, days.end, timeout=_STATEMENT_SECONDS_MAX)


def floor_day(instant: datetime) -> datetime:
    """The beginning of the instant's UTC day."""
    return instant.replace(hour=0, minute=0, second=0, microsecond=0)


def _midnight(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=UTC)


def _joined(days: Iterable[datetime]) -> list[Period]:
    periods: list[Period] = []
    for day in sorted(days):
        if periods and periods[-1].end == day:
            periods[-1] = Period(periods[-1].start, day + _DAY)
        else:
            periods.append(Period(day, day + _DAY))
    return periods


# ---------------------------------------------------------------- statements, made from the table of rollups


def _columns(rollup: Rollup, prefix: str = "") -> str:
    return ", ".join(f'{prefix}"{name}"' for name in rollup.dimensions)


# Held until the step commits: two refreshers never roll up the same hours side by side.
_LOCK_HORIZON: Final = "SELECT complete_at FROM rollup_horizon FOR UPDATE"

# PostgreSQL expects about as many groups as events and would sort them; there are far fewer, and hashing takes a quarter
# of the time. What does not fit into memory is hashed in parts.
_HASHED: Final = "SET LOCAL enable_sort = off; SET LOCAL work_mem = '128MB'"

_TARGET: Final = "bucket, {columns}, quantity, events, minimum, maximum"

_ROLL_UP_HOURS: Final = f"""
INSERT INTO usage_hour ({_TARGET.format(columns=_columns(USAGE_HOUR))})
SELECT date_bin('1 hour', occurred_at, 'epoch'), {_columns(USAGE_HOUR)}, sum(quantity), count(*), min(quantity), max(quantity)
FROM event
WHERE occurred_at >= $1 AND occurred_at < $2 AND NOT voided
GROUP BY 1, {_columns(USAGE_HOUR)}
"""

_DROP_HOURS: Final = """
DELETE FROM usage_hour AS stale
USING unnest($1::text[], $2::timestamptz[]) AS late (account, bucket)
WHERE stale.account = late.account AND stale.bucket = late.bucket AND stale.bucket >= $3 AND stale.bucket < $4
"""

# The range of late.bucket is what an index can find, its equality what can be hashed: which is better depends on how many
# are late, and both have to be said for PostgreSQL to choose. The outer bounds choose the partitions.
_ROLL_UP_HOURS_AGAIN: Final = f"""
INSERT INTO usage_hour ({_TARGET.format(columns=_columns(USAGE_HOUR))})
SELECT late.bucket, {_columns(USAGE_HOUR, "event.")}, sum(quantity), count(*), min(quantity), max(quantity)
FROM unnest($1::text[], $2::timestamptz[]) AS late (account, bucket)
JOIN event ON event.account = late.account AND date_bin('1 hour', event.occurred_at, 'epoch') = late.bucket
          AND event.occurred_at >= late.bucket AND event.occurred_at < late.bucket + interval '1 hour'
WHERE event.occurred_at >= $3 AND event.occurred_at < $4 AND NOT event.voided
GROUP BY late.bucket, {_columns(USAGE_HOUR, "event.")}
"""


def _roll_up_days(rollup: Rollup) -> str:
    return f"""
    INSERT INTO {rollup.name} ({_TARGET.format(columns=_columns(rollup))})
    SELECT date_bin('1 day', bucket, 'epoch'), {_columns(rollup)}, sum(quantity), sum(events), min(minimum), max(maximum)
    FROM usage_hour
    WHERE bucket >= $1 AND bucket < $2
    GROUP BY 1, {_columns(rollup)}
    """


def _drop_days(rollup: Rollup) -> str:
    return f"""
    DELETE FROM {rollup.name} AS stale
    USING unnest($1::text[], $2::timestamptz[]) AS late (account, day)
    WHERE stale.account = late.account AND stale.bucket = late.day AND stale.bucket >= $3 AND stale.bucket < $4
    """


def _roll_up_days_again(rollup: Rollup) -> str:
    return f"""
    INSERT INTO {rollup.name} ({_TARGET.format(columns=_columns(rollup))})
    SELECT late.day, {_columns(rollup, "hour.")}, sum(quantity), sum(events), min(minimum), max(maximum)
    FROM unnest($1::text[], $2::timestamptz[]) AS late (account, day)
    JOIN usage_hour AS hour ON hour.account = late.account AND date_bin('1 day', hour.bucket, 'epoch') = late.day
                           AND hour.bucket >= late.day AND hour.bucket < late.day + interval '1 day'
    WHERE hour.bucket >= $3 AND hour.bucket < $4
    GROUP BY late.day, {_columns(rollup, "hour.")}
    """


def _refresh(rollup: Rollup) -> str:
    return f"CALL refresh_continuous_aggregate('{rollup.name}', $1::timestamptz, $2::timestamptz, force => true)"
