"""Where the value of an account is: the features, products and users that it uses most."""

from collections.abc import Sequence
from datetime import date, timedelta
from typing import Any, Final

from health.lists.rules import Rule
from metering.health.conventions import SERVICE_ACCOUNT, columns_of, read_conventions
from metering.health.gathering import ask
from metering.health.listing import ListedSubject, Reason
from metering.store.queries import sql
from metering.store.snapshot import Snapshot

# Of features, of products and of users.
_SHOWN: Final = 3


async def value_reasons(
    snapshot: Snapshot, rule: Rule, rows: Sequence[ListedSubject], day: date
) -> list[tuple[Reason, ...]]:
    """Of each account what it uses most in the 28 days up to the end of a day."""
    assert not rule.is_internal, "it tells of an account's own usage, and compares it with nobody"
    question = await ask(snapshot, {row.customer.key for row in rows}, day + timedelta(days=1))
    conventions = await read_conventions(snapshot, question.accounts, question.as_of)
    found = await question.of_window(sql("lists.list_values"), *columns_of(conventions.users(SERVICE_ACCOUNT)), _SHOWN)
    reasons: dict[str, list[Reason]] = {}
    for row in found:
        reasons.setdefault(row["account"], []).append(_reason(row))
    return [tuple(reasons.get(row.customer.key, ())) for row in rows]


def _reason(row: Any) -> Reason:
    days, users, kind = row["days"], row["users"], row["kind"]
    used = f"used on {days} of 28 days"
    by = "" if kind == "user" or not users else f", users: {users}"
    return Reason(f"{kind}_days", f"{kind} {row['name']}: {used}{by}", value=float(days), name=row["name"])
