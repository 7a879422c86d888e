"""When a delivery is tried again, and when it is not any more."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metering.outbox.schedule import (
    ATTEMPTS_MAX,
    JITTER,
    RETRY_AFTER_SECONDS_MAX,
    WAITS_SECONDS,
    Again,
    Answer,
    Delivered,
    GivenUp,
    Gone,
    retry_after_seconds,
    verdict,
)

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
ANSWERS = st.one_of(
    st.builds(Answer, status=st.integers(100, 599), retry_after_seconds=st.floats(0, 10**6)),
    st.builds(Answer, fault=st.text(max_size=5)),
)


@given(st.integers(1, ATTEMPTS_MAX), ANSWERS, st.floats(0, 1))
def test_every_answer_has_one_verdict(attempts: int, answer: Answer, chance: float) -> None:
    """2xx is taken, 410 is the end; all else is tried again within a tenth of the schedule's wait, or as late as was asked for,
    until the tenth attempt.
    """
    follows = verdict(attempts, answer, chance)

    if answer.status is not None and answer.status // 100 == 2:
        assert Delivered() == follows
    elif answer.status == 410:
        assert Gone() == follows
    elif attempts == ATTEMPTS_MAX:
        assert GivenUp() == follows
    else:
        assert isinstance(follows, Again)
        asked = min(answer.retry_after_seconds, RETRY_AFTER_SECONDS_MAX) if answer.status in {429, 503} else 0
        wait = WAITS_SECONDS[attempts]
        least, most = (max(asked, wait * (1 + sign * JITTER)) for sign in (-1, 1))
        assert least - 1e-6 <= follows.seconds <= most + 1e-6


def test_all_attempts_take_about_75_hours() -> None:
    """The schedule is the one of Standard Webhooks."""
    assert 75 == sum(WAITS_SECONDS) // 3_600


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, 0),
        ("120", 120),
        ("9" * 500, RETRY_AFTER_SECONDS_MAX),
        ("Sun, 01 Mar 2026 12:00:30 GMT", 30),
        ("Sun, 01 Mar 2026 11:00:00 GMT", 0),
        ("Sun, 01 Mar 2099 12:00:30 -0000", RETRY_AFTER_SECONDS_MAX),
        ("-5", 0),
        ("soon", 0),
        ("١٢", 0),
    ],
)
def test_what_retry_after_asks_for(header: str | None, seconds: float) -> None:
    """Seconds or a date, at most a day; what is neither asks for nothing."""
    assert seconds == retry_after_seconds(header, NOW)
