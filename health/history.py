"""What was so on a day, and what was known of it then: two times, and nothing is ever overwritten.

`at` and `as_of` say when something was so, `recorded_at` and `computed_at` when we learned it. An answer as of a day, known
at an instant, uses what is about that day or earlier and was learned by then; so what comes late never changes an
answer that was given before it came. Of what is about the same time, what was learned last holds; the order of the
lists does not matter, only `sequence`, which counts upwards as facts are kept.
"""

from collections.abc import Callable, Iterable
from datetime import date, datetime
from typing import TypeVar

import msgspec

from health.measurements import Observed
from health.score import Health
from health.scorecards import Scalar

T = TypeVar("T")


class Signal(msgspec.Struct, frozen=True, kw_only=True):
    """A value that somebody told us of a subject. `at` is when it was so; all instants are UTC."""

    name: str
    value: float
    at: datetime
    recorded_at: datetime
    sequence: int
    expires_at: datetime | None = None
    note: str | None = None


class AttributeFact(msgspec.Struct, frozen=True, kw_only=True):
    """An attribute's value from an instant on; None is that it has none any more."""

    name: str
    value: Scalar | None
    at: datetime
    recorded_at: datetime
    sequence: int


class HealthFact(msgspec.Struct, frozen=True, kw_only=True):
    """A score as it was computed. A day is computed again when something late came in; both are kept."""

    computed_at: datetime
    sequence: int
    health: Health


def signals_as_of(signals: Iterable[Signal], as_of: date, *, known_at: datetime | None = None) -> dict[str, Observed]:
    """The latest value of each signal, as evaluate() takes it."""
    known = [one for one in signals if one.at.date() <= as_of and _is_known(one.recorded_at, known_at)]
    latest = _latest(known, lambda one: one.name, lambda one: (one.at, one.recorded_at, one.sequence))
    return {name: Observed(one.value, observed_at=one.at, expires_at=one.expires_at) for name, one in latest.items()}


def attributes_as_of(
    facts: Iterable[AttributeFact], as_of: date, *, known_at: datetime | None = None
) -> dict[str, Scalar]:
    """The attributes that a subject has on a day."""
    known = [one for one in facts if one.at.date() <= as_of and _is_known(one.recorded_at, known_at)]
    latest = _latest(known, lambda one: one.name, lambda one: (one.at, one.recorded_at, one.sequence))
    return {name: one.value for name, one in latest.items() if one.value is not None}


def history(
    facts: Iterable[HealthFact],
    start: date,
    end: date,
    *,
    known_at: datetime | None = None,
    version: int | None = None,
) -> tuple[Health, ...]:
    """The scores of the days in [start, end), the earliest first; each as it was last computed by then.

    With `version`, only scores by that version of the card: a trend that no change of the card has moved.
    """
    known = [
        fact
        for fact in facts
        if start <= fact.health.as_of < end
        and _is_known(fact.computed_at, known_at)
        and version in (None, fact.health.version)
    ]
    latest = _latest(known, lambda fact: str(fact.health.as_of), lambda fact: (fact.computed_at, fact.sequence))
    return tuple(latest[day].health for day in sorted(latest))


def health_as_of(facts: Iterable[HealthFact], as_of: date, *, known_at: datetime | None = None) -> Health | None:
    """The score of a day, or of the last day before it that has one."""
    earlier = [fact for fact in facts if fact.health.as_of <= as_of and _is_known(fact.computed_at, known_at)]
    if not earlier:
        return None
    return max(earlier, key=lambda fact: (fact.health.as_of, fact.computed_at, fact.sequence)).health


def _is_known(learned_at: datetime, known_at: datetime | None) -> bool:
    return known_at is None or learned_at <= known_at


def _latest(
    facts: Iterable[T], name: Callable[[T], str], order: Callable[[T], tuple[datetime | int, ...]]
) -> dict[str, T]:
    latest: dict[str, T] = {}
    for fact in sorted(facts, key=order):
        latest[name(fact)] = fact
    return latest
