"""Traces, as a collector takes them: what a request consisted of, below the caller's span, and nothing that is secret."""

import asyncio
import json
import socket
import subprocess
import sys
from io import StringIO
from typing import Any, Final

import asyncpg
import msgspec
import pytest
import structlog
from structlog.testing import capture_logs

from graphql_api.app import create_app
from metering.config import Settings
from metering.limits import LIMITS
from metering.store.queries import all_statements
from tests.collecting import Collected, Collector, collecting
from tests.conftest import ENGINES, Api, Server, bearer, running

# In whatever no span may hold there is this, so one search finds it.
MARK: Final = "hushhush"
KEY: Final = f"an-admin-key-{MARK}-of-characters"
CALLER: Final = "b7ad6b7169203331"
EVENT: Final = {
    "id": f"1-{MARK}", "source": f"gateway-{MARK}", "account": f"acme-{MARK}", "user": f"ana-{MARK}", "unit": "call",
    "product": f"maps-{MARK}", "quantity": "1", "occurred_at": "2026-09-02T10:00:00Z", "attributes": {"note": MARK},
}  # fmt: skip
EVENTS: Final = [
    EVENT,
    EVENT,
    {**EVENT, "id": ""},
    {**EVENT, "id": "2", "unit": ""},
    {**EVENT, "id": "3", "quantity": MARK},
]
BROKEN: Final = {**EVENT, "id": "9", "account": f"broken-{MARK}"}
PERIOD: Final = 'period: {from: "2026-09-01T00:00:00Z", to: "2026-10-01T00:00:00Z"}'
MONTHLY: Final = (
    "query Monthly($key: String!) { account(key: $key) { key } usage(query: {"
    + PERIOD
    + "}) { ... on UsageReport { groups { nodes { series(bucket: DAY) { unit } } } } } }"
)
KEYS: Final = "query Keys { apiKeys { nodes { prefix } } }"
LIVE: Final = "subscription Live { usageTotals(query: {" + PERIOD + "}, everySeconds: 3600) { unit } }"
# Of this account no event is written, and the database says so in its own words.
REFUSING: Final = f"""
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'nothing of %', NEW.account; END $$;
CREATE TRIGGER refuse BEFORE INSERT ON event_identity FOR EACH ROW WHEN (NEW.account = 'broken-{MARK}')
EXECUTE FUNCTION refuse();
"""
_SERVER: Final = 2
_INTERNAL: Final = 1

ASKED: Final = ("events", "question", "refused", "invalid", "unsampled", "broken", "socket", "unreadable", "endless")
TRACES: Final = {name: f"{number:032x}" for number, name in enumerate(ASKED, start=0xABC)}


def below(name: str, flags: str = "01") -> dict[str, str]:
    """The headers of who asks this, below a span of its own."""
    return {"traceparent": f"00-{TRACES[name]}-{CALLER}-{flags}"}


class Told:
    """What a service was asked, and what it told of that."""

    def __init__(self, collector: Collector, lines: list[dict[str, Any]]) -> None:
        self.collector = collector
        self.lines = lines

    def one(self, name: str, asked: str) -> Collected:
        """The only span of this name, of what was asked there."""
        return self.collector.one(name, TRACES[asked])


@pytest.fixture(scope="module")
def told(servers: dict[str, Server]) -> Told:
    """A service that was asked one thing of each kind, and has ended."""
    before = structlog.get_config()
    with collecting() as collector, servers[ENGINES[0]].cloned() as url:
        asyncio.run(_execute(url, REFUSING))
        with (
            running(url, traces_url=collector.url, log_level="info", bootstrap_key=KEY) as api,
            capture_logs() as lines,
        ):
            _ask(api)
    structlog.configure(**before)
    return Told(collector, [dict(line) for line in lines])


async def _execute(url: str, statement: str) -> None:
    connection = await asyncpg.connect(url)
    await connection.execute(statement)
    await connection.close()


def _ask(api: Api) -> None:
    def question(name: str, query: str, variables: dict[str, str] | None = None, flags: str = "01") -> int:
        body = {"query": query, "variables": variables}
        status: int = api.client.post("/graphql", json=body, headers=bearer(KEY) | below(name, flags)).status_code
        return status

    sent = api.client.post("/v1/events", json=EVENTS, headers=bearer(KEY) | below("events"))
    assert (1, 1) == tuple(sent.json()[name] for name in ("accepted", "duplicates"))
    assert 200 == question("question", MONTHLY, {"key": f"acme-{MARK}"})
    api.client.post("/graphql", json={"query": KEYS}, headers=below("refused"))
    question("invalid", f"{{ nothing{MARK} }}")
    assert 200 == question("unsampled", KEYS, flags="00")
    assert api.client.post("/v1/events", json=[BROKEN], headers=bearer(KEY) | below("broken")).status_code >= 500
    for traceparent in (f"00-{TRACES['unreadable']}", f"01-{TRACES['endless']}-{CALLER}-01-" + "x" * 10_000):
        api.client.post("/graphql", json={"query": KEYS}, headers=bearer(KEY) | {"traceparent": traceparent})
    api.client.get("/readyz")
    protocols = ["graphql-transport-ws"]
    with api.client.websocket_connect("/graphql", subprotocols=protocols, headers=below("socket")) as session:
        session.send_json({"type": "connection_init", "payload": bearer(KEY)})
        session.receive_json()
        session.send_json({"id": "1", "type": "subscribe", "payload": {"query": KEYS}})
        assert ["next", "complete"] == [session.receive_json()["type"] for _ in range(2)]
        session.send_json({"id": "2", "type": "subscribe", "payload": {"query": LIVE}})
        assert "next" == session.receive_json()["type"]


def test_a_request_of_events_says_what_became_of_them(told: Told) -> None:
    """Below the caller's span: how many events, and what the receipt said of them, those refused by their codes."""
    request = told.one("POST /v1/events", "events")

    assert (CALLER, _SERVER, False) == (request.parent_id, request.kind, request.failed)
    assert {
        "http.request.method": "POST",
        "http.route": "/v1/events",
        "http.response.status_code": 200,
        "metering.bytes": len(json.dumps(EVENTS, separators=(",", ":"))),
        "metering.events": 5,
        "metering.accepted": 1,
        "metering.duplicates": 1,
        "metering.rejected": 3,
        "metering.rejected.text_invalid": 2,
        "metering.rejected.quantity_not_a_number": 1,
    } == {name: value for name, value in request.attributes.items() if name != "metering.statements"}


def test_the_commit_of_events_is_a_part_of_their_request(told: Told) -> None:
    """The request waits for its batch; that one's statements, down to the COMMIT, are parts of it, with their rows."""
    waiting = told.one("write events", "events")
    batch = told.one("write batch", "events")
    statements = {each.name: each for each in told.collector.below(batch)}

    assert waiting.is_below(told.one("POST /v1/events", "events"))
    assert 5 == waiting.attributes["metering.events"]
    assert batch.is_below(waiting)
    assert {"BEGIN", "events.enter_writers", "COPY event_identity", "COPY event", "COMMIT"} <= statements.keys()
    assert {"db.system.name": "postgresql", "metering.rows": 1} == statements["COPY event"].attributes


def test_an_operation_is_a_span_with_its_statements_below(told: Told) -> None:
    """An operation over GraphQL says its name and its fields at the root; each of its statements is below it by its name."""
    request, operation = told.one("POST /graphql", "question"), told.one("query Monthly", "question")
    statements = told.collector.below(operation)
    static = {each.name for each in statements} & set(all_statements())
    built = [each for each in statements if " usage_" in each.name or " event" in each.name]

    assert (CALLER, _SERVER, 200) == (request.parent_id, request.kind, request.attributes["http.response.status_code"])
    assert operation.is_below(request)
    assert {
        "graphql.operation.type": "query",
        "graphql.operation.name": "Monthly",
        "metering.root_fields": ["account", "usage"],
    } == operation.attributes
    assert "rollups.read_horizon" in static
    assert built
    assert all("metering.rows" in each.attributes for each in built)


def test_what_fails_says_its_code_and_no_more(told: Told) -> None:
    """An operation that is refused has failed with its code, and a document that is none its request; what the database
    refuses has failed by the kind of error, up to the request; no span has an exception's text.
    """
    refused = told.one("query Keys", "refused")
    invalid = told.one("POST /graphql", "invalid")
    broken = told.one("POST /v1/events", "broken")
    copied = [each for each in told.collector.below(broken) if each.name == "COPY event_identity"]

    assert (True, ["UNAUTHENTICATED"]) == (refused.failed, refused.attributes["metering.errors"])
    assert "UNAUTHENTICATED" == refused.attributes["error.type"]
    assert not told.one("POST /graphql", "refused").failed
    assert (True, "GRAPHQL_INVALID") == (invalid.failed, invalid.attributes["error.type"])
    assert broken.failed
    assert broken.attributes["http.response.status_code"] >= 500
    assert {True} == {each.failed for each in copied}
    assert {""} == {each.status_text for each in told.collector.spans}
    assert {0} == {each.events for each in told.collector.spans}


def test_a_caller_decides_for_its_own_trace(told: Told) -> None:
    """Where a caller does not record its trace we do not either; where what it sends cannot be read we begin one. The line of
    each request names its trace.
    """
    traces = [line["trace"] for line in told.lines if line["event"] == "request" and "trace" in line]
    begun = [each for each in told.collector.named("POST /graphql") if each.trace_id not in TRACES.values()]

    assert [] == [each for each in told.collector.spans if each.trace_id == TRACES["unsampled"]]
    assert [TRACES[name] for name in ("events", "question", "refused", "invalid", "unsampled", "broken")] == traces[:6]
    assert traces[6:] == [each.trace_id for each in begun]
    assert ["", ""] == [each.parent_id for each in begun]
    assert [] == [each for each in told.collector.spans if "readyz" in each.name]


def test_over_a_websocket_each_operation_is_a_span(told: Told) -> None:
    """An operation over a WebSocket goes below the span of who opened it, and so does each reading of a live question."""
    operation, reading = told.one("query Keys", "socket"), told.one("live reading", "socket")

    assert (CALLER, _SERVER) == (operation.parent_id, operation.kind)
    assert (CALLER, _INTERNAL) == (reading.parent_id, reading.kind)
    assert "rollups.read_horizon" in {each.name for each in told.collector.below(reading)}


def test_runs_of_loops_are_traces(told: Told) -> None:
    """Each run of a background loop begins a trace, with its statements below; what they do besides is none."""
    (run, *_) = told.collector.named("loop refresh")
    roots = {each.name for each in told.collector.spans if not each.parent_id}

    assert ("", "refresh") == (run.parent_id, run.attributes["metering.loop"])
    assert told.collector.below(run)
    assert {"loop refresh", "POST /graphql"} <= roots
    assert [] == [name for name in roots if not name.startswith(("loop ", "POST /graphql"))]


def test_no_span_holds_a_secret_or_a_name(told: Told) -> None:
    """Keys, variables, values of statements, names of accounts and users, ids of events, and what an error repeats of them are
    in nothing that was sent; statements are told by name, or by their verb and tables.
    """
    sent = b"".join(told.collector.bodies)
    statements = {each.name for each in told.collector.spans if "db.system.name" in each.attributes}

    assert b"COPY event_identity" in sent
    assert MARK.encode() not in sent
    assert b"bootstrap_" not in sent
    assert set() == {
        name
        for name in statements - set(all_statements())
        if not all(word.strip(",").replace("_", "").isalnum() for word in name.split())
    }


def test_a_collector_that_is_away_holds_up_nothing(servers: dict[str, Server], monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody listens, and far more spans are made than may wait: each request is answered, and the end is not held up."""
    before = structlog.get_config()
    limits = msgspec.structs.replace(
        LIMITS, trace_spans_max=8, trace_batch_spans_max=4, trace_export_seconds_max=60, trace_flush_seconds_max=1
    )
    with socket.socket() as closed, servers[ENGINES[0]].cloned() as url:
        closed.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{closed.getsockname()[1]}/v1/traces"
        log = StringIO()
        monkeypatch.setattr(sys, "stderr", log)
        with running(url, limits, traces_url=address, log_level="warning", bootstrap_key=KEY) as api:
            answers = [api.answer(KEYS, key=KEY) for _ in range(40)]
        monkeypatch.undo()
    structlog.configure(**before)

    assert [] == [answer for answer in answers if "errors" in answer]
    assert 1 == log.getvalue().count("spans_given_up")


_OFF: Final = """
import asyncio, sys
from metering.cli import work
from metering.config import Settings
from metering.limits import LIMITS
from metering.traces import open_traces

async def main():
    async with open_traces(Settings(), LIMITS, "off") as traces:
        print(traces, [name for name in sys.modules if name.startswith("opentelemetry")])

asyncio.run(main())
"""


def test_off_nothing_stands_between() -> None:
    """Without an address no part of the application is there for traces, and nothing of OpenTelemetry is imported."""
    before = structlog.get_config()
    parts = [_parts(None), _parts("http://127.0.0.1:4318/v1/traces")]
    structlog.configure(**before)
    ran = subprocess.run([sys.executable, "-c", _OFF], capture_output=True, text=True, timeout=60, check=True)

    assert [
        ["SecurityHeaders", "RequestLog", "_Directly"],
        ["SecurityHeaders", "RequestLog", "Traced", "_Directly"],
    ] == parts
    assert "None []\n" == ran.stdout


def _parts(address: str | None) -> list[str]:
    """What a request passes through, by an application that was made with this address."""
    app: Any = create_app(Settings(database_url="postgresql://nobody", traces_url=address))
    parts = []
    while app is not None:
        parts.append(type(app).__name__)
        app = getattr(app, "_app", None)
    return parts
