"""Shares add up to what is shared, are as near to the exact shares as whole units can be, and come out the same each time."""

from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rating.money import Currency, Money, rounded
from rating.share import apportion, settle, share_out
from tests.rating.strategies import currencies
from tests.rating.tables import EUR
from tests.strategies import MANY, decimals


def shared(amount: str, *weights: str) -> list[str]:
    """An amount in EUR, shared out."""
    parts = share_out(rounded(Decimal(amount), EUR), [Decimal(weight) for weight in weights])
    assert parts is not None
    return [str(part.amount) for part in parts]


@pytest.mark.parametrize(
    ("amount", "weights", "expected"),
    [
        # Three alike: the first gets the cent.
        ("100.00", ["1", "1", "1"], ["33.34", "33.33", "33.33"]),
        ("-100.00", ["1", "1", "1"], ["-33.34", "-33.33", "-33.33"]),
        # 0.333..., 0.666...: the second was cut by more.
        ("0.01", ["1", "2"], ["0.00", "0.01"]),
        ("0.02", ["1", "0", "1"], ["0.01", "0.00", "0.01"]),
        ("0.01", ["0", "0", "5"], ["0.00", "0.00", "0.01"]),
        # Usage that was given back: its part has the other sign.
        ("1.00", ["3", "-1"], ["1.50", "-0.50"]),
        ("1.00", ["-3", "1"], ["1.50", "-0.50"]),
        ("0.00", ["1", "2"], ["0.00", "0.00"]),
        ("10.00", ["0.000000000000000001", "12345678901234567890"], ["0.00", "10.00"]),
    ],
)
def test_largest_remainder(amount: str, weights: list[str], expected: list[str]) -> None:
    """Parts are cut to whole cents; what is left goes to what was cut most, and to the first of those alike."""
    assert expected == shared(amount, *weights)


@pytest.mark.parametrize("weights", [[], ["0"], ["1", "-1"], ["0", "0.00"]])
def test_weights_that_add_up_to_zero_share_nothing(weights: list[str]) -> None:
    """Where weights add up to zero there are no shares: the amount is nobody's, and the caller has to say so."""
    assert share_out(rounded(Decimal(5), EUR), [Decimal(weight) for weight in weights]) is None


@MANY
@given(st.integers(-(10**20), 10**20), st.lists(decimals(), min_size=1, max_size=12), currencies())
def test_shares_add_up(units: int, weights: list[Decimal], currency: Currency) -> None:
    """The parts add up to the amount; each is less than one minor unit from its exact share; no weight means no part."""
    amount = Money(Decimal(units) * currency.quantum, currency)
    whole = sum(map(Fraction, weights))
    parts = share_out(amount, weights)
    if parts is None:
        assert whole == 0
        return

    assert Fraction(amount.amount) == sum(Fraction(part.amount) for part in parts)
    for part, weight in zip(parts, weights, strict=True):
        assert abs(Fraction(part.amount) - Fraction(amount.amount) * Fraction(weight) / whole) < currency.quantum
        assert weight or not part.amount


@MANY
@given(st.integers(-(10**9), 10**9), st.lists(decimals(), min_size=1, max_size=8))
def test_shares_of_the_negative_are_the_negative_shares(units: int, weights: list[Decimal]) -> None:
    """What is given back is shared as it was owed."""
    amount = Decimal(units).scaleb(-2)
    owed, given_back = share_out(Money(amount, EUR), weights), share_out(Money(-amount, EUR), weights)
    if owed is not None and given_back is not None:
        assert [-part.amount for part in owed] == [part.amount for part in given_back]


@MANY
@given(st.lists(decimals(whole_digits=9), min_size=1, max_size=12), currencies())
def test_settled_amounts_add_up_to_the_rounded_sum(exact: list[Decimal], currency: Currency) -> None:
    """Lines add up to their exact sum, rounded once; each is less than one minor unit from its own exact amount."""
    amounts = settle(exact, currency)
    units = sum(map(Fraction, exact)) / Fraction(currency.quantum)
    nearest = (abs(units) + Fraction(1, 2)) // 1 * (1 if units > 0 else -1)

    assert nearest == sum(Fraction(amount.amount) for amount in amounts) / Fraction(currency.quantum)
    for amount, given_amount in zip(amounts, exact, strict=True):
        assert abs(Fraction(amount.amount) - Fraction(given_amount)) < Fraction(currency.quantum)


def test_lines_that_are_whole_stay_as_they_are() -> None:
    """A line that is a whole number of minor units never takes part in the rounding of the others."""
    exact = [Decimal(text) for text in ("100", "0.005", "-10", "0.004")]

    assert ["100.00", "0.01", "-10.00", "0.00"] == [str(money.amount) for money in settle(exact, EUR)]


@MANY
@given(st.lists(st.integers(-(10**12), 10**12), min_size=1, max_size=20), st.integers(1, 10**6))
def test_apportioned_numbers_do_not_depend_on_scale(numerators: list[int], denominator: int) -> None:
    """The same quotients, written with ten times the numbers, come out the same."""
    units = (2 * sum(numerators) + denominator) // (2 * denominator)
    tenfold = apportion(units, [10 * numerator for numerator in numerators], 10 * denominator)

    assert apportion(units, numerators, denominator) == tenfold
    assert units == sum(tenfold)
