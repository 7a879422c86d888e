"""POST and GET /graphql: what is answered to requests of every kind. Nothing here depends on the engine, so one will do."""

import asyncio
import re
import threading
from collections.abc import Iterator
from typing import Any, Final

import asyncpg
import pytest

from metering.config import Settings
from metering.keys import KeyRing, Scope
from metering.limits import LIMITS, Limits
from metering.store.pool import Database
from tests.conftest import ADMIN_KEY, ENGINES, Api, Server, bearer, running

SERVICE: Final = "{ service { status } }"
PERIOD: Final = 'period: { from: "2026-01-01T00:00:00Z", to: "2027-01-01T00:00:00Z" }'
USAGE: Final = f"{{ usage(query: {{ {PERIOD} }}) {{ ... on UsageReport {{ totals {{ unit }} }} }} }}"
EVENTS: Final = f"{{ events(query: {{ {PERIOD} }}) {{ nodes {{ id }} }} }}"
JSON: Final = {"Content-Type": "application/json"}


@pytest.fixture
def url(servers: dict[str, Server]) -> Iterator[str]:
    """A database of this test's own."""
    with servers[ENGINES[0]].cloned() as address:
        yield address


@pytest.fixture(scope="module")
def web(servers: dict[str, Server]) -> Iterator[Api]:
    """The service, for tests that leave nothing behind."""
    with servers[ENGINES[0]].cloned() as address, running(address) as api:
        yield api


def codes(answer: dict[str, Any]) -> list[str]:
    """The codes of an answer's errors."""
    return [error["extensions"]["code"] for error in answer["errors"]]


# ---------------------------------------------------------------- ways to ask


def test_a_query_may_be_posted_or_be_in_the_address(web: Api) -> None:
    """POST with JSON and GET with parameters answer the same, variables and all, as JSON."""
    query = f"query ($first: Int!) {{ events(query: {{ {PERIOD} }}, first: $first) {{ nodes {{ id }} }} }}"
    posted = web.client.post("/graphql", json={"query": query, "variables": {"first": 1}}, headers=bearer(ADMIN_KEY))
    params = {"query": query, "variables": '{"first": 1}'}
    got = web.client.get("/graphql", params=params, headers=bearer(ADMIN_KEY))

    assert (200, "application/json") == (posted.status_code, posted.headers["content-type"])
    assert (200, "application/json") == (got.status_code, got.headers["content-type"])
    assert posted.json() == got.json()
    assert {"events": {"nodes": []}} == got.json()["data"]


def test_the_operation_is_chosen_by_name(web: Api) -> None:
    """Of several operations `operationName` chooses one, in a body and in the address; one that is not there is refused."""
    document = "query First { service { status } } query Second { service { engine } }"
    second = {"query": document, "operationName": "Second"}
    third = {"query": document, "operationName": "Third"}
    posted = web.client.post("/graphql", json=second).json()
    got = web.client.get("/graphql", params=second).json()
    refused = [web.client.post("/graphql", json=third).json(), web.client.get("/graphql", params=third).json()]

    assert posted == got
    assert {"service": {"engine": ENGINES[0]}} == got["data"]
    for answer in refused:
        assert {"errors"} == answer.keys()
        assert ["GRAPHQL_INVALID"] == codes(answer)
        assert "Third" in answer["errors"][0]["message"]


def test_unknown_members_of_a_request_are_ignored(web: Api) -> None:
    """Extensions and members of which we do not know do no harm, nor do nulls; a charset may be named."""
    request = {"query": SERVICE, "variables": None, "operationName": None, "extensions": {"a": [1]}, "more": True}
    response = web.client.post("/graphql", json=request, headers={"Content-Type": "application/json; charset=utf-8"})

    assert {"service": {"status": "PASS"}} == response.json()["data"]


# ---------------------------------------------------------------- requests that cannot be taken


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"])
def test_other_methods_are_refused(web: Api, method: str) -> None:
    """But for GET and POST every method is answered 405, with Allow naming the two."""
    response = web.client.request(method, "/graphql")

    assert (405, "GET, POST") == (response.status_code, response.headers["allow"])


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", "application/graphql", ""])
def test_other_content_types_are_refused(web: Api, content_type: str) -> None:
    """A body that is not said to be JSON is answered 415 (a plain form in a web page can therefore not ask for anyone)."""
    response = web.client.post(
        "/graphql", content=b'{"query":"{ __typename }"}', headers={"Content-Type": content_type}
    )

    assert (415, "content_type_unsupported") == (response.status_code, response.json()["code"])


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"null",
        b"[]",
        b'[{"query":"{ __typename }"}]',
        b"{}",
        b'{"query": 5}',
        b'{"query": null}',
        b'{"query": "{ __typename }", "variables": []}',
        b'{"query": "{ __typename }", "variables": {"a": ' + b"[" * 50_000,
    ],
)
def test_a_body_that_is_no_request_is_refused(web: Api, body: bytes) -> None:
    """What is not a JSON object with a query is answered 400, as a problem that says what was expected."""
    response = web.client.post("/graphql", content=body, headers=JSON)

    assert (400, "application/problem+json") == (response.status_code, response.headers["content-type"])
    assert "body_unreadable" == response.json()["code"]


@pytest.mark.parametrize("variables", ["{", "[1]", "5", '"text"'])
def test_variables_in_the_address_are_a_json_object(web: Api, variables: str) -> None:
    """Variables of a GET that are no JSON object are answered 400."""
    response = web.client.get("/graphql", params={"query": SERVICE, "variables": variables})

    assert (400, "body_unreadable") == (response.status_code, response.json()["code"])


def test_a_body_may_have_so_many_bytes(url: str) -> None:
    """A body of exactly the limit is taken; one byte more is answered 413, whether its length was told before or not."""
    body = b'{"query":"{ service { status } }"}'
    with running(url, Limits(graphql_body_bytes_max=100)) as api:
        longest = body + b" " * (100 - len(body))
        taken = api.client.post("/graphql", content=longest, headers=JSON)
        refused = api.client.post("/graphql", content=longest + b" ", headers=JSON)
        in_chunks = api.client.post("/graphql", content=iter([longest, b" " * 1_000]), headers=JSON)

    assert 200 == taken.status_code
    assert [(413, "body_too_large")] * 2 == [(r.status_code, r.json()["code"]) for r in (refused, in_chunks)]


# ---------------------------------------------------------------- documents that cannot be answered


@pytest.mark.parametrize(
    "query",
    [
        "",
        " ",
        "{",
        "{ service { status }",
        "query",
        "{ nonsense }",
        "{ service }",
        "{ service { status { more } } }",
        "{ service { status(x: 1) } }",
        "query { ...F } fragment F on Query { service { status } ...F }",
        "fragment F on Query { service { status } }",
        "mutation { nonsense }",
        "subscription { nonsense }",
        "query ($a: Int!, $b: Nothing) { service { status } }",
        "query ($first: Int!) { events(query: {}, first: $first) { nodes { id } } }",
        '{ usage(query: { period: { from: "yesterday", to: "today" } }) { __typename } }',
        '{ usage(query: { period: { from: "2026-01-01T00:00:00", to: "2027-01-01T00:00:00Z" } }) { __typename } }',
        "{ usage(query: { PERIOD, filter: { user: { in: [], notIn: [] } } }) { __typename } }",
        "{ usage(query: { PERIOD, filter: { user: {} } }) { __typename } }",
        "{ usage(query: { PERIOD, groupBy: [NOTHING] }) { __typename } }",
        "{" * 300 + "}" * 300,
        "{ service { status(x: " + "[" * 2_000 + "]" * 2_000 + ") } }",
    ],
)
def test_a_document_that_is_not_valid_has_no_data(web: Api, query: str) -> None:
    """What cannot be executed is errors with the code GRAPHQL_INVALID and nothing else: `data` is absent, not null."""
    asked = {"query": query.replace("PERIOD", PERIOD)}
    response = web.client.post("/graphql", json=asked, headers=bearer(ADMIN_KEY))

    assert (200, {"errors"}) == (response.status_code, response.json().keys())
    assert {"GRAPHQL_INVALID"} == set(codes(response.json()))


def test_variables_are_checked_before_anything_runs(web: Api) -> None:
    """A variable that is missing or of another type is a request error that names it, without `data`."""
    document = f"query ($first: Int!) {{ events(query: {{ {PERIOD} }}, first: $first) {{ nodes {{ id }} }} }}"
    for variables in ({}, {"first": None}, {"first": "1"}, {"first": 2**31}):
        answer = web.answer(document, variables)

        assert {"errors"} == answer.keys()
        assert ["GRAPHQL_INVALID"] == codes(answer)
        assert "$first" in answer["errors"][0]["message"]


def test_a_mutation_is_not_taken_from_an_address(web: Api) -> None:
    """GET is for queries: a document with anything else is answered 405, so that no link changes anything."""
    response = web.client.get("/graphql", params={"query": "mutation { nonsense }"}, headers=bearer(ADMIN_KEY))

    assert (405, "method_not_allowed") == (response.status_code, response.json()["code"])


def test_a_document_may_have_so_many_tokens(url: str) -> None:
    """A document of more tokens than the limit is refused before it is understood."""
    with running(url, Limits(graphql_tokens_max=20)) as api:
        few = api.answer("{ service { status version engine } }", key=None)
        many = api.answer("{ service { " + "status " * 20 + "} }", key=None)

    assert "data" in few
    assert {"errors"} == many.keys()
    assert ["OPERATION_TOO_LARGE"] == codes(many)
    assert "20 tokens" in many["errors"][0]["message"]


def test_a_document_may_be_so_deep(url: str) -> None:
    """A document that goes deeper than the limit is refused, also where fragments hide it."""
    deep = f"{{ usage(query: {{ {PERIOD} }}) {{ ... on UsageReport {{ groups {{ edges {{ node {{ key {{ user }} }} }} }} }} }} }}"
    hidden = (
        f"{{ usage(query: {{ {PERIOD} }}) {{ ...A }} }} fragment A on UsageReport {{ groups {{ ...B }} }} "
        "fragment B on UsageGroupConnection { edges { node { key { user } } } }"
    )
    with running(url, Limits(graphql_depth_max=3)) as api:
        shallow = api.answer("{ service { checks { name } } }", key=None)
        refused = [api.answer(deep), api.answer(hidden)]

    assert "data" in shallow
    for answer in refused:
        assert {"errors"} == answer.keys()
        assert {"OPERATION_TOO_LARGE"} == set(codes(answer))
        assert "depth of 3" in answer["errors"][0]["message"]


# ---------------------------------------------------------------- who may ask what


@pytest.mark.parametrize("header", ["Bearer wrong", "Bearer", "Bearer ", "Basic eDp5", "nonsense", ""])
def test_a_bad_key_is_refused_whatever_is_asked(web: Api, header: str) -> None:
    """A key that is sent and not good is answered 401, also for what needs none: a mistake is not passed over."""
    for response in (
        web.client.post("/graphql", json={"query": SERVICE}, headers={"Authorization": header}),
        web.client.get("/graphql", params={"query": SERVICE}, headers={"Authorization": header}),
    ):
        assert (401, "Bearer") == (response.status_code, response.headers["www-authenticate"])
        assert "unauthenticated" == response.json()["code"]


@pytest.mark.parametrize("query", [USAGE, EVENTS])
def test_without_a_key_usage_is_not_shown(web: Api, query: str) -> None:
    """A field that needs a scope answers a caller without a key with UNAUTHENTICATED, and no data."""
    answer = web.answer(query, key=None)

    assert answer["data"] is None
    assert ["UNAUTHENTICATED"] == codes(answer)
    assert "Authorization" in answer["errors"][0]["message"]


def test_the_service_tells_how_it_is_without_a_key(web: Api) -> None:
    """`service` needs no key; nor does the schema."""
    answer = web.ask(
        "{ service { status version engine checks { name status } } __schema { types { name } } }", key=None
    )

    assert ("PASS", ENGINES[0]) == (answer["service"]["status"], answer["service"]["engine"])
    assert {"PASS"} == {check["status"] for check in answer["service"]["checks"]}
    assert "UsageReport" in {kind["name"] for kind in answer["__schema"]["types"]}


def test_a_key_needs_the_scope(url: str) -> None:
    """A key without the scope gets FORBIDDEN, which names both; with it, and as ADMIN, the answer."""

    async def make(*scopes: Scope) -> str:
        database = await Database.connect(Settings(database_url=url), LIMITS)
        try:
            _, secret = await KeyRing(database).create("test", scopes)
        finally:
            await database.close()
        return secret

    with running(url) as api:
        without = asyncio.run(make(*(set(Scope) - {Scope.USAGE_READ, Scope.ADMIN})))
        reader, admin = asyncio.run(make(Scope.USAGE_READ)), asyncio.run(make(Scope.ADMIN))
        for query in (USAGE, EVENTS):
            forbidden = api.answer(query, key=without)
            assert forbidden["data"] is None
            assert ["FORBIDDEN"] == codes(forbidden)
            assert "USAGE_READ" in forbidden["errors"][0]["message"]
            assert without not in str(forbidden)
            assert api.ask(query, key=reader) == api.ask(query, key=admin)
        assert "PASS" == api.ask(SERVICE, key=without)["service"]["status"]


# ---------------------------------------------------------------- what goes wrong on our side


def execute(url: str, statement: str) -> None:
    """Do something to the database behind the service's back."""

    async def run() -> None:
        connection = await asyncpg.connect(url)
        try:
            await connection.execute(statement)
        finally:
            await connection.close()

    asyncio.run(run())


def test_an_unexpected_error_is_masked(url: str) -> None:
    """An error that nobody foresaw shows an id that is in the log, and nothing of what it was."""
    with running(url) as api:
        execute(url, "DELETE FROM rollup_horizon")  # a row that is always there
        response = api.client.post("/graphql", json={"query": USAGE}, headers=bearer(ADMIN_KEY))
        again = api.client.post("/graphql", json={"query": USAGE}, headers=bearer(ADMIN_KEY))

    (error,) = response.json()["errors"]
    assert response.json()["data"] is None
    assert ("INTERNAL", ["usage"]) == (error["extensions"]["code"], error["path"])
    assert re.fullmatch("[0-9a-f]{16}", error["extensions"]["id"])
    assert error["extensions"]["id"] in error["message"]
    assert {"message", "locations", "path", "extensions"} == error.keys()
    assert {"code", "id"} == error["extensions"].keys()
    assert "horizon" not in response.text
    assert "assert" not in response.text.lower()
    assert error["extensions"]["id"] != again.json()["errors"][0]["extensions"]["id"]


def test_a_masked_error_is_in_the_log_under_its_id(url: str, capfd: pytest.CaptureFixture[str]) -> None:
    """Whoever runs the service finds by the id what really happened, with its traceback."""
    with running(url) as api:
        execute(url, "DELETE FROM rollup_horizon")
        answer = api.answer(USAGE)
    logged = capfd.readouterr()

    lines = [line for line in (logged.out + logged.err).splitlines() if answer["errors"][0]["extensions"]["id"] in line]
    assert 1 == len(lines)
    assert "AssertionError" in lines[0]


def test_an_unexpected_error_before_anything_runs_is_masked_too(url: str, capfd: pytest.CaptureFixture[str]) -> None:
    """What goes wrong on the way to an operation is 500, as GraphQL: INTERNAL, with an id that is in the log."""
    with running(url) as api:
        execute(url, "UPDATE api_key SET scopes = '{NONSENSE}'")  # a scope that no release has had
        response = api.client.post("/graphql", json={"query": USAGE}, headers=bearer(ADMIN_KEY))
    logged = capfd.readouterr()

    assert (500, "application/json") == (response.status_code, response.headers["content-type"])
    (error,) = response.json()["errors"]
    assert {"errors"} == response.json().keys()
    assert "INTERNAL" == error["extensions"]["code"]
    assert "NONSENSE" not in response.text
    assert 1 == len([line for line in (logged.out + logged.err).splitlines() if error["extensions"]["id"] in line])


def test_what_callers_do_wrong_is_not_in_the_log(web: Api, caplog: pytest.LogCaptureFixture) -> None:
    """A document that is not valid, a missing key, a bad argument: the caller is told, and nobody is woken."""
    web.answer("{ nonsense }")
    web.answer(USAGE, key=None)
    web.answer(EVENTS.replace("query:", "first: 0, query:"))

    assert [] == caplog.records


def test_a_schema_that_is_not_ours_is_said(url: str) -> None:
    """A missing table is no mystery: 503 with the code SCHEMA, and what to do about it."""
    with running(url) as api:
        execute(url, "ALTER TABLE rollup_horizon RENAME TO somewhere_else")
        response = api.client.post("/graphql", json={"query": USAGE}, headers=bearer(ADMIN_KEY))

    assert 503 == response.status_code
    assert ["SCHEMA"] == codes(response.json())
    assert "metering migrate" in response.json()["errors"][0]["message"]


def test_an_answer_that_takes_too_long_is_cancelled(url: str) -> None:
    """A statement has its time limit; when it is over the statement is cancelled, and the caller told to ask for less."""

    async def hold(held: threading.Event, done: threading.Event) -> None:
        connection = await asyncpg.connect(url)
        async with connection.transaction():
            await connection.execute("LOCK TABLE event IN ACCESS EXCLUSIVE MODE")
            held.set()
            await asyncio.to_thread(done.wait)
        await connection.close()

    held, done = threading.Event(), threading.Event()
    with running(url, Limits(statement_seconds_max=1)) as api:
        holder = threading.Thread(target=lambda: asyncio.run(hold(held, done)))
        holder.start()
        try:
            assert held.wait(10)
            response = api.client.post("/graphql", json={"query": USAGE}, headers=bearer(ADMIN_KEY))
        finally:
            done.set()
            holder.join()

    assert ["TIME_LIMIT"] == codes(response.json())


def test_a_database_that_is_away_is_said(servers: dict[str, Server]) -> None:
    """A database that is gone is 503 with Retry-After and DATABASE_UNAVAILABLE, for a caller who is known already."""
    server = servers[ENGINES[0]]
    url = server.clone()
    with running(url) as api:
        api.ask(USAGE)
        server.drop(url)
        response = api.client.post("/graphql", json={"query": USAGE}, headers=bearer(ADMIN_KEY))

    assert (503, "1") == (response.status_code, response.headers["retry-after"])
    assert ["DATABASE_UNAVAILABLE"] == codes(response.json())


def test_a_database_that_is_away_when_a_key_is_looked_up_is_said(servers: dict[str, Server]) -> None:
    """Who asks in GraphQL hears of it in GraphQL, also where it is not known yet who asks."""
    server = servers[ENGINES[0]]
    url = server.clone()
    with running(url) as api:
        server.drop(url)
        headers = bearer("a key that nobody has seen yet")
        response = api.client.post("/graphql", json={"query": EVENTS}, headers=headers)

    assert (503, "1") == (response.status_code, response.headers["retry-after"])
    assert ["DATABASE_UNAVAILABLE"] == codes(response.json())
