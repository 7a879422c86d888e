"""Lists in PostgreSQL: whom a rule says, in its order, on pages of any size."""

import random
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, Final

import msgspec

from health.lists.conditions import at_least
from health.lists.known import RULES
from health.lists.rules import FACTS, Rank, Rule, reasons_of, signs_held
from health.scorecards import Subject
from metering.health.customers import CustomerFilter
from metering.health.listing import ListAsked, ListedSubject, ListPage, list_subjects
from metering.limits import LIMITS
from metering.reach import EVERYTHING
from metering.store.pool import Database
from metering.store.snapshot import Snapshot
from tests.conftest import Server
from tests.metering.catalog import play

DAY: Final = date(2026, 6, 9)
SUBJECTS: Final = 120
_MEASURED: Final = """
INSERT INTO measured (account, subject, key, as_of, computed_at, metrics) VALUES ($1, $2, $3, $4, now(), $5)
"""


def drawn(dice: random.Random, rule: Rule) -> dict[str, float]:
    """Values around a rule's thresholds, and at them; some are not there."""
    values = {}
    for condition in rule.conditions:
        value = condition.threshold + dice.choice([0, 0, -1, 1, -0.05, 0.05, 0.1, -1e-12])
        # Most of them keep to what is required: otherwise nobody would be on a list.
        kept = condition in rule.required and dice.random() < 0.8
        if (kept and condition.holds({condition.metric: value})) or (not kept and dice.random() < 0.7):
            values[condition.metric] = value
    if dice.random() < 0.8:
        values.setdefault(rule.rank.metric, float(dice.choice([1, 2, 2, 0.1 + 0.2])))
    return values


async def all_pages(database: Database, rule: Rule, first: int) -> list[ListedSubject]:
    """A list page by page."""
    rows: list[ListedSubject] = []
    page: ListPage | None = None
    async with Snapshot(database, EVERYTHING) as snapshot:
        while page is None or page.has_next:
            asked = ListAsked(DAY, first, rows[-1].place if rows else None)
            page = await list_subjects(snapshot, rule, CustomerFilter(), asked, LIMITS)
            rows += page.rows
            assert page.total >= len(rows)
    assert page.total == len(rows)
    return rows


def place_of(rule: Rule, values: dict[str, float], name: str) -> tuple[Any, ...]:
    """Where somebody stands, in plain Python."""
    rank = values.get(rule.rank.metric)
    signed = 0.0 if rank is None else (-rank if rule.rank.descending else rank)
    return -len(signs_held(rule, values)), rank is None, signed, name


def test_postgresql_lists_whom_a_rule_says(servers: dict[str, Server], engine: str) -> None:
    """Of every rule, random subjects, what was measured last: PostgreSQL lists those of whom the rule says so, in the rule's
    order, with ties by name and what has no rank last; pages of one and of many rows are the same list.
    """
    dice = random.Random(8)

    async def scenario(database: Database) -> None:
        for number, rule in enumerate(RULES):
            # What is read besides metrics is none of this test's; each is looked up in tests of its own.
            bare = msgspec.structs.replace(
                rule, required=tuple(each for each in rule.required if each.metric not in FACTS)
            )
            if bare.rank.metric in FACTS:
                bare = msgspec.structs.replace(bare, rank=RULES[0].rank)
            names = [f"{number:02} {place:03}" for place in range(SUBJECTS)]
            known = {name: drawn(dice, bare) for name in names}
            rows = [
                (
                    name if rule.subject is Subject.ACCOUNT else f"{number:02}",
                    rule.subject.value,
                    name,
                    DAY - age * DAYS,
                    said,
                )
                for name in names
                # What was measured before does not count any more.
                for age, said in ((0, written(known[name])), (1, written(drawn(dice, bare))))
            ]
            async with database.connection() as connection:
                await connection.execute("DELETE FROM measured")
                await connection.executemany(_MEASURED, rows)
            expected = sorted(
                (name for name in names if reasons_of(bare, known[name]) is not None),
                key=lambda name: place_of(bare, known[name], name),
            )
            assert 5 < len(expected) < SUBJECTS, rule.name
            for first in (len(names), 7):
                found = await all_pages(database, bare, first)
                assert expected == [row.key for row in found], rule.name
            assert all(len(row.reasons) == len(reasons_of(bare, known[row.key]) or ()) for row in found)

    with servers[engine].cloned() as url:
        play(url, scenario)


DAYS: Final = timedelta(days=1)
_SCORE: Final = """
INSERT INTO health (account, subject, key, purpose, as_of, computed_at, scorecard, version, score, band, coverage, baseline,
                    raw, drivers)
VALUES ($1, 'ACCOUNT', $1, 'health', $2, $3, 'account', 1, $4, $5, 1, 50, 50, '[]')
"""
# One of each fact; of the score there is a bound on both sides.
FACTS_RULE: Final = Rule(
    name="facts",
    subject=Subject.ACCOUNT,
    question="What is known besides?",
    required=(
        at_least("account_score", 0, "{value}"),
        at_least("account_score_lowest_84d", 0, "{value}", unknown="?"),
        at_least("quiet_days", 0, "{value}", unknown="?"),
    ),
    rank=Rank("account_score"),
    blind="the rest",
)


def test_facts_are_of_what_counts_now(servers: dict[str, Server], engine: str) -> None:
    """A day that was computed anew counts as it was computed last, a day without a score as the worst; below 78 days nothing is
    said. Whoever spoke last, in whichever way, ends the quiet; a pulse is ours, and what comes later is not known yet. Who has
    left is on no list, and neither is who was not measured when everybody was.
    """

    async def scenario(database: Database) -> None:
        steady = [(DAY - n * DAYS, 75.0, n) for n in range(80)]
        scores = {
            "anew": [*steady, (DAY - 9 * DAYS, 40.0, 100), (DAY - 10 * DAYS, 72.0, -1)],
            "gap": [*steady[:20], (DAY - 20 * DAYS, None, 20), *steady[21:]],
            "young": steady[:60],
            "gone": steady,
            "old": steady,
        }
        computed = datetime(2026, 6, 10, 1, tzinfo=UTC)
        async with database.connection() as connection:
            for account, days in scores.items():
                band = "churned" if account == "gone" else "healthy"
                await connection.executemany(
                    _SCORE, [(account, day, computed - n * DAYS, score, band) for day, score, n in days]
                )
                seen = DAY - 3 * DAYS if account == "old" else DAY
                await connection.execute(_MEASURED, account, "ACCOUNT", account, seen, "{}")
            await connection.execute("INSERT INTO health_day (as_of, completed_at) VALUES ($1, now())", DAY - DAYS)
        for account, name, age in [
            *(
                ("anew", "ticket", 30),
                ("anew", "touch", 12),
                ("anew", "pulse", 2),
                ("gap", "pulse", 5),
                ("young", "nps", -1),
            ),
        ]:
            await tell(database, account, name, DAY - age * DAYS)
        async with Snapshot(database, EVERYTHING) as snapshot:
            page = await list_subjects(snapshot, FACTS_RULE, CustomerFilter(), ListAsked(DAY, 10), LIMITS)
        found = {row.key: row.values for row in page.rows}
        assert found == {
            "anew": {"account_score": 75.0, "account_score_lowest_84d": 72.0, "quiet_days": 12.0},
            "gap": {"account_score": 75.0, "account_score_lowest_84d": 0.0},
            "young": {"account_score": 75.0},
        }

    with servers[engine].cloned() as url:
        play(url, scenario)


async def tell(database: Database, account: str, name: str, day: date) -> None:
    """A signal of an account, as it is in the table."""
    async with database.connection() as connection:
        await connection.execute(
            "INSERT INTO signal (account, subject, key, name, value, at, source, recorded_by, identity, content) "
            "VALUES ($1, 'ACCOUNT', $1, $2, 1, $3, 'test', 'test', $4, $4)",
            *(account, name, datetime.combine(day, time(9), UTC), f"{account} {name} {day}".encode()),
        )


def written(values: dict[str, float]) -> str:
    """Measurements as they are kept, with one that is unknown."""
    unknown = {"nps": {"state": "UNKNOWN", "reason": "nobody answered"}}
    return msgspec.json.encode({**unknown, **{name: {"value": value} for name, value in values.items()}}).decode()
