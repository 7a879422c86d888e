"""The tables of public facts: what other engines' own tests and documents say a price comes to, and what we say."""

import itertools
from decimal import Context, Decimal, Inexact, localcontext
from typing import Any

import pytest

from rating.billing_periods import BillingInterval
from rating.faults import price_faults
from rating.lines import LineKind
from rating.meters import Figure
from rating.plans import PlanPrice
from rating.prices import Flat, PerUnit
from rating.rate import usage_steps
from rating.statements import statement_of
from rating.steps import Rounding, RoundingMode
from rating.subscriptions import PlanPhase, billing_period_at
from tests.rating.tables import CASES, at, cases, owed, period, plan, plan_price, rated, subscription


def ids(case: dict[str, Any]) -> str:
    """A case's name in the report."""
    return str(case["id"])


@pytest.mark.parametrize("case", cases("prices"), ids=ids)
def test_one_price_on_one_quantity(case: dict[str, Any]) -> None:
    """A price on a quantity comes to what the source says, and validate() has nothing against the price."""
    assert Decimal(case["total"]) == owed(rated(case))
    assert [] == list(price_faults(plan_price(case)))


@pytest.mark.parametrize("case", cases("sequences"), ids=ids)
def test_quantity_that_changes(case: dict[str, Any]) -> None:
    """Rated again with each new quantity, the difference to before is what the source bills, or gives back."""
    totals = [Decimal(0), *(owed(rated(case, quantity)) for quantity in case["quantities"])]

    assert [Decimal(amount) for amount in case["amounts"]] == [
        after - before for before, after in itertools.pairwise(totals)
    ]


@pytest.mark.parametrize("case", cases("sums"), ids=ids)
def test_quantities_with_a_price_each(case: dict[str, Any]) -> None:
    """Buckets, groups and units that are rated one by one add up to what the source says."""
    amounts = [owed(rated({**each, "currencyCode": case["currencyCode"]})) for each in case["rated"]]

    assert Decimal(case["total"]) == sum(amounts)


def rounding_of(case: dict[str, Any]) -> Rounding | None:
    """The rounding that a case asks for, if any."""
    if case["rounding"] is None:
        return None
    return Rounding(RoundingMode(case["rounding"]["mode"]), Decimal(case["rounding"]["step"]))


@pytest.mark.parametrize("case", cases("roundings"), ids=ids)
def test_rounding_of_a_meter(case: dict[str, Any]) -> None:
    """A meter's quantity is rounded to the step as the source does, before a price is applied."""
    each = PlanPrice(key="price", meter="meter", price=PerUnit(Decimal(1)))
    (step,) = usage_steps(each, Figure(Decimal(case["quantity"])), rounding=rounding_of(case))

    assert Decimal(case["rounded"]) == step.quantity


@pytest.mark.parametrize("case", cases("minimums"), ids=ids)
def test_minimum_of_a_plan(case: dict[str, Any]) -> None:
    """A plan's minimum is filled up by what its prices do not come to; of a started period both are owed in part."""
    monthly = plan(
        PlanPrice(key="base", price=Flat(Decimal(case["flat"]))),
        interval=BillingInterval(case["interval"]),
        minimum_amount=Decimal(case["planMinimum"]),
    )
    customer = subscription(PlanPhase(monthly, at(case["startsAt"])), billing_anchor=at(case["anchor"]))
    billed = billing_period_at(customer, customer.starts_at)
    assert billed is not None
    lines = statement_of(customer, billed, {}, {}).lines

    assert period(*case["period"]) == billed.served
    assert [Decimal(case["trueUp"])] == [line.amount.amount for line in lines if line.kind is LineKind.MINIMUM]


@pytest.mark.parametrize("case", cases("differences"), ids=ids)
def test_differences_are_what_they_are_said_to_be(case: dict[str, Any]) -> None:
    """Where we differ from a source, we come to the amount in the table, and the source to another one."""

    def amount(quantity: str) -> Decimal:
        if "rounding" in case:
            figure = Figure(Decimal(quantity))
            return sum(
                (step.exact_amount for step in usage_steps(plan_price(case), figure, rounding=rounding_of(case))),
                Decimal(0),
            )
        return owed(rated(case, quantity))

    ours = amount(case["quantity"]) - (amount(case["after"]) if "after" in case else Decimal(0))

    assert Decimal(case["ours"]) == ours
    assert Decimal(case["theirs"]) != ours


def test_no_step_rests_on_the_surrounding_context() -> None:
    """Where Python's own arithmetic has two digits and may round nothing, every case comes to the same amounts."""
    every = [(case, quantity) for case in cases("sequences") for quantity in case["quantities"]]
    every += [(case, case["quantity"]) for case in cases("prices")]
    expected = [[line.exact_amount for line in rated(case, quantity)] for case, quantity in every]

    with localcontext(Context(prec=2, traps=[Inexact])):
        assert expected == [[line.exact_amount for line in rated(case, quantity)] for case, quantity in every]


def test_no_fact_is_forgotten() -> None:
    """Each of the facts that were collected is in one table: as a case that is played, or as one that is left out, with why."""
    # The tables of another kind of fact are played where these are: levels in tests/metering.
    names = [path.stem for path in CASES.glob("*.json")]
    held = [(case["id"].partition("-")[0], name) for name in names for case in cases(name)]

    assert (CASES / "facts.txt").read_text(encoding="utf-8").split() == sorted({fact for fact, _ in held})
    assert len({fact for fact, _ in held}) == len(set(held)), "a fact is in one table"
    assert all(case["why"] for case in cases("left_out"))
