"""What networks, disks and operators do to a service under a load: nothing that was acknowledged is lost or doubled.

After each adversity the acknowledged events are looked up in the database by their ids, and every figure is that of what
is recorded. What was not acknowledged is sent again, and then all that was ever sent is there, once.
"""

import asyncio
import random
import re
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import asyncpg
import pytest

from metering.limits import LIMITS
from metering.store.embedded import EmbeddedServer
from tests.acceptance.load import BATCH_EVENTS, LOADERS, SEED, Load, settled
from tests.acceptance.processes import Home, Service, home_in, restart, server_like, until
from tests.acceptance.small_disk import small_disk
from tests.conftest import ADMIN_KEY, Server
from tests.proxy import Proxy

CUTS: Final = 40
# A few times what one transaction of the load sends.
BYTES_BETWEEN_CUTS_MAX: Final = 300_000
COMMITS_CUT: Final = 20
# What PostgreSQL says of a client that went away in the middle of a COPY.
CUT_IN_COPY: Final = re.compile(
    r"unexpected EOF on client connection with an open transaction\n(?:.*(?:DETAIL|CONTEXT): .*\n)*.*STATEMENT:  COPY"
)
# A connection is waited for, then what it says of the key; then the events are written.
ANSWER_SECONDS_MAX: Final = 2 * LIMITS.database_connect_seconds_max + LIMITS.write_seconds_max
MANY_LOADERS: Final = 16
FULL: Final = "No space left on device"
# So that the refresher is always at work, and meets the same.
BUSY: Final = {"METERING_REFRESH_SECONDS": "0.05"}


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    """A directory of this test's own; what it starts there ends with it."""
    with home_in(tmp_path) as made:
        yield made


@pytest.fixture
def load() -> Load:
    """A load of this test's own."""
    return Load(datetime.now(UTC))


def check_to_the_end(load: Load, service: Service, database_url: str) -> None:
    """Whatever happened is over: what was acknowledged is there; the rest is sent again; then all is there. It ends well."""
    load.check_acknowledged(service, database_url)
    load.resend(service)
    load.check_everything(service, database_url)
    service.stop()


# ---------------------------------------------------------------- the network


def test_connections_may_be_cut_at_any_byte(
    servers: dict[str, Server], engine: str, tmp_path: Path, home: Home, load: Load
) -> None:
    """Connections to PostgreSQL end at any byte, most of them in the middle of a COPY, again and again: the service goes on."""
    choose = random.Random(SEED)
    with server_like(servers[engine], tmp_path / "server") as server, Proxy(server.url()) as proxy:
        service = home.serve(METERING_DATABASE_URL=proxy.url, **BUSY)
        with load.upon(service):
            load.await_acknowledged(5)
            proxy.cut_after(iter(lambda: choose.randrange(1, BYTES_BETWEEN_CUTS_MAX), 0))
            until(lambda: proxy.cuts >= CUTS or load.faults, 60)
            proxy.pass_all()
            load.await_acknowledged(20)
        assert {200, 503} == load.answers.keys()
        assert len(CUT_IN_COPY.findall(log_of(tmp_path))) > CUTS // 4
        check_to_the_end(load, service, server.url())


@pytest.mark.parametrize("side", ["cut_at_request", "cut_at_reply"])
def test_connections_may_be_cut_at_the_commit(database_url: str, home: Home, load: Load, side: str) -> None:
    """Where PostgreSQL does not hear of the commit nothing is acknowledged, and where it did, nothing counts twice."""
    with Proxy(database_url) as proxy:
        service = home.serve(METERING_DATABASE_URL=proxy.url, **BUSY)
        with load.upon(service):
            for cuts in range(COMMITS_CUT):
                getattr(proxy, side)(b"COMMIT")
                until(lambda before=cuts: proxy.cuts > before or load.faults, 30)
            load.await_acknowledged(20)
        assert {200, 503} == load.answers.keys()
        check_to_the_end(load, service, database_url)


def test_a_connection_that_falls_silent_costs_a_bounded_time(database_url: str, home: Home, load: Load) -> None:
    """Where nothing passes, and nothing ends, requests are answered 503 in time; when something passes again, so do they."""
    with Proxy(database_url) as proxy:
        service = home.serve(METERING_DATABASE_URL=proxy.url, **BUSY)
        with load.upon(service):
            load.await_acknowledged(5)
            proxy.stall()
            load.await_answers(503, 2 * LOADERS)
            proxy.pass_all()
            load.await_acknowledged(20)
        assert {200, 503} == load.answers.keys()
        assert load.slowest_seconds < ANSWER_SECONDS_MAX
        check_to_the_end(load, service, database_url)


# ---------------------------------------------------------------- the disk


def test_tables_may_find_the_disk_full(
    servers: dict[str, Server], engine: str, tmp_path: Path, home: Home, load: Load
) -> None:
    """While the disk of the tables is full writes are answered 503 and questions exactly; when it has room, both go on."""
    with small_disk(mebibytes=300) as disk, server_like(servers[engine], tmp_path / "server") as server:
        execute(server, f"CREATE TABLESPACE small LOCATION '{disk.folder('tables')}'")
        execute(server, "CREATE DATABASE crowded TEMPLATE template0 TABLESPACE small")
        url = server.url("crowded")
        service = home.serve(METERING_DATABASE_URL=url, **BUSY)
        with load.upon(service):
            load.await_acknowledged(5)
            disk.fill(but_mebibytes=8)
            load.await_answers(503, 40)
        load.check_acknowledged(service, url)
        with load.upon(service):
            load.await_answers(503, 5)
            disk.make_room()
            load.await_acknowledged(20)
        assert FULL in log_of(tmp_path)
        assert {200, 503} == load.answers.keys()
        check_to_the_end(load, service, url)


def test_the_write_ahead_log_may_find_the_disk_full(
    servers: dict[str, Server], engine: str, tmp_path: Path, home: Home, load: Load
) -> None:
    """PostgreSQL stops where it cannot write its log: 503 until it is started with room again; then the service goes on."""
    with small_disk(mebibytes=200) as disk, server_like(servers[engine], tmp_path / "server") as server:
        server.stop()
        log = tmp_path / "server" / "postgres" / "data" / "pg_wal"
        shutil.copytree(log, disk.folder("log"), dirs_exist_ok=True)
        shutil.rmtree(log)
        log.symlink_to(disk.path / "log")
        server.start()
        service = home.serve(METERING_DATABASE_URL=server.url(), **BUSY)
        with load.upon(service):
            load.await_acknowledged(5)
            disk.fill(but_mebibytes=20)
            until(lambda: server.pid is None or load.faults, 60)
            load.await_answers(503, 20)
            disk.make_room()
            restart(server)
            load.await_acknowledged(20)
        assert re.search(rf"PANIC: .*{FULL}", log_of(tmp_path))
        assert {200, 503} == load.answers.keys()
        check_to_the_end(load, service, server.url())


def execute(server: EmbeddedServer, statement: str) -> None:
    """Run a statement as the operator of this server."""

    async def run() -> None:
        connection = await asyncpg.connect(server.url("postgres"))
        try:
            await connection.execute(statement)
        finally:
            await connection.close()

    asyncio.run(run())


def log_of(directory: Path) -> str:
    """What this test's own server has logged."""
    return (directory / "server" / "postgres" / "log").read_text()


# ---------------------------------------------------------------- the operator


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_stop_under_load_answers_what_was_taken(
    engine: str, database_url: str, home: Home, load: Load, workers: str
) -> None:
    """SIGTERM under a load: what is recorded was answered, also where a client never ends; exit code 0, within 10 seconds."""
    # The embedded engine as it is shipped, which stops with the service; and TimescaleDB.
    is_embedded = engine == "postgres"
    variables = BUSY if is_embedded else {**BUSY, "METERING_DATABASE_URL": database_url}
    service = home.serve("--workers", workers, **variables)
    with load.upon(service, MANY_LOADERS), endless_request(service):
        load.await_acknowledged(20)
        service.stop()

    service = home.serve("--workers", workers, **variables)
    url = EmbeddedServer(home.data_dir).url() if is_embedded else database_url
    assert load.acknowledged == settled(url).keys()
    check_to_the_end(load, service, url)


def test_a_stop_is_in_time_where_the_database_is_silent(database_url: str, home: Home, load: Load) -> None:
    """SIGTERM while PostgreSQL says nothing, with requests and background work under way: exit code 0, within 10 seconds."""
    with Proxy(database_url) as proxy:
        service = home.serve(METERING_DATABASE_URL=proxy.url, **BUSY)
        with load.upon(service):
            load.await_acknowledged(5)
            proxy.stall()
            # Every client waits for an answer.
            until(lambda: len(load.sent) // BATCH_EVENTS - load.answers[200] == LOADERS, 30)
            service.stop()
    assert set() == load.acknowledged - settled(database_url).keys()


@contextmanager
def endless_request(service: Service) -> Iterator[None]:
    """A request that has begun, and goes no further."""
    where = urlsplit(service.address)
    with socket.create_connection((where.hostname, where.port)) as client:
        client.sendall(
            f"POST /v1/events HTTP/1.1\r\nHost: {where.netloc}\r\nAuthorization: Bearer {ADMIN_KEY}\r\n"
            "Content-Type: application/json\r\nContent-Length: 1000\r\n\r\n[".encode()
        )
        yield
