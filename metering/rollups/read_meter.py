"""What a meter says: of everything, of groups page by page, and bucket by bucket; each is one statement, in one snapshot.

Most meters are answered by the same parts as usage. LATEST and TIME_WEIGHTED are read from the events themselves: of the
period, and for levels of all time before it; of events that were given up, the levels are kept that they left behind.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from itertools import pairwise
from typing import Any, Final

import msgspec

from metering.aggregations import TRAITS, Aggregation, Figure, LevelChanges, Tally, figure, held, seconds_of
from metering.errors import InputIssue, InvalidInputError
from metering.events import Dimension
from metering.meters import Definition, metered
from metering.periods import Bucket, Period, Stretch
from metering.questions import GroupOrder, Question
from metering.rollups.read import After, Key, _filters, _parts, _segments, _wanted, check_retained, series_bounds
from metering.store.meter_query import (
    EventsShape,
    MeterShape,
    meter_groups_statement,
    meter_series_statement,
    remainder_statement,
    tally_statement,
)
from metering.store.snapshot import Snapshot
from metering.store.usage_query import Compiled, PartsShape
from rating.periods import instant_text

_NOTHING: Final = Tally(None, 0)


class MeterGroup(msgspec.Struct, frozen=True):
    """A combination of values that occurs, its figure, and the value that it is put in order by."""

    key: Key
    figure: Figure
    order_value: Decimal | None


class MeterPage(msgspec.Struct, frozen=True):
    """One page of groups."""

    groups: tuple[MeterGroup, ...]
    group_count: int
    has_next: bool


async def check_meter_retained(
    snapshot: Snapshot, definition: Definition, question: Question, buckets: Iterable[Bucket] = ()
) -> None:
    """Raise InvalidInputError where the figure, or a series of it by one of these buckets, needs what is gone."""
    if TRAITS[definition.aggregation].from_rollups:
        await check_retained(snapshot, question, buckets)
        return
    raw_from = (await snapshot.horizon()).raw_from
    if question.period.start < raw_from:
        shown = instant_text(raw_from)
        message = (
            f"The meter {definition.key!r:.60} is read from events, and those before {shown} are not kept any more. "
            f"The nearest `from` that can be answered is {shown}."
        )
        raise InvalidInputError([InputIssue(("query", "period", "from"), message)])


async def read_meter_total(snapshot: Snapshot, definition: Definition, question: Question) -> Figure:
    """The figure of the whole period, everything together."""
    whole = msgspec.structs.replace(question, group_by=())
    basis = await _basis(snapshot, definition, whole, [question.period])
    (row,) = await basis.fetch(tally_statement(basis.shape))
    return _figure(definition, row, question.period)


async def read_meter_groups(
    snapshot: Snapshot, definition: Definition, question: Question, order: GroupOrder, first: int, after: After | None
) -> MeterPage:
    """The `first` groups in order, from behind `after` on. The order's unit is not looked at: a meter has one."""
    basis = await _basis(snapshot, definition, question, [question.period])
    keys = tuple(dimension.value for dimension in question.group_by)
    statement = meter_groups_statement(
        basis.shape, keys, order.field, descending=order.descending, after=after is not None
    )
    values: dict[str, object] = {"first": first}
    if after is not None:
        values["after_value"] = after.order_value
        values |= {f"after_{name}": value for name, value in zip(keys, after.key, strict=True)}
    rows = await basis.fetch(statement, values)
    groups = tuple(
        MeterGroup(
            tuple(row[f"key_{name}"] for name in keys), _figure(definition, row, question.period), row["order_value"]
        )
        for row in rows
        if row["position"] is not None
    )
    return MeterPage(groups, rows[0]["groups"], has_next=rows[0]["available"] > first)


async def read_meter_remainder(
    snapshot: Snapshot, definition: Definition, question: Question, page: MeterPage
) -> Figure:
    """The figure of all groups that are not on the page: of their events together, not their figures added up."""
    if len(page.groups) == page.group_count:
        return figure(definition.aggregation, _NOTHING, seconds_of(question.period), definition.rounding)
    basis = await _basis(snapshot, definition, question, [question.period])
    statement = remainder_statement(basis.shape, tuple(dimension.value for dimension in question.group_by))
    (row,) = await basis.fetch(statement, _wanted(question, [group.key for group in page.groups]))
    return _figure(definition, row, question.period)


async def read_meter_series(
    snapshot: Snapshot, definition: Definition, question: Question, wanted: Sequence[Key], bucket: Bucket
) -> tuple[tuple[datetime, ...], list[dict[int, Figure]]]:
    """The bounds of the buckets, and for each wanted group the figures of buckets with usage (or a level), from 0 on.

    A bucket in which the period begins or ends has the figure of its part inside the period.
    """
    bounds = series_bounds(question, bucket)
    period = question.period
    buckets = [Period(max(start, period.start), min(end, period.end)) for start, end in pairwise(bounds)]
    basis = await _basis(snapshot, definition, question, _segments(question, bucket), wanted)
    return bounds, await _bucketed(basis, definition, question, wanted, bounds, buckets)


async def read_meter_periods(
    snapshot: Snapshot,
    definition: Definition,
    group_by: tuple[Dimension, ...],
    wanted: Sequence[Key],
    periods: Sequence[Period],
) -> list[dict[int, Figure]]:
    """For each wanted group the figures of these periods (ascending, apart) by their places; none where nothing was measured.

    One statement, however many groups and periods there are.
    """
    bounds = sorted({bound for period in periods for bound in (period.start, period.end)})
    buckets = [Period(start, end) for start, end in pairwise(bounds)]
    question = Question(period=Period(bounds[0], bounds[-1]), zone_name="UTC", group_by=group_by, filters={})
    basis = await _basis(snapshot, definition, question, periods, wanted)
    # What lies between two periods is a bucket that nobody asked for.
    places = {buckets.index(period): place for place, period in enumerate(periods)}
    return [
        {places[index]: shown for index, shown in of_group.items() if index in places}
        for of_group in await _bucketed(basis, definition, question, wanted, bounds, buckets)
    ]


async def _bucketed(
    basis: "_Basis",
    definition: Definition,
    question: Question,
    wanted: Sequence[Key],
    bounds: Sequence[datetime],
    buckets: Sequence[Period],
) -> list[dict[int, Figure]]:
    statement = meter_series_statement(basis.shape, tuple(dimension.value for dimension in question.group_by))
    rows = await basis.fetch(statement, {"bounds": bounds, **_wanted(question, wanted)})
    of_groups: list[list[Any]] = [[] for _ in wanted]
    for row in rows:
        of_groups[row["position"] - 1].append(row)
    seconds = [seconds_of(each) for each in buckets]
    return [
        {
            index: figure(definition.aggregation, tally, seconds[index], definition.rounding)
            for index, tally in _tallies(definition, of_group, buckets).items()
        }
        for of_group in of_groups
    ]


def _tallies(definition: Definition, rows: Sequence[Any], buckets: Sequence[Period]) -> Mapping[int, Tally]:
    if definition.aggregation is Aggregation.TIME_WEIGHTED:
        changes = [LevelChanges(row["bucket"] - 1, row["change"], row["amount"], row["events"]) for row in rows]
        return held(changes, buckets)
    return {row["bucket"] - 1: Tally(row["amount"], row["events"]) for row in rows}


def _figure(definition: Definition, row: Any, period: Period) -> Figure:
    tally = Tally(row["amount"], row["events"])
    return figure(definition.aggregation, tally, seconds_of(period), definition.rounding)


class _Basis(msgspec.Struct, frozen=True):
    """What answers a question about a meter, as a statement's shape and the values of its parameters."""

    snapshot: Snapshot
    shape: MeterShape
    values: Mapping[str, object]

    async def fetch(self, statement: Compiled, values: Mapping[str, object] | None = None) -> list[Any]:
        return await self.snapshot.fetch(statement.text, statement.arguments({**self.values, **(values or {})}))


async def _basis(
    snapshot: Snapshot,
    definition: Definition,
    question: Question,
    segments: Sequence[Period | Stretch],
    wanted: Sequence[Key] = (),
) -> _Basis:
    question = metered(question, definition)
    shape: PartsShape | EventsShape
    values: dict[str, object] = {"period_from": question.period.start, "period_to": question.period.end}
    if TRAITS[definition.aggregation].from_rollups:
        distinct = frozenset() if definition.distinct is None else frozenset({definition.distinct})
        parts = await _parts(snapshot, question, segments, wanted=wanted, also=distinct)
        shape = parts.shape
        values |= parts.values
    else:
        filters = _filters(snapshot, question, wanted)
        dimensions = tuple(sorted({dimension.value for dimension in question.group_by}))
        shape = EventsShape(dimensions=dimensions, filters=tuple(shape for shape, _ in filters))
        raw_from = (await snapshot.horizon()).raw_from
        values |= {"raw_from": raw_from, **{shape.parameter: chosen for shape, chosen in filters}}
    counted = None if definition.distinct is None else definition.distinct.value
    return _Basis(snapshot, MeterShape(aggregation=definition.aggregation, distinct=counted, basis=shape), values)
