"""Splitting a quantity over tiers. A quantity below zero counts as zero: tiers are stairs, and stairs have a foot."""

from collections.abc import Iterator, Sequence
from decimal import Decimal

import msgspec

from rating.exact import ZERO, subtract
from rating.prices import Tier


class TierPart(msgspec.Struct, frozen=True, gc=False):
    """What of a quantity lies in a tier (numbered from 1), and whether the tier's flat price is owed."""

    number: int
    tier: Tier
    quantity: Decimal
    flat_owed: bool


def parts_of(quantity: Decimal, tiers: Sequence[Tier], *, flat_at_zero: bool) -> Iterator[TierPart]:
    """Each entered tier with the part of the quantity that falls in it, from the first; the first is always there."""
    below = ZERO
    for number, tier in enumerate(tiers, 1):
        if number > 1 and quantity <= below:
            return
        reached = quantity if tier.up_to is None else min(quantity, tier.up_to)
        part = subtract(reached, below) if reached > below else ZERO
        yield TierPart(number, tier, part, bool(part) or flat_at_zero)
        if tier.up_to is None:
            return
        below = tier.up_to


def reached_by(quantity: Decimal, tiers: Sequence[Tier], *, flat_at_zero: bool) -> TierPart:
    """The tier that the quantity reaches, with the whole quantity in it."""
    inside = max(quantity, ZERO)
    for number, tier in enumerate(tiers, 1):
        if tier.up_to is None or inside <= tier.up_to:
            return TierPart(number, tier, inside, bool(inside) or flat_at_zero)
    raise AssertionError("the last tier is open; validate() says so of a plan where it is not")
