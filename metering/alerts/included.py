"""How much of an included quantity is used. Pure; the quantity is the one that rating takes the included part off."""

from collections.abc import Mapping, Sequence
from decimal import Decimal

import msgspec

from rating.exact import ZERO, add
from rating.meters import NO_USAGE, Figure, Meter
from rating.periods import WHOLE, Period
from rating.plans import PlanPrice
from rating.prices import is_recurring
from rating.steps import round_to_step
from rating.subscriptions import PlanPart

# As many as a quantity has: what rating cuts a part of an included quantity to.
_DIGITS_MAX = 18


class Included(msgspec.Struct, frozen=True):
    """What was used in a billing period, and what is included in it, of one price."""

    used: Decimal
    included: Decimal


def included_of(parts: Sequence[PlanPart], figures: Mapping[Period, Figure], meter: Meter) -> Included | None:
    """What the price that includes the least of this meter includes, and what was used of it; None where nothing is included.

    A price that several parts of the period have counts in all of them, for the time in which it applies.
    """
    of_prices: dict[str, Included] = {}
    for part in parts:
        for price in part.plan.prices:
            if price.meter == meter.key and price.included_quantity > ZERO and not is_recurring(price.price):
                known = of_prices.get(price.key, Included(ZERO, ZERO))
                own = _of_part(part, price, figures.get(part.period, NO_USAGE), meter)
                of_prices[price.key] = Included(add(known.used, own.used), add(known.included, own.included))
    return min(of_prices.values(), key=lambda each: each.included, default=None)


def _of_part(part: PlanPart, price: PlanPrice, figure: Figure, meter: Meter) -> Included:
    proration = part.share if price.prorated else WHOLE
    used = figure.quantity if meter.rounding is None else round_to_step(figure.quantity, meter.rounding)
    if meter.is_level:
        used = proration.of(used, _DIGITS_MAX)
    return Included(used, proration.of(price.included_quantity, _DIGITS_MAX))
