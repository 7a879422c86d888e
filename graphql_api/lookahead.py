"""What an operation will ask of `usage`, read from its selection: sizes are known before anything is computed."""

from collections.abc import Iterator, Mapping, Sequence
from enum import Enum
from typing import Any

import msgspec
from strawberry.types.nodes import SelectedField, Selection

from metering.events import Dimension
from metering.periods import Bucket


class GroupsAsked(msgspec.Struct, frozen=True):
    """One `groups` field: its arguments, and the buckets of the series selected below it, once for each time."""

    field: str
    descending: bool
    unit: str | None
    first: int
    after: str | None
    buckets: tuple[Bucket, ...]


def groups_asked(selections: Sequence[Selection]) -> list[GroupsAsked]:
    """Every `groups` field below these selections."""
    return [_groups(field) for field in _fields(selections) if field.name == "groups"]


def is_asked(selections: Sequence[Selection], name: str) -> bool:
    """Whether a field of this name stands below these selections."""
    return any(field.name == name for field in _fields(selections))


def children(selections: Sequence[Selection]) -> list[SelectedField]:
    """The fields right below the fields that are selected, in whichever fragments they stand."""
    return [below for field in selections for below in _direct(field.selections)]


def dimensions_asked(selections: Sequence[Selection]) -> list[Dimension]:
    """The dimensions of which different values are to be counted below these selections, each once."""
    counted = [field for field in _fields(selections) if field.name == "distinct"]
    return sorted({Dimension[_name(field.arguments["dimension"])] for field in counted}, key=list(Dimension).index)


def _groups(field: SelectedField) -> GroupsAsked:
    order: Mapping[str, Any] = _given(field, "orderBy", {"field": "QUANTITY", "direction": "DESC"})
    series = [below for below in _fields(field.selections) if below.name == "series"]
    return GroupsAsked(
        field=_name(order["field"]),
        descending=_name(order["direction"]) == "DESC",
        unit=order.get("unit") or None,
        first=int(_given(field, "first", 50)),
        after=_given(field, "after", None) or None,
        buckets=tuple(Bucket[_name(below.arguments["bucket"])] for below in series),
    )


def _given(field: SelectedField, argument: str, default: object) -> Any:
    """An argument's value, or its default: a variable that was not sent comes as None."""
    value = field.arguments.get(argument)
    return default if value is None else value


def _name(value: object) -> str:
    """An enum's name: a literal comes as it is written, a variable as it was understood."""
    return value.name if isinstance(value, Enum) else str(value)


def _fields(selections: Sequence[Selection]) -> Iterator[SelectedField]:
    """All fields below, whichever fragments they stand in, but for those that are left out of the answer."""
    for selection in selections:
        if not _is_included(selection.directives):
            continue
        if isinstance(selection, SelectedField):
            yield selection
        yield from _fields(selection.selections)


def _direct(selections: Sequence[Selection]) -> Iterator[SelectedField]:
    for selection in selections:
        if _is_included(selection.directives):
            if isinstance(selection, SelectedField):
                yield selection
            else:
                yield from _direct(selection.selections)


def _is_included(directives: Mapping[str, Any]) -> bool:
    return directives.get("skip", {}).get("if") is not True and directives.get("include", {}).get("if") is not False


class PageAsked(msgspec.Struct, frozen=True):
    """One field that answers a page: its arguments."""

    first: int
    after: str | None


def pages_asked(selections: Sequence[Selection], name: str) -> list[PageAsked]:
    """Every page of this name below these selections."""
    return [
        PageAsked(int(_given(field, "first", 50)), _given(field, "after", None) or None)
        for field in _fields(selections)
        if field.name == name
    ]
