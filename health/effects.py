"""What an intervention did, without making believe.

Interventions are made where scores are bad, and bad scores recover by themselves. So either some are held out by lot and
compared (nothing is fairer), or those who were treated are compared with others who could have been, given the path that
both had before (ANCOVA). Beside it stand the naive difference, and the effect on a time before the intervention, which it
cannot have had: where that is not zero, the comparison is not one. "Not enough" is an answer.
"""

import hashlib
from collections.abc import Sequence
from math import fsum, sqrt
from typing import Final

import msgspec

from health.linear import interval, least_squares

TREATED_MIN: Final = 10
CONTROLS_MIN: Final = 20
# Weeks before the intervention: four that a placebo is taken on, and twelve that subjects are compared by.
PLACEBO_WEEKS: Final = 4
PATH_WEEKS: Final = 12
PRE_WEEKS: Final = PLACEBO_WEEKS + PATH_WEEKS


class Followed(msgspec.Struct, frozen=True, kw_only=True):
    """A subject that could have been treated: the metric for 16 weeks before, the earliest first, and afterwards.

    Subjects of one cluster, as users of one account, are not independent of each other; alone, if it is empty.
    """

    subject: str
    treated: bool
    before: tuple[float, ...]
    after: float
    segment: str = ""
    cluster: str = ""


class Estimate(msgspec.Struct, frozen=True):
    """A value, and where the true one is with 95 % confidence."""

    value: float
    low: float
    high: float


class Effect(msgspec.Struct, frozen=True, kw_only=True):
    """What an intervention did to a metric. `not_enough` says why it must not be relied on; empty if nothing speaks so.

    `naive` is after less before of those who were treated, whatever happened to all others. `left_out` are subjects
    that nobody of the other side resembles.
    """

    treated: int
    controls: int
    left_out: int
    effect: Estimate | None
    placebo: Estimate | None
    naive: float | None
    not_enough: tuple[str, ...]


def held_out(subject: str, intervention: str, percent: float) -> bool:
    """Whether a subject is left untreated for comparison: by lot, always the same, and for each intervention anew."""
    digest = hashlib.sha256(f"{len(intervention)}:{intervention}:{subject}".encode()).digest()
    return int.from_bytes(digest[:8]) < percent / 100 * 2**64


def effect_of_trial(treated: Sequence[float], held: Sequence[float]) -> Effect:
    """The difference of means between those treated and those held out by lot, by Welch; changes or values alike."""
    not_enough = _too_few(len(treated), len(held))
    estimate = _welch(treated, held)
    return Effect(
        treated=len(treated),
        controls=len(held),
        left_out=0,
        effect=estimate,
        placebo=None,
        naive=fsum(treated) / len(treated) if treated else None,
        not_enough=not_enough,
    )


def effect_after(subjects: Sequence[Followed]) -> Effect:
    """The effect given the path before: the change on treated, last value, means of 4 and 12 weeks, and segment.

    The placebo is the same for the mean of the four weeks before those twelve.
    """
    for one in subjects:
        assert len(one.before) == PRE_WEEKS, "sixteen weeks before"
    compared = _overlapping(subjects)
    treated = [one for one in compared if one.treated]
    controls = len(compared) - len(treated)
    effect = _adjusted(compared, [one.after - one.before[-1] for one in compared])
    placebo = _adjusted(compared, [_mean(one.before[:PLACEBO_WEEKS]) - one.before[-1] for one in compared])
    not_enough = list(_too_few(len(treated), controls))
    if effect is None or placebo is None:
        not_enough.append("those treated and the others differ so that the effect cannot be told from the rest")
    elif not placebo.low <= 0 <= placebo.high:
        not_enough.append("there is an effect before the intervention: both groups were different already")
    everybody = [one for one in subjects if one.treated]
    return Effect(
        treated=len(treated),
        controls=controls,
        left_out=len(subjects) - len(compared),
        effect=effect,
        placebo=placebo,
        naive=_mean([one.after - one.before[-1] for one in everybody]) if everybody else None,
        not_enough=tuple(not_enough),
    )


def _too_few(treated: int, controls: int) -> tuple[str, ...]:
    found = []
    if treated < TREATED_MIN:
        found.append(f"{treated} treated, {TREATED_MIN} at least")
    if controls < CONTROLS_MIN:
        found.append(f"{controls} to compare with, {CONTROLS_MIN} at least")
    return tuple(found)


def _overlapping(subjects: Sequence[Followed]) -> list[Followed]:
    """Those whose last value before is within the range of both sides."""
    treated = [one.before[-1] for one in subjects if one.treated]
    controls = [one.before[-1] for one in subjects if not one.treated]
    if not treated or not controls:
        return list(subjects)
    low, high = max(min(treated), min(controls)), min(max(treated), max(controls))
    return [one for one in subjects if low <= one.before[-1] <= high]


def _adjusted(subjects: Sequence[Followed], outcomes: Sequence[float]) -> Estimate | None:
    segments = sorted({one.segment for one in subjects})[1:]
    rows = [
        [
            # Last, so that the column is left out (and the answer None) where the others make it up.
            one.before[-1],
            _mean(one.before[-4:]),
            _mean(one.before[-PATH_WEEKS:]),
            *(float(one.segment == segment) for segment in segments),
            float(one.treated),
        ]
        for one in subjects
    ]
    clusters = [one.cluster for one in subjects] if any(one.cluster for one in subjects) else None
    fit = least_squares(rows, outcomes, clusters) if rows else None
    if fit is None or fit.errors[-1] is None:
        return None
    low, high = interval(fit.coefficients[-1], fit.errors[-1], fit.degrees)
    return Estimate(fit.coefficients[-1], low, high)


def _welch(treated: Sequence[float], held: Sequence[float]) -> Estimate | None:
    if min(len(treated), len(held)) <= 1:
        return None
    one, other = _variance_of_mean(treated), _variance_of_mean(held)
    difference = _mean(treated) - _mean(held)
    if not one + other:
        return Estimate(difference, difference, difference)
    degrees = (one + other) ** 2 / (one**2 / (len(treated) - 1) + other**2 / (len(held) - 1))
    return Estimate(difference, *interval(difference, sqrt(one + other), degrees))


def _variance_of_mean(values: Sequence[float]) -> float:
    mean = _mean(values)
    return fsum((value - mean) ** 2 for value in values) / (len(values) - 1) / len(values)


def _mean(values: Sequence[float]) -> float:
    return fsum(values) / len(values)
