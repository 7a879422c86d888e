"""All metrics and scores of many customers, and of one of them anew: seconds; and a page of each list of them: milliseconds.

Profile: a year of 2,000 accounts with 15,000 users by a power law (335 down to 4), each on one subscription with seats; a user
is active on every sixth day or so, weekends less, with two features of twelve on one of two devices, and one in six stops.
Written as events by the database itself, and rolled up as ever; `METERING_BENCH_DIR` keeps it for the next run.
"""

import argparse
import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import uvloop
from bench import ENGINES, Usage, database, percentile, print_table, scratch
from preload import run

from health.lists.known import RULES
from metering.config import Settings
from metering.health.customers import CustomerFilter
from metering.health.listing import ListAsked, list_subjects, read_figures
from metering.health.measuring import Measurer, measure_everybody
from metering.health.scorer import Scorer
from metering.health.scoring import score_accounts
from metering.keys import ApiKey, Scope
from metering.limits import LIMITS
from metering.plans import publish_plan
from metering.reach import EVERYTHING
from metering.rollups.refresh import Refresher
from metering.store.partitions import Partitions
from metering.store.pool import Database
from metering.store.snapshot import Snapshot
from metering.store.tables import PARTITIONED_EVENT
from metering.subscriptions import SubscriptionOrder, put_subscription
from rating.billing_periods import BillingInterval
from rating.plans import Plan, PlanPrice
from rating.prices import Flat

DAYS = 364
PUT_AT_ONCE = 8
_EVENTS = """
INSERT INTO event (account, occurred_at, key, source, event_id, received_at, subscription, "user", device, product, feature,
                   unit, quantity)
SELECT account, at, decode(md5(name), 'hex'), 'loadtest', name, at + interval '2 s', 'subscription of ' || account,
       'user-' || number, CASE WHEN rolls[3] < 0.3 THEN 'phone' ELSE 'desktop' END, 'product-' || feature % 3,
       'feature-' || feature, 'call', 1 + (rolls[4] * 20)::int
FROM (
    SELECT number, 'account-' || lpad((1 + floor({accounts} * power((number - 0.5) / {users}, 2)))::text, 5, '0') AS account,
           day + interval '8 hours' + random() * interval '10 hours' AS at, number || ' ' || day || ' ' || place AS name,
           (number * 7 + place * 5 + floor(random() * 3)::int) % 12 AS feature, place,
           ARRAY[random(), random(), random(), random()] AS rolls
    FROM generate_series(1, {users}) AS number,
         generate_series($1::timestamptz, $2::timestamptz - interval '1 second', interval '1 day') AS day,
         LATERAL generate_series(1, 1 + (hashint8(number * 1000 + extract(doy FROM day)::int) & 1023) % 4) AS place
    WHERE (hashint8(number * 100003 + extract(epoch FROM day)::bigint / 86400) & 1023) / 1024.0
              < 0.17 * (0.4 + (number * 13 % 12) / 10.0) * CASE WHEN extract(isodow FROM day) > 5 THEN 0.4 ELSE 1.25 END
      AND NOT (number % 6 = 0 AND day > $1::timestamptz + (number % 330 + 20) * interval '1 day')
) AS drawn
"""
_ACCOUNTS = 'SELECT account, count(DISTINCT "user") AS users FROM event GROUP BY account ORDER BY account'


async def fill(pool: Database, accounts: int, users: int, end: datetime) -> None:
    """A year of usage, rolled up, and contracts."""
    start = end - timedelta(days=DAYS)
    days = [start.date() + timedelta(days=number) for number in range(DAYS + 2)]
    await Partitions(pool).ensure(PARTITIONED_EVENT, days)
    async with pool.connection() as connection:
        await run(connection, _EVENTS.format(accounts=accounts, users=users), start, end)
        rows = await connection.fetch(_ACCOUNTS, timeout=600)
    await sell(pool, rows, start)
    while await Refresher(pool).run() is None:
        pass
    async with pool.connection() as connection:
        await run(connection, "VACUUM ANALYZE")


async def sell(pool: Database, rows: Sequence[Any], start: datetime) -> None:
    """A plan, and a subscription to it of each account, with a few seats more than users."""
    key = ApiKey(prefix="mk_load", name="load", scopes=frozenset(Scope), accounts=None, created_at=start, expires_at=None,
                 revoked_at=None)  # fmt: skip
    plan = Plan(key="team", version=0, name="Team", currency_code="EUR", interval=BillingInterval.MONTH,
                effective_from=start, prices=(PlanPrice(key="base", price=Flat(Decimal(49))),))  # fmt: skip
    await publish_plan(pool, plan, key, LIMITS)
    orders = [
        SubscriptionOrder(
            key=f"subscription of {row['account']}",
            account=row["account"],
            plan="team",
            starts_at=start,
            seats=row["users"] * 5 // 4,
            monthly_amount=Decimal(49) * row["users"],
            attributes={"core_features": ["feature-0", "feature-1", "feature-2"]},
        )
        for row in rows
    ]
    for first in range(0, len(orders), PUT_AT_ONCE):
        await asyncio.gather(*(put_subscription(pool, order, key, LIMITS) for order in orders[first:][:PUT_AT_ONCE]))


async def took(name: str, postgres: Usage, work: Callable[[], Awaitable[str]]) -> list[str]:
    """A row: how long something takes, and the processor time of each side."""
    started, used, own = time.monotonic(), postgres.cpu_seconds(), time.process_time()
    what = await work()
    seconds = f"{time.monotonic() - started:.1f} s"
    return [name, what, seconds, f"{postgres.cpu_seconds() - used:.1f} s", f"{time.process_time() - own:.1f} s"]


async def one_anew(pool: Database, measurer: Measurer, accounts: Sequence[str], day: date) -> list[list[str]]:
    """How long accounts take to be measured and scored anew, one by one."""
    rows = []
    for name, chosen in (
        ("the largest account", accounts[:1] * 20),
        ("an account of the middle", accounts[len(accounts) // 2 :][:20]),
    ):
        milliseconds = []
        for account in chosen:
            started = time.perf_counter()
            async with Snapshot(pool, EVERYTHING) as snapshot:
                scores = await score_accounts(snapshot, measurer.measure, [account], day)
            milliseconds.append(1_000 * (time.perf_counter() - started))
        subjects = f"{len(scores.measured)} subjects"
        p50, p95 = percentile(milliseconds, 0.5), percentile(milliseconds, 0.95)
        rows.append([f"{name} anew", subjects, f"p50 {p50:.0f} ms", f"p95 {p95:.0f} ms", ""])
    return rows


async def lists(pool: Database, day: date) -> list[list[str]]:
    """How long the first page of each list takes, with the key figures of its accounts."""
    rows = []
    for rule in RULES:
        milliseconds = []
        for _ in range(10):
            started = time.perf_counter()
            async with Snapshot(pool, EVERYTHING) as snapshot:
                page = await list_subjects(snapshot, rule, CustomerFilter(), ListAsked(day, 50), LIMITS)
                accounts = sorted({row.customer.key for row in page.rows})
                if accounts:
                    await read_figures(snapshot, accounts, page.since, day)
            milliseconds.append(1_000 * (time.perf_counter() - started))
        p50, p95 = percentile(milliseconds, 0.5), percentile(milliseconds, 0.95)
        named = f"{rule.name}, of {rule.subject.value.lower()}s"
        rows.append([named, f"50 of {page.total:,}", f"p50 {p50:.0f} ms", f"p95 {p95:.0f} ms", ""])
    return rows


async def measured(engine: str, url: str, postgres: Usage, options: argparse.Namespace) -> None:
    """Fill, unless it was filled before, and print the table."""
    pool = await Database.connect(Settings(database_url=url), LIMITS)
    try:
        async with pool.connection() as connection:
            last = await connection.fetchval("SELECT max(occurred_at) FROM event")
        end = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
        if last is None:
            started = time.monotonic()
            await fill(pool, options.accounts, options.users, end)
            print(f"{engine}: filled in {time.monotonic() - started:.0f} s", flush=True)
        else:
            end = (last + timedelta(days=1)).replace(hour=0, minute=0, second=0, microsecond=0)
        if not options.fill_only:
            await table(engine, pool, postgres, end)
    finally:
        await pool.close()


async def table(engine: str, pool: Database, postgres: Usage, end: datetime) -> None:
    """Everybody at once, everybody with scores as the worker does it, one by one."""
    day = (end - timedelta(days=1)).date()
    async with pool.connection() as connection:
        await connection.execute("TRUNCATE health_norms, health_day, health, measured")
        accounts = [
            row["account"] for row in await connection.fetch("SELECT account FROM subscription ORDER BY account")
        ]

    async def metrics() -> str:
        async with Snapshot(pool, EVERYTHING) as snapshot:
            _, found = await measure_everybody(snapshot, end.date())
        return f"{len(found):,} subjects, {sum(map(len, found.values())):,} metrics"

    measurer = Measurer(pool)

    async def scores() -> str:
        count, more, scorer = 0, True, Scorer(pool, measurer.measure, LIMITS)
        while more:
            done = await scorer.run(end + timedelta(minutes=30))
            assert done is not None, "nobody else scores"
            count, more = count + done.scores, done.more
        return f"{count:,} scores"

    rows = [
        await took("all metrics", postgres, metrics),
        await took("norms, all metrics and scores, kept", postgres, scores),
        *await one_anew(pool, measurer, accounts, day),
        *await lists(pool, day),
    ]
    columns = ["what", "of", "seconds", "PostgreSQL's processor time", "our own"]
    print_table(f"Health of {len(accounts):,} accounts, {engine}", columns, rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--accounts", type=int, default=2_000)
    parser.add_argument("--users", type=int, default=15_000)
    parser.add_argument("--engine", choices=ENGINES, action="append")
    parser.add_argument("--fill-only", action="store_true", help="fill a database that METERING_BENCH_DIR keeps")
    options = parser.parse_args()
    for engine in options.engine or ENGINES:
        with scratch(engine) as directory, database(engine, directory) as (url, postgres):
            uvloop.run(measured(engine, url, postgres, options))


if __name__ == "__main__":
    main()
