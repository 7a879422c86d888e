"""Scoring: everybody once a day and whoever is marked, kept beside what was known before."""

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta

import msgspec
import pytest

from health.measurements import Measurement
from health.overrides import Override
from health.score import Adjustment, Health
from health.scorecards import Subject
from metering.accounts import AccountOrder, put_account
from metering.errors import InvalidInputError
from metering.health.overriding import OverrideOrder, override_health
from metering.health.reading import Asked, read_scores
from metering.health.scorer import Scorer
from metering.limits import LIMITS
from metering.rollups.refresh import Refresher
from metering.store.pool import Database
from metering.store.snapshot import Snapshot
from metering.subjects import SubjectRef
from tests.conftest import running, usage_event
from tests.metering.catalog import KEY, draft, order, play, publish, put, rows
from tests.metering.scored import measure, publish_card, resting, run_in_turn, say, score_day, score_now
from tests.rating.tables import at

FIRST, SECOND, THIRD = (date(2026, 3, day) for day in (1, 2, 3))
SCORES = "SELECT as_of, score, band FROM health WHERE subject = 'ACCOUNT' ORDER BY as_of, computed_at"


async def put_accounts(database: Database, *keys: str) -> None:
    """Put accounts, and have nobody marked."""
    for key in keys:
        await put_account(database, AccountOrder(key=key, name=key), KEY, LIMITS)


async def forget_marks(database: Database) -> None:
    """As if nothing new was known of anybody."""
    await rows(database, "DELETE FROM health_dirty")


async def score_of(
    database: Database, day: date, known_at: datetime | None = None, kind: Subject = Subject.ACCOUNT, key: str = "acme"
) -> Health | None:
    """A score as of a day."""
    async with Snapshot(database) as snapshot:
        (found,) = await read_scores(snapshot, [Asked(SubjectRef(kind, "acme", key), "health", day, known_at)])
    return found


async def clock(database: Database) -> datetime:
    """The database's clock."""
    ((now,),) = await rows(database, "SELECT clock_timestamp()")
    assert isinstance(now, datetime)
    return now


class Failing:
    """Measures as others do, but fails once for an account, and knows whom it was asked of."""

    def __init__(self, fails_for: str) -> None:
        self.fails_for: str | None = fails_for
        self.asked: list[str] = []

    async def measure(
        self, snapshot: Snapshot, refs: Sequence[SubjectRef], as_of: date
    ) -> dict[SubjectRef, dict[str, Measurement]]:
        """What was said of subjects before a day."""
        accounts = sorted({ref.account for ref in refs})
        self.asked += accounts
        if self.fails_for in accounts:
            self.fails_for = None
            raise ArithmeticError("a metric failed")
        return await measure(snapshot, refs, as_of)


def test_everybody_is_scored_once_a_day(database_url: str) -> None:
    """A day that is rolled up is scored page by page; who is stopped goes on behind what was kept, and then rests."""

    async def scenario(database: Database) -> None:
        await publish_card(database)
        accounts = ["acme", "beta", "delta", "gamma", "omega"]
        await put_accounts(database, *accounts)
        for number, key in enumerate(accounts, start=1):
            await say(database, FIRST, key, pulse=number, nps=0)
        await forget_marks(database)
        small = msgspec.structs.replace(LIMITS, health_page_accounts=2, health_run_pages=1)
        failing = Failing("delta")
        now = at("2026-03-02T00:20:00Z")

        async def run() -> tuple[int, int, bool]:
            done = await run_in_turn(Scorer(database, failing.measure, small), now)
            return done.accounts, done.scores, done.more

        assert (0, 0, False) == await run(), "the day is not rolled up yet"
        await Refresher(database).run(now)
        assert (2, 2, True) == await run()
        with pytest.raises(ArithmeticError):
            await run()
        assert [(2, 2, True), (1, 1, True), (0, 0, True), (0, 0, False)] == [await run() for _ in range(4)]
        assert [*accounts[:2], *accounts[2:4], *accounts[2:]] == failing.asked
        assert [
            (FIRST, score, band) for score, band in ((25, "low"), (37.5, "low"), (50, "middle"), (62.5, "middle"))
        ] == (await rows(database, SCORES))[:4]
        assert [(FIRST, "omega")] == await rows(
            database, "SELECT as_of, through FROM health_day WHERE completed_at IS NOT NULL"
        )

    play(database_url, scenario)


def test_what_comes_late_is_scored_anew_and_told_apart(database_url: str) -> None:
    """A late signal moves the days from its own on; what was known before is answered as it was, and nothing is kept twice."""

    async def scenario(database: Database) -> None:
        await publish_card(database)
        await put_accounts(database, "acme")
        await say(database, FIRST, pulse=5, nps=0)
        await forget_marks(database)
        for day in (FIRST, SECOND):
            assert 1 == await score_day(database, day)
        before = await clock(database)
        await say(database, SECOND, pulse=1)
        now = at("2026-03-03T09:00:00Z")
        assert 2 == await score_now(database, now)
        assert [
            (FIRST, 75.0, "high"),
            (SECOND, 75.0, "high"),
            (SECOND, 25.0, "low"),
            (THIRD, 25.0, "low"),
        ] == await rows(database, SCORES)
        assert [75.0, 25.0, 25.0] == [(await score_of(database, day)).score for day in (FIRST, SECOND, THIRD)]  # type: ignore[union-attr]
        known = await score_of(database, THIRD, before)
        assert known is not None
        assert (SECOND, 75.0) == (known.as_of, known.score)
        await say(database, SECOND, other=1)
        assert 0 == await score_now(database, now)
        assert [] == await rows(database, "SELECT id FROM health_dirty")

    play(database_url, scenario)


def test_who_has_left_keeps_the_last_score(database_url: str) -> None:
    """On the day on which the last subscription has ended, the account and it are churned, with the score they had."""

    async def scenario(database: Database) -> None:
        await publish_card(database)
        await publish(database, draft())
        await put(database, order(ends_at=at("2026-03-02T00:00:00Z")))
        await say(database, FIRST, pulse=5, nps=0)
        await forget_marks(database)
        kept = [await score_day(database, day) for day in (FIRST, SECOND, THIRD)]
        assert [2, 2, 0] == kept
        assert [(FIRST, 75.0, "high"), (SECOND, 75.0, "churned")] == await rows(database, SCORES)
        subscription = await score_of(database, THIRD, kind=Subject.SUBSCRIPTION, key="s-1")
        assert subscription is not None
        assert "churned" == subscription.band

    play(database_url, scenario)


def test_a_word_on_a_score_and_caps_bound_it(database_url: str) -> None:
    """A cap and a person's word bound the score with their reasons; the score below them stays known."""

    async def scenario(database: Database) -> None:
        await publish_card(database)
        await put_accounts(database, "acme")
        now = await clock(database)
        await say(database, now.date() - timedelta(days=1), pulse=5, nps=0, tickets_severe_open=3)
        await score_now(database, now)
        capped = await score_of(database, now.date())
        override = Override(reason="they told us", set_on=now.date(), expires_on=now.date(), min=50)
        said = OverrideOrder(subject=Subject.ACCOUNT, key="acme", override=override)
        with pytest.raises(InvalidInputError) as raised:
            await override_health(database, said, KEY, LIMITS)
        override = msgspec.structs.replace(override, expires_on=now.date() + timedelta(days=30))
        await override_health(database, msgspec.structs.replace(said, override=override), KEY, LIMITS)
        await score_now(database, now)
        bounded = await score_of(database, now.date())
        assert capped is not None
        assert bounded is not None
        assert [("input", "expiresOn")] == [issue.path for issue in raised.value.issues]
        assert (30.0, 75.0, Adjustment(-45.0, "severe tickets are open")) == (
            capped.score,
            capped.raw,
            capped.adjustment,
        )
        assert (50.0, 75.0) == (bounded.score, bounded.raw)
        assert Adjustment(-25.0, "severe tickets are open; they told us") == bounded.adjustment

    play(database_url, scenario)


def test_late_events_mark_their_account(database_url: str) -> None:
    """An event of a day that is over, and its correction, mark the account as they are written; one of this moment does not."""

    async def everybody_is_scored(database: Database) -> None:
        now = await clock(database)
        await Refresher(database).run(now)
        await score_now(database, now)

    async def marked(database: Database) -> None:
        assert [("acme", FIRST), ("acme", FIRST)] == await rows(
            database, "SELECT account, since FROM health_dirty ORDER BY id"
        )

    play(database_url, everybody_is_scored)
    with resting(database_url), running(database_url) as api:
        now = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
        receipt = api.send([usage_event(1, occurred_at="2026-03-01T12:00:00Z"), usage_event(2, occurred_at=now)])
        assert [] == receipt["rejected"]
        named = {
            "account": "acme",
            "source": "test",
            "id": "event-1",
            "reason": "too many",
            "values": {"quantity": "2"},
        }
        document = "mutation ($input: CorrectEventInput!) { correctEvent(input: $input) { __typename } }"
        assert {"correctEvent": {"__typename": "Event"}} == api.ask(document, {"input": named})
    play(database_url, marked)
