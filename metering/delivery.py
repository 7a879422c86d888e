"""What every sender of events has in common: the address, what an answer means, and how long to wait before the next try.

Any request may be sent again: events carry their own identity, so what was counted is answered as a duplicate. So there
are three answers: a receipt, "not now" (the same request may be taken later), and "no" (it never will).
Nothing here sends: `sender` does, from a file, and `client`, from a running program.
"""

import random
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final

import httpx2
import msgspec

from metering.errors import MeteringError

EVENTS_PATH: Final = "/v1/events"
RETRY_AFTER_SECONDS_MAX: Final = 300.0
_WAIT_SECONDS_MIN: Final = 0.1
_WAIT_SECONDS_MAX: Final = 5.0
# From this attempt on every wait is the longest; without a bound, 2.0**attempt overflows after an hour and a half.
_DOUBLINGS_MAX: Final = 10
_REASON_CHARS_MAX: Final = 500
_PORT_MAX: Final = 65_535
_BUSY: Final = frozenset({408, 429, 502, 503, 504})


class SendError(MeteringError):
    """The service refused the request as a whole, or stayed away for too long."""

    code = "send"


class Refusal(msgspec.Struct, frozen=True):
    """One event that the service refused: its index in the request, the code, what is wrong, and in which field.

    The code is a text here and no `ingest.receipts.Code`: a service may be newer than its senders, and know more codes.
    """

    index: int
    code: str
    message: str
    path: str | None = None


class Receipt(msgspec.Struct, frozen=True):
    """What became of a request's events, as a sender reads it; accepted + duplicates + rejected is all of them."""

    accepted: int
    duplicates: int
    rejected: tuple[Refusal, ...]


class NotTaken(msgspec.Struct, frozen=True):
    """A request that was not processed, or whose answer was lost: a stable code, the reason, and whether to try again."""

    code: str
    reason: str
    retryable: bool
    # How long the service asked to be left alone.
    retry_after_seconds: float = 0.0
    # Whether the same events may be taken in smaller requests.
    is_too_large: bool = False


class _Problem(msgspec.Struct):
    """The part of an `application/problem+json` body that programs switch on."""

    code: str


_RECEIPT: Final = msgspec.json.Decoder(Receipt)
_PROBLEM: Final = msgspec.json.Decoder(_Problem)


def request_headers(key: str) -> dict[str, str]:
    """The headers of a request that carries events as NDJSON."""
    return {"Authorization": f"Bearer {key}", "Content-Type": "application/x-ndjson"}


def check_target(url: str, key: str) -> None:
    """Raise SendError for an address or a key with which no number of tries would send anything."""
    try:
        parsed = httpx2.URL(url)
    except httpx2.InvalidURL as error:
        raise SendError(f"{url!r} is not the address of a service: {error}.") from error
    if parsed.scheme not in {"http", "https"} or not parsed.host or (parsed.port or 0) > _PORT_MAX:
        raise SendError(f"{url!r} is not the address of a service, such as http://127.0.0.1:8000.")
    if not key.isascii() or not key.isprintable():
        raise SendError("The key has characters that no key has; was more than the key copied?")


def answer_of(response: httpx2.Response, events: int) -> Receipt | NotTaken:
    """What a response to a request with so many events means."""
    status = response.status_code
    if status != httpx2.codes.OK:
        reason = f"{status} {response.text[:_REASON_CHARS_MAX]}"
        is_too_large = status == httpx2.codes.CONTENT_TOO_LARGE
        retry_after_seconds = _retry_after_seconds(response.headers)
        return NotTaken(_code(response), reason, is_busy(status), retry_after_seconds, is_too_large)
    try:
        receipt = _RECEIPT.decode(response.content)
    except msgspec.DecodeError as error:
        return _no_receipt(str(error))
    counted = receipt.accepted + receipt.duplicates + len(receipt.rejected)
    if counted != events or any(not 0 <= refusal.index < events for refusal in receipt.rejected):
        return _no_receipt(f"{events:,} events were sent, and it tells of {counted:,}")
    return receipt


def answer_lost(error: httpx2.RequestError) -> NotTaken:
    """What it means that no answer came: perhaps the request was processed, so it has to be sent again."""
    return NotTaken("unreachable", f"{type(error).__name__}: {error}", retryable=True)


def is_busy(status: int) -> bool:
    """Whether a service, or what stands before it, means by this status: the same request again, later."""
    return status in _BUSY


def wait_seconds(attempt: int, retry_after_seconds: float = 0.0) -> float:
    """How long to wait after this attempt, the first of which is 0: longer each time, never in step with other senders.

    What the service asked for comes first, and the wait on top of it.
    """
    longest = min(_WAIT_SECONDS_MAX, _WAIT_SECONDS_MIN * 2.0 ** min(attempt, _DOUBLINGS_MAX))
    return retry_after_seconds + random.uniform(longest / 2, longest)  # noqa: S311 - a pause, not a secret


def _no_receipt(why: str) -> NotTaken:
    return NotTaken("no_receipt", f"The answer is no receipt of these events; is this the service? {why}", False)  # noqa: FBT003


def _code(response: httpx2.Response) -> str:
    try:
        return _PROBLEM.decode(response.content).code
    except msgspec.DecodeError:
        return f"http_{response.status_code}"


def _retry_after_seconds(received: httpx2.Headers) -> float:
    """The wait that was asked for, at most five minutes: seconds, or a date, which is seen from the answer's own clock."""
    value = received.get("retry-after", "")
    try:
        seconds = float(value) if value.isdecimal() else _seconds_between(received.get("date", ""), value)
    except ValueError:
        return 0.0
    return min(max(seconds, 0.0), RETRY_AFTER_SECONDS_MAX)


def _seconds_between(start: str, end: str) -> float:
    return (_instant(end) - _instant(start)).total_seconds()


def _instant(date: str) -> datetime:
    instant = parsedate_to_datetime(date)
    # The zone -0000 says "in UTC, wherever that may have been", and is read as no zone.
    return instant if instant.tzinfo is not None else instant.replace(tzinfo=UTC)
