"""Sharing an amount so that the parts add up to it, by largest remainder.

Each part is first cut towards zero to whole units; the units that are left then go, one each, to the parts that were cut
by most, the earlier one where two were cut alike. So a part is never a whole unit away from its exact share, a part
without weight gets nothing, and shares of the negative amount are the negative shares.
"""

from collections.abc import Sequence
from decimal import Decimal

from rating.exact import ZERO, add, half_away, multiply, subtract, total, towards_zero, uncut, whole_part
from rating.money import Currency, Money, rounded


def share_out(amount: Money, weights: Sequence[Decimal]) -> list[Money] | None:
    """The amount in parts that are to each other as the weights are; None where the weights add up to zero.

    Weights may be below zero (usage that was given back); their parts then have the other sign.
    """
    whole = total(weights)
    if not whole:
        return None
    scale = _scale([*weights, whole])
    units = int(whole_part(amount.amount, amount.currency.quantum))
    return _of_units(
        apportion(units, [units * int(multiply(weight, scale)) for weight in weights], int(multiply(whole, scale))),
        amount.currency,
    )


def settle(exact_amounts: Sequence[Decimal], currency: Currency, *, prorated: bool = False) -> list[Money]:
    """Exact amounts in minor units, in their order: their sum is rounded once, and they share what it comes to.

    Where some are `prorated`, and may have been cut, their sum is rounded as if none was.
    """
    if len(exact_amounts) == 1:
        return [rounded(exact_amounts[0], currency)]
    quantum = currency.quantum
    amounts = [towards_zero(amount, quantum) for amount in exact_amounts]
    whole = total(exact_amounts)
    left = subtract(half_away(uncut(whole) if prorated else whole, quantum), total(amounts))
    if left:
        unit = quantum.copy_sign(left)
        cut_off = [subtract(amount, kept) for amount, kept in zip(exact_amounts, amounts, strict=True)]
        # sorted() keeps the order of what is alike, also in reverse, so that the earlier line comes first.
        order = sorted(range(len(amounts)), key=cut_off.__getitem__, reverse=left > 0)
        for index in order[: abs(int(whole_part(left, quantum)))]:
            amounts[index] = add(amounts[index], unit)
    return [Money(amount or amount.copy_abs(), currency) for amount in amounts]


def apportion(units: int, numerators: Sequence[int], denominator: int) -> list[int]:
    """Whole numbers that add up to `units`, each less than one away from its numerator / denominator.

    The quotients add up to `units`, or to at most one half more or less.
    """
    if denominator < 0:
        numerators, denominator = [-numerator for numerator in numerators], -denominator
    # Towards zero, so that what is left has the sign of the quotient.
    parts = [abs(numerator) // denominator * (1 if numerator > 0 else -1) for numerator in numerators]
    left = units - sum(parts)
    if left:
        step = 1 if left > 0 else -1
        # sorted() keeps the order of what is alike, so that the earlier part comes first.
        order = sorted(range(len(parts)), key=lambda index: step * (parts[index] * denominator - numerators[index]))
        for index in order[: abs(left)]:
            parts[index] += step
    return parts


def _of_units(units: Sequence[int], currency: Currency) -> list[Money]:
    return [Money(add(multiply(Decimal(count), currency.quantum), ZERO), currency) for count in units]


def _scale(numbers: Sequence[Decimal]) -> Decimal:
    """A power of ten that makes all of these numbers whole."""
    exponents = [exponent for number in numbers if isinstance(exponent := number.as_tuple().exponent, int)]
    return Decimal(1).scaleb(max(0, -min(exponents)))
