"""Background work: rollups are kept fresh, and rejected events that are too old forgotten.

Every process runs it. One refresher at a time works, by an advisory lock; forgetting twice does no harm.
"""

import asyncio
import time
from contextlib import suppress
from datetime import UTC, datetime
from typing import Final

from metering.errors import DatabaseUnavailableError
from metering.limits import Limits
from metering.rollups.refresh import Refresher
from metering.store.pool import Database
from metering.store.quarantine import forget_older
from metering.telemetry import logger

# Figures are exact whether it works or rests, so where there is much to do it leaves most of the time to the writers.
_REST_FACTOR: Final = 3
# Not for longer than this: the tail ages meanwhile, and questions read what it does not have from raw events.
_REST_SECONDS_MAX: Final = 10.0
# What comes late again and again has its buckets rolled up again each time: that may wait longer.
_LATE_REST_SECONDS_MAX: Final = 30.0


class Worker:
    """Does its work again and again until it is closed."""

    def __init__(self, refresher: Refresher, database: Database, limits: Limits, every_seconds: float) -> None:
        self._refresher = refresher
        self._database = database
        self._limits = limits
        self._every_seconds = every_seconds
        self._closing = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._late_after = time.monotonic()

    def start(self) -> None:
        """Start the loop."""
        self._task = asyncio.create_task(self._loop(), name="refresher")

    async def close(self) -> None:
        """Stop. A refresh at work is given up: it is safe to stop anywhere, and the next one does it again."""
        self._closing.set()
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    async def _loop(self) -> None:
        while not self._closing.is_set():
            started = time.monotonic()
            more = await self._run()
            await self._forget()
            if not more:
                rest_seconds = min(_REST_FACTOR * (time.monotonic() - started), _REST_SECONDS_MAX)
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._closing.wait(), max(self._every_seconds, rest_seconds))

    async def _run(self) -> bool:
        started_at = datetime.now(UTC)
        try:
            done = await self._refresher.run(late=time.monotonic() >= self._late_after)
        except DatabaseUnavailableError as error:
            logger().warning("refresh_postponed", reason=str(error))
            return False
        except Exception as error:  # noqa: BLE001 - the loop outlives a run; the error is in the log, and reads stay exact
            logger().error("refresh_failed", exc_info=error)
            return False
        if done is not None and not done.more:
            rest_seconds = min(_REST_FACTOR * done.late_seconds, _LATE_REST_SECONDS_MAX)
            self._late_after = max(self._late_after, time.monotonic() + rest_seconds)
        if done is not None and done.worked_off:
            seconds = (datetime.now(UTC) - started_at).total_seconds()
            logger().info(
                "refreshed", worked_off=done.worked_off, complete_at=done.complete_at.isoformat(), seconds=seconds
            )
        return done is not None and done.more

    async def _forget(self) -> None:
        """Forget rejected events that are too old."""
        before = datetime.now(UTC) - self._limits.rejected_age_max
        try:
            forgotten = await forget_older(self._database, before)
        except DatabaseUnavailableError as error:
            logger().warning("forgetting_postponed", reason=str(error))
        except Exception as error:  # noqa: BLE001 - as above: what is too old now is so at the next run
            logger().error("forgetting_failed", exc_info=error)
        else:
            if forgotten:
                logger().info("rejected_events_forgotten", events=forgotten, before=before.isoformat())
