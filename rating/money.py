"""An amount together with its currency, in the minor units of ISO 4217; and the one rounding of amounts."""

from collections.abc import Iterable
from decimal import Decimal
from functools import lru_cache

import iso4217
import msgspec

from rating.exact import add, half_away


class Currency(msgspec.Struct, frozen=True):
    """A currency that amounts can be owed in: its code, and how many digits its minor unit has after the point."""

    code: str
    minor_digits: int
    # The minor unit itself (0.01 for EUR, 1 for JPY, 0.001 for KWD), and none of it.
    quantum: Decimal
    zero: Decimal


class CurrencyMismatchError(ValueError):
    """Amounts of two currencies cannot be added."""


@lru_cache(maxsize=1_000)
def currency_of(code: str) -> Currency | None:
    """The currency of this code (three capitals). None where ISO 4217 has no such code, or no minor unit for it: gold."""
    if code not in iso4217.raw_table:
        return None
    digits = str(iso4217.raw_table[code]["CcyMnrUnts"])
    if not digits.isdigit():
        return None
    exponent = -int(digits)
    return Currency(code, int(digits), Decimal(1).scaleb(exponent), Decimal(0).scaleb(exponent))


class Money(msgspec.Struct, frozen=True):
    """An amount that is owed: a whole number of the currency's minor units, written with all of its minor digits."""

    amount: Decimal
    currency: Currency

    def __str__(self) -> str:
        return f"{self.amount:f} {self.currency.code}"


def rounded(amount: Decimal, currency: Currency) -> Money:
    """An exact amount in whole minor units; half a unit goes away from zero. There is no other rounding of amounts."""
    units = half_away(amount, currency.quantum)
    # Nobody is owed -0.00.
    return Money(units or units.copy_abs(), currency)


def sum_of(amounts: Iterable[Money], currency: Currency) -> Money:
    """The sum of amounts of one currency; zero where there are none. Raises CurrencyMismatchError."""
    result = currency.zero
    for money in amounts:
        if money.currency != currency:
            raise CurrencyMismatchError(f"{money} cannot be added to amounts in {currency.code}")
        result = add(result, money.amount)
    return Money(result, currency)
