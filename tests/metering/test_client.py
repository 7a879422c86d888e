"""The client of product services, against a real service, and against one that misbehaves as networks do.

The misbehaving one stands before the real one: it hands requests on, or not, or loses the answer. So every claim ends
with what the service has recorded. How events travel is no matter of the engine, so one engine is enough.
"""

import asyncio
import json
import logging
import re
import ssl
import subprocess
import sys
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final, cast
from uuid import uuid4

import httpx2
import msgspec
import pytest

from metering.client import BATCH_BYTES_MAX, Rejected, Stats, UsageClient
from metering.delivery import (
    RETRY_AFTER_SECONDS_MAX,
    NotTaken,
    Receipt,
    SendError,
    answer_of,
    is_busy,
    wait_seconds,
)
from metering.ingest import receipts
from metering.sender import send_events
from tests.acceptance.processes import Service, home_in, until
from tests.conftest import ADMIN_KEY, Server, clean_environment, make_key

ROOT: Final = Path(__file__).parents[2]
PATIENCE_SECONDS: Final = 60.0
# Nothing is sent for its age in a test that waits for something else.
NEVER_SECONDS: Final = 3_600.0
# Where answers come late on purpose: what takes longer counts as lost.
LATE_SECONDS: Final = 0.5

TOTALS: Final = """
query ($period: PeriodInput!, $account: String!) {
  usage(query: { period: $period, filter: { account: { in: [$account] } } }) {
    ... on UsageReport { totals { unit quantity events } }
  }
}
"""

Event = dict[str, Any]
Behaviour = Callable[["Handler", bytes], None]
RunCli = Callable[..., "subprocess.CompletedProcess[str]"]


# ---------------------------------------------------------------- a service, and what stands before it


@pytest.fixture(scope="module")
def module_database_url(servers: dict[str, Server]) -> Iterator[str]:
    """A database of this module's own."""
    with servers["postgres"].cloned() as url:
        yield url


@pytest.fixture(scope="module")
def service(module_database_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A real service on it."""
    with home_in(tmp_path_factory.mktemp("client")) as home:
        yield home.serve(METERING_DATABASE_URL=module_database_url)


@pytest.fixture
def account() -> str:
    """A customer of this test's own."""
    return f"account-{uuid4()}"


def totals(service: Service, account: str) -> dict[str, tuple[Decimal | int, int]]:
    """What the service has recorded of the account: each unit's quantity and number of events."""
    now = datetime.now(UTC)
    period = {"from": (now - timedelta(days=2)).isoformat(), "to": (now + timedelta(hours=1)).isoformat()}
    found = service.ask(TOTALS, period=period, account=account)["usage"]["totals"]
    return {each["unit"]: (Decimal(each["quantity"]), int(each["events"])) for each in found}


class Seen(msgspec.Struct, frozen=True):
    """One request, as it arrived."""

    body: bytes
    at_seconds: float

    @property
    def events(self) -> list[Event]:
        """Its events."""
        return [json.loads(line) for line in self.body.splitlines()]


class Handler(BaseHTTPRequestHandler):
    """Behaves in each request as the script says next; once that is over, it hands requests on."""

    protocol_version = "HTTP/1.1"
    server: "Before"

    def do_POST(self) -> None:
        """One request."""
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.next_behaviour(Seen(body, time.monotonic()))(self, body)

    def forward(self, body: bytes) -> httpx2.Response:
        """What the service answers."""
        names = ("authorization", "content-type")
        headers = {name: value for name in names if (value := self.headers[name])}
        return self.server.service.post(self.path, content=body, headers=headers)

    def reply(self, status: int, body: bytes, **headers: str) -> None:
        """An answer with these headers; an underscore in a name stands for a hyphen."""
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


class Before(ThreadingHTTPServer):
    """A server on loopback that stands before the service and keeps what it saw."""

    daemon_threads = True

    def __init__(self, service_address: str, script: Iterable[Behaviour]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        # Without certificates, which take longer to read than a test here lasts.
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self.service = httpx2.Client(base_url=service_address, timeout=PATIENCE_SECONDS, trust_env=False, verify=tls)
        self.address = f"http://127.0.0.1:{self.server_address[1]}"
        self.seen: list[Seen] = []
        # Set when the test is over: who answers late then need not wait any longer.
        self.over = threading.Event()
        self._script = iter(script)
        self._lock = threading.Lock()

    def next_behaviour(self, seen: Seen) -> Behaviour:
        """Keep the request, and say what comes of it."""
        with self._lock:
            self.seen.append(seen)
            return next(self._script, hand_on)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A connection that breaks is what is tested; anything else is a fault of the test."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


@contextmanager
def standing_before(service_address: str, script: Iterable[Behaviour] = ()) -> Iterator[Before]:
    """A server that behaves by this script, as long as the block lasts."""
    server = Before(service_address, script)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        server.over.set()
        server.shutdown()
        thread.join()
        server.server_close()
        server.service.close()


def hand_on(handler: Handler, body: bytes) -> None:
    """As it should be."""
    answer = handler.forward(body)
    handler.reply(answer.status_code, answer.content, Content_Type=answer.headers["content-type"])


def status(number: int, **headers: str) -> Behaviour:
    """Do not hand on, and answer so."""
    return lambda handler, _: handler.reply(number, b"not now", **headers)


def receipt(body: bytes) -> Behaviour:
    """Do not hand on, and answer as if it were done."""
    return lambda handler, _: handler.reply(200, body)


def drop(handler: Handler, _: bytes) -> None:
    """Lose the request."""
    handler.close_connection = True


def drop_answer(handler: Handler, body: bytes) -> None:
    """Hand on, and lose the connection in the middle of the answer."""
    answer = handler.forward(body)
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(answer.content)))
    handler.end_headers()
    handler.wfile.write(answer.content[:5])
    handler.close_connection = True


def answer_late(handler: Handler, body: bytes) -> None:
    """Hand on, and answer when the client has long given up on it."""
    handler.forward(body)
    handler.server.over.wait(PATIENCE_SECONDS)
    handler.close_connection = True


def _receipt(accepted: int, *rejected: Event) -> bytes:
    return msgspec.json.encode({"accepted": accepted, "duplicates": 0, "rejected": rejected})


MISBEHAVIOURS: Final[dict[str, Behaviour]] = {
    "503": status(503, Retry_After="0"),
    "429": status(429),
    "502": status(502),
    "504": status(504),
    "request lost": drop,
    "answer lost": drop_answer,
    "answer late": answer_late,
}


class Gate:
    """A behaviour: busy until it is opened."""

    def __init__(self) -> None:
        self.is_open = False

    def __call__(self, handler: Handler, body: bytes) -> None:
        """One request."""
        (hand_on if self.is_open else MISBEHAVIOURS["429"])(handler, body)

    def script(self) -> Iterator[Behaviour]:
        """For all requests."""
        while True:
            yield self


@contextmanager
def client_of(server: Service | Before, **options: Any) -> Iterator[UsageClient]:
    """A client that is not left open; what it could not send is no matter any more."""
    chosen: dict[str, Any] = {"source": "test", "timeout_seconds": PATIENCE_SECONDS, **options}
    client = UsageClient(server.address, chosen.pop("key", ADMIN_KEY), **chosen)
    try:
        yield client
    finally:
        client.close(0)


def record(client: UsageClient, account: str, **fields: Any) -> bool:
    """Record an event of which only the account matters."""
    return client.record(**{"account": account, "product": "maps", "unit": "call", **fields})


# ---------------------------------------------------------------- nothing lost, nothing doubled


def test_nothing_is_lost_or_doubled_whatever_the_network_does(service: Service, account: str) -> None:
    """Four threads record while every misbehaviour happens twice: the totals are what was recorded, exactly."""
    script = [behaviour for each in MISBEHAVIOURS.values() for behaviour in (hand_on, each)] * 2
    recorded: dict[str, list[Decimal]] = defaultdict(list)

    def work(client: UsageClient, worker: int) -> None:
        for number in range(150):
            unit = f"unit-{worker}"
            quantity = Decimal(f"{number}.{number:018d}")
            assert record(client, account, unit=unit, quantity=quantity, id=f"{worker}-{number}")
            recorded[unit].append(quantity)

    with standing_before(service.address, script) as before:
        with client_of(before, batch_events=25, timeout_seconds=LATE_SECONDS) as client:
            threads = [threading.Thread(target=work, args=(client, worker)) for worker in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert client.flush(PATIENCE_SECONDS)
            stats = client.stats
        sent = [event["id"] for seen in before.seen for event in seen.events]

    assert {unit: (sum(quantities), 150) for unit, quantities in recorded.items()} == totals(service, account)
    # What an answer told that was lost comes again as duplicates: four batches of 25, more on a busy machine.
    assert Stats(recorded=600, accepted=600 - stats.duplicates, duplicates=stats.duplicates) == stats
    assert stats.duplicates >= 100
    assert len(sent) > 600 == len(set(sent))


@pytest.mark.parametrize("misbehaviour", MISBEHAVIOURS)
def test_every_try_has_the_same_ids_and_times(service: Service, account: str, misbehaviour: str) -> None:
    """The request is the same to the byte in every try: ids and times are made once."""
    with standing_before(service.address, [MISBEHAVIOURS[misbehaviour]] * 2) as before:
        with client_of(before, timeout_seconds=LATE_SECONDS) as client:
            start = datetime.now(UTC)
            assert all(record(client, account) for _ in range(3))
            end = datetime.now(UTC)
            assert client.flush(PATIENCE_SECONDS)
        bodies = [seen.body for seen in before.seen]
        events = before.seen[0].events

    assert len(bodies) >= 3
    assert {bodies[0]} == set(bodies)
    assert 3 == len({event["id"] for event in events})
    assert all(start <= datetime.fromisoformat(event["occurred_at"]) <= end for event in events)
    assert {"call": (3, 3)} == totals(service, account)


def test_the_wait_that_the_service_asks_for_is_kept(service: Service, account: str) -> None:
    """After a 503 with Retry-After the client stays away for so long, also when it is flushed and closed meanwhile."""
    with standing_before(service.address, [status(503, Retry_After="1")]) as before:
        with client_of(before) as client:
            record(client, account)
            assert not client.flush(0.2)
            assert client.close(PATIENCE_SECONDS)
        first, second = (seen.at_seconds for seen in before.seen)

    assert second - first >= 1.0
    assert {"call": (1, 1)} == totals(service, account)


def test_numbers_and_fields_arrive_as_they_were_given(service: Service, account: str) -> None:
    """A quantity of 38 digits, every field, and an instant of another zone arrive as they were; what is absent is absent."""
    at = datetime(2026, 3, 1, 12, 30, tzinfo=timezone(timedelta(hours=2)))
    quantity = Decimal("12345678901234567890.123456789012345678")
    attributes: dict[str, str | int | float | bool | None] = {"region": "eu", "hops": 3}
    with standing_before(service.address) as before:
        with client_of(before) as client:
            record(client, account, quantity=quantity, occurred_at=at, id="e-1", user="ana", attributes=attributes)
            attributes["region"] = "changed afterwards"
            assert client.flush(PATIENCE_SECONDS)
            assert Stats(recorded=1, accepted=1) == client.stats
        events = before.seen[0].events

    assert [
        {
            "id": "e-1",
            "occurred_at": "2026-03-01T10:30:00Z",
            "account": account,
            "product": "maps",
            "unit": "call",
            "source": "test",
            "user": "ana",
            "quantity": str(quantity),
            "attributes": {"region": "eu", "hops": 3},
        }
    ] == events


def test_the_same_id_is_counted_once(service: Service, account: str) -> None:
    """An id of the program's own that is recorded twice is counted once; the second is a duplicate in the stats."""
    with client_of(service) as client:
        record(client, account, id="order-7")
        record(client, account, id="order-7")
        assert client.flush(PATIENCE_SECONDS)
        assert Stats(recorded=2, accepted=1, duplicates=1) == client.stats

    assert {"call": (1, 1)} == totals(service, account)


# ---------------------------------------------------------------- the buffer


def test_a_full_buffer_says_no_and_keeps_what_it_has(
    service: Service, account: str, caplog: pytest.LogCaptureFixture
) -> None:
    """With the buffer full, `record` says False, once in the log; what was recorded before arrives, what comes later too."""
    gate = Gate()
    with (
        standing_before(service.address, gate.script()) as before,
        client_of(before, buffer_events_max=10, batch_events=5) as client,
    ):
        assert [True] * 10 + [False] * 3 == [record(client, account) for _ in range(13)]
        assert Stats(recorded=10, waiting=10, refused=3) == client.stats

        gate.is_open = True
        assert client.flush(PATIENCE_SECONDS)
        assert record(client, account)
        assert client.flush(PATIENCE_SECONDS)
        assert Stats(recorded=11, accepted=11, refused=3) == client.stats

    assert {"call": (11, 11)} == totals(service, account)
    assert 1 == sum("are not taken, 1 by now: 10 events are waiting already" in line for line in caplog.messages)


def test_recording_never_waits_for_the_network(service: Service, account: str) -> None:
    """While no request is answered, a coroutine records a thousand events in less time than one answer is waited for."""

    async def handle(client: UsageClient) -> float:
        start = time.monotonic()
        assert all(record(client, account) for _ in range(1_000))
        return time.monotonic() - start

    with (
        standing_before(service.address, [answer_late]) as before,
        client_of(before) as client,
    ):
        record(client, account)
        assert not client.flush(0)
        until(lambda: before.seen, PATIENCE_SECONDS)
        assert asyncio.run(handle(client)) < 5.0
        assert 1_001 == client.stats.waiting
        before.over.set()
        assert client.flush(PATIENCE_SECONDS)

    assert {"call": (1_001, 1_001)} == totals(service, account)


def test_a_batch_leaves_when_it_is_full_or_old_enough(service: Service, account: str) -> None:
    """A full batch is sent at once, the rest stays until it is old enough; neither needs a flush."""
    with standing_before(service.address) as before:
        with client_of(before, batch_events=5, age_seconds_max=NEVER_SECONDS) as by_size:
            record(by_size, account)
            until(
                lambda: vars(by_size._changed)["_waiters"], PATIENCE_SECONDS
            )  # the thread sleeps; a full batch wakes it
            assert all(record(by_size, account) for _ in range(6))
            until(lambda: by_size.stats.accepted == 5, PATIENCE_SECONDS)
            assert 2 == by_size.stats.waiting
            assert by_size.flush(PATIENCE_SECONDS)
        with client_of(before, batch_events=5, age_seconds_max=0.2) as by_age:
            start = time.monotonic()
            record(by_age, account)
            until(lambda: by_age.stats.accepted == 1, PATIENCE_SECONDS)
        assert [5, 2, 1] == [len(seen.events) for seen in before.seen]
        assert before.seen[-1].at_seconds - start >= 0.2

    assert {"call": (8, 8)} == totals(service, account)


def test_a_request_stays_small_enough_for_proxies(service: Service, account: str) -> None:
    """Events with much text go in several requests, so that none has more than a megabyte."""
    with standing_before(service.address) as before:
        with client_of(before, buffer_events_max=1_000, age_seconds_max=NEVER_SECONDS) as client:
            assert all(record(client, account, attributes={"text": "x" * 4_000}) for _ in range(300))
            assert client.flush(PATIENCE_SECONDS)
        sizes = [len(seen.body) for seen in before.seen]

    assert 2 == len(sizes)
    assert max(sizes) <= BATCH_BYTES_MAX
    assert {"call": (300, 300)} == totals(service, account)


def test_flush_returns_when_all_is_acknowledged_and_not_before(service: Service, account: str) -> None:
    """While the service is busy, flush says False and keeps everything; once it is not, flush says True, and all is there."""
    gate = Gate()
    with (
        standing_before(service.address, gate.script()) as before,
        client_of(before, batch_events=2, age_seconds_max=NEVER_SECONDS) as client,
    ):
        assert all(record(client, account) for _ in range(5))
        assert not client.flush(0.3)
        assert {} == totals(service, account)
        answers: list[bool] = []
        flushing = threading.Thread(target=lambda: answers.append(client.flush(PATIENCE_SECONDS)))
        flushing.start()
        assert [] == answers
        gate.is_open = True
        flushing.join(PATIENCE_SECONDS)
        assert [True] == answers
        assert {"call": (5, 5)} == totals(service, account)
        assert client.flush(0)


# ---------------------------------------------------------------- the end


def test_close_drains(service: Service, account: str) -> None:
    """Leaving the block sends what waits, through a lost answer too; afterwards `record` says False."""
    with standing_before(service.address, [drop_answer]) as before:
        with UsageClient(before.address, ADMIN_KEY, source="test", age_seconds_max=NEVER_SECONDS) as client:
            assert all(record(client, account) for _ in range(5))
        assert {"call": (5, 5)} == totals(service, account)

    assert not record(client, account)
    assert client.close()
    assert Stats(recorded=5, duplicates=5, refused=1) == client.stats


def test_what_close_gives_up_is_handed_over(account: str) -> None:
    """With nobody there, close ends in its time and hands over every event, with its id; none is left out, none comes twice."""
    with standing_before("") as gone:
        address = gone.address
    handed: list[Rejected] = []
    client = UsageClient(address, ADMIN_KEY, source="test", batch_events=2, on_rejected=handed.append)
    for number in range(5):
        record(client, account, id=f"e-{number}")

    start = time.monotonic()
    assert not client.close(0.3)
    assert time.monotonic() - start < 3.0

    assert [(f"e-{number}", "not_delivered") for number in range(5)] == [(each.event.id, each.code) for each in handed]
    assert Stats(recorded=5, dropped=5) == client.stats
    assert not client.flush(0)
    assert client.close()
    assert 5 == len(handed)


def test_an_answer_after_close_changes_nothing(service: Service, account: str) -> None:
    """What close gave up stays given up, and is handed over once, though the service answers for it afterwards."""
    handed: list[Rejected] = []

    def hesitate(handler: Handler, body: bytes) -> None:
        handler.server.over.wait(PATIENCE_SECONDS)
        hand_on(handler, body)

    with (
        standing_before(service.address, [hesitate]) as before,
        client_of(before, on_rejected=handed.append) as client,
    ):
        assert all(record(client, account) for _ in range(2))
        assert not client.flush(0)
        until(lambda: before.seen, PATIENCE_SECONDS)
        assert not client.close(0)
        before.over.set()
        assert client._thread is not None
        client._thread.join(PATIENCE_SECONDS)

    assert ["not_delivered"] * 2 == [each.code for each in handed]
    assert Stats(recorded=2, dropped=2) == client.stats
    assert {"call": (2, 2)} == totals(service, account)


def test_a_flush_is_not_told_that_all_is_well_when_close_gave_it_up(account: str) -> None:
    """A flush that is waiting when close gives up says False."""
    with standing_before("") as gone:
        address = gone.address
    client = UsageClient(address, ADMIN_KEY, source="test", on_rejected=lambda _: None)
    record(client, account)
    answers: list[bool] = []
    flushing = threading.Thread(target=lambda: answers.append(client.flush(PATIENCE_SECONDS)))
    flushing.start()

    client.close(0)
    flushing.join(PATIENCE_SECONDS)

    assert [False] == answers


def run_program(code: str, url: str, directory: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run a program in a Python of its own, as a product service would be."""
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env=clean_environment(METERING_URL=url, METERING_KEY=ADMIN_KEY, NO_PROXY="127.0.0.1", PYTHONPATH=str(ROOT)),
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=False,
    )


PROGRAM: Final = """
import os, sys
from metering.client import UsageClient
account, end = sys.argv[1:]
client = UsageClient(
    os.environ["METERING_URL"], os.environ["METERING_KEY"], source="test", age_seconds_max=3600, exit_seconds_max=1,
)
for number in range(7):
    client.record(account=account, product="maps", unit="call")
"""


@pytest.mark.parametrize(("end", "code"), [("pass", 0), ("sys.exit(3)", 3), ("raise RuntimeError", 1)])
def test_a_program_that_ends_sends_what_waits(
    service: Service, account: str, tmp_path: Path, end: str, code: int
) -> None:
    """However a program ends, short of being killed: what waits in its buffer is sent, and its exit code is its own."""
    ended = run_program(PROGRAM + end, service.address, tmp_path, account, end)

    assert code == ended.returncode, ended.stderr
    assert {"call": (7, 7)} == totals(service, account)


def test_a_program_ends_in_time_when_nobody_is_there(account: str, tmp_path: Path) -> None:
    """With the service away, a program ends all the same, after its second at most, and logs each event that it gives up."""
    with standing_before("") as gone:
        address = gone.address

    start = time.monotonic()
    ended = run_program(PROGRAM, address, tmp_path, account, "")

    assert time.monotonic() - start < 10.0
    assert 0 == ended.returncode, ended.stderr
    assert 7 == len(re.findall(r"Usage event \S+ was not recorded: not_delivered: ", ended.stderr))


FORKING: Final = """
import json, os, signal, sys
from metering.client import UsageClient
account, moment = sys.argv[1:]
client = UsageClient(os.environ["METERING_URL"], os.environ["METERING_KEY"], source="test", age_seconds_max=3600)
def record(process, events):
    for number in range(events):
        assert client.record(account=account, product="maps", unit="call", id=f"{process}-{number}")
record("first", 1)
if moment == "later":
    assert client.flush()      # a connection that the child inherits
record("parent", 5)
with client._changed:          # what a thread may hold at the moment of a fork; the child has no such thread
    child = os.fork()
if child == 0:
    signal.alarm(30)           # should it hang, it ends all the same
    assert client.stats.recorded == 0
    record("child", 3)
    print(json.dumps(client.close()), client.stats.accepted, flush=True)
    sys.exit(0)                # its exit handlers run too
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
record("after", 2)
print(json.dumps(client.close()), client.stats.accepted)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="nothing forks there")
@pytest.mark.parametrize("moment", ["at once", "later"])
def test_a_fork_sends_nothing_twice(service: Service, account: str, tmp_path: Path, moment: str) -> None:
    """After a fork the parent sends what waited, the child only what it recorded itself; every id is sent once.

    It may come while the client's thread is only just starting, or has long been at work.
    """
    with standing_before(service.address) as before:
        ended = run_program(FORKING, before.address, tmp_path, account, moment)
        sent = Counter(event["id"] for seen in before.seen for event in seen.events)

    assert 0 == ended.returncode, ended.stderr
    assert "true 3\ntrue 8\n" == ended.stdout
    assert {1} == set(sent.values())
    assert {"first": 1, "parent": 5, "child": 3, "after": 2} == Counter(id.partition("-")[0] for id in sent)
    assert {"call": (11, 11)} == totals(service, account)


# ---------------------------------------------------------------- what is refused


def test_refused_events_reach_the_callback_and_cost_no_other(service: Service, account: str) -> None:
    """Each refused event comes back with the service's code, message and field; the others of its batch are recorded."""
    handed: list[Rejected] = []
    tomorrow = datetime.now(UTC) + timedelta(days=1)
    attributes = {"region": "eu"}
    with client_of(service, on_rejected=handed.append) as client:
        record(client, account, id="good-1")
        record(client, account, id="early", occurred_at=tomorrow, attributes=attributes)
        attributes["region"] = "changed afterwards"
        record(client, account, id="huge", quantity=Decimal("1e30"))
        record(client, account, id="good-2")
        record(client, account, id="good-1", quantity=2)
        assert client.flush(PATIENCE_SECONDS)
        assert Stats(recorded=5, accepted=2, rejected=3) == client.stats

    assert [
        ("early", "time_in_future", "occurred_at"),
        ("huge", "quantity_out_of_range", "quantity"),
        ("good-1", "identity_conflict", "id"),
    ] == [(each.event.id, each.code, each.path) for each in handed]
    assert (tomorrow, {"region": "eu"}) == (handed[0].event.occurred_at, handed[0].event.attributes)
    assert "ahead of the service's clock" in handed[0].message
    assert {"call": (2, 2)} == totals(service, account)


def test_refused_events_are_logged_unless_told_otherwise(
    service: Service, account: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Without a callback, a refused event is an error in the program's log, with its id, the code and the message."""
    with client_of(service) as client:
        record(client, account, id="e-13", unit="")
        assert client.flush(PATIENCE_SECONDS)

    lines = [(each.name, each.levelno, each.message) for each in caplog.records if each.levelno >= logging.ERROR]
    message = "Usage event e-13 was not recorded: text_invalid: `unit` must have 1 to 256 characters; this has 0."
    assert [("metering.client", logging.ERROR, message)] == lines


def test_a_callback_that_fails_stops_nothing(service: Service, account: str, caplog: pytest.LogCaptureFixture) -> None:
    """When the program's callback raises, that is logged; it is called for the next event all the same, and may record."""
    handed: list[str] = []

    def fail(rejected: Rejected) -> None:
        handed.append(rejected.event.id)
        with suppress(RuntimeError):
            client.flush()
            handed.append("flush was let in")
        record(client, account, unit="failure")
        raise KeyError(rejected.code)

    with client_of(service, on_rejected=fail) as client:
        record(client, account, id="e-1", unit="")
        record(client, account, id="e-2", unit="")
        record(client, account)
        assert client.flush(PATIENCE_SECONDS)
        assert client.flush(PATIENCE_SECONDS)
        assert Stats(recorded=5, accepted=3, rejected=2) == client.stats

    assert ["e-1", "e-2"] == handed
    assert 2 == sum(line.startswith("on_rejected failed for usage event e-") for line in caplog.messages)
    assert {"call": (1, 1), "failure": (2, 2)} == totals(service, account)


def test_a_request_that_is_refused_as_a_whole_is_handed_over(service: Service, account: str) -> None:
    """A key that is none is nothing to try again: each event is handed over with the code of the service's answer."""
    handed: list[Rejected] = []
    with client_of(service, key="no-key", on_rejected=handed.append) as client:
        record(client, account)
        record(client, account)
        assert client.flush(PATIENCE_SECONDS)
        assert Stats(recorded=2, rejected=2) == client.stats

    assert ["unauthenticated"] * 2 == [each.code for each in handed]
    assert handed[0].message.startswith("401 ")
    assert {} == totals(service, account)


def test_a_batch_that_is_too_large_is_sent_by_halves(service: Service, module_database_url: str, account: str) -> None:
    """Under a key's narrow limit every event is recorded, in requests that fit; only one that never fits is handed over."""
    handed: list[Rejected] = []
    _, key = make_key(module_database_url, request_events_max=30, request_bytes_max=10_000)
    with (
        standing_before(service.address) as before,
        client_of(before, key=key, batch_events=100, on_rejected=handed.append) as client,
    ):
        for number in range(200):
            note = {"note": "x" * (20_000 if number == 50 else 10)}
            assert record(client, account, id=f"e-{number}", attributes=note)
        assert client.flush(PATIENCE_SECONDS)
        assert Stats(recorded=200, accepted=199, rejected=1) == client.stats

    assert [("e-50", "body_too_large")] == [(each.event.id, each.code) for each in handed]
    assert {"call": (199, 199)} == totals(service, account)
    # It learns what fits, and goes on trying for more now and then.
    sizes = [len(seen.events) for seen in before.seen]
    assert [100, 50, 25] == sizes[:3]
    assert len(sizes) < 50


@pytest.mark.parametrize(
    ("behaviour", "code"),
    [
        pytest.param(receipt(b"<html>Welcome</html>"), "no_receipt", id="a page"),
        pytest.param(receipt(_receipt(5)), "no_receipt", id="more than was sent"),
        pytest.param(receipt(_receipt(0, {"index": 7, "code": "a", "message": "b"})), "no_receipt", id="another index"),
        pytest.param(receipt(_receipt(0, {"index": 0, "code": "new", "message": "b"})), "new", id="a newer code"),
        pytest.param(status(404), "http_404", id="404"),
        pytest.param(status(308, Location="/elsewhere"), "http_308", id="308"),
        pytest.param(status(500), "http_500", id="500"),
    ],
)
def test_an_answer_that_acknowledges_nothing_is_no_acknowledgement(
    account: str, behaviour: Behaviour, code: str
) -> None:
    """What is no receipt for this event counts for nothing: the event is handed over. A code may be newer than the client."""
    handed: list[Rejected] = []
    with (
        standing_before("", [behaviour]) as before,
        client_of(before, on_rejected=handed.append) as client,
    ):
        record(client, account)
        assert client.flush(PATIENCE_SECONDS)
        assert Stats(recorded=1, rejected=1) == client.stats

    assert [code] == [each.code for each in handed]


@pytest.mark.parametrize(
    ("fields", "error", "message"),
    [
        ({"quantity": 0.1}, TypeError, "a float is not exact: 0.1"),
        ({"quantity": True}, TypeError, "a bool is not exact: True"),
        ({"quantity": None}, TypeError, "a NoneType is not exact"),
        ({"quantity": "many"}, ValueError, "not a decimal number: 'many'"),
        ({"quantity": "NaN"}, ValueError, "not a finite number"),
        ({"quantity": Decimal("-Infinity")}, ValueError, "not a finite number"),
        ({"occurred_at": datetime(2026, 3, 1)}, ValueError, "needs a time zone"),  # noqa: DTZ001 - what is refused
        ({"attributes": {"thing": object()}}, TypeError, "object"),
        ({"user": "half a pair: \ud800"}, ValueError, "surrogates"),
    ],
)
def test_what_is_no_event_is_refused_where_it_is_recorded(
    fields: dict[str, Any], error: type[Exception], message: str
) -> None:
    """A quantity that is not exact, a time that is no instant, a text that is none: an error at once, and nothing recorded."""
    client = UsageClient("http://127.0.0.1:1", ADMIN_KEY)

    with pytest.raises(error, match=re.escape(message)):
        record(client, "acme", **fields)

    assert Stats() == client.stats
    assert client.close()


@pytest.mark.parametrize(
    ("arguments", "options", "error"),
    [
        (("127.0.0.1:8000", "key"), {}, SendError),
        (("http://127.0.0.1:8000", "key\nkey"), {}, SendError),
        (("http://127.0.0.1:8000", "key"), {"batch_events": 0}, ValueError),
        (("http://127.0.0.1:8000", "key"), {"batch_events": 11, "buffer_events_max": 10}, ValueError),
        (("http://127.0.0.1:8000", "key"), {"batch_events": 10_001, "buffer_events_max": 20_000}, ValueError),
    ],
)
def test_a_client_that_could_never_send_is_not_made(
    arguments: tuple[str, str], options: dict[str, Any], error: type[Exception]
) -> None:
    """An address that is none, a key that is none, bounds that do not fit: an error where the client is made."""
    with pytest.raises(error):
        UsageClient(*arguments, **options)


# ---------------------------------------------------------------- what client and file sender share


def test_waits_grow_to_a_bound_and_differ() -> None:
    """The wait doubles up to five seconds, however many tries; half of it is by chance; what was asked for comes on top."""
    bounds = {0: (0.05, 0.1), 3: (0.4, 0.8), 10: (2.5, 5.0), 100_000: (2.5, 5.0)}
    for attempt, (shortest, longest) in bounds.items():
        waits = {wait_seconds(attempt) for _ in range(200)}
        assert shortest <= min(waits) < max(waits) <= longest
        assert shortest + 7 <= wait_seconds(attempt, 7.0) <= longest + 7


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, 0.0),
        ({"Retry-After": "3"}, 3.0),
        ({"Retry-After": "86400"}, RETRY_AFTER_SECONDS_MAX),
        ({"Retry-After": "-3"}, 0.0),
        ({"Retry-After": "soon"}, 0.0),
        ({"Retry-After": "Sun, 01 Mar 2026 12:00:09 GMT", "Date": "Sun, 01 Mar 2026 12:00:00 GMT"}, 9.0),
        ({"Retry-After": "Sun, 01 Mar 2026 12:00:00 GMT", "Date": "Sun, 01 Mar 2026 12:00:09 GMT"}, 0.0),
        ({"Retry-After": "Sun, 01 Mar 2026 12:00:09 -0000", "Date": "Sun, 01 Mar 2026 12:00:00 GMT"}, 9.0),
        ({"Retry-After": "Sun, 01 Mar 2026 12:00:09 GMT"}, 0.0),
    ],
)
def test_retry_after_is_seconds_or_a_date(headers: dict[str, str], seconds: float) -> None:
    """Retry-After is understood in both forms, a date by the answer's own clock; nonsense is no wait, a day is cut short."""
    answer = answer_of(httpx2.Response(503, headers=headers), 1)

    assert NotTaken("http_503", "503 ", retryable=True, retry_after_seconds=seconds) == answer


def test_busy_is_what_may_be_over_soon() -> None:
    """The statuses after which the same request is sent again are these five."""
    assert [408, 429, 502, 503, 504] == [status for status in range(100, 600) if is_busy(status)]


def test_senders_read_the_receipt_that_the_service_writes() -> None:
    """Every field of the service's receipt is understood by its senders, for every code."""
    for code in receipts.Code:
        rejection = receipts.Rejection(index=1, code=code, message="m", id="e", path="p")
        written = msgspec.json.encode(receipts.Receipt(accepted=1, duplicates=1, rejected=(rejection,)))

        read = answer_of(httpx2.Response(200, content=written), 3)

        assert isinstance(read, Receipt)
        assert [(1, code.value, "m", "p")] == [msgspec.structs.astuple(each) for each in read.rejected]


def test_the_file_sender_comes_through_the_same_network(service: Service, account: str) -> None:
    """`metering import`'s sender loses and doubles nothing either, and keeps the wait that the service asks for."""
    fields = {"source": "test", "account": account, "product": "maps", "unit": "call", "quantity": "0.1"}
    at = datetime.now(UTC).isoformat()
    events = [{"id": f"e-{number}", "occurred_at": at, **fields} for number in range(2_500)]
    script = [status(503, Retry_After="1"), drop, drop_answer, MISBEHAVIOURS["429"], MISBEHAVIOURS["504"]]
    reasons: list[str] = []

    with standing_before(service.address, script) as before:
        lines = ((number, msgspec.json.encode(event)) for number, event in enumerate(events))
        sent = asyncio.run(send_events(lines, before.address, ADMIN_KEY, on_wait=reasons.append))
        refused = next(seen for seen in before.seen)
        again = next(seen for seen in before.seen[1:] if seen.body == refused.body)

    assert 2_500 == sent.accepted + sent.duplicates
    assert sent.duplicates in {500, 1_000}
    assert 3 == len(reasons)
    assert again.at_seconds - refused.at_seconds >= 1.0
    assert {"call": (250, 2_500)} == totals(service, account)


# ---------------------------------------------------------------- the documentation


def _programs() -> list[tuple[str, str]]:
    """The programs of docs/sending.md, each with the output that is shown behind it."""
    text = (ROOT / "docs" / "sending.md").read_text(encoding="utf-8")
    return cast("list[tuple[str, str]]", re.findall(r"```python\n(.*?)```\n\n```text\n(.*?)```", text, re.DOTALL))


def test_the_page_on_sending_is_true(service: Service, tmp_path: Path, run_cli: RunCli) -> None:
    """Every program of docs/sending.md runs as it stands and prints what the page shows; `metering import` takes the file."""
    programs = _programs()
    assert 2 == len(programs)

    for program, shown in programs:
        ended = run_program(program, service.address, tmp_path)
        assert (0, shown) == (ended.returncode, ended.stdout), ended.stderr

    kept = tmp_path / "rejected.ndjson"
    kept.write_bytes(kept.read_bytes().replace(b'"unit":""', b'"unit":"call"'))  # the cause is gone
    loaded = run_cli("import", str(kept), METERING_URL=service.address, METERING_KEY=ADMIN_KEY, NO_PROXY="127.0.0.1")
    assert (0, "1 accepted, 0 duplicates, 0 rejected.\n") == (loaded.returncode, loaded.stdout), loaded.stderr
