"""Overrides: a person's word on one score. They are only added; each ends by itself."""

from collections.abc import Iterator

import msgspec

from health.faults import override_faults
from health.overrides import Override
from health.scorecards import Subject
from metering.attribute_facts import mark_dirty
from metering.errors import ForbiddenError, InputIssue, InvalidInputError
from metering.events import in_utc
from metering.health.told import owners_of
from metering.input_faults import name_issues
from metering.keys import Caller
from metering.limits import Limits
from metering.store.pool import Database
from metering.store.queries import sql
from metering.subjects import SubjectRef


class OverrideOrder(msgspec.Struct, frozen=True, kw_only=True):
    """An override as it is said, from today on. The account may be left out where the subject itself leads to it."""

    subject: Subject
    key: str
    override: Override
    account: str | None = None
    purpose: str = "health"


async def override_health(database: Database, order: OverrideOrder, key: Caller, limits: Limits) -> SubjectRef:
    """Bound a score until a day. Raises InvalidInputError with every fault; ForbiddenError for a key bound to accounts."""
    if key.accounts is not None:
        raise ForbiddenError(f"The key {key.prefix} is bound to accounts; a word on a score is not theirs.")
    async with database.transaction() as connection:
        (owner,), issues = await owners_of(connection, [order], key, ("input",), is_list=False)
        today = in_utc(await connection.fetchval(sql("subscriptions.read_clock"))).date()
        override = msgspec.structs.replace(order.override, set_on=today)
        issues += _issues(order, override, limits)
        if issues:
            raise InvalidInputError(issues)
        cells = (override.min, override.max, override.reason, override.set_on, override.expires_on, key.signature)
        await connection.execute(
            sql("health.insert_override"), owner, order.subject.value, order.key, order.purpose, *cells
        )
        await mark_dirty(connection, owner)
    return SubjectRef(order.subject, owner, order.key)


def _issues(order: OverrideOrder, override: Override, limits: Limits) -> Iterator[InputIssue]:
    yield from name_issues(order.key, ("input", "key"), limits)
    yield from name_issues(order.purpose, ("input", "purpose"), limits)
    if order.account is not None:
        yield from name_issues(order.account, ("input", "account"), limits)
    if "\0" in override.reason:
        yield InputIssue(("input", "reason"), "A NUL character, which no text can keep.")
    for fault in override_faults(override, today=override.set_on):
        yield InputIssue(("input", *fault.path), f"{fault.message[0].upper()}{fault.message[1:]}.")
