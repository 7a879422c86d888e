"""Live questions: `usageTotals` as a stream of events and over a WebSocket, its bounds, and how it ends."""

import asyncio
import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import count
from typing import Any, Final

import httpx2
import pytest
from starlette.testclient import WebSocketTestSession
from starlette.websockets import WebSocketDisconnect

from graphql_api.cost import BURST_SECONDS, Budget, Cost
from graphql_api.live import Live
from graphql_api.live_usage import until_due
from metering.config import Settings
from metering.keys import KeyRing, Scope
from metering.limits import LIMITS, Limits
from metering.store.pool import Database
from tests.conftest import ADMIN_KEY, ENGINES, Api, Server, bearer, make_key, running, usage_event
from tests.graphql_api.serving import serving

PERIOD: Final = 'period: { from: "2026-03-01T00:00:00Z", to: "2026-04-01T00:00:00Z" }'
TOTALS: Final = (
    f"subscription {{ usageTotals(query: {{ {PERIOD} }}, everySeconds: 1) "
    "{ unit quantity distinct(dimension: USER) } }"
)
PROTOCOL: Final = "graphql-transport-ws"
# Reading a key again may take as long as the ring remembers it.
WAIT_SECONDS: Final = 30.0


@pytest.fixture(scope="module")
def url(servers: dict[str, Server]) -> Iterator[str]:
    """A database for tests that leave nothing behind."""
    with servers[ENGINES[0]].cloned() as address:
        yield address


@pytest.fixture(scope="module")
def web(url: str) -> Iterator[Api]:
    """The service, for tests that leave nothing behind."""
    with running(url) as api:
        yield api


def totals(quantity: str, users: int) -> dict[str, Any]:
    """What usageTotals shows of one unit."""
    return {"usageTotals": [{"unit": "call", "quantity": quantity, "distinct": users}]}


# ---------------------------------------------------------------- a stream of events


class Stream:
    """The events of one response, read as they come."""

    def __init__(self, response: httpx2.Response) -> None:
        self.response = response
        self._lines = response.iter_lines()

    def event(self) -> tuple[str, Any]:
        """The next event's name and data; comments are passed over."""
        name, data = "", ""
        for line in self._lines:
            if not line and name:
                return name, json.loads(data) if data else None
            field, _, value = line.partition(": ")
            name, data = (value if field == "event" else name), (value if field == "data" else data)
        return "end", None


@contextmanager
def stream(address: str, query: str, key: str | None = ADMIN_KEY, **variables: Any) -> Iterator[Stream]:
    """Ask for a stream."""
    headers = {"Accept": "text/event-stream", **({} if key is None else bearer(key))}
    body = {"query": query, "variables": variables}
    with (
        httpx2.Client(timeout=WAIT_SECONDS, trust_env=False) as client,
        client.stream("POST", f"http://{address}/graphql", json=body, headers=headers) as response,
    ):
        yield Stream(response)


def send(address: str, *events: dict[str, Any]) -> None:
    """Record events."""
    response = httpx2.post(
        f"http://{address}/v1/events",
        json=list(events),
        headers=bearer(ADMIN_KEY),
        timeout=WAIT_SECONDS,
        trust_env=False,
    )
    assert len(events) == response.json()["accepted"]


def test_totals_come_again_when_they_have_changed(database_url: str) -> None:
    """At once, and again after every change: what is counted and what is distinct; what has not changed is not sent."""
    with serving(database_url) as address, stream(address, TOTALS) as live:
        assert 200 == live.response.status_code
        assert live.response.headers["content-type"].startswith("text/event-stream")
        name, first = live.event()
        assert ("next", {"usageTotals": []}) == (name, first["data"])
        assert 1 == first["extensions"]["cost"]["actualQueryCost"]
        send(address, usage_event(1, user="ada"), usage_event(2, user="bob"))
        assert totals("2", 2) == live.event()[1]["data"]
        send(address, usage_event(3, user="ada", quantity="0.5"))
        assert totals("2.5", 2) == live.event()[1]["data"]


@pytest.mark.parametrize(
    ("query", "data"),
    [("{ service { engine } }", {"service": {"engine": ENGINES[0]}}), ("{ nonsense }", None), ("{", None)],
)
def test_a_query_as_a_stream_is_one_event(web: Api, query: str, data: Any) -> None:
    """A query is answered by one `next`, also one that is not valid, and by `complete`; from an address too."""
    headers = {"Accept": "text/event-stream", **bearer(ADMIN_KEY)}
    for response in (
        web.client.post("/graphql", json={"query": query}, headers=headers),
        web.client.get("/graphql", params={"query": query}, headers=headers),
    ):
        assert (200, "text/event-stream; charset=utf-8") == (response.status_code, response.headers["content-type"])
        following = Stream(response)
        name, body = following.event()
        assert ("next", data) == (name, body.get("data"))
        assert (data is None) == ("errors" in body)
        assert ("complete", None) == following.event()
        assert "end" == following.event()[0]


@pytest.mark.parametrize(
    ("query", "key", "code"),
    [
        (TOTALS, None, "UNAUTHENTICATED"),
        (TOTALS.replace("everySeconds: 1", "everySeconds: 0"), ADMIN_KEY, "INVALID_INPUT"),
        (TOTALS.replace("everySeconds: 1", "everySeconds: 3601"), ADMIN_KEY, "INVALID_INPUT"),
        (TOTALS.replace("2026-04", "2025-04"), ADMIN_KEY, "INVALID_INPUT"),
    ],
)
def test_a_live_question_that_may_not_be_asked_is_refused(web: Api, query: str, key: str | None, code: str) -> None:
    """Without a key, with a rate or a period that there is none of: one `next` with the error, and `complete`."""
    headers = {"Accept": "text/event-stream", **({} if key is None else bearer(key))}
    following = Stream(web.client.post("/graphql", json={"query": query}, headers=headers))
    name, body = following.event()

    assert ("next", [code]) == (name, [error["extensions"]["code"] for error in body["errors"]])
    assert ("complete", None) == following.event()


def test_a_live_question_ends_with_its_key(database_url: str) -> None:
    """A key that is revoked while a question is open: the question ends, and says why."""

    async def revoke(prefix: str) -> None:
        database = await Database.connect(Settings(database_url=database_url), LIMITS)
        try:
            await KeyRing(database).revoke(prefix)
        finally:
            await database.close()

    key, secret = make_key(database_url, Scope.USAGE_READ)
    with serving(database_url) as address, stream(address, TOTALS, secret) as live:
        assert {"usageTotals": []} == live.event()[1]["data"]
        asyncio.run(revoke(key.prefix))
        name, body = live.event()
        assert ("next", ["UNAUTHENTICATED"]) == (name, [error["extensions"]["code"] for error in body["errors"]])
        assert ("complete", None) == live.event()


def test_so_many_live_questions_are_open(database_url: str) -> None:
    """One more than a key may have, than everybody may, or than there are connections, is LIVE_FULL; an end makes room."""
    _, other = make_key(database_url, Scope.USAGE_READ)
    _, third = make_key(database_url, Scope.USAGE_READ)
    limits = Limits(live_questions_per_key_max=1, live_questions_max=2, live_connections_max=3)
    with serving(database_url, limits) as address, ExitStack() as stack:
        # Held: a stream that nobody reads any more is closed.
        streams = [stack.enter_context(stream(address, TOTALS, key)) for key in (ADMIN_KEY, other)]
        for each in streams:
            assert "data" in each.event()[1]
        for key, said in ((other, "This key has 1"), (third, "2 live questions are open")):
            with stream(address, TOTALS, key) as refused:
                (error,) = refused.event()[1]["errors"]
                assert "LIVE_FULL" == error["extensions"]["code"]
                assert said in error["message"]
        stack.close()
        with stream(address, TOTALS, third) as again:
            assert "data" in again.event()[1]

    with serving(database_url, Limits(live_connections_max=1)) as address, stream(address, TOTALS) as live:
        live.event()
        with stream(address, "{ service { engine } }") as refused:
            assert 503 == refused.response.status_code
            assert "LIVE_FULL" in refused.response.read().decode()


def test_a_live_question_waits_for_its_budget() -> None:
    """Each reading is paid for: what the budget does not hold is waited for, and whoever stops meanwhile stops."""

    async def run() -> None:
        seconds = count()
        budget = Budget(1, lambda: float(next(seconds)))  # a second goes by each time that it is looked at
        cost, live = Cost(budget), Live(LIMITS)
        budget.spend(BURST_SECONDS + 2)
        assert await until_due(live, cost, 0)
        assert 1 == cost.requested
        assert budget.available() <= 1
        live.stopping.set()
        assert not await until_due(live, cost, 3_600)
        assert 1 == cost.requested

    asyncio.run(run())


def test_a_silent_stream_is_kept_open(database_url: str) -> None:
    """Where nothing changes a comment is sent now and then, which clients pass over."""
    with serving(database_url, Limits(live_silence_seconds_max=1)) as address, stream(address, TOTALS) as live:
        lines = live.response.iter_lines()
        assert ":" in [next(lines) for _ in range(5)]


# ---------------------------------------------------------------- a WebSocket


@contextmanager
def socket(api: Api, protocol: str | None = PROTOCOL, *, key: str | None = ADMIN_KEY) -> Iterator[WebSocketTestSession]:
    """A connection that has begun, unless it speaks something else."""
    with api.client.websocket_connect("/graphql", subprotocols=None if protocol is None else [protocol]) as session:
        if protocol == PROTOCOL:
            session.send_json({"type": "connection_init", "payload": {} if key is None else bearer(key)})
            assert {"type": "connection_ack"} == session.receive_json()
        yield session


def ask(session: WebSocketTestSession, query: str, operation_id: str = "1") -> None:
    """Begin an operation."""
    session.send_json({"id": operation_id, "type": "subscribe", "payload": {"query": query}})


def closed(session: WebSocketTestSession) -> int:
    """The code that the connection is closed with."""
    with pytest.raises(WebSocketDisconnect) as end:
        session.receive_json()
    return end.value.code


def test_totals_come_over_a_websocket(api: Api) -> None:
    """At once, and again when they have changed; when the client ends the operation, it may use its id again."""
    with socket(api) as session:
        ask(session, TOTALS)
        first = session.receive_json()
        assert ("1", "next", {"usageTotals": []}) == (first["id"], first["type"], first["payload"]["data"])
        api.send([usage_event(1, user="ada")])
        assert totals("1", 1) == session.receive_json()["payload"]["data"]
        session.send_json({"id": "1", "type": "complete"})
        ask(session, TOTALS)
        assert totals("1", 1) == session.receive_json()["payload"]["data"]


def test_queries_and_mutations_are_taken_too(api: Api, engine: str) -> None:
    """`next` and `complete` for what was executed, `error` for what was not; several at a time, each by its id."""
    with socket(api) as session:
        ask(session, "{ service { engine } }", "a")
        answered = [session.receive_json(), session.receive_json()]
        ask(session, "{ nonsense }", "b")
        refused = session.receive_json()
        ask(session, 'mutation { putAccount(input: { key: "acme", name: "Acme" }) { __typename } }', "a")
        changed = [session.receive_json(), session.receive_json()]

    assert [("a", "next"), ("a", "complete")] == [(each["id"], each["type"]) for each in answered]
    assert {"service": {"engine": engine}} == answered[0]["payload"]["data"]
    assert ("b", "error", "GRAPHQL_INVALID") == (
        refused["id"],
        refused["type"],
        refused["payload"][0]["extensions"]["code"],
    )
    assert ({"putAccount": {"__typename": "Account"}}, "complete") == (
        changed[0]["payload"]["data"],
        changed[1]["type"],
    )


def test_pings_are_answered(web: Api) -> None:
    """Before a connection has begun and after, with what they carry."""
    with web.client.websocket_connect("/graphql", subprotocols=[PROTOCOL]) as session:
        session.send_json({"type": "ping"})
        assert {"type": "pong", "payload": None} == session.receive_json()
        session.send_json({"type": "connection_init"})
        assert {"type": "connection_ack"} == session.receive_json()
        session.send_json({"type": "ping", "payload": {"a": 1}})
        assert {"type": "pong", "payload": {"a": 1}} == session.receive_json()


@pytest.mark.parametrize(
    ("messages", "code"),
    [
        ([{"type": "subscribe", "id": "1", "payload": {"query": TOTALS}}], 4401),
        ([{"type": "connection_init", "payload": {"Authorization": "Bearer wrong"}}], 4403),
        ([{"type": "connection_init", "payload": {"Authorization": 5}}], 4403),
        ([{"type": "connection_init"}, {"type": "connection_init"}], 4429),
        ([{"type": "nonsense"}], 4400),
        ([{}], 4400),
        ([[]], 4400),
        ([{"type": "connection_init"}, {"type": "subscribe", "payload": {"query": TOTALS}}], 4400),
        ([{"type": "connection_init"}, {"type": "subscribe", "id": "1"}], 4400),
        ([{"type": "connection_init"}, {"type": "subscribe", "id": "1", "payload": {"query": 5}}], 4400),
        ([{"type": "connection_init"}, {"type": "complete"}], 4400),
    ],
)
def test_who_breaks_the_protocol_is_told_how(web: Api, messages: list[Any], code: int) -> None:
    """The connection is closed with the protocol's code for what was done."""
    with web.client.websocket_connect("/graphql", subprotocols=[PROTOCOL]) as session:
        for message in messages[:-1]:
            session.send_json(message)
            session.receive_json()
        session.send_json(messages[-1])
        assert code == closed(session)


def test_an_id_is_used_once_at_a_time(web: Api) -> None:
    """A second operation under an id that is in use closes the connection."""
    with socket(web) as session:
        ask(session, TOTALS)
        session.receive_json()
        ask(session, TOTALS)
        assert 4409 == closed(session)


def test_another_protocol_is_not_spoken(web: Api) -> None:
    """Without our subprotocol, or with an older one, the connection is closed with the protocol's code for that."""
    for protocol in (None, "graphql-ws"):
        with socket(web, protocol) as session:
            assert 4406 == closed(session)


def test_bytes_and_long_messages_are_not_taken(url: str) -> None:
    """A message is text, and no longer than a body may be."""
    with running(url, Limits(graphql_body_bytes_max=1_000)) as api:
        with socket(api) as session:
            session.send_bytes(b"{}")
            assert 4400 == closed(session)
        with socket(api) as session:
            ask(session, "{ service { engine } } # " + "x" * 1_000)
            assert 4400 == closed(session)


def test_a_connection_has_its_time_to_begin(url: str) -> None:
    """Who says nothing is closed."""
    with (
        running(url, Limits(live_begin_seconds_max=1)) as api,
        api.client.websocket_connect("/graphql", subprotocols=[PROTOCOL]) as session,
    ):
        assert 4408 == closed(session)


def test_so_many_connections_and_operations_are_open(url: str) -> None:
    """One connection more than may be is closed with `try again later`, and so is one that asks too much at a time."""
    with running(url, Limits(live_connections_max=1, live_questions_per_key_max=2)) as api:
        with socket(api) as session:
            with api.client.websocket_connect("/graphql", subprotocols=[PROTOCOL]) as other:
                assert 1013 == closed(other)
            for name in ("a", "b"):
                ask(session, TOTALS, name)
                assert "next" == session.receive_json()["type"]
            ask(session, TOTALS, "c")
            assert 1013 == closed(session)
        with socket(api) as session:
            ask(session, "{ service { engine } }")
            assert "next" == session.receive_json()["type"]


def test_an_operation_is_held_to_its_key(web: Api) -> None:
    """Without a key only what needs none is answered."""
    with socket(web, key=None) as session:
        ask(session, TOTALS, "a")
        refused = session.receive_json()
        assert ("error", "UNAUTHENTICATED") == (refused["type"], refused["payload"][0]["extensions"]["code"])
        ask(session, "{ service { engine } }", "b")
        assert {"service": {"engine": ENGINES[0]}} == session.receive_json()["payload"]["data"]
