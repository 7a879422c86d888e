"""How often alarms are raised: cooldowns, rates against a budget, thresholds that keep to it; and alarms of scores."""

import random
from datetime import timedelta

import pytest

from health.alarms import WEEKS_OF_YEAR, Alarm, AlarmType, Thresholds, after_cooldown, alarm_rates, threshold_for
from health.measurements import Observed
from health.score import Health, evaluate
from health.score_alarms import band_changed, renewal_at_risk, score_dropped
from tests.health.cards import AS_OF, card, measure


def alarm(day: int, subject: str = "a", kind: AlarmType = AlarmType.DROP_DETECTED) -> Alarm:
    """An alarm so many days on."""
    return Alarm(type=kind, subject=subject, as_of=AS_OF + timedelta(days=day), evidence={})


def scored(value: float, day: int = 0, previous: str | None = None) -> Health:
    """A score of this value, so many days on."""
    return evaluate(
        card(measure("a")), {"a": Observed(value)}, as_of=AS_OF + timedelta(days=day), previous_band=previous
    )


def test_a_subject_is_told_once_within_the_cooldown() -> None:
    """Of each kind and subject there is one alarm in 28 days, counted from the last that was told; others are not held up."""
    alarms = [alarm(40), alarm(0), alarm(27), alarm(28), alarm(1, "b"), alarm(2, kind=AlarmType.USER_SILENT)]
    told = after_cooldown(alarms, {(AlarmType.DROP_DETECTED, "b"): AS_OF - timedelta(days=27)})

    assert [alarm(0), alarm(1, "b"), alarm(2, kind=AlarmType.USER_SILENT), alarm(28)] == list(told)
    assert alarm(27) in after_cooldown(alarms, {}, Thresholds(cooldown_days=27))


def test_rates_are_told_against_the_budget() -> None:
    """41 alarms of 68 accounts in a year are 0.6 an account-year: more than half a one, which is the budget."""
    (rate,) = alarm_rates([alarm(day) for day in range(41)], subjects=68, days=365.25)

    assert (AlarmType.DROP_DETECTED, 41, False) == (rate.type, rate.count, rate.within_budget)
    assert rate.per_year == pytest.approx(0.603, abs=0.001)
    assert alarm_rates([alarm(1)], subjects=2, days=365.25)[0].within_budget


def test_a_threshold_is_the_lowest_that_keeps_to_the_budget() -> None:
    """At the threshold, and at any value above it, series rise no more often than allowed; just below it they would."""
    rng = random.Random(1)
    for _ in range(60):
        series: list[list[float | None]] = [
            [rng.choice([None, float(rng.randint(0, 30)), rng.gauss(5, 3)]) for _ in range(rng.randint(0, 40))]
            for _ in range(rng.randint(1, 8))
        ]
        values = sorted({value for one in series for value in one if value is not None})
        weeks = sum(value is not None for one in series for value in one)
        per_year = rng.choice([0.5, 2.0, 8.0])
        threshold = threshold_for(series, per_year=per_year)
        if not values:
            assert threshold is None
            continue
        assert threshold is not None
        allowed = per_year * weeks / WEEKS_OF_YEAR
        assert all(
            rises(series, value) <= allowed for value in [threshold, *(value for value in values if value > threshold)]
        )
        below = [value for value in values if value < threshold]
        assert not below or rises(series, below[-1]) > allowed


def rises(series: list[list[float | None]], threshold: float) -> int:
    """How often series rise to a threshold, week by week."""
    count = 0
    for one in series:
        there = False
        for value in one:
            count += value is not None and value >= threshold and not there
            there = value is not None and value >= threshold
    return count


def test_a_band_that_changes_is_told_with_its_reasons() -> None:
    """Another band is told with both names and the parts that moved the score most; the same band is not."""
    before, after = scored(80), scored(60, 1, previous="high")
    told = band_changed("acme", before, after)

    assert told is not None
    assert told.evidence == {"before": "high", "after": "middle", "reason_1": "a VALUE -20.0"}
    assert band_changed("acme", before, scored(75, 1, previous="high")) is None


def test_a_score_that_drops_is_told() -> None:
    """Ten points below the highest of the last 14 days; older scores and the day itself do not count."""
    past = [scored(90, -15), scored(70, -14), scored(65, -3), scored(99, 0)]
    told = score_dropped("acme", past, scored(60))

    assert told is not None
    assert {"before": 70.0, "after": 60.0}.items() <= told.evidence.items()
    assert score_dropped("acme", past, scored(60.1)) is None
    assert score_dropped("acme", [scored(90, -15)], scored(60)) is None


def test_a_renewal_is_at_risk_when_it_is_near_and_the_score_low() -> None:
    """Below 50 with 120 days left or fewer, also when it is past due; with what is at stake."""

    def told(score: float, days: float | None) -> bool:
        return renewal_at_risk("acme", scored(score), days, as_of=AS_OF) is not None

    assert [True, True, False, False, False] == [
        told(score, days) for score, days in ((49, 120), (49, -5), (50, 120), (49, 121), (49, None))
    ]
    alarm_told = renewal_at_risk("acme", scored(10), 30, as_of=AS_OF, monthly_amount=900.0)
    assert alarm_told is not None
    assert {"monthly_amount": 900.0, "band": "low"}.items() <= alarm_told.evidence.items()
