"""`dimensionValues` through HTTP: the values that occur, in order, by prefix; never more than the caller may see."""

import asyncio
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import pytest

from metering.config import Settings
from metering.keys import KeyRing, Scope
from metering.limits import LIMITS
from metering.rollups.refresh import Refresher
from metering.store.pool import Database
from tests.conftest import ENGINES, Api, Server, running, usage_event

START: Final = datetime(2025, 3, 3, tzinfo=UTC)
WHOLE: Final = {"from": "2025-01-01T00:00:00Z", "to": "2026-01-01T00:00:00Z"}
# Begins and ends inside an hour.
AWRY: Final = {"from": "2025-03-03T05:17:00Z", "to": "2025-03-05T20:44:00Z"}
TEXTS: Final = (
    "%",
    "%a",
    "_",
    "_a",
    "a",
    "a%",
    "ab",
    "a_b",
    "a\\",
    "\\",
    "A",
    "Ünï",
    "ü",
    "\uffff",
    "\U0001f680",
    "\x01",
    " ",
)
DOCUMENT: Final = """
query ($dimension: Dimension!, $query: UsageQuery!, $prefix: String! = "", $first: Int! = 1000) {
  dimensionValues(dimension: $dimension, query: $query, prefix: $prefix, first: $first)
}
"""
DIMENSIONS: Final = ("account", "subscription", "user", "device", "product", "feature", "classification", "unit")
REQUIRED: Final = {"account", "product", "unit"}


def made_events() -> list[dict[str, Any]]:
    """Events that have every text in every dimension, and none in those that may be missing."""
    events = []
    for number in range(3 * len(TEXTS)):
        values: dict[str, str | None] = {
            name: TEXTS[(number * (index + 1)) % len(TEXTS)] for index, name in enumerate(DIMENSIONS)
        }
        if number % 4 == 0:
            values = {name: value if name in REQUIRED else None for name, value in values.items()}
        at = START + number * timedelta(hours=1, minutes=53)
        events.append(usage_event(number, occurred_at=at.isoformat(), **values))
    return events


EVENTS: Final = made_events()


@pytest.fixture(scope="module", params=ENGINES)
def kept(servers: dict[str, Server], request: pytest.FixtureRequest) -> Iterator[tuple[Api, str]]:
    """The service over EVENTS: two thirds are rolled up, and the rest came late."""
    server = servers[request.param]
    url = server.clone()

    async def refresh() -> None:
        database = await Database.connect(Settings(database_url=url), LIMITS)
        try:
            while await Refresher(database).run() is None:  # noqa: ASYNC110 - the service's own refresher ends its turn
                await asyncio.sleep(0)
        finally:
            await database.close()

    with running(url) as api:
        cut = 2 * len(TEXTS)
        assert api.send(EVENTS[:cut])["accepted"] == cut
        asyncio.run(refresh())
        assert api.send(EVENTS[cut:])["accepted"] == len(EVENTS) - cut
        yield api, url
    server.drop(url)


@pytest.fixture
def api(kept: tuple[Api, str]) -> Api:
    """The service over EVENTS."""
    return kept[0]


def ask(
    api: Api, dimension: str, period: Mapping[str, str] = WHOLE, key: str | None = None, **others: Any
) -> list[str]:
    """The values that are answered."""
    query = {"period": period, **others.pop("query", {})}
    variables = {"dimension": dimension.upper(), "query": query, **others}
    answer: list[str] = api.ask(DOCUMENT, variables, **({} if key is None else {"key": key}))["dimensionValues"]
    return answer


def expected(dimension: str, period: Mapping[str, str] = WHOLE, prefix: str = "", **only: str) -> list[str]:
    """The same in Python: by bytes, once each, without what is missing."""
    start, end = datetime.fromisoformat(period["from"]), datetime.fromisoformat(period["to"])
    values = {
        event[dimension]
        for event in EVENTS
        if dimension in event
        and start <= datetime.fromisoformat(event["occurred_at"]) < end
        and event[dimension].startswith(prefix)
        and all(event.get(name) == value for name, value in only.items())
    }
    return sorted(values, key=str.encode)


@pytest.mark.parametrize("dimension", DIMENSIONS)
def test_the_values_that_occur_in_order(api: Api, dimension: str) -> None:
    """Every value that usage of the period has, once, in the order of its bytes; a missing value is none."""
    for period in (WHOLE, AWRY):
        assert expected(dimension, period) == ask(api, dimension, period)
    nothing = {"from": "2024-01-01T00:00:00Z", "to": "2024-02-01T00:00:00Z"}
    assert [] == ask(api, dimension, nothing)


@pytest.mark.parametrize("dimension", ["account", "user", "product"])
@pytest.mark.parametrize("prefix", ["a", "%", "_", "\\", "a\\", "a%", "ab", "Ü", "x", "\U0001f680", "a" * 300])
def test_a_prefix_is_a_text_and_no_pattern(api: Api, dimension: str, prefix: str) -> None:
    """Values begin with the prefix as it is written: per cent, underscore and backslash stand for themselves."""
    assert expected(dimension, prefix=prefix) == ask(api, dimension, prefix=prefix)


@pytest.mark.parametrize("dimension", ["account", "user"])
def test_as_many_as_are_asked_for(api: Api, dimension: str) -> None:
    """`first` takes the first ones in order, of those that begin with the prefix."""
    for first in (1, 2, len(TEXTS), 1_000):
        assert expected(dimension)[:first] == ask(api, dimension, first=first)
    assert expected(dimension, prefix="a")[:2] == ask(api, dimension, prefix="a", first=2)


def test_filters_hold_and_groups_do_not_matter(api: Api) -> None:
    """The query's filters narrow the values, its groupBy does nothing to them."""
    narrowed = {"filter": {"account": {"in": ["a"]}}, "groupBy": ["USER", "UNIT"]}

    assert expected("device", account="a") == ask(api, "device", query=narrowed)
    assert ["a"] == ask(api, "account", query=narrowed)
    assert expected("account", user="a") == ask(api, "account", query={"filter": {"user": {"in": ["a"]}}})


def test_a_bound_key_sees_the_values_of_its_accounts(kept: tuple[Api, str]) -> None:
    """A key that is bound to accounts is told these and what they have, whatever it asks."""
    api, url = kept

    async def bound() -> str:
        database = await Database.connect(Settings(database_url=url), LIMITS)
        try:
            _, secret = await KeyRing(database).create("bound", [Scope.USAGE_READ], ["a%", "nobody"])
        finally:
            await database.close()
        return secret

    key = asyncio.run(bound())

    assert ["a%"] == ask(api, "account", key=key)
    assert expected("user", account="a%") == ask(api, "user", key=key)
    assert [] == ask(api, "user", key=key, query={"filter": {"account": {"in": ["ab"]}}})


@pytest.mark.parametrize(
    ("variables", "path"),
    [
        ({"first": 0}, ["first"]),
        ({"first": LIMITS.page_rows_max + 1}, ["first"]),
        ({"prefix": "a\0"}, ["prefix"]),
        ({"query": {"period": {"from": WHOLE["to"], "to": WHOLE["from"]}}}, ["query", "period", "to"]),
    ],
)
def test_bad_arguments_are_an_error_with_their_paths(api: Api, variables: dict[str, Any], path: list[str]) -> None:
    """What cannot be answered is an INVALID_INPUT error, with the issues in it."""
    answer = api.answer(DOCUMENT, {"dimension": "USER", "query": {"period": WHOLE}, **variables})

    (error,) = answer["errors"]
    assert "INVALID_INPUT" == error["extensions"]["code"]
    assert [path] == [issue["path"] for issue in error["extensions"]["issues"]]


def test_without_the_scope_nothing_is_told(api: Api) -> None:
    """A caller without a key is refused."""
    answer = api.answer(DOCUMENT, {"dimension": "USER", "query": {"period": WHOLE}}, key=None)

    assert "UNAUTHENTICATED" == answer["errors"][0]["extensions"]["code"]
