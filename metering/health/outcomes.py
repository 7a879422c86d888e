"""Outcomes: what became of accounts and subscriptions. Only added, and known by source and external id, as signals are."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from enum import Enum
from typing import Any

import msgspec

from health.scorecards import Subject
from metering.attribute_facts import mark_dirty_of
from metering.errors import InputIssue, InvalidInputError
from metering.health.signals import Recorded
from metering.health.told import Told, identities_of, owners_of, record_told, told_issues
from metering.input_faults import Path, issues_of
from metering.keys import Caller
from metering.limits import Limits
from metering.store.pool import Database
from metering.store.queries import sql
from rating.exact import plain, remainder
from rating.faults import number_faults
from rating.money import currency_of


class OutcomeKind(Enum):
    """What became of a customer."""

    RENEWED = "RENEWED"
    CHURNED = "CHURNED"
    CONTRACTED = "CONTRACTED"
    EXPANDED = "EXPANDED"
    CONVERTED = "CONVERTED"
    TRIAL_LOST = "TRIAL_LOST"


class OutcomeOrder(msgspec.Struct, frozen=True, kw_only=True):
    """An outcome as it is told. The amount is by how much the recurring revenue of a month moved, in this currency."""

    subject: Subject
    key: str
    kind: OutcomeKind
    at: datetime
    source: str
    account: str | None = None
    external_id: str | None = None
    monthly_amount_change: Decimal | None = None
    currency_code: str | None = None
    reason: str | None = None


async def record_outcomes(
    database: Database, orders: Sequence[OutcomeOrder], key: Caller, limits: Limits, *, path: Path = ("input",)
) -> Recorded:
    """Record outcomes, all or none of them. Raises InvalidInputError with every fault of every one."""
    if len(orders) > limits.request_signals_max:
        message = f"{limits.request_signals_max:,} outcomes are taken at once; this is {len(orders):,}."
        raise InvalidInputError([InputIssue(path, message)])
    async with database.transaction() as connection:
        now: datetime = await connection.fetchval(sql("subscriptions.read_clock"))
        owners, issues = await owners_of(connection, orders, key, path)
        for index, order in enumerate(orders):
            issues += _issues(order, now, limits, (*path, str(index)))
        if issues:
            raise InvalidInputError(issues)
        told = [
            Told(account, identities_of(account, order, order.source, order.external_id), _cells(order))
            for account, order in zip(owners, orders, strict=True)
        ]
        accepted = await record_told(
            connection, sql("outcomes.insert_outcomes"), sql("outcomes.find_contents"), told, key, path
        )
        if accepted:
            days = [(account, order.at.date()) for account, order in zip(owners, orders, strict=True)]
            await mark_dirty_of(connection, {account: min(d for a, d in days if a == account) for account in owners})
    return Recorded(accepted, len(orders) - accepted)


def _issues(order: OutcomeOrder, now: datetime, limits: Limits, path: Path) -> Iterator[InputIssue]:
    yield from told_issues(order, order.source, order.external_id, now, limits, path)
    if order.subject is Subject.USER:
        yield InputIssue((*path, "subject"), "Accounts and subscriptions are renewed and lost; a user is not.")
    if order.reason is not None and (len(order.reason) > limits.reason_chars_max or "\0" in order.reason):
        message = f"A reason has {limits.reason_chars_max:,} characters at most, none of them NUL."
        yield InputIssue((*path, "reason"), message)
    yield from _amount_issues(order, path)


def _amount_issues(order: OutcomeOrder, path: Path) -> Iterator[InputIssue]:
    amount, code = order.monthly_amount_change, order.currency_code
    here = (*path, "monthlyAmountChange")
    if amount is None:
        return
    faults = list(issues_of(number_faults(amount, here[1:])))
    if faults:
        yield from faults
        return
    currency = None if code is None else currency_of(code)
    if currency is None:
        yield InputIssue(here, f"{code!r:.60} is no currency of ISO 4217 with a minor unit.")
    elif remainder(amount, currency.quantum):
        yield InputIssue(here, f"{plain(amount)} is no whole number of minor units ({currency.quantum} {code}).")


def _cells(order: OutcomeOrder) -> Mapping[str, Any]:
    return {
        "subject": order.subject.value,
        "key": order.key,
        "kind": order.kind.value,
        "at": order.at,
        "mrr_delta": order.monthly_amount_change,
        "currency_code": order.currency_code,
        "reason": order.reason,
        "source": order.source,
        "external_id": order.external_id,
    }
