"""All that is wrong with a plan is said at once, each fault with its path; and what is right is left alone."""

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rating.bounds import NAME_CHARS_MAX, PRICES_MAX, TIERS_MAX
from rating.definitions import price_of
from rating.faults import phase_faults, validate
from rating.meters import Figure
from rating.plans import PlanPrice
from rating.prices import Flat, Graduated, PerUnit, Tier
from rating.rate import usage_steps
from rating.subscriptions import PlanPhase
from tests.rating.strategies import plan_prices
from tests.rating.tables import at, plan
from tests.strategies import MANY


def faults(price: dict[str, Any], **values: Any) -> dict[str, str]:
    """The faults of a plan with this price on the meter `calls`: path to message."""
    values = {"meter": "calls", **values}
    found = validate(plan(PlanPrice(key="p", price=price_of(price), **values)), {"calls"})
    return {"/".join(fault.path): fault.message for fault in found}


def test_all_faults_at_once() -> None:
    """A plan with many faults shows them all, each where it is."""
    tiers = (
        Tier(Decimal(10), Decimal(-1)),
        Tier(Decimal(5)),
        Tier(None),
        Tier(Decimal(20), Decimal("NaN")),
    )
    broken = plan(
        PlanPrice(key="calls", meter="absent", price=Graduated(tiers), discount_percent=Decimal(101)),
        PlanPrice(key="calls", meter="calls", price=Flat(Decimal(1)), included_quantity=Decimal(1)),
        PlanPrice(key=" ", price=PerUnit(Decimal("1E+999999"))),
        key="",
        currency_code="XAU",
        minimum_amount=Decimal(-1),
    )

    assert [("/".join(fault.path), fault.message) for fault in validate(broken, {"calls"})] == [
        ("key", "is empty; give it a name"),
        ("currencyCode", "'XAU' is not a currency of ISO 4217 with a minor unit; for example EUR"),
        ("minimumAmount", "-1 is below zero; give rebates as a discount or as credits"),
        ("prices/0/meter", "there is no meter 'absent'; put the meter first"),
        (
            "prices/0/price/graduated/tiers/0/unitPrice",
            "-1 is below zero; give rebates as a discount or as credits",
        ),
        (
            "prices/0/price/graduated/tiers/2/upTo",
            "only the last tier may be open: those after it are never reached",
        ),
        ("prices/0/price/graduated/tiers/3/unitPrice", "NaN is not a number"),
        (
            "prices/0/price/graduated/tiers/3/upTo",
            "the last tier has to be open (null): usage above 20 would have no price",
        ),
        (
            "prices/0/price/graduated/tiers/1/upTo",
            "5 is not above the bound before it, 10; bounds are cumulative and rise",
        ),
        ("prices/0/discountPercent", "101 is more than everything; 100 at most"),
        ("prices/1/key", "'calls' is the key of price 0 too; each needs its own"),
        ("prices/1/meter", "a flat price is owed whatever the usage; leave the meter out"),
        (
            "prices/1/includedQuantity",
            "a flat price has no quantity that some could be included of; leave it out",
        ),
        ("prices/2/key", "is empty; give it a name"),
        ("prices/2/meter", "a perUnit price needs the meter that its quantity is read from"),
        ("prices/2/price/perUnit/unitPrice", "has too many digits; at most 38, of them 18 after the point"),
    ]


@pytest.mark.parametrize(
    ("price", "path"),
    [
        ({"volume": {"tiers": []}}, "volume/tiers"),
        ({"volume": {"tiers": [{"upTo": str(number)} for number in range(1, TIERS_MAX + 1)] + [{}]}}, "volume/tiers"),
        ({"volume": {"tiers": [{"upTo": "0"}, {}]}}, "volume/tiers/0/upTo"),
        ({"volume": {"tiers": [{"upTo": "1"}, {"upTo": "1.0"}, {}]}}, "volume/tiers/1/upTo"),
        ({"volume": {"tiers": [{"upTo": "sNaN"}, {}]}}, "volume/tiers/0/upTo"),
        ({"graduatedPercentage": {"tiers": [{"flatPrice": "-1"}]}}, "graduatedPercentage/tiers/0/flatPrice"),
        ({"stairStep": {"tiers": [{"unitPrice": "1"}]}}, "stairStep/tiers/0/unitPrice"),
        ({"package": {"size": "0", "packagePrice": "1"}}, "package/size"),
        ({"package": {"size": "-1", "packagePrice": "1"}}, "package/size"),
        ({"package": {"size": "1", "packagePrice": "-1"}}, "package/packagePrice"),
        ({"percentage": {"rate": "-0.1"}}, "percentage/rate"),
        ({"percentage": {"rate": "0.1", "fixedPerEvent": "-1"}}, "percentage/fixedPerEvent"),
        ({"dynamic": {"factor": "-1"}}, "dynamic/factor"),
        ({"perUnit": {"unitPrice": "Infinity"}}, "perUnit/unitPrice"),
        ({"perUnit": {"unitPrice": "0." + "0" * 18 + "1"}}, "perUnit/unitPrice"),
        ({"perUnit": {"unitPrice": "1" + "0" * 38}}, "perUnit/unitPrice"),
        ({"perUnit": {"unitPrice": "1E-999999"}}, "perUnit/unitPrice"),
    ],
)
def test_fault_of_each_kind(price: dict[str, Any], path: str) -> None:
    """Each kind of price is held to what it can be calculated with."""
    assert [f"prices/0/price/{path}"] == list(faults(price))


@pytest.mark.parametrize(
    ("values", "path"),
    [
        ({"minimum_amount": Decimal(2), "maximum_amount": Decimal(1)}, "minimumAmount"),
        ({"maximum_amount": Decimal(-1)}, "maximumAmount"),
        ({"included_quantity": Decimal(-1)}, "includedQuantity"),
        ({"discount_percent": Decimal("100.01")}, "discountPercent"),
    ],
)
def test_fault_around_a_price(values: dict[str, Any], path: str) -> None:
    """What is done before and after a price is held to its bounds as well."""
    assert [f"prices/0/{path}"] == list(faults({"perUnit": {"unitPrice": "1"}}, **values))


def test_bounds_of_a_plan() -> None:
    """A plan has so many prices at most, and names of so many characters."""
    price = PlanPrice(key="p", price=Flat(Decimal(1)))
    many = plan(*[price] * (PRICES_MAX + 1), name="x" * (NAME_CHARS_MAX + 1))

    assert [fault.path for fault in validate(many, ())] == [("name",), ("prices",)]


def test_what_is_allowed_has_no_fault() -> None:
    """The largest that is allowed is allowed."""
    tiers = [{"upTo": str(number)} for number in range(1, TIERS_MAX)]
    longest = "9" * 20 + "." + "9" * 18

    assert {} == faults({"graduated": {"tiers": [*tiers, {"unitPrice": longest}]}}, discount_percent=Decimal(100))
    assert {} == faults({"dynamic": {}}, minimum_amount=Decimal(1), maximum_amount=Decimal(1))


@MANY
@given(plan_prices(), st.integers(0, 10**38 - 1), st.integers(0, 18))
def test_plans_without_faults_can_be_rated(price: PlanPrice, digits: int, places: int) -> None:
    """Whatever validate() lets pass is rated without an error, for quantities of up to 38 digits."""
    assert () == validate(plan(price), {"meter"})

    assert usage_steps(price, Figure(Decimal(digits).scaleb(-places), 2**63))


def test_phases_that_cannot_follow_each_other() -> None:
    """Phases over one another and a change of currency are found; a gap between phases is none of it."""
    euros, dollars = plan(), plan(key="us", currency_code="USD")
    phases = [
        PlanPhase(euros, at("2026-01-01"), at("2026-02-01")),
        PlanPhase(euros, at("2026-03-01")),
        PlanPhase(dollars, at("2026-04-01")),
    ]

    assert [("/".join(fault.path), fault.message.partition(";")[0]) for fault in phase_faults(phases)] == [
        ("phases/2/start", "begins before the phase before it ends"),
        (
            "phases/2/plan",
            "is in USD, the plan before it in EUR: amounts of one subscription are in one currency",
        ),
    ]
