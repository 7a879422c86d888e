"""Alarms as values, how often they may be raised, and thresholds that keep to that.

A threshold is data: it is chosen so that unchanged customers raise no more than a budget of alarms a year, on the
series of customers that stayed (threshold_for()). The numbers here are where to start.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from enum import Enum
from typing import Final, TypeAlias

import msgspec

DAYS_OF_YEAR: Final = 365.25
WEEKS_OF_YEAR: Final = DAYS_OF_YEAR / 7


class AlarmType(Enum):
    """What is told of; the values are the types of events."""

    DROP_DETECTED = "usage.drop_detected"
    COMMON_CAUSE_DROP = "product.common_cause_drop"
    USER_SILENT = "user.silent"
    CHAMPION_LOST = "champion.lost"
    SINGLE_THREADED = "account.single_threaded"
    SEATS_UNDERUSED = "seats.underused"
    RENEWAL_AT_RISK = "renewal.at_risk"
    BAND_CHANGED = "health.band_changed"
    SCORE_DROPPED = "health.score_dropped"


class Alarm(msgspec.Struct, frozen=True, kw_only=True):
    """One thing to look at: whose, since which day, and what it was seen by."""

    type: AlarmType
    subject: str
    as_of: date
    evidence: Mapping[str, float | str]


class Thresholds(msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """When what is alarming. The defaults are where to start; docs/health.md says where each is from."""

    drop_z_four_weeks: float = 2.9
    drop_z_one_week: float = 3.3
    common_change_max: float = 0.25
    silence_min: float = 4.0
    champion_tenure_days_min: float = 28.0
    champion_share_min: float = 0.20
    champion_features_min: int = 3
    single_threaded_seats_min: float = 3.0
    single_threaded_bus_factor_max: int = 1
    single_threaded_effective_users_below: float = 1.5
    underused_below: float = 0.5
    underused_seats_min: float = 3.0
    underused_age_days_min: float = 60.0
    renewal_days_max: float = 120.0
    renewal_score_below: float = 50.0
    score_drop_min: float = 10.0
    score_drop_days: int = 14
    cooldown_days: int = 28
    budget_per_year: float = 0.5


DEFAULTS: Final = Thresholds()
Fired: TypeAlias = Mapping[tuple[AlarmType, str], date]


class AlarmRate(msgspec.Struct, frozen=True, kw_only=True):
    """How often a kind of alarm was raised for each subject and year, and whether that is within the budget."""

    type: AlarmType
    count: int
    per_year: float
    within_budget: bool


def after_cooldown(alarms: Iterable[Alarm], fired: Fired, thresholds: Thresholds = DEFAULTS) -> tuple[Alarm, ...]:
    """The alarms that are told: none that was told of the same subject within the cooldown; `fired` says when last."""
    last = dict(fired)
    told = []
    for alarm in sorted(alarms, key=lambda alarm: alarm.as_of):
        key = (alarm.type, alarm.subject)
        if key not in last or (alarm.as_of - last[key]).days >= thresholds.cooldown_days:
            last[key] = alarm.as_of
            told.append(alarm)
    return tuple(told)


def alarm_rates(
    alarms: Iterable[Alarm], *, subjects: int, days: float, thresholds: Thresholds = DEFAULTS
) -> tuple[AlarmRate, ...]:
    """What each kind of alarm came to, of so many subjects that were watched for so many days."""
    assert subjects > 0, "somebody was watched"
    assert days > 0, "for some time"
    counts = dict.fromkeys(AlarmType, 0)
    for alarm in alarms:
        counts[alarm.type] += 1
    return tuple(alarm_rate(kind, count, subjects * days, thresholds) for kind, count in counts.items() if count)


def alarm_rate(kind: AlarmType, count: int, subject_days: float, thresholds: Thresholds = DEFAULTS) -> AlarmRate:
    """What so many alarms come to, of subjects that were watched for so many days together."""
    assert subject_days > 0, "somebody was watched, for some time"
    per_year = count * DAYS_OF_YEAR / subject_days
    return AlarmRate(type=kind, count=count, per_year=per_year, within_budget=per_year <= thresholds.budget_per_year)


def threshold_for(series: Iterable[Sequence[float | None]], *, per_year: float) -> float | None:
    """The lowest threshold at which series of weekly values rise to it no more often than `per_year` for each series.

    A rise is a week at the threshold or above after one below it (or after none, or an unknown one). The series are of
    subjects for which nothing changed. None where there are no values.
    """
    weeks = 0
    # A rise from a to b is one for each threshold in (a, b]; walk the thresholds downwards and count.
    steps: list[tuple[float, int]] = []
    values = set()
    for one in series:
        before = float("-inf")
        for value in one:
            if value is None:
                before = float("-inf")
                continue
            weeks += 1
            values.add(value)
            if value > before:
                steps += [(value, 1), (before, -1)]
            before = value
    if not weeks:
        return None
    allowed = per_year * weeks / WEEKS_OF_YEAR
    steps.sort(reverse=True)
    return _lowest_within(steps, sorted(values, reverse=True), allowed)


def _lowest_within(steps: Sequence[tuple[float, int]], values: Sequence[float], allowed: float) -> float:
    """Both fall. At a threshold, rises up to it or above count, less those that began there or above."""
    lowest, rises, place = values[0] + 1.0, 0, 0
    for value in values:
        while place < len(steps) and steps[place][0] >= value:
            rises += steps[place][1]
            place += 1
        if rises > allowed:
            return lowest
        lowest = value
    return lowest
