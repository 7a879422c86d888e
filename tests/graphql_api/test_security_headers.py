"""Headers that keep browsers from doing more with an answer than reading it, on every answer."""

from collections.abc import Iterator
from typing import Any, Final

import pytest

from graphql_api.security_headers import SecurityHeaders
from tests.conftest import ADMIN_KEY, ENGINES, Api, Server, bearer, running

# Every kind of answer: of each route, of the framework, and refusals of each layer.
ASKED: Final = [
    ("GET", "/", {}),
    ("GET", "/graphql", {}),
    ("GET", "/graphql?query={__typename}", {}),
    ("POST", "/graphql", {"json": {"query": "{ service { status } }"}}),
    ("POST", "/graphql", {"json": {"query": "{"}}),
    ("POST", "/graphql", {"content": b"x"}),
    ("POST", "/graphql", {"json": {"query": "{ __typename }"}, "headers": {"Accept": "text/event-stream"}}),
    ("PUT", "/graphql", {}),
    ("POST", "/v1/events", {"json": [], "headers": bearer(ADMIN_KEY)}),
    ("POST", "/v1/events", {"json": []}),
    ("GET", "/graphql/editor/assets/none.js", {}),
    ("GET", "/livez", {}),
    ("GET", "/readyz", {}),
    ("GET", "/openapi.json", {}),
    ("GET", "/none", {}),
]
SENT: Final = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
}


@pytest.fixture(scope="module")
def database(servers: dict[str, Server]) -> Iterator[str]:
    """A database that nothing is left in."""
    with servers[ENGINES[0]].cloned() as url:
        yield url


@pytest.fixture(scope="module")
def web(database: str) -> Iterator[Api]:
    """The service behind TLS."""
    with running(database, behind_tls=True) as api:
        yield api


@pytest.mark.parametrize(("method", "path", "given"), ASKED)
def test_every_answer_has_them_once(web: Api, method: str, path: str, given: dict[str, Any]) -> None:
    """Whoever answers, and whatever: no sniffing, no frame, no referrer, nothing loaded; and TLS from now on."""
    answer = web.client.request(method, path, follow_redirects=False, **given)
    names = [name.lower() for name, _ in answer.headers.multi_items()]

    assert SENT.items() <= dict(answer.headers).items()
    assert len(set(names)) == len(names)
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    # Only the page of the editor loads anything, by a policy of its own.
    assert ("script-src" in policy) == ((method, path) == ("GET", "/graphql"))
    assert "max-age=31536000" == answer.headers["strict-transport-security"]


def test_tls_is_asked_for_only_where_it_is_spoken(database: str) -> None:
    """A browser that was told to come over TLS does not come any other way for a year: so it is a setting, and off."""
    with running(database) as api:
        answer = api.client.get("/livez")

    assert "strict-transport-security" not in answer.headers
    assert SENT.items() <= dict(answer.headers).items()


def test_what_nobody_expected_is_answered_with_them_too(web: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """The answer to what is raised beyond all endpoints has them: they are outermost."""
    assert isinstance(web.client.app, SecurityHeaders)

    async def broken(*_: object) -> None:
        raise RuntimeError("broken")

    monkeypatch.setattr(web.client.app._app, "_app", broken)
    answer = web.client.get("/livez")

    assert 500 == answer.status_code
    assert SENT.items() <= dict(answer.headers).items()
