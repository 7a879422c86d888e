"""Period -> the parts that answer it exactly: rollup rows for whole buckets, raw events for edges and for the tail. Pure.

    raw      hours                days                    hours   raw
    |--|-----------------|=========================|--------------|--|........tail, not rolled up yet: raw........
  14:37  15:00        00:00                     00:00 complete day  22:00 complete_at

Parts never overlap and never leave a gap: every instant of the period is in exactly one of them. A rollup row belongs
to the part that holds its bucket, and its bucket lies wholly inside one segment (one bucket of a series), so that a
row never has to be split.

What is pending (late events below the horizon) is taken care of by the query itself, in the same snapshot.
"""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

import msgspec

from metering.periods import Period

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
HOUR: Final = timedelta(hours=1)
DAY: Final = timedelta(days=1)


class Cover(msgspec.Struct, frozen=True):
    """The periods, ascending and apart, that are answered by daily rollups, by the hourly one, and by raw events."""

    days: tuple[Period, ...]
    hours: tuple[Period, ...]
    raw: tuple[Period, ...]


def cover(segments: Iterable[Period], complete_at: datetime) -> Cover:
    """Cover segments (ascending, not overlapping) given that every hour below `complete_at` is rolled up."""
    days: list[Period] = []
    hours: list[Period] = []
    raw: list[Period] = []
    for segment in segments:
        inner_hours = _whole(segment, HOUR, complete_at)
        inner_days = _whole(segment, DAY, complete_at)
        _extend(raw, _outside(segment, inner_hours))
        if inner_hours is not None:
            _extend(hours, _outside(inner_hours, inner_days))
        if inner_days is not None:
            _extend(days, [inner_days])
    return Cover(tuple(days), tuple(hours), tuple(raw))


def _whole(segment: Period, width: timedelta, complete_at: datetime) -> Period | None:
    """The whole buckets of this width inside the segment and below the horizon."""
    start = segment.start + (_EPOCH - segment.start) % width
    limit = min(segment.end, complete_at)
    end = limit - (limit - _EPOCH) % width
    return Period(start, end) if start < end else None


def _outside(outer: Period, inner: Period | None) -> Sequence[Period]:
    """What is left of `outer` before and after `inner`."""
    if inner is None:
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
