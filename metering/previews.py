"""A price tried on a quantity: what it would come to. Nothing is read and nothing is stored."""

from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from typing import Final

import msgspec

from metering.errors import InputIssue, InvalidInputError
from metering.input_faults import issues_of
from rating.exact import total
from rating.faults import number_faults, price_faults
from rating.lines import Line, Origin
from rating.meters import Figure
from rating.money import Money, currency_of, sum_of
from rating.periods import Period
from rating.plans import PlanPrice
from rating.statements import rate_price

# A whole period, whichever: nothing of it is shown.
_PERIOD: Final = Period(datetime(2000, 1, 1, tzinfo=UTC), datetime(2000, 2, 1, tzinfo=UTC))


class Preview(msgspec.Struct, frozen=True):
    """What a price comes to; the lines add up to the total, and their exact amounts to the exact one."""

    total: Money
    exact_total: Decimal
    lines: tuple[Line, ...]


def preview(price: PlanPrice, figure: Figure, currency_code: str) -> Preview:
    """Rate one price on one figure for a whole period; of a price for seats the quantity is the seats.

    Raises InvalidInputError with every fault.
    """
    issues = list(_issues(price, figure, currency_code))
    currency = currency_of(currency_code)
    if issues or currency is None:
        raise InvalidInputError(issues)
    lines = rate_price(price, figure, currency, Origin(plan="preview", plan_version=1, price=price.key), _PERIOD)
    return Preview(sum_of((line.amount for line in lines), currency), total(line.exact_amount for line in lines), lines)


def _issues(price: PlanPrice, figure: Figure, currency_code: str) -> Iterator[InputIssue]:
    if currency_of(currency_code) is None:
        message = f"{currency_code!r:.60} is not a currency of ISO 4217 with a minor unit; for example EUR."
        yield InputIssue(("input", "currencyCode"), message)
    yield from issues_of(price_faults(price))
    yield from issues_of(number_faults(figure.quantity, ("quantity",)))
    if figure.events < 0:
        yield InputIssue(("input", "events"), "There are no fewer events than none.")
