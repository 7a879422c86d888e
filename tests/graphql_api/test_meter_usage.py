"""`meterUsage` through HTTP: what each aggregation says of a few events, in total, by group, over time.

That every figure is right in every state of the rollups is claimed in tests/metering/test_meter_figures.py.
"""

import asyncio
from collections.abc import Mapping
from typing import Any, Final

import pytest

from metering.config import Settings
from metering.keys import KeyRing, Scope
from metering.limits import LIMITS, Limits
from metering.rollups.refresh import Refresher
from metering.store.pool import Database
from tests.conftest import ADMIN_KEY, Api, make_key, running, usage_event

# Half a day before, and the two days that are asked about.
EVE: Final = "2026-02-28T12:00:00Z"
DAYS: Final = {"from": "2026-03-01T00:00:00Z", "to": "2026-03-03T00:00:00Z"}

PUT: Final = "mutation ($input: PutMeterInput!) { putMeter(input: $input) { __typename } }"
ASK: Final = """
query (
  $meter: String!, $query: UsageQuery!, $order: MeterOrder! = { field: KEY, direction: ASC },
  $first: Int! = 50, $after: String, $bucket: Bucket! = DAY, $fill: Fill! = ZERO
) {
  meterUsage(meter: $meter, query: $query) {
    __typename
    ... on MeterReport {
      meter unit aggregation addsUp timeZone groupBy period { from to }
      total { ...Figures }
      groups(orderBy: $order, first: $first, after: $after) {
        totalCount
        pageInfo { hasNextPage hasPreviousPage startCursor endCursor }
        edges { cursor }
        nodes {
          key { account user device product classification }
          figure { ...Figures }
          series(bucket: $bucket, fill: $fill) {
            bucket points { from to quantity exactQuantity events } columns { from quantity exactQuantity events }
          }
        }
        remainder { ...Figures }
      }
    }
    ... on InvalidInput { code issues { path message } }
    ... on NotFound { code message }
    ... on TooLarge { code points maximum }
  }
}
fragment Figures on MeterFigure { quantity exactQuantity events unitHours }
"""


def put(api: Api, **fields: Any) -> None:
    """Put a meter."""
    given = {"key": "m", "name": "A meter", "unit": "call", **fields}
    assert {"__typename": "Meter"} == api.ask(PUT, {"input": given})["putMeter"]


def ask(api: Api, group_by: list[str] | None = None, *, key: str = ADMIN_KEY, **others: Any) -> Any:
    """What the meter says."""
    query = {"period": DAYS, "groupBy": group_by or [], **others.pop("query", {})}
    return api.ask(ASK, {"meter": "m", "query": query, **others}, key=key)["meterUsage"]


def figure(quantity: str | None, events: int, **others: str | None) -> dict[str, Any]:
    """A figure as it is shown."""
    exact = others.get("exact", quantity)
    hours = others.get("hours")
    return {"quantity": quantity, "exactQuantity": exact, "events": str(events), "unitHours": hours}


def rolled_up(database_url: str) -> None:
    """Roll up everything that there is."""

    async def run() -> None:
        database = await Database.connect(Settings(database_url=database_url), LIMITS)
        try:
            done = None
            while done is None or done.more:
                done = await Refresher(database).run()
                await asyncio.sleep(0)  # None: the service's own refresher is at work
        finally:
            await database.close()

    asyncio.run(run())


@pytest.fixture
def used(api: Api, database_url: str) -> Api:
    """The service over seven events, before there is a meter: some rolled up, one late, one corrected, one void."""
    events = [
        usage_event(1, occurred_at=EVE, user="ana", quantity="4"),
        usage_event(2, occurred_at="2026-03-01T06:00:00Z", user="ana", device="d1", quantity="2"),
        usage_event(3, occurred_at="2026-03-01T18:00:00Z", user="ben", device="d1", quantity="0.5"),
        usage_event(4, occurred_at="2026-03-02T12:00:00Z", user="ana", device="d2", quantity="100"),
        usage_event(5, occurred_at="2026-03-02T13:00:00Z", user="ben", quantity="7"),
        usage_event(6, occurred_at="2026-03-02T14:00:00Z", user="ana", unit="byte", quantity="999"),
    ]
    assert 6 == api.send(events)["accepted"]
    rolled_up(database_url)
    api.send(usage_event(7, occurred_at="2026-03-01T07:00:00Z", user="cleo", device="d3", quantity="-1"))
    correct = "mutation ($input: CorrectEventInput!) { correctEvent(input: $input) { __typename } }"
    for number, change in ((4, {"values": {"quantity": "3"}}), (5, {"void": True})):
        given = {"account": "acme", "source": "test", "id": f"event-{number}", "reason": "a test", **change}
        assert {"__typename": "Event"} == api.ask(correct, {"input": given})["correctEvent"]
    return api


# ---------------------------------------------------------------- every aggregation

# Of ana 2 and 3 calls and 999 bytes, of ben 0.5, of cleo -1 calls: the total, by user, and all but ana.
SAID: Final[Mapping[str, tuple[str | None, ...]]] = {
    "SUM": ("4.5", "5", "0.5", "-1", "-0.5"),
    "MAX": ("3", "3", "0.5", "-1", "0.5"),
    "MIN": ("-1", "2", "0.5", "-1", "-1"),
    "AVERAGE": ("1.125", "2.5", "0.5", "-1", "-0.25"),
    "LATEST": ("3", "3", "0.5", "-1", "0.5"),
}


@pytest.mark.parametrize("aggregation", SAID)
def test_quantities_of_one_unit_are_brought_together(used: Api, aggregation: str) -> None:
    """Of events in the meter's unit, recorded before it was put: the total, each group, and the remainder of a page."""
    put(used, aggregation=aggregation)
    answer = ask(used, ["USER"], first=1)
    total, ana, ben, cleo, rest = SAID[aggregation]
    everyone = ask(used, ["USER"])["groups"]["nodes"]

    assert figure(total, 4) == answer["total"]
    assert [("ana", figure(ana, 2))] == [(node["key"]["user"], node["figure"]) for node in answer["groups"]["nodes"]]
    assert figure(rest, 2) == answer["groups"]["remainder"]
    assert 3 == answer["groups"]["totalCount"]
    assert [figure(ana, 2), figure(ben, 1), figure(cleo, 1)] == [node["figure"] for node in everyone]
    assert (aggregation == "SUM") is answer["addsUp"]


def test_events_and_values_are_counted_across_units(used: Api) -> None:
    """COUNT and UNIQUE_COUNT take events of every unit; a value that several groups have is in the remainder, too."""
    put(used, key="events", aggregation="COUNT", unit="event")
    put(used, key="devices", aggregation="UNIQUE_COUNT", distinct="DEVICE", unit="device")
    events, devices = (ask(used, ["USER"], first=1, meter=key) for key in ("events", "devices"))

    assert [figure("5", 5), figure("3", 3), figure("2", 2)] == [
        events["total"],
        events["groups"]["nodes"][0]["figure"],
        events["groups"]["remainder"],
    ]
    assert [figure("3", 5), figure("2", 3), figure("2", 2)] == [
        devices["total"],
        devices["groups"]["nodes"][0]["figure"],
        devices["groups"]["remainder"],
    ]
    assert (True, False) == (events["addsUp"], devices["addsUp"])


@pytest.fixture
def levels(api: Api) -> Api:
    """The service over a level: of d1 10 from the eve on, 16 after a day, then 4 in the last half day as `free`; of d2
    2 in the last six hours.
    """
    at = {"unit": "GB", "account": "acme"}
    api.send(
        [
            usage_event(1, **at, occurred_at=EVE, device="d1", quantity="10"),
            usage_event(2, **at, occurred_at="2026-03-02T00:00:00Z", device="d1", quantity="16"),
            usage_event(3, **at, occurred_at="2026-03-02T12:00:00Z", device="d1", quantity="4", classification="free"),
            usage_event(4, **at, occurred_at="2026-03-02T18:00:00Z", device="d2", quantity="2"),
        ]
    )
    put(api, aggregation="TIME_WEIGHTED", unit="GB", rounding={"mode": "UP", "step": "1"})
    return api


def test_a_level_is_averaged_over_time(levels: Api) -> None:
    """A level is carried into the period and held until the next event: the average, rounded and exact, and unit-hours."""
    answer = ask(levels, ["DEVICE"], first=1)

    # 10 for 24 hours, 16 and 4 for 12 each; and 2 for 6.
    assert figure("11", 3, exact="10.25", hours="492") == answer["total"]
    assert [figure("10", 2, exact="10", hours="480")] == [node["figure"] for node in answer["groups"]["nodes"]]
    assert figure("1", 1, exact="0.25", hours="12") == answer["groups"]["remainder"]
    assert answer["addsUp"]
    (series,) = [node["series"]["points"] for node in answer["groups"]["nodes"]]
    assert [("10", "0"), ("10", "2")] == [(point["exactQuantity"], point["events"]) for point in series]


def test_a_level_ends_with_the_next_event_whatever_its_classification(levels: Api) -> None:
    """By classification a level is divided in time: what is `free` afterwards is no longer the other, and they add up."""
    answer = ask(levels, ["CLASSIFICATION"], query={"filter": {"device": {"in": ["d1"]}}})
    shown = {node["key"]["classification"]: node["figure"] for node in answer["groups"]["nodes"]}
    only = ask(levels, query={"filter": {"classification": {"in": ["free"]}}})

    free = figure("1", 1, exact="1", hours="48")
    assert {None: figure("9", 1, exact="9", hours="432"), "free": free} == shown
    assert free == only["total"]
    # From the instant on at which it changes, the level that was before is in no group.
    afternoon = {"from": "2026-03-02T12:00:00Z", "to": DAYS["to"]}
    since = ask(levels, ["CLASSIFICATION"], query={"filter": {"device": {"in": ["d1"]}}, "period": afternoon})
    assert [("free", "4")] == [
        (node["key"]["classification"], node["figure"]["quantity"]) for node in since["groups"]["nodes"]
    ]


def test_a_carried_level_without_events_is_a_group(levels: Api) -> None:
    """Where no event is in the period, the level that is carried into it is there all the same, and in each bucket."""
    day = {"from": "2026-03-01T00:00:00Z", "to": "2026-03-01T06:30:00Z"}
    answer = ask(levels, ["DEVICE"], query={"period": day}, bucket="HOUR", fill="NONE")
    (group,) = answer["groups"]["nodes"]

    assert figure("10", 0, hours="65") == group["figure"]
    assert [("10", "0")] * 7 == list(
        zip(group["series"]["columns"]["quantity"], group["series"]["columns"]["events"], strict=True)
    )


# ---------------------------------------------------------------- filters, series, order


def test_a_meter_counts_what_its_filter_and_the_question_keep(used: Api) -> None:
    """Both filters hold, on one dimension, too; a filter by unit says which quantities count, whatever the figure's unit."""
    put(used, unit="GB", filter={"unit": {"in": ["byte"]}, "product": {"in": ["maps", "mail"]}})

    def total(**chosen: Any) -> Any:
        return ask(used, query={"filter": chosen})["total"]

    assert figure("999", 1) == total()
    assert figure("999", 1) == total(product={"notIn": ["mail"]}, user={"in": ["ana"]})
    assert figure("0", 0) == total(product={"notIn": ["maps"]})
    assert figure("0", 0) == total(unit={"in": ["call"]})


def test_gaps_of_a_series_are_zero_only_where_nothing_is_zero(used: Api) -> None:
    """In a bucket without usage a sum is zero and a maximum is null, or the bucket is left out; buckets are the zone's."""
    put(used, key="sum")
    put(used, key="max", aggregation="MAX", rounding={"mode": "DOWN", "step": "2"})
    query = {"filter": {"user": {"in": ["ben"]}}, "timeZone": "Asia/Tokyo"}

    def points(meter: str, fill: str) -> list[tuple[str | None, ...]]:
        (node,) = ask(used, ["USER"], query=query, meter=meter, fill=fill)["groups"]["nodes"]
        series, columns = node["series"]["points"], node["series"]["columns"]
        names = ("from", "quantity", "exactQuantity", "events")
        assert "DAY" == node["series"]["bucket"]
        assert {name: [point[name] for point in series] for name in names} == columns
        assert [point["to"] for point in series[:-1]] == [point["from"] for point in series[1:]] or fill == "NONE"
        return [tuple(point[name] for name in names) for point in series]

    days = [f"2026-{day}T15:00:00Z" for day in ("02-28", "03-01", "03-02")]
    assert [(days[0], "0", "0", "0"), (days[1], "0.5", "0.5", "1"), (days[2], "0", "0", "0")] == points("sum", "ZERO")
    assert [(days[1], "0.5", "0.5", "1")] == points("sum", "NONE")
    assert [(days[0], None, None, "0"), (days[1], "0", "0.5", "1"), (days[2], None, None, "0")] == points("max", "ZERO")


@pytest.mark.parametrize(
    ("field", "direction", "expected"),
    [
        ("KEY", "DESC", ["cleo", "ben", "ana"]),
        ("QUANTITY", "ASC", ["cleo", "ben", "ana"]),
        ("QUANTITY", "DESC", ["ana", "ben", "cleo"]),
        ("EVENTS", "ASC", ["ben", "cleo", "ana"]),
    ],
)
def test_groups_come_in_order_page_by_page(used: Api, field: str, direction: str, expected: list[str]) -> None:
    """Groups are in order by key, exact figure or events, ties by key; a cursor goes on where its page ended."""
    put(used, aggregation="AVERAGE")
    order, shown, after = {"field": field, "direction": direction}, [], None
    for has_next in (True, True, False):
        groups = ask(used, ["USER"], order=order, first=1, after=after)["groups"]
        assert (has_next, after is not None) == (
            groups["pageInfo"]["hasNextPage"],
            groups["pageInfo"]["hasPreviousPage"],
        )
        shown += [node["key"]["user"] for node in groups["nodes"]]
        after = groups["edges"][0]["cursor"]
    behind = ask(used, ["USER"], order=order, first=1, after=after)["groups"]

    assert expected == shown
    assert ([], 3, figure("1.125", 4)) == (behind["nodes"], behind["totalCount"], behind["remainder"])


def test_without_usage_there_is_a_total_and_no_group(api: Api) -> None:
    """Where nothing happened, the total is what the aggregation says of nothing, no group occurs, and nothing remains."""
    put(api, key="sum")
    put(api, key="latest", aggregation="LATEST")
    expected = {"sum": figure("0", 0), "latest": figure(None, 0)}

    for meter, nothing in expected.items():
        for group_by in ([], ["USER"]):
            answer = ask(api, group_by, meter=meter)
            groups = answer["groups"]
            assert (nothing, [], 0, nothing) == (
                answer["total"], groups["nodes"], groups["totalCount"], groups["remainder"]
            )  # fmt: skip


def test_without_dimensions_there_is_one_group_of_everything(used: Api) -> None:
    """`groupBy: []` is one group of everything, and nothing remains."""
    put(used)
    answer = ask(used)

    assert [answer["total"]] == [node["figure"] for node in answer["groups"]["nodes"]]
    assert figure("0", 0) == answer["groups"]["remainder"]


def test_the_report_says_what_was_asked(used: Api) -> None:
    """The report names the meter with its unit and aggregation, and repeats the question."""
    put(used, aggregation="LATEST")
    answer = ask(used, ["USER", "DEVICE"], query={"timeZone": "Asia/Tokyo"})

    expected = {
        "__typename": "MeterReport", "meter": "m", "unit": "call", "aggregation": "LATEST", "addsUp": False,
        "timeZone": "Asia/Tokyo", "groupBy": ["USER", "DEVICE"], "period": DAYS,
    }  # fmt: skip
    assert expected == {name: answer[name] for name in expected}


# ---------------------------------------------------------------- refusals


def test_a_meter_that_is_not_there_is_not_found(api: Api) -> None:
    """An unknown key is NotFound, whatever it holds; a fault of the query is told by its path."""
    for key in ("m", "", "\0"):
        assert ("NotFound", "NOT_FOUND") == (
            (answer := ask(api, meter=key))["__typename"], answer["code"]
        )  # fmt: skip
    put(api)
    refused = ask(api, ["USER", "USER"], query={"timeZone": "Europe/Atlantis"})

    assert "INVALID_INPUT" == refused["code"]
    assert [["query", "timeZone"], ["query", "groupBy"]] == [issue["path"] for issue in refused["issues"]]


def test_a_cursor_belongs_to_its_meter_and_order(used: Api) -> None:
    """A cursor of another meter, grouping or order, or none at all, is InvalidInput; so is a page of no size."""
    put(used)
    put(used, key="other")
    cursor = ask(used, ["USER"])["groups"]["edges"][0]["cursor"]
    others: list[dict[str, Any]] = [
        {"meter": "other"},
        {"group_by": ["DEVICE"]},
        {"order": {"field": "KEY", "direction": "DESC"}},
        {"after": "nonsense"},
    ]

    for other in others:
        refused = ask(used, **{"group_by": ["USER"], "after": cursor, **other})
        assert [["groups", "after"]] == [issue["path"] for issue in refused["issues"]]
    assert [["groups", "first"]] == [issue["path"] for issue in ask(used, first=0)["issues"]]


def test_too_many_points_are_refused(database_url: str) -> None:
    """Series of more points than may be are TooLarge, with their number, before any is read; as many are answered."""
    with running(database_url, Limits(points_max=48)) as api:
        api.send([usage_event(1, user="ana"), usage_event(2, user="ben")])
        put(api)
        day = {"period": {"from": "2026-03-01T00:00:00Z", "to": "2026-03-02T00:00:00Z"}}

        assert "MeterReport" == ask(api, ["USER"], query=day, bucket="HOUR")["__typename"]
        expected = {"__typename": "TooLarge", "code": "TOO_LARGE", "points": 96, "maximum": 48}
        assert expected == ask(api, ["USER"], bucket="HOUR")


def test_a_bound_key_sees_its_accounts_only(api: Api, database_url: str) -> None:
    """Of a key that is bound to accounts, a meter counts the usage of these, in levels as in sums."""
    for number, account in enumerate(("acme", "other")):
        api.send(usage_event(number, account=account, occurred_at="2026-03-01T00:00:00Z", quantity="2"))
    put(api, key="sum")
    put(api, key="level", aggregation="TIME_WEIGHTED")

    async def make() -> str:
        database = await Database.connect(Settings(database_url=database_url), LIMITS)
        try:
            _, secret = await KeyRing(database).create("bound", [Scope.USAGE_READ], ["acme"])
        finally:
            await database.close()
        return secret

    bound = asyncio.run(make())
    for meter in ("sum", "level"):
        everyone, own = (ask(api, ["ACCOUNT"], meter=meter, key=key) for key in (ADMIN_KEY, bound))
        assert ("4", "2") == (everyone["total"]["quantity"], own["total"]["quantity"])
        assert ["acme"] == [node["key"]["account"] for node in own["groups"]["nodes"]]


def test_usage_of_a_meter_needs_the_scope_of_usage(api: Api, database_url: str) -> None:
    """What a meter says is usage: CATALOG_READ alone does not show it."""
    put(api)
    _, secret = make_key(database_url, Scope.CATALOG_READ)
    answer = api.answer(ASK, {"meter": "m", "query": {"period": DAYS}}, key=secret)

    assert "FORBIDDEN" == answer["errors"][0]["extensions"]["code"]
