"""Deliveries: what was sent to a destination, how each attempt ended, and sending it again."""

from typing import Annotated, Any, Final

import msgspec
import strawberry

from graphql_api.context import MeteringInfo
from graphql_api.left_out import given_or_none
from graphql_api.pages import Connection, check_first, decode_cursor, encode_cursor, opened, page_of
from graphql_api.problems import InvalidInput, NotFound
from graphql_api.scalars import Instant
from metering.keys import Scope
from metering.outbox import deliveries
from metering.outbox.deliveries import DeliveryState, ReplayOrder

_KIND: Final = "Delivery"
_state: Any = strawberry.enum(DeliveryState, name="DeliveryState")
for _value in _state.__strawberry_definition__.values:
    _value.description = {
        DeliveryState.PENDING: "It is to be sent, now or later.",
        DeliveryState.DELIVERED: "It was taken.",
        DeliveryState.FAILED: "It was tried as often as anything is, and not taken.",
    }[DeliveryState(_value.value)]


@strawberry.type
class DeliveryAttempt:
    """One attempt."""

    attempted_at: Instant
    milliseconds: int
    status: int | None = strawberry.field(description="What was answered; nothing else of an answer is kept.")
    fault: str | None = strawberry.field(description="Why nothing was.")


@strawberry.type
class Delivery:
    """A notification on its way to a destination."""

    notification: strawberry.ID = strawberry.field(description="The id that it is sent with, each time.")
    type: str
    subject: str
    published_at: Instant
    state: DeliveryState
    due_at: Instant | None = strawberry.field(
        description="When it is tried next, if what was published of its subject before is through by then."
    )
    finished_at: Instant | None
    attempts: list[DeliveryAttempt] = strawberry.field(description="In order.")


DeliveryConnection = Connection[Delivery]


@strawberry.input
class ReplayDeliveriesInput:
    """What is to be sent again."""

    destination: str
    since: Instant = strawberry.field(description="What was published from then on.")
    until: Instant | None = strawberry.field(
        default=strawberry.UNSET, description="And before this; now, unless given."
    )
    undelivered_only: bool = strawberry.field(
        default=True, description="Leave out what was delivered. What was never queued is queued now."
    )


@strawberry.type
class ReplayDeliveriesSuccess:
    """What will be sent again."""

    queued: int


ReplayDeliveriesResult = Annotated[
    ReplayDeliveriesSuccess | InvalidInput | NotFound, strawberry.union("ReplayDeliveriesResult")
]


class _DeliveryPlace(msgspec.Struct, frozen=True, array_like=True):
    """What a cursor holds."""

    sealed: str


async def resolve_deliveries(
    destination: str, state: DeliveryState | None, first: int, after: str | None, info: MeteringInfo
) -> DeliveryConnection:
    """The log of a destination, the newest notification first; empty where there is no such destination."""
    context = info.context
    context.require(Scope.ADMIN)
    check_first(first, context.limits, ("first",))
    place = decode_cursor(after, _DeliveryPlace, ("after",)) if after else None
    seal = context.service.seal
    behind = None if place is None else opened(seal, _KIND, place.sealed, ("after",))
    found, has_next = await context.service.deliveries(destination, state, first, behind)
    cursors = [encode_cursor(_DeliveryPlace(seal.closed(_KIND, each.sequence))) for each in found]
    return page_of([_shown(each) for each in found], cursors, has_next=has_next, has_previous=place is not None)


async def resolve_replay_deliveries(given: ReplayDeliveriesInput, info: MeteringInfo) -> ReplayDeliveriesResult:
    """Send again."""
    context = info.context
    key = context.require(Scope.ADMIN)
    order = ReplayOrder(
        destination=given.destination,
        since=given.since,
        until=given_or_none(given.until),
        undelivered_only=given.undelivered_only,
    )
    return ReplayDeliveriesSuccess(queued=await context.service.replay_deliveries(order, key))


def _shown(delivery: deliveries.Delivery) -> Delivery:
    return Delivery(
        notification=strawberry.ID(str(delivery.notification)),
        type=delivery.type,
        subject=delivery.subject,
        published_at=Instant(delivery.published_at),
        state=delivery.state,
        due_at=None if delivery.due_at is None else Instant(delivery.due_at),
        finished_at=None if delivery.finished_at is None else Instant(delivery.finished_at),
        attempts=[
            DeliveryAttempt(
                attempted_at=Instant(each.attempted_at),
                milliseconds=each.milliseconds,
                status=each.status,
                fault=each.fault,
            )
            for each in delivery.attempts
        ],
    )
