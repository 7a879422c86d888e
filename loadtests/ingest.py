"""Ingest through the endpoint, durable, beside what PostgreSQL itself can do with the same rows: `make bench`.

Everything on one machine: client, service, PostgreSQL. Before measuring, the day is filled (see preload.py). Each
engine takes the preload (minutes), then about eight minutes. With METERING_TEST_TIMESCALEDB_BIN both engines are measured;
with METERING_BENCH_DIR a filled database is kept and used again.
"""

import argparse
import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from profile import ACCOUNTS, Templates

import asyncpg
import msgspec
import uvloop
from bench import ENGINES, Usage, database, percentile, print_table, scratch, service
from client import Client
from preload import preload
from rivals import copy, encoded, insert_batches, insert_each

from metering.config import Settings
from metering.limits import LIMITS
from metering.store.pool import Database

SETTLE_SECONDS_MAX = 900
WARM_UP_SECONDS = 15
_SETTLED = """
SELECT complete_at >= date_bin('15 minutes', now() - INTERVAL '3 minutes', 'epoch')
   AND tail_complete_at >= now() - INTERVAL '30 seconds'
   AND NOT EXISTS (SELECT FROM pending_bucket WHERE bucket < complete_at)
FROM rollup_horizon
"""
# What the refresher had left to do when a row ended: a rate that rollups do not keep up with is none.
_BEHIND = "SELECT extract(epoch FROM greatest(now() - tail_complete_at, '0'))::float FROM rollup_horizon"
CONNECTIONS = {1_000: 6, 100: 48, 1: 256}
BATCHES = "INSERT … ON CONFLICT, 1,000 a batch, 2 connections"
SINGLES = "one INSERT an event, 2 connections"
COLUMNS = [
    "", "events/s", "of the best COPY", "of INSERT batches", "of single INSERTs",
    "p50 ms", "p99 ms", "CPU µs/event: service", "PostgreSQL", "client", "service MiB", "tail behind, s",
]  # fmt: skip


class Measured:
    """What was sent, and what it cost."""

    def __init__(self, server: Usage, postgres: Usage) -> None:
        self._programs = (server, postgres)
        self.took: list[float] = []
        self.mebibytes: list[float] = []
        self.accepted = self.duplicates = 0

    def begin(self) -> None:
        """Now."""
        self._before = [program.cpu_seconds() for program in self._programs]
        self._client_before = time.process_time()
        self._started = time.perf_counter()

    def look(self) -> None:
        """Note the memory that the service holds now."""
        self.mebibytes.append(self._programs[0].resident_mebibytes())

    @property
    def sent(self) -> int:
        """How many events were answered."""
        return self.accepted + self.duplicates

    def row(self) -> tuple[float, list[str]]:
        """Events/s, and the last columns of the table."""
        rate = self.sent / (time.perf_counter() - self._started)
        used = [program.cpu_seconds() - before for program, before in zip(self._programs, self._before, strict=True)]
        used.append(time.process_time() - self._client_before)
        latency = [f"{percentile(self.took, share) * 1_000:,.0f}" for share in (0.5, 0.99)] if self.took else ["", ""]
        memory = f"{self.mebibytes[0]:.0f}-{max(self.mebibytes):.0f}" if self.mebibytes else ""
        return rate, [*latency, *(f"{each / self.sent * 1e6:.1f}" for each in used), memory]


async def through_the_endpoint(
    address: str, measured: Measured, size: int, seconds: float, duplicates: float = 0
) -> Measured:
    """Send for so many seconds, over as many connections as CONNECTIONS says."""
    templates = Templates(time.time_ns(), size, duplicates)
    clients = [await Client.connect(address) for _ in range(CONNECTIONS[size])]
    measured.begin()
    until = time.perf_counter() + seconds

    async def work(client: Client) -> None:
        while (started := time.perf_counter()) < until:
            status, answer = await client.post(templates.body())
            if status != 200:
                raise SystemExit(f"{status}: {answer.decode()}")
            receipt = msgspec.json.decode(answer)
            measured.accepted += receipt["accepted"]
            measured.duplicates += receipt["duplicates"]
            measured.took.append(time.perf_counter() - started)

    async def watch() -> None:
        while True:
            measured.look()
            await asyncio.sleep(1)

    watching = asyncio.create_task(watch())
    await asyncio.gather(*map(work, clients))
    watching.cancel()
    for client in clients:
        client.close()
    return measured


async def fill(url: str, count: int) -> None:
    """Fill the day, unless it was filled before."""
    filled = await Database.connect(Settings(database_url=url), LIMITS)
    try:
        async with filled.connection() as connection:
            if count and not await connection.fetchval("SELECT EXISTS (SELECT FROM event)"):
                await preload(filled, count, ACCOUNTS, datetime.now(UTC))
    finally:
        await filled.close()


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[asyncpg.Connection]:
    """A connection for as long as the block takes."""
    connection = await asyncpg.connect(url)
    try:
        yield connection
    finally:
        await connection.close()


async def rest(url: str) -> None:
    """Have PostgreSQL write down what it puts off: each row begins as the others do."""
    async with connected(url) as connection:
        await connection.execute("CHECKPOINT", timeout=SETTLE_SECONDS_MAX)


async def settle(url: str) -> None:
    """Wait until the refresher has rolled up what there is, up to seconds ago."""
    async with connected(url) as connection:
        # Another process settles it, so there is nothing to await but time.
        while not await connection.fetchval(_SETTLED):  # noqa: ASYNC110
            await asyncio.sleep(0.5)


async def measure(url: str, postgres: Usage, seconds: float, settings: dict[str, str]) -> list[list[str]]:
    """The rows of an engine's table: what PostgreSQL does alone, while no service runs; then the endpoint."""
    # The pages that the preload left untouched are in memory and in the log before any clock starts.
    with service(url, **settings) as (address, server):
        await _warm_up(url, address, Measured(server, postgres))
    alone = await _alone(url)
    rows = [_row(label, f"{rate:,.0f}", rate, alone) for label, rate in alone.items()]
    with service(url, **settings) as (address, server):
        await _warm_up(url, address, Measured(server, postgres))
        for size, share in ((1_000, 0.0), (100, 0.0), (1, 0.0), (1_000, 0.01)):
            await rest(url)
            measured = Measured(server, postgres)
            await through_the_endpoint(address, measured, size, seconds, share)
            label = f"{size:,} a request" + (f", {measured.duplicates / measured.sent:.1%} duplicates" if share else "")
            rate, figures = measured.row()
            rows.append(_row(label, f"{rate:,.0f}", rate, alone, [*figures, f"{await _seconds_behind(url):.1f}"]))
    return rows


async def _warm_up(url: str, address: str, unmeasured: Measured) -> None:
    """Have the service roll up what there is, and take some events."""
    async with asyncio.timeout(SETTLE_SECONDS_MAX):
        await settle(url)
    await through_the_endpoint(address, unmeasured, 1_000, WARM_UP_SECONDS)


async def _seconds_behind(url: str) -> float:
    """How long ago the time ends of which there are figures by minute."""
    async with connected(url) as connection:
        seconds: float = await connection.fetchval(_BEHIND)
        return seconds


async def _alone(url: str) -> dict[str, float]:
    """Events/s of PostgreSQL without the service: nothing is rolled up meanwhile."""
    rates = {}
    for connections in (1, 2, 4):
        batches = await encoded(url)
        await rest(url)
        rates[f"binary COPY, {connections} connections"] = await copy(url, batches, connections)
    for label, insert in ((BATCHES, insert_batches), (SINGLES, insert_each)):
        await rest(url)
        rates[label] = await insert(url)
    return rates


def _row(label: str, shown: str, rate: float, alone: dict[str, float], figures: Sequence[str] = ("",) * 7) -> list[str]:
    """A row of the table: its rate, as a share of the best COPY, and as a multiple of the two kinds of INSERT."""
    ratios = [rate / max(alone.values()), rate / alone[BATCHES], rate / alone[SINGLES]]
    return [label, shown, *(f"{ratio:.2f}" for ratio in ratios), *figures]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--preload", type=int, default=20_000_000, help="events of the same day recorded before")
    parser.add_argument("--seconds", type=float, default=60, help="how long each row of the service is measured")
    parser.add_argument("--engine", choices=ENGINES, help="only this one")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="a setting of the service")
    asked = parser.parse_args()
    settings = {"workers": "2"} | dict(each.split("=", 1) for each in asked.set)
    for engine in [asked.engine] if asked.engine else ENGINES:
        with scratch(engine) as directory, database(engine, directory) as (url, postgres):
            uvloop.run(fill(url, asked.preload))
            rows = uvloop.run(measure(url, postgres, asked.seconds, settings))
        shown = ", ".join(f"{name}={value}" for name, value in settings.items())
        title = f"Ingest on {engine}, durable, identities and rollups on, {asked.preload:,} events of the day before, {shown}"
        print_table(title, COLUMNS, rows)


main()
