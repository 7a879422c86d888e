"""What tests of scores share: a card of what people say, signals on days, and a scorer that is run to the end of a day."""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import date, datetime, timedelta
from typing import Any, Final

import asyncpg

from health.measurements import Measurement, Observed
from health.scorecards import Subject
from metering.health.cards import ScorecardDraft, publish_scorecard
from metering.health.scorer import SCORER_LOCK, Done, Scorer
from metering.health.scoring import keep, score_accounts
from metering.health.signals import SignalOrder, record_signals
from metering.limits import LIMITS, Limits
from metering.reach import EVERYTHING
from metering.rollups.refresh import Refresher
from metering.store.pool import Database
from metering.store.snapshot import Snapshot
from metering.subjects import SubjectRef
from tests.metering.catalog import KEY

BANDS: Final = [{"from": 0, "key": "low"}, {"from": 40, "key": "middle"}, {"from": 70, "key": "high"}]
# What people say, and nothing of usage: a pulse and a survey of half the weight each, a cap on severe tickets.
CARD: Final[dict[str, Any]] = {
    "minCoverage": 0.4,
    "hysteresis": 0,
    "bands": BANDS,
    "tree": [
        {"metric": "pulse", "weight": 1, "curve": [[1, 0], [5, 100]]},
        {"metric": "nps", "weight": 1, "curve": [[-100, 0], [100, 100]]},
    ],
    "caps": [{"metric": "tickets_severe_open", "atLeast": 3, "max": 30, "reason": "severe tickets are open"}],
}


async def measure(
    snapshot: Snapshot, refs: Sequence[SubjectRef], as_of: date
) -> dict[SubjectRef, dict[str, Measurement]]:
    """What was said of subjects before a day."""
    rows = await snapshot.fetch(
        "SELECT DISTINCT ON (account, subject, key, name) * FROM signal WHERE (at AT TIME ZONE 'UTC')::date < $1 "
        "ORDER BY account, subject, key, name, at DESC, sequence DESC",
        [as_of],
    )
    found: dict[SubjectRef, dict[str, Measurement]] = {ref: {} for ref in refs}
    for row in rows:
        ref = SubjectRef(Subject(row["subject"]), row["account"], row["key"])
        if ref in found:
            found[ref][row["name"]] = Observed(row["value"], row["at"], row["expires_at"])
    return found


async def publish_card(database: Database, definition: Any = CARD, key: str = "account", **given: Any) -> Any:
    """Publish a card of accounts in the place of the first one."""
    named = {"subject": Subject.ACCOUNT, "purpose": "health", **given}
    draft = ScorecardDraft(key=key, definition=definition, **named)
    return await publish_scorecard(database, draft, KEY, LIMITS)


async def say(database: Database, day: date, key: str = "acme", **values: float) -> None:
    """Record signals of an account at noon of a day, by name."""
    at = datetime.fromisoformat(f"{day}T12:00:00Z")
    orders = [
        SignalOrder(
            subject=Subject.ACCOUNT, key=key, name=name, value=value, at=at, source="test", note="as a test has it"
        )
        for name, value in values.items()
    ]
    await record_signals(database, orders, KEY, LIMITS)


async def score_day(database: Database, day: date, limits: Limits = LIMITS) -> int:
    """Let a day end, score everybody, and say how many scores were kept."""
    now = datetime.fromisoformat(f"{day + timedelta(days=1)}T00:20:00Z")
    await Refresher(database).run(now)
    return await score_now(database, now, limits)


async def run_in_turn(scorer: Scorer, now: datetime) -> Done:
    """One run, once the server has noticed that the session of one that failed is gone, and with it the turn."""
    while (done := await scorer.run(now)) is None:  # noqa: ASYNC110 - as above
        await asyncio.sleep(0.01)
    return done


async def score_now(database: Database, now: datetime, limits: Limits = LIMITS) -> int:
    """Do all that there is to do at an instant, and say how many scores were kept."""
    scores, more = 0, True
    while more:
        done = await Scorer(database, measure, limits).run(now)
        assert done is not None, "nobody else scores"
        scores, more = scores + done.scores, done.more
    return scores


async def score_beside(database: Database, day: date, *accounts: str) -> None:
    """Score accounts on a day, also where a service runs whose scorer has the turn."""
    async with Snapshot(database, EVERYTHING) as snapshot:
        scores = await score_accounts(snapshot, measure, accounts, day)
    async with database.transaction() as connection:
        await keep(connection, scores)


@contextmanager
def resting(url: str) -> Iterator[None]:
    """A service's own scorer finds somebody at work on this database: the scores of the test are its own."""
    loop = asyncio.new_event_loop()
    try:
        connection = loop.run_until_complete(asyncpg.connect(url))
        loop.run_until_complete(connection.execute("SELECT pg_advisory_lock($1)", SCORER_LOCK))
        yield
        loop.run_until_complete(connection.close())
    finally:
        loop.close()
