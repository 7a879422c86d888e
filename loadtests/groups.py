"""Pages of a million groups: how long each takes, what PostgreSQL writes to its disk for it, what the service holds.

The database makes the events itself: a million users of one account with a few events each in two units, over two days
that are rolled up. The first two pages are asked for in every order, over HTTP. Ends with exit code 1 where the groups of a
page and its remainder are not the whole, to the last digit.
"""

import argparse
import asyncio
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx2
from bench import ENGINES, KEY, Usage, database, percentile, print_table, service

from metering.config import Settings
from metering.limits import LIMITS
from metering.rollups.refresh import Refresher
from metering.store.partitions import Partitions
from metering.store.pool import Database
from metering.store.tables import PARTITIONED_EVENT

START = datetime(2026, 3, 2, tzinfo=UTC)
DAYS = 2
ASKED = 2
PAGE_ROWS = 1_000

# One in ten users has usage of a second unit; quantities are such that many users tie.
_EVENTS = """
INSERT INTO event (account, occurred_at, key, source, event_id, received_at, "user", product, unit, quantity)
SELECT 'acme', $1::timestamptz + number % 47 * interval '1 hour', decode(md5(number::text || unit), 'hex'), 'bench',
       number::text || unit, $1, NULLIF('user-' || lpad((number * 7919 % $2)::text, 9, '0'), 'user-000000000'), 'maps',
       unit, number % 1000 / 8.0
FROM generate_series(1, $2::bigint) AS number,
     LATERAL unnest(CASE WHEN number % 10 = 0 THEN ARRAY['call', 'gigabyte'] ELSE ARRAY['call'] END) AS unit
"""
_ORDERS = {
    "KEY": "{ field: KEY, direction: ASC }",
    "EVENTS": "{ field: EVENTS, direction: DESC }",
    "QUANTITY, of several units": '{ field: QUANTITY, direction: DESC, unit: "call" }',
    "QUANTITY, of the only unit": "{ field: QUANTITY, direction: DESC }",
    "KEY, and how many users the remainder has": "{ field: KEY, direction: ASC }",
}
_DOCUMENT = """
{ usage(query: { period: { from: "%s", to: "%s" }, groupBy: [USER], filter: { %s } }) { ... on UsageReport {
  totals { unit quantity }
  groups(orderBy: %s, first: %d, after: %s) {
    totalCount pageInfo { endCursor hasNextPage } nodes { key { user } totals { unit quantity } } remainder { unit quantity %s }
  }
} } }
"""


async def fill(database_url: str, groups: int) -> None:
    """Make the events and roll them up."""
    opened = await Database.connect(Settings(database_url=database_url), LIMITS)
    try:
        await Partitions(opened).ensure(PARTITIONED_EVENT, [START.date() + timedelta(days=day) for day in range(DAYS)])
        async with opened.connection() as connection:
            await connection.execute(_EVENTS, START, groups, timeout=3_600)
            await connection.execute("ANALYZE event", timeout=3_600)
        done = await Refresher(opened).run(START + timedelta(days=DAYS, hours=1))
        assert done is not None, "nobody else refreshes"
        async with opened.connection() as connection:
            await connection.execute("ANALYZE", timeout=3_600)
    finally:
        await opened.close()


async def temporary_bytes(database_url: str) -> int:
    """What PostgreSQL has written to temporary files of this database so far."""
    opened = await Database.connect(Settings(database_url=database_url), LIMITS)
    try:
        async with opened.connection() as connection:
            await connection.execute("SELECT pg_stat_force_next_flush()")
            written: int = await connection.fetchval(
                "SELECT temp_bytes FROM pg_stat_database WHERE datname = current_database()"
            )
            return written
    finally:
        await opened.close()


async def ask(client: httpx2.AsyncClient, order: str, after: str | None, first: int) -> tuple[float, dict[str, Any]]:
    """One page, and the seconds that it took."""
    narrowed = 'unit: { in: ["call"] }' if order.endswith("only unit") else ""
    cursor = "null" if after is None else f'"{after}"'
    document = _DOCUMENT % (
        START.isoformat(), (START + timedelta(days=DAYS)).isoformat(), narrowed, _ORDERS[order], first, cursor,
        "distinct(dimension: USER)" if "how many" in order else "",
    )  # fmt: skip
    started = time.perf_counter()
    answer = (await client.post("/graphql", json={"query": document})).json()
    seconds = time.perf_counter() - started
    if "errors" in answer:
        raise SystemExit(f"{order}: {answer['errors']}")
    report = answer["data"]["usage"]
    groups: dict[str, Any] = report["groups"]
    parts = [*groups["remainder"], *(total for node in groups["nodes"] for total in node["totals"])]
    if _by_unit(parts) != _by_unit(report["totals"]):
        raise SystemExit(
            f"{order}: a page and its remainder are {_by_unit(parts)}, the whole {_by_unit(report['totals'])}"
        )
    return seconds, groups


def _by_unit(totals: Iterable[Mapping[str, str]]) -> dict[str, Decimal]:
    sums: dict[str, Decimal] = defaultdict(Decimal)
    for total in totals:
        sums[total["unit"]] += Decimal(total["quantity"])
    return sums


async def measured(address: str, database_url: str, process: Usage) -> list[list[str]]:
    """A row for each order."""
    rows = []
    async with httpx2.AsyncClient(
        base_url=address, headers={"Authorization": f"Bearer {KEY}"}, timeout=120, trust_env=False
    ) as client:
        for order in _ORDERS:
            before = await temporary_bytes(database_url)
            took: dict[str, list[float]] = {"first": [], "second": []}
            groups: dict[str, Any] = {}
            for _ in range(ASKED):
                seconds, groups = await ask(client, order, None, PAGE_ROWS)
                took["first"].append(seconds)
                seconds, groups = await ask(client, order, groups["pageInfo"]["endCursor"], PAGE_ROWS)
                took["second"].append(seconds)
            spilled = (await temporary_bytes(database_url) - before) / (2 * ASKED) / 2**20
            rows.append(
                [
                    order, f"{groups['totalCount']:,}", *(f"{percentile(of, 0.5):,.2f}" for of in took.values()),
                    f"{spilled:,.0f}", f"{process.resident_mebibytes():,.0f}",
                ]
            )  # fmt: skip
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--groups", type=int, default=1_000_000)
    groups = parser.parse_args().groups
    columns = ["order", "groups", "first page s", "second page s", "temporary MiB a page", "service MiB"]
    for engine in ENGINES:
        with TemporaryDirectory(prefix="metering-bench-") as directory, database(engine, Path(directory)) as (url, _):
            asyncio.run(fill(url, groups))
            with service(url) as (address, process):
                rows = asyncio.run(measured(address, url, process))
        print_table(f"Pages of {PAGE_ROWS:,} of {groups:,} groups on {engine}", columns, rows)


main()
