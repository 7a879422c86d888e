"""What a change of the schema takes from those who ask: `python -m graphql_api.breaking` tells it, since the last release.

The schema of the last release is committed as released.graphql; CONTRIBUTING.md says what a release does with it.
"""

import sys
from collections.abc import Iterator
from importlib.resources import files
from typing import Any, Final

from graphql import (
    REMOVE,
    DangerousChangeType,
    GraphQLField,
    GraphQLInputField,
    GraphQLInputObjectType,
    GraphQLInterfaceType,
    GraphQLObjectType,
    GraphQLSchema,
    Node,
    Visitor,
    build_ast_schema,
    build_schema,
    find_breaking_changes,
    find_dangerous_changes,
    parse,
    print_ast,
    visit,
)

from graphql_api.schema import sdl

_RELEASED: Final = "released.graphql"


def breaking_changes(released: str, served: str) -> list[str]:
    """All that is promised by the first schema and not kept by the second, a sentence each.

    Beside what makes documents invalid: another default, as who left the argument out is answered otherwise; and another
    scope, as keys were made for the one that was said. What was marked as deprecated is promised no more.
    """
    before = build_ast_schema(visit(parse(released), _WithoutDeprecated()))
    after = build_schema(served)
    defaults = [
        change.description
        for change in find_dangerous_changes(before, after)
        if change.type is DangerousChangeType.ARG_DEFAULT_VALUE_CHANGE
    ]
    invalid = [change.description for change in find_breaking_changes(before, after)]
    return [*invalid, *defaults, *_other_defaults(before, after), *_other_scopes(before, after)]


class _WithoutDeprecated(Visitor):
    """Takes out of a schema's document what is marked as deprecated."""

    def enter(self, node: Node, *_: Any) -> Any:
        """Remove it, or look inside."""
        return REMOVE if "deprecated" in _marks(node) else None


def _marks(node: Node | None) -> dict[str, Any]:
    return {mark.name.value: mark for mark in getattr(node, "directives", None) or ()}


def _other_defaults(before: GraphQLSchema, after: GraphQLSchema) -> Iterator[str]:
    """Of inputs' fields; those of arguments are found elsewhere."""
    for name, kind in before.type_map.items():
        now = after.type_map.get(name)
        if isinstance(kind, GraphQLInputObjectType) and isinstance(now, GraphQLInputObjectType):
            for field in kind.fields.keys() & now.fields.keys():
                if _default(kind.fields[field]) != _default(now.fields[field]):
                    yield f"Input field {name}.{field} has changed its default value."


def _default(field: GraphQLInputField) -> str | None:
    """As it is written in the schema."""
    value = None if field.ast_node is None else field.ast_node.default_value
    return None if value is None else print_ast(value)


def _other_scopes(before: GraphQLSchema, after: GraphQLSchema) -> Iterator[str]:
    """Of fields that are there before and after."""
    for name, kind in before.type_map.items():
        now = after.type_map.get(name)
        if isinstance(kind, _WITH_FIELDS) and isinstance(now, _WITH_FIELDS):
            for field in kind.fields.keys() & now.fields.keys():
                old, new = _scopes(kind.fields[field]), _scopes(now.fields[field])
                if new and not (old and old <= new):
                    yield f"Field {name}.{field} asks for {_listed(new)}, and asked for {_listed(old) or 'no scope'}."


_WITH_FIELDS: Final = (GraphQLObjectType, GraphQLInterfaceType)


def _scopes(field: GraphQLField) -> set[str]:
    """The scopes of which one is needed; none where none is."""
    mark = _marks(field.ast_node).get("requires")
    return set() if mark is None else {scope.value for scope in mark.arguments[0].value.values}


def _listed(scopes: set[str]) -> str:
    return " or ".join(sorted(scopes))


def main() -> int:
    """Write what is broken since the last release; 1 where anything is."""
    released = files("graphql_api").joinpath(_RELEASED).read_text(encoding="utf-8")
    broken = breaking_changes(released, sdl())
    for sentence in broken:
        sys.stderr.write(f"graphql_api/{_RELEASED}: {sentence}\n")
    if broken:
        sys.stderr.write("The schema breaks what was released; CONTRIBUTING.md (The schema) says what to do.\n")
    return min(len(broken), 1)


if __name__ == "__main__":
    sys.exit(main())
