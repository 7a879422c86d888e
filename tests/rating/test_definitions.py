"""Plans are written as the contract spells them, and read again without loss."""

import json
import re
from decimal import Decimal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rating.definitions import definition_of, plan_of, price_definition_of, price_of
from rating.plans import PlanPrice, PriceTiming
from rating.prices import KINDS, Flat, Package, PerSeat
from tests.rating.strategies import numbers, plan_prices
from tests.rating.tables import plan
from tests.strategies import MANY


@MANY
@given(plan_prices(), numbers())
def test_plans_are_read_as_they_were_written(usage: PlanPrice, amount: Decimal) -> None:
    """A plan that is written as JSON and read again is the same plan, to the last digit."""
    base = PlanPrice(key="base", price=Flat(amount), timing=PriceTiming.IN_ADVANCE)
    seats = PlanPrice(key="seats", price=PerSeat(amount))
    original = plan(base, seats, usage, minimum_amount=amount)

    assert original == plan_of(json.loads(json.dumps(definition_of(original), default=str)))


def test_definition_is_in_plain_notation() -> None:
    """Numbers are strings without an exponent, with the digits that they were given with; enums are their names."""
    price = Package(Decimal("1E+3"), Decimal("5.00"))

    assert price_definition_of(price) == {"package": {"size": "1000", "packagePrice": "5.00", "rounding": "UP"}}


@pytest.mark.parametrize(
    ("definition", "message"),
    [
        ({}, "a price is of one kind; here are 0"),
        ({"flat": {"amount": "1"}, "perUnit": {"unitPrice": "1"}}, "here are 2: flat, perUnit"),
        ({"hourly": {}}, "there is no price of the kind 'hourly'"),
        ({"flat": {"amount": "1", "unit": "call"}}, "unknown field `unit`"),
        ({"perUnit": {"unitPrice": "a lot"}}, r"unitPrice"),
        ({"perUnit": {}}, r"required field `unitPrice`"),
    ],
)
def test_what_is_no_price_is_refused(definition: dict[str, dict[str, str]], message: str) -> None:
    """A price has exactly one kind, and the fields of that kind."""
    with pytest.raises(msgspec.ValidationError, match=message):
        price_of(definition)


@given(st.sampled_from(sorted(KINDS)))
def test_kinds_are_named_as_in_the_contract(name: str) -> None:
    """The kinds of price have the names that the contract's input has."""
    assert re.fullmatch(
        "flat|perSeat|perUnit|graduated|volume|package|stairStep|percentage|graduatedPercentage|dynamic", name
    )
