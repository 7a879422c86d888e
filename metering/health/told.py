"""What signals and outcomes have in common: whose they are, when they were so, and by what they are known."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from hashlib import blake2b
from typing import Any, Final, Protocol, TypeAlias

import msgspec

from health.scorecards import Subject
from metering.errors import InputIssue, InvalidInputError
from metering.input_faults import Path, instant_issues, name_issues
from metering.keys import Caller
from metering.limits import Limits
from metering.store.pool import Connection
from metering.store.queries import sql

_DIGEST_BYTES: Final = 16


class OfSubject(Protocol):
    """What names a subject."""

    @property
    def subject(self) -> Subject:
        """Of what kind it is."""

    @property
    def key(self) -> str:
        """Which one."""

    @property
    def account(self) -> str | None:
        """Whose it is; None where the subject leads to it."""


class Order(OfSubject, Protocol):
    """What is told of a subject."""

    @property
    def at(self) -> datetime:
        """When it was so."""


class Identities(msgspec.Struct, frozen=True):
    """What it is known by, and what it says."""

    identity: bytes
    content: bytes


class Told(msgspec.Struct, frozen=True):
    """What is to be recorded of an account, by column."""

    account: str
    known_by: Identities
    cells: Mapping[str, Any]


Issues: TypeAlias = list[InputIssue]


async def owners_of(
    connection: Connection, orders: Sequence[OfSubject], key: Caller, path: Path, *, is_list: bool = True
) -> tuple[list[str], Issues]:
    """The account of each subject, and what keeps one from being known: no such subscription, or none that the caller reaches.

    `path` leads to the list, or to the only one where there is none.
    """
    asked = {each.key for each in orders if each.subject is Subject.SUBSCRIPTION and each.account is None}
    rows = await connection.fetch(sql("signals.find_owners"), [text for text in asked if "\0" not in text])
    found = {row["key"]: row["account"] for row in rows if key.reach.shows_account(row["account"])}
    owners: list[str] = []
    issues: Issues = []
    for index, order in enumerate(orders):
        here = (*path, str(index)) if is_list else path
        owner = order.account
        match order.subject:
            case Subject.ACCOUNT:
                if owner is not None and owner != order.key:
                    issues.append(
                        InputIssue((*here, "account"), "The key of an account is the account; leave this out.")
                    )
                owner = order.key
            case Subject.SUBSCRIPTION if owner is None:
                owner = found.get(order.key)
                if owner is None:
                    message = (
                        f"There is no subscription {order.key!r:.60}; put it first, or say whose it is by `account`."
                    )
                    issues.append(InputIssue((*here, "key"), message))
            case Subject.USER if owner is None:
                issues.append(InputIssue((*here, "account"), "Users are known within their account; say which."))
            case _:
                pass
        if owner is not None and not key.reach.shows_account(owner):
            issues.append(InputIssue(here, f"The key {key.prefix} may not write to the account {owner!r:.60}."))
        owners.append(owner or "")
    return owners, issues


def told_issues(
    order: Order, source: str, external_id: str | None, now: datetime, limits: Limits, path: Path
) -> Iterator[InputIssue]:
    """All faults of what both have."""
    yield from name_issues(order.key, (*path, "key"), limits)
    if order.account is not None:
        yield from name_issues(order.account, (*path, "account"), limits)
    yield from name_issues(source, (*path, "source"), limits)
    if external_id is not None:
        yield from name_issues(external_id, (*path, "externalId"), limits)
    yield from instant_issues(order.at, (*path, "at"), limits)
    if order.at > now + limits.occurred_ahead_max:
        yield InputIssue((*path, "at"), f"{order.at:%FT%TZ} is in the future; nothing is told before it is so.")


def identities_of(account: str, order: msgspec.Struct, source: str, external_id: str | None) -> Identities:
    """By source and external id, where there is one; otherwise by all that it says."""
    content = _digest({**msgspec.structs.asdict(order), "account": account})
    return Identities(content if external_id is None else _digest([source, external_id]), content)


def _digest(value: object) -> bytes:
    return blake2b(msgspec.json.encode(value, order="deterministic"), digest_size=_DIGEST_BYTES).digest()


async def record_told(
    connection: Connection, insert: str, find_contents: str, told: Sequence[Told], key: Caller, path: Path
) -> int:
    """Record what is new, and say how much that is. Raises InvalidInputError where an id stands for something else already."""
    if not told:
        return 0
    first: dict[tuple[str, bytes], Told] = {}
    for each in told:
        first.setdefault((each.account, each.known_by.identity), each)
    # In one order, so that who records the same at once waits for us and not we for it.
    new = [first[name] for name in sorted(first)]
    columns = [[each.cells[name] for each in new] for name in new[0].cells]
    accounts = [each.account for each in new]
    identities = [each.known_by.identity for each in new]
    rows = await connection.fetch(
        insert, accounts, identities, [each.known_by.content for each in new], key.signature, *columns
    )
    kept = {
        (row["account"], row["identity"]): row["content"]
        for row in await connection.fetch(find_contents, accounts, identities)
    }
    issues = [
        InputIssue(
            (*path, str(index), "externalId"),
            f"{each.cells['external_id']!r:.60} of the source {each.cells['source']!r:.60} is recorded with other content; "
            "what is recorded stays. Send what is new by another id.",
        )
        for index, each in enumerate(told)
        if kept[each.account, each.known_by.identity] != each.known_by.content
    ]
    if issues:
        raise InvalidInputError(issues)
    return len(rows)
