"""Background work: rollups are kept fresh, customers scored, what is too old is dropped or forgotten, and room is made.

Of the processes that run it, the one that leads works (metering/lead.py); another one takes over when it ends. Doing any of it
twice does no harm, so it may be killed anywhere. How each loop fares is noted (metering/loops.py).
"""

import asyncio
import time
from collections.abc import Coroutine
from contextlib import suppress
from datetime import UTC, datetime
from enum import Enum, auto
from typing import Final

from metering.cancelling import cancel
from metering.health.scorer import Scorer
from metering.lead import Lead
from metering.limits import Limits
from metering.loops import LoopLog, traced_run
from metering.retention import Retention
from metering.rollups.refresh import Refresher
from metering.store.pool import Database
from metering.store.quarantine import forget_older
from metering.telemetry import logger

# So many connections it takes at most: two to roll up and to note how that went; five to score, with the lock of its turn, a
# snapshot and what is usual for each of two pages; two to keep data in order.
WORKER_CONNECTIONS: Final = 9
# Figures are exact whether it works or rests, so where there is much to do it leaves time to whoever writes and asks.
_REST_FACTOR: Final = 3
# Not for longer than this: the tail ages meanwhile, and questions read what it does not have from raw events.
_TAIL_REST_SECONDS_MAX: Final = 5.0
# Nor than this between pages of customers, all of whom are scored when a day is over.
_PAGE_REST_SECONDS_MAX: Final = 10.0
# What comes late again and again has its buckets rolled up again each time: that may wait longer, until it is much.
_LATE_REST_SECONDS_MAX: Final = 15.0
# And longest, whoever is to be scored anew: where events of all days and customers come late without end, that is everybody
# without end, and a score tells of days.
_ANEW_REST_SECONDS_MAX: Final = 120.0
# Where the refresher is behind, whoever is to be scored anew waits for it, and so does what goes back into the columnstore: both
# read and write what it is about to roll up. They wait so long at most.
_BEHIND_SECONDS_MAX: Final = 600.0
# What is dropped, made ahead and converted is counted in days.
_KEEPING_SECONDS: Final = 60
# Nothing is dropped while rollups are refreshed, which is often: whoever had no turn tries again so soon.
_NEXT_TURN_SECONDS: Final = 1


class Run(Enum):
    """What became of a run of a loop."""

    # Nothing is left to do now, or there is more to do at once.
    DONE = auto()
    MORE = auto()
    # Another one works just then, here or elsewhere, and nothing was done.
    NO_TURN = auto()
    FAILED = auto()


class Worker:
    """Does its work again and again until it is closed."""

    def __init__(
        self,
        refresher: Refresher,
        scorer: Scorer,
        retention: Retention,
        database: Database,
        limits: Limits,
        every_seconds: float,
        lead: Lead | None = None,
    ) -> None:
        self._refresher = refresher
        self._scorer = scorer
        self._retention = retention
        self._database = database
        self._limits = limits
        self._every_seconds = every_seconds
        # Who leads works; without it, whoever has a loop's own lock just then.
        self._lead = lead
        self._log = LoopLog(database, limits, lambda: datetime.now(UTC))
        self._closing = asyncio.Event()
        self._refreshed = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        # As it was told last.
        self._kept: dict[str, datetime] = {}
        self._late_after = self._anew_after = time.monotonic()
        # Since when the refresher is behind.
        self._behind_since: float | None = None

    def start(self) -> None:
        """Start the loops: what is kept in order may take long, and rollups do not wait for it."""
        self._tasks = [
            asyncio.create_task(self._loop(), name="refresher"),
            asyncio.create_task(self._score(), name="scorer"),
            asyncio.create_task(self._keep(), name="keeper"),
        ]

    async def close(self) -> None:
        """Stop. Work that is under way is given up: it is safe to stop anywhere, and the next one does it again."""
        self._closing.set()
        await cancel(self._tasks)

    async def _loop(self) -> None:
        while not self._closing.is_set():
            started = time.monotonic()
            refreshed = await self._guarded("refresh", self._refresh())
            self._refreshed.set()
            await self._guarded("forgetting", self._forget())
            if refreshed is not Run.MORE:
                rest_seconds = min(_REST_FACTOR * (time.monotonic() - started), _TAIL_REST_SECONDS_MAX)
                await self._rest(max(self._every_seconds, rest_seconds))

    async def _refresh(self) -> Run:
        """Roll up."""
        started_at = datetime.now(UTC)
        late = time.monotonic() >= self._late_after or await self._refresher.is_behind()
        done = await self._refresher.run(late=late)
        if done is None:
            return Run.NO_TURN
        if not done.more:
            rest_seconds = min(_REST_FACTOR * done.late_seconds, _LATE_REST_SECONDS_MAX)
            self._late_after = max(self._late_after, time.monotonic() + rest_seconds)
        if done.worked_off:
            seconds = (datetime.now(UTC) - started_at).total_seconds()
            logger().info(
                "refreshed", worked_off=done.worked_off, complete_at=done.complete_at.isoformat(), seconds=seconds
            )
        return Run.MORE if done.more else Run.DONE

    async def _forget(self) -> Run:
        """Forget rejected events that are too old."""
        before = datetime.now(UTC) - self._limits.rejected_age_max
        forgotten = await forget_older(self._database, before)
        if forgotten:
            logger().info("rejected_events_forgotten", events=forgotten, before=before.isoformat())
        return Run.DONE

    async def _score(self) -> None:
        # Days are scored when they are rolled up, so one refresh comes first.
        await self._refreshed.wait()
        anew_failed = False
        while not self._closing.is_set():
            started = time.monotonic()
            # Days that are over have their turn, should it be those who are scored anew that fail.
            anew = started >= self._anew_after and not anew_failed
            scored = await self._guarded("scoring", self._score_page(anew=anew))
            anew_failed = anew and scored is Run.FAILED
            # Also between pages: whoever asks and whoever writes come first.
            seconds = time.monotonic() - started
            if anew_failed:
                self._rest_from_scoring_anew(seconds)
            rest_seconds = min(_REST_FACTOR * seconds, _PAGE_REST_SECONDS_MAX)
            await self._rest(rest_seconds if scored is Run.MORE else max(self._every_seconds, rest_seconds))

    async def _score_page(self, *, anew: bool) -> Run:
        """Score some customers."""
        started = time.monotonic()
        done = await self._scorer.run(datetime.now(UTC), anew=anew and not await self._is_waited_for())
        if done is None:
            return Run.NO_TURN
        self._rest_from_scoring_anew(done.anew_seconds)
        if done.accounts:
            seconds = round(time.monotonic() - started, 3)
            logger().info("scored", accounts=done.accounts, scores=done.scores, seconds=seconds)
        return Run.MORE if done.more else Run.DONE

    def _rest_from_scoring_anew(self, seconds: float) -> None:
        rest_seconds = min(_REST_FACTOR * seconds, _ANEW_REST_SECONDS_MAX)
        self._anew_after = max(self._anew_after, time.monotonic() + rest_seconds)

    async def _keep(self) -> None:
        # Nothing is given up that is not rolled up, so one refresh comes first.
        await self._refreshed.wait()
        while not self._closing.is_set():
            await self._guarded("make_ahead", self._make_ahead())
            dropped = await self._guarded("retention", self._drop())
            await self._guarded("columnstore", self._convert())
            again_at = time.monotonic() + _KEEPING_SECONDS
            while dropped is Run.NO_TURN and time.monotonic() < again_at and not self._closing.is_set():
                await self._rest(_NEXT_TURN_SECONDS)
                dropped = await self._guarded("retention", self._drop())
            await self._rest(max(again_at - time.monotonic(), 0))

    async def _is_waited_for(self) -> bool:
        """Whether the refresher is behind, and not for too long already."""
        if not await self._refresher.is_behind():
            self._behind_since = None
            return False
        now = time.monotonic()
        if self._behind_since is None:
            self._behind_since = now
        return now < self._behind_since + _BEHIND_SECONDS_MAX

    async def _rest(self, seconds: float) -> None:
        """Let so many seconds go by; none when it is to be closed."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._closing.wait(), seconds)

    async def _guarded(self, name: str, work: Coroutine[None, None, Run]) -> Run:
        """What became of the work, once this process leads. It is noted by the name of its loop, unless there was no turn."""
        try:
            if self._lead is not None:
                await self._lead.ours.wait()
            started_at = datetime.now(UTC)
            try:
                with traced_run(name):
                    ended = await work
                if ended is not Run.NO_TURN:
                    await self._log.ran(name, started_at)
            except Exception as error:  # noqa: BLE001 - the loops outlive it, reads stay exact, and the next run does it again
                await self._log.failed(name, started_at, error)
                return Run.FAILED
            return ended
        finally:
            # Where it was not begun.
            work.close()

    async def _make_ahead(self) -> Run:
        await self._retention.make_ahead(datetime.now(UTC))
        return Run.DONE

    async def _drop(self) -> Run:
        started = time.monotonic()
        kept = await self._retention.run(datetime.now(UTC))
        if kept is None:
            return Run.NO_TURN
        if kept.bounds != self._kept:
            self._kept = kept.bounds
            seconds = round(time.monotonic() - started, 3)
            logger().info("retained", **{name: at.isoformat() for name, at in kept.bounds.items()}, seconds=seconds)
        return Run.DONE

    async def _convert(self) -> Run:
        if await self._is_waited_for():
            return Run.NO_TURN
        started = time.monotonic()
        chunks = await self._retention.convert(datetime.now(UTC))
        if chunks:
            logger().info("converted_to_columns", chunks=chunks, seconds=round(time.monotonic() - started, 3))
        return Run.NO_TURN if chunks is None else Run.DONE
