"""Background work, all of it: in a process that serves too, or in one that does nothing else (`metering work`).

Each runs every loop and does the work of it where it leads, so there may be several: another one takes over.
"""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final

import msgspec

from metering.alerts.evaluate import Evaluator
from metering.config import Settings
from metering.health.measuring import Measurer
from metering.health.scorer import Scorer
from metering.key_digests import Digests
from metering.lead import Lead
from metering.limits import Limits
from metering.notifier import NOTIFIER_CONNECTIONS, Notifier, utc_now
from metering.outbox.addresses import Allowed
from metering.outbox.courier import Courier
from metering.outbox.dispatch import Dispatcher
from metering.outbox.vault import Vault
from metering.retention import Retention, ages_of
from metering.rollups.refresh import Refresher
from metering.store.pool import Database
from metering.worker import WORKER_CONNECTIONS, Worker

# One is the lead's.
CONNECTIONS: Final = 1 + WORKER_CONNECTIONS + NOTIFIER_CONNECTIONS


@asynccontextmanager
async def background_work(settings: Settings, limits: Limits) -> AsyncIterator[Database]:
    """Work in the background until the block ends; what is under way is then given up, and done again by whoever comes next.

    It has connections of its own, which it hands out to be looked at, CONNECTIONS at most: whoever asks or sends never waits
    for one that works.
    """
    async with AsyncExitStack() as stack:
        database = await Database.connect(msgspec.structs.replace(settings, pool_connections=CONNECTIONS), limits)
        stack.push_async_callback(database.close)
        lead = Lead(database)
        await lead.start()
        stack.push_async_callback(lead.close)
        unhurried = database.within(limits.scoring_statement_seconds_max)
        scorer = Scorer(unhurried, Measurer(unhurried).measure, limits)
        retention = Retention(database, ages_of(settings))
        worker = Worker(Refresher(database), scorer, retention, database, limits, settings.refresh_seconds, lead)
        worker.start()
        stack.push_async_callback(worker.close)
        courier = Courier(limits, allowed_of(settings), utc_now)
        stack.push_async_callback(courier.close)
        dispatcher = Dispatcher(database, Vault(Digests(database, settings.key_secret)), courier, limits, utc_now)
        notifier = Notifier(
            dispatcher, Evaluator(database, limits), database, limits, settings.notify_seconds, lead=lead
        )
        notifier.start()
        stack.push_async_callback(notifier.close)
        stack.callback(database.close_within, limits.closing_seconds_max)
        yield database


def allowed_of(settings: Settings) -> Allowed:
    """Where notifications may be sent, by the settings."""
    return Allowed(private=settings.webhook_allow_private, plain_http=settings.webhook_allow_http)
