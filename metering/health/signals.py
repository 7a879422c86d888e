"""Signals: dated values that we are told of customers, by name. They are only added, and known by source and external id.

Sending a signal again is no harm: what is recorded stays, and is counted as a duplicate. The same source and id with other
content is refused, for nobody could say which of the two is meant.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

import msgspec

from health.scorecards import Subject
from metering.attribute_facts import mark_dirty_of
from metering.errors import ForbiddenError, InputIssue, InvalidInputError
from metering.health.told import Told, identities_of, owners_of, record_told, told_issues
from metering.input_faults import Path, instant_issues, name_issues
from metering.keys import Caller
from metering.limits import Limits
from metering.store.pool import Connection, Database
from metering.store.queries import sql

# What a customer success manager says, 1 critical to 5 excellent; with a note, and for no longer than this.
PULSE: Final = "pulse"
PULSE_MIN: Final = 1.0
PULSE_MAX: Final = 5.0
PULSE_LASTS: Final = timedelta(days=90)
EXTREME_PULSE_LASTS: Final = timedelta(days=30)


class SignalOrder(msgspec.Struct, frozen=True, kw_only=True):
    """A signal as it is told; instants are UTC. The account may be left out where the subject itself leads to it."""

    subject: Subject
    key: str
    name: str
    value: float
    at: datetime
    source: str
    account: str | None = None
    external_id: str | None = None
    note: str | None = None
    expires_at: datetime | None = None


class Recorded(msgspec.Struct, frozen=True):
    """How many were new, and how many were there already."""

    accepted: int
    duplicates: int


async def record_signals(
    database: Database, orders: Sequence[SignalOrder], key: Caller, limits: Limits, *, path: Path = ("input",)
) -> Recorded:
    """Record signals, all or none of them. `path` leads to the list.

    Raises InvalidInputError with every fault of every signal.
    """
    if len(orders) > limits.request_signals_max:
        message = f"{limits.request_signals_max:,} signals are taken at once; this is {len(orders):,}."
        raise InvalidInputError([InputIssue(path, message)])
    async with database.transaction() as connection:
        now: datetime = await connection.fetchval(sql("subscriptions.read_clock"))
        return await _record(connection, orders, key, limits, now, path)


async def set_pulse(database: Database, order: SignalOrder, key: Caller, limits: Limits) -> Recorded:
    """Record what a customer success manager says of a subject.

    Raises InvalidInputError with every fault; ForbiddenError for a key that is bound to accounts.
    """
    if key.accounts is not None:
        raise ForbiddenError(f"The key {key.prefix} is bound to accounts; a pulse is not theirs to say.")
    try:
        return await record_signals(database, [order], key, limits)
    except InvalidInputError as error:
        # It is the only one, and not in a list.
        raise InvalidInputError(
            [InputIssue(tuple(step for step in issue.path if step != "0"), issue.message) for issue in error.issues]
        ) from error


async def _record(
    connection: Connection, orders: Sequence[SignalOrder], key: Caller, limits: Limits, now: datetime, path: Path
) -> Recorded:
    owners, issues = await owners_of(connection, orders, key, path)
    for index, order in enumerate(orders):
        issues += signal_issues(order, key, now, limits, (*path, str(index)))
    if issues:
        raise InvalidInputError(issues)
    orders = [_lasting(each) for each in orders]
    told = [
        Told(account, identities_of(account, order, order.source, order.external_id), _cells(order))
        for account, order in zip(owners, orders, strict=True)
    ]
    accepted = await record_told(
        connection, sql("signals.insert_signals"), sql("signals.find_contents"), told, key, path
    )
    since: dict[str, datetime] = {}
    for account, order in zip(owners, orders, strict=True):
        since[account] = min(order.at, since.get(account, order.at))
    if accepted:
        await mark_dirty_of(connection, {account: at.date() for account, at in since.items()})
    return Recorded(accepted, len(orders) - accepted)


def signal_issues(order: SignalOrder, key: Caller, now: datetime, limits: Limits, path: Path) -> Iterator[InputIssue]:
    """All faults of a signal but for whose it is."""
    yield from told_issues(order, order.source, order.external_id, now, limits, path)
    yield from name_issues(order.name, (*path, "name"), limits)
    if not math.isfinite(order.value):
        yield InputIssue((*path, "value"), f"{order.value} is no number to calculate with.")
    if order.note is not None and (len(order.note) > limits.reason_chars_max or "\0" in order.note):
        yield InputIssue(
            (*path, "note"), f"A note has {limits.reason_chars_max:,} characters at most, none of them NUL."
        )
    yield from instant_issues(order.expires_at, (*path, "expiresAt"), limits)
    if order.expires_at is not None and order.expires_at <= order.at:
        yield InputIssue((*path, "expiresAt"), "A signal expires after `at`; leave it out for one that does not.")
    if order.name == PULSE:
        yield from _pulse_issues(order, key, path)


def _pulse_issues(order: SignalOrder, key: Caller, path: Path) -> Iterator[InputIssue]:
    if key.accounts is not None:
        yield InputIssue((*path, "name"), "A pulse is our own word; a key that is bound to accounts does not say it.")
    if not PULSE_MIN <= order.value <= PULSE_MAX:
        yield InputIssue((*path, "value"), f"A pulse is {PULSE_MIN:g}, critical, to {PULSE_MAX:g}, excellent.")
    if order.note is None or not order.note.strip():
        yield InputIssue((*path, "note"), "A pulse needs a note: who reads the score has to know why.")
    lasts = _pulse_lasts(order.value)
    if order.expires_at is not None and order.expires_at - order.at > lasts:
        yield InputIssue(
            (*path, "expiresAt"), f"A pulse of {order.value:g} lasts {lasts.days} days at most; say it again."
        )


def _lasting(order: SignalOrder) -> SignalOrder:
    """A pulse always ends."""
    if order.name != PULSE or order.expires_at is not None:
        return order
    return msgspec.structs.replace(order, expires_at=order.at + _pulse_lasts(order.value))


def _pulse_lasts(value: float) -> timedelta:
    return EXTREME_PULSE_LASTS if value in {PULSE_MIN, PULSE_MAX} else PULSE_LASTS


def _cells(order: SignalOrder) -> Mapping[str, Any]:
    return {
        "subject": order.subject.value,
        "key": order.key,
        "name": order.name,
        "value": order.value,
        "at": order.at,
        "source": order.source,
        "external_id": order.external_id,
        "note": order.note,
        "expires_at": order.expires_at,
    }
