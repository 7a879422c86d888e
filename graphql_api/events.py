"""Recorded events: what stands behind a usage figure."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime

import msgspec
import strawberry

from graphql_api.auth import HIDDEN_AS_UNKNOWN, INTERNAL
from graphql_api.context import MeteringInfo
from graphql_api.nodes import EventName, Node, node_id
from graphql_api.once import Once
from graphql_api.pages import (
    Connection,
    CursorInstant,
    CursorText,
    check_first,
    check_instant,
    decode_cursor,
    encode_cursor,
    page_of,
)
from graphql_api.questions import UsageQuery, question_of
from graphql_api.scalars import DecimalText, Instant, JsonObject
from metering import corrections
from metering.errors import InputIssue, InvalidInputError
from metering.keys import Scope
from metering.recorded import Place, RecordedEvent, read_event, read_event_at, read_events


@strawberry.type
class Event(Node):
    """One recorded event."""

    id: strawberry.ID = strawberry.field(description="Globally unique and opaque.")
    event_id: str = strawberry.field(description="As the producer sent it; with `source` it names the event.")
    source: str
    occurred_at: Instant
    received_at: Instant
    account: str
    subscription: str | None
    user: str | None
    device: str | None
    product: str
    feature: str | None
    classification: str | None
    unit: str = strawberry.field(description="The values in effect.")
    quantity: DecimalText
    attributes: JsonObject | None
    voided: bool
    position: strawberry.Private[int]
    # The corrections of all events of the page, by position; asked once, when the first of them asks.
    corrections_of_page: strawberry.Private[Callable[[], Awaitable[list[list[corrections.Correction]]]]]

    @strawberry.field(description="Corrections made to it, oldest first.")
    async def corrections(self) -> list["Correction"]:
        """What it said before, and who changed it."""
        of_page = await self.corrections_of_page()
        return [
            Correction(
                at=Instant(made.at),
                by=made.by,
                reason=made.reason,
                voided=made.voided,
                before=JsonObject(msgspec.json.decode(made.before)),
                after=JsonObject(msgspec.json.decode(made.after)),
            )
            for made in of_page[self.position]
        ]


@strawberry.type
class Correction:
    """One correction of an event."""

    at: Instant
    by: str = strawberry.field(directives=INTERNAL, extensions=HIDDEN_AS_UNKNOWN)
    reason: str
    voided: bool
    before: JsonObject = strawberry.field(description="Field by field, the values before and after.")
    after: JsonObject


EventConnection = Connection[Event]


class _EventPlace(msgspec.Struct, frozen=True, array_like=True):
    """What a cursor holds."""

    occurred_at: CursorInstant
    account: CursorText
    key: bytes

    def __post_init__(self) -> None:
        check_instant(self.occurred_at)


async def resolve_events(
    query: UsageQuery,
    info: MeteringInfo,
    attributes: JsonObject | None,
    first: int,
    after: str | None,
) -> EventConnection:
    """The recorded events behind a usage figure, newest first."""
    context = info.context
    context.require(Scope.USAGE_READ)
    question = question_of(query, context.limits)
    check_first(first, context.limits, ("first",))
    if _holds_nul(attributes):
        raise InvalidInputError(
            [InputIssue(("attributes",), "A text holds a NUL character; no event has such a value.")]
        )
    place = decode_cursor(after, _EventPlace, ("after",)) if after else None
    events, has_next = await read_events(
        context.snapshot,
        question,
        first,
        after=None if place is None else Place(place.occurred_at, place.account, place.key),
        attributes=None if attributes is None else msgspec.json.encode(attributes).decode(),
    )
    once = Once()
    nodes = events_of(
        events, lambda: once.ask("corrections", lambda: corrections.read_corrections(context.snapshot, events))
    )
    cursors = [encode_cursor(_EventPlace(event.occurred_at, event.account, event.key)) for event in events]
    return page_of(nodes, cursors, has_next=has_next, has_previous=place is not None)


def _holds_nul(value: object) -> bool:
    if isinstance(value, Mapping):
        return any(_holds_nul(item) for pair in value.items() for item in pair)
    if isinstance(value, list):
        return any(map(_holds_nul, value))
    return isinstance(value, str) and "\0" in value


async def resolve_event(
    account: str, source: str, event_id: str, occurred_at: datetime | None, info: MeteringInfo
) -> Event | None:
    """One event by its name."""
    context = info.context
    context.require(Scope.USAGE_READ)
    return _alone(await read_event(context.snapshot, account, source, event_id, occurred_at=occurred_at), info)


async def find_event(name: EventName, info: MeteringInfo) -> Event | None:
    """The event of a global id, if the caller sees it."""
    context = info.context
    context.require(Scope.USAGE_READ)
    return _alone(await read_event_at(context.snapshot, Place(name.occurred_at, name.account, name.key)), info)


def _alone(event: RecordedEvent | None, info: MeteringInfo) -> Event | None:
    if event is None:
        return None
    return events_of([event], lambda: corrections.read_corrections(info.context.snapshot, [event]))[0]


def events_of(
    events: Sequence[RecordedEvent], corrections_of_page: Callable[[], Awaitable[list[list[corrections.Correction]]]]
) -> list[Event]:
    """Events as the API shows them; their corrections are asked for together."""
    return [_event(event, position, corrections_of_page) for position, event in enumerate(events)]


def _event(
    event: RecordedEvent,
    position: int,
    corrections_of_page: Callable[[], Awaitable[list[list[corrections.Correction]]]],
) -> Event:
    return Event(
        id=node_id("Event", event.account, event.occurred_at, event.key),
        event_id=event.event_id,
        source=event.source,
        occurred_at=Instant(event.occurred_at),
        received_at=Instant(event.received_at),
        account=event.account,
        subscription=event.subscription,
        user=event.user,
        device=event.device,
        product=event.product,
        feature=event.feature,
        classification=event.classification,
        unit=event.unit,
        quantity=DecimalText(event.quantity),
        attributes=None if event.attributes is None else JsonObject(msgspec.json.decode(event.attributes)),
        voided=event.voided,
        position=position,
        corrections_of_page=corrections_of_page,
    )
