"""`putMeter`, `meters`, `meter` and `node` through HTTP: the catalog of meters as a client sees it."""

import re
from pathlib import Path
from typing import Any, Final

import pytest
from graphql import build_schema, parse, validate

from graphql_api.pages import encode_cursor
from graphql_api.schema import sdl
from metering.aggregations import TRAITS
from metering.keys import Scope
from tests.conftest import Api, make_key

FIELDS: Final = (
    "fragment Fields on Meter { id key name unit aggregation distinct filter rounding { mode step } createdAt }"
)
PUT: Final = f"""
mutation ($input: PutMeterInput!) {{
  putMeter(input: $input) {{
    __typename
    ...Fields
    ... on InvalidInput {{ code issues {{ path message }} }}
    ... on Conflict {{ code message }}
  }}
}}
{FIELDS}
"""
LIST: Final = f"""
query ($first: Int! = 50, $after: String) {{
  meters(first: $first, after: $after) {{
    edges {{ cursor node {{ id }} }}
    nodes {{ ...Fields }}
    pageInfo {{ hasNextPage hasPreviousPage startCursor endCursor }}
  }}
}}
{FIELDS}
"""
ONE: Final = f"query ($key: String!) {{ meter(key: $key) {{ ...Fields }} }} {FIELDS}"
NODE: Final = f"query ($id: ID!) {{ node(id: $id) {{ __typename ...Fields }} }} {FIELDS}"


GUIDE: Final = (Path(__file__).parents[2] / "docs" / "meters.md").read_text(encoding="utf-8")


def put(api: Api, **fields: Any) -> Any:
    """Put a meter with these fields instead of the usual ones."""
    given = {"key": "calls", "name": "Calls", "unit": "call", **fields}
    return api.ask(PUT, {"input": given})["putMeter"]


def test_a_meter_is_put_and_found(api: Api) -> None:
    """What is put is shown alike by the mutation, the list, its key and its id, with exact decimals and its own filter."""
    made = put(
        api,
        key="users",
        unit="user",
        aggregation="UNIQUE_COUNT",
        distinct="USER",
        filter={"product": {"in": ["maps", "mail", "maps"]}, "feature": {"notIn": [None]}, "unit": None},
        rounding={"mode": "HALF_EVEN", "step": "0.50"},
    )
    expected = {
        "key": "users",
        "name": "Calls",
        "unit": "user",
        "aggregation": "UNIQUE_COUNT",
        "distinct": "USER",
        "filter": {"product": {"in": ["mail", "maps"]}, "feature": {"notIn": [None]}},
        "rounding": {"mode": "HALF_EVEN", "step": "0.5"},
    }

    assert "Meter" == made.pop("__typename")
    assert expected == {name: made[name] for name in expected}
    assert made["createdAt"].endswith("Z")
    assert made == api.ask(ONE, {"key": "users"})["meter"]
    assert [made] == api.ask(LIST)["meters"]["nodes"]
    assert {"__typename": "Meter", **made} == api.ask(NODE, {"id": made["id"]})["node"]
    assert None is api.ask(ONE, {"key": "nobody"})["meter"]
    assert None is api.ask(NODE, {"id": encode_cursor(["Meter", "nobody"])})["node"]


def test_a_meter_is_a_sum_of_everything_unless_told_otherwise(api: Api) -> None:
    """Left out or null, a meter is a SUM without filter and rounding, that counts no values."""
    made = put(api)
    nulls = put(api, distinct=None, rounding=None, filter={"product": None})

    expected = {"aggregation": "SUM", "distinct": None, "filter": {}, "rounding": None}
    assert expected == {name: made[name] for name in expected}
    assert made == nulls


def test_putting_again_renames_or_conflicts(api: Api) -> None:
    """The same meter again is the same; another name is taken; another content is a Conflict, and changes nothing."""
    made = put(api)
    renamed = put(api, name="Requests")
    conflict = put(api, name="Bytes", unit="byte")

    assert made == put(api)
    assert {**made, "name": "Requests"} == renamed
    assert ("Conflict", "CONFLICT") == (conflict["__typename"], conflict["code"])
    assert "another unit" in conflict["message"]
    assert "Calls" == api.ask(ONE, {"key": "calls"})["meter"]["name"]


def test_every_fault_of_a_meter_is_told_with_its_path(api: Api) -> None:
    """A meter that cannot be is InvalidInput with all that is wrong; the paths lead from the argument."""
    refused = put(
        api,
        key="API calls",
        distinct="USER",
        filter={"unit": {"in": ["call", "byte"]}, "feature": {"notIn": []}},
        rounding={"mode": "UP", "step": "0"},
    )

    assert ("InvalidInput", "INVALID_INPUT") == (refused["__typename"], refused["code"])
    assert all(issue["message"] for issue in refused["issues"])
    assert [
        ["input", "key"],
        ["input", "distinct"],
        ["input", "filter", "feature", "notIn"],
        ["input", "filter", "unit", "in"],
        ["input", "rounding", "step"],
    ] == [issue["path"] for issue in refused["issues"]]
    assert [] == api.ask(LIST)["meters"]["nodes"]


def test_meters_come_in_pages(api: Api) -> None:
    """Pages of any size follow each other by key; a cursor is where a page ends; an empty list is a page, too."""
    nothing = {"hasNextPage": False, "hasPreviousPage": False, "startCursor": None, "endCursor": None}
    assert {"edges": [], "nodes": [], "pageInfo": nothing} == api.ask(LIST)["meters"]
    for key in ("c", "a", "b", "e", "d"):
        put(api, key=key)
    shown, after = [], None
    for has_next in (True, True, False):
        page = api.ask(LIST, {"first": 2, "after": after})["meters"]
        shown += [node["key"] for node in page["nodes"]]
        cursors = [edge["cursor"] for edge in page["edges"]]
        assert [node["id"] for node in page["nodes"]] == [edge["node"]["id"] for edge in page["edges"]]
        info = {"hasNextPage": has_next, "hasPreviousPage": after is not None}
        assert {**info, "startCursor": cursors[0], "endCursor": cursors[-1]} == page["pageInfo"]
        after = cursors[-1]

    assert ["a", "b", "c", "d", "e"] == shown


@pytest.mark.parametrize(
    "arguments", [{"first": 0}, {"first": 1_001}, {"after": "nonsense"}, {"after": encode_cursor(["a\0"])}]
)
def test_pages_that_cannot_be_are_refused(api: Api, arguments: dict[str, Any]) -> None:
    """A size that may not be asked for, or a cursor that is none, is told by its path."""
    (error,) = api.answer(LIST, arguments)["errors"]

    assert "INVALID_INPUT" == error["extensions"]["code"]
    assert [[*arguments]] == [list(issue["path"]) for issue in error["extensions"]["issues"]]


@pytest.mark.parametrize(
    ("scope", "allowed"),
    [
        (Scope.CATALOG_READ, {"read"}),
        (Scope.CATALOG_WRITE, {"write"}),
        (Scope.USAGE_READ, set()),
        (Scope.ADMIN, {"read", "write"}),
    ],
)
def test_the_catalog_has_scopes_of_its_own(api: Api, database_url: str, scope: Scope, allowed: set[str]) -> None:
    """Meters are read with CATALOG_READ and put with CATALOG_WRITE; by id, too, and with no other scope."""
    meter_id = put(api)["id"]
    _, secret = make_key(database_url, scope)
    asked = [(ONE, {"key": "calls"}), (LIST, {}), (NODE, {"id": meter_id})]

    for document, variables in asked:
        assert ("read" in allowed) == ("errors" not in api.answer(document, variables, key=secret)), document
    given = {"key": "calls", "name": "Calls", "unit": "call"}
    answer = api.answer(PUT, {"input": given}, key=secret)
    assert ("write" in allowed) == ("errors" not in answer)
    if "write" not in allowed:
        assert "FORBIDDEN" == answer["errors"][0]["extensions"]["code"]


def test_the_guide_says_what_the_schema_says() -> None:
    """Every document in docs/meters.md is valid, and its table has each aggregation with what holds for it."""
    schema = build_schema(sdl())
    documents = re.findall(r"```graphql\n(.*?)```", GUIDE, re.DOTALL)
    rows = re.findall(r"^\| `([A-Z_]+)` \| [^|]+ \| (\w+) \| ([^|]+) \| (yes|no)\b", GUIDE, re.MULTILINE)

    assert [[], []] == [validate(schema, parse(document)) for document in documents]
    said = {name: (nothing == "0", basis == "rollups", adds == "yes") for name, nothing, basis, adds in rows}
    assert said == {
        aggregation.value: (traits.of_nothing is not None, traits.from_rollups, traits.adds_up)
        for aggregation, traits in TRAITS.items()
    }
