"""The tail: figures by minute between the horizon and a few seconds ago, in plain tables on every engine.

Every step brings it up to what its one snapshot sees: what lies between its old end and its new one, and the events that
came too late for an earlier step and were logged. After it, an event of the tail is in its rows or in the log, never in both.
What is below the horizon is taken out of it in the transaction in which the horizon moves. See docs/adr/0009 and 0014.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

import msgspec

from metering.periods import Period
from metering.store import rollup_statements as statements
from metering.store.event_log import minute_of
from metering.store.pool import Connection
from metering.store.queries import sql
from metering.store.tables import STEPPED_MINUTES, WHOLE_MINUTES

_MINUTE: Final = timedelta(minutes=1)
# Seconds of events take milliseconds; after a pause it may be a quarter of an hour of them.
_STATEMENT_SECONDS_MAX: Final = 600

# A minute of an account.
AccountMinute = tuple[str, datetime]


class Step(msgspec.Struct, frozen=True):
    """What a step of the tail took up: events in time, events that were late, and minutes of accounts that were corrected."""

    events: int
    late: int
    corrected: int


NO_STEP: Final = Step(0, 0, 0)


async def roll_up_minutes(connection: Connection, end: datetime) -> Step:
    """Bring the tail up to an instant, which may be where it ends already, in one transaction."""
    # One snapshot for all: whether an event is among those of the new stretch or in the log must not change in between.
    async with connection.transaction(isolation="repeatable_read"):
        horizon = await connection.fetchrow(statements.LOCK_TAIL)
        assert horizon is not None, "the first migration puts one row there"
        complete_at, tail_at = horizon
        if tail_at > end:
            return NO_STEP  # somebody else moved it: behind a transaction pooler, the refresher's lock fences nothing
        await connection.execute(statements.HASHED)
        late: int = await _fetchval(
            connection, statements.ADD_LATE_TO_MINUTES, complete_at, tail_at, minute_of(tail_at)
        )
        events: int = await _fetchval(connection, statements.ADD_TO_MINUTES, tail_at, end)
        over = Period(minute_of(tail_at), minute_of(end))
        if over.start < over.end:
            for rollup in WHOLE_MINUTES:
                await _execute(connection, statements.roll_up(rollup), over.start, over.end)
        corrected = [tuple(row) for row in await connection.fetch(sql("rollups.drop_pending_minutes"))]
        await _roll_up_again(connection, sorted({each for each in corrected if each[1] >= complete_at}), end)
        await connection.execute(sql("rollups.complete_tail"), end)
    return Step(events, late, len(corrected))


async def _roll_up_again(connection: Connection, minutes: Sequence[AccountMinute], tail_at: datetime) -> None:
    """Roll up these minutes anew, as far as the tail goes."""
    over = [each for each in minutes if each[1] < minute_of(tail_at)]
    await connection.execute(statements.found(len(minutes)))
    # Each after its source.
    for rollup in (*reversed(STEPPED_MINUTES), *WHOLE_MINUTES):
        of_rollup = minutes if rollup in STEPPED_MINUTES else over
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


async def _execute(connection: Connection, statement: str, *arguments: object) -> None:
    await connection.execute(statement, *arguments, timeout=_STATEMENT_SECONDS_MAX)


async def _fetchval(connection: Connection, statement: str, *arguments: object) -> int:
    value: int = await connection.fetchval(statement, *arguments, timeout=_STATEMENT_SECONDS_MAX)
    return value


async def move_horizon(connection: Connection, complete_at: datetime) -> None:
    """Every quarter of an hour below this instant is rolled up; in the caller's transaction. The tail begins there."""
    await connection.execute(sql("rollups.complete_horizon"), complete_at)
    await connection.execute(sql("rollups.forget_minutes"), complete_at)
