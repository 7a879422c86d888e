"""Recorded events, one by one: what stands behind a figure."""

from datetime import datetime
from decimal import Decimal

import msgspec

from metering.errors import InputIssue, InvalidInputError
from metering.events import identity_key
from metering.questions import Question
from metering.store.event_query import events_statement
from metering.store.filters import filter_shapes
from metering.store.queries import sql
from metering.store.snapshot import Snapshot
from rating.periods import instant_text


class RecordedEvent(msgspec.Struct, frozen=True, kw_only=True):
    """An event as it is kept: the values in effect, and when it was received."""

    account: str
    occurred_at: datetime
    key: bytes
    source: str
    event_id: str
    received_at: datetime
    subscription: str | None
    user: str | None
    device: str | None
    product: str
    feature: str | None
    classification: str | None
    unit: str
    quantity: Decimal
    # As JSON.
    attributes: str | None
    voided: bool


class Place(msgspec.Struct, frozen=True):
    """Where an event stands in the order: newest first, then by account and key."""

    occurred_at: datetime
    account: str
    key: bytes


async def read_event(
    snapshot: Snapshot, account: str, source: str, event_id: str, *, occurred_at: datetime | None
) -> RecordedEvent | None:
    """The event of this name, the latest where the name was used on several days and no time says which."""
    if any("\0" in text for text in (account, source, event_id)):
        return None  # no event has such a name, and the database does not take it
    key = identity_key(source, event_id)
    rows = await snapshot.fetch(sql("events.find_event"), [account, key, occurred_at, *snapshot.reach.arguments()])
    return RecordedEvent(**dict(rows[0])) if rows else None


async def read_event_at(snapshot: Snapshot, place: Place) -> RecordedEvent | None:
    """The event that stands at this place, if one does."""
    rows = await snapshot.fetch(sql("corrections.read_event"), [place.account, place.occurred_at, place.key])
    event = RecordedEvent(**dict(rows[0])) if rows else None
    is_within = event is not None and snapshot.reach.shows(event.account, event.subscription, event.user)
    return event if is_within else None


async def read_events(
    snapshot: Snapshot, question: Question, first: int, *, after: Place | None, attributes: str | None
) -> tuple[list[RecordedEvent], bool]:
    """The `first` events behind a figure, newest first, from behind `after` on; and whether there are more.

    `attributes` is JSON; kept are events whose attributes contain it. Raises InvalidInputError where the period reaches
    below the events that are retained.
    """
    await check_events_kept(snapshot, question)
    filters = filter_shapes(question, snapshot.reach)
    shapes = tuple(shape for shape, _ in filters)
    statement = events_statement(shapes, after=after is not None, attributes=attributes is not None)
    values: dict[str, object] = {
        "period_from": question.period.start,
        "period_to": question.period.end,
        # One more than asked for tells whether there are more.
        "first": first + 1,
        "attributes": attributes,
        **{shape.parameter: chosen for shape, chosen in filters},
    }
    if after is not None:
        values |= {"after_at": after.occurred_at, "after_account": after.account, "after_key": after.key}
    rows = await snapshot.fetch(statement.text, statement.arguments(values))
    events = [RecordedEvent(**dict(row)) for row in rows[:first]]
    return events, len(rows) > first


async def check_events_kept(snapshot: Snapshot, question: Question) -> None:
    """Raise InvalidInputError where the question's period reaches below the events that are retained."""
    raw_from = (await snapshot.horizon()).raw_from
    if question.period.start < raw_from:
        message = (
            f"Events before {instant_text(raw_from)} are not kept any more; ask from then on, or for their figures."
        )
        raise InvalidInputError([InputIssue(("query", "period", "from"), message)])
