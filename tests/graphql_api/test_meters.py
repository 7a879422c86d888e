"""`putMeter`, `meters`, `meter` and `node` through HTTP: the catalog of meters as a client sees it."""

import re
from pathlib import Path
from typing import Any, Final

from graphql import build_schema, parse, validate

from graphql_api.pages import encode_cursor
from graphql_api.schema import sdl
from metering.aggregations import TRAITS
from tests.conftest import Api

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
LIST: Final = f"query {{ meters {{ nodes {{ ...Fields }} }} }} {FIELDS}"
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
