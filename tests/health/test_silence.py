"""Silence: against the formula in other words, and against what became of real customers."""

import importlib.util
import math
import random
from collections import defaultdict
from datetime import date, timedelta
from functools import cache
from pathlib import Path
from statistics import fmean

import pytest

from health.backtest import auc_of
from health.silence import UNCALIBRATED, ActivityModel, Recency, fit_activity, silence

HORIZON = timedelta(days=28)
# Coefficients are fitted on the 28 days before each of these, and tried on the 28 days after it.
CUTS = (date(1997, 10, 28), date(1998, 1, 15), date(1998, 3, 31), date(1998, 5, 31))


def test_silence_is_the_law_that_the_page_says() -> None:
    """e^-silence is the mean of e^(-rate r) over rates of the Gamma law that the gaps leave: by numeric integration."""
    for silent, gaps, total, usual in (
        (10.0, 3, 12.0, 3.0),
        (40.0, 8, 60.0, 10.0),
        (2.0, 5, 30.0, 1.0),
        (0.0, 3, 9.0, 2.0),
    ):
        shape, rate = 1.5 + gaps, 1.5 * usual + total
        step = 1e-4 * shape / rate
        grid = [(number + 0.5) * step for number in range(200_000)]
        weights = [x ** (shape - 1) * math.exp(-rate * x) for x in grid]
        longer = math.fsum(w * math.exp(-x * silent) for w, x in zip(weights, grid, strict=True)) / math.fsum(weights)

        assert silence(silent, gaps, total, usual_gap_days=usual) == pytest.approx(
            -math.log(longer), rel=1e-6, abs=1e-9
        )


def test_silence_is_judged_by_the_users_own_cadence() -> None:
    """Ten days are nothing for who comes every week, and alarming for who comes every day; three gaps are the least."""
    weekly, daily = silence(10, 12, 84, usual_gap_days=3), silence(10, 40, 40, usual_gap_days=3)

    assert weekly is not None
    assert daily is not None
    assert weekly < 2
    assert daily > 4
    assert silence(100, 2, 2, usual_gap_days=1) is None


def test_an_alarm_at_four_is_rare() -> None:
    """A gap of a regular user goes beyond 4 in less than one of thirty gaps, and more often than in one of a hundred."""
    rng = random.Random(1)
    beyond = 0
    for _ in range(4000):
        mean = rng.gammavariate(1.5, 4)
        gaps = [rng.expovariate(1 / mean) for _ in range(20)]
        said = silence(rng.expovariate(1 / mean), 20, sum(gaps), usual_gap_days=4)
        beyond += said is not None and said >= 4

    assert 1 / 100 < beyond / 4000 < 1 / 30


def test_the_fit_is_where_the_likelihood_is_largest() -> None:
    """Newton finds the coefficients that labels were drawn with, and moving any of them makes the labels less likely."""
    rng = random.Random(2)
    truth = ActivityModel(coefficients=(0.5, -0.9, 0.7, 0.2), calibrated=True, labelled=0)
    subjects = [(rng.expovariate(0.05), float(rng.randrange(30)), rng.uniform(1, 400)) for _ in range(6000)]
    active = [rng.random() < truth.p_active_next(one) for one in subjects]
    model = fit_activity(subjects, active)

    def likelihood(model: ActivityModel) -> float:
        return math.fsum(
            math.log(model.p_active_next(one) if outcome else 1 - model.p_active_next(one))
            for one, outcome in zip(subjects, active, strict=True)
        )

    assert model.calibrated
    assert model.labelled == 6000
    assert model.coefficients == pytest.approx(truth.coefficients, abs=0.25)
    best = likelihood(model)
    for place in range(4):
        for change in (-0.01, 0.01):
            moved = [b + change * (at == place) for at, b in enumerate(model.coefficients)]
            other = ActivityModel(coefficients=(moved[0], moved[1], moved[2], moved[3]), calibrated=True, labelled=0)
            assert likelihood(other) < best


@pytest.mark.parametrize("case", ["few", "all alike", "told apart", "one point"])
def test_what_cannot_be_fitted_stays_uncalibrated(case: str) -> None:
    """With few subjects, one outcome, outcomes told apart without exception, or subjects all alike, nothing is fitted."""
    count = 499 if case == "few" else 600
    subjects: list[Recency] = [(float(number), 1.0, 400.0 + number % 7) for number in range(count)]
    active = [number % 3 == 0 for number in range(count)]
    if case == "all alike":
        active = [True] * count
    if case == "told apart":
        active = [number < 300 for number in range(count)]
    if case == "one point":
        subjects = [(1.0, 1.0, 1.0)] * count

    assert UNCALIBRATED == fit_activity(subjects, active)


# ---------------------------------------------------------------- real customers


PAGE = (Path(__file__).parents[2] / "docs" / "health.md").read_text(encoding="utf-8")


@cache
def purchases() -> dict[str, list[date]]:
    """The days on which each of CDNOW's customers of 1997 bought, from the package lifetimes; none of its code is run."""
    found = importlib.util.find_spec("lifetimes")
    assert found is not None
    assert found.origin is not None
    text = (Path(found.origin).parent / "datasets" / "CDNOW_master.txt").read_text(encoding="ascii")
    days = defaultdict(set)
    for line in text.splitlines()[1:]:
        customer, day, *_ = line.split()
        days[customer].add(date.fromisoformat(day))
    return {customer: sorted(one) for customer, one in days.items()}


@cache
def at(cut: date) -> tuple[list[Recency], list[bool]]:
    """Who was there on a day with recency, repeats and age; and whether each bought in the 28 days after it."""
    subjects: list[Recency] = []
    active = []
    for days in purchases().values():
        before = [day for day in days if day <= cut]
        if before:
            age = float((cut - before[0]).days)
            subjects.append((float((cut - before[-1]).days), float(len(before) - 1), age))
            active.append(any(cut < day <= cut + HORIZON for day in days))
    return subjects, active


@cache
def model_at(cut: date) -> ActivityModel:
    """What was learned by a day: fitted on what became in 28 days of those who were there 28 days before."""
    return fit_activity(*at(cut - HORIZON))


def test_the_data_are_the_ones_that_are_known() -> None:
    """CDNOW's master set has 23,570 customers; this is what every figure below is about."""
    assert 23_570 == len(purchases())
    assert date(1997, 1, 1) == min(days[0] for days in purchases().values())
    assert date(1998, 6, 30) == max(days[-1] for days in purchases().values())


def test_the_shipped_coefficients_are_fitted_on_real_customers() -> None:
    """The coefficients that are there before there are own ones are what CDNOW says, to four digits."""
    fitted = model_at(CUTS[0])

    assert fitted.calibrated
    assert not UNCALIBRATED.calibrated
    assert UNCALIBRATED.coefficients == pytest.approx(fitted.coefficients, abs=5e-5)


@pytest.mark.parametrize("cut", CUTS, ids=str)
def test_real_customers_are_ranked_and_counted(cut: date) -> None:
    """Fitted 28 days before, on all customers: AUC above that of recency, and probabilities within 0.03; as on the page."""
    model = model_at(cut)
    subjects, active = at(cut)
    p = [model.p_active_next(one) for one in subjects]
    lapsed = [not outcome for outcome in active]
    auc = auc_of(zip(p, lapsed, strict=True)).value
    by_recency = auc_of((-one[0], gone) for one, gone in zip(subjects, lapsed, strict=True)).value
    error = abs(fmean(p) - fmean(active))
    assert auc is not None
    assert by_recency is not None
    row = f"| {cut} | {fmean(active):.3f} | {auc:.3f} | {by_recency:.3f} | {error:.3f} |"
    print(row)

    assert f"\n{row}\n" in PAGE
    assert auc > by_recency
    assert auc >= 0.78
    assert error < 0.03


def test_real_customers_are_ranked_well_over_all_cuts() -> None:
    """Over the four cuts, the mean AUC is 0.80 or more; the user's own gaps alone rank far worse."""
    aucs, own = [], []
    for cut in CUTS:
        model = model_at(cut)
        subjects, active = at(cut)
        lapsed = [not outcome for outcome in active]
        aucs.append(
            auc_of((model.p_active_next(one), gone) for one, gone in zip(subjects, lapsed, strict=True)).value or 0
        )
        ratio = [
            (-silent / ((age - silent) / repeats) if repeats else -silent / age if age else 0.0)
            for silent, repeats, age in subjects
        ]
        own.append(auc_of(zip(ratio, lapsed, strict=True)).value or 0)
    print(f"mean AUC {fmean(aucs):.3f}, silence by own mean gap {fmean(own):.3f}")

    assert fmean(aucs) >= 0.80
    assert fmean(aucs) > fmean(own) + 0.05
