"""Thresholds are refused with everything that is wrong with them, and the ones that are there from the start are right."""

from typing import Any

import msgspec
import pytest

from health.alarms import DEFAULTS, AlarmType, Thresholds
from health.drops import dropped, dropped_together
from health.threshold_faults import THRESHOLD_BOUNDS, checked_thresholds
from tests.health.cards import AS_OF


def test_every_threshold_has_bounds_that_its_default_keeps() -> None:
    """A new threshold needs bounds, and nothing said is the defaults."""
    said: dict[str, Any] = msgspec.to_builtins(DEFAULTS)

    assert said.keys() == THRESHOLD_BOUNDS.keys()
    assert DEFAULTS == checked_thresholds(said) == checked_thresholds({})
    assert Thresholds(silence_min=5.0, cooldown_days=7) == checked_thresholds({"silenceMin": 5, "cooldownDays": 7.0})


def test_all_faults_are_told_at_once() -> None:
    """A name that there is not, a text, a truth, a number out of bounds, a part of a day: each by its name."""
    given = {
        "silence": 4,
        "silenceMin": "4",
        "underusedBelow": True,
        "renewalScoreBelow": 10**400,
        "dropZOneWeek": float("nan"),
        "cooldownDays": 1.5,
        "scoreDropMin": 10,
    }
    faults = checked_thresholds(given)

    assert isinstance(faults, tuple)
    assert [(name,) for name in list(given)[:-1]] == [fault.path for fault in faults]


@pytest.mark.parametrize(
    ("four_weeks", "one_week", "told"), [(2.9, 0.0, True), (0.0, 3.3, True), (2.89, 3.29, False), (None, 9.0, False)]
)
def test_a_drop_is_told_by_either_z(four_weeks: float | None, one_week: float, told: bool) -> None:  # noqa: FBT001
    """At one of the thresholds, and only where both are known."""
    alarm = dropped("a", four_weeks, one_week, as_of=AS_OF)

    assert told == (alarm is not None)
    assert alarm is None or alarm.evidence == {"four_week_z": four_weeks, "one_week_z": one_week}


@pytest.mark.parametrize(
    ("four_weeks", "one_week", "told"),
    [(-0.26, 0.0, True), (0.0, -0.3, True), (-0.25, -0.25, False), (0.4, -0.3, False)],
)
def test_what_all_do_together_is_told_once(four_weeks: float, one_week: float, told: bool) -> None:  # noqa: FBT001
    """Where the median account fell by more than the threshold, and the larger of both changes is a fall."""
    alarm = dropped_together("everyone", four_weeks, one_week, as_of=AS_OF)

    assert told == (alarm is not None)
    assert alarm is None or alarm.type is AlarmType.COMMON_CAUSE_DROP
