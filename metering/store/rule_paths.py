"""Rules of lists as PostgreSQL reads them: conditions on measurements as JSON, written as SQL/JSON paths.

The names in a path are metrics of the catalogue and facts, never a caller's; thresholds are its variables.
"""

from collections.abc import Sequence

import msgspec

from health.lists.conditions import Condition
from health.lists.rules import FACTS, Rule

_EVERYBODY = "true"


class RulePaths(msgspec.Struct, frozen=True):
    """A rule: what is required of metrics, with any of the signs where one has to show; of facts; each sign, which is of metrics
    alone; and the thresholds as JSON.
    """

    of_metrics: str
    of_facts: str
    signs: tuple[str, ...]
    thresholds: str


def rule_paths(rule: Rule) -> RulePaths:
    """The paths of a rule."""
    names = {each: f"t{number}" for number, each in enumerate(dict.fromkeys(rule.conditions))}

    def path(conditions: Sequence[Condition]) -> str:
        return " && ".join(_path(each, names[each]) for each in conditions) or _EVERYBODY

    assert not any(each.metric in FACTS for sign in rule.signs for each in sign), "facts are required, and no signs"
    signs = tuple(path(sign) for sign in rule.signs)
    any_sign = " || ".join(f"({sign})" for sign in signs) if rule.signs_min else _EVERYBODY
    of_metrics = [f"({each})" for each in (path(rule.of_metrics), any_sign) if each != _EVERYBODY]
    return RulePaths(
        of_metrics=" && ".join(of_metrics) or _EVERYBODY,
        of_facts=path(rule.of_facts),
        signs=signs,
        thresholds=msgspec.json.encode({name: each.threshold for each, name in names.items()}).decode(),
    )


def _path(condition: Condition, threshold: str) -> str:
    value = f'$."{condition.metric}".value'
    compared = f"{value} {condition.comparison.value} ${threshold}"
    return f"({compared})" if condition.unknown is None else f"(!exists({value}) || {compared})"
