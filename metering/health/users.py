"""Users of accounts: what is said of them, their roles above all. They are known within their account."""

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

import msgspec

from health.scorecards import Subject
from metering.attribute_facts import log_attributes
from metering.errors import ForbiddenError, InputIssue, InvalidInputError
from metering.input_faults import attributes_issues, instant_issues, name_issues
from metering.keys import Caller
from metering.limits import Limits
from metering.store.pool import Connection, Database
from metering.store.queries import sql
from metering.subjects import SubjectRef


class UserOrder(msgspec.Struct, frozen=True, kw_only=True):
    """A user as it is put: all attributes that it has from an instant on (now, if None); the instant is UTC."""

    account: str
    key: str
    attributes: Mapping[str, Any] = {}
    at: datetime | None = None


async def put_user(database: Database, order: UserOrder, key: Caller, limits: Limits) -> SubjectRef:
    """Say what is known of a user from an instant on.

    Raises InvalidInputError with every fault; ForbiddenError for a key that is bound to accounts.
    """
    if key.accounts is not None:
        raise ForbiddenError(
            f"The key {key.prefix} is bound to accounts; it does not say what is known of their users."
        )
    ref = SubjectRef(Subject.USER, order.account, order.key)
    async with database.transaction() as connection:
        now: datetime = await connection.fetchval(sql("subscriptions.read_clock"))
        issues = list(_issues(order, now, limits))
        if issues:
            raise InvalidInputError(issues)
        await take_turns(connection, ref)
        await log_attributes(connection, ref, order.attributes, key.signature, order.at)
    return ref


async def take_turns(connection: Connection, ref: SubjectRef) -> None:
    """Be the only one to say something of a subject until the transaction ends."""
    await connection.execute(
        sql("attributes.take_turns"), f"{ref.subject.value} {len(ref.account)} {ref.account} {ref.key}"
    )


def _issues(order: UserOrder, now: datetime, limits: Limits) -> Iterator[InputIssue]:
    yield from name_issues(order.account, ("input", "account"), limits)
    yield from name_issues(order.key, ("input", "key"), limits)
    yield from attributes_issues(order.attributes, ("input", "attributes"), limits)
    yield from instant_issues(order.at, ("input", "at"), limits)
    if order.at is not None and order.at > now + limits.occurred_ahead_max:
        yield InputIssue(("input", "at"), f"{order.at:%FT%TZ} is in the future; nothing is told before it is so.")
