"""Traces of real processes: each sends its own, also what is left when it ends, and a collector that hangs holds up nothing."""

import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import httpx2
import pytest

from tests.acceptance.processes import STOP_SECONDS_MAX, Home, home_in, until
from tests.collecting import collecting
from tests.conftest import ADMIN_KEY, ENGINES, Server, bearer, clean_environment, metering_program, usage_event

QUESTION: Final = {"query": "query Last { service { status } }"}
# Each makes a dozen spans: more than are waited with, and than may wait.
_REQUESTS: Final = 600
_PATIENCE_SECONDS: Final = 30.0


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    """A directory of this test's own."""
    with home_in(tmp_path) as home:
        yield home


@pytest.fixture
def url(servers: dict[str, Server]) -> Iterator[str]:
    """A database: which engine it is makes no difference here."""
    with servers[ENGINES[0]].cloned() as url:
        yield url


@contextmanager
def working(directory: Path, variables: dict[str, str]) -> Iterator["subprocess.Popen[bytes]"]:
    """A `metering work` that has begun; it is killed where the test left it running."""
    process = subprocess.Popen(
        [metering_program(), "work"],
        env=clean_environment(**variables),
        cwd=directory,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline().startswith(b"Working: ")
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def test_every_process_sends_its_own_spans_before_it_ends(home: Home, url: str) -> None:
    """Two workers and one that works in the background send by their own names, and the last question's span arrives though
    they were told to stop at once.
    """
    with collecting() as collector:
        traced = {"METERING_TRACES_URL": collector.url, "METERING_DATABASE_URL": url}
        service = home.serve("--workers", "2", "--no-work", **traced)

        def both_told() -> bool:
            # A connection of its own each time: the kernel says which worker takes it.
            httpx2.post(f"{service.address}/graphql", json=QUESTION, headers=bearer(ADMIN_KEY), trust_env=False)
            return len({each.process for each in collector.named("query Last")}) == 2

        with working(home.directory, traced) as worker:
            until(both_told, _PATIENCE_SECONDS)
            last = {"traceparent": f"00-{'ab' * 16}-{'cd' * 8}-01", **bearer(ADMIN_KEY)}
            httpx2.post(f"{service.address}/graphql", json=QUESTION, headers=last, trust_env=False)
            service.stop()
            worker.send_signal(signal.SIGTERM)
            assert 0 == worker.wait(STOP_SECONDS_MAX)

    assert 1 == len(collector.named("query Last", "ab" * 16))
    assert {f"{socket.gethostname()}:{worker.pid}"} == {each.process for each in collector.named("loop refresh")}
    assert 3 == len({each.process for each in collector.spans})
    assert "" == service.stderr


def test_a_collector_that_hangs_holds_up_nothing(home: Home, url: str) -> None:
    """A collector takes a request and never answers: every event is acknowledged, spans that find no room are dropped, and the
    service ends in good order, and in time.
    """
    with collecting(answers=False) as collector:
        service = home.serve(METERING_TRACES_URL=collector.url, METERING_DATABASE_URL=url)
        receipts = [service.send([usage_event(number)]) for number in range(_REQUESTS)]
        assert collector.asked.is_set()
        service.stop()
        hung = list(collector.spans)

    assert _REQUESTS == sum(receipt["accepted"] for receipt in receipts)
    assert [] == hung
    assert "Queue full, dropping Span" in service.stderr
    assert "spans_given_up" in service.stderr
