"""`revenueMovements`: recurring revenue by period of the calendar, what moved it, and with whom."""

from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Annotated, Any, Final

import msgspec
import strawberry

from graphql_api.context import Context, MeteringInfo
from graphql_api.left_out import given_or_none
from graphql_api.money import Money, money_of
from graphql_api.money_place import page_behind
from graphql_api.pages import Edge as PageEdge
from graphql_api.pages import PageInfo, edges_of
from graphql_api.problems import InvalidInput
from graphql_api.questions import Period, PeriodInput
from graphql_api.scalars import CurrencyCode, DecimalText, Instant, ZoneName
from metering.errors import InputIssue, InvalidInputError
from metering.events import in_utc
from metering.health import revenue
from metering.health.revenue import (
    RevenueChange,
    RevenueCourse,
    RevenueCustomer,
    Trials,
    instants_of,
    read_course,
    read_trials,
)
from metering.keys import Scope
from metering.periods import Period as MeteringPeriod
from rating.billing_periods import BillingInterval
from rating.exact import ONE, ZERO, half_away, total
from rating.money import currency_of, rounded

_CHANGES: Final[Mapping[RevenueChange, str]] = {
    RevenueChange.NEW: "Brings something in at the end, and nothing at the start; also who had left before.",
    RevenueChange.EXPANSION: "Brings in more.",
    RevenueChange.CONTRACTION: "Brings in less.",
    RevenueChange.CHURNED: "Brings in nothing any more.",
}
_change: Any = strawberry.enum(RevenueChange, description="What became of a customer's amount.")
for _value in _change.__strawberry_definition__.values:
    _value.description = _CHANGES[RevenueChange(_value.value)]
_SHARE_STEP: Final = Decimal("0.000001")


@strawberry.type(description="Amounts are of a month.")
class RevenueCustomerMovement:
    """One customer."""

    account: str
    change: RevenueChange
    start: Money
    end: Money
    difference: Money


@strawberry.type
class RevenueCustomerConnection:
    """One page of customers."""

    edges: list[PageEdge[RevenueCustomerMovement]]
    nodes: list[RevenueCustomerMovement]
    page_info: PageInfo
    total_count: int
    remainder: Money = strawberry.field(
        description="The differences of all that are not on this page, together: page plus remainder is the whole."
    )


class _Asked(msgspec.Struct, frozen=True):
    """Which period of a course, and in which currency."""

    context: Context
    course: RevenueCourse
    interval: BillingInterval
    place: int
    found: revenue.Revenue

    def money(self, amount: Decimal) -> Money:
        """An amount in its currency."""
        currency = currency_of(self.found.currency_code)
        assert currency is not None, "a subscription is in the currency of a plan, which has a minor unit"
        return money_of(rounded(amount, currency))


def _amount(description: str, amount_of: Callable[[revenue.Revenue], Decimal]) -> Any:
    def amount(root: Any) -> Money:
        asked: _Asked = root.asked
        return asked.money(amount_of(asked.found))

    return strawberry.field(resolver=amount, description=description)


def _share(description: str, share_of: Callable[[revenue.Revenue], Decimal | None]) -> Any:
    def share(root: Any) -> DecimalText | None:
        return _shown_share(share_of(root.asked.found))

    return strawberry.field(resolver=share, description=f"{description} To six digits; null where nothing was there.")


def _shown_share(share: Decimal | None) -> DecimalText | None:
    return None if share is None else DecimalText(half_away(share, _SHARE_STEP))


@strawberry.type(description="start + new + expansion - contraction - churned = end, exactly. Amounts are of a month.")
class RevenueMovement:
    """What moved in one currency."""

    currency_code: CurrencyCode
    start = _amount("What subscriptions bring in as the period begins.", lambda found: found.start)
    new = _amount("Of customers who brought in nothing at the start.", lambda found: found.new)
    expansion = _amount("What customers who stayed bring in more.", lambda found: found.expansion)
    contraction = _amount("What customers who stayed bring in less.", lambda found: found.contraction)
    churned = _amount("Of customers who bring in nothing any more.", lambda found: found.churned)
    end = _amount("What subscriptions bring in as the period ends.", lambda found: found.end)
    yearly = _amount("What the end comes to in a year (ARR).", lambda found: found.yearly)
    growth = _share("By which share the end is more than the start.", lambda found: found.growth)
    gross_retention = _share(
        "GRR: (start - contraction - churned) / start; 1 at most.", lambda found: found.gross_retention
    )
    net_retention = _share(
        "NRR: (start + expansion - contraction - churned) / start.", lambda found: found.net_retention
    )
    customer_churn = _share(
        "Customers who bring in nothing any more, by those of the start.", lambda found: found.customer_churn
    )
    customers_at_start: int
    customers_new: int
    customers_churned: int
    unknown: int = strawberry.field(description="Subscriptions of which nobody told an amount; they count as nothing.")
    asked: strawberry.Private[_Asked]

    @strawberry.field(
        description="What a customer brings in a life (CLV), were every month like this one: the average amount of a month times "
        "the margin (0 to 1), by the churn of customers. Null where nobody left; for the interval MONTH alone."
    )
    def customer_value(self, margin: DecimalText) -> Money | None:
        """By the churn of the month."""
        if not ZERO <= margin <= ONE:
            raise InvalidInputError([InputIssue(("margin",), "A margin is a share, from 0 to 1.")])
        if self.asked.interval is not BillingInterval.MONTH:
            message = "This is of months: ask for the interval MONTH."
            raise InvalidInputError([InputIssue(("customerValue",), message)])
        value = self.asked.found.customer_value(margin)
        return None if value is None else self.asked.money(value)

    @strawberry.field(description="Customers whose amount moved: the most first, whichever way.")
    def customers(
        self, change: RevenueChange | None = strawberry.UNSET, first: int = 50, after: str | None = strawberry.UNSET
    ) -> RevenueCustomerConnection:
        """A page of them."""
        asked, kind = self.asked, given_or_none(change)
        moved = asked.course.customers(asked.place, asked.found.currency_code)
        chosen = [each for each in moved if kind in {None, each.change}]
        page = page_behind(chosen, first, after or None, asked.context.limits)
        nodes = [self._shown(each) for each in page.rows]
        return RevenueCustomerConnection(
            edges=edges_of(nodes, page.cursors),
            nodes=nodes,
            page_info=page.info,
            total_count=len(chosen),
            remainder=asked.money(total(each.difference for each in page.rest)),
        )

    def _shown(self, customer: RevenueCustomer) -> RevenueCustomerMovement:
        return RevenueCustomerMovement(
            account=customer.account,
            change=customer.change,
            start=self.asked.money(customer.start),
            end=self.asked.money(customer.end),
            difference=self.asked.money(customer.difference),
        )


@strawberry.type
class RevenuePeriod:
    """What moved from one bound of the calendar to the next."""

    period: Period
    movements: list[RevenueMovement] = strawberry.field(
        description="One for each currency; amounts are never added across currencies."
    )


@strawberry.type(description="Trials that began in the period and ended two weeks ago or earlier.")
class TrialFigures:
    """Trials that are decided."""

    trials: int
    converted: int = strawberry.field(description="Those that went on for two weeks after the trial.")
    found: strawberry.Private[Trials]

    @strawberry.field(description="The share that is paid for. To six digits; null without any.")
    def conversion(self) -> DecimalText | None:
        """By those that are decided."""
        return _shown_share(self.found.conversion)


@strawberry.type(
    description="Of contracts, not of usage or statements: an amount is as it was said to be at the instant, and nothing before "
    "a subscription starts, after it ends, and while its trial runs. A customer is an account: what it brings in is that of "
    "all its subscriptions in the currency. What comes is as contracts say it now."
)
class RevenueReport:
    """The answer."""

    period: Period
    time_zone: ZoneName
    interval: BillingInterval
    as_of: Instant = strawberry.field(description="What was said before this instant is in it.")
    periods: list[RevenuePeriod] = strawberry.field(
        description="In order of time, side by side: each ends with what the next begins with. The first and the last are cut "
        "where the period begins and ends."
    )
    trials: TrialFigures


RevenueResult = Annotated[RevenueReport | InvalidInput, strawberry.union("RevenueResult")]


async def resolve_revenue_movements(
    given: PeriodInput, interval: BillingInterval, time_zone: ZoneName, info: MeteringInfo
) -> RevenueResult:
    """Two statements, however many customers and periods there are."""
    context = info.context
    context.require(Scope.CHARGES_READ)
    period = MeteringPeriod(in_utc(given.from_), in_utc(given.to))
    instants = instants_of(period, time_zone, interval, context.limits)
    course = await read_course(context.snapshot, None, instants)
    trials = await read_trials(context.snapshot, None, period)
    return RevenueReport(
        period=Period(from_=given.from_, to=given.to),
        time_zone=time_zone,
        interval=interval,
        as_of=Instant((await context.snapshot.horizon()).as_of),
        periods=[_period(context, course, interval, place) for place in range(len(instants) - 1)],
        trials=TrialFigures(trials=trials.trials, converted=trials.converted, found=trials),
    )


def _period(context: Context, course: RevenueCourse, interval: BillingInterval, place: int) -> RevenuePeriod:
    start, end = course.instants[place : place + 2]
    return RevenuePeriod(
        period=Period(from_=Instant(start), to=Instant(end)),
        movements=[
            _movement(_Asked(context, course, interval, place, course.revenue(place, currency)))
            for currency in course.currencies
        ],
    )


def _movement(asked: _Asked) -> RevenueMovement:
    found = asked.found
    return RevenueMovement(
        currency_code=CurrencyCode(found.currency_code),
        customers_at_start=found.customers_at_start,
        customers_new=found.customers_new,
        customers_churned=found.customers_churned,
        unknown=found.unknown,
        asked=asked,
    )
