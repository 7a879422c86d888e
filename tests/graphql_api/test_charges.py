"""`charges` through HTTP: rated amounts by any dimensions, as a client sees them."""

from decimal import Decimal
from itertools import pairwise
from typing import Any, Final

import msgspec
import pytest

from graphql_api.pages import encode_cursor
from metering.keys import Scope
from metering.limits import LIMITS
from tests.conftest import Api, make_key, running, usage_event
from tests.graphql_api.test_statements import FINALIZE, MARCH, ask, sell
from tests.graphql_api.test_subscriptions import bound_key, put

CHARGES: Final = """
query ($query: UsageQuery!, $first: Int! = 50, $after: String) {
  charges(query: $query) {
    __typename
    ... on ChargesReport {
      period { from to } groupBy asOf totals { amount currencyCode }
      groups(first: $first, after: $after) {
        edges { cursor node { key { user } } }
        nodes { key { account subscription user device product unit } totals { amount currencyCode } }
        pageInfo { hasNextPage hasPreviousPage startCursor endCursor } totalCount remainder { amount currencyCode }
      }
      unrated { unit quantity events maximum minimum distinct(dimension: USER) }
    }
    ... on InvalidInput { code issues { path message } }
    ... on TooLarge { code points maximum }
  }
}
"""


def charges(api: Api, first: int = 50, after: str | None = None, key: str | None = None, **query: Any) -> Any:
    """The charges of March, unless another period is asked for."""
    variables = {"query": {"period": MARCH, **query}, "first": first, "after": after}
    return (api.ask(CHARGES, variables) if key is None else api.ask(CHARGES, variables, key=key))["charges"]


def eur(amount: str) -> list[dict[str, str]]:
    """One amount in EUR."""
    return [{"amount": amount, "currencyCode": "EUR"}]


def test_charges_by_dimensions(api: Api) -> None:
    """What calls come to is their user's, what has no usage behind it has a null key; unrated usage is listed beside."""
    sell(api)
    report = charges(api, groupBy=["SUBSCRIPTION", "USER", "UNIT"])

    assert ("ChargesReport", MARCH, ["SUBSCRIPTION", "USER", "UNIT"]) == (
        report["__typename"],
        report["period"],
        report["groupBy"],
    )
    assert eur("10.83") == report["totals"]
    nothing = dict.fromkeys(("account", "device", "product"))
    assert [
        {"key": {**nothing, "subscription": "s-1", "user": "x", "unit": "call"}, "totals": eur("0.83")},
        {"key": {**nothing, "subscription": "s-1", "user": None, "unit": None}, "totals": eur("10.00")},
    ] == report["groups"]["nodes"]
    unrated = [{"unit": "byte", "quantity": "6", "events": "2", "maximum": "7", "minimum": "-1", "distinct": 2}]
    assert unrated == report["unrated"]
    assert ask(api)["unrated"] == report["unrated"]


def test_a_part_of_a_period(api: Api) -> None:
    """A day has its share of what is owed for time, and all of what was used on it; days side by side are the month."""
    sell(api)
    bounds = [f"2026-03-{day:02}T00:00:00Z" for day in range(1, 32)] + [MARCH["to"]]
    days = [
        charges(api, period={"from": start, "to": end}, filter={"unit": {"in": wanted}})["totals"]
        for wanted in (["call"], [None])
        for start, end in pairwise(bounds)
    ]

    assert [eur("0.83"), *[[]] * 30] == days[:31]
    assert {"0.32", "0.33"} == {day[0]["amount"] for day in days[31:]}
    assert Decimal("10.00") == sum(Decimal(day[0]["amount"]) for day in days[31:])


def test_final_statements_count_as_they_were_frozen(api: Api) -> None:
    """Late usage of a frozen month is no charge of that month; it stands where the next statement begins."""
    sell(api)
    ask(api, FINALIZE)
    api.send([usage_event(4, subscription="s-1", quantity="100", user="late")])
    april = {"from": MARCH["to"], "to": "2026-04-01T00:00:00.000001Z"}

    assert eur("10.83") == charges(api)["totals"]
    assert eur("33.30") == charges(api, period=april)["totals"]


def test_pages(api: Api) -> None:
    """Walked page by page the groups are all groups; each page and its remainder come to the totals."""
    sell(api)
    more = [usage_event(10 + number, subscription="s-1", quantity="10", user=f"u-{number}") for number in range(4)]
    api.send(more)
    report = charges(api, groupBy=["USER"])
    walked, after = [], None
    while True:
        page = charges(api, first=2, after=after, groupBy=["USER"])["groups"]
        shown = [money for node in page["nodes"] for money in node["totals"]] + page["remainder"]
        assert Decimal(report["totals"][0]["amount"]) == sum(Decimal(money["amount"]) for money in shown)
        assert (6, after is not None) == (page["totalCount"], page["pageInfo"]["hasPreviousPage"])
        assert [edge["node"]["key"]["user"] for edge in page["edges"]] == [
            node["key"]["user"] for node in page["nodes"]
        ]
        walked += page["nodes"]
        if not page["pageInfo"]["hasNextPage"]:
            break
        after = page["pageInfo"]["endCursor"]

    assert ["u-0", "u-1", "u-2", "u-3", "x", None] == [node["key"]["user"] for node in walked]
    assert report["groups"]["nodes"] == walked


@pytest.mark.parametrize(
    ("given", "path"),
    [
        ({"period": {"from": MARCH["to"], "to": MARCH["from"]}}, ["query", "period", "to"]),
        ({"timeZone": "Mars/Olympus"}, ["query", "timeZone"]),
        ({"groupBy": ["USER", "USER"]}, ["query", "groupBy"]),
        ({"filter": {"user": {"in": ["\0"]}}}, ["query", "filter", "user", "in"]),
        ({"first": 0}, ["groups", "first"]),
        ({"first": 1_001}, ["groups", "first"]),
        ({"after": "nonsense"}, ["groups", "after"]),
        ({"after": encode_cursor([["user"], ["x"]])}, ["groups", "after"]),
        ({"after": encode_cursor([["user"], ["x", "y"]]), "groupBy": ["USER"]}, ["groups", "after"]),
        ({"after": encode_cursor([["user"], ["\0"]]), "groupBy": ["USER"]}, ["groups", "after"]),
    ],
)
def test_wrong_questions(api: Api, given: dict[str, Any], path: list[str]) -> None:
    """What cannot be asked is InvalidInput, with the way to it."""
    answer = charges(api, **given)
    assert ("InvalidInput", "INVALID_INPUT") == (answer["__typename"], answer["code"])
    assert path in [issue["path"] for issue in answer["issues"]]


def test_more_groups_than_one_answer_has(database_url: str) -> None:
    """Where there are more groups than are held, the answer is TooLarge."""
    with running(database_url, msgspec.structs.replace(LIMITS, points_max=1)) as api:
        sell(api)
        answer = charges(api, groupBy=["USER"])
        assert ("TooLarge", 2, 1) == (answer["__typename"], answer["points"], answer["maximum"])
        assert eur("10.83") == charges(api)["totals"]


def test_more_shares_than_are_held(database_url: str) -> None:
    """Where the amounts of a statement are to be shared among more combinations than are held, the answer is TooLarge."""
    with running(database_url, msgspec.structs.replace(LIMITS, shares_max=1)) as api:
        sell(api)
        assert eur("10.83") == charges(api, groupBy=["USER"])["totals"]
        api.send([usage_event(9, subscription="s-1", quantity="100", user="z")])
        answer = charges(api, groupBy=["USER"])
        assert ("TooLarge", 2, 1) == (answer["__typename"], answer["points"], answer["maximum"])
        assert "ChargesReport" == charges(api, groupBy=["SUBSCRIPTION"])["__typename"]


def test_scope(api: Api, database_url: str) -> None:
    """Charges need CHARGES_READ."""
    _, reader = make_key(database_url, Scope.CHARGES_READ)
    _, other = make_key(database_url, Scope.USAGE_READ, Scope.CHARGES_WRITE)
    answer = api.answer(CHARGES, {"query": {"period": MARCH}}, key=other)

    assert ["FORBIDDEN"] == [error["extensions"]["code"] for error in answer["errors"]]
    assert [] == charges(api, key=reader)["totals"]


def test_a_bound_key_sees_its_own(api: Api, database_url: str) -> None:
    """A key that is bound to accounts has the charges and the unrated usage of these, whatever it asks for."""
    sell(api)
    put(api, key="s-2", account="other", endsAt="2026-05-01T00:00:00Z")
    api.send(
        [
            usage_event(20, account="other", subscription="s-2", quantity="100", user="z"),
            usage_event(21, account="other", subscription="s-1", quantity="100", user="z"),
            usage_event(22, account="other", subscription="s-2", quantity="5", unit="byte", user="z"),
        ]
    )
    key = bound_key(database_url, Scope.CHARGES_READ)
    everything = charges(api, groupBy=["ACCOUNT"])
    own = charges(api, groupBy=["ACCOUNT"], key=key)

    assert ["acme", "other"] == [node["key"]["account"] for node in everything["groups"]["nodes"]]
    assert [("byte", "11"), ("call", "100")] == [(each["unit"], each["quantity"]) for each in everything["unrated"]]
    assert ["acme"] == [node["key"]["account"] for node in own["groups"]["nodes"]]
    assert eur("10.83") == own["totals"]
    assert [("byte", "6", 2)] == [(each["unit"], each["quantity"], each["distinct"]) for each in own["unrated"]]
    for filter in ({"account": {"in": ["other"]}}, {"subscription": {"in": ["s-2"]}}, {"account": {"notIn": ["acme"]}}):
        answer = charges(api, groupBy=["ACCOUNT"], filter=filter, key=key)
        assert ([], [], []) == (answer["totals"], answer["groups"]["nodes"], answer["unrated"])
