"""What is too old is dropped, and nothing else: no figure that is answered changes, and nothing acknowledged is lost.

Staged one by one: what is dropped, who waits for whom, deaths between the steps, and what becomes of chunks that are columns.
The machine in test_retention_machine.py does all of it in any order.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final

import msgspec
import pytest

from metering.aggregations import Aggregation
from metering.cli.doctor import retention_check
from metering.config import Settings
from metering.corrections import correct_event
from metering.errors import ConflictError, InvalidInputError, NotFoundError
from metering.events import AdmittedEvent
from metering.ingest.receipts import Code, Receipt
from metering.ingest.write import write_batch
from metering.limits import LIMITS
from metering.meters import Definition
from metering.periods import Bucket, Period
from metering.probes import Status
from metering.questions import Question, ask
from metering.recorded import read_event, read_events
from metering.retention import Ages, Kept, Retention, read_kept
from metering.rollups.read import Course, Total, read_series, read_totals
from metering.rollups.read_meter import check_meter_retained, read_meter_total
from metering.rollups.refresh import Refresher
from metering.store.event_log import EventLog
from metering.store.partitions import NotRetainedError, attached_starts
from metering.store.pool import Database
from metering.store.snapshot import Snapshot
from metering.store.tables import PARTITIONED, PARTITIONED_EVENT, PARTITIONED_IDENTITY, ROLLUPS
from tests.conftest import Server, lock_waiters, running, usage_event
from tests.metering.test_exactness import (
    KEY,
    PATIENCE_SECONDS,
    Fuse,
    HeldLog,
    calls,
    connect,
    correction_of,
    pending,
    play,
    record,
    refreshed,
    run_and_die,
    submission_of,
    writing,
)

DAY: Final = timedelta(days=1)
WEEK: Final = timedelta(days=7)
MICROSECOND: Final = timedelta.resolution
# A Wednesday; thirty days before it is a Monday, where partitions begin.
NOW: Final = datetime(2026, 4, 1, 12, 5, tzinfo=UTC)
RAW_FROM: Final = datetime(2026, 3, 2, tzinfo=UTC)
ROLLUPS_FROM: Final = datetime(2026, 1, 31, tzinfo=UTC)
MONTH: Final = Ages(events=timedelta(days=30), rollups=None, rows=timedelta(days=14))
MONTH_AND_TWO: Final = Ages(events=timedelta(days=30), rollups=timedelta(days=60), rows=timedelta(days=14))
FOR_EVER: Final = Ages(events=None, rollups=None, rows=timedelta(days=14))

HISTORY: Final = [
    datetime(2025, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC),
    datetime(2026, 1, 30, 23, 59, 59, 999_999, tzinfo=UTC),
    ROLLUPS_FROM,
    datetime(2026, 2, 14, 10, 37, tzinfo=UTC),
    datetime(2026, 2, 14, 11, 30, tzinfo=UTC),
    RAW_FROM - MICROSECOND,
    RAW_FROM,
    RAW_FROM + timedelta(minutes=10),
    datetime(2026, 3, 20, 8, 15, tzinfo=UTC),
    NOW - timedelta(minutes=1),
]


def question(start: datetime, end: datetime) -> Question:
    """Everything in a period."""
    return ask(period=Period(start, end), zone_name="UTC", group_by=[], filters={}, limits=LIMITS)


async def totals(database: Database, start: datetime, end: datetime = NOW) -> tuple[Total, ...]:
    """The totals of a period."""
    async with Snapshot(database) as snapshot:
        return await read_totals(snapshot, question(start, end))


async def events_of(database: Database, start: datetime, end: datetime = NOW) -> int:
    """How many events are counted in a period."""
    return sum(total.events for total in await totals(database, start, end))


async def points(database: Database, start: datetime, end: datetime, bucket: Bucket) -> list[list[Course]]:
    """A series of everything in a period."""
    async with Snapshot(database) as snapshot:
        _, of_groups = await read_series(snapshot, question(start, end), [()], bucket)
        return of_groups


async def fetch(database: Database, statement: str, *arguments: object) -> list[Any]:
    """The rows of a statement of the test's own."""
    async with database.connection() as connection:
        rows: list[Any] = await connection.fetch(statement, *arguments)
        return rows


async def kept(database: Database) -> Kept:
    """What is retained."""
    async with database.connection() as connection:
        return await read_kept(connection)


async def given_up(database: Database, name: str) -> None:
    """Wait until this bound stands where it should; a test that hangs has failed."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while (await kept(database)).bounds[name] < RAW_FROM:  # noqa: ASYNC110 - another task moves it
            await asyncio.sleep(0.01)


async def given(database: Database, *more: AdmittedEvent) -> list[AdmittedEvent]:
    """The history, recorded and rolled up."""
    events = [*calls(0, *HISTORY), *more]
    await record(database, events)
    await refreshed(Refresher(database), NOW)
    return events


async def run(database: Database, ages: Ages = MONTH, now: datetime = NOW) -> Kept:
    """Give up and drop what is too old; nobody else is at work."""
    done = await Retention(database, ages).run(now)
    assert done is not None
    return done


# ---------------------------------------------------------------- what is dropped


def test_figures_outlive_their_events(database_url: str) -> None:
    """When events are dropped, totals and series of what rollups answer are what they were, and the events are gone."""

    async def scenario(database: Database) -> None:
        await given(database)
        periods = [(HISTORY[0] - DAY).replace(hour=0, minute=0, second=0, microsecond=0), ROLLUPS_FROM, RAW_FROM]
        before = [await totals(database, start) for start in periods]
        series = await points(database, periods[0], NOW, Bucket.HOUR)
        done = await run(database)

        assert (RAW_FROM, RAW_FROM, RAW_FROM) == (done.taken_from, done.raw_from, done.raw_dropped_to)
        assert 10 == before[0][0].events
        assert before == [await totals(database, start) for start in periods]
        assert series == await points(database, periods[0], NOW, Bucket.HOUR)
        left = [row[0] for row in await fetch(database, "SELECT occurred_at FROM event ORDER BY 1")]
        # What is left of older ones is in the chunk that holds the border, too.
        assert (HISTORY[6:], True) == (left[-4:], left[0] >= RAW_FROM - WEEK)
        days = await fetch(database, "SELECT DISTINCT day FROM event_identity ORDER BY 1")
        # The guarding rows of the first retained day stand on the day before it, with the rest of that week.
        assert min(row["day"] for row in days) >= (RAW_FROM - WEEK - DAY).date()
        # What came meanwhile is rolled up beside what is left, and nothing is rolled up from events that are gone.
        await record(database, calls(20, RAW_FROM, NOW))
        await refreshed(Refresher(database), NOW + DAY)
        assert 12 == await events_of(database, periods[0], NOW + DAY)

    play(database_url, scenario)


@pytest.mark.parametrize("aggregation", [Aggregation.LATEST, Aggregation.TIME_WEIGHTED], ids=lambda each: each.name)
def test_a_meter_that_reads_events_says_from_when_on_it_can(database_url: str, aggregation: Aggregation) -> None:
    """Below what is kept of events it is refused, with the instant from which it is answered; what adds up goes on."""
    total, read = (
        Definition(key="calls", name="Calls", unit="call", aggregation=each, distinct=None, filters={}, rounding=None)
        for each in (Aggregation.SUM, aggregation)
    )

    async def scenario(database: Database) -> None:
        await given(database)
        await run(database)
        async with Snapshot(database) as snapshot:
            everything, kept_yet = question(ROLLUPS_FROM, NOW), question(RAW_FROM, NOW)
            await check_meter_retained(snapshot, total, everything)
            with pytest.raises(InvalidInputError, match=re.escape("answered is 2026-03-02T00:00:00Z.")):
                await check_meter_retained(snapshot, read, everything)
            await check_meter_retained(snapshot, read, kept_yet)
            assert 4 == (await read_meter_total(snapshot, read, kept_yet)).events

    play(database_url, scenario)


def test_a_day_later_the_guarding_rows_go_too(database_url: str) -> None:
    """Identities live as long as the events of their day, and a day longer where one of them may guard the next day."""

    async def scenario(database: Database) -> None:
        await given(database)
        await run(database)
        first = await fetch(database, "SELECT FROM event_identity WHERE day < $1", RAW_FROM.date())
        await run(database, now=NOW + 8 * DAY)
        later = await fetch(database, "SELECT FROM event_identity WHERE day < $1", RAW_FROM.date())

        assert (True, False) == (bool(first), bool(later))

    play(database_url, scenario)


def test_nothing_is_dropped_unless_it_is_said(database_url: str) -> None:
    """Without a retention nothing is given up, however old it is."""

    async def scenario(database: Database) -> None:
        await given(database)
        before = await kept(database)
        done = await run(database, FOR_EVER)

        assert before.bounds == done.bounds
        assert len(HISTORY) == await events_of(database, HISTORY[0])

    play(database_url, scenario)


def test_what_is_not_rolled_up_is_not_dropped(database_url: str) -> None:
    """Where the rollups are behind, or an hour is pending, its events stay until they are rolled up."""

    async def scenario(database: Database) -> None:
        await record(database, calls(0, *HISTORY))
        behind = await run(database)
        await refreshed(Refresher(database), NOW)
        await record(database, calls(20, HISTORY[3]))
        waiting = await run(database)
        counted = await events_of(database, HISTORY[3].replace(minute=30))
        await refreshed(Refresher(database), NOW)
        done = await run(database)

        assert behind.raw_from < HISTORY[0]
        assert (RAW_FROM, True) == (waiting.taken_from, waiting.raw_from < HISTORY[0])
        assert (RAW_FROM, RAW_FROM) == (done.raw_from, done.raw_dropped_to)
        assert 8 == counted == await events_of(database, HISTORY[3].replace(minute=30))

    play(database_url, scenario)


def test_rollups_are_dropped_later(database_url: str) -> None:
    """Rollups are dropped by their own age; what is left answers as before, and what is gone is refused."""

    async def scenario(database: Database) -> None:
        await given(database)
        before = await totals(database, ROLLUPS_FROM)
        await run(database)
        done = await run(database, MONTH_AND_TWO)
        after = await totals(database, ROLLUPS_FROM)
        with pytest.raises(InvalidInputError, match="kept from 2026-01-31"):
            await totals(database, ROLLUPS_FROM - timedelta(hours=1))
        # Chunks of TimescaleDB's rollups are 70 days wide, so the oldest goes when all of it is too old.
        await refreshed(Refresher(database), NOW + 100 * DAY)
        last = await run(database, MONTH_AND_TWO, NOW + 100 * DAY)

        assert (ROLLUPS_FROM, ROLLUPS_FROM) == (done.rollups_from, done.rollups_dropped_to)
        assert before == after
        assert last.rollups_from == last.rollups_dropped_to == (NOW + 40 * DAY).replace(hour=0, minute=0)
        for rollup in ROLLUPS:
            assert [] == await fetch(database, f"SELECT FROM {rollup.name} WHERE bucket < $1", HISTORY[1])

    play(database_url, scenario)


def test_the_servers_clock_has_a_say(database_url: str) -> None:
    """A process whose clock is years ahead drops nothing that is young by the server's."""

    async def scenario(database: Database) -> None:
        now = (await fetch(database, "SELECT now()"))[0][0]
        await record(database, calls(0, now - DAY))
        await refreshed(Refresher(database), now)
        done = await run(database, now=now + 3_000 * DAY)

        assert done.raw_from <= now - timedelta(days=30)
        assert 1 == await events_of(database, now - 2 * DAY, now + DAY)

    play(database_url, scenario)


def test_corrections_go_with_their_events(database_url: str) -> None:
    """What an event said before it was corrected is kept exactly as long as the event."""

    async def scenario(database: Database) -> None:
        events = await given(database)
        for event in (events[5], events[6]):
            await correct_event(database, correction_of(event, {"quantity": event.event.quantity + 1}), KEY, LIMITS)
        await refreshed(Refresher(database), NOW)
        await run(database)

        assert [RAW_FROM] == [row[0] for row in await fetch(database, "SELECT occurred_at FROM event_correction")]
        (total,) = await totals(database, RAW_FROM - DAY)
        assert 7 == total.quantity

    play(database_url, scenario)


# ---------------------------------------------------------------- what is refused


def test_an_edge_is_refused_and_what_is_named_is_answered(database_url: str) -> None:
    """A question that needs events that are gone is refused; asked from an instant that the refusal names, it is answered."""

    async def scenario(database: Database) -> None:
        await given(database)
        whole = [await events_of(database, HISTORY[3].replace(minute=minute)) for minute in (30, 45)]
        await run(database)
        with pytest.raises(InvalidInputError) as refused:
            await totals(database, HISTORY[3])
        named = [datetime.fromisoformat(text) for text in re.findall(r"20[\d:T-]+Z", str(refused.value))]
        instants = [instant for instant in named if instant != RAW_FROM]
        answers = [await events_of(database, instant) for instant in instants]

        assert [HISTORY[3].replace(minute=30), HISTORY[3].replace(minute=45)] == instants
        assert [whole[0], whole[1]] == answers == [7, 6]
        with pytest.raises(InvalidInputError, match="The buckets of this series cut them"):
            await points(database, RAW_FROM - DAY, RAW_FROM + DAY, Bucket.MINUTE)

    play(database_url, scenario)


def test_events_one_by_one_are_refused_below(database_url: str) -> None:
    """A list of events that would be half there is refused; one event that is given up is not found, dropped or not."""

    async def scenario(database: Database) -> None:
        events = await given(database)
        await run(database, now=NOW + DAY)
        async with Snapshot(database) as snapshot:
            with pytest.raises(InvalidInputError, match="Events before 2026-03-03T00:00:00Z are not kept"):
                await read_events(snapshot, question(RAW_FROM, NOW), 10, after=None, attributes=None)
        async with Snapshot(database) as snapshot:
            listed, _ = await read_events(snapshot, question(RAW_FROM + DAY, NOW), 10, after=None, attributes=None)
            one = [await read_event(snapshot, "a", "test", event.event.id, occurred_at=None) for event in events]

        assert HISTORY[:7:-1] == [event.occurred_at for event in listed]
        assert [None] * 8 == one[:8]
        assert None not in one[8:]

    play(database_url, scenario)


@pytest.mark.parametrize("later", [0, 2], ids=["where a partition begins", "within a partition and a chunk"])
def test_the_border(database_url: str, later: int) -> None:
    """A late event at the first retained instant is taken and counted; one a microsecond earlier is refused by its code."""

    async def scenario(database: Database) -> None:
        await given(database)
        raw_from = (await run(database, now=NOW + later * DAY)).raw_from
        before = await events_of(database, raw_from - DAY)
        late = submission_of([event.event for event in calls(30, raw_from, raw_from - MICROSECOND)], NOW)
        (receipt,) = await write_batch(EventLog(database), [late], LIMITS)

        assert RAW_FROM + later * DAY == raw_from
        assert (1, 0) == (receipt.accepted, receipt.duplicates)
        assert [(1, Code.OUTSIDE_RETENTION)] == [(each.index, each.code) for each in receipt.rejected]
        assert f"from {raw_from:%F}T00:00:00Z on" in receipt.rejected[0].message
        assert before + 1 == await events_of(database, raw_from - DAY)
        await refreshed(Refresher(database), NOW)
        assert before + 1 == await events_of(database, raw_from - DAY)
        kept_back = await fetch(database, "SELECT code FROM rejected_event")
        assert ["outside_retention"] == [row["code"] for row in kept_back]

    play(database_url, scenario)


def test_nothing_below_is_corrected(database_url: str) -> None:
    """An event that is given up is not corrected, whether it is dropped already or not."""

    async def scenario(database: Database) -> None:
        events = await given(database, *calls(40, RAW_FROM + timedelta(hours=1)))
        await run(database, now=NOW + DAY)
        for event in (events[0], events[-1]):
            with pytest.raises(ConflictError, match="before 2026-03-03T00:00:00Z is not kept"):
                await correct_event(database, correction_of(event, {}), KEY, LIMITS)
        by_name = correction_of(events[-1], {})
        with pytest.raises(NotFoundError):
            await correct_event(database, msgspec.structs.replace(by_name, occurred_at=None), KEY, LIMITS)

        assert 0 == await pending(database)

    play(database_url, scenario)


def test_no_partition_is_made_for_what_is_given_up(servers: dict[str, Server]) -> None:
    """On plain PostgreSQL a refused event leaves no partition behind."""

    async def scenario(database: Database) -> None:
        await given(database)
        await run(database)
        before = [await starts(database, partitioned) for partitioned in PARTITIONED]
        with pytest.raises(NotRetainedError):
            await record(database, calls(50, HISTORY[0]))

        assert before == [await starts(database, partitioned) for partitioned in PARTITIONED]

    play(servers["postgres"].clone(), scenario)


# ---------------------------------------------------------------- made ahead


async def starts(database: Database, partitioned: Any) -> Sequence[date]:
    """The first days of a table's partitions."""
    async with database.connection() as connection:
        return await attached_starts(connection, partitioned)


def test_partitions_are_made_ahead(servers: dict[str, Server]) -> None:
    """On plain PostgreSQL the partitions of the coming weeks are there: a writer at a week's turn makes none."""

    async def scenario(database: Database) -> None:
        await Retention(database, FOR_EVER).make_ahead(NOW)
        await Retention(database, FOR_EVER).make_ahead(NOW)
        made = [await starts(database, partitioned) for partitioned in PARTITIONED]
        turn = datetime(2026, 4, 6, tzinfo=UTC)
        await record(database, calls(0, turn - MICROSECOND, turn, turn + 7 * DAY))

        weeks = [date(2026, 3, 30), date(2026, 4, 6), date(2026, 4, 13)]
        assert [weeks, weeks] == [
            of_table
            for of_table, partitioned in zip(made, PARTITIONED, strict=True)
            if partitioned in {PARTITIONED_EVENT, PARTITIONED_IDENTITY}
        ]
        assert all(made)
        assert made == [await starts(database, partitioned) for partitioned in PARTITIONED]

    play(servers["postgres"].clone(), scenario)


# ---------------------------------------------------------------- who waits for whom


def test_a_writer_at_work_is_waited_for(database_url: str) -> None:
    """A writer that holds an old event while it is given up is in time: it is waited for, rolled up and counted."""

    async def scenario(database: Database) -> None:
        await given(database)
        async with writing(HeldLog(database), calls(60, HISTORY[3])) as held:
            dropping = asyncio.create_task(run(database))
            await given_up(database, "taken_from")
            # Whoever begins now is refused; whoever began before is neither refused nor lost.
            with pytest.raises(NotRetainedError):
                await record(database, calls(61, HISTORY[3]))
            assert not dropping.done()
            held.released.set()
        first = await dropping
        await refreshed(Refresher(database), NOW)
        second = await run(database)

        assert (RAW_FROM, True, RAW_FROM) == (first.taken_from, first.raw_from < RAW_FROM, second.raw_dropped_to)
        assert 1 + 7 == await events_of(database, HISTORY[3].replace(minute=0))

    play(database_url, scenario)


def test_a_reader_at_work_is_waited_for(database_url: str) -> None:
    """A snapshot from before reads every event that it knows of to its end; then they are dropped."""

    async def scenario(database: Database) -> None:
        await given(database)
        async with Snapshot(database) as snapshot:
            assert (await snapshot.horizon()).raw_from < HISTORY[0]
            dropping = asyncio.create_task(run(database))
            await given_up(database, "raw_from")
            with pytest.raises(InvalidInputError):
                await totals(database, HISTORY[0])
            (total,) = await read_totals(snapshot, question(HISTORY[0], NOW))
            assert (len(HISTORY), False) == (total.events, dropping.done())
        done = await dropping

        assert RAW_FROM == done.raw_dropped_to
        assert [] == await fetch(database, "SELECT FROM event WHERE occurred_at < $1", RAW_FROM - WEEK)

    play(database_url, scenario)


def test_one_at_a_time(database_url: str) -> None:
    """Beside a refresher at work nothing is dropped, and the other way round nothing is refreshed."""

    async def scenario(database: Database) -> None:
        await given(database)
        async with Snapshot(database) as snapshot:
            await snapshot.horizon()
            dropping = asyncio.create_task(run(database))
            await given_up(database, "raw_from")
            others = [await Refresher(database).run(NOW + DAY), await Retention(database, MONTH).run(NOW)]
        await dropping

        assert [None, None] == others

    play(database_url, scenario)


@pytest.mark.parametrize("how", ["before", "after", "during"])
def test_it_may_die_at_every_statement(database_url: str, how: str) -> None:
    """At whichever statement it dies, what is answered is what it was, and the next run brings it to the same end."""

    async def scenario(database: Database) -> None:
        await given(database)
        start = HISTORY[3].replace(minute=0)
        expected = await totals(database, start)
        statements, now, died = 0, NOW - 20 * DAY, True
        while died:
            statements += 1
            now += DAY
            died = await drop_and_die(database_url, now, Fuse(statements, how))
            assert expected == await totals(database, start), statements
            if (await kept(database)).raw_from > HISTORY[3]:
                with pytest.raises(InvalidInputError):
                    await totals(database, HISTORY[3])
            done = None
            while done is None:
                # The server may take a moment to see that the last holder of the lock is dead.
                done = await Retention(database, MONTH).run(now)
            until = min(now - 30 * DAY, done.complete_at).replace(hour=0, minute=0)
            assert (until, True) == (done.raw_from, done.is_dropped), statements
            assert expected == await totals(database, start), statements
        assert statements > 8

    play(database_url, scenario)


async def drop_and_die(database_url: str, now: datetime, fuse: Fuse) -> bool:
    """A process that gives up what is too old, and dies at the fuse's end unless it is done before; whether it died."""

    async def drop(database: Database) -> None:
        assert await Retention(database, MONTH).run(now) is not None

    return await run_and_die(database_url, fuse, drop)


# ---------------------------------------------------------------- columns


async def converted(database: Database) -> int:
    """How many chunks became columns, of what is older than two weeks."""
    chunks = await Retention(database, MONTH).convert(NOW)
    assert chunks is not None, "nobody else converts"
    return chunks


def test_columns_are_rows_to_everyone(database_url: str, engine: str) -> None:
    """After conversion late events, duplicates, conflicts, corrections and voids are what they are in rows."""

    async def scenario(database: Database) -> None:
        old = datetime(2026, 3, 10, 9, 30, tzinfo=UTC)
        events = calls(100, *(old + timedelta(minutes=minute) for minute in range(50)))
        await given(database, *events)
        chunks = await converted(database)
        late = calls(200, old, old + timedelta(hours=30))
        others = [
            *(each.event for each in late),
            *(event.event for event in events[:3]),
            calls(103, events[3].occurred_at)[0].event,
        ]
        submission = submission_of(others, NOW)
        conflicting = submission_of([msgspec.structs.replace(events[4].event, unit="byte")], NOW)
        receipts = await write_batch(EventLog(database), [submission, conflicting], LIMITS)
        changed = correction_of(events[5], {"quantity": events[5].event.quantity + 9, "user": "u"})
        await correct_event(database, changed, KEY, LIMITS)
        await correct_event(database, correction_of(events[6], {}), KEY, LIMITS)
        expected = await totals(database, old, NOW)
        await refreshed(Refresher(database), NOW)

        assert (engine == "timescaledb") == bool(chunks)
        assert [Receipt(2, 4, ()), Receipt(0, 0, receipts[1].rejected)] == receipts
        assert [Code.IDENTITY_CONFLICT] == [each.code for each in receipts[1].rejected]
        assert (53, 62) == (expected[0].events, expected[0].quantity)
        assert expected == await totals(database, old, NOW)
        # What came since lies in rows beside the columns, until it is packed again.
        again, once_more = await converted(database), await converted(database)
        assert (engine == "timescaledb", 0) == (bool(again), once_more)
        assert expected == await totals(database, old, NOW)
        assert expected[0].events == len(
            await fetch(database, "SELECT FROM event WHERE NOT voided AND occurred_at >= $1", old)
        )

    play(database_url, scenario)


def test_columns_are_dropped_as_rows_are(database_url: str) -> None:
    """Chunks that became columns are dropped by age as well, and the figures stay."""

    async def scenario(database: Database) -> None:
        await given(database)
        before = await totals(database, ROLLUPS_FROM)
        await converted(database)
        done = await run(database)

        assert RAW_FROM == done.raw_dropped_to
        assert before == await totals(database, ROLLUPS_FROM)
        assert [] == await fetch(database, "SELECT FROM event WHERE occurred_at < $1", RAW_FROM - WEEK)
        assert 4 == len(await fetch(database, "SELECT FROM event WHERE occurred_at >= $1", RAW_FROM))

    play(database_url, scenario)


def test_conversion_gives_way_to_writers(servers: dict[str, Server]) -> None:
    """A conversion that makes a late event wait is given up: the event is written, and the chunk is converted another time."""

    async def scenario(database: Database) -> None:
        old = datetime(2026, 3, 10, 9, 30, tzinfo=UTC)
        await given(database, *calls(100, old))
        async with database.snapshot() as reader:
            # Who reads a chunk keeps its conversion from ending: long enough to be met by a writer.
            await reader.fetch("SELECT FROM event WHERE occurred_at = $1", old)
            converting = asyncio.create_task(converted(database))
            await lock_waiters(database_url, 1)
            await record(database, calls(200, old + timedelta(minutes=1)))
            await converting
            chunks = await fetch(
                database,
                "SELECT FROM timescaledb_information.chunks WHERE hypertable_name = 'event' AND is_compressed "
                "AND range_start <= $1 AND range_end > $1",
                old,
            )
        again = await converted(database)

        assert ([], True) == (chunks, again > 0)
        assert 2 == await events_of(database, old, old + DAY)

    if "timescaledb" not in servers:
        pytest.skip("only TimescaleDB has a columnstore")
    database_url = servers["timescaledb"].clone()
    play(database_url, scenario)


def test_a_conversion_may_die_at_every_statement(servers: dict[str, Server]) -> None:
    """At whichever statement a conversion dies, figures are what they were, late events are taken, and the next one ends it."""

    async def columns(database: Database) -> int:
        rows = await fetch(database, "SELECT FROM timescaledb_information.chunks WHERE is_compressed")
        return len(rows)

    async def scenario(database: Database) -> None:
        old = datetime(2026, 3, 10, 9, 30, tzinfo=UTC)
        await given(database, *calls(100, old))
        for number, how in enumerate(("before", "after", "during"), start=1):
            statements, died = 0, True
            while died:
                statements += 1
                # Something to convert each time.
                await record(database, calls(1_000 * number + statements, old + timedelta(minutes=statements)))
                expected = await totals(database, old, NOW)
                died = await run_and_die(database_url, Fuse(statements, how), convert)
                assert expected == await totals(database, old, NOW), (how, statements)
                # The server may take a moment to see that the last holder of the lock is dead.
                chunks = None
                while chunks is None:
                    chunks = await Retention(database, MONTH).convert(NOW)
                assert 0 == await converted(database), (how, statements)
                assert expected == await totals(database, old, NOW), (how, statements)
            assert statements > 5
        assert await columns(database) > 0

    async def convert(database: Database) -> None:
        await Retention(database, MONTH).convert(NOW)

    if "timescaledb" not in servers:
        pytest.skip("only TimescaleDB has a columnstore")
    with servers["timescaledb"].cloned() as database_url:
        play(database_url, scenario)


# ---------------------------------------------------------------- the service


QUESTION: Final = """
query ($from: DateTime!, $to: DateTime!, $bucket: Bucket!) {
  usage(query: { period: { from: $from, to: $to } }) {
    ... on UsageReport { totals { events } groups { nodes { series(bucket: $bucket) { points { events } } } } }
    ... on InvalidInput { issues { path message } }
  }
}
"""


def test_the_service_forgets_by_itself(database_url: str) -> None:
    """With a retention the worker drops what is older; GraphQL names the instants that are answered, and doctor what is kept."""
    now = datetime.now(UTC)
    at = (now - 40 * DAY).replace(minute=37, second=0, microsecond=0)
    before, after = at.replace(minute=30), at.replace(minute=45)
    with running(database_url) as api:
        assert 1 == api.send(usage_event(1, occurred_at=at.isoformat()))["accepted"]
    with running(database_url, retention_days=30, refresh_seconds=0.05) as api:
        variables = {"from": at.isoformat(), "to": now.isoformat(), "bucket": "DAY"}
        asyncio.run(dropped(database_url))
        refused = api.ask(QUESTION, variables)["usage"]["issues"]
        answers = [
            api.ask(QUESTION, {**variables, "from": start.isoformat()})["usage"]["totals"] for start in (before, after)
        ]
        short = {"from": before.isoformat(), "to": after.isoformat(), "bucket": "MINUTE"}
        cut = api.ask(QUESTION, short)["usage"]["issues"]

    assert "The buckets of this series cut them" in cut[0]["message"]
    assert [["query", "period", "from"]] == [issue["path"] for issue in refused]
    for start in (before, after):
        assert start.isoformat().replace("+00:00", "Z") in refused[0]["message"]
    assert [[{"events": "1"}], []] == answers


async def dropped(database_url: str) -> None:
    """Wait until something was dropped; a test that waits too long has failed."""
    database = await connect(database_url)
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while (await kept(database)).raw_dropped_to.year == 1:  # noqa: ASYNC110 - the service drops
                await asyncio.sleep(0.05)
    finally:
        await database.close()


@pytest.mark.parametrize(
    ("days", "raw_from", "dropped_to", "status", "said"),
    [
        (None, None, None, Status.PASS, "nothing is dropped: METERING_RETENTION_DAYS is not set"),
        (30, RAW_FROM, RAW_FROM, Status.PASS, "events from 2026-03-02T00:00:00Z on, rollups from the beginning on"),
        (30, RAW_FROM - 2 * DAY, RAW_FROM - 2 * DAY, Status.WARN, "still to be dropped"),
        (30, RAW_FROM, RAW_FROM - 2 * DAY, Status.WARN, "still to be dropped"),
        (30, RAW_FROM, RAW_FROM - DAY, Status.PASS, "events from 2026-03-02"),
    ],
)
def test_doctor_says_what_is_retained(
    days: int | None, raw_from: datetime | None, dropped_to: datetime | None, status: Status, said: str
) -> None:
    """What is retained is said; it is a warning where what should be dropped has not been for two days."""
    first = datetime(1, 1, 1, tzinfo=UTC)
    raw_from, dropped_to = raw_from or first, dropped_to or first
    now = Kept(raw_from, raw_from, first, dropped_to, first, NOW, NOW)
    check = retention_check(now, Settings(retention_days=days))

    assert status is check.status
    assert said in check.detail


def test_doctor_says_how_large_it_is(database_url: str, run_cli: Callable[..., Any]) -> None:
    """The sizes of events, identities and rollups are told, on each engine."""
    play(database_url, lambda database: ignoring(given(database)))
    ended = run_cli("doctor", METERING_DATABASE_URL=database_url)

    assert 0 == ended.returncode, ended.stderr
    # A cell of the table may take several lines.
    told = " ".join(ended.stdout.replace("│", " ").split())
    found = re.search(r"event ([\d.]+) MiB, event_identity ([\d.]+) MiB, rollups ([\d.]+) MiB", told)
    assert found is not None, ended.stdout
    assert all(float(size) > 0 for size in found.groups())


async def ignoring(work: Awaitable[object]) -> None:
    """Wait for it, whatever it returns."""
    await work
