"""`ways`: from which feature users go to which other one, and how much of what they do is routine."""

from typing import Annotated

import strawberry

from graphql_api.context import MeteringInfo
from graphql_api.pages import check_first
from graphql_api.problems import InvalidInput
from graphql_api.questions import Period, UsageQuery, question_of
from graphql_api.scalars import BigInt, Instant, ZoneName
from metering.errors import InputIssue, InvalidInputError
from metering.health import ways
from metering.health.sessions import sessions_faults
from metering.health.ways import read_ways
from metering.keys import Scope


@strawberry.type
class WayEnd:
    """Where a way begins, or where it leads."""

    product: str
    feature: str


@strawberry.type(description="Two features that users use one right after the other in a session.")
class Way:
    """One way."""

    first: WayEnd
    then: WayEnd
    times: BigInt = strawberry.field(description="How often it was walked.")
    share: float = strawberry.field(
        description="Of `times` of all ways, 0 to 1; the shares of all ways and of `others` add up to 1."
    )
    users: int = strawberry.field(description="How many users walked it.")
    days: BigInt = strawberry.field(description="On how many days of users, each on each day.")


@strawberry.type(description="All ways that are not listed, together: listed and others are the whole.")
class OtherWays:
    """The rest."""

    ways: int
    times: BigInt
    share: float = strawberry.field(description="0 where there are none.")


@strawberry.type(
    description="Of uses: events of users that are neither reversals nor in the background, and of no service account. A session "
    "is made of the uses that are asked for, and ends with 30 minutes without one."
)
class WaysReport:
    """The answer to a question about ways."""

    period: Period
    time_zone: ZoneName = strawberry.field(description="Cuts the days.")
    as_of: Instant = strawberry.field(description="Every event acknowledged before this instant is counted.")
    times: BigInt = strawberry.field(description="How often all ways were walked.")
    way_count: int
    ways: list[Way] = strawberry.field(description="Those that were walked most often first.")
    others: OtherWays
    users: int = strawberry.field(description="Users with a use.")
    walkers: int = strawberry.field(description="Users who walked a way.")
    active_days: BigInt = strawberry.field(description="Days of users with a use, each on each day.")
    routine_days: BigInt = strawberry.field(
        description="Days of users on which they walked their own usual way: that of each which has most days."
    )
    routine_strength: float | None = strawberry.field(
        description="routineDays / activeDays, 0 to 1; of one user, how much of a routine it is. Null without a use."
    )


WaysResult = Annotated[WaysReport | InvalidInput, strawberry.union("WaysResult")]


async def resolve_ways(query: UsageQuery, first: int, info: MeteringInfo, *, repeats: bool) -> WaysResult:
    """The ways of the usage that is asked for, all of it together."""
    context = info.context
    context.require(Scope.USAGE_READ)
    question = question_of(query, context.limits)
    check_first(first, context.limits, ("first",))
    faults = sessions_faults(question, context.limits)
    if question.group_by:
        message = "Ways are of everything together: leave `groupBy` out, and ask for one account, user or product by a filter."
        faults.append(InputIssue(("query", "groupBy"), message))
    if faults:
        raise InvalidInputError(faults)
    found = await read_ways(context.snapshot, question, first, context.limits, repeats=repeats)
    listed = [_way(each, found.all_times) for each in found.ways]
    times = found.all_times - sum(each.times for each in found.ways)
    return WaysReport(
        period=Period(from_=query.period.from_, to=query.period.to),
        time_zone=query.time_zone,
        as_of=Instant((await context.snapshot.horizon()).as_of),
        times=BigInt(found.all_times),
        way_count=found.all_ways,
        ways=listed,
        others=OtherWays(
            ways=found.all_ways - len(listed), times=BigInt(times), share=times / found.all_times if times else 0.0
        ),
        users=found.users,
        walkers=found.walkers,
        active_days=BigInt(found.active_days),
        routine_days=BigInt(found.routine_days),
        routine_strength=found.routine_days / found.active_days if found.active_days else None,
    )


def _way(found: ways.Way, all_times: int) -> Way:
    return Way(
        first=WayEnd(product=found.first.product, feature=found.first.feature),
        then=WayEnd(product=found.then.product, feature=found.then.feature),
        times=BigInt(found.times),
        share=found.times / all_times,
        users=found.users,
        days=BigInt(found.days),
    )
