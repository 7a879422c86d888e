"""What rating knows of meters: which usage each counts, and how its quantity is rounded."""

from collections.abc import Sequence
from decimal import Decimal
from itertools import combinations
from typing import Final

import msgspec

from rating.exact import ZERO
from rating.plans import Plan
from rating.steps import Rounding


class Figure(msgspec.Struct, frozen=True, gc=False):
    """What a meter shows for a period: a quantity, and how many events are behind it."""

    quantity: Decimal
    events: int = 0


NO_USAGE: Final = Figure(ZERO)


class DimensionFilter(msgspec.Struct, frozen=True):
    """Usage whose dimension is one of `values`, or none of them where `excluded`; None stands for usage without one."""

    values: frozenset[str | None]
    excluded: bool = False


class MeterFilter(msgspec.Struct, frozen=True, kw_only=True):
    """What must hold of an event to count; a dimension without a filter may be anything."""

    product: DimensionFilter | None = None
    feature: DimensionFilter | None = None
    classification: DimensionFilter | None = None
    unit: DimensionFilter | None = None


class Meter(msgspec.Struct, frozen=True, kw_only=True):
    """A meter as prices see it. Several meters with filters make one price by dimension: a price for each region.

    The figure of a level is its average over time, and its price is for a whole billing period: gigabytes for a month.
    """

    key: str
    filter: MeterFilter = MeterFilter()
    rounding: Rounding | None = None
    is_level: bool = False


class Overlap(msgspec.Struct, frozen=True):
    """Two prices of a plan whose meters can count the same event: it is charged twice, which may be meant."""

    first_price: str
    second_price: str


def overlaps(plan: Plan, meters: Sequence[Meter]) -> tuple[Overlap, ...]:
    """The pairs of prices that can charge the same event, in the plan's order. Prices on unknown meters are left out."""
    known = {meter.key: meter.filter for meter in meters}
    priced = [(price.key, known[price.meter]) for price in plan.prices if price.meter in known]
    return tuple(
        Overlap(first, second)
        for (first, one), (second, other) in combinations(priced, 2)
        if _can_share_an_event(one, other)
    )


def _can_share_an_event(one: MeterFilter, other: MeterFilter) -> bool:
    return all(
        _can_agree(getattr(one, dimension), getattr(other, dimension)) for dimension in MeterFilter.__struct_fields__
    )


def _can_agree(one: DimensionFilter | None, other: DimensionFilter | None) -> bool:
    """Whether there is a value that both let through; there are endlessly many that two exclusions let through."""
    included = [one_of.values for one_of in (one, other) if one_of is not None and not one_of.excluded]
    excluded = [none_of.values for none_of in (one, other) if none_of is not None and none_of.excluded]
    if not included:
        return True
    return bool(frozenset.intersection(*included).difference(*excluded))
