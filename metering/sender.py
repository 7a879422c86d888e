"""Send many events to a service: batches side by side, retries while it is busy or away, a report at the end.

Any batch may be sent again: events carry their own identity, so what was counted is answered as a duplicate.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Final

import httpx2
import msgspec

from metering.delivery import (
    EVENTS_PATH,
    Receipt,
    SendError,
    answer_lost,
    answer_of,
    check_target,
    request_headers,
    wait_seconds,
)

BATCH_EVENTS: Final = 1_000
_BATCHES_AT_ONCE: Final = 4
_TRIES_MAX: Final = 40
_TIMEOUT_SECONDS: Final = 60.0
_REJECTIONS_SHOWN_MAX: Final = 20

# A line of NDJSON, and the number by which a person finds it in what was sent.
NumberedLine = tuple[int, bytes]


class Refused(msgspec.Struct, frozen=True):
    """One event that the service refused."""

    line: int
    code: str
    path: str | None
    message: str


class Sent(msgspec.Struct):
    """What became of all events."""

    accepted: int = 0
    duplicates: int = 0
    rejected: int = 0
    by_code: Counter[str] = msgspec.field(default_factory=Counter)
    # The first ones; there may be millions.
    examples: list[Refused] = msgspec.field(default_factory=list)


async def send_events(
    lines: Iterable[NumberedLine],
    url: str,
    key: str,
    on_batch: Callable[[int], None] = lambda _count: None,
    on_wait: Callable[[str], None] = lambda _reason: None,
) -> Sent:
    """Send every line to `url` (the service's base address) and add up the receipts.

    `on_batch` hears of each batch's size, `on_wait` of the reason when a batch has to be sent again.
    Raises SendError when the service refuses a whole request, or stays away.
    """
    check_target(url, key)
    sent = Sent()
    batches = _batches(iter(lines))
    async with httpx2.AsyncClient(base_url=url, headers=request_headers(key), timeout=_TIMEOUT_SECONDS) as client:
        # The workers share one iterator: each takes the next batch when its last one is answered.
        workers = [
            asyncio.create_task(_work(client, batches, sent, on_batch, on_wait)) for _ in range(_BATCHES_AT_ONCE)
        ]
        try:
            await asyncio.gather(*workers)
        finally:
            for worker in workers:
                worker.cancel()
    return sent


async def _work(
    client: httpx2.AsyncClient,
    batches: Iterator[list[NumberedLine]],
    sent: Sent,
    on_batch: Callable[[int], None],
    on_wait: Callable[[str], None],
) -> None:
    for batch in batches:
        receipt = await _send(client, batch, on_wait)
        sent.accepted += receipt.accepted
        sent.duplicates += receipt.duplicates
        sent.rejected += len(receipt.rejected)
        for rejection in receipt.rejected:
            sent.by_code[rejection.code] += 1
            if len(sent.examples) < _REJECTIONS_SHOWN_MAX:
                line = batch[rejection.index][0]
                sent.examples.append(Refused(line, rejection.code, rejection.path, rejection.message))
        on_batch(len(batch))


async def _send(client: httpx2.AsyncClient, batch: list[NumberedLine], on_wait: Callable[[str], None]) -> Receipt:
    body = b"\n".join(line for _, line in batch)
    reason = ""
    for attempt in range(_TRIES_MAX):
        try:
            answer = answer_of(await client.post(EVENTS_PATH, content=body), len(batch))
        except httpx2.TransportError as error:
            answer = answer_lost(error)
        if isinstance(answer, Receipt):
            return answer
        reason = answer.reason
        if not answer.retryable:
            raise SendError(f"The service refused the request: {reason}")
        if attempt == 0:
            on_wait(reason)
        await asyncio.sleep(wait_seconds(attempt, answer.retry_after_seconds))
    raise SendError(
        f"The service at {client.base_url} did not take the events in {_TRIES_MAX} tries. The last answer: {reason}"
    )


def _batches(lines: Iterator[NumberedLine]) -> Iterator[list[NumberedLine]]:
    while batch := list(islice(lines, BATCH_EVENTS)):
        yield batch
