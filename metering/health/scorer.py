"""The scorer: everybody once a day, when the day is over and rolled up; and at once whomever something new is known of.

One works at a time. It may be killed anywhere: what was marked is taken off the list in the transaction that keeps the scores
of the last day, and a day goes on behind the last account that was kept. Accounts are scored by pages, the next one while one
is kept; pages of one day have nothing to do with each other, and a day of marked accounts begins when the one before is kept.
"""

import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from datetime import UTC, date, datetime, timedelta
from functools import partial
from typing import Any, Final

import msgspec

from metering.health.ahead import work_ahead
from metering.health.alarming import Alarming, find_alarms
from metering.health.early_warnings import warn, watch
from metering.health.known import list_customers, midnight_after
from metering.health.measuring import find_norms
from metering.health.norms import CHANGED_SHARE_MAX
from metering.health.priors import Freezer
from metering.health.scoring import DayScores, Measure, keep, score_accounts
from metering.health.thresholds import FIRST, PutThresholds, read_thresholds
from metering.limits import Limits
from metering.reach import EVERYTHING
from metering.store.event_log import writers_at_work
from metering.store.pool import Connection, Database
from metering.store.queries import sql
from metering.store.snapshot import Snapshot
from metering.store.turns import alone, ended
from metering.telemetry import logger

SCORER_LOCK: Final = 0x6D65_7472_7363_6F72  # "metrscor"
_DAY: Final = timedelta(days=1)


class Done(msgspec.Struct, frozen=True):
    """What one run did: how many accounts were looked at, and how many scores are others than they were."""

    accounts: int
    scores: int
    # There is more to do at once.
    more: bool
    # How long it took to score anew whomever something new is known of.
    anew_seconds: float = 0.0


_NOTHING: Final = Done(0, 0, more=False)


class _Page(msgspec.Struct, frozen=True):
    """What came of some accounts on a day."""

    accounts: Sequence[str]
    scores: DayScores
    # None: the day is not over.
    alarming: Alarming | None = None
    thresholds: PutThresholds = FIRST

    async def keep(self, connection: Connection) -> int:
        """Keep it, and tell what is news, in one transaction; say how many scores are others than they were known to be."""
        scores = await keep(connection, self.scores)
        if self.alarming is not None:
            await warn(connection, self.alarming, self.thresholds)
        return scores


class Scorer:
    """Scores customers, by what `measure` says of them."""

    def __init__(self, database: Database, measure: Measure, limits: Limits) -> None:
        self._database = database
        self._measure = measure
        self._limits = limits
        self._freezer = Freezer(database, limits)

    async def run(self, now: datetime, *, anew: bool = True) -> Done | None:
        """Do some pages of what is to be done. None where another one is at work.

        Without `anew`, whomever something new is known of is left for another time.
        """
        async with alone(self._database, SCORER_LOCK) as connection:
            if connection is None:
                return None
            await self._forget_outdated_norms(connection, now.astimezone(UTC).date())
            started = time.monotonic()
            dirty = await connection.fetch(sql("health.find_dirty"), self._run_accounts) if anew else ()
            # Both in each run: neither keeps the other waiting for long.
            again = await self._work_off(connection, dirty, now.astimezone(UTC).date()) if dirty else _NOTHING
            anew_seconds = time.monotonic() - started
            daily = await self._daily(connection, now)
            accounts, scores = again.accounts + daily.accounts, again.scores + daily.scores
            return Done(accounts, scores, more=again.more or daily.more, anew_seconds=anew_seconds)

    async def _forget_outdated_norms(self, connection: Connection, today: date) -> None:
        """Whoever was measured against norms that a load has changed since is scored anew, against others."""
        first = today - self._limits.health_restated_days_max * _DAY
        days = await connection.fetch(sql("norms.forget_outdated"), first, CHANGED_SHARE_MAX)
        if days:
            logger().info("norms_outdated", days=[f"{row['as_of']}" for row in days])

    async def _work_off(self, connection: Connection, dirty: Sequence[Any], today: date) -> Done:
        """Score accounts anew on every day that what is new is of, as far back as days are scored again."""
        since = {row["account"]: row["since"] for row in dirty}
        marks = {row["account"]: row["ids"] for row in dirty}
        await self._freezer.run(today)
        first = max(min(since.values()), today - self._limits.health_restated_days_max * _DAY)
        rows = await connection.fetch(sql("health.list_scored_days"), first, today)
        scores = 0
        # A day's scores are held against those of the day before: one day after the other.
        for day in [*(row["as_of"] for row in rows), today]:
            accounts = sorted(account for account, start in since.items() if start <= day)
            async with aclosing(self._pages(accounts, day, is_over=day < today)) as pages:
                async for page in pages:
                    async with connection.transaction():
                        scores += await page.keep(connection)
                        if day == today:
                            done = [mark for account in page.accounts for mark in marks.pop(account)]
                            await connection.execute(sql("health.delete_dirty"), done)
        # What is dated after today: the day itself will have it.
        later = [mark for of_account in marks.values() for mark in of_account]
        await connection.execute(sql("health.delete_dirty"), later)
        return Done(len(since), scores, more=True)

    async def _daily(self, connection: Connection, now: datetime) -> Done:
        """Some pages of everybody, on the first day that is over and not done yet."""
        days = await connection.fetchrow(sql("health.read_days"))
        assert days is not None, "it is a row of whatever there is"
        day = days["under_way"] or await self._next_day(connection, days["completed"], now)
        if day is None:
            return _NOTHING
        await self._freezer.run(day)
        async with self._snapshot() as snapshot:
            accounts = await list_customers(snapshot, days["through"], self._run_accounts, day)
        if not accounts:
            await connection.execute(sql("health.complete_day"), day)
            return Done(0, 0, more=True)
        scores = 0
        async with aclosing(self._pages(accounts, day, is_over=True)) as pages:
            async for page in pages:
                async with connection.transaction():
                    scores += await page.keep(connection)
                    if page.alarming is not None:
                        await watch(connection, page.alarming)
                    await connection.execute(sql("health.move_day"), day, page.accounts[-1])
        return Done(len(accounts), scores, more=True)

    async def _next_day(self, connection: Connection, completed: date | None, now: datetime) -> date | None:
        """The next day, begun, if it is over, and rolled up to its end."""
        yesterday = now.astimezone(UTC).date() - _DAY
        earliest = yesterday - self._limits.health_restated_days_max * _DAY
        day = yesterday if completed is None else max(completed + _DAY, earliest)
        async with self._snapshot() as snapshot:
            complete_at = (await snapshot.horizon()).complete_at
        if day > yesterday or complete_at < midnight_after(day):
            return None
        await connection.execute(sql("health.begin_day"), day)
        if completed is None:
            # Before the first day late events mark nobody; whoever writes now may not have seen that it has begun.
            await ended(partial(writers_at_work, connection))
        return day

    @property
    def _run_accounts(self) -> int:
        """How many accounts are scored before others have their turn."""
        return self._limits.health_page_accounts * self._limits.health_run_pages

    def _pages(self, accounts: Sequence[str], day: date, *, is_over: bool) -> AsyncGenerator[_Page, None]:
        """What comes of accounts, page by page and in order. Other pages are looked at while one is kept, so not on the
        connection that keeps it. A mark that is made meanwhile stays: whoever it is of is scored once more.
        """
        size = self._limits.health_page_accounts
        pages = [accounts[start : start + size] for start in range(0, len(accounts), size)]
        work = [partial(self._scored, page, day, is_over=is_over) for page in pages]
        return work_ahead(work, self._limits.health_pages_at_once)

    async def _scored(self, accounts: Sequence[str], day: date, *, is_over: bool) -> _Page:
        """The scores of a page; and what is alarming, once the day is over: until then it may come otherwise."""
        async with self._snapshot() as snapshot:
            scores = await score_accounts(snapshot, self._measure, accounts, day)
            if not is_over:
                return _Page(accounts, scores)
            thresholds = await read_thresholds(snapshot)
            # Kept while the page was measured, so not in its snapshot.
            async with self._database.connection() as connection:
                norms = await find_norms(connection, day + _DAY)
            alarming = await find_alarms(snapshot, scores, accounts, norms, thresholds.thresholds)
            return _Page(accounts, scores, alarming, thresholds)

    def _snapshot(self) -> Snapshot:
        return Snapshot(self._database, EVERYTHING)
