"""How much of an included quantity is used, held against what rating takes off."""

from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from metering.alerts.included import included_of
from rating.lines import LineKind
from rating.meters import Figure, Meter, MeterFilter
from rating.periods import Period, PeriodShare
from rating.plans import PlanPrice
from rating.prices import PerUnit
from rating.rate import usage_steps
from rating.steps import Rounding, RoundingMode
from rating.subscriptions import PlanPart
from tests.rating.tables import at, plan

PERIOD = Period(at("2026-03-01"), at("2026-03-11"))
QUANTITIES = st.decimals(min_value=0, max_value=10_000, places=6)
SHARES = st.tuples(st.integers(0, 30), st.integers(1, 31)).map(lambda pair: PeriodShare(min(pair), max(pair) + 1, 32))
ROUNDINGS = st.one_of(st.none(), st.builds(Rounding, st.sampled_from(RoundingMode), st.just(Decimal("0.5"))))


@given(
    quantity=QUANTITIES,
    included=st.decimals(min_value="0.01", max_value=10_000, places=2),
    share=SHARES,
    rounding=ROUNDINGS,
    level=st.booleans(),
    prorated=st.booleans(),
)
def test_what_is_used_of_an_included_quantity_is_what_rating_takes_off(
    quantity: Decimal, included: Decimal, share: PeriodShare, rounding: Rounding | None, *, level: bool, prorated: bool
) -> None:
    """For any part of a period, rounding, level or proration: the smaller of the two is the quantity of the line INCLUDED."""
    price = PlanPrice(
        key="calls", meter="calls", price=PerUnit(Decimal(1)), included_quantity=included, prorated=prorated
    )
    meter = Meter(key="calls", filter=MeterFilter(), rounding=rounding, is_level=level)
    figure = Figure(quantity, 1)
    part = PlanPart(plan(price), PERIOD, share)
    found = included_of([part], {PERIOD: figure}, meter)
    steps = usage_steps(price, figure, share, rounding, is_level=level)

    assert found is not None
    taken = [step.quantity for step in steps if step.kind is LineKind.INCLUDED]
    assert taken == ([] if found.used == 0 else [min(found.used, found.included)])


def test_of_several_prices_the_one_that_includes_the_least_counts() -> None:
    """That one is the first to be charged; a price of another meter, or one that includes nothing, is none of it."""
    prices = [
        PlanPrice(key=key, meter=meter, price=PerUnit(Decimal(1)), included_quantity=Decimal(included))
        for key, meter, included in (("a", "calls", 100), ("b", "calls", 20), ("c", "calls", 0), ("d", "other", 1))
    ]
    meter = Meter(key="calls", filter=MeterFilter())
    whole = PeriodShare(0, 1, 1)
    found = included_of([PlanPart(plan(*prices), PERIOD, whole)], {PERIOD: Figure(Decimal(7), 1)}, meter)

    assert found is not None
    assert (Decimal(7), Decimal(20)) == (found.used, found.included)
    assert included_of([PlanPart(plan(*prices[2:]), PERIOD, whole)], {}, meter) is None
