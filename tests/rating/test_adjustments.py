"""A frozen period that would be another one today is made up for by adjustments, to the cent and once only."""

from decimal import Decimal
from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from rating.adjustments import adjustment_lines
from rating.lines import Line, LineKind
from rating.meters import Figure, Meter
from rating.plans import PlanPrice
from rating.prices import Flat, Graduated, PerUnit, Tier
from rating.statements import statement_of
from rating.subscriptions import PlanPhase, billing_period_at
from tests.rating.tables import EUR, MARCH, at, period, plan, subscription
from tests.strategies import MANY

APRIL = period("2026-04-01", "2026-05-01")
MAY = period("2026-05-01", "2026-06-01")
TERMS = plan(
    PlanPrice(key="base", price=Flat(Decimal(10))),
    PlanPrice(key="calls", meter="calls", price=PerUnit(Decimal("0.333"))),
    PlanPrice(
        key="tiers", meter="calls", price=Graduated((Tier(Decimal(5), Decimal(1), Decimal(1)), Tier(None, Decimal(2))))
    ),
    minimum_amount=Decimal(20),
)


def march(calls: int) -> tuple[Line, ...]:
    """The lines of March with so many calls."""
    customer = subscription(PlanPhase(TERMS, at("2026-03-01")))
    month = billing_period_at(customer, MARCH.start)
    assert month is not None
    return statement_of(
        customer, month, {("calls", MARCH): Figure(Decimal(calls))}, {"calls": Meter(key="calls")}
    ).lines


def adjust(frozen: int, *, now: int, adjusted: tuple[Line, ...] = ()) -> tuple[Line, ...]:
    """What April carries of a March that was frozen with some calls and has others now."""
    return adjustment_lines(march(frozen), adjusted, march(now), of=MARCH, carried_by=APRIL, currency=EUR)


def test_late_usage_becomes_a_line_for_each_price() -> None:
    """Late calls change two prices and what fills up the plan's minimum; the flat price is as it was."""
    lines = adjust(3, now=7)

    assert [(line.origin.price, str(line.amount.amount), line.key) for line in lines] == [
        ("calls", "1.33", "team@1/calls/adjustment-of-2026-03-01T00:00:00Z/2026-04-01T00:00:00Z"),
        ("tiers", "6.00", "team@1/tiers/adjustment-of-2026-03-01T00:00:00Z/2026-04-01T00:00:00Z"),
        (None, "-5.00", "team@1//adjustment-of-2026-03-01T00:00:00Z/2026-04-01T00:00:00Z"),
    ]
    assert all(line.kind is LineKind.ADJUSTMENT and line.period == APRIL for line in lines)


def test_what_was_adjusted_is_not_adjusted_again() -> None:
    """With the adjustments that April carries, May has nothing to carry; usage that goes away again is given back."""
    once = adjust(3, now=7)

    assert () == adjust(3, now=7, adjusted=once)
    assert [-line.amount.amount for line in once] == [line.amount.amount for line in adjust(3, now=3, adjusted=once)]


@MANY
@given(st.lists(st.integers(0, 60), min_size=2, max_size=6))
def test_adjustments_make_up_for_every_change(calls: list[int]) -> None:
    """However often a frozen period changes, frozen and adjusted together are what the period would be today."""
    adjusted: tuple[Line, ...] = ()
    for now in calls[1:]:
        adjusted += adjustment_lines(march(calls[0]), adjusted, march(now), of=MARCH, carried_by=MAY, currency=EUR)

        assert sum(Fraction(line.amount.amount) for line in march(calls[0]) + adjusted) == sum(
            Fraction(line.amount.amount) for line in march(now)
        )
