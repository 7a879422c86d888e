"""createApiKey, rotateApiKey, revokeApiKey and apiKeys; and callers that come with a token."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Api, Server, bearer, running, usage_event
from tests.graphql_api.worlds import TOKENS, key_for, token

_KEY = "prefix name scopes accounts createdAt expiresAt lastUsedAt revokedAt replaces"
CREATE = f"""
mutation ($input: CreateApiKeyInput!) {{
  createApiKey(input: $input) {{
    ... on CreatedApiKey {{ secret key {{ {_KEY} }} }}
    ... on InvalidInput {{ issues {{ path message }} }}
  }}
}}
"""
ROTATE = f"""
mutation ($input: RotateApiKeyInput!) {{
  rotateApiKey(input: $input) {{
    __typename
    ... on CreatedApiKey {{ secret key {{ {_KEY} }} }}
    ... on InvalidInput {{ issues {{ path }} }}
  }}
}}
"""
REVOKE = f"mutation ($prefix: String!) {{ revokeApiKey(prefix: $prefix) {{ {_KEY} }} }}"
LIST = f"""
query ($first: Int!, $after: String) {{
  apiKeys(first: $first, after: $after) {{ nodes {{ {_KEY} }} pageInfo {{ hasNextPage endCursor }} }}
}}
"""
USAGE = """{
  usage(query: {period: {from: "2026-01-01T00:00:00Z", to: "2027-01-01T00:00:00Z"}, groupBy: [ACCOUNT, USER]}) {
    ... on UsageReport { groups(orderBy: {field: KEY, direction: ASC}) { nodes { key { account user } } } }
  }
}"""


@pytest.fixture(scope="module")
def url(servers: dict[str, Server]) -> Iterator[str]:
    """A database of this module's own; what is stored of keys is tested on each engine in test_key_lives.py."""
    made = servers["postgres"].clone()
    yield made
    servers["postgres"].drop(made)


@pytest.fixture(scope="module")
def web(url: str) -> Iterator[Api]:
    """The service on that database, which takes tokens."""
    with running(url, **TOKENS) as started:
        yield started


def created(web: Api, **given: Any) -> Any:
    """A key that was made."""
    return web.ask(CREATE, {"input": {"name": "k", "scopes": ["USAGE_READ"], **given}})["createApiKey"]


def seen(web: Api, credential: str) -> list[list[str | None]]:
    """Whose usage a caller sees."""
    groups = web.ask(USAGE, key=credential)["usage"]["groups"]["nodes"]
    return [[each["key"]["account"], each["key"]["user"]] for each in groups]


def test_the_life_of_a_key(web: Api) -> None:
    """A key is made, shows what it is bound to, is rotated, listed and revoked; the secret stands in no other answer."""
    made = created(web, name="bound", accounts=["acme"], expiresAt="2100-01-01T00:00:00Z")
    key, secret = made["key"], made["secret"]
    assert secret.startswith(key["prefix"])
    assert ["bound", ["USAGE_READ"], ["acme"], "2100-01-01T00:00:00Z", None, None, None] == [
        key[name] for name in ("name", "scopes", "accounts", "expiresAt", "lastUsedAt", "revokedAt", "replaces")
    ]
    assert [] == seen(web, secret)

    rotated = web.ask(ROTATE, {"input": {"prefix": key["prefix"], "overlapHours": 1}})["rotateApiKey"]
    assert [key["prefix"], ["acme"]] == [rotated["key"][name] for name in ("replaces", "accounts")]
    assert [[], []] == [seen(web, each) for each in (secret, rotated["secret"])]

    revoked = web.ask(REVOKE, {"prefix": rotated["key"]["prefix"]})["revokeApiKey"]
    assert revoked["revokedAt"] is not None
    refused = web.client.post("/graphql", json={"query": USAGE}, headers=bearer(rotated["secret"]))
    assert (401, "unauthenticated") == (refused.status_code, refused.json()["code"])
    assert {"revokeApiKey": None} == web.ask(REVOKE, {"prefix": "mk_nobody"})
    assert secret not in str(web.ask(LIST, {"first": 1_000}))


def test_all_keys_are_listed_page_by_page(web: Api) -> None:
    """Pages follow each other, the newest key first, and show each once."""
    made = [created(web, name=f"k{number}")["key"]["prefix"] for number in range(5)]
    listed: list[str] = []
    after = None
    while True:
        page = web.ask(LIST, {"first": 2, "after": after})["apiKeys"]
        listed += [each["prefix"] for each in page["nodes"]]
        if not page["pageInfo"]["hasNextPage"]:
            break
        after = page["pageInfo"]["endCursor"]

    assert made[::-1] == listed[:5]
    assert len(listed) == len(set(listed))


def test_what_no_key_can_be(web: Api) -> None:
    """Every fault is told at once, with its path in the argument; so is what cannot be rotated."""
    faults = created(web, name=" ", scopes=[], accounts=[""])["issues"]
    assert [["input", "name"], ["input", "scopes"], ["input", "accounts", "0"]] == [each["path"] for each in faults]
    past = created(web, expiresAt="2020-01-01T00:00:00Z")["issues"]
    assert [["input", "expiresAt"]] == [each["path"] for each in past]
    prefix = created(web)["key"]["prefix"]
    web.ask(REVOKE, {"prefix": prefix})

    answers = [
        web.ask(ROTATE, {"input": given})["rotateApiKey"]["__typename"]
        for given in (
            {"prefix": "mk_nobody"},
            {"prefix": prefix},
            {"prefix": prefix, "overlapHours": -1},
            {"prefix": "\0"},
        )
    ]
    assert ["NotFound", "Conflict", "InvalidInput", "NotFound"] == answers


@pytest.mark.parametrize(
    "field", ['createApiKey(input: {name: "k", scopes: [ADMIN]}) { __typename }', "revoke", "rotate"]
)
def test_only_who_reaches_everything_manages_keys(web: Api, url: str, field: str) -> None:
    """A key or token that is bound makes, rotates, revokes and lists no keys, whatever its scopes say."""
    known = created(web)["key"]["prefix"]
    documents = {
        "revoke": f'mutation {{ revokeApiKey(prefix: "{known}") {{ name }} }}',
        "rotate": f'mutation {{ rotateApiKey(input: {{prefix: "{known}"}}) {{ __typename }} }}',
    }
    document = documents.get(field, f"mutation {{ {field} }}")
    for credential in (key_for(url, "acme"), token(accounts=["acme"], scope="ADMIN")):
        for asked in (document, "{ apiKeys { nodes { name } } }"):
            errors = web.answer(asked, key=credential)["errors"]
            assert ["FORBIDDEN"] == [error["extensions"]["code"] for error in errors]
    everything = web.answer("{ apiKeys { nodes { name } } }", key=token(accounts="*", scope="ADMIN"))
    assert "errors" not in everything


def test_a_token_asks_and_sends(web: Api) -> None:
    """A token reads and writes within its accounts; narrowed to a user or a subscription it only reads, and that alone."""
    events = [
        usage_event(number, account=account, user=user, subscription=f"s-{account}")
        for number, (account, user) in enumerate([("a1", "ana"), ("a1", "ben"), ("b1", "ana")])
    ]
    writer = token(accounts=["a1", "b1"], scope="USAGE_WRITE USAGE_READ")
    refused = web.send(events, key=token(accounts=["c1"], scope="USAGE_WRITE"))["rejected"]
    assert ["account_forbidden"] * 3 == [each["code"] for each in refused]
    assert 3 == web.send(events, key=writer)["accepted"]

    whole = ["USAGE_READ", "ADMIN"]
    assert [["a1", "ana"], ["a1", "ben"], ["b1", "ana"]] == seen(web, writer)
    assert [["a1", "ana"], ["a1", "ben"]] == seen(web, token(accounts=["a1"], scope=whole))
    narrow = [{"user": "ana"}, {"subscriptions": ["s-b1"]}, {"subscriptions": ["s-a1"], "user": "ben"}]
    assert [[["a1", "ana"], ["b1", "ana"]], [["b1", "ana"]], [["a1", "ben"]]] == [
        seen(web, token(accounts=["a1", "b1"], scope=whole, **each)) for each in narrow
    ]
    for each in narrow:
        sent = web.client.post("/v1/events", json=events, headers=bearer(token(accounts=["a1"], scope=whole, **each)))
        assert (403, "forbidden") == (sent.status_code, sent.json()["code"])


def test_a_token_that_is_not_good(web: Api) -> None:
    """What is wrong with a token is told with 401, in both doors alike."""
    for door in ("/graphql", "/v1/events"):
        answer = web.client.post(door, json={"query": USAGE}, headers=bearer(token(accounts=["a"], aud="other")))
        assert (401, "This token is for another audience than 'metering'.") == (
            answer.status_code,
            answer.json()["detail"],
        )


def test_keys_of_tokens_that_are_away(url: str, tmp_path: Path) -> None:
    """Where tokens cannot be verified now, each door says so in its own words, with 503 and when to try again; keys work."""
    away = {**TOKENS, "jwt_jwks": str(tmp_path / "not-there.json"), "jwt_secret": None}
    with running(url, **away) as api:
        asked = api.client.post("/graphql", json={"query": USAGE}, headers=bearer(token(accounts=["a"])))
        sent = api.client.post("/v1/events", json=[], headers=bearer(token(accounts=["a"])))
        assert {"503"} == {f"{answer.status_code}" for answer in (asked, sent)}
        assert "KEY_SET_UNAVAILABLE" == asked.json()["errors"][0]["extensions"]["code"]
        assert "key_set_unavailable" == sent.json()["code"]
        assert all(answer.headers["Retry-After"] for answer in (asked, sent))
        assert "usage" in api.ask(USAGE)


def test_refused_events_are_seen_by_their_sender(web: Api) -> None:
    """What one token had refused, a token of the same subject for another account does not see, nor send again."""
    ours, theirs = (token(accounts=[account], scope="USAGE_WRITE") for account in ("a2", "b2"))
    web.send({"id": "bad", "source": "s", "account": "a2"}, key=ours)
    nodes = "{ rejectedEvents { nodes { id body } } }"
    (found,) = web.ask(nodes, key=ours)["rejectedEvents"]["nodes"]
    retry = "mutation ($id: ID!) { retryRejectedEvents(input: [{id: $id}]) { __typename } }"

    assert [] == web.ask(nodes, key=theirs)["rejectedEvents"]["nodes"]
    assert "NotFound" == web.ask(retry, {"id": found["id"]}, key=theirs)["retryRejectedEvents"]["__typename"]
    assert "RecordUsageReceipt" == web.ask(retry, {"id": found["id"]}, key=ours)["retryRejectedEvents"]["__typename"]


def test_who_did_it_is_not_told_outside(web: Api, url: str) -> None:
    """Who corrected an event is told to who reaches everything; to a bound caller it is unknown."""
    web.send(usage_event(1, id="corrected", account="a3"))
    correct = """mutation { correctEvent(input: {account: "a3", source: "test", id: "corrected", reason: "r", void: true}) {
      ... on Event { corrections { by } }
    } }"""
    asked = '{ event(account: "a3", source: "test", id: "corrected") { corrections { by reason } } }'
    (made,) = web.ask(correct)["correctEvent"]["corrections"]

    assert made["by"].startswith("bootstrap (bootstrap_")
    assert [{"by": "unknown", "reason": "r"}] == web.ask(asked, key=key_for(url, "a3"))["event"]["corrections"]
