"""Background work, all of it: in a process that serves too, or in one that does nothing else (`metering work`).

Each runs every loop and does the work of it where it leads, so there may be several: another one takes over.
"""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import msgspec

from metering.alerts.evaluate import Evaluator
from metering.config import Settings
from metering.health.measuring import Measurer
from metering.health.scorer import Scorer
from metering.key_digests import Digests
from metering.lead import Lead
from metering.limits import Limits
from metering.notifier import CONNECTIONS, Notifier, utc_now
from metering.outbox.addresses import Allowed
from metering.outbox.courier import Courier
from metering.outbox.dispatch import Dispatcher
from metering.outbox.vault import Vault
from metering.retention import Retention, ages_of
from metering.rollups.refresh import Refresher
from metering.store.pool import Database
from metering.worker import Worker


@asynccontextmanager
async def background_work(settings: Settings, limits: Limits, database: Database) -> AsyncIterator[None]:
    """Work in the background until the block ends; what is under way is then given up, and done again by whoever comes next.

    Notifications, and the lead, have connections of their own: besides those of `database`, one more than CONNECTIONS.
    """
    async with AsyncExitStack() as stack:
        own = await Database.connect(msgspec.structs.replace(settings, pool_connections=CONNECTIONS + 1), limits)
        stack.push_async_callback(own.close)
        lead = Lead(own)
        await lead.start()
        stack.push_async_callback(lead.close)
        scorer = Scorer(database, Measurer(database).measure, limits)
        retention = Retention(database, ages_of(settings))
        worker = Worker(Refresher(database), scorer, retention, database, limits, settings.refresh_seconds, lead)
        worker.start()
        stack.push_async_callback(worker.close)
        courier = Courier(limits, allowed_of(settings), utc_now)
        stack.push_async_callback(courier.close)
        dispatcher = Dispatcher(own, Vault(Digests(database, settings.key_secret)), courier, limits, utc_now)
        notifier = Notifier(dispatcher, Evaluator(own, limits), own, limits, settings.notify_seconds, lead=lead)
        notifier.start()
        stack.push_async_callback(notifier.close)
        yield


def allowed_of(settings: Settings) -> Allowed:
    """Where notifications may be sent, by the settings."""
    return Allowed(private=settings.webhook_allow_private, plain_http=settings.webhook_allow_http)
