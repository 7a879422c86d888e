"""Background work goes on, whatever becomes of one run of it."""

import asyncio
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

import pytest
import structlog
from structlog.testing import capture_logs

from metering.config import Settings
from metering.health.measuring import Measurer
from metering.health.scorer import Scorer
from metering.limits import LIMITS
from metering.retention import Retention, ages_of
from metering.rollups.refresh import Refresher
from metering.telemetry import configure_logs
from metering.worker import Worker
from tests.metering.test_exactness import PATIENCE_SECONDS, connect

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
