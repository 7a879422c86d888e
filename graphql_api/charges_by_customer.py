"""`chargesByCustomer`: what each customer was charged, against a period before."""

from collections.abc import Iterable
from typing import Annotated

import strawberry

from graphql_api.context import MeteringInfo
from graphql_api.lookahead import pages_asked
from graphql_api.money import Money, money_of
from graphql_api.money_place import page_behind, place_asked
from graphql_api.pages import Connection, edges_of
from graphql_api.problems import InvalidInput, TooLarge
from graphql_api.questions import Period, PeriodInput
from graphql_api.scalars import Instant
from metering.events import in_utc
from metering.keys import Scope
from metering.limits import Limits
from metering.periods import Period as MeteringPeriod
from metering.statements.customers import ChargesTotal, CustomerCharges, read_customer_charges, totals_of
from rating.exact import subtract
from rating.money import Money as Owed


@strawberry.type(name="CustomerCharges")
class CustomerChargesRow:
    """What one account was charged in one currency."""

    account: str
    before: Money
    after: Money
    difference: Money = strawberry.field(description="What it was charged more, or (below zero) less.")


@strawberry.type
class ChargesChange:
    """What customers were charged together in one currency."""

    before: Money
    after: Money
    difference: Money


@strawberry.type
class CustomerChargesConnection(Connection[CustomerChargesRow]):
    """One page of customers."""

    total_count: int
    remainder: list[ChargesChange] = strawberry.field(
        description="All customers that are not on this page, together, by currency: page plus remainder is the whole."
    )


@strawberry.type(
    description="before + the differences = after, in each currency; both are what `charges` says of the period."
)
class CustomerChargesReport:
    """The answer."""

    period: Period
    compared_with: Period
    as_of: Instant = strawberry.field(description="Every event acknowledged before this instant is counted.")
    totals: list[ChargesChange] = strawberry.field(
        description="One for each currency; amounts are never added across currencies."
    )
    found: strawberry.Private[list[CustomerCharges]]
    limits: strawberry.Private[Limits]

    @strawberry.field(
        description="Accounts with an amount in either period, by currency: the biggest difference first, whichever way it goes."
    )
    def customers(self, first: int = 50, after: str | None = strawberry.UNSET) -> CustomerChargesConnection:
        """A page of them."""
        page = page_behind(self.found, first, after or None, self.limits, "customers")
        nodes = [_row(each) for each in page.rows]
        return CustomerChargesConnection(
            edges=edges_of(nodes, page.cursors),
            nodes=nodes,
            page_info=page.info,
            total_count=len(self.found),
            remainder=_changes(totals_of(page.rest)),
        )


ChargesByCustomerResult = Annotated[
    CustomerChargesReport | InvalidInput | TooLarge, strawberry.union("ChargesByCustomerResult")
]


async def resolve_charges_by_customer(
    period: PeriodInput, compared_with: PeriodInput, info: MeteringInfo
) -> ChargesByCustomerResult:
    """Two questions about charges, put side by side."""
    context = info.context
    context.require(Scope.CHARGES_READ)
    # What is refused is the answer of the field itself: below it, an error would take the other answers with it.
    for page in pages_asked(info.selected_fields, "customers"):
        place_asked(page.first, page.after, context.limits, "customers")
    asked = [MeteringPeriod(in_utc(each.from_), in_utc(each.to)) for each in (period, compared_with)]
    found = await read_customer_charges(context.snapshot, asked[0], asked[1], context.limits)
    return CustomerChargesReport(
        period=Period(from_=period.from_, to=period.to),
        compared_with=Period(from_=compared_with.from_, to=compared_with.to),
        as_of=Instant((await context.snapshot.horizon()).as_of),
        totals=_changes(totals_of(found)),
        found=found,
        limits=context.limits,
    )


def _row(customer: CustomerCharges) -> CustomerChargesRow:
    return CustomerChargesRow(
        account=customer.account,
        before=money_of(customer.before),
        after=money_of(customer.after),
        difference=money_of(customer.difference),
    )


def _changes(totals: Iterable[ChargesTotal]) -> list[ChargesChange]:
    return [
        ChargesChange(
            before=money_of(each.before),
            after=money_of(each.after),
            difference=money_of(Owed(subtract(each.after.amount, each.before.amount), each.after.currency)),
        )
        for each in totals
    ]
