"""Amounts are attributed so that every grouping adds up, and a difference is explained without remainder."""

from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rating.attribution import Attributed, Key, amount_within, attribute, attribute_lines, grouped
from rating.explain import ChangeCause, Explanation, Rating, explain, rating_of
from rating.lines import Line, LineKind
from rating.meters import Figure, Meter
from rating.money import Money, rounded
from rating.periods import Period
from rating.plans import Plan, PlanPrice
from rating.prices import Flat, Graduated, PerSeat, PerUnit, Price, Tier
from rating.statements import statement_of
from rating.subscriptions import PlanPhase, SeatChange, billing_period_at, on_plan
from tests.rating.strategies import cuts, plan_prices
from tests.rating.tables import EUR, MARCH, period, plan, subscription
from tests.strategies import FEW, MANY, decimals

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


# ---------------------------------------------------------------- explanation


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


def explained(
    before: tuple[Plan, list[tuple[Key, Decimal]]],
    after: tuple[Plan, list[tuple[Key, Decimal]]],
    newest: Plan,
    *,
    seats: tuple[int, int] = (0, 0),
    top: int = 100,
) -> tuple[Explanation, Fraction, Fraction]:
    """Why April's charges differ from March's; and what both really come to."""
    (old, old_usage), (new, new_usage) = before, after
    first, parts_before = stage(old, old_usage, MARCH, seats=seats[0])
    last, parts_after = stage(new, new_usage, APRIL, seats=seats[1])
    ratings = [
        rating_of(parts_before),
        rating_of(stage(old, new_usage, APRIL, seats=seats[1], moved_from=new)[1]),
        rating_of(stage(newest, new_usage, APRIL, seats=seats[1], moved_from=new)[1]),
        rating_of(parts_after),
    ]
    quantities = [
        {key: sum((each for other, each in usage if other == key), Decimal(0)) for key, _ in usage}
        for usage in (old_usage, new_usage)
    ]
    explanation = explain(
        ratings[0],
        ratings[1],
        ratings[2],
        ratings[3],
        currency=EUR,
        top=top,
        quantities_before=quantities[0],
        quantities_after=quantities[1],
    )
    return explanation, *(sum((Fraction(line.amount.amount) for line in lines), Fraction(0)) for lines in (first, last))


def priced(price: Price, base: str, **values: object) -> Plan:
    """A plan with a flat price, seats, and a price on usage."""
    return plan(
        PlanPrice(key="base", price=Flat(Decimal(base))),
        PlanPrice(key="seats", price=PerSeat(Decimal(4))),
        PlanPrice(key="usage", meter="meter", price=price),
        **values,
    )


def test_explanation_by_hand() -> None:
    """More calls, a dearer version, another plan, a seat more: each cause has its amount, for the user who caused it."""
    ann, bob = ("ann", "web"), ("bob", "web")
    march = priced(PerUnit(Decimal(1)), "10")
    newest = priced(PerUnit(Decimal(2)), "10", version=2)
    april = priced(PerUnit(Decimal(3)), "30", key="scale")
    explanation, *_ = explained(
        (march, [(ann, Decimal(40))]),
        (april, [(ann, Decimal(60)), (bob, Decimal(20))]),
        newest,
        seats=(2, 3),
    )
    discounted = Decimal("0.925")

    assert [(part.cause.value, part.key[0], part.amount.amount) for part in explanation.parts] == [
        ("PRICE", "ann", 60 * discounted),
        ("PLAN", "ann", 60 * discounted),
        ("RECURRING", None, 24 * discounted),
        ("VOLUME", "ann", 20 * discounted),
        ("VOLUME", "bob", 20 * discounted),
        ("PRICE", "bob", 20 * discounted),
        ("PLAN", "bob", 20 * discounted),
    ]
    assert [(part.quantity_before, part.quantity_after) for part in explanation.parts[3:5]] == [(40, 60), (None, 20)]
    assert [explanation.before, explanation.after, explanation.remainder] == [
        money("53.65"),
        money("260.85"),
        money("0"),
    ]


def test_only_the_largest_parts_are_shown() -> None:
    """With `top` parts asked for, the rest is the remainder; nothing is lost."""
    users: list[tuple[Key, Decimal]] = [((f"user-{number}", None), Decimal(number)) for number in range(1, 9)]
    terms = priced(PerUnit(Decimal(1)), "0")
    explanation, _, after = explained((terms, []), (terms, users), terms, top=2)

    assert [(part.cause, part.key[0]) for part in explanation.parts] == [
        (ChangeCause.VOLUME, "user-8"),
        (ChangeCause.VOLUME, "user-7"),
    ]
    assert after == sum(Fraction(part.amount.amount) for part in explanation.parts) + Fraction(
        explanation.remainder.amount
    )


@FEW
@given(plan_prices(), plan_prices(), plan_prices(), USAGE, USAGE, st.integers(0, 9), st.integers(0, 5))
def test_explanations_add_up(
    one: PlanPrice,
    other: PlanPrice,
    third: PlanPrice,
    old_usage: list[tuple[Key, Decimal]],
    new_usage: list[tuple[Key, Decimal]],
    seats: int,
    top: int,
) -> None:
    """Before + the parts + remainder = after, exactly, for any plans, usage and seats; both are what the statements say."""
    base = PlanPrice(key="base", price=Flat(Decimal(seats)))
    per_seat = PlanPrice(key="seats", price=PerSeat(Decimal("3.335")))
    old, newest = plan(base, per_seat, one), plan(base, per_seat, other, version=2, minimum_amount=Decimal(9))
    new = plan(base, third, key="scale")
    explanation, before, after = explained((old, old_usage), (new, new_usage), newest, seats=(seats, 3), top=top)
    parts = sum((Fraction(part.amount.amount) for part in explanation.parts), Fraction(0))

    assert [before, after] == [Fraction(explanation.before.amount), Fraction(explanation.after.amount)]
    assert before + parts + Fraction(explanation.remainder.amount) == after
    assert len(explanation.parts) <= top


def test_adjustments_are_a_cause_of_their_own() -> None:
    """What was carried over from another period is compared as such."""
    empty = Rating({}, {}, {})
    adjusted = Rating({}, {}, {NOBODY: Decimal("-3.00")})
    explanation = explain(empty, empty, empty, adjusted, currency=EUR, top=5)

    assert [(part.cause, str(part.amount)) for part in explanation.parts] == [(ChangeCause.ADJUSTMENT, "-3.00 EUR")]


def test_tiers_are_attributed_by_the_whole_quantity() -> None:
    """All lines of a price are shared by its whole usage: nobody is in the cheap tier by coming first."""
    tiers = (Tier(Decimal(10), Decimal(2)), Tier(None, Decimal(1)))
    terms = plan(PlanPrice(key="usage", meter="meter", price=Graduated(tiers)))
    _, parts = stage(terms, [(("ann", "web"), Decimal(10)), (("bob", "web"), Decimal(10))], MARCH)
    by_user = grouped([(part.key, part.amount) for part in parts if part.line.kind is LineKind.USAGE], [0])

    assert by_user == {("ann",): money("15"), ("bob",): money("15")}
