"""Commitments: the minimums of a plan, what counts towards each so far, and what will be missing at today's pace.

The pace is that of the running part of a billing period: what a meter has added up since the part began is scaled to the whole
of it, and the period is rated once more by that. What other meters show, as a maximum or a level, stays as it is.
"""

from collections.abc import Collection, Iterator
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Final

import msgspec

from rating.bounds import FRACTION_DIGITS_MAX
from rating.exact import add, cut, multiply
from rating.lines import Line, LineKind
from rating.meters import Figure
from rating.money import Money, sum_of
from rating.periods import Period
from rating.plans import Plan
from rating.statements import Figures, Statement
from rating.subscriptions import BillingPeriod, PlanPart, Subscription, billing_period_at, parts_of

_SHARE_DIGITS: Final = 6


class Commitment(msgspec.Struct, frozen=True, kw_only=True):
    """A minimum of a price, or (None) of the plan: what counts towards it so far, what will in the end, and what is missing then.

    What is owed for time counts in full from the start; to that of the plan also what fills up to those of its prices.
    """

    price: str | None
    used: Money
    expected: Money
    short: Money

    @property
    def committed(self) -> Money:
        """What is owed in any case."""
        return Money(add(self.expected.amount, self.short.amount), self.short.currency)


def running_part(subscription: Subscription, at: datetime) -> tuple[BillingPeriod, PlanPart] | None:
    """The billing period that an instant lies in, and its part with the plan of then; None where nothing is charged then."""
    period = billing_period_at(subscription, at)
    if period is None:
        return None
    part = next((each for each in parts_of(subscription, period) if each.period.start <= at < each.period.end), None)
    return None if part is None else (period, part)


def is_committed(plan: Plan) -> bool:
    """Whether a plan has a minimum, or one of its prices has."""
    return bool(plan.minimum_amount) or any(price.minimum_amount for price in plan.prices)


def passed(period: Period, at: datetime) -> Decimal:
    """Which share of a period has passed at an instant of it; cut after six digits."""
    return cut(_microseconds(at - period.start), _microseconds(period.end - period.start), _SHARE_DIGITS)


def at_pace(figures: Figures, period: Period, at: datetime, adding: Collection[str]) -> Figures:
    """The figures as they will be when a period is over: those of it, of meters that add up, grow as they did until an instant.

    The instant is behind the period's start; a quantity that does not end is cut where quantities are.
    """
    so_far, whole = _microseconds(at - period.start), _microseconds(period.end - period.start)
    grown = {
        pair: Figure(
            cut(multiply(figure.quantity, whole), so_far, FRACTION_DIGITS_MAX),
            figure.events * int(whole) // int(so_far),
        )
        for pair, figure in figures.items()
        if pair[0] in adding and pair[1] == period
    }
    return {**figures, **grown}


def unmet(now: Statement, expected: Statement, part: PlanPart) -> tuple[Commitment, ...]:
    """The minimums of a part that something will be missing to: `now` is what is owed so far, `expected` what will be."""
    return tuple(
        Commitment(
            price=line.origin.price,
            used=_towards(now, part, line.origin.price),
            expected=_towards(expected, part, line.origin.price),
            short=line.amount,
        )
        for line in _lines(expected, part)
        if line.kind is LineKind.MINIMUM and line.amount.amount
    )


def _towards(statement: Statement, part: PlanPart, price: str | None) -> Money:
    """What counts towards a minimum: all of its price, or of the plan, but for what fills up to itself."""
    counted = [
        line.amount
        for line in _lines(statement, part)
        if price in {None, line.origin.price} and not (line.kind is LineKind.MINIMUM and line.origin.price == price)
    ]
    return sum_of(counted, statement.total.currency)


def _lines(statement: Statement, part: PlanPart) -> Iterator[Line]:
    return (line for line in statement.lines if line.period.within(part.period) == line.period)


def _microseconds(length: timedelta) -> Decimal:
    return Decimal(length // timedelta.resolution)
