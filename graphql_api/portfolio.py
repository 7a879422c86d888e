"""The portfolio: recurring revenue and counts by health band and any attribute."""

from datetime import UTC, date

import strawberry

from graphql_api.context import MeteringInfo
from graphql_api.left_out import given_or_none
from graphql_api.money import Money, money_of
from graphql_api.scalars import JsonObject
from metering.health.customers import read_portfolio
from rating.money import currency_of, rounded


@strawberry.type(description="Customers that have a band and attributes in common.")
class PortfolioCell:
    """One cell."""

    key: JsonObject = strawberry.field(description="The attributes that are grouped by; null where one is not said.")
    band: str = strawberry.field(description="`unknown` where there is no score, also for who was never scored.")
    accounts: int
    monthly_amount: list[Money] = strawberry.field(
        description="What subscriptions that run then pay a month, as far as it is said; one for each currency."
    )
    renews_in: date | None = strawberry.field(
        description="By renewal quarter: the first day of the UTC quarter in which what is paid renews, which may be past; null "
        "where no renewal is said, or nothing runs. A customer is counted in each quarter in which it renews something; "
        "amounts stand in one."
    )


async def resolve_portfolio(
    group_by: list[str], purpose: str, as_of: date | None, info: MeteringInfo, *, by_renewal_quarter: bool
) -> list[PortfolioCell]:
    """As of a day, today unless given."""
    context = info.context
    day = given_or_none(as_of) or (await context.snapshot.horizon()).as_of.astimezone(UTC).date()
    cells = await read_portfolio(
        context.snapshot, group_by, purpose, day, context.limits, by_quarter=by_renewal_quarter
    )
    found = []
    for cell in cells:
        amounts = []
        for code, amount in sorted(cell.amounts.items()):
            currency = currency_of(code)
            assert currency is not None, "a subscription is in the currency of a plan, which has a minor unit"
            amounts.append(money_of(rounded(amount, currency)))
        found.append(
            PortfolioCell(
                key=JsonObject(cell.key),
                band=cell.band,
                accounts=cell.accounts,
                monthly_amount=amounts,
                renews_in=cell.renews_in,
            )
        )
    return found
