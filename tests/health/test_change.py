"""Why a score moved: parts by cause that add up to the difference, whatever changed."""

import random
from datetime import timedelta
from fractions import Fraction

import pytest

from health.change import HealthChangeCause, change_between
from health.measurements import NotApplicable, Observed, Unknown
from health.score import Driver, DriverState, Health, evaluate
from health.scorecards import Cap, leaves_of
from tests.health.cards import AS_OF, card, measure, random_card, random_measurements, random_overrides, utc

EXACT = 1e-9
VALUE, AGED, WEIGHT, BASELINE, ADJUSTMENT = HealthChangeCause


def by_cause(before: Health, after: Health, at_new_version: Health | None = None) -> dict[HealthChangeCause, float]:
    """How much each cause did."""
    found: dict[HealthChangeCause, float] = {}
    for part in change_between(before, after, at_new_version=at_new_version).parts:
        found[part.cause] = round(found.get(part.cause, 0) + part.contribution, 9)
    return found


@pytest.mark.parametrize("seed", range(5))
def test_parts_add_up_to_the_difference(seed: int) -> None:
    """For any two days, of one card or of two, with values that come, go, age and stop applying: parts = difference."""
    rng = random.Random(seed)
    explained = 0
    for _ in range(250):
        old, new = random_card(rng), random_card(rng, version=2)
        new = rng.choice([old, new])
        facts, later = random_measurements(rng), random_measurements(rng)
        priors = {leaf.path: rng.uniform(0, 100) for leaf in leaves_of(new) if rng.random() < 0.3}
        before = evaluate(old, facts, as_of=AS_OF, overrides=random_overrides(rng))
        after = evaluate(new, later, as_of=AS_OF, priors=priors)
        bridge = evaluate(new, facts, as_of=AS_OF, overrides=random_overrides(rng))
        for through in (None, bridge):
            change = change_between(before, after, at_new_version=through)
            if before.score is None or after.score is None:
                assert (None, ()) == (change.difference, change.parts)
                continue
            explained += 1
            assert change.difference == after.score - before.score
            assert abs(sum(Fraction(part.contribution) for part in change.parts) - Fraction(change.difference)) < EXACT

    assert explained > 250


def test_parts_are_shared_between_factors_evenly() -> None:
    """What a measure's weight and its counted score did together is what they do in either order, on average (Shapley)."""
    rng = random.Random("order")
    for _ in range(300):
        scorecard = random_card(rng)
        before = evaluate(scorecard, random_measurements(rng), as_of=AS_OF)
        after = evaluate(scorecard, random_measurements(rng), as_of=AS_OF)
        if before.score is None or after.score is None:
            continue
        usual = (Fraction(before.raw) + Fraction(after.raw)) / 2
        parts = change_between(before, after).parts
        for one, other in zip(before.drivers, after.drivers, strict=True):
            if DriverState.NOT_APPLICABLE in (one.state, other.state):
                continue
            first, last = excess(one, usual), excess(other, usual)
            weights = Fraction(one.weight), Fraction(other.weight)
            weight_first = (weights[1] - weights[0]) * first
            weight_last = (weights[1] - weights[0]) * last
            found = sum(Fraction(part.contribution) for part in parts if part.path == one.path and part.cause is WEIGHT)
            assert abs(found - (weight_first + weight_last) / 2) < EXACT


def excess(driver: Driver, usual: Fraction) -> Fraction:
    """How far a measure's counted score is above what is usual."""
    return Fraction(driver.counted) - usual


def test_a_value_that_moves_is_value() -> None:
    """Where only a value moved, there is one part: its weight times the change of its score, with both values."""
    scorecard = card(measure("a", 3), measure("b", 1))
    before, after = (
        evaluate(scorecard, {"a": Observed(value), "b": Observed(50.0)}, as_of=AS_OF) for value in (80.0, 48.0)
    )
    (part,) = change_between(before, after).parts

    assert (VALUE, "a", -24.0, 80.0, 48.0) == (part.cause, part.metric, part.contribution, part.before, part.after)


def test_a_value_that_ages_is_aged() -> None:
    """Where nothing happened but time, what is lost is AGED; a value that goes missing is too, one that comes is VALUE."""
    scorecard = card(measure("nps", fresh_days=90, expires_days=180), measure("b"))
    found = {"nps": Observed(100.0, utc(AS_OF)), "b": Observed(50.0)}
    fresh, faded, gone = (evaluate(scorecard, found, as_of=AS_OF + timedelta(days=days)) for days in (0, 135, 200))
    unknown = evaluate(scorecard, {**found, "nps": Unknown()}, as_of=AS_OF)

    assert by_cause(fresh, faded) == {AGED: -12.5}
    assert by_cause(fresh, gone) == by_cause(fresh, unknown) == {AGED: -25.0}
    assert by_cause(unknown, fresh) == {VALUE: 25.0}


def test_what_a_new_version_does_is_weight() -> None:
    """With the earlier facts scored by the later card, all that the card did is WEIGHT, and only the customer's is VALUE."""
    old = card(measure("a"), measure("b"))
    new = card(measure("a", 3, curve=((0, 0), (50, 100))), measure("c"), version=2)
    facts = {"a": Observed(40.0), "b": Observed(90.0), "c": Observed(20.0)}
    before, bridge = evaluate(old, facts, as_of=AS_OF), evaluate(new, facts, as_of=AS_OF)
    after = evaluate(new, {**facts, "a": Observed(25.0)}, as_of=AS_OF)

    assert by_cause(before, after, bridge) == {WEIGHT: 0.0, VALUE: -22.5}
    assert VALUE not in by_cause(before, bridge, bridge)


def test_what_stops_to_apply_is_weight_and_what_is_usual_baseline() -> None:
    """A measure that stops to apply is WEIGHT; a prior that moves is BASELINE, as far as nothing better is known."""
    scorecard = card(measure("a"), measure("b"))
    before = evaluate(scorecard, {"a": Observed(80.0)}, as_of=AS_OF)
    usual = evaluate(scorecard, {"a": Observed(80.0)}, as_of=AS_OF, priors={("b",): 30.0, ("a",): 10.0})
    without = evaluate(scorecard, {"a": Observed(80.0), "b": NotApplicable()}, as_of=AS_OF)

    assert by_cause(before, usual) == {BASELINE: -10.0}
    assert by_cause(before, without) == {WEIGHT: 15.0}


def test_caps_are_an_adjustment() -> None:
    """A cap that begins to hold is the ADJUSTMENT, and what moved below it is told beside it."""
    scorecard = card(measure("a"), caps=(Cap(metric="lost", at_least=1, max=49, reason="lost"),))
    before = evaluate(scorecard, {"a": Observed(80.0)}, as_of=AS_OF)
    after = evaluate(scorecard, {"a": Observed(90.0), "lost": Observed(1.0)}, as_of=AS_OF)

    assert by_cause(before, after) == {VALUE: 10.0, ADJUSTMENT: -41.0}
    assert change_between(before, after).parts[0].cause is ADJUSTMENT
