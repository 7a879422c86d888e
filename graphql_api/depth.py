"""How deep operations go, with fragments expanded: told in one pass, before anything costly is done with a document."""

from collections.abc import Iterator, Mapping, Sequence

import msgspec
from graphql import (
    DocumentNode,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    GraphQLError,
    InlineFragmentNode,
    OperationDefinitionNode,
    SelectionNode,
)


class _Extent(msgspec.Struct):
    """Of one definition by itself: the deepest level it has a selection on, and the deepest on which each fragment is spread."""

    levels: int
    spreads: dict[str, int]


def too_deep(document: DocumentNode, levels_max: int) -> list[GraphQLError]:
    """An error for each operation that goes deeper than this, at the first selection that does; introspection is free.

    A fragment is looked at once, however often it is spread: expanding each one would take time that doubles with
    every level of them. One that spreads itself, or that nobody defined, is left to validation.
    """
    fragments = {
        definition.name.value: definition
        for definition in document.definitions
        if isinstance(definition, FragmentDefinitionNode)
    }
    reach = _reaches(fragments)
    errors = []
    for operation in document.definitions:
        if not isinstance(operation, OperationDefinitionNode):
            continue
        extent = _extent(operation)
        if _reach_of(extent, reach) > levels_max:
            found = _first_below(operation, levels_max, fragments, reach)
            name = operation.name.value if operation.name else "anonymous"
            message = f"'{name}' exceeds maximum operation depth of {levels_max}"
            errors.append(GraphQLError(message, [found]))
    return errors


def _selections(
    definition: OperationDefinitionNode | FragmentDefinitionNode,
) -> Iterator[tuple[SelectionNode, int]]:
    """A definition's own selections in the order of its text, each with its level; the first level is 0."""
    waiting: list[tuple[SelectionNode, int]] = [(node, 0) for node in reversed(definition.selection_set.selections)]
    while waiting:
        node, level = waiting.pop()
        yield node, level
        below: Sequence[SelectionNode] = ()
        if isinstance(node, InlineFragmentNode):
            below = node.selection_set.selections
        elif isinstance(node, FieldNode) and node.selection_set and not node.name.value.startswith("__"):
            level += 1
            below = node.selection_set.selections
        waiting.extend((each, level) for each in reversed(below))


def _extent(definition: OperationDefinitionNode | FragmentDefinitionNode) -> _Extent:
    extent = _Extent(0, {})
    for node, level in _selections(definition):
        extent.levels = max(extent.levels, level)
        if isinstance(node, FragmentSpreadNode):
            name = node.name.value
            extent.spreads[name] = max(level, extent.spreads.get(name, 0))
    return extent


def _reach_of(extent: _Extent, reach: Mapping[str, int]) -> int:
    return max([extent.levels, *(level + reach.get(name, 0) for name, level in extent.spreads.items())])


def _reaches(fragments: Mapping[str, FragmentDefinitionNode]) -> dict[str, int]:
    """How many levels each fragment goes down: those that it spreads come first, without recursion."""
    extents = {name: _extent(fragment) for name, fragment in fragments.items()}
    reach: dict[str, int] = {}
    entered = set()
    waiting = list(extents)
    while waiting:
        name = waiting[-1]
        if name in entered:
            waiting.pop()
            reach.setdefault(name, _reach_of(extents[name], reach))
        else:
            entered.add(name)
            waiting.extend(spread for spread in extents[name].spreads if spread in extents and spread not in entered)
    return reach


def _first_below(
    operation: OperationDefinitionNode,
    levels_max: int,
    fragments: Mapping[str, FragmentDefinitionNode],
    reach: Mapping[str, int],
) -> SelectionNode | OperationDefinitionNode:
    """The first selection that is too deep: each fragment that leads to one is entered, once."""
    definition: OperationDefinitionNode | FragmentDefinitionNode | None = operation
    above = 0
    entered = set()
    while definition is not None:
        entering = None
        for node, level in _selections(definition):
            if above + level > levels_max:
                return node
            name = node.name.value if isinstance(node, FragmentSpreadNode) else ""
            if name not in entered and above + level + reach.get(name, -1 - levels_max) > levels_max:
                entered.add(name)
                entering, above = fragments[name], above + level
                break
        definition = entering
    return operation
