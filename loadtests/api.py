"""Latency of what front ends ask, over HTTP, warm, with 1 and with 8 connections: questions.py has the questions.

Profile: the data set of dataset.py, rolled up and scored; nothing comes in meanwhile. One worker process, as `metering serve`
starts it; client, service and PostgreSQL share the machine.
"""

import argparse
import asyncio
import time

import asyncpg
import uvloop
from bench import ENGINES, database, percentile, print_table, scratch, service
from client import Client
from filled import DAYS, fill, settled
from questions import faults_in, offer, once, questions, utc_now

WARM = 20


async def asked(address: str, body: bytes, connections: int, seconds: float) -> list[float]:
    """How long each answer took, asked by so many connections at once, each again as soon as it is answered."""
    clients = [await Client.connect(address, "/graphql") for _ in range(connections)]
    took: list[float] = []

    async def ask(client: Client, until: float) -> None:
        while time.perf_counter() < until:
            started = time.perf_counter()
            status, answer = await client.post(body)
            took.append(time.perf_counter() - started)
            if status != 200:
                raise SystemExit(f"{status}: {answer.decode()}")

    for _ in range(WARM):
        _, answer = await clients[0].post(body)
    if faults_in(answer):
        raise SystemExit(answer.decode())
    until = time.perf_counter() + seconds
    await asyncio.gather(*(ask(client, until) for client in clients))
    for client in clients:
        client.close()
    return took


async def measured(url: str, address: str, seconds: float) -> list[list[str]]:
    """A row for each question."""
    connection = await asyncpg.connect(url)
    await settled(connection)
    now = utc_now()
    await offer(address, now)
    # What is put has the account scored anew, today too.
    await settled(connection)
    await connection.close()
    rows = []
    for name, (body, milliseconds_max) in questions(now).items():
        answer = await once(address, body)
        cells = [name, f"{len(answer) / 1024:,.1f}", str(milliseconds_max)]
        for connections in (1, 8):
            took = await asked(address, body, connections, seconds)
            cells += [f"{percentile(took, share) * 1_000:,.1f}" for share in (0.5, 0.99)]
        rows.append(cells)
    return rows


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=2_000_000, help="events of the last 90 days")
    parser.add_argument("--seconds", type=float, default=5, help="for how long each question is asked")
    parser.add_argument("--engine", choices=ENGINES, help="only this one")
    given = parser.parse_args()
    for engine in [given.engine] if given.engine else ENGINES:
        with scratch(engine) as directory, database(engine, directory) as (url, _):
            uvloop.run(fill(url, given.events))
            with service(url) as (address, _):
                rows = uvloop.run(measured(url, address, given.seconds))
        columns = ["question", "KiB", "p50 ms wanted", "p50 ms", "p99 ms", "p50 ms, 8 at once", "p99 ms, 8 at once"]
        print_table(f"Questions of front ends over {given.events:,} events of {DAYS} days on {engine}", columns, rows)


main()
