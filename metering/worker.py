"""Background work: the refresher's loop. Every process runs it; one at a time works, by an advisory lock."""

import asyncio
from contextlib import suppress
from datetime import UTC, datetime

from metering.errors import DatabaseUnavailableError
from metering.rollups.refresh import Refresher
from metering.telemetry import logger


class Worker:
    """Runs the refresher again and again until it is closed."""

    def __init__(self, refresher: Refresher, every_seconds: float) -> None:
        self._refresher = refresher
        self._every_seconds = every_seconds
        self._closing = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

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
            more = await self._run()
            if not more:
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._closing.wait(), self._every_seconds)

    async def _run(self) -> bool:
        started_at = datetime.now(UTC)
        try:
            done = await self._refresher.run()
        except DatabaseUnavailableError as error:
            logger().warning("refresh_postponed", reason=str(error))
            return False
        except Exception as error:  # noqa: BLE001 - the loop outlives a run; the error is in the log, and reads stay exact
            logger().error("refresh_failed", exc_info=error)
            return False
        if done is not None and done.worked_off:
            seconds = (datetime.now(UTC) - started_at).total_seconds()
            logger().info(
                "refreshed", worked_off=done.worked_off, complete_at=done.complete_at.isoformat(), seconds=seconds
            )
        return done is not None and done.more
