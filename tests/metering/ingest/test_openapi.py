"""GET /openapi.json tells the truth: by comparing it with the code, and by having a fuzzer take it at its word."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import schemathesis
from anyio import to_thread
from schemathesis.config import SchemathesisConfig
from schemathesis.engine import Status, from_schema
from schemathesis.engine.events import EngineEvent, NonFatalError, ScenarioFinished
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from metering.events import UsageEvent
from metering.ingest.openapi import PROBLEMS, openapi
from metering.ingest.readers import READERS
from metering.ingest.receipts import Code
from metering.limits import LIMITS, Limits
from tests.conftest import ADMIN_KEY, Api, Server, running

DOCUMENT = openapi(LIMITS, "1.2.3")
SCHEMAS = DOCUMENT["components"]["schemas"]
ROOT = Path(__file__).parent.parent.parent.parent


def test_it_is_served(api: Api) -> None:
    """Anyone may read it, and it is what the function makes of the limits in force."""
    response = api.client.get("/openapi.json")

    served = response.json()
    assert (200, "application/json") == (response.status_code, response.headers["content-type"])
    assert openapi(LIMITS, served["info"]["version"]) == served


def test_codes_and_fields_are_those_of_the_code() -> None:
    """The codes stand in their order of precedence, the fields are those of an event, the types those that are read."""
    assert [code.value for code in Code] == SCHEMAS["Rejection"]["properties"]["code"]["enum"]
    assert list(UsageEvent.__struct_fields__) == list(SCHEMAS["UsageEvent"]["properties"])
    assert ["id", "occurred_at", "account", "product", "unit"] == SCHEMAS["UsageEvent"]["required"]
    assert list(READERS) == list(DOCUMENT["paths"]["/v1/events"]["post"]["requestBody"]["content"])


def test_limits_are_those_in_force() -> None:
    """Other limits, another description."""
    changed = openapi(Limits(name_chars_max=9, body_events_max=7), "1")
    content = changed["paths"]["/v1/events"]["post"]["requestBody"]["content"]

    assert 9 == changed["components"]["schemas"]["UsageEvent"]["properties"]["unit"]["maxLength"]
    assert 7 == content["application/cloudevents-batch+json"]["schema"]["maxItems"]


def test_problems_are_those_of_the_documentation() -> None:
    """Each status and its codes are the same here and in docs/ingest.md."""
    text = (ROOT / "docs" / "ingest.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d{3}) \| (`[a-z_`, ]+`) \|", text, re.MULTILINE)
    documented = {int(status): tuple(re.findall(r"[a-z_]+", codes)) for status, codes in rows}

    assert PROBLEMS == documented


def test_every_reference_leads_somewhere() -> None:
    """No reference is broken, and nothing is described that nobody refers to."""
    referred = set(re.findall(rb'"#/components/schemas/(\w+)"', msgspec.json.encode(DOCUMENT)))

    assert set(SCHEMAS) == {name.decode() for name in referred}


# ---------------------------------------------------------------- a fuzzer takes it at its word

CONFIG = """
seed = 1
headers = { Authorization = "Bearer KEY" }

[generation]
max-examples = 20

[phases.stateful]
enabled = false

[checks.negative_data_rejection]
# A request with a bad event is answered 200, with a receipt that says so: that is the contract.
expected-statuses = [200, 400, 401, 403, 413, 415, 422]

[checks.positive_data_acceptance]
# What no schema can say (a time ahead of ours, Base64 of something else) refuses an atomic request.
expected-statuses = [200, 422]
"""
# The same in requests that take all or nothing: there whatever breaks the description is refused by its status.
ATOMIC = (
    CONFIG.replace("seed = 1", 'seed = 2\nparameters = { "query.atomic" = "true" }')
    .replace("max-examples = 20", "max-examples = 6")
    .replace("[200, 400,", "[400,")
)


@pytest.fixture(scope="module")
def bridge(servers: dict[str, Server]) -> Iterator[ASGIApp]:
    """An ASGI application in front of the running service, whichever event loop it is called from; no matter of the engine."""
    with servers["postgres"].cloned() as database_url, running(database_url) as api:

        async def pass_on(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] != "http":
                return
            request = Request(scope, receive)
            body = await request.body()
            answer = await to_thread.run_sync(
                lambda: api.client.request(
                    request.method, str(request.url), content=body, headers=request.headers.raw, follow_redirects=False
                )
            )
            await Response(answer.content, answer.status_code, dict(answer.headers))(scope, receive, send)

        yield pass_on


def test_a_fuzzer_finds_nothing(bridge: ASGIApp) -> None:
    """Whatever follows the description, or breaks it on purpose, is answered as it says, under every check there is."""
    config = SchemathesisConfig.from_str(CONFIG.replace("KEY", ADMIN_KEY))
    schema = schemathesis.openapi.from_asgi("/openapi.json", bridge, config=config)
    tried, found = _tried(schema)

    assert [] == found
    assert {"POST /v1/events", "GET /livez", "GET /readyz"} == set(tried)
    assert sum(tried["POST /v1/events"].values()) > 100


def test_what_breaks_the_description_is_refused(bridge: ASGIApp) -> None:
    """With `atomic` no request that breaks the description is answered 200, whatever is wrong with it."""
    config = SchemathesisConfig.from_str(ATOMIC.replace("KEY", ADMIN_KEY))
    schema = schemathesis.openapi.from_asgi("/openapi.json", bridge, config=config).include(path="/v1/events")
    tried, found = _tried(schema)

    assert [] == found
    # Both kinds came: those that are taken, and those that are refused for an event in them.
    assert {200, 422} <= tried["POST /v1/events"].keys()
    assert tried["POST /v1/events"][422] > 30


def _tried(schema: Any) -> tuple[dict[str, Counter[int]], list[str]]:
    """How often each operation was answered with which status, and what was found wrong with it."""
    tried: dict[str, Counter[int]] = defaultdict(Counter)
    found: list[str] = []
    for event in from_schema(schema).execute():
        if isinstance(event, ScenarioFinished) and event.label:
            tried[event.label].update(
                each.response.status_code for each in event.recorder.interactions.values() if each.response
            )
        found.extend(_faults(event))
    return tried, found


def _faults(event: EngineEvent) -> Iterator[str]:
    if isinstance(event, NonFatalError):
        yield str(event.value)
    if isinstance(event, ScenarioFinished):
        for checks in event.recorder.checks.values():
            for check in checks:
                if check.status == Status.FAILURE:
                    yield f"{event.label}: {check.name}: {_reason(check)}"


def _reason(check: Any) -> str:
    info = check.failure_info
    return f"{info.failure.title}: {info.failure.message}\n{info.code_sample}" if info else ""
