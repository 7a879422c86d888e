"""The audit log: who changed what. Only who reaches everything sees it."""

from collections.abc import Mapping
from typing import Any, Final

import msgspec
import strawberry

from graphql_api.context import MeteringInfo
from graphql_api.left_out import given_or_none
from graphql_api.pages import Connection, check_first, decode_cursor, encode_cursor, opened, page_of
from graphql_api.scalars import Instant, JsonObject
from metering import audit
from metering.audit import AuditAction, AuditChosen, AuditKind, read_audit
from metering.keys import Scope

_SEALED_AS: Final = "AuditEntry"
_ACTIONS: Final[Mapping[AuditAction, str]] = {
    AuditAction.CREATED: "It was put or published for the first time, or frozen, granted or told.",
    AuditAction.CHANGED: "It says something else now, or was voided, revoked or replaced.",
    AuditAction.REMOVED: "It is gone.",
    AuditAction.ERASED: "It is not told any more who it was.",
    AuditAction.REPLAYED: "Notifications were queued for it again.",
}
_kind: Any = strawberry.enum(AuditKind, name="AuditKind", description="What was changed.")
_action: Any = strawberry.enum(AuditAction, name="AuditAction", description="What became of it.")
for _value in _action.__strawberry_definition__.values:
    _value.description = _ACTIONS[AuditAction(_value.value)]


@strawberry.type(description="One change, noted in the transaction of the change.")
class AuditEntry:
    """One entry."""

    changed_at: Instant
    by: str = strawberry.field(
        description="Who changed it: the name and prefix of a key, the subject of a token, a command, or a role of the database."
    )
    kind: AuditKind
    action: AuditAction
    account: str | None = strawberry.field(description="Whose it is, where it is one account's.")
    subject: str | None = strawberry.field(
        description="Its key; of an event its id, of a statement its subscription. Null of a user, who is not named here."
    )
    before: JsonObject | None = strawberry.field(
        description="What changed, as it was; of secrets, and of what has versions, a digest."
    )
    after: JsonObject | None


AuditEntryConnection = Connection[AuditEntry]


@strawberry.input(description="All that are given must hold.")
class AuditFilter:
    """Which entries are meant."""

    kind: AuditKind | None = strawberry.UNSET
    account: str | None = strawberry.UNSET
    subject: str | None = strawberry.UNSET
    by: str | None = strawberry.field(default=strawberry.UNSET, description="As it is signed, or a key's prefix.")
    since: Instant | None = strawberry.UNSET
    until: Instant | None = strawberry.field(default=strawberry.UNSET, description="Before this.")


class _AuditPlace(msgspec.Struct, frozen=True, array_like=True):
    """What a cursor holds."""

    sealed: str


async def resolve_audit_log(
    filter: AuditFilter, first: int, after: str | None, info: MeteringInfo
) -> AuditEntryConnection:
    """Entries, the newest first."""
    context = info.context
    context.require(Scope.ADMIN)
    check_first(first, context.limits, ("first",))
    place = decode_cursor(after, _AuditPlace, ("after",)) if after else None
    seal = context.service.seal
    behind = None if place is None else opened(seal, _SEALED_AS, place.sealed, ("after",))
    chosen = AuditChosen(
        kind=given_or_none(filter.kind),
        account=given_or_none(filter.account),
        subject=given_or_none(filter.subject),
        by=given_or_none(filter.by),
        since=given_or_none(filter.since),
        until=given_or_none(filter.until),
    )
    found, has_next = await read_audit(context.snapshot, chosen, first, behind)
    cursors = [encode_cursor(_AuditPlace(seal.closed(_SEALED_AS, each.id))) for each in found]
    return page_of([_shown(each) for each in found], cursors, has_next=has_next, has_previous=place is not None)


def _shown(entry: audit.AuditEntry) -> AuditEntry:
    return AuditEntry(
        changed_at=Instant(entry.changed_at),
        by=entry.by,
        kind=entry.kind,
        action=entry.action,
        account=entry.account,
        subject=entry.subject,
        before=_fields(entry.before),
        after=_fields(entry.after),
    )


def _fields(told: str | None) -> JsonObject | None:
    """Columns by the names that the API gives them."""
    if told is None:
        return None
    decoded = msgspec.json.decode(told)
    return JsonObject({_in_camel_case(name): value for name, value in decoded.items()})


def _in_camel_case(column: str) -> str:
    first, *others = column.split("_")
    return first + "".join(word.capitalize() for word in others)
