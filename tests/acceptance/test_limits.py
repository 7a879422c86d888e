"""Limits of keys as operators set them and clients meet them: real processes on one database."""

import asyncio
import random
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from metering.client import UsageClient
from metering.sender import send_events
from metering.store.embedded import EmbeddedServer
from tests.acceptance.processes import Service, home_in
from tests.conftest import Server, make_key, usage_event

RunCli = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def pair(
    servers: dict[str, Server], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, Service, Service]]:
    """Two services on one database, and its address."""
    url = servers["postgres"].clone()
    with home_in(tmp_path_factory.mktemp("pair")) as home:
        first = home.launch(METERING_DATABASE_URL=url)
        second = home.launch(METERING_DATABASE_URL=url)
        yield url, first.await_ready(), second.await_ready()
    servers["postgres"].drop(url)


def batch(start: int, count: int) -> list[dict[str, Any]]:
    """New events."""
    return [usage_event(number) for number in range(start, start + count)]


def test_two_services_let_through_one_rate(pair: tuple[str, Service, Service]) -> None:
    """Four threads send as fast as they can to two processes: together they get the burst and the rate, and no event more."""
    url, *services = pair
    rate, burst = 200, 100
    _, key = make_key(url, events_per_second_max=rate, burst_events_max=burst)
    taken: list[int] = []
    refused: list[int] = []

    def run(number: int, until_seconds: float) -> None:
        chance = random.Random(number)
        for attempt in range(10_000):
            count = chance.randint(1, 20)
            events = batch((number * 10_000 + attempt) * 20, count)
            response = services[number % 2].post("/v1/events", events, key=key)
            if response.status_code == 200:
                taken.append(response.json()["accepted"])
            else:
                assert 429 == response.status_code, response.text
                refused.append(int(response.headers["Retry-After"]))
            if time.monotonic() > until_seconds:
                return

    began = time.monotonic()
    threads = [threading.Thread(target=run, args=(number, began + 2.0)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.monotonic() - began

    assert burst < sum(taken) <= burst + rate * seconds
    assert {1} == set(refused)


def test_a_crash_of_the_database_forgets_what_was_owed(tmp_path: Path) -> None:
    """What keys may still send is not worth a wait for a disk: after a crash each has its whole burst, and its limits."""
    with home_in(tmp_path) as home:
        service = home.serve()
        _, key = make_key(EmbeddedServer(home.data_dir).url(), events_per_second_max=1, burst_events_max=5)
        before = [service.post("/v1/events", batch(0, count), key=key).status_code for count in (1_000, 1)]
        home.kill_postgres()
        service.kill()
        service = home.serve()
        after = [service.post("/v1/events", batch(0, count), key=key) for count in (5, 1_000)]

    assert [200, 429] == before
    assert [200, 429] == [answer.status_code for answer in after]
    assert 5 == after[0].json()["duplicates"]


def test_clients_wait_as_long_as_they_are_asked_to(pair: tuple[str, Service, Service]) -> None:
    """The Python client over a key's rate keeps to Retry-After, sends all in the end, and loses and doubles nothing."""
    url, service, _ = pair
    _, key = make_key(url, events_per_second_max=100, burst_events_max=100)
    rejected: list[Any] = []
    began = time.monotonic()
    with UsageClient(service.address, key, source="client", batch_events=100, on_rejected=rejected.append) as client:
        for number in range(300):
            assert client.record(account="patient", product="maps", unit="call", id=f"e-{number}")
        assert client.flush(60)
    seconds = time.monotonic() - began

    assert [] == rejected
    assert (300, 300, 0) == (client.stats.recorded, client.stats.accepted, client.stats.duplicates)
    # 100 at once, and 200 more at 100 a second.
    assert seconds >= 2.0


def test_the_file_sender_waits_too(pair: tuple[str, Service, Service]) -> None:
    """`metering import`'s sender is told 429 as anyone is, says so, waits, and sends all."""
    url, service, _ = pair
    _, key = make_key(url, events_per_second_max=1_000, burst_events_max=1)
    lines = [(number, msgspec.json.encode(usage_event(number, source="file"))) for number in range(2_500)]
    waits: list[str] = []
    sent = asyncio.run(send_events(iter(lines), service.address, key, on_wait=waits.append))

    assert (2_500, 0, 0) == (sent.accepted, sent.duplicates, sent.rejected)
    assert waits
    assert all(reason.startswith("429 ") and "rate_limited" in reason for reason in waits)


# ---------------------------------------------------------------- the command line


def test_limits_are_set_and_shown(pair: tuple[str, Service, Service], run_cli: RunCli) -> None:
    """`keys create` gives a key its limits and its source, `keys list` shows them with units, and the service holds them."""
    url, service, _ = pair
    options = ["--default-source", "gateway", "--events-per-second-max", "1000", "--burst-events-max", "5000"]
    options += ["--request-events-max", "500", "--request-bytes-max", "1048576"]
    created = run_cli(
        "keys", "create", "--name", "bounded", "--scope", "USAGE_WRITE", *options, METERING_DATABASE_URL=url
    )
    assert 0 == created.returncode, created.stderr
    key = created.stdout.splitlines()[0]
    listed = run_cli("keys", "list", METERING_DATABASE_URL=url, COLUMNS="300")
    (line,) = [line for line in listed.stdout.splitlines() if "bounded" in line]
    taken = service.post("/v1/events", [usage_event(1, account="cli", source=None)], key=key)
    many = service.post("/v1/events", batch(0, 501), key=key)

    assert "gateway" in line
    assert "1,000 events/s, burst 5,000 events, 500 events/request, 1,048,576 bytes/request" in line
    assert {"accepted": 1, "duplicates": 0, "rejected": []} == taken.json()
    assert '"events";q=5000;qu="events";w=5' == taken.headers["RateLimit-Policy"]
    assert (413, "too_many_events") == (many.status_code, many.json()["code"])


def test_all_faults_of_a_key_are_named_at_once(pair: tuple[str, Service, Service], run_cli: RunCli) -> None:
    """Limits that make no sense stop `keys create` with a line for each, and no key is made."""
    url, _, _ = pair
    options = ["--default-source", "", "--burst-events-max", "10", "--request-events-max", "20000"]
    ended = run_cli("keys", "create", "--name", "faulty", "--scope", "USAGE_WRITE", *options, METERING_DATABASE_URL=url)
    listed = run_cli("keys", "list", METERING_DATABASE_URL=url, COLUMNS="300")

    assert (1, "") == (ended.returncode, ended.stdout)
    assert [
        "metering: default_source: A source has 1 to 256 characters, none of them NUL.",
        "metering: request_events_max: This must be 1 to 10,000 events; 20,000 is not.",
        "metering: burst_events_max: A burst belongs to a rate; give events_per_second_max too.",
    ] == ended.stderr.splitlines()
    assert "faulty" not in listed.stdout
