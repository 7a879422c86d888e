"""The inputs of prices: the kinds, and what is done before and after a price is applied."""

from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any, Final

import strawberry

# Marks RoundingMode as the API's own.
import graphql_api.meters  # noqa: F401
from graphql_api.left_out import given_or_none
from graphql_api.scalars import DecimalText
from rating import prices
from rating.plans import PriceTiming
from rating.steps import RoundingMode

_ZERO: Final = DecimalText(Decimal(0))
_ONE: Final = DecimalText(Decimal(1))

strawberry.enum(
    PriceTiming,
    name="PriceTiming",
    description="When the amount is due: at the end of its period or at the beginning. The line stands on its own period's "
    "statement either way.",
)


@strawberry.input
class FlatPriceInput:
    """The same amount each period."""

    amount: DecimalText


@strawberry.input
class PerUnitPriceInput:
    """A price for each unit, or each seat."""

    unit_price: DecimalText


@strawberry.input
class TierInput:
    """A stretch of quantity."""

    up_to: DecimalText | None = strawberry.UNSET
    unit_price: DecimalText = _ZERO
    flat_price: DecimalText = _ZERO


@strawberry.input
class TieredPriceInput:
    """Tiers, in order."""

    tiers: list[TierInput]
    flat_at_zero: bool = strawberry.field(
        default=True, description="Whether the first tier's flat price is owed at zero usage."
    )


@strawberry.input
class PackagePriceInput:
    """Bundles of a size."""

    size: DecimalText
    package_price: DecimalText
    rounding: RoundingMode = RoundingMode.UP


@strawberry.input
class PercentagePriceInput:
    """A share, and an amount for each event."""

    rate: DecimalText
    fixed_per_event: DecimalText = _ZERO


@strawberry.input
class DynamicPriceInput:
    """A factor."""

    factor: DecimalText = _ONE


@strawberry.input(
    one_of=True,
    description="How a quantity becomes an amount. Tiers are cumulative; `upTo` is inclusive, the last one is open (null).",
)
class PriceInput:
    """A price of one kind."""

    flat: strawberry.Maybe[FlatPriceInput] = strawberry.field(
        description="The same amount each period, whatever the usage."
    )
    per_seat: strawberry.Maybe[PerUnitPriceInput] = strawberry.field(
        description="An amount for each seat of the subscription."
    )
    per_unit: strawberry.Maybe[PerUnitPriceInput] = strawberry.field(description="Every unit costs the same.")
    graduated: strawberry.Maybe[TieredPriceInput] = strawberry.field(
        description="Each part of the quantity at the price of the tier it falls in."
    )
    volume: strawberry.Maybe[TieredPriceInput] = strawberry.field(
        description="The whole quantity at the price of the tier it reaches."
    )
    package: strawberry.Maybe[PackagePriceInput] = strawberry.field(
        description="Whole bundles, the started one included."
    )
    stair_step: strawberry.Maybe[TieredPriceInput] = strawberry.field(
        description="One amount for the tier the quantity reaches."
    )
    percentage: strawberry.Maybe[PercentagePriceInput] = strawberry.field(
        description="A share of an amount that the quantity carries; rates are fractions: 0.029 is 2.9 %."
    )
    graduated_percentage: strawberry.Maybe[TieredPriceInput]
    dynamic: strawberry.Maybe[DynamicPriceInput] = strawberry.field(
        description="The quantity is the amount already; times a factor."
    )


def price_of(given: PriceInput) -> prices.Price:
    """The price that an input says."""
    chosen = [(name, said) for name in _KINDS if (said := getattr(given, name)) is not None]
    assert len(chosen) == 1, "GraphQL lets exactly one through"
    ((name, said),) = chosen
    return _KINDS[name](said.value)


def _tiered(kind: type[prices.Tiered]) -> Callable[[TieredPriceInput], Any]:
    def made(given: TieredPriceInput) -> prices.Tiered:
        tiers = (prices.Tier(given_or_none(tier.up_to), tier.unit_price, tier.flat_price) for tier in given.tiers)
        return kind(tuple(tiers), given.flat_at_zero)

    return made


# Each kind by the name of its field.
_KINDS: Final[Mapping[str, Callable[[Any], prices.Price]]] = {
    "flat": lambda given: prices.Flat(given.amount),
    "per_seat": lambda given: prices.PerSeat(given.unit_price),
    "per_unit": lambda given: prices.PerUnit(given.unit_price),
    "graduated": _tiered(prices.Graduated),
    "volume": _tiered(prices.Volume),
    "package": lambda given: prices.Package(given.size, given.package_price, given.rounding),
    "stair_step": _tiered(prices.StairStep),
    "percentage": lambda given: prices.Percentage(given.rate, given.fixed_per_event),
    "graduated_percentage": _tiered(prices.GraduatedPercentage),
    "dynamic": lambda given: prices.Dynamic(given.factor),
}
