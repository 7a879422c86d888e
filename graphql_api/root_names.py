"""Which fields an operation asks at the root: its figures are told by these names."""

from graphql import DocumentNode, FieldNode, FragmentDefinitionNode, FragmentSpreadNode, OperationDefinitionNode


def root_names(document: DocumentNode) -> dict[str | None, tuple[str, ...]]:
    """The names of the fields at the root of each operation of a valid document, by the operation's name; sorted, each once.

    A valid document names only fields that there are, so that there are no more names than the schema has.
    """
    fragments = {each.name.value: each for each in document.definitions if isinstance(each, FragmentDefinitionNode)}
    return {
        operation.name.value if operation.name else None: _names(operation, fragments)
        for operation in document.definitions
        if isinstance(operation, OperationDefinitionNode)
    }


def _names(operation: OperationDefinitionNode, fragments: dict[str, FragmentDefinitionNode]) -> tuple[str, ...]:
    names, spread = set(), set()
    waiting = list(operation.selection_set.selections)
    while waiting:
        node = waiting.pop()
        if isinstance(node, FieldNode):
            names.add(node.name.value)
        elif not isinstance(node, FragmentSpreadNode):
            waiting.extend(node.selection_set.selections)  # type: ignore[attr-defined]  # an inline fragment
        elif node.name.value not in spread:
            spread.add(node.name.value)
            waiting.extend(fragments[node.name.value].selection_set.selections)
    return tuple(sorted(names))
