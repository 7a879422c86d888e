"""A month's statements of many subscriptions, and one statement of a large account: statements/s, and milliseconds.

Profile: each subscription is of an account of its own, on one plan with a flat price and four prices on four meters, and has
an event a day for each meter; one account more has as many events as it is told, of 1,500 users. All of it is of last month
and rolled up. The default is small; `--subscriptions 10000 --events 1000000` is the real thing.
"""

import argparse
import asyncio
import time
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import httpx2
import uvloop
from bench import ENGINES, KEY, Usage, database, percentile, print_table, scratch, service
from preload import run

from metering.aggregations import Aggregation
from metering.config import Settings
from metering.events import Dimension
from metering.keys import ApiKey, Scope
from metering.limits import LIMITS
from metering.meters import Definition, put_meter
from metering.periods import day_start
from metering.plans import publish_plan
from metering.questions import ValueFilter
from metering.rollups.refresh import Refresher
from metering.statements.batch import Month, Outcome, bill
from metering.store.partitions import Partitions
from metering.store.pool import Database
from metering.store.tables import PARTITIONED_EVENT
from metering.subscriptions import SubscriptionOrder, put_subscription
from rating.billing_periods import BillingInterval
from rating.plans import Plan, PlanPrice
from rating.prices import Flat, Graduated, Package, PerUnit, Tier, Volume

METERS = ("product-0", "product-1", "product-2", "product-3")
LARGE = "large"
ANSWERS_MAX_SECONDS = 60
PUT_AT_ONCE = 8
# A flat price, and two tiers here and there: what a plan has.
TIERS = (Tier(Decimal(10), Decimal("0.5")), Tier(None, Decimal("0.2")))
PRICES = (
    PlanPrice(key="base", price=Flat(Decimal(49))),
    PlanPrice(key="calls", meter=METERS[0], price=PerUnit(Decimal("0.015")), included_quantity=Decimal(5)),
    PlanPrice(key="tiers", meter=METERS[1], price=Graduated(TIERS)),
    PlanPrice(key="bundles", meter=METERS[2], price=Package(Decimal(10), Decimal(3))),
    PlanPrice(key="volume", meter=METERS[3], price=Volume(TIERS), discount_percent=Decimal(5)),
)
_OF_MANY = """
INSERT INTO event (account, occurred_at, key, source, event_id, received_at, subscription, "user", product, unit, quantity)
SELECT 'account-' || number, at, decode(md5(number || ' ' || meter || ' ' || at), 'hex'), 'loadtest',
       number || ' ' || meter || ' ' || at, at, 'subscription-' || number, 'user-' || (number + meter) % 7,
       'product-' || meter, 'call', (1 + hashint4(number * 31 + meter) % 1000 + 1000) / 1000.0
FROM generate_series(1, {subscriptions}) AS number, generate_series(0, 3) AS meter,
     generate_series($1::timestamptz + interval '9 hours', $2::timestamptz - interval '1 second', interval '1 day') AS at
"""
_OF_LARGE = f"""
INSERT INTO event (account, occurred_at, key, source, event_id, received_at, subscription, "user", product, unit, quantity)
SELECT '{LARGE}', $1::timestamptz + (number + 0.5) / {{events}} * ($2::timestamptz - $1::timestamptz),
       decode(md5('large ' || number), 'hex'), 'loadtest', 'large ' || number, $2::timestamptz, '{LARGE}',
       'user-' || number % 1500, 'product-' || number % 4, 'call', (1 + number % 1000) / 1000.0
FROM generate_series(0, {{events}} - 1) AS number
"""
_STATEMENT = """
{{ statement(subscription: "{}", at: "{}") {{
  __typename ... on Statement {{ total {{ amount }} unrated {{ unit }} lines {{ key amount {{ amount }} }} }}
}} }}
"""


def last_month(now: datetime) -> Month:
    """The month before this one."""
    before = now.replace(day=1) - timedelta(days=1)
    return Month(before.year, before.month)


async def sell(pool: Database, subscriptions: int, since: datetime) -> None:
    """Meters, a plan, and subscriptions to it."""
    key = ApiKey(prefix="mk_load", name="load", scopes=frozenset(Scope), accounts=None, created_at=since, expires_at=None,
                 revoked_at=None)  # fmt: skip
    for product in METERS:
        filters = {Dimension.PRODUCT: ValueFilter((product,))}
        definition = Definition(key=product, name=product, unit="call", aggregation=Aggregation.SUM, distinct=None,
                                filters=filters, rounding=None)  # fmt: skip
        await put_meter(pool, definition, key, LIMITS)
    plan = Plan(key="team", version=0, name="Team", currency_code="EUR", interval=BillingInterval.MONTH,
                effective_from=since, prices=PRICES)  # fmt: skip
    await publish_plan(pool, plan, key, LIMITS)
    names = [(f"subscription-{number}", f"account-{number}") for number in range(1, subscriptions + 1)]
    orders = [
        SubscriptionOrder(key=name, account=account, plan="team", starts_at=since)
        for name, account in [*names, (LARGE, LARGE)]
    ]
    for first in range(0, len(orders), PUT_AT_ONCE):
        await asyncio.gather(*(put_subscription(pool, order, key, LIMITS) for order in orders[first:][:PUT_AT_ONCE]))


async def record(pool: Database, subscriptions: int, events: int, start: datetime, end: datetime) -> None:
    """The usage of a month, rolled up."""
    days = [start.date() + timedelta(days=number) for number in range((end - start).days + 1)]
    await Partitions(pool).ensure(PARTITIONED_EVENT, days)
    async with pool.connection() as connection:
        await run(connection, _OF_MANY.format(subscriptions=subscriptions), start, end)
        await run(connection, _OF_LARGE.format(events=events), start, end)
    while await Refresher(pool).run() is None:
        pass
    async with pool.connection() as connection:
        await run(connection, "VACUUM ANALYZE")


async def billed(pool: Database, month: Month, postgres: Usage, *, finalize: bool) -> list[str]:
    """One run over all subscriptions: how many statements, how long, and the database's share of the processors."""
    started, used, count, outcomes = time.monotonic(), postgres.cpu_seconds(), 0, set[Outcome]()
    own = time.process_time()
    async for page in bill(pool, month, LIMITS, by="a load test", finalize=finalize):
        count += len(page.billed)
        outcomes |= {each.outcome for each in page.billed}
    seconds = time.monotonic() - started
    return [
        " and ".join(sorted(outcome.value for outcome in outcomes)),
        f"{count:,}",
        f"{seconds:.1f} s",
        f"{count / seconds:,.0f}",
        f"{time.process_time() - own:.1f} s",
        f"{postgres.cpu_seconds() - used:.1f} s",
    ]


async def asked(address: str, at: datetime, count: int) -> list[str]:
    """Percentiles of one statement of the large account, over GraphQL."""
    document = _STATEMENT.format(LARGE, f"{at:%FT%TZ}")
    took: list[float] = []
    headers = {"Authorization": f"Bearer {KEY}"}
    async with httpx2.AsyncClient(base_url=address, headers=headers, timeout=ANSWERS_MAX_SECONDS) as client:
        for number in range(count + 10):
            started = time.perf_counter()
            answer: Any = (await client.post("/graphql", json={"query": document})).json()
            if answer.get("data", {}).get("statement", {}).get("__typename") != "Statement":
                raise SystemExit(f"{document}: {answer}")
            # The first ones open connections and fill caches.
            if number >= 10:
                took.append(time.perf_counter() - started)
    return [f"{1_000 * percentile(took, share):.1f} ms" for share in (0.5, 0.95, 0.99)]


async def measured(url: str, postgres: Usage, options: argparse.Namespace) -> tuple[list[list[str]], list[str]]:
    """The rows of both tables, for one engine."""
    pool = await Database.connect(Settings(database_url=url, pool_connections=8), LIMITS)
    try:
        month = last_month(datetime.now(UTC))
        bounds = month.bounds(UTC)
        since = day_start(date(bounds.start.year - 1, bounds.start.month, 1), UTC)
        await sell(pool, options.subscriptions, since)
        await record(pool, options.subscriptions, options.events, bounds.start, bounds.end)
        with service(url) as (address, _):
            one = await asked(address, bounds.start, options.asked)
        before = [last_month(bounds.start)]
        while len(before) < options.frozen:
            before.append(last_month(before[-1].bounds(UTC).start))
        for earlier in before[: options.frozen]:
            await billed(pool, earlier, postgres, finalize=True)
        rows = [await billed(pool, month, postgres, finalize=finalize) for finalize in (False, True, True)]
        return rows, one
    finally:
        await pool.close()


def main() -> None:
    """Measure on each engine."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--subscriptions", type=int, default=500)
    parser.add_argument("--events", type=int, default=50_000, help="of the large account, last month")
    parser.add_argument("--frozen", type=int, default=0, help="months before that are frozen, and looked at again")
    parser.add_argument("--asked", type=int, default=200, help="times that the large account's statement is asked for")
    parser.add_argument("--engine", choices=ENGINES)
    options = parser.parse_args()
    rows, ones = [], []
    for engine in [options.engine] if options.engine else ENGINES:
        with scratch(engine) as directory, database(engine, directory) as (url, postgres):
            of_engine, one = uvloop.run(measured(url, postgres, options))
        rows += [[engine, *row] for row in of_engine]
        ones.append([engine, f"{options.events:,}", *one])
    title = (
        f"A month of {options.subscriptions:,} subscriptions with 4 meters, {options.frozen} frozen months before it"
    )
    print_table(
        title, ("engine", "outcome", "statements", "took", "statements/s", "CPU of Python", "CPU of PostgreSQL"), rows
    )
    print_table("One statement of a large account, over GraphQL", ("engine", "events", "p50", "p95", "p99"), ones)


if __name__ == "__main__":
    main()
