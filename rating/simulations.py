"""What subscriptions would owe on another plan: the same usage rated on both sides, as it is and as it would be.

Both sides are rated as statements are, without adjustments, and cut to the period that is asked for as charges are: what of
each line falls into it. So each side is what the charges of the period would be, were the subscription on that plan and
nothing of it frozen.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from enum import Enum
from typing import Final

import msgspec

from rating.attribution import Key
from rating.charges import Behind, UsageBehind, charges_within
from rating.exact import ZERO, add, cut, multiply, subtract, total
from rating.meters import Meter
from rating.money import Currency, Money
from rating.periods import Period
from rating.plans import Plan
from rating.statements import Figures, figures_needed, statement_of
from rating.subscriptions import BillingPeriod, PlanPhase, Subscription, billing_periods, parts_of

# Shares of usage are cut after so many digits; users that are alike are cut alike.
_SHARE_DIGITS: Final = 40


class Weight(Enum):
    """How much a user uses: more than the average user of the same subscription, or not."""

    LIGHT = "LIGHT"
    HEAVY = "HEAVY"


class Compared(msgspec.Struct, frozen=True, gc=False):
    """What is owed on both sides."""

    current: Money
    simulated: Money

    @property
    def difference(self) -> Money:
        """What would be owed more, or (below zero) less."""
        return Money(subtract(self.simulated.amount, self.current.amount), self.current.currency)


class Side(msgspec.Struct, frozen=True):
    """A subscription on one side of a comparison, and its billing periods that touch the period that is asked for."""

    subscription: Subscription
    periods: tuple[BillingPeriod, ...]

    def needed(self) -> list[tuple[str, Period]]:
        """Which meters have to be read, each for which period."""
        return [pair for each in self.periods for pair in figures_needed(parts_of(self.subscription, each))]


def put_on(subscription: Subscription, plan: Plan) -> Subscription:
    """The subscription as if it had been on one version of one plan since it started, whenever that takes effect."""
    phase = PlanPhase(plan, subscription.starts_at, subscription.ends_at)
    return msgspec.structs.replace(subscription, phases=(phase,))


def side_of(subscription: Subscription, asked: Period, until: datetime) -> Side:
    """The billing periods that touch a period and begin before an instant; phases are known as far as that."""
    return Side(subscription, tuple(billing_periods(subscription, min(asked.end, until), asked.start)))


def owed_within(
    side: Side, figures: Figures, meters: Mapping[str, Meter], asked: Period, usage: UsageBehind, nobody: Key
) -> dict[Key, Decimal]:
    """What of a side falls into a period, by key. What no usage is known of is nobody's.

    The usage of a meter's period that is inside the asked one has to be known only where keys are to be told apart.
    """
    sums: dict[Key, Decimal] = {}
    for period in side.periods:
        statement = statement_of(side.subscription, period, figures, meters)
        if not usage and period.served.within(asked) == period.served:
            sums[nobody] = add(sums.get(nobody, ZERO), statement.total.amount)
            continue
        for charge in charges_within(statement.lines, usage, nobody, asked):
            sums[charge.key] = add(sums.get(charge.key, ZERO), charge.amount.amount)
    return sums


def compared(current: Iterable[Decimal], simulated: Iterable[Decimal], currency: Currency) -> Compared:
    """Both sides, added up."""
    sides = [Money(add(currency.zero, total(amounts)), currency) for amounts in (current, simulated)]
    return Compared(*sides)


def weights(usage: Iterable[Sequence[tuple[str, Decimal]]]) -> dict[str, Weight]:
    """The users of a subscription, each light or heavy; `usage` is what each used of a meter in a period, a meter at a time.

    Meters are of different units, so what is brought together are shares of each. A user is heavy whose shares come to more
    than the average user's; so of users that are alike, as of a single one, none is. Usage that was given back is none.
    """
    shares: dict[str, Decimal] = {}
    measured = 0
    for of_meter in usage:
        used: dict[str, Decimal] = {}
        for user, quantity in of_meter:
            used[user] = add(used.get(user, ZERO), quantity)
        whole = total(quantity for quantity in used.values() if quantity > ZERO)
        measured += bool(whole)
        for user, quantity in used.items():
            share = cut(quantity, whole, _SHARE_DIGITS) if quantity > ZERO else ZERO
            shares[user] = add(shares.get(user, ZERO), share)
    # An average is not looked for: it would have to be cut once more.
    users = Decimal(len(shares))
    return {
        user: Weight.HEAVY if multiply(share, users) > Decimal(measured) else Weight.LIGHT
        for user, share in shares.items()
    }


def usage_of(behind: Iterable[Behind], user: int) -> list[tuple[str, Decimal]]:
    """What each user has of the usage behind a figure; `user` is the user's place in a key."""
    return [(name, each.whole) for each in behind if (name := each.key[user]) is not None]
