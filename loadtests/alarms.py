"""How soon a drop in usage is found, by rule, at one budget of false alarms: simulated accounts, no database.

Profile: 3,000 accounts whose weekly volume has p10 / p50 / p90 of 11 / 84 / 665; Poisson counts around a level that wanders
(log-normal, correlation 0.3 from week to week, 17 % in the median account) and a mild trend of its own. Each account is
watched for a year in which nothing happens, which sets one threshold for each rule: 0.5 false alarms an account-year.
Then usage falls, and a rule has so many weeks to be at its threshold.

The noise has the law that the z assumes, so trust the order of the rules and who gets the false alarms, not the decimals.
"""

import argparse
import random
import sys
from collections.abc import Callable, Sequence
from math import exp, log, sqrt
from pathlib import Path
from statistics import median
from typing import Final, TypeAlias

sys.path.insert(0, str(Path(__file__).parents[1]))

from health.alarms import WEEKS_OF_YEAR, threshold_for
from health.drops import baseline_of, four_week_z, one_week_z, typical_dispersion

Weeks: TypeAlias = Sequence[float]
Rule: TypeAlias = Callable[[Weeks], float]

BUDGET_PER_YEAR: Final = 0.5
HISTORY_WEEKS: Final = 16
WATCHED_WEEKS: Final = 52
CHANGED_WEEKS: Final = 8
# The weekly volumes that a tenth, half and nine tenths of the accounts stay below.
VOLUME_P50: Final = 84.0
VOLUME_SIGMA: Final = log(665 / 11) / (2 * 1.2816)
SPREAD_P50: Final = 0.17
SPREAD_SIGMA: Final = 0.5
TREND_SIGMA: Final = 0.002
# Above this mean a Poisson count is a rounded normal one.
_NORMAL_FROM: Final = 60.0


class Account:
    """A simulated account: what it uses in a week, if nothing happens."""

    def __init__(self, rng: random.Random, correlation: float) -> None:
        self._rng = rng
        self._correlation = correlation
        self.level = VOLUME_P50 * exp(rng.gauss(0, VOLUME_SIGMA))
        self._spread = SPREAD_P50 * exp(rng.gauss(0, SPREAD_SIGMA))
        self._trend = rng.gauss(0, TREND_SIGMA)
        self._wander = rng.gauss(0, 1)
        self._week = 0

    def week(self, share: float = 1.0) -> float:
        """The count of the next week, where usage is at this share of what it would be."""
        innovation = self._rng.gauss(0, sqrt(1 - self._correlation**2))
        self._wander = self._correlation * self._wander + innovation
        self._week += 1
        noise = exp(self._spread * self._wander - self._spread**2 / 2)
        return float(poisson(self._rng, self.level * exp(self._trend * self._week) * noise * share))


def poisson(rng: random.Random, mean: float) -> int:
    """A Poisson count: by the product of uniform numbers, and for large means by the normal law."""
    if mean > _NORMAL_FROM:
        return max(0, round(rng.gauss(mean, sqrt(mean))))
    limit, product, count = exp(-mean), rng.random(), 0
    while product > limit:
        product *= rng.random()
        count += 1
    return count


def ratio_of_four(weeks: Weeks) -> float:
    """The industry's "last 30 days against the 30 before"."""
    return log((sum(weeks[-8:-4]) + 0.5) / (sum(weeks[-4:]) + 0.5))


def ratio_of_one(weeks: Weeks) -> float:
    """Week on week."""
    return log((weeks[-2] + 0.5) / (weeks[-1] + 0.5))


def robust_z(weeks: Weeks) -> float:
    """The last week against the median of twelve, by their median absolute deviation."""
    before = weeks[-13:-1]
    middle = median(before)
    return (middle - weeks[-1]) / max(1.4826 * median(abs(week - middle) for week in before), 1.0)


def rules_for(typical: float) -> dict[str, Rule]:
    """Each rule by its name; the higher, the more alarming."""
    return {
        "week on week": ratio_of_one,
        "last 4 weeks by the 4 before": ratio_of_four,
        "robust z": robust_z,
        "one-week z": lambda weeks: one_week_z(weeks, typical=typical) or 0.0,
        "four-week z": lambda weeks: four_week_z(weeks, typical=typical) or 0.0,
        # Scaled so that one threshold serves both: 2.9 of the one is 3.3 of the other.
        "either z, 2.9 : 3.3": lambda weeks: max(
            four_week_z(weeks, typical=typical) or 0.0, (one_week_z(weeks, typical=typical) or 0.0) * 2.9 / 3.3
        ),
    }


def measured(
    *, accounts: int, seed: int = 1, correlation: float = 0.3, only: Sequence[str] = ()
) -> list[tuple[str, float, float, float, float, float, float]]:
    """For each rule: threshold, false alarms a year of small and large accounts, and the shares that are found.

    Found are: -40 % within 4 and within 8 weeks, -70 % within 2 weeks.
    """
    rng = random.Random(seed)
    everyone = [Account(rng, correlation) for _ in range(accounts)]
    quiet = [[one.week() for _ in range(HISTORY_WEEKS + WATCHED_WEEKS)] for one in everyone]
    fallen = {
        share: [fall_after(weeks, one, share) for weeks, one in zip(quiet, everyone, strict=True)]
        for share in (0.6, 0.3)
    }
    typical = typical_dispersion(baseline_of(weeks[:HISTORY_WEEKS]) for weeks in quiet)
    middle = median(one.level for one in everyone)
    rows = []
    for name, rule in rules_for(typical).items():
        if only and name not in only:
            continue
        series = [watched(weeks, rule) for weeks in quiet]
        threshold = threshold_for(series, per_year=BUDGET_PER_YEAR)
        assert threshold is not None, "weeks were watched"
        small = [one for one, account in zip(series, everyone, strict=True) if account.level < middle]
        large = [one for one, account in zip(series, everyone, strict=True) if account.level >= middle]
        rows.append(
            (
                name,
                threshold,
                alarms_per_year(small, threshold),
                alarms_per_year(large, threshold),
                found(fallen[0.6], rule, threshold, 4),
                found(fallen[0.6], rule, threshold, 8),
                found(fallen[0.3], rule, threshold, 2),
            )
        )
    return rows


def fall_after(weeks: Weeks, account: Account, share: float) -> list[float]:
    """The last weeks of a year in which nothing happened, and eight with this share of the usage."""
    return [*weeks[-HISTORY_WEEKS:], *(account.week(share) for _ in range(CHANGED_WEEKS))]


def watched(weeks: Weeks, rule: Rule) -> list[float]:
    """What a rule says week after week, from when there is a history."""
    return [rule(weeks[end - HISTORY_WEEKS : end]) for end in range(HISTORY_WEEKS, len(weeks) + 1)]


def alarms_per_year(series: Sequence[Sequence[float]], threshold: float) -> float:
    """How often a series rises to the threshold: counted one by one."""
    rises = sum(
        value >= threshold and (at == 0 or one[at - 1] < threshold) for one in series for at, value in enumerate(one)
    )
    return rises / sum(map(len, series)) * WEEKS_OF_YEAR


def found(series: Sequence[Weeks], rule: Rule, threshold: float, weeks: int) -> float:
    """The share of falls after which the rule is at its threshold within so many weeks."""
    return sum(
        any(rule(one[end : end + HISTORY_WEEKS]) >= threshold for end in range(1, weeks + 1)) for one in series
    ) / len(series)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--accounts", type=int, default=3000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--correlation", type=float, default=0.3, help="from week to week")
    given = parser.parse_args()
    print(f"{given.accounts} accounts, seed {given.seed}, correlation {given.correlation}")
    print("| rule | threshold | false alarms a year, small / large | -40 % in 4 weeks | in 8 | -70 % in 2 |")
    print("|---|---|---|---|---|---|")
    for name, threshold, small, large, in_4, in_8, in_2 in measured(
        accounts=given.accounts, seed=given.seed, correlation=given.correlation
    ):
        print(f"| {name} | {threshold:.2f} | {small:.2f} / {large:.2f} | {in_4:.2f} | {in_8:.2f} | {in_2:.2f} |")


if __name__ == "__main__":
    main()
