"""What of a statement falls into a period: however time is cut, by every key, the parts add up to the lines."""

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from fractions import Fraction
from itertools import pairwise
from typing import Final

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from rating.attribution import Key, attribute_lines, grouped
from rating.charges import Behind, charges_within, metered_by
from rating.lines import Line, LineKind, Origin
from rating.meters import Figure, Meter
from rating.money import Currency, Money, rounded
from rating.periods import Period
from rating.plans import PlanPrice
from rating.prices import Flat, Graduated, PerUnit, Tier
from rating.statements import statement_of
from rating.subscriptions import PlanPhase, billing_period_at
from tests.rating.strategies import currencies, cuts
from tests.rating.tables import EUR, MARCH, at, period, plan, subscription
from tests.strategies import FEW, MANY, decimals

NOBODY: Final[Key] = (None, None)
ALL_TIME: Final = period("2000-01-01", "2100-01-01")
METERS: Final = {"meter": Meter(key="meter")}
# Who used how much, and when.
Used = tuple[Key, datetime, Decimal]


@st.composite
def usage(draw: st.DrawFn) -> list[Used]:
    """Usage in March by a few keys, some of it given back, often several times by one key."""
    keys = st.tuples(st.sampled_from(["ann", "bob", None]), st.sampled_from(["phone", None]))
    instants = st.integers(0, 40).map(lambda place: MARCH.start + (MARCH.end - MARCH.start) * place // 41)
    return draw(st.lists(st.tuples(keys, instants, decimals(whole_digits=3, fraction_digits=3)), max_size=8))


def behind(used: Sequence[Used], asked: Period) -> list[Behind]:
    """The usage as charges take it."""

    def until(key: Key, instant: datetime) -> Decimal:
        return sum((quantity for whose, when, quantity in used if whose == key and when < instant), Decimal(0))

    return [
        Behind(key, until(key, MARCH.end), until(key, asked.start), until(key, asked.end))
        for key in dict.fromkeys(key for key, _, _ in used)
    ]


def line(amount: Money, kind: LineKind = LineKind.USAGE, meter: str | None = "meter") -> Line:
    """A line of March."""
    return Line(
        origin=Origin(plan="team", plan_version=1, price="price", meter=meter),
        kind=kind,
        step="units",
        period=MARCH,
        due_at=MARCH.end,
        exact_amount=amount.amount,
        amount=amount,
    )


def charged(lines: Sequence[Line], used: Sequence[Used], asked: Period) -> dict[Key, Fraction]:
    """What falls into a period, by key."""
    sums: dict[Key, Fraction] = {}
    for charge in charges_within(lines, {("meter", MARCH): behind(used, asked)}, NOBODY, asked):
        assert charge.amount.amount != 0
        sums[charge.key] = sums.get(charge.key, Fraction(0)) + Fraction(charge.amount.amount)
    return {key: amount for key, amount in sums.items() if amount}


def eur(amount: str) -> Money:
    """An amount in EUR."""
    return rounded(Decimal(amount), EUR)


def test_charges_by_hand() -> None:
    """1.00 for three calls of Ann on three days: 0.33, then 0.34, then 0.33; nothing falls between them or behind them."""
    used: list[Used] = [(("ann", None), at(f"2026-03-{day}"), Decimal(1)) for day in ("05", "10", "15")]
    bounds = [at(f"2026-{day}") for day in ("03-01", "03-05", "03-06", "03-10", "03-11", "03-15", "03-16", "04-01")]
    found = [charged([line(eur("1"))], used, Period(*pair)) for pair in pairwise(bounds)]

    cents = [int(sum(each.values()) * 100) for each in found]
    assert [0, 33, 0, 34, 0, 33, 0] == cents
    assert {("ann", None)} == {key for each in found for key in each}


def test_usage_that_is_given_back_takes_its_amount_back() -> None:
    """What was used in one week and given back in another was owed in the first, and is given back in the second."""
    used: list[Used] = [
        (("ann", None), at("2026-03-02"), Decimal(5)),
        (("bob", None), at("2026-03-03"), Decimal(10)),
        (("ann", None), at("2026-03-20"), Decimal(-5)),
    ]
    lines = [line(eur("10"))]

    assert {("ann", None): 5, ("bob", None): 10} == charged(lines, used, period("2026-03-01", "2026-03-10"))
    assert {("ann", None): -5} == charged(lines, used, period("2026-03-10", "2026-04-01"))
    assert {("bob", None): 10} == charged(lines, used, MARCH)


def test_a_discount_on_the_plan_grows_with_what_it_is_taken_from() -> None:
    """Half of 10.00 for usage and of 20.00 for time is taken off where these arise: by key, and by day."""
    used: list[Used] = [(("ann", None), at("2026-03-02"), Decimal(1)), (("ann", None), at("2026-03-20"), Decimal(3))]
    discount = msgspec.structs.replace(
        line(eur("-15"), LineKind.DISCOUNT, None), origin=Origin(plan="team", plan_version=1)
    )
    lines = [line(eur("10")), line(eur("20"), LineKind.RECURRING, None), discount]
    half = period("2026-03-01", "2026-03-16T12:00")

    assert {("ann", None): Fraction("1.25"), NOBODY: 5} == charged(lines, used, half)
    assert {("ann", None): Fraction("3.75"), NOBODY: 5} == charged(
        lines, used, period("2026-03-16T12:00", "2026-04-01")
    )


def test_what_has_no_usage_behind_it_is_nobodys_and_spread_evenly() -> None:
    """Recurring amounts, minimums, and usage lines without usage are nobody's, a day's share on each day."""
    half = period("2026-03-01", "2026-03-16T12:00")
    used: list[Used] = [(("ann", None), at("2026-03-20"), Decimal(5))]
    assert {NOBODY: 5} == charged([line(eur("10"), LineKind.RECURRING, None)], used, half)
    assert {NOBODY: 5} == charged([line(eur("10"), LineKind.MINIMUM)], used, half)
    assert {NOBODY: 5} == charged([line(eur("10"))], [], half)
    assert {} == charged([line(eur("10"))], used, half)


def test_an_adjustment_stands_where_its_statement_begins() -> None:
    """An adjustment is in the period that has the first instant of the statement that carries it, in full."""
    lines = [line(eur("10"), LineKind.ADJUSTMENT)]
    used: list[Used] = [(("ann", None), at("2026-03-20"), Decimal(5))]

    assert {NOBODY: 10} == charged(lines, used, period("2026-03-01", "2026-03-01T00:00:00.000001"))
    assert {} == charged(lines, used, period("2026-03-01T00:00:00.000001", "2026-04-01"))
    assert {} == charged(lines, used, period("2026-02-01", "2026-03-01"))


@MANY
@given(usage(), decimals(whole_digits=6), currencies(), st.data())
def test_a_line_adds_up_however_time_is_cut(
    used: list[Used], amount: Decimal, currency: Currency, data: st.DataObject
) -> None:
    """By every key the amounts of periods side by side add up to its share of the line, which largest remainder tells; each
    amount is less than two minor units from the share of what was used in it; without usage there is none.
    """
    lines = [line(rounded(amount, currency))]
    parts = data.draw(cuts(MARCH))
    found = [charged(lines, used, part) for part in parts]

    sums: dict[Key, Fraction] = {}
    for key, share in (pair for each in found for pair in each.items()):
        sums[key] = sums.get(key, Fraction(0)) + share
    shares = attribute_lines(lines, {("meter", MARCH): [(key, quantity) for key, _, quantity in used]}, NOBODY)
    expected = {
        key: Fraction(share.amount) for key, share in grouped([(e.key, e.amount) for e in shares], [0, 1]).items()
    }
    assert expected == {key: share for key, share in sums.items() if share}

    whole = sum((Fraction(quantity) for _, _, quantity in used), Fraction(0))
    if whole:
        for part, each in zip(parts, found, strict=True):
            inside = [one for one in used if part.start <= one[1] < part.end]
            assert set(each) <= {key for key, _, _ in inside}
            for key in {key for key, _, _ in used}:
                own = sum((Fraction(quantity) for whose, _, quantity in inside if whose == key), Fraction(0))
                exact = Fraction(lines[0].amount.amount) * own / whole
                assert abs(each.get(key, Fraction(0)) - exact) < 2 * Fraction(currency.quantum)


@FEW
@given(usage(), currencies(), st.data())
def test_a_statement_adds_up_however_time_is_cut(used: list[Used], currency: Currency, data: st.DataObject) -> None:
    """Tiers, what is included, minimums, a flat price and a discount on all of it, by key and over time: all of the total."""
    prices = [
        PlanPrice(key="base", price=Flat(Decimal("10.01"))),
        PlanPrice(key="calls", meter="meter", price=PerUnit(Decimal("0.333")), included_quantity=Decimal(2)),
        PlanPrice(
            key="tiers",
            meter="meter",
            price=Graduated((Tier(Decimal(5), Decimal(1), Decimal(1)), Tier(None, Decimal("0.7")))),
            minimum_amount=Decimal(9),
        ),
    ]
    terms = plan(*prices, currency_code=currency.code, minimum_amount=Decimal(40))
    customer = subscription(PlanPhase(terms, MARCH.start), discount_percent=Decimal("7.5"))
    month = billing_period_at(customer, MARCH.start)
    assert month is not None
    quantity = sum((quantity for _, _, quantity in used), Decimal(0))
    statement = statement_of(customer, month, {("meter", MARCH): Figure(quantity, len(used))}, METERS)
    assert {("meter", MARCH), None} == {metered_by(each) for each in statement.lines}

    found = [charged(statement.lines, used, part) for part in data.draw(cuts(MARCH))]
    assert Fraction(statement.total.amount) == sum(sum(each.values()) for each in found)
    shares = attribute_lines(statement.lines, {("meter", MARCH): [(key, of) for key, _, of in used]}, NOBODY)
    expected = {key: Fraction(of.amount) for key, of in grouped([(e.key, e.amount) for e in shares], [0, 1]).items()}
    whole = charged(statement.lines, used, ALL_TIME)
    assert {key: of for key, of in expected.items() if of} == whole
    assert {} == charged(statement.lines, used, period("2026-04-01", "2026-05-01"))
