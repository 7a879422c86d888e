"""Send many signals to a service: a batch at a time, what is refused told by its line, retries while the service is away.

Any batch may be sent again: signals are known by source and external id, or by all that they say.
"""

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final

import httpx2
import msgspec

from metering.delivery import SendError, answer_lost, check_target, is_busy, wait_seconds

# A document of a service takes a megabyte, and a thousand signals.
_BATCH_SIGNALS: Final = 1_000
_BATCH_BYTES: Final = 500_000
_TRIES_MAX: Final = 40
_TIMEOUT_SECONDS: Final = 60.0
_REASON_CHARS_MAX: Final = 500
_PATH: Final = "/graphql"
# Where in the document's input an issue is: which signal, and which of its fields.
_PLACE: Final = 1
_DOCUMENT: Final = """
mutation ($input: [SignalInput!]!) {
  recordSignals(input: $input) {
    ... on RecordSignalsSuccess { accepted duplicates }
    ... on InvalidInput { issues { path message } }
  }
}
"""

# A signal as the service takes it, and the number by which a person finds it in what was sent.
NumberedSignal = tuple[int, Mapping[str, Any]]


class SignalFault(msgspec.Struct, frozen=True):
    """What is wrong with one field of a signal; `field` is None where it is the signal as a whole."""

    line: int
    field: str | None
    message: str


class SignalsSent(msgspec.Struct):
    """What became of all signals."""

    accepted: int = 0
    duplicates: int = 0
    refused: int = 0


class _Issue(msgspec.Struct):
    path: list[str]
    message: str


class _Outcome(msgspec.Struct):
    accepted: int = 0
    duplicates: int = 0
    issues: list[_Issue] = []


class _Data(msgspec.Struct):
    recordSignals: _Outcome  # noqa: N815 - as the answer has it


class _Answer(msgspec.Struct):
    data: _Data | None = None
    errors: list[dict[str, Any]] = []


_ANSWER: Final = msgspec.json.Decoder(_Answer)


async def send_signals(
    signals: Iterable[NumberedSignal],
    url: str,
    key: str,
    on_fault: Callable[[SignalFault], None],
    on_batch: Callable[[int], None] = lambda _count: None,
    on_wait: Callable[[str], None] = lambda _reason: None,
) -> SignalsSent:
    """Send every signal to `url` (the service's base address) and add up what became of them.

    What is wrong with a signal keeps no other one back: `on_fault` hears of it, and the rest of its batch is sent without.
    Raises SendError when the service refuses a whole request, or stays away.
    """
    check_target(url, key)
    sent = SignalsSent()
    headers = {"Authorization": f"Bearer {key}"}
    async with httpx2.AsyncClient(base_url=url, headers=headers, timeout=_TIMEOUT_SECONDS) as client:
        for batch in _batches(signals):
            left = batch
            while left:
                done = await _send(client, left, on_wait)
                wrong = {_index(issue, len(left)) for issue in done.issues}
                for issue in done.issues:
                    on_fault(_fault(issue, left))
                sent.accepted += done.accepted
                sent.duplicates += done.duplicates
                sent.refused += len(wrong)
                # Of a batch with faults nothing is recorded.
                left = [each for index, each in enumerate(left) if index not in wrong] if wrong else []
            on_batch(len(batch))
    return sent


async def _send(client: httpx2.AsyncClient, batch: list[NumberedSignal], on_wait: Callable[[str], None]) -> _Outcome:
    body = msgspec.json.encode({"query": _DOCUMENT, "variables": {"input": [signal for _, signal in batch]}})
    reason = ""
    for attempt in range(_TRIES_MAX):
        retry_after_seconds = 0.0
        try:
            response = await client.post(_PATH, content=body, headers={"Content-Type": "application/json"})
        except httpx2.TransportError as error:
            reason = answer_lost(error).reason
        else:
            if not is_busy(response.status_code):
                return _outcome(response)
            reason = f"{response.status_code} {response.text[:_REASON_CHARS_MAX]}"
        if attempt == 0:
            on_wait(reason)
        await asyncio.sleep(wait_seconds(attempt, retry_after_seconds))
    raise SendError(
        f"The service at {client.base_url} did not take the signals in {_TRIES_MAX} tries. The last answer: {reason}"
    )


def _outcome(response: httpx2.Response) -> _Outcome:
    try:
        answer = _ANSWER.decode(response.content)
    except msgspec.DecodeError as error:
        raise SendError(f"The answer is none of this service: {response.text[:_REASON_CHARS_MAX]}") from error
    if answer.errors or answer.data is None:
        reasons = "; ".join(str(error.get("message")) for error in answer.errors)
        raise SendError(f"The service refused the request: {reasons or response.status_code}")
    return answer.data.recordSignals


def _index(issue: _Issue, count: int) -> int:
    """Which signal of the batch an issue is of."""
    place = issue.path[_PLACE] if len(issue.path) > _PLACE else ""
    if not place.isdecimal() or int(place) >= count:
        raise SendError(f"The service refused the signals: {issue.message}")
    return int(place)


def _fault(issue: _Issue, batch: list[NumberedSignal]) -> SignalFault:
    line, _ = batch[_index(issue, len(batch))]
    return SignalFault(line, ".".join(issue.path[_PLACE + 1 :]) or None, issue.message)


def _batches(signals: Iterable[NumberedSignal]) -> Iterator[list[NumberedSignal]]:
    batch: list[NumberedSignal] = []
    size = 0
    for numbered in signals:
        bytes_of_one = len(msgspec.json.encode(numbered[1]))
        if batch and (len(batch) >= _BATCH_SIGNALS or size + bytes_of_one > _BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(numbered)
        size += bytes_of_one
    if batch:
        yield batch
