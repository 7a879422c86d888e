"""What is wrong with a scorecard: every fault at once, each with the path that leads to it.

Paths are spelled as in the definition (`tree`, `0`, `parts`, `2`, `curve`, `1`), from the scorecard down.
"""

import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import date
from itertools import pairwise
from typing import Final

import msgspec

from health.bounds import (
    BANDS_MAX,
    BANDS_MIN,
    CAPS_MAX,
    CONDITIONS_MAX,
    CURVE_POINTS_MAX,
    EXPRESSIONS_MAX,
    MEASURES_MAX,
    NAME_CHARS_MAX,
    NOTE_CHARS_MAX,
    NUMBER_MAX,
    OVERRIDE_DAYS_MAX,
    SCORE_MAX,
    SCORE_MIN,
)
from health.catalogue import Metric, Purpose
from health.expressions import OPERANDS, Expression, Operation, Operator, metrics_in
from health.measurements import Measurement, Observed
from health.overrides import Override
from health.scorecards import (
    CHURNED_BAND,
    UNKNOWN_BAND,
    Band,
    Cap,
    Condition,
    Group,
    Measure,
    Part,
    Path,
    Scorecard,
    leaves_of,
)


class Fault(msgspec.Struct, frozen=True):
    """One thing to put right: where it is, and what to do."""

    path: Path
    message: str


_RESERVED_BANDS: Final = (UNKNOWN_BAND, CHURNED_BAND)
_ALIKE: Final = (Operator.ADD, Operator.SUBTRACT, Operator.MIN, Operator.MAX, Operator.COALESCE)


def validate(
    scorecard: Scorecard, catalogue: Mapping[str, Metric], others: Iterable[Scorecard] = ()
) -> tuple[Fault, ...]:
    """All faults of a scorecard; one without faults can be evaluated.

    `others` are the cards that are published already: together with them no score may be made of itself.
    """
    return tuple(_card_faults(scorecard, catalogue, others))


def override_faults(override: Override, *, today: date) -> tuple[Fault, ...]:
    """All faults of a person's word on a score."""
    return tuple(_override_faults(override, today))


def measurement_faults(measurements: Mapping[str, Measurement], *, as_of: date) -> tuple[Fault, ...]:
    """All faults of what was measured: numbers that are none, and observations that are still to come."""
    return tuple(_measurement_faults(measurements, as_of))


def selection_faults(scorecards: Sequence[Scorecard]) -> tuple[Fault, ...]:
    """What keeps the cards of one installation from scoring everybody: a purpose without a card for the rest."""
    scored = {(card.subject, card.purpose) for card in scorecards}
    for_all = {(card.subject, card.purpose) for card in scorecards if not card.when}
    return tuple(
        Fault(
            (subject.value, purpose),
            "has no scorecard for those whom no condition holds for; publish one without `when`",
        )
        for subject, purpose in sorted(scored - for_all, key=lambda one: (one[0].value, one[1]))
    )


def _card_faults(card: Scorecard, catalogue: Mapping[str, Metric], others: Iterable[Scorecard]) -> Iterator[Fault]:
    yield from _name_faults(card.key, ("key",))
    yield from _name_faults(card.purpose, ("purpose",))
    if card.version < 1:
        yield Fault(("version",), f"{card.version} is no version; the first is 1")
    yield from _when_faults(card.when)
    yield from _band_faults(card.bands)
    yield from _number_faults(card.min_coverage, ("minCoverage",), most=1.0)
    if card.min_coverage == 0:
        yield Fault(("minCoverage",), "is 0: a score of which nothing is known would be a guess; give more than 0")
    yield from _number_faults(card.hysteresis, ("hysteresis",), most=SCORE_MAX)
    yield from _expression_faults(card, catalogue)
    yield from _tree_faults(card, catalogue)
    yield from _cap_faults(card, catalogue)
    yield from _cycle_faults(card, catalogue, others)


def _name_faults(name: str, path: Path) -> Iterator[Fault]:
    if not name.strip():
        yield Fault(path, "is empty; give it a name")
    elif len(name) > NAME_CHARS_MAX:
        yield Fault(path, f"has {len(name)} characters; {NAME_CHARS_MAX} at most")


def _number_faults(number: float | None, path: Path, *, least: float = 0.0, most: float = math.inf) -> Iterator[Fault]:
    if number is None:
        return
    if not math.isfinite(number) or abs(number) > NUMBER_MAX:
        yield Fault(path, f"{number} is no number to calculate with; {NUMBER_MAX:g} at most")
    elif not least <= number <= most:
        allowed = f"{least:g} or more" if most == math.inf else f"{least:g} to {most:g}"
        yield Fault(path, f"is {number:g}; it has to be {allowed}")


def _when_faults(when: Mapping[str, Condition]) -> Iterator[Fault]:
    if len(when) > CONDITIONS_MAX:
        yield Fault(("when",), f"has {len(when)} conditions; {CONDITIONS_MAX} at most")
    for name, condition in when.items():
        path = ("when", name)
        yield from _name_faults(name, path)
        if condition.one_of is None and condition.at_least is None and condition.below is None:
            yield Fault(path, "asks for nothing; give in, atLeast or below, or leave the attribute out")
        if condition.one_of == ():
            yield Fault((*path, "in"), "is empty, so that nobody is scored; give the values that are meant")
        yield from _number_faults(condition.at_least, (*path, "atLeast"), least=-math.inf)
        yield from _number_faults(condition.below, (*path, "below"), least=-math.inf)
        if condition.at_least is not None and condition.below is not None and condition.at_least >= condition.below:
            yield Fault(
                (*path, "below"), f"{condition.below:g} is not above atLeast, {condition.at_least:g}: no value is both"
            )


def _band_faults(bands: Sequence[Band]) -> Iterator[Fault]:
    if not BANDS_MIN <= len(bands) <= BANDS_MAX:
        yield Fault(("bands",), f"has {len(bands)} bands; {BANDS_MIN} to {BANDS_MAX}")
    if bands and bands[0].start != SCORE_MIN:
        yield Fault(("bands", "0", "from"), f"is {bands[0].start:g}; the lowest band begins at 0, where scores do")
    seen: dict[str, int] = {}
    for index, band in enumerate(bands):
        path = ("bands", str(index))
        yield from _name_faults(band.key, (*path, "key"))
        yield from _number_faults(band.start, (*path, "from"), most=SCORE_MAX)
        if band.key in _RESERVED_BANDS:
            yield Fault((*path, "key"), f"{band.key!r} is said of those who have no score; take another name")
        if band.key in seen:
            yield Fault((*path, "key"), f"{band.key!r} is band {seen[band.key]} too; each needs its own name")
        seen.setdefault(band.key, index)
    for index, (below, band) in enumerate(pairwise(bands), 1):
        if not below.start < band.start:
            yield Fault(
                ("bands", str(index), "from"),
                f"{band.start:g} is not above the band before it, {below.start:g}; put them in rising order",
            )


def _metric_faults(card: Scorecard, catalogue: Mapping[str, Metric], metric: str, path: Path) -> Iterator[Fault]:
    if metric in card.expressions:
        return
    if metric not in catalogue:
        yield Fault(path, f"there is no metric {metric!r}; take one of the catalogue, or add it to expressions")
    elif card.subject not in catalogue[metric].subjects:
        whose = ", ".join(sorted(subject.value for subject in catalogue[metric].subjects))
        yield Fault(path, f"{metric!r} is not measured of {card.subject.value}, but of {whose}")


def _tree_faults(card: Scorecard, catalogue: Mapping[str, Metric]) -> Iterator[Fault]:
    count = len(leaves_of(card))
    if count == 0:
        yield Fault(("tree",), "has no measure; one is the least")
    if count > MEASURES_MAX:
        yield Fault(("tree",), f"has {count} measures; {MEASURES_MAX} at most")
    yield from _parts_faults(card, catalogue, card.tree, ("tree",))


def _parts_faults(
    card: Scorecard, catalogue: Mapping[str, Metric], parts: Sequence[Part], path: Path
) -> Iterator[Fault]:
    if parts and not any(part.weight > 0 for part in parts):
        yield Fault(path, "has weights of zero only; give one of its parts a weight above 0")
    seen: dict[str, int] = {}
    for index, part in enumerate(parts):
        here = (*path, str(index))
        name, field = (part.name, "name") if isinstance(part, Group) else (part.metric, "metric")
        if name in seen:
            yield Fault((*here, field), f"{name!r} is part {seen[name]} too; one of them is enough")
        seen.setdefault(name, index)
        yield from _number_faults(part.weight, (*here, "weight"))
        if isinstance(part, Group):
            yield from _name_faults(part.name, (*here, "name"))
            if not part.parts:
                yield Fault((*here, "parts"), "is empty; give it a measure, or leave the group out")
            yield from _parts_faults(card, catalogue, part.parts, (*here, "parts"))
        else:
            yield from _metric_faults(card, catalogue, part.metric, (*here, "metric"))
            yield from _measure_faults(part, here)


def _measure_faults(measure: Measure, path: Path) -> Iterator[Fault]:
    yield from _curve_faults(measure.curve, (*path, "curve"))
    yield from _number_faults(measure.constant_prior, (*path, "prior"), most=SCORE_MAX)
    yield from _number_faults(measure.shrink, (*path, "shrink"))
    yield from _number_faults(measure.fresh_days, (*path, "freshDays"))
    yield from _number_faults(measure.expires_days, (*path, "expiresDays"))
    if len(measure.note) > NOTE_CHARS_MAX:
        yield Fault((*path, "note"), f"has {len(measure.note)} characters; {NOTE_CHARS_MAX} at most")
    if (measure.fresh_days is None) != (measure.expires_days is None):
        missing = "freshDays" if measure.fresh_days is None else "expiresDays"
        yield Fault((*path, missing), "is missing: a value fades from freshDays to expiresDays; give both or neither")
    elif (
        measure.fresh_days is not None
        and measure.expires_days is not None
        and not measure.fresh_days < measure.expires_days
    ):
        yield Fault((*path, "expiresDays"), f"{measure.expires_days:g} is not after freshDays, {measure.fresh_days:g}")


def _curve_faults(curve: Sequence[tuple[float, float]], path: Path) -> Iterator[Fault]:
    if not 1 <= len(curve) <= CURVE_POINTS_MAX:
        yield Fault(path, f"has {len(curve)} points; 1 to {CURVE_POINTS_MAX}")
    for index, (value, score) in enumerate(curve):
        yield from _number_faults(value, (*path, str(index), "0"), least=-math.inf)
        yield from _number_faults(score, (*path, str(index), "1"), least=SCORE_MIN, most=SCORE_MAX)
    for index, ((before, _), (value, _)) in enumerate(pairwise(curve), 1):
        if math.isfinite(before) and math.isfinite(value) and not before < value:
            yield Fault(
                (*path, str(index), "0"),
                f"the value {value:g} falls back behind {before:g}; put the points in rising order of values",
            )


def _cap_faults(card: Scorecard, catalogue: Mapping[str, Metric]) -> Iterator[Fault]:
    if len(card.caps) > CAPS_MAX:
        yield Fault(("caps",), f"has {len(card.caps)} caps; {CAPS_MAX} at most")
    for index, cap in enumerate(card.caps):
        path = ("caps", str(index))
        yield from _metric_faults(card, catalogue, cap.metric, (*path, "metric"))
        yield from _bound_faults(cap.min, cap.max, cap.reason, path)
        yield from _range_faults(cap, path)
        yield from _number_faults(cap.expires_days, (*path, "expiresDays"))
        if cap.expires_days == 0:
            yield Fault((*path, "expiresDays"), "is 0, so that the cap never counts; leave it out for always")


def _range_faults(cap: Cap, path: Path) -> Iterator[Fault]:
    yield from _number_faults(cap.at_least, (*path, "atLeast"), least=-math.inf)
    yield from _number_faults(cap.at_most, (*path, "atMost"), least=-math.inf)
    if cap.at_least is None and cap.at_most is None:
        yield Fault(path, "has no atLeast and no atMost: say which values it is for")
    elif cap.at_least is not None and cap.at_most is not None and cap.at_least > cap.at_most:
        yield Fault((*path, "atMost"), f"{cap.at_most:g} is below atLeast, {cap.at_least:g}: no value is both")


def _bound_faults(low: float | None, high: float | None, reason: str, path: Path) -> Iterator[Fault]:
    """The faults of anything that bounds a score."""
    yield from _number_faults(low, (*path, "min"), most=SCORE_MAX)
    yield from _number_faults(high, (*path, "max"), most=SCORE_MAX)
    if low is None and high is None:
        yield Fault(path, "has no max and no min, so that it bounds nothing; give one")
    elif low is not None and high is not None and low > high:
        yield Fault((*path, "min"), f"{low:g} is above max, {high:g}; no score is both")
    if not reason.strip():
        yield Fault((*path, "reason"), "is empty; who reads the score has to know why it is bounded")
    elif len(reason) > NOTE_CHARS_MAX:
        yield Fault((*path, "reason"), f"has {len(reason)} characters; {NOTE_CHARS_MAX} at most")


def _expression_faults(card: Scorecard, catalogue: Mapping[str, Metric]) -> Iterator[Fault]:
    if len(card.expressions) > EXPRESSIONS_MAX:
        yield Fault(("expressions",), f"has {len(card.expressions)} expressions; {EXPRESSIONS_MAX} at most")
    reads = {name: set(metrics_in(expression)) for name, expression in card.expressions.items()}
    for name, expression in card.expressions.items():
        path = ("expressions", name)
        yield from _name_faults(name, path)
        if name in catalogue:
            yield Fault(path, f"{name!r} is a metric of the catalogue; give it another name")
        yield from _term_faults(card, catalogue, expression, path)
        if circle := _circle(name, reads):
            yield Fault(path, f"is made of itself: {' -> '.join(circle)}; break the circle")


def _term_faults(
    card: Scorecard, catalogue: Mapping[str, Metric], expression: Expression, path: Path
) -> Iterator[Fault]:
    if isinstance(expression, str):
        yield from _metric_faults(card, catalogue, expression, path)
    elif isinstance(expression, Operation):
        name = expression.operator.value
        least, most = OPERANDS[expression.operator]
        if not least <= len(expression.of) <= most:
            takes = f"{least}" if least == most else f"{least} to {most}"
            yield Fault((*path, name), f"takes {takes} operands; here are {len(expression.of)}")
        for index, part in enumerate(expression.of):
            yield from _term_faults(card, catalogue, part, (*path, name, str(index)))
        units = {catalogue[part].unit for part in expression.of if isinstance(part, str) and part in catalogue}
        if expression.operator in _ALIKE and len(units) > 1:
            yield Fault((*path, name), f"brings {' and '.join(sorted(units))} together; take metrics of one unit")
    else:
        yield from _number_faults(expression, path, least=-math.inf)


def _circle(start: str, reads: Mapping[str, Collection[str]]) -> list[str]:
    """The way from a name back to it, with the name at both ends; empty where there is none."""
    ways = [[start]]
    seen: set[str] = set()
    while ways:
        way = ways.pop()
        for name in sorted(reads.get(way[-1], ())):
            if name == start:
                return [*way, name]
            if name not in seen:
                seen.add(name)
                ways.append([*way, name])
    return []


def _cycle_faults(card: Scorecard, catalogue: Mapping[str, Metric], others: Iterable[Scorecard]) -> Iterator[Fault]:
    """A score that is made of scores must not come back to itself."""
    reads: dict[str, set[str]] = {}
    for one in [*(other for other in others if other.key != card.key), card]:
        read = {_place(each) for metric in _metrics_of(one) if metric in catalogue for each in catalogue[metric].reads}
        reads.setdefault(_place((one.subject, one.purpose)), set()).update(read)
    if circle := _circle(_place((card.subject, card.purpose)), reads):
        yield Fault(("tree",), f"is made of its own score: {' -> '.join(circle)}; leave out the metric that closes it")


def _metrics_of(card: Scorecard) -> Iterator[str]:
    yield from (leaf.measure.metric for leaf in leaves_of(card))
    yield from (cap.metric for cap in card.caps)
    for expression in card.expressions.values():
        yield from metrics_in(expression)


def _place(purpose: Purpose) -> str:
    subject, name = purpose
    return f"{subject.value} {name}"


def _override_faults(override: Override, today: date) -> Iterator[Fault]:
    yield from _bound_faults(override.min, override.max, override.reason, ())
    if override.set_on > today:
        yield Fault(("setOn",), f"{override.set_on} is in the future; a word on a score counts from the day it is said")
    if override.expires_on <= override.set_on:
        yield Fault(("expiresOn",), f"{override.expires_on} is not after setOn, {override.set_on}")
    elif (override.expires_on - override.set_on).days > OVERRIDE_DAYS_MAX:
        yield Fault(
            ("expiresOn",), f"{override.expires_on} is more than {OVERRIDE_DAYS_MAX} days on; say it again then"
        )


def _measurement_faults(measurements: Mapping[str, Measurement], as_of: date) -> Iterator[Fault]:
    for metric, found in measurements.items():
        if not isinstance(found, Observed):
            continue
        yield from _number_faults(found.value, (metric, "value"), least=-math.inf)
        yield from _number_faults(found.percentile, (metric, "percentile"), most=SCORE_MAX)
        yield from _number_faults(found.respondents, (metric, "respondents"))
        if found.age_days(as_of) < 0:
            yield Fault((metric, "observedAt"), f"{found.observed_at} is after {as_of}; it is not known yet then")
