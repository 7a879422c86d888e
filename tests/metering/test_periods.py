"""Buckets are what a wall clock and a wall calendar would show, in every zone and over every change of the clocks."""

import importlib.resources
from bisect import bisect_right
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta, timezone, tzinfo
from itertools import accumulate, pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metering.periods import (
    SHORTEST,
    Bucket,
    Period,
    bucket_bounds,
    bucket_stretches,
    day_start,
    stretches,
    zone_names,
    zone_of,
)
from tests.strategies import MANY, MICROSECOND, SOME, bucketed_periods, instants, periods

MINUTE = timedelta(minutes=1)
# A change between two quarters would be seen late, and so as a difference.
QUARTER = timedelta(minutes=15)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)


def at(text: str) -> datetime:
    """An instant in UTC, written short."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


# ---------------------------------------------------------------- the naive computation


def label_of(wall: datetime, bucket: Bucket) -> tuple[int, ...]:
    """What a clock on the wall, or a calendar, shows of a bucket."""
    match bucket:
        case Bucket.MINUTE:
            return wall.year, wall.month, wall.day, wall.hour, wall.minute
        case Bucket.HOUR:
            return wall.year, wall.month, wall.day, wall.hour
        case Bucket.DAY:
            return wall.year, wall.month, wall.day
        case Bucket.WEEK:
            return wall.isocalendar()[:2]
        case Bucket.MONTH:
            return wall.year, wall.month


def naive_starts(watched: Period, zone: tzinfo, bucket: Bucket, step: timedelta) -> list[datetime]:
    """Where buckets begin, found by watching the wall step by step.

    An hour or a minute begins when its label appears, and when the clock shows it full (again: an hour that is repeated
    is an hour of its own). A day, a week or a month begins when its label appears for the first time.
    """
    seen = [watched.start + index * step for index in range((watched.end - watched.start) // step)]
    walls = [instant.astimezone(zone) for instant in seen]
    labels = [label_of(wall, bucket) for wall in walls]
    if bucket in {Bucket.HOUR, Bucket.MINUTE}:
        full = [wall.second == 0 and (bucket is Bucket.MINUTE or wall.minute == 0) for wall in walls]
        begins = [now != before or sharp for (before, now), sharp in zip(pairwise(labels), full[1:], strict=True)]
    else:
        begins = [latest != before for before, latest in pairwise(accumulate(labels, max))]
    return [instant for instant, begun in zip(seen[1:], begins, strict=True) if begun]


def naive_bounds(period: Period, starts: Sequence[datetime]) -> tuple[datetime, ...]:
    """The bounds of a period's buckets, given where buckets begin from well before until well after it."""
    first = max(start for start in starts if start <= period.start)
    last = min(start for start in starts if start >= period.end)
    return tuple(start for start in starts if first <= start <= last)


# ---------------------------------------------------------------- all zones


def distinct_zones() -> dict[str, ZoneInfo]:
    """Every zone that there is; of links, which are the same file under another name, one."""
    names = {}
    for name in sorted(zone_names(), reverse=True):
        names[importlib.resources.files("tzdata").joinpath("zoneinfo", *name.split("/")).read_bytes()] = name
    return {name: zone_of(name) for name in names.values()}


def changes_of_2025(zone: tzinfo) -> list[datetime]:
    """The UTC days of 2025 within which the zone's offset changes; where there is none, two days when others change."""
    days = [at("2025-01-01") + index * DAY for index in range(366)]
    offsets = [day.astimezone(zone).utcoffset() for day in days]
    changes = [day for day, (before, after) in zip(days, pairwise(offsets), strict=False) if before != after]
    return changes or [at("2025-03-30"), at("2025-10-26")]


def test_all_zones_days_and_hours_over_the_changes_of_2025() -> None:
    """In every zone, the days and hours around each change of 2025 begin exactly when the wall shows that they do."""
    wrong = []
    for name, zone in distinct_zones().items():
        for change in changes_of_2025(zone):
            watched = Period(change - 2 * DAY, change + 3 * DAY)
            asked = Period(change - 5 * HOUR + MICROSECOND, change + DAY + 5 * HOUR)
            for bucket in (Bucket.DAY, Bucket.HOUR):
                expected = naive_bounds(asked, naive_starts(watched, zone, bucket, QUARTER))
                if expected != bucket_bounds(asked, zone, bucket):
                    wrong.append((name, change, bucket))

    assert wrong == []


def test_all_zones_weeks_over_the_changes_of_2025() -> None:
    """In every zone, the weeks around each change of 2025 begin exactly when the wall shows that they do."""
    wrong = []
    for name, zone in distinct_zones().items():
        for change in changes_of_2025(zone):
            asked = Period(change - HOUR, change + DAY + HOUR)
            starts = naive_starts(Period(change - 9 * DAY, change + 10 * DAY), zone, Bucket.WEEK, QUARTER)
            if naive_bounds(asked, starts) != bucket_bounds(asked, zone, Bucket.WEEK):
                wrong.append((name, change))

    assert wrong == []


def test_all_zones_months_of_2025() -> None:
    """In every zone, the months of 2025 begin exactly when the wall first shows their first day."""
    wrong = []
    for name, zone in distinct_zones().items():
        firsts = [at(f"2025-{month:02}-01") for month in range(1, 13)] + [at("2026-01-01")]
        starts = []
        for first in firsts:
            (start,) = naive_starts(Period(first - DAY, first + DAY), zone, Bucket.MONTH, QUARTER)
            starts.append(start)
        if tuple(starts) != bucket_bounds(Period(starts[0], starts[-1]), zone, Bucket.MONTH):
            wrong.append(name)

    assert wrong == []


def test_all_zones_minutes_over_the_changes_of_2025() -> None:
    """In every zone, the minutes of two hours around each change of 2025 begin exactly when the wall shows that they do."""
    wrong = []
    for name, zone in distinct_zones().items():
        for day in changes_of_2025(zone):
            quarters = [day + index * QUARTER for index in range(4 * 24 + 1)]
            offsets = [quarter.astimezone(zone).utcoffset() for quarter in quarters]
            changes = [q for q, (before, now) in zip(quarters[1:], pairwise(offsets), strict=True) if before != now]
            change = changes[0] if changes else day
            asked = Period(change - HOUR + MICROSECOND, change + HOUR - MICROSECOND)
            starts = naive_starts(Period(change - 2 * HOUR, change + 2 * HOUR), zone, Bucket.MINUTE, MINUTE)
            if naive_bounds(asked, starts) != bucket_bounds(asked, zone, Bucket.MINUTE):
                wrong.append((name, change))

    assert wrong == []


def test_all_zones_days_of_2025() -> None:
    """In every zone the year 2025 is 365 days, ascending, each from local midnight to local midnight or a change there."""
    wrong = []
    for name, zone in distinct_zones().items():
        new_year = datetime(2025, 1, 1, tzinfo=zone).astimezone(UTC)
        bounds = bucket_bounds(Period(new_year, datetime(2026, 1, 1, tzinfo=zone).astimezone(UTC)), zone, Bucket.DAY)
        shown = [bound.astimezone(zone).date() for bound in bounds]
        shortest = min(end - start for start, end in pairwise(bounds))
        if shown != [date(2025, 1, 1) + index * DAY for index in range(366)] or shortest < SHORTEST[Bucket.DAY]:
            wrong.append(name)

    assert wrong == []


def test_links_are_zones() -> None:
    """A zone's every name is understood, and kept as its key."""
    assert sorted(zone_names()) == [zone_of(name).key for name in sorted(zone_names())]


# ---------------------------------------------------------------- days and hours that are out of the ordinary


@pytest.mark.parametrize(
    ("zone_name", "bucket", "expected"),
    [
        pytest.param(
            "Australia/Lord_Howe",
            Bucket.HOUR,
            ["2025-04-05T13:00", "2025-04-05T14:00", "2025-04-05T15:30", "2025-04-05T16:30"],
            id="Lord Howe is set back by half an hour: the hour of the change has 90 minutes",
        ),
        pytest.param(
            "Australia/Lord_Howe",
            Bucket.HOUR,
            ["2025-10-04T14:30", "2025-10-04T15:30", "2025-10-04T16:00", "2025-10-04T17:00"],
            id="Lord Howe is set forward by half an hour: the hour of the change has 30 minutes",
        ),
        pytest.param(
            "Europe/Berlin",
            Bucket.HOUR,
            ["2025-10-25T23:00", "2025-10-26T00:00", "2025-10-26T01:00", "2025-10-26T02:00"],
            id="Berlin's hour from two to three comes twice, as two buckets",
        ),
        pytest.param(
            "Pacific/Apia",
            Bucket.DAY,
            ["2011-12-28T10:00", "2011-12-29T10:00", "2011-12-30T10:00", "2011-12-31T10:00"],
            id="Samoa's 30 December 2011 is no bucket: the 29th is followed by the 31st",
        ),
        pytest.param(
            "Pacific/Apia",
            Bucket.WEEK,
            ["2011-12-19T10:00", "2011-12-26T10:00", "2012-01-01T10:00"],
            id="Samoa's last week of 2011 has six days",
        ),
        pytest.param(
            "Asia/Beirut",
            Bucket.DAY,
            ["2025-03-28T22:00", "2025-03-29T22:00", "2025-03-30T21:00"],
            id="Beirut's spring day has no midnight and begins at one",
        ),
        pytest.param(
            "Asia/Beirut",
            Bucket.DAY,
            ["2025-10-24T21:00", "2025-10-25T22:00", "2025-10-26T22:00"],
            id="Beirut is set back at midnight: the day before has 25 hours",
        ),
        pytest.param(
            "America/Nuuk",
            Bucket.DAY,
            ["2025-03-29T02:00", "2025-03-30T01:00", "2025-03-31T01:00"],
            id="Nuuk is set forward to midnight: the day before has 23 hours",
        ),
        pytest.param(
            "America/Nuuk",
            Bucket.DAY,
            ["2025-10-25T01:00", "2025-10-26T02:00", "2025-10-27T02:00"],
            id="Nuuk is set back from midnight: the day before has 25 hours",
        ),
        pytest.param(
            "America/Havana",
            Bucket.DAY,
            ["2025-03-08T05:00", "2025-03-09T05:00", "2025-03-10T04:00"],
            id="Havana's spring day has no midnight and 23 hours",
        ),
        pytest.param(
            "America/Havana",
            Bucket.DAY,
            ["2025-11-01T04:00", "2025-11-02T04:00", "2025-11-03T05:00"],
            id="Havana's autumn day has two midnights and begins at the first",
        ),
        pytest.param(
            "America/St_Johns",
            Bucket.DAY,
            ["2010-11-06T02:30", "2010-11-07T02:30", "2010-11-08T03:30"],
            id="Newfoundland was set back from 00:01: the day had begun and goes on",
        ),
        pytest.param(
            "America/St_Johns",
            Bucket.MONTH,
            ["2009-10-01T02:30", "2009-11-01T02:30", "2009-12-01T03:30"],
            id="Newfoundland's November 2009 had begun when the clock showed October again",
        ),
        pytest.param(
            "America/Toronto",
            Bucket.DAY,
            ["1919-03-30T05:00", "1919-03-31T04:30", "1919-04-01T04:00"],
            id="Toronto was once set forward from 23:30: the new day began at half past midnight",
        ),
        pytest.param(
            "Asia/Kathmandu",
            Bucket.HOUR,
            ["2025-06-01T00:15", "2025-06-01T01:15", "2025-06-01T02:15"],
            id="Kathmandu's hours begin at a quarter past",
        ),
        pytest.param(
            "Asia/Kolkata",
            Bucket.DAY,
            ["2025-05-31T18:30", "2025-06-01T18:30", "2025-06-02T18:30"],
            id="Kolkata's days begin at half past",
        ),
        pytest.param(
            "Europe/Berlin",
            Bucket.WEEK,
            ["2025-03-23T23:00", "2025-03-30T22:00", "2025-04-06T22:00"],
            id="a week begins on Monday and is an hour shorter in spring",
        ),
        pytest.param(
            "Europe/Berlin",
            Bucket.MONTH,
            ["2024-11-30T23:00", "2024-12-31T23:00", "2025-01-31T23:00", "2025-02-28T23:00", "2025-03-31T22:00"],
            id="months begin at local midnight, over a year's end and a change",
        ),
        pytest.param(
            "UTC", Bucket.MONTH, ["2024-02-01", "2024-03-01", "2024-04-01"], id="February of a leap year has 29 days"
        ),
        pytest.param(
            "Africa/Monrovia",
            Bucket.MINUTE,
            ["1972-01-07T00:43:30", "1972-01-07T00:44:30", "1972-01-07T00:45:00", "1972-01-07T00:46:00"],
            id="Monrovia was behind by 44 minutes and 30 seconds until it was not",
        ),
    ],
)
def test_out_of_the_ordinary(zone_name: str, bucket: Bucket, expected: Sequence[str]) -> None:
    """Where the calendar is odd, the bounds are those that its people knew; also of the shortest periods in it."""
    bounds = tuple(at(text) for text in expected)
    zone = zone_of(zone_name)

    assert bounds == bucket_bounds(Period(bounds[0], bounds[-1]), zone, bucket)
    assert bounds == bucket_bounds(Period(bounds[1] - MICROSECOND, bounds[-2] + MICROSECOND), zone, bucket)
    for start, end in pairwise(bounds):
        assert (start, end) == bucket_bounds(Period(start, start + MICROSECOND), zone, bucket)
        assert (start, end) == bucket_bounds(Period(end - MICROSECOND, end), zone, bucket)


@pytest.mark.parametrize(
    ("zone_name", "change"),
    [
        ("America/St_Johns", "2010-11-07T02:31"),
        ("America/St_Johns", "2009-11-01T02:31"),
        ("America/Goose_Bay", "1988-10-30T02:01"),
        ("Antarctica/Casey", "2010-03-04T15:00"),
        ("Pacific/Apia", "2011-12-30T10:00"),
        ("Pacific/Kwajalein", "1993-08-21T12:00"),
        ("America/Caracas", "2016-05-01T07:00"),
        ("Asia/Pyongyang", "2018-05-04T15:00"),
        ("Antarctica/Troll", "2025-03-30T01:00"),
    ],
)
@pytest.mark.parametrize("bucket", [Bucket.HOUR, Bucket.DAY])
def test_around_a_change(zone_name: str, change: str, bucket: Bucket) -> None:
    """Periods of any length that begin shortly before or after a change are cut where the wall shows it."""
    zone = zone_of(zone_name)
    starts = naive_starts(Period(at(change) - 3 * DAY, at(change) + 4 * DAY), zone, bucket, MINUTE)
    begins = [at(change) + index * timedelta(minutes=29, microseconds=1) for index in range(-4, 5)]
    wanted = [Period(begin, begin + length) for begin in begins for length in (MICROSECOND, HOUR, DAY)]

    expected = [naive_bounds(period, starts) for period in wanted]

    assert expected == [bucket_bounds(period, zone, bucket) for period in wanted]


def test_minutes_when_offsets_had_seconds() -> None:
    """Where an offset had seconds, minutes begin when the wall shows them."""
    zone = zone_of("Africa/Monrovia")
    watched = Period(at("1972-01-07T00:38:00"), at("1972-01-07T00:52:00"))
    period = Period(at("1972-01-07T00:42:10"), at("1972-01-07T00:47:10"))

    expected = naive_bounds(period, naive_starts(watched, zone, Bucket.MINUTE, timedelta(seconds=1)))

    assert expected == bucket_bounds(period, zone, Bucket.MINUTE)


# ---------------------------------------------------------------- properties


@MANY
@given(asked=bucketed_periods())
def test_bounds_enclose_the_period_tightly(asked: tuple[Period, str, Bucket]) -> None:
    """Bounds ascend; the first bucket holds the period's first instant, the last one its last."""
    period, zone_name, bucket = asked
    bounds = bucket_bounds(period, zone_of(zone_name), bucket)

    assert sorted(set(bounds)) == list(bounds)
    assert bounds[0] <= period.start < bounds[1]
    assert bounds[-2] < period.end <= bounds[-1]


@MANY
@given(asked=bucketed_periods(), instant=instants())
def test_stretches_are_the_buckets_in_few_words(asked: tuple[Period, str, Bucket], instant: datetime) -> None:
    """One by one they are the buckets; neighbours differ in width; and of each as many lie before an instant as end by then."""
    period, zone_name, bucket = asked
    bounds = bucket_bounds(period, zone_of(zone_name), bucket)
    told = bucket_stretches(period, zone_of(zone_name), bucket)

    assert [Period(*each) for each in pairwise(bounds)] == [each for stretch in told for each in stretch.periods()]
    assert all(before.width != after.width for before, after in pairwise(told))
    for stretch in told:
        each = list(stretch.periods())
        assert (each[-1].start, each[-1].end) == (stretch.last, stretch.end)
        for at in (instant, period.start, period.end, each[0].end):
            assert sum(one.end <= at for one in each) == stretch.count_before(at)
        cut = len(each) // 2
        assert each == [*stretch.part(0, cut).periods(), *stretch.part(cut, stretch.count).periods()]


def test_an_hour_of_minutes_is_one_stretch() -> None:
    """However many buckets there are, those of one width are told at once; of one bound there are none."""
    period = Period(at("2026-03-10"), at("2026-03-20"))
    (stretch,) = bucket_stretches(period, zone_of("UTC"), Bucket.MINUTE)

    assert (period.start, period.end, 14_400) == (stretch.start, stretch.end, stretch.count)
    assert () == stretches([period.start])


@MANY
@given(asked=bucketed_periods())
def test_a_bucket_is_one_label_of_the_wall(asked: tuple[Period, str, Bucket]) -> None:
    """The wall shows the same label all through a bucket, and no day, week or month is in two of them."""
    period, zone_name, bucket = asked
    zone = zone_of(zone_name)
    bounds = bucket_bounds(period, zone, bucket)
    shown = []
    for start, end in pairwise(bounds):
        samples = [start, start + (end - start) / 3, start + (end - start) * 2 / 3, end - MICROSECOND]
        shown.append({label_of(sample.astimezone(zone), bucket) for sample in samples})

    assert [1] * len(shown) == [len(labels) for labels in shown]
    if bucket not in {Bucket.HOUR, Bucket.MINUTE}:
        assert len(shown) == len(set.union(*shown))


@MANY
@given(data=st.data())
def test_any_period_around_a_change_of_any_zone(data: st.DataObject) -> None:
    """A period by chance within days of a change, in any zone, has the minutes, hours, days and weeks of the wall."""
    zone = zone_of(data.draw(st.sampled_from(sorted(zone_names()))))
    change = data.draw(st.sampled_from(changes_of_2025(zone)))
    bucket, step, room = data.draw(
        st.sampled_from(
            [
                (Bucket.MINUTE, MINUTE, HOUR),
                (Bucket.HOUR, QUARTER, 2 * DAY),
                (Bucket.DAY, QUARTER, 2 * DAY),
                (Bucket.WEEK, QUARTER, 8 * DAY),
            ]
        )
    )
    longest = 4 * HOUR if bucket is Bucket.MINUTE else 3 * DAY
    seconds = data.draw(st.integers(-2 * 86_400, 2 * 86_400))
    microseconds = data.draw(st.integers(1, longest // MICROSECOND))
    start = change + timedelta(seconds=seconds)
    asked = Period(start, start + microseconds * MICROSECOND)
    first = asked.start - room - (asked.start - at("2025-01-01")) % step
    starts = naive_starts(Period(first, asked.end + room + step), zone, bucket, step)

    assert naive_bounds(asked, starts) == bucket_bounds(asked, zone, bucket)


@SOME
@given(asked=bucketed_periods(), instant=instants())
def test_bounds_do_not_depend_on_the_period(asked: tuple[Period, str, Bucket], instant: datetime) -> None:
    """A period cut in two anywhere has, in its two parts together, the bounds of the whole."""
    period, zone_name, bucket = asked
    zone = zone_of(zone_name)
    middle = period.start + (instant - datetime(2000, 1, 1, tzinfo=UTC)) % (period.end - period.start)
    parts = [Period(period.start, middle), Period(middle, period.end)]

    together = {bound for part in parts for bound in bucket_bounds(part, zone, bucket)}

    assert tuple(sorted(together)) == bucket_bounds(period, zone, bucket)


@SOME
@given(period=periods(timedelta(days=20)))
def test_utc_is_arithmetic(period: Period) -> None:
    """In UTC, and where the offset never changes, hours and days are whole multiples since an epoch."""
    for zone in (UTC, zone_of("UTC"), timezone(timedelta(hours=3, minutes=45))):
        for bucket, width in ((Bucket.HOUR, HOUR), (Bucket.DAY, DAY)):
            epoch = datetime(2000, 1, 1, tzinfo=zone)
            first, last = (period.start - epoch) // width, -((epoch - period.end) // width)
            expected = tuple((epoch + index * width).astimezone(UTC) for index in range(first, last + 1))

            assert expected == bucket_bounds(period, zone, bucket)


@SOME
@given(asked=bucketed_periods())
def test_shortest_bounds_the_number_of_buckets(asked: tuple[Period, str, Bucket]) -> None:
    """There are no more buckets than the shortest ones would fill the period, and one at each end."""
    period, zone_name, bucket = asked
    count = len(bucket_bounds(period, zone_of(zone_name), bucket)) - 1

    assert count <= (period.end - period.start) // SHORTEST[bucket] + 2


@SOME
@given(instant=instants())
def test_instants_lie_in_the_bucket_of_their_label(instant: datetime) -> None:
    """Each instant of a month lies in the day that the calendar on the wall shows, in zones that change at midnight."""
    for name in ("Asia/Beirut", "America/Havana", "America/Nuuk", "America/Santiago", "Australia/Lord_Howe"):
        zone = zone_of(name)
        bounds = bucket_bounds(Period(instant - 20 * DAY, instant + 20 * DAY), zone, Bucket.DAY)
        held_by = bounds[bisect_right(bounds, instant) - 1]

        assert instant.astimezone(zone).date() == held_by.astimezone(zone).date()
        assert day_start(instant.astimezone(zone).date(), zone) == held_by


# ---------------------------------------------------------------- what is no period, no bucket, no zone


@pytest.mark.parametrize("bucket", Bucket)
@pytest.mark.parametrize("length", [timedelta(0), -MICROSECOND, -DAY])
def test_an_empty_period_has_no_buckets(bucket: Bucket, length: timedelta) -> None:
    """A period that holds no instant touches no bucket."""
    start = at("2025-06-01T12:34:56")

    assert bucket_bounds(Period(start, start + length), zone_of("Europe/Berlin"), bucket) == ()


@pytest.mark.parametrize("tz", [None, timezone(timedelta(hours=1)), ZoneInfo("Europe/Berlin")])
def test_a_period_is_in_utc(tz: tzinfo | None) -> None:
    """A period's ends are instants in UTC; anything else is our own mistake and caught at once."""
    utc, other = datetime(2025, 6, 1, tzinfo=UTC), datetime(2025, 7, 1, tzinfo=tz)

    with pytest.raises(AssertionError, match="end is in UTC"):
        Period(utc, other)
    with pytest.raises(AssertionError, match="start is in UTC"):
        Period(other, utc)


@pytest.mark.parametrize(
    "name", ["", "Mars/Olympus", "europe/berlin", "Europe/Berlin ", "Europe", "../UTC", "zones", "UTC\0", "+01:00"]
)
def test_what_is_no_zone(name: str) -> None:
    """A name that the pinned tzdata does not list is no zone, whatever files lie beside it."""
    with pytest.raises(KeyError):
        zone_of(name)
