"""Resident memory of the service under a steady load, beside clients that trickle their bodies: flat, and below its bound.

Profile: see profile.py; 6 requests of 1,000 events a second, 100 clients that send 500 events a kilobyte at a time, and a
usage question a second. The warm-up sends as much as is taken, so that what comes after it needs no more than it did.
Budget: two minutes. Ends with exit code 1 when memory grows, or is more than it may be.
"""

import asyncio
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from profile import bodies
from statistics import median
from tempfile import TemporaryDirectory
from urllib.parse import urlsplit

import httpx2
from bench import KEY, Usage, database, print_table, service

WARM_UP_SECONDS = 30.0
MEASURED_SECONDS = 75.0
SAMPLES_A_SECOND = 4
QUARTERS = 4
WARM_UP_SENDERS = 8
REQUESTS_A_SECOND = 6
REQUEST_EVENTS = 1_000
SLOW_CLIENTS = 100
SLOW_EVENTS = 500
PIECE_BYTES = 1_024
PIECES_A_SECOND = 10
# From the median of the first quarter to that of the last.
GROWTH_MEBIBYTES_MAX = 4.0
RESIDENT_MEBIBYTES_MAX = 500.0
_HEADERS = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
_QUESTION = (
    '{{ usage(query: {{ period: {{ from: "{:%FT%TZ}", to: "{:%FT%TZ}" }}, groupBy: [PRODUCT] }}) '
    "{{ ... on UsageReport {{ groups {{ nodes {{ totals {{ quantity }} }} }} }} }} }}"
)


class Load:
    """What is sent until it is over, and how it was answered."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._warm = time.monotonic() + WARM_UP_SECONDS
        self._until = self._warm + MEASURED_SECONDS
        self._seeds = count()
        self.statuses: Counter[int] = Counter()
        self.events = 0
        self.slow_bodies = 0

    async def send(self) -> None:
        """Send requests: as many as are taken, and when all is warm at a steady pace."""
        async with httpx2.AsyncClient(base_url=self._address, headers=_HEADERS, timeout=60) as client:

            async def once() -> None:
                (body,) = bodies(next(self._seeds), datetime.now(UTC), timedelta(hours=1), REQUEST_EVENTS, 1)
                self._note((await client.post("/v1/events", content=body)).status_code, REQUEST_EVENTS)

            async def without_pause() -> None:
                while time.monotonic() < self._warm:
                    await once()

            await asyncio.gather(*(without_pause() for _ in range(WARM_UP_SENDERS)))
            await self._steadily(once, REQUESTS_A_SECOND)

    async def ask(self) -> None:
        """Ask for the last hours, steadily."""
        async with httpx2.AsyncClient(base_url=self._address, headers=_HEADERS, timeout=60) as client:

            async def once() -> None:
                now = datetime.now(UTC)
                question = _QUESTION.format(now - timedelta(hours=30), now)
                self._note((await client.post("/graphql", json={"query": question})).status_code, 0)

            await self._steadily(once, 1)

    async def trickle(self, number: int) -> None:
        """Send one body after another, each a piece at a time."""
        where = urlsplit(self._address)
        while time.monotonic() < self._until:
            (body,) = bodies(next(self._seeds), datetime.now(UTC), timedelta(hours=1), SLOW_EVENTS, 1)
            reader, writer = await asyncio.open_connection(where.hostname, where.port)
            head = f"POST /v1/events HTTP/1.1\r\nHost: {where.netloc}\r\nConnection: close\r\n"
            head += "".join(f"{name}: {value}\r\n" for name, value in _HEADERS.items())
            writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode())
            for start in range(0, len(body), PIECE_BYTES):
                writer.write(body[start : start + PIECE_BYTES])
                await writer.drain()
                # All at the same pace, but not in step.
                await asyncio.sleep((1 + number / SLOW_CLIENTS) / PIECES_A_SECOND / 2)
            answer = await reader.read()
            self._note(int(answer.split()[1]), SLOW_EVENTS)
            self.slow_bodies += 1
            writer.close()
            await writer.wait_closed()

    async def _steadily(self, once: Callable[[], Awaitable[None]], times_a_second: int) -> None:
        due = time.monotonic()
        while time.monotonic() < self._until:
            await once()
            due = max(due + 1 / times_a_second, time.monotonic())
            await asyncio.sleep(due - time.monotonic())

    def _note(self, status: int, events: int) -> None:
        self.statuses[status] += 1
        self.events += events if status == httpx2.codes.OK else 0


async def measured(address: str, server: Usage) -> tuple[list[float], list[float], Load]:
    """Samples of the resident memory, of the warm-up and after it, while everything is sent."""
    load = Load(address)
    senders = [load.send(), load.ask(), *(load.trickle(number) for number in range(SLOW_CLIENTS))]
    sending = asyncio.gather(*senders)

    async def samples(seconds: float) -> list[float]:
        taken = []
        for _ in range(int(seconds * SAMPLES_A_SECOND)):
            taken.append(server.resident_mebibytes())
            await asyncio.sleep(1 / SAMPLES_A_SECOND)
        return taken

    warm_up = await samples(WARM_UP_SECONDS)
    after = await samples(MEASURED_SECONDS)
    await sending
    return warm_up, after, load


def faults_of(after: Sequence[float], growth: float, load: Load) -> list[str]:
    """What is not as it should be."""
    faults = []
    if growth > GROWTH_MEBIBYTES_MAX:
        faults.append(f"memory grew by {growth:.1f} MiB; {GROWTH_MEBIBYTES_MAX} are allowed")
    if max(after) > RESIDENT_MEBIBYTES_MAX:
        faults.append(f"{max(after):.0f} MiB were resident; {RESIDENT_MEBIBYTES_MAX:.0f} are allowed")
    if load.statuses.keys() != {httpx2.codes.OK}:
        faults.append(f"not every request was taken: {dict(load.statuses)}")
    if not load.slow_bodies:
        faults.append("no slow client came to an end")
    return faults


def main() -> None:
    """Measure, print and judge."""
    with (
        TemporaryDirectory(prefix="metering-bench-") as directory,
        database("PostgreSQL", Path(directory)) as (url, _),
        service(url) as (address, server),
    ):
        warm_up, after, load = asyncio.run(measured(address, server))
    size = len(after) // QUARTERS
    quarters = [after[start : start + size] for start in range(0, size * QUARTERS, size)]
    rows = [
        [name, *(f"{figure(taken):.1f}" for figure in (min, median, max))]
        for name, taken in [("warm-up", warm_up), *((f"quarter {n}", q) for n, q in enumerate(quarters, 1))]
    ]
    growth = median(quarters[-1]) - median(quarters[0])
    rows.append(["growth, first to last quarter", "", f"{growth:+.1f}", ""])
    print_table("Resident memory of the service, MiB", ["", "least", "median", "most"], rows)
    seconds = WARM_UP_SECONDS + MEASURED_SECONDS
    print(f"\n{load.events / seconds:,.0f} events/s for {seconds:.0f} s, {load.slow_bodies} bodies that trickled in")
    faults = faults_of(after, growth, load)
    sys.exit("\n".join(faults) if faults else 0)


if __name__ == "__main__":
    main()
