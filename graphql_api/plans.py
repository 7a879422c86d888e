"""The catalog of plans, published as versions that never change."""

from functools import partial
from typing import Annotated, Final

import strawberry

from graphql_api.context import MeteringInfo
from graphql_api.left_out import given_or_none
from graphql_api.nodes import Node, PlanName, node_id
from graphql_api.pages import Connection, page_by_key
from graphql_api.prices import PriceInput, price_of
from graphql_api.problems import Conflict, InvalidInput
from graphql_api.scalars import CurrencyCode, DecimalText, Instant, JsonObject
from metering.keys import Scope
from metering.plans import PublishedPlan, find_plan, read_plans
from rating import plans
from rating.billing_periods import BillingInterval
from rating.definitions import definition_of
from rating.exact import ZERO
from rating.plans import PriceTiming

_NOTHING: Final = DecimalText(ZERO)
# A draft has no version yet.
_UNPUBLISHED: Final = 0

strawberry.enum(BillingInterval, name="BillingInterval")


@strawberry.type(
    description="Two prices of a plan whose meters can count the same event: it is charged twice, which may be meant."
)
class PriceOverlap:
    """Two prices by their keys, in the plan's order."""

    first_price: str
    second_price: str


@strawberry.type(
    description="A version of a plan; it never changes. A new version applies to a subscription from the first billing "
    "period on that begins at or after its `effectiveFrom`."
)
class Plan(Node):
    """One version."""

    id: strawberry.ID = strawberry.field(description="Globally unique and opaque.")
    key: str
    version: int
    name: str
    currency_code: CurrencyCode
    effective_from: Instant
    interval: BillingInterval
    published_at: Instant | None = strawberry.field(description="Null for a dry run: this is what would be published.")
    # What may be long is written when it is asked for.
    published: strawberry.Private[PublishedPlan]

    @strawberry.field(description="The whole plan, as it was published; decimals are strings.")
    def definition(self) -> JsonObject:
        """With the contract's names."""
        return JsonObject(definition_of(self.published.plan))

    @strawberry.field(description="The prices that can charge one event twice, in pairs.")
    def overlaps(self) -> list[PriceOverlap]:
        """In the plan's order."""
        pairs = self.published.overlaps
        return [PriceOverlap(first_price=pair.first_price, second_price=pair.second_price) for pair in pairs]


PlanConnection = Connection[Plan]


@strawberry.input
class PlanPriceInput:
    """A price within a plan."""

    key: str = strawberry.field(description="Stable within the plan; lines and adjustments carry it.")
    meter: str | None = strawberry.field(default=strawberry.UNSET, description="None for a flat or per-seat price.")
    price: PriceInput
    included_quantity: DecimalText = _NOTHING
    minimum_amount: DecimalText | None = strawberry.UNSET
    maximum_amount: DecimalText | None = strawberry.UNSET
    discount_percent: DecimalText = _NOTHING
    timing: PriceTiming = PriceTiming.IN_ARREARS
    prorated: bool = strawberry.field(
        default=True,
        description="Whether a part of a period costs a part of the amount; of flat, per-seat, minimum and included "
        "quantities, and of levels over time alike.",
    )


@strawberry.input
class PublishPlanInput:
    """A plan as it is published."""

    key: str
    name: str
    currency_code: CurrencyCode = strawberry.field(description="Of all versions of a plan alike.")
    interval: BillingInterval = BillingInterval.MONTH
    effective_from: Instant = strawberry.field(description="Not before the newest version's.")
    prices: list[PlanPriceInput]
    minimum_amount: DecimalText | None = strawberry.field(
        default=strawberry.UNSET, description="The least that a billing period comes to."
    )
    dry_run: bool = strawberry.field(
        default=False, description="Answer what would be published, with the version that it would get; write nothing."
    )


PublishPlanResult = Annotated[Plan | InvalidInput | Conflict, strawberry.union("PublishPlanResult")]


async def resolve_plans(first: int, after: str | None, info: MeteringInfo) -> PlanConnection:
    """All plans by key, each in its newest version."""
    context = info.context
    context.require(Scope.CATALOG_READ)
    return await page_by_key(first, after, context.limits, partial(read_plans, context.snapshot), plan_of)


async def resolve_plan(key: str, version: int | None, info: MeteringInfo) -> Plan | None:
    """The plan of this key, in this version or in its newest."""
    context = info.context
    context.require(Scope.CATALOG_READ)
    found = await find_plan(context.snapshot, key, version)
    return None if found is None else plan_of(found)


async def find_plan_node(name: PlanName, info: MeteringInfo) -> Plan | None:
    """The version of a global id."""
    return await resolve_plan(name.key, name.version, info)


async def resolve_publish_plan(given: PublishPlanInput, info: MeteringInfo) -> PublishPlanResult:
    """Publish a plan as its next version."""
    context = info.context
    key = context.require(Scope.CATALOG_WRITE)
    return plan_of(await context.service.publish_plan(draft_of(given), key, dry_run=given.dry_run))


def draft_of(given: PublishPlanInput) -> plans.Plan:
    """The plan that an input says; its version is counted where it is published."""
    return plans.Plan(
        key=given.key,
        version=_UNPUBLISHED,
        name=given.name,
        currency_code=given.currency_code,
        interval=given.interval,
        effective_from=given.effective_from,
        prices=tuple(map(_plan_price, given.prices)),
        minimum_amount=given_or_none(given.minimum_amount),
    )


def _plan_price(given: PlanPriceInput) -> plans.PlanPrice:
    return plans.PlanPrice(
        key=given.key,
        price=price_of(given.price),
        meter=given_or_none(given.meter),
        included_quantity=given.included_quantity,
        minimum_amount=given_or_none(given.minimum_amount),
        maximum_amount=given_or_none(given.maximum_amount),
        discount_percent=given.discount_percent,
        timing=given.timing,
        prorated=given.prorated,
    )


def plan_of(published: PublishedPlan) -> Plan:
    """A version as the API shows it."""
    plan = published.plan
    return Plan(
        id=node_id("Plan", plan.key, plan.version),
        key=plan.key,
        version=plan.version,
        name=plan.name,
        currency_code=CurrencyCode(plan.currency_code),
        effective_from=Instant(plan.effective_from),
        interval=plan.interval,
        published_at=None if published.published_at is None else Instant(published.published_at),
        published=published,
    )
