"""Who and what an amount is for: each line shared out once, at the finest grain, so that every grouping adds up.

A key is the values of the dimensions that usage has, in an order that the caller keeps to; None stands for no value.
"""

from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import TypeAlias

import msgspec

from rating.exact import ZERO, add, subtract
from rating.lines import Line, LineKind
from rating.money import Money, rounded
from rating.periods import Period, share_of
from rating.share import share_out

Key: TypeAlias = tuple[str | None, ...]
# The usage behind a meter's figure for a period, at the finest grain; a key may come several times.
# A sequence and no stream: each line of a price reads it.
Usage: TypeAlias = Mapping[tuple[str, Period], Sequence[tuple[Key, Decimal]]]


class Attributed(msgspec.Struct, frozen=True, gc=False):
    """A part of a line's amount, and the key it is for; `recurring` tells what is owed for time from the rest."""

    line: Line
    key: Key
    amount: Money
    recurring: bool


def attribute(amount: Money, usage: Iterable[tuple[Key, Decimal]], nobody: Key) -> list[tuple[Key, Money]]:
    """An amount in shares of quantity; all of it to `nobody` where there is no usage, or usage that adds up to zero.

    The order in which usage comes does not matter: keys are added up and sorted first.
    """
    quantities: dict[Key, Decimal] = {}
    for key, quantity in usage:
        quantities[key] = add(quantities.get(key, ZERO), quantity)
    keys = sorted(quantities, key=_order)
    parts = share_out(amount, [quantities[key] for key in keys])
    if parts is None:
        return [(nobody, amount)]
    return [(key, part) for key, part in zip(keys, parts, strict=True) if part.amount]


def attribute_lines(lines: Sequence[Line], usage: Usage, nobody: Key) -> list[Attributed]:
    """Every line of a statement in parts. What has no usage behind it is nobody's: recurring, minimum, flat at zero.

    A discount on the whole plan goes the way of the amounts that it is taken from.
    """
    result: list[Attributed] = []
    for line in lines:
        if line.origin.price is None and line.kind is LineKind.DISCOUNT:
            result.extend(_discounted(line, result))
            continue
        recurring = line.origin.price is not None and line.origin.meter is None and line.kind is not LineKind.ADJUSTMENT
        metered = line.origin.meter is not None and line.kind not in {LineKind.MINIMUM, LineKind.ADJUSTMENT}
        behind = usage.get((str(line.origin.meter), line.period), ()) if metered else ()
        result.extend(
            Attributed(line, key, part, recurring)
            for key, part in attribute(line.amount, behind, nobody)
            if part.amount
        )
    return result


def _discounted(line: Line, attributed: Sequence[Attributed]) -> list[Attributed]:
    base = [
        part
        for part in attributed
        if part.line.origin.plan == line.origin.plan
        and part.line.origin.plan_version == line.origin.plan_version
        and part.line.kind not in {LineKind.MINIMUM, LineKind.ADJUSTMENT}
        and part.line.period.within(line.period) == part.line.period
    ]
    amounts = share_out(line.amount, [part.amount.amount for part in base])
    assert amounts is not None, "a discount is taken from an amount that is not zero"
    return [
        Attributed(line, part.key, amount, part.recurring)
        for part, amount in zip(base, amounts, strict=True)
        if amount.amount
    ]


def grouped(parts: Iterable[tuple[Key, Money]], dimensions: Sequence[int]) -> dict[Key, Money]:
    """The parts added up by some of the key's dimensions, which are given by their places in it."""
    sums: dict[Key, Money] = {}
    for key, part in parts:
        short = tuple(key[place] for place in dimensions)
        known = sums.get(short)
        sums[short] = part if known is None else Money(add(known.amount, part.amount), part.currency)
    return sums


def amount_within(amount: Money, period: Period, asked: Period) -> Money:
    """What of an amount that is spread evenly over its period lies in another one; however that is cut, parts add up."""
    common = period.within(asked)
    if common is None:
        return Money(amount.currency.zero, amount.currency)
    until_end = share_of(Period(period.start, common.end), period).of(amount.amount)
    until_start = share_of(Period(period.start, common.start), period).of(amount.amount)
    # The two are rounded, not their difference: so what ends where the next begins leaves nothing between them.
    due, due_before = rounded(until_end, amount.currency), rounded(until_start, amount.currency)
    return Money(subtract(due.amount, due_before.amount), amount.currency)


def _order(key: Key) -> tuple[tuple[bool, str], ...]:
    """Keys in order of their values, nothing before everything."""
    return tuple((value is not None, value or "") for value in key)
