"""What a document may hold: every bound with the answer that a client sees, before validation looks at any of it."""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, Final

import pytest
from graphql import (
    DocumentNode,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    GraphQLError,
    OperationDefinitionNode,
    SelectionSetNode,
    get_introspection_query,
    parse,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from graphql_api import documents
from graphql_api.bounds import beyond_bounds, expanded_sizes
from graphql_api.documents import Documents
from graphql_api.schema import make_schema
from metering.limits import LIMITS, Limits
from tests.conftest import ADMIN_KEY, ENGINES, Api, Server, bearer, running
from tests.graphql_api.test_documents import DOCUMENTS, FRAGMENTS

SCHEMA: Final = make_schema().core
NARROW: Final = Limits(
    graphql_tokens_max=200,
    graphql_depth_max=4,
    graphql_selections_max=40,
    graphql_repeats_max=3,
    graphql_aliases_max=5,
    graphql_root_fields_max=4,
    graphql_directives_max=2,
    graphql_errors_max=3,
)
SPREADING: Final = "query { service { ...F } } fragment F on ServiceStatus { "
# Of each bound: a document that just keeps it, and one that does not.
KEPT_AND_NOT: Final = {
    "graphql_tokens_max": (
        "{ service { checks(x: [" + "1 " * 185 + "]) { name } } }",
        "{ service { checks(x: [" + "1 " * 186 + "]) { name } } }",
    ),
    "graphql_depth_max": ("{ a { b { c { d { e } } } } }", "{ a { b { c { d { e { f } } } } } }"),
    "graphql_selections_max": (
        SPREADING + " ".join(f"f{n}" for n in range(38)) + " }",
        "{ service { ...F } again: service { ...F } } fragment F on ServiceStatus { "
        + " ".join(f"f{n}" for n in range(19))
        + " }",
    ),
    "graphql_repeats_max": (
        "{ service { status status status } }",
        "{ service { status ...F ...F } service { ... on ServiceStatus { status } } } fragment F on ServiceStatus { status }",
    ),
    "graphql_aliases_max": (
        "{ service { " + " ".join(f"a{n}: status" for n in range(5)) + " } }",
        "{ service { "
        + " ".join(f"a{n}: status" for n in range(4))
        + " ...F ...F } } fragment F on ServiceStatus { b: status }",
    ),
    "graphql_root_fields_max": (
        "{ service { status } __typename ...F } fragment F on Query { node(id: 1) { id } ... { __typename } }",
        "{ service { status } __typename ...F ...F } fragment F on Query { node(id: 1) { id } ... { __typename } }",
    ),
    "graphql_directives_max": (
        "{ service { status @skip(if: false) @include(if: true) } }",
        "{ service { status @skip(if: false) @skip(if: false) @include(if: true) } }",
    ),
}


@pytest.fixture(scope="module")
def web(servers: dict[str, Server]) -> Iterator[Api]:
    """The service with narrow limits, for tests that leave nothing behind."""
    with servers[ENGINES[0]].cloned() as address, running(address, NARROW) as api:
        yield api


@pytest.mark.parametrize("limit", KEPT_AND_NOT)
def test_a_document_beyond_a_bound_is_refused_by_its_name(
    web: Api, limit: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One error with the code OPERATION_TOO_LARGE, the limit and what it is; nothing was validated. Right at the bound it was."""
    validated: list[DocumentNode] = []
    validate_it = documents.validate

    def validate(schema: Any, document: DocumentNode, *arguments: Any, **options: Any) -> list[GraphQLError]:
        validated.append(document)
        return validate_it(schema, document, *arguments, **options)

    monkeypatch.setattr(documents, "validate", validate)
    kept, beyond = KEPT_AND_NOT[limit]
    web.answer(kept)
    assert 1 == len(validated)
    headers = {"Accept": "application/graphql-response+json", **bearer(ADMIN_KEY)}
    response = web.client.post("/graphql", json={"query": beyond}, headers=headers)

    assert 1 == len(validated)
    assert (400, {"errors"}) == (response.status_code, response.json().keys())
    (error,) = response.json()["errors"]
    expected = {"code": "OPERATION_TOO_LARGE", "limit": limit, "maximum": getattr(NARROW, limit)}
    assert expected == error["extensions"]


def test_what_is_wrong_is_said_so_many_times(web: Api) -> None:
    """Validation stops where enough is wrong: the answer has so many errors, and one that says that there may be more."""
    answer = web.answer("{ a b c d }")

    assert [*["GRAPHQL_INVALID"] * 4] == [error["extensions"]["code"] for error in answer["errors"]]
    assert "Too many validation errors" in answer["errors"][-1]["message"]


@pytest.mark.parametrize("limit", sorted(KEPT_AND_NOT.keys() - {"graphql_tokens_max", "graphql_depth_max"}))
def test_fragments_that_nobody_spreads_are_bounded_too(limit: str) -> None:
    """Validation looks at a fragment also where no operation leads to it, and so do the bounds."""
    _, beyond = KEPT_AND_NOT[limit]
    hidden = beyond.removeprefix("query").strip()
    document = parse(f"{{ service {{ status }} }} fragment Unused on Query {hidden}")

    (error,) = beyond_bounds(document, NARROW)
    assert limit == (error.extensions or {})["limit"]


def test_fragments_in_rings_cost_nothing() -> None:
    """Thirty fragments that all spread each other are refused, not walked; one ring is left to validation, which names it."""
    everyone = " ".join(f"...F{n}" for n in range(30))
    rings = " ".join(f"fragment F{n} on Query {{ {everyone} }}" for n in range(30))
    few = "{ ...A } fragment A on Query { ...B } fragment B on Query { ...C ...A } fragment C on Query { ...A ...B }"

    assert ["graphql_selections_max"] == [
        (error.extensions or {})["limit"] for error in beyond_bounds(parse(f"{{ ...F0 }} {rings}"), LIMITS)
    ]
    assert [] == beyond_bounds(parse(few), LIMITS)
    assert any("within itself" in error.message for error in Documents(SCHEMA, LIMITS).understand(few).errors)


def test_the_introspection_of_tools_keeps_the_bounds() -> None:
    """The query by which editors, generators and clients read the whole schema is a good one, with all that it can ask for."""
    query = get_introspection_query(
        descriptions=True,
        specified_by_url=True,
        directive_is_repeatable=True,
        schema_description=True,
        input_value_deprecation=True,
    )

    assert () == Documents(SCHEMA, LIMITS).understand(query).errors


# ---------------------------------------------------------------- the same by expanding everything


def expanded(document: DocumentNode) -> tuple[list[tuple[int, int, int]], int]:
    """Of each operation selections, aliases and fields of the root; and how often one name stands in one place at most."""
    fragments = {each.name.value: each for each in document.definitions if isinstance(each, FragmentDefinitionNode)}
    sizes, most = [], 0
    for operation in document.definitions:
        if not isinstance(operation, OperationDefinitionNode):
            continue
        size: Counter[str] = Counter()
        places: Counter[tuple[str, ...]] = Counter()

        def walk(
            selection_set: SelectionSetNode, place: tuple[str, ...], size: Any = size, places: Any = places
        ) -> None:
            for node in selection_set.selections:
                size["selections"] += 1
                if isinstance(node, FragmentSpreadNode):
                    walk(fragments[node.name.value].selection_set, place)
                    continue
                below = place
                if isinstance(node, FieldNode):
                    size["aliases"] += node.alias is not None
                    size["roots"] += not place
                    below = (*place, (node.alias or node.name).value)
                    places[below] += 1
                if node.selection_set:  # type: ignore[attr-defined]
                    walk(node.selection_set, below)  # type: ignore[attr-defined]

        walk(operation.selection_set, ())
        sizes.append((size["selections"], size["aliases"], size["roots"]))
        most = max(most, *places.values(), 0)
    return sizes, most


def spread_all(text: str) -> str:
    """The document with an operation more that spreads every fragment: so none is unused."""
    return text + " query All { " + " ".join(f"...{name}" for name in FRAGMENTS) + " }"


@given(DOCUMENTS)
@settings(max_examples=200)
def test_sizes_are_told_as_by_expanding_every_fragment(text: str) -> None:
    """Counting each fragment once says of every operation what walking through each spread of it says."""
    document = parse(spread_all(text))

    assert expanded(document)[0] == [(size.selections, size.aliases, size.roots) for size in expanded_sizes(document)]


@given(DOCUMENTS, st.integers(min_value=1, max_value=6))
@settings(max_examples=200)
def test_repeats_are_told_as_by_expanding_every_fragment(text: str, repeats_max: int) -> None:
    """A document is refused for repeats exactly where one name stands more often in one place of an answer."""
    document = parse(spread_all(text))
    wide = Limits(
        graphql_depth_max=10**6,
        graphql_selections_max=10**6,
        graphql_aliases_max=10**6,
        graphql_root_fields_max=10**6,
        graphql_repeats_max=repeats_max,
    )

    assert (expanded(document)[1] > repeats_max) == bool(beyond_bounds(document, wide))


# ---------------------------------------------------------------- what scanners try, with the limits as they are shipped


@pytest.fixture(scope="module")
def shipped(servers: dict[str, Server]) -> Iterator[Api]:
    """The service as it is shipped."""
    with servers[ENGINES[0]].cloned() as address, running(address) as api:
        yield api


def circular(levels: int) -> str:
    """Introspection that goes round: the types of the fields of the types of the fields."""
    return "{ __schema { types { " + "fields { type { " * levels + "name" + " } }" * levels + " } } }"


@pytest.mark.parametrize(
    ("query", "code"),
    [
        pytest.param(
            "{ " + " ".join(f"a{n}: __typename" for n in range(101)) + " }", "OPERATION_TOO_LARGE", id="aliases"
        ),
        pytest.param("{ " + "__typename " * 500 + "}", "OPERATION_TOO_LARGE", id="field duplication"),
        pytest.param("{ " + "service { status } " * 20 + "}", "OPERATION_TOO_LARGE", id="object duplication"),
        pytest.param("{ __typename " + "@aa " * 10 + "}", "OPERATION_TOO_LARGE", id="directives"),
        pytest.param(circular(9), "GRAPHQL_INVALID", id="circular introspection"),
        pytest.param("{ " + "a " * 6_000 + "}", "OPERATION_TOO_LARGE", id="tokens"),
    ],
)
def test_what_overloads_others_is_refused_here(shipped: Api, query: str, code: str) -> None:
    """One error, no data, and nothing was executed: aliases, duplicated fields, directives, introspection that goes round."""
    answer = shipped.answer(query, key=None)

    assert {"errors"} == answer.keys()
    assert {code} == {error["extensions"]["code"] for error in answer["errors"]}
    assert len(answer["errors"]) < 10


@pytest.mark.parametrize("body", [[{"query": "{ __typename }"}], [{"query": "{ __typename }"}] * 10, []])
def test_batches_are_not_taken(shipped: Api, body: Sequence[Any]) -> None:
    """A list of requests is no request: 400, and none of them is executed."""
    response = shipped.client.post("/graphql", json=body)

    assert (400, "body_unreadable") == (response.status_code, response.json()["code"])


def test_no_link_changes_anything(shipped: Api) -> None:
    """A mutation in an address, as a form or as text is refused: 405 and 415, whatever key a browser would send along."""
    mutation = 'mutation { putAccount(input: { key: "a", name: "a" }) { __typename } }'
    got = shipped.client.get("/graphql", params={"query": mutation}, headers=bearer(ADMIN_KEY))
    live = shipped.client.get(
        "/graphql", params={"query": mutation}, headers={"Accept": "text/event-stream", **bearer(ADMIN_KEY)}
    )
    form = shipped.client.post("/graphql", data={"query": mutation}, headers=bearer(ADMIN_KEY))

    assert [405, 405, 415] == [response.status_code for response in (got, live, form)]


def test_a_schema_that_is_not_told_is_not_told_by_suggestions_either(servers: dict[str, Server]) -> None:
    """With introspection off neither the schema is shown nor a name suggested, in a document or of a variable; on, both are."""
    unknown = "{ servic { status } }"
    period = 'period: { from: "2026-01-01T00:00:00Z", to: "2027-01-01T00:00:00Z" }'
    enum = f"query ($d: Dimension!) {{ dimensionValues(dimension: $d, query: {{ {period} }}) }}"
    with servers[ENGINES[0]].cloned() as url:
        with running(url, graphql_introspection=False) as api:
            hidden = [api.answer("{ __schema { types { name } } }"), api.answer('{ __type(name: "Query") { name } }')]
            silent = [api.answer(unknown), api.answer(enum, {"d": "ACCOUN"})]
            named = api.ask("{ __typename service { __typename status } }")
        with running(url) as api:
            shown = api.ask("{ __schema { types { name } } }")
            helpful = [api.answer(unknown), api.answer(enum, {"d": "ACCOUN"})]

    for answer in hidden:
        assert {"errors"} == answer.keys()
        assert "introspection" in answer["errors"][0]["message"]
    assert ("Query", "ServiceStatus") == (named["__typename"], named["service"]["__typename"])
    assert all("Did you mean" not in str(answer) for answer in silent)
    assert all("Did you mean" in str(answer) for answer in helpful)
    assert shown["__schema"]["types"]
