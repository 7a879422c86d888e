"""Accounts: what is known of a customer besides its usage. Usage and subscriptions name accounts that were never put, too."""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec

from health.scorecards import Subject
from metering.attribute_facts import log_attributes
from metering.errors import ForbiddenError, InputIssue, InvalidInputError
from metering.input_faults import attributes_issues, name_issues
from metering.keys import Caller
from metering.limits import Limits
from metering.store.pool import Database
from metering.store.queries import sql
from metering.subjects import SubjectRef


class AccountOrder(msgspec.Struct, frozen=True, kw_only=True):
    """An account as it is put."""

    key: str
    name: str
    attributes: Mapping[str, Any] = {}


class Account(msgspec.Struct, frozen=True):
    """An account of the catalog."""

    key: str
    name: str
    # A JSON object.
    attributes: str
    created_at: datetime


async def put_account(database: Database, order: AccountOrder, key: Caller, limits: Limits) -> Account:
    """Put an account: make it, change it, or find it as it is, and return it as it then stands.

    Raises InvalidInputError with every fault; ForbiddenError for a key that is bound to accounts.
    """
    if key.accounts is not None:
        raise ForbiddenError(f"The key {key.prefix} is bound to accounts; it does not say what is known of them.")
    issues = list(_issues(order, limits))
    if issues:
        raise InvalidInputError(issues)
    attributes = msgspec.json.encode(order.attributes).decode()
    async with database.transaction() as connection:
        row = await connection.fetchrow(sql("accounts.put_account"), order.key, order.name, attributes, key.signature)
        if row is None:
            row = await connection.fetchrow(sql("accounts.find_account"), order.key)
        else:
            ref = SubjectRef(Subject.ACCOUNT, order.key, order.key)
            await log_attributes(connection, ref, order.attributes, key.signature)
    return _account(row)


def _account(row: Any) -> Account:
    return Account(row["key"], row["name"], row["attributes"], row["created_at"].astimezone(UTC))


def _issues(order: AccountOrder, limits: Limits) -> Iterator[InputIssue]:
    yield from name_issues(order.key, ("input", "key"), limits)
    yield from name_issues(order.name, ("input", "name"), limits)
    yield from attributes_issues(order.attributes, ("input", "attributes"), limits)
