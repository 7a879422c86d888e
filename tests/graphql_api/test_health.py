"""Health through GraphQL: scores whose parts add up, as of any day, as they were known, and only what is for the caller."""

import asyncio
from collections.abc import Coroutine, Iterator
from datetime import date, datetime
from decimal import Decimal
from math import fsum
from typing import Any, Final

import msgspec
import pytest

from metering.accounts import AccountOrder, put_account
from metering.config import Settings
from metering.keys import KeyRing, Scope
from metering.limits import LIMITS
from metering.store.pool import Database
from metering.store.snapshot import Snapshot
from tests.conftest import ENGINES, Api, Server, running
from tests.metering.catalog import KEY, draft, order, publish, put
from tests.metering.scored import BANDS, CARD, publish_card, resting, say, score_beside
from tests.rating.tables import at

FIRST, SECOND, THIRD = (date(2026, 3, day) for day in (1, 2, 3))
ACCOUNTS: Final = ("acme", "beta", "gamma")
EXACT: Final = pytest.approx(0.0, abs=1e-9)
HEALTH: Final = """
fragment Fields on Health {
  scorecard scorecardVersion asOf score band coverage baseline
  drivers { metric path state value score weight contribution observedAt reason }
  adjustment { metric contribution reason }
}
"""
ASK: Final = f"""
query ($key: String!, $asOf: Date, $knownAt: DateTime) {{
  account(key: $key) {{ health(asOf: $asOf, knownAt: $knownAt) {{ ...Fields }} }}
}}
{HEALTH}
"""
CHANGE: Final = """
query ($key: String!, $asOf: Date, $since: Date!) {
  account(key: $key) {
    health(asOf: $asOf) { score change(since: $since) { since difference parts { metric cause contribution before after } } }
  }
}
"""
PUBLISH: Final = """
mutation ($input: ScorecardInput!, $dryRun: Boolean!) {
  publishScorecard(input: $input, dryRun: $dryRun) {
    __typename
    ... on PublishScorecardSuccess {
      scorecard { key version } bandMigration { from to subjects }
      worstMovers(first: 2) { account key from to scoreBefore scoreAfter parts { metric cause contribution } drivers { metric } }
    }
    ... on InvalidInput { issues { path message } }
    ... on Conflict { message }
  }
}
"""
# The pulse as it becomes from day to day.
PULSES: Final = {"acme": (5, 1, 1), "beta": (3, 3, 5), "gamma": (1, 1, 1)}


class World(msgspec.Struct):
    """A service, its database, the secret of a key that is bound to acme, and what was known before acme's late signal."""

    api: Api
    url: str
    partner: str
    known_at: datetime

    def health(self, day: date, key: str = "acme", known_at: datetime | None = None) -> Any:
        """An account's health as of a day."""
        given = {"key": key, "asOf": day.isoformat(), "knownAt": None if known_at is None else known_at.isoformat()}
        return self.api.ask(ASK, given)["account"]["health"]

    def run(self, work: "Coroutine[Any, Any, Any]") -> Any:
        """Wait for work."""
        return asyncio.run(work)


async def prepare(url: str) -> tuple[str, datetime]:
    """Three customers, scored on three days; then what is said of one of the days comes late."""
    database = await Database.connect(Settings(database_url=url), LIMITS)
    try:
        await publish(database, draft())
        await publish_card(database)
        for number, key in enumerate(ACCOUNTS):
            attributes = {"segment": "smb" if number % 2 else "mid"}
            await put_account(
                database, AccountOrder(key=key, name=f"{key.title()} Ltd", attributes=attributes), KEY, LIMITS
            )
            contract = order(key=f"s-{key}", account=key, monthly_amount=Decimal(100 * (number + 1)))
            await put(database, msgspec.structs.replace(contract, renews_at=at(f"2026-{9 - number:02}-01")))
        for key, pulses in PULSES.items():
            await say(database, FIRST, key, pulse=pulses[0], nps=20, tickets_severe_open=3 if key == "beta" else 0)
        for place, day in enumerate((FIRST, SECOND, THIRD)):
            if place == 2:
                await say(database, THIRD, "beta", pulse=PULSES["beta"][2])
            await score_beside(database, day, *ACCOUNTS)
        async with Snapshot(database) as snapshot:
            known_at = (await snapshot.horizon()).as_of
        await say(database, SECOND, "acme", pulse=PULSES["acme"][1])
        for day in (SECOND, THIRD):
            await score_beside(database, day, "acme")
        _, secret = await KeyRing(database).create(
            "partner", [Scope.USAGE_READ, Scope.HEALTH_READ, Scope.HEALTH_WRITE], ["acme"]
        )
    finally:
        await database.close()
    return secret, known_at


@pytest.fixture(scope="module", params=ENGINES)
def world(request: pytest.FixtureRequest, servers: dict[str, Server]) -> Iterator[World]:
    """One world on each engine: tests that publish do so for themselves."""
    with servers[request.param].cloned() as url:
        partner, known_at = asyncio.run(prepare(url))
        with resting(url), running(url) as api:
            yield World(api=api, url=url, partner=partner, known_at=known_at)


def test_parts_add_up_to_the_score(world: World) -> None:
    """A score is baseline + drivers + adjustment to 1e-9, for every account and day; and the figures are those made by hand."""
    for key in ACCOUNTS:
        for place, day in enumerate((FIRST, SECOND, THIRD)):
            health = world.health(day, key)
            adjustment = 0.0 if health["adjustment"] is None else health["adjustment"]["contribution"]
            parts = [health["baseline"], adjustment, *(driver["contribution"] for driver in health["drivers"])]
            raw = 0.5 * (PULSES[key][place] - 1) * 25 + 0.5 * 60
            by_hand = min(raw, 30.0) if key == "beta" else raw
            assert health["score"] - fsum(parts) == EXACT
            assert health["score"] - by_hand == EXACT
            assert {0.5} == {driver["weight"] for driver in health["drivers"]}
    beta = world.health(FIRST, "beta")
    assert {"metric": "adjustment", "contribution": -25.0, "reason": "severe tickets are open"} == beta["adjustment"]
    assert ("account", 2, "2026-03-01", "low", 1.0) == tuple(
        beta[name] for name in ("scorecard", "scorecardVersion", "asOf", "band", "coverage")
    )


def test_what_was_known_is_answered_as_it_was(world: World) -> None:
    """A day is answered as it is known now, and as it was known before something about it came late; history alike."""
    assert [80.0, 30.0, 30.0] == [world.health(day)["score"] for day in (FIRST, SECOND, THIRD)]
    assert [80.0, 80.0, 80.0] == [world.health(day, known_at=world.known_at)["score"] for day in (FIRST, SECOND, THIRD)]
    assert world.health(FIRST, known_at=at("2026-03-01")) is None
    document = """
    query ($knownAt: DateTime) {
      account(key: "acme") {
        health(knownAt: $knownAt) { history(from: "2026-03-01", to: "2026-03-03") { asOf score band scorecardVersion } }
      }
    }
    """
    points = [
        [(each["asOf"], each["score"]) for each in answer["account"]["health"]["history"]]
        for answer in (world.api.ask(document), world.api.ask(document, {"knownAt": world.known_at.isoformat()}))
    ]
    assert [
        [("2026-03-01", 80.0), ("2026-03-02", 30.0)],
        [("2026-03-01", 80.0), ("2026-03-02", 80.0)],
    ] == points


def test_a_change_is_told_in_parts(world: World) -> None:
    """The parts of a change add up to the difference, and name what moved; without an earlier score there is none."""
    given = {"asOf": THIRD.isoformat(), "since": FIRST.isoformat()}
    changes = {key: world.api.ask(CHANGE, {"key": key, **given})["account"]["health"]["change"] for key in ACCOUNTS}
    for key, change in changes.items():
        assert fsum(part["contribution"] for part in change["parts"]) - change["difference"] == EXACT, key
    assert [{"metric": "pulse", "cause": "VALUE", "contribution": -50.0, "before": 5.0, "after": 1.0}] == changes[
        "acme"
    ]["parts"]
    assert [("ADJUSTMENT", -25.0), ("VALUE", 25.0)] == sorted(
        (part["cause"], part["contribution"]) for part in changes["beta"]["parts"]
    )
    none = world.api.ask(CHANGE, {"key": "acme", "asOf": THIRD.isoformat(), "since": "2026-02-01"})
    assert {"since": "2026-02-01", "difference": None, "parts": []} == none["account"]["health"]["change"]


LIST: Final = """
query ($filter: AccountFilter!, $orderBy: AccountOrder!, $first: Int!, $after: String) {
  accounts(filter: $filter, orderBy: $orderBy, first: $first, after: $after) {
    totalCount pageInfo { hasNextPage endCursor } nodes { key health { score } }
  }
}
"""


def listed(world: World, field: str, direction: str, **filters: Any) -> list[str]:
    """The keys of accounts in an order, asked one by one."""
    keys: list[str] = []
    after, more = None, True
    while more:
        order_by = {"field": field, "direction": direction}
        given = {"filter": filters, "orderBy": order_by, "first": 1, "after": after}
        page = world.api.ask(LIST, given)["accounts"]
        keys += [node["key"] for node in page["nodes"]]
        more, after = page["pageInfo"]["hasNextPage"], page["pageInfo"]["endCursor"]
        assert page["totalCount"] >= len(keys)
    return keys


def test_accounts_in_every_order(world: World) -> None:
    """Accounts are listed by each order both ways, page by page, and kept by band, attributes, text and renewal."""
    orders = {
        "KEY": ["acme", "beta", "gamma"],
        "SCORE": ["acme", "beta", "gamma"],
        "MONTHLY_AMOUNT": ["acme", "beta", "gamma"],
        "RENEWS_AT": ["gamma", "beta", "acme"],
    }
    for field, keys in orders.items():
        assert keys == listed(world, field, "ASC"), field
        ties = field == "SCORE"
        assert (keys if ties else keys[::-1]) == listed(world, field, "DESC"), field
    assert ["acme", "gamma"] == listed(world, "KEY", "ASC", attributes={"segment": "mid"})
    assert ["beta"] == listed(world, "KEY", "ASC", text="BETA l")
    assert ["gamma"] == listed(world, "KEY", "ASC", renewsBefore="2026-08-01T00:00:00Z")
    assert [] == listed(world, "KEY", "ASC", band=["high"])
    assert ["acme", "beta", "gamma"] == listed(world, "SCORE_CHANGE", "DESC", band=["low", "middle"])


def test_the_portfolio_adds_up(world: World) -> None:
    """Every customer is in one cell, with what it pays, as of now and as of a day before anybody was scored."""
    document = """
    query ($groupBy: [String!]!, $asOf: Date) {
      portfolio(groupBy: $groupBy, asOf: $asOf) { key band accounts monthlyAmount { amount currencyCode } }
    }
    """
    euros = {"currencyCode": "EUR"}
    assert [
        {"key": {}, "band": "low", "accounts": 3, "monthlyAmount": [{"amount": "600.00", **euros}]}
    ] == world.api.ask(document, {"groupBy": []})["portfolio"]
    assert [
        {"key": {"segment": None}, "band": "high", "accounts": 1, "monthlyAmount": [{"amount": "100.00", **euros}]},
        {"key": {"segment": None}, "band": "low", "accounts": 2, "monthlyAmount": [{"amount": "500.00", **euros}]},
    ] == world.api.ask(document, {"groupBy": ["segment"], "asOf": FIRST.isoformat()})["portfolio"]


def test_who_is_bound_sees_no_pulse_and_nobody_else(world: World) -> None:
    """A bound caller has the same score, whose parts add up, and no word of the pulse, its note, the cap's reason, or others."""
    document = """
    { accounts { nodes { key } } account(key: "beta") { key } scorecards { key }
      portfolio { accounts monthlyAmount { amount } }
      mine: account(key: "acme") { health(asOf: "2026-03-03") {
        ...Fields change(since: "2026-03-01") { difference parts { metric contribution before after } } } } }
    """
    answer = world.api.ask(document + HEALTH, key=world.partner)
    health = answer["mine"]["health"]
    assert {"accounts": {"nodes": [{"key": "acme"}]}, "account": None, "scorecards": []} == {
        name: answer[name] for name in ("accounts", "account", "scorecards")
    }
    assert [{"accounts": 1, "monthlyAmount": [{"amount": "100.00"}]}] == answer["portfolio"]
    assert "pulse" not in msgspec.json.encode(answer).decode()
    assert "as a test has it" not in msgspec.json.encode(answer).decode()
    assert {"nps", "undisclosed"} == {driver["metric"] for driver in health["drivers"]}
    assert world.health(THIRD)["score"] == health["score"]
    parts = [health["baseline"], *(driver["contribution"] for driver in health["drivers"])]
    assert health["score"] - fsum(parts) == EXACT
    assert [("undisclosed", -50.0, None, None)] == [tuple(part.values()) for part in health["change"]["parts"]]
    refused = world.api.answer('{ account(key: "acme") { health { score } } }', key=limited(world.url))
    assert "FORBIDDEN" == refused["errors"][0]["extensions"]["code"]


def limited(url: str) -> str:
    """The secret of a key that may read usage alone."""

    async def make() -> str:
        database = await Database.connect(Settings(database_url=url), LIMITS)
        try:
            _, secret = await KeyRing(database).create("usage", [Scope.USAGE_READ])
        finally:
            await database.close()
        return secret

    return asyncio.run(make())


def test_scores_of_a_page_are_read_together(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many accounts and subscriptions a page has, their scores are one statement, and so are their histories."""
    asked: list[str] = []
    fetch = Snapshot.fetch

    async def counted(snapshot: Snapshot, statement: str, *arguments: Any, **options: Any) -> list[Any]:
        if "asked.position" in statement:
            asked.append(statement)
        return await fetch(snapshot, statement, *arguments, **options)

    monkeypatch.setattr(Snapshot, "fetch", counted)
    answer = world.api.ask(
        '{ accounts { nodes { health(asOf: "2026-03-02") { score history(from: "2026-03-01", to: "2026-03-03") { score } '
        'change(since: "2026-03-01") { difference } } } } }'
    )
    assert 3 == len(answer["accounts"]["nodes"])
    assert 3 == len(asked)


FAULTY: Final = {
    "minCoverage": 0,
    "bands": [{"from": 0, "key": "low"}, {"from": 70, "key": "high"}, {"from": 40, "key": "middle"}],
    "tree": [
        {"metric": "happiness", "weight": 0, "curve": [[1, 0], [5, 100]]},
        {"metric": "nps", "weight": 0, "curve": [[0, 0], [-1, 100]]},
        {"metric": "own", "weight": 0, "curve": [[0, 0]]},
    ],
    "expressions": {"own": {"add": ["own", 1]}},
    "color": "red",
}


def test_every_fault_of_a_scorecard_is_told(world: World) -> None:
    """All faults of a card are told at once, each by its path; so are a card that leaves somebody out, and another subject."""
    given = {"key": "account", "subject": "ACCOUNT", "definition": FAULTY}
    answer = world.api.ask(PUBLISH, {"input": given, "dryRun": False})["publishScorecard"]
    assert {
        "color",
        "minCoverage",
        "bands.2.from",
        "tree",
        "tree.0.metric",
        "tree.1.curve.1.0",
        "expressions.own",
    } <= {".".join(issue["path"]).removeprefix("input.definition.") for issue in answer["issues"]}
    alone = {**CARD, "when": {"segment": {"in": ["smb"]}}}
    given = {"key": "growth", "subject": "ACCOUNT", "purpose": "expansion", "definition": alone}
    answer = world.api.ask(PUBLISH, {"input": given, "dryRun": False})["publishScorecard"]
    assert [["input", "definition", "when"]] == [issue["path"] for issue in answer["issues"]]
    given = {"key": "account", "subject": "SUBSCRIPTION", "definition": CARD}
    assert "Conflict" == world.api.ask(PUBLISH, {"input": given, "dryRun": False})["publishScorecard"]["__typename"]


def test_a_dry_run_names_who_falls_furthest(world: World) -> None:
    """Those whose score would fall most come first, also within their band, with parts that add up, all of them the card's."""
    other = {**CARD, "tree": [CARD["tree"][0], {**CARD["tree"][1], "curve": [[-100, 0], [20, 20], [100, 100]]}]}
    variables = {"input": {"key": "account", "subject": "ACCOUNT", "definition": other}, "dryRun": True}
    movers = world.api.ask(PUBLISH, variables)["publishScorecard"]["worstMovers"]
    # A survey of 20 came to 60 by the card before; beta is held down by its cap, and stays.
    assert [("acme", "low", "low", 30.0, 10.0), ("gamma", "low", "low", 30.0, 10.0)] == [
        (each["key"], each["from"], each["to"], each["scoreBefore"], each["scoreAfter"]) for each in movers
    ]
    for each in movers:
        assert fsum(part["contribution"] for part in each["parts"]) + 20.0 == EXACT
        assert {("nps", "WEIGHT")} == {(part["metric"], part["cause"]) for part in each["parts"]}
        assert ["pulse", "nps"] == [driver["metric"] for driver in each["drivers"]]


def test_a_dry_run_says_what_publishing_does(world: World) -> None:
    """A dry run publishes nothing, and says who moves; after publishing exactly these have moved, told as weight."""
    bands = [*BANDS[:2], {"from": 60, "key": "high"}]
    stricter = {**CARD, "bands": bands, "caps": [], "tree": [{**CARD["tree"][0], "weight": 3}, CARD["tree"][1]]}
    variables = {"input": {"key": "account", "subject": "ACCOUNT", "definition": stricter}, "dryRun": True}
    dry = world.api.ask(PUBLISH, variables)["publishScorecard"]
    assert dry == world.api.ask(PUBLISH, variables)["publishScorecard"]
    assert {"key": "account", "version": 3} == dry["scorecard"]
    assert [{"from": "low", "to": "high", "subjects": 1}] == dry["bandMigration"]
    before = {key: world.health(THIRD, key) for key in ACCOUNTS}

    published = world.api.ask(PUBLISH, {**variables, "dryRun": False})["publishScorecard"]
    assert published == dry

    async def score() -> None:
        database = await Database.connect(Settings(database_url=world.url), LIMITS)
        try:
            await score_beside(database, THIRD, *ACCOUNTS)
        finally:
            await database.close()

    asyncio.run(score())
    after = {key: world.health(THIRD, key) for key in ACCOUNTS}
    assert ["beta"] == [key for key in ACCOUNTS if before[key]["band"] != after[key]["band"]]
    assert (30.0, 90.0, "high", 3) == (
        *(each["beta"]["score"] for each in (before, after)),
        after["beta"]["band"],
        after["beta"]["scorecardVersion"],
    )
    given = {"key": "acme", "asOf": THIRD.isoformat(), "since": SECOND.isoformat()}
    change = world.api.ask(CHANGE, given)["account"]["health"]["change"]
    assert fsum(part["contribution"] for part in change["parts"]) - change["difference"] == EXACT
    assert {"WEIGHT"} == {part["cause"] for part in change["parts"]}
