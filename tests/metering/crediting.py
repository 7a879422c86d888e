"""What the tests of credits share: granting and voiding, balances and the ledger, and what holds of every ledger."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any

from metering.credit_ledger import CreditBalance, Entry, place_of, read_balance, read_ledger
from metering.credits import CreditGrant, GrantOrder, grant_credit, void_grant
from metering.limits import LIMITS
from metering.statements.history import FinalStatement, StatementStatus
from metering.statements.read import Statement
from metering.store.pool import Database
from metering.store.snapshot import Snapshot
from rating.credits import Pot
from tests.metering.billing import BILLING_KEY, listed
from tests.metering.catalog import rows
from tests.rating.tables import at


def grant_order(key: str, amount: str, **fields: Any) -> GrantOrder:
    """A grant to acme since 2025, in EUR unless `meter` or another currency is given."""
    given: dict[str, Any] = {"account": "acme", "effective_at": at("2025-01-01"), **fields}
    if "meter" not in given:
        given.setdefault("currency_code", "EUR")
    return GrantOrder(key=key, amount=Decimal(amount), **given)


async def give(database: Database, key: str, amount: str, **fields: Any) -> CreditGrant:
    """Grant a credit."""
    return await grant_credit(database, grant_order(key, amount, **fields), BILLING_KEY, LIMITS)


async def revoke(database: Database, key: str, account: str = "acme") -> CreditGrant:
    """Void a grant."""
    return await void_grant(database, account, key, "a mistake", BILLING_KEY, LIMITS)


async def balance(database: Database, instant: str | datetime | None = None, account: str = "acme") -> CreditBalance:
    """An account's balance."""
    moment = at(instant) if isinstance(instant, str) else instant
    async with Snapshot(database) as snapshot:
        return await read_balance(snapshot, account, moment, LIMITS)


async def left(database: Database, instant: str | datetime | None = None) -> dict[str, str]:
    """What is in the grants of acme at an instant."""
    return {each.grant.order.key: f"{each.balance:f}" for each in (await balance(database, instant)).grants}


async def ledger(database: Database, account: str = "acme") -> list[Entry]:
    """All entries, read three at a time."""
    found: list[Entry] = []
    async with Snapshot(database) as snapshot:
        has_more = True
        while has_more:
            page, has_more = await read_ledger(snapshot, account, 3, place_of(found[-1]) if found else None)
            found += page
    return found


def credited(statement: Statement) -> list[str]:
    """Its lines of credit as a reader sees them."""
    return [f"{each.description} {each.amount.amount}" for each in statement.credits]


def moves(entries: Sequence[Entry]) -> list[str]:
    """Entries as a reader sees them: of when, from where to where, how much."""
    return [
        f"{each.effective_at:%m-%d} {each.grant} {each.source.value}>{each.target.value} {each.amount:f}"
        for each in entries
    ]


async def check_books(database: Database, account: str = "acme") -> None:
    """What holds of every ledger, whatever happened.

    All pots together hold zero in every unit; each grant is, at the instants of its entries and around them, what was granted
    less drawn, expired and voided, and never below what it allows; what statements show is what is booked.
    """
    entries = await ledger(database, account)
    pots: dict[tuple[str | None, str | None, Pot], Fraction] = {}
    for each in entries:
        for pot, sign in ((each.source, -1), (each.target, 1)):
            of = (each.currency_code, each.meter, pot)
            pots[of] = pots.get(of, Fraction(0)) + sign * Fraction(each.amount)
    units = {of[:2] for of in pots}
    assert all(sum(held for of, held in pots.items() if of[:2] == unit) == 0 for unit in units)

    instants = sorted({each.effective_at for each in entries})
    for instant in {moment + step for moment in instants for step in (-timedelta.resolution, timedelta(0))}:
        for each in (await balance(database, instant, account)).grants:
            known = [one for one in entries if one.grant == each.grant.order.key and one.effective_at <= instant]
            held = sum(
                (Fraction(one.amount) * (1 if one.target is Pot.GRANT else -1) for one in known), start=Fraction(0)
            )
            assert held == Fraction(each.balance)
            assert each.granted - each.drawn - each.expired - each.voided == each.balance
            assert each.balance >= -each.grant.order.overdraft_max
    stored = await rows(
        database,
        "SELECT balance = (SELECT sum(CASE WHEN target = 'GRANT' THEN amount ELSE -amount END) FROM credit_entry "
        "WHERE grant_id = credit_grant.id) FROM credit_grant",
    )
    assert all(matches for (matches,) in stored)
    await _check_statements(database, entries, account)


async def _check_statements(database: Database, entries: Sequence[Entry], account: str) -> None:
    booked: dict[int | None, Fraction] = {}
    for each in entries:
        if each.worth is not None:
            sign = 1 if each.target is Pot.STATEMENT else -1
            booked[each.statement] = booked.get(each.statement, Fraction(0)) + sign * Fraction(each.worth.amount)
    for statement in await listed(database, accounts=[account]):
        if isinstance(statement, FinalStatement):
            shown = -sum((Fraction(each.amount.amount) for each in statement.credits), start=Fraction(0))
            counts = statement.status is StatementStatus.FINAL
            assert booked.get(statement.id, Fraction(0)) == (shown if counts else 0)
            # Credits pay what is owed, and no more; and give back no more than is owed the other way round.
            total, owed = statement.total.amount, statement.owed.amount
            assert 0 <= owed <= total or total <= owed <= 0
