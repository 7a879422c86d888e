"""GET /openapi.json tells the truth: by comparing it with the code, and by having a fuzzer take it at its word."""

import re
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
from tests.conftest import ADMIN_KEY, Api, running

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
max-examples = 30

[phases.stateful]
enabled = false

[checks.negative_data_rejection]
# A request with a bad event is answered 200, with a receipt that says so: that is the contract.
expected-statuses = [200, 400, 401, 403, 413, 415, 422]

[checks.positive_data_acceptance]
# What no schema can say (a time ahead of ours, Base64 of something else) refuses an atomic request.
expected-statuses = [200, 422]
"""


@pytest.fixture
def bridge(database_url: str) -> Iterator[ASGIApp]:
    """An ASGI application in front of the running service, whichever event loop it is called from."""
    with running(database_url) as api:

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
    tried: dict[str, int] = {}
    found: list[str] = []

    for event in from_schema(schema).execute():
        if isinstance(event, ScenarioFinished) and event.label:
            tried[event.label] = tried.get(event.label, 0) + len(event.recorder.cases)
        found.extend(_faults(event))

    assert [] == found
    assert {"POST /v1/events", "GET /livez", "GET /readyz"} == set(tried)
    assert tried["POST /v1/events"] > 100


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
