"""Whether usage has dropped: whole weeks against the weeks before, in units of how much they vary anyway.

A count of mean m varies by m + dispersion * m^2 (negative binomial), so that a small account may halve by chance and a
large one may not. Dispersion is the account's own as far as its baseline tells, and otherwise what is typical. Whole
weeks cancel the pattern inside the week; what all customers of a segment do together is taken off first. There is no state:
late usage is simply looked at again. docs/health.md has the formulas, and what they were measured to find.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from math import fsum, log, sqrt
from statistics import median
from typing import Final

import msgspec

from health.alarms import DEFAULTS, Alarm, AlarmType, Thresholds
from health.peers import PEERS_MIN

CURRENT_WEEKS: Final = 4
BASELINE_WEEKS_MIN: Final = 8
BASELINE_WEEKS_MAX: Final = 12
# One week is compared with a median that ends two weeks before it, so that a slow fall does not hide itself.
GUARD_WEEKS: Final = 2

# Weeks follow one another: the variance of a mean of four is not a quarter, but this much.
_FOUR_WEEKS: Final = 1.6 / 4
# The variance of a median by that of a mean, pi / 2.
_MEDIAN: Final = 1.57
_DISPERSION_MIN: Final = 0.005
_DISPERSION_MAX: Final = 2.0
# As many weeks of an own baseline weigh as much as what is typical.
_TYPICAL_WEEKS: Final = 6
# Below this mean a baseline says little of its dispersion: counting alone makes it vary.
_MEAN_FOR_DISPERSION: Final = 20.0
# Where no account is large enough to tell: a standard deviation of 17 %.
TYPICAL_DISPERSION: Final = 0.03


class DropReport(msgspec.Struct, frozen=True, kw_only=True):
    """What was found in one segment.

    `common_change` is the logarithm by which the median account changed. Where that is beyond the threshold, there is
    one alarm for all of them, and `held_back` are the accounts that would have had one of their own.
    """

    alarms: tuple[Alarm, ...]
    common_change: float
    held_back: tuple[str, ...] = ()


def own_dispersion(baseline: Sequence[float]) -> float:
    """How much more the weeks vary than counting alone would make them; below zero if less."""
    mean = fsum(baseline) / len(baseline)
    variance = fsum((week - mean) ** 2 for week in baseline) / (len(baseline) - 1)
    return (variance - mean) / max(mean, 1.0) ** 2


def typical_dispersion(baselines: Iterable[Sequence[float]]) -> float:
    """The median of the accounts whose baseline is large enough to tell."""
    told = [
        own_dispersion(baseline)
        for baseline in baselines
        if len(baseline) >= BASELINE_WEEKS_MIN and fsum(baseline) / len(baseline) > _MEAN_FOR_DISPERSION
    ]
    return median(told) if told else TYPICAL_DISPERSION


def baseline_of(weeks: Sequence[float]) -> Sequence[float]:
    """The weeks before the current four, twelve at most. `weeks` are whole ones, the earliest first."""
    return weeks[:-CURRENT_WEEKS][-BASELINE_WEEKS_MAX:]


def four_week_z(weeks: Sequence[float], *, typical: float, common_change: float = 0.0) -> float | None:
    """How unusually low the last four weeks are. None with fewer than eight whole weeks before them."""
    baseline = baseline_of(weeks)
    if len(baseline) < BASELINE_WEEKS_MIN:
        return None
    expected = CURRENT_WEEKS * fsum(baseline) / len(baseline)
    variance = 1 / (expected + 0.5) + _FOUR_WEEKS * _dispersion(baseline, typical)
    fall = log(expected + 0.5) - log(fsum(weeks[-CURRENT_WEEKS:]) + 0.5) + common_change
    return fall / sqrt(variance * (1 + CURRENT_WEEKS / len(baseline)))


def one_week_z(weeks: Sequence[float], *, typical: float, common_change: float = 0.0) -> float | None:
    """How unusually low the last week is: a fast channel for collapses. None with fewer than eight weeks to compare."""
    baseline = weeks[: -1 - GUARD_WEEKS][-BASELINE_WEEKS_MAX:]
    if len(baseline) < BASELINE_WEEKS_MIN:
        return None
    expected = median(baseline)
    variance = 1 / (expected + 0.5) + _dispersion(baseline, typical)
    fall = log(expected + 0.5) - log(weeks[-1] + 0.5) + common_change
    return fall / sqrt(variance * (1 + _MEDIAN / len(baseline)))


def four_week_change(weeks: Sequence[float]) -> float | None:
    """The logarithm by which the last four weeks differ from the baseline, below zero for a fall."""
    baseline = baseline_of(weeks)
    if len(baseline) < BASELINE_WEEKS_MIN:
        return None
    expected = CURRENT_WEEKS * fsum(baseline) / len(baseline)
    return log(fsum(weeks[-CURRENT_WEEKS:]) + 0.5) - log(expected + 0.5)


def one_week_change(weeks: Sequence[float]) -> float | None:
    """The same of the last week against the median of its baseline."""
    baseline = weeks[: -1 - GUARD_WEEKS][-BASELINE_WEEKS_MAX:]
    if len(baseline) < BASELINE_WEEKS_MIN:
        return None
    return log(weeks[-1] + 0.5) - log(median(baseline) + 0.5)


def drops(
    weeks: Mapping[str, Sequence[float]], *, segment: str, as_of: date, thresholds: Thresholds = DEFAULTS
) -> DropReport:
    """Look for drops among the accounts of a segment, by their whole weeks up to a day, the earliest first."""
    typical = typical_dispersion(baseline_of(one) for one in weeks.values() if len(one) > CURRENT_WEEKS)
    four_weeks = _common([four_week_change(one) for one in weeks.values()])
    one_week = _common([one_week_change(one) for one in weeks.values()])
    found = []
    for account, one in weeks.items():
        slow = four_week_z(one, typical=typical, common_change=four_weeks)
        fast = one_week_z(one, typical=typical, common_change=one_week)
        if slow is not None and fast is not None and _alarming(slow, fast, thresholds):
            found.append(_alarm(account, one, slow, fast, as_of))
    common = max(four_weeks, one_week, key=abs)
    if abs(common) <= thresholds.common_change_max:
        return DropReport(alarms=tuple(found), common_change=common)
    together = Alarm(
        type=AlarmType.COMMON_CAUSE_DROP,
        subject=segment,
        as_of=as_of,
        evidence={"common_change": common, "accounts": float(len(weeks)), "held_back": float(len(found))},
    )
    held_back = tuple(alarm.subject for alarm in found)
    return DropReport(alarms=(together,) if common < 0 else (), common_change=common, held_back=held_back)


def dropped(
    subject: str, four_weeks: float | None, one_week: float | None, *, as_of: date, thresholds: Thresholds = DEFAULTS
) -> Alarm | None:
    """Whether usage has dropped, by both z's, from which what is common was taken already."""
    if four_weeks is None or one_week is None or not _alarming(four_weeks, one_week, thresholds):
        return None
    evidence = {"four_week_z": four_weeks, "one_week_z": one_week}
    return Alarm(type=AlarmType.DROP_DETECTED, subject=subject, as_of=as_of, evidence=evidence)


def is_common(four_weeks: float, one_week: float, thresholds: Thresholds = DEFAULTS) -> bool:
    """Whether all customers do so much together that no account is told of by itself."""
    return max(abs(four_weeks), abs(one_week)) > thresholds.common_change_max


def dropped_together(
    segment: str, four_weeks: float, one_week: float, *, as_of: date, thresholds: Thresholds = DEFAULTS
) -> Alarm | None:
    """Whether the median account fell: by the logarithms by which it changed, over four weeks and over one."""
    common = max(four_weeks, one_week, key=abs)
    if common >= 0 or not is_common(four_weeks, one_week, thresholds):
        return None
    evidence = {"four_week_change": four_weeks, "one_week_change": one_week}
    return Alarm(type=AlarmType.COMMON_CAUSE_DROP, subject=segment, as_of=as_of, evidence=evidence)


def _dispersion(baseline: Sequence[float], typical: float) -> float:
    """The account's own, as far as it is large enough to tell, drawn towards what is typical."""
    told = len(baseline) * min(1.0, fsum(baseline) / len(baseline) / _MEAN_FOR_DISPERSION)
    own = min(max(own_dispersion(baseline), 0.0), _DISPERSION_MAX)
    return max(_DISPERSION_MIN, (told * own + _TYPICAL_WEEKS * typical) / (told + _TYPICAL_WEEKS))


def _common(changes: Iterable[float | None]) -> float:
    """What the median account did; nothing, where there are too few to say that it is common."""
    known = [change for change in changes if change is not None]
    return median(known) if len(known) >= PEERS_MIN else 0.0


def _alarming(slow: float, fast: float, thresholds: Thresholds) -> bool:
    return slow >= thresholds.drop_z_four_weeks or fast >= thresholds.drop_z_one_week


def _alarm(account: str, weeks: Sequence[float], slow: float, fast: float, as_of: date) -> Alarm:
    baseline = baseline_of(weeks)
    return Alarm(
        type=AlarmType.DROP_DETECTED,
        subject=account,
        as_of=as_of,
        evidence={
            "four_weeks": fsum(weeks[-CURRENT_WEEKS:]),
            "expected": CURRENT_WEEKS * fsum(baseline) / len(baseline),
            "last_week": float(weeks[-1]),
            "four_week_z": slow,
            "one_week_z": fast,
        },
    )
