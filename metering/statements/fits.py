"""Plan fit: what subscriptions owe for a period as they are, and what they would owe on each other plan of their currency.

All sides are rated as a simulation rates its two, from one snapshot and from figures that are read once for all of them.
"""

import asyncio
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Final

import msgspec

from metering.errors import InputIssue, InvalidInputError, TooLargeError
from metering.events import in_utc
from metering.limits import Limits
from metering.plans import read_plans, versions_of
from metering.statements.figures import Needed, Subscriber
from metering.statements.simulations import (
    SimulationOrder,
    Used,
    count_by_currency,
    period_issues,
    read_used,
    until_now,
)
from metering.store.snapshot import Snapshot
from metering.subscriptions import RatedSubscription, read_rated
from rating.attribution import Key
from rating.exact import ZERO, add, cut, subtract, total
from rating.money import Currency, Money, currency_of
from rating.periods import Period
from rating.plans import Plan
from rating.simulations import Side, put_on, side_of
from rating.subscriptions import parts_of

_USE_DIGITS: Final = 6


class FitOrder(msgspec.Struct, frozen=True, kw_only=True):
    """What is compared: accounts and plans of None are all."""

    start: datetime
    end: datetime
    account: str | None = None
    plans: Sequence[str] | None = None


class Offer(msgspec.Struct, frozen=True):
    """What would be owed on another plan, in its newest version."""

    plan: str
    version: int
    owed: Money


class Fit(msgspec.Struct, frozen=True, kw_only=True):
    """A subscription on its own plan (that of the end of the period), and on the others, the cheapest first.

    `used` is the quantity that was used of what its plans include, by what they include, of the price of which most is
    used; None where they include nothing.
    """

    account: str
    subscription: str
    plan: str
    current: Money
    offers: tuple[Offer, ...]
    used: Decimal | None

    @property
    def saving(self) -> Money:
        """What would be owed less on the cheapest other plan, or (below zero) more; nothing where there is no other."""
        cheapest = self.offers[0].owed.amount if self.offers else self.current.amount
        return Money(subtract(self.current.amount, cheapest), self.current.currency)

    @property
    def order(self) -> tuple[str, Decimal, str]:
        """By currency, who would save most first; those alike by key."""
        return self.current.currency.code, self.saving.amount.copy_negate(), self.subscription


class Fits(msgspec.Struct, frozen=True):
    """All of them in order, and the plans that are compared."""

    fits: tuple[Fit, ...]
    plans: tuple[Plan, ...]


class _Sides(msgspec.Struct, frozen=True):
    """A subscription as it is, and as it would be on each plan."""

    subscription: RatedSubscription
    current: Side
    others: tuple[tuple[Plan, Side], ...]

    @property
    def subscriber(self) -> Subscriber:
        """Whose usage counts."""
        return Subscriber(self.subscription.account, self.subscription.key)

    def needed(self) -> set[Needed]:
        """The figures of all sides."""
        sides = [self.current, *(side for _, side in self.others)]
        return {Needed(self.subscriber, meter, period) for side in sides for meter, period in side.needed()}


async def read_fits(snapshot: Snapshot, order: FitOrder, limits: Limits) -> Fits:
    """Rate everybody on every plan. The snapshot reaches everything: other plans may be made for other customers.

    Raises InvalidInputError with every fault, paths lead from `input`; TooLargeError for more than one answer has time for.
    """
    issues = list(period_issues(SimulationOrder(start=order.start, end=order.end), limits))
    plans = await _plans(snapshot, order.plans, limits, issues)
    if issues:
        raise InvalidInputError(issues)
    period = Period(in_utc(order.start), in_utc(order.end))
    accounts = None if order.account is None else [order.account]
    _check_size(await count_by_currency(snapshot, accounts, period), plans, limits)
    fits: list[Fit] = []
    last, has_more = None, True
    until = await until_now(snapshot)
    while has_more:
        page, has_more = await read_rated(
            snapshot, limits.statement_page_subscriptions, last, until=min(period.end, until), accounts=accounts
        )
        last = page[-1].key if page else None
        sides = [_sides(each, plans, period, until) for each in page if _lives(each, period, until)]
        fits += await _rated(snapshot, sides, period, limits)
    return Fits(tuple(sorted(fits, key=lambda each: each.order)), tuple(plans))


async def _plans(
    snapshot: Snapshot, keys: Sequence[str] | None, limits: Limits, issues: list[InputIssue]
) -> Sequence[Plan]:
    """Those that are asked for, each in its newest version; what is wrong is told."""
    maximum = limits.fit_plans_max
    if keys is None:
        published, has_more = await read_plans(snapshot, maximum, None)
        if has_more:
            issues.append(
                InputIssue(("input", "plans"), f"There are more than {maximum} plans; name those to compare.")
            )
        return [each.plan for each in published]
    if len(keys) > maximum:
        issues.append(InputIssue(("input", "plans"), f"{len(keys):,} plans; {maximum} are compared at once."))
        return []
    versions = await versions_of(snapshot, [key for key in keys if "\0" not in key])
    issues += [
        InputIssue(("input", "plans", str(place)), f"There is no plan {key!r:.60}.")
        for place, key in enumerate(keys)
        if key not in versions
    ]
    return [versions[key][-1] for key in sorted(versions)]


def _check_size(counts: Mapping[str, int], plans: Collection[Plan], limits: Limits) -> None:
    """Each simulated subscription is rated on two sides; so many ratings one answer has time for."""
    maximum = 2 * limits.simulation_subscriptions_max
    of_currency = {code: sum(plan.currency_code == code for plan in plans) for code in counts}
    ratings = sum(count * (1 + of_currency[code]) for code, count in counts.items())
    if ratings > maximum:
        message = (
            f"{sum(counts.values()):,} subscriptions on these plans would be rated {ratings:,} times, and one answer has time "
            f"for {maximum:,}. Ask for an account, or name fewer plans."
        )
        raise TooLargeError(ratings, maximum, message=message)


def _lives(subscription: RatedSubscription, period: Period, until: datetime) -> bool:
    terms = subscription.terms
    return terms.starts_at < min(period.end, until) and (terms.ends_at is None or terms.ends_at > period.start)


def _sides(subscription: RatedSubscription, plans: Sequence[Plan], period: Period, until: datetime) -> _Sides:
    terms = subscription.terms
    own = _plan_of(subscription, period)
    others = [plan for plan in plans if plan.currency_code == subscription.currency_code and plan.key != own]
    return _Sides(
        subscription,
        side_of(terms, period, until),
        tuple((plan, side_of(put_on(terms, plan), period, until)) for plan in others),
    )


def _plan_of(subscription: RatedSubscription, period: Period) -> str:
    """The plan that it is on last before the period ends."""
    phases = subscription.terms.phases
    return next((each for each in reversed(phases) if each.start < period.end), phases[0]).plan.key


async def _rated(snapshot: Snapshot, sides: Sequence[_Sides], period: Period, limits: Limits) -> list[Fit]:
    """Rated on all sides; by halves, where the usage behind the lines of all would be too much to hold."""
    if not sides:
        return []
    try:
        used = await read_used(snapshot, {each for of in sides for each in of.needed()}, period, limits)
    except TooLargeError:
        if len(sides) == 1:
            raise
        middle = len(sides) // 2
        return [
            fit for half in (sides[:middle], sides[middle:]) for fit in await _rated(snapshot, half, period, limits)
        ]
    # Of many subscriptions this takes a while, in which others are served.
    return await asyncio.to_thread(lambda: [_fit(each, used, period) for each in sides])


def _fit(sides: _Sides, used: Used, period: Period) -> Fit:
    of = sides.subscriber
    currency = currency_of(sides.subscription.currency_code)
    assert currency is not None, "a subscription is in the currency of a plan, which has a minor unit"
    offers = [
        Offer(plan.key, plan.version, _money(used.owed(side, of, period), currency)) for plan, side in sides.others
    ]
    return Fit(
        account=of.account,
        subscription=of.subscription,
        plan=_plan_of(sides.subscription, period),
        current=_money(used.owed(sides.current, of, period), currency),
        offers=tuple(sorted(offers, key=lambda offer: (offer.owed.amount, offer.plan))),
        used=_use(sides, used),
    )


def _money(amounts: Mapping[Key, Decimal], currency: Currency) -> Money:
    return Money(add(currency.zero, total(amounts.values())), currency)


def _use(sides: _Sides, used: Used) -> Decimal | None:
    """By meter: what billing periods that touch the period used, by what they include, so far as they have begun."""
    sums: dict[str, tuple[Decimal, Decimal]] = {}
    for billing in sides.current.periods:
        for part in parts_of(sides.current.subscription, billing):
            for price in part.plan.prices:
                if price.meter is None or not price.included_quantity:
                    continue
                included = part.share.of(price.included_quantity) if price.prorated else price.included_quantity
                figure = used.figures[Needed(sides.subscriber, price.meter, part.period)]
                before = sums.get(price.meter, (ZERO, ZERO))
                sums[price.meter] = add(before[0], figure.quantity), add(before[1], included)
    shares = [cut(quantity, included, _USE_DIGITS) for quantity, included in sums.values() if included]
    return max(shares, default=None)
