"""What an aggregation is, and how a figure is made of what was added up. Pure, and exact to the digit that it states.

A *tally* is what the database adds up: an amount and a number of events. What the amount is depends on the aggregation:

    SUM COUNT MAX MIN LATEST UNIQUE_COUNT   the figure itself
    AVERAGE                                 the sum of the quantities, to be divided by the number of events
    TIME_WEIGHTED                           levels times the seconds that they were held, to be divided by all seconds

What is divided is rounded once, half away from zero, to 18 digits after the point: as fine as a quantity can be.
"""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from decimal import MAX_EMAX, MAX_PREC, MIN_EMIN, Context, Decimal, Inexact, InvalidOperation
from enum import Enum
from typing import Final

import msgspec

from metering.periods import Period
from rating.steps import Rounding, round_to_step

# A quotient has so many digits after the point, and so many have the quantities that it is made of.
QUOTIENT_DIGITS: Final = 18
# Arithmetic that keeps every digit, and would rather fail than lose one.
EXACT: Final = Context(prec=MAX_PREC, Emax=MAX_EMAX, Emin=MIN_EMIN, traps=[Inexact, InvalidOperation])
_HOUR: Final = Decimal(3_600)
_ZERO: Final = Decimal(0)


class Aggregation(Enum):
    """How the events of a meter are brought together to one figure."""

    SUM = "SUM"
    COUNT = "COUNT"
    MAX = "MAX"
    MIN = "MIN"
    AVERAGE = "AVERAGE"
    LATEST = "LATEST"
    UNIQUE_COUNT = "UNIQUE_COUNT"
    TIME_WEIGHTED = "TIME_WEIGHTED"


class Traits(msgspec.Struct, frozen=True, kw_only=True):
    """What holds for an aggregation, whichever meter it is of."""

    # It is made of quantities, which are brought together only within one unit; the others count, across units too.
    of_quantities: bool
    # Rollups answer it; the others are read from the events themselves.
    from_rollups: bool
    # The figures of all groups add up to the total.
    adds_up: bool
    # The figure of no events at all; None where there is none.
    of_nothing: Decimal | None


TRAITS: Final[Mapping[Aggregation, Traits]] = {
    Aggregation.SUM: Traits(of_quantities=True, from_rollups=True, adds_up=True, of_nothing=_ZERO),
    Aggregation.COUNT: Traits(of_quantities=False, from_rollups=True, adds_up=True, of_nothing=_ZERO),
    Aggregation.MAX: Traits(of_quantities=True, from_rollups=True, adds_up=False, of_nothing=None),
    Aggregation.MIN: Traits(of_quantities=True, from_rollups=True, adds_up=False, of_nothing=None),
    Aggregation.AVERAGE: Traits(of_quantities=True, from_rollups=True, adds_up=False, of_nothing=None),
    Aggregation.LATEST: Traits(of_quantities=True, from_rollups=False, adds_up=False, of_nothing=None),
    Aggregation.UNIQUE_COUNT: Traits(of_quantities=False, from_rollups=True, adds_up=False, of_nothing=_ZERO),
    Aggregation.TIME_WEIGHTED: Traits(of_quantities=True, from_rollups=False, adds_up=True, of_nothing=_ZERO),
}


class Tally(msgspec.Struct, frozen=True):
    """What was added up: the amount (None of no events), and how many events it is of."""

    amount: Decimal | None
    events: int


class Figure(msgspec.Struct, frozen=True):
    """What a meter says: exactly, rounded to its step, how many events it is of; and, of levels, in unit-hours."""

    exact: Decimal | None
    rounded: Decimal | None
    events: int
    unit_hours: Decimal | None


def figure(aggregation: Aggregation, tally: Tally, seconds: Decimal, rounding: Rounding | None) -> Figure:
    """The figure of a tally over so many seconds."""
    exact = _exact(aggregation, tally, seconds)
    shown = exact if exact is None or rounding is None else round_to_step(exact, rounding)
    unit_hours = quotient(tally.amount or _ZERO, _HOUR) if aggregation is Aggregation.TIME_WEIGHTED else None
    return Figure(exact, shown, tally.events, unit_hours)


def _exact(aggregation: Aggregation, tally: Tally, seconds: Decimal) -> Decimal | None:
    if tally.amount is None:
        return TRAITS[aggregation].of_nothing
    match aggregation:
        case Aggregation.AVERAGE:
            return quotient(tally.amount, Decimal(tally.events))
        case Aggregation.TIME_WEIGHTED:
            return quotient(tally.amount, seconds)
        case _:
            return tally.amount


def seconds_of(period: Period) -> Decimal:
    """How long a period is, to the microsecond."""
    microseconds = (period.end - period.start) // timedelta.resolution
    return Decimal(microseconds).scaleb(-6, EXACT)


def quotient(dividend: Decimal, divisor: Decimal) -> Decimal:
    """The quotient with 18 digits after the point, rounded once, half away from zero. The divisor is more than zero."""
    above, below = _ratio(dividend, divisor)
    above *= 10**QUOTIENT_DIGITS
    whole = (2 * abs(above) + below) // (2 * below)
    return Decimal(whole if above >= 0 else -whole).scaleb(-QUOTIENT_DIGITS, EXACT)


def _ratio(dividend: Decimal, divisor: Decimal) -> tuple[int, int]:
    assert divisor > 0, "periods and counts are more than nothing"
    above, below = dividend.as_integer_ratio()
    times, over = divisor.as_integer_ratio()
    return above * over, below * times


# ---------------------------------------------------------------- levels over time


class LevelChanges(msgspec.Struct, frozen=True):
    """How a group's level changed in one bucket; `bucket` counts from 0."""

    bucket: int
    # By how much the level changed, altogether.
    change: Decimal
    # Each change times the seconds from it to the end of the whole period.
    amount: Decimal
    events: int


def held(changes: Sequence[LevelChanges], buckets: Sequence[Period]) -> dict[int, Tally]:
    """The tallies of the buckets in which levels were held, or events were: levels times seconds, by bucket.

    `buckets` are apart and ascending, and end where the whole period ends. The level before the first of them is zero:
    what was carried into the period is a change at its first instant.
    """
    by_bucket = {change.bucket: change for change in changes}
    tallies = {}
    level = _ZERO
    for index, bucket in enumerate(buckets):
        changed = by_bucket.get(index)
        if changed is None and not level:
            continue
        amount = EXACT.multiply(level, seconds_of(bucket))
        if changed is not None:
            # From each change to the end of the bucket: to the end of the period, less what lies between the two.
            behind = EXACT.multiply(changed.change, seconds_of(Period(bucket.end, buckets[-1].end)))
            amount = EXACT.subtract(EXACT.add(amount, changed.amount), behind)
            level = EXACT.add(level, changed.change)
        events = 0 if changed is None else changed.events
        if amount or events:
            tallies[index] = Tally(amount, events)
    return tallies
