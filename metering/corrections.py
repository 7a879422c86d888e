"""Corrections: put other values in an event's place, or take it out of every figure; what it said before stays on record.

A correction changes the event's row, so that every figure from then on is as if the event had been right: a delta row
would leave counts, extremes and distinct values wrong. It follows the writers' protocol (docs/adr/0004): its bucket becomes
pending in the same transaction. Two corrections of one event take turns; each sees what the other left.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from hashlib import blake2b
from typing import Any, Final

import msgspec

from metering.errors import ConflictError, InputIssue, InvalidInputError, NotFoundError
from metering.events import Scalar, identity_key, in_utc, sorted_attributes
from metering.ingest.admit import attributes_fault, quantity_fault, text_fault
from metering.keys import Caller
from metering.limits import Limits
from metering.recorded import RecordedEvent
from metering.store.event_log import log_changed, work_as_writer
from metering.store.pool import Connection, Database
from metering.store.queries import sql
from metering.store.snapshot import Snapshot
from rating.exact import plain

CORRECTABLE: Final = (
    "subscription", "user", "device", "product", "feature", "classification", "unit", "quantity", "attributes",
)  # fmt: skip
_REQUIRED: Final = frozenset({"product", "unit", "quantity"})
_FIRST_DAY: Final = date(1970, 1, 1)
_LAST_DAY: Final = date(9999, 12, 31)

Value = str | Decimal | Mapping[str, Scalar] | None


class CorrectionOrder(msgspec.Struct, frozen=True, kw_only=True):
    """Which event, and what becomes of it: void, or the values that change (a missing one stays, None clears it)."""

    account: str
    source: str
    event_id: str
    # Where the same name was used on several days.
    occurred_at: datetime | None
    reason: str
    void: bool
    values: Mapping[str, Value]


class Correction(msgspec.Struct, frozen=True):
    """One correction that was made. `before` and `after` are JSON, field by field."""

    at: datetime
    by: str
    reason: str
    voided: bool
    before: str
    after: str


async def correct_event(database: Database, order: CorrectionOrder, key: Caller, limits: Limits) -> RecordedEvent:
    """Correct an event and return it with the values now in effect.

    Raises InvalidInputError with every fault, NotFoundError, or ConflictError (it is void already; it is older than what
    is retained; or several events have this name and `occurred_at` does not say which).
    """
    _check(order, limits)
    if key.accounts is not None and order.account not in key.accounts:
        raise NotFoundError(_missing(order))
    async with database.transaction() as connection:
        await work_as_writer(connection)
        identity = identity_key(order.source, order.event_id)
        await connection.execute(sql("corrections.take_turns"), _turn(order.account, identity))
        occurred_at = await _find(connection, order, identity)
        taken_from = await connection.fetchval(sql("events.read_taken_from"))
        if occurred_at < taken_from:
            raise ConflictError(
                f"What occurred before {taken_from:%FT%TZ} is not kept any more, or not for long: it cannot be corrected."
            )
        row = await connection.fetchrow(sql("corrections.read_event"), order.account, occurred_at, identity)
        if row is None:
            raise NotFoundError(_missing(order))
        if row["voided"]:
            raise ConflictError("The event is void already; send a new one in its place.")
        corrected = await _change(connection, row, order, by=key.signature)
        await log_changed(connection, order.account, occurred_at)
    return corrected


async def read_corrections(snapshot: Snapshot, events: Sequence[RecordedEvent]) -> list[list[Correction]]:
    """The corrections of each event, oldest first.

    None for who sees less than accounts: an event may have been another user's, or subscription's, before.
    """
    corrections: list[list[Correction]] = [[] for _ in events]
    if events and not snapshot.reach.is_narrow:
        names = zip(*((event.account, event.occurred_at, event.key) for event in events), strict=True)
        for row in await snapshot.fetch(sql("corrections.list_corrections"), list(names)):
            made = Correction(row["corrected_at"], row["by"], row["reason"], row["voided"], row["before"], row["after"])
            corrections[row["position"]].append(made)
    return corrections


def _turn(account: str, identity: bytes) -> int:
    """The advisory lock of a name; should two names share one, they merely wait for each other."""
    return int.from_bytes(blake2b(identity + account.encode(), digest_size=8).digest(), signed=True)


async def _find(connection: Connection, order: CorrectionOrder, identity: bytes) -> datetime:
    """When the one event of this name occurred."""
    if order.occurred_at is not None:
        return in_utc(order.occurred_at)
    rows = await connection.fetch(sql("corrections.find_instants"), order.account, identity, _FIRST_DAY, _LAST_DAY)
    if not rows:
        raise NotFoundError(_missing(order))
    if len(rows) > 1:
        raise ConflictError(
            "Several events have this name, on several days; say `occurredAt` of the one that is meant."
        )
    occurred_at: datetime = rows[0]["occurred_at"]
    return occurred_at.astimezone(UTC)


async def _change(connection: Connection, row: Any, order: CorrectionOrder, by: str) -> RecordedEvent:
    before = {name: row[name] for name in CORRECTABLE} | {"attributes": _attributes(row)}
    after = before | {name: _stored(value) for name, value in order.values.items()}
    changed = [name for name in CORRECTABLE if before[name] != after[name]]
    if not order.void and not changed:
        raise ConflictError("The event has these values already.")
    name = (row["account"], row["occurred_at"], row["key"])
    new = await connection.fetchrow(
        sql("corrections.change_event"), *name, *(after[field] for field in CORRECTABLE), order.void
    )
    assert new is not None, "it was read just now, and events are not deleted one by one"
    shown = [_as_json({field: values[field] for field in changed}) for values in (before, after)]
    await connection.execute(sql("corrections.record_correction"), *name, by, order.reason, order.void, *shown)
    return RecordedEvent(**dict(new))


def _attributes(row: Any) -> str | None:
    """The attributes of an event in the one spelling that equal ones have."""
    return None if row["attributes"] is None else sorted_attributes(msgspec.json.decode(row["attributes"]))


def _stored(value: Value) -> str | Decimal | None:
    return sorted_attributes(value) if isinstance(value, Mapping) else value


def _as_json(values: Mapping[str, Any]) -> str:
    return msgspec.json.encode({name: _shown(name, value) for name, value in values.items()}).decode()


def _shown(name: str, value: str | Decimal | None) -> object:
    if isinstance(value, Decimal):
        return plain(value)
    return msgspec.Raw(value.encode()) if name == "attributes" and value is not None else value


def _check(order: CorrectionOrder, limits: Limits) -> None:
    issues = []
    if not order.reason.strip() or len(order.reason) > limits.reason_chars_max:
        message = f"Say why, in 1 to {limits.reason_chars_max:,} characters."
        issues.append(InputIssue(("input", "reason"), message))
    if order.void and order.values:
        issues.append(InputIssue(("input", "values"), "An event is voided or gets other values, not both."))
    if not order.void and not order.values:
        issues.append(InputIssue(("input", "values"), "Nothing to correct: give values, or `void: true`."))
    for name, value in order.values.items():
        fault = _value_fault(name, value, limits)
        if fault is not None:
            issues.append(InputIssue(("input", "values", name), fault))
    if issues:
        raise InvalidInputError(issues)


def _value_fault(name: str, value: Value, limits: Limits) -> str | None:
    if value is None:
        return f"`{name}` is required; it cannot be cleared." if name in _REQUIRED else None
    if isinstance(value, Mapping):
        fault = attributes_fault(value, limits)
    else:
        fault = quantity_fault(value, limits) if isinstance(value, Decimal) else text_fault(name, value, limits)
    return None if fault is None else fault[2]


def _missing(order: CorrectionOrder) -> str:
    return f"There is no event {order.event_id!r:.60} of source {order.source!r:.60} for the account {order.account!r:.60}."
