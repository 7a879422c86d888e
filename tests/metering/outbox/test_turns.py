"""Who publishes takes turns, subject by subject; of many with one lock, for PostgreSQL has room for some thousands of them."""

import asyncio
from typing import Final

import msgspec

from metering.limits import LIMITS
from metering.outbox.event import OutboxEvent
from metering.outbox.publish import publish_all
from metering.store.pool import Database
from tests.conftest import lock_waiters
from tests.metering.catalog import play, rows
from tests.metering.outbox.posting import posting

FEW: Final = msgspec.structs.replace(LIMITS, notification_subjects_max=3)
HELD: Final = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND granted AND pid = pg_backend_pid()"


def test_few_locks_are_held_however_much_is_published(database_url: str) -> None:
    """One for each subject up to the limit, and one of all beyond it; either way whoever publishes of one of the subjects waits
    until the transaction ends, and so does who publishes of many while somebody else publishes.
    """

    async def scenario(database: Database) -> None:
        async with posting(database) as post:
            for subjects, held in ((1, 2), (3, 4), (4, 1), (300, 1)):
                events = [
                    OutboxEvent(type="test.made", subject=f"account/a{number}", data={}) for number in range(subjects)
                ]
                async with database.transaction() as connection:
                    ids = await publish_all(connection, [*events, events[0]], limits=FEW)
                    assert held == await connection.fetchval(HELD)
                    later = asyncio.create_task(post.publish("account/a0"))
                    await lock_waiters(database_url, 1)
                    assert not later.done()
                ids.append(await later)
                told = await rows(database, "SELECT id FROM notification ORDER BY sequence")
                assert [(id,) for id in ids] == told[-len(ids) :]

            async with database.transaction() as connection:
                await publish_all(connection, events[:1], limits=FEW)
                many = asyncio.create_task(_publish(database, events))
                await lock_waiters(database_url, 1)
                assert not many.done()
            await many

    play(database_url, scenario)


async def _publish(database: Database, events: list[OutboxEvent]) -> None:
    async with database.transaction() as connection:
        await publish_all(connection, events, limits=FEW)
