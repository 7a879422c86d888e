"""Credits of accounts: granting them, taking them back, and finding them. Statements draw on them (metering/statements).

What was granted stays as it is: a grant of the same key that says something else is refused. What a voided grant had paid
stays paid; nothing more is drawn on it.
"""

from collections.abc import Iterator, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any, Final

import msgspec

from metering.errors import ConflictError, ForbiddenError, InputIssue, InvalidInputError, NotFoundError
from metering.events import in_utc
from metering.input_faults import instant_issues, issues_of, name_issues
from metering.keys import Caller
from metering.limits import Limits
from metering.meters import find_definitions
from metering.store.pool import Connection, Database
from metering.store.queries import sql
from metering.store.snapshot import Snapshot
from rating.credits import Grant
from rating.exact import ZERO, remainder
from rating.faults import number_faults
from rating.money import Currency, Money, currency_of, rounded

# As large as the column is.
_PRIORITY_MAX: Final = 2**31 - 1


class GrantOrder(msgspec.Struct, frozen=True, kw_only=True):
    """A credit that is to be granted: an amount of a currency, or a quantity of a meter, by the account's own `key`."""

    account: str
    key: str
    amount: Decimal
    currency_code: str | None = None
    meter: str | None = None
    meters: tuple[str, ...] = ()
    priority: int = 0
    overdraft_max: Decimal = ZERO
    effective_at: datetime
    expires_at: datetime | None = None
    note: str | None = None


class CreditGrant(msgspec.Struct, frozen=True, kw_only=True):
    """A credit that was granted, with who and when; and, where it was voided, with who, when and why."""

    id: int
    order: GrantOrder
    # What is in it by all that is booked, whether or not it can be drawn on now.
    balance: Decimal
    granted_at: datetime
    granted_by: str
    voided_at: datetime | None
    voided_by: str | None
    void_reason: str | None

    @property
    def rated(self) -> Grant:
        """The grant as rating has it."""
        order = self.order
        return Grant(
            key=order.key,
            effective_at=order.effective_at,
            expires_at=order.expires_at,
            priority=order.priority,
            currency_code=order.currency_code,
            meter=order.meter,
            meters=order.meters,
            overdraft_max=order.overdraft_max,
        )

    @property
    def currency(self) -> Currency | None:
        """The currency that it is in; None where it is in a quantity."""
        return None if self.order.currency_code is None else known_currency(self.order.currency_code)

    @property
    def ended_at(self) -> datetime | None:
        """When what is left leaves it: when it expires, or was voided before."""
        ends = [at for at in (self.order.expires_at, self.voided_at) if at is not None]
        return max(self.order.effective_at, min(ends)) if ends else None


async def grant_credit(database: Database, order: GrantOrder, key: Caller, limits: Limits) -> CreditGrant:
    """Grant a credit, or find it as it was granted by the same key, and return it.

    Raises InvalidInputError with every fault; ConflictError where the account has a grant of this key that says something
    else, or as many grants as it may have; ForbiddenError for an API key that is bound to accounts.
    """
    if key.accounts is not None:
        raise ForbiddenError(f"The key {key.prefix} is bound to accounts; it grants them no credit.")
    issues = list(_issues(order, limits))
    async with database.transaction() as connection:
        issues += await _meter_issues(connection, order)
        if issues:
            raise InvalidInputError(issues)
        order = _tidied(order)
        await connection.execute(sql("credits.lock_account"), order.account)
        row = await connection.fetchrow(sql("credits.find_grant"), order.account, order.key)
        if row is not None:
            return _same(grant_of(row), order)
        count: int = await connection.fetchval(sql("credits.count_grants"), order.account)
        if count >= limits.account_grants_max:
            raise ConflictError(
                f"The account {order.account!r:.60} has {count:,} grants, which is as many as it may have."
            )
        row = await connection.fetchrow(sql("credits.insert_grant"), *_cells(order), key.signature)
        assert row is not None, "nobody else grants to the account meanwhile"
        await connection.execute(sql("credits.issue"), row["id"])
    return msgspec.structs.replace(grant_of(row), balance=order.amount)


async def void_grant(
    database: Database, account: str, grant_key: str, reason: str, key: Caller, limits: Limits
) -> CreditGrant:
    """Take a grant back: what is left leaves it now, and nothing is drawn on it any more.

    Raises NotFoundError where there is none; ConflictError where it was voided before; InvalidInputError for a reason that
    is none; ForbiddenError for an API key that is bound to accounts.
    """
    if key.accounts is not None:
        raise ForbiddenError(f"The key {key.prefix} is bound to accounts; it takes no credit from them.")
    if not reason.strip() or len(reason) > limits.reason_chars_max or "\0" in reason:
        message = f"A reason has 1 to {limits.reason_chars_max:,} characters, not only spaces, none of them NUL."
        raise InvalidInputError([InputIssue(("input", "reason"), message)])
    named = (account, grant_key)
    missing = NotFoundError(f"The account {account!r:.60} has no grant {grant_key!r:.60}.")
    if any("\0" in name for name in named):
        raise missing
    async with database.transaction() as connection:
        row = await connection.fetchrow(sql("credits.void_grant"), *named, key.signature, reason)
        if row is None and await connection.fetchrow(sql("credits.find_grant"), *named) is not None:
            raise ConflictError("This grant was voided before.")
    if row is None:
        raise missing
    return grant_of(row)


async def find_grant(snapshot: Snapshot, grant_id: int) -> CreditGrant | None:
    """The grant of this id, if there is one."""
    rows = await snapshot.fetch(sql("credits.find_grant_by_id"), [grant_id])
    return grant_of(rows[0]) if rows else None


async def read_drawable(snapshot: Snapshot, accounts: Sequence[str]) -> dict[str, list[CreditGrant]]:
    """The grants of these accounts that something can be drawn on, by account; one statement."""
    found: dict[str, list[CreditGrant]] = {}
    for row in await snapshot.fetch(sql("credits.list_drawable"), [accounts]):
        found.setdefault(row["account"], []).append(grant_of(row))
    return found


def grant_of(row: Any) -> CreditGrant:
    """A row of the table `credit_grant`."""
    return CreditGrant(
        id=row["id"],
        order=GrantOrder(
            account=row["account"],
            key=row["key"],
            amount=row["amount"],
            currency_code=row["currency_code"],
            meter=row["meter"],
            meters=tuple(row["meters"]),
            priority=row["priority"],
            overdraft_max=row["overdraft_max"],
            effective_at=in_utc(row["effective_at"]),
            expires_at=_in_utc(row["expires_at"]),
            note=row["note"],
        ),
        balance=row["balance"],
        granted_at=in_utc(row["granted_at"]),
        granted_by=row["granted_by"],
        voided_at=_in_utc(row["voided_at"]),
        voided_by=row["voided_by"],
        void_reason=row["void_reason"],
    )


def known_currency(code: str) -> Currency:
    """The currency of something that is stored."""
    currency = currency_of(code)
    assert currency is not None, "what is stored is in a currency with a minor unit"
    return currency


def money_in(amount: Decimal, currency: Currency) -> Money:
    """An amount that is whole minor units, with all of its digits."""
    return rounded(amount, currency)


def _in_utc(instant: datetime | None) -> datetime | None:
    return None if instant is None else in_utc(instant)


def _tidied(order: GrantOrder) -> GrantOrder:
    """The same in one spelling: meters sorted, each once, and amounts with the digits of their currency."""
    order = msgspec.structs.replace(order, meters=tuple(sorted(set(order.meters))))
    if order.currency_code is None:
        return order
    currency = known_currency(order.currency_code)
    amounts = (rounded(each, currency).amount for each in (order.amount, order.overdraft_max))
    return msgspec.structs.replace(order, **dict(zip(("amount", "overdraft_max"), amounts, strict=True)))


def _cells(order: GrantOrder) -> tuple[object, ...]:
    return (
        order.account,
        order.key,
        order.currency_code,
        order.meter,
        order.amount,
        list(order.meters),
        order.priority,
        order.overdraft_max,
        order.effective_at,
        order.expires_at,
        order.note,
    )


# The fields by the names that the API gives them, where they are others.
_WORDS: Final = {
    "amount": "credit",
    "currency_code": "credit",
    "meter": "credit",
    "meters": "meters",
    "overdraft_max": "overdraftMax",
    "effective_at": "effectiveAt",
    "expires_at": "expiresAt",
}


def _same(known: CreditGrant, order: GrantOrder) -> CreditGrant:
    """The grant, where it says the same. Raises ConflictError."""
    fields = [name for name in GrantOrder.__struct_fields__ if getattr(known.order, name) != getattr(order, name)]
    if fields:
        words = ", ".join(dict.fromkeys(_WORDS.get(name, name) for name in fields))
        raise ConflictError(
            f"The account {order.account!r:.60} has a grant {order.key!r:.60} with another {words}. "
            "What was granted stays; void it, and grant another one by another key."
        )
    return known


# ---------------------------------------------------------------- faults


def _issues(order: GrantOrder, limits: Limits) -> Iterator[InputIssue]:
    yield from name_issues(order.account, ("input", "account"), limits)
    yield from name_issues(order.key, ("input", "key"), limits)
    yield from _amount_issues(order)
    if not 0 <= order.priority <= _PRIORITY_MAX:
        yield InputIssue(("input", "priority"), f"This must be 0 to {_PRIORITY_MAX:,}; 0 is drawn first.")
    yield from instant_issues(order.effective_at, ("input", "effectiveAt"), limits)
    yield from instant_issues(order.expires_at, ("input", "expiresAt"), limits)
    if order.expires_at is not None and order.expires_at <= order.effective_at:
        yield InputIssue(("input", "expiresAt"), "This must be later than effectiveAt: a grant pays for some time.")
    if order.note is not None and (len(order.note) > limits.reason_chars_max or "\0" in order.note):
        yield InputIssue(("input", "note"), f"{limits.reason_chars_max:,} characters at most, none of them NUL.")
    if len(order.meters) > limits.filter_values_max:
        yield InputIssue(("input", "credit", "amount", "meters"), f"{limits.filter_values_max:,} meters at most.")


def _amount_issues(order: GrantOrder) -> Iterator[InputIssue]:
    kind, name = ("amount", "amount") if order.currency_code is not None else ("quantity", "quantity")
    path = ("credit", kind, name)
    currency = None if order.currency_code is None else currency_of(order.currency_code)
    if order.currency_code is not None and currency is None:
        message = f"{order.currency_code!r:.60} is not a currency of ISO 4217 with a minor unit; for example EUR."
        yield InputIssue(("input", "credit", "amount", "currencyCode"), message)
    for amount, where in ((order.amount, path), (order.overdraft_max, ("overdraftMax",))):
        faults = list(number_faults(amount, where))
        yield from issues_of(faults)
        if faults:
            continue
        if amount < ZERO or (where == path and not amount):
            least = "more than zero" if where == path else "zero or more"
            yield InputIssue(("input", *where), f"This must be {least}.")
        if currency is not None and remainder(amount, currency.quantum):
            message = f"This must be a whole number of the currency's minor unit, which is {currency.quantum:f}."
            yield InputIssue(("input", *where), message)


async def _meter_issues(connection: Connection, order: GrantOrder) -> list[InputIssue]:
    """Meters that are not there: what pays for nothing is a slip."""
    named = dict.fromkeys(order.meters, ("input", "credit", "amount", "meters"))
    if order.meter is not None:
        named[order.meter] = ("input", "credit", "quantity", "meter")
    known = await find_definitions(connection, list(named)) if named else {}
    return [
        InputIssue(path, f"There is no meter {meter!r:.60}; put the meter first.")
        for meter, path in named.items()
        if meter not in known
    ]
