"""Credits that were granted, and how they are drawn down: in a fixed order, and by double entry.

A credit is an amount of a currency or a quantity of a meter. It moves between pots, and whatever one pot gives another
takes, so that all pots together hold zero at any time. A grant's pot never goes below zero; only the overdraft does, as far
as it is allowed to.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from enum import Enum
from typing import Final

import msgspec

from rating.exact import ZERO, add, subtract


class PotKind(Enum):
    """Where credit comes from, lies, and goes to."""

    ISSUED = "ISSUED"
    GRANT = "GRANT"
    SPENT = "SPENT"
    EXPIRED = "EXPIRED"
    OVERDRAFT = "OVERDRAFT"


class Pot(msgspec.Struct, frozen=True):
    """A pot, by its kind and key: the grant's, what it was spent on, or none."""

    kind: PotKind
    key: str = ""


class Grant(msgspec.Struct, frozen=True, kw_only=True):
    """A credit that was granted; `priority` 0 is drawn first. Usable in [effective_at, expires_at), both UTC.

    It is in one thing that can be counted: a currency (then `meter` is None) or a meter's quantity.
    """

    key: str
    effective_at: datetime
    expires_at: datetime | None = None
    priority: int = 0
    currency_code: str | None = None
    meter: str | None = None

    def __post_init__(self) -> None:
        assert (self.currency_code is None) != (self.meter is None), "a grant is in a currency or of a meter"

    def usable_at(self, instant: datetime) -> bool:
        """Whether it can be drawn on then."""
        return self.effective_at <= instant and not self.expired_at(instant)

    def expired_at(self, instant: datetime) -> bool:
        """Whether it can be drawn on no more."""
        return self.expires_at is not None and self.expires_at <= instant


class Transfer(msgspec.Struct, frozen=True, kw_only=True):
    """One entry on both sides: the source gives what the target takes. The amount is above zero."""

    at: datetime
    source: Pot
    target: Pot
    amount: Decimal

    def __post_init__(self) -> None:
        assert self.amount > ZERO, "a transfer moves something, from its source to its target"


class Drawing(msgspec.Struct, frozen=True):
    """The transfers that cover an amount, and what of it no credit covers."""

    transfers: tuple[Transfer, ...]
    uncovered: Decimal


ISSUED: Final = Pot(PotKind.ISSUED)
EXPIRED: Final = Pot(PotKind.EXPIRED)
OVERDRAFT: Final = Pot(PotKind.OVERDRAFT)
_NEVER: Final = datetime.max.replace(tzinfo=UTC)


def issue(grant: Grant, amount: Decimal) -> Transfer:
    """Put a grant's credit into its pot."""
    return Transfer(at=grant.effective_at, source=ISSUED, target=Pot(PotKind.GRANT, grant.key), amount=amount)


def balances(transfers: Iterable[Transfer]) -> dict[Pot, Decimal]:
    """What each pot holds after the transfers; together they hold zero."""
    held: dict[Pot, Decimal] = {}
    for transfer in transfers:
        held[transfer.source] = subtract(held.get(transfer.source, ZERO), transfer.amount)
        held[transfer.target] = add(held.get(transfer.target, ZERO), transfer.amount)
    return held


def drawing_order(grants: Iterable[Grant]) -> list[Grant]:
    """By priority; then what expires first, what is older, and the key, so that there is one order only."""
    return sorted(grants, key=lambda grant: (grant.priority, grant.expires_at or _NEVER, grant.effective_at, grant.key))


def draw_down(
    grants: Sequence[Grant],
    held: Mapping[Pot, Decimal],
    amount: Decimal,
    *,
    at: datetime,
    spent_on: str,
    overdraft_max: Decimal = ZERO,
) -> Drawing:
    """Cover an amount (or a quantity) from grants that are all in it; nothing is drawn for an amount of zero or less.

    `held` is what balances() says. What the grants do not cover may overdraw, by `overdraft_max` in all.
    """
    target, transfers, open_amount = Pot(PotKind.SPENT, spent_on), [], max(amount, ZERO)
    sources = [
        (pot, held.get(pot, ZERO))
        for grant in drawing_order(grants)
        if grant.usable_at(at)
        for pot in [Pot(PotKind.GRANT, grant.key)]
    ]
    sources.append((OVERDRAFT, add(overdraft_max, held.get(OVERDRAFT, ZERO))))
    for pot, available in sources:
        taken = min(open_amount, available)
        if taken > ZERO:
            transfers.append(Transfer(at=at, source=pot, target=target, amount=taken))
            open_amount = subtract(open_amount, taken)
    return Drawing(tuple(transfers), open_amount)


def expire(grants: Iterable[Grant], held: Mapping[Pot, Decimal], *, at: datetime) -> tuple[Transfer, ...]:
    """Take out of their pots what can be drawn on no more, as of when each grant expired."""
    return tuple(
        Transfer(at=grant.expires_at, source=pot, target=EXPIRED, amount=held[pot])
        for grant in drawing_order(grants)
        for pot in [Pot(PotKind.GRANT, grant.key)]
        if grant.expires_at is not None and grant.expired_at(at) and held.get(pot, ZERO) > ZERO
    )


def give_back(transfers: Iterable[Transfer], *, at: datetime) -> tuple[Transfer, ...]:
    """Undo transfers, the last first: what was spent on a statement that is void goes back to where it came from."""
    return tuple(
        Transfer(at=at, source=transfer.target, target=transfer.source, amount=transfer.amount)
        for transfer in reversed(tuple(transfers))
    )
