"""A load of events for the acceptance tests: it knows what was sent and acknowledged, and compares it with what is there."""

import asyncio
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Final

import asyncpg
import httpx2
import msgspec

from tests.acceptance.processes import Front, Service, until
from tests.conftest import ADMIN_KEY, bearer

LOADERS: Final = 4
BATCH_EVENTS: Final = 200
SEED: Final = 20_260_301
# A client that is refused comes back soon, so that the service is asked while it is in trouble.
_RETRY_SECONDS: Final = 0.05
# Longer than the service may take for any answer, and longer than anything waited for takes.
_ANSWER_SECONDS_MAX: Final = 60
_WAIT_SECONDS_MAX: Final = 60

Event = dict[str, str]
# By account (None: all together) and unit: the quantity, and how many events.
Figures = dict[tuple[str | None, str], tuple[Decimal, int]]

TOTALS: Final = """
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
PAGE: Final = """
query ($period: PeriodInput!, $after: String) {
  events(query: { period: $period }, first: 1000, after: $after) {
    nodes { eventId quantity } pageInfo { hasNextPage endCursor }
  }
}
"""
_JSON: Final = {"Content-Type": "application/json"}
_RECEIPT: Final = {"accepted": BATCH_EVENTS, "duplicates": 0, "rejected": []}


class Load:
    """Events without end: what was sent, and what was acknowledged."""

    def __init__(self, now: datetime) -> None:
        self._random = random.Random(SEED)
        self._lock = threading.Lock()
        # Some hours are rolled up long since, some just now, and one is not over yet.
        self.period = (now - timedelta(hours=30), now + timedelta(minutes=1))
        self.sent: dict[str, Event] = {}
        self.acknowledged: set[str] = set()
        # How often each status was answered; 0 is no answer at all.
        self.answers: Counter[int] = Counter()
        # The longest that a request took.
        self.slowest_seconds = 0.0
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

    # -------------------------------------------------------- sending

    def run(self, address: str) -> None:
        """Send batch after batch, each once, until the service is gone."""
        with _client(address) as client:
            while not self.faults:
                batch = self.next_batch()
                try:
                    response = client.post("/v1/events", content=msgspec.json.encode(batch), headers=_JSON)
                except httpx2.TransportError:
                    return  # killed: of this batch nobody knows
                self._note(batch, response, is_first=True)

    @contextmanager
    def upon(self, service: Front, loaders: int = LOADERS) -> Iterator[None]:
        """While the block lasts, clients send batch after batch, each again and again until it is acknowledged."""
        ended = threading.Event()
        clients = [threading.Thread(target=self._insist, args=(service.address, ended)) for _ in range(loaders)]
        for client in clients:
            client.start()
        try:
            yield
        finally:
            ended.set()
            for client in clients:
                client.join()
        assert [] == self.faults, self.faults[:2]

    def await_acknowledged(self, batches: int) -> None:
        """Wait until so many batches more are acknowledged."""
        enough = len(self.acknowledged) + batches * BATCH_EVENTS
        self._await(lambda: len(self.acknowledged) >= enough)

    def await_answers(self, status: int, count: int) -> None:
        """Wait until so many requests more are answered with this status."""
        enough = self.answers[status] + count
        self._await(lambda: self.answers[status] >= enough)

    def _await(self, reached: Callable[[], bool]) -> None:
        until(lambda: reached() or self.faults, _WAIT_SECONDS_MAX)
        assert [] == self.faults, self.faults[:2]

    def _insist(self, address: str, ended: threading.Event) -> None:
        with _client(address) as client:
            while not ended.is_set():
                batch = self.next_batch()
                body = msgspec.json.encode(batch)
                is_taken, is_first = False, True
                while not is_taken and not ended.is_set() and not self.faults:
                    started = time.monotonic()
                    try:
                        response = client.post("/v1/events", content=body, headers=_JSON)
                    except httpx2.TransportError:
                        self._count(0)
                    else:
                        is_taken = self._note(batch, response, is_first=is_first)
                    self.slowest_seconds = max(self.slowest_seconds, time.monotonic() - started)
                    is_first = False
                    ended.wait(0 if is_taken else _RETRY_SECONDS)

    def _note(self, batch: list[Event], response: httpx2.Response, *, is_first: bool) -> bool:
        """Take down an answer, and say whether it is an acknowledgement."""
        self._count(response.status_code)
        # 502 is what a proxy says for a service that is away.
        if response.status_code in {502, 503}:
            if response.headers.get("Retry-After") != "1":
                self.faults.append(f"no Retry-After: {response.text}")
            return False
        receipt = response.json() if response.status_code == 200 else {}
        if not is_first and receipt:
            # What had no answer may have been recorded, so it may be a duplicate now.
            receipt = {**receipt, "accepted": receipt["accepted"] + receipt["duplicates"], "duplicates": 0}
        if receipt != _RECEIPT:
            self.faults.append(f"{response.status_code}: {response.text}")
            return False
        with self._lock:
            self.acknowledged.update(event["id"] for event in batch)
        return True

    def _count(self, status: int) -> None:
        with self._lock:
            self.answers[status] += 1

    def resend(self, service: Service) -> None:
        """Send again what was not acknowledged; each of them is either new or a duplicate."""
        unknown = [event for key, event in self.sent.items() if key not in self.acknowledged]
        for start in range(0, len(unknown), 5_000):
            batch = unknown[start : start + 5_000]
            receipt = service.send(batch)
            assert [] == receipt["rejected"]
            assert len(batch) == receipt["accepted"] + receipt["duplicates"]
            self.acknowledged.update(event["id"] for event in batch)

    # -------------------------------------------------------- comparing

    def check_acknowledged(self, service: Service, database_url: str) -> None:
        """What was acknowledged is recorded, nothing twice, and every figure is that of what is recorded."""
        recorded = settled(database_url)
        assert set() == self.acknowledged - recorded.keys()
        assert [] == [key for key, times in recorded.items() if times > 1]
        assert self._expected(recorded) == self._answered(service)

    def check_everything(self, service: Service, database_url: str) -> None:
        """What was sent is recorded, once, and in every figure and on every page."""
        everything = Counter(self.sent.keys())
        assert everything == settled(database_url)
        assert self._expected(everything) == self._answered(service)
        assert everything == Counter(self._paged(service))

    def _expected(self, recorded: Counter[str]) -> Figures:
        figures: Figures = {}
        for key in recorded:
            event = self.sent[key]
            for account in (None, event["account"]):
                quantity, events = figures.get((account, event["unit"]), (Decimal(0), 0))
                figures[account, event["unit"]] = (quantity + Decimal(event["quantity"]), events + 1)
        return figures

    def _answered(self, service: Service) -> Figures:
        usage = service.ask(TOTALS, period=self._period_input)["usage"]
        assert [] == usage["groups"]["remainder"]
        groups = [(None, usage["totals"])]
        groups += [(node["key"]["account"], node["totals"]) for node in usage["groups"]["nodes"]]
        return {
            (account, total["unit"]): (Decimal(total["quantity"]), int(total["events"]))
            for account, totals in groups
            for total in totals
        }

    def _paged(self, service: Service) -> Iterator[str]:
        """The id of each event, page by page."""
        after = None
        while True:
            events = service.ask(PAGE, period=self._period_input, after=after)["events"]
            for node in events["nodes"]:
                assert Decimal(self.sent[node["eventId"]]["quantity"]) == Decimal(node["quantity"])
                yield node["eventId"]
            if not events["pageInfo"]["hasNextPage"]:
                return
            after = events["pageInfo"]["endCursor"]

    @property
    def _period_input(self) -> dict[str, str]:
        """The period that holds them all."""
        return {"from": self.period[0].isoformat(), "to": self.period[1].isoformat()}


def settled(database_url: str) -> Counter[str]:
    """How often the database has each event, once the last transactions of a service that is gone have ended."""
    found = recorded(database_url)
    while (again := recorded(database_url)) != found:
        found = again
    return found


def recorded(database_url: str) -> Counter[str]:
    """How often the database has each event now."""

    async def read() -> list[Any]:
        connection = await asyncpg.connect(database_url)
        try:
            rows: list[Any] = await connection.fetch("SELECT event_id FROM event")
        finally:
            await connection.close()
        return rows

    return Counter(row["event_id"] for row in asyncio.run(read()))


def _client(address: str) -> httpx2.Client:
    return httpx2.Client(base_url=address, headers=bearer(ADMIN_KEY), timeout=_ANSWER_SECONDS_MAX, trust_env=False)
