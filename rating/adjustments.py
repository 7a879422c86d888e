"""What a frozen statement would be today, as lines of the statement that is still open.

A final statement is never changed. When its period is rated again, the difference to what was frozen, and to what earlier
adjustments made of it, is carried by the next open statement: one line for each price that comes to another amount.
"""

from collections.abc import Iterable, Sequence

from rating.exact import add, subtract
from rating.lines import Line, LineKind, Origin
from rating.money import Currency, Money
from rating.periods import Period, instant_text


def adjustment_lines(
    frozen: Iterable[Line],
    adjusted: Iterable[Line],
    rated_again: Sequence[Line],
    *,
    of: Period,
    carried_by: Period,
    currency: Currency,
) -> tuple[Line, ...]:
    """The lines that make up for the difference between a frozen period and the same period rated again.

    `frozen` are the lines of the final statement, `adjusted` the adjustments of its period on other final statements,
    `rated_again` its lines as of now. They are compared by price, as figures: when a line was recorded plays no part.
    """
    differences: dict[Origin, Money] = {}
    for line in rated_again:
        differences[line.origin] = _changed(differences.get(line.origin), line.amount, currency, sign=1)
    for line in [*frozen, *adjusted]:
        differences[line.origin] = _changed(differences.get(line.origin), line.amount, currency, sign=-1)
    return tuple(
        Line(
            origin=origin,
            kind=LineKind.ADJUSTMENT,
            step=f"adjustment-of-{instant_text(of.start)}",
            period=carried_by,
            due_at=carried_by.end,
            exact_amount=difference.amount,
            amount=difference,
        )
        for origin, difference in differences.items()
        if difference.amount
    )


def _changed(so_far: Money | None, amount: Money, currency: Currency, *, sign: int) -> Money:
    assert amount.currency == currency, "a period and its adjustments are in one currency"
    before = currency.zero if so_far is None else so_far.amount
    return Money(add(before, amount.amount) if sign > 0 else subtract(before, amount.amount), currency)
