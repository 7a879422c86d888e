"""What a document may hold, with fragments expanded: told in one pass each, before validation, which takes far longer.

What validation costs grows with the square of how often one thing is selected in one place, so that is bounded too: a
thousand selections of one field would keep the process from everybody else for seconds.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import msgspec
from graphql import (
    DocumentNode,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    GraphQLError,
    InlineFragmentNode,
    Node,
    OperationDefinitionNode,
    SelectionNode,
    SelectionSetNode,
)

from graphql_api.codes import Code
from graphql_api.depth import too_deep
from metering.limits import Limits

Definition = OperationDefinitionNode | FragmentDefinitionNode


def too_large(message: str, limit: str, limits: Limits, nodes: Sequence[Node] = ()) -> GraphQLError:
    """The error of what is beyond a limit; it names the limit, and what it is."""
    extensions = {"code": Code.OPERATION_TOO_LARGE, "limit": limit, "maximum": getattr(limits, limit)}
    return GraphQLError(message, list(nodes) or None, extensions=extensions)


def beyond_bounds(document: DocumentNode, limits: Limits) -> list[GraphQLError]:
    """An error for the first bound that a document does not keep; none for one that keeps them all.

    Each looks at what the ones before it have bounded.
    """
    for errors in (_directives(document, limits), _deep(document, limits), _sizes(document, limits)):
        if errors:
            return errors
    return _repeats(document, limits)


def _deep(document: DocumentNode, limits: Limits) -> list[GraphQLError]:
    errors = too_deep(document, limits.graphql_depth_max)
    return [
        too_large(error.message, "graphql_depth_max", limits, error.nodes or ()).with_traceback(None)
        for error in errors
    ]


def _directives(document: DocumentNode, limits: Limits) -> list[GraphQLError]:
    """Directives of one place; how many places there are, the tokens bound."""
    for definition in _definitions(document):
        for node in (definition, *_nodes(definition.selection_set)):
            count = len(node.directives or ())
            if count > limits.graphql_directives_max:
                message = f"One place may have {limits.graphql_directives_max:,} directives; this has {count:,}."
                return [too_large(message, "graphql_directives_max", limits, [node])]
    return []


class _Size(msgspec.Struct):
    """Of one definition: its selections and aliases, and those at its root; and how often it spreads each fragment, and there."""

    selections: int = 0
    aliases: int = 0
    roots: int = 0
    spreads: Counter[str] = msgspec.field(default_factory=Counter)
    root_spreads: Counter[str] = msgspec.field(default_factory=Counter)


def _sizes(document: DocumentNode, limits: Limits) -> list[GraphQLError]:
    """How many selections, aliases and fields of the root there are."""
    sizes = expanded_sizes(document)
    selections, aliases = sum(size.selections for size in sizes), sum(size.aliases for size in sizes)
    roots = max((size.roots for size in sizes), default=0)
    for count, limit, what in (
        (selections, "graphql_selections_max", "selections, fragments expanded"),
        (aliases, "graphql_aliases_max", "aliases, fragments expanded"),
        (roots, "graphql_root_fields_max", "fields at the root of an operation"),
    ):
        maximum = getattr(limits, limit)
        if count > maximum:
            return [too_large(f"A document may have {maximum:,} {what}; this has {shown_count(count)}.", limit, limits)]
    return []


def expanded_sizes(document: DocumentNode) -> list[_Size]:
    """The size of each operation, and of each fragment that none leads to, expanded; each fragment is looked at once.

    A fragment that spreads itself is left to validation; it counts for what it has by itself.
    """
    own = {definition.name.value: _own(definition) for definition in _fragments(document).values()}
    expanded: dict[str, _Size] = {}
    for name in _leaves_first(own):
        expanded[name] = _expand(own[name], expanded)
    sizes = [_expand(_own(operation), expanded) for operation in _operations(document)]
    return sizes + [expanded[name] for name in _unreached(document, own)]


def root_fields(document: DocumentNode) -> dict[str | None, int]:
    """How many fields each operation of a document that keeps its bounds has at its root, by the operation's name."""
    sizes = expanded_sizes(document)
    operations = _operations(document)
    return {
        operation.name.value if operation.name else None: size.roots
        for operation, size in zip(operations, sizes[: len(operations)], strict=True)
    }


def _own(definition: Definition) -> _Size:
    size = _Size()
    waiting: list[tuple[SelectionNode, bool]] = [(node, True) for node in definition.selection_set.selections]
    while waiting:
        node, is_root = waiting.pop()
        size.selections += 1
        if isinstance(node, FragmentSpreadNode):
            size.spreads[node.name.value] += 1
            size.root_spreads[node.name.value] += is_root
            continue
        below = node.selection_set  # type: ignore[attr-defined]  # fields and inline fragments have one, or None
        if isinstance(node, FieldNode):
            size.aliases += node.alias is not None
            size.roots += is_root
        stays = is_root and isinstance(node, InlineFragmentNode)
        waiting.extend((each, stays) for each in (below.selections if below else ()))
    return size


def _expand(own: _Size, expanded: Mapping[str, _Size]) -> _Size:
    size = msgspec.structs.replace(own)
    for name, count in own.spreads.items():
        if name in expanded:
            size.selections += count * expanded[name].selections
            size.aliases += count * expanded[name].aliases
    for name, count in own.root_spreads.items():
        if name in expanded:
            size.roots += count * expanded[name].roots
    return size


def _leaves_first(own: Mapping[str, _Size]) -> Iterator[str]:
    """Fragments, those that a fragment spreads before it; without recursion, which a chain of them would exhaust."""
    entered, left = set(), set()
    waiting = list(own)
    while waiting:
        name = waiting[-1]
        if name in entered:
            waiting.pop()
            if name not in left:
                left.add(name)
                yield name
        else:
            entered.add(name)
            waiting.extend(spread for spread in own[name].spreads if spread in own and spread not in entered)


def _unreached(document: DocumentNode, own: Mapping[str, _Size]) -> list[str]:
    """The fragments that no operation leads to. Validation looks at them all the same, each by itself."""
    waiting = [name for operation in _operations(document) for name in _own(operation).spreads]
    reached = set()
    while waiting:
        name = waiting.pop()
        if name in own and name not in reached:
            reached.add(name)
            waiting.extend(own[name].spreads)
    return [name for name in own if name not in reached]


class _Chain(msgspec.Struct, frozen=True):
    """The fragments that a walk is inside of: the innermost, and those around it."""

    name: str
    around: "_Chain | None"

    def holds(self, name: str) -> bool:
        """Whether the walk is inside of this fragment."""
        chain: _Chain | None = self
        while chain is not None:
            if chain.name == name:
                return True
            chain = chain.around
        return False


def _repeats(document: DocumentNode, limits: Limits) -> list[GraphQLError]:
    """How often one name stands in one place of an answer, fragments expanded: what `_sizes` has bounded is walked.

    Fragments in a ring are not bounded yet: the walk does not go round, and gives up where many rings meet.
    """
    fragments = _fragments(document)
    own = {name: _own(fragment) for name, fragment in fragments.items()}
    roots: list[Definition] = [*_operations(document), *(fragments[name] for name in _unreached(document, own))]
    left = limits.graphql_selections_max
    for root in roots:
        places: dict[tuple[int, str], int] = {}
        counts: Counter[int] = Counter()
        for node, place in _walk(root, fragments, places):
            left -= 1
            if left < 0:
                message = "The fragments of this document go round in too many rings."
                return [too_large(message, "graphql_selections_max", limits, [node])]
            counts[place] += isinstance(node, FieldNode)
            if counts[place] > limits.graphql_repeats_max:
                message = f"A field may be selected {limits.graphql_repeats_max:,} times in one place."
                return [too_large(message, "graphql_repeats_max", limits, [node])]
    return []


def _walk(
    root: Definition, fragments: Mapping[str, FragmentDefinitionNode], places: dict[tuple[int, str], int]
) -> Iterator[tuple[SelectionNode, int]]:
    """Every selection with its place in the answer: a field's own, or for what is no field that of the field around it."""
    waiting: list[tuple[SelectionSetNode, int, _Chain | None]] = [(root.selection_set, -1, None)]
    while waiting:
        selection_set, above, chain = waiting.pop()
        for node in selection_set.selections:
            if isinstance(node, FragmentSpreadNode):
                yield node, above
                name = node.name.value
                if name in fragments and not (chain and chain.holds(name)):
                    waiting.append((fragments[name].selection_set, above, _Chain(name, chain)))
                continue
            place = above
            if isinstance(node, FieldNode):
                place = places.setdefault((above, (node.alias or node.name).value), len(places))
            yield node, place
            below = node.selection_set  # type: ignore[attr-defined]  # as above
            if below:
                waiting.append((below, place, chain))


def _definitions(document: DocumentNode) -> Iterator[Definition]:
    for definition in document.definitions:
        if isinstance(definition, OperationDefinitionNode | FragmentDefinitionNode):
            yield definition


def _operations(document: DocumentNode) -> list[OperationDefinitionNode]:
    return [each for each in document.definitions if isinstance(each, OperationDefinitionNode)]


def _fragments(document: DocumentNode) -> dict[str, FragmentDefinitionNode]:
    return {each.name.value: each for each in document.definitions if isinstance(each, FragmentDefinitionNode)}


def _nodes(selection_set: SelectionSetNode) -> Iterator[SelectionNode]:
    """Every selection below, in any order."""
    waiting = list(selection_set.selections)
    while waiting:
        node = waiting.pop()
        yield node
        below = getattr(node, "selection_set", None)
        waiting.extend(below.selections if below else ())


# Beyond this it is a number of a hundred digits, of fragments that double.
_SHOWN_MAX: Final = 10**9


def shown_count(count: int) -> str:
    """A count as a message says it."""
    return f"{count:,}" if count <= _SHOWN_MAX else f"more than {_SHOWN_MAX:,}"
