"""`usage` through HTTP, on real databases: every figure equals what a few lines of Python make of the same events.

What is asked lies in every state at once: rolled up, late (pending), and at the edges of periods that begin anywhere.
"""

import asyncio
import random
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal, localcontext
from itertools import pairwise
from threading import Event as Flag
from typing import Any, Final
from zoneinfo import ZoneInfo

import pytest

from graphql_api.usage import Scopes
from metering.config import Settings
from metering.keys import KeyRing, Scope
from metering.limits import LIMITS, Limits
from metering.rollups.refresh import Refresher
from metering.store.pool import Database
from tests.conftest import ENGINES, Api, Server, running, usage_event

DIMENSIONS: Final = ("account", "subscription", "user", "device", "product", "feature", "classification", "unit")
WHOLE: Final = {"from": "2025-01-01T00:00:00Z", "to": "2026-01-01T00:00:00Z"}
# Begins and ends inside a minute, over the night in which New York's clocks go forward: 2025-03-09 has 23 hours there.
AWRY: Final = {"from": "2025-03-08T17:12:34.000005Z", "to": "2025-03-10T16:59:59.999999Z"}

Sent = dict[str, Any]
Key = tuple[str | None, ...]

GROUPS: Final = """
query ($query: UsageQuery!, $order: UsageOrder! = { field: QUANTITY, direction: DESC }, $first: Int! = 1000, $after: String) {
  usage(query: $query) {
    ... on UsageReport {
      totals { ...Figures }
      groups(orderBy: $order, first: $first, after: $after) {
        totalCount
        pageInfo { hasNextPage hasPreviousPage startCursor endCursor }
        edges { cursor node { key { ...Key } totals { ...Figures } } }
        nodes { key { user } }
        remainder { ...Figures }
      }
    }
    ... on InvalidInput { code message issues { path message } }
  }
}
fragment Figures on UsageTotal { unit quantity events minimum maximum }
fragment Key on UsageKey { account subscription user device product feature classification unit }
"""

SERIES: Final = """
query ($query: UsageQuery!, $bucket: Bucket!, $fill: Fill!) {
  usage(query: $query) {
    ... on UsageReport {
      timeZone
      groups { nodes {
        key { account }
        totals { unit quantity events }
        series(bucket: $bucket, fill: $fill) {
          unit bucket
          points { from to quantity events }
          columns { from quantity events }
        }
      } }
    }
  }
}
"""


# ---------------------------------------------------------------- what is asked of: events in every state


def made_events() -> list[Sent]:
    """Two hundred and forty events of 2025, the same at every run; keys are what breaks naive quoting and sorting."""
    chance = random.Random(20250309)
    choices: dict[str, Sequence[str | None]] = {
        "account": ("acme", "Zoë", "null", "'; DROP TABLE event; --"),
        "subscription": (None, "s1", "s2"),
        "user": (None, " ", "\x01", "null", 'quo"te\\', "Ünï", "\uffff", "\U0001f680"),
        "device": (None, "d1", "d2", "\ufeff"),
        "product": ("maps", "mail"),
        "feature": (None, "tiles", "tiles "),
        "classification": (None, "free", "paid"),
        "unit": ("call", "call", "byte"),
    }
    quantities = ("1", "1", "2.5", "0", "-3", "0.000000000000000001", "99999999999999999999", "12.340000")
    zone = ZoneInfo("America/New_York")
    elsewhere = [datetime(2025, *day, tzinfo=zone) for day in ((1, 1), (2, 14), (11, 2), (12, 27))]
    events = []
    for number in range(240):
        start = datetime(2025, 3, 7, tzinfo=zone) if number % 4 else chance.choice(elsewhere)
        at = start + timedelta(microseconds=chance.randrange(5 * 86_400 * 1_000_000))
        if number % 5 == 0:  # sharp on an hour, or a microsecond before it
            at = at.replace(minute=0, second=0, microsecond=0) - timedelta(microseconds=chance.choice((0, 0, 1)))
        fields: dict[str, str | None] = {name: chance.choice(values) for name, values in choices.items()}
        quantity = chance.choice(quantities)
        events.append(usage_event(number, occurred_at=at.astimezone(UTC).isoformat(), quantity=quantity, **fields))
    return events


EVENTS: Final = made_events()


async def refresh(database_url: str) -> None:
    """Roll up and work off everything that there is."""
    database = await Database.connect(Settings(database_url=database_url), LIMITS)
    try:
        done = None
        while done is None or done.more:
            done = await Refresher(database).run()
            await asyncio.sleep(0)  # None: the service's own refresher is at work
    finally:
        await database.close()


@pytest.fixture(scope="module", params=ENGINES)
def year_url(servers: dict[str, Server], request: pytest.FixtureRequest) -> Iterator[str]:
    """One database for all tests that only ask."""
    with servers[request.param].cloned() as url:
        yield url


@pytest.fixture(scope="module")
def year(year_url: str) -> Iterator[Api]:
    """The service over EVENTS, to which nobody writes: three quarters are rolled up, and the rest came late."""
    early, late = EVENTS[:180], EVENTS[180:]
    with running(year_url) as api:
        assert api.send(early)["accepted"] == len(early)
        asyncio.run(refresh(year_url))
        assert api.send(late)["accepted"] == len(late)
        yield api


# ---------------------------------------------------------------- the same in Python


def instant(text: str) -> datetime:
    """An instant of the API."""
    return datetime.fromisoformat(text)


def within(period: Mapping[str, str], events: Sequence[Sent] = tuple(EVENTS)) -> list[Sent]:
    """The events of a period."""
    start, end = instant(period["from"]), instant(period["to"])
    return [event for event in events if start <= instant(event["occurred_at"]) < end]


def exact_sum(quantities: Sequence[Decimal]) -> Decimal:
    """The sum, with every digit."""
    with localcontext(prec=200):
        return sum(quantities, Decimal(0))


def plain(number: Decimal) -> str:
    """A decimal as the contract writes it."""
    with localcontext(prec=200):
        return format(number.normalize() + 0, "f")


def figures(events: Sequence[Sent]) -> list[dict[str, str]]:
    """What UsageTotal says of these events."""
    totals = []
    for unit in sorted({event["unit"] for event in events}):
        quantities = [Decimal(event["quantity"]) for event in events if event["unit"] == unit]
        totals.append(
            {
                "unit": unit,
                "quantity": plain(exact_sum(quantities)),
                "events": str(len(quantities)),
                "minimum": plain(min(quantities)),
                "maximum": plain(max(quantities)),
            }
        )
    return totals


def grouped(events: Sequence[Sent], dimensions: Sequence[str]) -> dict[Key, list[Sent]]:
    """The events by the values of these dimensions."""
    groups: dict[Key, list[Sent]] = {}
    for event in events:
        groups.setdefault(tuple(event.get(name) for name in dimensions), []).append(event)
    return groups


def distinct(events: Sequence[Sent], dimension: str) -> dict[str, int]:
    """How many values of a dimension there are, by unit."""
    units = {event["unit"] for event in events}
    values = {unit: {event.get(dimension) for event in events if event["unit"] == unit} for unit in units}
    return {unit: len(of_unit - {None}) for unit, of_unit in values.items()}


def by_bytes(key: Key) -> tuple[tuple[bool, bytes], ...]:
    """Keys sort by their bytes, in the order of `groupBy`; a missing value comes last."""
    return tuple((value is None, (value or "").encode()) for value in key)


def key_of(node: Mapping[str, Any], dimensions: Sequence[str]) -> Key:
    """A group's key; what the query does not group by must be null."""
    assert all(node["key"][name] is None for name in DIMENSIONS if name not in dimensions)
    return tuple(node["key"][name] for name in dimensions)


def query(period: Mapping[str, str] = WHOLE, group_by: Sequence[str] = (), **others: Any) -> dict[str, Any]:
    """A UsageQuery as a variable."""
    return {"period": period, "groupBy": [name.upper() for name in group_by], **others}


# ---------------------------------------------------------------- totals, groups, filters


def test_totals_are_by_unit(year: Api) -> None:
    """Totals of a period are one for each unit, exact to the last digit, sorted by unit, in plain notation."""
    for period in (WHOLE, AWRY):
        answer = year.ask(GROUPS, {"query": query(period)})["usage"]

        assert figures(within(period)) == answer["totals"]


def test_a_period_without_usage_has_no_totals_and_no_groups(year: Api) -> None:
    """Where nothing happened there is nothing: no unit with a zero, no group."""
    empty = {"from": "2024-01-01T00:00:00Z", "to": "2024-02-01T00:00:00Z"}
    answer = year.ask(GROUPS, {"query": query(empty, ["user"])})["usage"]

    nothing = {"hasNextPage": False, "hasPreviousPage": False, "startCursor": None, "endCursor": None}
    assert [] == answer["totals"]
    expected = {"totalCount": 0, "pageInfo": nothing, "edges": [], "nodes": [], "remainder": []}
    assert expected == answer["groups"]


def subsets() -> list[tuple[str, ...]]:
    """No dimension, each one, all, all but one, and some in between; in any order."""
    chance = random.Random(8)
    some = [tuple(chance.sample(DIMENSIONS, count)) for count in (2, 2, 2, 3, 3, 4, 5)]
    all_but_one = [tuple(name for name in DIMENSIONS if name != left) for left in ("account", "user", "unit")]
    return [(), *((name,) for name in DIMENSIONS), DIMENSIONS[::-1], *all_but_one, *some]


def test_groups_by_any_dimensions(year: Api) -> None:
    """One group for each combination that occurs, a missing value being one; together they are the totals."""
    for dimensions in subsets():
        answer = year.ask(GROUPS, {"query": query(WHOLE, dimensions)})["usage"]
        groups = answer["groups"]
        actual = {key_of(edge["node"], dimensions): edge["node"]["totals"] for edge in groups["edges"]}

        expected = {key: figures(events) for key, events in grouped(EVENTS, dimensions).items()}
        assert expected == actual, dimensions
        assert len(expected) == groups["totalCount"] == len(groups["edges"])
        assert [] == groups["remainder"]


def test_without_dimensions_there_is_one_group_of_everything(year: Api) -> None:
    """`groupBy: []` is one group, whose key holds nothing and whose totals are the totals."""
    answer = year.ask(GROUPS, {"query": query(AWRY)})["usage"]

    assert [answer["totals"]] == [edge["node"]["totals"] for edge in answer["groups"]["edges"]]
    assert [dict.fromkeys(DIMENSIONS)] == [edge["node"]["key"] for edge in answer["groups"]["edges"]]


def keeps(chosen: Mapping[str, Sequence[str | None]], value: str | None) -> bool:
    """A DimensionFilter by the contract: a null in a list means usage without that dimension."""
    return value in chosen["in"] if "in" in chosen else value not in chosen["notIn"]


def filters_of(dimension: str) -> list[dict[str, list[str | None]]]:
    """Every form of a filter on a dimension: values that occur, one that does not, null, nothing."""
    first, second = sorted({value for event in EVENTS if (value := event.get(dimension)) is not None})[:2]
    lists: tuple[list[str | None], ...] = ([], [first], [first, second, "nobody"], [None], [first, None], ["nobody"])
    return [{member: list(values)} for member in ("in", "notIn") for values in lists]


@pytest.mark.parametrize("dimension", DIMENSIONS)
def test_filters_keep_what_they_name(year: Api, dimension: str) -> None:
    """`in` keeps the values listed and `notIn` all others, a missing value too unless null is listed; for groups alike."""
    for chosen in filters_of(dimension):
        answer = year.ask(GROUPS, {"query": query(AWRY, ["product"], filter={dimension: chosen})})["usage"]
        kept = [event for event in within(AWRY) if keeps(chosen, event.get(dimension))]

        assert figures(kept) == answer["totals"], chosen
        actual = {key_of(edge["node"], ["product"]): edge["node"]["totals"] for edge in answer["groups"]["edges"]}
        assert {key: figures(of_key) for key, of_key in grouped(kept, ["product"]).items()} == actual, chosen


def test_filters_hold_together(year: Api) -> None:
    """All filters that are given must hold, whatever the groups are by; a null filter is none."""
    chosen: dict[str, Any] = {
        "user": {"notIn": [None, " ", "Ünï"]},
        "feature": {"in": [None, "tiles"]},
        "unit": {"in": ["call"]},
        "device": None,
    }
    kept = [e for e in within(AWRY) if all(keeps(by, e.get(name)) for name, by in chosen.items() if by is not None)]
    answer = year.ask(GROUPS, {"query": query(AWRY, ["device", "account"], filter=chosen)})["usage"]

    assert figures(kept) == answer["totals"]
    actual = {key_of(edge["node"], ["device", "account"]): edge["node"]["totals"] for edge in answer["groups"]["edges"]}
    assert {key: figures(events) for key, events in grouped(kept, ["device", "account"]).items()} == actual


# ---------------------------------------------------------------- order and pages


def ordered(groups: Mapping[Key, Sequence[Sent]], field: str, direction: str, unit: str | None) -> list[Key]:
    """The keys of groups in order, by the contract."""
    units = {event["unit"] for events in groups.values() for event in events}
    unit = unit or (min(units) if len(units) == 1 else None)

    def value(key: Key) -> Decimal:
        if field == "QUANTITY" and unit is not None:
            return exact_sum([Decimal(event["quantity"]) for event in groups[key] if event["unit"] == unit])
        return Decimal(len(groups[key]))

    keys = sorted(groups, key=by_bytes)
    if field == "KEY":
        return keys[::-1] if direction == "DESC" else keys
    return sorted(keys, key=value, reverse=direction == "DESC")  # sorted() is stable: ties stay by key


def pages(api: Api, asked: Mapping[str, Any], order: Mapping[str, Any], first: int) -> Iterator[Any]:
    """Page after page, until the last one."""
    after = None
    while True:
        variables = {"query": asked, "order": order, "first": first, "after": after}
        answer = api.ask(GROUPS, variables)["usage"]
        yield answer
        if not answer["groups"]["pageInfo"]["hasNextPage"]:
            return
        after = answer["groups"]["pageInfo"]["endCursor"]


ORDERS: Final = [
    (field, direction, unit)
    for field, units in (("KEY", (None,)), ("EVENTS", (None,)), ("QUANTITY", (None, "call", "byte", "absent")))
    for direction in ("ASC", "DESC")
    for unit in units
]


@pytest.mark.parametrize(("field", "direction", "unit"), ORDERS)
def test_groups_come_in_order_on_pages_of_every_size(year: Api, field: str, direction: str, unit: str | None) -> None:
    """By cursor, pages of any size show each group once, in the same order as one page of all; page + rest = whole."""
    order = {"field": field, "direction": direction, "unit": unit}
    groups = grouped(within(AWRY), ["user"])
    expected = ordered(groups, field, direction, unit)
    assert None in {key[0] for key in expected}

    for first in range(1, len(expected) + 2):
        seen: list[Key] = []
        for answer in pages(year, query(AWRY, ["user"]), order, first):
            page = answer["groups"]
            keys = [key_of(edge["node"], ["user"]) for edge in page["edges"]]
            cursors = [edge["cursor"] for edge in page["edges"]]
            info = page["pageInfo"]
            assert keys == [(node["key"]["user"],) for node in page["nodes"]]
            assert [figures(groups[key]) for key in keys] == [edge["node"]["totals"] for edge in page["edges"]]
            assert (cursors[0], cursors[-1]) == (info["startCursor"], info["endCursor"])
            assert (bool(seen), len(expected)) == (info["hasPreviousPage"], page["totalCount"])
            others = [event for key, events in groups.items() if key not in keys for event in events]
            assert figures(others) == page["remainder"]
            seen += keys
            assert info["hasNextPage"] is (len(seen) < len(expected))
        assert expected == seen, first


@pytest.mark.parametrize("direction", ["ASC", "DESC"])
def test_the_only_unit_there_is_orders_without_being_named(year: Api, direction: str) -> None:
    """QUANTITY without a unit is by the only unit, on every page, where the filter leaves but one."""
    asked = query(WHOLE, ["feature", "user"], filter={"unit": {"in": ["byte"]}})
    groups = grouped([event for event in EVENTS if event["unit"] == "byte"], ["feature", "user"])
    order = {"field": "QUANTITY", "direction": direction}
    seen = [
        key_of(edge["node"], ["feature", "user"])
        for answer in pages(year, asked, order, 4)
        for edge in answer["groups"]["edges"]
    ]

    assert ordered(groups, "QUANTITY", direction, "byte") == seen


def test_groups_by_several_dimensions_page_by_key_in_the_order_of_group_by(year: Api) -> None:
    """The key's order is that of `groupBy`: the same groups, asked the other way round, come in another order."""
    for dimensions in (["feature", "user", "unit"], ["unit", "user", "feature"]):
        groups = grouped(EVENTS, dimensions)
        for direction in ("ASC", "DESC"):
            order = {"field": "KEY", "direction": direction}
            seen = [
                key_of(edge["node"], dimensions)
                for answer in pages(year, query(WHOLE, dimensions), order, 11)
                for edge in answer["groups"]["edges"]
            ]

            assert ordered(groups, "KEY", direction, None) == seen


@pytest.mark.parametrize("field", ["KEY", "QUANTITY", "EVENTS"])
def test_behind_the_last_group_there_is_an_empty_page(year: Api, field: str) -> None:
    """The last cursor leads to an empty page whose remainder is everything, distinct counts too; without groups alike."""
    document = """
    query ($query: UsageQuery!, $order: UsageOrder!, $after: String) { usage(query: $query) { ... on UsageReport {
      totals { ...Figures }
      groups(orderBy: $order, first: 1000, after: $after) {
        totalCount pageInfo { hasNextPage hasPreviousPage endCursor } nodes { key { user } } remainder { ...Figures }
      }
    } } }
    fragment Figures on UsageTotal { unit quantity events minimum maximum distinct(dimension: USER) }
    """
    for dimensions in ((), ("user",)):
        variables: dict[str, Any] = {"query": query(AWRY, dimensions), "order": {"field": field, "direction": "ASC"}}
        page = year.ask(document, variables)["usage"]["groups"]
        variables["after"] = page["pageInfo"]["endCursor"]
        behind = year.ask(document, variables)["usage"]

        assert page["totalCount"] == behind["groups"]["totalCount"]
        assert [] == behind["groups"]["nodes"]
        assert {"hasNextPage": False, "hasPreviousPage": True, "endCursor": None} == behind["groups"]["pageInfo"]
        assert behind["totals"] == behind["groups"]["remainder"]


def test_distinct_values_are_counted_for_totals_groups_and_remainder(year: Api) -> None:
    """`distinct` counts values of any dimension by unit, a missing one not; never by adding what groups say."""
    counts = " ".join(f"{name}: distinct(dimension: {name.upper()})" for name in DIMENSIONS)
    document = f"""query ($query: UsageQuery!) {{ usage(query: $query) {{ ... on UsageReport {{
      totals {{ of: unit {counts} }}
      groups(first: 3) {{ nodes {{ key {{ user feature }} totals {{ of: unit {counts} }} }} remainder {{ of: unit {counts} }} }}
    }} }} }}"""
    for dimensions, period in (([], WHOLE), (["user"], AWRY), (["feature", "user"], AWRY)):
        report = year.ask(document, {"query": query(period, dimensions)})["usage"]
        groups = grouped(within(period), dimensions)
        nodes = report["groups"]["nodes"]
        shown = [tuple(node["key"][name] for name in dimensions) for node in nodes]
        others = [event for key, events in groups.items() if key not in shown for event in events]
        compared = [(report["totals"], within(period)), (report["groups"]["remainder"], others)]
        compared += [(node["totals"], groups[key]) for node, key in zip(nodes, shown, strict=True)]
        for totals, events in compared:
            assert sorted({event["unit"] for event in events}) == [total["of"] for total in totals]
            for name in DIMENSIONS:
                assert distinct(events, name) == {total["of"]: total[name] for total in totals}, name


@pytest.mark.parametrize("below", ["nodes { %s }", "edges { node { %s } }", "... { nodes { %s } }"])
def test_no_group_of_a_page_waits_for_its_distinct_counts(
    year: Api, below: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are there before the groups are shown: a thousand that each wait would keep the process from everybody else."""
    report = f"... on UsageReport {{ groups {{ {below} }} }}"
    asked = f"query ($query: UsageQuery!, $of: Dimension!) {{ usage(query: $query) {{ {report} }} }}"
    figures = "totals { events users: distinct(dimension: USER) others: distinct(dimension: $of) }"
    variables = {"query": query(group_by=["account", "product"]), "of": "DEVICE"}
    expected = year.ask(asked % figures, variables)

    def wait(*_: object) -> None:
        raise AssertionError("a group waits")

    monkeypatch.setattr(Scopes, "_awaited", wait)
    assert expected == year.ask(asked % figures, variables)
    assert "users" in str(expected)


# ---------------------------------------------------------------- series


def clock_bounds(period: Mapping[str, str], step: timedelta, offset: timedelta) -> list[datetime]:
    """Minutes or hours that touch the period, where offsets are whole hours or always the same."""
    start, end = instant(period["from"]) + offset, instant(period["to"]) + offset
    bounds = [start - (start - datetime.min.replace(tzinfo=UTC)) % step]
    while bounds[-1] < end:
        bounds.append(bounds[-1] + step)
    return [bound - offset for bound in bounds]


def calendar_bounds(period: Mapping[str, str], zone: ZoneInfo, bucket: str) -> list[datetime]:
    """Days, weeks or months that touch the period, in a zone in which no midnight is missing."""
    day = instant(period["from"]).astimezone(zone).date()
    if bucket == "WEEK":
        day -= timedelta(days=day.weekday())
    if bucket == "MONTH":
        day = day.replace(day=1)
    bounds: list[datetime] = []
    while not bounds or bounds[-1] < instant(period["to"]):
        bounds.append(datetime(day.year, day.month, day.day, tzinfo=zone).astimezone(UTC))
        if bucket == "MONTH":
            day = date(day.year + day.month // 12, day.month % 12 + 1, 1)
        else:
            day += timedelta(days=7 if bucket == "WEEK" else 1)
    return bounds


def bounds_of(period: Mapping[str, str], zone: str, bucket: str) -> list[datetime]:
    """The bounds of the buckets that touch the period."""
    if bucket in {"MINUTE", "HOUR"}:
        offset = timedelta(hours=5, minutes=30) if zone == "Asia/Kolkata" else timedelta(0)
        return clock_bounds(period, timedelta(minutes=1) if bucket == "MINUTE" else timedelta(hours=1), offset)
    return calendar_bounds(period, ZoneInfo(zone), bucket)


def points_of(events: Sequence[Sent], unit: str, bounds: Sequence[datetime], fill: str) -> list[dict[str, str]]:
    """The points of a unit's series."""
    points = []
    of_unit = [(instant(event["occurred_at"]), Decimal(event["quantity"])) for event in events if event["unit"] == unit]
    for start, end in pairwise(bounds):
        quantities = [quantity for at, quantity in of_unit if start <= at < end]
        if quantities or fill == "ZERO":
            texts = [bound.isoformat().replace("+00:00", "Z") for bound in (start, end)]
            quantity = plain(exact_sum(quantities))
            points.append({"from": texts[0], "to": texts[1], "quantity": quantity, "events": str(len(quantities))})
    return points


@pytest.mark.parametrize("zone", ["UTC", "Asia/Kolkata", "America/New_York"])
@pytest.mark.parametrize(
    ("bucket", "period"),
    [
        ("MINUTE", AWRY),
        ("HOUR", AWRY),
        ("DAY", AWRY),
        ("DAY", WHOLE),
        ("WEEK", AWRY),
        ("MONTH", AWRY),
        ("MONTH", WHOLE),
    ],
)
def test_series_are_cut_by_the_calendar_of_the_zone(year: Api, zone: str, bucket: str, period: dict[str, str]) -> None:
    """A series has the calendar's buckets, whole at the period's edges too; rows, columns and totals say the same."""
    bounds = bounds_of(period, zone, bucket)
    groups = grouped(within(period), ["account"] if bucket != "MINUTE" else [])
    for fill in ("ZERO", "NONE"):
        asked = query(period, ["account"] if bucket != "MINUTE" else [], timeZone=zone)
        report = year.ask(SERIES, {"query": asked, "bucket": bucket, "fill": fill})["usage"]

        assert zone == report["timeZone"]
        assert len(groups) == len(report["groups"]["nodes"])
        for node in report["groups"]["nodes"]:
            events = groups[(node["key"]["account"],) if bucket != "MINUTE" else ()]
            assert [total["unit"] for total in node["totals"]] == [series["unit"] for series in node["series"]]
            for series, total in zip(node["series"], node["totals"], strict=True):
                points = series["points"]
                assert bucket == series["bucket"]
                assert points_of(events, series["unit"], bounds, fill) == points
                assert {name: [point[name] for point in points] for name in series["columns"]} == series["columns"]
                assert total["quantity"] == plain(exact_sum([Decimal(point["quantity"]) for point in points]))
                assert total["events"] == str(sum(int(point["events"]) for point in points))


def test_the_day_on_which_clocks_go_forward_has_23_hours(year: Api) -> None:
    """2025-03-09 in New York is one DAY of 23 HOURs; its events are all in it, and in no other."""
    day = {"from": "2025-03-09T05:00:00Z", "to": "2025-03-10T04:00:00Z"}
    asked = query(day, timeZone="America/New_York")
    days = year.ask(SERIES, {"query": asked, "bucket": "DAY", "fill": "ZERO"})["usage"]["groups"]["nodes"][0]["series"]
    hours = year.ask(SERIES, {"query": asked, "bucket": "HOUR", "fill": "ZERO"})["usage"]["groups"]["nodes"][0][
        "series"
    ]

    assert [[(day["from"], day["to"])]] * 2 == [[(p["from"], p["to"]) for p in series["points"]] for series in days]
    assert [23, 23] == [len(series["points"]) for series in hours]
    local = [instant(point["from"]).astimezone(ZoneInfo("America/New_York")).hour for point in hours[0]["points"]]
    assert [0, 1, *range(3, 24)] == local


def test_several_series_of_one_page_are_answered_together(year: Api) -> None:
    """Aliases ask for the same groups by several buckets and zones in one operation, each with its own answer."""
    document = """query ($ours: UsageQuery!, $theirs: UsageQuery!) {
      ours: usage(query: $ours) { ...Course } theirs: usage(query: $theirs) { ...Course }
    }
    fragment Course on UsageReport { groups { nodes { totals { unit }
      days: series(bucket: DAY) { unit points { from to quantity events } }
      months: series(bucket: MONTH, fill: NONE) { unit points { from to quantity events } }
    } } }"""
    zones = {"ours": "UTC", "theirs": "Asia/Kolkata"}
    answer = year.ask(document, {name: query(AWRY, timeZone=zone) for name, zone in zones.items()})
    for name, zone in zones.items():
        (node,) = answer[name]["groups"]["nodes"]
        for field, bucket, fill in (("days", "DAY", "ZERO"), ("months", "MONTH", "NONE")):
            bounds = bounds_of(AWRY, zone, bucket)
            expected = [points_of(within(AWRY), total["unit"], bounds, fill) for total in node["totals"]]
            assert expected == [series["points"] for series in node[field]]


# ---------------------------------------------------------------- what cannot be answered


POINTS: Final = """
query ($query: UsageQuery!, $bucket: Bucket!, $first: Int! = 50, $twice: Boolean! = false, $off: Boolean! = false) {
  usage(query: $query) {
    __typename
    ... on UsageReport { groups(first: $first) { nodes {
      a: series(bucket: $bucket) @skip(if: $off) { points { events } }
      b: series(bucket: $bucket) @include(if: $twice) { points { events } }
    } } }
    ... on Problem { code message }
    ... on TooLarge { points maximum }
  }
}
"""


def test_too_many_points_are_refused_with_their_number(database_url: str) -> None:
    """More points than may be are a TooLarge that says how many; as many as may be are answered; what is skipped is no point."""
    with running(database_url, Limits(points_max=96)) as api:
        api.send([usage_event(1, user="a"), usage_event(2, user="b"), usage_event(3, unit="byte")])
        one_day = {"from": "2026-03-01T00:00:00Z", "to": "2026-03-02T00:00:00Z"}

        def ask(period: Mapping[str, str], group_by: Sequence[str], bucket: str, **others: object) -> Any:
            return api.ask(POINTS, {"query": query(period, group_by), "bucket": bucket, **others})["usage"]

        assert "UsageReport" == ask(one_day, ["user"], "HOUR")["__typename"]  # 3 series of 24 points
        assert "UsageReport" == ask(one_day, [], "HOUR", twice=True)["__typename"]  # 2 units, twice 24: the limit
        refused = ask(one_day, ["user"], "HOUR", twice=True)
        expected = {"__typename": "TooLarge", "code": "TOO_LARGE", "points": 144, "maximum": 96}
        assert expected == {name: value for name, value in refused.items() if name != "message"}
        assert "144" in refused["message"]
        assert "UsageReport" == ask(one_day, ["user"], "HOUR", first=2, twice=True)["__typename"]
        assert "UsageReport" == ask(one_day, ["user"], "MINUTE", off=True)["__typename"]
        assert 2_880 == ask(one_day, [], "MINUTE")["points"]


def test_a_number_of_points_beyond_an_int_is_said_all_the_same(api: Api) -> None:
    """Three centuries of minutes are TooLarge, too, though its points are more than GraphQL's Int holds."""
    for number in range(15):
        api.send(usage_event(number, user=f"user {number}"))
    centuries = {"from": "1900-01-01T00:00:00Z", "to": "2200-01-01T00:00:00Z"}
    refused = api.ask(POINTS, {"query": query(centuries, ["user"]), "bucket": "MINUTE"})["usage"]

    assert ("TooLarge", 2**31 - 1) == (refused["__typename"], refused["points"])


def issues(answer: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """The paths of an InvalidInput's issues."""
    assert "INVALID_INPUT" == answer["code"]
    assert all(issue["message"] for issue in answer["issues"])
    return [tuple(issue["path"]) for issue in answer["issues"]]


def test_every_fault_of_a_query_is_told_at_once(year: Api) -> None:
    """InvalidInput names each fault with the path to it: the period, the zone, the dimensions, the filter's values."""
    asked = {
        "period": {"from": WHOLE["to"], "to": WHOLE["from"]},
        "timeZone": "Mars/Olympus",
        "groupBy": ["USER", "UNIT", "USER"],
        "filter": {"user": {"in": ["x"] * 1_001}, "device": {"notIn": ["nul\0"]}},
    }
    answer = year.ask(GROUPS, {"query": asked})["usage"]

    expected = [
        ("query", "period", "to"),
        ("query", "timeZone"),
        ("query", "groupBy"),
        ("query", "filter", "user", "in"),
        ("query", "filter", "device", "notIn"),
    ]
    assert expected == issues(answer)


def test_an_empty_period_is_no_period(year: Api) -> None:
    """A period ends after it begins; one of a single microsecond is a period."""
    moment, next_moment = "2025-03-09T05:00:00Z", "2025-03-09T05:00:00.000001Z"
    empty = year.ask(GROUPS, {"query": query({"from": moment, "to": moment})})["usage"]
    shortest = year.ask(GROUPS, {"query": query({"from": moment, "to": next_moment})})["usage"]

    assert [("query", "period", "to")] == issues(empty)
    assert figures(within({"from": moment, "to": next_moment})) == shortest["totals"]


@pytest.mark.parametrize("first", [0, -1, LIMITS.page_rows_max + 1])
def test_pages_have_a_size_that_may_be_asked_for(year: Api, first: int) -> None:
    """`first` is 1 to the limit; anything else is an InvalidInput that says where."""
    answer = year.ask(GROUPS, {"query": query(), "first": first})["usage"]

    assert [("groups", "first")] == issues(answer)
    assert f"{LIMITS.page_rows_max:,}" in answer["message"]


def test_a_cursor_belongs_to_its_list(year: Api) -> None:
    """A cursor of another grouping, order or list, or one that is none, is an InvalidInput; not an answer, not an error."""

    def ask(group_by: Sequence[str], after: str | None, **order: str) -> Any:
        variables = {"query": query(AWRY, group_by), "order": order, "first": 1, "after": after}
        return year.ask(GROUPS, variables)["usage"]

    by_events = {"field": "EVENTS", "direction": "ASC"}
    by_calls = {"field": "QUANTITY", "direction": "ASC", "unit": "call"}
    cursor = ask(["user"], None, **by_events)["groups"]["pageInfo"]["endCursor"]
    of_calls = ask(["user"], None, **by_calls)["groups"]["pageInfo"]["endCursor"]
    events = "query ($query: UsageQuery!) { events(query: $query, first: 1) { pageInfo { endCursor } } }"
    of_events = year.ask(events, {"query": query()})["events"]["pageInfo"]["endCursor"]

    assert ask(["user"], cursor, **by_events)["groups"]["edges"]
    foreign = [
        ask(["user", "device"], cursor, **by_events),
        ask(["device"], cursor, **by_events),
        ask(["user"], cursor, field="EVENTS", direction="DESC"),
        ask(["user"], cursor, field="KEY", direction="ASC"),
        ask(["user"], of_calls, field="QUANTITY", direction="ASC", unit="byte"),
        ask(["user"], of_events, **by_events),
        ask(["user"], "not a cursor", **by_events),
        ask(["user"], "%%%", **by_events),
        ask(["user"], "é", **by_events),
        ask(["user"], cursor[:-2], **by_events),
    ]
    assert [[("groups", "after")]] * len(foreign) == [issues(answer) for answer in foreign]


@pytest.mark.parametrize(
    ("start", "end"),
    [
        ("1899-12-31T23:59:59Z", "2026-01-01T00:00:00Z"),
        ("2026-01-01T00:00:00Z", "9999-12-31T23:59:59.999999Z"),
        ("0001-01-01T00:00:00Z", "0001-01-02T00:00:00Z"),
    ],
)
def test_a_period_beyond_any_usage_is_refused(year: Api, start: str, end: str) -> None:
    """A period that a calendar could run out in is InvalidInput at the period."""
    answer = year.ask(GROUPS, {"query": query({"from": start, "to": end})})["usage"]

    assert [("query", "period")] == issues(answer)


# ---------------------------------------------------------------- the report itself


def test_the_report_says_what_was_asked(year: Api) -> None:
    """Period, zone and dimensions come back, instants in UTC whatever offset they were written with."""
    document = (
        "query ($query: UsageQuery!) { usage(query: $query) { "
        "... on UsageReport { period { from to } timeZone groupBy asOf } } }"
    )
    asked = {
        "period": {"from": "2025-03-01T00:00:00+05:30", "to": "2025-03-02T00:00:00.25-08:00"},
        "timeZone": "Asia/Kolkata",
        "groupBy": ["USER", "ACCOUNT"],
    }
    before = datetime.now(UTC)
    report = year.ask(document, {"query": asked})["usage"]

    assert {"from": "2025-02-28T18:30:00Z", "to": "2025-03-02T08:00:00.250000Z"} == report["period"]
    assert ("Asia/Kolkata", ["USER", "ACCOUNT"]) == (report["timeZone"], report["groupBy"])
    assert before <= instant(report["asOf"]) <= datetime.now(UTC)


def test_defaults_are_utc_everything_and_the_largest_quantity_first(year: Api) -> None:
    """Without zone, groupBy, filter, order and first: UTC, one group, everything, QUANTITY descending, 50 groups."""
    period = f'{{ from: "{WHOLE["from"]}", to: "{WHOLE["to"]}" }}'
    answer = year.ask(f"""{{
      bare: usage(query: {{ period: {period} }}) {{ ... on UsageReport {{ timeZone groupBy groups {{ totalCount }} }} }}
      by: usage(query: {{ period: {period}, groupBy: [USER, DEVICE, FEATURE], filter: {{ unit: {{ in: ["call"] }} }} }}) {{
        ... on UsageReport {{ groups {{ nodes {{ key {{ user device feature }} totals {{ quantity }} }} totalCount }} }}
      }}
    }}""")

    assert {"timeZone": "UTC", "groupBy": [], "groups": {"totalCount": 1}} == answer["bare"]
    groups = grouped([event for event in EVENTS if event["unit"] == "call"], ["user", "device", "feature"])
    nodes = answer["by"]["groups"]["nodes"]
    assert (50, len(groups)) == (len(nodes), answer["by"]["groups"]["totalCount"])
    expected = ordered(groups, "QUANTITY", "DESC", "call")[:50]
    assert len(groups) > 50
    assert expected == [tuple(node["key"][name] for name in ("user", "device", "feature")) for node in nodes]


def test_literals_and_variables_ask_the_same(year: Api) -> None:
    """An enum, a number or an order means the same as a literal, as a variable, as a variable's default, or left out."""
    asked = query(AWRY, ["feature"])
    shown = "nodes { key { feature } series(bucket: %s) { unit columns { quantity } } }"
    of = "usage(query: $query) { ... on UsageReport { groups(orderBy: %s, first: %s) { %s } } }"
    literal = "query ($query: UsageQuery!) { %s }" % (of % ("{ field: EVENTS, direction: ASC }", "2", shown % "DAY"))
    variables = "query ($query: UsageQuery!, $order: UsageOrder!, $first: Int!, $bucket: Bucket!) { %s }" % (
        of % ("$order", "$first", shown % "$bucket")
    )
    inner = "query ($query: UsageQuery!, $by: UsageOrderField!, $first: Int! = 2, $bucket: Bucket! = DAY) { %s }" % (
        of % ("{ field: $by, direction: ASC }", "$first", shown % "$bucket")
    )
    expected = year.ask(literal, {"query": asked})
    order = {"field": "EVENTS", "direction": "ASC"}

    assert expected == year.ask(variables, {"query": asked, "order": order, "first": 2, "bucket": "DAY"})
    assert expected == year.ask(inner, {"query": asked, "by": "EVENTS"})
    optional = "query ($query: UsageQuery!, $first: Int, $after: String) { usage(query: $query) { ... on UsageReport { %s } } }"
    left_out = optional % "groups(first: $first, after: $after) { totalCount }"
    assert {"usage": {"groups": {"totalCount": 3}}} == year.ask(left_out, {"query": asked})


def test_a_bound_key_sees_only_its_accounts(year: Api, year_url: str) -> None:
    """A key that is bound to accounts gets their usage alone, in totals, groups, series and distinct counts."""
    key = asyncio.run(bound_key(year_url, ["Zoë", "null"]))
    document = """query ($query: UsageQuery!) { usage(query: $query) { ... on UsageReport {
      totals { unit quantity events minimum maximum }
      counts: totals { unit distinct(dimension: ACCOUNT) }
      groups { nodes { key { account } series(bucket: MONTH, fill: NONE) { points { events } } } }
    } } }"""
    theirs = [event for event in EVENTS if event["account"] in {"Zoë", "null"}]
    report = year.ask(document, {"query": query(WHOLE, ["account"])}, key=key)["usage"]
    others = query(WHOLE, ["account"], filter={"account": {"in": ["acme"]}})
    nothing = year.ask(document, {"query": others}, key=key)["usage"]

    assert figures(theirs) == report["totals"]
    assert {"byte": 2, "call": 2} == {total["unit"]: total["distinct"] for total in report["counts"]}
    assert {"Zoë", "null"} == {node["key"]["account"] for node in report["groups"]["nodes"]}
    counted = [int(p["events"]) for n in report["groups"]["nodes"] for s in n["series"] for p in s["points"]]
    assert len(theirs) == sum(counted)
    assert {"totals": [], "counts": [], "groups": {"nodes": []}} == nothing


async def bound_key(database_url: str, accounts: Sequence[str]) -> str:
    """A key that reads these accounts alone."""
    database = await Database.connect(Settings(database_url=database_url), LIMITS)
    try:
        _, secret = await KeyRing(database).create("bound", [Scope.USAGE_READ], accounts)
    finally:
        await database.close()
    return secret


# ---------------------------------------------------------------- one operation, one snapshot


AGREEING: Final = """
query ($query: UsageQuery!, $everything: UsageQuery!) {
  first: usage(query: $query) { ... on UsageReport {
    asOf totals { ...Figures }
    groups(orderBy: { field: KEY, direction: ASC }, first: 3) {
      nodes { totals { ...Figures } series(bucket: HOUR) { columns { quantity events } } } remainder { ...Figures }
    }
  } }
  second: usage(query: $everything) { ... on UsageReport { asOf totals { ...Figures } } }
}
fragment Figures on UsageTotal { quantity events users: distinct(dimension: USER) }
"""


def test_an_operation_answers_from_one_snapshot(api: Api) -> None:
    """While events come in, totals, groups, remainder, series and a second question of an operation say the same."""
    period = {"from": "2026-03-01T00:00:00Z", "to": "2026-03-02T00:00:00Z"}
    questions = {"query": query(period, ["user"]), "everything": query(WHOLE | {"to": "2027-01-01T00:00:00Z"})}
    asked_enough = Flag()

    def send() -> int:
        sent = 0
        while not asked_enough.is_set():
            batch = [usage_event(sent + n, user=f"user {n % 7}", quantity="0.5") for n in range(20)]
            sent += api.send(batch)["accepted"]
        return sent

    with ThreadPoolExecutor(1) as pool:
        sending = pool.submit(send)
        try:
            answers = [api.ask(AGREEING, questions) for _ in range(40)]
        finally:
            asked_enough.set()
        sent = sending.result()

    counted = []
    for answer in answers:
        first = answer["first"]
        totals = first["totals"]
        parts = [total for node in first["groups"]["nodes"] for total in node["totals"]] + first["groups"]["remainder"]
        assert first["asOf"] == answer["second"]["asOf"]
        assert totals == answer["second"]["totals"]
        for name in ("events", "quantity", "users"):
            assert exact_sum([Decimal(total[name]) for total in totals]) == exact_sum([Decimal(p[name]) for p in parts])
        for node in first["groups"]["nodes"]:
            series = [sum(map(int, series["columns"]["events"])) for series in node["series"]]
            assert [int(total["events"]) for total in node["totals"]] == series
        counted.append(sum(int(total["events"]) for total in totals))
    assert sorted(counted) == counted
    assert len(set(counted)) > 2, "events came in between the answers, so that they could have differed within one"
    assert str(sent) == api.ask(AGREEING, questions)["second"]["totals"][0]["events"]


def test_what_was_acknowledged_before_as_of_is_counted(api: Api) -> None:
    """Every event acknowledged before `asOf` is in the answer, from the very next question on."""
    document = "query ($query: UsageQuery!) { usage(query: $query) { ... on UsageReport { asOf totals { events } } } }"
    everything = query({"from": "2026-01-01T00:00:00Z", "to": "2027-01-01T00:00:00Z"})
    for number in range(5):
        api.send(usage_event(number))
        acknowledged_at = datetime.now(UTC)
        report = api.ask(document, {"query": everything})["usage"]

        assert acknowledged_at <= instant(report["asOf"])
        assert [{"events": str(number + 1)}] == report["totals"]
