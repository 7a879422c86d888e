"""Silence of a user: how unusual it is for this user, and who will be active again. Two questions with two answers.

For an alarm, silence is judged by the user's own cadence: gaps between active days follow an exponential law whose rate is
drawn from what is usual (Gamma-Poisson). For a ranking of who will be gone, it is not: there recency, frequency and age
together do better, and a P(alive) that is 1 for whoever came once does worst.
"""

from collections.abc import Sequence
from math import exp, fsum, log1p
from typing import Final, TypeAlias

import msgspec

from health.linear import solve

# As if so many gaps of the usual length had been seen before.
_PRIOR_GAPS: Final = 1.5
GAPS_MIN: Final = 3
# Below this, coefficients of our own say less than the ones that are shipped.
LABELLED_MIN: Final = 500
_STEPS_MAX: Final = 50
_CONVERGED: Final = 1e-10

# Days since the last activity, active days after the first, and days since the first one.
Recency: TypeAlias = tuple[float, float, float]


def silence(silent_days: float, gaps: int, gaps_total_days: float, *, usual_gap_days: float) -> float | None:
    """-ln of the probability that a gap is longer than this silence. None with fewer than three gaps.

    4 is once in 55 gaps. `usual_gap_days` is the median gap of everybody's. Count working days throughout for a product
    that is used on working days.
    """
    if gaps < GAPS_MIN:
        return None
    scale = _PRIOR_GAPS * usual_gap_days + gaps_total_days
    return (_PRIOR_GAPS + gaps) * log1p(silent_days / scale)


class ActivityModel(msgspec.Struct, frozen=True, kw_only=True):
    """P(active within the next 28 days) = 1 / (1 + e^-z), z = b . (1, ln(1+silent), ln(1+repeats), ln(1+age)).

    `calibrated` is whether the coefficients are of the customers that they are used for; of how many, `labelled` says.
    """

    coefficients: tuple[float, float, float, float]
    calibrated: bool
    labelled: int

    def p_active_next(self, recency: Recency) -> float:
        """The probability of any activity, given what a subject did so far."""
        return _logistic(fsum(b * x for b, x in zip(self.coefficients, _features(recency), strict=True)))


# Fitted on CDNOW's 23,570 customers at 30 September 1997, for the 28 days after it; a test fits them again.
UNCALIBRATED: Final = ActivityModel(coefficients=(1.5140, -0.2625, 1.1967, -0.6835), calibrated=False, labelled=23_570)


def fit_activity(subjects: Sequence[Recency], active: Sequence[bool]) -> ActivityModel:
    """Fit the four coefficients by Newton's method on what became of the subjects, one horizon ago.

    With fewer than 500 subjects, or all of one outcome, there is nothing to fit: the shipped coefficients stay.
    """
    assert len(subjects) == len(active), "an outcome for each subject"
    if len(subjects) < LABELLED_MIN or len(set(active)) == 1:
        return UNCALIBRATED
    rows = [_features(one) for one in subjects]
    coefficients = [0.0] * 4
    for _ in range(_STEPS_MAX):
        step = _newton_step(rows, active, coefficients)
        if step is None:
            return UNCALIBRATED
        coefficients = [b + change for b, change in zip(coefficients, step, strict=True)]
        if max(map(abs, step)) < _CONVERGED:
            b0, b1, b2, b3 = coefficients
            return ActivityModel(coefficients=(b0, b1, b2, b3), calibrated=True, labelled=len(subjects))
    # Outcomes that the features tell apart without exception have no best coefficients.
    return UNCALIBRATED


def _newton_step(
    rows: Sequence[tuple[float, ...]], active: Sequence[bool], coefficients: Sequence[float]
) -> list[float] | None:
    gradient = [0.0] * 4
    curvature = [[0.0] * 4 for _ in range(4)]
    for row, outcome in zip(rows, active, strict=True):
        p = _logistic(sum(b * x for b, x in zip(coefficients, row, strict=True)))
        error, weight = outcome - p, p * (1 - p)
        for i, x in enumerate(row):
            gradient[i] += error * x
            for j in range(i + 1):
                curvature[i][j] += weight * x * row[j]
    for i in range(4):
        for j in range(i):
            curvature[j][i] = curvature[i][j]
    return solve(curvature, gradient)


def _features(recency: Recency) -> tuple[float, float, float, float]:
    silent, repeats, age = recency
    return 1.0, log1p(silent), log1p(repeats), log1p(age)


def _logistic(z: float) -> float:
    return 1 / (1 + exp(-z)) if z >= 0 else exp(z) / (1 + exp(z))
