"""A fuzzer takes the schema at its word: whatever can be asked is answered, and nothing that is wrong is on our side."""

from collections.abc import Iterator
from typing import Any, Final

import schemathesis
from graphql import ValueNode
from hypothesis import strategies as st
from schemathesis.config import SchemathesisConfig
from schemathesis.engine import Status, from_schema
from schemathesis.engine.events import EngineEvent, NonFatalError, ScenarioFinished
from schemathesis.graphql import nodes
from schemathesis.graphql.checks import GraphQLClientError, GraphQLServerError
from starlette.types import ASGIApp

from tests.conftest import ADMIN_KEY
from tests.metering.ingest.test_openapi import bridge

__all__ = ["bridge"]

CONFIG: Final = """
seed = 1
headers = { Authorization = "Bearer KEY" }

[generation]
max-examples = 9

[phases.stateful]
enabled = false
"""
INSTANTS: Final = st.sampled_from(
    ["2026-01-01T00:00:00Z", "2026-02-01T00:00:00+01:00", "2026-02-30T00:00:00Z", "9999-12-31T23:59:59-12:00", ""]
)
DECIMALS: Final = st.sampled_from(["0", "1.5", "-1e-18", "1e400", "NaN", "", "9" * 40])
# What a value of each scalar of ours may look like, good ones and others.
SCALARS: Final[dict[str, st.SearchStrategy[ValueNode]]] = {
    "DateTime": INSTANTS.map(nodes.String),
    "Date": st.sampled_from(["2026-03-01", "2026-02-30", "9999-12-31", "0001-01-01", ""]).map(nodes.String),
    "Decimal": DECIMALS.map(nodes.String),
    "BigInt": st.sampled_from(["0", "-1", "9" * 30, "x"]).map(nodes.String),
    "TimeZone": st.sampled_from(["UTC", "Europe/Berlin", "Nowhere/Nowhere", "", "../x"]).map(nodes.String),
    "CurrencyCode": st.sampled_from(["EUR", "JPY", "XXX", ""]).map(nodes.String),
    "JSON": st.sampled_from([nodes.Object(fields=[]), nodes.String("x")]),
}
# What a caller is told of its own mistakes.
REFUSALS: Final = frozenset({"GRAPHQL_INVALID", "INVALID_INPUT", "NOT_FOUND", "CONFLICT", "TOO_LARGE"})


def test_a_fuzzer_finds_nothing(bridge: ASGIApp) -> None:
    """Every field of both roots is asked with what its types allow, and answered: no 500, and no error that is masked."""
    for name, values in SCALARS.items():
        schemathesis.graphql.scalar(name, values)
    config = SchemathesisConfig.from_str(CONFIG.replace("KEY", ADMIN_KEY))
    schema = schemathesis.graphql.from_asgi("/graphql", bridge, config=config)
    tried: dict[str, int] = {}
    found: list[str] = []
    for event in from_schema(schema).execute():
        if isinstance(event, ScenarioFinished) and event.label:
            tried[event.label] = tried.get(event.label, 0) + len(event.recorder.cases)
        found.extend(_faults(event))

    assert [] == found
    assert {"Query.usage", "Query.service", "Mutation.putAccount", "Mutation.publishPlan"} <= set(tried)
    assert min(tried.values()) > 0
    assert sum(tried.values()) > 200


def _faults(event: EngineEvent) -> Iterator[str]:
    if isinstance(event, NonFatalError):
        yield str(event.value)
    if isinstance(event, ScenarioFinished):
        for checks in event.recorder.checks.values():
            for check in checks:
                if check.status == Status.FAILURE and not _is_refusal(check):
                    yield f"{event.label}: {check.name}: {_reason(check)}"
        for interaction in event.recorder.interactions.values():
            body = b"" if interaction.response is None else interaction.response.content
            if b'"INTERNAL"' in body:
                yield f"{event.label}: {body.decode()}"


def _is_refusal(check: Any) -> bool:
    """Whether a caller was told of its own mistake: the fuzzer knows other codes, and takes ours for faults of the server."""
    failure = check.failure_info.failure
    codes = [error.get("extensions", {}).get("code") for error in getattr(failure, "errors", ())]
    return isinstance(failure, GraphQLClientError | GraphQLServerError) and bool(codes) and REFUSALS.issuperset(codes)


def _reason(check: Any) -> str:
    info = check.failure_info
    return f"{info.failure.title}: {info.failure.message}\n{info.code_sample}" if info else ""
