"""Subscriptions: who is on which plan, from when on, with how many seats."""

from datetime import datetime
from typing import Annotated, Final

import msgspec
import strawberry

from graphql_api.attributes import attributes_of
from graphql_api.context import MeteringInfo
from graphql_api.health import health_field
from graphql_api.left_out import given_or_none
from graphql_api.money import Money, money_of
from graphql_api.nodes import Node, SubscriptionName, node_id
from graphql_api.problems import Conflict, InvalidInput, NotFound
from graphql_api.scalars import DecimalText, Instant, JsonObject, ZoneName
from health.scorecards import Subject
from metering.keys import Scope
from metering.subjects import SubjectRef
from metering.subscriptions import Subscription, SubscriptionOrder, find_subscription
from rating.exact import ZERO
from rating.money import currency_of, rounded

_NOTHING: Final = DecimalText(ZERO)


@strawberry.type(description="From an instant on: which plan, and how many seats.")
class SubscriptionTerms:
    """Terms, until the next ones."""

    since: Instant
    plan: str
    plan_version: int | None = strawberry.field(
        description="The version that is kept to; null: the one that is in effect where a billing period begins."
    )
    seats: int | None


@strawberry.type(description="A subscription as it is now, and its terms over time.")
class SubscriptionFacts(Node):
    """One subscription."""

    id: strawberry.ID = strawberry.field(description="Globally unique and opaque.")
    key: str
    account: str
    plan: str = strawberry.field(
        description="Now; before it starts, the first one, and after it has ended, the last one."
    )
    plan_version: int | None = strawberry.field(description="The version that is kept to now, where one is.")
    starts_at: Instant
    ends_at: Instant | None
    trial_ends_at: Instant | None
    renews_at: Instant | None
    billing_anchor: Instant = strawberry.field(description="Where billing periods are counted from.")
    seats: int | None = strawberry.field(description="Now.")
    monthly_amount: Money | None
    discount_percent: DecimalText
    time_zone: ZoneName
    attributes: JsonObject
    terms: list[SubscriptionTerms] = strawberry.field(
        description="In order of time, what was and what is to come; they hold until the next ones."
    )

    health = health_field(lambda its: SubjectRef(Subject.SUBSCRIPTION, its.account, its.key))


@strawberry.input
class PutSubscriptionInput:
    """A subscription as it is put."""

    key: str
    account: str
    plan: str
    starts_at: Instant
    ends_at: Instant | None = strawberry.UNSET
    trial_ends_at: Instant | None = strawberry.UNSET
    renews_at: Instant | None = strawberry.UNSET
    billing_anchor: Instant | None = strawberry.field(
        default=strawberry.UNSET,
        description="Periods are counted from here, in the subscription's zone; startsAt unless given.",
    )
    plan_version: int | None = strawberry.field(
        default=strawberry.UNSET,
        description="Stay on this version; otherwise a new version applies from the first period that begins at or after "
        "its effectiveFrom.",
    )
    seats: int | None = strawberry.UNSET
    effective_at: Instant | None = strawberry.field(
        default=strawberry.UNSET,
        description="From when on plan, planVersion and seats are these, where they are others then: an instant of the "
        "subscription, past or to come. What was put for later no longer counts. Unless given: startsAt of a new "
        "subscription, and now for a change.",
    )
    monthly_amount: DecimalText | None = strawberry.field(
        default=strawberry.UNSET, description="For health and portfolio figures, where no statement tells."
    )
    discount_percent: DecimalText | None = strawberry.field(
        default=strawberry.UNSET, description="A DISCOUNT line over recurring and usage lines."
    )
    time_zone: ZoneName = ZoneName("UTC")
    attributes: JsonObject | None = strawberry.UNSET


PutSubscriptionResult = Annotated[
    SubscriptionFacts | InvalidInput | NotFound | Conflict, strawberry.union("PutSubscriptionResult")
]


async def resolve_put_subscription(given: PutSubscriptionInput, info: MeteringInfo) -> PutSubscriptionResult:
    """Make a subscription, or change it."""
    context = info.context
    key = context.require(Scope.CATALOG_WRITE)
    made = await context.service.put_subscription(_order(given), key)
    # A snapshot of its own: the operation's may be older than what was just put.
    async with context.service.snapshot(key.reach) as snapshot:
        return facts_of(made, (await snapshot.horizon()).as_of)


async def find_subscription_node(name: SubscriptionName, info: MeteringInfo) -> SubscriptionFacts | None:
    """The subscription of a global id, if the caller sees its account."""
    context = info.context
    context.require(Scope.USAGE_READ)
    found = await find_subscription(context.snapshot, name.key)
    return None if found is None else facts_of(found, (await context.snapshot.horizon()).as_of)


def facts_of(subscription: Subscription, now: datetime) -> SubscriptionFacts:
    """A subscription as the API shows it at an instant."""
    terms = subscription.terms_at(now)
    return SubscriptionFacts(
        id=node_id("SubscriptionFacts", subscription.key),
        key=subscription.key,
        account=subscription.account,
        plan=terms.plan,
        plan_version=terms.plan_version,
        starts_at=Instant(subscription.starts_at),
        ends_at=_instant(subscription.ends_at),
        trial_ends_at=_instant(subscription.trial_ends_at),
        renews_at=_instant(subscription.renews_at),
        billing_anchor=Instant(subscription.billing_anchor),
        seats=terms.seats,
        monthly_amount=_monthly(subscription),
        discount_percent=DecimalText(subscription.discount_percent),
        time_zone=ZoneName(subscription.time_zone),
        attributes=JsonObject(msgspec.json.decode(subscription.attributes)),
        terms=[
            SubscriptionTerms(
                since=Instant(each.since), plan=each.plan, plan_version=each.plan_version, seats=each.seats
            )
            for each in subscription.terms
        ],
    )


def _instant(instant: datetime | None) -> Instant | None:
    return None if instant is None else Instant(instant)


def _monthly(subscription: Subscription) -> Money | None:
    if subscription.monthly_amount is None:
        return None
    currency = currency_of(subscription.currency_code)
    assert currency is not None, "a subscription is in the currency of a plan, which has a minor unit"
    return money_of(rounded(subscription.monthly_amount, currency))


def _order(given: PutSubscriptionInput) -> SubscriptionOrder:
    discount = given_or_none(given.discount_percent)
    return SubscriptionOrder(
        key=given.key,
        account=given.account,
        plan=given.plan,
        plan_version=given_or_none(given.plan_version),
        seats=given_or_none(given.seats),
        effective_at=given_or_none(given.effective_at),
        starts_at=given.starts_at,
        ends_at=given_or_none(given.ends_at),
        trial_ends_at=given_or_none(given.trial_ends_at),
        renews_at=given_or_none(given.renews_at),
        billing_anchor=given_or_none(given.billing_anchor),
        time_zone=given.time_zone,
        monthly_amount=given_or_none(given.monthly_amount),
        discount_percent=_NOTHING if discount is None else discount,
        attributes=attributes_of(given.attributes),
    )
