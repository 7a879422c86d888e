"""Scorecards and measurements by chance, and a second way to score: fractions, down the tree, one leaf after another."""

import random
from datetime import UTC, date, datetime, time, timedelta
from fractions import Fraction
from itertools import pairwise
from typing import Final, TypeAlias

from health.measurements import Measurement, NotApplicable, Observed, Unknown
from health.overrides import Override
from health.scorecards import Band, Cap, Group, Measure, Missing, Part, Path, Scorecard, Subject

AS_OF: Final = date(2026, 3, 1)
METRICS: Final = tuple(f"metric_{number}" for number in range(12))
BANDS: Final = (Band(start=0, key="low"), Band(start=40, key="middle"), Band(start=70, key="high"))

# Share of the whole tree, prior, how much is known, and the value's score; nothing known where that is None.
Counted: TypeAlias = tuple[Fraction, Fraction, Fraction, Fraction | None]


def utc(day: date) -> datetime:
    """Noon of a day."""
    return datetime.combine(day, time(12), tzinfo=UTC)


def card(*tree: Part, **fields: object) -> Scorecard:
    """A card with this tree, which scores from whatever is known."""
    plain = {"key": "card", "version": 1, "subject": Subject.ACCOUNT, "bands": BANDS, "min_coverage": 1e-9}
    return Scorecard(**{**plain, "tree": tree, **fields})  # type: ignore[arg-type]


def measure(metric: str, weight: float = 1, **fields: object) -> Measure:
    """A measure whose score is its value."""
    return Measure(**{"metric": metric, "weight": weight, "curve": ((0, 0), (100, 100)), **fields})  # type: ignore[arg-type]


def random_measure(rng: random.Random, metric: str) -> Measure:
    """A measure with a curve of up to five points, and every way of fading and missing."""
    values = sorted(rng.sample(range(-50, 51), rng.randint(1, 5)))
    fades = rng.random() < 0.5
    fresh = rng.choice([0, 10, 30])
    return Measure(
        metric=metric,
        weight=rng.choice([0.0, 0.1, 1.0, 3.0, 1e6, rng.uniform(0, 100)]),
        curve=tuple((value / 7, rng.choice([0.0, 100.0, rng.uniform(0, 100)])) for value in values),
        prior=rng.choice([0.0, 50.0, rng.uniform(0, 100)]),
        peers=rng.random() < 0.1,
        missing=rng.choice(list(Missing)),
        fresh_days=fresh if fades else None,
        expires_days=fresh + rng.choice([1, 60, 180]) if fades else None,
        shrink=rng.choice([0.0, 0.0, 5.0]),
    )


def random_parts(rng: random.Random, metrics: list[str], level: int = 1) -> tuple[Part, ...]:
    """A tree of up to four levels with these metrics; every group has a weight above zero somewhere in it."""
    parts: list[Part] = []
    while metrics:
        if level < 4 and len(metrics) > 1 and rng.random() < 0.5:
            taken, metrics = metrics[: (cut := rng.randint(1, len(metrics)))], metrics[cut:]
            inner = random_parts(rng, taken, level + 1)
            parts.append(Group(name=f"group {len(parts)}", weight=rng.choice([0.5, 2.0, 60.0]), parts=inner))
        else:
            parts.append(random_measure(rng, metrics.pop()))
    if not any(part.weight > 0 for part in parts):
        parts.append(Measure(metric="always", weight=1, curve=((0, 0), (1, 100))))
    return tuple(parts)


def random_card(rng: random.Random, version: int = 1) -> Scorecard:
    """A card with any tree on some of the metrics, with caps and a floor at times."""
    caps = [
        Cap(metric=rng.choice(METRICS), at_least=rng.uniform(-5, 5), max=rng.uniform(0, 100), reason="too high"),
        Cap(metric=rng.choice(METRICS), at_most=rng.uniform(-5, 5), min=rng.uniform(0, 100), reason="too low"),
    ]
    metrics = rng.sample(METRICS, rng.randint(1, len(METRICS)))
    tree = random_parts(rng, metrics)
    return card(*tree, version=version, caps=tuple(caps[: rng.choice([0, 0, 1, 2])]))


def random_measurements(rng: random.Random) -> dict[str, Measurement]:
    """Something of each kind: values fresh, old and of few respondents; zeros; unknown; not applicable; nothing said."""
    found: dict[str, Measurement] = {}
    for metric in METRICS:
        day = AS_OF - timedelta(days=rng.randint(0, 250))
        kinds: list[Measurement | None] = [
            Observed(0.0),
            Observed(rng.uniform(-8, 8)),
            Observed(
                rng.uniform(-8, 8), utc(day), respondents=rng.choice([None, 0, 3]), percentile=rng.uniform(0, 100)
            ),
            Observed(rng.uniform(-8, 8), utc(day), expires_at=utc(day + timedelta(days=100))),
            Unknown(),
            NotApplicable(),
            None,
        ]
        kind = rng.choice(kinds)
        if kind is not None:
            found[metric] = kind
    return found


def random_overrides(rng: random.Random) -> list[Override]:
    """Mostly none; at times one that holds, or held once."""
    if rng.random() < 0.8:
        return []
    set_on = AS_OF - timedelta(days=rng.randint(0, 60))
    bound = rng.uniform(0, 100)
    return [Override(reason="said so", min=bound, max=bound, set_on=set_on, expires_on=set_on + timedelta(days=30))]


# ---------------------------------------------------------------- the second way


def counted(scorecard: Scorecard, found: dict[str, Measurement], priors: dict[Path, float]) -> list[Counted]:
    """What each applicable leaf counts, with shares that add up to one."""
    leaves = list(_down(scorecard.tree, (), Fraction(1), found, priors))
    whole = sum((share for share, *_ in leaves), Fraction(0))
    return [(share / whole, prior, known, score) for share, prior, known, score in leaves] if whole else []


def _down(
    parts: tuple[Part, ...],
    path: Path,
    share: Fraction,
    found: dict[str, Measurement],
    priors: dict[Path, float],
) -> list[Counted]:
    leaves: list[Counted] = []
    whole = sum(Fraction(part.weight) for part in parts)
    for part in parts:
        own = share * Fraction(part.weight) / whole
        if isinstance(part, Group):
            leaves += _down(part.parts, (*path, part.name), own, found, priors)
            continue
        prior = Fraction(priors.get((*path, part.metric), part.constant_prior))
        one = found.get(part.metric, Unknown())
        if isinstance(one, Observed) and part.peers and one.percentile is None:
            one = Unknown()
        if isinstance(one, NotApplicable) or (isinstance(one, Unknown) and part.missing is Missing.SKIP):
            continue
        if isinstance(one, Unknown):
            zero = part.missing is Missing.ZERO
            known = _known(part, Observed(0.0)) if zero else Fraction(0)
            leaves.append((own, prior, known, _line(part, Fraction(0)) if zero else None))
        else:
            value = one.percentile if part.peers and one.percentile is not None else one.value
            leaves.append((own, prior, _known(part, one), _line(part, Fraction(value))))
    return leaves


def _line(part: Measure, value: Fraction) -> Fraction:
    """The score by the line's equation, on the first stretch that the value is in."""
    points = [(Fraction(x), Fraction(y)) for x, y in part.curve]
    value = min(max(value, points[0][0]), points[-1][0])
    for (left, low), (right, high) in pairwise(points):
        if left <= value <= right:
            return low + (high - low) * (value - left) / (right - left)
    return points[0][1]


def _known(part: Measure, one: Observed) -> Fraction:
    age = 0 if one.observed_at is None else (AS_OF - one.observed_at.date()).days
    known = Fraction(1)
    if part.fresh_days is not None and part.expires_days is not None:
        fresh, gone = Fraction(part.fresh_days), Fraction(part.expires_days)
        known = Fraction(1) if age <= fresh else max(Fraction(0), 1 - (age - fresh) / (gone - fresh))
    if one.expires_at is not None and one.expires_at.date() <= AS_OF:
        known = Fraction(0)
    if part.shrink:
        respondents = 1 if one.respondents is None else one.respondents
        known *= Fraction(respondents) / (respondents + Fraction(part.shrink))
    return known
