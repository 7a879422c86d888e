"""The audit log: who changed what, when, and what it was before. The tables write it (migration 0023); here it is read.

Every way of changing something is in it, for a trigger writes the entry in the transaction of the change. What a row does not
say itself is said here: who changes keys, and what changes no row that is watched. It is only added to, so users of accounts
are not named in it.
"""

from collections.abc import Mapping
from datetime import datetime
from enum import Enum
from typing import Any

import msgspec

from metering.events import in_utc
from metering.store.pool import Connection
from metering.store.queries import sql
from metering.store.snapshot import Snapshot


class AuditKind(Enum):
    """What was changed."""

    METER = "METER"
    PLAN = "PLAN"
    ACCOUNT = "ACCOUNT"
    SUBSCRIPTION = "SUBSCRIPTION"
    USER = "USER"
    EVENT = "EVENT"
    STATEMENT = "STATEMENT"
    CREDIT_GRANT = "CREDIT_GRANT"
    SCORECARD = "SCORECARD"
    HEALTH_OVERRIDE = "HEALTH_OVERRIDE"
    WARNING_THRESHOLDS = "WARNING_THRESHOLDS"
    INTERVENTION = "INTERVENTION"
    ALERT_RULE = "ALERT_RULE"
    DESTINATION = "DESTINATION"
    API_KEY = "API_KEY"


class AuditAction(Enum):
    """What became of it."""

    CREATED = "CREATED"
    CHANGED = "CHANGED"
    REMOVED = "REMOVED"
    REPLAYED = "REPLAYED"
    ERASED = "ERASED"


class AuditEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One change. `before` and `after` are JSON, by the names of columns: only what changed; None where it was not there."""

    id: int
    changed_at: datetime
    by: str
    kind: AuditKind
    action: AuditAction
    account: str | None
    # Its key; None of a user.
    subject: str | None
    before: str | None
    after: str | None


class AuditChosen(msgspec.Struct, frozen=True, kw_only=True):
    """Which entries are meant; None means all. `by` is a signature, or the prefix in it."""

    kind: AuditKind | None = None
    account: str | None = None
    subject: str | None = None
    by: str | None = None
    since: datetime | None = None
    until: datetime | None = None


async def sign(connection: Connection, by: str) -> None:
    """Say who changes what is changed in this transaction from now on, for rows that do not say it themselves."""
    assert connection.is_in_transaction(), "outside of a transaction it would be forgotten at once"
    await connection.execute(sql("audit.sign"), by)


async def note(
    connection: Connection,
    by: str,
    kind: AuditKind,
    action: AuditAction,
    subject: str | None,
    after: Mapping[str, Any],
    *,
    account: str | None = None,
) -> None:
    """Note, in the transaction of the change, what no table watches."""
    assert connection.is_in_transaction(), "else it would be noted whatever becomes of the change"
    told = msgspec.json.encode(after).decode()
    await connection.execute(sql("audit.note"), by, kind.value, action.value, account, subject, told)


async def read_audit(
    snapshot: Snapshot, chosen: AuditChosen, first: int, after: int | None
) -> tuple[list[AuditEntry], bool]:
    """The `first` entries, the newest first, from behind an id on; and whether there are more."""
    assert snapshot.reach.is_everything, "it tells of everybody"
    texts = (chosen.account, chosen.subject, chosen.by)
    if any(text is not None and "\0" in text for text in texts):
        return [], False
    kind = None if chosen.kind is None else chosen.kind.value
    arguments = [kind, *texts, chosen.since, chosen.until, after, first + 1]
    rows = await snapshot.fetch(sql("audit.list_entries"), arguments)
    return [_entry(row) for row in rows[:first]], len(rows) > first


def _entry(row: Any) -> AuditEntry:
    fields = {**row, "changed_at": in_utc(row["changed_at"])}
    return AuditEntry(**{**fields, "kind": AuditKind(row["kind"]), "action": AuditAction(row["action"])})
