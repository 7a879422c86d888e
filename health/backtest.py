"""Would this card have warned? Scores as they were known before customers left or stayed, against what then happened.

The caller scores each subject as of a number of days before its outcome, with nothing that was learned later, nor dated
after the customer gave notice (history.py). What is said here is said with its counts, and is left out where they are small.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from math import fsum, sqrt
from statistics import NormalDist, median
from typing import Final

import msgspec

from health.score import Driver, DriverState, Health
from health.scorecards import Path

CHURNED_MIN: Final = 30
_Z: Final = NormalDist().inv_cdf(0.975)


class PastOutcome(msgspec.Struct, frozen=True, kw_only=True):
    """A subject that churned or stayed, with its score some days before. `history` are its earlier scores, by day."""

    subject: str
    churned: bool
    on: date
    scored: Health
    history: tuple[Health, ...] = ()


class Auc(msgspec.Struct, frozen=True, kw_only=True):
    """How often one who stayed scored higher than one who churned; half for equals. 0.5 is chance.

    `value` is None where fewer than 30 churned, or nobody stayed.
    """

    value: float | None
    churned: int
    stayed: int


class BandRate(msgspec.Struct, frozen=True, kw_only=True):
    """How many of a band churned, and where the true share is with 95 % confidence (Wilson)."""

    band: str
    subjects: int
    churned: int
    low: float
    high: float


class MeasureWorth(msgspec.Struct, frozen=True, kw_only=True):
    """What a measure tells by itself, and what the card would lose without it (below zero: it would gain)."""

    path: Path
    auc: Auc
    auc_lost_without: float | None


class Missed(msgspec.Struct, frozen=True):
    """A subject that churned with a score that gave no warning."""

    subject: str
    score: float


class Backtest(msgspec.Struct, frozen=True, kw_only=True):
    """What a card was worth. `unscored` are outcomes without a score, of which nothing is said.

    `lead_days` is the median time from when a churned subject fell below the warning score, and stayed there, to its
    outcome; None if nobody was warned of. `worst_tenth_lift` is how many times as often the lowest tenth churned.
    """

    auc: Auc
    bands: tuple[BandRate, ...]
    measures: tuple[MeasureWorth, ...]
    missed: tuple[Missed, ...]
    lead_days: float | None
    warned: int
    worst_tenth_lift: float | None
    unscored: int


def backtest(outcomes: Sequence[PastOutcome], *, warning_below: float, healthy_from: float) -> Backtest:
    """Compare scores with outcomes. A warning is a score below the one bound; missed is a churn above the other."""
    scored = [(one.scored.score, one) for one in outcomes if one.scored.score is not None]
    churned = [(score, one) for score, one in scored if one.churned]
    leads = [lead for _, one in churned if (lead := lead_days(one, warning_below)) is not None]
    missed = sorted(((score, one.subject) for score, one in churned if score >= healthy_from), reverse=True)
    overall = auc_of((score, one.churned) for score, one in scored)
    return Backtest(
        auc=overall,
        bands=_bands([one for _, one in scored]),
        measures=_measures([one for _, one in scored], overall),
        missed=tuple(Missed(subject, score) for score, subject in missed),
        lead_days=median(leads) if leads else None,
        warned=len(leads),
        worst_tenth_lift=_lift([(score, one.churned) for score, one in scored]),
        unscored=len(outcomes) - len(scored),
    )


def auc_of(scored: Iterable[tuple[float, bool]]) -> Auc:
    """The area under the curve, of scores with whether the subject churned; higher scores are to be those who stayed."""
    pairs = list(scored)
    churned = sorted(score for score, left in pairs if left)
    stayed = [score for score, left in pairs if not left]
    if len(churned) < CHURNED_MIN or not stayed:
        return Auc(value=None, churned=len(churned), stayed=len(stayed))
    won = sum(bisect_left(churned, score) + bisect_right(churned, score) for score in stayed)
    return Auc(value=won / (2 * len(churned) * len(stayed)), churned=len(churned), stayed=len(stayed))


def wilson(count: int, total: int) -> tuple[float, float]:
    """Where the true share is with 95 % confidence; anywhere, of none."""
    if not total:
        return 0.0, 1.0
    share, z = count / total, _Z * _Z
    middle = share + z / (2 * total)
    half = _Z * sqrt(share * (1 - share) / total + z / (4 * total * total))
    scale = 1 + z / total
    return max(0.0, (middle - half) / scale), min(1.0, (middle + half) / scale)


def lead_days(outcome: PastOutcome, warning_below: float) -> int | None:
    """How many days before its outcome a subject's score went below the warning score for the last time.

    None if it was not below it at the end. Days without a score neither begin nor end a warning.
    """
    days = sorted([*outcome.history, outcome.scored], key=lambda health: health.as_of)
    since: date | None = None
    for health in days:
        if health.score is not None and health.as_of < outcome.on:
            since = (since or health.as_of) if health.score < warning_below else None
    return None if since is None else (outcome.on - since).days


def without(health: Health, path: Path) -> float | None:
    """The raw score, had the card not had this measure: the others take its weight. None if it was the only one."""
    rest = [driver for driver in health.drivers if driver.path != path]
    weight = fsum(driver.weight for driver in rest)
    return fsum(driver.weight * driver.counted for driver in rest) / weight if weight > 0 else None


def _bands(outcomes: Sequence[PastOutcome]) -> tuple[BandRate, ...]:
    rates: dict[str, list[bool]] = {}
    for one in sorted(outcomes, key=lambda one: one.scored.score or 0.0):
        rates.setdefault(one.scored.band, []).append(one.churned)
    found = []
    for band, churned in rates.items():
        low, high = wilson(sum(churned), len(churned))
        found.append(BandRate(band=band, subjects=len(churned), churned=sum(churned), low=low, high=high))
    return tuple(found)


def _measures(outcomes: Sequence[PastOutcome], overall: Auc) -> tuple[MeasureWorth, ...]:
    """Each measure by its own score where it was known; those that the card would miss most come first."""
    if overall.value is None:
        return ()
    by_path = [{driver.path: driver for driver in one.scored.drivers} for one in outcomes]
    raw = auc_of((one.scored.raw, one.churned) for one in outcomes).value
    found = []
    for path in dict.fromkeys(path for drivers in by_path for path in drivers):
        rest = [without(one.scored, path) for one in outcomes]
        kept = auc_of((score, one.churned) for score, one in zip(rest, outcomes, strict=True) if score is not None)
        lost = None if kept.value is None or raw is None or None in rest else raw - kept.value
        alone = auc_of(_known(path, by_path, outcomes))
        found.append(MeasureWorth(path=path, auc=alone, auc_lost_without=lost))
    return tuple(sorted(found, key=lambda worth: -(worth.auc_lost_without or 0.0)))


def _known(
    path: Path, by_path: Sequence[Mapping[Path, Driver]], outcomes: Sequence[PastOutcome]
) -> Iterable[tuple[float, bool]]:
    for drivers, one in zip(by_path, outcomes, strict=True):
        driver = drivers.get(path)
        if driver is not None and driver.score is not None and driver.state is not DriverState.NOT_APPLICABLE:
            yield driver.score, one.churned


def _lift(scored: Sequence[tuple[float, bool]]) -> float | None:
    churned = sum(left for _, left in scored)
    if churned < CHURNED_MIN:
        return None
    tenth = sorted(scored, key=lambda pair: pair[0])[: max(1, round(len(scored) / 10))]
    return sum(left for _, left in tenth) / len(tenth) / (churned / len(scored))
