"""Destinations: where notifications are sent. Only who reaches everything may see or change them."""

from datetime import timedelta
from typing import Annotated, Any

import strawberry

from graphql_api.context import MeteringInfo
from graphql_api.left_out import given_or_none
from graphql_api.pages import Connection, page_by_key
from graphql_api.problems import Conflict, InvalidInput, NotFound
from graphql_api.scalars import BigInt, Instant
from metering.errors import InputIssue, InvalidInputError
from metering.keys import Scope
from metering.outbox import destinations
from metering.outbox.destinations import DestinationKind, DestinationOrder, Made

_kind: Any = strawberry.enum(DestinationKind, name="DestinationKind", description="How what is sent there is written.")
for _value in _kind.__strawberry_definition__.values:
    _value.description = {
        DestinationKind.WEBHOOK: "As a CloudEvent in JSON, signed as Standard Webhooks are.",
        DestinationKind.SLACK: "As a message for people, for an incoming webhook of Slack.",
    }[DestinationKind(_value.value)]


@strawberry.type
class Destination:
    """One destination."""

    key: str
    kind: DestinationKind
    address: str = strawberry.field(description="Without its path, which may be a secret.")
    types: list[str] = strawberry.field(
        description="What it takes: `alert.raised`, or `alert` for all whose names begin so; none: everything."
    )
    has_bearer: bool = strawberry.field(description="Whether it is sent a bearer besides the signature.")
    enabled: bool
    waiting: BigInt = strawberry.field(description="How many notifications are to be delivered there.")
    failing_since: Instant | None = strawberry.field(description="Nothing has been taken there since.")
    disabled_at: Instant | None = strawberry.field(
        description="When it was given up; nothing is sent there until it is put again."
    )
    disabled_reason: str | None
    created_at: Instant
    changed_at: Instant


DestinationConnection = Connection[Destination]


@strawberry.input
class PutDestinationInput:
    """A destination as it is put."""

    key: str
    kind: DestinationKind
    url: str | None = strawberry.field(
        default=strawberry.UNSET, description="https://…; a destination that is there keeps its own when left out."
    )
    types: list[str] = strawberry.field(
        default_factory=list,
        description="What it takes: `alert.raised`, or `alert` for all whose names begin so; none: everything.",
    )
    bearer: str | None = strawberry.field(
        default=strawberry.UNSET,
        description="Sent to a webhook as `Authorization: Bearer …`, and never shown. A destination that is there keeps its own "
        "when left out; an empty one is none.",
    )
    enabled: bool = strawberry.field(default=True, description="What is published while it is not, is not queued.")


@strawberry.input
class RotateDestinationSecretInput:
    """Which destination, and how long its secrets go on."""

    key: str
    overlap_hours: int = strawberry.field(
        default=24, description="How long requests are signed with the earlier secrets as well."
    )


@strawberry.type
class PutDestinationSuccess:
    """A destination as it stands."""

    destination: Destination
    secret: str | None = strawberry.field(
        description="What a webhook's requests are signed with; shown once, when it is made."
    )


@strawberry.type
class DeleteDestinationSuccess:
    """A destination that is gone."""

    destination: Destination
    dropped: BigInt = strawberry.field(description="How many notifications waited for it, and are not sent any more.")


DeleteDestinationResult = Annotated[DeleteDestinationSuccess | NotFound, strawberry.union("DeleteDestinationResult")]
PutDestinationResult = Annotated[
    PutDestinationSuccess | InvalidInput | Conflict, strawberry.union("PutDestinationResult")
]
RotateDestinationSecretResult = Annotated[
    PutDestinationSuccess | InvalidInput | NotFound | Conflict, strawberry.union("RotateDestinationSecretResult")
]


async def resolve_destinations(first: int, after: str | None, info: MeteringInfo) -> DestinationConnection:
    """All destinations, by key."""
    context = info.context
    context.require(Scope.ADMIN)
    return await page_by_key(first, after, context.limits, context.service.destinations.page, _shown)


async def resolve_put_destination(given: PutDestinationInput, info: MeteringInfo) -> PutDestinationResult:
    """Make a destination, or change it."""
    context = info.context
    key = context.require(Scope.ADMIN)
    order = DestinationOrder(
        key=given.key,
        kind=given.kind,
        url=given_or_none(given.url),
        types=tuple(given.types),
        enabled=given.enabled,
        bearer=given_or_none(given.bearer),
    )
    return _success(await context.service.destinations.put(order, key))


async def resolve_delete_destination(key: str, info: MeteringInfo) -> DeleteDestinationResult:
    """Forget a destination, with the log of its deliveries."""
    context = info.context
    deleted = await context.service.destinations.delete(key, context.require(Scope.ADMIN))
    return DeleteDestinationSuccess(destination=_shown(deleted.destination), dropped=BigInt(deleted.waiting))


async def resolve_rotate_destination_secret(
    given: RotateDestinationSecretInput, info: MeteringInfo
) -> RotateDestinationSecretResult:
    """Sign with a new secret."""
    context = info.context
    key = context.require(Scope.ADMIN)
    hours_max = context.limits.key_overlap_days_max * 24
    if not 0 <= given.overlap_hours <= hours_max:
        message = f"This must be 0 to {hours_max:,} hours."
        raise InvalidInputError([InputIssue(("input", "overlapHours"), message)])
    return _success(await context.service.destinations.rotate(given.key, timedelta(hours=given.overlap_hours), key))


def _success(made: Made) -> PutDestinationSuccess:
    return PutDestinationSuccess(destination=_shown(made.destination), secret=made.secret)


def _shown(found: destinations.Destination) -> Destination:
    return Destination(
        key=found.key,
        kind=found.kind,
        address=found.address,
        types=list(found.types),
        has_bearer=found.has_bearer,
        enabled=found.enabled,
        waiting=BigInt(found.waiting),
        failing_since=None if found.failing_since is None else Instant(found.failing_since),
        disabled_at=None if found.disabled_at is None else Instant(found.disabled_at),
        disabled_reason=found.disabled_reason,
        created_at=Instant(found.created_at),
        changed_at=Instant(found.changed_at),
    )
