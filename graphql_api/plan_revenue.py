"""`planRevenue`: which plans monetise best."""

from decimal import Decimal
from typing import Annotated, Final

import strawberry

from graphql_api.context import MeteringInfo
from graphql_api.lookahead import pages_asked
from graphql_api.money import Money, money_of
from graphql_api.money_place import page_behind, place_asked
from graphql_api.pages import Connection, edges_of
from graphql_api.problems import InvalidInput, TooLarge
from graphql_api.questions import Period, PeriodInput
from graphql_api.scalars import CurrencyCode, DecimalText, Instant
from metering.events import in_utc
from metering.health import plan_revenue
from metering.health.plan_revenue import Kind, read_plan_revenue, totals_of
from metering.keys import Scope
from metering.limits import Limits
from metering.periods import Period as MeteringPeriod
from rating.exact import half_away

_SHARE_STEP: Final = Decimal("0.000001")


@strawberry.type
class MeterRevenue:
    """What usage of one meter came to."""

    meter: str
    amount: Money
    quantity: DecimalText | None = strawberry.field(
        description="What the meter counted on the plan's subscriptions in the period, also what was included; of a SUM or a "
        "COUNT alone, and as long as its usage is kept."
    )
    unit_price: DecimalText | None = strawberry.field(
        description="amount / quantity: the effective price of a unit, after all that is included and discounted; cut after six "
        "digits."
    )


@strawberry.type(description="recurring + usage + adjustments = total.")
class PlanRevenue:
    """What was charged on one plan."""

    plan: str
    currency_code: CurrencyCode
    recurring: Money = strawberry.field(description="What is owed for time: flat prices and seats.")
    usage: Money = strawberry.field(description="What is owed for usage, minimums with it.")
    adjustments: Money = strawberry.field(description="What was made up for other periods.")
    total: Money
    accounts: int = strawberry.field(description="Accounts that were charged.")
    per_account: Money | None = strawberry.field(description="total / accounts.")
    active_users: int = strawberry.field(
        description="Users who were active, on the UTC days that touch the period, on a subscription that was last on the plan."
    )
    per_active_user: Money | None = strawberry.field(description="total / activeUsers; null without any.")
    meters: list[MeterRevenue] = strawberry.field(description="Those with an amount or a quantity, by key.")
    gross_retention: DecimalText | None = strawberry.field(
        description="Of subscriptions on the plan as the period began: what is left at the end of what they brought in a month, "
        "without what any of them added; to six digits. As contracts say; null where they brought in nothing."
    )
    net_retention: DecimalText | None = strawberry.field(
        description="The same with what they added, on whichever plan they are then."
    )


@strawberry.type
class PlanRevenueConnection(Connection[PlanRevenue]):
    """One page of plans."""

    total_count: int
    remainder: list[Money] = strawberry.field(
        description="All plans that are not on this page, together: page plus remainder is the whole."
    )


@strawberry.type(description="Amounts are those of `charges`, by the plan that a line is of.")
class PlanRevenueReport:
    """The answer."""

    period: Period
    as_of: Instant = strawberry.field(description="Every event acknowledged before this instant is counted.")
    totals: list[Money] = strawberry.field(
        description="One for each currency; amounts are never added across currencies."
    )
    found: strawberry.Private[list[plan_revenue.PlanRevenue]]
    limits: strawberry.Private[Limits]

    @strawberry.field(description="By currency, the largest total first.")
    def plans(self, first: int = 50, after: str | None = strawberry.UNSET) -> PlanRevenueConnection:
        """A page of them."""
        page = page_behind(self.found, first, after or None, self.limits, "plans")
        nodes = [_shown(each) for each in page.rows]
        return PlanRevenueConnection(
            edges=edges_of(nodes, page.cursors),
            nodes=nodes,
            page_info=page.info,
            total_count=len(self.found),
            remainder=[money_of(each) for each in totals_of(page.rest)],
        )


PlanRevenueResult = Annotated[PlanRevenueReport | InvalidInput | TooLarge, strawberry.union("PlanRevenueResult")]


async def resolve_plan_revenue(period: PeriodInput, info: MeteringInfo) -> PlanRevenueResult:
    """What plans bring in."""
    context = info.context
    context.require(Scope.CHARGES_READ)
    # What is refused is the answer of the field itself: below it, an error would take the other answers with it.
    for page in pages_asked(info.selected_fields, "plans"):
        place_asked(page.first, page.after, context.limits, "plans")
    asked = MeteringPeriod(in_utc(period.from_), in_utc(period.to))
    found = await read_plan_revenue(context.snapshot, asked, context.limits)
    return PlanRevenueReport(
        period=Period(from_=period.from_, to=period.to),
        as_of=Instant((await context.snapshot.horizon()).as_of),
        totals=[money_of(each) for each in totals_of(found)],
        found=found,
        limits=context.limits,
    )


def _shown(found: plan_revenue.PlanRevenue) -> PlanRevenue:
    per_account, per_user = found.for_each(found.accounts), found.for_each(found.users)
    return PlanRevenue(
        plan=found.plan,
        currency_code=CurrencyCode(found.currency.code),
        recurring=money_of(found.amounts[Kind.RECURRING]),
        usage=money_of(found.amounts[Kind.USAGE]),
        adjustments=money_of(found.amounts[Kind.ADJUSTMENT]),
        total=money_of(found.total),
        accounts=found.accounts,
        per_account=None if per_account is None else money_of(per_account),
        active_users=found.users,
        per_active_user=None if per_user is None else money_of(per_user),
        meters=[_meter(each) for each in found.meters],
        gross_retention=_share(found.kept.gross),
        net_retention=_share(found.kept.net),
    )


def _meter(found: plan_revenue.MeterRevenue) -> MeterRevenue:
    price = found.unit_price
    return MeterRevenue(
        meter=found.meter,
        amount=money_of(found.amount),
        quantity=None if found.quantity is None else DecimalText(found.quantity),
        unit_price=None if price is None else DecimalText(price),
    )


def _share(share: Decimal | None) -> DecimalText | None:
    return None if share is None else DecimalText(half_away(share, _SHARE_STEP))
