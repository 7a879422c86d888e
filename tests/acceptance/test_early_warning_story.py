"""The team that falls silent in the demo, day by day: what is told of it, when, and why; all long before the renewal.

Six users begin. One was there for the set-up only. A new feature disrupts the others: two go back to what they had, and the
champion takes another job. Nobody complains, so the customer success manager says that all is well.
"""

import asyncio
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime, time, timedelta
from functools import cache
from math import fsum
from typing import Any, Final

import msgspec
import pytest

from health.alarms import AlarmType
from health.scorecards import Subject
from metering.config import Settings
from metering.demo.cast import FEATURE_LAUNCH_DAY, SILENT_TEAM
from metering.demo.story import demo_events
from metering.events import UsageEvent
from metering.health.measuring import Measurer
from metering.health.scorer import Scorer
from metering.ingest.batch import Writer
from metering.keys import KeyRing, Scope
from metering.limits import LIMITS
from metering.rollups.refresh import Refresher
from metering.store.event_log import EventLog
from metering.store.pool import Database
from metering.subjects import SubjectRef
from tests.conftest import ENGINES, Api, Server, running
from tests.metering.catalog import draft, order, publish, put, rows
from tests.metering.scored import resting, say
from tests.metering.second_measures import Found, Sold, Use, World, metrics_of
from tests.metering.test_exactness import submission_of

THROUGH: Final = date(2026, 9, 1)
START: Final = SILENT_TEAM.contract_start(THROUGH)
RENEWAL: Final = SILENT_TEAM.renewal(THROUGH)
TEAM: Final = SILENT_TEAM.account
ENGINEER, BOOKKEEPER, CREW_LEAD, PLANNER, CHAMPION, SUPERVISOR = (seat.user for seat in SILENT_TEAM.seats)
# The lapse, and the fall. What is between them would be the same as on the days before.
LAPSE: Final = (62, 110)
FALL: Final = (140, 212)
PULSE_ON: Final = 195
EVENTS: Final = [msgspec.convert(each, UsageEvent, strict=False) for each in demo_events(THROUGH, accounts={TEAM})]
# The card `account`, written down once more: share, curve.
CARD: Final = {
    "seat_utilisation": (0.2, [(0, 0), (0.2, 20), (0.4, 45), (0.8, 90), (1, 100)]),
    "median_l28": (0.15, [(0, 0), (1, 25), (4, 60), (8, 85), (20, 100)]),
    "drop_z": (0.15, [(0, 80), (1, 60), (2.5, 25), (4, 0)]),
}
WARNINGS: Final = """
query ($filter: WarningFilter!) { warnings(filter: $filter, first: 100) { nodes {
  id type account subject key asOf lastOn toldAt withdrawnAt thresholdsVersion evidence
  health { score band baseline drivers { metric state value contribution } adjustment { contribution reason } }
} } }
"""


def on(day: int) -> date:
    """A day of the contract."""
    return START + timedelta(days=day)


def midnight(day: date) -> datetime:
    """The beginning of a UTC day."""
    return datetime.combine(day, time(), UTC)


async def live(url: str) -> str:
    """Load the team's year, and let one day after the other end; the secret of a key that is bound to the team."""
    database = await Database.connect(Settings(database_url=url), LIMITS)
    try:
        await publish(database, draft())
        given = {"key": SILENT_TEAM.subscription, "account": TEAM, "seats": 6}
        await put(database, order(**given, starts_at=midnight(START), renews_at=midnight(RENEWAL)))
        await say(database, on(PULSE_ON), TEAM, pulse=5)
        await load(database, midnight(THROUGH) + timedelta(minutes=20))
        await rows(database, "DELETE FROM health_dirty")
        scorer = Scorer(database, Measurer(database).measure, LIMITS)
        for first, last in (LAPSE, FALL):
            before = on(first - 1)
            await rows(database, f"INSERT INTO health_day (as_of, completed_at) VALUES ('{before}', now()) RETURNING 1")
            for day in range(first, last + 1):
                while (
                    done := await scorer.run(midnight(on(day + 1)) + timedelta(minutes=20))
                ) is not None and done.more:
                    pass
        _, secret = await KeyRing(database).create("team", [Scope.USAGE_READ, Scope.HEALTH_READ], [TEAM])
        return secret
    finally:
        await database.close()


async def load(database: Database, end: datetime) -> None:
    """Record the events, all of them late: to roll up a year day by day would take longer than all else."""
    await Refresher(database).run(end)
    writer = Writer(EventLog(database, LIMITS), LIMITS)
    writer.start()
    for place in range(0, len(EVENTS), 1_000):
        await writer.submit(submission_of(EVENTS[place : place + 1_000], end))
    await writer.close()
    while (done := await Refresher(database).run(end)) is None or done.more:
        pass


class Told(msgspec.Struct):
    """The service after that time, what it warned of, what was told, and a key of the team's own."""

    api: Api
    warnings: Sequence[Any]
    notifications: Sequence[tuple[str, str, Any]]
    partner: str

    def of(self, kind: str, key: str = TEAM) -> Any:
        """The first warning of this type and key."""
        return next(each for each in self.warnings if (each["type"], each["key"]) == (kind, key))

    def day(self, kind: str, key: str = TEAM) -> int:
        """The day of the contract on which it was raised."""
        return (date.fromisoformat(self.of(kind, key)["asOf"]) - START).days

    def score(self, day: int) -> float:
        """The team's score on a day."""
        asked = f'{{ account(key: "{TEAM}") {{ health(asOf: "{on(day)}") {{ score }} }} }}'
        return float(self.api.ask(asked)["account"]["health"]["score"])


@pytest.fixture(scope="module", params=ENGINES)
def told(request: pytest.FixtureRequest, servers: dict[str, Server]) -> Iterator[Told]:
    """The time is lived through once on each engine."""
    with servers[request.param].cloned() as url:
        partner = asyncio.run(live(url))
        with resting(url), running(url) as api:
            nodes = api.ask(WARNINGS, {"filter": {"account": TEAM}})["warnings"]["nodes"]
            yield Told(api, nodes[::-1], asyncio.run(read_notifications(url)), partner)


async def read_notifications(url: str) -> list[tuple[str, str, Any]]:
    """Everything that the outbox holds: type, subject, data."""
    database = await Database.connect(Settings(database_url=url), LIMITS)
    try:
        found = await rows(database, "SELECT type, subject, data::text FROM notification ORDER BY sequence")
        return [(kind, subject, msgspec.json.decode(data)) for kind, subject, data in found]
    finally:
        await database.close()


# ---------------------------------------------------------------- by hand


@cache
def world(as_of: date) -> World:
    """What plain Python makes of the raw events before a day."""
    uses = [
        Use(
            each.occurred_at.date(),
            *(each.account, each.subscription, each.user, each.device, each.product, each.feature, each.classification),
            each.quantity,
        )
        for each in EVENTS
        if each.occurred_at < midnight(as_of)
    ]
    sold = Sold(TEAM, SILENT_TEAM.subscription, START, ((START, 6),), renews_on=RENEWAL)
    return World(as_of, uses, [sold], {}, {})


def by_hand(day: date, key: str = TEAM) -> dict[str, Found]:
    """Every metric of the team, or of a user, at the end of a day."""
    kind = Subject.ACCOUNT if key == TEAM else Subject.USER
    return metrics_of(world(day + timedelta(days=1)), SubjectRef(kind, TEAM, key))


def line(points: Sequence[tuple[float, float]], value: float) -> float:
    """A value's score by a line through points, flat outside of them."""
    if value >= points[-1][0]:
        return points[-1][1]
    place = max(1, bisect_right([x for x, _ in points], value))
    (left, low), (right, high) = points[place - 1], points[place]
    return low + (high - low) * (max(value, left) - left) / (right - left)


def score_by_hand(day: date) -> float:
    """The team's score: what is known of usage, no invoice overdue, the pulse while it lasts; capped where a champion is lost."""
    found = by_hand(day)
    parts = [50.0, 0.15 * 50]
    for metric, (share, points) in CARD.items():
        value = found[metric]
        parts += [] if isinstance(value, str) else [share * (line(points, value) - 50)]
    if on(PULSE_ON) <= day < on(PULSE_ON + 30):
        parts.append(0.1 * 50)
    return min(fsum(parts), 49.0) if found["champion_lost"] == 1.0 else fsum(parts)


# ---------------------------------------------------------------- claims


def test_a_benign_lapse_is_no_warning(told: Told) -> None:
    """Who set everything up is told of nobody as silent, and the band stays; all that the score loses is what a seat is worth
    that nobody uses.
    """
    scores = [told.score(day) for day in range(LAPSE[0], 109)]

    assert ENGINEER not in {each["key"] for each in told.warnings}
    assert [] == [each for each in told.warnings if date.fromisoformat(each["asOf"]) < on(70)]
    assert (on(109).isoformat(), "healthy", "watch") == tuple(
        (told.of("BAND_CHANGED") | told.of("BAND_CHANGED")["evidence"])[name] for name in ("asOf", "before", "after")
    )
    noticed = told.score(88) - told.score(87)
    seat = 0.2 * (line(CARD["seat_utilisation"][1], 5 / 6) - 100)
    assert by_hand(on(88))["median_l28"] == 17
    assert noticed == pytest.approx(seat + 0.15 * (line(CARD["median_l28"][1], 17) - line(CARD["median_l28"][1], 17.5)))
    assert min(scores) > scores[0] - 3


def test_drop_and_silence_are_told_within_their_cadence(told: Told) -> None:
    """The drop within four weeks of the launch that disrupts them, and each user within two weeks of the last use."""
    silent = {user: told.day("USER_SILENT", user) for user in (CREW_LEAD, PLANNER, CHAMPION)}
    lasts = {seat.user: seat.last_day for seat in SILENT_TEAM.seats}

    assert 0 < told.day("DROP_DETECTED") - FEATURE_LAUNCH_DAY <= 28
    assert all(0 < day - (lasts[user] or 0) <= 14 for user, day in silent.items()), silent
    assert SUPERVISOR not in {each["key"] for each in told.warnings}


def test_losing_the_champion_caps_the_band(told: Told) -> None:
    """However well the manager says it is: the score is capped below the band that it had else, with the reason."""
    warning = told.of("CHAMPION_LOST")

    assert told.day("CHAMPION_LOST") == told.day("USER_SILENT", CHAMPION)
    assert (CHAMPION, "silent") == (warning["evidence"]["user"], warning["evidence"]["why"])
    assert (49.0, "at_risk") == (warning["health"]["score"], warning["health"]["band"])
    assert "a champion is lost" == warning["health"]["adjustment"]["reason"]
    assert 49 - warning["health"]["adjustment"]["contribution"] > 50
    assert told.score(told.day("CHAMPION_LOST") - 1) > 50


def test_the_figures_are_those_made_by_hand(told: Told) -> None:
    """What each warning was seen by, and the score of its day, is what plain Python makes of the raw events."""
    for warning in told.warnings:
        day, key, evidence = date.fromisoformat(warning["asOf"]), warning["key"], warning["evidence"]
        found = by_hand(day, key)
        expected: dict[str, Any] = {}
        match warning["type"]:
            case "USER_SILENT":
                expected = {"silence": found["silence"]}
            case "CHAMPION_LOST":
                expected = {"silence": by_hand(day, CHAMPION)["silence"]}
            case "DROP_DETECTED":
                expected = {"four_week_z": found["drop_z"], "one_week_z": found["drop_z_week"]}
            case "SINGLE_THREADED":
                expected = {name: found[name] for name in ("bus_factor", "effective_users", "seats")}
            case "SEATS_UNDERUSED":
                expected = {name: found[name] for name in ("seat_utilisation", "unused_seats", "seats")}
            case "SCORE_DROPPED":
                expected = {"after": score_by_hand(day)}
        assert expected == pytest.approx({name: evidence[name] for name in expected}, rel=1e-9), warning["type"]
        if key == TEAM:
            assert warning["health"]["score"] == pytest.approx(score_by_hand(day), abs=1e-9)
    kinds = {each["type"] for each in told.warnings}
    assert {
        "DROP_DETECTED",
        "USER_SILENT",
        "CHAMPION_LOST",
        "SINGLE_THREADED",
        "SEATS_UNDERUSED",
        "SCORE_DROPPED",
    } <= kinds
    assert CHAMPION == told.of("SINGLE_THREADED")["evidence"]["user"]


def test_each_is_told_once_long_before_the_renewal_with_drivers_that_add_up(told: Told) -> None:
    """Every warning is in the outbox once, 120 days before the renewal or more, with the three drivers that lower its score most;
    and all its drivers add up to the score.
    """
    notified = {data["warning"]: (kind, data) for kind, _, data in told.notifications}

    assert len(told.warnings) == len(told.notifications) == len(notified)
    for warning in told.warnings:
        health = warning["health"]
        parts = [driver["contribution"] for driver in health["drivers"]]
        adjustment = 0.0 if health["adjustment"] is None else health["adjustment"]["contribution"]
        assert (RENEWAL - date.fromisoformat(warning["asOf"])).days >= 120
        assert health["score"] == pytest.approx(fsum([health["baseline"], adjustment, *parts]), abs=1e-9)
        kind, data = notified[warning["id"]]
        assert (kind, data["asOf"], data["key"]) == (_told_as(warning["type"]), warning["asOf"], warning["key"])
        assert (data["score"], data["band"]) == (health["score"], health["band"])
        lowering = sorted(part for part in [adjustment, *parts] if part < 0)
        assert lowering[:3] == [driver["contribution"] for driver in data["drivers"]]
        assert warning["toldAt"] is not None
        assert warning["withdrawnAt"] is None


def _told_as(name: str) -> str:
    return AlarmType[name].value


def test_whoever_is_bound_to_the_account_sees_none_of_it(told: Told) -> None:
    """Pages and the account's own list show the same to the operator, and nothing to a key of the team's."""
    asked = f"""{{
      warnings(first: 2) {{ nodes {{ id }} pageInfo {{ endCursor hasNextPage }} }}
      account(key: "{TEAM}") {{ warnings(first: 100) {{ id }} }}
      warningRates(days: 1000) {{ type subject count perYear withinBudget }} warningThresholds {{ version }}
    }}"""
    whole, partner = told.api.ask(asked), told.api.ask(asked, key=told.partner)
    ids = [each["id"] for each in whole["account"]["warnings"]]
    behind = whole["warnings"]["pageInfo"]["endCursor"]
    rest = told.api.ask(
        f'{{ warnings(first: 100, after: "{behind}") {{ nodes {{ id }} pageInfo {{ hasNextPage }} }} }}'
    )

    assert ids == [each["id"] for page in (whole, rest) for each in page["warnings"]["nodes"]]
    assert sorted(ids) == sorted(each["id"] for each in told.warnings)
    assert (True, False) == tuple(page["warnings"]["pageInfo"]["hasNextPage"] for page in (whole, rest))
    assert {each["type"] for each in told.warnings} == {each["type"] for each in whole["warningRates"]}
    assert [] == partner["warnings"]["nodes"] == partner["account"]["warnings"] == partner["warningRates"]
    assert partner["warningThresholds"] is None


def test_thresholds_are_put_as_versions(told: Told) -> None:
    """Everything that is wrong is said at once, with its path; what is right is in force, with the others as they were."""
    document = """
    mutation ($thresholds: JSON!) { putWarningThresholds(input: {thresholds: $thresholds}) {
      ... on WarningThresholds { version thresholds } ... on InvalidInput { issues { path } }
    } }
    """
    refused = told.api.ask(document, {"thresholds": {"silence": 4, "silenceMin": -1}})["putWarningThresholds"]
    put = told.api.ask(document, {"thresholds": {"silenceMin": 5}})["putWarningThresholds"]

    assert [["input", "thresholds", name] for name in ("silence", "silenceMin")] == [
        issue["path"] for issue in refused["issues"]
    ]
    assert put == told.api.ask("{ warningThresholds { version thresholds } }")["warningThresholds"]
    assert (1, 5.0, 2.9) == (put["version"], put["thresholds"]["silenceMin"], put["thresholds"]["dropZFourWeeks"])
