"""What the tests of deliveries share: destinations, a dispatcher, and a clock that they set."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

import msgspec

from metering.key_digests import Digests
from metering.keys import ApiKey, Scope
from metering.limits import LIMITS, Limits
from metering.outbox.addresses import Allowed
from metering.outbox.courier import Courier
from metering.outbox.deliveries import Delivery, read_deliveries
from metering.outbox.destinations import DestinationKind, DestinationOrder, Destinations, Made
from metering.outbox.dispatch import Dispatcher
from metering.outbox.event import OutboxEvent
from metering.outbox.publish import publish
from metering.outbox.vault import Vault
from metering.store.pool import Database
from tests.rating.tables import at

OPERATOR: Final = ApiKey(
    prefix="mk_operator",
    name="operator",
    scopes=frozenset({Scope.ADMIN}),
    accounts=None,
    created_at=at("2025-01-01"),
    expires_at=None,
    revoked_at=None,
)
ANYWHERE: Final = Allowed(private=True, plain_http=True)
PATIENT: Final = msgspec.structs.replace(LIMITS, delivery_seconds_max=60)


class Clock:
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.now = datetime.now(UTC)

    def __call__(self) -> datetime:
        """What time it is."""
        return self.now


class Post:
    """A database with destinations, and who sends to them."""

    def __init__(self, database: Database, limits: Limits, allowed: Allowed, chance: float) -> None:
        self.database = database
        self.clock = Clock()
        vault = Vault(Digests(database, None))
        self.destinations = Destinations(database, vault, allowed, limits, self.clock)
        self.courier = Courier(limits, allowed, self.clock)
        self.dispatcher = Dispatcher(database, vault, self.courier, limits, self.clock, lambda: chance)

    async def put(
        self, key: str, url: str | None, kind: DestinationKind = DestinationKind.WEBHOOK, **fields: Any
    ) -> Made:
        """Put a destination."""
        return await self.destinations.put(DestinationOrder(key=key, kind=kind, url=url, **fields), OPERATOR)

    async def publish(self, subject: str = "account/acme", type_name: str = "test.made", **data: Any) -> UUID:
        """Publish one event."""
        async with self.database.transaction() as connection:
            event = OutboxEvent(type=type_name, subject=subject, data=data)
            return await publish(connection, event, self.clock())

    async def log(self, destination: str) -> list[Delivery]:
        """The deliveries of a destination, in the order of their publishing."""
        found, has_more = await read_deliveries(self.database, destination, None, 1_000, None)
        assert not has_more
        return found[::-1]

    async def deliver_all(self, destination: str, turns_max: int = 200) -> list[float]:
        """Send, and set the clock to when something is due again, until nothing is; say how long that took each time."""
        waited = []
        for _ in range(turns_max):
            assert await self.dispatcher.run()
            # Of each subject the first one; the others wait behind it.
            first = {
                each.subject: each.due_at for each in (await self.log(destination))[::-1] if each.due_at is not None
            }
            due = list(first.values())
            if not due or (await self.state(destination)).disabled_at is not None:
                return waited
            following = min(due)
            waited.append((following - self.clock.now) / timedelta(seconds=1))
            self.clock.now = max(self.clock.now, following)
        raise AssertionError("deliveries never came to an end")

    async def state(self, destination: str) -> Any:
        """A destination as it stands."""
        found, _ = await self.destinations.page(100, None)
        return next(each for each in found if each.key == destination)


@asynccontextmanager
async def posting(
    database: Database, limits: Limits = PATIENT, allowed: Allowed = ANYWHERE, chance: float = 0.5
) -> AsyncIterator[Post]:
    """A post; with a chance of a half waits are those of the schedule exactly."""
    post = Post(database, limits, allowed, chance)
    try:
        yield post
    finally:
        await post.courier.close()
