"""Documents that requests name: by hash, or as the operator's list calls them; and where only listed ones are answered."""

import json
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

import pytest

from graphql_api.operations import GraphQLRequest
from graphql_api.persisted import Persisted
from metering.errors import ConfigurationError
from metering.limits import LIMITS, Limits
from tests.conftest import ENGINES, Api, Server, running

FIRST: Final = "{ service { __typename } }"
VERSION: Final = "query Version { service { version } }"
OTHER: Final = "{ service { engine } }"
KNOWN: Final = {"service": {"__typename": "ServiceStatus"}}


def digest(text: str) -> str:
    """The hash by which a document is named."""
    return sha256(text.encode()).hexdigest()


def named(text: str, **members: Any) -> dict[str, Any]:
    """A request that names a document by its hash, as Apollo's clients do."""
    return {"extensions": {"persistedQuery": {"version": 1, "sha256Hash": digest(text)}}, **members}


@pytest.fixture
def web(servers: dict[str, Server]) -> Iterator[Api]:
    """The service as it is shipped."""
    with servers[ENGINES[0]].cloned() as url, running(url) as api:
        yield api


@pytest.fixture
def listing(servers: dict[str, Server], tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """Start the service with a list of documents."""
    path = tmp_path / "documents.json"
    with servers[ENGINES[0]].cloned() as url:

        def start(documents: object, **settings: Any) -> Any:
            path.write_text(documents if isinstance(documents, str) else json.dumps(documents))
            return running(url, graphql_documents=path, **settings)

        yield start


def post(api: Api, **request: Any) -> Any:
    """POST a request and return the answer."""
    return api.client.post("/graphql", json=request).json()


def code(answer: Any) -> str:
    """The code of an answer that is one error."""
    (error,) = answer["errors"]
    assert {"errors"} == answer.keys()
    found: str = error["extensions"]["code"]
    return found


def test_a_hash_is_answered_once_its_document_was_sent(web: Api) -> None:
    """An unknown hash is asked back for in the words that clients know; sent with its document it is known, also in addresses."""
    unknown = post(web, **named(FIRST))
    taught = post(web, **named(FIRST, query=FIRST))
    known = [
        post(web, **named(FIRST)),
        post(web, documentId=f"sha256:{digest(FIRST)}"),
        web.client.get("/graphql", params={"extensions": json.dumps(named(FIRST)["extensions"])}).json(),
        web.client.get("/graphql", params={"documentId": f"sha256:{digest(FIRST)}"}).json(),
    ]

    assert "PERSISTED_QUERY_NOT_FOUND" == code(unknown)
    assert "PersistedQueryNotFound" == unknown["errors"][0]["message"]
    assert [KNOWN] * 5 == [answer["data"] for answer in (taught, *known)]


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        (
            {"query": FIRST, "extensions": {"persistedQuery": {"version": 1, "sha256Hash": "0" * 64}}},
            "PERSISTED_QUERY_MISMATCH",
        ),
        ({"query": FIRST, "documentId": f"sha256:{'0' * 64}"}, "PERSISTED_QUERY_MISMATCH"),
        (
            {"extensions": {"persistedQuery": {"version": 2, "sha256Hash": digest(FIRST)}}},
            "PERSISTED_QUERY_NOT_SUPPORTED",
        ),
        ({"extensions": {"persistedQuery": 5}}, "GRAPHQL_INVALID"),
        ({"extensions": {"persistedQuery": {"version": 1}}}, "GRAPHQL_INVALID"),
        ({"documentId": "nobody's"}, "PERSISTED_QUERY_NOT_FOUND"),
    ],
)
def test_a_name_that_is_not_right_is_refused(web: Api, request_: dict[str, Any], expected: str) -> None:
    """A hash of something else, another version of the protocol, a name that nobody knows: each has its own code."""
    assert expected == code(post(web, **request_))


def test_a_mutation_by_name_is_not_taken_from_an_address(web: Api) -> None:
    """What a name stands for is held to the same rules: a mutation is not taken from an address."""
    mutation = 'mutation { putAccount(input: { key: "a", name: "a" }) { __typename } }'
    post(web, **named(mutation, query=mutation))
    response = web.client.get("/graphql", params={"documentId": f"sha256:{digest(mutation)}"})

    assert 405 == response.status_code


def test_what_clients_teach_is_bounded() -> None:
    """No more documents are remembered than may be, by number and by bytes; what was named last stays."""
    persisted = Persisted({}, Limits(graphql_documents_max=3, graphql_documents_bytes_max=100))
    texts = [f"{{ a{number}: __typename }}" for number in range(10)]
    for text in texts:
        persisted.text_of(GraphQLRequest(query=text, document_id=digest(text)))
    assert persisted._taught.get(digest(texts[6])) is None
    assert texts[7:] == [persisted.text_of(GraphQLRequest(document_id=digest(text))) for text in texts[7:]]

    long = "{ __typename } # " + "x" * 100
    persisted.text_of(GraphQLRequest(query=long, document_id=digest(long)))
    assert persisted._taught.get(digest(long)) is None
    assert persisted._taught._bytes <= 100


def test_listed_documents_have_the_names_of_the_list(listing: Callable[..., Any]) -> None:
    """A listed document is named by its id or its hash, with variables and all; other documents are answered as ever."""
    with listing({"first-1": FIRST, "version": VERSION}) as api:
        answers = [
            post(api, documentId="first-1"),
            post(api, documentId=f"sha256:{digest(FIRST)}"),
            post(api, **named(FIRST)),
        ]
        version = post(api, documentId="version", operationName="Version")
        other = post(api, query=OTHER)
        stolen = post(api, query=OTHER, documentId="first-1")

    assert [KNOWN] * 3 == [answer["data"] for answer in answers]
    assert version["data"]["service"]["version"]
    assert {"service": {"engine": ENGINES[0]}} == other["data"]
    assert "PERSISTED_QUERY_MISMATCH" == code(stolen)


def test_where_only_listed_documents_are_answered_others_are_not(listing: Callable[..., Any]) -> None:
    """By its id, its hash or word by word a listed document is answered; any other is refused, and cannot be taught."""
    with listing({"first-1": FIRST}, graphql_only_listed=True) as api:
        answers = [post(api, documentId="first-1"), post(api, query=FIRST), post(api, **named(FIRST, query=FIRST))]
        others = [
            post(api, query=OTHER),
            post(api, query=FIRST + " "),
            post(api, **named(OTHER, query=OTHER)),
            post(api, query="{ __schema { types { name } } }"),
            api.client.get("/graphql", params={"query": OTHER}).json(),
        ]
        unknown = post(api, **named(OTHER))

    assert [KNOWN] * 3 == [answer["data"] for answer in answers]
    assert ["DOCUMENT_NOT_LISTED"] * 5 == [code(answer) for answer in others]
    assert "PERSISTED_QUERY_NOT_FOUND" == code(unknown)


@pytest.mark.parametrize(
    ("documents", "said"),
    [
        ("[", "must be a JSON object"),
        ({"a": 5}, "must be a JSON object"),
        ({"first": "{ nonsense }", "second": "{", "good": FIRST}, "'first'"),
        ({"first": "{ nonsense }", "second": "{", "good": FIRST}, "'second'"),
        ({"deep": "{ " + "a { " * 30 + "b" + " }" * 31}, "depth"),
    ],
)
def test_a_list_that_cannot_be_answered_stops_the_start(
    listing: Callable[..., Any], documents: object, said: str
) -> None:
    """Every document of the list is looked at before the first request: what is wrong is said, with its id."""
    with pytest.raises(ConfigurationError, match=said), listing(documents):
        pytest.fail("it started")


def test_a_list_that_is_not_there_stops_the_start(servers: dict[str, Server], tmp_path: Path) -> None:
    """The path is named, and why it cannot be read."""
    missing = tmp_path / "missing.json"
    with (
        servers[ENGINES[0]].cloned() as url,
        pytest.raises(ConfigurationError, match="No such file"),
        running(url, LIMITS, graphql_documents=missing),
    ):
        pytest.fail("it started")
