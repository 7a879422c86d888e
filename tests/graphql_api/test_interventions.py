"""Interventions through GraphQL: who is left alone, what is recorded, and what it did, on customers of whom it is known."""

import asyncio
import random
from collections.abc import Iterator, Sequence
from datetime import date, timedelta
from statistics import fmean, variance
from typing import Any, Final

import msgspec
import pytest

from health.effects import PRE_WEEKS, Followed
from health.measurements import Measurement, Observed, Unknown
from health.score import Health
from health.scorecards import Subject
from metering.config import Settings
from metering.health.records import Scored
from metering.health.scoring import DayScores, keep
from metering.keys import KeyRing, Scope
from metering.limits import LIMITS
from metering.store.pool import Database
from metering.subjects import SubjectRef
from tests.conftest import ENGINES, Api, Server, running
from tests.health.test_effects import market, normal_equations
from tests.metering.scored import resting

STARTED: Final = date(2026, 3, 3)
MEASURED: Final = STARTED + timedelta(days=28)
WEEKS: Final = [STARTED - timedelta(days=1 + 7 * week) for week in reversed(range(PRE_WEEKS))]
COUNT: Final = 240
KEYS: Final = [f"a{number:03}" for number in range(COUNT)]
# What is done in truth.
PLANTED, TRIED = 4.0, 6.0
HOLD_OUT: Final = """
query ($input: HoldOutInput!) {
  holdOut(input: $input) {
    ... on HoldOut { treated { key } leftAlone { key } }
    ... on InvalidInput { issues { path message } }
  }
}
"""
RECORD: Final = """
mutation ($input: RecordInterventionInput!) {
  recordIntervention(input: $input) {
    __typename
    ... on Intervention { key kind treated heldOut startedOn endedOn recordedBy }
    ... on InvalidInput { issues { path message } }
    ... on Conflict { message }
  }
}
"""
ASK: Final = """
query ($key: String!) {
  intervention(key: $key) {
    key treated heldOut
    effect {
      method beforeOn measuredOn treated controls leftOut unmeasured naive notEnough
      effect { value low high } placebo { value low high }
    }
    reached { treatedKnown treatedInNeed inNeed shareInNeed shareTreated }
  }
}
"""


class World(msgspec.Struct):
    """A service, the customers as they were followed, and who was left alone of one intervention."""

    api: Api
    url: str
    subjects: list[Followed]
    left_alone: set[str]

    def record(self, **given: Any) -> Any:
        """Record an intervention; what is not given is as most tests have it."""
        whole = {"kind": "webinar", "startedOn": STARTED.isoformat(), "metric": "median_l28", **given}
        return self.api.ask(RECORD, {"input": whole})["recordIntervention"]

    def measured(self, key: str) -> Any:
        """An intervention with what it did."""
        return self.api.ask(ASK, {"key": key})["intervention"]


async def follow(url: str, subjects: Sequence[Followed], left_alone: set[str]) -> None:
    """Customers with what was measured of them week by week, and afterwards; those not left alone score higher then."""
    database = await Database.connect(Settings(database_url=url), LIMITS)
    try:
        async with database.transaction() as connection:
            cells = [(key, key, one.segment) for key, one in zip(KEYS, subjects, strict=True)]
            await connection.executemany(
                "INSERT INTO account (key, name, attributes, created_by, changed_by) VALUES ($1, $2, '{}', $3, $3)",
                cells,
            )
            await connection.executemany(
                "INSERT INTO attribute_fact (account, subject, key, name, value, at, recorded_by) "
                "VALUES ($1, 'ACCOUNT', $2, 'segment', to_jsonb($3::text), '2025-01-01T00:00:00Z', 'test')",
                cells,
            )
            for place, day in enumerate([*WEEKS, MEASURED]):
                await keep(connection, _of_day(day, place, subjects, left_alone))
    finally:
        await database.close()


def _of_day(day: date, place: int, subjects: Sequence[Followed], left_alone: set[str]) -> DayScores:
    measured: dict[SubjectRef, dict[str, Measurement]] = {}
    scored = []
    for key, one in zip(KEYS, subjects, strict=True):
        ref = SubjectRef(Subject.ACCOUNT, key, key)
        value = [*one.before, one.after][place]
        # Of one of them nothing is known on one day.
        found: Measurement = Unknown() if key == "a007" and place == 3 else Observed(value)
        measured[ref] = {"median_l28": found, "breadth_core": Observed(0.1 if one.treated else value / 100)}
        score = value + (TRIED if place == PRE_WEEKS and key not in left_alone else 0.0)
        scored.append(Scored(ref, "health", _health(day, score)))
    return DayScores(day, measured, scored)


def _health(day: date, score: float) -> Health:
    return Health(
        scorecard="account",
        version=1,
        as_of=day,
        score=score,
        band="watch",
        coverage=1.0,
        baseline=score,
        raw=score,
        drivers=(),
    )


@pytest.fixture(scope="module", params=ENGINES)
def world(request: pytest.FixtureRequest, servers: dict[str, Server]) -> Iterator[World]:
    """One world on each engine, in which one intervention helped those that were low, and another one by lot."""
    subjects = market(random.Random(11), COUNT, PLANTED)
    with servers[request.param].cloned() as url, resting(url), running(url) as api:
        given = {"intervention": "trial", "percent": 40.0, "keys": KEYS}
        drawn = api.ask(HOLD_OUT, {"input": given})["holdOut"]
        left_alone = {each["key"] for each in drawn["leftAlone"]}
        assert left_alone | {each["key"] for each in drawn["treated"]} == set(KEYS)
        asyncio.run(follow(url, subjects, left_alone))
        yield World(api=api, url=url, subjects=subjects, left_alone=left_alone)


async def today_of(url: str) -> date:
    """The UTC day that it is for the database."""
    database = await Database.connect(Settings(database_url=url), LIMITS)
    try:
        async with database.connection() as connection:
            today: date = await connection.fetchval("SELECT (now() AT TIME ZONE 'UTC')::date")
            return today
    finally:
        await database.close()


def test_a_planted_effect_is_found(world: World) -> None:
    """What was done for low scores is found as it was, +4, where after less before says otherwise; the figure is that of the
    normal equations in fractions, over those who are known and resemble each other.
    """
    treated = [key for key, one in zip(KEYS, world.subjects, strict=True) if one.treated]
    need = {"metric": "breadth_core", "atMost": 0.3}
    assert "Intervention" == world.record(key="planted", keys=treated, segmentBy="segment", need=need)["__typename"]
    found = world.measured("planted")
    effect = found["effect"]

    known = [one for key, one in zip(KEYS, world.subjects, strict=True) if key != "a007"]
    sides = [[one.before[-1] for one in known if one.treated is side] for side in (True, False)]
    low, high = max(map(min, sides)), min(map(max, sides))
    alike = [one for one in known if low <= one.before[-1] <= high]
    rows = [
        [one.before[-1], fmean(one.before[-4:]), fmean(one.before[-12:])]
        + [float(one.segment == each) for each in "yz"]
        + [float(one.treated)]
        for one in alike
    ]
    by_hand = normal_equations(rows, [one.after - one.before[-1] for one in alike])[-1]
    assert effect["effect"]["value"] == pytest.approx(float(by_hand), abs=1e-6)
    assert effect["effect"]["low"] < PLANTED < effect["effect"]["high"]
    assert effect["placebo"]["low"] < 0 < effect["placebo"]["high"]
    assert ("COMPARED", [], STARTED - timedelta(days=1), MEASURED) == (
        effect["method"],
        effect["notEnough"],
        *(date.fromisoformat(effect[name]) for name in ("beforeOn", "measuredOn")),
    )
    assert (sum(one.treated for one in alike), sum(not one.treated for one in alike)) == (
        effect["treated"],
        effect["controls"],
    )
    assert len(known) - len(alike) == effect["leftOut"]
    assert ("a007" in treated) == effect["unmeasured"]
    naive = fmean(one.after - one.before[-1] for one in known if one.treated)
    assert effect["naive"] == pytest.approx(naive, abs=1e-9)
    in_need = len(treated) + sum(not one.treated and one.before[-1] <= 30 for one in world.subjects)
    assert found["reached"] == {
        "treatedKnown": len(treated),
        "treatedInNeed": len(treated),
        "inNeed": in_need,
        "shareInNeed": 1.0,
        "shareTreated": pytest.approx(len(treated) / in_need),
    }


def test_a_hold_out_is_compared_as_the_lot_fell(world: World) -> None:
    """Of those who were held out by lot nobody was treated: the difference of both sides' changes is what was done, +6, and
    Welch's interval is that of variances by hand.
    """
    recorded = world.record(key="trial", keys=KEYS, metric="score", holdoutPercent=40)
    assert (COUNT - len(world.left_alone), len(world.left_alone)) == (recorded["treated"], recorded["heldOut"])
    found = world.measured("trial")
    sides: dict[bool, list[float]] = {True: [], False: []}
    for key, one in zip(KEYS, world.subjects, strict=True):
        left_alone = key in world.left_alone
        sides[left_alone].append(one.after + (0 if left_alone else TRIED) - one.before[-1])
    difference = fmean(sides[False]) - fmean(sides[True])
    error = sum(variance(side) / len(side) for side in sides.values()) ** 0.5
    effect = found["effect"]

    assert ("HOLD_OUT", [], None, None, 0) == (
        effect["method"],
        effect["notEnough"],
        effect["placebo"],
        found["reached"],
        effect["unmeasured"],
    )
    assert effect["effect"]["value"] == pytest.approx(difference, abs=1e-9)
    # Student's quantile is 1.97 with some 200 degrees of freedom.
    assert (effect["effect"]["high"] - difference) / error == pytest.approx(1.971, abs=0.005)
    assert effect["effect"]["low"] < TRIED < effect["effect"]["high"]


def test_not_enough_is_said_with_its_reason(world: World) -> None:
    """Few treated, nobody measured, and a window that is not over: each is said, and none is an effect to rely on."""
    world.record(key="few", keys=KEYS[:3])
    world.record(key="unmeasured", keys=KEYS, metric="nps")
    today = asyncio.run(today_of(world.url))
    world.record(key="new", keys=KEYS, startedOn=today.isoformat())

    assert any(reason.endswith("treated, 10 at least") for reason in world.measured("few")["effect"]["notEnough"])
    unmeasured = world.measured("unmeasured")["effect"]
    assert (COUNT, None, 0) == tuple(unmeasured[name] for name in ("unmeasured", "effect", "treated"))
    assert str(today + timedelta(days=28)) in world.measured("new")["effect"]["notEnough"][0]


def test_an_intervention_is_recorded_once_and_may_end(world: World) -> None:
    """Recording it again is no other one; it may be ended once, and what it says otherwise stays; its audience has pages."""
    keys = ["a001", "a000", "a002"]
    first = world.record(key="call", keys=keys)
    ended = {"endedOn": (STARTED + timedelta(days=7)).isoformat()}
    assert first == world.record(key="call", keys=keys[::-1], subjects=[{"key": "a001", "account": "a001"}])
    assert {**first, **ended} == world.record(key="call", keys=keys, **ended)
    assert {**first, **ended} == world.record(key="call", keys=keys)
    for changed in ({"keys": keys[1:]}, {"keys": keys, "windowDays": 7}, {"keys": keys, "endedOn": "2026-03-05"}):
        assert "Conflict" == world.record(key="call", **changed)["__typename"]
    assert "2026-04-07" == world.measured("call")["effect"]["measuredOn"]
    document = """
    query ($after: String) {
      intervention(key: "call") { audience(first: 2, after: $after) { nodes { key heldOut } pageInfo { endCursor hasNextPage } } }
    }
    """
    page = world.api.ask(document)["intervention"]["audience"]
    rest = world.api.ask(document, {"after": page["pageInfo"]["endCursor"]})["intervention"]["audience"]
    assert ["a000", "a001", "a002"] == [node["key"] for node in (*page["nodes"], *rest["nodes"])]
    assert (True, False) == (page["pageInfo"]["hasNextPage"], rest["pageInfo"]["hasNextPage"])
    listed = world.api.ask("{ interventions(first: 1) { nodes { key endedOn } } }")["interventions"]["nodes"]
    assert [{"key": "call", **ended}] == listed


def test_every_fault_is_told_at_once(world: World) -> None:
    """All that is wrong with an intervention, or with who is to be held out, is told together, each by its path."""
    answer = world.record(
        key=" ",
        kind="",
        subject="USER",
        keys=["ana"],
        subjects=[{"key": "\0", "account": "acme"}],
        startedOn="2999-01-01",
        endedOn="2998-01-01",
        metric="happiness",
        windowDays=0,
        holdoutPercent=95,
        segmentBy=" ",
        need={"metric": "seats", "atLeast": 3, "atMost": 2},
        note="\0",
    )
    assert {
        "key", "kind", "keys.0", "subjects.0.key", "startedOn", "endedOn", "metric", "windowDays", "holdoutPercent",
        "segmentBy", "need.metric", "need.atMost", "note",
    } == {".".join(issue["path"][1:]) for issue in answer["issues"]}  # fmt: skip
    empty = world.record(key="empty", keys=[])
    assert [["input", "keys"]] == [issue["path"] for issue in empty["issues"]]
    nobody = world.record(key="nobody", subject="SUBSCRIPTION", keys=["nobody's"])
    assert [["input", "keys", "0"]] == [issue["path"] for issue in nobody["issues"]]
    given = {"intervention": "", "percent": -1.0, "subject": "USER", "keys": ["ana"]}
    drawn = world.api.ask(HOLD_OUT, {"input": given})["holdOut"]
    assert {"intervention", "percent", "keys.0.account"} == {".".join(issue["path"][1:]) for issue in drawn["issues"]}


def test_who_is_bound_is_told_nothing(world: World) -> None:
    """Interventions are about all customers: who is bound to accounts sees none, and records none."""

    async def make() -> str:
        database = await Database.connect(Settings(database_url=world.url), LIMITS)
        try:
            _, secret = await KeyRing(database).create("p", [Scope.HEALTH_READ, Scope.HEALTH_WRITE], ["a000"])
        finally:
            await database.close()
        return secret

    partner = asyncio.run(make())
    world.record(key="secret", keys=["a000"])
    asked = '{ interventions { nodes { key } } intervention(key: "secret") { key } }'
    assert {"interventions": {"nodes": []}, "intervention": None} == world.api.ask(asked, key=partner)
    given = {"key": "mine", "kind": "call", "keys": ["a000"], "startedOn": str(STARTED), "metric": "score"}
    refused = world.api.answer(RECORD, {"input": given}, key=partner)
    assert "FORBIDDEN" == refused["errors"][0]["extensions"]["code"]
