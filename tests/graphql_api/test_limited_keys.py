"""recordUsage with a limited key: the same limits as over HTTP, told as GraphQL tells what goes wrong."""

from collections.abc import Iterator
from typing import Any

import pytest

from metering.keys import Scope
from tests.conftest import ADMIN_KEY, Api, Server, bearer, make_key, running, usage_event

RECORD = """
mutation ($events: [UsageEventInput!]!) {
  recordUsage(input: { events: $events }) {
    ... on RecordUsageReceipt { accepted duplicates rejected { code } }
    ... on InvalidInput { issues { path message } }
  }
}
"""
# Written in the document itself, where a default is filled in on another way than in variables.
LITERAL = """
mutation {
  recordUsage(input: { events: [
    { id: "literal", occurredAt: "2026-03-01T12:00:00Z", account: "acme", product: "maps", unit: "call" }
  ] }) { ... on RecordUsageReceipt { accepted } }
}
"""
SOURCE = """
query ($source: String!, $id: String!) { event(account: "acme", source: $source, id: $id) { source } }
"""


@pytest.fixture(scope="module")
def url(servers: dict[str, Server]) -> Iterator[str]:
    """A database of this module's own; how a key is held to its limits is no matter of the engine."""
    made = servers["postgres"].clone()
    yield made
    servers["postgres"].drop(made)


@pytest.fixture(scope="module")
def web(url: str) -> Iterator[Api]:
    """The service on that database."""
    with running(url) as started:
        yield started


def given(*numbers: int, **fields: Any) -> list[dict[str, Any]]:
    """Events as arguments."""
    events = [usage_event(number, **fields) for number in numbers]
    return [{"occurredAt": event.pop("occurred_at"), **event} for event in events]


def test_the_rate_is_an_error_with_a_code(web: Api, url: str) -> None:
    """Over the rate recordUsage fails with RATE_LIMITED and how long to wait; over HTTP nothing is left either."""
    _, key = make_key(url, events_per_second_max=1, burst_events_max=1)
    first = web.ask(RECORD, {"events": given(*range(600))}, key=key)["recordUsage"]
    answer = web.answer(RECORD, {"events": given(1_000)}, key=key)
    over_http = web.client.post("/v1/events", json=usage_event(1_000), headers=bearer(key))
    by_another = web.send(usage_event(1_000))

    assert 600 == first["accepted"]
    (error,) = answer["errors"]
    assert ("RATE_LIMITED", ["recordUsage"]) == (error["extensions"]["code"], error["path"])
    # 599 are owed, and one is asked for; a little of it has come in since.
    assert 500 < error["extensions"]["retryAfterSeconds"] <= 600
    assert "1 events a second" in error["message"]
    assert 429 == over_http.status_code
    assert {"accepted": 1, "duplicates": 0, "rejected": []} == by_another


def test_each_mutation_of_a_document_counts(web: Api, url: str) -> None:
    """One document with the mutation several times is no way around the rate."""
    _, key = make_key(url, events_per_second_max=1, burst_events_max=1)
    one = "recordUsage(input: { events: $events }) { ... on RecordUsageReceipt { accepted } }"
    document = f"mutation ($events: [UsageEventInput!]!) {{ a: {one} b: {one} }}"
    answer = web.answer(document, {"events": given(*range(2_000, 2_600))}, key=key)

    assert ["RATE_LIMITED"] == [error["extensions"]["code"] for error in answer["errors"]]
    assert ["b"] == answer["errors"][0]["path"]


def test_a_key_s_own_sizes_hold(web: Api, url: str) -> None:
    """Too many events for the key are named with its limit; too many bytes are an error with a code; others may send them."""
    _, few = make_key(url, request_events_max=3)
    _, small = make_key(url, Scope.USAGE_WRITE, Scope.USAGE_READ, request_bytes_max=2_000)
    many = web.ask(RECORD, {"events": given(1, 2, 3, 4)}, key=few)["recordUsage"]
    large = web.answer(RECORD, {"events": given(5, user="x" * 250, device="y" * 250) * 3}, key=small)
    asked = web.ask(SOURCE + "#" * 2_000, {"source": "test", "id": "nobody's"}, key=small)

    (issue,) = many["issues"]
    assert ["input", "events"] == issue["path"]
    assert issue["message"].startswith("3 events are taken")
    assert ["BODY_TOO_LARGE"] == [error["extensions"]["code"] for error in large["errors"]]
    assert "may send 2,000 bytes" in large["errors"][0]["message"]
    # It is what is recorded that is limited, not what is asked.
    assert {"event": None} == asked
    assert 4 == web.ask(RECORD, {"events": given(1, 2, 3, 4, source="free")}, key=ADMIN_KEY)["recordUsage"]["accepted"]


@pytest.mark.parametrize(("default", "expected"), [("gateway", "gateway"), (None, "graphql")])
def test_the_source_of_events_that_name_none(web: Api, url: str, default: str | None, expected: str) -> None:
    """Where an event names no source the key's stands, and `graphql` where the key has none; a named one is kept."""
    _, key = make_key(url, default_source=default)
    unnamed, named = f"unnamed-{default}", f"named-{default}"
    events = [*given(1, id=unnamed, source=None), *given(2, id=named, source="graphql")]
    web.ask(RECORD, {"events": events}, key=key)
    web.ask(LITERAL, key=key)

    def source_of(event_id: str, source: str) -> Any:
        return web.ask(SOURCE, {"source": source, "id": event_id})["event"]

    assert {"source": expected} == source_of(unnamed, expected)
    assert {"source": "graphql"} == source_of(named, "graphql")
    assert {"source": expected} == source_of("literal", expected)
