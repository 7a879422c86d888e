"""Into the outbox: what is published is delivered if, and only if, the caller's transaction is committed."""

from datetime import datetime
from uuid import UUID, uuid4

import msgspec

from metering.limits import LIMITS
from metering.outbox.event import OutboxEvent
from metering.store.pool import Connection
from metering.store.queries import sql


async def publish(connection: Connection, event: OutboxEvent, at: datetime | None = None) -> UUID:
    """Publish an event in the transaction that the caller has open, and return its id.

    Whoever publishes of the same subject waits until that transaction ends; so of several subjects publish in the order of
    their names. `at` stands in the place of the database's clock.
    """
    data = msgspec.json.encode(event.data)
    assert len(data) <= LIMITS.notification_bytes_max, "what is told is short; say where the rest is to be had"
    assert connection.is_in_transaction(), "outside of a transaction it would be told whatever becomes of the rest"
    id = uuid4()
    await connection.execute(sql("outbox.take_turn"), event.subject)
    published_at = at or await connection.fetchval(sql("subscriptions.read_clock"))
    await connection.execute(sql("outbox.publish"), id, event.type, event.subject, data.decode(), published_at)
    return id
