"""Commitments: what counts towards minimums, what is missing at the pace of so far; by hand, and against whole periods."""

from datetime import timedelta
from decimal import Decimal
from typing import Final

from hypothesis import given
from hypothesis import strategies as st

from rating.commitments import Commitment, at_pace, is_committed, passed, running_part, unmet
from rating.meters import Figure, Meter
from rating.plans import Plan, PlanPrice
from rating.prices import Flat, PerUnit
from rating.statements import Figures, statement_of
from rating.subscriptions import PlanPhase, Subscription
from tests.rating.tables import MARCH, at, owed, period, plan, subscription

METERS: Final = {"calls": Meter(key="calls"), "most": Meter(key="most")}
BASE: Final = PlanPrice(key="base", price=Flat(Decimal(10)))
# At least 40 of calls, at least 100 of all.
CALLS: Final = PlanPrice(key="calls", meter="calls", price=PerUnit(Decimal("0.5")), minimum_amount=Decimal(40))
MOST: Final = PlanPrice(key="most", meter="most", price=PerUnit(Decimal(1)))
COMMITTED: Final = plan(BASE, CALLS, MOST, minimum_amount=Decimal(100))


def short_of(customer: Subscription, instant: str, calls: str, most: str = "0") -> tuple[Commitment, ...]:
    """What a subscription will be short of, by so many calls and such a maximum until an instant; calls add up."""
    running = running_part(customer, at(instant))
    assert running is not None
    billing, part = running
    so_far = {("calls", part.period): Figure(Decimal(calls)), ("most", part.period): Figure(Decimal(most))}
    now, expected = (
        statement_of(customer, billing, figures, METERS)
        for figures in (so_far, at_pace(so_far, part.period, at(instant), {"calls"}))
    )
    return unmet(now, expected, part)


def shown(found: tuple[Commitment, ...]) -> list[tuple[str | None, str, str, str, str]]:
    """Of each its price, and what is used, expected, short and committed."""
    return [
        (each.price, *(f"{money.amount}" for money in (each.used, each.expected, each.short, each.committed)))
        for each in found
    ]


def test_minimums_that_will_not_be_reached() -> None:
    """By 11 March, after 10 of 31 days, 20 calls are 10 EUR: at this pace 62 will be 31 EUR, 9 short of 40. A maximum of 7 stays
    7, so that all comes to 10 + 40 + 7, and is 43 short of 100. At 26 calls the minimum of calls will be met, at 58 both will.
    """
    customer = subscription(PlanPhase(COMMITTED, at("2026-01-01")))

    assert shown(short_of(customer, "2026-03-11", "20", "7")) == [
        ("calls", "10.00", "31.00", "9.00", "40.00"),
        (None, "57.00", "57.00", "43.00", "100.00"),
    ]
    assert shown(short_of(customer, "2026-03-11", "26", "7")) == [(None, "57.00", "57.30", "42.70", "100.00")]
    assert [] == shown(short_of(customer, "2026-03-11", "58", "7"))


def test_a_part_has_its_own_share_and_pace() -> None:
    """Of 15 of 31 days a minimum of 62 is 30; by 22 March, after 5 of these, 10 calls are 5 EUR, and will be 15. What another
    plan before it was short of is not told any more.
    """
    lean = plan(
        PlanPrice(key="calls", meter="calls", price=PerUnit(Decimal("0.5"))), minimum_amount=Decimal(62), key="lean"
    )
    customer = subscription(PlanPhase(COMMITTED, at("2026-01-01"), at("2026-03-17")), PlanPhase(lean, at("2026-03-17")))

    assert shown(short_of(customer, "2026-03-22", "10")) == [(None, "5.00", "15.00", "15.00", "30.00")]
    assert Decimal("0.333333") == passed(period("2026-03-17", "2026-04-01"), at("2026-03-22"))


def test_what_there_is_to_be_short_of() -> None:
    """Minimums are a plan's or a price's; nothing is charged in a trial, before the start, and after the end."""
    customer = subscription(
        PlanPhase(COMMITTED, at("2026-01-01")), trial_ends_at=at("2026-03-05"), ends_at=at("2026-03-20")
    )

    assert [True, True, False] == [is_committed(each) for each in (plan(CALLS), _with_minimum(), plan(BASE, MOST))]
    for instant in ("2025-12-31", "2026-03-04T23:59:59", "2026-03-20"):
        assert running_part(customer, at(instant)) is None, instant
    running = running_part(customer, at("2026-03-05"))
    assert running is not None
    assert period("2026-03-05", "2026-03-20") == running[1].period


def _with_minimum() -> Plan:
    return plan(BASE, minimum_amount=Decimal(1))


@given(st.integers(1, 31 * 24), st.integers(0, 2_000))
def test_at_a_steady_pace_the_end_is_foretold(hours: int, calls: int) -> None:
    """Who uses as much each hour is told, at any hour, what the statement of the whole month will say."""
    customer = subscription(PlanPhase(COMMITTED, at("2026-01-01")))
    running = running_part(customer, MARCH.start)
    assert running is not None
    billing, part = running

    def figures(count: int) -> Figures:
        return {("calls", MARCH): Figure(Decimal(count), count)}

    instant = MARCH.start + timedelta(hours=hours)
    foretold = at_pace(figures(calls * hours), MARCH, instant, {"calls"})
    whole = statement_of(customer, billing, figures(calls * 31 * 24), METERS)

    assert figures(calls * 31 * 24) == foretold
    missing = unmet(whole, statement_of(customer, billing, foretold, METERS), part)
    assert all(each.used == each.expected for each in missing)
    used = owed(tuple(line for line in whole.lines if line.kind.value != "MINIMUM"))
    assert max(Decimal(100) - used, Decimal(0)) == sum(each.short.amount for each in missing)
