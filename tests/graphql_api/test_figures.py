"""Figures of features and of recurring revenue through GraphQL, over one planted world; what is expected was counted by hand."""

import asyncio
from collections.abc import Iterator, Sequence
from datetime import date, datetime, timedelta
from decimal import Decimal
from hashlib import sha256
from typing import Any, Final

import msgspec
import pytest

from health.scorecards import Subject
from metering.health.signals import SignalOrder, record_signals
from metering.keys import KeyRing, Scope
from metering.limits import LIMITS
from metering.rollups.refresh import Refresher
from metering.subjects import SubjectRef
from tests.conftest import ENGINES, Api, Server, running
from tests.metering.catalog import KEY
from tests.metering.scored import resting
from tests.metering.second_measures import Sold
from tests.metering.test_exactness import connect
from tests.metering.test_measuring import DAY, NOW, Fact, Habit, Service, events_of, midnight

# Thirty users who tried a feature and stayed, and thirty who tried another one and left.
STAYERS: Final = [f"stayer {number}" for number in range(30)]
LEAVERS: Final = [f"leaver {number}" for number in range(30)]
LONG_AGO: Final = date(2025, 6, 1)


def uses(account: str, user: str | None, feature: str, *ages: int, product: str = "p", **given: Any) -> list[Habit]:
    """A use on each of some days, so many days before the day."""
    usual = Habit(
        account=account,
        subscription=None,
        user=user,
        device=None,
        product=product,
        feature=feature,
        classification=None,
        quantity=Decimal(1),
        first_age=0,
        last_age=0,
        every_days=1,
        copies=1,
        hour=6,
    )
    return [msgspec.structs.replace(usual, first_age=age, last_age=age, **given) for age in ages]


FEATURES: Final = [
    *uses("a", "u", "edit", *range(1, 11)),
    *uses("a", "u", "export", 40),
    *uses("a", "v", "edit", 3, 5),
    *uses("a", None, "export", 2),
    *uses("b", "w", "edit", 30, 1),
    *uses("b", "w", "chart", 1, 2, product="q"),
    # None of these is somebody's use.
    *uses("b", "robot", "edit", 1, 2, 3),
    *uses("b", "x", "edit", 4, classification="background"),
    *uses("b", "x", "edit", 6, quantity=Decimal(-1)),
    *(habit for user in STAYERS for habit in uses("s", user, "sync", 100, 40, product="t")),
    *(habit for user in LEAVERS for habit in uses("s", user, "plain", 100, product="t")),
]
# Somebody used the new feature first 35 days before the day.
NEW: Final = [
    *uses("n", "keen", "new", 35, 34, 33, product="n"),
    *uses("n", "late", "old", 36, 30, product="n"),
    *uses("n", "late", "new", 20, product="n"),
    *uses("n", "cool", "new", 30, 29, product="n"),
    *uses("n", "away", "old", 10, product="n"),
    *uses("n", "gone", "old", 40, product="n"),
    *uses("n", "elsewhere", "new", 12, product="another"),
]

# Of these some were asked, are no persons, or have no access any more.
SURVEYED: Final = [
    *uses("z", "fresh", "zoom", 3, 4, product="z"),
    *uses("z", "back", "zoom", 5, 100, product="z"),
    *uses("z", "steady", "zoom", 5, 40, product="z"),
    *(habit for user in ("asked", "exact", "left", "robot") for habit in uses("z", user, "zoom", 5, product="z")),
    *uses("z", "away", "zoom", 29, product="z"),
]


def sold(account: str, key: str, amount: int | None = 0, starts_on: date = LONG_AGO, **given: Any) -> Sold:
    """A subscription."""
    return Sold(
        account=account,
        key=key,
        starts_on=starts_on,
        seats=((starts_on, None),),
        monthly_amount=amount,
        **{"ends_on": None, **given},
    )


SOLD: Final = [
    *(sold("a", "a s"), sold("c", "c s"), sold("d", "d s", ends_on=date(2025, 12, 1))),
    sold("stays", "stays", 100, renews_on=date(2026, 5, 10)),
    sold("grows", "grows", 100, renews_on=date(2026, 5, 20)),
    sold("grows", "more", 40, date(2026, 2, 10), renews_on=date(2026, 8, 1)),
    # It was 50 until the middle of February.
    sold("shrinks", "shrinks", 20),
    sold("leaves", "leaves", 30, ends_on=date(2026, 3, 5)),
    sold("tries", "tries", 70, date(2026, 1, 5), trial_ends_on=date(2026, 2, 5)),
    sold("silent", "silent", None),
    sold("edge", "edge", 5, date(2026, 2, 1)),
    sold("dollar", "dollar", 10, date(2026, 1, 20), renews_on=date(2026, 9, 30), currency_code="USD"),
]
SAID: Final = [
    Fact(SubjectRef(Subject.SUBSCRIPTION, "a", "a s"), "features", ["edit", "export", "print"], 5),
    Fact(SubjectRef(Subject.ACCOUNT, "c", "c"), "features", "edit, export", 5),
    Fact(SubjectRef(Subject.ACCOUNT, "d", "d"), "features", ["edit"], 5),
    Fact(SubjectRef(Subject.USER, "b", "robot"), "service_account", value=True, age=5),
    Fact(SubjectRef(Subject.USER, "z", "robot"), "service_account", value=True, age=5),
    Fact(SubjectRef(Subject.USER, "z", "left"), "deprovisioned", value=True, age=5),
    Fact(SubjectRef(Subject.USER, "z", "fresh"), "role", "engineer", 5),
]
# So many days before the day; of `n`, what was said before the first use, and by who left, does not count.
ANSWERED: Final = [
    *(
        ("n", "keen", 36, 1.0),
        ("n", "keen", 30, 9.0),
        ("n", "away", 9, 3.0),
        ("n", "away", 2, 5.0),
        ("n", "gone", 3, 0.0),
    ),
    *(("z", "asked", 91, 8.0), ("z", "exact", 90, 8.0)),
]


class World(msgspec.Struct, frozen=True):
    """A service, and the secrets of keys that are bound to an account, and that read no charges."""

    api: Api
    bound: str
    no_charges: str


async def prepare(url: str) -> tuple[str, str]:
    """Plant everything."""
    database = await connect(url)
    try:
        # From here on everything comes late: to roll up a year day by day would take longer than all else.
        await Refresher(database).run(NOW)
        service = Service(database)
        await service.record(events_of([*FEATURES, *NEW, *SURVEYED]))
        await service.sell(SOLD)
        await service.say(SAID)
        async with database.connection() as connection:
            await connection.execute(
                "INSERT INTO subscription_change (subscription, changed_at, by, before, after) "
                """VALUES ('shrinks', $1, 'test', '{"monthly_amount": "50"}', '{"monthly_amount": "20"}')""",
                datetime.fromisoformat("2026-02-15T00:00:00Z"),
            )
        orders = [
            SignalOrder(
                subject=Subject.USER,
                account=account,
                key=user,
                name="nps",
                value=value,
                at=midnight(DAY - timedelta(days=age)),
                source="test",
            )
            for account, user, age, value in ANSWERED
        ]
        await record_signals(database, orders, KEY, LIMITS)
        ring = KeyRing(database)
        _, bound = await ring.create("bound", [Scope.HEALTH_READ, Scope.CHARGES_READ], ["n", "stays"])
        _, no_charges = await ring.create("no charges", [Scope.HEALTH_READ])
    finally:
        await database.close()
    return bound, no_charges


@pytest.fixture(scope="module", params=ENGINES)
def world(request: pytest.FixtureRequest, servers: dict[str, Server]) -> Iterator[World]:
    """One world on each engine; nothing in it is changed."""
    with servers[request.param].cloned() as url:
        bound, no_charges = asyncio.run(prepare(url))
        with resting(url), running(url) as api:
            yield World(api, bound, no_charges)


# ---------------------------------------------------------------- features

FEATURES_ASKED: Final = """
query ($product: String, $kind: FeatureKind, $asOf: Date = "2026-06-10", $first: Int! = 50, $after: String) {
  features(product: $product, kind: $kind, asOf: $asOf, first: $first, after: $after) {
    totalCount pageInfo { hasNextPage endCursor }
    nodes {
      product feature users usersBefore shareOfUsers accounts shareOfAccounts daysPerUser events firstUsedOn lastUsedOn
      entitledAccounts entitledUnusedAccounts
    }
  }
}
"""


def features(world: World, **asked: Any) -> list[str]:
    """The names of features, in order."""
    return [node["feature"] for node in world.api.ask(FEATURES_ASKED, asked)["features"]["nodes"]]


def test_features_by_hand(world: World) -> None:
    """Users, accounts, days and events are of people's own uses in 28 days; who is entitled and does not use it is counted."""
    found = {node["feature"]: node for node in world.api.ask(FEATURES_ASKED)["features"]["nodes"]}
    assert {
        "product": "p",
        "feature": "edit",
        "users": 3,
        "usersBefore": 1,
        "shareOfUsers": 1.0,
        "accounts": 2,
        "shareOfAccounts": 1.0,
        "daysPerUser": 13 / 3,
        "events": "13",
        "firstUsedOn": "2026-05-11",
        "lastUsedOn": "2026-06-09",
        "entitledAccounts": 2,
        "entitledUnusedAccounts": 1,
    } == found["edit"]
    assert {
        "product": "p",
        "feature": "export",
        "users": 0,
        "usersBefore": 1,
        "shareOfUsers": 0.0,
        "accounts": 1,
        "shareOfAccounts": 0.5,
        "daysPerUser": None,
        "events": "1",
        "firstUsedOn": "2026-05-01",
        "lastUsedOn": "2026-06-08",
        "entitledAccounts": 2,
        "entitledUnusedAccounts": 1,
    } == found["export"]
    assert {
        "product": None,
        "feature": "print",
        "users": 0,
        "usersBefore": 0,
        "shareOfUsers": None,
        "accounts": 0,
        "shareOfAccounts": None,
        "daysPerUser": None,
        "events": "0",
        "firstUsedOn": None,
        "lastUsedOn": None,
        "entitledAccounts": 1,
        "entitledUnusedAccounts": 1,
    } == found["print"]
    assert (1, 1, 2.0) == tuple(found["chart"][name] for name in ("users", "accounts", "daysPerUser"))


def test_features_by_kind_and_page(world: World) -> None:
    """Used, unused and sticky ones are told apart, the most used first; pages come to the whole, each feature once."""
    assert ["edit", "export"] == features(world, product="p")
    assert {"edit", "chart", "export", "new", "old", "zoom"} == {*features(world, kind="USED")}
    # Who is bound to an account sees what is used there.
    own = world.api.ask(FEATURES_ASKED, key=world.bound)["features"]["nodes"]
    assert [("new", 1), ("old", 1)] == [(node["feature"], node["users"]) for node in own if node["product"] == "n"]
    assert {"n", "another"} == {node["product"] for node in own}
    assert {"plain", "print", "sync"} == {*features(world, kind="UNUSED")}
    assert ["sync"] == features(world, kind="STICKY")
    names: list[str] = []
    after, more = None, True
    while more:
        page = world.api.ask(FEATURES_ASKED, {"first": 2, "after": after})["features"]
        names += [node["feature"] for node in page["nodes"]]
        after, more = page["pageInfo"]["endCursor"], page["pageInfo"]["hasNextPage"]
    assert names == features(world)
    assert names[:2] == ["zoom", "edit"]
    assert len(names) == page["totalCount"] == 10


def test_stickiness_and_retention_by_hand(world: World) -> None:
    """All 30 stay who tried the one feature, and none of the 31 others; and who comes back to it does in the ninth week."""
    document = """
    { features(asOf: "2026-06-10", product: "t") { nodes {
      feature stickiness { used usedKept others othersKept lift isSticky } retention { week users active } } } }
    """
    found = {node["feature"]: node for node in world.api.ask(document)["features"]["nodes"]}
    sync = found["sync"]
    assert {
        "used": 30,
        "usedKept": 30,
        # One of the users to survey is as old, and did not stay either.
        "others": 31,
        "othersKept": 0,
        "lift": 31 / 32 - 1 / 33,
        "isSticky": True,
    } == sync["stickiness"]
    assert found["plain"]["stickiness"]["isSticky"] is False
    assert [(week, 30, 30 * (week in {0, 8})) for week in range(12)] == [
        tuple(each.values()) for each in sync["retention"]
    ]


def test_the_reception_of_a_new_feature(world: World) -> None:
    """Since its first use: penetration of those active in the product, by week; who adopted it; and what users answered."""
    document = """
    query ($feature: String!) { featureReception(product: "n", feature: $feature, asOf: "2026-06-10") {
      firstUsedOn eligible adopters penetration
      weeks { from to users newUsers adopters eligible penetration } retention { users active }
      reception { adopted lukewarm tooEarly untouched }
      answers { name answersOfUsers meanOfUsers answersOfOthers meanOfOthers } } }
    """
    found = world.api.ask(document, {"feature": "new"})["featureReception"]
    assert ("2026-05-06", 4, 3, 0.75) == tuple(
        found[name] for name in ("firstUsedOn", "eligible", "adopters", "penetration")
    )
    first = {"from": "2026-05-06", "to": "2026-05-13", "users": 2, "newUsers": 2, "adopters": 2, "eligible": 3}
    assert {**first, "penetration": 2 / 3} == found["weeks"][0]
    assert [(2, 3), (2, 3), (3, 3), (3, 4), (3, 4)] == [(each["adopters"], each["eligible"]) for each in found["weeks"]]
    assert [(3, 3), (3, 0), (2, 0), (2, 0), (1, 0)] == [tuple(each.values()) for each in found["retention"]]
    assert {"adopted": 1, "lukewarm": 1, "tooEarly": 1, "untouched": 1} == found["reception"]
    assert [
        {"name": "nps", "answersOfUsers": 1, "meanOfUsers": 9.0, "answersOfOthers": 1, "meanOfOthers": 5.0}
    ] == found["answers"]
    # What people answered is not for outside; the other figures are of one's own account.
    assert {**found, "answers": []} == world.api.ask(document, {"feature": "new"}, key=world.bound)["featureReception"]
    assert world.api.ask(document, {"feature": "never"})["featureReception"] is None


def test_whom_to_survey(world: World) -> None:
    """Who used it lately, is a person with access, and was not asked for 90 days; in the order of hashes, page by page."""
    document = """
    query ($filter: SurveyFilter!, $first: Int! = 50, $after: String) {
      surveyCandidates(asOf: "2026-06-10", filter: $filter, first: $first, after: $after) {
        totalCount pageInfo { hasNextPage endCursor } nodes { account user role lifecycle activeDays lastUsedOn }
      }
    }
    """

    def asked(first: int = 50, after: str | None = None, **given: Any) -> Any:
        given = {"filter": {"product": "z", **given}, "first": first, "after": after}
        return world.api.ask(document, given)["surveyCandidates"]

    def by_lot(draw: str) -> list[str]:
        return sorted(
            ("fresh", "back", "steady", "asked"), key=lambda user: sha256(f"{draw}\x1fz\x1f{user}".encode()).hexdigest()
        )

    found = {node["user"]: node for node in asked()["nodes"]}
    usual = {"account": "z", "role": None, "lifecycle": "NEW", "activeDays": 1, "lastUsedOn": "2026-06-05"}
    assert {
        "fresh": {**usual, "user": "fresh", "role": "engineer", "activeDays": 2, "lastUsedOn": "2026-06-07"},
        "back": {**usual, "user": "back", "lifecycle": "RESURRECTED"},
        "steady": {**usual, "user": "steady", "lifecycle": "RETAINED"},
        "asked": {**usual, "user": "asked"},
    } == found
    for draw in ("", "spring"):
        users, after, more = [], None, True
        while more:
            page = asked(1, after, draw=draw)
            users += [node["user"] for node in page["nodes"]]
            after, more = page["pageInfo"]["endCursor"], page["pageInfo"]["hasNextPage"]
            assert page["totalCount"] == 4
        assert by_lot(draw) == users
    assert by_lot("") != by_lot("spring")
    assert {"steady"} == {node["user"] for node in asked(lifecycle="RETAINED")["nodes"]}
    assert {*found, "exact"} == {node["user"] for node in asked(notAskedDays=89)["nodes"]}
    assert {*found, "exact"} == {node["user"] for node in asked(askedBy=["csat"])["nodes"]}
    assert [] == asked(feature="edit")["nodes"]


# ---------------------------------------------------------------- revenue

REVENUE_ASKED: Final = """
query ($period: PeriodInput!, $interval: BillingInterval! = MONTH, $timeZone: TimeZone! = "UTC") {
  revenueMovements(period: $period, interval: $interval, timeZone: $timeZone) {
    ... on InvalidInput { issues { path message } }
    ... on RevenueReport {
      trials { trials converted conversion }
      periods { period { from to } movements {
        currencyCode unknown customersAtStart customersNew customersChurned
        start { amount } new { amount } expansion { amount } contraction { amount } churned { amount } end { amount }
        yearly { amount } growth grossRetention netRetention customerChurn
        customers { totalCount nodes { difference { amount } } }
      } }
    }
  }
}
"""
QUARTER: Final = {"from": "2026-01-01T00:00:00Z", "to": "2026-04-01T00:00:00Z"}
PARTS: Final = ("start", "new", "expansion", "contraction", "churned", "end")


def revenue(world: World, **asked: Any) -> Any:
    """How revenue moved in the first quarter."""
    return world.api.ask(REVENUE_ASKED, {"period": QUARTER, **asked})["revenueMovements"]


def amounts(movement: Any, names: Sequence[str] = PARTS) -> list[str]:
    """Its parts."""
    return [movement[name]["amount"] for name in names]


def test_revenue_by_month_by_hand(world: World) -> None:
    """Each month begins with what the one before ended with, and its parts add up; shares are of these parts."""
    report = revenue(world)
    euros = [each["movements"][0] for each in report["periods"]]
    assert [
        ["280.00", "5.00", "0.00", "0.00", "0.00", "285.00"],
        ["285.00", "70.00", "40.00", "30.00", "0.00", "365.00"],
        ["365.00", "0.00", "0.00", "0.00", "30.00", "335.00"],
    ] == [amounts(each) for each in euros]
    assert [["0.00", "10.00"], ["10.00", "10.00"], ["10.00", "10.00"]] == [
        amounts(each["movements"][1], ("start", "end")) for each in report["periods"]
    ]
    march = euros[2]
    assert ("0.917808", "0.917808", "0.166667", "-0.082192") == tuple(
        march[name] for name in ("grossRetention", "netRetention", "customerChurn", "growth")
    )
    assert ("0.894737", "1.035088") == (euros[1]["grossRetention"], euros[1]["netRetention"])
    counted = ("customersAtStart", "customersNew", "customersChurned", "unknown")
    assert (6, 0, 1, 1) == tuple(march[name] for name in counted)
    assert march["yearly"] == {"amount": "4020.00"}
    assert {"trials": 1, "converted": 1, "conversion": "1"} == report["trials"]
    for each in report["periods"]:
        for movement in each["movements"]:
            start, new, more, less, lost, end = (Decimal(amount) for amount in amounts(movement))
            assert start + new + more - less - lost == end
            moved = [Decimal(node["difference"]["amount"]) for node in movement["customers"]["nodes"]]
            assert sum(moved) == end - start


def test_revenue_by_quarter_and_zone(world: World) -> None:
    """A quarter has its own parts, of who is there at both ends; bounds are those of the zone's calendar, cut to the period."""
    (quarter,) = revenue(world, interval="QUARTER")["periods"]
    assert ["280.00", "75.00", "40.00", "30.00", "30.00", "335.00"] == amounts(quarter["movements"][0])
    periods = revenue(world, timeZone="Europe/Berlin")["periods"]
    assert ["2026-01-31T23:00:00Z", "2026-02-28T23:00:00Z", "2026-03-31T22:00:00Z", QUARTER["to"]] == [
        each["period"]["to"] for each in periods
    ]
    # The contract of 1 February in UTC began an hour into the month of Berlin.
    assert ["0.00", "75.00"] == [each["movements"][0]["new"]["amount"] for each in periods[:2]]


def test_the_customers_who_moved(world: World) -> None:
    """Who moved most comes first, whichever way; page plus remainder is the whole, and a kind can be asked for."""
    document = """
    query ($period: PeriodInput!, $after: String, $change: RevenueChange) {
      revenueMovements(period: $period) { ... on RevenueReport { periods { movements {
        customerValue(margin: "0.8") { amount }
        customers(first: 2, after: $after, change: $change) {
          totalCount remainder { amount } pageInfo { hasNextPage endCursor }
          nodes { account change start { amount } end { amount } }
        } } } } }
    }
    """
    february = {"from": "2026-02-01T00:00:00Z", "to": "2026-03-01T00:00:00Z"}

    def asked(period: dict[str, str] = february, **given: Any) -> Any:
        report = world.api.ask(document, {"period": period, **given})["revenueMovements"]
        return report["periods"][0]["movements"][0]

    first = asked()["customers"]
    assert [("tries", "NEW", "0.00", "70.00"), ("grows", "EXPANSION", "100.00", "140.00")] == [
        (node["account"], node["change"], node["start"]["amount"], node["end"]["amount"]) for node in first["nodes"]
    ]
    assert (3, "-30.00", True) == (
        first["totalCount"],
        first["remainder"]["amount"],
        first["pageInfo"]["hasNextPage"],
    )
    second = asked(after=first["pageInfo"]["endCursor"])["customers"]
    assert ["shrinks"] == [node["account"] for node in second["nodes"]]
    assert (False, "110.00") == (second["pageInfo"]["hasNextPage"], second["remainder"]["amount"])
    assert ["shrinks"] == [node["account"] for node in asked(change="CONTRACTION")["customers"]["nodes"]]
    # 365 of six customers of whom one left, at a margin of 0.8.
    march = asked({"from": "2026-03-01T00:00:00Z", "to": "2026-04-01T00:00:00Z"})
    assert {"amount": "292.00"} == march["customerValue"]
    assert asked()["customerValue"] is None


def test_faults_and_scopes_of_revenue(world: World) -> None:
    """Every fault is told by its path; amounts need CHARGES_READ; a bound caller sees its own accounts' revenue alone."""
    backwards = {"from": QUARTER["to"], "to": QUARTER["from"]}
    assert [["period", "to"], ["timeZone"]] == [
        issue["path"] for issue in revenue(world, period=backwards, timeZone="Nowhere")["issues"]
    ]
    weeks = {"from": "2020-01-01T00:00:00Z", "to": "2026-01-01T00:00:00Z"}
    assert [["interval"]] == [issue["path"] for issue in revenue(world, period=weeks, interval="WEEK")["issues"]]
    refused = world.api.answer(REVENUE_ASKED, {"period": QUARTER}, key=world.no_charges)
    assert "FORBIDDEN" == refused["errors"][0]["extensions"]["code"]
    own = world.api.ask(REVENUE_ASKED, {"period": QUARTER, "interval": "QUARTER"}, key=world.bound)
    (movement,) = own["revenueMovements"]["periods"][0]["movements"]
    assert ["100.00", "0.00", "0.00", "0.00", "0.00", "100.00"] == amounts(movement)


def test_the_portfolio_by_renewal_quarter(world: World) -> None:
    """What is paid stands in the quarter in which its own subscription renews, and adds up to the portfolio without quarters."""
    document = """
    { plain: portfolio(asOf: "2026-04-01") { ...Cell }
      cells: portfolio(asOf: "2026-04-01", byRenewalQuarter: true) { renewsIn ...Cell } }
    fragment Cell on PortfolioCell { band accounts monthlyAmount { amount currencyCode } }
    """
    answer = world.api.ask(document)
    paid = {
        cell["renewsIn"]: (cell["accounts"], {each["currencyCode"]: each["amount"] for each in cell["monthlyAmount"]})
        for cell in answer["cells"]
    }
    assert (2, {"EUR": "200.00"}) == paid["2026-04-01"]
    assert (2, {"EUR": "40.00", "USD": "10.00"}) == paid["2026-07-01"]
    assert {"EUR": "95.00"} == paid[None][1]
    (plain,) = answer["plain"]
    assert {"unknown"} == {cell["band"] for cell in [plain, *answer["cells"]]}
    assert [("EUR", "335.00"), ("USD", "10.00")] == [
        (each["currencyCode"], each["amount"]) for each in plain["monthlyAmount"]
    ]
    # Who grows renews in two quarters, and is counted in both.
    assert plain["accounts"] + 1 == sum(accounts for accounts, _ in paid.values())
