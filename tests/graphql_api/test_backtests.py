"""Back-tests through GraphQL and the command line: what was known then, and nothing else, against what became of customers."""

import asyncio
import random
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, date, datetime, time, timedelta
from fractions import Fraction
from pathlib import Path
from statistics import median
from typing import Any, Final

import msgspec
import pytest

from health.measurements import Observed
from health.score import evaluate
from health.scorecards import Scorecard, Subject
from metering.config import Settings
from metering.health.backtests import BacktestOrder, read_past, try_measured
from metering.health.cards import read_cards
from metering.health.outcomes import OutcomeKind, OutcomeOrder, record_outcomes
from metering.health.records import Scored
from metering.health.scoring import DayScores, keep
from metering.health.signals import SignalOrder, record_signals
from metering.keys import KeyRing, Scope
from metering.limits import LIMITS
from metering.reach import EVERYTHING
from metering.store.pool import Database
from metering.store.snapshot import Snapshot
from metering.subjects import SubjectRef
from tests.conftest import ENGINES, Api, Server, running
from tests.metering.catalog import KEY
from tests.metering.scored import CARD, publish_card, resting

HORIZON: Final = 60
LEFT_ON: Final = date(2026, 6, 30)
WEEKS: Final = [LEFT_ON - timedelta(days=HORIZON + 1 + 7 * week) for week in range(12)]
COUNT: Final = 110
ASK: Final = """
query ($input: BacktestInput!) {
  backtest(input: $input) {
    __typename
    ... on Backtest {
      scorecard version outcomes noticed unscored notFor warned leadDays worstTenthLift missedCount
      auc { value churned stayed } bands { band subjects churned low high }
      measures { path auc { value } aucLostWithout } missed(first: 2) { key score }
    }
    ... on InvalidInput { issues { path message } }
    ... on Problem { message }
  }
}
"""


class Customer(msgspec.Struct):
    """A customer as it was week by week, the latest first: what was said of it, and whether it left."""

    key: str
    churned: bool
    pulses: list[float]
    nps: list[float]

    def score(self, week: int = 0) -> float:
        """By hand, of the card of pulse and survey."""
        return 0.5 * (self.pulses[week] - 1) * 25 + 0.5 * (self.nps[week] + 100) / 2


def customers() -> list[Customer]:
    """Those who left had said so by their pulse more often than by surveys, which say nothing."""
    rng = random.Random(5)
    found = []
    for number in range(COUNT):
        churned = number < 40
        base = rng.gauss(2.4 if churned else 3.6, 0.8)
        pulses = [min(5.0, max(1.0, base + rng.gauss(0, 0.3) + 0.05 * week * churned)) for week in range(len(WEEKS))]
        found.append(Customer(f"c{number:03}", churned, pulses, [rng.uniform(-100, 100) for _ in WEEKS]))
    return found


class World(msgspec.Struct):
    """A service, and its customers."""

    api: Api
    url: str
    customers: list[Customer]

    def ask(self, **given: Any) -> Any:
        """A back-test of June."""
        whole = {"from": "2026-06-01", "to": "2026-07-01", "horizonDays": HORIZON, **given}
        return self.api.ask(ASK, {"input": whole})["backtest"]


def noon(day: date) -> datetime:
    """The middle of a UTC day."""
    return datetime.combine(day, time(12), UTC)


async def prepare(url: str, known: Sequence[Customer]) -> None:
    """What was measured and scored of customers week by week, as it was known on the next day; and what became of them.

    Of the last one scores are there that were computed long afterwards: as if somebody had known. The one before it gave
    notice, and was low from then on. Of one more nothing was ever measured.
    """
    database = await Database.connect(Settings(database_url=url), LIMITS)
    try:
        card = (await publish_card(database)).card
        for week, day in enumerate(WEEKS):
            async with database.transaction() as connection:
                await keep(connection, _of_day(card, known, week))
                for table in ("measured", "health"):
                    await connection.execute(
                        f"UPDATE {table} SET computed_at = as_of + interval '1 day 20 minutes' WHERE as_of = $1", day
                    )
        async with database.transaction() as connection:
            # Known of one then, and of another one only afterwards.
            await connection.executemany(
                "INSERT INTO attribute_fact (account, subject, key, name, value, at, recorded_at, recorded_by) "
                """VALUES ($1, 'ACCOUNT', $1, 'segment', '"vip"', '2026-01-01', $2, 'test')""",
                [("c005", noon(date(2026, 1, 2))), ("c006", noon(LEFT_ON))],
            )
        late, noticed = _with(known[0], 5.0), _with(known[1], 1.0)
        async with database.transaction() as connection:
            # Computed now: of the day before the one that is looked at, and of days after a notice.
            await keep(connection, _of_day(card, [late], 0))
            for days in (20, 27):
                await keep(connection, _of_day(card, [noticed], 0, day=LEFT_ON - timedelta(days=days)))
            await connection.execute(
                "UPDATE health SET computed_at = as_of + interval '1 day' WHERE key = $1 AND as_of > $2",
                noticed.key,
                WEEKS[0],
            )
        # Of one more its pulse is told afterwards, as it was before and as it became.
        told = [
            SignalOrder(
                subject=Subject.ACCOUNT,
                key="c010",
                name="pulse",
                value=value,
                at=noon(LEFT_ON - timedelta(days=days)),
                source="crm",
                note="as a test has it",
            )
            for value, days in ((4, HORIZON + 5), (1, HORIZON - 1))
        ]
        notice = SignalOrder(
            subject=Subject.ACCOUNT,
            key=known[1].key,
            name="notice",
            value=1,
            at=noon(LEFT_ON - timedelta(days=30)),
            source="crm",
        )
        await record_signals(database, [notice, *told], KEY, LIMITS)
        await record_outcomes(
            database, [*map(_outcome, known), _outcome(Customer("never", churned=True, pulses=[], nps=[]))], KEY, LIMITS
        )
    finally:
        await database.close()


def _with(customer: Customer, pulse: float) -> Customer:
    return Customer(customer.key, customer.churned, [pulse], [100.0 if pulse > 1 else -100.0])


def _of_day(card: Scorecard, known: Sequence[Customer], week: int, *, day: date | None = None) -> DayScores:
    day = day or WEEKS[week]
    measured, scored = {}, []
    for one in known:
        ref = SubjectRef(Subject.ACCOUNT, one.key, one.key)
        measured[ref] = {"pulse": Observed(one.pulses[week]), "nps": Observed(one.nps[week])}
        scored.append(Scored(ref, "health", evaluate(card, measured[ref], as_of=day)))
    return DayScores(day, measured, scored)


def _outcome(customer: Customer) -> OutcomeOrder:
    kind = OutcomeKind.CHURNED if customer.churned else OutcomeKind.RENEWED
    return OutcomeOrder(subject=Subject.ACCOUNT, key=customer.key, kind=kind, at=noon(LEFT_ON), source="crm")


@pytest.fixture(scope="module", params=ENGINES)
def world(request: pytest.FixtureRequest, servers: dict[str, Server]) -> Iterator[World]:
    """One world on each engine, which no test changes."""
    known = customers()
    with servers[request.param].cloned() as url, resting(url):
        asyncio.run(prepare(url, known))
        with running(url) as api:
            yield World(api=api, url=url, customers=known)


def auc_by_hand(scored: Sequence[tuple[float, bool]]) -> float:
    """Every pair counted."""
    left = [score for score, churned in scored if churned]
    stayed = [score for score, churned in scored if not churned]
    pairs = sum(Fraction(1) if one > other else Fraction(one == other, 2) for one in stayed for other in left)
    return float(pairs / (len(left) * len(stayed)))


def looked_at(customer: Customer, *, is_kept: bool = True) -> int:
    """Which week is looked at: who gave notice 30 days before is looked at so much earlier. What was computed afterwards is not
    there: of scores those before it are kept, of measurements there is the week before.
    """
    return {"c000": 0 if is_kept else 1, "c001": 5}.get(customer.key, 0)


def test_a_card_in_force_is_held_against_what_was_known_then(world: World) -> None:
    """AUC, bands, lift, lead time and who was missed are those that are counted by hand of the scores as they were known 60
    days before; a score that was computed later, and one after notice was given, are not among them.
    """
    found = world.ask(scorecard="account")
    scored = [(one.score(looked_at(one)), one.churned) for one in world.customers]
    left = [one for one in world.customers if one.churned]
    assert ("account", 2, COUNT + 1, 1, 1, 0) == tuple(
        found[name] for name in ("scorecard", "version", "outcomes", "noticed", "unscored", "notFor")
    )
    assert {"churned": 40, "stayed": 70, "value": pytest.approx(auc_by_hand(scored), abs=1e-9)} == found["auc"]
    counts = {band: [0, 0] for band in ("low", "middle", "high")}
    for score, churned in scored:
        band = "low" if score < 40 else "middle" if score < 70 else "high"
        counts[band][0] += 1
        counts[band][1] += churned
    assert counts == {each["band"]: [each["subjects"], each["churned"]] for each in found["bands"]}
    assert all(each["low"] <= each["churned"] / each["subjects"] <= each["high"] for each in found["bands"])
    tenth = sorted(scored)[: round(COUNT / 10)]
    lift = sum(churned for _, churned in tenth) / len(tenth) / (40 / COUNT)
    assert lift == pytest.approx(found["worstTenthLift"])
    leads = [lead for one in left if (lead := lead_by_hand(one)) is not None]
    assert (len(leads), median(leads)) == (found["warned"], found["leadDays"])
    missed = sorted(((one.score(looked_at(one)), one.key) for one in left), reverse=True)
    missed = [(score, key) for score, key in missed if score >= 70]
    assert len(missed) == found["missedCount"]
    assert [key for _, key in missed[:2]] == [each["key"] for each in found["missed"]]


def lead_by_hand(customer: Customer) -> int | None:
    """How many days before the outcome, or the notice, the score fell below 50 and stayed there until it was looked at."""
    weeks = range(looked_at(customer), len(WEEKS))
    below = [week for week in weeks if all(customer.score(each) < 50 for each in range(weeks[0], week + 1))]
    on = LEFT_ON - timedelta(days=30 if customer.key == "c001" else 0)
    return (on - WEEKS[below[-1]]).days if below else None


def test_a_draft_is_tried_on_what_had_been_measured(world: World) -> None:
    """A card that was never published scores what had been measured by then, as a hand would; a condition leaves out
    of whom it was not known then; and what each measure is worth is said.
    """
    card = {**CARD, "tree": [CARD["tree"][0], {**CARD["tree"][1], "weight": 3}], "caps": []}
    draft = {"key": "steeper", "subject": "ACCOUNT", "purpose": "growth", "definition": card}
    found = world.ask(draft=draft)
    scored = [
        (
            0.25 * (one.pulses[looked_at(one, is_kept=False)] - 1) * 25
            + 0.75 * (one.nps[looked_at(one, is_kept=False)] + 100) / 2,
            one.churned,
        )
        for one in world.customers
    ]
    assert ("steeper", 1, 1) == (found["scorecard"], found["version"], found["unscored"])
    assert found["auc"]["value"] == pytest.approx(auc_by_hand(scored), abs=1e-9)
    pulse, nps = found["measures"]
    assert ["pulse"] == pulse["path"]
    of_pulse = auc_by_hand([(one.pulses[looked_at(one, is_kept=False)], one.churned) for one in world.customers])
    of_nps = auc_by_hand([(one.nps[looked_at(one, is_kept=False)], one.churned) for one in world.customers])
    assert (of_pulse, of_nps) == pytest.approx((pulse["auc"]["value"], nps["auc"]["value"]))
    # Without the one, the other is the card.
    assert pulse["aucLostWithout"] == pytest.approx(found["auc"]["value"] - of_nps)
    vip = {**card, "when": {"segment": {"in": ["vip"]}}, "priority": 20}
    found = world.ask(draft={"key": "vip", "subject": "ACCOUNT", "definition": vip})
    assert (COUNT, {"value": None, "churned": 1, "stayed": 0}) == (found["notFor"], found["auc"])
    only = {**card, "when": {"segment": {"in": ["smb"]}}}
    rest = {"key": "others", "subject": "ACCOUNT", "purpose": "growth", "definition": only}
    refused = world.ask(draft=rest)
    assert [["input", "draft", "definition", "when"]] == [issue["path"] for issue in refused["issues"]]


def test_what_is_dated_before_a_day_is_measured_anew(world: World) -> None:
    """Measured anew, a customer has the score of what is dated before the day, also where it was told later, and of nothing that
    is dated after it; of whom nothing was told there is none, whatever had been kept.
    """

    async def tried() -> dict[str, float]:
        database = await Database.connect(Settings(database_url=world.url), LIMITS)
        try:
            async with Snapshot(database, EVERYTHING) as snapshot:
                card = (await read_cards(snapshot)).of(("account", 2))
                days = {"start": date(2026, 6, 1), "end": date(2026, 7, 1), "horizon_days": HORIZON}
                order = BacktestOrder(card=card, is_in_force=True, **days)
                past = await read_past(snapshot, order, LIMITS)
                found = [each async for page in try_measured(snapshot, order, past, LIMITS) for each in page]
            assert len(past) == len(found) == COUNT + 1
            scored = {each.past.ref.key: each.scored.scored for each in found if each.scored is not None}
            return {key: health.score for key, health in scored.items() if health.score is not None}
        finally:
            await database.close()

    # A pulse of 4 comes to 75, and an unknown survey to what is usual, 50.
    assert {"c010": 62.5} == asyncio.run(tried())


def test_every_fault_of_a_back_test_is_told(world: World) -> None:
    """No card, two cards, an unknown one, one of users, days out of order and bounds that contradict are refused with paths."""
    paths = [
        [issue["path"] for issue in world.ask(**given)["issues"]]
        for given in (
            {},
            {"scorecard": "user"},
            {"scorecard": "account", "horizonDays": 0, "to": "2026-01-01", "warningBelow": 90.0},
            {"scorecard": "account", "from": "2020-01-01"},
        )
    ]
    assert [
        [["input", "scorecard"]],
        [["input", "scorecard"]],
        [["input", "horizonDays"], ["input", "to"], ["input", "healthyFrom"]],
        [["input", "to"]],
    ] == paths
    assert "NotFound" == world.ask(scorecard="nothing")["__typename"]
    assert "NotFound" == world.ask(scorecard="account", version=9)["__typename"]


def test_who_is_bound_is_shown_none(world: World) -> None:
    """A back-test is of all customers."""

    async def make() -> str:
        database = await Database.connect(Settings(database_url=world.url), LIMITS)
        try:
            _, secret = await KeyRing(database).create("p", [Scope.HEALTH_READ], ["c000"])
        finally:
            await database.close()
        return secret

    given = {"scorecard": "account", "from": "2026-06-01", "to": "2026-07-01"}
    refused = world.api.answer(ASK, {"input": given}, key=asyncio.run(make()))
    assert "FORBIDDEN" == refused["errors"][0]["extensions"]["code"]


def test_the_command_says_the_same(world: World, run_cli: Callable[..., Any], tmp_path: Path) -> None:
    """`metering backtest` prints the figures of the API, or measures anew; and its faults are told by the options."""
    found = world.ask(scorecard="account")
    given = ("backtest", "--scorecard", "account", "--from", "2026-06-01", "--to", "2026-07-01")
    at = {"METERING_DATABASE_URL": world.url}
    kept = run_cli(*given, "--horizon-days", str(HORIZON), **at)
    assert 0 == kept.returncode, kept.stderr
    assert f"AUC {found['auc']['value']:.3f}" in kept.stdout
    assert f"{found['warned']} of those that left were warned of, {found['leadDays']:g} days before" in kept.stdout
    anew = run_cli(*given, "--horizon-days", "20", "--measure-anew", **at)
    assert 0 == anew.returncode, anew.stderr
    assert f"{COUNT + 1} outcomes" in anew.stdout
    assert "AUC not enough" in anew.stdout
    file = tmp_path / "card.json"
    file.write_text('{"bands": [], "tree": []}')
    refused = run_cli(*given, "--horizon-days", "0", "--draft", str(file), **at)
    assert 1 == refused.returncode
    assert "--draft.bands" in refused.stderr
