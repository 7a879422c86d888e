"""Amounts are attributed so that every grouping adds up."""

from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rating.attribution import Attributed, Key, amount_within, attribute, attribute_lines, grouped
from rating.lines import Line, LineKind
from rating.meters import Figure, Meter
from rating.money import Money, rounded
from rating.periods import Period
from rating.plans import Plan, PlanPrice
from rating.prices import Flat, Graduated, PerUnit, Tier
from rating.statements import statement_of
from rating.subscriptions import PlanPhase, SeatChange, billing_period_at, on_plan
from tests.rating.strategies import cuts
from tests.rating.tables import EUR, MARCH, period, plan, subscription
from tests.strategies import MANY, decimals

NOBODY: Key = (None, None)
APRIL = period("2026-04-01", "2026-05-01")
METERS = {"meter": Meter(key="meter")}
KEYS = st.tuples(st.sampled_from(["ann", "bob", "", None]), st.sampled_from(["phone", "web", None]))
USAGE = st.lists(st.tuples(KEYS, decimals(whole_digits=6, fraction_digits=3)), max_size=8)


def money(amount: str) -> Money:
    """An amount in EUR."""
    return rounded(Decimal(amount), EUR)


def total_of(parts: dict[Key, Money]) -> Fraction:
    """What parts add up to."""
    return sum((Fraction(part.amount) for part in parts.values()), Fraction(0))


# ---------------------------------------------------------------- attribution


def test_attribution_by_hand() -> None:
    """10.00 for 3 calls of Ann and 1 of Bob and 2 of nobody in particular; a key that comes twice is added up."""
    usage: list[tuple[Key, Decimal]] = [
        (("bob",), Decimal(1)),
        (("ann",), Decimal(2)),
        ((None,), Decimal(2)),
        (("ann",), Decimal(1)),
    ]

    assert [(key, str(part)) for key, part in attribute(money("10"), usage, (None,))] == [
        ((None,), "3.33 EUR"),
        (("ann",), "5.00 EUR"),
        (("bob",), "1.67 EUR"),
    ]


@pytest.mark.parametrize("quantities", [[], ["0"], ["2", "-2"]])
def test_without_usage_an_amount_is_nobodys(quantities: list[str]) -> None:
    """Where there is no usage, or it adds up to zero, the whole amount has no key."""
    usage: list[tuple[Key, Decimal]] = [((str(place), None), Decimal(each)) for place, each in enumerate(quantities)]

    assert [(NOBODY, money("5"))] == attribute(money("5"), usage, NOBODY)


@MANY
@given(USAGE, decimals(whole_digits=9), st.data())
def test_every_grouping_adds_up(usage: list[tuple[Key, Decimal]], amount: Decimal, data: st.DataObject) -> None:
    """Parts add up to the amount by both dimensions, by one, and by none; the order in which usage comes does not matter."""
    owed = rounded(amount, EUR)
    parts = attribute(owed, usage, NOBODY)

    assert parts == attribute(owed, data.draw(st.permutations(usage)), NOBODY)
    for dimensions in ([0, 1], [0], [1], []):
        assert Fraction(owed.amount) == total_of(grouped(parts, dimensions))
    by_both = grouped(parts, [0, 1])
    assert grouped(parts, [0]) == grouped(by_both.items(), [0])


@MANY
@given(st.data(), decimals(whole_digits=9))
def test_amount_spread_over_its_period_adds_up(data: st.DataObject, amount: Decimal) -> None:
    """However a period is cut, the parts of an amount that is spread evenly over it add up to the amount."""
    owed = rounded(amount, EUR)
    parts = [amount_within(owed, MARCH, part) for part in data.draw(cuts(MARCH))]

    assert Fraction(owed.amount) == sum(Fraction(part.amount) for part in parts)
    assert amount_within(owed, MARCH, APRIL).amount == 0


def stage(
    terms: Plan, usage: list[tuple[Key, Decimal]], of: Period, *, seats: int = 0, moved_from: Plan | None = None
) -> tuple[tuple[Line, ...], list[Attributed]]:
    """A month on a plan with some usage: its lines, and who they are for."""
    customer = subscription(
        PlanPhase(moved_from or terms, of.start),
        seats=(SeatChange(of.start, seats),),
        discount_percent=Decimal("7.5"),
    )
    month = billing_period_at(on_plan(customer, terms), of.start)
    assert month is not None
    quantity = sum((Fraction(each) for _, each in usage), Fraction(0))
    figure = Figure(Decimal(quantity.numerator) / Decimal(quantity.denominator), len(usage))
    lines = statement_of(on_plan(customer, terms), month, {("meter", of): figure}, METERS).lines
    return lines, attribute_lines(lines, {("meter", of): usage}, NOBODY)


def test_lines_without_usage_are_nobodys_and_discounts_follow() -> None:
    """Flat prices and minimums are nobody's; calls are their users'; the discount goes the way of what it is taken from."""
    terms = plan(
        PlanPrice(key="base", price=Flat(Decimal(20))),
        PlanPrice(key="calls", meter="meter", price=PerUnit(Decimal(1)), minimum_amount=Decimal(50)),
    )
    _, parts = stage(terms, [(("ann", "web"), Decimal(30)), (("bob", "web"), Decimal(10))], MARCH)

    assert [(part.line.step, part.key[0], str(part.amount.amount), part.recurring) for part in parts] == [
        ("flat", None, "20.00", True),
        ("units", "ann", "30.00", False),
        ("units", "bob", "10.00", False),
        ("minimum", None, "10.00", False),
        ("discount", None, "-1.50", True),
        ("discount", "ann", "-2.25", False),
        ("discount", "bob", "-0.75", False),
    ]


def test_tiers_are_attributed_by_the_whole_quantity() -> None:
    """All lines of a price are shared by its whole usage: nobody is in the cheap tier by coming first."""
    tiers = (Tier(Decimal(10), Decimal(2)), Tier(None, Decimal(1)))
    terms = plan(PlanPrice(key="usage", meter="meter", price=Graduated(tiers)))
    _, parts = stage(terms, [(("ann", "web"), Decimal(10)), (("bob", "web"), Decimal(10))], MARCH)
    by_user = grouped([(part.key, part.amount) for part in parts if part.line.kind is LineKind.USAGE], [0])

    assert by_user == {("ann",): money("15"), ("bob",): money("15")}
