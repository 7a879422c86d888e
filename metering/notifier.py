"""Background work of alerts and notifications: rules are evaluated, and what is in the outbox is sent.

It has connections of its own, so that questions do not wait for a slow receiver. One process at a time evaluates, and one sends,
each by an advisory lock; another one takes over when that one's session ends. How each loop fares is noted (metering/loops.py),
and shown by the check `notifications`.
"""

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Final

from metering.alerts.evaluate import Evaluator
from metering.cancelling import cancel
from metering.lead import Lead
from metering.limits import Limits
from metering.loops import LoopLog, traced_run
from metering.outbox.dispatch import Dispatcher, forget_older
from metering.store.pool import Database
from metering.telemetry import logger

# So many connections it takes at most: to send, to evaluate, and for the snapshot that is evaluated.
NOTIFIER_CONNECTIONS: Final = 3
# Who does not send looks so often whether nobody does any more.
_STANDBY_SECONDS: Final = 1.0
_FORGETTING_EVERY: Final = timedelta(hours=1)
# A run that took longer than it should be until the next one is followed by others' work at least for a moment.
_PAUSE_SECONDS: Final = 0.05
_NEVER: Final = datetime.min.replace(tzinfo=UTC)


def utc_now() -> datetime:
    """What time it is."""
    return datetime.now(UTC)


class Notifier:
    """Does its work again and again until it is closed."""

    def __init__(
        self,
        dispatcher: Dispatcher,
        evaluator: Evaluator,
        database: Database,
        limits: Limits,
        every_seconds: float,
        clock: Callable[[], datetime] = utc_now,
        lead: Lead | None = None,
    ) -> None:
        self._dispatcher = dispatcher
        self._evaluator = evaluator
        self._database = database
        self._limits = limits
        self._every_seconds = every_seconds
        self._clock = clock
        # Who leads evaluates; without it whoever has the evaluator's lock just then.
        self._lead = lead
        self._log = LoopLog(database, limits, clock)
        self._woken = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Start the loops."""
        self._tasks = [
            asyncio.create_task(self._deliver(), name="deliveries"),
            asyncio.create_task(self._evaluate(), name="alerts"),
        ]

    async def close(self) -> None:
        """Stop. What is under way is given up: it is pending still, and sent again."""
        await cancel(self._tasks)

    async def _deliver(self) -> None:
        while True:
            started_at = self._clock()
            try:
                # It stays there as long as it is the one who sends.
                await self._dispatcher.run(self._woken, self._every_seconds)
            except Exception as error:  # noqa: BLE001 - the loop outlives it, and what was not noted is pending still
                await self._log.failed("deliveries", started_at, error)
            await asyncio.sleep(max(self._every_seconds, _STANDBY_SECONDS))

    async def _evaluate(self) -> None:
        forgot_at = _NEVER
        while True:
            if self._lead is not None:
                await self._lead.ours.wait()
            started, started_at = time.monotonic(), self._clock()
            try:
                with traced_run("alerts"):
                    changes = await self._evaluator.run(published=self._woken.set)
                now = self._clock()
                if changes is not None and now >= forgot_at + _FORGETTING_EVERY:
                    await self._forget(now)
                    forgot_at = now
                if changes is not None:
                    await self._log.ran("alerts", started_at)
            except Exception as error:  # noqa: BLE001 - the loop outlives it, and the next run sees the same figures
                await self._log.failed("alerts", started_at, error)
            # What takes long rests by itself.
            await asyncio.sleep(max(self._every_seconds - (time.monotonic() - started), _PAUSE_SECONDS))

    async def _forget(self, now: datetime) -> None:
        """Forget what was told long ago."""
        forgotten = await forget_older(
            self._database,
            now - timedelta(days=self._limits.notification_days_max),
            now - timedelta(days=self._limits.alert_days_max),
        )
        if forgotten:
            logger().info("notifications_forgotten", count=forgotten)
