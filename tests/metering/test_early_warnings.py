"""Early warnings are kept and told with the scores they are of: once, whatever fails and whatever comes late."""

import asyncio
from datetime import UTC, date, datetime, timedelta
from typing import Final

import msgspec
import pytest

from health.alarms import DEFAULTS, AlarmType
from health.measurements import Measurement, Observed
from health.score import evaluate
from health.scorecards import Subject
from metering.accounts import AccountOrder, put_account
from metering.errors import ForbiddenError, InvalidInputError
from metering.health.alarming import find_alarms
from metering.health.early_warnings import WarningsChosen, read_warnings, warn
from metering.health.norms import Norms
from metering.health.records import Scored, metrics_json, metrics_of
from metering.health.scorer import Scorer
from metering.health.scoring import DayScores
from metering.health.thresholds import FIRST as FIRST_THRESHOLDS
from metering.health.thresholds import put_thresholds, read_thresholds
from metering.health.warning_rates import read_warning_rates
from metering.key_digests import Digests
from metering.keys import Scope
from metering.limits import LIMITS
from metering.outbox.addresses import Allowed
from metering.outbox.destinations import DestinationKind, DestinationOrder, Destinations
from metering.outbox.vault import Vault
from metering.reach import EVERYTHING
from metering.rollups.refresh import Refresher
from metering.store.pool import Database
from metering.store.snapshot import Snapshot
from metering.subjects import SubjectRef
from tests.health.cards import card
from tests.health.cards import measure as part
from tests.metering.catalog import BOUND_KEY, KEY, play, rows
from tests.metering.scored import measure, publish_card, say, score_day, score_now
from tests.metering.test_exactness import Fuse, run_and_die

FIRST: Final = date(2026, 3, 1)
TOLD: Final = "SELECT type, subject FROM notification ORDER BY sequence"
WARNED: Final = """
SELECT type, about, as_of - '2026-03-01'::date, last_on - '2026-03-01'::date, told_at IS NOT NULL, withdrawn_at IS NOT NULL
FROM warning ORDER BY as_of, type, about, raised_at
"""
BAND, DROPPED = "health.band_changed", "health.score_dropped"


def day(number: int) -> date:
    """A day, the first one is 0."""
    return FIRST + timedelta(days=number)


async def begin(database: Database) -> None:
    """An account that does well, as a manager says, on a first day."""
    await publish_card(database)
    await put_account(database, AccountOrder(key="acme", name="Acme"), KEY, LIMITS)
    await say(database, FIRST, pulse=5, nps=0)
    await rows(database, "DELETE FROM health_dirty")
    await score_day(database, FIRST)


async def turn(database: Database, number: int, pulse: float) -> None:
    """A day on which the manager says something else; nobody is marked for it."""
    await say(database, day(number), pulse=pulse)
    await rows(database, "DELETE FROM health_dirty")
    await score_day(database, day(number))


def test_it_is_told_once_and_what_a_day_no_longer_has_is_marked(database_url: str) -> None:
    """A fall is told with the drivers that lower the score, to who takes its type; a day that is scored again tells nothing
    twice; one that turns out otherwise has its warnings marked, and the next day has them.
    """

    async def scenario(database: Database) -> None:
        destinations = Destinations(
            database, Vault(Digests(database, None)), Allowed(), LIMITS, lambda: datetime.now(UTC)
        )
        admin = msgspec.structs.replace(KEY, scopes=frozenset({Scope.ADMIN}))
        for key, types in (("bands", ("health.band_changed",)), ("alerts", ("alert",)), ("health", ("health",))):
            given = DestinationOrder(key=key, kind=DestinationKind.WEBHOOK, url="https://hooks.test/", types=types)
            await destinations.put(given, admin)
        await begin(database)
        await turn(database, 1, 1)
        fallen = [(BAND, "low", 1, 1, True, False), (DROPPED, "", 1, 1, True, False)]
        assert fallen == await rows(database, WARNED)
        assert [(BAND, "account/acme"), (DROPPED, "account/acme")] == await rows(database, TOLD)
        assert [("bands", BAND), ("health", BAND), ("health", DROPPED)] == await rows(
            database,
            "SELECT destination.key, type FROM delivery JOIN notification USING (sequence) "
            "JOIN destination ON destination.id = destination_id ORDER BY 1, 2",
        )
        ((data,),) = await rows(database, f"SELECT data::text FROM notification WHERE type = '{BAND}'")
        told = msgspec.json.decode(data)
        assert ("2026-03-02", "ACCOUNT", "acme", "acme", 25.0, "low") == tuple(
            told[name] for name in ("asOf", "subject", "account", "key", "score", "band")
        )
        assert [{"metric": "pulse", "value": 1.0, "contribution": -25.0}] == told["drivers"]
        assert ("high", "low", "pulse VALUE -50.0") == tuple(
            told["evidence"][name] for name in ("before", "after", "reason_1")
        )
        # The same is scored again, with something that changes nothing.
        await say(database, day(1), other=1)
        await score_now(database, datetime(2026, 3, 3, 9, tzinfo=UTC))
        await score_day(database, day(2))
        falls = [fallen[0], (DROPPED, "", 1, 2, True, False)]
        assert falls == await rows(database, WARNED)
        # What was said comes to be known otherwise: it was well on the day, and fell on the next.
        await rows(
            database, "UPDATE signal SET at = at + interval '1 day' WHERE value = 1 AND name = 'pulse' RETURNING 1"
        )
        await say(database, day(1), another=1)
        await score_now(database, datetime(2026, 3, 4, 9, tzinfo=UTC))
        assert [
            (BAND, "low", 1, 1, True, True),
            (DROPPED, "", 1, 2, True, True),
            (BAND, "low", 2, 2, False, False),
            (DROPPED, "", 2, 2, False, False),
        ] == await rows(database, WARNED)
        assert 2 == len(await rows(database, TOLD))
        async with Snapshot(database, EVERYTHING) as snapshot:
            standing, _ = await read_warnings(snapshot, WarningsChosen(account="acme"), 10, None)
            rates = await read_warning_rates(snapshot, FIRST)
        assert [day(2)] * 2 == [each.as_of for each in standing]
        # One account that was looked at on three days.
        assert {AlarmType.BAND_CHANGED: 365.25 / 3, AlarmType.SCORE_DROPPED: 365.25 / 3} == {
            each.rate.type: pytest.approx(each.rate.per_year) for each in rates
        }
        assert {("ACCOUNT", False)} == {(each.subject, each.rate.within_budget) for each in rates}

    play(database_url, scenario)


def test_what_is_measured_of_users_is_read_as_it_was_written() -> None:
    """Whom a value is about stands in what is kept, and comes back."""
    found = {"champion_lost": Observed(1.0, users=("ana", "ben")), "seats": Observed(5.0)}

    assert found == metrics_of(metrics_json(found))


def alarming_day(number: int, *accounts: str) -> DayScores:
    """Accounts that dropped, with three seats that nobody uses and a renewal in a month; each has two contracts."""
    measured: dict[SubjectRef, dict[str, Measurement]] = {}
    for key in accounts:
        values = {"drop_z": 5.0, "drop_z_week": 1.0, "seats": 3.0, "active_users": 0.0, "age_days": 90.0}
        metrics: dict[str, Measurement] = {name: Observed(value) for name, value in values.items()}
        measured[SubjectRef(Subject.ACCOUNT, key, key)] = {**metrics, "renewal_days": Observed(30.0)}
        for contract in ("s", "t"):
            measured[SubjectRef(Subject.SUBSCRIPTION, key, f"{key}-{contract}")] = metrics
        measured[SubjectRef(Subject.USER, key, "ana")] = {"silence": Observed(5.0), "active_days": Observed(0.0)}
    scored = [
        Scored(ref, "health", evaluate(card(part("a")), {"a": Observed(40.0)}, as_of=day(number))) for ref in measured
    ]
    return DayScores(day(number), measured, scored, running={"one": 1, "two": 2})


def test_what_all_do_together_is_told_once_and_of_no_single_one(database_url: str) -> None:
    """Where the median account falls there is one warning for all, on whichever page, and no drop of an account; otherwise each
    account is told of, and a subscription where its account has several that run.
    """

    async def scenario(database: Database) -> None:
        common, usual = Norms(as_of=day(2), change=-0.4), Norms(as_of=day(3))

        async def looked(number: int, norms: Norms, *accounts: str) -> list[tuple[str, str | None]]:
            async with Snapshot(database, EVERYTHING) as snapshot:
                found = await find_alarms(snapshot, alarming_day(number, *accounts), accounts, norms, DEFAULTS)
            async with database.transaction() as connection:
                await warn(connection, found, FIRST_THRESHOLDS)
            drops = {AlarmType.DROP_DETECTED, AlarmType.COMMON_CAUSE_DROP}
            return sorted((each.type.value, each.ref and each.ref.key) for each in found.found if each.type in drops)

        await rows(database, "INSERT INTO warning_watch VALUES ('2026-02-27', 'ACCOUNT', 1) RETURNING 1")
        together = [("product.common_cause_drop", None)]
        assert [together, together] == [await looked(1, common, key) for key in ("one", "two")]
        told = await rows(database, TOLD)
        assert [(together[0][0], "everyone")] == [each for each in told if each[1] == "everyone"]
        for key in ("one", "two"):
            kinds = {kind for kind, subject in told if subject == f"account/{key}"}
            assert {"seats.underused", "renewal.at_risk"} == kinds
            assert ("user.silent", f"account/{key}/user/ana") in told
        dropped = [("usage.drop_detected", key) for key in ("one", "two", "two-s", "two-t")]
        assert dropped == await looked(2, usual, "one", "two")
        assert len(told) + 4 == len(await rows(database, TOLD))

    play(database_url, scenario)


def test_what_was_so_before_anybody_was_scored_is_no_news(database_url: str) -> None:
    """Warnings of the first day are shown, and not told; thresholds that were put hold from then on."""

    async def scenario(database: Database) -> None:
        await publish_card(database)
        await put_account(database, AccountOrder(key="acme", name="Acme"), KEY, LIMITS)
        with pytest.raises(InvalidInputError) as raised:
            await put_thresholds(database, {"scoreDropMin": 1000, "drop": 1}, KEY)
        assert [("input", "thresholds", "scoreDropMin"), ("input", "thresholds", "drop")] == [
            issue.path for issue in raised.value.issues
        ]
        with pytest.raises(ForbiddenError):
            await put_thresholds(database, {}, BOUND_KEY)
        versions = [(await put_thresholds(database, given, KEY)).version for given in ({}, {"scoreDropMin": 60})]
        assert [0, 1, 1] == [*versions, (await put_thresholds(database, {"scoreDropMin": 60.0}, KEY)).version]
        async with Snapshot(database, EVERYTHING) as snapshot:
            assert 60.0 == (await read_thresholds(snapshot)).thresholds.score_drop_min
        # As if it had been scored the day before, but for that nobody knew that it was a first day.
        await say(database, FIRST, pulse=5, nps=0)
        await rows(database, "DELETE FROM health_dirty")
        await score_day(database, FIRST)
        await rows(database, "DELETE FROM warning_watch")
        await turn(database, 1, 1)
        assert [(BAND, "low", 1, 1, False, False)] == await rows(database, WARNED)
        assert [] == await rows(database, TOLD)

    play(database_url, scenario)


def test_a_scorer_that_is_killed_anywhere_tells_once(database_url: str) -> None:
    """Killed before or after any of its statements, and begun again, it has told each change of the band exactly once."""

    async def scenario(database: Database) -> None:
        await begin(database)
        await put_thresholds(database, {"cooldownDays": 1}, KEY)
        number, died = 0, True
        while died:
            number += 1
            now = datetime.combine(day(number + 1), datetime.min.time(), UTC) + timedelta(minutes=20)
            await say(database, day(number), pulse=1 if number % 2 else 5)
            await rows(database, "DELETE FROM health_dirty")
            await Refresher(database).run(now)

            async def score(mortal: Database, at: datetime = now) -> None:
                while (done := await Scorer(mortal, measure, LIMITS).run(at)) is not None and done.more:
                    pass

            died = await run_and_die(database_url, Fuse(3 * number, "after" if number % 2 else "before"), score)
            # The server notices in its own time that a session is gone, and with it the lock.
            while (done := await Scorer(database, measure, LIMITS).run(now)) is None or done.more:  # noqa: ASYNC110 - as above
                await asyncio.sleep(0.01)
            told = await rows(
                database, f"SELECT data::jsonb ->> 'asOf' FROM notification WHERE type = '{BAND}' ORDER BY 1"
            )
            assert [day(each).isoformat() for each in range(1, number + 1)] == [at for (at,) in told]
        assert number > 5

    play(database_url, scenario)
