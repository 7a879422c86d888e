"""Amounts are whole minor units of their currency, and there is one rounding."""

from decimal import Decimal, FloatOperation, Inexact, localcontext
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rating.exact import add, cut, multiply, plain, total
from rating.money import Currency, CurrencyMismatchError, Money, currency_of, rounded, sum_of
from tests.rating.strategies import CURRENCIES, currencies
from tests.rating.tables import EUR, currency
from tests.strategies import MANY, decimals


@pytest.mark.parametrize(
    ("code", "minor_digits", "quantum", "zero"),
    [("JPY", 0, "1", "0"), ("EUR", 2, "0.01", "0.00"), ("KWD", 3, "0.001", "0.000"), ("CLF", 4, "0.0001", "0.0000")],
)
def test_minor_units_are_those_of_iso_4217(code: str, minor_digits: int, quantum: str, zero: str) -> None:
    """A currency has the digits that ISO 4217 gives it, also where other tables have others."""
    assert Currency(code, minor_digits, Decimal(quantum), Decimal(zero)) == currency_of(code)
    assert zero == str(currency(code).zero)


@pytest.mark.parametrize("code", ["XAU", "XXX", "DEM", "eur", "EURO", ""])
def test_what_is_no_currency_with_a_minor_unit_is_none(code: str) -> None:
    """Gold has no minor unit, the mark is gone, and codes are written in capitals."""
    assert currency_of(code) is None


@pytest.mark.parametrize(
    ("exact", "code", "expected"),
    [
        ("0.005", "EUR", "0.01"),
        ("-0.005", "EUR", "-0.01"),
        ("0.0049999999999999999999999999999999999999", "EUR", "0.00"),
        ("-0.0049", "EUR", "0.00"),
        ("2.5", "JPY", "3"),
        ("-2.5", "JPY", "-3"),
        ("1.0005", "KWD", "1.001"),
        ("12345678901234567890123456789012345678.905", "EUR", "12345678901234567890123456789012345678.91"),
    ],
)
def test_half_a_minor_unit_goes_away_from_zero(exact: str, code: str, expected: str) -> None:
    """Halves go away from zero on both sides, all else to the nearest; nobody is owed -0.00."""
    assert f"{expected} {code}" == str(rounded(Decimal(exact), currency(code)))


@MANY
@given(decimals(), currencies())
def test_rounding_is_the_nearest_amount(exact: Decimal, unit: Currency) -> None:
    """What is owed is a whole number of minor units, at most half a unit away; if it is half, it is the larger one."""
    owed = rounded(exact, unit).amount
    distance = abs(Fraction(owed) - Fraction(exact)) / Fraction(unit.quantum)

    assert Fraction(owed) / Fraction(unit.quantum) % 1 == 0
    assert distance < Fraction(1, 2) or (distance == Fraction(1, 2) and owed.copy_abs() > exact.copy_abs())


def test_currencies_are_never_mixed() -> None:
    """Amounts of two currencies have no sum."""
    with pytest.raises(CurrencyMismatchError, match=r"1 JPY cannot be added to amounts in EUR"):
        sum_of([rounded(Decimal(1), unit) for unit in CURRENCIES], EUR)


def test_sum_of_nothing_is_zero() -> None:
    """Without amounts there is a sum too, written with the currency's digits."""
    assert [str(sum_of([], unit)) for unit in CURRENCIES] == ["0 JPY", "0.00 EUR", "0.000 KWD", "0.0000 CLF"]


def test_sum_is_of_any_size() -> None:
    """Amounts that Python's own addition would round to 28 digits are added exactly."""
    large, small = Decimal("1E+36"), Decimal("0.01")

    assert Money(Decimal("1" + "0" * 36 + ".01"), EUR) == sum_of([Money(large, EUR), Money(small, EUR)], EUR)


def test_arithmetic_raises_where_it_would_round() -> None:
    """A result that has no room is an error and not another number; and a binary float is none of ours."""
    long = Decimal("1E+200")

    with pytest.raises(Inexact):
        add(long, Decimal("1E-200"))
    with pytest.raises((FloatOperation, TypeError)):
        multiply(long, 0.1)  # type: ignore[arg-type]


@MANY
@given(decimals(), st.integers(1, 10**14), st.integers(0, 40))
def test_cut_is_the_quotient_without_what_follows(numerator: Decimal, denominator: int, digits: int) -> None:
    """A quotient is cut towards minus infinity after so many digits, and left whole where it ends before."""
    quotient = cut(numerator, Decimal(denominator), digits)
    exact = Fraction(numerator) / denominator

    assert Fraction(0) <= exact - Fraction(quotient) < Fraction(1, 10**digits)


@pytest.mark.parametrize(
    ("number", "text"),
    [
        ("1E+3", "1000"),
        ("1.500", "1.5"),
        ("0E-9", "0"),
        ("0E+5", "0"),
        ("-0.0", "0"),
        ("-2.50", "-2.5"),
        ("100", "100"),
        ("1E-18", "0.000000000000000001"),
        ("99999999999999999999.999999999999999999", "99999999999999999999.999999999999999999"),
    ],
)
def test_plain_notation(number: str, text: str) -> None:
    """Plain notation has no exponent and no zeros behind, and keeps those before the point."""
    assert text == plain(Decimal(number))


def test_plain_notation_is_the_same_in_any_context() -> None:
    """A context that writes its exponents with a small e, and has three digits, changes nothing."""
    with localcontext(prec=3, capitals=0):
        assert ["1000", "1234.5"] == [plain(Decimal(number)) for number in ("1E+3", "1234.50")]


@MANY
@given(decimals())
def test_plain_notation_is_exact(number: Decimal) -> None:
    """What is written is the same number, to the last digit."""
    written = plain(number)

    assert number == Decimal(written)
    assert "E" not in written
    assert not ("." in written and written.endswith(("0", ".")))


def test_total_of_nothing_is_zero() -> None:
    """The sum of no numbers is zero."""
    assert Decimal(0) == total([])
