"""`statement`, `statements`, `finalizeStatement` and `voidStatement` through HTTP: what is owed, as a client sees it."""

from typing import Any, Final

import pytest

from graphql_api.pages import encode_cursor
from metering.keys import Scope
from tests.conftest import Api, make_key, usage_event
from tests.graphql_api.test_plans import publish
from tests.graphql_api.test_subscriptions import bound_key, put

FIELDS: Final = """
fragment Fields on Statement {
  id account subscription period { from to } status isClosing asOf plans { key version }
  lines {
    key kind description meter plan planVersion tier period { from to } quantity unitPrice amount { amount currencyCode }
    exactAmount adjusts { from to }
  }
  total { amount currencyCode }
  unrated { unit quantity events maximum minimum distinct(dimension: USER) }
  finalizedAt finalizedBy voidedAt voidedBy voidReason evidence
}
"""
RESULT: Final = "__typename ...Fields ... on NotFound { code message } ... on Conflict { code message }"
ONE: Final = f"""
query ($subscription: String!, $at: DateTime!) {{ statement(subscription: $subscription, at: $at) {{ {RESULT} }} }}
{FIELDS}
"""
FINALIZE: Final = f"""
mutation ($subscription: String!, $at: DateTime!) {{
  finalizeStatement(subscription: $subscription, at: $at) {{ {RESULT} }}
}} {FIELDS}
"""
VOID: Final = (
    f"mutation ($id: ID!, $reason: String!) {{ voidStatement(id: $id, reason: $reason) {{ {RESULT} }} }} {FIELDS}"
)
LIST: Final = f"""
query ($filter: StatementFilter! = {{}}, $first: Int! = 50, $after: String) {{
  statements(filter: $filter, first: $first, after: $after) {{
    edges {{ cursor node {{ id }} }} nodes {{ ...Fields }} pageInfo {{ hasNextPage hasPreviousPage startCursor endCursor }}
  }}
}} {FIELDS}
"""
NODE: Final = f"query ($id: ID!) {{ node(id: $id) {{ __typename ...Fields }} }} {FIELDS}"
PUT_METER: Final = 'mutation { putMeter(input: { key: "calls", name: "Calls", unit: "call" }) { __typename } }'
MARCH: Final = {"from": "2026-03-01T00:00:00Z", "to": "2026-04-01T00:00:00Z"}


def ask(api: Api, document: str = ONE, at: str = "2026-03-10T00:00:00Z", subscription: str = "s-1", **more: Any) -> Any:
    """The statement of an instant."""
    (answer,) = api.ask(document, {"subscription": subscription, "at": at}, **more).values()
    return answer


def sell(api: Api, **fields: Any) -> None:
    """A subscription of acme for 2026 until May, to a plan with a flat price and one for each call; and usage of March."""
    api.ask(PUT_METER)
    prices = [
        {"key": "base", "price": {"flat": {"amount": "10"}}},
        {"key": "calls", "meter": "calls", "price": {"perUnit": {"unitPrice": "0.333"}}},
    ]
    publish(api, prices=prices)
    put(api, endsAt="2026-05-01T00:00:00Z", **fields)
    api.send(
        [
            usage_event(1, subscription="s-1", quantity="2.5", user="x"),
            usage_event(2, subscription="s-1", unit="byte", quantity="7", user="x"),
            usage_event(3, subscription="s-1", unit="byte", quantity="-1", user="y"),
        ]
    )


def test_a_statement_is_drafted_and_frozen(api: Api) -> None:
    """The draft shows its lines to the digit, what no price covers and what it is made of; frozen it is the same, with who
    and when, by its id too.
    """
    sell(api)
    drafted = ask(api)
    expected = {
        "__typename": "Statement",
        "account": "acme",
        "subscription": "s-1",
        "period": MARCH,
        "status": "DRAFT",
        "isClosing": False,
        "plans": [{"key": "team", "version": 1}],
        "total": {"amount": "10.83", "currencyCode": "EUR"},
        "unrated": [{"unit": "byte", "quantity": "6", "events": "2", "maximum": "7", "minimum": "-1", "distinct": 2}],
        **dict.fromkeys(("finalizedAt", "finalizedBy", "voidedAt", "voidedBy", "voidReason")),
    }
    assert expected == {name: drafted[name] for name in expected}
    assert {
        "key": "team@1/calls/units/2026-03-01T00:00:00Z",
        "kind": "USAGE",
        "description": "calls: 2.5 at 0.333",
        "meter": "calls",
        "plan": "team",
        "planVersion": 1,
        "tier": None,
        "period": MARCH,
        "quantity": "2.5",
        "unitPrice": "0.333",
        "amount": {"amount": "0.83", "currencyCode": "EUR"},
        "exactAmount": "0.8325",
        "adjusts": None,
    } == drafted["lines"][1]
    assert ["2.5"] == [figure["quantity"] for figure in drafted["evidence"]["figures"]]

    final = ask(api, FINALIZE)
    changed = {"id", "asOf", "status", "finalizedAt", "finalizedBy"}
    assert {name for name in final if final[name] != drafted[name]} == changed
    assert "FINAL" == final["status"]
    assert final == ask(api, FINALIZE, "2026-03-31T23:59:59.999999Z") == ask(api)
    assert final == api.ask(NODE, {"id": final["id"]})["node"] == api.ask(NODE, {"id": drafted["id"]})["node"]


def test_what_changes_is_adjusted_and_named(api: Api) -> None:
    """An adjustment says in fields and in words which period it makes up for; it stands in the period that carries it."""
    sell(api)
    ask(api, FINALIZE)
    api.send([usage_event(4, subscription="s-1", quantity="100")])
    (line,) = [each for each in ask(api, at="2026-04-10T00:00:00Z")["lines"] if each["kind"] == "ADJUSTMENT"]

    assert MARCH == line["adjusts"]
    assert "2026-04-01T00:00:00Z" == line["period"]["from"]
    assert "calls: adjustment of 2026-03-01T00:00:00Z to 2026-04-01T00:00:00Z" == line["description"]
    assert {"amount": "33.30", "currencyCode": "EUR"} == line["amount"]


def test_a_statement_is_voided(api: Api) -> None:
    """With a reason a final statement is taken back, and stays by its id; what is no final statement's id is not."""
    sell(api)
    final = ask(api, FINALIZE)
    voided = api.ask(VOID, {"id": final["id"], "reason": "wrong price"})["voidStatement"]
    draft = ask(api)

    assert ("VOID", "wrong price", final["id"]) == (voided["status"], voided["voidReason"], voided["id"])
    assert voided == {"__typename": "Statement", **api.ask(NODE, {"id": final["id"]})["node"]}
    assert "DRAFT" == draft["status"]
    results = {}
    for name, id in {
        "again": final["id"],
        "draft": draft["id"],
        "other": encode_cursor(["Meter", "calls"]),
        "": "",
    }.items():
        result = api.ask(VOID, {"id": id, "reason": "again"})["voidStatement"]
        results[name] = (result["__typename"], result["code"])
    conflict, missing = ("Conflict", "CONFLICT"), ("NotFound", "NOT_FOUND")
    assert {"again": conflict, "draft": conflict, "other": missing, "": missing} == results
    refused = api.answer(VOID, {"id": final["id"], "reason": " "})
    assert ["INVALID_INPUT"] == [error["extensions"]["code"] for error in refused["errors"]]


def test_where_there_is_none(api: Api) -> None:
    """A subscription that is not there, and instants outside of it, are NotFound; an instant of no calendar is refused."""
    sell(api)
    for document in (ONE, FINALIZE):
        for subscription, at in (
            ("nobody", "2026-03-10T00:00:00Z"),
            ("s-1", "2025-12-31T23:59:59Z"),
            ("s-1", "2026-05-01T00:00:00Z"),
        ):
            assert "NotFound" == ask(api, document, at, subscription)["__typename"]
        answer = api.answer(document, {"subscription": "s-1", "at": "1066-10-14T09:00:00Z"})
        assert ["INVALID_INPUT"] == [error["extensions"]["code"] for error in answer["errors"]]


def test_a_period_that_is_not_over_is_a_conflict(api: Api) -> None:
    """What still runs, or is to come, is drafted and not frozen."""
    api.ask(PUT_METER)
    publish(api, prices=[{"key": "base", "price": {"flat": {"amount": "10"}}}])
    put(api)
    answer = ask(api, FINALIZE, "2150-01-01T00:00:00Z")

    assert ("Conflict", "CONFLICT") == (answer["__typename"], answer["code"])
    assert "10.00" == ask(api, at="2150-01-01T00:00:00Z")["total"]["amount"]


def listed(api: Api, **variables: Any) -> list[tuple[str, str, str]]:
    """What a list has, walked in pages of two: subscription, month and status; each cursor is that of its node."""
    found: list[tuple[str, str, str]] = []
    after = None
    while True:
        page = api.ask(LIST, {**variables, "first": 2, "after": after})["statements"]
        assert [edge["node"]["id"] for edge in page["edges"]] == [node["id"] for node in page["nodes"]]
        assert (after is not None) == page["pageInfo"]["hasPreviousPage"]
        found += [(node["subscription"], node["period"]["from"][5:7], node["status"]) for node in page["nodes"]]
        if not page["pageInfo"]["hasNextPage"]:
            return found
        after = page["pageInfo"]["endCursor"]


def test_statements_are_listed_and_filtered(api: Api) -> None:
    """By account, subscription, status and period, and all of these together."""
    sell(api)
    put(api, key="s-2", account="other", startsAt="2026-03-16T00:00:00Z", endsAt="2026-04-16T00:00:00Z")
    ask(api, FINALIZE)
    january = ask(api, FINALIZE, "2026-01-10T00:00:00Z")
    api.ask(VOID, {"id": january["id"], "reason": "a mistake"})

    first = [("s-1", "01", "DRAFT"), ("s-1", "01", "VOID"), ("s-1", "02", "DRAFT"), ("s-1", "03", "FINAL")]
    ours, theirs = [*first, ("s-1", "04", "DRAFT")], [("s-2", "03", "DRAFT")]
    # After its end, what s-1 used in March under no price is March's; nothing came after.
    assert [*ours, *theirs] == listed(api)
    assert theirs == listed(api, filter={"account": "other"}) == listed(api, filter={"subscription": "s-2"})
    assert [ours[3]] == listed(api, filter={"status": "FINAL"})
    assert [ours[1]] == listed(api, filter={"status": "VOID", "account": "acme"})
    assert [ours[3], *theirs] == listed(api, filter={"period": MARCH})
    assert theirs == listed(api, filter={"period": MARCH, "status": "DRAFT", "account": "other", "subscription": None})
    assert [] == listed(api, filter={"account": "nobody"}) == listed(api, filter={"subscription": "\0"})


@pytest.mark.parametrize(
    "variables",
    [
        {"first": 0},
        {"first": 1_001},
        {"filter": {"period": {"from": MARCH["to"], "to": MARCH["from"]}}},
        {"after": "nonsense"},
        {"after": encode_cursor(["s-1", "2026-03-01T00:00:00Z", -1])},
        {"after": encode_cursor(["s-1", "2026-03-01T00:00:00", 0])},
        {"after": encode_cursor(["s-1", "0001-01-01T00:00:00+14:00", 0])},
        {"after": encode_cursor(["s\0", "2026-03-01T00:00:00Z", 0])},
    ],
)
def test_wrong_questions(api: Api, variables: dict[str, Any]) -> None:
    """A page size, a period or a cursor that cannot be is INVALID_INPUT."""
    answer = api.answer(LIST, variables)
    assert ["INVALID_INPUT"] == [error["extensions"]["code"] for error in answer["errors"]]


def test_ids_that_nobody_handed_out(api: Api) -> None:
    """An id of a statement that is not there, or of an instant that is none, leads to nothing."""
    sell(api)
    for name in (
        ["Statement", 0],
        ["Statement", 7],
        ["Statement", 2**63],
        ["DraftStatement", "nobody", "2026-03-01T00:00:00Z"],
        ["DraftStatement", "s-1", "1066-10-14T09:00:00Z"],
        ["DraftStatement", "s-1", "9999-12-31T23:59:59-12:00"],
    ):
        assert None is api.ask(NODE, {"id": encode_cursor(name)})["node"], name


def test_scopes(api: Api, database_url: str) -> None:
    """Reading needs CHARGES_READ, freezing and voiding CHARGES_WRITE, by id too."""
    sell(api)
    final = ask(api, FINALIZE)
    _, writer = make_key(database_url, Scope.CHARGES_WRITE)
    _, reader = make_key(database_url, Scope.CHARGES_READ)
    asked = {"subscription": "s-1", "at": "2026-03-10T00:00:00Z"}
    voiding = {"id": final["id"], "reason": "a test"}

    def code(document: str, variables: Any, key: str) -> str:
        answer = api.answer(document, variables, key=key)
        return str(answer["errors"][0]["extensions"]["code"]) if "errors" in answer else "OK"

    reading = [(ONE, asked), (LIST, {}), (NODE, {"id": final["id"]})]
    writing = [(FINALIZE, asked), (VOID, voiding)]
    assert {"FORBIDDEN"} == {code(*each, writer) for each in reading} == {code(*each, reader) for each in writing}
    assert {"OK"} == {code(*each, reader) for each in reading} == {code(*each, writer) for each in writing}


def test_a_bound_key_sees_its_own(api: Api, database_url: str) -> None:
    """A key that is bound to accounts finds, lists, freezes and voids statements of these, and no others, by no way."""
    sell(api)
    put(api, key="s-2", account="other", endsAt="2026-05-01T00:00:00Z")
    theirs = ask(api, FINALIZE, subscription="s-2")
    draft = ask(api, at="2026-04-10T00:00:00Z", subscription="s-2")
    key = bound_key(database_url, Scope.CHARGES_READ, Scope.CHARGES_WRITE)

    for document in (ONE, FINALIZE):
        assert "NotFound" == ask(api, document, subscription="s-2", key=key)["__typename"]
    for id in (theirs["id"], draft["id"]):
        assert None is api.ask(NODE, {"id": id}, key=key)["node"]
    voiding = api.ask(VOID, {"id": theirs["id"], "reason": "not mine"}, key=key)["voidStatement"]
    assert "NotFound" == voiding["__typename"]
    nodes = api.ask(LIST, key=key)["statements"]["nodes"]
    assert {"s-1"} == {node["subscription"] for node in nodes}
    assert [] == api.ask(LIST, {"filter": {"account": "other"}}, key=key)["statements"]["nodes"]
    finals = api.ask(LIST, {"filter": {"status": "FINAL"}}, key=key)["statements"]["nodes"]
    assert [] == finals
    own = ask(api, FINALIZE, key=key)
    assert "VOID" == api.ask(VOID, {"id": own["id"], "reason": "mine"}, key=key)["voidStatement"]["status"]
