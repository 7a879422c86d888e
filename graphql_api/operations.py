"""Operations: which one of a document is meant, whether it may be asked for here, and its execution."""

from collections.abc import Collection
from typing import Any

import msgspec
from graphql import ExecutionResult, GraphQLError, GraphQLSchema, execute
from strawberry.exceptions import MissingQueryError
from strawberry.execution import optimized_is_awaitable
from strawberry.schema.exceptions import InvalidOperationTypeError
from strawberry.schema.schema import StrawberryGraphQLCoreExecutionContext
from strawberry.types.graphql import OperationType
from strawberry.utils.operation import get_first_operation, get_operation_type

from graphql_api.context import Context
from graphql_api.documents import Documents
from graphql_api.executor import BreadthFirstExecutor


class GraphQLRequest(msgspec.Struct, rename="camel"):
    """The body of a request; unknown members are ignored, as GraphQL over HTTP asks."""

    query: str
    variables: dict[str, Any] | None = None
    operation_name: str | None = None
    extensions: dict[str, Any] | None = None


class Operations:
    """Executes operations on a schema."""

    def __init__(self, schema: GraphQLSchema, documents: Documents, *, breadth_first: bool = True) -> None:
        self._schema = schema
        self._documents = documents
        self._executor = BreadthFirstExecutor if breadth_first else StrawberryGraphQLCoreExecutionContext

    async def execute(
        self, asked: GraphQLRequest, context: Context, allowed: Collection[OperationType]
    ) -> ExecutionResult:
        """What an operation answers. Raises InvalidOperationTypeError for one that is not of an allowed type."""
        if not asked.query:
            return _refused(str(MissingQueryError()))
        document = self._documents.understand(asked.query)
        if document.parsed is None:
            return ExecutionResult(data=None, errors=list(document.errors))
        name = asked.operation_name
        if name is None:
            first = get_first_operation(document.parsed)
            name = first.name.value if first is not None and first.name is not None else None
        try:
            kind = get_operation_type(document.parsed, name)
        except RuntimeError as error:
            return _refused(str(error) if name is None else f'Unknown operation named "{name}".')
        if kind not in allowed:
            raise InvalidOperationTypeError(kind)
        if document.errors:
            return ExecutionResult(data=None, errors=list(document.errors))
        result = execute(
            self._schema,
            document.parsed,
            variable_values=asked.variables,
            operation_name=name,
            context_value=context,
            executor_class=self._executor,
            is_awaitable=optimized_is_awaitable,  # type: ignore[arg-type]  # it tells them, and narrows no type
        )
        return result if isinstance(result, ExecutionResult) else await result


def _refused(reason: str) -> ExecutionResult:
    """What holds no operation to execute is answered like any other document that is not valid."""
    return ExecutionResult(data=None, errors=[GraphQLError(reason)])
