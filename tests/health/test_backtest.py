"""Would the card have warned: AUC with counts, lead times, missed churn, the worth of each measure."""

import random
from datetime import timedelta
from fractions import Fraction

import pytest

from health.backtest import PastOutcome, auc_of, backtest, lead_days, wilson, without
from health.measurements import Observed
from health.score import Health, evaluate
from health.scorecards import leaves_of
from tests.health.cards import AS_OF, card, measure, random_card, random_measurements

CARD = card(measure("telling", 3), measure("noise", 1))


def scored(telling: float, noise: float = 50, days: int = -90) -> Health:
    """A score so many days before the outcome."""
    return evaluate(CARD, {"telling": Observed(telling), "noise": Observed(noise)}, as_of=AS_OF + timedelta(days=days))


def outcome(name: str, health: Health, *history: Health, churned: bool = True) -> PastOutcome:
    """What became of a subject."""
    return PastOutcome(subject=name, churned=churned, on=AS_OF, scored=health, history=history)


def test_auc_is_the_share_of_pairs_that_are_in_order() -> None:
    """AUC is what counting every pair comes to, equal scores half; below 30 churned there is none, but the counts."""
    rng = random.Random(1)
    for _ in range(30):
        scores = [(float(rng.randint(0, 9)), rng.random() < 0.6) for _ in range(80)]
        churned = [score for score, left in scores if left]
        stayed = [score for score, left in scores if not left]
        pairs = sum(Fraction(1) if one > other else Fraction(one == other, 2) for one in stayed for other in churned)
        found = auc_of(scores)
        assert (len(churned), len(stayed)) == (found.churned, found.stayed)
        if len(churned) >= 30:
            assert found.value == pytest.approx(float(pairs / (len(churned) * len(stayed))), abs=1e-12)

    few = auc_of([(1.0, True)] * 29 + [(2.0, False)] * 500)
    assert (None, 29, 500) == (few.value, few.churned, few.stayed)
    assert auc_of([(1.0, True)] * 30).value is None


def test_a_backtest_says_what_the_card_was_worth() -> None:
    """The measure that tells is told from the one that does not; rates fall from band to band; the missed are named."""
    rng = random.Random(2)
    outcomes = []
    for number in range(600):
        churned = rng.random() < 0.2
        telling = min(100.0, max(0.0, rng.gauss(35 if churned else 70, 15)))
        outcomes.append(outcome(str(number), scored(telling, rng.uniform(0, 100)), churned=churned))
    outcomes += [outcome("late", scored(100, 100)), outcome("nobody knew", evaluate(CARD, {}, as_of=AS_OF))]
    found = backtest(outcomes, warning_below=50, healthy_from=70)
    worth = {one.path[0]: one for one in found.measures}

    assert found.auc.value is not None
    assert found.auc.value > 0.85
    assert found.auc.churned + found.auc.stayed == 601
    assert found.unscored == 1
    assert found.missed[0].subject == "late"
    assert all(one.score >= 70 for one in found.missed)
    assert found.warned == sum(one.churned and (one.scored.score or 99) < 50 for one in outcomes)
    assert found.lead_days == 90
    assert (worth["telling"].auc.value or 0) > 0.85
    assert abs((worth["noise"].auc.value or 0) - 0.5) < 0.1
    assert (worth["telling"].auc_lost_without or 0) > 0.3 > (worth["noise"].auc_lost_without or 0)
    rates = [band.churned / band.subjects for band in found.bands]
    assert rates == sorted(rates, reverse=True)
    assert all(band.low <= band.churned / band.subjects <= band.high for band in found.bands)
    assert found.worst_tenth_lift is not None
    assert found.worst_tenth_lift > 3


def test_without_enough_churn_nothing_is_claimed() -> None:
    """With 29 churned there is no AUC, no lift, and no worth of measures; bands and the missed are still told."""
    outcomes = [outcome(str(number), scored(90), churned=number < 29) for number in range(100)]
    found = backtest(outcomes, warning_below=50, healthy_from=70)

    assert (None, None, ()) == (found.auc.value, found.worst_tenth_lift, found.measures)
    assert (29, 100) == (found.bands[0].churned, found.bands[0].subjects)
    assert (29, None, 0) == (len(found.missed), found.lead_days, found.warned)


def test_the_lead_counts_from_the_last_time_it_went_below() -> None:
    """A warning that was taken back does not count, and neither does one that came with the outcome."""
    history = [scored(40, days=-200), scored(90, days=-150), scored(40, days=-120), scored(30, days=-100)]

    assert lead_days(outcome("a", scored(20), *history), 50) == 120
    assert lead_days(outcome("a", scored(90), *history), 50) is None
    assert lead_days(outcome("a", scored(20, days=0)), 50) is None


def test_wilson_is_where_the_score_test_ends() -> None:
    """At both ends of the interval the observed share is 1.96 standard errors of that end away."""
    for count, total in ((3, 40), (20, 40), (39, 40), (1, 1000)):
        for end in wilson(count, total):
            assert abs(count / total - end) == pytest.approx(1.959964 * (end * (1 - end) / total) ** 0.5, rel=1e-5)
    assert wilson(0, 0) == (0, 1)
    assert wilson(0, 10)[0] == pytest.approx(0, abs=1e-12)
    assert wilson(10, 10)[1] == pytest.approx(1)


def test_a_card_without_a_measure_is_that_card() -> None:
    """Leaving a measure out of a score is what evaluating without it comes to: as if it did not apply."""
    rng = random.Random(3)
    for _ in range(300):
        scorecard, found = random_card(rng), random_measurements(rng)
        metrics = [leaf.measure.metric for leaf in leaves_of(scorecard)]
        health = evaluate(scorecard, found, as_of=AS_OF)
        path = rng.choice(leaves_of(scorecard)).path
        assert path[-1] in metrics
        rest = without(health, path)
        others = [driver for driver in health.drivers if driver.path != path]
        whole = sum(Fraction(driver.weight) for driver in others)
        if not whole:
            assert rest is None
            continue
        assert rest == pytest.approx(
            float(sum(Fraction(driver.weight) * Fraction(driver.counted) for driver in others) / whole), abs=1e-9
        )
