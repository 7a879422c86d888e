"""Why a score moved between two days: parts that add up to the difference, also over versions and missing values.

A measure counts w * counted, and counted = p + known * (s - p). What changed of a product is shared between its factors
at their means over both days, which leaves no remainder:

    value     mean known * change of s
    aged      (mean s - mean p) * change of known
    baseline  (1 - mean known) * change of p
    weight    (mean counted - mean raw) * change of w       the raw score is a constant here: the shares add up to 1
"""

from collections.abc import Iterator
from datetime import date
from enum import Enum

import msgspec

from health.score import Driver, DriverState, Health
from health.scorecards import Path


class HealthChangeCause(Enum):
    """Why a measure, or the caps, moved the score.

    VALUE: its value moved, or became known. AGED: it counts more or less by its age, or is not known any more.
    WEIGHT: its share moved, by what applies or by the card's version. BASELINE: what is usual moved.
    ADJUSTMENT: caps and overrides.
    """

    VALUE = "VALUE"
    AGED = "AGED"
    WEIGHT = "WEIGHT"
    BASELINE = "BASELINE"
    ADJUSTMENT = "ADJUSTMENT"


class HealthChangePart(msgspec.Struct, frozen=True, kw_only=True):
    """What one cause did through one measure; `before` and `after` are of what the cause names."""

    metric: str
    path: Path
    cause: HealthChangeCause
    contribution: float
    before: float | None = None
    after: float | None = None


class HealthChange(msgspec.Struct, frozen=True, kw_only=True):
    """The difference of two scores, and its parts, the largest first. Without a score on both days there is neither."""

    since: date
    difference: float | None
    parts: tuple[HealthChangePart, ...]


def change_between(before: Health, after: Health, *, at_new_version: Health | None = None) -> HealthChange:
    """Explain after.score - before.score.

    Where another card (or version) scored the later day, `at_new_version` are the facts of the earlier day scored by the
    later card: then all that the card itself did is WEIGHT (and BASELINE), and only what the customer did is VALUE.
    """
    if before.score is None or after.score is None:
        return HealthChange(since=before.as_of, difference=None, parts=())
    if at_new_version is None or not any(driver.weight for driver in at_new_version.drivers):
        # Nothing of the later card applied on the earlier day: there is no way through it.
        steps = list(_step(before, after))
    else:
        assert at_new_version.as_of == before.as_of, "the same facts, by the later card"
        steps = [*map(_by_the_card, _step(before, at_new_version)), *_step(at_new_version, after)]
    return HealthChange(since=before.as_of, difference=after.score - before.score, parts=_merged(steps))


def _step(before: Health, after: Health) -> Iterator[HealthChangePart]:
    old = {driver.path: driver for driver in before.drivers}
    new = {driver.path: driver for driver in after.drivers}
    usual = (before.raw + after.raw) / 2
    for path in {**old, **new}:
        yield from _of_measure(old.get(path), new.get(path), usual)
    yield HealthChangePart(
        metric="adjustment",
        path=(),
        cause=HealthChangeCause.ADJUSTMENT,
        contribution=(after.bounded - after.raw) - (before.bounded - before.raw),
        before=before.bounded - before.raw,
        after=after.bounded - after.raw,
    )


def _of_measure(old: Driver | None, new: Driver | None, usual: float) -> Iterator[HealthChangePart]:
    first, last = _counting(old), _counting(new)
    if first is None and last is None:
        return
    weight = _mean(first.weight if first else 0.0, last.weight if last else 0.0)
    # A measure that counts on one day only keeps what it counted; its weight is what came or went.
    first_known, last_known = first or last, last or first
    assert first_known is not None
    assert last_known is not None
    yield from _of_value(first_known, last_known, weight)
    yield HealthChangePart(
        metric=last_known.metric,
        path=last_known.path,
        cause=HealthChangeCause.WEIGHT,
        contribution=(_mean(first_known.counted, last_known.counted) - usual)
        * ((last.weight if last else 0.0) - (first.weight if first else 0.0)),
        before=first.weight if first else 0.0,
        after=last.weight if last else 0.0,
    )


def _of_value(first: Driver, last: Driver, weight: float) -> Iterator[HealthChangePart]:
    # Where no value was known on one day, that of the other stands in: it counts nothing there, whatever it is.
    score_before = first.score if first.score is not None else last.score
    score_after = last.score if last.score is not None else first.score
    if score_before is not None and score_after is not None:
        known = _mean(first.known, last.known)
        yield _part(
            last, HealthChangeCause.VALUE, weight * known * (score_after - score_before), first.value, last.value
        )
        became_known = first.score is None
        yield _part(
            last,
            HealthChangeCause.VALUE if became_known else HealthChangeCause.AGED,
            weight * (_mean(score_before, score_after) - _mean(first.prior, last.prior)) * (last.known - first.known),
            first.value if became_known else first.known,
            last.value if became_known else last.known,
        )
    share = weight * (1.0 - _mean(first.known, last.known))
    yield _part(last, HealthChangeCause.BASELINE, share * (last.prior - first.prior), first.prior, last.prior)


def _part(
    driver: Driver, cause: HealthChangeCause, contribution: float, before: float | None, after: float | None
) -> HealthChangePart:
    return HealthChangePart(
        metric=driver.metric, path=driver.path, cause=cause, contribution=contribution, before=before, after=after
    )


def _by_the_card(part: HealthChangePart) -> HealthChangePart:
    """The same facts by another card: a curve that moves a score is the card's doing, as a weight is."""
    if part.cause in {HealthChangeCause.VALUE, HealthChangeCause.AGED}:
        return msgspec.structs.replace(part, cause=HealthChangeCause.WEIGHT, before=None, after=None)
    return part


def _merged(parts: list[HealthChangePart]) -> tuple[HealthChangePart, ...]:
    """One part for each measure and cause, without those that did nothing; the largest first."""
    merged: dict[tuple[Path, HealthChangeCause], HealthChangePart] = {}
    for part in parts:
        known = merged.get((part.path, part.cause))
        merged[part.path, part.cause] = part if known is None else _together(known, part)
    moved = [part for part in merged.values() if part.contribution]
    causes = list(HealthChangeCause)
    return tuple(sorted(moved, key=lambda part: (-abs(part.contribution), causes.index(part.cause), part.path)))


def _together(one: HealthChangePart, other: HealthChangePart) -> HealthChangePart:
    return msgspec.structs.replace(
        other,
        contribution=one.contribution + other.contribution,
        before=other.before if one.before is None else one.before,
        after=one.after if other.after is None else other.after,
    )


def _counting(driver: Driver | None) -> Driver | None:
    return None if driver is None or driver.state is DriverState.NOT_APPLICABLE else driver


def _mean(one: float, other: float) -> float:
    return (one + other) / 2
