"""Into the outbox: what is published is delivered if, and only if, the caller's transaction is committed."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID, uuid4

import msgspec

from metering.limits import LIMITS, Limits
from metering.outbox.event import OutboxEvent
from metering.store.pool import Connection
from metering.store.queries import sql


async def publish(connection: Connection, event: OutboxEvent, at: datetime | None = None) -> UUID:
    """Publish an event in the transaction that the caller has open, and return its id; see `publish_all`."""
    (id,) = await publish_all(connection, [event], at)
    return id


async def publish_all(
    connection: Connection, events: Sequence[OutboxEvent], at: datetime | None = None, limits: Limits = LIMITS
) -> list[UUID]:
    """Publish events, in their order, in the transaction that the caller has open, and return their ids.

    Whoever publishes of one of their subjects waits until that transaction ends; of more subjects than
    `notification_subjects_max`, whoever publishes at all. So it is done once in a transaction: locks that are taken bit by bit
    are taken in no common order. `at` stands in the place of the database's clock.
    """
    if not events:
        return []
    texts = [msgspec.json.encode(event.data).decode() for event in events]
    longest = max(len(text.encode()) for text in texts)
    assert longest <= limits.notification_bytes_max, "what is told is short; say where the rest is to be had"
    assert connection.is_in_transaction(), "outside of a transaction it would be told whatever becomes of the rest"
    subjects = {event.subject for event in events}
    if len(subjects) > limits.notification_subjects_max:
        await connection.execute(sql("outbox.publish_alone"))
    else:
        await connection.execute(sql("outbox.publish_beside_others"))
        await connection.execute(sql("outbox.take_turns"), list(subjects))
    published_at = at or await connection.fetchval(sql("subscriptions.read_clock"))
    ids = [uuid4() for _ in events]
    for id, event, text in zip(ids, events, texts, strict=True):
        await connection.execute(sql("outbox.publish"), id, event.type, event.subject, text, published_at)
    return ids
