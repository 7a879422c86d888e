"""Why the charges of one period differ from another's, split by cause and key; the parts add up to the difference.

Four ratings stand in a row, each with one thing changed: the period before; the new usage at the old prices; that at the
newest version of the same plan; and what it is now. Between two neighbours lies one cause. What is owed for time, and
adjustments, are compared between the first and the last.
"""

from collections.abc import Iterable, Mapping
from decimal import Decimal
from enum import Enum

import msgspec

from rating.attribution import Attributed, Key
from rating.exact import ZERO, add, subtract, total
from rating.lines import LineKind
from rating.money import Currency, Money


class ChangeCause(Enum):
    """Why an amount is another one than before."""

    VOLUME = "VOLUME"
    PRICE = "PRICE"
    PLAN = "PLAN"
    RECURRING = "RECURRING"
    ADJUSTMENT = "ADJUSTMENT"


class Rating(msgspec.Struct, frozen=True):
    """A period's amounts by key: for usage (with discounts and minimums over the plan), for time, and adjustments."""

    usage: Mapping[Key, Decimal]
    recurring: Mapping[Key, Decimal]
    adjustment: Mapping[Key, Decimal]

    def total(self) -> Decimal:
        """All of it."""
        return total([*self.usage.values(), *self.recurring.values(), *self.adjustment.values()])


class ExplainedPart(msgspec.Struct, frozen=True, kw_only=True):
    """How much one cause changed for one key, and the key's quantities before and after."""

    cause: ChangeCause
    key: Key
    amount: Money
    quantity_before: Decimal | None = None
    quantity_after: Decimal | None = None


class Explanation(msgspec.Struct, frozen=True, kw_only=True):
    """before + the parts + remainder = after, exactly; the parts with the largest amounts come first."""

    before: Money
    after: Money
    parts: tuple[ExplainedPart, ...]
    remainder: Money


def rating_of(attributed: Iterable[Attributed]) -> Rating:
    """A period's lines, attributed to the keys that are asked for, in the three kinds that are compared."""
    usage: dict[Key, Decimal] = {}
    recurring: dict[Key, Decimal] = {}
    adjustment: dict[Key, Decimal] = {}
    for part in attributed:
        kept = usage
        if part.line.kind is LineKind.ADJUSTMENT:
            kept = adjustment
        elif part.recurring:
            kept = recurring
        kept[part.key] = add(kept.get(part.key, ZERO), part.amount.amount)
    return Rating(usage, recurring, adjustment)


def explain(
    before: Rating,
    at_new_usage: Rating,
    at_new_version: Rating,
    after: Rating,
    *,
    currency: Currency,
    top: int,
    quantities_before: Mapping[Key, Decimal] | None = None,
    quantities_after: Mapping[Key, Decimal] | None = None,
) -> Explanation:
    """The difference in parts: the `top` largest by amount (of those alike by cause and key), and all others together."""
    steps = [
        (ChangeCause.VOLUME, before.usage, at_new_usage.usage),
        (ChangeCause.PRICE, at_new_usage.usage, at_new_version.usage),
        (ChangeCause.PLAN, at_new_version.usage, after.usage),
        (ChangeCause.RECURRING, before.recurring, after.recurring),
        (ChangeCause.ADJUSTMENT, before.adjustment, after.adjustment),
    ]
    old, new = quantities_before or {}, quantities_after or {}
    by_usage = {ChangeCause.VOLUME, ChangeCause.PRICE, ChangeCause.PLAN}
    parts = [
        ExplainedPart(
            cause=cause,
            key=key,
            amount=Money(amount, currency),
            quantity_before=old.get(key) if cause in by_usage else None,
            quantity_after=new.get(key) if cause in by_usage else None,
        )
        for cause, first, second in steps
        for key, amount in _differences(first, second)
    ]
    parts.sort(key=_order)
    rest = total([currency.zero, *(part.amount.amount for part in parts[top:])])
    return Explanation(
        before=Money(add(currency.zero, before.total()), currency),
        after=Money(add(currency.zero, after.total()), currency),
        parts=tuple(parts[:top]),
        remainder=Money(rest, currency),
    )


def _differences(first: Mapping[Key, Decimal], second: Mapping[Key, Decimal]) -> Iterable[tuple[Key, Decimal]]:
    for key in {**first, **second}:
        difference = subtract(second.get(key, ZERO), first.get(key, ZERO))
        if difference:
            yield key, difference


def _order(part: ExplainedPart) -> tuple[Decimal, int, tuple[tuple[bool, str], ...]]:
    causes = list(ChangeCause)
    key = tuple((value is not None, value or "") for value in part.key)
    return part.amount.amount.copy_abs().copy_negate(), causes.index(part.cause), key
