"""Ingest through the endpoint, durable, beside server-side COPY of the same rows: `make bench`.

Profile: see profile.py. Budget: a few seconds for each row of the table.
"""

import asyncio
import time
from datetime import UTC, datetime, timedelta
from io import BytesIO
from profile import bodies

import asyncpg
import httpx2
from bench import KEY, cpu_seconds, percentile, print_table, service

SECONDS_MAX = 15.0
CONNECTIONS = 8
COPY_ROWS = 200_000
SIZES = (1_000, 100, 1)
_COLUMNS = (
    "account", "occurred_at", "key", "source", "event_id", "received_at", "subscription", "user", "device", "product",
    "feature", "classification", "unit", "quantity",
)  # fmt: skip
_EVENT = ", ".join(f'"{column}"' for column in _COLUMNS)


async def through_the_endpoint(address: str, size: int, seed: int) -> tuple[float, list[float], list[float]]:
    """Events/s, the seconds that each request took, and the microseconds of CPU an event: service, PostgreSQL."""
    count = min(40_000, max(40, int(600_000 / size)))
    requests = iter(bodies(seed, datetime.now(UTC), timedelta(hours=1), size, min(count, 2_500)))
    took: list[float] = []
    headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}

    async def work(client: httpx2.AsyncClient, until: float) -> None:
        for body in requests:
            started = time.perf_counter()
            response = await client.post("/v1/events", content=body)
            response.raise_for_status()
            took.append(time.perf_counter() - started)
            if time.perf_counter() > until:
                return

    async with httpx2.AsyncClient(base_url=address, headers=headers, timeout=60) as client:
        before = [cpu_seconds(program) for program in ("metering", "postgres")]
        started = time.perf_counter()
        await asyncio.gather(*(work(client, started + SECONDS_MAX) for _ in range(CONNECTIONS)))
        seconds = time.perf_counter() - started
        after = [cpu_seconds(program) for program in ("metering", "postgres")]
    events = len(took) * size
    cpu = [(end - start) / events * 1e6 for start, end in zip(before, after, strict=True)]
    return events / seconds, took, cpu


async def through_copy(url: str) -> float:
    """Rows/s of binary COPY of recorded events and identities, already encoded, into tables with the same indexes."""
    connection = await asyncpg.connect(url)
    try:
        await connection.execute("CREATE TABLE copy_event (LIKE event INCLUDING ALL)")
        await connection.execute("CREATE TABLE copy_identity (LIKE event_identity INCLUDING ALL)")
        events, identities = BytesIO(), BytesIO()
        query = f"SELECT {_EVENT} FROM event ORDER BY received_at LIMIT {COPY_ROWS}"
        status = await connection.copy_from_query(query, output=events, format="binary")
        query = f"SELECT * FROM event_identity LIMIT {COPY_ROWS}"
        await connection.copy_from_query(query, output=identities, format="binary")
        events.seek(0)
        identities.seek(0)
        started = time.perf_counter()
        async with connection.transaction():
            await connection.copy_to_table("copy_identity", source=identities, format="binary")
            await connection.copy_to_table("copy_event", source=events, columns=_COLUMNS, format="binary")
        return int(status.split()[1]) / (time.perf_counter() - started)
    finally:
        await connection.execute("DROP TABLE IF EXISTS copy_event, copy_identity")
        await connection.close()


async def main() -> None:
    """Measure and print."""
    rows = []
    with service() as (address, url):
        rates = {}
        for seed, size in enumerate(SIZES):
            rate, took, cpu = await through_the_endpoint(address, size, seed)
            rates[size] = rate
            milliseconds = [f"{percentile(took, share) * 1_000:,.0f}" for share in (0.5, 0.99)]
            rows.append(
                [f"{size:,} events a request", f"{rate:,.0f}", *milliseconds, *(f"{each:.0f}" for each in cpu), ""]
            )
        copied = await through_copy(url)
    for row, size in zip(rows, SIZES, strict=True):
        row[-1] = f"{rates[size] / copied:.2f}"
    rows.append(["binary COPY of the same rows, one connection", f"{copied:,.0f}", "", "", "", "", "1.00"])
    columns = ["", "events/s", "p50 ms", "p99 ms", "service CPU µs/event", "PostgreSQL CPU µs/event", "of COPY"]
    print_table("Ingest, durable, identities and rollups on", columns, rows)


asyncio.run(main())
