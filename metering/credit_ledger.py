"""What an account's credits were at any instant, and the ledger of how they came to it.

Entries hold from the instant that they are of: what a statement drew from the end of what it paid for, and what is given
back from the same instant on, as if it had not been drawn. So no balance was ever below what its grant allows, at any
instant, in whatever order statements were frozen. What is left when a grant ends leaves it then; that is not booked, for
it is known from the grant alone, also where a statement of before is frozen later.
"""

from datetime import datetime
from decimal import Decimal

import msgspec

from metering.credits import CreditGrant, grant_of, known_currency, money_in
from metering.errors import InvalidInputError
from metering.events import in_utc
from metering.input_faults import instant_issues
from metering.limits import Limits
from metering.store.queries import sql
from metering.store.snapshot import Snapshot
from rating.credits import Pot
from rating.exact import ZERO, add, subtract
from rating.money import Money


class GrantBalance(msgspec.Struct, frozen=True):
    """A grant at an instant, in what it is in: granted - drawn - expired - voided = balance."""

    grant: CreditGrant
    granted: Decimal
    # What was drawn and not given back.
    drawn: Decimal
    expired: Decimal
    voided: Decimal
    balance: Decimal


class CreditBalance(msgspec.Struct, frozen=True):
    """An account's credits at an instant: its grants by key, and what they come to, by currency and by meter."""

    account: str
    at: datetime
    as_of: datetime
    grants: tuple[GrantBalance, ...]
    amounts: tuple[Money, ...]
    quantities: tuple[tuple[str, Decimal], ...]


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """An amount that one pot gave and another took; in the grant's currency, or of its meter.

    `worth` is what it was on the statement. `booked_by` is None where a grant expired.
    """

    id: int
    grant: str
    source: Pot
    target: Pot
    amount: Decimal
    currency_code: str | None
    meter: str | None
    worth: Money | None
    statement: int | None
    effective_at: datetime
    booked_at: datetime
    booked_by: str | None
    # Whether it left when the grant ended.
    is_end: bool


class EntryPlace(msgspec.Struct, frozen=True):
    """Where an entry stands in its account's ledger."""

    effective_at: datetime
    is_end: bool
    id: int


async def read_balance(snapshot: Snapshot, account: str, at: datetime | None, limits: Limits) -> CreditBalance:
    """An account's credits at an instant (None: now), by all that is booked.

    Raises InvalidInputError for an instant of no calendar.
    """
    as_of = in_utc((await snapshot.horizon()).as_of)
    issues = list(instant_issues(at, ("at",), limits))
    if issues:
        raise InvalidInputError(issues)
    instant = as_of if at is None else at
    rows = [] if "\0" in account else await snapshot.fetch(sql("credits.read_balances"), [account, instant])
    grants = tuple(_balance(grant_of(row), row["issued"], row["drawn"], instant) for row in rows)
    amounts: dict[str, Decimal] = {}
    quantities: dict[str, Decimal] = {}
    for each in grants:
        order = each.grant.order
        sums, unit = (amounts, order.currency_code) if order.meter is None else (quantities, order.meter)
        sums[str(unit)] = add(sums.get(str(unit), ZERO), each.balance)
    return CreditBalance(
        account=account,
        at=instant,
        as_of=as_of,
        grants=grants,
        amounts=tuple(money_in(amounts[code], known_currency(code)) for code in sorted(amounts)),
        quantities=tuple((meter, quantities[meter]) for meter in sorted(quantities)),
    )


def _balance(grant: CreditGrant, issued: Decimal, drawn: Decimal, at: datetime) -> GrantBalance:
    held, left = subtract(issued, drawn), ZERO
    ended_at = grant.ended_at
    if ended_at is not None and ended_at <= at:
        # What was overdrawn stays owed.
        left = max(held, ZERO)
    is_voided = grant.voided_at is not None and (
        grant.order.expires_at is None or grant.voided_at < grant.order.expires_at
    )
    expired, voided = (ZERO, left) if is_voided else (left, ZERO)
    return GrantBalance(grant, issued, drawn, expired, voided, subtract(held, left))


async def read_ledger(
    snapshot: Snapshot, account: str, first: int, after: EntryPlace | None
) -> tuple[list[Entry], bool]:
    """The `first` entries of an account behind a place, in order of the instants that they are of; and whether there are more."""
    if "\0" in account:
        return [], False
    as_of = (await snapshot.horizon()).as_of
    place = (None, None, None) if after is None else (after.effective_at, after.is_end, after.id)
    rows = await snapshot.fetch(sql("credits.list_entries"), [account, as_of, *place, first + 1])
    entries = [
        Entry(
            id=row["id"],
            grant=row["key"],
            source=Pot(row["source"]),
            target=Pot(row["target"]),
            amount=row["amount"],
            currency_code=row["currency_code"],
            meter=row["meter"],
            worth=None if row["worth"] is None else money_in(row["worth"], known_currency(row["worth_currency"])),
            statement=row["statement_id"],
            effective_at=in_utc(row["effective_at"]),
            booked_at=in_utc(row["booked_at"]),
            booked_by=row["booked_by"] if row["target"] != Pot.EXPIRED.value else None,
            is_end=row["is_end"],
        )
        for row in rows[:first]
    ]
    return entries, len(rows) > first


def place_of(entry: Entry) -> EntryPlace:
    """Where it stands."""
    return EntryPlace(entry.effective_at, entry.is_end, entry.id)
