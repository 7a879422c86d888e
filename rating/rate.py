"""One price applied to one quantity: the exact steps, before anything is rounded.

The order: the meter's rounding, the included quantity, the price, the percent discount, the maximum, the minimum.
"""

from collections.abc import Iterator, Sequence
from decimal import Decimal
from typing import assert_never

import msgspec

from rating.bounds import FRACTION_DIGITS_MAX
from rating.exact import ZERO, multiply, percent_of, subtract, total
from rating.lines import LineKind
from rating.meters import Figure
from rating.periods import WHOLE, Period, PeriodShare
from rating.plans import PlanPrice
from rating.prices import (
    Dynamic,
    Flat,
    Graduated,
    GraduatedPercentage,
    Package,
    Percentage,
    PerSeat,
    PerUnit,
    Price,
    StairStep,
    Tiered,
    Volume,
)
from rating.steps import Rounding, round_to_step, steps_in
from rating.tiers import TierPart, parts_of, reached_by


class Step(msgspec.Struct, frozen=True, gc=False):
    """A line before it is rounded; its fields are those of the line. `period` is None where it is that of the price."""

    kind: LineKind
    name: str
    exact_amount: Decimal
    tier: int | None = None
    quantity: Decimal | None = None
    unit_price: Decimal | None = None
    share: PeriodShare = WHOLE
    period: Period | None = None


class SeatStretch(msgspec.Struct, frozen=True):
    """A time during which the number of seats stays the same, and which share of the whole billing period it is."""

    seats: Decimal
    period: Period
    share: PeriodShare


def usage_steps(
    price: PlanPrice,
    figure: Figure,
    share: PeriodShare = WHOLE,
    rounding: Rounding | None = None,
    *,
    is_level: bool = False,
) -> list[Step]:
    """What a usage price comes to; `share` is that of the time in which it applies in the whole billing period.

    A level counts for that time only. The price has passed validate(); it is not a flat or per-seat price.
    """
    proration = share if price.prorated else WHOLE
    quantity = figure.quantity if rounding is None else round_to_step(figure.quantity, rounding)
    if is_level:
        quantity = proration.of(quantity, FRACTION_DIGITS_MAX)
    if not price.included_quantity or quantity <= ZERO:
        return _bounded(price, _priced(price.price, quantity, figure.events), proration)
    # An included quantity that does not end is cut where quantities are.
    used = min(quantity, proration.of(price.included_quantity, FRACTION_DIGITS_MAX))
    included = Step(LineKind.INCLUDED, "included", ZERO, quantity=used)
    return _bounded(price, [included, *_priced(price.price, subtract(quantity, used), figure.events)], proration)


def recurring_steps(price: PlanPrice, seats: Sequence[SeatStretch], share: PeriodShare = WHOLE) -> list[Step]:
    """What a flat or per-seat price comes to; the seats matter to the latter only."""
    proration = share if price.prorated else WHOLE
    kind = price.price
    if isinstance(kind, Flat):
        steps = [Step(LineKind.RECURRING, "flat", proration.of(kind.amount), share=proration)]
    else:
        assert isinstance(kind, PerSeat), "usage prices are rated by usage_steps()"
        steps = list(_seat_steps(price, kind, seats))
    return _bounded(price, steps, proration)


def _seat_steps(price: PlanPrice, kind: PerSeat, seats: Sequence[SeatStretch]) -> Iterator[Step]:
    if not price.prorated:
        # Whole amounts, then: for the most seats that there were.
        most = max((stretch.seats for stretch in seats), default=ZERO)
        quantity = max(subtract(most, price.included_quantity), ZERO)
        yield Step(LineKind.RECURRING, "seats", multiply(quantity, kind.unit_price), None, quantity, kind.unit_price)
        return
    for stretch in seats:
        quantity = max(subtract(stretch.seats, price.included_quantity), ZERO)
        yield Step(
            LineKind.RECURRING,
            "seats",
            stretch.share.of(multiply(quantity, kind.unit_price)),
            None,
            quantity,
            kind.unit_price,
            stretch.share,
            stretch.period,
        )


def _priced(kind: Price, quantity: Decimal, events: int) -> list[Step]:
    match kind:
        case PerUnit():
            return [_units("units", quantity, kind.unit_price)]
        case Dynamic():
            return [_units("units", quantity, kind.factor)]
        case Percentage():
            return _percentage_steps(kind, quantity, events)
        case Package():
            # Nothing, and less than nothing, takes no package.
            packages = steps_in(quantity, Rounding(kind.rounding, kind.size)) if quantity > ZERO else ZERO
            return [_units("packages", packages, kind.package_price)]
        case Graduated() | GraduatedPercentage():
            parts = parts_of(quantity, kind.tiers, flat_at_zero=kind.flat_at_zero)
            return [step for part in parts for step in _tier_steps(part)]
        case Volume():
            return _tier_steps(_reached(quantity, kind))
        case StairStep():
            return [_stair(_reached(quantity, kind))]
        case Flat() | PerSeat():
            raise AssertionError("recurring prices are rated by recurring_steps()")
        case never:
            assert_never(never)


def _reached(quantity: Decimal, kind: Tiered) -> TierPart:
    return reached_by(quantity, kind.tiers, flat_at_zero=kind.flat_at_zero)


def _units(name: str, quantity: Decimal, unit_price: Decimal, tier: int | None = None) -> Step:
    return Step(LineKind.USAGE, name, multiply(quantity, unit_price), tier, quantity, unit_price)


def _percentage_steps(kind: Percentage, quantity: Decimal, events: int) -> list[Step]:
    share = _units("units", quantity, kind.rate)
    return [share, _units("events", Decimal(events), kind.fixed_per_event)] if kind.fixed_per_event else [share]


def _stair(part: TierPart) -> Step:
    amount = part.tier.flat_price if part.flat_owed else ZERO
    return Step(LineKind.USAGE, f"tier-{part.number}-flat", amount, part.number, part.quantity)


def _tier_steps(part: TierPart) -> list[Step]:
    """A tier's units, and its flat price where it has one that is owed."""
    steps = [_units(f"tier-{part.number}", part.quantity, part.tier.unit_price, part.number)]
    if part.flat_owed and part.tier.flat_price:
        steps.append(Step(LineKind.USAGE, f"tier-{part.number}-flat", part.tier.flat_price, part.number))
    return steps


def _bounded(price: PlanPrice, steps: list[Step], proration: PeriodShare) -> list[Step]:
    """The steps, followed by discount, maximum and minimum where there are any. The maximum is never prorated."""
    if price.discount_percent:
        gross = total(step.exact_amount for step in steps)
        if discount := percent_of(price.discount_percent, gross):
            steps.append(Step(LineKind.DISCOUNT, "discount", discount.copy_negate()))
    if price.maximum_amount is not None:
        net = total(step.exact_amount for step in steps)
        if net > price.maximum_amount:
            steps.append(Step(LineKind.MAXIMUM, "maximum", subtract(price.maximum_amount, net)))
    if price.minimum_amount is not None:
        net, minimum = total(step.exact_amount for step in steps), proration.of(price.minimum_amount)
        if net < minimum:
            steps.append(Step(LineKind.MINIMUM, "minimum", subtract(minimum, net)))
    return steps
