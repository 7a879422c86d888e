"""What of a statement credits may pay for: its lines by price and stretch of time, less what is given back.

A grant pays for what falls into its time. What falls when is told as for charges: a line with usage behind it grows with
that usage, one without grows evenly, and an adjustment stands at the beginning of the statement that carries it.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from typing import TypeAlias

import msgspec

from rating.bounds import FRACTION_DIGITS_MAX
from rating.charges import Behind, charges_within, metered_by
from rating.exact import ZERO, add, cut, multiply, subtract, total, trimmed
from rating.lines import Line, LineKind, Origin
from rating.money import Currency, Money
from rating.periods import Period
from rating.share import share_out

# How much was used of a meter from the beginning of a line's period until an instant inside it.
UsedUntil: TypeAlias = Mapping[tuple[str, Period, datetime], Decimal]


class Payable(msgspec.Struct, frozen=True):
    """What a price (or the plan as a whole) comes to in a stretch of time.

    `quantity` is what is charged of its meter there; zero where no usage is behind it, as behind a minimum.
    """

    origin: Origin
    period: Period
    amount: Money
    quantity: Decimal


def payables_of(
    lines: Sequence[Line],
    period: Period,
    cuts: Sequence[datetime],
    used: UsedUntil,
    charged: Mapping[tuple[Origin, Period], Decimal],
) -> list[Payable]:
    """A statement's lines as what can be paid for, cut at instants inside its period (ascending); in order of lines and time.

    `used` tells of each meter and period how much was used until each cut, and until its end; where it does not, a line
    grows evenly. `charged` are the quantities that are paid for, of a price in a part of the period.
    Nothing is below zero, and together it is what the statement comes to; it is nothing where that is less than nothing.
    """
    stretches = [Period(start, end) for start, end in pairwise([period.start, *cuts, period.end])]
    sums: dict[tuple[Origin, bool, Period], Payable] = {}
    for line in lines:
        metered = metered_by(line) is not None
        for stretch in stretches:
            place = (line.origin, metered, stretch)
            nothing = Money(line.amount.currency.zero, line.amount.currency)
            sums.setdefault(place, Payable(line.origin, stretch, nothing, ZERO))
    for stretch in stretches:
        usage = {each: [_behind(each, stretch, used)] for each in map(metered_by, lines) if each is not None}
        for charge in charges_within(lines, usage, (), stretch):
            place = (charge.line.origin, metered_by(charge.line) is not None, stretch)
            amount = Money(add(sums[place].amount.amount, charge.amount.amount), charge.amount.currency)
            sums[place] = msgspec.structs.replace(sums[place], amount=amount)
        for (origin, part), quantity in charged.items():
            share = _behind((str(origin.meter), part), stretch, used)
            place = (origin, True, stretch)
            if place in sums:
                inside = subtract(_due(quantity, share, share.until_end), _due(quantity, share, share.until_start))
                sums[place] = msgspec.structs.replace(sums[place], quantity=trimmed(add(sums[place].quantity, inside)))
    return _offset(list(sums.values()))


def charged_quantities(
    lines: Sequence[Line], rounded_figures: Mapping[tuple[str, Period], Decimal]
) -> dict[tuple[Origin, Period], Decimal]:
    """What of the meters' quantities is charged by each price: what is not included. Nothing where that is not above zero."""
    charged: dict[tuple[Origin, Period], Decimal] = {}
    for line in lines:
        metered = metered_by(line)
        if metered is not None:
            charged.setdefault((line.origin, line.period), rounded_figures.get(metered, ZERO))
            if line.kind is LineKind.INCLUDED and line.quantity is not None:
                left = subtract(charged[line.origin, line.period], line.quantity)
                charged[line.origin, line.period] = left
    return {place: quantity for place, quantity in charged.items() if quantity > ZERO}


def _behind(metered: tuple[str, Period], stretch: Period, used: UsedUntil) -> Behind:
    """How much was used until a stretch starts, and until it ends; where that is not known, how much time passed."""
    meter, period = metered
    bounds = [period.end, *(min(max(at, period.start), period.end) for at in (stretch.start, stretch.end))]
    known = [ZERO if at == period.start else used.get((meter, period, at)) for at in bounds]
    told = [each for each in known if each is not None]
    if len(told) < len(known) or not told[0]:
        told = [Decimal((at - period.start) // timedelta.resolution) for at in bounds]
    return Behind((), *told)


def _due(quantity: Decimal, behind: Behind, until: Decimal) -> Decimal:
    if until == behind.whole or behind.whole <= ZERO:
        return quantity if until == behind.whole else ZERO
    return cut(multiply(quantity, until), behind.whole, FRACTION_DIGITS_MAX)


def _offset(parts: list[Payable]) -> list[Payable]:
    """What is below zero is taken off what is above: of the same price first, the nearest before it and then the nearest
    behind, as usage that was given back; then of the same stretch, by share, as a discount; and then of all others.
    """
    if total(part.amount.amount for part in parts) <= ZERO:
        return []
    amounts = [part.amount.amount for part in parts]
    quantities = [part.quantity for part in parts]
    for numbers in (amounts, quantities):
        for place, part in enumerate(parts):
            same = [index for index, other in enumerate(parts) if part.origin.price and other.origin == part.origin]
            _take(numbers, place, sorted(same, key=lambda index: _distance(part, parts[index])))
    for stretch in dict.fromkeys(part.period for part in parts):
        _share(amounts, [index for index, part in enumerate(parts) if part.period == stretch], parts[0].amount.currency)
    for place, part in enumerate(parts):
        _take(amounts, place, sorted(range(len(parts)), key=lambda index: _distance(part, parts[index])))
    return [
        Payable(part.origin, part.period, Money(amount, part.amount.currency), max(quantity, ZERO))
        for part, amount, quantity in zip(parts, amounts, quantities, strict=True)
        if amount > ZERO
    ]


def _take(numbers: list[Decimal], place: int, others: Sequence[int]) -> None:
    """Fill a number that is below zero up with what others have above, one after the other."""
    for other in others:
        taken = min(max(numbers[other], ZERO), max(numbers[place].copy_negate(), ZERO))
        if taken:
            numbers[other], numbers[place] = subtract(numbers[other], taken), add(numbers[place], taken)


def _share(amounts: list[Decimal], places: Sequence[int], currency: Currency) -> None:
    """Take what is below zero among these off what is above, in shares, where there is enough."""
    below = total(amounts[place] for place in places if amounts[place] < ZERO)
    above = [place for place in places if amounts[place] > ZERO]
    shares = share_out(Money(below, currency), [amounts[place] for place in above]) if below else None
    if shares is None or below.copy_abs() > total(amounts[place] for place in above):
        return
    for place in places:
        amounts[place] = max(amounts[place], ZERO)
    for place, share in zip(above, shares, strict=True):
        amounts[place] = add(amounts[place], share.amount)


def _distance(part: Payable, other: Payable) -> tuple[bool, timedelta]:
    apart = other.period.start - part.period.start
    return apart > timedelta(0), abs(apart)
