"""Putting a subscription on another plan, and telling light users from heavy ones; what is rated is compared elsewhere."""

from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rating.billing_periods import BillingInterval
from rating.simulations import Weight, compared, put_on, side_of, weights
from rating.subscriptions import PlanPhase
from tests.rating.tables import EUR, at, period, plan, subscription
from tests.strategies import MANY

TEAM = plan()
YEARLY = plan(key="yearly", interval=BillingInterval.YEAR, effective_from=at("2030-01-01"))


def test_a_subscription_is_put_on_a_plan_for_all_of_its_time() -> None:
    """It is on the plan from its start to its end, also where it had no plan, and before the plan takes effect."""
    customer = subscription(PlanPhase(TEAM, at("2026-02-01")), ends_at=at("2026-06-01"))
    found = put_on(customer, YEARLY)

    assert (PlanPhase(YEARLY, customer.starts_at, at("2026-06-01")),) == found.phases
    assert (customer.seats, customer.zone, customer.anchor) == (found.seats, found.zone, found.anchor)


def test_periods_of_a_side_touch_what_is_asked() -> None:
    """A side has the billing periods that have an instant in common with the asked period, and have begun."""
    customer = subscription(PlanPhase(TEAM, at("2026-01-01")))
    asked = period("2026-02-10", "2026-04-10")

    def months(until: str) -> list[int]:
        return [each.served.start.month for each in side_of(customer, asked, at(until)).periods]

    assert [2, 3, 4] == months("2027-01-01")
    assert [2, 3] == months("2026-04-01")
    assert [2] == months("2026-02-02")
    assert [] == months("2026-02-01")


def test_what_would_be_owed_more() -> None:
    """Both sides are whole amounts of the currency, and the difference is what would be owed more."""
    found = compared([Decimal("1.5"), Decimal(2)], [], EUR)

    assert ("3.50 EUR", "0.00 EUR", "-3.50 EUR") == tuple(map(str, (found.current, found.simulated, found.difference)))


@pytest.mark.parametrize(
    ("usage", "heavy"),
    [
        ([[("a", "60"), ("b", "30"), ("c", "10")]], "a"),
        ([[("a", "40"), ("b", "35"), ("c", "25")]], "ab"),
        # Shares of each meter count alike, whatever its unit: a has 0.9 + 0.2, b has 0.1 + 0.8.
        ([[("a", "9"), ("b", "1")], [("a", "2000"), ("b", "8000")]], "a"),
        # Alike, or alone: nobody is above the average.
        ([[("a", "1"), ("b", "1"), ("c", "1")]], ""),
        ([[("a", "5")]], ""),
        # What was given back in full, and a meter that nobody used, weighs nothing.
        ([[("a", "5"), ("a", "-5"), ("b", "1")], [("a", "-3")], []], "b"),
        ([[("a", "0")]], ""),
        ([], ""),
    ],
)
def test_heavy_users(usage: list[list[tuple[str, str]]], heavy: str) -> None:
    """A user is heavy whose mean share of what is counted is larger than the average user's."""
    found = weights([[(user, Decimal(quantity)) for user, quantity in of_meter] for of_meter in usage])

    assert set(heavy) == {user for user, weight in found.items() if weight is Weight.HEAVY}
    assert {user for of_meter in usage for user, _ in of_meter} == set(found)


@MANY
@given(st.lists(st.lists(st.tuples(st.sampled_from("abcdef"), st.decimals(0, 100, places=2)), max_size=8), max_size=4))
def test_heavy_users_are_those_above_the_mean(usage: list[list[tuple[str, Decimal]]]) -> None:
    """Told with fractions, and in any order, it is the same users."""
    shares: dict[str, Fraction] = {}
    for of_meter in usage:
        whole = sum((Fraction(quantity) for _, quantity in of_meter), Fraction(0))
        for user, quantity in of_meter:
            shares[user] = shares.get(user, Fraction(0)) + (Fraction(quantity) / whole if whole else 0)
    mean = sum(shares.values(), Fraction(0)) / len(shares) if shares else Fraction(0)
    found = weights(usage)

    assert {user: Weight.HEAVY if share > mean else Weight.LIGHT for user, share in shares.items()} == found
    assert found == weights([of_meter[::-1] for of_meter in usage[::-1]])
