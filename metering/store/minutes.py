"""The tail: figures by minute between the horizon and a few seconds ago, in plain tables on every engine.

What is below the horizon is taken out of it in the transaction in which the horizon moves.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

from metering.periods import Period
from metering.store import rollup_statements as statements
from metering.store.event_log import minute_of
from metering.store.pool import Connection
from metering.store.queries import sql
from metering.store.tables import MINUTE_BY_PRODUCT, WHOLE_MINUTES

_MINUTE: Final = timedelta(minutes=1)
# Seconds of events take milliseconds; after a pause it may be a quarter of an hour of them.
_STATEMENT_SECONDS_MAX: Final = 600

# A minute of an account.
AccountMinute = tuple[str, datetime]


async def roll_up_minutes(connection: Connection, period: Period) -> int:
    """Add the events of the period, which begins where the tail ends, to their minutes; say how many there were."""
    async with connection.transaction():
        if await connection.fetchval(statements.LOCK_TAIL) != period.start:
            return 0  # somebody else moved it: behind a transaction pooler, the refresher's lock fences nothing
        await connection.execute(statements.HASHED)
        events: int = await connection.fetchval(
            statements.ADD_TO_MINUTES, period.start, period.end, timeout=_STATEMENT_SECONDS_MAX
        )
        over = minute_of(period.start), minute_of(period.end)
        if over[0] < over[1]:
            for rollup in WHOLE_MINUTES:
                await _execute(connection, statements.roll_up(rollup), *over)
        await connection.execute(sql("rollups.complete_tail"), period.end)
    return events


async def roll_up_minutes_again(
    connection: Connection, minutes: Sequence[AccountMinute], log_ids: Sequence[int]
) -> None:
    """Roll up these minutes anew, as far as the tail goes, and forget the log entries that asked for it."""
    async with connection.transaction():
        tail_at = await connection.fetchval(statements.LOCK_TAIL)
        complete_at = await connection.fetchval("SELECT complete_at FROM rollup_horizon")
        await connection.execute(statements.HASHED)
        await connection.execute(statements.found(len(minutes)))
        # What the horizon has passed is pending below it, too, where it has to be.
        below = [each for each in minutes if each[1] >= complete_at]
        over = [each for each in below if each[1] < minute_of(tail_at)]
        for rollup in (MINUTE_BY_PRODUCT, *WHOLE_MINUTES):
            of_rollup = below if rollup is MINUTE_BY_PRODUCT else over
            if of_rollup:
                accounts, buckets = zip(*of_rollup, strict=True)
                start, end = min(buckets), min(tail_at, max(buckets) + _MINUTE)
                if rollup.has_account:
                    await _execute(connection, statements.drop_late(rollup), accounts, buckets, start, end)
                    await _execute(connection, statements.roll_up_late(rollup), accounts, buckets, start, end)
                else:
                    starts = sorted(set(buckets))
                    await _execute(connection, statements.drop_buckets(rollup), starts)
                    await _execute(connection, statements.roll_up_buckets(rollup), starts, start, end)
        await connection.execute(sql("rollups.delete_pending_minutes"), log_ids)


async def _execute(connection: Connection, statement: str, *arguments: object) -> None:
    await connection.execute(statement, *arguments, timeout=_STATEMENT_SECONDS_MAX)


async def move_horizon(connection: Connection, complete_at: datetime) -> None:
    """Every quarter of an hour below this instant is rolled up; in the caller's transaction. The tail begins there."""
    await connection.execute(sql("rollups.complete_horizon"), complete_at)
    await connection.execute(sql("rollups.forget_minutes"), complete_at)
