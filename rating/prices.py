"""How a quantity becomes an amount: the kinds of price. Plain values; rate.py calculates with them.

Tiers are cumulative, `up_to` is inclusive, and the last tier is open (None). A tier's flat price is owed once the tier is
entered; at zero usage the first tier's is owed unless `flat_at_zero` is false.
"""

from decimal import Decimal
from typing import Final, TypeAlias

import msgspec

from rating.exact import ONE, ZERO
from rating.steps import RoundingMode


class Flat(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The same amount each period, whatever the usage."""

    amount: Decimal


class PerSeat(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """An amount for each seat of the subscription."""

    unit_price: Decimal


class PerUnit(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """Every unit costs the same."""

    unit_price: Decimal


class Tier(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """A stretch of quantity up to a bound, which belongs to it, with a price for each unit and one for the tier."""

    up_to: Decimal | None = None
    unit_price: Decimal = ZERO
    flat_price: Decimal = ZERO


class Tiered(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """What the four kinds with tiers have in common."""

    tiers: tuple[Tier, ...]
    flat_at_zero: bool = True


class Graduated(Tiered, frozen=True):
    """Each part of the quantity at the price of the tier it falls in."""


class Volume(Tiered, frozen=True):
    """The whole quantity at the price of the tier it reaches."""


class StairStep(Tiered, frozen=True):
    """One amount, the flat price of the tier that the quantity reaches."""


class GraduatedPercentage(Tiered, frozen=True):
    """As graduated, of an amount that the quantity carries; the unit prices are rates, 0.029 is 2.9 %."""


class Package(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """Whole bundles of a size; by default the started one is owed too."""

    size: Decimal
    package_price: Decimal
    rounding: RoundingMode = RoundingMode.UP


class Percentage(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """A share of an amount that the quantity carries, and an amount for each event; 0.029 is 2.9 %."""

    rate: Decimal
    fixed_per_event: Decimal = ZERO


class Dynamic(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The quantity is the amount already; times a factor."""

    factor: Decimal = ONE


Price: TypeAlias = (
    Flat | PerSeat | PerUnit | Graduated | Volume | Package | StairStep | Percentage | GraduatedPercentage | Dynamic
)

# Each kind by the name that it has in the contract.
KINDS: Final[dict[str, type[Price]]] = {
    "flat": Flat,
    "perSeat": PerSeat,
    "perUnit": PerUnit,
    "graduated": Graduated,
    "volume": Volume,
    "package": Package,
    "stairStep": StairStep,
    "percentage": Percentage,
    "graduatedPercentage": GraduatedPercentage,
    "dynamic": Dynamic,
}
KIND_NAMES: Final = {kind: name for name, kind in KINDS.items()}


def is_recurring(price: Price) -> bool:
    """Whether the price is owed for time and not for usage."""
    return type(price) in _RECURRING


_RECURRING: Final = frozenset({Flat, PerSeat})
