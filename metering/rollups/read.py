"""The answers: totals, groups page by page, series, distinct counts. Each is one statement, all in one snapshot."""

from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Mapping, Sequence
from contextlib import aclosing
from datetime import datetime, timedelta
from decimal import Decimal
from itertools import accumulate
from typing import Any, Final

import msgspec

from metering.events import Dimension
from metering.periods import Bucket, Period, Stretch, bucket_bounds, bucket_stretches, stretches, zone_of
from metering.questions import GroupOrder, Question, ValueFilter
from metering.rollups.cover import Cover, clipped, cover
from metering.rollups.retained import Retained, refusal
from metering.store.event_log import minute_of
from metering.store.filters import filter_shape, filter_shapes
from metering.store.snapshot import Horizon, Snapshot
from metering.store.tables import MINUTE_BY_SUBSCRIPTION, QUARTER_HOUR_SECONDS
from metering.store.usage_query import (
    APART_MAX,
    Compiled,
    FilterShape,
    PartsShape,
    distinct_statement,
    groups_statement,
    rows_statement,
    series_statement,
    totals_statement,
    values_statement,
)

# The width of the buckets into which what is not kept any more is rolled up.
GRAIN: Final = timedelta(seconds=QUARTER_HOUR_SECONDS)
# How many bounds one bucket has.
_OF_ONE_BUCKET: Final = 2

# The values of a group, in the order of the question's group_by.
Key = tuple[str | None, ...]


class Total(msgspec.Struct, frozen=True):
    """Figures of one unit."""

    unit: str
    quantity: Decimal
    events: int
    # None where the question does without.
    minimum: Decimal | None
    maximum: Decimal | None


class Group(msgspec.Struct, frozen=True):
    """A combination of values that occurs, its figures by unit, and the value that it is put in order by."""

    key: Key
    totals: tuple[Total, ...]
    order_value: Decimal | None


class Course(msgspec.Struct, frozen=True):
    """Figures of one unit in the buckets that have usage, column by column; lists of one length.

    Quantities are text as rating/exact.py has it plain, and PostgreSQL writes them so: nothing is computed with them.
    """

    unit: str
    # They count from 0 among the series' bounds, and ascend.
    buckets: Sequence[int]
    quantities: Sequence[str]
    events: Sequence[int]


class Courses(msgspec.Struct, frozen=True):
    """The series of a page's groups: the bounds of the buckets, and for each group a course of each unit."""

    bucket: Bucket
    bounds: tuple[datetime, ...]
    of_groups: list[list[Course]]


class GroupPage(msgspec.Struct, frozen=True):
    """One page of groups; page plus remainder is the whole."""

    groups: tuple[Group, ...]
    group_count: int
    has_next: bool
    remainder: tuple[Total, ...]
    # The unit by whose quantity the groups are in order; None where it is by events or key.
    order_unit: str | None
    # Where they were asked for.
    courses: Courses | None = None


class After(msgspec.Struct, frozen=True):
    """The group that a page comes after."""

    key: Key
    order_value: Decimal | None


class UsageRow(msgspec.Struct, frozen=True):
    """Figures of one group and unit in one bucket, whose bounds these are; or in the whole period."""

    start: datetime
    end: datetime
    key: Key
    total: Total


async def read_totals(snapshot: Snapshot, question: Question) -> tuple[Total, ...]:
    """The whole period, everything together, one entry for each unit."""
    parts = await _parts(snapshot, question, [question.period])
    rows = await parts.fetch(totals_statement(parts.shape))
    return tuple(_total(row) for row in rows)


async def read_groups(
    snapshot: Snapshot,
    question: Question,
    order: GroupOrder,
    first: int,
    after: After | None,
    bucket: Bucket | None = None,
) -> GroupPage:
    """The `first` groups in order, from behind `after` on; with their series where a bucket is named, all read at once."""
    bounds = () if bucket is None else series_bounds(question, bucket)
    segments = [question.period] if bucket is None else _segments(question, bucket)
    parts = await _parts(snapshot, question, segments, bounds=bounds)
    keys = tuple(dimension.value for dimension in question.group_by)
    statement = groups_statement(
        parts.shape,
        keys,
        order.field,
        descending=order.descending,
        after=after is not None,
        one_unit=_has_one_unit(question),
        bucketed=bucket is not None,
    )
    values: dict[str, object] = {"first": first, "order_unit": order.unit}
    if bucket is not None:
        values |= _bucket_values(series_stretches(question, bucket))
    if after is not None:
        values["after_value"] = after.order_value
        values |= {f"after_{name}": value for name, value in zip(keys, after.key, strict=True)}
    rows = await parts.fetch(statement, values)
    groups: dict[Key, list[Any]] = {}
    for row in rows:
        if row["position"] is not None:
            groups.setdefault(tuple(row[f"key_{name}"] for name in keys), []).append(row)
    return GroupPage(
        groups=tuple(Group(key, tuple(map(_total, of)), of[0]["order_value"]) for key, of in groups.items()),
        group_count=rows[0]["groups"] if rows else 0,
        has_next=bool(rows) and rows[0]["available"] > first,
        remainder=tuple(_total(row) for row in rows if row["position"] is None),
        order_unit=rows[0]["order_unit"] if rows else None,
        courses=None if bucket is None else Courses(bucket, bounds, [list(map(_course, of)) for of in groups.values()]),
    )


def _course(row: Any) -> Course:
    return Course(row["unit"], row["buckets"], row["quantities"], row["counts"])


def _has_one_unit(question: Question) -> bool:
    """Whether the question's filter leaves one unit at most: then each group is one row."""
    chosen = question.filters.get(Dimension.UNIT)
    return chosen is not None and not chosen.negated and len(set(chosen.values) - {None}) <= 1


async def read_series(
    snapshot: Snapshot, question: Question, wanted: Sequence[Key], bucket: Bucket
) -> tuple[tuple[datetime, ...], list[list[Course]]]:
    """The bounds of the buckets, and for each wanted group a course of each unit that it has, by unit."""
    bounds = series_bounds(question, bucket)
    parts = await _parts(snapshot, question, _segments(question, bucket), wanted=wanted, bounds=bounds)
    statement = series_statement(parts.shape, tuple(dimension.value for dimension in question.group_by))
    values = _bucket_values(series_stretches(question, bucket)) | _wanted(question, wanted)
    of_groups: list[list[Course]] = [[] for _ in wanted]
    for row in await parts.fetch(statement, values):
        of_groups[row["position"] - 1].append(_course(row))
    return bounds, of_groups


def series_bounds(question: Question, bucket: Bucket) -> tuple[datetime, ...]:
    """The bounds of the buckets that touch the question's period, in its zone."""
    return bucket_bounds(question.period, zone_of(question.zone_name), bucket)


def series_stretches(question: Question, bucket: Bucket) -> tuple[Stretch, ...]:
    """The same buckets in few words."""
    return bucket_stretches(question.period, zone_of(question.zone_name), bucket)


def _segments(question: Question, bucket: Bucket) -> list[Period | Stretch]:
    """The buckets, of which the first and the last may reach beyond the period, as far as they lie inside it."""
    return clipped(series_stretches(question, bucket), question.period)


def _bucket_values(buckets: Sequence[Stretch]) -> dict[str, object]:
    """What a statement tells buckets by: thousands of bounds would take longer to send than what lies between to count."""
    return {
        "bucket_starts": [stretch.start for stretch in buckets],
        "bucket_widths": [stretch.width for stretch in buckets],
        "bucket_places": list(accumulate((stretch.count for stretch in buckets[:-1]), initial=0)),
    }


async def check_retained(snapshot: Snapshot, question: Question, buckets: Iterable[Bucket] = ()) -> None:
    """Raise InvalidInputError where the question, or a series of it by one of these buckets, needs what is gone."""
    horizon = await snapshot.horizon()
    if question.period.start >= horizon.raw_from:
        return
    _covered(horizon, horizon.tail_at, question, [question.period], ())
    for bucket in buckets:
        bounds = series_bounds(question, bucket)
        _covered(horizon, horizon.tail_at, question, _segments(question, bucket), bounds)


async def read_distinct(
    snapshot: Snapshot, question: Question, wanted: Sequence[Key], dimension: Dimension, *, remainder: bool
) -> list[dict[str, int]]:
    """How many values of the dimension have usage, by unit: for each wanted group; or, in one entry, for all others."""
    parts = await _parts(
        snapshot, question, [question.period], wanted=() if remainder else wanted, also=frozenset({dimension})
    )
    keys = tuple(by.value for by in question.group_by)
    statement = distinct_statement(parts.shape, keys, dimension.value, remainder=remainder)
    counts: list[dict[str, int]] = [{}] if remainder else [{} for _ in wanted]
    for row in await parts.fetch(statement, _wanted(question, wanted)):
        counts[0 if remainder else row["position"] - 1][row["unit"]] = row["count"]
    return counts


async def read_rows(
    snapshot: Snapshot, question: Question, bucket: Bucket | None, rows_held_max: int
) -> AsyncIterator[list[UsageRow]]:
    """Every group's figures, by bucket where one is asked for, by key and unit: in this order, so many rows at a time."""
    period = question.period
    bounds = (period.start, period.end) if bucket is None else series_bounds(question, bucket)
    segments = [period] if bucket is None else _segments(question, bucket)
    parts = await _parts(snapshot, question, segments, bounds=() if bucket is None else bounds)
    async for rows in _bucketed_rows(parts, question, bounds, rows_held_max):
        yield rows


async def read_period_rows(
    snapshot: Snapshot, question: Question, periods: Sequence[Period], rows_held_max: int
) -> AsyncGenerator[list[UsageRow], None]:
    """Every group's figures in each of these periods (ascending, apart, all that the question's period is asked for)."""
    bounds = sorted({bound for period in periods for bound in (period.start, period.end)})
    parts = await _parts(snapshot, question, periods)
    # Who stops reading early gives the snapshot free at once.
    async with aclosing(_bucketed_rows(parts, question, bounds, rows_held_max)) as pages:
        async for rows in pages:
            yield rows


async def _bucketed_rows(
    parts: "_Parts", question: Question, bounds: Sequence[datetime], rows_held_max: int
) -> AsyncGenerator[list[UsageRow], None]:
    # One bucket is the whole period, which every row lies in.
    bucketed = len(bounds) > _OF_ONE_BUCKET
    keys = tuple(dimension.value for dimension in question.group_by)
    statement = rows_statement(parts.shape, keys, bucketed=bucketed)
    arguments = statement.arguments(parts.values | _bucket_values(stretches(bounds)))
    async with aclosing(parts.snapshot.stream(statement.text, arguments, rows_held_max)) as pages:
        async for rows in pages:
            places = [row["place"] if bucketed else 0 for row in rows]
            yield [
                UsageRow(bounds[place], bounds[place + 1], tuple(row[f"key_{name}"] for name in keys), _total(row))
                for place, row in zip(places, rows, strict=True)
            ]


async def read_values(
    snapshot: Snapshot, question: Question, dimension: Dimension, prefix: str, first: int
) -> list[str]:
    """The first values that the dimension has in the question's usage, in order, of those that begin with the prefix."""
    ungrouped = msgspec.structs.replace(question, group_by=())
    parts = await _parts(snapshot, ungrouped, [question.period], also=frozenset({dimension}))
    statement = values_statement(parts.shape, dimension.value)
    return [row["value"] for row in await parts.fetch(statement, {"prefix": prefix, "first": first})]


class _Parts(msgspec.Struct, frozen=True):
    """The parts that answer a question, as a statement's shape and the values of its parameters."""

    snapshot: Snapshot
    shape: PartsShape
    values: dict[str, object]
    # Where anything is pending PostgreSQL cannot guess what is left, and would go through lists of buckets or of groups for each
    # row. One account has few of both.
    hashed: bool

    async def fetch(self, statement: Compiled, values: Mapping[str, object] | None = None) -> list[Any]:
        arguments = statement.arguments({**self.values, **(values or {})})
        return await self.snapshot.fetch(statement.text, arguments, hashed=self.hashed)


async def _parts(
    snapshot: Snapshot,
    question: Question,
    segments: Sequence[Period | Stretch],
    *,
    wanted: Sequence[Key] = (),
    also: frozenset[Dimension] = frozenset(),
    bounds: Sequence[datetime] = (),
) -> _Parts:
    horizon = await snapshot.horizon()
    filters = _filters(snapshot, question, wanted)
    shape = PartsShape(
        dimensions=tuple(sorted({dimension.value for dimension in (*question.group_by, *also)})),
        filters=tuple(shape for shape, _ in filters),
        extremes=question.extremes,
        rollups_agree=snapshot.rollups_agree,
    )
    # The minute that is not over yet has rows by subscription and of everyone, none by other dimensions.
    tail_at = horizon.tail_at if shape.needed <= set(MINUTE_BY_SUBSCRIPTION.dimensions) else minute_of(horizon.tail_at)
    covered = _covered(horizon, tail_at, question, segments, bounds)
    shape = msgspec.structs.replace(
        shape,
        days=min(len(covered.days), APART_MAX + 1),
        quarters=min(len(covered.quarters), APART_MAX + 1),
        minutes=min(len(covered.minutes), APART_MAX + 1),
        open=len(covered.open),
        raw=min(len(covered.raw), APART_MAX + 1),
        pending=horizon.has_pending and bool(covered.days or covered.quarters),
        pending_minutes=horizon.has_pending_minutes and bool(covered.minutes or covered.open),
        late=horizon.has_late and bool(covered.minutes or covered.open),
    )
    values = {shape.parameter: values for shape, values in filters}
    hashed = shape.pending and "account" not in {each.dimension for each, _ in filters}
    return _Parts(snapshot, shape, {**_period_values(covered), **values}, hashed)


def _covered(
    horizon: Horizon,
    tail_at: datetime,
    question: Question,
    segments: Sequence[Period | Stretch],
    bounds: Sequence[datetime],
) -> Cover:
    """Raises InvalidInputError where a part is not retained; `bounds` are those of the buckets that the segments are of."""
    covered = cover(segments, horizon.complete_at, tail_at)
    retained = Retained(raw_from=horizon.raw_from, rollups_from=horizon.rollups_from, grain=GRAIN)
    if not retained.holds(covered.raw, (*covered.days, *covered.quarters, *covered.minutes, *covered.open)):
        raise refusal(retained, question.period, bounds)
    return covered


def _filters(snapshot: Snapshot, question: Question, wanted: Sequence[Key]) -> list[tuple[FilterShape, list[str]]]:
    """What the question keeps within the caller's reach, and what narrows to the wanted groups."""
    filters = filter_shapes(question, snapshot.reach)
    for index, dimension in enumerate(question.group_by if wanted else ()):
        occurring = ValueFilter(tuple({key[index] for key in wanted}))
        filters.append(filter_shape(f"narrow_{dimension.value}", dimension, occurring))
    return filters


def _wanted(question: Question, wanted: Sequence[Key]) -> dict[str, object]:
    return {f"wanted_{by.value}": [key[index] for key in wanted] for index, by in enumerate(question.group_by)}


def _period_values(covered: Cover) -> dict[str, object]:
    values: dict[str, object] = {}
    for name, periods in msgspec.structs.asdict(covered).items():
        if periods:
            values |= {f"{name}_from": periods[0].start, f"{name}_to": periods[-1].end}
            values |= {
                f"{name}_starts": [period.start for period in periods],
                f"{name}_ends": [period.end for period in periods],
            }
            for index, period in enumerate(periods[:APART_MAX]):
                values |= {f"{name}_from_{index}": period.start, f"{name}_to_{index}": period.end}
    late = {"late": (*covered.days, *covered.quarters), "tail": (*covered.minutes, *covered.open)}
    for name, periods in late.items():
        if periods:
            values[f"{name}_from"] = min(period.start for period in periods)
            values[f"{name}_to"] = max(period.end for period in periods)
    return values


def _total(row: Any) -> Total:
    return Total(row["unit"], row["quantity"], row["events"], row["minimum"], row["maximum"])
