"""What of a statement's lines falls into a period, and whose it is: all parts of a line add up to it, however it is cut.

A line is shared out once, among the keys that are behind it, by what each used in the line's own period, with largest
remainder. Within its period a key's part grows as its usage does: at an instant so much of the line is due as was used
until then, rounded, and the whole part from where its usage is complete. What falls into a period is what is due at its end
less what was due at its start. So periods that lie side by side add up, and no amount falls where nothing was used.
"""

from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Final, TypeAlias

import msgspec

from rating.attribution import Key, amount_within
from rating.exact import multiply, subtract, total, whole_part
from rating.lines import Line, LineKind
from rating.money import Money
from rating.periods import Period
from rating.share import share_out

# Amounts that are owed beside the usage, though their price may have a meter.
_BESIDE: Final = frozenset({LineKind.MINIMUM, LineKind.ADJUSTMENT})


class Behind(msgspec.Struct, frozen=True, gc=False):
    """What a key used in a line's whole period, and of that before a period that is asked for starts, and before it ends."""

    key: Key
    whole: Decimal
    until_start: Decimal
    until_end: Decimal


# What is behind a meter's figure for a period; each key once.
UsageBehind: TypeAlias = Mapping[tuple[str, Period], Sequence[Behind]]


class Charge(msgspec.Struct, frozen=True, gc=False):
    """What of a line falls into a period for a key; never zero. `recurring` tells what is owed for time from the rest."""

    line: Line
    key: Key
    amount: Money
    recurring: bool


class _Part(msgspec.Struct, frozen=True, gc=False):
    """A key's part of a line, and the usage that it grows with; what has none is spread evenly over the period.

    `rate` is how many minor units it grows by with a unit of usage: a numerator and a denominator.
    """

    line: Line
    key: Key
    amount: Money
    period: Period
    behind: Behind | None = None
    rate: tuple[int, int] = (0, 1)
    recurring: bool = False

    def within(self, asked: Period) -> Money:
        if self.line.kind is LineKind.ADJUSTMENT:
            # It makes up for another time, and stands at the beginning of the statement that carries it.
            inside = asked.start <= self.period.start < asked.end
            return self.amount if inside else Money(self.amount.currency.zero, self.amount.currency)
        if self.behind is None:
            return amount_within(self.amount, self.period, asked)
        due, due_before = self._due(self.behind.until_end), self._due(self.behind.until_start)
        return Money(subtract(due, due_before), self.amount.currency)

    def _due(self, until: Decimal) -> Decimal:
        assert self.behind is not None, "what has no usage behind it does not grow with it"
        if until == self.behind.whole:
            return self.amount.amount
        above, below = until.as_integer_ratio()
        units = _nearest(self.rate[0] * above, self.rate[1] * below)
        return multiply(Decimal(units), self.amount.currency.quantum)


def metered_by(line: Line) -> tuple[str, Period] | None:
    """The meter and the period whose usage is behind a line; None where none is, or that of other lines."""
    meter = line.origin.meter
    return None if meter is None or line.kind in _BESIDE else (meter, line.period)


def charges_within(lines: Sequence[Line], usage: UsageBehind, nobody: Key, asked: Period) -> Iterator[Charge]:
    """What of a statement's lines falls into a period, by key.

    What has no usage behind it is nobody's, and so is a line whose usage adds up to zero. A discount on the whole plan goes
    the way of the amounts that it is taken from.
    """
    parts: list[_Part] = []
    is_discounted = any(_is_discount(line) for line in lines)
    for line in lines:
        own = _discounted(line, parts) if _is_discount(line) else _shared(line, usage, nobody)
        if is_discounted:
            parts.extend(own)
        for part in own:
            amount = part.within(asked)
            if amount.amount:
                yield Charge(line, part.key, amount, part.recurring)


def shares_held(lines: Sequence[Line], usage: UsageBehind) -> int:
    """How many shares of a statement's lines are held at a time: those of a line, or of all where a discount follows them."""
    pairs = (metered_by(line) for line in lines)
    counts = [0 if pair is None else len(usage.get(pair, ())) for pair in pairs]
    return sum(counts) if any(_is_discount(line) for line in lines) else max(counts, default=0)


def _is_discount(line: Line) -> bool:
    """Whether it is a discount on the whole plan."""
    return line.origin.price is None and line.kind is LineKind.DISCOUNT


def _shared(line: Line, usage: UsageBehind, nobody: Key) -> list[_Part]:
    metered = metered_by(line)
    behind = [] if metered is None else sorted(usage.get(metered, ()), key=lambda each: _order(each.key))
    amounts = share_out(line.amount, [each.whole for each in behind])
    if amounts is None:
        return [_Part(line, nobody, line.amount, line.period, recurring=_is_recurring(line))]
    above, below = total(each.whole for each in behind).as_integer_ratio()
    rate = _units(line.amount) * below, above
    # A key whose usage was given back in full has no part in the end, but had one in between.
    return [
        _Part(line, each.key, amount, line.period, each, rate) for each, amount in zip(behind, amounts, strict=True)
    ]


def _discounted(line: Line, parts: Sequence[_Part]) -> list[_Part]:
    base = [
        part
        for part in parts
        if part.line.origin.plan == line.origin.plan
        and part.line.origin.plan_version == line.origin.plan_version
        and part.line.kind not in _BESIDE
        and part.line.period.within(line.period) == part.line.period
    ]
    amounts = share_out(line.amount, [part.amount.amount for part in base])
    assert amounts is not None, "a discount is taken from an amount that is not zero"
    taken, of = _units(line.amount), sum(_units(part.amount) for part in base)
    return [
        _Part(
            line, part.key, amount, part.period, part.behind, (part.rate[0] * taken, part.rate[1] * of), part.recurring
        )
        for part, amount in zip(base, amounts, strict=True)
    ]


def _is_recurring(line: Line) -> bool:
    """Whether it is of a flat or per-seat price; of a discount on the plan its parts tell."""
    return line.origin.price is not None and line.origin.meter is None and line.kind is not LineKind.ADJUSTMENT


def _units(money: Money) -> int:
    return int(whole_part(money.amount, money.currency.quantum))


def _nearest(numerator: int, denominator: int) -> int:
    """The whole number that is nearest to a quotient; a half goes away from zero."""
    whole = (2 * abs(numerator) + abs(denominator)) // (2 * abs(denominator))
    return whole if (numerator < 0) is (denominator < 0) else -whole


def _order(key: Key) -> tuple[tuple[bool, str], ...]:
    return tuple((value is not None, value or "") for value in key)
