"""When a delivery is tried again, and when it is not any more. Pure: the chance that jitter needs is an argument.

Ten attempts over about 75 hours. Each wait is up to a tenth shorter or longer, so that what failed together does not come
back together. What was asked for by Retry-After is waited for where it is longer, up to a day; by everything that is sent there.
"""

from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Final

import msgspec

_HOUR: Final = 3_600
# Before the first attempt, the second, ….
WAITS_SECONDS: Final = (
    0,
    5,
    300,
    1_800,
    2 * _HOUR,
    5 * _HOUR,
    10 * _HOUR,
    14 * _HOUR,
    20 * _HOUR,
    24 * _HOUR,
)
ATTEMPTS_MAX: Final = len(WAITS_SECONDS)
JITTER: Final = 0.1
RETRY_AFTER_SECONDS_MAX: Final = 24 * _HOUR
_OK: Final = range(200, 300)
_GONE: Final = 410
# Those that ask to wait; whatever else has the header says something else by it.
_BUSY: Final = frozenset({429, 503})


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """How one attempt ended: a status, or (without one) what went wrong; and how long we were asked to wait."""

    status: int | None = None
    fault: str | None = None
    retry_after_seconds: float = 0.0


class Delivered(msgspec.Struct, frozen=True):
    """It was taken."""


class Again(msgspec.Struct, frozen=True):
    """It is tried again after so many seconds."""

    seconds: float


class GivenUp(msgspec.Struct, frozen=True):
    """It was tried as often as anything is."""


class Gone(msgspec.Struct, frozen=True):
    """The receiver wants nothing any more."""


Verdict = Delivered | Again | GivenUp | Gone


def verdict(attempts: int, answer: Answer, chance: float) -> Verdict:
    """What follows from an answer to the last of so many attempts; `chance` is 0 to 1."""
    if answer.status in _OK:
        return Delivered()
    if answer.status == _GONE:
        return Gone()
    if attempts >= ATTEMPTS_MAX:
        return GivenUp()
    return Again(max(wait_seconds(attempts, chance), asked_seconds(answer)))


def asked_seconds(answer: Answer) -> float:
    """For how long an answer asks to be sent nothing; 0 where it does not."""
    return min(answer.retry_after_seconds, RETRY_AFTER_SECONDS_MAX) if answer.status in _BUSY else 0.0


def wait_seconds(attempts: int, chance: float) -> float:
    """How long to wait after so many attempts; `chance` is 0 to 1."""
    return WAITS_SECONDS[attempts] * (1 + JITTER * (2 * chance - 1))


def retry_after_seconds(value: str | None, now: datetime) -> float:
    """The wait that a header Retry-After asks for: seconds, or a date; 0 for what is neither."""
    if value is None:
        return 0.0
    if value.isascii() and value.isdecimal():
        # A number that no float holds is a very long time.
        return float(min(int(value[:_DIGITS_MAX]), RETRY_AFTER_SECONDS_MAX))
    try:
        until = parsedate_to_datetime(value)
    except ValueError:
        return 0.0
    until = until if until.tzinfo is not None else until.replace(tzinfo=UTC)
    return min(max((until - now) / timedelta(seconds=1), 0.0), float(RETRY_AFTER_SECONDS_MAX))


_DIGITS_MAX: Final = 12
