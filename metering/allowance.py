"""What keys with a rate may still send, exact over all processes and machines: a row for each in the database.

It is a token bucket: it fills by the second up to the burst, and a request takes out as many events as it has. Keys
without a rate have no row, and pay nothing. See docs/adr/0007.
"""

from datetime import datetime

from metering.errors import RateLimitedError
from metering.keys import Caller
from metering.standing import Standing
from metering.store.pool import Database
from metering.store.queries import sql


class Allowances:
    """The allowances of all keys."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def spend(self, key: Caller, events: int, at: datetime | None = None) -> Standing | None:
        """Take a request of so many events out of the key's allowance; None when the key has no rate.

        A request is taken when the allowance holds as many events as it has, or is full. `at` stands in the place of the
        database's clock. Raises RateLimitedError when the request may not be taken now; then nothing is taken out.
        """
        rate, burst = key.limits.events_per_second_max, key.limits.burst_events_max
        if rate is None or burst is None:
            return None
        async with self._database.connection() as connection:
            row = await connection.fetchrow(sql("allowances.spend"), key.sender, events, rate, burst, at)
        assert row is not None, "the statement makes the row that it returns"
        standing = Standing(
            events_per_second_max=rate,
            burst_events_max=burst,
            left_events=row["events"],
            asked_events=events,
            taken=row["taken"],
        )
        if not standing.taken:
            raise RateLimitedError(standing)
        return standing
