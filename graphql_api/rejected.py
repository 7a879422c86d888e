"""Rejected events: what was refused, why, and how it is sent again."""

from typing import Annotated

import msgspec
import strawberry

from graphql_api.context import MeteringInfo
from graphql_api.nodes import Node, RejectedEventName, named, node_id
from graphql_api.pages import (
    Connection,
    CursorInstant,
    check_first,
    check_instant,
    decode_cursor,
    encode_cursor,
    page_of,
)
from graphql_api.problems import NotFound
from graphql_api.recording import RecordUsageReceipt, receipt_of
from graphql_api.scalars import Instant
from metering import quarantine
from metering.keys import Scope
from metering.quarantine import Place, RetryOrder, find_rejected, read_rejected


@strawberry.type
class RejectedEvent(Node):
    """One rejected event."""

    id: strawberry.ID = strawberry.field(description="Globally unique and opaque.")
    received_at: Instant = strawberry.field(
        description="When it was received; of one that was sent again, the last time."
    )
    source: str | None = strawberry.field(description="As far as it could be read.")
    code: str
    message: str
    path: str | None
    body: str = strawberry.field(
        description="As it was sent: JSON, whichever format it came in; cut where it is longer than any event."
    )


RejectedEventConnection = Connection[RejectedEvent]


@strawberry.input
class RetryRejectedInput:
    """Which rejected event is sent again."""

    id: strawberry.ID
    body: str | None = strawberry.field(default=strawberry.UNSET, description="Instead of the body that was refused.")


RetryRejectedResult = Annotated[RecordUsageReceipt | NotFound, strawberry.union("RetryRejectedResult")]


class _RejectedPlace(msgspec.Struct, frozen=True, array_like=True):
    """What a cursor holds."""

    received_at: CursorInstant
    id: Annotated[int, msgspec.Meta(ge=1, le=2**63 - 1)]

    def __post_init__(self) -> None:
        check_instant(self.received_at)


async def resolve_rejected_events(
    source: str | None, code: str | None, first: int, after: str | None, info: MeteringInfo
) -> RejectedEventConnection:
    """Events that were refused and kept, newest first."""
    context = info.context
    key = context.require(Scope.USAGE_WRITE)
    check_first(first, context.limits, ("first",))
    place = decode_cursor(after, _RejectedPlace, ("after",)) if after else None
    events, has_next = await read_rejected(
        context.snapshot,
        key,
        source=source,
        code=code,
        first=first,
        after=None if place is None else Place(place.received_at, place.id),
    )
    nodes = [_rejected_event(event) for event in events]
    cursors = [encode_cursor(_RejectedPlace(event.received_at, event.id)) for event in events]
    return page_of(nodes, cursors, has_next=has_next, has_previous=place is not None)


async def find_rejected_event(name: RejectedEventName, info: MeteringInfo) -> RejectedEvent | None:
    """The rejected event of a global id, if the caller sees it."""
    context = info.context
    event = await find_rejected(context.snapshot, context.require(Scope.USAGE_WRITE), name.id)
    return None if event is None else _rejected_event(event)


async def resolve_retry_rejected_events(given: list[RetryRejectedInput], info: MeteringInfo) -> RetryRejectedResult:
    """Send kept rejected events through admission again."""
    context = info.context
    key = context.require(Scope.USAGE_WRITE)
    return receipt_of(await context.service.retry([_order(each) for each in given], key))


def _order(given: RetryRejectedInput) -> RetryOrder:
    name = named(given.id)
    body = None if given.body is strawberry.UNSET else given.body
    return RetryOrder(given.id, name.id if isinstance(name, RejectedEventName) else None, body)


def _rejected_event(event: quarantine.RejectedEvent) -> RejectedEvent:
    return RejectedEvent(
        id=node_id("RejectedEvent", event.id),
        received_at=Instant(event.received_at),
        source=event.source,
        code=event.code,
        message=event.message,
        path=event.path,
        body=event.body,
    )
