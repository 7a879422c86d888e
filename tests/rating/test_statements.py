"""A statement's lines are what they say they are, add up to its total, and keep their names when it is rated again."""

from collections.abc import Sequence
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rating.lines import Line, description
from rating.meters import Figure, Meter
from rating.money import Currency
from rating.periods import Period
from rating.plans import Plan, PlanPrice, PriceTiming
from rating.prices import Flat, Graduated, Package, PerSeat, PerUnit, Tier
from rating.statements import Statement, figures_needed, statement_of
from rating.steps import Rounding, RoundingMode
from rating.subscriptions import PlanPhase, SeatChange, Subscription, billing_period_at, parts_of
from tests.rating.strategies import currencies, cuts, numbers, plan_prices, quantities
from tests.rating.tables import MARCH, at, period, plan, subscription
from tests.strategies import FEW, MANY

METERS = {"calls": Meter(key="calls"), "meter": Meter(key="meter")}
BASE = PlanPrice(key="base", price=Flat(Decimal("31.00")))
SEATS = PlanPrice(key="seats", price=PerSeat(Decimal("6.20")))
CALLS = PlanPrice(key="calls", meter="calls", price=PerUnit(Decimal("0.02")), included_quantity=Decimal(1000))


def march(customer: Subscription, calls: Sequence[str] = (), meters: dict[str, Meter] | None = None) -> Statement:
    """The statement of March 2026, with so many calls in each part of it."""
    month = billing_period_at(customer, at("2026-03-31"))
    assert month is not None
    parts = parts_of(customer, month)
    figures = {("calls", part.period): Figure(Decimal(count)) for part, count in zip(parts, calls, strict=False)}
    return statement_of(customer, month, figures, METERS if meters is None else meters)


def shown(lines: Sequence[Line]) -> list[str]:
    """Lines as a reader sees them: kind, words, amount."""
    return [f"{line.kind.value} {description(line)} = {line.amount.amount}" for line in lines]


def on(*prices: PlanPrice, **values: object) -> Subscription:
    """A subscription on one plan, from March on."""
    return subscription(PlanPhase(plan(*prices, **values), at("2026-03-01")))


def test_statement_of_a_month() -> None:
    """A month with a flat price, seats and calls, as a reader sees it."""
    customer = subscription(
        PlanPhase(plan(BASE, SEATS, CALLS), at("2026-03-01")),
        seats=(SeatChange(at("2026-02-01"), 5), SeatChange(at("2026-03-11"), 7)),
    )
    statement = march(customer, ["1500"])

    assert shown(statement.lines) == [
        "RECURRING base: flat = 31.00",
        "RECURRING seats: 5 at 6.2, 2026-03-01T00:00:00Z to 2026-03-11T00:00:00Z = 10.00",
        "RECURRING seats: 7 at 6.2, 2026-03-11T00:00:00Z to 2026-04-01T00:00:00Z = 29.40",
        "INCLUDED calls: 1000 included = 0.00",
        "USAGE calls: 500 at 0.02 = 10.00",
    ]
    assert "80.40 EUR" == str(statement.total)
    assert [line.key for line in statement.lines] == [
        "team@1/base/flat/2026-03-01T00:00:00Z",
        "team@1/seats/seats/2026-03-01T00:00:00Z",
        "team@1/seats/seats/2026-03-11T00:00:00Z",
        "team@1/calls/included/2026-03-01T00:00:00Z",
        "team@1/calls/units/2026-03-01T00:00:00Z",
    ]


def test_change_of_plan_in_mid_period() -> None:
    """Each plan is owed for its time, its included quantity too, and each part's calls are rated by its own plan."""
    scale = plan(
        PlanPrice(key="base", price=Flat(Decimal(62))),
        PlanPrice(key="calls", meter="calls", price=PerUnit(Decimal("0.01"))),
        key="scale",
    )
    customer = subscription(
        PlanPhase(plan(BASE, CALLS), at("2026-03-01"), at("2026-03-11")), PlanPhase(scale, at("2026-03-11"))
    )
    statement = march(customer, ["400", "2000"])

    assert shown(statement.lines) == [
        "RECURRING base: flat, 2026-03-01T00:00:00Z to 2026-03-11T00:00:00Z = 10.00",
        "INCLUDED calls: 322.580645161290322580 included = 0.00".replace("80 included", "8 included"),
        "USAGE calls: 77.41935483870967742 at 0.02 = 1.55",
        "RECURRING base: flat, 2026-03-11T00:00:00Z to 2026-04-01T00:00:00Z = 42.00",
        "USAGE calls: 2000 at 0.01 = 20.00",
    ]
    assert ["team", "scale"] == [each.key for each in statement.plans]


def test_price_that_a_new_version_leaves_as_it_is() -> None:
    """Parts of a flat price that stays the same add up to it, where each alone would have been rounded up."""
    ten = PlanPrice(key="base", price=Flat(Decimal("10.01")))
    halves = subscription(
        PlanPhase(plan(ten), at("2026-03-01"), at("2026-03-16T12:00")),
        PlanPhase(plan(ten, version=2), at("2026-03-16T12:00")),
    )

    assert ["5.01", "5.00"] == [str(line.amount.amount) for line in march(halves).lines]


def test_price_that_is_not_prorated() -> None:
    """Without proration a part of a period costs the whole amount, for the most seats, less the whole included quantity."""
    prices = [
        PlanPrice(key="base", price=Flat(Decimal(31)), prorated=False),
        PlanPrice(key="seats", price=PerSeat(Decimal(2)), included_quantity=Decimal(3), prorated=False),
        PlanPrice(
            key="calls",
            meter="calls",
            price=PerUnit(Decimal(1)),
            included_quantity=Decimal(10),
            minimum_amount=Decimal(20),
            prorated=False,
        ),
    ]
    customer = subscription(
        PlanPhase(plan(*prices), at("2026-03-16")),
        seats=(SeatChange(at("2026-03-16"), 8), SeatChange(at("2026-03-20"), 4)),
    )

    assert shown(march(customer, ["12"]).lines) == [
        "RECURRING base: flat = 31.00",
        "RECURRING seats: 5 at 2 = 10.00",
        "INCLUDED calls: 10 included = 0.00",
        "USAGE calls: 2 at 1 = 2.00",
        "MINIMUM calls: minimum = 18.00",
    ]


def test_maximum_is_never_prorated() -> None:
    """A cap is a cap: half a month has the whole of it, while the minimum is owed for half of it."""
    price = PlanPrice(
        key="calls",
        meter="calls",
        price=PerUnit(Decimal(1)),
        minimum_amount=Decimal(31),
        maximum_amount=Decimal(100),
    )
    customer = subscription(PlanPhase(plan(price), at("2026-03-22")))

    assert ["150.00", "-50.00"] == [str(line.amount.amount) for line in march(customer, ["150"]).lines]
    assert ["4.00", "6.00"] == [str(line.amount.amount) for line in march(customer, ["4"]).lines]


def test_discount_of_the_subscription_and_minimum_of_the_plan() -> None:
    """The discount is on what prices come to without their minimums; the plan's minimum is filled up after it."""
    calls = PlanPrice(key="calls", meter="calls", price=PerUnit(Decimal(1)), minimum_amount=Decimal(50))
    customer = subscription(
        PlanPhase(plan(BASE, calls, minimum_amount=Decimal(100)), at("2026-03-01")), discount_percent=Decimal(15)
    )

    assert shown(march(customer, ["9.90"]).lines) == [
        "RECURRING base: flat = 31.00",
        "USAGE calls: 9.9 at 1 = 9.90",
        "MINIMUM calls: minimum = 40.10",
        # 15 % of 40.90 are 6.135.
        "DISCOUNT plan team: discount = -6.14",
        "MINIMUM plan team: minimum = 25.14",
    ]
    assert "100.00 EUR" == str(march(customer, ["9.90"]).total)


def test_minimum_of_a_plan_is_owed_for_its_time() -> None:
    """Of a started month a plan's minimum is owed in part."""
    customer = subscription(PlanPhase(plan(minimum_amount=Decimal(310)), at("2026-03-22")))

    assert "100.00 EUR" == str(march(customer).total)


def test_meter_is_rounded_first() -> None:
    """The quantity is rounded before the included quantity is taken off."""
    meters = {"calls": Meter(key="calls", rounding=Rounding(RoundingMode.UP, Decimal(100)))}

    assert "2.00 EUR" == str(march(on(CALLS), ["1001"], meters).total)


def test_meter_without_figure_has_shown_nothing() -> None:
    """Where a meter has no figure, its prices are rated at zero usage: a first tier's flat price is owed."""
    tiered = Graduated((Tier(None, Decimal(1), Decimal(5)),))

    assert "5.00 EUR" == str(march(on(PlanPrice(key="calls", meter="calls", price=tiered))).total)


def test_amounts_are_due_by_their_timing() -> None:
    """What is owed in advance is due where its period begins, all else where it ends; both stand on the same statement."""
    lines = march(on(BASE, PlanPrice(key="early", price=Flat(Decimal(1)), timing=PriceTiming.IN_ADVANCE))).lines

    assert [at("2026-04-01"), at("2026-03-01")] == [line.due_at for line in lines]


def test_trial_costs_nothing() -> None:
    """In a trial nothing is owed, no minimum either; the total is zero in the plan's currency."""
    terms = plan(BASE, CALLS, minimum_amount=Decimal(100), currency_code="JPY")
    customer = subscription(PlanPhase(terms, at("2026-03-01")), trial_ends_at=at("2026-05-01"))
    statement = march(customer, ["5000"])

    assert () == statement.lines
    assert "0 JPY" == str(statement.total)


def test_figures_needed() -> None:
    """Which meters have to be read is said before: each once for each part, also where two prices are on it."""
    twice = PlanPrice(key="again", meter="calls", price=Package(Decimal(10), Decimal(1)))
    customer = subscription(
        PlanPhase(plan(BASE, CALLS, twice), at("2026-03-01"), at("2026-03-11")),
        PlanPhase(plan(CALLS, version=2), at("2026-03-11")),
    )
    month = billing_period_at(customer, at("2026-03-20"))
    assert month is not None

    assert figures_needed(parts_of(customer, month)) == (
        ("calls", period("2026-03-01", "2026-03-11")),
        ("calls", period("2026-03-11", "2026-04-01")),
    )


def test_keys_cannot_be_mistaken_for_one_another() -> None:
    """Plans and prices whose names hold the signs of a key have keys of their own still."""
    prices = [
        ("team@1/a", PlanPrice(key="b", price=Flat(Decimal(1)))),
        ("team", PlanPrice(key="a@1/b", price=Flat(Decimal(1)))),
        ("team", PlanPrice(key="a%401%2Fb", price=Flat(Decimal(1)))),
    ]
    keys = [line.key for key, price in prices for line in march(on(price, key=key)).lines]

    assert len(set(keys)) == len(prices)


@MANY
@given(st.data(), numbers(digits=12, fraction_digits=4), currencies())
def test_parts_of_an_unchanged_price_add_up(data: st.DataObject, amount: Decimal, currency: Currency) -> None:
    """However often a version changes in mid-period, a flat price that stays the same comes to the whole, to the unit."""
    price = PlanPrice(key="base", price=Flat(amount))
    parts = data.draw(cuts(MARCH))
    phases = [
        PlanPhase(plan(price, version=number, currency_code=currency.code), part.start, part.end)
        for number, part in enumerate(parts, 1)
    ]
    whole = subscription(PlanPhase(plan(price, currency_code=currency.code), MARCH.start, MARCH.end))

    assert march(whole).total == march(subscription(*phases)).total
    assert len(parts) == len(march(subscription(*phases)).lines)


def terms(draw: st.DrawFn, number: int) -> Plan:
    """Any plan: flat, seats, and prices on usage with everything."""
    usage = draw(st.lists(plan_prices(), max_size=2))
    named = [
        PlanPrice(
            key=f"usage-{index}",
            meter=each.meter,
            price=each.price,
            included_quantity=each.included_quantity,
            minimum_amount=each.minimum_amount,
            maximum_amount=each.maximum_amount,
            discount_percent=each.discount_percent,
            prorated=each.prorated,
        )
        for index, each in enumerate(usage)
    ]
    base = PlanPrice(key="base", price=Flat(draw(numbers())), discount_percent=Decimal(5), prorated=draw(st.booleans()))
    seats = PlanPrice(key="seats", price=PerSeat(draw(numbers())), included_quantity=Decimal(draw(st.integers(0, 3))))
    return plan(base, seats, *named, version=number, minimum_amount=draw(st.sampled_from([None, draw(numbers())])))


@st.composite
def statements(draw: st.DrawFn) -> Statement:
    """Statements of March with changes of version and of seats, a discount, and any usage."""
    parts = draw(cuts(MARCH, 3))
    changes = [SeatChange(part.start, draw(st.integers(0, 50))) for part in draw(cuts(MARCH, 4))]
    customer = subscription(
        *[PlanPhase(terms(draw, number), part.start, part.end) for number, part in enumerate(parts, 1)],
        seats=tuple(changes),
        discount_percent=draw(st.sampled_from([Decimal(0), Decimal("12.5")])),
    )
    month = billing_period_at(customer, MARCH.start)
    assert month is not None
    figures: dict[tuple[str, Period], Figure] = {
        ("meter", part): Figure(draw(quantities()), draw(st.integers(0, 9))) for part in parts
    }
    return statement_of(customer, month, figures, METERS)


@FEW
@given(statements())
def test_what_holds_of_every_statement(statement: Statement) -> None:
    """Lines add up to the total, have names of their own, are whole minor units, and say how they came about."""
    assert sum(Fraction(line.amount.amount) for line in statement.lines) == Fraction(statement.total.amount)
    assert len({line.key for line in statement.lines}) == len(statement.lines)
    for line in statement.lines:
        assert abs(Fraction(line.amount.amount) - Fraction(line.exact_amount)) < Fraction(1, 100)
        if line.unit_price is not None and line.quantity is not None:
            whole = Fraction(line.quantity) * Fraction(line.unit_price)
            share = Fraction(line.share.end - line.share.start, line.share.whole)
            assert abs(Fraction(line.exact_amount) - whole * share) < Fraction(1, 10**39)


def test_currencies_of_one_period_are_one() -> None:
    """Two currencies in one period are a mistake that phase_faults() tells of before; nothing is ever added up wrongly."""
    customer = subscription(
        PlanPhase(plan(BASE), at("2026-03-01"), at("2026-03-11")),
        PlanPhase(plan(BASE, currency_code="USD"), at("2026-03-11")),
    )

    with pytest.raises(AssertionError, match="one currency"):
        march(customer)
