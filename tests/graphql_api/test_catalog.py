"""What holds for `meters` as for `plans` through HTTP: their lists come in pages, and who may read and write them."""

from collections.abc import Callable
from typing import Any, Final, NamedTuple

import pytest

from graphql_api.pages import encode_cursor
from metering.keys import Scope
from tests.conftest import Api, make_key
from tests.graphql_api import test_meters, test_plans


class Catalog(NamedTuple):
    """A list by key, how one is put, the documents that ask for one, and the mutation with what it is given but the key."""

    name: str
    put: Callable[..., Any]
    one: str
    node: str
    mutation: str
    given: dict[str, Any]

    @property
    def pages(self) -> str:
        """The document that asks for a page."""
        return f"""
        query ($first: Int! = 50, $after: String) {{
          {self.name}(first: $first, after: $after) {{
            edges {{ cursor node {{ id }} }}
            nodes {{ id key }}
            pageInfo {{ hasNextPage hasPreviousPage startCursor endCursor }}
          }}
        }}
        """


METERS: Final = Catalog(
    "meters",
    test_meters.put,
    test_meters.ONE,
    test_meters.NODE,
    test_meters.PUT,
    {"name": "A", "unit": "call"},
)
PLANS: Final = Catalog(
    "plans",
    test_plans.publish,
    test_plans.ONE,
    test_plans.NODE,
    test_plans.PUBLISH,
    {"name": "A", "currencyCode": "EUR", "effectiveFrom": "2026-01-01T00:00:00Z", "prices": [test_plans.BASE]},
)
EACH: Final = pytest.mark.parametrize("catalog", [METERS, PLANS], ids=lambda catalog: catalog.name)


@EACH
def test_a_catalog_comes_in_pages(api: Api, catalog: Catalog) -> None:
    """Pages of any size follow each other by key; a cursor is where a page ends; an empty list is a page, too."""
    nothing = {"hasNextPage": False, "hasPreviousPage": False, "startCursor": None, "endCursor": None}
    assert {"edges": [], "nodes": [], "pageInfo": nothing} == api.ask(catalog.pages)[catalog.name]
    for key in ("c", "a", "b", "e", "d"):
        catalog.put(api, key=key)
    shown, after = [], None
    for has_next in (True, True, False):
        page = api.ask(catalog.pages, {"first": 2, "after": after})[catalog.name]
        shown += [node["key"] for node in page["nodes"]]
        cursors = [edge["cursor"] for edge in page["edges"]]
        assert [node["id"] for node in page["nodes"]] == [edge["node"]["id"] for edge in page["edges"]]
        info = {"hasNextPage": has_next, "hasPreviousPage": after is not None}
        assert {**info, "startCursor": cursors[0], "endCursor": cursors[-1]} == page["pageInfo"]
        after = cursors[-1]

    assert ["a", "b", "c", "d", "e"] == shown


@EACH
@pytest.mark.parametrize(
    "arguments", [{"first": 0}, {"first": 1_001}, {"after": "nonsense"}, {"after": encode_cursor(["a\0"])}]
)
def test_pages_that_cannot_be_are_refused(api: Api, catalog: Catalog, arguments: dict[str, Any]) -> None:
    """A size that may not be asked for, or a cursor that is none, is told by its path."""
    (error,) = api.answer(catalog.pages, arguments)["errors"]

    assert "INVALID_INPUT" == error["extensions"]["code"]
    assert [[*arguments]] == [list(issue["path"]) for issue in error["extensions"]["issues"]]


@EACH
@pytest.mark.parametrize(
    ("scope", "allowed"),
    [
        (Scope.CATALOG_READ, {"read"}),
        (Scope.CATALOG_WRITE, {"write"}),
        (Scope.USAGE_READ, set()),
        (Scope.CHARGES_READ, set()),
        (Scope.ADMIN, {"read", "write"}),
    ],
)
def test_the_catalog_has_scopes_of_its_own(
    api: Api, database_url: str, catalog: Catalog, scope: Scope, allowed: set[str]
) -> None:
    """It is read with CATALOG_READ and written with CATALOG_WRITE; by id, too, and with no other scope."""
    node_id = catalog.put(api, key="calls")["id"]
    _, secret = make_key(database_url, scope)
    asked = [(catalog.one, {"key": "calls"}), (catalog.pages, {}), (catalog.node, {"id": node_id})]

    for document, variables in asked:
        assert ("read" in allowed) == ("errors" not in api.answer(document, variables, key=secret)), document
    answer = api.answer(catalog.mutation, {"input": {"key": "a", **catalog.given}}, key=secret)
    assert ("write" in allowed) == ("errors" not in answer)
    if "write" not in allowed:
        assert "FORBIDDEN" == answer["errors"][0]["extensions"]["code"]
