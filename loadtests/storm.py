"""Whether events are taken and probes answered while many ask the dearest that may be asked: questions.py has it.

Profile: the data set of dataset.py, rolled up and scored; a request of 100 events, and one of each probe, every 100 ms, first in
calm and then in the storm. One worker process; client, service and PostgreSQL share the machine.
"""

import argparse
import asyncio
import time
import uuid
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable
from urllib.parse import urlsplit

import asyncpg
import msgspec
import uvloop
from bench import ENGINES, database, percentile, print_table, scratch, service
from client import Client
from filled import DAYS, fill, settled
from questions import dearest, faults_in, utc_now

_EVENTS = 100
_EVERY_SECONDS = 0.1

Done = Callable[[], Awaitable[None]]


async def _get(address: str, path: str) -> None:
    """Ask a probe over a connection of its own, as whoever watches a service does."""
    parts = urlsplit(address)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: {parts.netloc}\r\nConnection: close\r\n\r\n".encode())
    answer = await reader.read()
    writer.close()
    if b" 200 " not in answer.partition(b"\r\n")[0]:
        raise SystemExit(f"{path}: {answer.decode()}")


class Watch:
    """What is asked again and again beside the storm, and how long each took."""

    def __init__(self, address: str) -> None:
        self._address = address
        self.took: dict[str, list[float]] = defaultdict(list)

    async def run(self, seconds: float) -> None:
        """Ask for so long."""
        sender = await Client.connect(self._address)
        asker = await Client.connect(self._address, "/graphql")

        async def send() -> None:
            status, answer = await sender.post(_events())
            if status != 200 or msgspec.json.decode(answer)["accepted"] != _EVENTS:
                raise SystemExit(f"{status}: {answer.decode()}")

        async def status() -> None:
            _, answer = await asker.post(b'{"query": "{ service { status } }"}')
            if faults_in(answer):
                raise SystemExit(answer.decode())

        watched: dict[str, Done] = {
            f"`POST /v1/events`, {_EVENTS} events": send,
            "`GET /livez`": lambda: _get(self._address, "/livez"),
            "`GET /readyz`": lambda: _get(self._address, "/readyz"),
            "`{ service { status } }`": status,
        }
        until = time.perf_counter() + seconds
        await asyncio.gather(*(self._again(name, done, until) for name, done in watched.items()))
        sender.close()
        asker.close()

    async def _again(self, name: str, done: Done, until: float) -> None:
        while time.perf_counter() < until:
            started = time.perf_counter()
            await done()
            self.took[name].append(time.perf_counter() - started)
            await asyncio.sleep(_EVERY_SECONDS)


def _events() -> bytes:
    event = {"source": "storm", "occurred_at": utc_now().isoformat(), "account": "account-0000", "product": "product-1"}
    events = [{**event, "id": str(uuid.uuid4()), "unit": "call", "quantity": "1"} for _ in range(_EVENTS)]
    return msgspec.json.encode(events)


async def storm(address: str, body: bytes, askers: int) -> Counter[str]:
    """Ask the dearest question with so many connections, each again as soon as it is answered, until it is cancelled."""
    became: Counter[str] = Counter()

    async def ask() -> None:
        client = await Client.connect(address, "/graphql")
        while True:
            status, answer = await client.post(body)
            became[" ".join(sorted(set(faults_in(answer)))) or f"answered ({status})"] += 1

    tasks = [asyncio.create_task(ask()) for _ in range(askers)]
    try:
        await asyncio.gather(*tasks)
    except asyncio.CancelledError:
        await asyncio.gather(*tasks, return_exceptions=True)
    return became


async def measured(url: str, address: str, given: argparse.Namespace) -> tuple[list[list[str]], list[list[str]]]:
    """The rows of what was watched, in calm and in the storm; and of what became of the storm."""
    connection = await asyncpg.connect(url)
    await settled(connection)
    await connection.close()
    calm, stormy = Watch(address), Watch(address)
    await calm.run(given.seconds / 4)
    blowing = asyncio.create_task(storm(address, dearest(utc_now(), DAYS), given.askers))
    await stormy.run(given.seconds)
    blowing.cancel()
    became = await blowing
    rows = [[name, *_cells(calm.took[name]), *_cells(stormy.took[name])] for name in calm.took]
    return rows, [[what, str(count)] for what, count in became.most_common()]


def _cells(took: list[float]) -> list[str]:
    shown = [percentile(took, 0.5), percentile(took, 0.99), max(took)]
    return [str(len(took)), *(f"{seconds * 1_000:,.0f}" for seconds in shown)]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=2_000_000, help="events of the last 90 days")
    parser.add_argument("--seconds", type=float, default=60, help="how long the storm lasts")
    parser.add_argument("--askers", type=int, default=32, help="connections that ask the dearest question")
    parser.add_argument("--engine", choices=ENGINES, help="only this one")
    given = parser.parse_args()
    for engine in [given.engine] if given.engine else ENGINES:
        with scratch(engine) as directory, database(engine, directory) as (url, _):
            uvloop.run(fill(url, given.events))
            with service(url) as (address, _):
                rows, became = uvloop.run(measured(url, address, given))
        title = f"{given.askers} askers, {given.seconds:.0f} s, {given.events:,} events on {engine}"
        told = ["asked", "p50 ms", "p99 ms", "most ms"]
        columns = ["", *(f"{each}, calm" for each in told), *(f"{each}, storm" for each in told)]
        print_table(f"Beside a storm: {title}", columns, rows)
        print_table(f"What became of the storm: {title}", ["", "answers"], became)


main()
