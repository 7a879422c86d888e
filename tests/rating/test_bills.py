"""Whole statements against a second computation, in fractions, as somebody would who checks a bill with pen and paper."""

import itertools
from collections.abc import Mapping, Sequence
from decimal import Decimal
from fractions import Fraction
from math import floor
from typing import Any, Final

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rating.lines import LineKind
from rating.meters import Figure, Meter
from rating.money import currency_of
from rating.periods import Period
from rating.plans import Plan, PlanPrice
from rating.prices import Flat, Graduated, Package, PerSeat, PerUnit, Price, Tier, Volume, is_recurring
from rating.statements import Statement, statement_of
from rating.steps import Rounding, RoundingMode
from rating.subscriptions import PlanPhase, SeatChange, Subscription, billing_period_at
from tests.rating.strategies import plan_prices, tiers
from tests.rating.tables import period, plan, subscription
from tests.rating.test_rate import naive
from tests.strategies import SOME

# Thirty days: thirds of it are what decimals cannot say.
APRIL: Final = period("2026-04-01", "2026-05-01")
METERS: Final = {"meter": Meter(key="meter")}
Used = Mapping[Period, Figure]


def april(customer: Subscription, used: Used | None = None) -> Statement:
    """The statement of April 2026."""
    billed = billing_period_at(customer, APRIL.start)
    assert billed is not None
    figures = {("meter", part): figure for part, figure in (used or {}).items()}
    return statement_of(customer, billed, figures, METERS)


def day(number: int) -> Any:
    """The beginning of a day of April, from 1 on; 31 is the end."""
    return APRIL.start + (number - 1) * (APRIL.end - APRIL.start) / 30


# ---------------------------------------------------------------- the second computation


def place(instant: Any) -> Fraction:
    """Where in April an instant is, from 0 to 1."""
    return Fraction((instant - APRIL.start) / (APRIL.end - APRIL.start)).limit_denominator(30)


def length(part: Period) -> Fraction:
    """Which part of April it is."""
    return place(part.end) - place(part.start)


def nearest(amount: Fraction) -> int:
    """The nearest whole number, a half away from zero."""
    return floor(abs(amount) + Fraction(1, 2)) * (1 if amount > 0 else -1)


def settled(amounts: Sequence[Fraction]) -> list[int]:
    """Whole numbers for amounts whose sum is rounded once: cut, and what is left to those that were cut by most."""
    cut = [floor(abs(amount)) * (1 if amount > 0 else -1) for amount in amounts]
    left = nearest(sum(amounts, Fraction(0))) - sum(cut)
    sign = 1 if left > 0 else -1
    by_most = sorted(range(len(amounts)), key=lambda index: (sign * (cut[index] - amounts[index]), index))
    return [each + sign * (index in by_most[: abs(left)]) for index, each in enumerate(cut)]


def seats_in(customer: Subscription, part: Period) -> list[tuple[int, Fraction]]:
    """The seats of each stretch, with its share of April."""
    bounds = [part.start, *(each.since for each in customer.seats if part.start < each.since < part.end), part.end]
    return [
        (
            next((each.seats for each in reversed(customer.seats) if each.since <= start), 0),
            place(end) - place(start),
        )
        for start, end in itertools.pairwise(bounds)
    ]


def exact(price: PlanPrice, part: Period, seats: Sequence[tuple[int, Fraction]], used: Figure) -> list[Fraction]:
    """What a price comes to for a part, in its steps."""
    share = length(part) if price.prorated else Fraction(1)
    included = Fraction(price.included_quantity)
    if isinstance(price.price, Flat):
        steps = [Fraction(price.price.amount) * share]
    elif isinstance(price.price, PerSeat):
        each = Fraction(price.price.unit_price)
        stretches = seats if price.prorated else [(max(count for count, _ in seats), Fraction(1))]
        steps = [max(count - included, Fraction(0)) * each * of for count, of in stretches]
    else:
        fine = 10**18
        if price.prorated:
            # What does not end is cut where quantities are.
            included = Fraction(
                floor(included * place(part.end) * fine) - floor(included * place(part.start) * fine), fine
            )
        steps = [naive(price.price, max(Fraction(used.quantity) - included, Fraction(0)), used.events)]
    steps.append(-sum(steps) * Fraction(price.discount_percent) / 100)
    if price.maximum_amount is not None:
        steps.append(min(Fraction(price.maximum_amount) - sum(steps), Fraction(0)))
    if price.minimum_amount is not None:
        steps.append(max(Fraction(price.minimum_amount) * share - sum(steps), Fraction(0)))
    return steps


def bill(customer: Subscription, used: Used, digits: int) -> int:
    """What April comes to, in minor units of so many digits."""
    parts = [(phase.plan, Period(phase.start, phase.end or APRIL.end)) for phase in customer.phases]
    unit = 10**digits
    groups: dict[object, list[tuple[int, Fraction]]] = {}
    for index, (of, part) in enumerate(parts):
        for number, price in enumerate(of.prices):
            recurring = is_recurring(price.price)
            same = (of.key, price) if recurring else (index, number)
            if recurring and not price.prorated:
                if same in groups:
                    continue
                seats = [
                    each for other, within in parts if price in other.prices for each in seats_in(customer, within)
                ]
            else:
                seats = seats_in(customer, part)
            group = groups.setdefault(same, [])
            group += [(index, unit * step) for step in exact(price, part, seats, used[part])]
    sums = [0] * len(parts)
    for group in groups.values():
        for (index, _), amount in zip(group, settled([step for _, step in group]), strict=True):
            sums[index] += amount
    percent = Fraction(customer.discount_percent)
    discounts = settled([-percent * amount / 100 for amount in sums])
    sums = [amount + discount for amount, discount in zip(sums, discounts, strict=True)]
    missing: dict[object, list[Fraction]] = {}
    for (of, part), amount in zip(parts, sums, strict=True):
        if of.minimum_amount is not None:
            least = unit * Fraction(of.minimum_amount) * length(part)
            missing.setdefault(of.minimum_amount, []).append(max(least - amount, Fraction(0)))
    return sum(sums) + sum(sum(settled(each)) for each in missing.values())


# Such as a price list has: halves of a minor unit are common among them, and what they come to in thirds.
SHORT: Final = st.builds(
    lambda whole, places: Decimal(whole).scaleb(-places), st.integers(0, 400_000), st.integers(0, 4)
)


@st.composite
def price_lists(draw: st.DrawFn) -> tuple[PlanPrice, ...]:
    """A flat price, seats, and prices on usage."""
    base = PlanPrice(key="base", price=Flat(draw(SHORT)), prorated=draw(st.booleans()))
    seats = PlanPrice(
        key="seats",
        price=PerSeat(draw(SHORT)),
        included_quantity=Decimal(draw(st.integers(0, 2))),
        prorated=draw(st.booleans()),
    )
    units = PlanPrice(
        key="units",
        meter="meter",
        price=draw(st.one_of(st.builds(PerUnit, SHORT), st.builds(Graduated, tiers(), flat_at_zero=st.booleans()))),
        included_quantity=draw(SHORT),
    )
    more = msgspec.structs.replace(draw(plan_prices()), key="more", minimum_amount=None)
    return base, seats, units, more


@st.composite
def customers(draw: st.DrawFn) -> tuple[Subscription, Used, int]:
    """A subscription with seats, a discount, and versions that change in April, mostly in some prices only; and its usage."""
    bounds = [1, *sorted(draw(st.lists(st.integers(2, 30), max_size=3, unique=True))), 31]
    parts = [Period(day(first), day(last)) for first, last in itertools.pairwise(bounds)]
    code = draw(st.sampled_from(["JPY", "EUR", "KWD"]))
    first = plan(*draw(price_lists()), currency_code=code, minimum_amount=draw(st.one_of(st.none(), SHORT)))
    versions: list[Plan] = [first]
    for number in range(2, len(parts) + 1):
        prices = [draw(st.sampled_from(pair)) for pair in zip(first.prices, draw(price_lists()), strict=True)]
        minimum = draw(st.sampled_from([first.minimum_amount, None, Decimal(7)]))
        versions.append(msgspec.structs.replace(first, version=number, prices=tuple(prices), minimum_amount=minimum))
    days = sorted(draw(st.lists(st.integers(1, 30), max_size=4, unique=True)))
    customer = subscription(
        *[PlanPhase(of, part.start, part.end) for of, part in zip(versions, parts, strict=True)],
        seats=tuple(SeatChange(day(each), draw(st.integers(0, 5))) for each in days),
        discount_percent=draw(st.sampled_from([Decimal(0), Decimal("12.5"), Decimal(100)])),
    )
    used = {part: Figure(draw(SHORT), draw(st.integers(0, 9))) for part in parts}
    currency = currency_of(code)
    assert currency is not None
    return customer, used, currency.minor_digits


@SOME
@given(customers())
def test_a_statement_is_what_pen_and_paper_say(given_customer: tuple[Subscription, Used, int]) -> None:
    """Versions that change in mid-period, seats, prices of every kind, a discount and a minimum, in currencies with no, two and
    three minor digits: the total is that of the second computation, to the last minor unit.
    """
    customer, used, digits = given_customer

    assert bill(customer, used, digits) == Fraction(april(customer, used).total.amount) * 10**digits


@SOME
@given(customers(), st.integers(0, 3), SHORT)
def test_more_usage_never_makes_a_statement_smaller(
    given_customer: tuple[Subscription, Used, int], where: int, more: Decimal
) -> None:
    """Where the prices of tiers do not fall, more usage in any part of a period never lowers what the period comes to."""
    customer, used, _ = given_customer
    rising = [
        msgspec.structs.replace(phase, plan=msgspec.structs.replace(phase.plan, prices=_rising(phase.plan.prices)))
        for phase in customer.phases
    ]
    customer = msgspec.structs.replace(customer, phases=tuple(rising))
    part = list(used)[where % len(used)]
    after = {**used, part: Figure(used[part].quantity + more, used[part].events)}

    assert april(customer, used).total.amount <= april(customer, after).total.amount


def _rising(prices: Sequence[PlanPrice]) -> tuple[PlanPrice, ...]:
    """The prices but for those that may fall; with tiers that rise."""
    stairs = Graduated((Tier(Decimal(10), Decimal("0.333")), Tier(None, Decimal("0.4445"), Decimal(3))))
    kept = [each for each in prices if each.key != "more"]
    return tuple(
        msgspec.structs.replace(each, price=stairs) if isinstance(each.price, Graduated) else each for each in kept
    )


# ---------------------------------------------------------------- by hand


def test_half_a_cent_is_found_behind_what_was_cut() -> None:
    """One, two and three seats at 10.0025, for a third of the month each, are 20.005: 20.01, whatever thirds leave."""
    seats = PlanPrice(key="seats", price=PerSeat(Decimal("10.0025")))
    changes = tuple(SeatChange(day(first), count) for first, count in ((1, 1), (11, 2), (21, 3)))
    statement = april(subscription(PlanPhase(plan(seats), APRIL.start), seats=changes))

    assert ["3.34", "6.67", "10.00"] == [str(line.amount.amount) for line in statement.lines]


def test_what_is_owed_in_full_is_owed_once() -> None:
    """A price without proration that a new version leaves as it is stands once on the statement, for the most seats; one that
    it changes is another price, and is owed too.
    """
    base = PlanPrice(key="base", price=Flat(Decimal(31)), prorated=False)
    seats = PlanPrice(key="seats", price=PerSeat(Decimal(2)), prorated=False)
    dearer = msgspec.structs.replace(base, price=Flat(Decimal(40)))
    same = [PlanPhase(plan(base, seats), day(1), day(16)), PlanPhase(plan(base, seats, version=2), day(16))]
    other = [same[0], PlanPhase(plan(dearer, seats, version=2), day(16))]
    changes = (SeatChange(day(1), 3), SeatChange(day(20), 5))

    def amounts(*phases: PlanPhase) -> list[str]:
        return [str(line.amount.amount) for line in april(subscription(*phases, seats=changes)).lines]

    assert ["31.00", "10.00"] == amounts(*same)
    assert ["31.00", "10.00", "40.00"] == amounts(*other)


def test_a_minimum_in_parts_is_the_minimum() -> None:
    """Two halves of a minimum of 10.01, which a new version leaves as it is, are 10.01, where each alone is 5.005."""
    phases = [
        PlanPhase(plan(minimum_amount=Decimal("10.01")), day(1), day(16)),
        PlanPhase(plan(minimum_amount=Decimal("10.01"), version=2), day(16)),
    ]
    statement = april(subscription(*phases))

    assert [(LineKind.MINIMUM, "5.01"), (LineKind.MINIMUM, "5.00")] == [
        (line.kind, str(line.amount.amount)) for line in statement.lines
    ]


@pytest.mark.parametrize(("prorated", "owed"), [(True, ["2.50", "2.50"]), (False, ["5.00", "5.00"])])
def test_a_level_is_owed_for_as_long_as_it_was_held(owed: list[str], *, prorated: bool) -> None:
    """Gigabytes at 1.00 for a month, of which 4.2 are rounded up to 5: for two halves of a month they are 2.50 each, as seats
    are; without proration each half owes all of it.
    """
    stored = PlanPrice(key="stored", meter="stored", price=PerUnit(Decimal(1)), prorated=prorated)
    level = Meter(key="stored", rounding=Rounding(RoundingMode.UP, Decimal(1)), is_level=True)
    halves = [PlanPhase(plan(stored), day(1), day(16)), PlanPhase(plan(stored, version=2), day(16), day(31))]
    billed = billing_period_at(subscription(*halves), APRIL.start)
    assert billed is not None
    figures = {("stored", Period(half.start, half.end or APRIL.end)): Figure(Decimal("4.2")) for half in halves}

    lines = statement_of(subscription(*halves), billed, figures, {"stored": level}).lines
    assert owed == [str(line.amount.amount) for line in lines]


LADDER: Final = (Tier(Decimal(10), Decimal(2), Decimal(5)), Tier(None, Decimal(1)))


@pytest.mark.parametrize(
    ("price", "owed"),
    [
        (PerUnit(Decimal(3)), ["0.00"]),
        (Package(Decimal(10), Decimal(3)), ["0.00"]),
        (Graduated(LADDER), ["0.00", "5.00"]),
        (Volume(LADDER, flat_at_zero=False), ["0.00"]),
    ],
)
def test_a_period_without_usage_has_a_statement(price: Price, owed: list[str]) -> None:
    """Without usage each price has its lines, also for the seats that there are not, and the minimum is filled up."""
    prices = [
        PlanPrice(key="seats", price=PerSeat(Decimal(7))),
        PlanPrice(key="units", meter="meter", price=price, included_quantity=Decimal(100)),
    ]
    statement = april(subscription(PlanPhase(plan(*prices, minimum_amount=Decimal(20)), APRIL.start)))

    missing = Decimal(20) - sum(map(Decimal, owed))
    assert ["0.00", *owed, str(missing)] == [str(line.amount.amount) for line in statement.lines]
    assert "20.00 EUR" == str(statement.total)
