"""What a limited key is told: headers that parse, a wait that is neither too short nor too long."""

import re
from decimal import Decimal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from metering.errors import RateLimitedError
from metering.ingest.http import problem
from metering.ingest.openapi import openapi
from metering.ingest.rate_headers import rate_headers
from metering.limits import LIMITS
from metering.standing import Standing
from tests.strategies import MANY

INTEGER_MAX = 999_999_999_999_999


def parsed(field: str) -> list[tuple[str, dict[str, int | str]]]:
    """A list of strings with parameters, read as RFC 9651 has it; strict, and no more of it than these fields use."""
    items = []
    rest = field
    while True:
        item = re.match(r'"([ !#-\[\]-~]*)"', rest)
        assert item is not None, field
        rest = rest[item.end() :]
        parameters: dict[str, int | str] = {}
        while parameter := re.match(r';([a-z*][a-z0-9_.*-]*)=(?:(-?[0-9]{1,15})(?![0-9.])|"([ !#-\[\]-~]*)")', rest):
            name, integer, text = parameter.groups()
            parameters[name] = text if integer is None else int(integer)
            rest = rest[parameter.end() :]
        items.append((item[1], parameters))
        if not rest:
            return items
        separator = re.match(r"[ \t]*,[ \t]*", rest)
        assert separator is not None, field
        rest = rest[separator.end() :]


@st.composite
def standings(draw: st.DrawFn) -> Standing:
    """A standing such as the database gives one: any rate and burst, exact to a millionth of an event."""
    rate = draw(st.one_of(st.integers(1, 100), st.integers(1, LIMITS.key_rate_events_max)))
    burst = draw(st.one_of(st.integers(1, 100), st.integers(1, LIMITS.key_rate_events_max)))
    asked = draw(st.integers(0, LIMITS.body_events_max))
    millionths = draw(st.integers(-LIMITS.body_events_max * 10**6, burst * 10**6))
    left = Decimal(millionths) / 10**6
    taken = left + asked >= min(asked, burst) if draw(st.booleans()) else False
    if not taken:
        left = min(left, min(asked, burst) - Decimal("0.000001"))
    return Standing(
        events_per_second_max=rate, burst_events_max=burst, left_events=left, asked_events=asked, taken=taken
    )


@MANY
@given(standing=standings())
def test_headers_parse_and_say_what_holds(standing: Standing) -> None:
    """Both fields are lists of RFC 9651 with the draft's parameters; the policy overstates no rate."""
    headers = rate_headers(standing)
    assert {"RateLimit-Policy", "RateLimit"} == headers.keys()
    ((policy, quota),) = parsed(headers["RateLimit-Policy"])
    ((name, now),) = parsed(headers["RateLimit"])

    assert policy == name == "events"
    assert {"q", "qu", "w"} == quota.keys()
    assert {"r", "t"} == now.keys()
    assert (standing.burst_events_max, "events") == (quota["q"], quota["qu"])
    window, left, seconds = quota["w"], now["r"], now["t"]
    assert isinstance(window, int)
    assert isinstance(left, int)
    assert isinstance(seconds, int)
    assert (window - 1) * standing.events_per_second_max < standing.burst_events_max
    assert standing.burst_events_max <= window * standing.events_per_second_max
    assert left == standing.available_events
    assert 1 <= seconds <= INTEGER_MAX
    assert 0 <= left <= standing.burst_events_max


@MANY
@given(standing=standings())
def test_the_wait_is_as_long_as_it_has_to_be(standing: Standing) -> None:
    """After so many seconds the allowance holds what was asked for, or is full; a second earlier it does neither."""
    needed = min(standing.asked_events, standing.burst_events_max)
    rate = standing.events_per_second_max
    wait = standing.wait_seconds

    assert standing.left_events + wait * rate >= needed
    if wait:
        assert standing.left_events + (wait - 1) * rate < needed
    if not standing.taken:
        assert wait >= 1


@MANY
@given(standing=standings())
def test_a_refusal_tells_all_of_it(standing: Standing) -> None:
    """429 is a problem with a code, Retry-After no earlier than the window of RateLimit ends, and both fields."""
    response = problem(RateLimitedError(standing), LIMITS)
    body = msgspec.json.decode(response.body)
    ((_, now),) = parsed(response.headers["ratelimit"])

    assert (429, "application/problem+json") == (response.status_code, response.headers["content-type"])
    assert ("rate_limited", 429, "Too Many Requests") == (body["code"], body["status"], body["title"])
    assert str(standing.wait_seconds) == response.headers["retry-after"]
    if not standing.taken:
        assert now["t"] == standing.wait_seconds
    assert rate_headers(standing)["RateLimit-Policy"] == response.headers["ratelimit-policy"]


@pytest.mark.parametrize(
    ("left", "asked", "taken", "expected"),
    [
        ("5000", 0, True, '"events";r=5000;t=1'),
        ("4999.999999", 0, True, '"events";r=4999;t=1'),
        ("0.5", 1_000, True, '"events";r=0;t=1'),
        ("-5000", 10_000, True, '"events";r=0;t=6'),
        ("250", 4_000, False, '"events";r=250;t=4'),
    ],
)
def test_what_is_left(left: str, asked: int, *, taken: bool, expected: str) -> None:
    """What is left is told in whole events, and for how long there is no more than that."""
    standing = Standing(
        events_per_second_max=1_000,
        burst_events_max=5_000,
        left_events=Decimal(left),
        asked_events=asked,
        taken=taken,
    )

    assert {"RateLimit-Policy": '"events";q=5000;qu="events";w=5', "RateLimit": expected} == rate_headers(standing)


@MANY
@given(standing=standings())
def test_they_are_as_openapi_describes_them(standing: Standing) -> None:
    """Each answer that may carry the fields describes both, by a pattern that what is sent matches."""
    answers = openapi(LIMITS, "1")["paths"]["/v1/events"]["post"]["responses"]
    sent = rate_headers(standing)

    for status in ("200", "422", "429"):
        described = {
            name: field["schema"]["pattern"] for name, field in answers[status]["headers"].items() if name in sent
        }
        assert sent.keys() == described.keys()
        assert all(re.search(described[name], value) for name, value in sent.items())
    assert {"429", "503"} == {
        status for status, answer in answers.items() if "Retry-After" in answer.get("headers", {})
    }


def test_a_key_without_a_rate_is_told_nothing() -> None:
    """No rate, no headers."""
    assert {} == rate_headers(None)
