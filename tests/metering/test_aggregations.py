"""How a figure is made of what was added up: exact, and rounded where it says so."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal, localcontext
from fractions import Fraction
from itertools import pairwise
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metering.aggregations import (
    EXACT,
    TRAITS,
    Aggregation,
    Figure,
    LevelChanges,
    Tally,
    figure,
    held,
    quotient,
    seconds_of,
)
from metering.periods import Period
from rating.exact import plain
from rating.steps import Rounding, RoundingMode
from tests.strategies import FEW_DAYS, MANY, decimals, instants

DAY: Final = Decimal(86_400)
LAST_DIGIT: Final = Fraction(1, 10**18)


# ---------------------------------------------------------------- quotients


@MANY
@given(decimals(), decimals().filter(lambda number: number > 0))
def test_a_quotient_is_the_nearest_with_18_digits(dividend: Decimal, divisor: Decimal) -> None:
    """A quotient has at most 18 digits after the point, and none of these is nearer to the fraction itself."""
    given_back = quotient(dividend, divisor)

    assert (Fraction(given_back) / LAST_DIGIT).denominator == 1
    assert abs(Fraction(given_back) - Fraction(dividend) / Fraction(divisor)) <= LAST_DIGIT / 2


@pytest.mark.parametrize("sign", ["", "-"])
def test_a_quotient_is_rounded_once_and_half_away_from_zero(sign: str) -> None:
    """Half of the last digit goes away from zero; whatever is less, however little, goes to it."""
    half = Decimal(f"{sign}1E-18")
    little_less = EXACT.multiply(half, Decimal("0.9999999999999999999999999999999999999999999"))

    assert Decimal(f"{sign}1E-18") == quotient(half, Decimal(2))
    assert Decimal(0) == quotient(little_less, Decimal(2))
    assert Decimal(f"{sign}0.666666666666666667") == quotient(Decimal(f"{sign}2"), Decimal(3))


# ---------------------------------------------------------------- figures


@pytest.mark.parametrize("aggregation", Aggregation)
def test_the_figure_of_no_events(aggregation: Aggregation) -> None:
    """Sums, counts and levels of nothing are zero; the largest, smallest, average and latest of nothing are none."""
    has_none = {Aggregation.MAX, Aggregation.MIN, Aggregation.AVERAGE, Aggregation.LATEST}
    nothing = figure(aggregation, Tally(None, 0), DAY, Rounding(RoundingMode.UP, Decimal(1)))

    expected = None if aggregation in has_none else Decimal(0)
    hours = Decimal(0) if aggregation is Aggregation.TIME_WEIGHTED else None
    assert Figure(expected, expected, 0, hours) == nothing
    assert TRAITS[aggregation].of_nothing == expected


def test_a_figure_is_rounded_beside_its_exact_one() -> None:
    """What is rounded to the meter's step stands beside what it was before, and events are counted."""
    rounding = Rounding(RoundingMode.UP, Decimal("0.5"))

    average = figure(Aggregation.AVERAGE, Tally(Decimal(10), 3), DAY, rounding)
    level = figure(Aggregation.TIME_WEIGHTED, Tally(Decimal(36_000), 1), DAY, rounding)
    total = figure(Aggregation.SUM, Tally(Decimal("1.2"), 2), DAY, None)

    assert Figure(Decimal("3.333333333333333333"), Decimal("3.5"), 3, None) == average
    assert Figure(Decimal("0.416666666666666667"), Decimal("0.5"), 1, Decimal(10)) == level
    assert Figure(Decimal("1.2"), Decimal("1.2"), 2, None) == total


def test_a_figure_that_is_rounded_up_to_zero_is_zero() -> None:
    """What is rounded to zero from below is shown as zero, not as minus zero."""
    little_less = figure(Aggregation.SUM, Tally(Decimal("-0.2"), 1), DAY, Rounding(RoundingMode.DOWN, Decimal("0.5")))

    assert little_less.rounded is not None
    assert "0" == plain(little_less.rounded)


# ---------------------------------------------------------------- levels


@st.composite
def levels(draw: st.DrawFn) -> tuple[list[Period], list[tuple[int, Decimal, Decimal]]]:
    """Neighbouring buckets; and changes of a level, each with its bucket and the seconds from its beginning."""
    bounds = sorted(draw(st.lists(instants(*FEW_DAYS), min_size=2, max_size=8, unique=True)))
    buckets = [Period(start, end) for start, end in pairwise(bounds)]
    changes = []
    for _ in range(draw(st.integers(0, 12))):
        index = draw(st.integers(0, len(buckets) - 1))
        microseconds = int(seconds_of(buckets[index]) * 1_000_000)
        at = draw(st.one_of(st.just(0), st.integers(0, microseconds - 1)))
        changes.append((index, Decimal(at).scaleb(-6), draw(decimals(whole_digits=6))))
    return buckets, changes


@MANY
@given(levels())
def test_levels_are_held_from_bucket_to_bucket(made: tuple[list[Period], list[tuple[int, Decimal, Decimal]]]) -> None:
    """A bucket's tally is the level times the seconds that it was held there, however the level got to be what it is."""
    buckets, changes = made
    starts = [seconds_of(Period(buckets[0].start, bucket.start)) for bucket in buckets]
    whole = Fraction(seconds_of(Period(buckets[0].start, buckets[-1].end)))
    steps = []
    for index in range(len(buckets)):
        inside = [(Fraction(starts[index] + at), change) for bucket, at, change in changes if bucket == index]
        if inside:
            amount = sum((Fraction(change) * (whole - at) for at, change in inside), Fraction(0))
            change = sum((change for _, change in inside), Decimal(0))
            steps.append(LevelChanges(index, change, exact_decimal(amount), len(inside)))

    tallies = held(steps, buckets)

    for index, bucket in enumerate(buckets):
        start = Fraction(starts[index])
        end = start + Fraction(seconds_of(bucket))
        lasted = [(max(0, end - max(start, Fraction(starts[of] + at))), change) for of, at, change in changes]
        expected = sum((Fraction(change) * seconds for seconds, change in lasted), Fraction(0))
        events = sum(of == index for of, _, _ in changes)
        tally = tallies.get(index, Tally(Decimal(0), 0))
        assert (expected, events) == (Fraction(tally.amount or 0), tally.events)


def at(minute: int) -> datetime:
    """So many minutes into August 2023."""
    return datetime(2023, 8, 1, tzinfo=UTC) + timedelta(minutes=minute)


def exact_decimal(number: Fraction) -> Decimal:
    """A fraction that is a decimal, as one."""
    with localcontext(prec=200):
        return Decimal(number.numerator) / Decimal(number.denominator)


def test_the_level_of_a_month() -> None:
    """A level of 1,000 that was changed seven times in one morning averages 1,000.02218 over its 31 days."""
    month = Period(at(0), at(31 * 24 * 60))
    changes = [(0, 1_000), (0, 2), (60, 3), (90, 1), (120, -4), (240, -2), (300, 10), (330, -10)]
    amount = sum(
        (Decimal(change) * seconds_of(Period(at(minute), month.end)) for minute, change in changes), Decimal(0)
    )
    total = sum((Decimal(change) for _, change in changes), Decimal(0))

    tallies = held([LevelChanges(0, total, amount, 7)], [month])
    level = figure(Aggregation.TIME_WEIGHTED, tallies[0], seconds_of(month), None)

    assert level.exact is not None
    assert Decimal("1000.02218") == level.exact.quantize(Decimal("0.00001"))
    # 744 hours of 1,000 units, and 16.5 unit-hours more.
    assert Decimal("744016.5") == level.unit_hours
