"""Rules of lists as PostgreSQL reads them: conditions on measurements as JSON, written as SQL/JSON paths.

The names in a path are metrics of the catalogue and facts, never a caller's; thresholds are its variables.
"""

from collections.abc import Sequence

import msgspec

from health.lists.conditions import Condition
from health.lists.rules import Rule

_EVERYBODY = "true"


class RulePaths(msgspec.Struct, frozen=True):
    """A rule: what is required of metrics and of facts, each sign, and the thresholds as JSON."""

    of_metrics: str
    of_facts: str
    signs: tuple[str, ...]
    thresholds: str


def rule_paths(rule: Rule) -> RulePaths:
    """The paths of a rule."""
    names = {each: f"t{number}" for number, each in enumerate(dict.fromkeys(rule.conditions))}

    def path(conditions: Sequence[Condition]) -> str:
        return " && ".join(_path(each, names[each]) for each in conditions) or _EVERYBODY

    return RulePaths(
        of_metrics=path(rule.of_metrics),
        of_facts=path(rule.of_facts),
        signs=tuple(path(sign) for sign in rule.signs),
        thresholds=msgspec.json.encode({name: each.threshold for each, name in names.items()}).decode(),
    )


def _path(condition: Condition, threshold: str) -> str:
    value = f'$."{condition.metric}".value'
    compared = f"{value} {condition.comparison.value} ${threshold}"
    return f"({compared})" if condition.unknown is None else f"(!exists({value}) || {compared})"
