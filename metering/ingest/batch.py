"""The bounded queue between requests and writers: what arrives while a writer is busy shares its next transaction.

A full queue is an answer (WriterFullError, which the endpoint turns into 503 with Retry-After), never a growing heap.
"""

import asyncio
from collections import deque

import msgspec

from metering.errors import DatabaseUnavailableError, WriterFullError
from metering.ingest.receipts import Receipt
from metering.ingest.write import Submission, write_batch
from metering.limits import Limits
from metering.store.event_log import EventLog
from metering.telemetry import logger


class _Waiting(msgspec.Struct, frozen=True):
    submission: Submission
    receipt: "asyncio.Future[Receipt]"


class Writer:
    """Takes submissions and answers each once it is durable."""

    def __init__(self, log: EventLog, limits: Limits) -> None:
        self._log = log
        self._limits = limits
        self._queue: deque[_Waiting] = deque()
        self._events_waiting = 0
        self._wake = asyncio.Condition()
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
        async with self._wake:
            self._closing = True
            self._wake.notify_all()
        if not self._tasks:
            return
        _, late = await asyncio.wait(self._tasks, timeout=self._limits.shutdown_seconds_max)
        for task in late:
            task.cancel()
        _fail(list(self._queue), DatabaseUnavailableError("The database did not answer before the service stopped."))

    async def submit(self, submission: Submission) -> Receipt:
        """Wait until the submission is written, and return its receipt.

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
        if self._events_waiting and self._events_waiting + size > self._limits.queue_events_max:
            raise WriterFullError(
                f"{self._events_waiting:,} events are waiting to be written; send these again in a moment."
            )
        waiting = _Waiting(submission, asyncio.get_running_loop().create_future())
        self._events_waiting += size
        async with self._wake:
            self._queue.append(waiting)
            self._wake.notify()
        try:
            async with asyncio.timeout(self._limits.write_seconds_max):
                return await waiting.receipt
        except TimeoutError:
            # A write that hangs is not given up with it: it may still be committed, and what is sent again is a duplicate.
            message = f"The events were not written within {self._limits.write_seconds_max} s; send them again."
            raise DatabaseUnavailableError(message) from None

    async def _drain(self) -> None:
        while True:
            async with self._wake:
                await self._wake.wait_for(lambda: self._queue or self._closing)
                if not self._queue:
                    return
                batch = self._take()
            try:
                # Nobody waits any more for what has waited too long.
                await self._write([waiting for waiting in batch if not waiting.receipt.done()])
            finally:
                self._events_waiting -= sum(waiting.submission.size for waiting in batch)

    def _take(self) -> list[_Waiting]:
        """Whole submissions, in order, up to a batch's size; always at least one."""
        batch = [self._queue.popleft()]
        size = batch[0].submission.size
        while self._queue:
            size += self._queue[0].submission.size
            if size > self._limits.batch_events_max:
                break
            batch.append(self._queue.popleft())
        return batch

    async def _write(self, batch: list[_Waiting]) -> None:
        if not batch:
            return
        try:
            submissions = [waiting.submission for waiting in batch]
            receipts = await write_batch(self._log, submissions, self._limits, look_first=self._look_first)
        except DatabaseUnavailableError as error:
            _fail(batch, error)
        except Exception as error:  # noqa: BLE001 - a writer outlives whatever one batch did; the request gets the error
            # One request may hold what PostgreSQL refuses and admission did not foresee: it must not cost the others.
            if len(batch) == 1:
                logger().error("batch_failed", exc_info=error)
                _fail(batch, error)
            else:
                for waiting in batch:
                    await self._write([waiting])
        else:
            # Who sends duplicates sends more of them.
            self._look_first = any(receipt.duplicates for receipt in receipts)
            for waiting, receipt in zip(batch, receipts, strict=True):
                if not waiting.receipt.done():
                    waiting.receipt.set_result(receipt)


def _fail(batch: list[_Waiting], error: Exception) -> None:
    for waiting in batch:
        # Done already where the client went away; its events may be in or not, and sending them again is safe.
        if not waiting.receipt.done():
            waiting.receipt.set_exception(error)
