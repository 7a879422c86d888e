"""`featureReception`: how a new feature is taken up, and what those make of it who could use it."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, date, timedelta

import strawberry

from graphql_api.context import Context, MeteringInfo
from graphql_api.features import FeatureWeek
from graphql_api.left_out import given_or_none
from health import reception
from health.reception import reception_of, weeks_of_return, weeks_of_uptake
from metering.health.features import check_day
from metering.health.launches import ANSWERS, Answers, Launch, read_answers, read_launch


@strawberry.type
class UptakeWeek:
    """A whole week since the first use."""

    from_: date = strawberry.field(name="from")
    to: date = strawberry.field(description="The first day after.")
    users: int = strawberry.field(description="Who used the feature in it.")
    new_users: int = strawberry.field(description="Who used it for the first time.")
    adopters: int = strawberry.field(description="Who has used it by the end of the week.")
    eligible: int = strawberry.field(
        description="Who has been active in the product since the first use, by the end of the week."
    )
    penetration: float = strawberry.field(description="adopters / eligible, 0 to 1.")


@strawberry.type(description="adopted + lukewarm + tooEarly + untouched = eligible.")
class Reception:
    """What those make of a feature who could use it."""

    adopted: int = strawberry.field(
        description=f"Used it on {reception.ADOPTED_DAYS_MIN} days or more of the {reception.TRIED_DAYS} from their first use on."
    )
    lukewarm: int = strawberry.field(description="On fewer days, and these days are over.")
    too_early: int = strawberry.field(description="On fewer days so far.")
    untouched: int = strawberry.field(description="Were active in the product, and did not use it.")


@strawberry.type(description="Of the users who could use the feature, the newest answer of each since its first use.")
class AnswersCompared:
    """What those answered who used it, and the others."""

    name: str = strawberry.field(description="The signal's name.")
    answers_of_users: int = strawberry.field(description="How many of those answered who used the feature.")
    mean_of_users: float | None
    answers_of_others: int
    mean_of_others: float | None


@strawberry.type(description="Counted from usage of the year before a UTC day.")
class FeatureReception:
    """One feature of one product."""

    product: str
    feature: str
    first_used_on: date = strawberry.field(
        description="When anybody first used it within the year; a feature that is older was not new then."
    )
    eligible: int = strawberry.field(description="Users who have been active in the product since that day.")
    adopters: int = strawberry.field(description="Those of them who used the feature.")
    penetration: float = strawberry.field(description="adopters / eligible, 0 to 1.")
    weeks: list[UptakeWeek] = strawberry.field(description="Whole weeks since the first use, as far as they are over.")
    retention: list[FeatureWeek] = strawberry.field(
        description="Who comes back, by whole weeks since each user's own first use."
    )
    reception: Reception
    found: strawberry.Private[Launch]
    as_of: strawberry.Private[date]
    context: strawberry.Private[Context]

    @strawberry.field(
        description=f"What users answered to surveys ({', '.join(ANSWERS)}). An association, and no cause: who likes the product "
        "may try more. None for a caller that is bound to accounts."
    )
    async def answers(self) -> list[AnswersCompared]:
        """By name."""
        if not self.context.snapshot.reach.is_everything:
            return []
        return _compared(await read_answers(self.context.snapshot, self.found, self.as_of))


async def resolve_feature_reception(
    product: str, feature: str, as_of: date | None, info: MeteringInfo
) -> FeatureReception | None:
    """None where nobody used it."""
    context = info.context
    day = given_or_none(as_of) or (await context.snapshot.horizon()).as_of.astimezone(UTC).date()
    check_day(day, context.limits)
    found = await read_launch(context.snapshot, None, product, feature, day)
    if found is None:
        return None
    # Of many users this takes a while, in which others are served.
    return await asyncio.to_thread(_received, found, product, feature, day, context)


def _received(found: Launch, product: str, feature: str, as_of: date, context: Context) -> FeatureReception:
    adopters = sum(bool(user.used) for user in found.users)
    made = reception_of(found.users, found.days)
    returns = weeks_of_return(found.users, found.days)
    return FeatureReception(
        product=product,
        feature=feature,
        first_used_on=found.first_on,
        eligible=len(found.users),
        adopters=adopters,
        penetration=adopters / len(found.users),
        weeks=[_week(each, found.first_on) for each in weeks_of_uptake(found.users, found.days)],
        retention=[FeatureWeek(week=each.week, users=each.users, active=each.active) for each in returns],
        reception=Reception(
            adopted=made.adopted, lukewarm=made.lukewarm, too_early=made.too_early, untouched=made.untouched
        ),
        found=found,
        as_of=as_of,
        context=context,
    )


def _week(found: reception.UptakeWeek, first_on: date) -> UptakeWeek:
    start = first_on + timedelta(weeks=found.week)
    return UptakeWeek(
        from_=start,
        to=start + timedelta(weeks=1),
        users=found.users,
        new_users=found.new_users,
        adopters=found.adopters,
        eligible=found.eligible,
        penetration=found.adopters / found.eligible,
    )


def _compared(found: Sequence[Answers]) -> list[AnswersCompared]:
    sides = {(each.name, each.has_used): each for each in found}
    compared = []
    for name in sorted({each.name for each in found}):
        used, others = sides.get((name, True)), sides.get((name, False))
        compared.append(
            AnswersCompared(
                name=name,
                answers_of_users=0 if used is None else used.answers,
                mean_of_users=None if used is None else used.mean,
                answers_of_others=0 if others is None else others.answers,
                mean_of_others=None if others is None else others.mean,
            )
        )
    return compared
