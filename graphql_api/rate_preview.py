"""A price tried on a quantity."""

from dataclasses import replace
from typing import Annotated, Final

import strawberry

from graphql_api.charge_lines import ChargeLine, charge_line_of
from graphql_api.context import MeteringInfo
from graphql_api.left_out import given_or_none
from graphql_api.money import Money, money_of
from graphql_api.prices import PriceInput, price_of
from graphql_api.problems import InvalidInput
from graphql_api.scalars import CurrencyCode, DecimalText
from metering.keys import Scope
from metering.previews import preview
from rating.exact import ZERO
from rating.lines import Line
from rating.meters import Figure
from rating.plans import PlanPrice

_NOTHING: Final = DecimalText(ZERO)


@strawberry.input
class RatePreviewInput:
    """A price and a quantity."""

    currency_code: CurrencyCode = CurrencyCode("USD")
    price: PriceInput
    quantity: DecimalText = strawberry.field(description="Of a per-seat price, the seats; a flat one does not ask.")
    events: int = strawberry.field(default=0, description="For a price with an amount for each event.")
    included_quantity: DecimalText = strawberry.field(default=_NOTHING, description="Taken off the quantity first.")
    minimum_amount: DecimalText | None = strawberry.UNSET
    maximum_amount: DecimalText | None = strawberry.UNSET
    discount_percent: DecimalText = _NOTHING


@strawberry.type
class RatePreview:
    """What it comes to."""

    total: Money
    exact_total: DecimalText = strawberry.field(description="Before rounding to the currency's minor unit.")
    lines: list[ChargeLine]


RatePreviewResult = Annotated[RatePreview | InvalidInput, strawberry.union("RatePreviewResult")]


async def resolve_rate_preview(given: RatePreviewInput, info: MeteringInfo) -> RatePreviewResult:
    """Apply one price to one quantity."""
    info.context.require(Scope.CHARGES_READ)
    price = PlanPrice(
        key="price",
        price=price_of(given.price),
        included_quantity=given.included_quantity,
        minimum_amount=given_or_none(given.minimum_amount),
        maximum_amount=given_or_none(given.maximum_amount),
        discount_percent=given.discount_percent,
    )
    shown = preview(price, Figure(given.quantity, given.events), given.currency_code)
    return RatePreview(
        total=money_of(shown.total),
        exact_total=DecimalText(shown.exact_total),
        lines=[_line(line) for line in shown.lines],
    )


def _line(line: Line) -> ChargeLine:
    """A line of no plan and of no period."""
    key = f"preview/{line.step}"
    return replace(charge_line_of(line), key=key, plan=None, plan_version=None, period=None)
