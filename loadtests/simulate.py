"""Simulations of everybody: how long a month of many subscriptions takes under another plan, and what is held meanwhile.

Profile: that of statements.py, with three years behind each subscription. They are simulated under another plan on the same
four meters: a page of the biggest differences and all sums, then the same split by user. The default is small;
`--subscriptions 10000` is the real thing, which is to take 60 s at most on two cores.
"""

import argparse
import resource
import time
from datetime import UTC, date, datetime
from decimal import Decimal

import msgspec
import uvloop
from bench import ENGINES, Usage, database, print_table, scratch
from statements import METERS, PRICES, TIERS, last_month, record, sell

from metering.config import Settings
from metering.limits import LIMITS
from metering.periods import day_start
from metering.statements.simulations import PageAsked, Report, SimulationOrder, check_order, simulate
from metering.store.pool import Database
from metering.store.snapshot import Snapshot
from rating.billing_periods import BillingInterval
from rating.periods import Period
from rating.plans import Plan, PlanPrice
from rating.prices import Flat, Graduated, PerUnit

YEARS = 3
PAGE = PageAsked(50, None)
KIBIBYTES = 1024
# Another flat price, and another price on each meter.
TARGET = (
    PlanPrice(key="base", price=Flat(Decimal(45))),
    *(PlanPrice(key=meter, meter=meter, price=PerUnit(Decimal("0.12"))) for meter in METERS[:2]),
    *(PlanPrice(key=meter, meter=meter, price=Graduated(TIERS)) for meter in METERS[2:]),
)


async def simulated(pool: Database, month: Period, postgres: Usage, plan: Plan, *, by_user: bool) -> list[str]:
    """One simulation: how many subscriptions and rows, how long, whose processor time, and the most memory so far."""
    limits = msgspec.structs.replace(LIMITS, statement_seconds_max=LIMITS.unattended_statement_seconds_max)
    started, used, own = time.monotonic(), postgres.cpu_seconds(), time.process_time()
    order = SimulationOrder(draft=plan, start=month.start, end=month.end, by_user=by_user)
    async with Snapshot(pool) as snapshot:
        simulation = await check_order(snapshot, order, limits)
        report = Report(simulation, [PAGE])
        async for batch in simulate(snapshot, simulation, limits):
            report.add(batch)
    seconds = time.monotonic() - started
    count = report.subscriptions.count
    if count != simulation.subscriptions or len(report.page(PAGE).rows) != min(PAGE.first, report.row_count):
        raise SystemExit(f"{count:,} subscriptions were simulated, and there are {simulation.subscriptions:,}")
    return [
        "light and heavy users" if by_user else "subscriptions",
        f"{count:,}",
        f"{report.row_count:,}",
        f"{seconds:.1f} s",
        f"{count / seconds:,.0f}",
        f"{time.process_time() - own:.1f} s",
        f"{postgres.cpu_seconds() - used:.1f} s",
        f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / KIBIBYTES:,.0f}",
    ]


async def measured(url: str, postgres: Usage, options: argparse.Namespace) -> list[list[str]]:
    """The rows for one engine."""
    pool = await Database.connect(Settings(database_url=url, pool_connections=8), LIMITS)
    try:
        month = last_month(datetime.now(UTC)).bounds(UTC)
        since = day_start(date(month.start.year - YEARS, month.start.month, 1), UTC)
        await sell(pool, options.subscriptions, since)
        await record(pool, options.subscriptions, options.events, month.start, month.end)
        given = {"key": "target", "version": 0, "name": "Target", "currency_code": "EUR", "effective_from": since}
        plans = [Plan(**given, interval=BillingInterval.MONTH, prices=prices) for prices in (PRICES, TARGET)]
        await simulated(pool, month, postgres, plans[0], by_user=False)
        return [await simulated(pool, month, postgres, plans[1], by_user=by_user) for by_user in (False, True)]
    finally:
        await pool.close()


def main() -> None:
    """Measure on each engine."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--subscriptions", type=int, default=500)
    parser.add_argument("--events", type=int, default=50_000, help="of one large account more, of 1,500 users")
    parser.add_argument("--engine", choices=ENGINES)
    options = parser.parse_args()
    rows = []
    for engine in [options.engine] if options.engine else ENGINES:
        with scratch(engine) as directory, database(engine, directory) as (url, postgres):
            rows += [[engine, *row] for row in uvloop.run(measured(url, postgres, options))]
    names = (
        "engine",
        "rows are",
        "subscriptions",
        "rows",
        "took",
        "a second",
        "CPU of Python",
        "CPU of PostgreSQL",
        "MiB",
    )
    print_table(f"A month of {options.subscriptions:,} subscriptions with 4 meters under another plan", names, rows)


if __name__ == "__main__":
    main()
