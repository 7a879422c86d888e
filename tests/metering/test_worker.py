"""Background work goes on, whatever becomes of one run of it."""

import asyncio
import time
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any, Final

import pytest
import structlog
from structlog.testing import capture_logs

from metering.config import Settings
from metering.errors import DatabaseUnavailableError
from metering.health.measuring import Measurer
from metering.health.scorer import SCORER_LOCK, Done, Scorer
from metering.lead import Lead
from metering.limits import LIMITS
from metering.loops import read_loops
from metering.retention import Retention, ages_of
from metering.rollups.refresh import REFRESHER_LOCK, Refreshed, Refresher
from metering.store.engine import Engine
from metering.store.pool import Database
from metering.store.stored import COLUMNSTORE_LOCK
from metering.telemetry import configure_logs
from metering.worker import Worker
from tests.metering.catalog import play
from tests.metering.test_exactness import NOW, PATIENCE_SECONDS, connect

AWAY: Final = "ALTER TABLE rollup_horizon RENAME TO away; ALTER TABLE rejected_event RENAME TO gone"


@pytest.fixture
def warnings_are_logged() -> Iterator[None]:
    """A log that shows warnings, also where a service that ran before in this process logged errors only."""
    before = structlog.get_config()
    configure_logs("warning")
    yield
    structlog.configure(**before)


async def told(lines: Iterable[Mapping[str, Any]], expected: set[tuple[str, str]]) -> None:
    """Wait until the log has a line of each of these levels and names."""
    while not expected <= {(line["log_level"], line["event"]) for line in lines}:  # noqa: ASYNC110 - the worker ends it
        await asyncio.sleep(0.01)


@pytest.mark.usefixtures("warnings_are_logged")
def test_the_worker_outlives_what_fails(database_url: str) -> None:
    """A run that fails, or finds no database, is in the log by the name of its work, and the next one comes."""

    async def scenario() -> None:
        database = await connect(database_url)
        retention = Retention(database, ages_of(Settings()))
        scorer = Scorer(database, Measurer(database).measure, LIMITS)
        worker = Worker(Refresher(database), scorer, retention, database, LIMITS, every_seconds=0.01)
        async with database.connection() as connection:
            await connection.execute(AWAY)
        with capture_logs() as lines:
            worker.start()
            try:
                async with asyncio.timeout(PATIENCE_SECONDS):
                    await told(lines, {("error", "refresh_failed"), ("error", "forgetting_failed")})
                    await database.close()
                    await told(lines, {("warning", "refresh_postponed"), ("warning", "forgetting_postponed")})
            finally:
                await worker.close()

    asyncio.run(scenario())


# Each works by the lock of its run, so another one can be at work.
BY_TURNS: Final = frozenset({"refresh", "scoring", "retention"})
ALWAYS: Final = frozenset({"forgetting", "make_ahead"})


def working(
    database: Database, refresher: Refresher | None = None, lead: Lead | None = None, scorer: Scorer | None = None
) -> Worker:
    """A worker that is not started."""
    retention = Retention(database, ages_of(Settings()))
    scorer = scorer or Scorer(database, Measurer(database).measure, LIMITS)
    return Worker(refresher or Refresher(database), scorer, retention, database, LIMITS, 0.01, lead)


async def noted(database: Database, expected: frozenset[str]) -> frozenset[str]:
    """The loops that ran, when these are among them."""
    names: frozenset[str] = frozenset()
    while not expected <= names:
        await asyncio.sleep(0.01)
        names = frozenset(each.name for each in await read_loops(database) if each.ran_at is not None)
    return names


def test_who_had_no_turn_has_not_succeeded(database_url: str) -> None:
    """A loop whose work another one does just then is not noted as one that ran; when the other one is done it is, and
    retention does not wait for a minute until it tries again.
    """

    async def scenario(database: Database) -> None:
        # On plain PostgreSQL there is nothing to put into columns, so nobody has to wait for his turn.
        always = ALWAYS if database.engine is Engine.TIMESCALEDB else ALWAYS | {"columnstore"}
        worker = working(database)
        async with database.connection() as converter:
            await converter.execute("SELECT pg_advisory_lock($1)", COLUMNSTORE_LOCK)
            async with database.connection() as other:
                for lock in (REFRESHER_LOCK, SCORER_LOCK):
                    await other.execute("SELECT pg_advisory_lock($1)", lock)
                worker.start()
                try:
                    assert always == await noted(database, always)
                    await other.execute("SELECT pg_advisory_unlock_all()")
                    # Retention was tried again after the columnstore was tried.
                    assert always | BY_TURNS == await noted(database, always | BY_TURNS)
                finally:
                    await worker.close()
            await converter.execute("SELECT pg_advisory_unlock_all()")

    play(database_url, scenario)


class Breaking(Refresher):
    """Its connection breaks just when it is told to stop, and that takes the place of the cancellation: a race in the driver."""

    def __init__(self, database: Database) -> None:
        super().__init__(database)
        self.at_work = asyncio.Event()

    async def run(self, now: datetime | None = None, *, late: bool = True) -> Refreshed | None:
        """Work until it is told to stop."""
        self.at_work.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise DatabaseUnavailableError("The connection was closed.") from None
        raise AssertionError(now, late)


class Laborious(Scorer):
    """Whomever something new is known of takes it so many seconds, again and again."""

    ANEW_SECONDS: Final = 0.1

    def __init__(self, database: Database) -> None:
        super().__init__(database, Measurer(database).measure, LIMITS)
        # When it ran, on the monotonic clock, and whether whoever is marked was among what it did.
        self.runs: list[tuple[float, bool]] = []
        self.ran, self.twice = asyncio.Event(), asyncio.Event()

    async def run(self, now: datetime, *, anew: bool = True) -> Done | None:  # noqa: ARG002 - it tells of any time
        """Note the run, and say what it took."""
        self.runs.append((time.monotonic(), anew))
        self.ran.set()
        if sum(with_anew for _, with_anew in self.runs) > 1:
            self.twice.set()
        return Done(1, 0, more=anew, anew_seconds=self.ANEW_SECONDS if anew else 0.0)


async def score_twice(database: Database, scorer: Laborious) -> None:
    """Let a worker score until it has scored anew twice."""
    worker = working(database, scorer=scorer)
    worker.start()
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            await scorer.twice.wait()
    finally:
        await worker.close()


def test_scoring_anew_without_end_leaves_most_of_the_time_to_others(database_url: str) -> None:
    """Whoever was scored anew for long is not scored again for three times as long; days that are over do not wait for it."""

    async def scenario(database: Database) -> None:
        scorer = Laborious(database)
        await score_twice(database, scorer)
        (first, _), *between, (second, _) = scorer.runs
        assert second - first >= 3 * scorer.ANEW_SECONDS
        assert between
        assert not any(anew for _, anew in between)

    play(database_url, scenario)


class Failing(Laborious):
    """Whoever is to be scored anew cannot be."""

    async def run(self, now: datetime, *, anew: bool = True) -> Done | None:
        """Fail, or have nothing to do."""
        await super().run(now, anew=anew)
        if anew:
            raise DatabaseUnavailableError("A page took too long.")
        return Done(0, 0, more=False)


def test_days_are_scored_though_scoring_anew_fails(database_url: str) -> None:
    """Where those fail who are scored anew, others have their turn before it is tried again."""

    async def scenario(database: Database) -> None:
        scorer = Failing(database)
        await score_twice(database, scorer)
        assert [True, False] == [anew for _, anew in scorer.runs[:2]]

    play(database_url, scenario)


PENDING: Final = """
INSERT INTO pending_bucket (account, bucket)
SELECT 'account ' || number, complete_at - interval '15 minutes' FROM rollup_horizon, generate_series(1, $1::int) AS number
"""
BEHIND_ROWS: Final = 5001


class Idle(Refresher):
    """It works nothing off, however far behind it is, and says that this took long."""

    def __init__(self, database: Database) -> None:
        super().__init__(database)
        # Of each run, whether it was to work off what came late.
        self.runs: asyncio.Queue[bool] = asyncio.Queue()

    async def run(self, now: datetime | None = None, *, late: bool = True) -> Refreshed | None:  # noqa: ARG002
        """Note the run, and say what it took."""
        self.runs.put_nowait(late)
        return Refreshed(NOW, 0, more=False, late_seconds=PATIENCE_SECONDS)


def test_what_came_late_waits_until_it_is_much(database_url: str) -> None:
    """Whoever worked off for long rests from it, but not where he is behind."""

    async def scenario(database: Database) -> None:
        await Refresher(database).run(NOW)
        refresher = Idle(database)
        worker = working(database, refresher)
        worker.start()
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                assert [True, False, False] == [await refresher.runs.get() for _ in range(3)]
                async with database.connection() as connection:
                    await connection.execute(PENDING, BEHIND_ROWS)
                while not await refresher.runs.get():
                    pass
        finally:
            await worker.close()

    play(database_url, scenario)


def test_whoever_is_behind_has_caught_up_when_nearly_nothing_is_pending(database_url: str) -> None:
    """The last of what is worked off may take the longest, so more than 5,000 entries begin it, and only 500 end it."""

    async def scenario(database: Database) -> None:
        refresher = Refresher(database)
        await refresher.run(NOW)

        async def is_behind(pending: int) -> bool:
            async with database.connection() as connection:
                await connection.execute("TRUNCATE pending_bucket")
                await connection.execute(PENDING, pending)
            return await refresher.is_behind()

        assert [await is_behind(rows) for rows in (5000, 5001, 501, 500, 5000)] == [False, True, True, False, False]

    play(database_url, scenario)


async def scored_while_behind(database: Database, expected: frozenset[str]) -> tuple[frozenset[str], Laborious]:
    """What ran where the refresher is behind, when these did and there were a few more runs; and who scored."""
    await Refresher(database).run(NOW)
    async with database.connection() as connection:
        await connection.execute(PENDING, BEHIND_ROWS)
    scorer = Laborious(database)
    worker = working(database, Idle(database), scorer=scorer)
    worker.start()
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            await noted(database, expected)
            for _ in range(10):
                scorer.ran.clear()
                await scorer.ran.wait()
            ran = await noted(database, expected)
    finally:
        await worker.close()
    return ran, scorer


def test_what_reads_what_is_pending_waits_until_it_is_rolled_up(database_url: str) -> None:
    """Where the refresher is behind nobody is scored anew and nothing converted; days that are over are scored."""

    async def scenario(database: Database) -> None:
        ran, scorer = await scored_while_behind(database, frozenset({"scoring", "retention"}))
        assert "columnstore" not in ran
        assert not any(anew for _, anew in scorer.runs)

    play(database_url, scenario)


def test_it_is_not_waited_for_without_end(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A refresher that stays behind keeps nobody from his score."""
    monkeypatch.setattr("metering.worker._BEHIND_SECONDS_MAX", 0.0)

    async def scenario(database: Database) -> None:
        _, scorer = await scored_while_behind(database, frozenset({"scoring", "columnstore"}))
        assert any(anew for _, anew in scorer.runs)

    play(database_url, scenario)


def test_it_ends_where_a_cancellation_is_lost(database_url: str) -> None:
    """A worker ends although the lead is lost, and a connection that breaks just then swallows what told its loop to stop."""

    async def scenario(database: Database) -> None:
        lead, refresher = Lead(database), Breaking(database)
        worker = working(database, refresher, lead)
        lead.ours.set()
        worker.start()
        await refresher.at_work.wait()
        lead.ours.clear()
        # A task of its own: a close that hangs would swallow the cancellation by which `play` ends a scenario.
        _, hanging = await asyncio.wait({asyncio.create_task(worker.close())}, timeout=PATIENCE_SECONDS / 2)
        assert not hanging

    play(database_url, scenario)
