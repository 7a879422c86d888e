"""What credits pay on a statement: its lines of kind CREDIT, as they are kept; and what drawing them takes."""

from collections.abc import Iterable
from decimal import Decimal

import msgspec

from metering.credits import CreditGrant
from rating.exact import add
from rating.lines import Origin
from rating.money import Currency, Money, sum_of
from rating.payables import Payable


class CreditLine(msgspec.Struct, frozen=True):
    """What a grant pays of a price, below zero; or what of that is given back, above, and then of no price.

    `quantity` is what a grant of a meter's quantity covers. The statement's total is before these lines.
    """

    grant: str
    amount: Money
    quantity: Decimal | None = None
    origin: Origin | None = None

    @property
    def description(self) -> str:
        """What the line is, in words."""
        if self.origin is None:
            return f"credit {self.grant} given back"
        return f"{self.origin.price or f'plan {self.origin.plan}'}: credit {self.grant}"


class Basis(msgspec.Struct, frozen=True):
    """What of a draft can be paid for, and the grants that may pay some of it, as of its snapshot."""

    payables: tuple[Payable, ...]
    grants: tuple[CreditGrant, ...]


class _Record(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    grant: str
    amount: str
    quantity: str | None = None
    plan: str | None = None
    plan_version: int | None = None
    price: str | None = None
    meter: str | None = None


def owed_after(total: Money, credits: Iterable[CreditLine]) -> Money:
    """What a statement comes to after credits."""
    return Money(add(total.amount, sum_of((each.amount for each in credits), total.currency).amount), total.currency)


def credits_json(lines: Iterable[CreditLine]) -> str:
    """The lines as they are kept."""
    return msgspec.json.encode([_record(line) for line in lines]).decode()


def read_credits(text: str, currency: Currency) -> tuple[CreditLine, ...]:
    """The lines that were kept."""
    return tuple(_line(record, currency) for record in msgspec.json.decode(text, type=list[_Record]))


def _record(line: CreditLine) -> _Record:
    quantity = None if line.quantity is None else f"{line.quantity:f}"
    if line.origin is None:
        return _Record(line.grant, f"{line.amount.amount:f}", quantity)
    origin = line.origin
    return _Record(
        line.grant,
        f"{line.amount.amount:f}",
        quantity,
        origin.plan,
        origin.plan_version,
        origin.price,
        origin.meter,
    )


def _line(record: _Record, currency: Currency) -> CreditLine:
    origin = None
    if record.plan is not None and record.plan_version is not None:
        origin = Origin(plan=record.plan, plan_version=record.plan_version, price=record.price, meter=record.meter)
    quantity = None if record.quantity is None else Decimal(record.quantity)
    return CreditLine(record.grant, Money(Decimal(record.amount), currency), quantity, origin)
