"""The loops of alerts and notifications go on, whatever becomes of one run; and it is seen how they fare."""

import asyncio
from collections.abc import Callable

from metering.alerts.evaluate import Evaluator
from metering.limits import LIMITS
from metering.notifier import Notifier, utc_now
from metering.probes import Status, read_readiness
from metering.store.pool import Database
from tests.metering.alerts.watching import alerts, calls, watch
from tests.metering.billing import call, use
from tests.metering.catalog import meter, play
from tests.metering.outbox.posting import Post, posting
from tests.metering.outbox.receiver import receiving

AWAY = "ALTER TABLE alert RENAME TO away; ALTER TABLE destination RENAME COLUMN encrypted TO gone"
BACK = "ALTER TABLE away RENAME TO alert; ALTER TABLE destination RENAME COLUMN gone TO encrypted"


async def _until(database: Database, post: Post, holds: Callable[[Status, str], bool]) -> None:
    """Let time go by, and look at the check, until this holds; a scenario that hangs fails."""
    while True:
        post.clock.now = utc_now()
        (check,) = [each for each in (await read_readiness(database)).checks if each.name == "notifications"]
        if holds(check.status, check.detail):
            return
        await asyncio.sleep(0.01)


def test_the_loops_outlive_what_fails_and_say_so(database_url: str) -> None:
    """A run that fails is told by the check, by the name of its loop; when its cause is gone rules are evaluated, what they
    raise is sent, and the check says that all is well.
    """

    async def scenario(database: Database) -> None:
        await meter(database, "calls")
        await watch(database, calls(), "1")
        async with posting(database) as post, receiving() as receiver:
            await post.put("hook", receiver.url)
            notifier = Notifier(post.dispatcher, Evaluator(database, LIMITS), database, LIMITS, 0.05)
            async with database.connection() as connection:
                await connection.execute(AWAY)
            notifier.start()
            try:
                await _until(database, post, _has_failed)
                async with database.connection() as connection:
                    await connection.execute(BACK)
                await use(database, call(1, utc_now()))
                await _until(database, post, lambda status, _: status is Status.PASS and bool(receiver.received))
            finally:
                await notifier.close()
            assert 1 == len(await alerts(database))

    play(database_url, scenario)


def _has_failed(status: Status, detail: str) -> bool:
    return status is Status.WARN and all(f"{name} failed: SchemaError" in detail for name in ("alerts", "deliveries"))
