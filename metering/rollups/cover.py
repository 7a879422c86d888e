"""Period -> the parts that answer it exactly: rollup rows for whole buckets, raw events for edges and the newest. Pure.

    raw    quarter hours            days            quarter hours     minutes     open     raw
    |--|-----------------|=========================|--------------|~~~~~~~~~~~~~|~~~~~~|.........
  14:37  14:45        00:00                     00:00          complete_at           tail_at    now

Parts never overlap and never leave a gap: every instant of the period is in exactly one of them. A rollup row belongs
to the part that holds its bucket, and its bucket lies wholly inside one segment (one bucket of a series), so that a
row never has to be split. The minute in which `tail_at` lies is rolled up as far as that: it is open, and its rows may be
taken by a segment that holds all of this.

What is pending (late events below the horizon) is taken care of by the query itself, in the same snapshot.
"""

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

import msgspec

from metering.periods import Period, Stretch

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
MINUTE: Final = timedelta(minutes=1)
# Every zone of today is so many of these ahead of UTC or behind it: its days and hours are whole ones of them.
QUARTER_HOUR: Final = timedelta(minutes=15)
DAY: Final = timedelta(days=1)


class Cover(msgspec.Struct, frozen=True):
    """The periods, ascending and apart, that are answered by rollups of each width, and by raw events."""

    days: tuple[Period, ...]
    quarters: tuple[Period, ...]
    minutes: tuple[Period, ...]
    open: tuple[Period, ...]
    raw: tuple[Period, ...]


def clipped(buckets: Iterable[Stretch], period: Period) -> list[Period | Stretch]:
    """Buckets as far as they lie inside the period: it begins in the first of them, and ends in the last."""
    segments: list[Period | Stretch] = []
    for stretch in buckets:
        first, stop = int(stretch.start < period.start), stretch.count - int(stretch.end > period.end)
        if first:
            segments.append(Period(period.start, min(stretch.start + stretch.width, period.end)))
        if first < stop:
            segments.append(stretch.part(first, stop))
        if first <= stop < stretch.count:
            segments.append(Period(stretch.last, period.end))
    return segments


def cover(segments: Iterable[Period | Stretch], complete_at: datetime, tail_at: datetime) -> Cover:
    """Cover segments (ascending, not overlapping); a stretch stands for each of its periods.

    Every quarter of an hour below `complete_at` is rolled up, and from there every minute below `tail_at`.
    """
    days: list[Period] = []
    quarters: list[Period] = []
    minutes: list[Period] = []
    opened: list[Period] = []
    raw: list[Period] = []
    for segment in _one_by_one(segments, complete_at, days, quarters, raw):
        inner_days = _whole(segment, DAY, complete_at)
        inner_quarters = _whole(segment, QUARTER_HOUR, complete_at)
        inner_minutes = _tail(segment, complete_at, tail_at)
        inner_open = _open(segment, complete_at, tail_at)
        rest: Sequence[Period] = [segment]
        for inner in (inner_quarters, inner_minutes, inner_open):
            rest = [part for outer in rest for part in _outside(outer, inner)]
        _extend(raw, rest)
        if inner_open is not None:
            _extend(opened, [inner_open])
        if inner_minutes is not None:
            _extend(minutes, [inner_minutes])
        if inner_quarters is not None:
            _extend(quarters, _outside(inner_quarters, inner_days))
        if inner_days is not None:
            _extend(days, [inner_days])
    return Cover(tuple(days), tuple(quarters), tuple(minutes), tuple(opened), tuple(raw))


def _one_by_one(
    segments: Iterable[Period | Stretch],
    complete_at: datetime,
    days: list[Period],
    quarters: list[Period],
    raw: list[Period],
) -> Iterator[Period]:
    """Segments, but for those that are all of one part and are added to it at once: of most series that is each of thousands."""
    for segment in segments:
        stretch = segment if isinstance(segment, Stretch) else Stretch(segment.start, segment.end - segment.start, 1)
        if stretch.width < QUARTER_HOUR:
            part = raw
        elif stretch.width < DAY and _is_of_whole(stretch, QUARTER_HOUR):
            part = quarters
        elif _is_of_whole(stretch, DAY):
            part = days
        else:
            yield from stretch.periods()
            continue
        whole = stretch.count_before(complete_at)
        if whole:
            _extend(part, [Period(stretch.start, stretch.start + stretch.width * whole)])
        yield from stretch.part(whole, stretch.count).periods()


def _is_of_whole(stretch: Stretch, width: timedelta) -> bool:
    """Whether each of its periods is made of whole buckets of this width."""
    return not stretch.width % width and not (stretch.start - _EPOCH) % width


def _whole(segment: Period, width: timedelta, limit: datetime) -> Period | None:
    """The whole buckets of this width inside the segment and below the limit."""
    start = _ceiling(segment.start, width)
    end = _floor(min(segment.end, limit), width)
    return Period(start, end) if start < end else None


def _tail(segment: Period, complete_at: datetime, tail_at: datetime) -> Period | None:
    """The whole minutes inside the segment and between the horizons."""
    start = max(_ceiling(segment.start, MINUTE), complete_at)
    end = _floor(min(segment.end, tail_at), MINUTE)
    return Period(start, end) if start < end else None


def _open(segment: Period, complete_at: datetime, tail_at: datetime) -> Period | None:
    """The minute that is rolled up in part, where the segment holds all of this."""
    start = _floor(tail_at, MINUTE)
    holds = segment.start <= start and complete_at <= start < tail_at <= segment.end
    return Period(start, tail_at) if holds else None


def _floor(instant: datetime, width: timedelta) -> datetime:
    return instant - (instant - _EPOCH) % width


def _ceiling(instant: datetime, width: timedelta) -> datetime:
    return instant + (_EPOCH - instant) % width


def _outside(outer: Period, inner: Period | None) -> Sequence[Period]:
    """What is left of `outer` before and after `inner`, which is inside it or does not touch it."""
    if inner is None or inner.end <= outer.start or outer.end <= inner.start:
        return [outer]
    around = [Period(outer.start, inner.start), Period(inner.end, outer.end)]
    return [part for part in around if part.start < part.end]


def _extend(parts: list[Period], more: Iterable[Period]) -> None:
    """Append, joining what touches: the edges of two neighbouring segments are one part."""
    for part in more:
        if parts and parts[-1].end == part.start:
            parts[-1] = Period(parts[-1].start, part.end)
        else:
            parts.append(part)
