"""Series in the zones whose clocks are odd, through the database, over both changes of 2025: each point is the naive count."""

import asyncio
from bisect import bisect_right
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import accumulate, pairwise
from typing import Final

import pytest

from metering.config import Settings
from metering.limits import LIMITS
from metering.periods import Bucket, Period, zone_of
from metering.questions import ask
from metering.rollups.read import UsageRow, read_period_rows, read_series
from metering.rollups.refresh import Refresher
from metering.store.partitions import Partitions
from metering.store.pool import Database
from metering.store.snapshot import Snapshot
from metering.store.tables import PARTITIONED_EVENT
from tests.conftest import ENGINES, Server

# The changes of 2025 in each; where there is none, two days when others change.
CHANGES: Final = {
    "UTC": ("2025-03-30", "2025-10-26"),
    "Africa/Casablanca": ("2025-02-23", "2025-04-06"),
    "America/New_York": ("2025-03-09", "2025-11-02"),
    "America/St_Johns": ("2025-03-09", "2025-11-02"),
    "Asia/Kathmandu": ("2025-03-30", "2025-10-26"),
    "Asia/Kolkata": ("2025-03-30", "2025-10-26"),
    "Australia/Lord_Howe": ("2025-04-05", "2025-10-04"),
    "Europe/Berlin": ("2025-03-30", "2025-10-26"),
    "Pacific/Apia": ("2025-03-30", "2025-10-26"),
    "Pacific/Chatham": ("2025-04-05", "2025-09-27"),
}
DAY: Final = timedelta(days=1)
# Every so often, all year: no multiple of a quarter of an hour, so that every edge has events on either side.
STEP: Final = timedelta(minutes=7, seconds=30)
YEAR: Final = Period(datetime(2025, 1, 1, tzinfo=UTC), datetime(2026, 1, 1, tzinfo=UTC))
_EVENTS: Final = """
INSERT INTO event (account, occurred_at, key, source, event_id, received_at, product, unit, quantity)
SELECT 'acme', at, decode(md5(at::text), 'hex'), 'test', at::text, at, 'maps', 'call', 0.5
FROM generate_series($1::timestamptz, $2::timestamptz - interval '1 second', $3::interval) AS at
"""


@pytest.fixture(scope="module", params=ENGINES)
def url(servers: dict[str, Server], request: pytest.FixtureRequest) -> Iterator[str]:
    """A year of events, most of it rolled up: the horizon stands in the autumn's last week."""
    server = servers[request.param]
    url = server.clone()

    async def fill() -> None:
        async with opened(url) as database:
            days = [YEAR.start.date() + index * DAY for index in range(365)]
            await Partitions(database).ensure(PARTITIONED_EVENT, days)
            async with database.connection() as connection:
                await connection.execute(_EVENTS, YEAR.start, YEAR.end, STEP)
            assert await Refresher(database).run(datetime(2025, 10, 26, 15, 30, tzinfo=UTC)) is not None

    asyncio.run(fill())
    yield url
    server.drop(url)


_EVENTS_AT: Final = """
INSERT INTO event (account, occurred_at, key, source, event_id, received_at, product, unit, quantity)
SELECT 'acme', at, decode(md5(at::text), 'hex'), 'test', at::text, at, 'maps', 'call', 0.5 FROM unnest($1::timestamptz[]) AS at
"""


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[Database]:
    """A pool."""
    database = await Database.connect(Settings(database_url=url), LIMITS)
    try:
        yield database
    finally:
        await database.close()


def label_of(instant: datetime, zone_name: str, bucket: Bucket) -> tuple[object, ...]:
    """What the wall shows of the bucket; with the offset where a clock shows the same time twice."""
    wall = instant.astimezone(zone_of(zone_name))
    match bucket:
        case Bucket.MINUTE:
            return wall.date(), wall.hour, wall.minute, wall.utcoffset()
        case Bucket.HOUR:
            # Lord Howe is set back by half an hour inside one hour, which has 90 minutes then.
            return wall.date(), wall.hour, None if zone_name == "Australia/Lord_Howe" else wall.utcoffset()
        case Bucket.DAY:
            return (wall.date(),)
        case Bucket.WEEK:
            return wall.isocalendar()[:2]
        case Bucket.MONTH:
            return wall.year, wall.month


def events_of(period: Period) -> list[datetime]:
    """When the period's events happened."""
    first = -((YEAR.start - period.start) // STEP)
    count = -((period.start - period.end) // STEP) + 1
    instants = [YEAR.start + (first + index) * STEP for index in range(-1, count)]
    return [instant for instant in instants if period.start <= instant < period.end and instant < YEAR.end]


@pytest.mark.parametrize("zone_name", CHANGES)
@pytest.mark.parametrize("bucket", Bucket)
def test_every_point_is_what_the_wall_shows(url: str, zone_name: str, bucket: Bucket) -> None:
    """Around both changes, events counted by what the wall shows at each are the series, point by point; none is lost."""

    async def scenario() -> None:
        async with opened(url) as database:
            for change in CHANGES[zone_name]:
                day = datetime.fromisoformat(change).replace(tzinfo=UTC)
                # Begins and ends inside a minute.
                room = timedelta(hours=16) if bucket is Bucket.MINUTE else 3 * DAY
                await compare(database, zone_name, bucket, Period(day - room + timedelta(seconds=17), day + DAY + room))

    asyncio.run(scenario())


async def compare(database: Database, zone_name: str, bucket: Bucket, period: Period) -> None:
    """Compare one series with the naive count."""
    question = ask(period=period, zone_name=zone_name, group_by=[], filters={}, limits=LIMITS)
    async with Snapshot(database) as snapshot:
        bounds, (courses,) = await read_series(snapshot, question, [()], bucket)
    events = events_of(period)
    expected = Counter(label_of(instant, zone_name, bucket) for instant in events)

    points = [point for each in courses for point in zip(each.buckets, each.quantities, each.events, strict=True)]
    actual = {label_of(bounds[place], zone_name, bucket): count for place, _, count in points}
    assert expected == actual
    assert len(points) == len(actual)
    assert Decimal(len(events)) / 2 == sum(Decimal(quantity) for _, quantity, _ in points)
    by_place = Counter(bisect_right(bounds, instant) - 1 for instant in events)
    assert by_place == {place: count for place, _, count in points}
    assert all(start < end for start, end in pairwise(bounds))


def test_periods_of_any_width_have_what_happened_in_them(url: str) -> None:
    """However short they are, and however many of one width: what happens at a bound, or just before it, is in no other one."""
    start = YEAR.end + timedelta(days=40, microseconds=7)
    runs = ((100_000, 30), (1, 9), (333_333, 12), (7, 5), (86_400_000_000, 1), (3, 4))
    widths = [timedelta(microseconds=width) for width, count in runs for _ in range(count)]
    bounds = list(accumulate(widths, initial=start))
    instants = sorted(
        {at for bound in bounds for at in (bound, bound - timedelta.resolution) if start <= at < bounds[-1]}
    )
    periods = [Period(*each) for each in pairwise(bounds)]

    async def scenario() -> list[UsageRow]:
        async with opened(url) as database:
            days = [start.date() + index * DAY for index in range(3)]
            await Partitions(database).ensure(PARTITIONED_EVENT, days)
            async with database.connection() as connection:
                await connection.execute(_EVENTS_AT, instants)
            whole = Period(bounds[0], bounds[-1])
            question = ask(period=whole, zone_name="UTC", group_by=[], filters={}, limits=LIMITS)
            async with Snapshot(database) as snapshot:
                return [row async for rows in read_period_rows(snapshot, question, periods, 10) for row in rows]

    found = [(Period(row.start, row.end), row.total.events) for row in asyncio.run(scenario())]
    expected = [(each, sum(each.start <= at < each.end for at in instants)) for each in periods]
    assert expected == found
