"""What the rating tests share: the tables of cases, and a short way to write instants, plans and subscriptions."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

from rating.billing_periods import BillingInterval
from rating.definitions import price_of
from rating.exact import total
from rating.lines import Line, Origin
from rating.meters import Figure
from rating.money import Currency, currency_of
from rating.periods import Period
from rating.plans import Plan, PlanPrice
from rating.prices import is_recurring
from rating.statements import rate_price
from rating.subscriptions import PlanPhase, Subscription

CASES: Final = Path(__file__).parent / "cases"


def cases(name: str) -> list[dict[str, Any]]:
    """The cases of a table."""
    return list(json.loads((CASES / f"{name}.json").read_text(encoding="utf-8"))["cases"])


def at(text: str) -> datetime:
    """An instant in UTC, written short."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def period(start: str, end: str) -> Period:
    """A period, written short."""
    return Period(at(start), at(end))


def currency(code: str) -> Currency:
    """A currency that there is."""
    found = currency_of(code)
    assert found is not None
    return found


MARCH: Final = period("2026-03-01", "2026-04-01")
EUR: Final = currency("EUR")


def plan_price(case: Mapping[str, Any], key: str = "price") -> PlanPrice:
    """The price of a case, with what is done before and after it; on a meter where it is one on usage."""
    kind = price_of(case["price"])
    numbers = {"includedQuantity": "included_quantity", "minimumAmount": "minimum_amount"}
    numbers |= {"maximumAmount": "maximum_amount", "discountPercent": "discount_percent"}
    given = {field: Decimal(case[name]) for name, field in numbers.items() if name in case}
    return PlanPrice(key=key, price=kind, meter=None if is_recurring(kind) else "meter", **given)


def rated(case: Mapping[str, Any], quantity: str | None = None) -> tuple[Line, ...]:
    """The lines that a case comes to, with another quantity where one is given."""
    figure = Figure(Decimal(case["quantity"] if quantity is None else quantity), case.get("events", 0))
    origin = Origin(plan="plan", plan_version=1, price="price", meter="meter")
    return rate_price(plan_price(case), figure, currency(case["currencyCode"]), origin, MARCH)


def owed(lines: tuple[Line, ...]) -> Decimal:
    """What lines add up to."""
    return total(line.amount.amount for line in lines)


def plan(*prices: PlanPrice, **values: Any) -> Plan:
    """A monthly plan in EUR, unless something else is said."""
    given: dict[str, Any] = {
        "key": "team",
        "version": 1,
        "name": "Team",
        "currency_code": "EUR",
        "interval": BillingInterval.MONTH,
        "effective_from": at("2020-01-01"),
    }
    return Plan(**{**given, "prices": prices, **values})


def subscription(*phases: PlanPhase, **values: Any) -> Subscription:
    """A subscription from the first phase's beginning, in UTC, counted from the first of a month."""
    given: dict[str, Any] = {"starts_at": phases[0].start, "zone": UTC, "billing_anchor": at("2020-01-01")}
    return Subscription(**{**given, "phases": phases, **values})
