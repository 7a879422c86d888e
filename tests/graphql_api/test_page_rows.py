"""Rows of all pages of one operation: how many are asked for is known before any is read, and bounded."""

from collections.abc import Iterator
from typing import Any, Final

import pytest
from graphql import GraphQLInterfaceType, GraphQLObjectType, get_named_type, parse, validate

from graphql_api.page_rows import pages_of, rows_asked
from graphql_api.schema import make_schema
from metering.limits import LIMITS, Limits
from tests.conftest import ENGINES, Api, Server, running

SCHEMA: Final = make_schema().core
USERS: Final = "users(first: 5) { nodes { key } }"
REFUSED: Final = {"code": "OPERATION_TOO_LARGE", "limit": "graphql_rows_max", "maximum": 60}


@pytest.mark.parametrize(
    ("rows", "document", "variables"),
    [
        pytest.param(0, '{ service { status } account(key: "a") { key } __typename }', {}, id="no page"),
        pytest.param(50, "{ accounts { totalCount } }", {}, id="the default of the argument"),
        pytest.param(7, "query ($n: Int!) { meters(first: $n) { nodes { key } } }", {"n": 7}, id="a variable"),
        pytest.param(7, "query ($n: Int!) { meters(first: $n) { nodes { key } } }", {"n": 7.0}, id="as a float"),
        pytest.param(9, "query ($n: Int! = 9) { meters(first: $n) { nodes { key } } }", {}, id="a variable's default"),
        pytest.param(0, "query ($n: Int!) { meters(first: $n) { nodes { key } } }", {"n": "7"}, id="no number"),
        pytest.param(10 * 6, f"{{ accounts(first: 10) {{ nodes {{ {USERS} }} }} }}", {}, id="a page of each row"),
        pytest.param(5, f'{{ account(key: "a") {{ {USERS} }} }}', {}, id="a page of one object"),
        pytest.param(5, f'{{ node(id: "a") {{ ... on Account {{ {USERS} }} }} }}', {}, id="of one type of several"),
        pytest.param(
            10 + 2 * 50,
            f"{{ accounts(first: 10) {{ nodes {{ {USERS} }} edges {{ node {{ {USERS} }} }} }} }}",
            {},
            id="by two ways to a row",
        ),
        pytest.param(
            10 * 6,
            "{ accounts(first: 10) { nodes { ...U } } ...R } fragment U on Account { users(first: 5) { totalCount } } "
            "fragment R on Query { accounts(first: 10) { nodes { ...U users(first: 5) { nodes { key } } } } }",
            {},
            id="twice in one place is once",
        ),
        pytest.param(
            2 * 60,
            f"{{ a: accounts(first: 10) {{ nodes {{ {USERS} }} }} b: accounts(first: 10) {{ nodes {{ {USERS} }} }} }}",
            {},
            id="by two aliases",
        ),
        pytest.param(
            20,
            f"query ($id: ID = 1{'0' * 5_000}) {{ meters(first: 20) {{ nodes {{ key }} }} node(id: $id) {{ id }} }}",
            {},
            id="a default of many digits",
        ),
    ],
)  # fmt: skip
def test_rows_are_counted(rows: int, document: str, variables: dict[str, Any]) -> None:
    """Whatever way leads to a page, it counts once for each row around it."""
    parsed = parse(document)
    assert [] == validate(SCHEMA, parsed)

    (pages,) = pages_of(parsed, SCHEMA).values()
    assert rows == rows_asked(pages, variables)


def test_every_list_in_pages_says_how_many_rows() -> None:
    """A field that answers a page has the argument `first`, with a default: so none goes uncounted, a new one neither."""
    silent = [
        f"{kind.name}.{name}"
        for kind in SCHEMA.type_map.values()
        if isinstance(kind, GraphQLObjectType | GraphQLInterfaceType)
        for name, field in kind.fields.items()
        if get_named_type(field.type).name.endswith("Connection")
        and not isinstance(getattr(field.args.get("first"), "default_value", None), int)
    ]

    assert [] == silent


@pytest.fixture(scope="module")
def web(servers: dict[str, Server]) -> Iterator[Api]:
    """The service with few rows, for tests that leave nothing behind."""
    with servers[ENGINES[0]].cloned() as url, running(url, Limits(graphql_rows_max=60)) as api:
        yield api


def test_an_operation_of_too_many_rows_is_refused(web: Api) -> None:
    """Right at the bound it is answered; beyond it nothing is executed, whatever there is, and the answer names the limit."""
    nested = "query ($n: Int!) { accounts(first: 10) { nodes { users(first: $n) { nodes { key } } } } }"
    kept, beyond = web.answer(nested, {"n": 5}), web.answer(nested, {"n": 6})
    others = "query A { meters(first: 60) { nodes { key } } } query B { meters(first: 61) { nodes { key } } }"
    named = [web.client.post("/graphql", json={"query": others, "operationName": name}).json() for name in ("A", "B")]

    assert [] == kept["data"]["accounts"]["nodes"]
    assert {"errors"} == beyond.keys()
    assert REFUSED == beyond["errors"][0]["extensions"]
    assert "60 rows" in beyond["errors"][0]["message"]
    assert "70" in beyond["errors"][0]["message"]
    # Who sent no key may not list meters, and was asked for one only where the rows are few enough.
    codes = [each["errors"][0]["extensions"]["code"] for each in named]
    assert ["UNAUTHENTICATED", "OPERATION_TOO_LARGE"] == codes


def test_every_single_page_keeps_the_bound() -> None:
    """What one page may have is well within what an operation may: the bound is of pages together."""
    assert LIMITS.page_rows_max * 10 <= LIMITS.graphql_rows_max
