"""What a meter says of a period: the total, groups and series, all from one snapshot."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from itertools import pairwise
from typing import Annotated, cast

import msgspec
import strawberry

from graphql_api.context import Context, MeteringInfo
from graphql_api.lookahead import GroupsAsked, groups_asked
from graphql_api.once import Once
from graphql_api.pages import Connection, check_first, decode_cursor, edges_of, encode_cursor, page_info
from graphql_api.problems import InvalidInput, NotFound, TooLarge
from graphql_api.questions import Fill, OrderDirection, Period, UsageQuery, question_of
from graphql_api.scalars import BigInt, DecimalText, Instant, ZoneName
from graphql_api.usage import UsageKey, UsageOrderField, _bucket_count, _GroupPlace
from metering.aggregations import TRAITS, Aggregation, Figure
from metering.errors import InputIssue, InvalidInputError, NotFoundError
from metering.events import Dimension
from metering.keys import Scope
from metering.meters import Definition, find_meter
from metering.periods import Bucket
from metering.questions import GroupOrder, Question
from metering.rollups import read_meter
from metering.rollups.read import After


@strawberry.type
class MeterFigure:
    """One figure."""

    quantity: DecimalText | None = strawberry.field(
        description="In the meter's unit, rounded as the meter says. Null where nothing was measured: the maximum, "
        "minimum, average and latest of no events; sums and counts of none are zero."
    )
    exact_quantity: DecimalText | None = strawberry.field(description="Before the meter's rounding.")
    events: BigInt = strawberry.field(description="How many events it is made of; of a level, those inside the period.")
    unit_hours: DecimalText | None = strawberry.field(
        description="Of a TIME_WEIGHTED meter: the level times the hours that it was held, with 18 digits after the point, "
        "half away from zero. It adds up over time as well."
    )


def _figure(figure: Figure) -> MeterFigure:
    return MeterFigure(
        quantity=None if figure.rounded is None else DecimalText(figure.rounded),
        exact_quantity=None if figure.exact is None else DecimalText(figure.exact),
        events=BigInt(figure.events),
        unit_hours=None if figure.unit_hours is None else DecimalText(figure.unit_hours),
    )


@strawberry.type
class MeterPoint:
    """One bucket of a series."""

    from_: Instant = strawberry.field(name="from")
    to: Instant
    quantity: DecimalText | None
    exact_quantity: DecimalText | None
    events: BigInt


@strawberry.type(description="Lists of one length; the i-th entries belong together.")
class MeterColumns:
    """A series, column by column."""

    from_: list[Instant] = strawberry.field(name="from")
    quantity: list[DecimalText | None]
    exact_quantity: list[DecimalText | None]
    events: list[BigInt]


@strawberry.type(
    description="The meter's figure of each bucket. Where the period begins or ends inside a bucket, it is of the part "
    "that is inside."
)
class MeterSeries:
    """The course of a group's figure."""

    bucket: Bucket
    rows: strawberry.Private[list[tuple[datetime, datetime, Figure]]]

    @strawberry.field(description="Row by row.")
    def points(self) -> list[MeterPoint]:
        """As rows."""
        columns = self.columns()
        return [
            MeterPoint(
                from_=Instant(start),
                to=Instant(end),
                quantity=columns.quantity[index],
                exact_quantity=columns.exact_quantity[index],
                events=columns.events[index],
            )
            for index, (start, end, _) in enumerate(self.rows)
        ]

    @strawberry.field(description="The same, column by column: smaller and faster, made for charts.")
    def columns(self) -> MeterColumns:
        """As columns."""
        # The types of the API's scalars are names for these very values.
        return MeterColumns(
            from_=cast("list[Instant]", [start for start, _, _ in self.rows]),
            quantity=cast("list[DecimalText | None]", [figure.rounded for _, _, figure in self.rows]),
            exact_quantity=cast("list[DecimalText | None]", [figure.exact for _, _, figure in self.rows]),
            events=cast("list[BigInt]", [figure.events for _, _, figure in self.rows]),
        )


class _Asked(msgspec.Struct, frozen=True):
    """What is asked of a meter, and where; what several fields need is asked once."""

    context: Context
    definition: Definition
    question: Question
    once: Once


class _Page(msgspec.Struct, frozen=True):
    """One page of groups, whose series are read together."""

    asked: _Asked
    page: read_meter.MeterPage
    once: Once

    async def series(self, bucket: Bucket) -> tuple[tuple[datetime, ...], list[dict[int, Figure]]]:
        """The series of all groups of the page: one statement."""
        wanted = [group.key for group in self.page.groups]
        asked = self.asked
        return await self.once.ask(
            ("series", bucket),
            lambda: read_meter.read_meter_series(
                asked.context.snapshot, asked.definition, asked.question, wanted, bucket
            ),
        )

    async def remainder(self) -> Figure:
        """The figure of all other groups."""
        asked = self.asked
        return await self.once.ask(
            "remainder",
            lambda: read_meter.read_meter_remainder(
                asked.context.snapshot, asked.definition, asked.question, self.page
            ),
        )


@strawberry.type
class MeterGroup:
    """One group of a page."""

    key: UsageKey
    figure: MeterFigure
    position: strawberry.Private[int]
    page: strawberry.Private[_Page]

    @strawberry.field(
        description="With `fill: ZERO` a bucket without usage has the figure of no events, which is null where there is "
        "none; a bucket in which a level is held is not without usage."
    )
    async def series(self, bucket: Bucket, fill: Fill = Fill.ZERO) -> MeterSeries:
        """The group's course: one statement serves all groups of the page."""
        bounds, figures = await self.page.series(bucket)
        nothing = TRAITS[self.page.asked.definition.aggregation].of_nothing
        rows = _rows(bounds, figures[self.position], None if fill is Fill.NONE else Figure(nothing, nothing, 0, None))
        return MeterSeries(bucket=bucket, rows=rows)


def _rows(
    bounds: Sequence[datetime], figures: Mapping[int, Figure], gap: Figure | None
) -> list[tuple[datetime, datetime, Figure]]:
    rows = []
    for index, (start, end) in enumerate(pairwise(bounds)):
        figure = figures.get(index, gap)
        if figure is not None:
            rows.append((start, end, figure))
    return rows


@strawberry.type
class MeterGroupConnection(Connection[MeterGroup]):
    """One page of groups."""

    total_count: int
    page: strawberry.Private[_Page]

    @strawberry.field(
        description="All groups that are not on this page, together: the figure of their events. Where the meter "
        "`addsUp`, page plus remainder is the total."
    )
    async def remainder(self) -> MeterFigure:
        """The others."""
        return _figure(await self.page.remainder())


@strawberry.input(description="QUANTITY orders by the exact figure. Ties by KEY.")
class MeterOrder:
    """An order of a meter's groups."""

    field: UsageOrderField
    direction: OrderDirection


@strawberry.type
class MeterReport:
    """The answer to a question about a meter."""

    meter: str = strawberry.field(description="The meter's key.")
    unit: str
    aggregation: Aggregation
    adds_up: bool = strawberry.field(
        description="Whether the exact figures of all groups add up to the total: of SUM and COUNT to the last digit; of "
        "TIME_WEIGHTED but for the last digit of each, which is rounded. The others do not add up: ask for the total "
        "instead of adding."
    )
    period: Period
    time_zone: ZoneName
    group_by: list[Dimension]
    as_of: Instant = strawberry.field(description="Every event acknowledged before this instant is counted.")
    asked: strawberry.Private[_Asked]

    @strawberry.field(description="The whole period, everything together.")
    async def total(self) -> MeterFigure:
        """Everything."""
        asked = self.asked
        return _figure(
            await asked.once.ask(
                "total",
                lambda: read_meter.read_meter_total(asked.context.snapshot, asked.definition, asked.question),
            )
        )

    @strawberry.field(
        description="One group for each combination that has an event in the period, or a level that is not zero."
    )
    async def groups(
        self,
        order_by: MeterOrder = MeterOrder(field=UsageOrderField.QUANTITY, direction=OrderDirection.DESC),  # noqa: B008 - as the contract orders usage
        first: int = 50,
        after: str | None = strawberry.UNSET,
    ) -> MeterGroupConnection:
        """One page of groups."""
        descending = order_by.direction is OrderDirection.DESC
        groups = GroupsAsked(order_by.field.value, descending, None, first, after or None, ())
        return self._connection(groups, await self.page(groups))

    async def page(self, groups: GroupsAsked) -> read_meter.MeterPage:
        """The page of groups that is asked for; asked once, however many fields show it."""
        asked = self.asked
        check_first(groups.first, asked.context.limits, ("groups", "first"))
        place = self._place(groups)
        order = GroupOrder(groups.field, groups.descending)
        after = None if place is None else After(place.key, place.order_value)
        return await asked.once.ask(
            ("page", order, groups.first, groups.after),
            lambda: read_meter.read_meter_groups(
                asked.context.snapshot, asked.definition, asked.question, order, groups.first, after
            ),
        )

    def _place(self, groups: GroupsAsked) -> _GroupPlace | None:
        if groups.after is None:
            return None
        path = ("groups", "after")
        place = decode_cursor(groups.after, _GroupPlace, path)
        same_groups = (place.group_by, len(place.key)) == (self._group_by(), len(self._group_by()))
        same_order = (place.field, place.descending) == (groups.field, groups.descending)
        if not same_groups or not same_order or place.unit != self.meter:
            message = "This cursor is of another meter, or of a query with another groupBy or orderBy."
            raise InvalidInputError([InputIssue(path, message)])
        return place

    def _group_by(self) -> tuple[str, ...]:
        return tuple(dimension.value for dimension in self.asked.question.group_by)

    def _connection(self, groups: GroupsAsked, found: read_meter.MeterPage) -> MeterGroupConnection:
        page = _Page(self.asked, found, Once())
        nodes = [
            MeterGroup(
                key=UsageKey(**dict(zip(self._group_by(), group.key, strict=True))),
                figure=_figure(group.figure),
                position=position,
                page=page,
            )
            for position, group in enumerate(found.groups)
        ]
        cursors = [
            encode_cursor(
                # Where a cursor of usage has its unit: what the order is of.
                _GroupPlace(self._group_by(), groups.field, groups.descending, self.meter, group.key, group.order_value)
            )
            for group in found.groups
        ]
        return MeterGroupConnection(
            edges=edges_of(nodes, cursors),
            nodes=nodes,
            page_info=page_info(cursors, has_next=found.has_next, has_previous=groups.after is not None),
            total_count=found.group_count,
            page=page,
        )


MeterUsageResult = Annotated[MeterReport | NotFound | InvalidInput | TooLarge, strawberry.union("MeterUsageResult")]


async def resolve_meter_usage(meter: str, query: UsageQuery, info: MeteringInfo) -> MeterUsageResult:
    """What a meter says of the usage in a period."""
    context = info.context
    context.require(Scope.USAGE_READ)
    question = question_of(query, context.limits)
    found = await find_meter(context.snapshot, meter)
    if found is None:
        raise NotFoundError(f"There is no meter {meter!r:.60}; `meters` lists them.")
    horizon = await context.snapshot.horizon()
    definition = found.definition
    report = MeterReport(
        meter=definition.key,
        unit=definition.unit,
        aggregation=definition.aggregation,
        adds_up=TRAITS[definition.aggregation].adds_up,
        period=Period(from_=query.period.from_, to=query.period.to),
        time_zone=query.time_zone,
        group_by=list(query.group_by),
        as_of=Instant(horizon.as_of),
        asked=_Asked(context, definition, question, Once()),
    )
    # As in `usage`: what is refused is the answer of the field itself.
    await read_meter.check_meter_retained(context.snapshot, definition, question)
    asked = groups_asked(info.selected_fields)
    await _check_points(report, asked)
    buckets = {bucket for groups in asked for bucket in groups.buckets}
    await read_meter.check_meter_retained(context.snapshot, definition, question, buckets)
    return report


async def _check_points(report: MeterReport, asked: Sequence[GroupsAsked]) -> None:
    """Raise TooLargeError when the series of the operation have too many points, before any is read; else count them."""
    maximum = report.asked.context.limits.points_max
    points = 0
    for groups in asked:
        page = await report.page(msgspec.structs.replace(groups, unit=None, buckets=()))
        for bucket in groups.buckets:
            points += len(page.groups) * _bucket_count(report.asked.question, bucket, maximum)
    report.asked.context.cost.take(points, maximum)
