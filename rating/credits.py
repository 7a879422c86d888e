"""Credits that were granted, which of them pay for what, and in which order. Drawing is by double entry.

A credit is an amount of a currency or a quantity of a meter. It moves between pots, and whatever one pot gives another
takes, so that all pots together hold zero at any time. A grant's pot goes below zero only as far as the grant itself allows.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from enum import Enum
from typing import Final

import msgspec

from rating.bounds import FRACTION_DIGITS_MAX
from rating.exact import ZERO, add, cut, multiply, subtract, trimmed
from rating.lines import Origin
from rating.money import Currency, Money, rounded
from rating.payables import Payable
from rating.periods import PRORATED_DIGITS, Period


class Pot(Enum):
    """Where credit comes from, lies, and goes to."""

    ISSUED = "ISSUED"
    GRANT = "GRANT"
    STATEMENT = "STATEMENT"
    EXPIRED = "EXPIRED"
    VOIDED = "VOIDED"


class Grant(msgspec.Struct, frozen=True, kw_only=True):
    """A credit that was granted; `priority` 0 is drawn first. It pays for what falls into [effective_at, expires_at), UTC.

    It is in one thing that can be counted: a currency (then `meter` is None) or a meter's quantity. An amount pays for the
    prices of these `meters` only, where there are any. Its pot may go as far as `overdraft_max` below zero.
    """

    key: str
    effective_at: datetime
    expires_at: datetime | None = None
    priority: int = 0
    currency_code: str | None = None
    meter: str | None = None
    meters: tuple[str, ...] = ()
    overdraft_max: Decimal = ZERO

    def __post_init__(self) -> None:
        assert (self.currency_code is None) != (self.meter is None), "a grant is in a currency or of a meter"

    def within(self, period: Period) -> Period | None:
        """The part of a period that it can pay for."""
        start = max(period.start, self.effective_at)
        end = period.end if self.expires_at is None else min(period.end, self.expires_at)
        return Period(start, end) if start < end else None

    def pays(self, payable: Payable, currency: Currency) -> bool:
        """Whether it may pay for this; of what a statement falls apart into at its bounds and those of other grants."""
        if self.within(payable.period) != payable.period:
            return False
        if self.meter is not None:
            return payable.quantity > ZERO and payable.origin.meter == self.meter
        return self.currency_code == currency.code and (not self.meters or payable.origin.meter in self.meters)


class Draw(msgspec.Struct, frozen=True):
    """What a grant pays of a price: how much is taken out of it (in what it is in), and what that is worth."""

    grant: Grant
    origin: Origin
    amount: Decimal
    worth: Money


class Drawn(msgspec.Struct, frozen=True):
    """What was drawn at one time and is not given back, by a name that tells it from others."""

    name: int
    amount: Decimal
    worth: Money
    is_quantity: bool


_NEVER: Final = datetime.max.replace(tzinfo=UTC)


def drawing_order(grants: Iterable[Grant]) -> list[Grant]:
    """Quantities before amounts; by priority; then what expires first, what is older, and the key: there is one order only."""
    return sorted(
        grants,
        key=lambda grant: (
            grant.meter is None,
            grant.priority,
            grant.expires_at or _NEVER,
            grant.effective_at,
            grant.key,
        ),
    )


def draw_down(
    payables: Sequence[Payable], grants: Iterable[Grant], held: Mapping[str, Decimal], currency: Currency
) -> list[Draw]:
    """Pay from grants, as far as they go: each down to zero, in order, and then those that may be overdrawn, in the same order.

    `payables` are none below zero, and cut at the bounds of all grants; `held` is what is in each grant, by key. A grant
    pays in order of lines, of each the earliest first.
    """
    draws: dict[tuple[str, Origin], Draw] = {}
    left = dict(held)
    open_parts = list(payables)
    order = drawing_order(grants)
    for floors in (dict.fromkeys((grant.key for grant in order), ZERO), {g.key: g.overdraft_max for g in order}):
        for grant in order:
            for place, payable in enumerate(open_parts):
                available = add(left.get(grant.key, ZERO), floors[grant.key])
                if available <= ZERO or not payable.amount.amount or not grant.pays(payable, currency):
                    continue
                draw = _draw(grant, payable, available)
                if draw.worth.amount:
                    left[grant.key] = subtract(left.get(grant.key, ZERO), draw.amount)
                    open_parts[place] = _without(payable, draw)
                    known = draws.get((grant.key, payable.origin))
                    draws[grant.key, payable.origin] = draw if known is None else _together(known, draw)
    return list(draws.values())


def _draw(grant: Grant, payable: Payable, available: Decimal) -> Draw:
    """What a grant pays of this: a quantity pays the share of the amount that it is of the quantity that is charged."""
    if grant.meter is None:
        paid = rounded(min(available, payable.amount.amount), payable.amount.currency)
        return Draw(grant, payable.origin, paid.amount, paid)
    amount = min(available, payable.quantity)
    share = cut(multiply(payable.amount.amount, amount), payable.quantity, PRORATED_DIGITS)
    return Draw(grant, payable.origin, amount, rounded(share, payable.amount.currency))


def _without(payable: Payable, draw: Draw) -> Payable:
    """What is left to be paid for; an amount pays for as much of the quantity as it pays of what that costs."""
    amount = Money(subtract(payable.amount.amount, draw.worth.amount), payable.amount.currency)
    if draw.grant.meter is not None:
        return msgspec.structs.replace(payable, amount=amount, quantity=subtract(payable.quantity, draw.amount))
    quantity = trimmed(cut(multiply(payable.quantity, amount.amount), payable.amount.amount, FRACTION_DIGITS_MAX))
    return msgspec.structs.replace(payable, amount=amount, quantity=quantity)


def _together(one: Draw, other: Draw) -> Draw:
    worth = Money(add(one.worth.amount, other.worth.amount), one.worth.currency)
    return Draw(one.grant, one.origin, add(one.amount, other.amount), worth)


def give_back(drawn: Sequence[Drawn], worth: Decimal) -> list[Drawn]:
    """What of `drawn` (the newest first) is given back for so much worth: of each all, but of the last one, as far as they go.

    Of a quantity so much goes back as its worth is of what it was worth, cut after 18 digits.
    """
    returns: list[Drawn] = []
    for each in drawn:
        if worth <= ZERO:
            break
        taken = min(worth, each.worth.amount)
        amount = each.amount
        if taken < each.worth.amount:
            share = multiply(each.amount, taken)
            amount = trimmed(cut(share, each.worth.amount, FRACTION_DIGITS_MAX)) if each.is_quantity else taken
        if amount > ZERO:
            returns.append(Drawn(each.name, amount, rounded(taken, each.worth.currency), each.is_quantity))
            worth = subtract(worth, taken)
    return returns
