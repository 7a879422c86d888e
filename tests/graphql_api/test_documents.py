"""Documents are read, bounded and validated once, and no more of them are kept than may be."""

from collections.abc import Iterator, Sequence
from typing import Any, Final

import pytest
from graphql import DocumentNode, GraphQLError, parse, validate
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from strawberry.extensions.query_depth_limiter import create_validator

from graphql_api import documents
from graphql_api.depth import too_deep
from graphql_api.documents import Documents
from graphql_api.schema import make_schema
from metering.limits import LIMITS, Limits
from tests.conftest import ENGINES, Api, Server, running

SCHEMA: Final = make_schema().core
PERIOD: Final = 'period: { from: "2026-01-01T00:00:00Z", to: "2027-01-01T00:00:00Z" }'
EVENTS: Final = f"query ($first: Int!) {{ events(query: {{ {PERIOD} }}, first: $first) {{ nodes {{ id }} }} }}"
WRONG: Final = (
    "{ service { status }",
    "{ nonsense }",
    "{ service { status } } fragment Unused on Query { __typename }",
    "{ a: service { status } a: service { version } b }",
    "query Deep { service { checks { name { a { b } } } } }",
    "{ service { " + "status " * 60 + "} }",
    "{ ...Nowhere }",
)


@pytest.fixture(scope="module")
def web(servers: dict[str, Server]) -> Iterator[Api]:
    """The service with narrow limits, for tests that leave nothing behind."""
    limits = Limits(graphql_tokens_max=60, graphql_depth_max=3)
    with servers[ENGINES[0]].cloned() as address, running(address, limits) as api:
        yield api


class Counted:
    """How often a document was parsed, and how often validated; the work itself is done as ever."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.parsed = 0
        self.validated = 0
        parse_it, validate_it = documents.parse, documents.validate

        def parse(*arguments: Any, **options: Any) -> DocumentNode:
            self.parsed += 1
            return parse_it(*arguments, **options)

        def validate(*arguments: Any, **options: Any) -> list[GraphQLError]:
            self.validated += 1
            return validate_it(*arguments, **options)

        monkeypatch.setattr(documents, "parse", parse)
        monkeypatch.setattr(documents, "validate", validate)


def test_a_document_that_is_sent_again_costs_nothing(web: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """With other variables, of another caller: the same text is neither parsed nor validated a second time."""
    counted = Counted(monkeypatch)
    first = web.answer(EVENTS, {"first": 1})
    assert (1, 1) == (counted.parsed, counted.validated)
    second = web.answer(EVENTS, {"first": 2})
    refused = web.answer(EVENTS, {"first": "wrong"})
    unknown = web.answer(EVENTS, {"first": 2}, key=None)

    assert (1, 1) == (counted.parsed, counted.validated)
    assert first == second
    assert {"events": {"nodes": []}} == first["data"]
    assert ["GRAPHQL_INVALID"] == [error["extensions"]["code"] for error in refused["errors"]]
    assert ["UNAUTHENTICATED"] == [error["extensions"]["code"] for error in unknown["errors"]]


@pytest.mark.parametrize("text", WRONG)
def test_a_wrong_document_answers_the_same_each_time(web: Api, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """What is wrong is found once and said each time in the same words, and what is kept of it does not grow."""
    counted = Counted(monkeypatch)
    answers = [web.answer(text) for _ in range(3)]

    assert 1 == counted.parsed
    assert answers[0] == answers[1] == answers[2]
    assert {"errors"} == answers[0].keys()
    kept = Documents(SCHEMA, Limits(graphql_tokens_max=60, graphql_depth_max=3)).understand(text)
    assert kept.errors
    assert [None] * len(kept.errors) == [error.__traceback__ for error in kept.errors]


def test_an_unknown_fragment_is_called_by_its_name(web: Api) -> None:
    """Looking for the depth of a fragment that is not there does not hide what is wrong."""
    (error,) = web.answer("{ ...Nowhere }")["errors"]

    assert "Unknown fragment 'Nowhere'." == error["message"]


def test_no_more_documents_are_kept_than_may_be() -> None:
    """By number and by bytes of text; what was asked for last stays, and what is longer than all may be is not kept."""
    limits = Limits(graphql_documents_max=3, graphql_documents_bytes_max=100)
    by_number, by_bytes = Documents(SCHEMA, limits), Documents(SCHEMA, limits)
    short = [f"{{ a{number}: __typename }}" for number in range(10)]
    first = by_number.understand(short[0])
    for text in short:
        by_number.understand(text)
        assert first is by_number.understand(short[0])
    assert {short[0], short[8], short[9]} == set(by_number._kept)

    wide = [f"# {'ü' * 20} {number}\n{{ __typename }}" for number in range(10)]
    for text in wide:
        by_bytes.understand(text)
        assert sum(len(kept.encode()) for kept in by_bytes._kept) <= 100
    assert [wide[9]] == list(by_bytes._kept)

    longest = f"{{ __typename }} # {'.' * 100}"
    assert () == by_bytes.understand(longest).errors
    assert by_bytes.understand(longest) is not by_bytes.understand(longest)
    assert [wide[9]] == list(by_bytes._kept)


@given(st.lists(st.text("{}a b", max_size=12), max_size=60))
def test_what_is_kept_adds_up(texts: Sequence[str]) -> None:
    """Whatever is asked for in whatever order, what is counted is what is kept, and it is within the bounds."""
    kept = Documents(SCHEMA, Limits(graphql_documents_max=5, graphql_documents_bytes_max=40))
    for text in texts:
        kept.understand(text)

    assert sum(map(len, kept._kept)) == kept._kept_bytes <= 40
    assert len(kept._kept) <= 5


# ---------------------------------------------------------------- depth


def nested(children: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """A selection set below something, or several things on one level."""
    kind = st.sampled_from(["a { %s }", "b: a { %s }", "... { %s }", "... on T { %s }", "__schema { %s }"])
    below = st.builds(lambda wrapper, inner: wrapper % inner, kind, children)
    return below | st.lists(children, min_size=1, max_size=3).map(" ".join)


def selections(spreads: Sequence[str]) -> st.SearchStrategy[str]:
    """What stands in a selection set, where these fragments may be spread."""
    return st.recursive(st.sampled_from(["leaf", "__typename", *spreads]), nested, max_leaves=8)


FRAGMENTS: Final = ("A", "B", "C", "D")
# What may stand in each fragment, which spreads only later ones, and in an operation, which may spread them all.
IN_FRAGMENTS: Final = [selections([f"...{later}" for later in FRAGMENTS[place + 1 :]]) for place in range(4)]
IN_OPERATIONS: Final = selections([f"...{name}" for name in FRAGMENTS])


def document_of(operations: Sequence[str], fragments: Sequence[str]) -> str:
    """A document with these selections in its operations and fragments."""
    asked = [f"query {name} {{ {inside} }}" for name, inside in zip(("First", "Second"), operations, strict=True)]
    defined = [f"fragment {name} on T {{ {inside} }}" for name, inside in zip(FRAGMENTS, fragments, strict=True)]
    return " ".join([*asked, *defined])


DOCUMENTS: Final = st.builds(document_of, st.tuples(IN_OPERATIONS, IN_OPERATIONS), st.tuples(*IN_FRAGMENTS))


@given(DOCUMENTS, st.integers(min_value=0, max_value=6))
@settings(max_examples=200)
def test_depth_is_told_as_by_expanding_every_fragment(text: str, levels_max: int) -> None:
    """Of each operation the first error is the one that Strawberry finds by walking through every fragment each time."""
    document = parse(text)
    expanded: dict[str, tuple[str, Any]] = {}
    for error in validate(SCHEMA, document, [create_validator(levels_max, None)]):
        expanded.setdefault(error.message, (error.message, error.locations))
    assume(len(expanded) < 100)

    assert list(expanded.values()) == [(error.message, error.locations) for error in too_deep(document, levels_max)]


def test_fragments_that_double_are_looked_at_once(web: Api) -> None:
    """Fragments that each spread the next one twice are 2^300 selections when they are expanded: nobody does."""
    deepest = "fragment F300 on Query { service { status } }"
    doubling = [f"fragment F{n} on Query {{ ...F{n + 1} ...F{n + 1} }}" for n in range(300)]
    document = parse(" ".join(["{ ...F0 }", *doubling, deepest]))

    assert [] == too_deep(document, 1)
    (error,) = too_deep(document, 0)
    assert "'anonymous' exceeds maximum operation depth of 0" == error.message
    short = " ".join(["{ ...F297 }", *doubling[297:], deepest])
    assert {"service": {"status": "PASS"}} == web.ask(short, key=None)


def test_fragments_in_a_ring_are_left_to_validation() -> None:
    """A fragment that comes back to itself has no depth; that it does is what is said."""
    ring = "{ ...A } fragment A on Query { service { ...B } } fragment B on ServiceStatus { checks { ...A } }"
    found = Documents(SCHEMA, LIMITS).understand(ring)

    assert any("Cannot spread fragment 'A' within itself via 'B'." == error.message for error in found.errors)
