"""Send many events to a service: batches side by side, retries while it is busy or away, a report at the end.

Any batch may be sent again: events carry their own identity, so what was counted is answered as a duplicate.
"""

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Final

import httpx2
import msgspec

from metering.errors import MeteringError
from metering.ingest.receipts import Receipt

BATCH_EVENTS: Final = 1_000
_BATCHES_AT_ONCE: Final = 4
_TRIES_MAX: Final = 40
_WAIT_SECONDS_MAX: Final = 5.0
_TIMEOUT_SECONDS: Final = 60.0
_REJECTIONS_SHOWN_MAX: Final = 20
_PORT_MAX: Final = 65_535
_BUSY: Final = frozenset({429, 502, 503, 504})

_RECEIPT: Final = msgspec.json.Decoder(Receipt)

# A line of NDJSON, and the number by which a person finds it in what was sent.
NumberedLine = tuple[int, bytes]


class SendError(MeteringError):
    """The service refused the request as a whole, or stayed away for too long."""

    code = "send"


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
    _check(url, key)
    sent = Sent()
    batches = _batches(iter(lines))
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/x-ndjson"}
    async with httpx2.AsyncClient(base_url=url, headers=headers, timeout=_TIMEOUT_SECONDS) as client:
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


def _check(url: str, key: str) -> None:
    """Raise SendError for what no number of tries would send."""
    try:
        parsed = httpx2.URL(url)
    except httpx2.InvalidURL as error:
        raise SendError(f"{url!r} is not the address of a service: {error}.") from error
    if parsed.scheme not in {"http", "https"} or not parsed.host or (parsed.port or 0) > _PORT_MAX:
        raise SendError(f"{url!r} is not the address of a service, such as http://127.0.0.1:8000.")
    if not key.isascii() or not key.isprintable():
        raise SendError("The key has characters that no key has; was more than the key copied?")


async def _work(
    client: httpx2.AsyncClient,
    batches: Iterator[list[NumberedLine]],
    sent: Sent,
    on_batch: Callable[[int], None],
    on_wait: Callable[[str], None],
) -> None:
    for batch in batches:
        receipt = await _send(client, b"\n".join(line for _, line in batch), on_wait)
        sent.accepted += receipt.accepted
        sent.duplicates += receipt.duplicates
        sent.rejected += len(receipt.rejected)
        for rejection in receipt.rejected:
            sent.by_code[rejection.code.value] += 1
            if len(sent.examples) < _REJECTIONS_SHOWN_MAX:
                line = batch[rejection.index][0]
                sent.examples.append(Refused(line, rejection.code.value, rejection.path, rejection.message))
        on_batch(len(batch))


async def _send(client: httpx2.AsyncClient, body: bytes, on_wait: Callable[[str], None]) -> Receipt:
    reason = ""
    for attempt in range(_TRIES_MAX):
        try:
            response = await client.post("/v1/events", content=body)
        except httpx2.TransportError as error:
            reason = f"{type(error).__name__}: {error}"
        else:
            if response.status_code == httpx2.codes.OK:
                return _RECEIPT.decode(response.content)
            reason = f"{response.status_code} {response.text[:500]}"
            if response.status_code not in _BUSY:
                raise SendError(f"The service refused the request: {reason}")
        if attempt == 0:
            on_wait(reason)
        await asyncio.sleep(_wait_seconds(attempt))
    raise SendError(
        f"The service at {client.base_url} did not take the events in {_TRIES_MAX} tries. The last answer: {reason}"
    )


def _wait_seconds(attempt: int) -> float:
    """Longer with each attempt, and never in step with other senders."""
    longest = min(_WAIT_SECONDS_MAX, 0.1 * 2.0**attempt)
    return random.uniform(longest / 2, longest)  # noqa: S311 - a pause, not a secret


def _batches(lines: Iterator[NumberedLine]) -> Iterator[list[NumberedLine]]:
    while batch := list(islice(lines, BATCH_EVENTS)):
        yield batch
