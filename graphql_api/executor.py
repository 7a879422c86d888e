"""An executor that completes lists breadth-first: column by column instead of item by item.

The stock executor calls half a dozen methods for each value of an answer, and a usage answer is thousands of values. Here a
list of leaves is completed in one pass, and a list of objects of which only plain attributes are selected one field at a
time; one such object is a list of one. That is all it knows: at anything else (a resolver, an argument, an awaitable, a
null where none may be, an error, a directive that streams) it stops, and the stock method completes that list from the
beginning. So whatever is unusual is answered, word by word, as it always was; a test compares the two.

A longer list that is completed item by item pauses between two of them, where others wait for their turn: see turn.py.
"""

from collections.abc import Callable, Sequence
from datetime import datetime
from decimal import Decimal
from itertools import accumulate, chain
from operator import attrgetter
from typing import Any, Final

import msgspec
from graphql import (
    GraphQLField,
    GraphQLLeafType,
    GraphQLObjectType,
    GraphQLOutputType,
    GraphQLResolveInfo,
    GraphQLStreamDirective,
    Undefined,
    is_leaf_type,
    is_list_type,
    is_non_null_type,
    is_object_type,
)
from graphql.execution.collect_fields import FieldDetails
from strawberry.schema.schema import StrawberryGraphQLCoreExecutionContext
from strawberry.types.field import StrawberryField

from graphql_api.scalars import WRITTEN
from graphql_api.turn import Turn, Unhurried

_NOTHING: Final = frozenset({type(None), type(Undefined)})
# Values of these types are never awaited; of any other type each value is asked.
_AT_HAND: Final = frozenset({*_NOTHING, bool, int, float, str, bytes, list, tuple, dict, datetime, Decimal})
_DEFINITION: Final = "strawberry-definition"
_TYPENAME: Final = "__typename"
# Fewer items take no longer than a pause is worth.
_ITEMS_AT_ONCE: Final = 20

Values = Sequence[Any]


class _Field(msgspec.Struct, frozen=True):
    """One selected field of an object: where its value is, and what becomes of it."""

    name: str
    # None for __typename.
    value_of: Callable[[Any], Any] | None
    kind: GraphQLOutputType
    nodes: list[FieldDetails]


class BreadthFirstExecutor(StrawberryGraphQLCoreExecutionContext):
    """The stock executor, but for lists of what is simple, and for simple objects."""

    def __init__(self, *arguments: Any, turn: Turn | None = None, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._turn = turn or Turn()
        # The selections of lists whose items were awaited.
        self._awaited: set[int] = set()
        middleware = self.middleware_manager
        self._is_simple = self.abort_signal is None and not (middleware and middleware.middlewares)
        # By type and field: the selected fields, or None where they are not simple.
        self._selected: dict[tuple[GraphQLObjectType, int], tuple[_Field, ...] | None] = {}

    def complete_list_value(
        self,
        return_type: Any,
        field_details_list: list[FieldDetails],
        info: GraphQLResolveInfo[Any],
        path: Any,
        result: Any,
        position_context: Any,
    ) -> Any:
        """Complete a list: breadth-first where that is simple."""
        if self._is_simple and position_context is None and type(result) in {list, tuple}:
            try:
                streams = _streams(field_details_list)
                completed = None if streams else self._column(return_type.of_type, field_details_list, result)
            except Exception:  # noqa: BLE001 - the stock method meets it too, and tells where
                completed = None
            if completed is not None:
                return completed
            # Where one of the items fails, the stock method sees to those behind it that come later: it has to have them all.
            if len(result) > _ITEMS_AT_ONCE and not any(map(self.is_awaitable, result)):
                result = Unhurried(result, self._turn, lambda: id(field_details_list) in self._awaited)
        return super().complete_list_value(return_type, field_details_list, info, path, result, position_context)

    def complete_list_item_value(
        self,
        item: Any,
        complete_results: list[Any],
        item_type: Any,
        field_details_list: list[FieldDetails],
        info: GraphQLResolveInfo[Any],
        item_path: Any,
        position_context: Any,
    ) -> bool:
        """Complete an item of a list, and note whether it waits."""
        waits = super().complete_list_item_value(
            item, complete_results, item_type, field_details_list, info, item_path, position_context
        )
        if waits:
            self._awaited.add(id(field_details_list))
        return waits

    def complete_object_value(
        self,
        return_type: GraphQLObjectType,
        field_details_list: list[FieldDetails],
        info: GraphQLResolveInfo[Any],
        path: Any,
        result: Any,
        position_context: Any,
    ) -> Any:
        """Complete an object: a plain one as a list of one."""
        if self._is_simple and position_context is None:
            try:
                completed = self._objects(return_type, field_details_list, [result])
            except Exception:  # noqa: BLE001 - as above
                completed = None
            if completed is not None:
                return completed[0]
        return super().complete_object_value(return_type, field_details_list, info, path, result, position_context)

    def _column(self, kind: GraphQLOutputType, nodes: list[FieldDetails], values: Values) -> list[Any] | None:
        """Values of one type, completed; None where one of them is not simple. Raises what completing them raises."""
        if is_non_null_type(kind):
            return self._present(kind.of_type, nodes, values)
        if _NOTHING.isdisjoint(map(type, values)):
            return self._present(kind, nodes, values)
        completed = self._present(kind, nodes, [value for value in values if type(value) not in _NOTHING])
        if completed is None:
            return None
        in_order = iter(completed)
        return [None if type(value) in _NOTHING else next(in_order) for value in values]

    def _present(self, kind: GraphQLOutputType, nodes: list[FieldDetails], values: Values) -> list[Any] | None:
        """Values none of which may be null."""
        types = set(map(type, values))
        if not _NOTHING.isdisjoint(types):
            return None
        if not types <= _AT_HAND and any(isinstance(value, Exception) or self.is_awaitable(value) for value in values):
            return None
        if is_leaf_type(kind):
            return list(values) if types == {WRITTEN.get(kind.name)} else _leaves(kind, values)
        if is_list_type(kind):
            return self._lists(kind.of_type, nodes, values) if types <= {list, tuple} else None
        return self._objects(kind, nodes, values) if is_object_type(kind) else None

    def _lists(self, kind: GraphQLOutputType, nodes: list[FieldDetails], values: Values) -> list[Any] | None:
        """Lists: the items of all of them are one column."""
        completed = self._column(kind, nodes, list(chain.from_iterable(values)))
        if completed is None:
            return None
        ends = accumulate(map(len, values))
        return [completed[end - len(value) : end] for value, end in zip(values, ends, strict=True)]

    def _objects(self, kind: GraphQLObjectType, nodes: list[FieldDetails], values: Values) -> list[Any] | None:
        """Objects: each selected field is one column."""
        fields = self._fields(kind, nodes)
        if fields is None:
            return None
        # Strawberry's own predicate looks at the object's class alone.
        if kind.is_type_of is not None and not all(kind.is_type_of(value, None) for value in values):  # type: ignore[arg-type]
            return None
        columns: list[Values] = []
        for field in fields:
            if field.value_of is None:
                columns.append([kind.name] * len(values))
                continue
            column = self._column(field.kind, field.nodes, list(map(field.value_of, values)))
            if column is None:
                return None
            columns.append(column)
        names = [field.name for field in fields]
        return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]

    def _fields(self, kind: GraphQLObjectType, nodes: list[FieldDetails]) -> tuple[_Field, ...] | None:
        # As in collect_subfields, which keeps the list alive: so its id is not given to another.
        key = (kind, id(nodes))
        if key not in self._selected:
            self._selected[key] = self._find_fields(kind, nodes)
        return self._selected[key]

    def _find_fields(self, kind: GraphQLObjectType, nodes: list[FieldDetails]) -> tuple[_Field, ...] | None:
        definition = kind.extensions.get(_DEFINITION)
        if definition is None or definition.is_type_of is not None:
            return None
        collected = self.collect_subfields(kind, nodes)
        if collected.new_defer_usages or not collected.grouped_field_set:
            return None
        fields = []
        for name, selected in collected.grouped_field_set.items():
            if _streams(selected):
                return None
            field_name = selected[0].node.name.value
            field = self.schema.get_field(kind, field_name)
            attribute = None if field is None else _attribute(field)
            if field is None or (attribute is None and field_name != _TYPENAME):
                return None
            value_of = None if attribute is None else attrgetter(attribute)
            fields.append(_Field(name, value_of, field.type, selected))
        return tuple(fields)


def _leaves(kind: GraphQLLeafType, values: Values) -> list[Any] | None:
    completed = list(map(kind.coerce_output_value, values))
    return completed if _NOTHING.isdisjoint(map(type, completed)) else None


def _attribute(field: GraphQLField) -> str | None:
    """The name of the attribute that a field shows; None for a field with arguments or a resolver of its own."""
    definition = field.extensions.get(_DEFINITION)
    if type(definition) is not StrawberryField or not definition.is_basic_field or field.args:
        return None
    is_default = definition.default_resolver is getattr and getattr(field.resolve, "_is_default", False)
    return definition.python_name if is_default else None


def _streams(nodes: list[FieldDetails]) -> bool:
    return any(
        directive.name.value == GraphQLStreamDirective.name
        for details in nodes
        for directive in details.node.directives or ()
    )
