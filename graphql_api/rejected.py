"""Rejected events: what was refused, why, and how it is sent again."""

from typing import Annotated, Final

import msgspec
import strawberry

from graphql_api.context import MeteringInfo
from graphql_api.nodes import Node, RejectedEventName, named, sealed_id
from graphql_api.pages import (
    Connection,
    CursorInstant,
    check_first,
    check_instant,
    decode_cursor,
    encode_cursor,
    opened,
    page_of,
)
from graphql_api.problems import NotFound
from graphql_api.recording import RecordUsageReceipt, receipt_of
from graphql_api.scalars import Instant
from metering import quarantine
from metering.keys import Scope
from metering.quarantine import Place, RetryOrder, find_rejected, read_rejected
from metering.seal import Seal

_KIND: Final = "RejectedEvent"


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
    sealed: str

    def __post_init__(self) -> None:
        check_instant(self.received_at)


async def resolve_rejected_events(
    source: str | None, code: str | None, first: int, after: str | None, info: MeteringInfo
) -> RejectedEventConnection:
    """Events that were refused and kept, newest first."""
    context = info.context
    key, seal = context.require(Scope.USAGE_WRITE), context.service.seal
    check_first(first, context.limits, ("first",))
    cursor = decode_cursor(after, _RejectedPlace, ("after",)) if after else None
    place = None if cursor is None else Place(cursor.received_at, opened(seal, _KIND, cursor.sealed, ("after",)))
    events, has_next = await read_rejected(
        context.snapshot,
        key,
        source=source,
        code=code,
        first=first,
        after=place,
    )
    nodes = [_rejected_event(event, seal) for event in events]
    cursors = [encode_cursor(_RejectedPlace(event.received_at, seal.closed(_KIND, event.id))) for event in events]
    return page_of(nodes, cursors, has_next=has_next, has_previous=place is not None)


async def find_rejected_event(name: RejectedEventName, info: MeteringInfo) -> RejectedEvent | None:
    """The rejected event of a global id, if the caller sees it."""
    context = info.context
    key, seal = context.require(Scope.USAGE_WRITE), context.service.seal
    number = seal.opened(_KIND, name.sealed)
    event = None if number is None else await find_rejected(context.snapshot, key, number)
    return None if event is None else _rejected_event(event, seal)


async def resolve_retry_rejected_events(given: list[RetryRejectedInput], info: MeteringInfo) -> RetryRejectedResult:
    """Send kept rejected events through admission again."""
    context = info.context
    key = context.require(Scope.USAGE_WRITE)
    orders = [_order(each, context.service.seal) for each in given]
    return receipt_of(await context.service.retry(orders, key))


def _order(given: RetryRejectedInput, seal: Seal) -> RetryOrder:
    name = named(given.id)
    body = None if given.body is strawberry.UNSET else given.body
    number = seal.opened(_KIND, name.sealed) if isinstance(name, RejectedEventName) else None
    return RetryOrder(given.id, number, body)


def _rejected_event(event: quarantine.RejectedEvent, seal: Seal) -> RejectedEvent:
    return RejectedEvent(
        id=sealed_id(_KIND, event.id, seal),
        received_at=Instant(event.received_at),
        source=event.source,
        code=event.code,
        message=event.message,
        path=event.path,
        body=event.body,
    )
