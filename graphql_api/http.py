"""/graphql: a document in, data and errors out; as one answer, as a stream of events, or over a WebSocket."""

import time
from collections.abc import AsyncGenerator, Collection
from contextlib import AbstractContextManager, aclosing
from http import HTTPStatus
from typing import Any, Final, TypeVar

import msgspec
from graphql import ExecutionResult, GraphQLError
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send
from strawberry.schema.exceptions import InvalidOperationTypeError
from strawberry.types.graphql import OperationType

from graphql_api import websocket
from graphql_api.answers import body_of, encoded, refused, response_of, unexpected
from graphql_api.codes import Code
from graphql_api.context import Context
from graphql_api.cost import Budgets, Cost
from graphql_api.deadline import disconnected, within
from graphql_api.documents import Documents
from graphql_api.editor import Editor
from graphql_api.event_stream import EventStream
from graphql_api.live import Asker, Live
from graphql_api.media_types import MediaType, accepted, takes_streams
from graphql_api.operations import GraphQLRequest, Operation, Operations
from graphql_api.persisted import Persisted, listed_documents
from graphql_api.schema import make_schema
from metering import errors
from metering.config import Settings
from metering.ingest.http import problem
from metering.keys import Caller
from metering.metrics import QUESTION_SECONDS
from metering.reach import NOTHING, Reach
from metering.service import Service
from metering.spans import Kind, Span, begin, here
from metering.telemetry import note

_BODY_TYPE: Final = "application/json"
_AWAY: Final = (errors.DatabaseUnavailableError, errors.SchemaError, errors.KeySetUnavailableError)
# What says in an address that something is asked; without any of them a browser gets the editor.
_ASKS: Final = ("query", "documentId", "extensions")
# From an address nothing is changed.
_LIVE_QUERIES: Final = frozenset({OperationType.QUERY, OperationType.SUBSCRIPTION})
# Of an operation's name so much is logged.
_NAME_CHARS_MAX: Final = 100
_ANYTHING: Final = frozenset(OperationType)
_NEEDS_STREAM: Final = (
    f"A subscription is answered as {MediaType.EVENT_STREAM.value} (say so in Accept), or over a WebSocket."
)

Decoded = TypeVar("Decoded")


class GraphQLEndpoint:
    """The ASGI application behind /graphql. Raises ConfigurationError for a list of documents that cannot be answered."""

    def __init__(self, service: Service, settings: Settings, editor: Editor) -> None:
        self._service = service
        self._editor = editor
        self._limits = service.limits
        schema = make_schema().core
        documents = Documents(schema, service.limits, introspection=settings.graphql_introspection)
        self._operations = Operations(
            schema,
            documents,
            breadth_first=settings.graphql_breadth_first,
            suggestions=settings.graphql_introspection,
        )
        self._persisted = Persisted(
            listed_documents(settings, schema, service.limits),
            service.limits,
            only_listed=settings.graphql_only_listed,
        )
        self._budgets = Budgets(settings.graphql_cost_per_second)
        self.live = Live(service.limits)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or all that comes over one WebSocket."""
        if scope["type"] == "websocket":
            await websocket.Socket(scope, receive, send, self.live, self._limits).run(self._begin)
            return
        try:
            response = await self._respond(Request(scope, receive))
        except ClientDisconnect:
            return  # nobody is left to answer
        await response(scope, receive, send)

    async def _respond(self, request: Request) -> ASGIApp:
        """The answer, or why there is none."""
        media_type = accepted(request.headers.get("accept"))
        try:
            return await self._answer(request, media_type)
        except _AWAY as error:
            # Before a key is looked up or after: who asks in GraphQL hears of it in GraphQL.
            return response_of(refused(error), MediaType.JSON)
        except errors.MeteringError as error:
            response = problem(error, self._limits)
            if response.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
                response.headers["Allow"] = "GET, POST"
            return response
        except ClientDisconnect:
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, the caller gets an id, and the log the rest
            return Response(encoded(unexpected(error)), HTTPStatus.INTERNAL_SERVER_ERROR, media_type=_BODY_TYPE)

    async def _answer(self, request: Request, media_type: MediaType | None) -> ASGIApp:
        if request.method not in {"GET", "POST"}:
            raise _not_allowed()
        if request.method == "GET" and not any(name in request.query_params for name in _ASKS):
            return self._editor.page()
        if media_type is None:
            known = ", ".join(each.value for each in MediaType)
            raise errors.BodyError(
                HTTPStatus.NOT_ACCEPTABLE, "not_acceptable", f"Answers come as {known}; accept one of them."
            )
        authorization = request.headers.get("authorization")
        caller = await self._caller(authorization)
        asked, body_bytes = await self._read(request, caller)
        note(bytes=body_bytes)
        allowed = _LIVE_QUERIES if request.method == "GET" else _ANYTHING
        operation = self._understand(asked, allowed)
        is_live = isinstance(operation, Operation) and operation.kind is OperationType.SUBSCRIPTION
        if media_type is MediaType.EVENT_STREAM or (is_live and takes_streams(request.headers.get("accept"))):
            bodies = self._bodies(operation, authorization, caller, body_bytes)
            return _Connected(EventStream(bodies, self.live, self._limits), self.live)
        if is_live:
            operation = refused(GraphQLError(_NEEDS_STREAM, extensions={"code": Code.STREAM_NEEDED}))
        if isinstance(operation, ExecutionResult):
            return response_of(operation, media_type)
        cost = self._cost(caller)
        # Who asked for a change and went away has asked for it all the same.
        gone = disconnected(request.receive) if operation.kind is OperationType.QUERY else None
        with _traced(operation):
            work = self._execute(operation, caller, cost, body_bytes)
            try:
                result = await within(self._limits.graphql_seconds_max, work, gone)
            except errors.TimeLimitError as error:
                result = refused(error)
            return response_of(result, media_type, cost)

    def _understand(self, asked: GraphQLRequest, allowed: Collection[OperationType]) -> Operation | ExecutionResult:
        """The operation that is asked for, or what is wrong with it. Raises BodyError where it is not allowed here."""
        try:
            text = self._persisted.text_of(asked)
        except GraphQLError as error:
            return refused(error)
        try:
            return self._operations.understand(text, asked, allowed)
        except InvalidOperationTypeError as error:
            raise _not_allowed() from error

    async def _execute(
        self, operation: Operation, caller: Caller | None, cost: Cost, body_bytes: int
    ) -> ExecutionResult:
        async with self._service.snapshot(_reach(caller)) as snapshot:
            context = Context(caller, self._service, snapshot, body_bytes, cost)
            note(operation=(operation.name or "")[:_NAME_CHARS_MAX], kind=operation.kind.value)
            started = time.perf_counter()
            try:
                return await self._operations.execute(operation, context)
            finally:
                seconds = time.perf_counter() - started
                for field in operation.root_names:
                    self._service.counters.observe(QUESTION_SECONDS, seconds, field)
                note(cost=cost.requested + cost.points)

    def _cost(self, caller: Caller | None) -> Cost:
        return Cost(self._budgets.of("" if caller is None else caller.sender))

    # ------------------------------------------------------------ more than one answer

    async def _begin(self, authorization: str | None) -> websocket.Caller:
        """Who asks over a WebSocket. Raises UnauthenticatedError."""
        await self._caller(authorization)

        async def ask(asked: GraphQLRequest, body_bytes: int) -> AsyncGenerator[dict[str, Any], None]:
            # Looked up for each operation: the connection may outlive the key.
            try:
                caller = await self._caller(authorization)
                operation = self._understand(asked, _ANYTHING)
            except errors.MeteringError as error:
                yield body_of(refused(error))
                return
            except Exception as error:  # noqa: BLE001 - as above
                yield unexpected(error)
                return
            async with aclosing(self._bodies(operation, authorization, caller, body_bytes)) as bodies:
                async for body in bodies:
                    yield body

        return websocket.Caller(ask)

    async def _bodies(
        self, operation: Operation | ExecutionResult, authorization: str | None, caller: Caller | None, body_bytes: int
    ) -> AsyncGenerator[dict[str, Any], None]:
        """Every answer to an operation of any type, as it is sent; what goes wrong is an answer, the last one."""
        cost = self._cost(caller)
        try:
            if isinstance(operation, ExecutionResult):
                yield body_of(operation)
            elif operation.kind is not OperationType.SUBSCRIPTION:
                with _traced(operation):
                    work = self._execute(operation, caller, cost, body_bytes)
                    body = body_of(await within(self._limits.graphql_seconds_max, work), cost)
                yield body
            else:
                asker = Asker(self.live, lambda: self._caller(authorization))
                context = Context(
                    caller, self._service, self._service.snapshot(_reach(caller)), body_bytes, cost, asker
                )
                answers = await self._operations.subscribe(operation, context)
                if isinstance(answers, ExecutionResult):
                    yield body_of(answers)
                    return
                async with aclosing(answers):
                    async for result in answers:
                        yield body_of(result, cost)
        except errors.MeteringError as error:
            yield body_of(refused(error))
        except Exception as error:  # noqa: BLE001 - as above
            yield unexpected(error)

    # ------------------------------------------------------------ what is asked, and by whom

    async def _caller(self, authorization: str | None) -> Caller | None:
        """Whose key or token is sent; None where none is. One that is sent and not good is refused."""
        return None if authorization is None else await self._service.credentials.authenticate(authorization)

    async def _read(self, request: Request, caller: Caller | None) -> tuple[GraphQLRequest, int]:
        """What is asked, and the size of the body that it came in."""
        if request.method == "GET":
            return _read_address(request), 0
        content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if content_type != _BODY_TYPE:
            message = f"Content-Type {content_type!r:.60} is not understood; send {_BODY_TYPE}."
            raise errors.BodyError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "content_type_unsupported", message)
        body = bytearray()
        async with self._service.bodies.arriving("" if caller is None else caller.sender) as arriving:
            async for chunk in request.stream():
                arriving.add(len(chunk))
                body += chunk
                if len(body) > self._limits.graphql_body_bytes_max:
                    message = f"The request is larger than {self._limits.graphql_body_bytes_max:,} bytes."
                    raise errors.BodyError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "body_too_large", message)
        asked = _decode(bytes(body), GraphQLRequest)
        if not asked.names_document:
            raise _unreadable("it has no `query`, no `documentId` and no `extensions.persistedQuery`")
        return asked, len(body)


class _Connected:
    """A response that stays open: there are so many of them at a time."""

    def __init__(self, response: EventStream, live: Live) -> None:
        self._response = response
        self._live = live

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it, or say that there are too many."""
        try:
            with self._live.connection():
                await self._response(scope, receive, send)
        except errors.LiveFullError as error:
            await response_of(refused(error), MediaType.JSON)(scope, receive, send)


def _traced(operation: Operation) -> AbstractContextManager[Span | None]:
    """An operation as a span: its name and its fields at the root, which the schema has; never its variables."""
    name = (operation.name or "")[:_NAME_CHARS_MAX]
    attributes = {
        "graphql.operation.type": operation.kind.value,
        "graphql.operation.name": name,
        "metering.root_fields": operation.root_names,
    }
    # Over a WebSocket there is no request around it.
    kind = Kind.SERVER if here() is None else Kind.INTERNAL
    return begin(f"{operation.kind.value} {name}".rstrip(), attributes, kind)


def _read_address(request: Request) -> GraphQLRequest:
    """What an address asks."""
    given = request.query_params
    variables, extensions = (
        _decode(value.encode(), dict[str, Any]) if (value := given.get(name)) else None
        for name in ("variables", "extensions")
    )
    asked = GraphQLRequest(
        query=given.get("query"),
        variables=variables,
        operation_name=given.get("operationName"),
        extensions=extensions,
        document_id=given.get("documentId"),
    )
    if not asked.names_document:
        raise _unreadable("`extensions` has no `persistedQuery`")
    return asked


def _reach(caller: Caller | None) -> Reach:
    return NOTHING if caller is None else caller.reach


def _not_allowed() -> errors.BodyError:
    return errors.BodyError(HTTPStatus.METHOD_NOT_ALLOWED, "method_not_allowed", "Use POST, or GET for queries.")


def _unreadable(reason: object) -> errors.BodyError:
    message = f'The request must be JSON like {{"query": "{{ service {{ status }} }}"}}: {reason}.'
    return errors.BodyError(HTTPStatus.BAD_REQUEST, "body_unreadable", message)


def _decode(body: bytes, kind: type[Decoded]) -> Decoded:
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _unreadable(error) from error
