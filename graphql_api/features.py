"""`features`: which features are used, which users come back to, and which are sold and not used."""

from collections.abc import Mapping, Sequence
from datetime import UTC, date
from typing import Any, Final

import msgspec
import strawberry

from graphql_api.context import Context, MeteringInfo
from graphql_api.left_out import given_or_none
from graphql_api.once import Once
from graphql_api.pages import Connection, CursorText, check_first, decode_cursor, edges_of, encode_cursor, page_info
from graphql_api.scalars import BigInt
from metering.health import adoption
from metering.health.adoption import Stickiness, WeekOfUse, read_feature_retention, read_stickiness
from metering.health.features import FeatureFigures, FeatureKind, check_day, chosen_features, read_features

_KINDS: Final[Mapping[FeatureKind, str]] = {
    FeatureKind.USED: "Somebody used it in the 28 days.",
    FeatureKind.UNUSED: "Nobody used it in the 28 days.",
    FeatureKind.STICKY: "More of the users stay who tried it in their first 14 days: see `FeatureStickiness.isSticky`.",
}
_kind: Any = strawberry.enum(FeatureKind, description="Which features are asked for.")
for _value in _kind.__strawberry_definition__.values:
    _value.description = _KINDS[FeatureKind(_value.value)]


class _Asked(msgspec.Struct, frozen=True):
    """What is asked, and where; what several features need is read once."""

    context: Context
    as_of: date
    once: Once

    async def stickiness(self) -> Mapping[str, Stickiness]:
        """By feature."""

        async def read() -> Mapping[str, Stickiness]:
            return {each.feature: each for each in await read_stickiness(self.context.snapshot, None, self.as_of)}

        return await self.once.ask("stickiness", read)

    async def retention(self) -> Mapping[str, Sequence[WeekOfUse]]:
        """By feature."""
        return await self.once.ask("retention", lambda: read_feature_retention(self.context.snapshot, None, self.as_of))


@strawberry.type
class FeatureWeek:
    """A week since the first use."""

    week: int = strawberry.field(description="0 begins with the first use.")
    users: int = strawberry.field(description="Those whose week is over.")
    active: int = strawberry.field(description="Those of them who used the feature in it.")


@strawberry.type(
    description="Of users whose first active day is 12 weeks ago or longer: whether more of those stay who tried the feature in "
    "their first 14 days. Staying is activity in the days from 56 to 83. An association, and no cause: who stays anyway may "
    "try more."
)
class FeatureStickiness:
    """Who stays of those who tried a feature."""

    used: int = strawberry.field(description="Users who tried it.")
    used_kept: int
    others: int = strawberry.field(description="Users who did not.")
    others_kept: int
    lift: float = strawberry.field(description="By how much the share of those who stay is larger, smoothed (Laplace).")
    lift_low: float = strawberry.field(description="Where the difference is with 95 % confidence (Newcombe).")
    lift_high: float
    is_sticky: bool = strawberry.field(description="At least 30 users on both sides, and `liftLow` above zero.")


@strawberry.type(description="In the 28 UTC days before the day that is asked for, unless it says something else.")
class Feature:
    """One feature of one product."""

    product: str | None = strawberry.field(description="Null where it is sold, and nobody used it in a year.")
    feature: str
    users: int = strawberry.field(description="Users who used it.")
    users_before: int = strawberry.field(description="The same of the 28 days before.")
    share_of_users: float | None = strawberry.field(
        description="Of the product's users, those who used it, 0 to 1; null where there were none."
    )
    accounts: int = strawberry.field(description="Accounts in which it was used, also where no user is named.")
    share_of_accounts: float | None = strawberry.field(description="The same of accounts.")
    days_per_user: float | None = strawberry.field(description="On how many days those who used it did, on average.")
    events: BigInt
    first_used_on: date | None = strawberry.field(description="Within the year before the day.")
    last_used_on: date | None = strawberry.field(description="Within the year before the day.")
    entitled_accounts: int = strawberry.field(
        description="Accounts with a contract that runs whose attribute `features` (or that of the contract) names it. Where "
        "nobody said what an account is entitled to, it is not counted."
    )
    entitled_unused_accounts: int = strawberry.field(description="Those of them in which nobody used it.")
    asked: strawberry.Private[_Asked]

    @strawberry.field(description="Of a feature of this name in any product; null where no user is old enough.")
    async def stickiness(self) -> FeatureStickiness | None:
        """Read for all features at once."""
        found = (await self.asked.stickiness()).get(self.feature)
        return None if found is None else _stickiness(found)

    @strawberry.field(
        description="Who comes back to a feature of this name in any product, by whole weeks since the first use within a year; "
        f"{adoption.RETENTION_WEEKS} weeks at most."
    )
    async def retention(self) -> list[FeatureWeek]:
        """Read for all features at once."""
        weeks = (await self.asked.retention()).get(self.feature, ())
        return [FeatureWeek(week=each.week, users=each.users, active=each.active) for each in weeks]


@strawberry.type
class FeatureConnection(Connection[Feature]):
    """One page of features."""

    total_count: int


class _FeaturePlace(msgspec.Struct, frozen=True, array_like=True):
    """What a cursor holds: by what features are put in order."""

    users: int
    accounts: int
    feature: CursorText
    product: CursorText


async def resolve_features(
    product: str | None, kind: FeatureKind | None, as_of: date | None, first: int, after: str | None, info: MeteringInfo
) -> FeatureConnection:
    """The most used first."""
    context = info.context
    check_first(first, context.limits, ("first",))
    place = decode_cursor(after, _FeaturePlace, ("after",)) if after else None
    day = given_or_none(as_of) or (await context.snapshot.horizon()).as_of.astimezone(UTC).date()
    check_day(day, context.limits)
    asked = _Asked(context, day, Once())
    features = await read_features(context.snapshot, None, day)
    stickiness = await asked.stickiness() if kind is FeatureKind.STICKY else {}
    chosen = chosen_features(features, given_or_none(product), kind, stickiness)
    behind = [each for each in chosen if place is None or each.order > _order(place)]
    page = behind[:first]
    cursors = [encode_cursor(_FeaturePlace(*each.order)) for each in page]
    nodes = [_shown(each, asked) for each in page]
    return FeatureConnection(
        edges=edges_of(nodes, cursors),
        nodes=nodes,
        page_info=page_info(cursors, has_next=len(behind) > first, has_previous=place is not None),
        total_count=len(chosen),
    )


def _order(place: _FeaturePlace) -> tuple[int, int, str, str]:
    return place.users, place.accounts, place.feature, place.product


def _shown(found: FeatureFigures, asked: _Asked) -> Feature:
    return Feature(
        product=found.product,
        feature=found.feature,
        users=found.users,
        users_before=found.users_before,
        share_of_users=found.users / found.product_users if found.product_users else None,
        accounts=found.accounts,
        share_of_accounts=found.accounts / found.product_accounts if found.product_accounts else None,
        days_per_user=found.user_days / found.users if found.users else None,
        events=BigInt(found.events),
        first_used_on=found.first_on,
        last_used_on=found.last_on,
        entitled_accounts=found.entitled,
        entitled_unused_accounts=found.unused,
        asked=asked,
    )


def _stickiness(found: Stickiness) -> FeatureStickiness:
    return FeatureStickiness(
        used=found.used,
        used_kept=found.used_kept,
        others=found.others,
        others_kept=found.others_kept,
        lift=found.lift.value,
        lift_low=found.lift.low,
        lift_high=found.lift.high,
        is_sticky=found.is_sticky,
    )
