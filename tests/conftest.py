"""Real databases for the tests: a server for each engine at hand, a migrated template, a clone of it for each test."""

import asyncio
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from starlette.testclient import TestClient

from graphql_api.app import create_app
from metering.config import Settings
from metering.keys import ApiKey, KeyLimits, KeyRing, Scope
from metering.limits import LIMITS, Limits
from metering.store import migrate
from metering.store.embedded import EmbeddedServer
from metering.store.pool import Database
from tests.memory_folder import memory_folder

TIMESCALEDB_BIN = os.environ.get("METERING_TEST_TIMESCALEDB_BIN")
ENGINES = ("postgres", "timescaledb") if TIMESCALEDB_BIN else ("postgres",)
ADMIN_KEY = "test-admin-key-of-32-characters!"
QUICK_SETTINGS = {
    # Tests do not outlive a crash of the machine, so nothing waits for its disk; durability has tests of its own.
    "fsync": "off",
    # Every clone of the template is written to the log, and every drop of one looks through all buffers.
    "max_wal_size": "256MB",
    "shared_buffers": "512MB",
}

_numbers = count(1)


def pytest_configure() -> None:
    """Let pytest keep its temporary folders in memory, unless it was told another place."""
    folder = memory_folder()
    if folder is not None:
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(folder))


def pytest_report_header() -> str:
    """Say in one line which engines are tested, and what was left out."""
    if TIMESCALEDB_BIN:
        return "engines: postgres, timescaledb"
    return "engines: postgres (timescaledb left out: METERING_TEST_TIMESCALEDB_BIN is not set)"


class Server:
    """A running server of one engine, with a migrated template database."""

    def __init__(self, engine: str, server: EmbeddedServer) -> None:
        self.engine = engine
        self.server = server
        self._runner = asyncio.Runner()
        # Databases are made and dropped over one connection: a new one each time would take as long as they do.
        self._operator: asyncpg.Connection | None = None
        migrate.upgrade(server.url())

    def stop(self) -> None:
        """End the connection and the server."""
        if self._operator is not None:
            self._runner.run(self._operator.close())
        self._runner.close()
        self.server.stop()

    def clone(self) -> str:
        """The address of a fresh copy of the template."""
        name = f"test_{next(_numbers)}"
        self.execute(f"CREATE DATABASE {name} TEMPLATE metering")
        return self.server.url(name)

    @contextmanager
    def cloned(self) -> Iterator[str]:
        """The address of a fresh copy of the template, which goes when the block ends."""
        url = self.clone()
        try:
            yield url
        finally:
            self.drop(url)

    def empty(self) -> str:
        """The address of a database in which nothing was ever made."""
        name = f"test_{next(_numbers)}"
        self.execute(f"CREATE DATABASE {name} TEMPLATE template0")
        return self.server.url(name)

    def drop(self, url: str) -> None:
        """Remove a clone, whoever is connected."""
        name = url.partition("@/")[2].partition("?")[0]
        self.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")

    def execute(self, statement: str) -> None:
        """Run a statement outside of any test's database."""
        self._runner.run(self._execute(statement))

    async def _execute(self, statement: str) -> None:
        if self._operator is None:
            self._operator = await asyncpg.connect(self.server.url("postgres"))
        await self._operator.execute(statement)


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Server]]:
    """One server for each engine at hand."""
    started: dict[str, Server] = {}
    try:
        for engine in ENGINES:
            bin_dir = Path(TIMESCALEDB_BIN) if engine == "timescaledb" and TIMESCALEDB_BIN else None
            settings = {**QUICK_SETTINGS, "max_connections": "200"}
            if engine == "timescaledb":
                # No background workers: they would hold the template, and what they do the tests call themselves.
                settings |= {
                    "shared_preload_libraries": "timescaledb",
                    "timescaledb.telemetry_level": "off",
                    "timescaledb.max_background_workers": "0",
                }
            server = EmbeddedServer(tmp_path_factory.mktemp(engine), bin_dir, settings)
            server.start()
            started[engine] = Server(engine, server)
        yield started
    finally:
        for each in started.values():
            each.stop()


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest) -> str:
    """Each engine at hand in turn."""
    name: str = request.param
    return name


@pytest.fixture
def database_url(servers: dict[str, Server], engine: str) -> Iterator[str]:
    """A migrated database of this test's own."""
    with servers[engine].cloned() as url:
        yield url


@pytest.fixture
def empty_database_url(servers: dict[str, Server], engine: str) -> Iterator[str]:
    """A database of this test's own in which nothing was ever made."""
    url = servers[engine].empty()
    yield url
    servers[engine].drop(url)


class Api:
    """The service as a client sees it, in this process."""

    def __init__(self, client: TestClient) -> None:
        self.client = client

    def send(self, events: object, *, key: str = ADMIN_KEY, params: dict[str, str] | None = None) -> Any:
        """POST events as JSON and return the receipt."""
        response = self.client.post("/v1/events", json=events, headers=bearer(key), params=params)
        assert response.status_code in {200, 422}, response.text
        return response.json()

    def ask(self, query: str, variables: dict[str, Any] | None = None, *, key: str | None = ADMIN_KEY) -> Any:
        """POST a GraphQL document and return its data; errors fail the test."""
        answer = self.answer(query, variables, key=key)
        assert "errors" not in answer, answer["errors"]
        return answer["data"]

    def answer(self, query: str, variables: dict[str, Any] | None = None, *, key: str | None = ADMIN_KEY) -> Any:
        """POST a GraphQL document and return the whole answer."""
        headers = {} if key is None else bearer(key)
        response = self.client.post("/graphql", json={"query": query, "variables": variables}, headers=headers)
        return response.json()


def make_key(database_url: str, *scopes: Scope, default_source: str | None = None, **limits: int) -> tuple[ApiKey, str]:
    """A new key on this database, for usage to be written with unless told otherwise; and its secret."""

    async def make() -> tuple[ApiKey, str]:
        database = await Database.connect(Settings(database_url=database_url), LIMITS)
        try:
            return await KeyRing(database).create(
                "a test", scopes or [Scope.USAGE_WRITE], default_source=default_source, limits=KeyLimits(**limits)
            )
        finally:
            await database.close()

    return asyncio.run(make())


def bearer(key: str) -> dict[str, str]:
    """The header that carries a key."""
    return {"Authorization": f"Bearer {key}"}


@contextmanager
def running(database_url: str, limits: Limits = LIMITS, **settings: Any) -> Iterator[Api]:
    """The service on this database; its background work looks once at the start and then rests, unless told otherwise."""
    chosen = {
        "refresh_seconds": 3_600.0,
        "notify_seconds": 3_600.0,
        "log_level": "error",
        "bootstrap_key": ADMIN_KEY,
        **settings,
    }
    app = create_app(Settings(database_url=database_url, **chosen), limits)
    with TestClient(app, raise_server_exceptions=False) as client:
        yield Api(client)


@pytest.fixture
def api(database_url: str) -> Iterator[Api]:
    """The service on a database of this test's own."""
    with running(database_url) as started:
        yield started


@pytest.fixture
def run_cli(tmp_path: Path) -> Callable[..., "subprocess.CompletedProcess[str]"]:
    """Run the command line with a clean environment; METERING_* variables are arguments."""

    def run(*arguments: str, timeout: float = 60, **variables: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [metering_program(), *arguments],
            env=clean_environment(**variables),
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    return run


def metering_program() -> str:
    """The installed command line."""
    import sys

    return str(Path(sys.executable).parent / "metering")


def clean_environment(**variables: str) -> dict[str, str]:
    """This environment without our settings, and with these."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("METERING_")}
    return {**inherited, **variables}


async def lock_waiters(database_url: str, count: int) -> None:
    """Wait until so many sessions of this database wait for a lock; after half a minute the test has failed."""
    # Clients: autovacuum waits for locks too, of its own accord.
    statement = (
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() "
        "AND backend_type = 'client backend' AND wait_event_type = 'Lock'"
    )
    connection = await asyncpg.connect(database_url)
    try:
        async with asyncio.timeout(30):
            while await connection.fetchval(statement) < count:  # noqa: ASYNC110 - other processes end it
                await asyncio.sleep(0.01)
    finally:
        await connection.close()


def usage_event(number: int = 1, **fields: Any) -> dict[str, Any]:
    """An event of the contract, with these fields instead of the usual ones."""
    event = {
        "id": f"event-{number}",
        "source": "test",
        "occurred_at": "2026-03-01T12:00:00Z",
        "account": "acme",
        "product": "maps",
        "unit": "call",
        "quantity": "1",
        **fields,
    }
    return {name: value for name, value in event.items() if value is not None}
