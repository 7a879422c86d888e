"""A difference is explained without remainder, and each cause has what it alone has changed."""

from datetime import datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any, Final

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rating.attribution import Key
from rating.billing_periods import BillingInterval
from rating.explain import Explanation
from rating.lines import Line, LineKind, Origin
from rating.money import Money
from rating.periods import Period
from rating.plans import Plan, PlanPrice
from rating.prices import Flat, Graduated, PerSeat, PerUnit, Price, Tier
from rating.stages import AsFrozen, Reference
from rating.subscriptions import PlanPhase, SeatChange, Subscription
from tests.rating.comparisons import NOBODY, Comparison, Used, parts_of_causes
from tests.rating.strategies import plan_prices
from tests.rating.tables import EUR, at, period, plan, subscription
from tests.strategies import FEW, SOME, decimals

YEAR: Final = at("2026-01-01")
# Of one length, so that the same usage in both is the same share of the month.
MARCH: Final = period("2026-03-01", "2026-04-01")
MAY: Final = period("2026-05-01", "2026-06-01")
APRIL: Final = period("2026-04-01", "2026-05-01")
MID_MARCH, BETWEEN, MID_MAY = at("2026-03-16"), at("2026-04-10"), at("2026-05-16")
KEYS: Final = st.tuples(st.sampled_from(["ann", "bob", None]), st.sampled_from(["phone", None]))
USAGE: Final = st.lists(
    st.tuples(KEYS, st.integers(0, 30 * 1440), decimals(whole_digits=5, fraction_digits=3)), max_size=6
)
ANN, BOB = ("ann", "web"), ("bob", "web")


def priced(price: Price | PlanPrice, base: str = "10", **values: Any) -> Plan:
    """A plan with a flat price, seats, and a price on usage."""
    own = price if isinstance(price, PlanPrice) else PlanPrice(key="usage", meter="meter", price=price)
    return plan(
        PlanPrice(key="base", price=Flat(Decimal(base))),
        PlanPrice(key="seats", price=PerSeat(Decimal(4))),
        own,
        **values,
    )


def within(usage: list[tuple[Key, int, Decimal]], month: Period) -> list[Used]:
    """Usage of a month, by minutes from its beginning."""
    return [(key, month.start + timedelta(minutes=minutes), quantity) for key, minutes, quantity in usage]


def total_of(explanation: Explanation) -> Fraction:
    """What all parts and the remainder come to."""
    parts = sum((Fraction(part.amount.amount) for part in explanation.parts), Fraction(0))
    return parts + Fraction(explanation.remainder.amount)


# ---------------------------------------------------------------- by hand


def test_explanation_by_hand() -> None:
    """More calls, a dearer version, another plan, a seat more, 7.5 % off all of it: each cause has its amount, for the user who
    caused it; of what is owed for calls the quantities are told.
    """
    march, newest = priced(PerUnit(Decimal(1))), priced(PerUnit(Decimal(2)), version=2, effective_from=at("2026-04-01"))
    april = priced(PerUnit(Decimal(3)), "30", key="scale")
    customer = subscription(
        PlanPhase(march, YEAR, at("2026-04-01")),
        PlanPhase(april, at("2026-04-01")),
        seats=(SeatChange(YEAR, 2), SeatChange(at("2026-04-01"), 3)),
        discount_percent=Decimal("7.5"),
    )
    used: list[Used] = [
        (ANN, at("2026-03-10"), Decimal(40)),
        (ANN, at("2026-04-10"), Decimal(60)),
        (BOB, at("2026-04-11"), Decimal(20)),
    ]
    comparison = Comparison(
        customer=customer,
        used=used,
        before=MARCH,
        after=APRIL,
        reference=Reference(march, Decimal("7.5"), 2),
        versions=[march, newest],
    )
    explanation = comparison.explained()

    # 40 calls at 1.00, 10.00 and two seats at 4.00, less 7.5 %: 58.00 * 0.925. Then 80 at 3.00, 30.00 and three seats.
    assert ["53.65 EUR", "260.85 EUR", "207.20 EUR", "0.00 EUR"] == [
        str(each) for each in (explanation.before, explanation.after, explanation.difference, explanation.remainder)
    ]
    # 60 calls cost 1.00 each more by the version, and again by the plan; 20 calls are more, and 20 are Bob's.
    assert [
        ("PRICE", "ann", "55.50", "40", "60"),
        ("PLAN", "ann", "55.50", "40", "60"),
        ("RECURRING", None, "22.20", "None", "None"),
        ("VOLUME", "ann", "18.50", "40", "60"),
        ("VOLUME", "bob", "18.50", "0", "20"),
        ("PRICE", "bob", "18.50", "0", "20"),
        ("PLAN", "bob", "18.50", "0", "20"),
    ] == [
        (
            part.cause.value,
            part.key[0],
            str(part.amount.amount),
            str(part.quantity_before),
            str(part.quantity_after),
        )
        for part in explanation.parts
    ]


def test_only_the_largest_parts_are_told() -> None:
    """With `top` parts asked for, all others are the remainder; of parts alike the first by cause and key is told."""
    terms = priced(PerUnit(Decimal(1)), "0")
    used: list[Used] = [((f"user-{n}", None), at("2026-05-02"), Decimal(n if n != 5 else 7)) for n in range(1, 9)]
    comparison = Comparison(
        customer=subscription(PlanPhase(terms, YEAR)),
        used=used,
        before=MARCH,
        after=MAY,
        reference=Reference(terms, Decimal(0), 0),
        top=2,
    )
    explanation = comparison.explained()

    assert ["user-8", "user-5"] == [part.key[0] for part in explanation.parts]
    assert "23.00 EUR" == str(explanation.remainder)
    assert 0 == len(msgspec.structs.replace(comparison, top=0).explained().parts)


# ---------------------------------------------------------------- adding up


PLANS: Final = st.sampled_from([("team", 1), ("team", 2), ("scale", 1)])


@st.composite
def lives(draw: st.DrawFn, code: str) -> tuple[Subscription, list[Plan]]:
    """A subscription that changes plans, versions and seats at any time, with a trial, an end, and a discount."""
    scale = draw(st.sampled_from([BillingInterval.MONTH, BillingInterval.WEEK, BillingInterval.QUARTER]))
    minimums = st.sampled_from([None, Decimal(30), Decimal("100.5")])
    offered = {
        ("team", 1): priced(draw(plan_prices()), currency_code=code, minimum_amount=draw(minimums)),
        ("team", 2): priced(
            draw(plan_prices()),
            "12.5",
            version=2,
            currency_code=code,
            effective_from=draw(st.sampled_from([YEAR, BETWEEN])),
        ),
        ("scale", 1): priced(
            draw(plan_prices()), key="scale", currency_code=code, interval=scale, minimum_amount=draw(minimums)
        ),
    }
    days = st.integers(1, 200).map(lambda day: YEAR + timedelta(days=day, hours=day % 24))
    changes = [YEAR, *sorted(draw(st.lists(days, max_size=3, unique=True)))]
    phases = tuple(
        PlanPhase(offered[draw(PLANS)], start, end) for start, end in zip(changes, [*changes[1:], None], strict=True)
    )
    customer = subscription(
        *phases,
        seats=tuple(SeatChange(at, draw(st.integers(0, 4))) for at in sorted(draw(st.lists(days, max_size=2)))),
        discount_percent=draw(st.sampled_from([Decimal(0), Decimal("7.5")])),
        trial_ends_at=draw(st.one_of(st.none(), days)),
        ends_at=draw(st.one_of(st.none(), days)),
    )
    return customer, [offered["team", 1], offered["team", 2], offered["scale", 1]]


@st.composite
def asked(draw: st.DrawFn) -> Period:
    """Any period of the year, or a month."""
    anywhere = st.tuples(st.integers(0, 250), st.integers(1, 90)).map(
        lambda days: Period(
            YEAR + timedelta(days=days[0], seconds=days[1]), YEAR + timedelta(days=sum(days), microseconds=1)
        )
    )
    return draw(st.one_of(st.sampled_from([MARCH, APRIL, MAY]), anywhere))


@pytest.mark.parametrize("code", ["JPY", "EUR", "KWD"])
def test_explanations_add_up(code: str) -> None:
    """Before + the parts + the remainder = after, to the minor unit, for any life of a subscription and any two periods, by any
    keys and with any reference; both are what the charges of the periods come to.
    """

    @SOME
    @given(
        lives(code),
        st.lists(st.tuples(KEYS, st.integers(0, 240 * 1440), decimals(whole_digits=5, fraction_digits=3)), max_size=9),
        asked(),
        asked(),
        st.sampled_from([(), (0,), (1,), (0, 1)]),
        st.integers(0, 5),
        st.integers(0, 2),
        st.integers(0, 4),
    )
    def adds_up(
        life: tuple[Subscription, list[Plan]],
        usage: list[tuple[Key, int, Decimal]],
        before: Period,
        after: Period,
        by: tuple[int, ...],
        top: int,
        chosen: int,
        seats: int,
    ) -> None:
        customer, offered = life
        reference = offered[chosen]
        comparison = Comparison(
            customer=customer,
            used=within(usage, Period(YEAR, MAY.end)),
            before=before,
            after=after,
            reference=Reference(reference, Decimal(5), seats),
            versions=[each for each in offered if each.key == reference.key],
            by=by,
            top=top,
        )
        explanation = comparison.explained()

        assert [comparison.owed(before), comparison.owed(after)] == [
            Fraction(explanation.before.amount),
            Fraction(explanation.after.amount),
        ]
        assert Fraction(explanation.before.amount) + total_of(explanation) == Fraction(explanation.after.amount)
        assert Fraction(explanation.difference.amount) == total_of(explanation)
        assert len(explanation.parts) <= top
        largest = [abs(part.amount.amount) for part in explanation.parts]
        assert sorted(largest, reverse=True) == largest
        whole = msgspec.structs.replace(comparison, top=1_000).explained()
        assert whole.parts[:top] == explanation.parts
        assert 0 == whole.remainder.amount

    adds_up()


# ---------------------------------------------------------------- each cause alone


def causes(
    *phases: PlanPhase,
    usage: list[tuple[Key, int, Decimal]],
    then: list[tuple[Key, int, Decimal]] | None = None,
    seats: tuple[SeatChange, ...] = (SeatChange(YEAR, 2),),
    versions: list[Plan] | None = None,
    **fields: Any,
) -> dict[str, Fraction]:
    """What the causes of the difference between March and May come to; usage is the same, where no other is given."""
    frozen = fields.pop("frozen", {})
    customer = subscription(*phases, seats=seats, **fields)
    on = [each for each in phases if each.start < MARCH.end][-1]
    discount = frozen[MARCH].discount_percent if MARCH in frozen else customer.discount_percent
    held = [each.seats for each in customer.seats if each.since < MARCH.end][-1]
    comparison = Comparison(
        customer=customer,
        used=[*within(usage, MARCH), *within(usage if then is None else then, MAY)],
        before=MARCH,
        after=MAY,
        reference=Reference(on.plan, discount, held),
        versions=versions or [on.plan],
        frozen=frozen,
    )
    explanation = comparison.explained()
    assert Fraction(explanation.difference.amount) == total_of(explanation)
    return parts_of_causes(explanation)


LEAST: Final = st.sampled_from([None, Decimal(40), Decimal(100_000)])
DISCOUNTS: Final = st.sampled_from([Decimal(0), Decimal("7.5")])


@FEW
@given(plan_prices(), USAGE, LEAST, DISCOUNTS)
def test_where_nothing_changes_there_are_no_parts(
    price: PlanPrice, usage: list[tuple[Key, int, Decimal]], least: Decimal | None, discount: Decimal
) -> None:
    """The same usage at the same terms in months of one length comes to the same, for everybody."""
    terms = priced(price, minimum_amount=least)

    assert {} == causes(PlanPhase(terms, YEAR), usage=usage, discount_percent=discount)


@FEW
@given(plan_prices(), USAGE, USAGE, LEAST)
def test_other_usage_is_volume(
    price: PlanPrice,
    usage: list[tuple[Key, int, Decimal]],
    then: list[tuple[Key, int, Decimal]],
    least: Decimal | None,
) -> None:
    """Where only usage changes, VOLUME alone has parts."""
    terms = priced(price, minimum_amount=least)

    assert causes(PlanPhase(terms, YEAR), usage=usage, then=then).keys() <= {"VOLUME"}


@FEW
@given(plan_prices(), USAGE, USAGE)
def test_a_discount_moves_at_most_a_minor_unit_of_what_is_owed_for_time(
    price: PlanPrice, usage: list[tuple[Key, int, Decimal]], then: list[tuple[Key, int, Decimal]]
) -> None:
    """A discount on all of a statement is rounded once: with other usage its share of each recurring line may be another by a
    minor unit, and by no more.
    """
    found = causes(PlanPhase(priced(price), YEAR), usage=usage, then=then, discount_percent=Decimal("7.5"))

    assert found.keys() <= {"VOLUME", "RECURRING"}
    assert abs(found.get("RECURRING", Fraction(0))) <= 4 * Fraction(EUR.quantum)


@FEW
@given(plan_prices(), plan_prices(), USAGE, LEAST, st.sampled_from([MID_MARCH, BETWEEN, MID_MAY]), DISCOUNTS)
def test_another_version_is_price(
    price: PlanPrice,
    other: PlanPrice,
    usage: list[tuple[Key, int, Decimal]],
    least: Decimal | None,
    since: Any,
    discount: Decimal,
) -> None:
    """Where only the version of the plan changes, inside one of the periods or between them, PRICE alone has parts."""
    old, new = priced(price, minimum_amount=least), priced(other, version=2, minimum_amount=least)
    phases = PlanPhase(old, YEAR, since), PlanPhase(new, since)
    found = causes(*phases, usage=usage, discount_percent=discount, versions=[old, new])

    # Two parts of a month share what is owed for time, and its discount, in whole minor units each.
    assert found.keys() <= {"PRICE", "RECURRING"}
    assert abs(found.get("RECURRING", Fraction(0))) <= (4 * Fraction(EUR.quantum) if discount else 0)


@FEW
@given(plan_prices(), plan_prices(), USAGE, LEAST, st.sampled_from([MID_MARCH, BETWEEN, MID_MAY]))
def test_another_plan_is_plan(
    price: PlanPrice, other: PlanPrice, usage: list[tuple[Key, int, Decimal]], least: Decimal | None, since: Any
) -> None:
    """Where only the plan changes, and what it says of usage, PLAN alone has parts; in mid-period what is owed for time may be
    a minor unit more or less, for it is rounded for each plan.
    """
    old, new = priced(price, minimum_amount=least), priced(other, key="scale", minimum_amount=least)
    found = causes(PlanPhase(old, YEAR, since), PlanPhase(new, since), usage=usage)

    assert found.keys() <= {"PLAN", "RECURRING"}
    assert abs(found.get("RECURRING", Fraction(0))) <= (0 if since == BETWEEN else 2 * Fraction(EUR.quantum))


@FEW
@given(plan_prices(), USAGE, LEAST, st.sampled_from([MID_MARCH, BETWEEN, MID_MAY]), DISCOUNTS)
def test_other_seats_are_recurring(
    price: PlanPrice, usage: list[tuple[Key, int, Decimal]], least: Decimal | None, since: Any, discount: Decimal
) -> None:
    """Where only seats change, RECURRING alone has parts, also where a minimum of the plan, or the rounding of a discount,
    makes up for a part of them.
    """
    terms = priced(price, minimum_amount=least)
    seats = (SeatChange(YEAR, 1), SeatChange(since, 5))

    found = causes(PlanPhase(terms, YEAR), usage=usage, seats=seats, discount_percent=discount)

    assert found.keys() <= {"RECURRING"}
    assert found or least is not None


@FEW
@given(plan_prices(), USAGE, LEAST)
def test_the_end_of_a_trial_is_a_price(
    price: PlanPrice, usage: list[tuple[Key, int, Decimal]], least: Decimal | None
) -> None:
    """What was free in a trial and is not any more is PRICE, and RECURRING; there is no VOLUME where there is as much usage."""
    terms = priced(price, minimum_amount=least)
    for trial_ends_at in (MARCH.end, MID_MARCH, MID_MAY):
        found = causes(PlanPhase(terms, YEAR), usage=usage, trial_ends_at=trial_ends_at)
        assert found.keys() <= {"PRICE", "RECURRING"}


@FEW
@given(plan_prices(), USAGE, LEAST, st.sampled_from([Decimal(0), Decimal("33.3")]))
def test_another_discount_is_a_price(
    price: PlanPrice, usage: list[tuple[Key, int, Decimal]], least: Decimal | None, discount: Decimal
) -> None:
    """What was frozen with another discount on the subscription differs by PRICE, and of what is owed for time by RECURRING."""
    terms = priced(price, minimum_amount=least)
    frozen = {MARCH: AsFrozen(discount, None)}
    found = causes(PlanPhase(terms, YEAR), usage=usage, discount_percent=Decimal("7.5"), frozen=frozen)

    assert found.keys() <= {"PRICE", "RECURRING"}


@FEW
@given(plan_prices(), USAGE, LEAST, st.sampled_from([BETWEEN, None]))
def test_a_subscription_that_begins_or_ends_is_volume(
    price: PlanPrice, usage: list[tuple[Key, int, Decimal]], least: Decimal | None, begins: datetime | None
) -> None:
    """All usage of a subscription that was not there before, or is not there any more, is VOLUME; the rest is RECURRING."""
    terms = priced(price, minimum_amount=least)
    customer = subscription(
        PlanPhase(terms, begins or YEAR), seats=(SeatChange(YEAR, 2),), ends_at=None if begins else BETWEEN
    )
    comparison = Comparison(
        customer=customer,
        used=[*within(usage, MARCH), *within(usage, MAY)],
        before=MARCH,
        after=MAY,
        reference=Reference(terms, Decimal(0), 2),
        versions=[terms],
    )
    explanation = comparison.explained()

    assert 0 == (explanation.before if begins else explanation.after).amount
    assert parts_of_causes(explanation).keys() <= {"VOLUME", "RECURRING"}
    assert parts_of_causes(explanation)["RECURRING"] == (18 if begins else -18)


def test_adjustments_are_a_cause_of_their_own() -> None:
    """What was carried over from another period is ADJUSTMENT, and nobody's."""
    terms = priced(PerUnit(Decimal(1)))
    made_up = Line(
        origin=Origin(plan="team", plan_version=1, price="usage", meter="meter"),
        kind=LineKind.ADJUSTMENT,
        step="adjustment",
        period=MAY,
        due_at=MAY.end,
        exact_amount=Decimal(-3),
        amount=Money(Decimal("-3.00"), EUR),
    )
    comparison = Comparison(
        customer=subscription(PlanPhase(terms, YEAR)),
        used=within([(ANN, 60, Decimal(4))], MARCH) + within([(ANN, 60, Decimal(4))], MAY),
        before=MARCH,
        after=MAY,
        reference=Reference(terms, Decimal(0), 0),
        beside=[made_up],
    )
    explanation = comparison.explained()

    assert [("ADJUSTMENT", NOBODY, "-3.00 EUR")] == [
        (part.cause.value, part.key, str(part.amount)) for part in explanation.parts
    ]
    assert "11.00 EUR" == str(explanation.after)


# ---------------------------------------------------------------- quantities


def test_quantities_are_told_of_one_meter_that_adds_up() -> None:
    """Where two meters are behind a key, or one whose figures do not add up, no quantity is told."""
    both = plan(
        PlanPrice(key="one", meter="meter", price=PerUnit(Decimal(1))),
        PlanPrice(key="two", meter="other", price=Graduated((Tier(None, Decimal(2)),))),
    )
    for terms, expected in (
        (both, None),
        (plan(PlanPrice(key="one", meter="other", price=PerUnit(Decimal(1)))), None),
        (
            plan(both.prices[0], PlanPrice(key="again", meter="meter", price=PerUnit(Decimal(3)))),
            (Decimal(2), Decimal(5)),
        ),
    ):
        comparison = Comparison(
            customer=subscription(PlanPhase(terms, YEAR)),
            used=within([(ANN, 0, Decimal(2))], MARCH) + within([(ANN, 0, Decimal(5))], MAY),
            before=MARCH,
            after=MAY,
            reference=Reference(terms, Decimal(0), 0),
        )
        (part,) = comparison.explained().parts
        told = None if part.meter is None else (part.quantity_before, part.quantity_after)
        assert expected == told
