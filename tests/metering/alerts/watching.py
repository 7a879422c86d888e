"""What the tests of alerts share: a rule, evaluating it at an instant, and the alerts that there are then."""

from datetime import datetime
from decimal import Decimal
from typing import Any, Final

import msgspec

from metering.alerts.crossings import Bounds
from metering.alerts.evaluate import Evaluator
from metering.alerts.rules import Measure, Quantity, RuleDefinition, RuleOrder, Slice, put_rule
from metering.events import Dimension
from metering.limits import LIMITS
from metering.periods import Bucket
from metering.questions import ValueFilter
from metering.store.pool import Database
from tests.metering.catalog import KEY, rows
from tests.rating.tables import at

# No test has to look through the time since the rule was really put.
EVALUATED_TO: Final = "2027-02-27T00:00:00Z"


def calls(*group_by: Dimension, bucket: Bucket = Bucket.DAY, **filters: tuple[str, ...]) -> Quantity:
    """The meter `calls`, by these dimensions, of what these filters keep."""
    chosen = {Dimension(name): ValueFilter(values) for name, values in filters.items()}
    return Quantity(meter="calls", slice=Slice(group_by=group_by, filters=dict(chosen), bucket=bucket, time_zone="UTC"))


async def watch(
    database: Database, measure: Measure, threshold: str, resolve_below: str | None = None, **fields: Any
) -> None:
    """Put the rule `watch`, or the one that is named; a new one is as if it had been evaluated until the tests begin."""
    bounds = Bounds(Decimal(threshold), Decimal(resolve_below or threshold))
    given = {"key": "watch", "name": "A rule", **fields}
    await put_rule(database, RuleOrder(definition=RuleDefinition(measure=measure, bounds=bounds), **given), KEY, LIMITS)
    await rows(database, f"UPDATE alert_rule SET evaluated_to = '{EVALUATED_TO}' WHERE evaluated_to IS NULL")


async def evaluate(database: Database, instant: str | datetime) -> int | None:
    """Evaluate every rule at an instant."""
    when = at(instant) if isinstance(instant, str) else instant
    return await Evaluator(database, LIMITS).run(when, all_rules=True)


async def alerts(database: Database, rule: str = "watch") -> list[tuple[Any, ...]]:
    """The alerts of a rule: whose, on which day, at which figure it was raised, and why and at which one it was resolved."""
    found = await rows(
        database,
        "SELECT subject, period_from, value, resolution, resolved_value FROM alert "
        f"WHERE rule = '{rule}' ORDER BY period_from, subject, raised_at",
    )
    return [
        (subject, f"{start:%m-%d}", str(value), resolution, None if resolved is None else str(resolved))
        for subject, start, value, resolution, resolved in found
    ]


async def told(database: Database) -> list[tuple[str, str]]:
    """What was published, in order: the type and the subject."""
    return [tuple(row) for row in await rows(database, "SELECT type, subject FROM notification ORDER BY sequence")]


async def told_last(database: Database) -> Any:
    """What there was to say in the last notification."""
    found = await rows(database, "SELECT data FROM notification ORDER BY sequence DESC LIMIT 1")
    return msgspec.json.decode(found[0][0])
