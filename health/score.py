"""The one equation: score = baseline + the drivers' contributions + adjustment.

For measure i with its share w of what applies, its prior p and the score s of its value:

    known   = fresh * n / (n + k)             0 where the value is unknown or has expired
    counted = p + known * (s - p)
    driver  = w * (counted - p)               so what is unknown contributes exactly 0
    baseline = sum of w * p,  raw = sum of w * counted,  coverage = sum of w * known

Caps and overrides then bound what comes out; that is the adjustment. Nothing is rounded.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime
from enum import Enum
from math import fsum
from typing import Final, assert_never

import msgspec

from health.bands import band_after, band_of
from health.curves import score_at
from health.expressions import measured
from health.measurements import Measurement, NotApplicable, Observed, Unknown
from health.overrides import Override
from health.scorecards import Cap, Leaf, Measure, Missing, Path, Scorecard, leaves_of


class DriverState(Enum):
    """What is known of a driver's value. Stale is a value that counts less than when it was fresh, down to nothing."""

    OBSERVED = "OBSERVED"
    UNKNOWN = "UNKNOWN"
    STALE = "STALE"
    NOT_APPLICABLE = "NOT_APPLICABLE"


class Driver(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What one measure does to the score. `weight` is its share of all that applies, `known` how much of it counts.

    `score` is what its value comes to by the curve; `prior` what it comes to where nothing is known.
    """

    path: Path
    metric: str
    state: DriverState
    weight: float
    prior: float
    known: float
    contribution: float
    value: float | None = None
    score: float | None = None
    observed_at: datetime | None = None
    reason: str | None = None

    @property
    def counted(self) -> float:
        """The score that goes into the sum: the prior, as far as nothing better is known."""
        return self.prior if self.score is None else self.prior + self.known * (self.score - self.prior)


class Adjustment(msgspec.Struct, frozen=True):
    """How far caps and overrides moved the score, and why."""

    contribution: float
    reason: str


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """A score with its reasons. `score` is None where less than the card's share is known; `raw` is before caps."""

    scorecard: str
    version: int
    as_of: date
    score: float | None
    band: str
    coverage: float
    baseline: float
    raw: float
    drivers: tuple[Driver, ...]
    adjustment: Adjustment | None = None

    @property
    def bounded(self) -> float:
        """The raw score within caps and overrides, however little is known."""
        return self.raw + (self.adjustment.contribution if self.adjustment else 0.0)


_NONE: Final[Mapping[Path, float]] = {}


def evaluate(
    scorecard: Scorecard,
    measurements: Mapping[str, Measurement],
    *,
    as_of: date,
    priors: Mapping[Path, float] = _NONE,
    overrides: Sequence[Override] = (),
    previous_band: str | None = None,
) -> Health:
    """Score a subject by a card that validate() has nothing against, from what is known of each metric.

    A metric that is not among `measurements` was never observed. `priors` are the medians of peers by path, frozen with
    the version; others are the card's. `previous_band` is the band of the day before, for the hysteresis.
    """
    read = _Reader(scorecard, measurements, as_of)
    leaves = leaves_of(scorecard)
    found = [(leaf, _settled(leaf.measure, read(leaf.measure.metric))) for leaf in leaves]
    applicable = fsum(leaf.weight for leaf, one in found if not isinstance(one, NotApplicable))
    drivers = tuple(
        _driver(leaf, one, leaf.weight / applicable if applicable else 0.0, priors, as_of) for leaf, one in found
    )
    baseline = fsum(driver.weight * driver.prior for driver in drivers)
    coverage = min(1.0, fsum(driver.weight * driver.known for driver in drivers))
    raw = fsum([baseline, *(driver.contribution for driver in drivers)])
    adjustment = _adjustment(raw, _bounds(scorecard, read, overrides, as_of))
    score = raw + (adjustment.contribution if adjustment else 0.0)
    known = applicable > 0 and coverage >= scorecard.min_coverage
    return Health(
        scorecard=scorecard.key,
        version=scorecard.version,
        as_of=as_of,
        score=score if known else None,
        band=band_after(scorecard.bands, score, previous_band, scorecard.hysteresis)
        if known
        else band_of(scorecard.bands, None),
        coverage=coverage,
        baseline=baseline,
        raw=raw,
        drivers=drivers,
        adjustment=adjustment,
    )


class _Reader:
    """What is known of metrics and of the card's own expressions on them."""

    def __init__(self, scorecard: Scorecard, measurements: Mapping[str, Measurement], as_of: date) -> None:
        for one in measurements.values():
            if isinstance(one, Observed) and one.observed_at is not None:
                assert one.age_days(as_of) >= 0, "what is not known yet is left out before"
        self._expressions = scorecard.expressions
        self._found = dict(measurements)

    def __call__(self, metric: str) -> Measurement:
        if metric in self._expressions and metric not in self._found:
            self._found[metric] = measured(self._expressions[metric], self)
        return self._found.get(metric, _NEVER)


_NEVER: Final = Unknown()


def _settled(measure: Measure, found: Measurement) -> Measurement:
    """What counts: a value's percentile where peers are compared, and for an unknown one what the card says."""
    if isinstance(found, Observed) and measure.peers and found.percentile is None:
        found = Unknown("too few peers to compare with")
    if not isinstance(found, Unknown):
        return found
    match measure.missing:
        case Missing.PRIOR:
            return found
        case Missing.SKIP:
            return NotApplicable(f"{found.reason}; the card leaves it out then")
        case Missing.ZERO:
            return Observed(0.0, percentile=0.0)
        case never:
            assert_never(never)


def _driver(leaf: Leaf, found: Measurement, weight: float, priors: Mapping[Path, float], as_of: date) -> Driver:
    measure = leaf.measure
    prior = priors.get(leaf.path, measure.constant_prior)
    if isinstance(found, Observed):
        value = found.percentile if measure.peers and found.percentile is not None else found.value
        score = score_at(measure.curve, value)
        fresh = _freshness(measure, found, as_of)
        respondents = 1 if found.respondents is None else found.respondents
        known = fresh * (respondents / (respondents + measure.shrink) if measure.shrink else 1.0)
        return Driver(
            path=leaf.path,
            metric=measure.metric,
            state=DriverState.OBSERVED if fresh == 1 else DriverState.STALE,
            weight=weight,
            prior=prior,
            known=known,
            contribution=weight * known * (score - prior),
            value=found.value,
            score=score,
            observed_at=found.observed_at,
            reason=None if fresh else "expired",
        )
    applicable = isinstance(found, Unknown)
    return Driver(
        path=leaf.path,
        metric=measure.metric,
        state=DriverState.UNKNOWN if applicable else DriverState.NOT_APPLICABLE,
        weight=weight if applicable else 0.0,
        prior=prior,
        known=0.0,
        contribution=0.0,
        reason=found.reason,
    )


def _freshness(measure: Measure, found: Observed, as_of: date) -> float:
    if found.expired(as_of):
        return 0.0
    if measure.fresh_days is None or measure.expires_days is None:
        return 1.0
    left = (measure.expires_days - found.age_days(as_of)) / (measure.expires_days - measure.fresh_days)
    return max(0.0, min(1.0, left))


class _Bound(msgspec.Struct, frozen=True):
    low: float | None
    high: float | None
    reason: str


def _bounds(scorecard: Scorecard, read: _Reader, overrides: Iterable[Override], as_of: date) -> list[list[_Bound]]:
    """What bounds the score: the caps together, then each override, whose word is the last."""
    caps = [_Bound(cap.min, cap.max, cap.reason) for cap in scorecard.caps if _holds(cap, read(cap.metric), as_of)]
    said = [_Bound(one.min, one.max, one.reason) for one in overrides if one.holds_on(as_of)]
    return [caps, *([bound] for bound in said)]


def _holds(cap: Cap, found: Measurement, as_of: date) -> bool:
    if not isinstance(found, Observed) or found.expired(as_of):
        return False
    if cap.expires_days is not None and found.age_days(as_of) >= cap.expires_days:
        return False
    return (cap.at_least is None or found.value >= cap.at_least) and (cap.at_most is None or found.value <= cap.at_most)


def _adjustment(raw: float, stages: Iterable[Sequence[_Bound]]) -> Adjustment | None:
    """Where a lowest and a highest score contradict each other, the highest holds: bad news is not talked away."""
    score, reasons = raw, []
    for bounds in stages:
        before = score
        score = max([score, *(bound.low for bound in bounds if bound.low is not None)])
        score = min([score, *(bound.high for bound in bounds if bound.high is not None)])
        if score != before:
            reasons += [bound.reason for bound in bounds if score in (bound.low, bound.high)]
    return Adjustment(score - raw, "; ".join(dict.fromkeys(reasons))) if reasons else None
