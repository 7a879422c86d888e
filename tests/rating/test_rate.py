"""One price on one quantity: against a second computation in fractions, and by what must hold of any price."""

import itertools
from decimal import Decimal, localcontext
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rating.lines import LineKind
from rating.meters import Figure
from rating.money import Currency
from rating.periods import PeriodShare
from rating.plans import PlanPrice
from rating.prices import (
    Dynamic,
    Graduated,
    GraduatedPercentage,
    Package,
    Percentage,
    PerUnit,
    Price,
    StairStep,
    Tier,
    Tiered,
    Volume,
)
from rating.rate import Step, usage_steps
from rating.share import settle
from rating.steps import Rounding, RoundingMode, round_to_step
from tests.rating.strategies import currencies, numbers, plan_prices, prices, quantities, tiers
from tests.rating.tables import EUR, owed, rated
from tests.strategies import MANY, decimals

# ---------------------------------------------------------------- the second computation, in fractions


def naive(price: Price, quantity: Fraction, events: int) -> Fraction:
    """What a price comes to, written down as one would explain it."""
    match price:
        case PerUnit():
            return quantity * Fraction(price.unit_price)
        case Dynamic():
            return quantity * Fraction(price.factor)
        case Percentage():
            return quantity * Fraction(price.rate) + events * Fraction(price.fixed_per_event)
        case Package():
            return (
                naive_rounding(quantity, Rounding(price.rounding, price.size))
                / Fraction(price.size)
                * Fraction(price.package_price)
            )
        case Graduated() | GraduatedPercentage():
            return naive_stretch(price, Fraction(-1), quantity)
        case Volume() | StairStep():
            reached = next(tier for tier in price.tiers if tier.up_to is None or quantity <= Fraction(tier.up_to))
            flat = Fraction(reached.flat_price) if quantity or price.flat_at_zero else Fraction(0)
            return quantity * Fraction(reached.unit_price) + flat
        case _:
            raise AssertionError(price)


def naive_stretch(price: Tiered, after: Fraction, until: Fraction) -> Fraction:
    """What the stretch of a quantity from after one number up to another costs; -1 is before anything is owed."""
    cost, below = Fraction(0), Fraction(0)
    for number, tier in enumerate(price.tiers):
        top = until if tier.up_to is None else min(until, Fraction(tier.up_to))
        cost += max(top - max(after, below, Fraction(0)), Fraction(0)) * Fraction(tier.unit_price)
        entered = until > below or (number == 0 and price.flat_at_zero)
        entered_before = after > below or (number == 0 and price.flat_at_zero and after >= 0)
        if entered and not entered_before:
            cost += Fraction(tier.flat_price)
        below = top if tier.up_to is None else Fraction(tier.up_to)
    return cost


def naive_rounding(quantity: Fraction, rounding: Rounding) -> Fraction:
    """The nearest multiple of a step, as the mode says, for quantities from zero on."""
    step = Fraction(rounding.step)
    below = quantity // step
    rest = quantity - below * step
    match rounding.mode:
        case RoundingMode.UP:
            further = rest > 0
        case RoundingMode.DOWN:
            further = False
        case RoundingMode.HALF_UP:
            further = 2 * rest >= step
        case RoundingMode.HALF_EVEN:
            further = 2 * rest > step or (2 * rest == step and below % 2 == 1)
    return (below + further) * step


def exact(steps: list[Step]) -> Fraction:
    """What steps add up to."""
    return sum((Fraction(step.exact_amount) for step in steps), Fraction(0))


def cost(price: Price, quantity: Decimal, events: int = 0) -> Fraction:
    """What a price comes to in the code."""
    return exact(usage_steps(PlanPrice(key="p", meter="m", price=price), Figure(quantity, events)))


# ---------------------------------------------------------------- properties


@MANY
@given(prices(), quantities(), st.integers(0, 10**12))
def test_every_kind_is_what_fractions_say(price: Price, quantity: Decimal, events: int) -> None:
    """Every kind of price comes to exactly what a naive computation in fractions comes to."""
    assert naive(price, Fraction(quantity), events) == cost(price, quantity, events)


@MANY
@given(tiers(), st.booleans(), st.data())
def test_bounds_are_inclusive(some: tuple[Tier, ...], flat_at_zero: bool, data: st.DataObject) -> None:  # noqa: FBT001
    """On a bound, and the smallest quantity beside it, graduated and volume prices are what fractions say."""
    bounds = [tier.up_to for tier in some if tier.up_to is not None] or [Decimal(1)]
    quantity = data.draw(st.sampled_from(bounds)) + Decimal(data.draw(st.integers(-1, 1))).scaleb(-18)
    for price in (Graduated(some, flat_at_zero), Volume(some, flat_at_zero)):
        assert naive(price, Fraction(quantity), 0) == cost(price, quantity)


@MANY
@given(tiers(), st.booleans(), st.lists(quantities(), min_size=1, max_size=5))
def test_graduated_in_parts_is_graduated_as_a_whole(
    some: tuple[Tier, ...],
    flat_at_zero: bool,  # noqa: FBT001
    reached: list[Decimal],
) -> None:
    """What each further stretch of a quantity costs adds up to what the whole costs, wherever it is cut."""
    price, stops = Graduated(some, flat_at_zero), [Fraction(-1), *sorted(map(Fraction, reached))]
    stretches = [naive_stretch(price, after, until) for after, until in itertools.pairwise(stops)]

    assert sum(stretches) == cost(price, max(reached))


@MANY
@given(st.one_of(st.builds(PerUnit, numbers()), st.builds(Dynamic, numbers())), st.lists(decimals(), max_size=8))
def test_per_unit_and_dynamic_in_parts_are_the_whole(price: Price, parts: list[Decimal]) -> None:
    """Per unit and dynamic prices of parts add up to that of their sum, exactly; also where usage is given back."""
    whole = sum(map(Fraction, parts), Fraction(0))
    unit = Fraction(price.unit_price if isinstance(price, PerUnit) else price.factor)  # type: ignore[union-attr]

    assert whole * unit == sum((cost(price, part) for part in parts), Fraction(0))


@MANY
@given(prices(rising=True), quantities(), quantities())
def test_more_usage_never_costs_less_where_prices_do_not_fall(price: Price, one: Decimal, other: Decimal) -> None:
    """With tiers whose prices do not fall, more usage costs the same or more."""
    assert cost(price, min(one, other)) <= cost(price, max(one, other))


@MANY
@given(plan_prices(), quantities(), currencies(), st.integers(0, 99), st.integers(1, 100))
def test_whole_order_of_calculation(
    price: PlanPrice, quantity: Decimal, currency: Currency, start: int, end: int
) -> None:
    """Included quantity, price, discount, maximum and minimum follow each other as they should, for any part of a period."""
    share = PeriodShare(min(start, end - 1), end, 100)
    part = Fraction(share.end - share.start, 100) if price.prorated else Fraction(1)
    included = Fraction(share.of(price.included_quantity, 18) if price.prorated else price.included_quantity)
    expected = naive(price.price, max(Fraction(quantity) - included, Fraction(0)), 3)
    expected -= expected * Fraction(price.discount_percent) / 100
    if price.maximum_amount is not None:
        expected = min(expected, Fraction(price.maximum_amount))
    if price.minimum_amount is not None:
        expected = max(expected, Fraction(price.minimum_amount) * part)
    steps = usage_steps(price, Figure(quantity, 3), share)

    assert expected == exact(steps)
    amounts = settle([step.exact_amount for step in steps], currency)
    assert abs(sum(Fraction(amount.amount) for amount in amounts) - expected) <= Fraction(currency.quantum) / 2


@MANY
@given(plan_prices(), quantities())
def test_lines_say_how_they_came_about(price: PlanPrice, quantity: Decimal) -> None:
    """Where a line has a unit price, its exact amount is quantity times unit price."""
    for step in usage_steps(price, Figure(quantity, 2)):
        if step.unit_price is not None:
            assert step.quantity is not None
            assert Fraction(step.quantity) * Fraction(step.unit_price) == Fraction(step.exact_amount)


@MANY
@given(decimals(), numbers(least=1), st.sampled_from(RoundingMode))
def test_rounding_to_steps_is_what_fractions_say(quantity: Decimal, step: Decimal, mode: RoundingMode) -> None:
    """A quantity is rounded as fractions say; below zero it is the mirror of above."""
    rounding = Rounding(mode, step)
    expected = naive_rounding(abs(Fraction(quantity)), rounding) * (1 if quantity > 0 else -1)

    assert expected == Fraction(round_to_step(quantity, rounding))


@MANY
@given(decimals(), st.sampled_from(RoundingMode), st.sampled_from(["1", "0.01", "1000", "0.000000000000000001"]))
def test_rounding_to_a_power_of_ten_is_that_of_decimals(quantity: Decimal, mode: RoundingMode, step: str) -> None:
    """With a power of ten for its step, each mode is the one of the same name in Python's decimals."""
    with localcontext(prec=100):
        expected = (quantity / Decimal(step)).quantize(Decimal(1), f"ROUND_{mode.value}") * Decimal(step)

    assert expected == round_to_step(quantity, Rounding(mode, Decimal(step)))


# ---------------------------------------------------------------- by hand

LADDER = (Tier(Decimal(10), Decimal(2), Decimal(5)), Tier(None, Decimal(1), Decimal(3)))


@pytest.mark.parametrize(
    ("kind", "quantity", "flat_at_zero", "expected"),
    [
        (Graduated, "0", True, "5"),
        (Graduated, "0", False, "0"),
        (Graduated, "0.001", False, "5.002"),
        (Volume, "0", True, "5"),
        (Volume, "0", False, "0"),
        (Volume, "10", False, "25"),
        (Volume, "10.5", False, "13.5"),
        (GraduatedPercentage, "12", True, "30"),
        # Below zero counts as zero.
        (Graduated, "-4", True, "5"),
        (Volume, "-4", False, "0"),
    ],
)
def test_flat_price_at_zero_usage(kind: type[Tiered], quantity: str, flat_at_zero: bool, expected: str) -> None:  # noqa: FBT001
    """The first tier's flat price is owed at zero usage unless that is switched off, and from the first usage on always."""
    price = kind(LADDER, flat_at_zero)

    assert isinstance(price, Graduated | Volume | GraduatedPercentage)
    assert Fraction(expected) == cost(price, Decimal(quantity))


@pytest.mark.parametrize(
    ("price", "quantity", "expected"),
    [
        (Package(Decimal(10), Decimal(3)), "-1", "0"),
        (Package(Decimal("0.3"), Decimal(3)), "0.9", "9"),
        (PerUnit(Decimal(3)), "-2", "-6"),
        (Dynamic(Decimal("0.5")), "-2", "-1"),
    ],
)
def test_quantities_below_zero(price: Price, quantity: str, expected: str) -> None:
    """Prices that are the same for every unit give usage back; packages that nobody took cost nothing."""
    assert Fraction(expected) == cost(price, Decimal(quantity))


def test_order_of_calculation_by_hand() -> None:
    """1,234 calls, rounded up to 1,300, 300 of them included: 1,000 at 0.02, less 10 %, 15 at most, 16 at least."""
    price = PlanPrice(
        key="calls",
        meter="calls",
        price=PerUnit(Decimal("0.02")),
        included_quantity=Decimal(300),
        discount_percent=Decimal(10),
        maximum_amount=Decimal(15),
        minimum_amount=Decimal(16),
    )
    steps = usage_steps(price, Figure(Decimal(1234)), rounding=Rounding(RoundingMode.UP, Decimal(100)))

    assert [(step.kind.value, step.name, step.quantity, step.exact_amount) for step in steps] == [
        ("INCLUDED", "included", 300, 0),
        ("USAGE", "units", 1000, 20),
        ("DISCOUNT", "discount", None, -2),
        ("MAXIMUM", "maximum", None, -3),
        ("MINIMUM", "minimum", None, 1),
    ]


def test_tier_lines_share_one_rounding() -> None:
    """Three tiers of 1.335 each are 4.005 together: 4.01, and the lines that add up to it are 1.34, 1.34 and 1.33."""
    tier = {"unitPrice": "1.335"}
    case = {
        "currencyCode": "EUR",
        "quantity": "3",
        "price": {"graduated": {"tiers": [{"upTo": "1", **tier}, {"upTo": "2", **tier}, tier]}},
    }
    lines = rated(case)

    assert ["1.34", "1.34", "1.33"] == [str(line.amount.amount) for line in lines]
    assert Decimal("4.01") == owed(lines)


@pytest.mark.parametrize("code", ["JPY", "EUR", "KWD"])
def test_zero_usage_costs_nothing_and_says_so(code: str) -> None:
    """Without usage a price without flat amounts has one line, of zero, in the currency's digits."""
    (line,) = rated({"currencyCode": code, "quantity": "0", "price": {"perUnit": {"unitPrice": "0.3333"}}})

    assert line.kind is LineKind.USAGE
    assert {"JPY": "0", "EUR": "0.00", "KWD": "0.000"}[code] == str(line.amount.amount)


@pytest.mark.parametrize(
    ("code", "expected"), [("JPY", "333"), ("EUR", "333.33"), ("KWD", "333.333"), ("CLF", "333.3333")]
)
def test_amounts_have_the_digits_of_their_currency(code: str, expected: str) -> None:
    """The same price is rounded to the minor unit of each currency."""
    (line,) = rated({"currencyCode": code, "quantity": "1000", "price": {"perUnit": {"unitPrice": "0.3333333"}}})

    assert expected == str(line.amount.amount)


def test_longest_numbers_are_exact() -> None:
    """A quantity of 38 digits at a price of 38 digits has 76 digits, none of them lost."""
    quantity, unit_price = Decimal("9" * 20 + "." + "9" * 18), Decimal("9" * 20 + "." + "9" * 17 + "7")

    assert Fraction(quantity) * Fraction(unit_price) == cost(PerUnit(unit_price), quantity)
    assert EUR.quantum == Decimal("0.01")
