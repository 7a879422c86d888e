"""Conditions on what is known of a subject: a metric, a comparison and a threshold, with the words that tell it."""

from collections.abc import Iterable, Mapping
from enum import Enum
from typing import TypeAlias, assert_never

import msgspec

from health.alarms import DEFAULTS, Thresholds

Values: TypeAlias = Mapping[str, float]
"""What is known of a subject, by metric: what is unknown or not applicable is left out."""


class Comparison(Enum):
    """How a value is compared with a threshold."""

    AT_LEAST = ">="
    ABOVE = ">"
    AT_MOST = "<="
    BELOW = "<"


class Condition(msgspec.Struct, frozen=True, kw_only=True):
    """A condition on one metric. Where there is no value it holds only if `unknown` says in words what that means.

    `words` tell it where it holds, with `{value}` and `{threshold}` in them. Where it means the same as an early warning,
    `warning` names the warning's threshold, as putWarningThresholds does, and `threshold` is what that starts with.
    """

    metric: str
    comparison: Comparison
    threshold: float
    words: str
    unknown: str | None = None
    warning: str | None = None

    def holds(self, values: Values) -> bool:
        """Whether it is so."""
        value = values.get(self.metric)
        if value is None:
            return self.unknown is not None
        match self.comparison:
            case Comparison.AT_LEAST:
                return value >= self.threshold
            case Comparison.ABOVE:
                return value > self.threshold
            case Comparison.AT_MOST:
                return value <= self.threshold
            case Comparison.BELOW:
                return value < self.threshold
            case _:
                assert_never(self.comparison)

    def told(self, values: Values) -> str:
        """The condition in words and figures, where it holds."""
        value = values.get(self.metric)
        if value is None:
            assert self.unknown is not None, "without a value only such a condition holds"
            return self.unknown
        return self.words.format(value=value, threshold=self.threshold)


Sign: TypeAlias = tuple[Condition, ...]
"""Conditions that say something together: all of them have to hold."""


def at_least(metric: str, threshold: float | str, words: str, unknown: str | None = None) -> Condition:
    """The metric is the threshold or more; a threshold that is a name is that of early warnings."""
    return _compared(metric, Comparison.AT_LEAST, threshold, words, unknown)


def above(metric: str, threshold: float | str, words: str, unknown: str | None = None) -> Condition:
    """The metric is more than the threshold, see at_least()."""
    return _compared(metric, Comparison.ABOVE, threshold, words, unknown)


def at_most(metric: str, threshold: float | str, words: str, unknown: str | None = None) -> Condition:
    """The metric is the threshold or less, see at_least()."""
    return _compared(metric, Comparison.AT_MOST, threshold, words, unknown)


def below(metric: str, threshold: float | str, words: str, unknown: str | None = None) -> Condition:
    """The metric is less than the threshold, see at_least()."""
    return _compared(metric, Comparison.BELOW, threshold, words, unknown)


def warning_threshold(thresholds: Thresholds, name: str) -> float:
    """A threshold of early warnings, by the name that putWarningThresholds has for it."""
    return float(msgspec.to_builtins(thresholds)[name])


def _compared(
    metric: str, comparison: Comparison, threshold: float | str, words: str, unknown: str | None
) -> Condition:
    warning = threshold if isinstance(threshold, str) else None
    return Condition(
        metric=metric,
        comparison=comparison,
        threshold=warning_threshold(DEFAULTS, threshold) if isinstance(threshold, str) else threshold,
        words=words,
        unknown=unknown,
        warning=warning,
    )


def all_hold(conditions: Iterable[Condition], values: Values) -> bool:
    """Whether each of them holds."""
    return all(condition.holds(values) for condition in conditions)
