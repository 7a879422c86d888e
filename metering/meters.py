"""Meters: named figures made of events. What a meter is, the catalog of them, and which usage a meter counts.

A meter is a view: it keeps nothing, and counts events that were recorded before it was made. What it says must not change
behind the back of whoever was charged by it, so all but its name stays as it was first put; another figure is another
meter.
"""

import re
from collections.abc import Collection, Iterator, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final

import msgspec

from metering.aggregations import TRAITS, Aggregation
from metering.errors import ConflictError, ForbiddenError, InputIssue, InvalidInputError
from metering.events import Dimension
from metering.keys import Caller
from metering.limits import Limits
from metering.questions import Question, ValueFilter
from metering.store.pool import Connection, Database
from metering.store.queries import sql
from metering.store.snapshot import Snapshot
from rating.exact import plain
from rating.steps import Rounding, RoundingMode

# The dimensions that a meter can be narrowed by; who used it is for a question to say.
FILTERED: Final = (Dimension.PRODUCT, Dimension.FEATURE, Dimension.CLASSIFICATION, Dimension.UNIT)
_KEY_FORM: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:-]*")


class Definition(msgspec.Struct, frozen=True, kw_only=True):
    """What a meter is called and what it says: which events count, and how they are brought together."""

    key: str
    name: str
    # What the figure is counted in; of quantities also which ones count, unless a filter by unit says otherwise.
    unit: str
    aggregation: Aggregation
    # Whose different values a UNIQUE_COUNT counts; None for every other aggregation.
    distinct: Dimension | None
    filters: Mapping[Dimension, ValueFilter]
    rounding: Rounding | None


class Meter(msgspec.Struct, frozen=True):
    """A meter of the catalog."""

    definition: Definition
    created_at: datetime


# ---------------------------------------------------------------- the catalog


async def put_meter(database: Database, definition: Definition, key: Caller, limits: Limits) -> Meter:
    """Put a meter: make it, rename it, or find it as it is, and return it as it then stands.

    Raises InvalidInputError with every fault; ConflictError where the key is taken by a meter that says something else;
    ForbiddenError for an API key that is bound to accounts.
    """
    if key.accounts is not None:
        raise ForbiddenError(f"The key {key.prefix} is bound to accounts; a meter is everyone's.")
    issues = list(_faults(definition, limits))
    if issues:
        raise InvalidInputError(issues)
    definition = _tidied(definition)
    by = key.signature
    async with database.transaction() as connection:
        row = await connection.fetchrow(sql("meters.insert_meter"), *_cells(definition), by)
        if row is None:
            row = await _put_again(connection, definition, by)
    return _meter(row)


async def read_meters(snapshot: Snapshot, first: int, after: str | None) -> tuple[list[Meter], bool]:
    """The `first` meters by key, from behind the key `after` on; and whether there are more."""
    # One more than asked for tells whether there are more.
    rows = await snapshot.fetch(sql("meters.list_meters"), [after, first + 1])
    return [_meter(row) for row in rows[:first]], len(rows) > first


async def find_meter(snapshot: Snapshot, key: str) -> Meter | None:
    """The meter of this key, if there is one."""
    if "\0" in key:
        return None
    rows = await snapshot.fetch(sql("meters.find_meter"), [key])
    return _meter(rows[0]) if rows else None


async def find_definitions(connection: Connection, keys: Collection[str]) -> Mapping[str, Definition]:
    """What the meters of these keys say, as far as there are any."""
    rows = await connection.fetch(sql("meters.find_meters"), [key for key in keys if "\0" not in key])
    return {row["key"]: _meter(row).definition for row in rows}


async def read_definitions(snapshot: Snapshot, keys: Collection[str]) -> Mapping[str, Definition]:
    """The same, of a snapshot."""
    rows = await snapshot.fetch(sql("meters.find_meters"), [[key for key in keys if "\0" not in key]])
    return {row["key"]: _meter(row).definition for row in rows}


async def _put_again(connection: Connection, definition: Definition, by: str) -> Any:
    row = await connection.fetchrow(sql("meters.lock_meter"), definition.key)
    assert row is not None, "its key is taken, and meters are not deleted"
    known = _meter(row).definition
    different = [
        field
        for field in Definition.__struct_fields__
        if field != "name" and getattr(known, field) != getattr(definition, field)
    ]
    if different:
        raise ConflictError(
            f"The meter {definition.key!r:.60} is there with another {', '.join(_WORDS[field] for field in different)}. "
            "What a meter says stays as it was first put, for usage was counted by it; put a meter with another key."
        )
    if known.name == definition.name:
        return row
    return await connection.fetchrow(sql("meters.rename_meter"), definition.key, definition.name, by)


# The fields by the names that the API gives them.
_WORDS: Final = {"filters": "filter", **{name: name for name in ("unit", "aggregation", "distinct", "rounding")}}


def _tidied(definition: Definition) -> Definition:
    """The same in its one spelling, so that equal definitions are equal: values sorted, each once, and none without use."""
    filters = {}
    for dimension in FILTERED:
        chosen = definition.filters.get(dimension)
        if chosen is not None:
            values = sorted(set(chosen.values), key=lambda value: (value is None, value or ""))
            filters[dimension] = ValueFilter(tuple(values), chosen.negated)
    rounding = definition.rounding
    if rounding is not None:
        rounding = Rounding(rounding.mode, Decimal(plain(rounding.step)))
    return msgspec.structs.replace(definition, filters=filters, rounding=rounding)


def filter_json(filters: Mapping[Dimension, ValueFilter]) -> dict[str, dict[str, list[str | None]]]:
    """Filters as the API takes them: by dimension, `in` or `notIn` a list of values."""
    return {
        dimension.value: {"notIn" if chosen.negated else "in": list(chosen.values)}
        for dimension, chosen in filters.items()
    }


def _cells(definition: Definition) -> tuple[object, ...]:
    rounding = definition.rounding
    return (
        definition.key,
        definition.name,
        definition.unit,
        definition.aggregation.value,
        None if definition.distinct is None else definition.distinct.value,
        msgspec.json.encode(filter_json(definition.filters)).decode(),
        None if rounding is None else rounding.mode.value,
        None if rounding is None else rounding.step,
    )


def _meter(row: Any) -> Meter:
    kept = msgspec.json.decode(row["filter"], type=dict[str, dict[str, tuple[str | None, ...]]])
    filters = {}
    for dimension in FILTERED:
        for way, values in kept.get(dimension.value, {}).items():
            filters[dimension] = ValueFilter(values, negated=way == "notIn")
    definition = Definition(
        key=row["key"],
        name=row["name"],
        unit=row["unit"],
        aggregation=Aggregation(row["aggregation"]),
        distinct=None if row["distinct_dimension"] is None else Dimension(row["distinct_dimension"]),
        filters=filters,
        rounding=None
        if row["rounding_mode"] is None
        else Rounding(RoundingMode(row["rounding_mode"]), row["rounding_step"]),
    )
    return Meter(definition, row["created_at"].astimezone(UTC))


# ---------------------------------------------------------------- which usage a meter counts


def metered(question: Question, definition: Definition) -> Question:
    """The question, narrowed to the events that count for the meter."""
    filters = dict(definition.filters)
    if TRAITS[definition.aggregation].of_quantities:
        filters.setdefault(Dimension.UNIT, ValueFilter((definition.unit,)))
    for dimension, asked in question.filters.items():
        own = filters.get(dimension)
        filters[dimension] = asked if own is None else both(own, asked)
    extremes = definition.aggregation in {Aggregation.MAX, Aggregation.MIN}
    return msgspec.structs.replace(question, filters=filters, extremes=extremes)


def both(one: ValueFilter, other: ValueFilter) -> ValueFilter:
    """The filter that keeps what both keep."""
    if one.negated and other.negated:
        return ValueFilter((*one.values, *(value for value in other.values if value not in one.values)), negated=True)
    if one.negated:
        one, other = other, one
    return ValueFilter(tuple(value for value in one.values if (value in other.values) is not other.negated))


# ---------------------------------------------------------------- faults


def _faults(definition: Definition, limits: Limits) -> Iterator[InputIssue]:
    if not _KEY_FORM.fullmatch(definition.key) or len(definition.key) > limits.name_chars_max:
        message = (
            f"A meter's key has 1 to {limits.name_chars_max} letters, digits and the signs _ . : - "
            "and begins with a letter or a digit; letters are those of ASCII."
        )
        yield InputIssue(("input", "key"), message)
    for field in ("name", "unit"):
        text = getattr(definition, field)
        if not text.strip() or len(text) > limits.name_chars_max or "\0" in text:
            message = f"This must have 1 to {limits.name_chars_max} characters, not only spaces, none of them NUL."
            yield InputIssue(("input", field), message)
    if definition.aggregation is Aggregation.UNIQUE_COUNT and definition.distinct is None:
        yield InputIssue(("input", "distinct"), "UNIQUE_COUNT needs the dimension whose different values are counted.")
    if definition.aggregation is not Aggregation.UNIQUE_COUNT and definition.distinct is not None:
        message = f"Only UNIQUE_COUNT counts a dimension's values; {definition.aggregation.value} takes no `distinct`."
        yield InputIssue(("input", "distinct"), message)
    for dimension, chosen in definition.filters.items():
        path = ("input", "filter", dimension.value, "notIn" if chosen.negated else "in")
        yield from (InputIssue(path, message) for message in _filter_faults(definition, dimension, chosen, limits))
    if definition.rounding is not None:
        yield from _step_faults(definition.rounding.step, limits)


def _filter_faults(definition: Definition, dimension: Dimension, chosen: ValueFilter, limits: Limits) -> Iterator[str]:
    texts = [value for value in chosen.values if value is not None]
    if not chosen.values:
        yield "An empty list keeps everything or nothing; leave the filter out, or name a value."
    if len(chosen.values) > limits.filter_values_max:
        yield f"{len(chosen.values):,} values; {limits.filter_values_max:,} are taken."
    if any(not 0 < len(text) <= limits.name_chars_max or "\0" in text for text in texts):
        yield f"A value has 1 to {limits.name_chars_max} characters, none of them NUL; no usage has another."
    is_one = len(set(chosen.values)) == 1 and len(texts) == len(chosen.values) and not chosen.negated
    if dimension is Dimension.UNIT and TRAITS[definition.aggregation].of_quantities and chosen.values and not is_one:
        yield (
            f"Quantities are brought together only within one unit: {definition.aggregation.value} takes "
            "`in` with one unit. Without this filter the events of the meter's own unit count."
        )


def _step_faults(step: Decimal, limits: Limits) -> Iterator[InputIssue]:
    path = ("input", "rounding", "step")
    whole_max = limits.quantity_digits_max - limits.quantity_fraction_digits_max
    if step <= 0:
        yield InputIssue(path, "Figures are rounded to multiples of the step, so it must be more than zero.")
        return
    # The exponent is looked at before the digits are written out: 1E+999999999 would be a gigabyte of zeros.
    fits = -limits.quantity_fraction_digits_max <= step.adjusted() < whole_max
    if not fits or len(plain(step).partition(".")[2]) > limits.quantity_fraction_digits_max:
        message = (
            f"A step may have {whole_max} digits before the point and {limits.quantity_fraction_digits_max} after it."
        )
        yield InputIssue(path, message)
