"""`planFit`: which subscriptions would owe less on another plan, and how much of what theirs include they use."""

from typing import Annotated

import strawberry

from graphql_api.context import MeteringInfo
from graphql_api.left_out import given_or_none
from graphql_api.lookahead import pages_asked
from graphql_api.money import Money, money_of
from graphql_api.money_place import page_behind, place_asked
from graphql_api.pages import Connection, edges_of
from graphql_api.problems import InvalidInput, TooLarge
from graphql_api.questions import Period, PeriodInput
from graphql_api.scalars import DecimalText, Instant
from metering.errors import ForbiddenError
from metering.keys import Scope
from metering.limits import LIMITS, Limits
from metering.statements.fits import Fit, FitOrder, Offer, read_fits
from rating.exact import ZERO, subtract
from rating.money import Money as Owed


@strawberry.input
class PlanFitInput:
    """What is compared."""

    period: PeriodInput = strawberry.field(description=f"Of {LIMITS.simulation_days_max} days at most.")
    account: str | None = strawberry.field(default=strawberry.UNSET, description="Everybody when left out.")
    plans: list[str] | None = strawberry.field(
        default=strawberry.UNSET, description="Keys of plans, each taken in its newest version; all when left out."
    )


@strawberry.type
class PlanOffer:
    """What would be owed on another plan."""

    plan: str
    version: int
    amount: Money
    difference: Money = strawberry.field(description="What would be owed more, or (below zero) less.")


@strawberry.type
class SubscriptionFit:
    """A subscription on its own plan, and on the others."""

    account: str
    subscription: str
    plan: str = strawberry.field(description="The one that it is on as the period ends.")
    current: Money = strawberry.field(description="What it owes as it is.")
    saving: Money = strawberry.field(
        description="What it would owe less on the cheapest other plan, or (below zero) more; zero where there is none."
    )
    included_used: DecimalText | None = strawberry.field(
        description="What it used of a meter by what its plan includes, of the meter of which most is used, over the billing "
        "periods that touch the period; cut after six digits. Null where nothing is included."
    )
    offers: list[PlanOffer] = strawberry.field(description="The cheapest first.")


@strawberry.type
class SubscriptionFitConnection(Connection[SubscriptionFit]):
    """One page of subscriptions."""

    total_count: int


@strawberry.type(
    description="All sides are rated as `simulatePlan` rates its two: from the usage of the moment, without adjustments and "
    "credits. Nobody is thought to use another plan in another way, and what a plan offers besides its prices is not seen."
)
class PlanFitReport:
    """The answer."""

    period: Period
    as_of: Instant = strawberry.field(description="Every event acknowledged before this instant is counted.")
    plans: list[str] = strawberry.field(description="The plans that were compared, by key.")
    would_save: int = strawberry.field(description="How many subscriptions would owe less on another plan.")
    found: strawberry.Private[tuple[Fit, ...]]
    limits: strawberry.Private[Limits]

    @strawberry.field(description="By currency, who would save most first.")
    def subscriptions(self, first: int = 50, after: str | None = strawberry.UNSET) -> SubscriptionFitConnection:
        """A page of them."""
        page = page_behind(self.found, first, after or None, self.limits, "subscriptions")
        nodes = [_shown(each) for each in page.rows]
        return SubscriptionFitConnection(
            edges=edges_of(nodes, page.cursors),
            nodes=nodes,
            page_info=page.info,
            total_count=len(self.found),
        )


PlanFitResult = Annotated[PlanFitReport | InvalidInput | TooLarge, strawberry.union("PlanFitResult")]


async def resolve_plan_fit(given: PlanFitInput, info: MeteringInfo) -> PlanFitResult:
    """Who would owe less on another plan."""
    context = info.context
    key = context.require(Scope.CHARGES_READ)
    if not context.snapshot.reach.is_everything:
        raise ForbiddenError(f"The key {key.prefix} is bound to accounts; plans may be made for other customers.")
    # What is refused is the answer of the field itself: below it, an error would take the other answers with it.
    for page in pages_asked(info.selected_fields, "subscriptions"):
        place_asked(page.first, page.after, context.limits, "subscriptions")
    order = FitOrder(
        start=given.period.from_,
        end=given.period.to,
        account=given_or_none(given.account),
        plans=given_or_none(given.plans),
    )
    found = await read_fits(context.snapshot, order, context.limits)
    return PlanFitReport(
        period=Period(from_=given.period.from_, to=given.period.to),
        as_of=Instant((await context.snapshot.horizon()).as_of),
        plans=[plan.key for plan in found.plans],
        would_save=sum(each.saving.amount > ZERO for each in found.fits),
        found=found.fits,
        limits=context.limits,
    )


def _shown(fit: Fit) -> SubscriptionFit:
    return SubscriptionFit(
        account=fit.account,
        subscription=fit.subscription,
        plan=fit.plan,
        current=money_of(fit.current),
        saving=money_of(fit.saving),
        included_used=None if fit.used is None else DecimalText(fit.used),
        offers=[_offer(each, fit.current) for each in fit.offers],
    )


def _offer(offer: Offer, current: Owed) -> PlanOffer:
    return PlanOffer(
        plan=offer.plan,
        version=offer.version,
        amount=money_of(offer.owed),
        difference=money_of(Owed(subtract(offer.owed.amount, current.amount), current.currency)),
    )
