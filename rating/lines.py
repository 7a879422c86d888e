"""The lines of a statement: each step of its calculation, with how it came about."""

from datetime import datetime
from decimal import Decimal
from enum import Enum

import msgspec

from rating.exact import plain
from rating.money import Money
from rating.periods import WHOLE, Period, PeriodShare, instant_text


class LineKind(Enum):
    """What a line is for."""

    RECURRING = "RECURRING"
    USAGE = "USAGE"
    INCLUDED = "INCLUDED"
    MINIMUM = "MINIMUM"
    MAXIMUM = "MAXIMUM"
    DISCOUNT = "DISCOUNT"
    ADJUSTMENT = "ADJUSTMENT"
    # Of what was granted beforehand: no line of a calculation, but of what is drawn once all others are there.
    CREDIT = "CREDIT"


class Origin(msgspec.Struct, frozen=True, kw_only=True):
    """Where a line comes from: plan and version, the price within it (None: the plan as a whole), and its meter."""

    plan: str
    plan_version: int
    price: str | None = None
    meter: str | None = None


class Line(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One step of the calculation; the lines of a statement add up to its total.

    Where there is a unit price, `exact_amount` is quantity times unit price, of that the line's share of its period;
    `amount` is what is owed of it. `tier` counts from 1. `due_at` is when it is due, by the price's timing.
    """

    origin: Origin
    kind: LineKind
    # Which step of its price it is: units, tier-2, tier-2-flat, events, included, discount, maximum, minimum, seats, flat.
    step: str
    period: Period
    due_at: datetime
    exact_amount: Decimal
    amount: Money
    tier: int | None = None
    quantity: Decimal | None = None
    unit_price: Decimal | None = None
    share: PeriodShare = WHOLE

    @property
    def key(self) -> str:
        """The line's name, the same whenever the period is rated again: plan, version, price, step, beginning."""
        origin = self.origin
        return (
            f"{_escaped(origin.plan)}@{origin.plan_version}/{_escaped(origin.price or '')}"
            f"/{self.step}/{instant_text(self.period.start)}"
        )


def _escaped(name: str) -> str:
    """A name that cannot be taken for a longer one: without the signs that keys are put together with."""
    return name.replace("%", "%25").replace("/", "%2F").replace("@", "%40")


def description(line: Line) -> str:
    """What the line is, in words, for people who read a statement."""
    subject = line.origin.price or f"plan {line.origin.plan}"
    tier = "" if line.tier is None else f", tier {line.tier}"
    if line.kind is LineKind.INCLUDED:
        return f"{subject}: {_number(line.quantity)} included"
    if line.kind in {LineKind.USAGE, LineKind.RECURRING}:
        if line.unit_price is not None:
            return f"{subject}{tier}: {_number(line.quantity)} at {_number(line.unit_price)}{_of_period(line)}"
        return f"{subject}{tier}: flat{_of_period(line)}"
    return f"{subject}: {line.kind.value.lower()}"


def _number(number: Decimal | None) -> str:
    return "" if number is None else plain(number)


def _of_period(line: Line) -> str:
    """For which part of its billing period, where it is not the whole."""
    if line.share == WHOLE:
        return ""
    return f", {instant_text(line.period.start)} to {instant_text(line.period.end)}"
