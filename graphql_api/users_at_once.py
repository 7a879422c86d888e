"""`usersAtOnce`: how many users were there at the same time, at most; of everything, by group and over time."""

from typing import Annotated, cast

import strawberry

from graphql_api.context import MeteringInfo
from graphql_api.left_out import given_or_none
from graphql_api.pages import check_first
from graphql_api.problems import InvalidInput, TooLarge
from graphql_api.questions import Period, UsageQuery, question_of
from graphql_api.scalars import Instant, ZoneName
from graphql_api.usage import UsageKey, _bucket_count
from metering.events import Dimension
from metering.health.users_at_once import read_users_at_once
from metering.keys import Scope
from metering.periods import Bucket


@strawberry.type(description="A group with a use.")
class UsersAtOnceGroup:
    """One group."""

    key: UsageKey
    users: int = strawberry.field(description="The most users that were there at once.")
    at: Instant = strawberry.field(description="The first instant at which they were.")


@strawberry.type(description="Lists of one length; the i-th entries belong together.")
class UsersAtOnceColumns:
    """A series, column by column."""

    from_: list[Instant] = strawberry.field(name="from")
    users: list[int] = strawberry.field(description="The most users that were there at once in the bucket.")


@strawberry.type
class UsersAtOnceSeries:
    """The course of how many were there."""

    bucket: Bucket
    columns: UsersAtOnceColumns


@strawberry.type(
    description="Of uses: events of users that are neither reversals nor in the background, and of no service account. A session "
    "is made of the uses that are asked for, of each group by itself, and ends with 30 minutes without one; a user is there "
    "from its first use to its last, whichever of several devices it is on. Peaks of groups do not add up."
)
class UsersAtOnceReport:
    """The answer to a question about users at once."""

    period: Period
    time_zone: ZoneName = strawberry.field(description="Cuts the buckets.")
    group_by: list[Dimension]
    as_of: Instant = strawberry.field(description="Every event acknowledged before this instant is counted.")
    users: int = strawberry.field(description="The most users that were there at once, all groups together.")
    at: Instant | None = strawberry.field(
        description="The first instant at which they were; null where there was nobody."
    )
    groups: list[UsersAtOnceGroup] = strawberry.field(
        description="The largest first; none where the query has no `groupBy`."
    )
    group_count: int = strawberry.field(description="How many groups there are, listed or not.")
    series: UsersAtOnceSeries | None = strawberry.field(
        description="All groups together, by bucket; null where no bucket is given."
    )


UsersAtOnceResult = Annotated[UsersAtOnceReport | InvalidInput | TooLarge, strawberry.union("UsersAtOnceResult")]


async def resolve_users_at_once(
    query: UsageQuery, bucket: Bucket | None, first: int, info: MeteringInfo
) -> UsersAtOnceResult:
    """The peaks of the usage that is asked for."""
    context = info.context
    context.require(Scope.USAGE_READ)
    limits = context.limits
    question = question_of(query, limits)
    check_first(first, limits, ("first",))
    chosen = given_or_none(bucket)
    if chosen is not None:
        context.cost.take(_bucket_count(question, chosen, limits.points_max), limits.points_max)
    found = await read_users_at_once(context.snapshot, question, chosen, first, limits)
    names = [dimension.value for dimension in question.group_by]
    return UsersAtOnceReport(
        period=Period(from_=query.period.from_, to=query.period.to),
        time_zone=query.time_zone,
        group_by=list(query.group_by),
        as_of=Instant((await context.snapshot.horizon()).as_of),
        users=0 if found.peak is None else found.peak.users,
        at=None if found.peak is None else Instant(found.peak.at),
        groups=[
            UsersAtOnceGroup(
                key=UsageKey(**dict(zip(names, each.key, strict=True))),
                users=each.peak.users,
                at=Instant(each.peak.at),
            )
            for each in found.groups
        ],
        group_count=found.all_groups,
        series=None
        if chosen is None
        else UsersAtOnceSeries(
            bucket=chosen,
            # The API's scalar is a name for these very values.
            columns=UsersAtOnceColumns(from_=cast("list[Instant]", found.starts), users=list(found.users)),
        ),
    )
