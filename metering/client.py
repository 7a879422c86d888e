"""Send usage from a running program: `record` notes an event and returns at once, a thread of the client's own delivers it.

    with UsageClient("http://127.0.0.1:8000", key, source="api-gateway") as client:
        if not client.record(account="acme", user="ana", product="maps", unit="call"):
            ...  # the buffer is full: the service has been away for long

An event's id and time are made once, when it is recorded, and are the same in every try; so it is counted once, however
often a request has to be sent again. The client tries for as long as the program runs; it gives up at the end of
`close`, and what it gives up goes to `on_rejected`, like what the service refused. How to use it: docs/sending.md.
"""

import atexit
import logging
import os
import threading
import time
import uuid
import weakref
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from functools import cache
from itertools import count
from typing import Final, Self

import httpx2
import msgspec

from metering.delivery import (
    EVENTS_PATH,
    NotTaken,
    Receipt,
    answer_lost,
    answer_of,
    check_target,
    request_headers,
    wait_seconds,
)
from metering.events import Scalar, UsageEvent, in_utc

# A batch stays below what the service takes in one request, and below what proxies commonly let through.
BATCH_EVENTS_MAX: Final = 10_000
BATCH_BYTES_MAX: Final = 1_000_000
NOT_DELIVERED: Final = "not_delivered"
_REFUSALS_TOLD_EVERY_SECONDS: Final = 60.0

_LOG: Final = logging.getLogger(__name__)
_ENCODER: Final = msgspec.json.Encoder()


class Rejected(msgspec.Struct, frozen=True):
    """An event that is not recorded in the service as far as is known, and why.

    `code` is one of those in docs/ingest.md; `not_delivered` when the client was closed before the service had answered,
    `no_receipt` when something else than the service answered, or `http_` and a status.
    """

    event: UsageEvent
    code: str
    message: str
    # The field at fault, where it is one.
    path: str | None = None


class Stats(msgspec.Struct, frozen=True, kw_only=True):
    """Counts of events since the client was made; in a forked process, since the fork.

    recorded = accepted + duplicates + rejected + dropped + waiting, at every moment.
    """

    recorded: int = 0
    """`record` said True."""
    accepted: int = 0
    """The service recorded them."""
    duplicates: int = 0
    """The service had them already: an earlier answer was lost on the way."""
    rejected: int = 0
    """The service refused them, or the request that held them; `on_rejected` got them."""
    dropped: int = 0
    """Given up when the client was closed; `on_rejected` got them."""
    waiting: int = 0
    """In the buffer, or in a request that is not answered."""
    refused: int = 0
    """`record` said False; they are in none of the other counts."""


class _Waiting(msgspec.Struct, frozen=True):
    event: UsageEvent
    # What is sent, in every try.
    line: bytes
    # On the monotonic clock.
    since_seconds: float


def log_rejected(rejected: Rejected) -> None:
    """Log the event's id with the code and the message, as an error: what `on_rejected` does unless told otherwise."""
    _LOG.error("Usage event %s was not recorded: %s: %s", rejected.event.id, rejected.code, rejected.message)


class UsageClient:
    """Sends usage events in the background. Any thread and any coroutine may call `record`; it never waits for the network.

    `url` is the service's address, `key` has the scope USAGE_WRITE. A batch is sent when `batch_events` are waiting or
    the oldest has waited for `age_seconds_max`. `timeout_seconds` bounds each step of a request, `exit_seconds_max` what
    the end of the program may wait for the last events.

    `on_rejected` is called once for each event that was refused or given up, in the client's thread or in that of
    `close`; it may call `record`, but neither `flush` nor `close`.

    Raises SendError when `url` is no address or `key` no key, ValueError when the bounds do not fit together.
    """

    def __init__(
        self,
        url: str,
        key: str,
        *,
        source: str | None = None,
        batch_events: int = 500,
        age_seconds_max: float = 1.0,
        buffer_events_max: int = 10_000,
        timeout_seconds: float = 30.0,
        exit_seconds_max: float = 5.0,
        on_rejected: Callable[[Rejected], None] = log_rejected,
    ) -> None:
        check_target(url, key)
        if not 1 <= batch_events <= min(BATCH_EVENTS_MAX, buffer_events_max):
            raise ValueError(f"batch_events must be 1 to {BATCH_EVENTS_MAX:,}, and at most buffer_events_max.")
        self._url, self._key, self._source = url, key, source
        self._batch_events = batch_events
        self._age_seconds_max = age_seconds_max
        self._buffer_events_max = buffer_events_max
        self._timeout_seconds = timeout_seconds
        self._exit_seconds_max = exit_seconds_max
        self._on_rejected = on_rejected
        self._closing = False
        _import_everything()
        self._begin()
        _CLIENTS.add(self)
        atexit.register(self._at_exit)

    def _begin(self) -> None:
        """With nothing waiting and no thread: when it is made, and in the child of a fork.

        What was waiting at a fork is the parent's to send, the lock may be held by a thread that the child does not
        have, and the parent's connections are not the child's.
        """
        self._changed = threading.Condition()
        self._waiting: deque[_Waiting] = deque()
        self._counts: Counter[str] = Counter()
        # How many of the recorded events are done with, their callbacks included; and how many `flush` waits for.
        self._settled = 0
        self._flush_to = 0
        # How many events one request has: fewer than a batch where that was too large for the service, or for this key.
        self._request_events = self._batch_events
        self._abandoned = False
        # On the monotonic clock: when a refusal is next worth a line in the log.
        self._tell_after_seconds = 0.0
        self._thread: threading.Thread | None = None

    def record(
        self,
        *,
        account: str,
        product: str,
        unit: str,
        quantity: Decimal | int | str = 1,
        subscription: str | None = None,
        user: str | None = None,
        device: str | None = None,
        feature: str | None = None,
        classification: str | None = None,
        attributes: Mapping[str, Scalar] | None = None,
        id: str | None = None,
        occurred_at: datetime | None = None,
    ) -> bool:
        """Note one event; it is sent in the background. The fields are those of docs/ingest.md.

        True: it waits in the buffer. False: it was not taken, because the buffer is full or the client closed; the events
        before it are unharmed. The id is made up and the time is now, where they are not given.

        Raises TypeError for a quantity that is not exact (a float) or attributes that are not JSON, ValueError for a
        quantity that is no finite number or a time without offset. Everything else is for the service to judge.
        """
        at = datetime.now(UTC) if occurred_at is None else occurred_at
        if at.tzinfo is None:
            raise ValueError("occurred_at needs a time zone; without one it names no instant.")
        event = UsageEvent(
            id=str(uuid.uuid4()) if id is None else id,
            occurred_at=in_utc(at),
            account=account,
            product=product,
            unit=unit,
            source=self._source,
            subscription=subscription,
            user=user,
            device=device,
            feature=feature,
            classification=classification,
            quantity=_exact(quantity),
            attributes=None if attributes is None else dict(attributes),
        )
        return self._take(_Waiting(event, _line(event), time.monotonic()))

    def flush(self, timeout_seconds: float = 30.0) -> bool:
        """Send what is waiting now; True once the service has answered for every event recorded before the call.

        False when that takes longer than `timeout_seconds`; then the events go on waiting, and none is lost.
        It blocks: in a coroutine, `await asyncio.to_thread(client.flush)`.
        """
        self._refuse_own_thread()
        with self._changed:
            target = self._counts["recorded"]
            self._flush_to = max(self._flush_to, target)
            self._wake()
            is_settled = self._changed.wait_for(lambda: self._settled >= target, timeout_seconds)
            return is_settled and not self._counts["dropped"]

    def close(self, timeout_seconds: float = 10.0) -> bool:
        """Take no more events, and send those that wait; True when the service has answered for all of them.

        What is left after `timeout_seconds` goes to `on_rejected` with the code `not_delivered`, and the answer is False.
        It may be called again. It blocks, like `flush`.
        """
        self._refuse_own_thread()
        deadline = time.monotonic() + timeout_seconds
        with self._changed:
            self._closing = True
            self._wake()
            self._changed.wait_for(lambda: self._settled >= self._counts["recorded"], timeout_seconds)
            left = list(self._waiting)
            self._abandoned = True
            self._counts["dropped"] += len(left)
            self._waiting.clear()
            self._changed.notify_all()
            thread = self._thread
        message = "The client was closed before the service had answered; it may be sent again under the same id."
        self._hand_over([Rejected(each.event, NOT_DELIVERED, message) for each in left])
        self._settle(len(left))
        if thread is not None:
            thread.join(max(0.0, deadline - time.monotonic()))
        atexit.unregister(self._at_exit)
        return not left

    @property
    def stats(self) -> Stats:
        """The counts at this moment."""
        with self._changed:
            return Stats(**self._counts, waiting=len(self._waiting))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _at_exit(self) -> None:
        self.close(self._exit_seconds_max)

    def _refuse_own_thread(self) -> None:
        if threading.current_thread() is self._thread:
            raise RuntimeError("on_rejected runs in the thread that flush and close wait for; call them elsewhere.")

    # ---------------------------------------------------------------- the buffer; the lock is held for moments only

    def _take(self, entry: _Waiting) -> bool:
        with self._changed:
            reason = self._reason_to_refuse()
            if reason is None:
                self._waiting.append(entry)
                self._counts["recorded"] += 1
                # The thread sleeps until a batch is full or the first event is old enough; in between nothing changes.
                if len(self._waiting) in {1, self._request_events}:
                    self._changed.notify_all()
                return True
            self._counts["refused"] += 1
            refused = self._counts["refused"]
            is_time_to_tell = entry.since_seconds >= self._tell_after_seconds
            if is_time_to_tell:
                self._tell_after_seconds = entry.since_seconds + _REFUSALS_TOLD_EVERY_SECONDS
        if is_time_to_tell:
            _LOG.warning("Usage events are not taken, %s by now: %s", f"{refused:,}", reason)
        return False

    def _reason_to_refuse(self) -> str | None:
        if self._closing:
            return "the client is closed"
        if len(self._waiting) >= self._buffer_events_max:
            return f"{len(self._waiting):,} events are waiting already"
        return None if self._start() else "the program is ending"

    def _start(self) -> bool:
        """See to it that the thread runs; it begins with the first event, also after a fork."""
        if self._thread is not None and self._thread.is_alive():
            return True
        self._thread = threading.Thread(target=self._run, name="usage-client", daemon=True)
        try:
            self._thread.start()
        except RuntimeError:  # the interpreter starts no thread any more
            self._thread = None
        return self._thread is not None

    def _wake(self) -> None:
        if self._waiting:
            self._start()
        self._changed.notify_all()

    def _settle(self, events: int) -> None:
        with self._changed:
            self._settled += events
            self._changed.notify_all()

    # ---------------------------------------------------------------- the thread

    def _run(self) -> None:
        headers = request_headers(self._key)
        with httpx2.Client(base_url=self._url, headers=headers, timeout=self._timeout_seconds) as http:
            while batch := self._next_batch():
                self._deliver(http, batch)

    def _next_batch(self) -> list[_Waiting]:
        """The oldest events, once they are due. They stay in the buffer until they are answered; none: it is over."""
        with self._changed:
            while not self._abandoned:
                if not self._waiting:
                    if self._closing:
                        break
                    self._changed.wait()
                    continue
                seconds = self._seconds_until_due()
                if seconds <= 0:
                    return _first(self._waiting, self._request_events)
                self._changed.wait(seconds)
        return []

    def _seconds_until_due(self) -> float:
        is_full = len(self._waiting) >= self._request_events
        if is_full or self._closing or self._settled < self._flush_to:
            return 0.0
        return self._waiting[0].since_seconds + self._age_seconds_max - time.monotonic()

    def _deliver(self, http: httpx2.Client, batch: Sequence[_Waiting]) -> None:
        """Send the batch until there is an answer for it, or `close` has given it up; one too large is left to smaller ones."""
        body = b"\n".join(each.line for each in batch)
        for attempt in count():
            try:
                answer = answer_of(http.post(EVENTS_PATH, content=body), len(batch))
            except httpx2.RequestError as error:
                answer = answer_lost(error)
            if isinstance(answer, NotTaken) and answer.is_too_large and len(batch) > 1:
                self._send_fewer(len(batch) // 2)
                return
            if isinstance(answer, Receipt) or not answer.retryable:
                self._answered(batch, answer)
                return
            if attempt == 0:
                _LOG.warning("The service does not take usage events now, trying again: %s", answer.reason)
            self._pause(attempt, answer.retry_after_seconds)
            if self._abandoned:
                return

    def _send_fewer(self, events: int) -> None:
        with self._changed:
            self._request_events = events

    def _pause(self, attempt: int, retry_after_seconds: float) -> None:
        """Wait before the next try; a `close` that begins meanwhile has it at once, unless the service asked to wait."""
        with self._changed:
            was_closing = self._closing
            self._changed.wait_for(
                lambda: self._abandoned or (self._closing and not was_closing and not retry_after_seconds),
                wait_seconds(attempt, retry_after_seconds),
            )

    def _answered(self, batch: Sequence[_Waiting], answer: Receipt | NotTaken) -> None:
        if isinstance(answer, Receipt):
            rejected = [
                Rejected(batch[each.index].event, each.code, each.message, each.path) for each in answer.rejected
            ]
            accepted, duplicates = answer.accepted, answer.duplicates
        else:
            rejected = [Rejected(each.event, answer.code, answer.reason) for each in batch]
            accepted, duplicates = 0, 0
        with self._changed:
            if self._abandoned:
                return  # `close` has handed them over already
            self._counts.update(accepted=accepted, duplicates=duplicates, rejected=len(rejected))
            for _ in batch:
                self._waiting.popleft()
            # Whether fewer were needed for a limit that lasts, or for a few large events, is known only by trying more again.
            self._request_events = min(self._request_events + self._request_events // 10 + 1, self._batch_events)
        try:
            self._hand_over(rejected)
        finally:
            self._settle(len(batch))

    def _hand_over(self, rejected: Sequence[Rejected]) -> None:
        for each in rejected:
            try:
                self._on_rejected(each)
            except Exception:  # noqa: BLE001 - the program's own code: the other events have to be told of all the same
                _LOG.exception("on_rejected failed for usage event %s: %s: %s", each.event.id, each.code, each.message)


def _exact(quantity: Decimal | int | str) -> Decimal:
    if isinstance(quantity, bool) or not isinstance(quantity, Decimal | int | str):
        kind = type(quantity).__name__
        raise TypeError(f"quantity must be a Decimal, an int or a str; a {kind} is not exact: {quantity!r}.")
    try:
        exact = Decimal(quantity)
    except InvalidOperation as error:
        raise ValueError(f"quantity is not a decimal number: {quantity!r:.60}.") from error
    if not exact.is_finite():
        raise ValueError(f"quantity is not a finite number: {quantity!r:.60}.")
    return exact


def _line(event: UsageEvent) -> bytes:
    fields = {name: getattr(event, name) for name in event.__struct_fields__}
    return _ENCODER.encode({name: value for name, value in fields.items() if value is not None})


def _first(waiting: deque[_Waiting], events: int) -> list[_Waiting]:
    """So many of the oldest, as far as they fit one request; one at least, or a huge one would never leave."""
    batch: list[_Waiting] = []
    batch_bytes = 0
    for entry in waiting:
        batch_bytes += len(entry.line) + 1
        if len(batch) == events or (batch and batch_bytes > BATCH_BYTES_MAX):
            break
        batch.append(entry)
    return batch


# ---------------------------------------------------------------- forks

_CLIENTS: Final["weakref.WeakSet[UsageClient]"] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for client in list(_CLIENTS):
        client._begin()  # noqa: SLF001 - our own


@cache
def _import_everything() -> None:
    """Have imported what an HTTP client imports when it is first used.

    Else our thread would, and a fork in that moment would leave the child with modules that are locked for good.
    """
    httpx2.Client().close()
    "localhost".encode("idna")


if hasattr(os, "register_at_fork"):  # not on Windows, where nothing forks
    os.register_at_fork(after_in_child=_after_fork_in_child)
