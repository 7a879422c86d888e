"""Latency of typical usage questions over GraphQL, rolled up and with late events pending: `make bench`.

Profile: see profile.py, 300,000 events over 30 days. Budget: a minute.
"""

import asyncio
import random
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from profile import bodies
from tempfile import TemporaryDirectory

import httpx2
from bench import ENGINES, KEY, database, percentile, print_table, service

EVENTS = 300_000
DAYS = 30
ASKED_MAX = 200
SECONDS_MAX = 10.0
SETTLE_SECONDS_MAX = 120

_SERIES = "groups { nodes { key { product } series(bucket: %s) { columns { from quantity } } } }"
_ACCOUNT = 'filter: { account: { in: ["%s"] } }'
QUESTIONS = {
    "one account, 30 days by day and product": ("groupBy: [PRODUCT], " + _ACCOUNT, _SERIES % "DAY"),
    "one account, top 20 users": (
        "groupBy: [USER], " + _ACCOUNT,
        "groups(first: 20) { nodes { key { user } totals { quantity } } }",
    ),
    "one account, by hour in Asia/Kolkata": ('timeZone: "Asia/Kolkata", ' + _ACCOUNT, _SERIES % "HOUR"),
    "everyone, by day and product": ("groupBy: [PRODUCT]", _SERIES % "DAY"),
    "top 50 accounts": ("groupBy: [ACCOUNT]", "groups(first: 50) { nodes { key { account } totals { quantity } } }"),
}


def document(narrowed: str, selection: str, now: datetime) -> str:
    """A usage query over the last 30 days, up to this second."""
    period = f'period: {{ from: "{now - timedelta(days=DAYS):%FT%TZ}", to: "{now:%FT%TZ}" }}'
    return f"{{ usage(query: {{ {period}, {narrowed} }}) {{ __typename ... on UsageReport {{ {selection} }} }} }}"


async def load(client: httpx2.AsyncClient, seed: int, count: int) -> None:
    """Send so many events of the last 30 days."""
    for body in bodies(seed, datetime.now(UTC), timedelta(days=DAYS), 1_000, count // 1_000):
        (await client.post("/v1/events", content=body)).raise_for_status()


async def settled(client: httpx2.AsyncClient) -> None:
    """Wait until nothing is pending."""
    deadline = time.monotonic() + SETTLE_SECONDS_MAX
    while time.monotonic() < deadline:
        if ", 0 pending" in (await client.get("/readyz")).text:
            return
        await asyncio.sleep(0.2)
    raise SystemExit(f"the pending log was not empty within {SETTLE_SECONDS_MAX} s")


async def ask(client: httpx2.AsyncClient, name: str, rolls: random.Random) -> float:
    """Ask once, of an account by chance where one is asked for, and return the seconds it took."""
    narrowed, selection = QUESTIONS[name]
    account = f"account-{int(2_000 ** rolls.random()) - 1:04d}"
    query = document(narrowed % account if "%s" in narrowed else narrowed, selection, datetime.now(UTC))
    started = time.perf_counter()
    answer = (await client.post("/graphql", json={"query": query})).json()
    seconds = time.perf_counter() - started
    if answer.get("data", {}).get("usage", {}).get("__typename") != "UsageReport":
        raise SystemExit(f"{name}: {answer}")
    return seconds


async def measure(client: httpx2.AsyncClient, label: str) -> list[list[str]]:
    """A row for each question."""
    rows = []
    for name in QUESTIONS:
        rolls = random.Random(name)
        await ask(client, name, rolls)
        took: list[float] = []
        until = time.monotonic() + SECONDS_MAX
        while len(took) < ASKED_MAX and time.monotonic() < until:
            took.append(await ask(client, name, rolls))
        rows.append(
            [name, label, str(len(took)), *(f"{percentile(took, share) * 1_000:,.1f}" for share in (0.5, 0.99))]
        )
    return rows


async def measured(address: str) -> list[list[str]]:
    """Load, wait until all is rolled up, and ask."""
    headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
    async with httpx2.AsyncClient(base_url=address, headers=headers, timeout=60) as client:
        await load(client, 1, EVENTS)
        await settled(client)
        return await measure(client, "rolled up")


def main() -> None:
    """Measure and print."""
    columns = ["question", "state", "asked", "p50 ms", "p99 ms"]
    for engine in ENGINES:
        with (
            TemporaryDirectory(prefix="metering-bench-") as directory,
            database(engine, Path(directory)) as (url, _),
            service(url) as (address, _),
        ):
            rows = asyncio.run(measured(address))
        print_table(f"Questions over {EVENTS:,} events of {DAYS} days on {engine}", columns, rows)


main()
