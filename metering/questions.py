"""What can be asked of usage: a period, a zone, dimensions to group by, and a filter. Checked once, when it is made."""

from collections.abc import Mapping, Sequence

import msgspec

from metering.errors import InputIssue, InvalidInputError
from metering.events import Dimension
from metering.limits import Limits
from metering.periods import Period, zone_of


class ValueFilter(msgspec.Struct, frozen=True):
    """Keep usage whose dimension is one of these values, or (negated) none of them; None stands for "has no value"."""

    values: tuple[str | None, ...]
    negated: bool = False


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """Which usage is meant. Make one with `ask`, which checks it."""

    period: Period
    zone_name: str
    group_by: tuple[Dimension, ...]
    filters: Mapping[Dimension, ValueFilter]
    # Whether the least and the largest quantity of an event are asked for: without them it may be answered sooner.
    extremes: bool = True


def ask(
    *,
    period: Period,
    zone_name: str,
    group_by: Sequence[Dimension],
    filters: Mapping[Dimension, ValueFilter],
    limits: Limits,
) -> Question:
    """Make a question. Raises InvalidInputError with every fault; paths lead from the GraphQL argument `query`."""
    issues: list[InputIssue] = []
    if period.start >= period.end:
        issues.append(
            InputIssue(("query", "period", "to"), "`to` must be later than `from`; a period is half-open [from, to).")
        )
    if not (limits.asked_from_min <= period.start and period.end <= limits.asked_to_max):
        message = f"A period lies between {limits.asked_from_min:%Y-%m-%d} and {limits.asked_to_max:%Y-%m-%d}."
        issues.append(InputIssue(("query", "period"), message))
    try:
        zone_of(zone_name)
    except KeyError:
        message = f"{zone_name!r:.60} is not an IANA time zone such as Europe/Berlin."
        issues.append(InputIssue(("query", "timeZone"), message))
    if len(set(group_by)) != len(group_by):
        issues.append(InputIssue(("query", "groupBy"), "A dimension is named twice."))
    for dimension, chosen in filters.items():
        path = ("query", "filter", dimension.value, "notIn" if chosen.negated else "in")
        issues += [InputIssue(path, message) for message in _filter_faults(chosen, limits)]
    if issues:
        raise InvalidInputError(issues)
    return Question(period=period, zone_name=zone_name, group_by=tuple(group_by), filters=dict(filters))


def _filter_faults(chosen: ValueFilter, limits: Limits) -> Sequence[str]:
    faults = []
    if len(chosen.values) > limits.filter_values_max:
        faults.append(f"{len(chosen.values):,} values; {limits.filter_values_max:,} are taken.")
    if any(value is not None and "\0" in value for value in chosen.values):
        faults.append("A value holds a NUL character; no usage has such a value.")
    return faults


class GroupOrder(msgspec.Struct, frozen=True):
    """How groups are put in order: by KEY, by the QUANTITY of a unit, or by the number of EVENTS; ties by key."""

    field: str
    descending: bool
    unit: str | None = None
