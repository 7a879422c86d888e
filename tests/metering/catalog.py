"""What the tests of the catalog share: who puts, a few meters and plans, and a short way to put them."""

import asyncio
from collections.abc import Callable, Coroutine
from decimal import Decimal
from typing import Any, Final

import msgspec

from metering.aggregations import Aggregation
from metering.config import Settings
from metering.events import Dimension
from metering.keys import ApiKey, Scope
from metering.limits import LIMITS
from metering.meters import Definition, put_meter
from metering.plans import PublishedPlan, publish_plan
from metering.questions import ValueFilter
from metering.store.pool import Database
from metering.subscriptions import Subscription, SubscriptionOrder, put_subscription
from rating.plans import Plan, PlanPrice
from rating.prices import Flat, PerUnit
from tests.rating.tables import at, plan

KEY: Final = ApiKey(
    prefix="mk_finance",
    name="finance",
    scopes=frozenset({Scope.CATALOG_WRITE}),
    accounts=None,
    created_at=at("2026-03-01"),
    expires_at=None,
    revoked_at=None,
)
OTHER_KEY: Final = msgspec.structs.replace(KEY, prefix="mk_product", name="product")
BOUND_KEY: Final = msgspec.structs.replace(KEY, accounts=frozenset({"acme"}))

BASE: Final = PlanPrice(key="base", price=Flat(Decimal(49)))
CALLS: Final = PlanPrice(key="calls", meter="calls", price=PerUnit(Decimal("0.015")))


def play(database_url: str, scenario: Callable[[Database], Coroutine[Any, Any, None]]) -> None:
    """Play a scenario with a pool of its own; one that hangs fails."""

    async def played() -> None:
        database = await Database.connect(Settings(database_url=database_url), LIMITS)
        try:
            async with asyncio.timeout(60):
                await scenario(database)
        finally:
            await database.close()

    asyncio.run(played())


async def meter(
    database: Database, key: str, aggregation: Aggregation = Aggregation.SUM, unit: str = "call", **products: Any
) -> None:
    """Put a meter; `product` narrows it."""
    definition = Definition(
        key=key,
        name=key,
        unit=unit,
        aggregation=aggregation,
        distinct=Dimension.USER if aggregation is Aggregation.UNIQUE_COUNT else None,
        filters={Dimension.PRODUCT: ValueFilter(tuple(products["product"]))} if products else {},
        rounding=None,
    )
    await put_meter(database, definition, KEY, LIMITS)


def draft(*prices: PlanPrice, **values: Any) -> Plan:
    """A monthly plan in EUR to be published, with a flat price unless others are given."""
    return plan(*(prices or (BASE,)), version=0, **values)


async def publish(database: Database, wanted: Plan, key: ApiKey = KEY, *, dry_run: bool = False) -> PublishedPlan:
    """Publish a plan."""
    return await publish_plan(database, wanted, key, LIMITS, dry_run=dry_run)


def order(**fields: Any) -> SubscriptionOrder:
    """A subscription of acme to the plan `team` from 2026 on, with these fields instead of the usual ones."""
    given = {"key": "s-1", "account": "acme", "plan": "team", "starts_at": at("2026-01-01"), **fields}
    return SubscriptionOrder(**given)


async def put(database: Database, wanted: SubscriptionOrder, key: ApiKey = KEY) -> Subscription:
    """Put a subscription."""
    return await put_subscription(database, wanted, key, LIMITS)


async def rows(database: Database, statement: str) -> list[tuple[Any, ...]]:
    """The rows of a statement."""
    async with database.connection() as connection:
        return [tuple(row) for row in await connection.fetch(statement)]
