"""Decimal arithmetic that raises where it would have to round.

Python's own operators round to 28 digits without a word. What has to be exact is calculated with the functions below;
where rounding is meant, it is said: `cut` here, `rounded` in money.py, `round_to_step` in steps.py.
"""

from collections.abc import Iterable
from decimal import (
    ROUND_DOWN,
    ROUND_HALF_UP,
    Context,
    Decimal,
    DivisionByZero,
    FloatOperation,
    Inexact,
    InvalidOperation,
    Overflow,
    Underflow,
)
from typing import Final

# A product of two numbers of 38 digits has 76, a prorated one 40 more after the point: far below this.
_PRECISION: Final = 250

_TRAPS: Final = [DivisionByZero, FloatOperation, InvalidOperation, Overflow, Underflow]
_EXACT: Final = Context(prec=_PRECISION, traps=[*_TRAPS, Inexact])
_TOWARDS_ZERO: Final = Context(prec=_PRECISION, rounding=ROUND_DOWN, traps=_TRAPS)
# The name means half away from zero, also below it.
_HALF_AWAY: Final = Context(prec=_PRECISION, rounding=ROUND_HALF_UP, traps=_TRAPS)

ZERO: Final = Decimal(0)
ONE: Final = Decimal(1)
_HUNDREDTH: Final = Decimal("0.01")

add = _EXACT.add
subtract = _EXACT.subtract
multiply = _EXACT.multiply
# How many times the second number goes into the first, as a whole number towards zero; and what is left then.
whole_part = _EXACT.divide_int
remainder = _EXACT.remainder
# The nearest multiple of the second number, a power of ten; a half goes away from zero.
half_away = _HALF_AWAY.quantize
# The multiple of the second number, a power of ten, that comes first on the way to zero.
towards_zero = _TOWARDS_ZERO.quantize


def total(numbers: Iterable[Decimal]) -> Decimal:
    """The exact sum."""
    result = ZERO
    for number in numbers:
        result = add(result, number)
    return result


def percent_of(percent: Decimal, amount: Decimal) -> Decimal:
    """So many hundredths of an amount, exactly."""
    return multiply(multiply(percent, _HUNDREDTH), amount)


def cut(numerator: Decimal, denominator: Decimal, digits: int) -> Decimal:
    """A quotient of two numbers (the second above zero), cut towards minus infinity after so many digits."""
    if not remainder(numerator, denominator):
        # Mostly it ends; then it is exact.
        return whole_part(numerator, denominator)
    scaled = numerator.scaleb(digits, _EXACT)
    whole = whole_part(scaled, denominator)
    if scaled < 0 and remainder(scaled, denominator):
        whole = subtract(whole, ONE)
    return whole.scaleb(-digits, _EXACT)


def uncut(number: Decimal) -> Decimal:
    """What numbers add up to that were cut after 40 digits, without what the cuts left: nearest, after 36 digits.

    A thousand cuts leave less than a half of that. So a sum that is half a minor unit is one again, and no other
    sum is as near to it: see periods.py.
    """
    return _HALF_AWAY.quantize(number, _CUTS)


_CUTS: Final = Decimal(1).scaleb(-36)


def trimmed(number: Decimal) -> Decimal:
    """The same number without zeros behind, and without an exponent."""
    short = number.normalize(_EXACT)
    return short if short.as_tuple().exponent in _FRACTIONS else short.quantize(ONE, context=_EXACT)


# The exponents of numbers with digits after the point, and of whole numbers that are written as such.
_FRACTIONS: Final = range(-_PRECISION, 1)


def plain(number: Decimal) -> str:
    """Plain notation for people, keys and hashes: no exponent, no zeros behind the point that say nothing; zero is `0`."""
    if not number:
        return "0"
    # Mostly plain already, and in half the time of a format; which E it is, if any, the surrounding context says.
    text = str(number)
    if "E" in text or "e" in text:
        text = f"{number:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
