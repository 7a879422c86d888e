"""The bounded queue between requests and writers: what arrives while a writer is busy shares its next transaction.

A full queue is an answer (WriterFullError, which the endpoint turns into 503 with Retry-After), never a growing heap.
Senders are served in turns, and when the queue is full it is the one with most in it who is refused (queue.py).
"""

import asyncio
import time
from contextlib import AbstractContextManager

import msgspec

from metering.cancelling import cancel
from metering.errors import DatabaseUnavailableError, WriterFullError
from metering.ingest.queue import FairQueue
from metering.ingest.receipts import Receipt
from metering.ingest.write import Submission, in_runs, write_batch
from metering.limits import Limits
from metering.metrics import COMMIT_SECONDS, UNWRITTEN, Counters
from metering.spans import Span, part, together
from metering.store.event_log import EventLog, ScatteredError
from metering.telemetry import logger


class _Waiting(msgspec.Struct, frozen=True):
    submission: Submission
    receipt: "asyncio.Future[Receipt]"
    # Of whoever waits, where that is traced.
    span: Span | None


class Writer:
    """Takes submissions and answers each once it is durable."""

    def __init__(self, log: EventLog, limits: Limits, counters: Counters | None = None) -> None:
        self._log = log
        self._limits = limits
        self._counters = counters or Counters()
        self._queue: FairQueue[_Waiting] = FairQueue()
        self._events_being_written = 0
        self._arrived = asyncio.Event()
        self._closing = False
        self._look_first = False
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Start the writers."""
        self._tasks = [
            asyncio.create_task(self._drain(), name=f"writer-{index}") for index in range(self._limits.writers)
        ]

    async def close(self) -> None:
        """Write what is waiting, then stop. New submissions are refused from now on."""
        self._closing = True
        self._arrived.set()
        if not self._tasks:
            return
        _, late = await asyncio.wait(self._tasks, timeout=self._limits.closing_seconds_max)
        _fail(
            self._queue.take_all(), DatabaseUnavailableError("The database did not answer before the service stopped.")
        )
        await cancel(late)

    @property
    def events(self) -> int:
        """How many events wait to be written, or are being written."""
        return self._queue.size + self._events_being_written

    def check_room(self, sender: str, events: int) -> None:
        """Raise WriterFullError when so many events of this sender would not be taken now."""
        if events and not self._queue.would_take(sender, events, self._room(events)):
            raise self._full(sender)

    async def submit(self, submission: Submission, sender: str = "") -> Receipt:
        """Wait until the submission is written, and return its receipt; what one sender has waiting waits in one line.

        Raises WriterFullError when too much is waiting, DatabaseUnavailableError when it could not be written, or not in
        time; in all cases it may be sent again.
        """
        if submission.atomic and submission.rejected:
            # Refused already: of the rest nothing is looked at further.
            submission = msgspec.structs.replace(submission, admitted=())
        size = submission.size
        if not size:
            return Receipt(0, 0, ())
        if self._closing:
            raise WriterFullError("The service is stopping.")
        with part("write events", {"metering.events": size}) as span:
            return await self._written(_Waiting(submission, asyncio.get_running_loop().create_future(), span), sender)

    async def _written(self, waiting: _Waiting, sender: str) -> Receipt:
        size = waiting.submission.size
        sent_away = self._queue.put(sender, waiting, size, self._room(size))
        if sent_away is None:
            raise self._full(sender)
        _fail(
            sent_away, WriterFullError("Others wait too, and these had the most to write; send them again in a moment.")
        )
        self._arrived.set()
        timer = asyncio.get_running_loop().call_later(self._limits.write_seconds_max, self._give_up, waiting)
        try:
            return await waiting.receipt
        finally:
            timer.cancel()

    def _give_up(self, waiting: _Waiting) -> None:
        """Answer who has waited too long. The write goes on: it may yet be committed, and what comes again is a duplicate."""
        message = f"The events were not written within {self._limits.write_seconds_max} s; send them again."
        _fail([waiting], DatabaseUnavailableError(message))

    def _room(self, size: int) -> int:
        """How many events may wait, besides those being written; what comes alone is taken whatever its size."""
        if not self._queue and not self._events_being_written:
            return size
        return self._limits.queue_events_max - self._events_being_written

    def _full(self, sender: str) -> WriterFullError:
        return WriterFullError(
            f"{self.events:,} events are waiting to be written, {self._queue.held(sender):,} of them of this key; "
            "send these again in a moment."
        )

    async def _drain(self) -> None:
        while await self._something_to_write():
            batch = self._queue.take(self._limits.batch_events_max)
            size = sum(waiting.submission.size for waiting in batch)
            self._events_being_written += size
            try:
                # Nobody waits any more for what has waited too long.
                await self._write([waiting for waiting in batch if not waiting.receipt.done()])
            finally:
                self._events_being_written -= size

    async def _something_to_write(self) -> bool:
        """Wait until there is something to write; False when nothing will come any more."""
        while not (self._queue or self._closing):
            self._arrived.clear()
            await self._arrived.wait()
        return bool(self._queue)

    async def _write(self, batch: list[_Waiting]) -> None:
        if not batch:
            return
        started = time.perf_counter()
        try:
            submissions = [waiting.submission for waiting in batch]
            with _traced(batch):
                receipts = await write_batch(self._log, submissions, self._limits, look_first=self._look_first)
        except DatabaseUnavailableError as error:
            self._counters.count(UNWRITTEN)
            _fail(batch, error)
        except ScatteredError:
            for fewer in in_runs(batch, lambda waiting: waiting.submission.weeks, self._limits.batch_weeks_max):
                await self._write(fewer)
        except Exception as error:  # noqa: BLE001 - a writer outlives whatever one batch did; the request gets the error
            # One request may hold what PostgreSQL refuses and admission did not foresee: it must not cost the others.
            if len(batch) == 1:
                self._counters.count(UNWRITTEN)
                logger().error("batch_failed", exc_info=error)
                _fail(batch, error)
            else:
                for waiting in batch:
                    await self._write([waiting])
        else:
            self._counters.observe(COMMIT_SECONDS, time.perf_counter() - started)
            # Who sends duplicates sends more of them.
            self._look_first = any(receipt.duplicates for receipt in receipts)
            _answer(batch, receipts)


def _answer(batch: list[_Waiting], receipts: list[Receipt]) -> None:
    for waiting, receipt in zip(batch, receipts, strict=True):
        if not waiting.receipt.done():
            waiting.receipt.set_result(receipt)


def _traced(batch: list[_Waiting]) -> AbstractContextManager[Span | None]:
    """One transaction of many requests: a part of the first, to which the others link."""
    spans = [waiting.span for waiting in batch if waiting.span is not None]
    return together("write batch", spans, {"metering.requests": len(batch)})


def _fail(batch: list[_Waiting], error: Exception) -> None:
    for waiting in batch:
        # Done already where the client went away; its events may be in or not, and sending them again is safe.
        if not waiting.receipt.done():
            waiting.receipt.set_exception(error)
