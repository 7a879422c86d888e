"""Usage: totals, groups and series of a period, all from one snapshot."""

from collections.abc import Awaitable, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from enum import Enum
from typing import Annotated, Final, Protocol, TypeAlias, cast

import msgspec
import strawberry

from graphql_api.context import Context, MeteringInfo
from graphql_api.lookahead import GroupsAsked, children, dimensions_asked, groups_asked, is_asked
from graphql_api.once import Once
from graphql_api.pages import Connection, CursorText, check_first, decode_cursor, edges_of, encode_cursor, page_info
from graphql_api.problems import InvalidInput, TooLarge
from graphql_api.questions import Fill, OrderDirection, Period, UsageQuery, question_of
from graphql_api.scalars import BigInt, DecimalText, Instant, ZoneName
from metering.errors import InputIssue, InvalidInputError
from metering.events import Dimension
from metering.keys import Scope
from metering.periods import SHORTEST, Bucket
from metering.questions import GroupOrder, Question
from metering.rollups import read


class Counting(Protocol):
    """What counts the different values of dimensions in usage."""

    def distinct(self, dimension: Dimension, position: int, unit: str, /) -> int | Awaitable[int]:
        """How many values the usage at a position has, in this unit; to be awaited where that is not known yet."""


_Counts: TypeAlias = Sequence[Mapping[str, int]]


class Scopes(msgspec.Struct, frozen=True):
    """Groups that are counted together: the wanted ones one by one, or (remainder) all the others as one."""

    context: Context
    question: Question
    wanted: tuple[read.Key, ...]
    remainder: bool
    once: Once

    def distinct(self, dimension: Dimension, position: int, unit: str) -> int | Awaitable[int]:
        """How many values of the dimension the group at this position has, among usage of this unit."""
        counts: _Counts | None = self.once.known(("distinct", dimension, self.remainder))
        # A thousand groups that each wait for what is there would keep the process from everybody else.
        return self._awaited(dimension, position, unit) if counts is None else counts[position].get(unit, 0)

    async def count(self, dimension: Dimension) -> _Counts:
        """The same of every group, by its position and unit; asked once."""
        return await self.once.ask(
            ("distinct", dimension, self.remainder),
            lambda: read.read_distinct(
                self.context.snapshot, self.question, self.wanted, dimension, remainder=self.remainder
            ),
        )

    async def _awaited(self, dimension: Dimension, position: int, unit: str) -> int:
        return (await self.count(dimension))[position].get(unit, 0)


@strawberry.type(
    description="Quantities are added only within one unit. A unit is listed when it has at least one event that is not "
    "voided; a corrected event counts once, with its new values."
)
class UsageTotal:
    """Figures of one unit."""

    unit: str
    quantity: DecimalText
    events: BigInt
    maximum: DecimalText | None
    minimum: DecimalText | None
    scopes: strawberry.Private[Counting]
    position: strawberry.Private[int]

    @strawberry.field(description="Distinct users, devices, … with usage.")
    def distinct(self, dimension: Dimension) -> int:
        """Count them; strawberry and graphql-core await what is to be awaited."""
        return cast("int", self.scopes.distinct(dimension, self.position, self.unit))


def usage_totals(totals: Sequence[read.Total], scopes: Counting, position: int = 0) -> list[UsageTotal]:
    """Totals as the API shows them."""
    return [
        UsageTotal(
            unit=total.unit,
            quantity=DecimalText(total.quantity),
            events=BigInt(total.events),
            maximum=_extreme(total.maximum),
            minimum=_extreme(total.minimum),
            scopes=scopes,
            position=position,
        )
        for total in totals
    ]


def _extreme(quantity: Decimal | None) -> DecimalText | None:
    return None if quantity is None else DecimalText(quantity)


@strawberry.type(
    description="The values a group has in common; null where the query does not group by it, or usage has no such value."
)
class UsageKey:
    """A group's values."""

    account: str | None = None
    subscription: str | None = None
    user: str | None = None
    device: str | None = None
    product: str | None = None
    feature: str | None = None
    classification: str | None = None
    unit: str | None = None


@strawberry.type
class UsagePoint:
    """One bucket of a series."""

    from_: Instant = strawberry.field(name="from")
    to: Instant
    quantity: DecimalText
    events: BigInt


@strawberry.type(description="Lists of one length; the i-th entries belong together.")
class UsageColumns:
    """A series, column by column."""

    from_: list[Instant] = strawberry.field(name="from")
    quantity: list[DecimalText]
    events: list[BigInt]


class Shown(msgspec.Struct, frozen=True):
    """A series column by column: the bounds of its buckets, and their figures as text, as scalars.py writes them."""

    starts: Sequence[datetime]
    ends: Sequence[datetime]
    quantities: Sequence[str]
    events: Sequence[str]


@strawberry.type
class UsageSeries:
    """The course of one unit's quantity."""

    unit: str
    bucket: Bucket
    shown: strawberry.Private[Shown]

    @strawberry.field(description="Row by row.")
    def points(self) -> list[UsagePoint]:
        """As rows."""
        shown = self.shown
        quantities, counts = cast("list[DecimalText]", shown.quantities), cast("list[BigInt]", shown.events)
        return [
            UsagePoint(from_=Instant(start), to=Instant(end), quantity=quantity, events=events)
            for start, end, quantity, events in zip(shown.starts, shown.ends, quantities, counts, strict=True)
        ]

    @strawberry.field(description="The same, column by column: smaller and faster, made for charts.")
    def columns(self) -> UsageColumns:
        """As columns."""
        # The types of the API's scalars are names for these very values.
        return UsageColumns(
            from_=cast("list[Instant]", self.shown.starts),
            quantity=cast("list[DecimalText]", self.shown.quantities),
            events=cast("list[BigInt]", self.shown.events),
        )


@strawberry.type
class UsageGroup:
    """One group of a page."""

    key: UsageKey
    group: strawberry.Private[read.Group]
    position: strawberry.Private[int]
    scopes: strawberry.Private[Scopes]

    @strawberry.field
    def totals(self) -> list[UsageTotal]:
        """The group's figures by unit."""
        return usage_totals(self.group.totals, self.scopes, self.position)

    @strawberry.field(description="One series for each unit.")
    async def series(self, bucket: Bucket, fill: Fill = Fill.ZERO) -> list[UsageSeries]:
        """The group's course: one statement serves all groups of the page."""
        scopes = self.scopes
        bounds, of_groups = await scopes.once.ask(
            ("series", bucket),
            lambda: read.read_series(scopes.context.snapshot, scopes.question, scopes.wanted, bucket),
        )
        # Both are by unit, in one order.
        courses = zip(self.group.totals, of_groups[self.position], strict=True)
        return [
            UsageSeries(unit=total.unit, bucket=bucket, shown=_shown(bounds, course, fill)) for total, course in courses
        ]


_ZERO: Final = "0"


def _shown(bounds: Sequence[datetime], course: read.Course, fill: Fill) -> Shown:
    """A course with its bounds."""
    count, counts = len(bounds) - 1, list(map(str, course.events))
    if len(course.buckets) == count:
        return Shown(bounds[:-1], bounds[1:], course.quantities, counts)
    if fill is Fill.NONE:
        starts, ends = ([bounds[bucket + after] for bucket in course.buckets] for after in (0, 1))
        return Shown(starts, ends, course.quantities, counts)
    quantities, events = [_ZERO] * count, [_ZERO] * count
    for bucket, quantity, of_bucket in zip(course.buckets, course.quantities, counts, strict=True):
        quantities[bucket] = quantity
        events[bucket] = of_bucket
    return Shown(bounds[:-1], bounds[1:], quantities, events)


@strawberry.type
class UsageGroupConnection(Connection[UsageGroup]):
    """One page of groups."""

    total_count: int
    remainder: list[UsageTotal] = strawberry.field(
        description="All groups that are not on this page, together: page plus remainder is the whole."
    )


@strawberry.enum
class UsageOrderField(Enum):
    """What groups are put in order by."""

    KEY = "KEY"
    QUANTITY = "QUANTITY"
    EVENTS = "EVENTS"


@strawberry.input(
    description="QUANTITY orders by one unit's quantity: `unit`, or the only unit there is; with several and none named, "
    "by EVENTS. Ties by KEY."
)
class UsageOrder:
    """An order of groups."""

    field: UsageOrderField
    direction: OrderDirection
    unit: str | None = strawberry.UNSET


# What usage is of, in contrast to whose it is: there are few groups by these, so that all of their series are hardly more
# than those of a page.
_OFFERED: Final = frozenset({Dimension.PRODUCT, Dimension.FEATURE, Dimension.CLASSIFICATION, Dimension.UNIT})

# Before or after the point: more than any sum of quantities has.
_SUM_DIGITS_MAX: Final = 100


class _GroupPlace(msgspec.Struct, frozen=True, array_like=True):
    """What a cursor holds: the order it belongs to, and the group it stands behind."""

    group_by: tuple[str, ...]
    field: str
    descending: bool
    unit: CursorText | None
    key: tuple[CursorText | None, ...]
    order_value: Decimal | None

    def __post_init__(self) -> None:
        """A place in an order by value has a value, which a sum of quantities could be."""
        if (self.order_value is None) is not (self.field == "KEY"):
            raise ValueError("an order by key has no value, any other has one")
        if self.order_value is not None:
            digits = self.order_value.as_tuple()
            if not isinstance(digits.exponent, int) or not -_SUM_DIGITS_MAX <= digits.exponent <= _SUM_DIGITS_MAX:
                raise ValueError("no sum of quantities")
            if len(digits.digits) > 2 * _SUM_DIGITS_MAX:
                raise ValueError("no sum of quantities")


@strawberry.type
class UsageReport:
    """The answer to a usage query."""

    period: Period
    time_zone: ZoneName
    group_by: list[Dimension]
    as_of: Instant = strawberry.field(description="Every event acknowledged before this instant is counted.")
    context: strawberry.Private[Context]
    question: strawberry.Private[Question]
    once: strawberry.Private[Once]

    @strawberry.field(description="The whole period, everything together.")
    async def totals(self) -> list[UsageTotal]:
        """Everything, by unit."""
        whole = msgspec.structs.replace(self.question, group_by=())
        totals = await self.once.ask("totals", lambda: read.read_totals(self.context.snapshot, whole))
        return usage_totals(totals, Scopes(self.context, whole, ((),), remainder=False, once=self.once))

    @strawberry.field
    async def groups(
        self,
        info: MeteringInfo,
        order_by: UsageOrder = UsageOrder(field=UsageOrderField.QUANTITY, direction=OrderDirection.DESC),  # noqa: B008 - the contract's default
        first: int = 50,
        after: str | None = strawberry.UNSET,
    ) -> UsageGroupConnection:
        """One page of groups."""
        unit = order_by.unit or None
        asked = GroupsAsked(
            order_by.field.value, order_by.direction is OrderDirection.DESC, unit, first, after or None, ()
        )
        connection = self._connection(asked, await self.page(asked))
        shown = [field for field in children(info.selected_fields) if field.name in {"nodes", "edges"}]
        for dimension in dimensions_asked(shown) if connection.nodes else ():
            await connection.nodes[0].scopes.count(dimension)
        return connection

    async def page(self, asked: GroupsAsked) -> read.GroupPage:
        """The page of groups that is asked for; asked once, however many fields show it."""
        check_first(asked.first, self.context.limits, ("groups", "first"))
        place = self._place(asked)
        unit = asked.unit if place is None else place.unit
        # A list that began by EVENTS, for want of a unit, goes on so, also where but one unit is left meanwhile.
        by_events = place is not None and asked.field == "QUANTITY" and unit is None
        order = GroupOrder("EVENTS" if by_events else asked.field, asked.descending, unit)
        after = None if place is None else read.After(place.key, place.order_value)
        bucket = self._read_along(asked)
        return await self.once.ask(
            ("page", order, asked.first, asked.after),
            lambda: read.read_groups(self.context.snapshot, self.question, order, asked.first, after, bucket),
        )

    def _read_along(self, asked: GroupsAsked) -> Bucket | None:
        """The bucket by which series are read along with their groups: the one that is asked for, where it cannot be too much."""
        if len(set(asked.buckets)) != 1 or not _OFFERED.issuperset(self.question.group_by):
            return None
        maximum = self.context.limits.points_max
        enough = asked.first * _bucket_count(self.question, asked.buckets[0], maximum) <= maximum
        return asked.buckets[0] if enough else None

    def _place(self, asked: GroupsAsked) -> _GroupPlace | None:
        if asked.after is None:
            return None
        path = ("groups", "after")
        place = decode_cursor(asked.after, _GroupPlace, path)
        group_by = tuple(dimension.value for dimension in self.question.group_by)
        same_unit = asked.field != "QUANTITY" or asked.unit in {None, place.unit}
        same_order = (place.field, place.descending) == (asked.field, asked.descending) and same_unit
        if place.group_by != group_by or len(place.key) != len(group_by) or not same_order:
            raise InvalidInputError([InputIssue(path, "This cursor is of a query with another groupBy or orderBy.")])
        return place

    def _connection(self, asked: GroupsAsked, page: read.GroupPage) -> UsageGroupConnection:
        wanted = tuple(group.key for group in page.groups)
        once = Once()
        if page.courses is not None:
            once.know(("series", page.courses.bucket), (page.courses.bounds, page.courses.of_groups))
        on_page = Scopes(self.context, self.question, wanted, remainder=False, once=once)
        others = Scopes(self.context, self.question, wanted, remainder=True, once=once)
        group_by = tuple(dimension.value for dimension in self.question.group_by)
        nodes = [
            UsageGroup(
                key=UsageKey(**dict(zip(group_by, group.key, strict=True))),
                group=group,
                position=position,
                scopes=on_page,
            )
            for position, group in enumerate(page.groups)
        ]
        cursors = [
            encode_cursor(
                _GroupPlace(group_by, asked.field, asked.descending, page.order_unit, group.key, group.order_value)
            )
            for group in page.groups
        ]
        return UsageGroupConnection(
            edges=edges_of(nodes, cursors),
            nodes=nodes,
            page_info=page_info(cursors, has_next=page.has_next, has_previous=asked.after is not None),
            total_count=page.group_count,
            remainder=usage_totals(page.remainder, others),
        )


UsageResult = Annotated[UsageReport | InvalidInput | TooLarge, strawberry.union("UsageResult")]


async def resolve_usage(query: UsageQuery, info: MeteringInfo) -> UsageResult:
    """Metered quantities in a period: totals, groups and time series."""
    context = info.context
    context.require(Scope.USAGE_READ)
    asked_extremes = any(is_asked(info.selected_fields, name) for name in ("minimum", "maximum"))
    question = msgspec.structs.replace(question_of(query, context.limits), extremes=asked_extremes)
    horizon = await context.snapshot.horizon()
    report = UsageReport(
        period=Period(from_=query.period.from_, to=query.period.to),
        time_zone=query.time_zone,
        group_by=list(query.group_by),
        as_of=Instant(horizon.as_of),
        context=context,
        question=question,
        once=Once(),
    )
    # What is refused is the answer of `usage` itself: below it, an error would take the other answers with it.
    await read.check_retained(context.snapshot, question)
    asked = groups_asked(info.selected_fields)
    await _check_points(report, asked)
    await read.check_retained(context.snapshot, question, {bucket for groups in asked for bucket in groups.buckets})
    return report


async def _check_points(report: UsageReport, asked: Sequence[GroupsAsked]) -> None:
    """Raise TooLargeError when the series of the operation have too many points, before any is read; else count them."""
    maximum = report.context.limits.points_max
    points = 0
    for groups in asked:
        page = await report.page(groups)
        for bucket in groups.buckets:
            series = sum(len(group.totals) for group in page.groups)
            points += series * _bucket_count(report.question, bucket, maximum)
    report.context.cost.take(points, maximum)


def _bucket_count(question: Question, bucket: Bucket, enough: int) -> int:
    """How many buckets a series has; where it is many more than enough, about how many."""
    about = (question.period.end - question.period.start) // SHORTEST[bucket]
    if about > 2 * enough:
        return about
    return len(read.series_bounds(question, bucket)) - 1
