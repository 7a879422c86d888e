"""An operation that nobody waits for any more, or not longer, leaves nothing behind: no SQL, no lock, no connection."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

import asyncpg
import msgspec
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from graphql_api.documents import Documents
from graphql_api.editor import Editor
from graphql_api.http import GraphQLEndpoint
from graphql_api.schema import make_schema
from metering.config import Settings
from metering.limits import LIMITS, Limits
from metering.notifier import Notifier
from metering.service import open_service
from metering.worker import Worker
from tests.conftest import ADMIN_KEY, lock_waiters

PERIOD: Final = 'period: { from: "2026-01-01T00:00:00Z", to: "2027-01-01T00:00:00Z" }'
BY_USER: Final = f"query: {{ {PERIOD}, groupBy: [USER] }}"
# Each reads events, once or many times and in one field or several.
QUESTIONS: Final = (
    f"a: usage(query: {{ {PERIOD} }}) {{ ... on UsageReport {{ totals {{ unit distinct(dimension: USER) }} }} }}",
    f"b: usage({BY_USER}) {{ ... on UsageReport {{ groups {{ nodes {{ series(bucket: MONTH) {{ unit }} }} }} }} }}",
    f"c: events(query: {{ {PERIOD} }}) {{ nodes {{ id corrections {{ reason }} }} }}",
    'd: event(account: "a", source: "b", id: "c") { id }',
    f"e: dimensionValues(dimension: USER, query: {{ {PERIOD} }})",
)
LIVE: Final = f"subscription {{ usageTotals(query: {{ {PERIOD} }}) {{ unit distinct(dimension: USER) }} }}"
# What is at work for the service: its sessions that do something, or are in the middle of it.
AT_WORK: Final = (
    "SELECT state, query FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'metering' "
    "AND state <> 'idle'"
)
LONG: Final = 600


@pytest.fixture(autouse=True)
def no_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without background work, which reads events too and would be taken for a question."""
    monkeypatch.setattr(Worker, "start", lambda _worker: None)
    monkeypatch.setattr(Notifier, "start", lambda _notifier: None)


class Asking:
    """One request to the endpoint, and its client, who may go at any time."""

    def __init__(self, query: str, accept: str, method: str = "POST") -> None:
        self._body = msgspec.json.encode({"query": query})
        self.gone = asyncio.Event()
        self._sent = False
        self.received: list[Any] = []
        self.scope = {
            "type": "http",
            "method": method,
            "path": "/graphql",
            "query_string": b"",
            "headers": [
                (b"accept", accept.encode()),
                (b"authorization", f"Bearer {ADMIN_KEY}".encode()),
                (b"content-type", b"application/json"),
            ],
        }

    async def receive(self) -> dict[str, Any]:
        """The body, and then nothing until the client goes."""
        if not self._sent:
            self._sent = True
            return {"type": "http.request", "body": self._body, "more_body": False}
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        """Take what is sent."""
        self.received.append(message)

    @property
    def answer(self) -> Any:
        """What was answered, of JSON."""
        return msgspec.json.decode(b"".join(message.get("body", b"") for message in self.received))


@asynccontextmanager
async def endpoint(url: str, limits: Limits) -> AsyncIterator[GraphQLEndpoint]:
    """The endpoint, over a small pool: a connection that is not given back is missed soon."""
    chosen = Settings(database_url=url, refresh_seconds=3_600.0, bootstrap_key=ADMIN_KEY, pool_connections=4)
    async with open_service(chosen, limits) as service:
        made = GraphQLEndpoint(service, chosen, Editor())
        try:
            yield made
        finally:
            made.live.stopping.set()


@asynccontextmanager
async def locked(url: str, tables: str) -> AsyncIterator[asyncpg.Connection]:
    """Tables that nobody can read meanwhile; what was locked is free afterwards."""
    connection = await asyncpg.connect(url, server_settings={"application_name": "a test"})
    try:
        async with connection.transaction():
            await connection.execute(f"LOCK TABLE {tables} IN ACCESS EXCLUSIVE MODE")
            yield connection
    finally:
        await connection.close()


async def at_work(connection: asyncpg.Connection) -> list[str]:
    """The statements of the service that go on."""
    return [f"{row['state']}: {row['query']}" for row in await connection.fetch(AT_WORK)]


async def settled(made: GraphQLEndpoint) -> None:
    """Ask something small, so that the endpoint is known to be of use."""
    asking = Asking("{ service { checks { name } } }", "application/json")
    await made(asking.scope, asking.receive, asking.send)
    assert asking.answer["data"]["service"]["checks"]


async def waiting(task: "asyncio.Task[None]", url: str) -> None:
    """Wait until a statement waits for a lock, or the request has ended, because it reads nothing of what is locked."""
    seen = asyncio.create_task(lock_waiters(url, 1))
    await asyncio.wait({seen, task}, return_when=asyncio.FIRST_COMPLETED)
    seen.cancel()
    await asyncio.wait({seen})


async def by_leaving(made: GraphQLEndpoint, asking: Asking, url: str) -> None:
    """The client goes while a statement waits."""
    task = asyncio.create_task(made(asking.scope, asking.receive, asking.send))
    await waiting(task, url)
    asking.gone.set()
    await task


async def by_cancelling(made: GraphQLEndpoint, asking: Asking, url: str) -> None:
    """The server ends the request while a statement waits."""
    task = asyncio.create_task(made(asking.scope, asking.receive, asking.send))
    await waiting(task, url)
    task.cancel()
    await asyncio.wait({task})


async def by_time(made: GraphQLEndpoint, asking: Asking, _url: str) -> None:
    """The operation has used up its time."""
    await made(asking.scope, asking.receive, asking.send)
    assert 200 == asking.received[0]["status"]
    if "errors" in asking.answer:
        assert ["TIME_LIMIT"] == [error["extensions"]["code"] for error in asking.answer["errors"]]
        assert asking.answer["data"] is None


async def by_stopping(made: GraphQLEndpoint, asking: Asking, url: str) -> None:
    """The process is to stop while a live question reads: its stream is completed."""
    task = asyncio.create_task(made(asking.scope, asking.receive, asking.send))
    await waiting(task, url)
    made.live.stopping.set()
    await task
    made.live.stopping.clear()
    assert b"event: complete\ndata: \n\n" in [message.get("body") for message in asking.received]


Ending = Callable[[GraphQLEndpoint, Asking, str], Awaitable[None]]


@given(
    query=st.lists(st.sampled_from(QUESTIONS), min_size=1, unique=True).map(lambda asked: f"{{ {' '.join(asked)} }}"),
    ending=st.sampled_from([by_leaving, by_cancelling, by_time]),
    # The first that every operation reads, and what only some do, in the middle.
    tables=st.sampled_from(["rollup_horizon", "event, event_identity"]),
    accept=st.sampled_from(["application/json", "application/graphql-response+json"]),
)
@settings(
    max_examples=12,
    deadline=None,
    # An example takes seconds.
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_nothing_goes_on_after_a_request_has_ended(
    database_url: str, query: str, ending: Ending, tables: str, accept: str
) -> None:
    """Whatever is asked, and however it ends before it is answered: when it has, no statement of it is at work."""
    assert () == Documents(make_schema().core, LIMITS).understand(query).errors
    seconds = 1 if ending is by_time else LONG

    async def run() -> None:
        limits = Limits(graphql_seconds_max=seconds, statement_seconds_max=LONG)
        async with endpoint(database_url, limits) as made:
            async with locked(database_url, tables) as locking:
                for _ in range(3):  # more often than the pool has connections to lose
                    asking = Asking(query, accept)
                    await ending(made, asking, database_url)
                    assert [] == await at_work(locking)
            await settled(made)

    asyncio.run(run())


@pytest.mark.parametrize("ending", [by_leaving, by_cancelling, by_stopping])
def test_nothing_goes_on_after_a_stream_has_ended(database_url: str, ending: Ending) -> None:
    """A live question that reads when its client goes, or the process stops: nothing of it is at work, and its place is free."""

    async def run() -> None:
        async with endpoint(database_url, Limits(statement_seconds_max=LONG, graphql_seconds_max=LONG)) as made:
            async with locked(database_url, "rollup_horizon") as locking:
                for _ in range(6):
                    await ending(made, Asking(LIVE, "text/event-stream"), database_url)
                    assert [] == await at_work(locking)
                    assert (0, 0) == (made.live.questions, made.live.connections)
            await settled(made)

    asyncio.run(run())


def test_an_operation_has_its_time(database_url: str) -> None:
    """All statements together: when the time is over, the answer is TIME_LIMIT with null data, 200 in either media type."""

    async def run() -> None:
        limits = Limits(graphql_seconds_max=1, statement_seconds_max=LONG)
        async with endpoint(database_url, limits) as made, locked(database_url, "rollup_horizon"):
            for accept in ("application/json", "application/graphql-response+json"):
                asking = Asking(f"{{ {QUESTIONS[0]} }}", accept)
                await made(asking.scope, asking.receive, asking.send)
                assert ["TIME_LIMIT"] == [error["extensions"]["code"] for error in asking.answer["errors"]]
                assert (200, None) == (asking.received[0]["status"], asking.answer["data"])

    asyncio.run(run())


def test_who_asked_for_a_change_has_asked_for_it(database_url: str) -> None:
    """A client that goes while its mutation is at work: the mutation is done all the same."""
    mutation = 'mutation { putAccount(input: { key: "acme", name: "Acme" }) { __typename } }'

    async def run() -> Any:
        async with endpoint(database_url, Limits()) as made:
            locking = await asyncpg.connect(database_url)
            try:
                async with locking.transaction():
                    await locking.execute("LOCK TABLE account IN ACCESS EXCLUSIVE MODE")
                    asking = Asking(mutation, "application/json")
                    task = asyncio.create_task(made(asking.scope, asking.receive, asking.send))
                    await lock_waiters(database_url, 1)
                    asking.gone.set()
                    await asyncio.sleep(0)
                    assert not task.done()
                await task
                return await locking.fetchval("SELECT name FROM account WHERE key = 'acme'")
            finally:
                await locking.close()

    assert "Acme" == asyncio.run(run())
