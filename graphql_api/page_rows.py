"""How many rows an operation asks for with all of its pages: known of a document once, but for its variables.

A page within a page is read for each row of the one around it, so a few words ask for millions of rows, each page of which
keeps its own bound. Whatever has an argument `first` is a page; what an operation asks for is counted, not what there is.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec
from graphql import (
    ArgumentNode,
    DocumentNode,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    GraphQLField,
    GraphQLInterfaceType,
    GraphQLNamedType,
    GraphQLObjectType,
    GraphQLSchema,
    InlineFragmentNode,
    IntValueNode,
    OperationDefinitionNode,
    SelectionSetNode,
    VariableNode,
    get_named_type,
)

_FIRST: Final = "first"
# An Int has no more; what is longer is the default of a variable of another type.
_DIGITS_MAX: Final = 10
_INT_END: Final = 2**31


class Page(msgspec.Struct, frozen=True):
    """A page that a document asks for, and the pages for each of its rows."""

    rows: int
    # Which variable says how many rows; where it is not given, it is as above.
    variable: str | None
    below: tuple["Page", ...]

    def asked(self, variables: Mapping[str, Any]) -> int:
        """How many rows that is. What is no number of rows counts for none: it is refused where it is read."""
        given = self.rows if self.variable is None else variables.get(self.variable, self.rows)
        # An Int may be written 500.0, and is 500 then; what is larger than an Int is refused where it is read.
        rows = int(given) if isinstance(given, int | float) and 0 < given < _INT_END else 0
        return rows * (1 + rows_asked(self.below, variables))


def rows_asked(pages: Sequence[Page], variables: Mapping[str, Any]) -> int:
    """How many rows these pages have together, with those of the pages below."""
    return sum(page.asked(variables) for page in pages)


def pages_of(document: DocumentNode, schema: GraphQLSchema) -> dict[str | None, tuple[Page, ...]]:
    """The pages of each operation of a valid document, by the operation's name."""
    fragments = {each.name.value: each for each in document.definitions if isinstance(each, FragmentDefinitionNode)}
    found = {}
    for operation in document.definitions:
        if isinstance(operation, OperationDefinitionNode):
            root = schema.get_root_type(operation.operation)
            assert root is not None, "a valid document asks for what there is"
            reading = _Reading(schema, fragments, _defaults(operation))
            found[operation.name.value if operation.name else None] = reading.pages(root, [operation.selection_set])
    return found


def _defaults(operation: OperationDefinitionNode) -> dict[str, int]:
    """The variables that have a number as their default."""
    return {
        each.variable.name.value: int(each.default_value.value)
        for each in operation.variable_definitions or ()
        if isinstance(each.default_value, IntValueNode) and len(each.default_value.value) <= _DIGITS_MAX
    }


class _Reading:
    """Reads the pages of one operation."""

    def __init__(
        self, schema: GraphQLSchema, fragments: Mapping[str, FragmentDefinitionNode], defaults: Mapping[str, int]
    ) -> None:
        self._schema = schema
        self._fragments = fragments
        self._defaults = defaults

    def pages(self, kind: GraphQLNamedType, selection_sets: Sequence[SelectionSetNode]) -> tuple[Page, ...]:
        """The pages of these selections of one type. What is selected twice in one place is read once, so it counts once."""
        places: dict[tuple[str, str], tuple[GraphQLField, FieldNode, list[SelectionSetNode]]] = {}
        for selection_set in selection_sets:
            for owner, node in self._fields(kind, selection_set):
                field = owner.fields.get(node.name.value)
                if field is None:
                    continue  # what every type has, `__typename` and the schema's own fields, is no page
                place = places.setdefault((owner.name, (node.alias or node.name).value), (field, node, []))
                place[2].extend([node.selection_set] if node.selection_set else [])
        return tuple(page for place in places.values() for page in self._of_field(*place))

    def _fields(
        self, kind: GraphQLNamedType, selection_set: SelectionSetNode
    ) -> Iterator[tuple[GraphQLObjectType | GraphQLInterfaceType, FieldNode]]:
        """The fields selected, fragments expanded, each with the type that it is selected of."""
        waiting: list[tuple[GraphQLNamedType, SelectionSetNode]] = [(kind, selection_set)]
        while waiting:
            owner, selected = waiting.pop()
            for node in selected.selections:
                if isinstance(node, FieldNode):
                    if isinstance(owner, GraphQLObjectType | GraphQLInterfaceType):
                        yield owner, node
                    continue
                assert isinstance(node, InlineFragmentNode | FragmentSpreadNode), "there are three kinds of selections"
                inner = self._fragments[node.name.value] if isinstance(node, FragmentSpreadNode) else node
                condition = inner.type_condition
                narrowed = owner if condition is None else self._schema.type_map[condition.name.value]
                waiting.append((narrowed, inner.selection_set))

    def _of_field(
        self, field: GraphQLField, node: FieldNode, selection_sets: Sequence[SelectionSetNode]
    ) -> tuple[Page, ...]:
        """The page that a field is, with those below it; or those below alone."""
        below = self.pages(get_named_type(field.type), selection_sets)
        if _FIRST not in field.args:
            return below
        given = next((each for each in node.arguments or () if each.name.value == _FIRST), None)
        default = field.args[_FIRST].default_value
        return (self._page(given, default if isinstance(default, int) else 0, below),)

    def _page(self, given: ArgumentNode | None, default: int, below: tuple[Page, ...]) -> Page:
        value = None if given is None else given.value
        if isinstance(value, IntValueNode):
            return Page(int(value.value), None, below)
        if isinstance(value, VariableNode):
            name = value.name.value
            return Page(self._defaults.get(name, default), name, below)
        return Page(default, None, below)
