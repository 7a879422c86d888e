"""The inputs by which usage is asked for, and how they become a question."""

from collections.abc import Iterable, Mapping
from enum import Enum

import strawberry

from graphql_api.scalars import Instant, ZoneName
from metering.events import Dimension
from metering.limits import Limits
from metering.periods import Bucket
from metering.periods import Period as MeteringPeriod
from metering.questions import Question, ValueFilter, ask

# The domain's own enums are the API's: strawberry marks them, and annotations name them.
strawberry.enum(Dimension, name="Dimension", description="What usage can be filtered and grouped by.")
strawberry.enum(
    Bucket,
    name="Bucket",
    description="Calendar buckets, cut in the time zone of the query; a DAY is 23 to 25 hours long, a WEEK begins on "
    "Monday. `from` and `to` of a bucket are its calendar bounds, also where the period begins or ends inside it.",
)


@strawberry.enum(description="What stands in buckets without usage.")
class Fill(Enum):
    """How gaps in a series are shown."""

    NONE = strawberry.enum_value("NONE", description="Leave the bucket out.")
    ZERO = strawberry.enum_value("ZERO", description="A zero.")


@strawberry.enum
class OrderDirection(Enum):
    """Which way."""

    ASC = "ASC"
    DESC = "DESC"


@strawberry.input(description="A half-open range of time: `from` is inside, `to` is the first instant after.")
class PeriodInput:
    """A period as an argument."""

    from_: Instant = strawberry.field(name="from")
    to: Instant


@strawberry.type
class Period:
    """A period in an answer."""

    from_: Instant = strawberry.field(name="from")
    to: Instant


@strawberry.input(
    one_of=True,
    description="Keep usage whose dimension is one of `in`, or is none of `notIn`. "
    "A null in a list means usage without that dimension.",
)
class DimensionFilter:
    """One dimension's filter."""

    in_: strawberry.Maybe[list[str | None]] = strawberry.field(name="in")
    not_in: strawberry.Maybe[list[str | None]]


@strawberry.input(description="All that are given must hold.")
class UsageFilter:
    """A filter for each dimension; the names are the dimensions' own."""

    account: DimensionFilter | None = strawberry.UNSET
    subscription: DimensionFilter | None = strawberry.UNSET
    user: DimensionFilter | None = strawberry.UNSET
    device: DimensionFilter | None = strawberry.UNSET
    product: DimensionFilter | None = strawberry.UNSET
    feature: DimensionFilter | None = strawberry.UNSET
    classification: DimensionFilter | None = strawberry.UNSET
    unit: DimensionFilter | None = strawberry.UNSET


@strawberry.input
class UsageQuery:
    """Which usage is meant."""

    period: PeriodInput
    time_zone: ZoneName = strawberry.field(default=ZoneName("UTC"), description="Cuts the buckets.")
    group_by: list[Dimension] = strawberry.field(
        default_factory=list,
        description="One group for each combination that occurs; none means one group of everything.",
    )
    filter: UsageFilter = strawberry.field(default_factory=UsageFilter)


def question_of(query: UsageQuery, limits: Limits) -> Question:
    """The question that a query is. Raises InvalidInputError."""
    return ask(
        period=MeteringPeriod(query.period.from_, query.period.to),
        zone_name=query.time_zone,
        group_by=query.group_by,
        filters=filters_of(query.filter, Dimension),
        limits=limits,
    )


def filters_of(given: object, dimensions: Iterable[Dimension]) -> Mapping[Dimension, ValueFilter]:
    """The filters of an input that has a DimensionFilter for each of these dimensions, by its name."""
    filters = {}
    for dimension in dimensions:
        chosen: DimensionFilter | None = getattr(given, dimension.value)
        if not chosen:
            continue
        if chosen.in_ is not None:
            filters[dimension] = ValueFilter(tuple(chosen.in_.value))
        elif chosen.not_in is not None:
            filters[dimension] = ValueFilter(tuple(chosen.not_in.value), negated=True)
    return filters
