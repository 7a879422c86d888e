"""All metrics and scores of many customers, and of one of them anew: seconds; a page of each list of them: milliseconds; and
what it takes to hold a scorecard against what became of all of them: seconds.

Profile: a year of 2,000 accounts with 15,000 users by a power law (335 down to 4), each on one subscription with seats; a user
is active on every sixth day or so, weekends less, with two features of twelve on one of two devices, and one in six stops.
Written as events by the database itself, and rolled up as ever; `METERING_BENCH_DIR` keeps it for the next run.
Each account has an outcome, on one of six days of the last half year; every seventh has left, by its number, so that what a
back-test says of the card is nothing. What was kept before each is what is kept of the last day, week by week.
"""

import argparse
import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import uvloop
from bench import ENGINES, Usage, database, percentile, print_table, scratch
from preload import run

from health.lists.known import RULES
from health.scorecards import Subject
from metering.config import Settings
from metering.health.backtests import BacktestOrder, read_past, sum_up, try_kept, try_measured
from metering.health.cards import read_cards
from metering.health.customers import CustomerFilter
from metering.health.listing import ListAsked, list_subjects, read_figures
from metering.health.measuring import Measurer, measure_everybody
from metering.health.outcomes import OutcomeKind, OutcomeOrder, record_outcomes
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
OUTCOME_DAYS = [7 + 28 * number for number in range(6)]
HORIZON_DAYS = 30
# What was measured of accounts on the last day, as if it had been so each week of the year.
_MEASURED_BEFORE = """
INSERT INTO measured (account, subject, key, as_of, computed_at, metrics)
SELECT account, subject, key, as_of - 7 * week, (as_of - 7 * week + 1)::timestamp AT TIME ZONE 'UTC', metrics
FROM measured CROSS JOIN generate_series(1, 52) AS week WHERE subject = 'ACCOUNT' AND as_of = $1
"""
_SCORED_BEFORE = """
INSERT INTO health (account, subject, key, purpose, as_of, computed_at, scorecard, version, score, band, coverage, baseline,
                    raw, drivers, adjustment)
SELECT account, subject, key, purpose, as_of - 7 * week, (as_of - 7 * week + 1)::timestamp AT TIME ZONE 'UTC', scorecard,
       version, score, band, coverage, baseline, raw, drivers, adjustment
FROM health CROSS JOIN generate_series(1, 52) AS week WHERE subject = 'ACCOUNT' AND as_of = $1
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
    key = load_key(start)
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


def load_key(created_at: datetime) -> ApiKey:
    """Who makes all of it."""
    return ApiKey(prefix="mk_load", name="load", scopes=frozenset(Scope), accounts=None, created_at=created_at,
                  expires_at=None, revoked_at=None)  # fmt: skip


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


async def become(pool: Database, accounts: Sequence[str], end: datetime, day: date) -> None:
    """What became of each account, and what was kept of it before."""
    orders = [
        OutcomeOrder(
            subject=Subject.ACCOUNT,
            key=account,
            kind=OutcomeKind.RENEWED if number % 7 else OutcomeKind.CHURNED,
            at=end - timedelta(days=OUTCOME_DAYS[number % len(OUTCOME_DAYS)]),
            source="loadtest",
            external_id=f"outcome of {account}",
        )
        for number, account in enumerate(accounts)
    ]
    for first in range(0, len(orders), LIMITS.request_signals_max):
        await record_outcomes(pool, orders[first:][: LIMITS.request_signals_max], load_key(end), LIMITS)
    async with pool.connection() as connection:
        await run(connection, _MEASURED_BEFORE, day)
        await run(connection, _SCORED_BEFORE, day)
        await run(connection, "ANALYZE measured, health, outcome")


async def back_tests(pool: Database, postgres: Usage, end: datetime) -> list[list[str]]:
    """How long a card takes to be held against all outcomes: by scores, by what was measured, and measured anew."""
    async with Snapshot(pool, EVERYTHING) as snapshot:
        card = next(each.card for each in (await read_cards(snapshot)).newest if each.card.key == "account")
    rows = []
    for name, walk, is_in_force in (
        ("backtest, by the scores that are kept", try_kept, True),
        ("backtest of a draft, by what was measured", try_kept, False),
        ("backtest of a draft, measured anew", try_measured, False),
    ):
        order = BacktestOrder(card=card, is_in_force=is_in_force, horizon_days=HORIZON_DAYS,
                              start=(end - timedelta(days=DAYS)).date(), end=end.date())  # fmt: skip

        async def back_test(order: BacktestOrder = order, walk: Callable[..., AsyncIterator[Any]] = walk) -> str:
            async with Snapshot(pool, EVERYTHING) as snapshot:
                past = await read_past(snapshot, order, LIMITS)
                tried = [each async for page in walk(snapshot, order, past, LIMITS) for each in page]
            report = sum_up(order, tried)
            days = len({each.on for each in past})
            return f"{len(past):,} outcomes of {days} days, {report.unscored:,} without a score"

        rows.append(await took(name, postgres, back_test))
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
    """Everybody at once; everybody with scores as the worker does it, on a day that is over and, as if something new were known
    of all of them, on the one that is under way; one by one; lists; back-tests.
    """
    day = (end - timedelta(days=1)).date()
    async with pool.connection() as connection:
        await connection.execute(
            "TRUNCATE health_norms, health_day, health_dirty, health, measured, warning, warning_watch"
        )
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
        await took("norms, all metrics and scores of a day, kept", postgres, scores),
    ]
    async with pool.connection() as connection:
        await connection.execute(
            "INSERT INTO health_dirty (account, since) SELECT unnest($1::text[]), $2", accounts, end.date()
        )
    rows += [
        await took("the same of the next day, of accounts that are marked", postgres, scores),
        *await one_anew(pool, measurer, accounts, day),
        *await lists(pool, day),
    ]
    await become(pool, accounts, end, day)
    rows += await back_tests(pool, postgres, end)
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
