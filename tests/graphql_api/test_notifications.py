"""Rules, alerts, destinations and deliveries over GraphQL: who may, what is shown, and what never is."""

import json
import logging
from collections.abc import Iterator
from typing import Any, Final

import pytest

from metering.keys import Scope
from tests.conftest import ADMIN_KEY, Api, make_key, running, usage_event
from tests.graphql_api.worlds import evaluate

PUT_RULE: Final = """
mutation ($input: PutAlertRuleInput!) {
  putAlertRule(input: $input) {
    __typename
    ... on AlertRule { key name measure threshold resolveBelow accounts enabled fault }
    ... on InvalidInput { issues { path message } }
    ... on Problem { code }
  }
}
"""
PUT: Final = """
mutation ($input: PutDestinationInput!) {
  putDestination(input: $input) {
    __typename
    ... on PutDestinationSuccess { secret destination { key kind address types enabled waiting disabledAt } }
    ... on InvalidInput { issues { path message } }
    ... on Problem { code }
  }
}
"""
ROTATE: Final = """
mutation ($key: String!, $hours: Int!) {
  rotateDestinationSecret(input: {key: $key, overlapHours: $hours}) {
    __typename ... on PutDestinationSuccess { secret } ... on Problem { code message }
  }
}
"""
REPLAY: Final = """
mutation ($input: ReplayDeliveriesInput!) {
  replayDeliveries(input: $input) {
    __typename ... on ReplayDeliveriesSuccess { queued } ... on Problem { code message }
  }
}
"""
OFFER: Final = """
mutation {
  publishPlan(input: {
    key: "p", name: "p", currencyCode: "EUR", effectiveFrom: "2026-01-01T00:00:00Z"
    prices: [{ key: "base", price: { flat: { amount: "10" } } }]
  }) { __typename }
  putSubscription(input: { key: "s-1", account: "acme", plan: "p", startsAt: "2026-01-01T00:00:00Z" }) { __typename }
}
"""
LISTED: Final = """
{ destinations { nodes {
  key kind address types enabled waiting failingSince disabledAt disabledReason createdAt changedAt
} } }
"""
PAGE: Final = """
{ deliveries(destination: "team", first: 2%s) {
  nodes { subject type state dueAt attempts { status } } pageInfo { endCursor hasNextPage }
} }
"""
ALERTS: Final = """
{ alerts { nodes {
  rule measure subject key { account product } period { from to } value whole threshold resolvedAt resolution
} } }
"""
MEASURE: Final = {
    "quantity": {"meter": "calls", "groupBy": ["ACCOUNT"], "bucket": "DAY", "filter": {"product": {"in": ["maps"]}}}
}


@pytest.fixture
def asked(database_url: str) -> Iterator[tuple[str, Api]]:
    """The service, with a meter."""
    with running(database_url) as api:
        api.ask('mutation { putMeter(input: {key: "calls", name: "Calls", unit: "call"}) { __typename } }')
        yield database_url, api


def put_rule(api: Api, **fields: Any) -> Any:
    """Put a rule."""
    rule = {"key": "many", "name": "Many", "measure": MEASURE, "threshold": "10", **fields}
    return api.ask(PUT_RULE, {"input": rule})["putAlertRule"]


def test_a_rule_raises_an_alert_that_is_shown_with_its_figures(asked: tuple[str, Api]) -> None:
    """What was put is shown as it was put; what it raised is shown with whose figure it is, and when."""
    url, api = asked
    made = put_rule(api, resolveBelow="8.50", accounts=["acme"])
    api.send([usage_event(1, quantity="12.50"), usage_event(2, account="beta", quantity="99")])
    evaluate(url, "2026-03-01T13:00:00Z")

    quantity = {**MEASURE["quantity"], "timeZone": "UTC"}
    assert {"quantity": quantity} == made["measure"]
    assert ("10", "8.5", ["acme"], True) == tuple(made[f] for f in ("threshold", "resolveBelow", "accounts", "enabled"))
    (alert,) = api.ask(ALERTS)["alerts"]["nodes"]
    assert {
        "rule": "many",
        "measure": "QUANTITY",
        "subject": "account/acme",
        "key": {"account": "acme", "product": None},
        "period": {"from": "2026-03-01T00:00:00Z", "to": "2026-03-02T00:00:00Z"},
        "value": "12.5",
        "whole": None,
        "threshold": "10",
        "resolvedAt": None,
        "resolution": None,
    } == alert


def test_every_fault_of_a_rule_and_of_a_destination_is_told(asked: tuple[str, Api]) -> None:
    """Each with the way to the value in the argument; what is one of nothing is told as well."""
    _, api = asked
    rule = put_rule(api, key="?", threshold="0", measure={"amount": {"currencyCode": "XXX", "timeZone": "Mars"}})
    destination = api.ask(
        PUT, {"input": {"key": "?", "kind": "WEBHOOK", "url": "http://127.0.0.1/", "types": ["alert", "!"]}}
    )["putDestination"]
    without = api.ask(PUT, {"input": {"key": "new", "kind": "SLACK"}})["putDestination"]

    assert [
        ["input", "key"],
        ["input", "threshold"],
        ["input", "resolveBelow"],
        ["input", "measure", "amount", "currencyCode"],
        ["input", "measure", "amount", "timeZone"],
    ] == [issue["path"] for issue in rule["issues"]]
    assert [["input", "key"], ["input", "url"], ["input", "url"], ["input", "types", "1"]] == [
        issue["path"] for issue in destination["issues"]
    ]
    assert [["input", "url"]] == [issue["path"] for issue in without["issues"]]


def test_who_may_do_what(asked: tuple[str, Api]) -> None:
    """Destinations are the operator's; rules are the catalog's; alerts of amounts are for who may see amounts."""
    url, api = asked
    api.ask(OFFER)
    put_rule(api, measure={"statementTotal": {"currencyCode": "EUR", "budget": "12"}}, threshold="0.5")
    evaluate(url, "2026-03-01T13:00:00Z")
    usage, charges, catalog = (
        make_key(url, *scopes)[1]
        for scopes in ([Scope.USAGE_READ], [Scope.USAGE_READ, Scope.CHARGES_READ], [Scope.CATALOG_WRITE])
    )

    shown = [len(api.ask("{ alerts { nodes { id } } }", key=key)["alerts"]["nodes"]) for key in (usage, charges)]
    assert [0, 1] == shown
    for field in (
        "destinations { nodes { key } }",
        'deliveries(destination: "x") { nodes { type } }',
        "alertRules { nodes { key } }",
    ):
        answer = api.answer(f"{{ {field} }}", key=usage)
        assert "FORBIDDEN" == answer["errors"][0]["extensions"]["code"]
    refused = api.answer(PUT, {"input": {"key": "x", "kind": "SLACK"}}, key=catalog)
    assert "FORBIDDEN" == refused["errors"][0]["extensions"]["code"]


def test_a_destination_s_secrets_are_shown_once_and_never_logged(
    asked: tuple[str, Api], caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """A webhook's secret is in the answer that makes it; an address is shown without its path, wherever it is shown."""
    _, api = asked
    caplog.set_level(logging.DEBUG)
    given = {"key": "team", "kind": "WEBHOOK", "url": "https://example.com/hooks/abc-token?key=def-token"}
    made = api.ask(PUT, {"input": given})["putDestination"]
    again = api.ask(PUT, {"input": {"key": "team", "kind": "WEBHOOK", "types": ["alert"]}})["putDestination"]
    other = api.ask(PUT, {"input": {**given, "kind": "SLACK"}})["putDestination"]
    rotated = api.ask(ROTATE, {"key": "team", "hours": 1})["rotateDestinationSecret"]
    missing = api.ask(ROTATE, {"key": "none", "hours": 1})["rotateDestinationSecret"]
    listed = api.ask(LISTED)

    assert made["secret"].startswith("whsec_")
    assert (None, "CONFLICT", "NOT_FOUND") == (again["secret"], other["code"], missing["code"])
    assert ("https://example.com/…", ["alert"]) == (again["destination"]["address"], again["destination"]["types"])
    everything = json.dumps([again, other, missing, listed]) + caplog.text + "".join(capfd.readouterr())
    assert not [each for each in ("abc-token", "def-token", made["secret"], rotated["secret"]) if each in everything]


def test_deliveries_are_listed_and_replayed(asked: tuple[str, Api]) -> None:
    """What was published is in the log of who takes it, page by page, the newest first; replaying counts what it queues."""
    url, api = asked
    api.ask(PUT, {"input": {"key": "team", "kind": "WEBHOOK", "url": "https://hooks.invalid/", "types": ["alert"]}})
    put_rule(api)
    api.send([usage_event(number, account=f"a{number}", quantity="12") for number in range(3)])
    evaluate(url, "2026-03-01T13:00:00Z")
    first = api.ask(PAGE % "")["deliveries"]
    rest = api.ask(PAGE % f', after: "{first["pageInfo"]["endCursor"]}"')["deliveries"]
    since = {"destination": "team", "since": "2026-03-01T00:00:00Z", "until": "2026-03-02T00:00:00Z"}
    replayed = [
        api.ask(REPLAY, {"input": given})["replayDeliveries"]
        for given in (since, {**since, "until": "2026-01-01T00:00:00Z"}, {**since, "destination": "none"})
    ]

    assert ["account/a2", "account/a1", "account/a0"] == [each["subject"] for each in first["nodes"] + rest["nodes"]]
    assert {"PENDING"} == {each["state"] for each in first["nodes"]}
    assert (True, False) == (first["pageInfo"]["hasNextPage"], rest["pageInfo"]["hasNextPage"])
    assert [3, "INVALID_INPUT", "NOT_FOUND"] == [each.get("queued", each.get("code")) for each in replayed]
    assert "3" == api.ask("{ destinations { nodes { waiting } } }")["destinations"]["nodes"][0]["waiting"]
    checks = api.ask("{ service { checks { name status detail } } }", key=ADMIN_KEY)["service"]["checks"]
    assert "what is due waits" in next(each["detail"] for each in checks if each["name"] == "notifications")
