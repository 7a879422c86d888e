"""`grantCredit`, `voidCreditGrant`, `creditBalance` and `creditLedger` through HTTP, and what the guide shows of them."""

import re
from pathlib import Path
from typing import Any, Final

import pytest

from graphql_api.pages import encode_cursor
from metering.keys import Scope
from tests.conftest import Api, make_key, usage_event
from tests.graphql_api.test_plans import meter, publish
from tests.graphql_api.test_statements import FINALIZE, VOID, ask, sell
from tests.graphql_api.test_subscriptions import bound_key, put

GRANT_FIELDS: Final = """
fragment Fields on CreditGrant {
  id account key amount { amount currencyCode } quantity { quantity meter } meters priority overdraftMax effectiveAt expiresAt
  note grantedAt grantedBy voidedAt voidedBy voidReason
}
"""
PROBLEMS: Final = "... on InvalidInput { code issues { path message } } ... on Conflict { code message }"
GRANT: Final = f"""
mutation ($input: GrantCreditInput!) {{ grantCredit(input: $input) {{ __typename ...Fields {PROBLEMS} }} }} {GRANT_FIELDS}
"""
VOID_GRANT: Final = f"""
mutation ($input: VoidCreditGrantInput!) {{
  voidCreditGrant(input: $input) {{ __typename ...Fields {PROBLEMS} ... on NotFound {{ code message }} }}
}} {GRANT_FIELDS}
"""
BALANCE: Final = f"""
query ($account: String!, $at: DateTime) {{
  creditBalance(account: $account, at: $at) {{
    __typename
    ... on CreditBalance {{
      account at amounts {{ amount currencyCode }} quantities {{ meter quantity }}
      grants {{ grant {{ ...Fields }} granted drawn expired voided balance }}
    }}
    ... on NotFound {{ code message }}
    ... on InvalidInput {{ code issues {{ path message }} }}
  }}
}} {GRANT_FIELDS}
"""
LEDGER: Final = """
query ($account: String!, $first: Int! = 50, $after: String) {
  creditLedger(account: $account, first: $first, after: $after) {
    edges { cursor node { grant } }
    nodes {
      grant source target amount { amount currencyCode } quantity { meter quantity } worth { amount currencyCode } statement
      effectiveAt bookedAt bookedBy
    }
    pageInfo { hasNextPage hasPreviousPage startCursor endCursor }
  }
}
"""
NODE: Final = f"query ($id: ID!) {{ node(id: $id) {{ __typename ...Fields }} }} {GRANT_FIELDS}"
CREDITS: Final = """
query { statement(subscription: "s-1", at: "2026-03-10T00:00:00Z") { ... on Statement {
  total { amount } totalBeforeCredits { amount }
  lines { key kind description meter plan planVersion quantity amount { amount } exactAmount creditGrant period { from to } }
} } }
"""
EUROS: Final = {"amount": {"amount": "4.5", "currencyCode": "EUR"}}
DOCS: Final = Path(__file__).parents[2] / "docs"


def grant(api: Api, key: str = "welcome", credit: Any = EUROS, **fields: Any) -> Any:
    """Grant acme a credit since 2026."""
    given = {"key": key, "account": "acme", "credit": credit, "effectiveAt": "2026-01-01T01:00:00+01:00", **fields}
    return api.ask(GRANT, {"input": given})["grantCredit"]


def test_a_credit_is_granted_and_found(api: Api) -> None:
    """What is granted is shown alike by the mutation, again, its id and the balance, with every field as it was given."""
    meter(api, "calls")
    made = grant(
        api,
        credit={"amount": {"amount": "4.5", "currencyCode": "EUR", "meters": ["calls"]}},
        expiresAt="2190-01-01T00:00:00Z",
        priority=3,
        overdraftMax="1",
        note="for trying",
    )
    expected = {
        "__typename": "CreditGrant",
        "account": "acme",
        "key": "welcome",
        "amount": {"amount": "4.50", "currencyCode": "EUR"},
        "quantity": None,
        "meters": ["calls"],
        "priority": 3,
        "overdraftMax": "1.00",
        "effectiveAt": "2026-01-01T00:00:00Z",
        "expiresAt": "2190-01-01T00:00:00Z",
        "note": "for trying",
        **dict.fromkeys(("voidedAt", "voidedBy", "voidReason")),
    }
    assert expected == {name: made[name] for name in expected}
    assert made == api.ask(NODE, {"id": made["id"]})["node"]
    found = api.ask(BALANCE, {"account": "acme", "at": "2026-02-01T00:00:00Z"})["creditBalance"]
    nothing = dict.fromkeys(("drawn", "expired", "voided"), "0.00")
    shown = {name: value for name, value in made.items() if name != "__typename"}
    assert [{"grant": shown, "granted": "4.50", **nothing, "balance": "4.50"}] == found["grants"]
    assert "Conflict" == grant(api)["__typename"]


def test_a_statement_shows_what_credits_pay(api: Api) -> None:
    """Lines of kind CREDIT stand behind all others; the total is after them, and before them what charges come to."""
    sell(api)
    grant(api)
    grant(api, "calls", {"quantity": {"quantity": "1.5", "meter": "calls"}})
    found = api.ask(CREDITS)["statement"]
    lines = found["lines"]

    assert ("5.83", "10.83") == (found["total"]["amount"], found["totalBeforeCredits"]["amount"])
    assert ["RECURRING", "USAGE", "CREDIT", "CREDIT"] == [line["kind"] for line in lines]
    assert {
        "key": "credit/calls/team@1/calls/2026-03-01T00:00:00Z",
        "kind": "CREDIT",
        "description": "calls: credit calls",
        "meter": "calls",
        "plan": "team",
        "planVersion": 1,
        "quantity": "1.5",
        "amount": {"amount": "-0.50"},
        "exactAmount": "-0.5",
        "creditGrant": "calls",
        "period": {"from": "2026-03-01T00:00:00Z", "to": "2026-04-01T00:00:00Z"},
    } == lines[2]
    paid = (lines[3]["description"], lines[3]["amount"]["amount"], lines[3]["quantity"])
    assert ("base: credit welcome", "-4.50", None) == paid
    charged = api.ask(
        '{ charges(query: { period: { from: "2026-03-01T00:00:00Z", to: "2026-04-01T00:00:00Z" }, groupBy: [USER] }) '
        "{ ... on ChargesReport { totals { amount } } } }"
    )
    assert [{"amount": found["totalBeforeCredits"]["amount"]}] == charged["charges"]["totals"]


def test_the_ledger_in_pages(api: Api) -> None:
    """Every entry has the pot that gives and the one that takes, who booked it and of when it is; pages follow each other."""
    sell(api)
    grant(api, expiresAt="2026-06-01T00:00:00Z")
    grant(api, "calls", {"quantity": {"quantity": "1.5", "meter": "calls"}})
    final = ask(api, FINALIZE)
    api.ask(VOID, {"id": final["id"], "reason": "a mistake"})
    voided = api.ask(VOID_GRANT, {"input": {"account": "acme", "key": "calls", "reason": "a slip"}})["voidCreditGrant"]
    found: list[Any] = []
    after = None
    while True:
        page = api.ask(LEDGER, {"account": "acme", "first": 2, "after": after})["creditLedger"]
        assert [edge["node"]["grant"] for edge in page["edges"]] == [node["grant"] for node in page["nodes"]]
        assert (after is not None) == page["pageInfo"]["hasPreviousPage"]
        found += page["nodes"]
        after = page["pageInfo"]["endCursor"]
        if not page["pageInfo"]["hasNextPage"]:
            break

    assert "a slip" == voided["voidReason"]
    issued, drawn, back = ("ISSUED", "GRANT"), ("GRANT", "STATEMENT"), ("STATEMENT", "GRANT")
    moved = [(node["grant"], node["source"], node["target"]) for node in found]
    booked = [("calls", *drawn), ("welcome", *drawn), ("calls", *back), ("welcome", *back)]
    assert [("welcome", *issued), ("calls", *issued), *booked] == moved[:6]
    assert (
        {("welcome", "GRANT", "EXPIRED"), ("calls", "GRANT", "VOIDED")}
        >= set(moved[6:])
        >= {("calls", "GRANT", "VOIDED")}
    )
    assert {final["id"]} == {node["statement"] for node in found[2:6]}
    assert (None, {"meter": "calls", "quantity": "1.5"}, {"amount": "0.50", "currencyCode": "EUR"}) == tuple(
        found[2][name] for name in ("amount", "quantity", "worth")
    )
    assert {"2026-04-01T00:00:00Z"} == {node["effectiveAt"] for node in found[2:6]}


@pytest.mark.parametrize(
    ("credit", "fields", "paths"),
    [
        (
            {"amount": {"amount": "0.001", "currencyCode": "EUR", "meters": ["none"]}},
            {"key": "", "expiresAt": "2026-01-01T00:00:00Z", "overdraftMax": "-1"},
            ["key", "credit.amount.amount", "overdraftMax", "expiresAt", "credit.amount.meters"],
        ),
        ({"quantity": {"quantity": "0", "meter": "none"}}, {}, ["credit.quantity.quantity", "credit.quantity.meter"]),
    ],
)
def test_bad_grants(api: Api, credit: Any, fields: dict[str, Any], paths: list[str]) -> None:
    """Every fault at once, each with the path that leads to it from the argument."""
    refused = grant(api, **{"credit": credit, **fields})

    assert ("InvalidInput", "INVALID_INPUT") == (refused["__typename"], refused["code"])
    assert [f"input.{path}" for path in paths] == [".".join(issue["path"]) for issue in refused["issues"]]


def test_wrong_questions(api: Api) -> None:
    """What is no grant, no instant, no page and no cursor is refused, or not found, in the answer."""
    grant(api)
    refusals = {
        "NotFound": {"account": "acme", "key": "other", "reason": "why"},
        "InvalidInput": {"account": "acme", "key": "welcome", "reason": " "},
    }
    for kind, given in refusals.items():
        assert kind == api.ask(VOID_GRANT, {"input": given})["voidCreditGrant"]["__typename"]
    at = {"account": "acme", "at": "1066-10-14T09:00:00Z"}
    assert "InvalidInput" == api.ask(BALANCE, at)["creditBalance"]["__typename"]
    for variables in (
        {"first": 0},
        {"first": 1_001},
        {"after": "nonsense"},
        {"after": encode_cursor(["2026-01-01T00:00:00Z", False, -1])},
        {"after": encode_cursor(["9999-12-31T23:59:59-12:00", False, 1])},
    ):
        answer = api.answer(LEDGER, {"account": "acme", **variables})
        assert ["INVALID_INPUT"] == [error["extensions"]["code"] for error in answer["errors"]]
    for name in (["CreditGrant", 0], ["CreditGrant", 7], ["CreditGrant", 2**63]):
        assert None is api.ask(NODE, {"id": encode_cursor(name)})["node"]


def test_scopes_and_bound_keys(api: Api, database_url: str) -> None:
    """Granting and voiding need CHARGES_WRITE on a key for all accounts, reading CHARGES_READ; a bound key sees its own."""
    made = grant(api)
    theirs = grant(api, account="other")
    _, writer = make_key(database_url, Scope.CHARGES_WRITE)
    _, reader = make_key(database_url, Scope.CHARGES_READ)
    bound = bound_key(database_url, Scope.CHARGES_READ, Scope.CHARGES_WRITE)
    granting = {"key": "k", "account": "acme", "credit": EUROS, "effectiveAt": "2026-01-01T00:00:00Z"}
    reading = [(BALANCE, {"account": "acme"}), (LEDGER, {"account": "acme"}), (NODE, {"id": made["id"]})]
    writing = [
        (GRANT, {"input": granting}),
        (VOID_GRANT, {"input": {"account": "acme", "key": "k", "reason": "a slip"}}),
    ]

    def code(document: str, variables: Any, key: str) -> str:
        answer = api.answer(document, variables, key=key)
        return str(answer["errors"][0]["extensions"]["code"]) if "errors" in answer else "OK"

    assert {"FORBIDDEN"} == {code(*each, writer) for each in reading} == {code(*each, reader) for each in writing}
    assert {"OK"} == {code(*each, reader) for each in reading} == {code(*each, writer) for each in writing}
    assert {"FORBIDDEN"} == {code(*each, bound) for each in writing}
    assert {"OK"} == {code(*each, bound) for each in reading}
    assert "NotFound" == api.ask(BALANCE, {"account": "other"}, key=bound)["creditBalance"]["__typename"]
    assert [] == api.ask(LEDGER, {"account": "other"}, key=bound)["creditLedger"]["nodes"]
    assert None is api.ask(NODE, {"id": theirs["id"]}, key=bound)["node"]


def test_the_guide_does_what_it_shows(api: Api) -> None:
    """Every document of docs/credits.md is answered without a fault, and the example of docs/rating.md comes to what it
    says, line by line.
    """
    example = (DOCS / "rating.md").read_text(encoding="utf-8").partition("\n## Credits\n")[2].partition("\n## ")[0]
    lines = re.findall(r"^\| `([^`]+)` \| (-?[0-9.]+) \|$", example, re.MULTILINE)
    meter(api, "calls")
    calls = {"key": "calls", "meter": "calls", "price": {"perUnit": {"unitPrice": "0.01"}}}
    publish(api, {"key": "base", "price": {"flat": {"amount": "49"}}}, calls)
    put(api, key="acme-1", seats=None)
    api.send([usage_event(1, subscription="acme-1", quantity="3000")])
    documents = re.findall(r"```graphql\n(.*?)```", (DOCS / "credits.md").read_text(encoding="utf-8"), re.DOTALL)
    granting, *following = documents
    assert {"CreditGrant"} == {each["__typename"] for each in api.ask(granting).values()}
    statement = ask(api, subscription="acme-1")
    shown = [(line["description"], line["amount"]["amount"]) for line in statement["lines"]]
    assert lines == [*shown, ("total", statement["total"]["amount"])]
    balance, ledger, voided = (api.ask(document) for document in following)
    assert [{"amount": "60.00", "currencyCode": "EUR"}] == balance["creditBalance"]["amounts"]
    assert ["ISSUED", "ISSUED"] == [node["source"] for node in ledger["creditLedger"]["nodes"]]
    assert "granted twice" == voided["voidCreditGrant"]["voidReason"]
