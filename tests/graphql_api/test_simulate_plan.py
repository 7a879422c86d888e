"""`simulatePlan` through HTTP: who would pay more, and who less, as a client sees it."""

from decimal import Decimal
from typing import Any, Final

import msgspec
import pytest

from graphql_api.pages import encode_cursor
from metering.keys import Scope
from metering.limits import LIMITS
from tests.conftest import Api, make_key, running, usage_event
from tests.graphql_api.test_plans import publish
from tests.graphql_api.test_statements import MARCH, sell
from tests.graphql_api.test_subscriptions import bound_key, put

SIMULATE: Final = """
query ($input: SimulatePlanInput!, $first: Int! = 50, $after: String) {
  simulatePlan(input: $input) {
    __typename
    ... on PlanSimulation {
      period { from to } asOf current { amount currencyCode } simulated { amount currencyCode }
      paysMore paysLess unchanged otherCurrency
      users { weight users current { amount currencyCode } simulated { amount } paysMore paysLess unchanged }
      rows(first: $first, after: $after) {
        edges { cursor node { subscription } }
        nodes { account subscription user weight current { amount } simulated { amount } difference { amount currencyCode } }
        pageInfo { hasNextPage hasPreviousPage startCursor endCursor } totalCount
      }
    }
    ... on InvalidInput { code issues { path message } }
    ... on NotFound { code message }
    ... on TooLarge { code points maximum message }
  }
}
"""
PRICES: Final = [
    {"key": "base", "price": {"flat": {"amount": "8"}}},
    {"key": "calls", "meter": "calls", "price": {"perUnit": {"unitPrice": "0.5"}}},
]
DRAFT: Final = {
    "key": "",
    "name": "Lean",
    "currencyCode": "EUR",
    "effectiveFrom": "1800-01-01T00:00:00Z",
    "prices": PRICES,
}


def simulate(api: Api, first: int = 50, after: str | None = None, key: str | None = None, **given: Any) -> Any:
    """What March would be under the draft, unless something else is asked for."""
    named = {} if "plan" in given or "draft" in given else {"draft": DRAFT}
    variables = {"input": {"period": MARCH, **named, **given}, "first": first, "after": after}
    return (api.ask(SIMULATE, variables) if key is None else api.ask(SIMULATE, variables, key=key))["simulatePlan"]


def eur(amount: str) -> list[dict[str, str]]:
    """One amount in EUR."""
    return [{"amount": amount, "currencyCode": "EUR"}]


def crowd(api: Api) -> None:
    """The subscription of acme with 2.5 calls, one of beta with 100, one of gamma with none, and one in JPY."""
    sell(api)
    publish(api, key="yen", currencyCode="JPY")
    for number, (account, plan) in enumerate((("beta", "team"), ("gamma", "team"), ("delta", "yen")), 2):
        put(api, key=f"s-{number}", account=account, plan=plan, endsAt="2026-05-01T00:00:00Z")
    used = [("x", "80"), ("y", "15"), (None, "5")]
    api.send(
        [
            usage_event(20 + number, account="beta", subscription="s-2", quantity=quantity, user=user)
            for number, (user, quantity) in enumerate(used)
        ]
    )


def test_who_would_pay_more(api: Api) -> None:
    """Sums, counts and rows of a draft and of the same plan published; the biggest difference first, whichever way."""
    crowd(api)
    found = simulate(api)

    # 10.83, 43.30 and 10.00 now; 9.25, 58.00 and 8.00 then.
    assert ("PlanSimulation", MARCH, 1) == (found["__typename"], found["period"], found["otherCurrency"])
    assert (eur("64.13"), eur("75.25")) == (found["current"], found["simulated"])
    assert (1, 2, 0) == (found["paysMore"], found["paysLess"], found["unchanged"])
    rows = [("s-2", "43.30", "58.00", "14.70"), ("s-3", "10.00", "8.00", "-2.00"), ("s-1", "10.83", "9.25", "-1.58")]
    assert rows == [
        (row["subscription"], *(row[side]["amount"] for side in ("current", "simulated", "difference")))
        for row in found["rows"]["nodes"]
    ]
    assert {(None, None)} == {(row["user"], row["weight"]) for row in found["rows"]["nodes"]}
    assert [] == found["users"]
    publish(api, key="lean", prices=PRICES)
    publish(api, key="lean", name="Newer")
    for given in ({"plan": "lean", "version": 1}, {"draft": {**DRAFT, "key": "team", "dryRun": True}}):
        again = simulate(api, **given)
        assert {**found, "asOf": again["asOf"]} == again
    assert (0, 3, 0) == tuple(simulate(api, plan="team")[name] for name in ("paysMore", "unchanged", "paysLess"))
    assert eur("147.00") == simulate(api, plan="lean")["simulated"]


def test_by_user(api: Api) -> None:
    """Split by user, rows add up to what they add up to without, light and heavy users have sums of their own."""
    crowd(api)
    found = simulate(api, byUser=True, account="beta")

    assert [
        ("x", "HEAVY", "26.64", "40.00"),
        ("y", "LIGHT", "4.99", "7.50"),
        (None, None, "11.67", "10.50"),
    ] == [
        (row["user"], row["weight"], row["current"]["amount"], row["simulated"]["amount"])
        for row in found["rows"]["nodes"]
    ]
    assert (eur("43.30"), eur("58.00"), 1, 0, 0) == tuple(
        found[name] for name in ("current", "simulated", "paysMore", "paysLess", "unchanged")
    )
    nobody = {"paysLess": 0, "unchanged": 0}
    assert [
        {
            "weight": "LIGHT",
            "users": 1,
            "current": eur("4.99"),
            "simulated": [{"amount": "7.50"}],
            "paysMore": 1,
            **nobody,
        },
        {
            "weight": "HEAVY",
            "users": 1,
            "current": eur("26.64"),
            "simulated": [{"amount": "40.00"}],
            "paysMore": 1,
            **nobody,
        },
    ] == found["users"]
    everybody = simulate(api, byUser=True)
    assert (3, 6) == (everybody["paysMore"] + everybody["paysLess"], everybody["rows"]["totalCount"])


@pytest.mark.parametrize("by_user", [False, True])
def test_pages(api: Api, *, by_user: bool) -> None:
    """Walked page by page the rows are all rows, and add up to the sums; two pages of one question too."""
    crowd(api)
    whole = simulate(api, byUser=by_user)
    walked, after = [], None
    while True:
        page = simulate(api, first=2, after=after, byUser=by_user)["rows"]
        assert whole["rows"]["totalCount"] == page["totalCount"]
        assert [edge["node"]["subscription"] for edge in page["edges"]] == [
            node["subscription"] for node in page["nodes"]
        ]
        assert (after is not None) == page["pageInfo"]["hasPreviousPage"]
        walked += page["nodes"]
        if not page["pageInfo"]["hasNextPage"]:
            break
        after = page["pageInfo"]["endCursor"]

    assert whole["rows"]["nodes"] == walked
    for side in ("current", "simulated"):
        assert Decimal(whole[side][0]["amount"]) == sum(Decimal(row[side]["amount"]) for row in walked)
    document = """query ($input: SimulatePlanInput!, $after: String!) { simulatePlan(input: $input) { ... on PlanSimulation {
        one: rows(first: 1) { nodes { subscription } } ...Rest
    } } } fragment Rest on PlanSimulation { rest: rows(after: $after) { nodes { subscription } } }"""
    first = simulate(api, first=1, byUser=by_user)["rows"]["pageInfo"]["endCursor"]
    both = api.ask(document, {"input": {"period": MARCH, "draft": DRAFT, "byUser": by_user}, "after": first})[
        "simulatePlan"
    ]
    assert [row["subscription"] for row in walked] == [
        row["subscription"] for row in [*both["one"]["nodes"], *both["rest"]["nodes"]]
    ]


@pytest.mark.parametrize(
    ("given", "path"),
    [
        ({"period": {"from": MARCH["to"], "to": MARCH["from"]}}, ["input", "period", "to"]),
        ({"period": {"from": MARCH["from"], "to": "2027-04-01T00:00:00Z"}}, ["input", "period"]),
        ({"plan": None}, ["input", "plan"]),
        ({"plan": "team", "draft": DRAFT}, ["input", "draft"]),
        ({"version": 1}, ["input", "version"]),
        ({"plan": "team", "version": 0}, ["input", "version"]),
        ({"plan": "yen"}, ["input", "plan"]),
        ({"draft": {**DRAFT, "currencyCode": "USD"}}, ["input", "draft", "currencyCode"]),
        ({"draft": {**DRAFT, "currencyCode": "XAU"}}, ["input", "draft", "currencyCode"]),
        ({"draft": {**DRAFT, "prices": [*PRICES, PRICES[0]]}}, ["input", "draft", "prices", "2", "key"]),
        ({"first": 0}, ["rows", "first"]),
        ({"first": 1_001}, ["rows", "first"]),
        ({"after": "nonsense"}, ["rows", "after"]),
        ({"after": encode_cursor(["-1.00", "s-1", None])}, ["rows", "after"]),
        ({"after": encode_cursor(["1.00", "\0", None])}, ["rows", "after"]),
        ({"after": encode_cursor(["1e9", "s-1", None])}, ["rows", "after"]),
    ],
)
def test_wrong_questions(api: Api, given: dict[str, Any], path: list[str]) -> None:
    """What cannot be simulated is InvalidInput, with the way to it."""
    sell(api)
    publish(api, key="yen", currencyCode="JPY")
    answer = simulate(api, **given)
    assert ("InvalidInput", "INVALID_INPUT") == (answer["__typename"], answer["code"])
    assert path in [issue["path"] for issue in answer["issues"]]


def test_all_faults_at_once(api: Api) -> None:
    """Faults of the draft and of the period are named together; of its key and its beginning there are none."""
    sell(api)
    prices = [{"key": "", "meter": "absent", "price": {"perUnit": {"unitPrice": "-1"}}}]
    period = {"from": MARCH["to"], "to": MARCH["from"]}
    answer = simulate(api, draft={**DRAFT, "currencyCode": "XAU", "prices": prices}, period=period)
    below = ["input", "draft", "prices", "0"]

    assert [
        ["input", "draft", "currencyCode"],
        [*below, "key"],
        [*below, "meter"],
        [*below, "price", "perUnit", "unitPrice"],
        ["input", "period", "to"],
    ] == sorted(issue["path"] for issue in answer["issues"])


def test_no_such_plan(api: Api) -> None:
    """A plan, or a version, that is not there is NotFound."""
    sell(api)
    for given, message in (
        ({"plan": "absent"}, "There is no plan 'absent'; publish it first, or give a draft."),
        ({"plan": "team", "version": 7}, "There is no version 7 of the plan 'team'; its newest is 1."),
    ):
        answer = simulate(api, **given)
        assert ("NotFound", "NOT_FOUND", message) == (answer["__typename"], answer["code"], answer["message"])


def test_more_than_one_answer_has_time_for(database_url: str) -> None:
    """More subscriptions than one answer has time for are TooLarge; one account's are answered."""
    with running(database_url, msgspec.structs.replace(LIMITS, simulation_subscriptions_max=2)) as api:
        crowd(api)
        answer = simulate(api)
        assert ("TooLarge", 3, 2) == (answer["__typename"], answer["points"], answer["maximum"])
        assert "metering simulate" in answer["message"]
        assert ["s-2"] == [row["subscription"] for row in simulate(api, account="beta")["rows"]["nodes"]]


def test_scope_and_accounts(api: Api, database_url: str) -> None:
    """Simulations need CHARGES_READ; a key that is bound to accounts has those of these, whatever it asks for."""
    crowd(api)
    _, other = make_key(database_url, Scope.USAGE_READ, Scope.CHARGES_WRITE)
    answer = api.answer(SIMULATE, {"input": {"period": MARCH, "draft": DRAFT}}, key=other)
    assert ["FORBIDDEN"] == [error["extensions"]["code"] for error in answer["errors"]]
    own = bound_key(database_url, Scope.CHARGES_READ)

    found = simulate(api, key=own)
    assert (["s-1"], 0) == ([row["subscription"] for row in found["rows"]["nodes"]], found["otherCurrency"])
    assert (eur("10.83"), eur("9.25")) == (found["current"], found["simulated"])
    foreign = simulate(api, key=own, account="beta")
    assert ([], [], 0) == (foreign["current"], foreign["rows"]["nodes"], foreign["rows"]["totalCount"])
