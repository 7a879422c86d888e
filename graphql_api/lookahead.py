"""What an operation will ask of `usage`, read from its selection: sizes are known before anything is computed."""

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
from strawberry.types.nodes import SelectedField, Selection

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


def _groups(field: SelectedField) -> GroupsAsked:
    order: dict[str, Any] = field.arguments.get("orderBy") or {"field": "QUANTITY", "direction": "DESC"}
    buckets = [Bucket[below.arguments["bucket"]] for below in _fields(field.selections) if below.name == "series"]
    return GroupsAsked(
        field=order["field"],
        descending=order["direction"] == "DESC",
        unit=order.get("unit"),
        first=field.arguments.get("first", 50),
        after=field.arguments.get("after"),
        buckets=tuple(buckets),
    )


def _fields(selections: Sequence[Selection]) -> Iterator[SelectedField]:
    """All fields below, whichever fragments they stand in."""
    for selection in selections:
        if isinstance(selection, SelectedField):
            yield selection
        yield from _fields(selection.selections)
