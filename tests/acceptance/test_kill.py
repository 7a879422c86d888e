"""SIGKILL in the middle of a load, again and again: what was acknowledged is there, once; the rest may be sent again.

The service is killed ten times. On the embedded engine every third time its PostgreSQL is killed with it, which is what
a crash of the machine looks like to both (but for the disk's own cache, which no test of processes can lose).
"""

import asyncio
import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import asyncpg
import httpx2
import msgspec
import pytest

from metering.store.embedded import EmbeddedServer
from tests.acceptance.processes import Home, Service, home_in, pending, until
from tests.conftest import ADMIN_KEY, ENGINES, Server, bearer

KILLS: Final = 10
LOADERS: Final = 4
BATCH_EVENTS: Final = 200
SEED: Final = 20_260_301

Event = dict[str, str]

TOTALS = """
query ($period: PeriodInput!) {
  usage(query: { period: $period, groupBy: [ACCOUNT] }) {
    ... on UsageReport {
      totals { unit quantity events }
      groups(first: 1000, orderBy: { field: KEY, direction: ASC }) {
        nodes { key { account } totals { unit quantity events } }
        remainder { unit }
      }
    }
  }
}
"""
PAGE = """
query ($period: PeriodInput!, $after: String) {
  events(query: { period: $period }, first: 1000, after: $after) {
    nodes { eventId quantity } pageInfo { hasNextPage endCursor }
  }
}
"""


class Load:
    """Events without end: what was sent, and what was acknowledged."""

    def __init__(self, now: datetime) -> None:
        self._random = random.Random(SEED)
        self._lock = threading.Lock()
        # Some hours are rolled up long since, some just now, and one is not over yet.
        self.period = (now - timedelta(hours=30), now + timedelta(minutes=1))
        self.sent: dict[str, Event] = {}
        self.acknowledged: set[str] = set()
        self.faults: list[str] = []

    def next_batch(self) -> list[Event]:
        """Events that nobody has sent before."""
        with self._lock:
            batch = [self._event(len(self.sent) + index) for index in range(BATCH_EVENTS)]
            self.sent.update((event["id"], event) for event in batch)
            return batch

    def _event(self, number: int) -> Event:
        start, end = self.period
        choose = self._random
        return {
            "id": f"event-{number}",
            "source": "load",
            "occurred_at": (start + (end - start) * choose.random()).isoformat(),
            "account": f"account-{choose.randrange(20)}",
            "product": "maps",
            "unit": choose.choice(("call", "gigabyte")),
            "quantity": f"{choose.randrange(-(10**9), 10**10)}.{choose.randrange(10**9):09}",
        }

    def run(self, address: str) -> None:
        """Send batch after batch until the service is gone."""
        with httpx2.Client(base_url=address, headers=bearer(ADMIN_KEY), timeout=30, trust_env=False) as client:
            while not self.faults:
                batch = self.next_batch()
                try:
                    response = client.post("/v1/events", content=msgspec.json.encode(batch), headers=_JSON)
                except httpx2.TransportError:
                    return  # killed: of this batch nobody knows
                self._note(batch, response)

    def _note(self, batch: list[Event], response: httpx2.Response) -> None:
        if response.status_code == 503:
            return  # its PostgreSQL was killed first
        if response.status_code != 200 or response.json() != _RECEIPT:
            self.faults.append(response.text)
            return
        with self._lock:
            self.acknowledged.update(event["id"] for event in batch)

    def resend(self, service: Service) -> None:
        """Send again what was not acknowledged; each of them is either new or a duplicate."""
        unknown = [event for key, event in self.sent.items() if key not in self.acknowledged]
        for start in range(0, len(unknown), 5_000):
            batch = unknown[start : start + 5_000]
            receipt = service.send(batch)
            assert [] == receipt["rejected"]
            assert len(batch) == receipt["accepted"] + receipt["duplicates"]
            self.acknowledged.update(event["id"] for event in batch)

    @property
    def period_input(self) -> dict[str, str]:
        """The period that holds them all."""
        return {"from": self.period[0].isoformat(), "to": self.period[1].isoformat()}


_JSON: Final = {"Content-Type": "application/json"}
_RECEIPT: Final = {"accepted": BATCH_EVENTS, "duplicates": 0, "rejected": []}


class Place:
    """Where the service runs: with its embedded server, or on a database that is not its own."""

    def __init__(self, home: Home, database_url: str | None) -> None:
        self.home = home
        self._variables = {} if database_url is None else {"METERING_DATABASE_URL": database_url}
        self.database_url = database_url or EmbeddedServer(home.data_dir).url()
        self.is_embedded = database_url is None

    def serve(self) -> Service:
        """Start the service; its refresher is always at work, so that it is killed at work too."""
        return self.home.serve(METERING_REFRESH_SECONDS="0.05", **self._variables)

    def recorded(self) -> Counter[str]:
        """How often the database has each event."""

        async def read() -> list[Any]:
            connection = await asyncpg.connect(self.database_url)
            try:
                rows: list[Any] = await connection.fetch("SELECT event_id FROM event")
            finally:
                await connection.close()
            return rows

        return Counter(row["event_id"] for row in asyncio.run(read()))


@pytest.fixture(params=["embedded", *(engine for engine in ENGINES if engine != "postgres")])
def place(request: pytest.FixtureRequest, tmp_path: Path, servers: dict[str, Server]) -> Iterator[Place]:
    """The embedded engine as it is shipped, and TimescaleDB where it is at hand."""
    if request.param == "embedded":
        with home_in(tmp_path) as home:
            yield Place(home, None)
        return
    server = servers[request.param]
    url = server.clone()
    with home_in(tmp_path) as home:
        yield Place(home, url)
    server.drop(url)


def test_what_was_acknowledged_survives_every_kill(place: Place) -> None:
    """After each of ten kills every acknowledged event is recorded, once; resending the others makes the totals exact."""
    load = Load(datetime.now(UTC))
    moments = random.Random(SEED)
    service = place.serve()

    for kill in range(KILLS):
        before = len(load.acknowledged)
        with_its_server = place.is_embedded and kill % 3 == 2
        _kill_under_load(place, service, load, moments.uniform(0.05, 0.8), with_its_server=with_its_server)
        assert [] == load.faults
        assert len(load.acknowledged) > before

        service = place.serve()
        recorded = _settled(place)
        assert set() == load.acknowledged - recorded.keys()
        assert [] == [key for key, times in recorded.items() if times > 1]
        assert _expected(recorded, load) == _answered(service, load)

    load.resend(service)
    everything = Counter(load.sent.keys())
    assert _expected(everything, load) == _answered(service, load)
    until(lambda: pending(service) == 0, 30)
    assert _expected(everything, load) == _answered(service, load)
    assert everything == place.recorded()
    assert everything == Counter(_paged(service, load))
    service.stop()


def _kill_under_load(place: Place, service: Service, load: Load, seconds: float, *, with_its_server: bool) -> None:
    before = len(load.acknowledged)
    loaders = [threading.Thread(target=load.run, args=(service.address,)) for _ in range(LOADERS)]
    for loader in loaders:
        loader.start()
    try:
        until(lambda: len(load.acknowledged) > before or load.faults, 30)
        time.sleep(seconds)  # the moment of the kill, drawn by lot
        if with_its_server:
            place.home.kill_postgres()
    finally:
        service.kill()
        for loader in loaders:
            loader.join()


def _settled(place: Place) -> Counter[str]:
    """What is recorded, once the killed service's last transactions have ended."""
    recorded = place.recorded()
    while (again := place.recorded()) != recorded:
        recorded = again
    return recorded


# By account (None: all together) and unit: the quantity, and how many events.
Figures = dict[tuple[str | None, str], tuple[Decimal, int]]


def _expected(recorded: Counter[str], load: Load) -> Figures:
    figures: dict[tuple[str | None, str], tuple[Decimal, int]] = {}
    for key in recorded:
        event = load.sent[key]
        for account in (None, event["account"]):
            quantity, events = figures.get((account, event["unit"]), (Decimal(0), 0))
            figures[account, event["unit"]] = (quantity + Decimal(event["quantity"]), events + 1)
    return figures


def _answered(service: Service, load: Load) -> Figures:
    usage = service.ask(TOTALS, period=load.period_input)["usage"]
    assert [] == usage["groups"]["remainder"]
    groups = [(None, usage["totals"])]
    groups += [(node["key"]["account"], node["totals"]) for node in usage["groups"]["nodes"]]
    return {
        (account, total["unit"]): (Decimal(total["quantity"]), int(total["events"]))
        for account, totals in groups
        for total in totals
    }


def _paged(service: Service, load: Load) -> Iterator[str]:
    """The id of each event, page by page."""
    after = None
    while True:
        events = service.ask(PAGE, period=load.period_input, after=after)["events"]
        for node in events["nodes"]:
            assert Decimal(load.sent[node["eventId"]]["quantity"]) == Decimal(node["quantity"])
            yield node["eventId"]
        if not events["pageInfo"]["hasNextPage"]:
            return
        after = events["pageInfo"]["endCursor"]
