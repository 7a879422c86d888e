"""What is wrong with a plan: every fault at once, each with the path that leads to it.

Paths are spelled as in the contract (`prices`, `0`, `price`, `graduated`, `tiers`, `2`, `upTo`), from the plan down.
"""

from collections.abc import Collection, Iterator, Sequence
from decimal import Decimal
from itertools import pairwise
from typing import Final, TypeAlias, assert_never

import msgspec

from rating.bounds import DIGITS_MAX, FRACTION_DIGITS_MAX, NAME_CHARS_MAX, PRICES_MAX, TIERS_MAX
from rating.exact import ZERO, plain
from rating.money import currency_of
from rating.plans import Plan, PlanPrice
from rating.prices import (
    KIND_NAMES,
    Dynamic,
    Flat,
    Package,
    Percentage,
    PerSeat,
    PerUnit,
    Price,
    StairStep,
    Tier,
    Tiered,
    is_recurring,
)
from rating.subscriptions import PlanPhase

Path: TypeAlias = tuple[str, ...]


class Fault(msgspec.Struct, frozen=True):
    """One thing to put right: where it is, and what to do."""

    path: Path
    message: str


_HUNDRED: Final = Decimal(100)


def validate(plan: Plan, meters: Collection[str]) -> tuple[Fault, ...]:
    """All faults of a plan; `meters` are the keys of those that there are. A plan without faults can be rated."""
    return tuple(_plan_faults(plan, meters))


def price_faults(price: PlanPrice, path: Path = ()) -> Iterator[Fault]:
    """The faults of one price in itself, whether or not there is such a meter."""
    yield from _kind_faults(price.price, (*path, "price", KIND_NAMES[type(price.price)]))
    yield from _amount_faults(price.included_quantity, (*path, "includedQuantity"))
    if price.included_quantity and isinstance(price.price, Flat):
        yield Fault(
            (*path, "includedQuantity"), "a flat price has no quantity that some could be included of; leave it out"
        )
    yield from _amount_faults(price.discount_percent, (*path, "discountPercent"))
    if price.discount_percent.is_finite() and price.discount_percent > _HUNDRED:
        yield Fault(
            (*path, "discountPercent"), f"{_shown(price.discount_percent)} is more than everything; 100 at most"
        )
    yield from _bound_faults(price.minimum_amount, price.maximum_amount, path)


def number_faults(number: Decimal, path: Path) -> Iterator[Fault]:
    """The faults of a number of either sign: it is finite, and short enough to be calculated with exactly."""
    if not number.is_finite():
        yield Fault(path, f"{number} is not a number")
        return
    _, digits, exponent = number.as_tuple()
    assert isinstance(exponent, int), "finite numbers have an exponent"
    if max(len(digits) + max(exponent, 0), -exponent) > DIGITS_MAX or -exponent > FRACTION_DIGITS_MAX:
        yield Fault(path, f"has too many digits; at most {DIGITS_MAX}, of them {FRACTION_DIGITS_MAX} after the point")


def phase_faults(phases: Sequence[PlanPhase]) -> tuple[Fault, ...]:
    """What keeps plans from following each other: phases out of order or over one another, and a change of currency."""
    faults = []
    for number, (one, following) in enumerate(pairwise(phases), 1):
        if one.end is None or one.end > following.start:
            faults.append(Fault(("phases", str(number), "start"), "begins before the phase before it ends"))
        if one.plan.currency_code != following.plan.currency_code:
            faults.append(
                Fault(
                    ("phases", str(number), "plan"),
                    f"is in {following.plan.currency_code}, the plan before it in {one.plan.currency_code}: "
                    "amounts of one subscription are in one currency; end it, and begin another one",
                )
            )
    return tuple(faults)


def _plan_faults(plan: Plan, meters: Collection[str]) -> Iterator[Fault]:
    yield from _name_faults(plan.key, ("key",))
    yield from _name_faults(plan.name, ("name",))
    if currency_of(plan.currency_code) is None:
        yield Fault(
            ("currencyCode",),
            f"{plan.currency_code!r} is not a currency of ISO 4217 with a minor unit; for example EUR",
        )
    if plan.minimum_amount is not None:
        yield from _amount_faults(plan.minimum_amount, ("minimumAmount",))
    if len(plan.prices) > PRICES_MAX:
        yield Fault(("prices",), f"has {len(plan.prices)} prices; {PRICES_MAX} at most")
        return
    seen: dict[str, int] = {}
    for index, price in enumerate(plan.prices):
        path = ("prices", str(index))
        yield from _name_faults(price.key, (*path, "key"))
        if price.key in seen:
            yield Fault((*path, "key"), f"{price.key!r} is the key of price {seen[price.key]} too; each needs its own")
        seen.setdefault(price.key, index)
        yield from _meter_faults(price, meters, (*path, "meter"))
        yield from price_faults(price, path)


def _name_faults(name: str, path: Path) -> Iterator[Fault]:
    if not name.strip():
        yield Fault(path, "is empty; give it a name")
    elif len(name) > NAME_CHARS_MAX:
        yield Fault(path, f"has {len(name)} characters; {NAME_CHARS_MAX} at most")


def _meter_faults(price: PlanPrice, meters: Collection[str], path: Path) -> Iterator[Fault]:
    kind = KIND_NAMES[type(price.price)]
    if is_recurring(price.price):
        if price.meter is not None:
            yield Fault(path, f"a {kind} price is owed whatever the usage; leave the meter out")
    elif price.meter is None:
        yield Fault(path, f"a {kind} price needs the meter that its quantity is read from")
    elif price.meter not in meters:
        yield Fault(path, f"there is no meter {price.meter!r}; put the meter first")


def _kind_faults(kind: Price, path: Path) -> Iterator[Fault]:
    match kind:
        case Flat():
            yield from _amount_faults(kind.amount, (*path, "amount"))
        case PerSeat() | PerUnit():
            yield from _amount_faults(kind.unit_price, (*path, "unitPrice"))
        case Dynamic():
            yield from _amount_faults(kind.factor, (*path, "factor"))
        case Percentage():
            yield from _amount_faults(kind.rate, (*path, "rate"))
            yield from _amount_faults(kind.fixed_per_event, (*path, "fixedPerEvent"))
        case Package():
            yield from _amount_faults(kind.size, (*path, "size"))
            if kind.size.is_zero():
                yield Fault((*path, "size"), "a package holds more than nothing; give it a size above 0")
            yield from _amount_faults(kind.package_price, (*path, "packagePrice"))
        case Tiered():
            yield from _tiers_faults(kind, (*path, "tiers"))
        case never:
            assert_never(never)


def _tiers_faults(kind: Tiered, path: Path) -> Iterator[Fault]:
    tiers = kind.tiers
    if not tiers:
        yield Fault(path, "has no tier; one that is open (upTo null) is the least")
        return
    if len(tiers) > TIERS_MAX:
        yield Fault(path, f"has {len(tiers)} tiers; {TIERS_MAX} at most")
        return
    for index, tier in enumerate(tiers):
        yield from _tier_faults(tier, (*path, str(index)), stairs=isinstance(kind, StairStep))
        if tier.up_to is None and index < len(tiers) - 1:
            yield Fault((*path, str(index), "upTo"), "only the last tier may be open: those after it are never reached")
    if tiers[-1].up_to is not None:
        yield Fault(
            (*path, str(len(tiers) - 1), "upTo"),
            f"the last tier has to be open (null): usage above {_shown(tiers[-1].up_to)} would have no price",
        )
    yield from _order_faults(tiers, path)


def _tier_faults(tier: Tier, path: Path, *, stairs: bool) -> Iterator[Fault]:
    if tier.up_to is not None:
        yield from _amount_faults(tier.up_to, (*path, "upTo"))
        if tier.up_to.is_zero():
            yield Fault((*path, "upTo"), "a tier up to 0 holds nothing; leave it out")
    yield from _amount_faults(tier.unit_price, (*path, "unitPrice"))
    if stairs and tier.unit_price:
        yield Fault((*path, "unitPrice"), "a stair costs one amount, its flatPrice; leave the unit price out")
    yield from _amount_faults(tier.flat_price, (*path, "flatPrice"))


def _order_faults(tiers: Sequence[Tier], path: Path) -> Iterator[Fault]:
    bounds = [
        (index, tier.up_to) for index, tier in enumerate(tiers) if tier.up_to is not None and tier.up_to.is_finite()
    ]
    for (_, below), (index, up_to) in pairwise(bounds):
        if up_to <= below:
            yield Fault(
                (*path, str(index), "upTo"),
                f"{_shown(up_to)} is not above the bound before it, {_shown(below)}; bounds are cumulative and rise",
            )


def _bound_faults(minimum: Decimal | None, maximum: Decimal | None, path: Path) -> Iterator[Fault]:
    if minimum is not None:
        yield from _amount_faults(minimum, (*path, "minimumAmount"))
    if maximum is not None:
        yield from _amount_faults(maximum, (*path, "maximumAmount"))
    if (
        minimum is not None
        and maximum is not None
        and minimum.is_finite()
        and maximum.is_finite()
        and minimum > maximum
    ):
        yield Fault(
            (*path, "minimumAmount"), f"{_shown(minimum)} is above the maximum, {_shown(maximum)}; no amount is both"
        )


def _amount_faults(number: Decimal, path: Path) -> Iterator[Fault]:
    """A number of a plan is zero or more, too."""
    if number.is_finite() and number < ZERO:
        yield Fault(path, f"{_shown(number)} is below zero; give rebates as a discount or as credits")
    yield from number_faults(number, path)


def _shown(number: Decimal) -> str:
    """A number in a message: in plain notation, unless that would fill pages."""
    return plain(number) if abs(number.adjusted()) < 2 * DIGITS_MAX else str(number)
