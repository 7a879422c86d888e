"""Which media type an Accept header chooses, and what comes of it."""

from collections.abc import Iterator
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphql_api.media_types import MediaType, accepted, takes_streams
from metering.limits import Limits
from tests.conftest import ADMIN_KEY, ENGINES, Api, Server, bearer, running

JSON: Final = "application/json"
RESPONSE: Final = "application/graphql-response+json"
STREAM: Final = "text/event-stream"
SERVICE: Final = "{ service { status } }"


@pytest.fixture(scope="module")
def web(servers: dict[str, Server]) -> Iterator[Api]:
    """The service, for tests that leave nothing behind."""
    with servers[ENGINES[0]].cloned() as address, running(address, Limits(graphql_depth_max=5)) as api:
        yield api


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (None, JSON),
        ("", JSON),
        ("*/*", JSON),
        ("application/*", JSON),
        (JSON, JSON),
        (f"{JSON}; charset=utf-8", JSON),
        (f'{JSON}; charset="UTF-8"', JSON),
        (RESPONSE, RESPONSE),
        (f"{RESPONSE}, {JSON}", RESPONSE),
        (f"{JSON}, {RESPONSE}", RESPONSE),
        (f"{RESPONSE};q=0.5, {JSON}", JSON),
        (f"{JSON};q=0.5, */*", RESPONSE),
        (f"{JSON};q=0, */*", RESPONSE),
        (f"{RESPONSE}, {STREAM}", RESPONSE),
        (STREAM, STREAM),
        (f"{STREAM}, {JSON};q=0.1", STREAM),
        (f"text/html, {JSON};q=0.001", JSON),
        ("text/html", None),
        ("text/*", None),
        (f"{JSON};q=0", None),
        (f"{JSON};q=0.0000", None),
        (f"{JSON};q=nonsense", None),
        (f"{JSON};q=2", None),
        (f"{JSON}; charset=utf-16", None),
        (",,;", None),
    ],
)
def test_the_best_of_what_is_taken_is_sent(header: str | None, expected: str | None) -> None:
    """Quality first, then how exactly a type is named; a stream only where it is named, and without a header JSON."""
    chosen = accepted(header)

    assert expected == (None if chosen is None else chosen.value)


@given(st.text(alphabet=' ,;=q01.9*/"abcjnopstxy+-', max_size=60))
def test_any_header_can_be_read(header: str) -> None:
    """Whatever stands in the header, there is a choice or there is none; a stream that is chosen was taken."""
    chosen = accepted(header)

    assert chosen is not MediaType.EVENT_STREAM or takes_streams(header)


@pytest.mark.parametrize(("accept", "invalid"), [(JSON, 200), (RESPONSE, 400)])
def test_the_status_says_how_it_ended_to_who_can_read_it(web: Api, accept: str, invalid: int) -> None:
    """What cannot be executed is 400 in the type that is made for it and 200 in plain JSON; what was executed is 200 in both."""
    headers = {"Accept": accept, **bearer(ADMIN_KEY)}
    variable = "query ($a: Int!) { events(first: $a) { nodes { id } } }"
    wrong = ["{", "{ nonsense }", variable, "", "{ a { b { c { d { e { f { g } } } } } } }"]
    for query in wrong:
        for response in (
            web.client.post("/graphql", json={"query": query}, headers=headers),
            web.client.get("/graphql", params={"query": query}, headers=headers),
        ):
            assert (invalid, accept) == (response.status_code, response.headers["content-type"])
            assert {"errors"} == response.json().keys()
    good = web.client.post("/graphql", json={"query": SERVICE}, headers=headers)
    failed = web.client.post("/graphql", json={"query": SERVICE + " { nothing }"}, headers=headers)
    # A field that failed: there are data, and they are null.
    event = '{ event(account: "", source: "", id: "") { id } }'
    late = web.client.post("/graphql", json={"query": event}, headers={"Accept": accept})

    assert (200, accept, "Accept") == (good.status_code, good.headers["content-type"], good.headers["vary"])
    assert invalid == failed.status_code
    assert (200, accept) == (late.status_code, late.headers["content-type"])
    assert {"event": None} == late.json()["data"]
    assert ["UNAUTHENTICATED"] == [error["extensions"]["code"] for error in late.json()["errors"]]


@pytest.mark.parametrize("accept", ["text/html", "image/png", f"{JSON};q=0"])
def test_what_cannot_be_sent_is_not_computed(web: Api, accept: str) -> None:
    """Who takes none of our types is told which there are: 406, as a problem."""
    for response in (
        web.client.post("/graphql", json={"query": SERVICE}, headers={"Accept": accept}),
        web.client.get("/graphql", params={"query": SERVICE}, headers={"Accept": accept}),
    ):
        assert (406, "not_acceptable") == (response.status_code, response.json()["code"])
        assert RESPONSE in response.json()["detail"]


def test_a_subscription_is_no_single_answer(web: Api) -> None:
    """Asked for as one answer, a subscription is refused in words that say how to ask for it."""
    period = 'period: { from: "2026-01-01T00:00:00Z", to: "2027-01-01T00:00:00Z" }'
    query = f"subscription {{ usageTotals(query: {{ {period} }}) {{ unit }} }}"
    response = web.client.post("/graphql", json={"query": query}, headers={"Accept": RESPONSE, **bearer(ADMIN_KEY)})

    assert 400 == response.status_code
    assert ["STREAM_NEEDED"] == [error["extensions"]["code"] for error in response.json()["errors"]]
    assert STREAM in response.json()["errors"][0]["message"]
