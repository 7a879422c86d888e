"""Half-open periods of time, and calendar buckets cut in a time zone.

Bucket bounds are computed here, with the tzdata that the lock file pins, and asked of the database as instants:
PostgreSQL's own table of zones may be of another year.
"""

import importlib.resources
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, date, datetime, timedelta, tzinfo
from enum import Enum
from functools import lru_cache
from itertools import accumulate, groupby, repeat
from operator import add, sub
from typing import Final
from zoneinfo import ZoneInfo

import msgspec

_HOUR: Final = timedelta(hours=1)
_DAY: Final = timedelta(days=1)


class Period(msgspec.Struct, frozen=True):
    """A half-open range of time: `start` is inside, `end` is the first instant after. Both are UTC."""

    start: datetime
    end: datetime

    def __post_init__(self) -> None:
        assert self.start.tzinfo is UTC, "a period's start is in UTC"
        assert self.end.tzinfo is UTC, "a period's end is in UTC"


class Stretch(msgspec.Struct, frozen=True):
    """Periods of one width, one after another: so thousands of them are told in three words."""

    start: datetime
    width: timedelta
    count: int

    @property
    def last(self) -> datetime:
        """Where the last of them begins."""
        return self.start + self.width * (self.count - 1)

    @property
    def end(self) -> datetime:
        """Where the last of them ends."""
        return self.start + self.width * self.count

    def count_before(self, instant: datetime) -> int:
        """How many of them end at this instant or before it."""
        if self.end <= instant:
            return self.count
        return 0 if self.start + self.width > instant else (instant - self.start) // self.width

    def part(self, first: int, stop: int) -> "Stretch":
        """The periods from one on, counted from 0, and before another."""
        return Stretch(self.start + self.width * first, self.width, stop - first)

    def periods(self) -> Iterator[Period]:
        """One by one."""
        starts = (self.start + self.width * place for place in range(self.count))
        return (Period(start, start + self.width) for start in starts)


def stretches(bounds: Sequence[datetime]) -> tuple[Stretch, ...]:
    """What lies between two bounds and the next two and so on, as stretches; bounds ascend."""
    found: list[Stretch] = []
    place = 0
    for width, of_width in groupby(map(sub, bounds[1:], bounds)):
        found.append(Stretch(bounds[place], width, sum(1 for _ in of_width)))
        place += found[-1].count
    return tuple(found)


class Bucket(Enum):
    """Calendar buckets; a WEEK begins on Monday, a DAY has 23 to 25 hours."""

    MINUTE = "MINUTE"
    HOUR = "HOUR"
    DAY = "DAY"
    WEEK = "WEEK"
    MONTH = "MONTH"


# But for a handful in the history of zones no bucket is shorter: about how many there are, before any is computed.
SHORTEST: Final = {
    Bucket.MINUTE: timedelta(minutes=1),
    Bucket.HOUR: timedelta(minutes=30),
    Bucket.DAY: timedelta(hours=22),
    Bucket.WEEK: timedelta(days=6, hours=22),
    Bucket.MONTH: timedelta(days=27, hours=22),
}


def zone_of(name: str) -> ZoneInfo:
    """The IANA zone of this name, from the pinned tzdata. Raises KeyError when there is none."""
    return _zone_of(name)


@lru_cache(maxsize=1_000)
def _zone_of(name: str) -> ZoneInfo:
    if name not in zone_names():
        raise KeyError(name)
    path = importlib.resources.files("tzdata").joinpath("zoneinfo", *name.split("/"))
    with path.open("rb") as file:
        return ZoneInfo.from_file(file, key=name)


@lru_cache(maxsize=1)
def zone_names() -> frozenset[str]:
    """The names of all zones of the pinned tzdata."""
    return frozenset(importlib.resources.files("tzdata").joinpath("zones").read_text().split())


@lru_cache(maxsize=32)
def bucket_bounds(period: Period, zone: tzinfo, bucket: Bucket) -> tuple[datetime, ...]:
    """The bounds, in UTC, of the buckets that touch the period: bucket i is `[bounds[i], bounds[i + 1])`.

    The first bound is at or before the period's start, the last at or after its end: a bucket's bounds are the
    calendar's also where the period begins or ends inside it. A question needs them several times: the last ones are kept.
    """
    if period.start >= period.end:
        return ()
    if bucket in {Bucket.MINUTE, Bucket.HOUR}:
        return _clock_bounds(period, zone, timedelta(minutes=1) if bucket is Bucket.MINUTE else _HOUR)
    return _calendar_bounds(period, zone, bucket)


@lru_cache(maxsize=32)
def bucket_stretches(period: Period, zone: tzinfo, bucket: Bucket) -> tuple[Stretch, ...]:
    """The same buckets as stretches: one for each change of the zone's offset and one more, or the months one by one."""
    return stretches(bucket_bounds(period, zone, bucket))


def _calendar_bounds(period: Period, zone: tzinfo, bucket: Bucket) -> tuple[datetime, ...]:
    day = _first_day(period.start.astimezone(zone).date(), bucket)
    bounds = [day_start(day, zone)]
    while bounds[-1] < period.end:
        day = _next_first_day(day, bucket)
        start = day_start(day, zone)
        # Equal where a zone left out a day, as Samoa did in 2011: there is no such bucket.
        if start > bounds[-1]:
            bounds.append(start)
    # Set back from 00:01, as in Newfoundland until 2010, the clock shows the day before again in a day that has begun.
    return tuple(bounds[bisect_right(bounds, period.start) - 1 :])


def _first_day(day: date, bucket: Bucket) -> date:
    if bucket is Bucket.MONTH:
        return day.replace(day=1)
    if bucket is Bucket.WEEK:
        return day - timedelta(days=day.weekday())
    return day


def _next_first_day(day: date, bucket: Bucket) -> date:
    if bucket is Bucket.MONTH:
        return date(day.year + day.month // 12, day.month % 12 + 1, 1)
    return day + timedelta(days=7 if bucket is Bucket.WEEK else 1)


def day_start(day: date, zone: tzinfo) -> datetime:
    """The first instant, in UTC, at which the zone's calendar shows this day (or a later one, where it was left out)."""
    midnight = datetime(day.year, day.month, day.day, tzinfo=zone)
    instant = midnight.astimezone(UTC)
    if instant.astimezone(zone).replace(fold=0) == midnight:
        return instant
    # Midnight is skipped by a change of the offset: the day begins when the change happens, between the two readings.
    low, high = midnight.replace(fold=1).astimezone(UTC), instant
    return _first_instant(low, high, lambda at: at.astimezone(zone).date() >= day)


def _clock_bounds(period: Period, zone: tzinfo, step: timedelta) -> tuple[datetime, ...]:
    """Minutes or hours as the wall clock shows them; an hour is longer or shorter where the offset changes by less."""
    bounds: list[datetime] = []
    for start, end, offset in _offsets(period, zone, step):
        first = start + (_EPOCH - (start + offset)) % step
        label_changes = bounds and first > start and _label(start, offset, step) != _label_before(start, zone, step)
        if label_changes:
            bounds.append(start)
        count = -((first - end) // step)
        if count > 0:
            bounds.extend(accumulate(repeat(step, count - 1), add, initial=first))
    low = next(index for index in range(len(bounds) - 1, -1, -1) if bounds[index] <= period.start)
    high = next(index for index in range(len(bounds)) if bounds[index] >= period.end)
    return tuple(bounds[low : high + 1])


_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def _label(instant: datetime, offset: timedelta, step: timedelta) -> int:
    return (instant + offset - _EPOCH) // step


def _label_before(instant: datetime, zone: tzinfo, step: timedelta) -> int:
    before = instant - timedelta.resolution
    return _label(before, _offset(before, zone), step)


def _offset(instant: datetime, zone: tzinfo) -> timedelta:
    offset = instant.astimezone(zone).utcoffset()
    assert offset is not None, "a zone has an offset at every instant"
    return offset


def _offsets(period: Period, zone: tzinfo, step: timedelta) -> Iterator[tuple[datetime, datetime, timedelta]]:
    """The stretches of one offset that cover the period, with room for a whole step before and after it."""
    # Offsets change on whole seconds, so the search does too.
    start, end = period.start.replace(microsecond=0) - 2 * step, period.end + 2 * step
    offset = _offset(start, zone)
    probe = start
    while probe < end:
        following = min(probe + _DAY, end)
        next_offset = _offset(following, zone)
        if next_offset != offset:
            before = offset
            change = _first_instant(probe, following, lambda at, before=before: _offset(at, zone) != before)  # type: ignore[misc]
            yield start, change, offset
            start, offset = change, next_offset
        probe = following
    yield start, end, offset


def _first_instant(low: datetime, high: datetime, holds: Callable[[datetime], bool]) -> datetime:
    """The first whole second after `low`, up to `high`, at which `holds` is true; it is true at `high` and stays true."""
    seconds_low, seconds_high = 0, -((low - high) // timedelta(seconds=1))
    while seconds_high - seconds_low > 1:
        middle = (seconds_low + seconds_high) // 2
        if holds(low + timedelta(seconds=middle)):
            seconds_high = middle
        else:
            seconds_low = middle
    return low + timedelta(seconds=seconds_high)
