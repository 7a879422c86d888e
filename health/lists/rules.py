"""Rules: who is on a list, in which order, and what is said of each.

A rule reads the metrics of the catalogue, and a few facts that stand beside them.
"""

from collections.abc import Callable, Mapping
from typing import Final

import msgspec

from health.alarms import Thresholds
from health.lists.conditions import Condition, Sign, Values, all_hold, warning_threshold
from health.scorecards import Subject

ACCOUNT_SCORE: Final = "account_score"
ACCOUNT_SCORE_LOWEST: Final = "account_score_lowest_84d"
QUIET_DAYS: Final = "quiet_days"
DISCOUNT_PERCENT: Final = "discount_percent"
FACTS: Final[Mapping[str, str]] = {
    ACCOUNT_SCORE: "The account's score for the purpose `health`.",
    ACCOUNT_SCORE_LOWEST: "The lowest of these scores in 84 days; unknown where the first is younger.",
    QUIET_DAYS: "Days since the account, or anybody in it, sent a ticket or an answer, or spoke with us.",
    DISCOUNT_PERCENT: "The subscription's discount, as it is now.",
}
"""What rules read besides the metrics of a subject; each is looked up where a rule asks for it."""


class Rank(msgspec.Struct, frozen=True):
    """The metric by which those with as many signs are put in order; who has no value is last."""

    metric: str
    descending: bool = True


class Rule(msgspec.Struct, frozen=True, kw_only=True):
    """Who is on a list: all of `required` hold, and `signs_min` of the signs; who shows more signs comes first.

    `remarks` decide nothing, and are told where they hold. `blind` says what the list cannot see. An internal list is of the
    seller's own plans, or compares customers: who is bound to accounts does not see it.
    """

    name: str
    subject: Subject
    question: str
    required: Sign
    signs: tuple[Sign, ...] = ()
    signs_min: int = 0
    remarks: tuple[Condition, ...] = ()
    rank: Rank
    blind: str
    is_internal: bool = False

    @property
    def of_metrics(self) -> Sign:
        """What is required of metrics."""
        return tuple(condition for condition in self.required if condition.metric not in FACTS)

    @property
    def of_facts(self) -> Sign:
        """What is required of facts."""
        return tuple(condition for condition in self.required if condition.metric in FACTS)

    @property
    def conditions(self) -> tuple[Condition, ...]:
        """All of its conditions."""
        return (*self.required, *(each for sign in self.signs for each in sign), *self.remarks)

    @property
    def follows_warnings(self) -> bool:
        """Whether any of them means the same as an early warning."""
        return any(each.warning is not None for each in self.conditions)

    def reads(self, metric: str) -> bool:
        """Whether it asks for a metric or a fact."""
        return metric == self.rank.metric or any(each.metric == metric for each in self.conditions)


def with_thresholds(rule: Rule, thresholds: Mapping[str, float]) -> Rule:
    """The rule with other thresholds, by metric: each counts in every condition on the metric."""
    return _changed(rule, lambda each: thresholds.get(each.metric, each.threshold))


def with_warning_thresholds(rule: Rule, thresholds: Thresholds) -> Rule:
    """The rule with these thresholds of early warnings, in every condition that means the same as a warning."""
    return _changed(
        rule, lambda each: each.threshold if each.warning is None else warning_threshold(thresholds, each.warning)
    )


def _changed(rule: Rule, threshold_of: Callable[[Condition], float]) -> Rule:
    def changed(conditions: Sign) -> Sign:
        return tuple(msgspec.structs.replace(each, threshold=threshold_of(each)) for each in conditions)

    return msgspec.structs.replace(
        rule,
        required=changed(rule.required),
        signs=tuple(changed(sign) for sign in rule.signs),
        remarks=changed(rule.remarks),
    )


def signs_held(rule: Rule, values: Values) -> tuple[Sign, ...]:
    """The signs that a subject shows."""
    return tuple(sign for sign in rule.signs if all_hold(sign, values))


def reasons_of(rule: Rule, values: Values) -> tuple[Condition, ...] | None:
    """Why a subject is on the list: what is required, the signs that it shows, remarks. None where it is not on it."""
    signs = signs_held(rule, values)
    if not all_hold(rule.required, values) or len(signs) < rule.signs_min:
        return None
    shown = [each for sign in signs for each in sign]
    remarks = [each for each in rule.remarks if each.holds(values)]
    # A condition may be part of several signs.
    return tuple(dict.fromkeys([*rule.required, *shown, *remarks]))
