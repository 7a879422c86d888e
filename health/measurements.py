"""What is known of a metric. There are three kinds of no value, and they are never mixed up.

An observed zero is a value like any other. Unknown says that there may be a value, but nobody told us: it moves no score
and lowers the coverage. Not applicable says that there can be none: the other measures take its weight.
"""

from datetime import date, datetime, timedelta
from typing import TypeAlias

import msgspec


class Observed(msgspec.Struct, frozen=True, omit_defaults=True):
    """A value. `observed_at` (UTC) is None where it was computed for the day itself, and so is never old.

    `expires_at` (UTC) ends it whatever the scorecard says. `respondents` is how many people a survey's value is of.
    `percentile` is its place among peers, 0 to 100, None where there are too few of them. `users` are whom it is about, where
    it is about some: evidence, which moves no score.
    """

    value: float
    observed_at: datetime | None = None
    expires_at: datetime | None = None
    respondents: int | None = None
    percentile: float | None = None
    users: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        for instant in (self.observed_at, self.expires_at):
            assert instant is None or instant.utcoffset() == timedelta(0), "instants are in UTC"

    def age_days(self, as_of: date) -> int:
        """How many days ago it was observed, seen from a day; both days are UTC."""
        return 0 if self.observed_at is None else (as_of - self.observed_at.date()).days

    def expired(self, as_of: date) -> bool:
        """Whether its own end has come, on a day or before it."""
        return self.expires_at is not None and self.expires_at.date() <= as_of


class Unknown(msgspec.Struct, frozen=True):
    """There may be a value; we do not have it, and this is why."""

    reason: str = "never observed"


class NotApplicable(msgspec.Struct, frozen=True):
    """There can be no value, and this is why."""

    reason: str = "not applicable"


Measurement: TypeAlias = Observed | Unknown | NotApplicable
