"""One equation: score = baseline + drivers + adjustment; three kinds of no value; bounds with their reasons."""

import math
import random
from datetime import timedelta
from fractions import Fraction

import pytest

from health.curves import score_at
from health.expressions import Operation, Operator
from health.measurements import Measurement, NotApplicable, Observed, Unknown
from health.overrides import Override
from health.score import DriverState, evaluate
from health.scorecards import Cap, Group, leaves_of
from tests.health.cards import (
    AS_OF,
    card,
    counted,
    measure,
    random_card,
    random_measurements,
    random_overrides,
    utc,
)

EXACT = 1e-9


@pytest.mark.parametrize("seed", range(5))
def test_drivers_add_up_to_the_score(seed: int) -> None:
    """For any tree, weights, curves, missing and stale values, priors and caps, score = baseline + drivers + adjustment."""
    rng = random.Random(seed)
    scored = 0
    for _ in range(400):
        scorecard, found = random_card(rng), random_measurements(rng)
        health = evaluate(scorecard, found, as_of=AS_OF, overrides=random_overrides(rng))
        moved = health.adjustment.contribution if health.adjustment else 0.0
        parts = Fraction(health.baseline) + sum(Fraction(driver.contribution) for driver in health.drivers)
        if health.score is not None:
            scored += 1
            assert abs(Fraction(health.score) - parts - Fraction(moved)) < EXACT
            assert -EXACT <= health.score <= 100 + EXACT

    assert scored > 200


@pytest.mark.parametrize("seed", range(5))
def test_score_is_what_fractions_say(seed: int) -> None:
    """Baseline, coverage, each driver and the raw score are what a second computation in fractions comes to, to 1e-9."""
    rng = random.Random(f"fractions {seed}")
    for _ in range(300):
        scorecard, found = random_card(rng), random_measurements(rng)
        priors = {leaf.path: rng.uniform(0, 100) for leaf in leaves_of(scorecard) if rng.random() < 0.3}
        health = evaluate(scorecard, found, as_of=AS_OF, priors=priors)
        leaves = counted(scorecard, found, priors)
        drivers = [share * known * (score - prior) for share, prior, known, score in leaves if score is not None]
        baseline = sum((share * prior for share, prior, *_ in leaves), Fraction(0))
        applying = [one for one in health.drivers if one.state is not DriverState.NOT_APPLICABLE]

        assert len(leaves) in (len(applying), 0)
        assert abs(Fraction(health.baseline) - baseline) < EXACT
        assert (
            abs(Fraction(health.coverage) - sum((share * known for share, _, known, _ in leaves), Fraction(0))) < EXACT
        )
        assert abs(Fraction(health.raw) - baseline - sum(drivers, Fraction(0))) < EXACT
        for driver, (share, prior, known, score) in zip(applying, leaves, strict=bool(leaves)):
            expected = Fraction(0) if score is None else share * known * (score - prior)
            assert abs(Fraction(driver.contribution) - expected) < EXACT
            assert abs(Fraction(driver.weight) - share) < EXACT


def test_three_kinds_of_no_value_are_kept_apart() -> None:
    """A zero scores as zero; unknown moves nothing and lowers the coverage; not applicable gives its weight to the others."""
    scorecard = card(measure("a", 3), measure("b", 1))

    def scored(b: Measurement) -> tuple[float | None, float, DriverState, float]:
        health = evaluate(scorecard, {"a": Observed(90.0), "b": b}, as_of=AS_OF)
        return health.score, health.coverage, health.drivers[1].state, health.drivers[0].weight

    assert scored(Observed(0.0)) == (67.5, 1.0, DriverState.OBSERVED, 0.75)
    assert scored(Unknown()) == (80.0, 0.75, DriverState.UNKNOWN, 0.75)
    assert scored(NotApplicable()) == (90.0, 1.0, DriverState.NOT_APPLICABLE, 1.0)


def test_not_measuring_is_not_rewarded() -> None:
    """Leaving a bad value out brings a score to its prior and no further, whatever the other values are."""
    scorecard = card(measure("good"), measure("bad"))

    worse = evaluate(scorecard, {"good": Observed(100.0), "bad": Observed(10.0)}, as_of=AS_OF)
    unknown = evaluate(scorecard, {"good": Observed(100.0)}, as_of=AS_OF)
    assert (55.0, 75.0) == (worse.score, unknown.score)
    assert unknown.drivers[1].contribution == 0


def test_without_enough_known_there_is_no_score() -> None:
    """Below the card's coverage there is no score and the band is unknown; the drivers are still there to be seen."""
    scorecard = card(measure("a", 3), measure("b", 7), min_coverage=0.5)
    health = evaluate(scorecard, {"a": Observed(90.0)}, as_of=AS_OF)

    assert (None, "unknown", 0.3) == (health.score, health.band, health.coverage)
    assert abs(health.drivers[0].contribution - 12) < EXACT
    nothing = evaluate(scorecard, {"a": NotApplicable(), "b": NotApplicable()}, as_of=AS_OF)
    assert (None, "unknown", 0.0) == (nothing.score, nothing.band, nothing.baseline)


def test_a_value_fades_from_fresh_to_expired() -> None:
    """A value counts in full while fresh, then less in a straight line, and nothing once it has expired."""
    scorecard = card(measure("nps", fresh_days=90, expires_days=180), measure("other"))

    def known(days: int) -> tuple[float, DriverState]:
        found = {"nps": Observed(100.0, utc(AS_OF - timedelta(days=days))), "other": Observed(50.0)}
        driver = evaluate(scorecard, found, as_of=AS_OF).drivers[0]
        return driver.known, driver.state

    assert known(0) == known(90) == (1.0, DriverState.OBSERVED)
    assert known(135) == (0.5, DriverState.STALE)
    assert known(180) == known(1000) == (0.0, DriverState.STALE)


def test_few_respondents_count_little() -> None:
    """With a shrinkage of 5, a value of 5 respondents counts half, and one of none not at all."""
    scorecard = card(measure("nps", shrink=5), measure("other"))
    found = {"other": Observed(50.0)}

    assert [0.5, 0.0, 0.95] == [
        evaluate(scorecard, {**found, "nps": Observed(1.0, respondents=n)}, as_of=AS_OF).drivers[0].known
        for n in (5, 0, 95)
    ]


def test_caps_bound_the_score_with_their_reason() -> None:
    """The lowest of the caps that hold counts; the raw score is kept; a cap is over when its observation is too old."""
    caps = (
        Cap(metric="lost", at_least=1, max=49, reason="champion lost"),
        Cap(metric="pulse", at_most=1, max=29, reason="critical", expires_days=30),
        Cap(metric="star", at_least=1, min=60, reason="a reference"),
    )
    scorecard = card(measure("a"), caps=caps)

    def scored(**more: Observed) -> tuple[float | None, str | None]:
        health = evaluate(scorecard, {"a": Observed(90.0), **more}, as_of=AS_OF)
        assert health.raw == 90
        return health.score, health.adjustment.reason if health.adjustment else None

    lost, old = Observed(1.0), Observed(1.0, utc(AS_OF - timedelta(days=30)))
    assert scored() == (90, None)
    assert scored(lost=Observed(0.0)) == (90, None)
    assert scored(lost=lost) == (49, "champion lost")
    assert scored(lost=lost, pulse=Observed(1.0, utc(AS_OF))) == (29, "critical")
    assert scored(lost=lost, pulse=old) == (49, "champion lost")
    assert scored(lost=lost, star=lost) == (49, "champion lost")


def test_a_persons_word_is_the_last() -> None:
    """An override holds from its day until its end, above all caps, and says why; the score below it is kept."""
    scorecard = card(measure("a"), caps=(Cap(metric="a", at_least=0, max=30, reason="cap"),))
    word = Override(reason="they signed", min=80, max=80, set_on=AS_OF, expires_on=AS_OF + timedelta(days=2))
    days = [AS_OF + timedelta(days=number) for number in (-1, 0, 1, 2)]
    found = [evaluate(scorecard, {"a": Observed(90.0)}, as_of=day, overrides=[word]) for day in days]

    assert [30, 80, 80, 30] == [health.score for health in found]
    assert {90.0} == {health.raw for health in found}
    assert ["cap", "cap; they signed"] == [health.adjustment.reason for health in found[:2] if health.adjustment]


def test_expressions_make_metrics_of_others() -> None:
    """A ratio is one; to zero it is unknown; of what is not applicable it is not applicable; coalesce looks further."""
    ratio = Operation(Operator.RATIO, ("tickets", "seats"))
    scorecard = card(
        measure("load"),
        expressions={
            "load": Operation(Operator.MULTIPLY, (ratio, 100.0)),
            "any": Operation(Operator.COALESCE, ("x", "y")),
        },
    )

    def load(tickets: Measurement, seats: Measurement) -> tuple[float | None, DriverState]:
        driver = evaluate(scorecard, {"tickets": tickets, "seats": seats}, as_of=AS_OF).drivers[0]
        return driver.value, driver.state

    assert load(Observed(3.0), Observed(6.0)) == (50.0, DriverState.OBSERVED)
    assert load(Observed(3.0), Observed(0.0)) == (None, DriverState.UNKNOWN)
    assert load(Unknown(), Observed(6.0)) == (None, DriverState.UNKNOWN)
    assert load(Unknown(), NotApplicable()) == (None, DriverState.NOT_APPLICABLE)
    either = card(measure("any"), expressions=scorecard.expressions)
    assert evaluate(either, {"y": Observed(7.0)}, as_of=AS_OF).drivers[0].value == 7


def test_curves_are_flat_outside_and_straight_between() -> None:
    """A curve goes through its points, is straight between them, keeps its ends, and may rise and fall."""
    curve = ((0, 60), (0.5, 80), (2, 20))

    assert [60, 60, 70, 80, 50, 20, 20] == [score_at(curve, value) for value in (-9, 0, 0.25, 0.5, 1.25, 2, 9)]
    assert score_at(((3, 40),), 1e9) == 40


def test_shares_of_a_tree_add_up_to_one() -> None:
    """A leaf's share is the product of the shares on its way; all shares add up to one, whatever the weights are."""
    tree = (Group(name="g", weight=60, parts=(measure("a", 1), measure("b", 3))), measure("c", 20))
    shares = {leaf.path: leaf.weight for leaf in leaves_of(card(*tree))}

    assert shares == {("g", "a"): 0.1875, ("g", "b"): 0.5625, ("c",): 0.25}
    rng = random.Random(5)
    sums = [math.fsum(leaf.weight for leaf in leaves_of(random_card(rng))) for _ in range(300)]
    assert max(abs(one - 1) for one in sums) < EXACT
