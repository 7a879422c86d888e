"""API keys: making, rotating, revoking and listing them. Only who reaches everything may."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Annotated

import msgspec
import strawberry

from graphql_api.context import MeteringInfo
from graphql_api.left_out import given_or_none
from graphql_api.pages import CursorText, PageInfo, check_first, decode_cursor, encode_cursor, page_info
from graphql_api.problems import Conflict, InvalidInput, NotFound
from graphql_api.scalars import Instant
from metering import keys
from metering.errors import InputIssue, InvalidInputError, NotFoundError
from metering.keys import Scope


@strawberry.type(description="A key as it is kept; its secret is not.")
class ApiKey:
    """One key."""

    prefix: str = strawberry.field(description="Names it; its secret begins with it.")
    name: str
    scopes: list[Scope]
    accounts: list[str] | None = strawberry.field(description="Bound to these; null: to none, it reaches all.")
    created_at: Instant
    expires_at: Instant | None
    last_used_at: Instant | None = strawberry.field(
        description="To about a minute, and not later than it is seen here."
    )
    revoked_at: Instant | None
    replaces: str | None = strawberry.field(description="The prefix of the key that it was made in the place of.")


@strawberry.type
class ApiKeyEdge:
    """A key and its place."""

    node: ApiKey
    cursor: str


@strawberry.type
class ApiKeyConnection:
    """One page of keys."""

    edges: list[ApiKeyEdge]
    nodes: list[ApiKey]
    page_info: PageInfo


@strawberry.input
class CreateApiKeyInput:
    """A key as it is asked for."""

    name: str
    scopes: list[Scope]
    accounts: list[str] | None = strawberry.field(
        default=strawberry.UNSET, description="Bound to these accounts; to all when left out."
    )
    expires_at: Instant | None = strawberry.UNSET


@strawberry.input
class RotateApiKeyInput:
    """Which key, and how long it goes on."""

    prefix: str
    overlap_hours: int = strawberry.field(
        default=24, description="How long the old key goes on, if it does not end before."
    )


@strawberry.type
class CreatedApiKey:
    """A key that was made."""

    key: ApiKey
    secret: str = strawberry.field(description="Shown this once.")


CreateApiKeyResult = Annotated[CreatedApiKey | InvalidInput, strawberry.union("CreateApiKeyResult")]
RotateApiKeyResult = Annotated[
    CreatedApiKey | InvalidInput | NotFound | Conflict, strawberry.union("RotateApiKeyResult")
]


class _KeyPlace(msgspec.Struct, frozen=True, array_like=True):
    """What a cursor holds."""

    prefix: CursorText


async def resolve_api_keys(first: int, after: str | None, info: MeteringInfo) -> ApiKeyConnection:
    """All keys, the newest first."""
    context = info.context
    context.require(Scope.ADMIN)
    check_first(first, context.limits, ("first",))
    place = decode_cursor(after, _KeyPlace, ("after",)) if after else None
    found, has_next = await context.service.keys.page(first, None if place is None else place.prefix)
    nodes = [_shown(each) for each in found]
    cursors = [encode_cursor(_KeyPlace(node.prefix)) for node in nodes]
    return ApiKeyConnection(
        edges=[ApiKeyEdge(node=node, cursor=cursor) for node, cursor in zip(nodes, cursors, strict=True)],
        nodes=nodes,
        page_info=page_info(cursors, has_next=has_next, has_previous=place is not None),
    )


async def resolve_create_api_key(given: CreateApiKeyInput, info: MeteringInfo) -> CreateApiKeyResult:
    """Make a key."""
    context = info.context
    caller = context.require(Scope.ADMIN)
    try:
        key, secret = await context.service.keys.create(
            given.name,
            given.scopes,
            given_or_none(given.accounts),
            given_or_none(given.expires_at),
            by=caller.signature,
        )
    except InvalidInputError as error:
        raise InvalidInputError(_of_input(error.issues)) from error
    return CreatedApiKey(key=_shown(key), secret=secret)


async def resolve_rotate_api_key(given: RotateApiKeyInput, info: MeteringInfo) -> RotateApiKeyResult:
    """Make a key in the place of another one."""
    context = info.context
    caller = context.require(Scope.ADMIN)
    hours_max = context.limits.key_overlap_days_max * 24
    if not 0 <= given.overlap_hours <= hours_max:
        message = f"This must be 0 to {hours_max:,} hours."
        raise InvalidInputError([InputIssue(("input", "overlapHours"), message)])
    made = None
    if "\0" not in given.prefix:
        overlap = timedelta(hours=given.overlap_hours)
        made = await context.service.keys.rotate(given.prefix, overlap, by=caller.signature)
    if made is None:
        raise NotFoundError(f"There is no key {given.prefix!r:.60}.")
    key, secret = made
    return CreatedApiKey(key=_shown(key), secret=secret)


async def resolve_revoke_api_key(prefix: str, info: MeteringInfo) -> ApiKey | None:
    """Revoke a key; null where there is none."""
    context = info.context
    caller = context.require(Scope.ADMIN)
    if "\0" in prefix:
        return None
    key = await context.service.keys.revoke(prefix, by=caller.signature)
    return None if key is None else _shown(key)


def _of_input(issues: Sequence[InputIssue]) -> list[InputIssue]:
    """Issues of a key as issues of the argument, with the API's names."""
    names = {"expires_at": "expiresAt"}
    return [InputIssue(("input", *(names.get(step, step) for step in each.path)), each.message) for each in issues]


def _shown(key: keys.ApiKey) -> ApiKey:
    return ApiKey(
        prefix=key.prefix,
        name=key.name,
        scopes=sorted(key.scopes, key=lambda scope: scope.value),
        accounts=None if key.accounts is None else sorted(key.accounts),
        created_at=Instant(key.created_at),
        expires_at=None if key.expires_at is None else Instant(key.expires_at),
        last_used_at=None if key.last_used_at is None else Instant(key.last_used_at),
        revoked_at=None if key.revoked_at is None else Instant(key.revoked_at),
        replaces=key.replaces,
    )
