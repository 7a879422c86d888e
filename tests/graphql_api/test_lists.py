"""The lists of teams through GraphQL, over one planted world: who is on each, who is not, and the figures of the reasons."""

import asyncio
from collections.abc import Iterator
from datetime import date, datetime, timedelta
from decimal import Decimal
from math import log, sqrt
from typing import Any, Final

import msgspec
import pytest

from health.drops import four_week_z
from health.lists.known import RULES
from health.scorecards import Subject
from metering.accounts import AccountOrder, put_account
from metering.config import Settings
from metering.health.measuring import Measurer
from metering.health.norms import Norms
from metering.health.scoring import keep, score_accounts
from metering.health.signals import SignalOrder, record_signals
from metering.keys import KeyRing, Scope
from metering.limits import LIMITS
from metering.reach import EVERYTHING
from metering.rollups.refresh import Refresher
from metering.store.pool import Database
from metering.store.snapshot import Snapshot
from metering.subjects import SubjectRef
from tests.conftest import ENGINES, Api, Server, running
from tests.metering.catalog import KEY, rows
from tests.metering.scored import resting
from tests.metering.second_measures import Sold
from tests.metering.test_measuring import DAY, NOW, Fact, Habit, Service, events_of

# A score of a day is of its end, where the day begins that is measured.
AS_OF: Final = DAY - timedelta(days=1)
FEATURES: Final = ["f", "g", "h", "i", "j", "k", "l", "m"]
CROWD: Final = [f"crowd {number:02}" for number in range(30)]
SCORED: Final = ["drops", "dabbling", "half", "ref", "seats", "team", "trying"]


def habit(account: str, user: str, features: str, first_age: int, last_age: int, **given: Any) -> list[Habit]:
    """A user's events, one of each feature every day (or every so many) between two ages."""
    usual = {
        "device": None,
        "product": "p",
        "classification": None,
        "quantity": Decimal(1),
        "every_days": 1,
        "copies": 1,
    }
    its = {"account": account, "subscription": f"{account} s", "user": user, "hour": 9, **usual, **given}
    return [Habit(feature=feature, first_age=first_age, last_age=last_age, **its) for feature in features]


def sold(account: str, age: int, seats: int | None, amount: int | None = None, **days: int) -> Sold:
    """A subscription that began so many days ago, with days from today."""
    starts_on = DAY - timedelta(days=age)
    given = {name: DAY + timedelta(days=count) for name, count in days.items()}
    return Sold(account, f"{account} s", starts_on, ((starts_on, seats),), monthly_amount=amount, **given)


SOLD: Final = [
    # Ten seats of which three are used, once a week.
    sold("seats", 100, 10, 500),
    # Used by one, who does an eighth of what was usual.
    sold("drops", 200, 4, renews_on=30),
    # One works, the other fell silent.
    sold("team", 200, 2),
    # Five who come every day.
    sold("ref", 200, 5, 1000, renews_on=60),
    *(sold(account, 9, None, trial_ends_on=left) for account, left in (("trying", 5), ("half", 3), ("dabbling", 4))),
]
HABITS: Final = [
    *(each for user in "abc" for each in habit("seats", user, "fg", 99, 1, every_days=7)),
    *habit("drops", "v", "f", 140, 29, copies=8),
    *habit("drops", "v", "g", 28, 1),
    *habit("drops", "v", "f", 3, 3),
    *habit("team", "u", "f", 120, 1, copies=10),
    *habit("team", "w", "fg", 120, 40, every_days=2),
    *habit("ref", "ana", "fgh", 120, 1),
    *(each for user in ("ben", "cy", "di", "ed") for each in habit("ref", user, "fg", 120, 1)),
    *habit("ref", "cy", "f", 28, 1, classification="error"),
    *(each for user in "xy" for each in habit("trying", user, "fgh", 7, 2)),
    *habit("half", "x", "f", 7, 2),
    *habit("dabbling", "x", "f", 3, 3),
    *(each for account in CROWD for each in habit(account, "z", "f", 5, 5, product="r", subscription=None)),
    *(each for account in CROWD[1:] for each in habit(account, "z", "f", 5, 5, product="q", subscription=None)),
]
# 100 trials that showed every sign, of which 60 were paid for; and 100 that showed none, of which 10 were.
_TRIALS: Final = """
INSERT INTO subscription (key, account, currency_code, starts_at, time_zone, billing_anchor, ends_at, trial_ends_at,
                          discount_percent, attributes, created_by, changed_by)
SELECT 'past ' || n, 'past', 'EUR', at - interval '14 days', 'UTC', at, CASE WHEN n % 100 < CASE WHEN n < 100 THEN 60 ELSE 10 END
       THEN NULL ELSE at END, at, 0, '{}', 'test', 'test'
FROM generate_series(0, 199) AS n CROSS JOIN (SELECT timestamptz '2026-04-01T00:00:00Z') AS ended (at)
"""
_TRIALS_MEASURED: Final = """
INSERT INTO measured (account, subject, key, as_of, computed_at, metrics)
SELECT 'past', 'SUBSCRIPTION', 'past ' || n, '2026-03-31', now(), CASE WHEN n < 100
       THEN '{"features_used": {"value": 3}, "active_users": {"value": 2}, "active_days": {"value": 5}}'
       ELSE '{"features_used": {"value": 2}, "active_users": {"value": 1}, "active_days": {"value": 4}}' END::jsonb
FROM generate_series(0, 199) AS n
"""
# The scores of a quarter of a year are as that of the day.
_SCORES: Final = """
INSERT INTO health
SELECT account, subject, key, purpose, as_of - n, computed_at, scorecard, version, score, band, coverage, baseline, raw,
       drivers, adjustment
FROM health CROSS JOIN generate_series(1, 90) AS n
WHERE account = 'ref' AND subject = 'ACCOUNT' AND purpose = 'health' AND as_of = '2026-06-09'
"""
# From 12 June on a renewal is near in the last 50 days, and seats are few below 30 %.
_THRESHOLDS: Final = """
INSERT INTO warning_thresholds (version, thresholds, put_at, put_by)
VALUES (1, '{"renewalDaysMax": 50, "underusedBelow": 0.3}', '2026-06-12T08:00:00Z', 'test')
"""


class World(msgspec.Struct):
    """A service over the planted world, what was usual in it, and the secret of a key that is bound to one account."""

    api: Api
    norms: Norms
    bound: str

    def listed(self, field: str, arguments: str = "", key: str | None = None, day: date = AS_OF) -> Any:
        """A list with all that is told of its rows."""
        asked = f'{{ {field}(asOf: "{day}"{arguments}) {ROWS} }}'
        return (self.api.ask(asked) if key is None else self.api.ask(asked, key=key))[field]

    def names(self, field: str, arguments: str = "", key: str | None = None, day: date = AS_OF) -> list[str]:
        """Who is on a list, in its order: an account, with the user or the product."""
        return [
            " ".join(filter(None, (row["account"]["key"], row["user"], row["product"])))
            for row in self.listed(field, arguments, key, day)["nodes"]
        ]

    def reasons(self, field: str, name: str, arguments: str = "") -> dict[str, tuple[float | None, str]]:
        """Why somebody is on a list: of each metric, its value and its text."""
        names = self.names(field, arguments)
        row = self.listed(field, arguments)["nodes"][names.index(name)]
        return {each["metric"]: (each["value"], each["text"]) for each in row["reasons"]}


ROWS: Final = """{
  totalCount asOf pageInfo { hasNextPage endCursor }
  nodes {
    account { key } subscription user product asOf amount { amount currencyCode }
    reasons { metric name value threshold text }
    figures { score band monthlyAmount { amount currencyCode } seats renewsAt usageChange }
  }
}"""


async def tell(database: Database, account: str, name: str, value: float, age: int, user: str | None = None) -> None:
    """A signal of an account, or of one of its users."""
    said = SignalOrder(
        subject=Subject.ACCOUNT if user is None else Subject.USER,
        key=user or account,
        account=account,
        name=name,
        value=value,
        at=datetime.fromisoformat(f"{DAY - timedelta(days=age)}T12:00:00Z"),
        source="test",
    )
    await record_signals(database, [said], KEY, LIMITS)


async def plant(url: str) -> tuple[Norms, str]:
    """Record, sell and say all of it, and score who is to be on lists."""
    database = await Database.connect(Settings(database_url=url), LIMITS)
    try:
        await Refresher(database).run(NOW)
        service = Service(database)
        await service.sell(SOLD)
        await service.say([Fact(SubjectRef(Subject.SUBSCRIPTION, "ref", "ref s"), "features", FEATURES, 200)])
        await service.record(events_of(HABITS))
        await service.roll_up()
        for key, segment in (("ref", "mid"), ("seats", "smb")):
            await put_account(
                database, AccountOrder(key=key, name=key.title(), attributes={"segment": segment}), KEY, LIMITS
            )
        for user in ("ana", "ben", "di"):
            await tell(database, "ref", "nps", 10.0, 10, user)
        await tell(database, "ref", "touch", 1.0, 20)
        await tell(database, "seats", "touch", 1.0, 5)
        await rows(database, "UPDATE subscription SET discount_percent = 20 WHERE key IN ('ref s', 'seats s')")
        measurer = Measurer(database)
        async with Snapshot(database, EVERYTHING) as snapshot:
            scores = await score_accounts(snapshot, measurer.measure, SCORED, AS_OF)
            norms = await measurer.norms(snapshot, DAY)
        async with database.transaction() as connection:
            await keep(connection, scores)
        for statement in (_TRIALS, _TRIALS_MEASURED, _SCORES, _THRESHOLDS):
            await rows(database, statement)
        _, secret = await KeyRing(database).create("ref", [Scope.HEALTH_READ, Scope.USAGE_READ], ["ref"])
    finally:
        await database.close()
    return norms, secret


@pytest.fixture(scope="module", params=ENGINES)
def world(request: pytest.FixtureRequest, servers: dict[str, Server]) -> Iterator[World]:
    """One world on each engine, which no test changes."""
    with servers[request.param].cloned() as url:
        norms, bound = asyncio.run(plant(url))
        with resting(url), running(url) as api:
            yield World(api, norms, bound)


# Who is on each list, in its order; whoever is not named is not on it.
LISTED: Final[dict[tuple[str, str], list[str]]] = {
    ("unusedSeats", ""): ["seats", "drops"],
    ("dropOffs", ""): ["drops"],
    ("dropOffs", ", subject: SUBSCRIPTION"): ["drops"],
    ("dropOffs", ", subject: USER"): ["team w"],
    ("renewalsAtRisk", ""): ["drops"],
    ("champions", ""): ["ref ana"],
    ("usersNeedingHelp", ""): ["ref cy", "team u"],
    ("trialsLikelyToClose", ""): ["trying", "half"],
    ("upsells", ""): ["ref"],
    ("crossSells", ""): ["crowd 00 q"],
    ("adoptionGaps", ""): ["seats", "drops"],
    # Seats was spoken with five days ago, and uses little; team is well, and was never spoken with.
    ("silentAccounts", ""): ["drops"],
    ("valueForRenewal", ""): ["drops", "ref"],
    ("discountsToPhaseOut", ""): ["ref"],
    ("trainingCandidates", ""): ["ref ben", "ref cy", "ref di", "ref ed", "drops v", "ref ana", "team u"],
    ("campaignAudience", ""): ["ref", "team"],
    ("referenceCustomers", ""): ["ref"],
}
INTERNAL: Final = {rule.name for rule in RULES if rule.is_internal} | {"crossSells"}


def test_each_list_has_whom_it_should_and_nobody_else(world: World) -> None:
    """Every list, of every kind of subjects that it has, names those for whom it was planted, and says how many there are."""
    assert {rule.name for rule in RULES} | {"crossSells"} == {field for field, _ in LISTED}
    for (field, arguments), names in LISTED.items():
        assert names == world.names(field, arguments), field
        assert len(names) == world.listed(field, arguments)["totalCount"]


def test_seats_that_are_not_used(world: World) -> None:
    """Seven of ten seats of 500 EUR are 350 EUR; what was never told costs nothing that could be said."""
    reasons = world.reasons("unusedSeats", "seats")
    seats, drops = world.listed("unusedSeats")["nodes"]

    assert ("seats s", {"amount": "350.00", "currencyCode": "EUR"}) == (seats["subscription"], seats["amount"])
    assert drops["amount"] is None
    assert {
        "unused_seats": (7.0, "7 seats were not used in 28 days"),
        "seat_utilisation": (0.3, "30% of the seats are used, less than 50%"),
        "seats": (10.0, "there are 10 seats, 3 or more"),
        "age_days": (100.0, "it began 100 days ago, 60 or more"),
    } == reasons


def test_usage_that_drops_off(world: World) -> None:
    """Eight a day became one a day, and three more in the last week: z by its formula. Who came every other day and not for 38
    days is silent by the other formula; of a renewal, and of silence that is not health, the fall is told as a remark.
    """
    weeks = [56.0] * 12 + [7.0, 7.0, 7.0, 8.0]
    z = four_week_z(weeks, typical=world.norms.dispersion, common_change=world.norms.change)
    gap = world.norms.usual_gap_days
    silence = 41.5 * log(1 + 39 / (1.5 * gap + 80))

    assert world.reasons("dropOffs", "drops")["drop_z"][0] == pytest.approx(z)
    assert world.reasons("dropOffs", "team w", ", subject: USER")["silence"][0] == pytest.approx(silence)
    at_risk, quiet = world.reasons("renewalsAtRisk", "drops"), world.reasons("silentAccounts", "drops")
    health = world.api.ask(f'{{ account(key: "drops") {{ health(asOf: "{AS_OF}") {{ score }} }} }}')["account"][
        "health"
    ]
    assert (30.0, health["score"]) == (at_risk["renewal_days"][0], at_risk["account_score"][0])
    assert {"drop_z", "seat_utilisation"} < at_risk.keys()
    assert (None, "no ticket, answer or contact was ever told") == quiet["quiet_days"]
    assert quiet["drop_z"] == (
        pytest.approx(z),
        f"four weeks are low against the twelve before: z is {z:.1f}, 2.5 or more",
    )


def test_people(world: World) -> None:
    """Of five who come every day, one has three features: the champion; one has an error for every two other events; and all
    but the champion use two of eight features, which is narrow.
    """
    assert (1.0, 28.0) == tuple(world.reasons("champions", "ref ana")[name][0] for name in ("champion", "active_days"))
    assert world.reasons("usersNeedingHelp", "ref cy")["trouble_share"][0] == pytest.approx(1 / 3)
    assert (1.0, "features used in 28 days: 1, 1 at most") == world.reasons("usersNeedingHelp", "team u")[
        "features_used"
    ]
    assert (0.25, "narrow: uses 25% of the features there are, 25% at most") == world.reasons(
        "trainingCandidates", "ref ben"
    )["breadth"]
    assert "breadth" not in world.reasons("trainingCandidates", "ref ana")


def test_trials_and_what_became_of_others(world: World) -> None:
    """With all signs (60 + 20 * 0.35) / 120 are likely to close; with signs that no other trial had, as all of the 200."""
    all_signs, one_sign = (world.reasons("trialsLikelyToClose", name) for name in ("trying", "half"))

    assert (3.0, 2.0, 6.0) == tuple(all_signs[name][0] for name in ("features_used", "active_users", "active_days"))
    assert all_signs["closing_probability"] == (
        pytest.approx(67 / 120),
        "56% likely to be paid for: 60 of 100 trials with the same signs were",
    )
    assert one_sign["closing_probability"] == (
        pytest.approx(0.35),
        "35% likely to be paid for: no trial had the same signs",
    )
    assert "features_used" not in one_sign


def test_what_could_be_sold(world: World) -> None:
    """Five of five seats are in use; 29 of 30 customers of r use q, of 37 in all, which is Wilson's lower bound by 29 / 37."""
    p, z = 29 / 30, 1.959964
    low = (p + z * z / 60 - z * sqrt(p * (1 - p) / 30 + z * z / 3600)) / (1 + z * z / 30)
    (offer,) = world.listed("crossSells")["nodes"]

    assert (1.0, "100% of the seats are used, 90% or more") == world.reasons("upsells", "ref")["seat_utilisation"]
    assert offer["reasons"] == [
        {
            "metric": "product_lift",
            "name": "r",
            "value": pytest.approx(low * 37 / 29, rel=1e-6),
            "threshold": 1.0,
            "text": "uses r: of its 30 customers 29 use q too, at least 1.1 times as many as of all",
        }
    ]
    discounts = world.reasons("discountsToPhaseOut", "ref")
    assert (20.0, 60.0, 0.0) == tuple(discounts[name][0] for name in ("discount_percent", "renewal_days", "trend"))


def test_where_the_value_is(world: World) -> None:
    """The features, products and users with most days and users come first, three of each at most."""
    row = world.listed("valueForRenewal")["nodes"][1]
    told = [(each["metric"], each["name"], each["text"]) for each in row["reasons"][2:]]

    assert [
        ("feature_days", "f", "feature f: used on 28 of 28 days, users: 5"),
        ("feature_days", "g", "feature g: used on 28 of 28 days, users: 5"),
        ("feature_days", "h", "feature h: used on 28 of 28 days, users: 1"),
        ("product_days", "p", "product p: used on 28 of 28 days, users: 5"),
        ("user_days", "ana", "user ana: used on 28 of 28 days"),
        ("user_days", "ben", "user ben: used on 28 of 28 days"),
        ("user_days", "cy", "user cy: used on 28 of 28 days"),
    ] == told


def test_who_would_speak_for_us_and_what_figures_are_shown(world: World) -> None:
    """All answers are tens, three of five have half of the days, and the score was never lower; figures are the account's."""
    (row,) = world.listed("referenceCustomers")["nodes"]
    reasons = world.reasons("referenceCustomers", "ref")
    figures = row["figures"]

    assert (100.0, 3.0, 200.0) == tuple(reasons[name][0] for name in ("nps", "bus_factor", "age_days"))
    assert reasons["account_score_lowest_84d"][0] == figures["score"]
    assert {
        "band": "healthy",
        "monthlyAmount": [{"amount": "1000.00", "currencyCode": "EUR"}],
        "seats": 5,
        "renewsAt": "2026-08-09T00:00:00Z",
        "usageChange": pytest.approx(0.0),
    } == {name: value for name, value in figures.items() if name != "score"}


def test_lists_are_filtered_and_paged(world: World) -> None:
    """Lists are kept to accounts as `accounts` are, and paged; page by page they are the same list."""
    kept = {
        'text: "SE"': ["seats"],
        'attributes: {segment: "smb"}': ["seats"],
        'band: ["at_risk"]': ["seats", "drops"],
        'band: ["healthy"]': [],
        'renewsBefore: "2026-08-01T00:00:00Z"': ["drops"],
    }
    for filters, names in kept.items():
        assert names == world.names("unusedSeats", f", filter: {{{filters}}}"), filters
    for field in ("trainingCandidates", "crossSells"):
        found, after = [], ""
        while page := world.listed(field, f", first: 2{after}"):
            found += page["nodes"]
            after = f', after: "{page["pageInfo"]["endCursor"]}"'
            if not page["pageInfo"]["hasNextPage"]:
                break
        assert world.listed(field)["nodes"] == found
    # Nobody was measured by then.
    assert [] == world.api.ask(f'{{ dropOffs(asOf: "2026-03-01") {ROWS} }}')["dropOffs"]["nodes"]


def test_thresholds_are_the_caller_s_to_give(world: World) -> None:
    """Another threshold is what a list goes by, and its reasons tell; what a list does not compare is refused, all at once."""
    assert ["drops"] == world.names("unusedSeats", ', thresholds: [{metric: "seat_utilisation", value: 0.3}]')
    fewer = world.reasons("unusedSeats", "drops", ', thresholds: [{metric: "seats", value: 4}]')
    assert (4.0, "there are 4 seats, 4 or more") == fewer["seats"]
    asked = '[{metric: "nps", value: 1}, {metric: "seats", value: 1}, {metric: "seats", value: 2}]'
    refused = world.api.answer(f"{{ unusedSeats(thresholds: {asked}) {{ totalCount }} }}")
    issues = refused["errors"][0]["extensions"]["issues"]
    assert [["thresholds", "0", "metric"], ["thresholds", "2", "metric"]] == [each["path"] for each in issues]


def test_thresholds_are_those_of_warnings_on_the_day(world: World) -> None:
    """What is put on 12 June holds for lists of that day and later, and not of the day before; what the question gives goes
    before it. Who is bound to accounts is answered by what warnings start with.
    """
    before, after = date(2026, 6, 11), date(2026, 6, 12)
    given = ', thresholds: [{metric: "seat_utilisation", value: 0.5}]'

    assert [["seats", "drops"], ["drops"]] == [world.names("unusedSeats", day=day) for day in (before, after)]
    assert ["seats", "drops"] == world.names("unusedSeats", given, day=after)
    assert [["drops", "ref"], ["drops"]] == [world.names("valueForRenewal", day=day) for day in (before, after)]
    (row,) = world.listed("valueForRenewal", day=after)["nodes"]
    assert ("renewal_days", 50.0) == (row["reasons"][0]["metric"], row["reasons"][0]["threshold"])
    assert ["ref"] == world.names("valueForRenewal", key=world.bound, day=after)


def test_more_rows_take_no_more_statements(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A page of all rows takes as many statements as a page of one, with all that is told of each."""
    asked: list[str] = []
    fetch = Snapshot.fetch

    async def counted(snapshot: Snapshot, statement: str, *arguments: Any, **options: Any) -> list[Any]:
        asked.append(statement)
        return await fetch(snapshot, statement, *arguments, **options)

    monkeypatch.setattr(Snapshot, "fetch", counted)
    for field in ("unusedSeats", "usersNeedingHelp", "trialsLikelyToClose", "adoptionGaps", "valueForRenewal"):
        counts = []
        for first in (1, 50):
            asked.clear()
            assert min(first, 2) == len(world.listed(field, f", first: {first}")["nodes"])
            counts.append(len(asked))
        assert counts[0] == counts[1], field


def test_who_is_bound_sees_the_own_people_and_no_plans(world: World) -> None:
    """A caller that is bound to an account sees lists of it alone; what is the seller's plan, or compares customers, is empty."""
    for (field, arguments), names in LISTED.items():
        own = [] if field in INTERNAL else [name for name in names if name.partition(" ")[0] == "ref"]
        assert own == world.names(field, arguments, world.bound), field
