"""What an intervention did: nothing is believed that the path before, chance or too few subjects explain."""

import math
import random
from fractions import Fraction
from statistics import fmean, variance

import pytest

from health.effects import PRE_WEEKS, Effect, Followed, effect_after, effect_of_trial, held_out
from health.linear import interval, least_squares, solve, t_quantile


def market(rng: random.Random, count: int, effect: float, *, treats: float = 45) -> list[Followed]:
    """Scores around each account's own level, in a market that falls; low ones are treated more often."""
    subjects = []
    for number in range(count):
        level, noise = rng.gauss(60, 12), rng.gauss(0, 6)
        path = []
        for _ in range(PRE_WEEKS + 4):
            noise = 0.7 * noise + rng.gauss(0, 4.3)
            path.append(level + noise)
        treated = rng.random() < 1 / (1 + math.exp((path[PRE_WEEKS - 1] - treats) / 4))
        after = path[-1] - 2 + (effect if treated else 0)
        subjects.append(
            Followed(
                subject=str(number),
                treated=treated,
                before=tuple(path[:PRE_WEEKS]),
                after=after,
                segment=rng.choice("xyz"),
            )
        )
    return subjects


def test_the_pre_path_takes_the_bias_away() -> None:
    """Of plays on bad scores: where they do nothing none is found, where they do +4 it is; the naive ones are far off.

    The true effect is within the interval in 95 of 100 runs, give or take chance.
    """
    rng = random.Random(1)
    for truth in (0.0, 4.0):
        effects, covered, differences, runs = [], 0, [], 40
        for _ in range(runs):
            subjects = market(rng, 300, truth)
            found = effect_after(subjects).effect
            assert found is not None
            effects.append(found.value)
            covered += found.low <= truth <= found.high
            changes = {
                side: [one.after - one.before[-1] for one in subjects if one.treated is side] for side in (True, False)
            }
            differences.append(fmean(changes[True]) - fmean(changes[False]))
        print(
            f"true {truth:+}: adjusted {fmean(effects):+.2f}, against all {fmean(differences):+.2f}, {covered} of {runs}"
        )

        assert abs(fmean(effects) - truth) < 0.4
        assert fmean(differences) - truth > 2
        assert covered >= 0.88 * runs


def test_the_placebo_finds_groups_that_were_different_before() -> None:
    """Where those who were treated moved differently before, the placebo says so and the effect is not to be relied on."""
    rng = random.Random(2)
    subjects = market(rng, 400, 0)
    fair = effect_after(subjects)
    bent = effect_after(
        [
            Followed(
                subject=one.subject,
                treated=one.treated,
                before=tuple(value + 15 * one.treated * (week < 4) for week, value in enumerate(one.before)),
                after=one.after,
            )
            for one in subjects
        ]
    )

    assert fair.not_enough == ()
    assert bent.not_enough == ("there is an effect before the intervention: both groups were different already",)
    assert bent.placebo is not None
    assert bent.placebo.low > 0


def test_not_enough_is_said() -> None:
    """With few subjects, none treated, or nobody alike on the other side, the answer says that it is not enough."""
    rng = random.Random(3)
    few = market(rng, 25, 0)
    nobody = [one for one in market(rng, 100, 0) if not one.treated]
    apart = [
        Followed(subject=str(number), treated=number < 30, before=(20.0 + 50 * (number >= 30),) * PRE_WEEKS, after=50)
        for number in range(90)
    ]

    assert any("at least" in reason for reason in effect_after(few).not_enough)
    assert effect_after(nobody).effect is None
    assert effect_after(nobody).not_enough[0] == "0 treated, 10 at least"
    assert (effect_after(apart).effect, effect_after(apart).left_out) == (None, 90)
    assert effect_after([]).not_enough
    assert effect_of_trial([1.0], [2.0]).effect is None


def test_lots_are_fair_fixed_and_drawn_anew_for_each_intervention() -> None:
    """As many are held out as asked for, always the same ones, and others for another intervention; more includes fewer."""
    subjects = [f"account {number}" for number in range(20_000)]
    one, other = ({subject for subject in subjects if held_out(subject, play, 20)} for play in ("webinar", "call"))

    assert len(one) / 20_000 == pytest.approx(0.2, abs=0.01)
    assert len(one & other) / 20_000 == pytest.approx(0.04, abs=0.005)
    assert one <= {subject for subject in subjects if held_out(subject, "webinar", 30)}
    assert one == {subject for subject in reversed(subjects) if held_out(subject, "webinar", 20)}
    assert not any(held_out(subject, "webinar", 0) for subject in subjects)
    assert all(held_out(subject, "webinar", 100) for subject in subjects)
    assert held_out("b:c", "a", 50) != held_out("c", "a:b", 50) or held_out("b:d", "a", 50) != held_out("d", "a:b", 50)


def test_a_trial_compares_means() -> None:
    """The difference of means with Welch's interval: against the statistics module, by hand."""
    rng = random.Random(4)
    treated, held = [rng.gauss(5, 2) for _ in range(40)], [rng.gauss(3, 6) for _ in range(25)]
    found: Effect = effect_of_trial(treated, held)
    error = math.sqrt(variance(treated) / 40 + variance(held) / 25)

    assert found.effect is not None
    assert found.effect.value == pytest.approx(fmean(treated) - fmean(held))
    of_treated = variance(treated) / 40 / error**2
    degrees = 1 / (of_treated**2 / 39 + (1 - of_treated) ** 2 / 24)
    # Between 29 and 30 degrees of freedom: Student's 97.5 % quantiles there are 2.0452 and 2.0423.
    assert 29 < degrees < 30
    assert 2.0423 < (found.effect.high - found.effect.value) / error < 2.0452
    assert found.not_enough == ()


# ---------------------------------------------------------------- least squares


def test_least_squares_are_what_fractions_say() -> None:
    """Coefficients are those of the normal equations solved in fractions, also far from zero; errors are those of leaving
    one point out after another (the jackknife that HC3 stands for).
    """
    rng = random.Random(5)
    for _ in range(6):
        rows = [[rng.gauss(1e6, 3), rng.gauss(0, 1), float(rng.random() < 0.4)] for _ in range(25)]
        outcomes = [2 * row[1] - row[2] + rng.gauss(0, 1) for row in rows]
        fit = least_squares(rows, outcomes)
        assert fit is not None
        exact = normal_equations(rows, outcomes)
        assert fit.coefficients == pytest.approx([float(one) for one in exact[1:]], rel=1e-7, abs=1e-9)
        left_out = [
            normal_equations(rows[:at] + rows[at + 1 :], outcomes[:at] + outcomes[at + 1 :]) for at in range(25)
        ]
        for column in range(3):
            spread = math.sqrt(sum(float(one[column + 1] - exact[column + 1]) ** 2 for one in left_out))
            assert fit.errors[column] == pytest.approx(spread, rel=1e-6)
        assert fit.degrees == 21


def normal_equations(rows: list[list[float]], outcomes: list[float]) -> list[Fraction]:
    """The coefficients with the constant first, by Gauss and Jordan in fractions."""
    x = [[Fraction(1), *map(Fraction, row)] for row in rows]
    size = len(x[0])
    matrix = [
        [
            *(sum(row[i] * row[j] for row in x) for j in range(size)),
            sum(row[i] * Fraction(y) for row, y in zip(x, outcomes, strict=True)),
        ]
        for i in range(size)
    ]
    for at in range(size):
        pivot = next(row for row in range(at, size) if matrix[row][at])
        matrix[at], matrix[pivot] = matrix[pivot], matrix[at]
        matrix[at] = [value / matrix[at][at] for value in matrix[at]]
        for other in range(size):
            if other != at:
                factor = matrix[other][at]
                matrix[other] = [a - factor * b for a, b in zip(matrix[other], matrix[at], strict=True)]
    return [Fraction(row[-1]) for row in matrix]


def test_columns_that_others_make_up_are_left_out() -> None:
    """A column that is constant, or a sum of others, has no error and the coefficient 0; the others are as without it."""
    rng = random.Random(6)
    rows = [[one := rng.random(), two := rng.random(), one + 2 * two, 7.0] for _ in range(30)]
    outcomes = [3 * row[0] - row[1] for row in rows]
    fit = least_squares(rows, outcomes)

    assert fit is not None
    assert fit.coefficients == pytest.approx([3, -1, 0, 0], abs=1e-9)
    assert [True, True, False, False] == [error is not None for error in fit.errors]
    assert least_squares([], []) is None
    assert least_squares([[1.0], [2.0]], [1.0, 2.0]) is None
    assert solve([[1.0, 2.0], [2.0, 4.0]], [1.0, 2.0]) is None


@pytest.mark.parametrize(
    ("degrees", "quantile"), [(8, 2.3060), (10, 2.2281), (20, 2.0860), (24, 2.0639), (60, 2.0003), (1000, 1.9623)]
)
def test_quantiles_are_those_of_the_tables(degrees: float, quantile: float) -> None:
    """Student's 97.5 % quantiles are those of printed tables, to 0.001."""
    assert t_quantile(0.975, degrees) == pytest.approx(quantile, abs=1e-3)
    assert interval(5, 2, degrees) == pytest.approx((5 - 2 * quantile, 5 + 2 * quantile), abs=3e-3)


def test_points_of_one_cluster_are_one_piece_of_evidence() -> None:
    """The error of a slope adds up a cluster before it squares, as the formula for one column has it; alone, each is itself."""
    rng = random.Random(7)
    clusters = [str(at // 5) for at in range(60)]
    shared = {cluster: rng.gauss(0, 3) for cluster in clusters}
    rows = [[float(int(cluster) % 2)] for cluster in clusters]
    outcomes = [row[0] + shared[cluster] + rng.gauss(0, 1) for row, cluster in zip(rows, clusters, strict=True)]
    together, alone = least_squares(rows, outcomes, clusters), least_squares(rows, outcomes)
    assert together is not None
    assert alone is not None
    assert alone == least_squares(rows, outcomes, [str(at) for at in range(60)])

    middle, size = fmean(row[0] for row in rows), sum((row[0] - 0.5) ** 2 for row in rows)
    moved: dict[str, float] = {}
    for row, outcome, cluster in zip(rows, outcomes, clusters, strict=True):
        x = row[0] - middle
        residual = outcome - fmean(outcomes) - together.coefficients[0] * x
        moved[cluster] = moved.get(cluster, 0) + x * residual / (1 - 1 / 60 - x * x / size)
    assert together.errors[0] == pytest.approx(math.sqrt(sum(one**2 for one in moved.values())) / size)
    assert (11, 58) == (together.degrees, alone.degrees)
    assert (together.errors[0] or 0) > 1.5 * (alone.errors[0] or 0)
    assert least_squares(rows, outcomes, ["one"] * 60) is None
