"""Pages of accounts are scored ahead: the next one while one is kept, and each kept as if it had been alone."""

import asyncio
from collections.abc import Sequence
from datetime import date
from typing import Final

import msgspec
import pytest

from health.measurements import Measurement
from metering.health.ahead import work_ahead
from metering.health.scorer import Scorer
from metering.limits import LIMITS
from metering.rollups.refresh import Refresher
from metering.store.pool import Database
from metering.store.snapshot import Snapshot
from metering.subjects import SubjectRef
from tests.metering.catalog import play, rows
from tests.metering.scored import measure, publish_card, run_in_turn, say, score_day
from tests.metering.test_scoring import forget_marks, put_accounts
from tests.rating.tables import at

FIRST, SECOND = date(2026, 3, 1), date(2026, 3, 2)
ACCOUNTS: Final = ("acme", "beta", "delta", "gamma")
BY_ONE: Final = msgspec.structs.replace(LIMITS, health_page_accounts=1, health_run_pages=4, health_pages_at_once=2)
SECONDS_MAX: Final = 20


class Meeting:
    """Measures as others do, and notes who was asked for as of which day, and through whom the day was kept as that began.

    The first page waits for the second one; a page may fail once.
    """

    def __init__(self, fails_for: str | None = None) -> None:
        self.begun: list[tuple[date, str, str | None]] = []
        self._fails_for = fails_for
        self._second = asyncio.Event()

    async def measure(
        self, snapshot: Snapshot, refs: Sequence[SubjectRef], as_of: date
    ) -> dict[SubjectRef, dict[str, Measurement]]:
        """What was said of subjects before a day."""
        ((through,),) = await snapshot.fetch("SELECT max(through) FROM health_day WHERE completed_at IS NULL")
        (account,) = {ref.account for ref in refs}
        self.begun.append((as_of, account, through))
        if len(self.begun) == 1:
            await asyncio.wait_for(self._second.wait(), SECONDS_MAX)
        self._second.set()
        if account == self._fails_for:
            self._fails_for = None
            raise ArithmeticError("a metric failed")
        return await measure(snapshot, refs, as_of)


async def begin(database: Database) -> None:
    """Accounts of whom something was said on a first day."""
    await publish_card(database)
    await put_accounts(database, *ACCOUNTS)
    for number, key in enumerate(ACCOUNTS, start=1):
        await say(database, FIRST, key, pulse=number, nps=0)
    await forget_marks(database)


def test_the_next_page_is_measured_while_one_is_kept(database_url: str) -> None:
    """Two pages are under way, and the third begins when the first is kept; what comes before one that fails is kept, in order,
    and the next run goes on behind it.
    """

    async def scenario(database: Database) -> None:
        await begin(database)
        now = at("2026-03-02T00:20:00Z")
        await Refresher(database).run(now)
        meeting = Meeting(fails_for="delta")
        with pytest.raises(ArithmeticError):
            await Scorer(database, meeting.measure, BY_ONE).run(now)
        assert [("beta",)] == await rows(database, "SELECT through FROM health_day")
        assert ["acme", "beta"] == [
            key for (key,) in await rows(database, "SELECT account FROM health ORDER BY computed_at")
        ]
        done = await run_in_turn(Scorer(database, meeting.measure, BY_ONE), now)
        assert (2, 2, True) == (done.accounts, done.scores, done.more)
        known = {(account, through) for _, account, through in meeting.begun[:3]}
        assert {("acme", None), ("beta", None)} < known
        assert {("delta", "acme"), ("delta", "beta")} & known
        assert [("gamma",)] == await rows(database, "SELECT through FROM health_day")

    play(database_url, scenario)


def test_days_of_marked_accounts_follow_each_other(database_url: str) -> None:
    """Whoever is marked is scored on every day from then on, all of them on one day before anybody on the next one; marks stay
    until the last day is kept, and are then gone, but for those that were made meanwhile.
    """

    async def scenario(database: Database) -> None:
        await begin(database)
        for day in (FIRST, SECOND):
            await score_day(database, day)
        for key in ACCOUNTS:
            await say(database, FIRST, key, pulse=5)
        now = at("2026-03-03T09:00:00Z")
        meeting = Meeting(fails_for="gamma")
        with pytest.raises(ArithmeticError):
            await Scorer(database, meeting.measure, BY_ONE).run(now)
        assert [(key,) for key in ACCOUNTS] == await rows(database, "SELECT account FROM health_dirty ORDER BY account")
        meeting.begun.clear()
        await rows(database, "INSERT INTO health_dirty (account, since) VALUES ('acme', '2026-03-04')")
        done = await run_in_turn(Scorer(database, meeting.measure, BY_ONE), now)
        assert 4 == done.accounts
        days = [as_of for as_of, _, _ in meeting.begun]
        assert sorted(days) == days
        assert 3 * len(ACCOUNTS) == len(days)
        assert [] == await rows(database, "SELECT account FROM health_dirty")
        assert [(75.0,)] == await rows(
            database, "SELECT DISTINCT score FROM health WHERE as_of = '2026-03-03' AND subject = 'ACCOUNT'"
        )

    play(database_url, scenario)


def test_what_is_under_way_is_given_up_when_nobody_wants_it() -> None:
    """Closed, or after one that failed, nothing goes on: what was begun has let go of what it held."""

    async def scenario() -> None:
        held: set[int] = set()

        async def work(number: int) -> int:
            held.add(number)
            try:
                if number > 1:
                    await asyncio.Event().wait()
                await asyncio.sleep(0)
                return number
            finally:
                held.discard(number)

        results = work_ahead([lambda number=number: work(number) for number in range(5)], 3)  # type: ignore[misc]
        assert 0 == await anext(results)
        assert 1 == await anext(results)
        await asyncio.sleep(0)
        assert {2, 3} == held
        await results.aclose()
        assert set() == held

    asyncio.run(scenario())
