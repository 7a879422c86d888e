"""Drops in usage: the formulas against the same in other words, what they find, and what is everybody's."""

import math
import random
import statistics
from decimal import Decimal, localcontext

import pytest

from health.alarms import AlarmType, Thresholds
from health.drops import drops, four_week_change, four_week_z, one_week_z, own_dispersion, typical_dispersion
from loadtests.alarms import measured
from tests.health.cards import AS_OF


def four_weeks_again(weeks: list[int], typical: float) -> float:
    """The z of docs/health.md in decimals of 40 digits, from sums of squares."""
    with localcontext() as context:
        context.prec = 40
        baseline = [Decimal(week) for week in weeks[:-4]][-12:]
        n, total, squares = len(baseline), sum(baseline), sum(week * week for week in baseline)
        mean = total / n
        own = ((squares - total * total / n) / (n - 1) - mean) / max(mean, Decimal(1)) ** 2
        trust = n * min(Decimal(1), mean / 20)
        dispersion = max(
            Decimal("0.005"), (trust * min(max(own, Decimal(0)), Decimal(2)) + 6 * Decimal(typical)) / (trust + 6)
        )
        expected, current = 4 * mean + Decimal("0.5"), Decimal(sum(weeks[-4:])) + Decimal("0.5")
        return float(
            (expected / current).ln() / ((1 / expected + Decimal("0.4") * dispersion) * (1 + Decimal(4) / n)).sqrt()
        )


def one_week_again(weeks: list[int], typical: float) -> float:
    """The z of one week by the statistics module: its median, its variance, one logarithm."""
    baseline = weeks[-15:-3]
    mean, n = statistics.fmean(baseline), len(baseline)
    own = (statistics.variance(baseline) - mean) / max(mean, 1) ** 2
    trust = n * min(1, mean / 20)
    dispersion = max(0.005, (trust * min(max(own, 0), 2) + 6 * typical) / (trust + 6))
    expected = statistics.median(baseline) + 0.5
    return math.log(expected / (weeks[-1] + 0.5)) * ((1 / expected + dispersion) * (1 + 1.57 / n)) ** -0.5


def test_the_formulas_are_what_the_page_says() -> None:
    """Both z are, to 1e-9, what a second computation in other words comes to: for small and large and empty accounts."""
    rng = random.Random(1)
    for _ in range(2000):
        size = rng.choice([0, 1, 5, 40, 1000, 10**7])
        weeks = [rng.randint(0, 2 * size) for _ in range(rng.randint(15, 20))]
        typical = rng.choice([0.0, 0.03, 0.4])

        slow, fast = four_week_z(weeks, typical=typical), one_week_z(weeks, typical=typical)
        assert slow == pytest.approx(four_weeks_again(weeks, typical), abs=1e-9)
        assert fast == pytest.approx(one_week_again(weeks, typical), abs=1e-9)


def test_without_eight_weeks_before_nothing_is_said() -> None:
    """Four weeks need eight before them, one week eight before its guard; until then a drop is unknown."""
    assert four_week_z([5.0] * 11, typical=0.03) is None
    assert four_week_change([5.0] * 11) is None
    assert one_week_z([5.0] * 10, typical=0.03) is None
    assert four_week_z([5.0] * 12, typical=0.03) == one_week_z([5.0] * 11, typical=0.03) == 0


def test_dispersion_is_what_is_more_than_counting() -> None:
    """Counts of one mean vary by the mean: of these the dispersion is zero in the mean; what is more, is it."""
    rng = random.Random(2)
    level = [rng.gauss(0, 0.2) for _ in range(4000)]
    wandering = [rng.gauss(400 * math.exp(x), math.sqrt(400)) for x in level]
    steady = [rng.gauss(400, math.sqrt(400)) for _ in range(4000)]

    assert abs(own_dispersion(steady)) < 0.001
    assert own_dispersion(wandering) == pytest.approx(0.04, abs=0.006)
    assert typical_dispersion([steady, wandering, wandering, [1.0] * 12]) == own_dispersion(wandering)
    assert typical_dispersion([[1.0] * 12]) == 0.03


def flat(level: float, rng: random.Random, count: int = 16) -> list[float]:
    """Weeks around a level."""
    return [float(max(0, round(rng.gauss(level, math.sqrt(level))))) for _ in range(count)]


def test_a_drop_is_found_and_told_with_its_figures() -> None:
    """An account that falls to half is told, with what was expected; one that stops is told within a week."""
    rng = random.Random(3)
    weeks = {f"quiet {number}": flat(200, rng) for number in range(50)}
    weeks["half"] = [200.0] * 12 + [100.0] * 4
    weeks["stopped"] = [200.0] * 15 + [0.0]
    report = drops(weeks, segment="all", as_of=AS_OF)

    assert ["half", "stopped"] == [alarm.subject for alarm in report.alarms]
    assert {AlarmType.DROP_DETECTED} == {alarm.type for alarm in report.alarms}
    assert {"four_weeks": 400.0, "expected": 800.0, "last_week": 100.0}.items() <= report.alarms[0].evidence.items()
    assert float(report.alarms[1].evidence["one_week_z"]) > 3.3


def test_what_all_do_together_is_told_once() -> None:
    """Where the median account falls, one alarm is raised for the product and none for each account; a rise is none."""
    rng = random.Random(4)
    weeks = {f"account {number}": [*flat(300, rng, 12), *flat(150, rng, 4)] for number in range(60)}
    report = drops(weeks, segment="product", as_of=AS_OF)
    risen = {f"account {number}": [*flat(150, rng, 12), *flat(300, rng, 4)] for number in range(60)}
    rising = drops(risen, segment="product", as_of=AS_OF)

    assert [(AlarmType.COMMON_CAUSE_DROP, "product")] == [(alarm.type, alarm.subject) for alarm in report.alarms]
    assert report.common_change == pytest.approx(math.log(0.5), abs=0.05)
    assert () == rising.alarms
    assert rising.common_change > 0.25


def test_a_mild_common_fall_is_taken_off_first() -> None:
    """A holiday that takes a fifth from everybody alarms nobody; who falls by half beyond it still is told."""
    rng = random.Random(5)
    weeks = {f"account {number}": [*flat(5000, rng, 12), *flat(4000, rng, 4)] for number in range(60)}
    alone = drops({"account 0": weeks["account 0"]}, segment="all", as_of=AS_OF)
    weeks["lost"] = [5000.0] * 12 + [2000.0] * 4

    assert ["lost"] == [alarm.subject for alarm in drops(weeks, segment="all", as_of=AS_OF).alarms]
    assert ["account 0"] == [alarm.subject for alarm in alone.alarms]


def test_thresholds_are_data() -> None:
    """The same weeks alarm or not by the thresholds that are given."""
    weeks = {"a": [200.0] * 12 + [140.0] * 4}
    strict, lax = (Thresholds(drop_z_four_weeks=z, drop_z_one_week=99) for z in (0.5, 50))

    assert 1 == len(drops(weeks, segment="all", as_of=AS_OF, thresholds=strict).alarms)
    assert 0 == len(drops(weeks, segment="all", as_of=AS_OF, thresholds=lax).alarms)


def test_drops_are_found_within_four_weeks() -> None:
    """At half a false alarm an account-year, three of four falls by 40 % are found in four weeks, more than by ratios.

    The false alarms are spread over small and large accounts alike, which those of the ratio are not.
    """
    ratio_name, name = "last 4 weeks by the 4 before", "four-week z"
    (_, _, ratio_small, ratio_large, ratio_in_4, *_), (_, threshold, small, large, in_4, *_) = measured(
        accounts=1500, only=[ratio_name, name]
    )
    print(f"four-week z {threshold:.2f}: {in_4:.3f} in 4 weeks, {small:.2f} / {large:.2f}; by ratio {ratio_in_4:.3f}")

    assert in_4 >= 0.75
    assert in_4 > ratio_in_4 + 0.1
    assert (small + large) / 2 <= 0.5 + 1e-9
    assert max(small, large) < 2 * min(small, large)
    assert ratio_small > 3 * ratio_large
