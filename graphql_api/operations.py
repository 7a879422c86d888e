"""Operations: which one of a document is meant, whether it may be asked for here, and its execution."""

from collections.abc import AsyncGenerator, AsyncIterator, Collection, Mapping
from typing import Any, cast

import msgspec
from graphql import DocumentNode, ExecutionResult, GraphQLError, GraphQLSchema, execute, subscribe
from strawberry.exceptions import MissingQueryError
from strawberry.execution import optimized_is_awaitable
from strawberry.schema.exceptions import InvalidOperationTypeError
from strawberry.schema.schema import StrawberryGraphQLCoreExecutionContext
from strawberry.types.graphql import OperationType
from strawberry.utils.operation import get_first_operation, get_operation_type

from graphql_api.answers import refused
from graphql_api.context import Context
from graphql_api.documents import Documents
from graphql_api.executor import BreadthFirstExecutor
from graphql_api.turn import Turn
from metering.errors import MeteringError


class GraphQLRequest(msgspec.Struct, rename="camel"):
    """The body of a request; unknown members are ignored, as GraphQL over HTTP asks."""

    query: str | None = None
    variables: dict[str, Any] | None = None
    operation_name: str | None = None
    extensions: dict[str, Any] | None = None
    # Names a persisted document.
    document_id: str | None = None

    @property
    def names_document(self) -> bool:
        """Whether there is anything that says what is asked."""
        return self.query is not None or self.document_id is not None or "persistedQuery" in (self.extensions or {})


class Operation(msgspec.Struct, frozen=True):
    """An operation that may be executed."""

    document: DocumentNode
    name: str | None
    kind: OperationType
    variables: Mapping[str, Any] | None
    root_fields: int
    root_names: tuple[str, ...]


class Operations:
    """Executes operations on a schema."""

    def __init__(
        self, schema: GraphQLSchema, documents: Documents, *, breadth_first: bool = True, suggestions: bool = True
    ) -> None:
        self._schema = schema
        self._documents = documents
        self._executor = BreadthFirstExecutor if breadth_first else StrawberryGraphQLCoreExecutionContext
        self._options: dict[str, Any] = {"turn": Turn()} if breadth_first else {}
        self._hide_suggestions = not suggestions

    def understand(
        self, text: str, asked: GraphQLRequest, allowed: Collection[OperationType]
    ) -> Operation | ExecutionResult:
        """The operation that is asked for, or what is wrong with it.

        Raises InvalidOperationTypeError for one that is not of an allowed type.
        """
        if not text:
            return refused(GraphQLError(str(MissingQueryError())))
        document = self._documents.understand(text)
        if document.parsed is None:
            return ExecutionResult(data=None, errors=list(document.errors))
        name = asked.operation_name
        if name is None:
            first = get_first_operation(document.parsed)
            name = first.name.value if first is not None and first.name is not None else None
        try:
            kind = get_operation_type(document.parsed, name)
        except RuntimeError as error:
            # What holds no operation to execute is answered like any other document that is not valid.
            return refused(GraphQLError(str(error) if name is None else f'Unknown operation named "{name}".'))
        if kind not in allowed:
            raise InvalidOperationTypeError(kind)
        if document.errors:
            return ExecutionResult(data=None, errors=list(document.errors))
        beyond = self._documents.beyond_rows(document, name, asked.variables or {})
        if beyond is not None:
            return refused(beyond)
        roots, names = document.root_fields.get(name, 0), document.root_names.get(name, ())
        return Operation(document.parsed, name, kind, asked.variables, roots, names)

    async def execute(self, operation: Operation, context: Context) -> ExecutionResult:
        """What a query or a mutation answers."""
        try:
            context.cost.begin(operation.root_fields)
        except MeteringError as error:
            return refused(error)
        result = execute(
            self._schema,
            operation.document,
            variable_values=cast("dict[str, Any] | None", operation.variables),
            operation_name=operation.name,
            context_value=context,
            executor_class=self._executor,
            is_awaitable=optimized_is_awaitable,  # type: ignore[arg-type]  # it tells them, and narrows no type
            hide_suggestions=self._hide_suggestions,
            **self._options,
        )
        return result if isinstance(result, ExecutionResult) else await result

    async def subscribe(
        self, operation: Operation, context: Context
    ) -> AsyncGenerator[ExecutionResult, None] | ExecutionResult:
        """The answers of a subscription, or what is wrong with it. The stream raises what its source raises."""
        try:
            context.cost.begin(operation.root_fields)
        except MeteringError as error:
            return refused(error)
        answers = subscribe(
            self._schema,
            operation.document,
            variable_values=cast("dict[str, Any] | None", operation.variables),
            operation_name=operation.name,
            context_value=context,
            executor_class=self._executor,
            is_awaitable=optimized_is_awaitable,  # as above
            hide_suggestions=self._hide_suggestions,
            **self._options,
        )
        found = answers if isinstance(answers, AsyncIterator | ExecutionResult) else await answers
        if isinstance(found, ExecutionResult):
            return found
        assert isinstance(found, AsyncGenerator), "the source is a generator, and so is what is made of it"
        return found
