"""What is usual on a day is kept, and made anew where it was computed of too little."""

import asyncio
from collections.abc import Sequence
from datetime import date, timedelta
from decimal import Decimal
from typing import Any, Final

import msgspec

from health.measurements import Observed
from health.scorecards import Subject
from metering.health.measuring import Measurer, measure, read_norms
from metering.health.norms import Norms
from metering.health.scorer import Scorer
from metering.limits import LIMITS
from metering.reach import EVERYTHING
from metering.rollups.refresh import Refresher
from metering.store.pool import Database
from metering.store.queries import sql
from metering.store.snapshot import Snapshot
from metering.subjects import SubjectRef
from tests.conftest import Server
from tests.metering.catalog import rows
from tests.metering.second_measures import Sold
from tests.metering.test_measuring import DAY, NOW, Habit, Service, events_of, play

SCORED: Final = DAY - timedelta(days=1)
HABIT: Final = Habit("a", "a s", "u", None, "p", "f", None, Decimal(1), 100, 1, 1, 1, 9)
SCORES: Final = """
SELECT DISTINCT ON (account) account, band, coverage FROM health WHERE subject = 'ACCOUNT' AND as_of = $1
ORDER BY account, computed_at DESC
"""


async def scored(service: Service) -> dict[str, tuple[str, float]]:
    """Roll up, do all that the scorer finds to do, and say the band and the coverage of each account's score."""
    await service.roll_up()
    scorer = Scorer(service.database, Measurer(service.database).measure, LIMITS)
    while (done := await scorer.run(NOW)) is not None and done.more:
        pass
    async with service.database.connection() as connection:
        found = await connection.fetch(SCORES, SCORED)
    return {row["account"]: (row["band"], row["coverage"]) for row in found}


async def kept(database: Database, as_of: date = DAY) -> tuple[Norms, Any]:
    """The norms that are kept, and when they were computed."""
    ((text, computed_at),) = await rows(
        database, f"SELECT norms::text, computed_at FROM health_norms WHERE as_of = '{as_of}'"
    )
    return msgspec.json.decode(text, type=Norms), computed_at


async def norms_now(database: Database, as_of: date = DAY) -> Norms:
    """The norms as they would be computed now."""
    async with Snapshot(database, EVERYTHING) as snapshot:
        return await read_norms(snapshot, as_of)


def test_a_load_after_the_first_scores_sets_them_right(servers: dict[str, Server], engine: str) -> None:
    """Scores that were computed while nobody had sent anything are unknown; once events are loaded, everybody is scored anew
    against other norms, also who sent none; a load that adds much has norms made anew, and one event does not.
    """

    async def scenario(service: Service) -> None:
        begun = DAY - timedelta(days=200)
        await service.sell([Sold(key, f"{key} s", begun, ((begun, 2),)) for key in "ab"])
        first = await scored(service)
        assert {"a": "unknown", "b": "unknown"} == {key: band for key, (band, _) in first.items()}
        await service.record(events_of([HABIT]))
        after = await scored(service)
        assert {"a", "b"} == after.keys()
        assert all(coverage > first[key][1] for key, (_, coverage) in after.items())
        assert "unknown" not in {band for band, _ in after.values()}
        before, computed_at = await kept(service.database)
        assert before == await norms_now(service.database)
        await service.record(events_of([msgspec.structs.replace(HABIT, first_age=9, last_age=9)], "one"))
        await scored(service)
        assert (before, computed_at) == await kept(service.database)
        habits = [msgspec.structs.replace(HABIT, account="c", user=user, every_days=7) for user in "uvw"]
        await service.record(events_of(habits, "load"))
        await scored(service)
        anew, _ = await kept(service.database)
        assert anew == await norms_now(service.database) != before
        assert [] == await rows(service.database, "SELECT id FROM health_dirty")

    play(servers[engine], scenario)


def test_norms_of_a_day_that_is_not_over_hold_until_it_is(servers: dict[str, Server], engine: str) -> None:
    """Norms that were computed in the course of a day are the same until it has ended, and are then made once more."""

    async def scenario(service: Service) -> None:
        tomorrow = DAY + timedelta(days=1)
        await service.record(events_of([HABIT]))
        await service.roll_up()
        measurer = Measurer(service.database)
        async with Snapshot(service.database, EVERYTHING) as snapshot:
            early = await measurer.norms(snapshot, tomorrow)
        await service.record(events_of([msgspec.structs.replace(HABIT, first_age=0, last_age=0, hour=3)], "today"))
        async with Snapshot(service.database, EVERYTHING) as snapshot:
            assert early == await measurer.norms(snapshot, tomorrow)
        while (done := await Refresher(service.database).run(NOW + timedelta(days=1))) is None or done.more:
            pass
        async with Snapshot(service.database, EVERYTHING) as snapshot:
            late = await measurer.norms(snapshot, tomorrow)
        assert (DAY - timedelta(days=1), DAY) == (early.last_on, late.last_on)
        assert late == (await kept(service.database, tomorrow))[0] == await norms_now(service.database, tomorrow)

    play(servers[engine], scenario)


def test_norms_that_two_pages_ask_for_are_computed_once(servers: dict[str, Server], engine: str) -> None:
    """Of two that measure at the same time, each in a snapshot of its own that has no norms, one has what the other computed."""
    lives = sql("measures.list_lives")

    class Noted(Snapshot):
        asked: Final[list[str]] = []

        async def fetch(self, statement: str, arguments: Sequence[object] = (), *, hashed: bool = False) -> list[Any]:
            self.asked.append(statement)
            return await super().fetch(statement, arguments, hashed=hashed)

    async def scenario(service: Service) -> None:
        await service.record(events_of([HABIT]))
        await service.roll_up()
        measurer = Measurer(service.database)
        async with Noted(service.database, EVERYTHING) as one, Noted(service.database, EVERYTHING) as other:
            for each in (one, other):
                await each.horizon()
            first, second = await asyncio.gather(measurer.norms(one, DAY), measurer.norms(other, DAY))
        assert first == second == (await kept(service.database))[0]
        assert 1 == Noted.asked.count(lives)

    play(servers[engine], scenario)


def test_who_comes_after_everybody_else_is_not_silent(servers: dict[str, Server], engine: str) -> None:
    """Active on a day when the norms had been computed of days of which the last was long before: as if all had come that day."""

    async def scenario(service: Service) -> None:
        tomorrow, user = DAY + timedelta(days=1), SubjectRef(Subject.USER, "a", "u")
        await service.record(events_of([msgspec.structs.replace(HABIT, last_age=9)]))
        await service.roll_up()
        async with Snapshot(service.database, EVERYTHING) as snapshot:
            early = await Measurer(service.database).norms(snapshot, tomorrow)
        await service.record(events_of([msgspec.structs.replace(HABIT, first_age=0, last_age=0, hour=3)], "today"))
        async with Snapshot(service.database, EVERYTHING) as snapshot:
            found = await measure(snapshot, [user], tomorrow, early)
            expected = await measure(snapshot, [user], tomorrow, msgspec.structs.replace(early, last_on=DAY))
        assert early.last_on == DAY - timedelta(days=9)
        assert isinstance(found[user]["p_active_next"], Observed)
        assert found == expected

    play(servers[engine], scenario)
