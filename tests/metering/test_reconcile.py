"""`metering reconcile` finds every difference between a rollup and its events, and none that is not there."""

import asyncio
import json
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import asyncpg
import pytest

from metering.config import Settings
from metering.corrections import CorrectionOrder, correct_event
from metering.events import AdmittedEvent, UsageEvent
from metering.ingest.admit import Admission, admit
from metering.limits import LIMITS
from metering.reach import EVERYTHING
from metering.rollups.reconcile import Drift, Reconciler
from metering.rollups.refresh import Refresher
from metering.store.event_log import EventLog
from metering.store.pool import Database
from metering.store.snapshot import Snapshot
from metering.store.tables import DAY_OF_EVERYONE, DAY_SECONDS, QUARTER_HOUR_OF_EVERYONE, ROLLUPS, Rollup
from tests.metering.test_exactness import KEY

START = datetime(2026, 3, 2, tzinfo=UTC)
NOW = datetime(2026, 3, 5, 12, 5, tzinfo=UTC)
# Longer than anything here takes: reached only by a test that fails.
PATIENCE_SECONDS = 120
EVERYONES = (QUARTER_HOUR_OF_EVERYONE, DAY_OF_EVERYONE)
Cli = Callable[..., "subprocess.CompletedProcess[str]"]


def events(
    first: int, count: int, *, since: datetime = START, step: timedelta = timedelta(minutes=37)
) -> list[AdmittedEvent]:
    """Events of two accounts, with values and without, one after the other in time."""
    made = [
        UsageEvent(
            id=f"event {number}",
            source="test",
            occurred_at=since + (number - first) * step,
            account=f"account {number % 2}",
            user=None if number % 3 == 0 else f"user {number % 3}",
            device="d" if number % 5 else None,
            subscription="s" if number % 4 else None,
            product="maps",
            feature="tiles" if number % 2 else None,
            unit="call" if number % 7 else "byte",
        )
        for number in range(first, first + count)
    ]
    admission = Admission(limits=LIMITS, now=NOW + timedelta(days=30), restamp_window=timedelta(hours=1))
    admitted, rejected = admit(made, admission)
    assert not rejected
    return [event for _, event in admitted]


async def connect(database_url: str) -> Database:
    """A pool, as a process has one."""
    return await Database.connect(Settings(database_url=database_url), LIMITS)


async def record(database: Database, made: list[AdmittedEvent]) -> None:
    """Write events at once."""
    await EventLog(database).append([(event, NOW) for event in made])


async def rolled_up(database_url: str) -> None:
    """Three days and a half of usage, rolled up; then late usage that is pending, and some above the horizon."""
    database = await connect(database_url)
    try:
        await record(database, events(0, 100))
        await Refresher(database).run(NOW)
        await record(database, events(100, 10, since=START + timedelta(hours=5)))
        await record(database, events(110, 10, since=NOW))
    finally:
        await database.close()


async def reconciled(database_url: str, *, retention: timedelta | None = None) -> tuple[int, list[Drift]]:
    """How many buckets were compared, and which differ."""
    database = await connect(database_url)
    try:
        reconciler = Reconciler(database, LIMITS, retention)
        found = [await reconciler.compare(step) for step in await reconciler.plan_all()]
        return sum(each.buckets for each in found), [drift for each in found for drift in each.drift]
    finally:
        await database.close()


async def change(database_url: str, rollup: Rollup, statement: str) -> None:
    """Change what a rollup holds, in the place of `{}`: on TimescaleDB in the table that it is kept in."""
    connection = await asyncpg.connect(database_url)
    try:
        table = rollup.name
        if await connection.fetchval("SELECT EXISTS (SELECT FROM pg_extension WHERE extname = 'timescaledb')"):
            table = await connection.fetchval(
                "SELECT format('%I.%I', materialization_hypertable_schema, materialization_hypertable_name) "
                "FROM timescaledb_information.continuous_aggregates WHERE view_name = $1",
                rollup.name,
            )
        columns = ", ".join(f'"{name}"' for name in rollup.dimensions)
        tag = await connection.execute(statement.replace("{}", table).replace("{columns}", columns))
        assert int(tag.split()[-1]) > 0, "something was changed"
    finally:
        await connection.close()


def test_what_is_right_does_not_drift(database_url: str) -> None:
    """Rolled up, late, voided and not rolled up yet: there is no drift, and every whole bucket was looked at."""

    async def scenario() -> tuple[int, list[Drift]]:
        await rolled_up(database_url)
        database = await connect(database_url)
        (event,) = events(50, 1, since=START + 50 * timedelta(minutes=37))
        order = CorrectionOrder(
            account=event.event.account,
            source="test",
            event_id="event 50",
            occurred_at=event.occurred_at,
            reason="a test",
            void=True,
            values={},
        )
        await correct_event(database, order, KEY, LIMITS)
        await database.close()
        return await reconciled(database_url)

    buckets, drift = asyncio.run(scenario())

    assert [] == drift
    complete = (NOW - timedelta(minutes=5) - START).total_seconds()
    days = [rollup for rollup in ROLLUPS if rollup.width_seconds == 86_400]
    assert buckets >= 3 * len(days) + sum(complete // r.width_seconds for r in ROLLUPS if r not in days)


@pytest.mark.parametrize("rollup", ROLLUPS, ids=lambda rollup: rollup.name)
def test_drift_is_found_in_every_rollup(database_url: str, rollup: Rollup) -> None:
    """A figure that is off, a row that is missing, one too many and one twice: each is told with what either side says."""
    at = "bucket = (SELECT min(bucket) + interval '1 day' FROM {})"
    planted = {
        "off": "UPDATE {} SET quantity = quantity + 0.5 WHERE " + at,
        "twice": "INSERT INTO {} SELECT * FROM {} WHERE " + at,
        "too many": "UPDATE {} SET unit = 'nothing' WHERE " + at,
        "missing": "DELETE FROM {} WHERE " + at,
    }
    seen: dict[str, list[Drift]] = {}

    async def scenario() -> None:
        await rolled_up(database_url)
        for name, statement in planted.items():
            await change(database_url, rollup, statement)
            seen[name] = (await reconciled(database_url))[1]

    asyncio.run(scenario())

    assert {(rollup.name,)} == {tuple({drift.rollup for drift in found}) for found in seen.values()}
    (buckets,) = {tuple(drift.bucket for drift in found) for found in seen.values()}
    assert 1 == len(buckets)
    assert timedelta(seconds=rollup.width_seconds) == buckets[0].end - buckets[0].start
    off = [(row.told, row.counted) for drift in seen["off"] for row in drift.rows]
    assert all(told and counted and told.quantity - counted.quantity > 0 for told, counted in off)
    twice = [(row.told, row.counted) for drift in seen["twice"] for row in drift.rows]
    assert all(told and counted and told.events == 2 * counted.events for told, counted in twice)
    strangers = [(row.key["unit"] == "nothing", row) for drift in seen["too many"] for row in drift.rows]
    assert {True, False} == {is_new for is_new, _ in strangers}
    assert all((row.counted if is_new else row.told) is None for is_new, row in strangers)
    missing = [(row.told, row.counted) for drift in seen["missing"] for row in drift.rows]
    assert missing
    assert all(told is None and counted is not None for told, counted in missing)


@pytest.mark.parametrize("rollup", EVERYONES, ids=lambda rollup: rollup.name)
def test_drift_of_everyone_is_found_where_an_account_is_pending(database_url: str, rollup: Rollup) -> None:
    """Where readers take what is pending away from figures of everyone, the rest of these is compared too."""
    # Half past five: an event of one account that is rolled up, and one that came late.
    bucket = START if rollup.width_seconds == DAY_SECONDS else START + timedelta(hours=5, minutes=30)
    off = f"UPDATE {{}} SET quantity = quantity + 0.5 WHERE bucket = '{bucket:%FT%TZ}'"

    async def scenario() -> tuple[bool, list[Drift]]:
        await rolled_up(database_url)
        assert (await reconciled(database_url))[1] == []
        await change(database_url, rollup, off)
        database = await connect(database_url)
        try:
            async with Snapshot(database, EVERYTHING) as snapshot:
                return snapshot.rollups_agree, (await reconciled(database_url))[1]
        finally:
            await database.close()

    is_taken_away, found = asyncio.run(scenario())

    assert is_taken_away == bool(found)
    rows = [row for drift in found for row in drift.rows]
    assert all((rollup.name, bucket) == (drift.rollup, drift.bucket.start) for drift in found)
    assert all(row.told and row.told.minimum is None for row in rows)
    assert all(
        Decimal("0.5") == row.told.quantity - (row.counted.quantity if row.counted else 0) for row in rows if row.told
    )


def test_a_day_that_only_a_rollup_knows_is_found(database_url: str) -> None:
    """A rollup's row of a year in which nothing happened is drift, though there are no events to begin from."""
    rollup = next(rollup for rollup in ROLLUPS if rollup.name == "usage_day_by_product")

    async def scenario() -> list[Drift]:
        await rolled_up(database_url)
        copy = (
            "INSERT INTO {} (bucket, {columns}, quantity, events, minimum, maximum) "
            "SELECT bucket - interval '364 days', {columns}, quantity, events, minimum, maximum FROM {} LIMIT 1"
        )
        await change(database_url, rollup, copy)
        return (await reconciled(database_url))[1]

    (drift,) = asyncio.run(scenario())

    assert (rollup.name, 2025, 1) == (drift.rollup, drift.bucket.start.year, drift.row_count)


def test_what_is_older_than_the_retained_range_is_not_compared(database_url: str) -> None:
    """Where events may be gone already their rollups are left alone; the first whole bucket inside is compared."""

    async def scenario() -> tuple[list[Drift], list[Drift]]:
        await rolled_up(database_url)
        connection = await asyncpg.connect(database_url)
        await connection.execute("DELETE FROM event WHERE occurred_at < $1", START + timedelta(days=1))
        since = await connection.fetchval("SELECT now() - $1::timestamptz", START + timedelta(days=1))
        await connection.close()
        _, within = await reconciled(database_url, retention=since)
        _, beyond = await reconciled(database_url, retention=since + timedelta(hours=2))
        return within, beyond

    within, beyond = asyncio.run(scenario())

    finest = {rollup.name for rollup in ROLLUPS if rollup.width_seconds <= 3_600}
    assert [] == within
    assert finest == {drift.rollup for drift in beyond}
    assert min(drift.bucket.start for drift in beyond) < START + timedelta(hours=23)
    assert all(START + timedelta(hours=21) < each.bucket.start < START + timedelta(days=1) for each in beyond)


def test_beside_writes_and_refreshes_there_is_no_drift(database_url: str) -> None:
    """While events come in, new and late, and the refresher works, a reconciliation of everything finds nothing."""

    async def scenario() -> tuple[int, int]:
        database = await connect(database_url)
        await record(database, events(0, 50))
        written, clock, rounds, ended = 50, NOW, 0, asyncio.Event()

        async def write() -> None:
            nonlocal written
            while not ended.is_set():
                late = events(written, 5, since=START + timedelta(hours=written % 70))
                await record(database, late + events(written + 5, 5, since=clock - timedelta(minutes=1)))
                written += 10

        async def refresh() -> None:
            nonlocal clock
            while not ended.is_set():
                await Refresher(database).run(clock)
                clock += timedelta(minutes=30)

        try:
            async with asyncio.timeout(PATIENCE_SECONDS), asyncio.TaskGroup() as tasks:
                tasks.create_task(write())
                tasks.create_task(refresh())
                reconciler = Reconciler(database, LIMITS, None)
                while rounds < 3 or written < 200:
                    for step in await reconciler.plan_all():
                        found = await reconciler.compare(step)
                        assert () == found.drift
                    rounds += 1
                ended.set()
        finally:
            await database.close()
        return rounds, written

    rounds, written = asyncio.run(scenario())

    assert rounds >= 3
    assert written >= 200


def test_a_sample_is_repeated_by_its_seed(database_url: str) -> None:
    """The same seed draws the same buckets, another seed others; of every rollup, none twice, as many as there are."""

    async def scenario() -> None:
        await rolled_up(database_url)
        database = await connect(database_url)
        reconciler = Reconciler(database, LIMITS, None)
        first, again, other = [await reconciler.plan_sample(30, seed) for seed in (7, 7, 8)]
        everything = await reconciler.plan_sample(1_000_000, 7)
        await database.close()

        assert first == again != other
        assert 30 == len(set(first))
        assert {rollup.name for rollup in ROLLUPS} == {step.rollup.name for step in first}
        assert len(everything) == len(set(everything))
        assert {step.period.end - step.period.start for step in first} == {
            timedelta(seconds=rollup.width_seconds) for rollup in ROLLUPS
        }
        compared = sum((step.period.end - step.period.start) // step.width for step in everything)
        assert compared == (await reconciled(database_url))[0]

    asyncio.run(scenario())


def test_the_command_says_what_drifts_and_exits_1(database_url: str, run_cli: Cli) -> None:
    """Clean is 0 and one line; drift is 1, in lines and as JSON; nothing is changed by looking."""
    asyncio.run(rolled_up(database_url))
    variables = {"METERING_DATABASE_URL": database_url}
    clean = run_cli("reconcile", "--all", **variables)
    rollup = ROLLUPS[0]
    # On days of which nothing is pending: elsewhere figures of everyone, from which it is taken away, would drift as well.
    off = f"UPDATE {{}} SET quantity = quantity + 0.5 WHERE \"user\" = 'user 1' AND bucket >= '{START + timedelta(days=1)}'"
    asyncio.run(change(database_url, rollup, off))
    told = run_cli("reconcile", "--all", **variables)
    answer = run_cli("reconcile", "--json", "--sample", "100000", "--seed", "7", **variables)
    document = json.loads(answer.stdout)

    assert 0 == clean.returncode, clean.stderr
    assert "buckets agree with their events." in clean.stdout
    assert (1, 1) == (told.returncode, answer.returncode)
    assert told.stdout.startswith(rollup.name)
    assert "the rollup says 1.5 in 1 events of 1 to 1; the events say 1 in 1 events of 1 to 1" in told.stdout
    assert (7, {rollup.name}) == (document["seed"], {each["rollup"] for each in document["drift"]})
    (row,) = document["drift"][0]["rows"]
    assert {"quantity": "1.5", "events": 1, "minimum": "1", "maximum": "1"} == row["rollup"]
    assert {"quantity": "1", "events": 1, "minimum": "1", "maximum": "1"} == row["events"]
    assert "user 1" == row["key"]["user"]
    again = run_cli("reconcile", "--all", **variables)
    assert told.stdout == again.stdout


def test_the_command_refuses_nonsense(run_cli: Cli) -> None:
    """Every fault of the options is named at once, with what to do."""
    refused = run_cli("reconcile", "--all", "--sample", "0", "--seed", "-1")

    assert 1 == refused.returncode
    assert ["--sample:", "--seed:", "--all:"] == [line.split()[1] for line in refused.stderr.splitlines()]
