"""`events` through HTTP, on real databases: what stands behind a figure, newest first, as it was sent."""

import asyncio
import random
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import msgspec
import pytest

from metering.config import Settings
from metering.keys import KeyRing, Scope
from metering.limits import LIMITS
from metering.store.pool import Database
from tests.conftest import ENGINES, Api, Server, running, usage_event

WHOLE: Final = {"from": "2025-01-01T00:00:00Z", "to": "2026-01-01T00:00:00Z"}
DIMENSIONS: Final = ("account", "subscription", "user", "device", "product", "feature", "classification", "unit")

Sent = dict[str, Any]

EVENTS_QUERY: Final = """
query ($query: UsageQuery!, $attributes: JSON, $first: Int! = 1000, $after: String) {
  events(query: $query, attributes: $attributes, first: $first, after: $after) {
    edges { cursor node { id } }
    nodes {
      id eventId source occurredAt receivedAt
      account subscription user device product feature classification unit
      quantity attributes voided
    }
    pageInfo { hasNextPage hasPreviousPage startCursor endCursor }
  }
}
"""


def made_events() -> list[Sent]:
    """A hundred and twenty events: many at the same instant, of several accounts and sources, with the same ids."""
    chance = random.Random(17)
    choices: dict[str, Sequence[str | None]] = {
        "account": ("acme", "Zoë", "null"),
        "subscription": (None, "s1"),
        "user": (None, "ann", 'quo"te\\', "\U0001f680"),
        "device": (None, "d1"),
        "feature": (None, "tiles"),
        "classification": (None, "paid"),
        "unit": ("call", "byte"),
    }
    start = datetime(2025, 6, 2, tzinfo=UTC)
    instants = [
        *[start + timedelta(days=day) for day in (0, 1, 60)],
        *[start + timedelta(days=1, microseconds=microseconds) for microseconds in (-1, 1, 123_450, 1_000_000)],
    ]
    attributes: tuple[dict[str, Any] | None, ...] = (
        None,
        {},
        {"region": "eu"},
        {"region": "eu", "tier": 1},
        {"region": "us", "tier": 1.5, "ok": True},
        {"nothing": None, 'quo"te': "a'b\\c", "ünï": "\U0001f680"},
        {"big": 2**63, "float": 0.1, "text": "1.5"},
    )
    events = []
    for number in range(120):
        fields: dict[str, str | None] = {name: chance.choice(values) for name, values in choices.items()}
        event = usage_event(
            number // 3,
            source=f"source {number % 3}",
            occurred_at=chance.choice(instants).isoformat(),
            quantity=chance.choice(["1", "0", "-2.50", "1E+3", "0.000000000000000001", "1234567890123456789.000"]),
            attributes=chance.choice(attributes),
            **fields,
        )
        events.append(event)
    return events


EVENTS: Final = made_events()


@pytest.fixture(scope="module", params=ENGINES)
def year_url(servers: dict[str, Server], request: pytest.FixtureRequest) -> Iterator[str]:
    """One database for all tests that only ask."""
    with servers[request.param].cloned() as url:
        yield url


@pytest.fixture(scope="module")
def year(year_url: str) -> Iterator[Api]:
    """The service over EVENTS, to which nobody writes."""
    with running(year_url) as api:
        assert api.send(EVENTS)["accepted"] == len(EVENTS)
        yield api


def instant(text: str) -> datetime:
    """An instant of the API."""
    return datetime.fromisoformat(text)


def name(event: Mapping[str, Any]) -> tuple[str, str, str]:
    """What names an event, of those here: account, source and id; as it was sent, or as it is shown."""
    return event["account"], event["source"], event["eventId"] if "eventId" in event else event["id"]


def query(period: Mapping[str, str] = WHOLE, **others: Any) -> dict[str, Any]:
    """A UsageQuery as a variable."""
    return {"period": period, **others}


def shown(api: Api, asked: Mapping[str, Any], *, key: str | None = None, **others: Any) -> list[Any]:
    """All events that the query shows."""
    keys = {} if key is None else {"key": key}
    answer = api.ask(EVENTS_QUERY, {"query": asked, **others}, **keys)["events"]
    assert answer["pageInfo"]["hasNextPage"] is False
    return list(answer["nodes"])


def test_events_are_shown_as_they_were_sent(year: Api) -> None:
    """Each event once, with every field as it was sent: texts, null, attributes; instants in UTC, quantities plain."""
    plain = {"1": "1", "0": "0", "-2.50": "-2.5", "1E+3": "1000"} | {
        "0.000000000000000001": "0.000000000000000001",
        "1234567890123456789.000": "1234567890123456789",
    }
    by_name = {name(event): event for event in EVENTS}
    nodes = shown(year, query())

    assert len(EVENTS) == len(by_name) == len(nodes)
    for node in nodes:
        sent = by_name[name(node)]
        assert [sent.get(dimension) for dimension in DIMENSIONS] == [node[dimension] for dimension in DIMENSIONS]
        assert instant(sent["occurred_at"]) == instant(node["occurredAt"])
        assert node["occurredAt"].endswith("Z")
        assert plain[sent["quantity"]] == node["quantity"]
        assert (sent.get("attributes") or None) == node["attributes"]
        assert node["voided"] is False
        assert timedelta(0) <= datetime.now(UTC) - instant(node["receivedAt"]) < timedelta(hours=1)


def test_events_come_newest_first(year: Api) -> None:
    """The newest comes first; events of one instant stay together by account, in the same order at every question."""
    nodes = shown(year, query())
    places = [(instant(node["occurredAt"]), node["account"].encode()) for node in nodes]

    assert sorted(places, key=lambda place: (-place[0].timestamp(), place[1])) == places
    assert len({at for at, _ in places}) < len(places) / 4  # many at the same instant, so that ties count
    assert nodes == shown(year, query())


def test_ids_are_unique_and_stable(year: Api) -> None:
    """An id is one event's, the same in every answer, and not what the producer sent: that repeats between accounts."""
    ids = [node["id"] for node in shown(year, query())]
    acme = [node["id"] for node in shown(year, query(filter={"account": {"in": ["acme"]}}))]

    assert len(EVENTS) == len(set(ids))
    assert len(EVENTS) > len({event["id"] for event in EVENTS})
    assert [node["id"] for node in shown(year, query()) if node["account"] == "acme"] == acme


@pytest.mark.parametrize("first", [1, 2, 7, 40, 119, 120, 121])
def test_pages_show_each_event_once(year: Api, first: int) -> None:
    """By cursor, pages of any size show each event once, in the order of one page of all, and tell where they stand."""
    expected = [node["id"] for node in shown(year, query())]
    seen: list[str] = []
    after = None
    while True:
        page = year.ask(EVENTS_QUERY, {"query": query(), "first": first, "after": after})["events"]
        info, cursors = page["pageInfo"], [edge["cursor"] for edge in page["edges"]]
        assert [edge["node"]["id"] for edge in page["edges"]] == [node["id"] for node in page["nodes"]]
        assert (cursors[0], cursors[-1]) == (info["startCursor"], info["endCursor"])
        assert bool(seen) is info["hasPreviousPage"]
        seen += [node["id"] for node in page["nodes"]]
        if not info["hasNextPage"]:
            break
        assert first == len(page["nodes"])
        after = info["endCursor"]

    assert expected == seen


def test_a_page_may_begin_behind_any_event(year: Api) -> None:
    """Each edge's cursor leads to the event behind it; behind the last one there is an empty page."""
    edges = year.ask(EVENTS_QUERY, {"query": query()})["events"]["edges"]
    for index in (0, 1, 50, 118):
        page = year.ask(EVENTS_QUERY, {"query": query(), "first": 1, "after": edges[index]["cursor"]})["events"]
        assert [edges[index + 1]["node"]] == [edge["node"] for edge in page["edges"]]
    behind = year.ask(EVENTS_QUERY, {"query": query(), "after": edges[-1]["cursor"]})["events"]

    assert [] == behind["nodes"]
    nothing = {"hasNextPage": False, "hasPreviousPage": True, "startCursor": None, "endCursor": None}
    assert nothing == behind["pageInfo"]


def test_events_that_come_in_do_not_shift_pages(api: Api) -> None:
    """An event that is recorded while pages are turned moves no other one: each is shown once all the same."""
    api.send([usage_event(number, occurred_at=f"2025-06-0{1 + number % 5}T00:00:00Z") for number in range(20)])
    first = api.ask(EVENTS_QUERY, {"query": query(), "first": 8})["events"]
    api.send([usage_event(100 + number, occurred_at="2025-06-05T12:00:00Z") for number in range(5)])
    after = first["pageInfo"]["endCursor"]
    second = api.ask(EVENTS_QUERY, {"query": query(), "after": after})["events"]

    ids = [node["eventId"] for node in first["nodes"] + second["nodes"]]
    assert sorted(f"event-{number}" for number in range(20)) == sorted(ids)


def test_the_period_is_half_open(year: Api) -> None:
    """An event at `from` is shown, one at `to` is not; to the microsecond."""
    period = {"from": "2025-06-03T00:00:00Z", "to": "2025-06-03T00:00:00.000001Z"}
    before = {"from": "2025-06-02T23:59:59.999999Z", "to": "2025-06-03T00:00:00Z"}
    for asked, at in ((period, "2025-06-03T00:00:00+00:00"), (before, "2025-06-02T23:59:59.999999+00:00")):
        expected = {name(event) for event in EVENTS if event["occurred_at"] == at}
        assert expected
        assert expected == {name(node) for node in shown(year, query(asked))}


@pytest.mark.parametrize(
    ("dimension", "chosen"),
    [
        ("account", {"in": ["acme", "null"]}),
        ("account", {"notIn": ["acme", None]}),
        ("user", {"in": [None]}),
        ("user", {"in": ['quo"te\\', None]}),
        ("user", {"notIn": ["ann"]}),
        ("user", {"notIn": ["ann", None]}),
        ("device", {"in": []}),
        ("device", {"notIn": []}),
        ("unit", {"in": ["byte", "nothing"]}),
    ],
)
def test_filters_keep_what_figures_keep(year: Api, dimension: str, chosen: dict[str, list[str | None]]) -> None:
    """The same filters as for usage show the very events behind the figure: as many as it counts."""
    nodes = shown(year, query(filter={dimension: chosen}))
    document = "query ($query: UsageQuery!) { usage(query: $query) { ... on UsageReport { totals { events } } } }"
    totals = year.ask(document, {"query": query(filter={dimension: chosen})})["usage"]["totals"]

    def keeps(value: str | None) -> bool:
        return value in chosen["in"] if "in" in chosen else value not in chosen["notIn"]

    assert {name(event) for event in EVENTS if keeps(event.get(dimension))} == {name(node) for node in nodes}
    assert len(nodes) == sum(int(total["events"]) for total in totals)


@pytest.mark.parametrize(
    "attributes",
    [
        {"region": "eu"},
        {"region": "eu", "tier": 1},
        {"tier": 1.0},
        {"tier": 1.5},
        {"tier": "1"},
        {"ok": True},
        {"ok": False},
        {"nothing": None},
        {'quo"te': "a'b\\c"},
        {"ünï": "\U0001f680"},
        {"big": 2**63},
        {"float": 0.1},
        {"text": "1.5"},
        {"region": ["eu"]},
        {"region": {"eu": 1}},
        {"absent": "x"},
    ],
)
def test_attributes_are_contained(year: Api, attributes: dict[str, Any]) -> None:
    """Kept are events whose attributes contain every one that is asked for, with that value and of that kind."""

    def contains(event: Sent) -> bool:
        held = event.get("attributes") or {}
        return all(
            key in held and held[key] == value and isinstance(held[key], bool) is isinstance(value, bool)
            for key, value in attributes.items()
        )

    expected = {name(event) for event in EVENTS if contains(event)}
    assert expected == {name(node) for node in shown(year, query(), attributes=attributes)}
    # The same again, written into the document instead of sent as a variable.
    if all(key.isidentifier() and key.isascii() for key in attributes):
        fields = ", ".join(f"{key}: {literal(value)}" for key, value in attributes.items())
        document = (
            "query ($query: UsageQuery!) "
            f"{{ events(query: $query, first: 1000, attributes: {{ {fields} }}) {{ nodes {{ account source eventId }} }} }}"
        )
        nodes = year.ask(document, {"query": query()})["events"]["nodes"]
        assert expected == {name(node) for node in nodes}


def literal(value: Any) -> str:
    """A JSON value as GraphQL writes it."""
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key}: {literal(item)}" for key, item in value.items()) + " }"
    return msgspec.json.encode(value).decode()


def test_no_attributes_are_contained_in_all(year: Api) -> None:
    """Without attributes, or with none in them, every event is shown, also those that have none."""
    assert len(EVENTS) == len(shown(year, query(), attributes=None))
    assert len(EVENTS) == len(shown(year, query(), attributes={}))


def test_a_bound_key_sees_only_its_accounts(year: Api, year_url: str) -> None:
    """A key that is bound to accounts is shown their events alone, whatever it filters by, on every page."""

    async def bound_key(*accounts: str) -> str:
        database = await Database.connect(Settings(database_url=year_url), LIMITS)
        try:
            _, secret = await KeyRing(database).create("bound", [Scope.USAGE_READ], accounts)
        finally:
            await database.close()
        return secret

    key = asyncio.run(bound_key("Zoë", "null"))
    theirs = {name(event) for event in EVENTS if event["account"] in {"Zoë", "null"}}
    everything = year.ask(EVENTS_QUERY, {"query": query(), "first": 1})["events"]
    behind = {"after": everything["pageInfo"]["endCursor"]}

    assert theirs == {name(node) for node in shown(year, query(), key=key)}
    assert theirs >= {name(node) for node in shown(year, query(), key=key, **behind)}
    assert [] == shown(year, query(filter={"account": {"in": ["acme"]}}), key=key)
    others = shown(year, query(filter={"account": {"notIn": ["Zoë"]}}), key=key)
    assert {"null"} == {node["account"] for node in others}


@pytest.mark.parametrize(
    ("variables", "path"),
    [
        ({"first": 0}, ["first"]),
        ({"first": LIMITS.page_rows_max + 1}, ["first"]),
        ({"after": "no cursor"}, ["after"]),
        ({"after": "é"}, ["after"]),
        ({"attributes": {"nul": "a\0b"}}, ["attributes"]),
        ({"attributes": {"nul\0": 1}}, ["attributes"]),
        ({"attributes": {"deep": [{"nul": ["\0"]}]}}, ["attributes"]),
        ({"query": query({"from": WHOLE["to"], "to": WHOLE["from"]})}, ["query", "period", "to"]),
        ({"query": query(timeZone="Nowhere")}, ["query", "timeZone"]),
        ({"query": query(filter={"user": {"in": ["\0"]}})}, ["query", "filter", "user", "in"]),
    ],
)
def test_bad_arguments_are_an_error_with_their_paths(year: Api, variables: dict[str, Any], path: list[str]) -> None:
    """`events` has no union to answer with: what cannot be answered is an INVALID_INPUT error, with the issues in it."""
    answer = year.answer(EVENTS_QUERY, {"query": query(), **variables})

    (error,) = answer["errors"]
    assert answer["data"] is None
    assert "INVALID_INPUT" == error["extensions"]["code"]
    assert [path] == [issue["path"] for issue in error["extensions"]["issues"]]
    assert all(issue["message"] for issue in error["extensions"]["issues"])


@pytest.mark.parametrize("name", ["account", "source", "id"])
def test_a_name_that_no_event_can_have_names_none(year: Api, name: str) -> None:
    """NUL in a name: null, and no error."""
    given = {"account": "acme", "source": "test", "id": "event-1", name: "a\0"}
    query = "query ($account: String!, $source: String!, $id: String!) "

    assert {"event": None} == year.ask(query + "{ event(account: $account, source: $source, id: $id) { id } }", given)


def test_a_cursor_of_groups_is_none_of_events(year: Api) -> None:
    """A cursor of another list is refused, not misread."""
    document = (
        "query ($query: UsageQuery!) { usage(query: $query) { ... on UsageReport { "
        "groups(first: 1) { pageInfo { endCursor } } } } }"
    )
    groups = year.ask(document, {"query": query(groupBy=["USER"])})["usage"]["groups"]
    answer = year.answer(EVENTS_QUERY, {"query": query(), "after": groups["pageInfo"]["endCursor"]})

    assert "INVALID_INPUT" == answer["errors"][0]["extensions"]["code"]
