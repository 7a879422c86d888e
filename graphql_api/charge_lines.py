"""The lines that an amount is made of."""

from collections.abc import Mapping
from typing import Any, Final

import strawberry

from graphql_api.money import Money, money_of
from graphql_api.questions import Period
from graphql_api.scalars import DecimalText, Instant
from metering.statements.credit_lines import CreditLine
from rating import periods
from rating.lines import Line, LineKind, description

_KINDS: Final[Mapping[LineKind, str]] = {
    LineKind.RECURRING: "Owed for time, whatever the usage.",
    LineKind.USAGE: "Owed for usage.",
    LineKind.INCLUDED: "What of the quantity is included; it costs nothing.",
    LineKind.MINIMUM: "What is missing to the least that is owed.",
    LineKind.MAXIMUM: "What is taken off above the most that is owed.",
    LineKind.DISCOUNT: "What is taken off by percent.",
    LineKind.ADJUSTMENT: "What a frozen period has become since then.",
    LineKind.CREDIT: "What credit pays, below zero; or what of it is given back, above.",
}

_line_kind: Any = strawberry.enum(LineKind)
for _value in _line_kind.__strawberry_definition__.values:
    _value.description = _KINDS[LineKind(_value.value)]


@strawberry.type(
    description="One step of the calculation; the lines of a statement add up to its total. Rounding happens once for each "
    "price; its tier lines share it by largest remainder."
)
class ChargeLine:
    """One line."""

    key: str = strawberry.field(description="Stable over re-rating: price, version, tier, period.")
    kind: LineKind
    description: str
    meter: str | None
    plan: str | None
    plan_version: int | None
    tier: int | None
    period: Period | None
    quantity: DecimalText | None
    unit_price: DecimalText | None
    amount: Money
    exact_amount: DecimalText
    adjusts: Period | None = strawberry.field(
        description="Of an ADJUSTMENT: the frozen period that it makes up for; `period` is that of the statement."
    )
    credit_grant: str | None = strawberry.field(
        default=None,
        description="Of a CREDIT: the key of the grant that pays, or has it back; `quantity` is in its meter.",
    )


def credit_line_of(credit: CreditLine, statement: periods.Period) -> ChargeLine:
    """What a credit pays of a statement, as the API shows it."""
    origin = credit.origin
    paid = "" if origin is None else f"{origin.plan}@{origin.plan_version}/{origin.price or ''}"
    return ChargeLine(
        key=f"credit/{credit.grant}/{paid}/{periods.instant_text(statement.start)}",
        kind=LineKind.CREDIT,
        description=credit.description,
        meter=None if origin is None else origin.meter,
        plan=None if origin is None else origin.plan,
        plan_version=None if origin is None else origin.plan_version,
        tier=None,
        period=Period(from_=Instant(statement.start), to=Instant(statement.end)),
        quantity=None if credit.quantity is None else DecimalText(credit.quantity),
        unit_price=None,
        amount=money_of(credit.amount),
        exact_amount=DecimalText(credit.amount.amount),
        adjusts=None,
        credit_grant=credit.grant,
    )


def charge_line_of(line: Line, adjusts: periods.Period | None = None, words: str | None = None) -> ChargeLine:
    """A line as the API shows it: of an adjustment with the period that it makes up for; and in other words, if given."""
    origin = line.origin
    return ChargeLine(
        key=line.key,
        kind=line.kind,
        description=description(line) if words is None else words,
        meter=origin.meter,
        plan=origin.plan,
        plan_version=origin.plan_version,
        tier=line.tier,
        period=Period(from_=Instant(line.period.start), to=Instant(line.period.end)),
        quantity=None if line.quantity is None else DecimalText(line.quantity),
        unit_price=None if line.unit_price is None else DecimalText(line.unit_price),
        amount=money_of(line.amount),
        exact_amount=DecimalText(line.exact_amount),
        adjusts=None if adjusts is None else Period(from_=Instant(adjusts.start), to=Instant(adjusts.end)),
    )
