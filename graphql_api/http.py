"""POST and GET /graphql: a document in, data and errors out. Unexpected errors are masked; their id is in the log."""

import secrets
from http import HTTPStatus
from typing import Any, Final, TypeVar

import msgspec
from graphql import ExecutionResult, GraphQLError
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, Response
from starlette.types import Receive, Scope, Send
from strawberry.schema.exceptions import InvalidOperationTypeError
from strawberry.types.graphql import OperationType

from graphql_api.context import Context
from graphql_api.documents import Documents
from graphql_api.editor import EDITOR
from graphql_api.operations import GraphQLRequest, Operations
from graphql_api.problems import invalid_input
from graphql_api.schema import make_schema
from metering import errors
from metering.ingest.http import problem
from metering.keys import Caller
from metering.reach import NOTHING
from metering.service import Service
from metering.telemetry import logger

_ENCODER: Final = msgspec.json.Encoder()
_MEDIA_TYPE: Final = "application/json"
_AWAY: Final = (errors.DatabaseUnavailableError, errors.SchemaError)


Decoded = TypeVar("Decoded")


class GraphQLEndpoint:
    """The ASGI application behind /graphql."""

    def __init__(self, service: Service, *, breadth_first: bool = True) -> None:
        self._service = service
        self._limits = service.limits
        schema = make_schema().core
        self._operations = Operations(schema, Documents(schema, service.limits), breadth_first=breadth_first)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        try:
            response = await self._answer(Request(scope, receive))
        except ClientDisconnect:
            return  # nobody is left to answer
        except _AWAY as error:
            # Before a key is looked up or after: who asks in GraphQL hears of it in GraphQL.
            response = _response(ExecutionResult(data=None, errors=[GraphQLError(str(error), original_error=error)]))
        except errors.MeteringError as error:
            response = problem(error, self._limits)
            if response.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
                response.headers["Allow"] = "GET, POST"
        await response(scope, receive, send)

    async def _answer(self, request: Request) -> Response:
        if request.method == "GET" and "query" not in request.query_params:
            return HTMLResponse(
                EDITOR, headers={"Content-Security-Policy": "default-src 'self' 'unsafe-inline'; img-src data:"}
            )
        caller = await self._caller(request)
        asked, body_bytes = await self._read(request, caller)
        allowed = [OperationType.QUERY] if request.method == "GET" else list(OperationType)
        async with self._service.snapshot(NOTHING if caller is None else caller.reach) as snapshot:
            context = Context(caller, self._service, snapshot, body_bytes)
            try:
                result = await self._operations.execute(asked, context, allowed)
            except InvalidOperationTypeError as error:
                raise _not_allowed() from error
        return _response(result)

    async def _caller(self, request: Request) -> Caller | None:
        """Whose key or token is sent; None where none is. One that is sent and not good is refused."""
        authorization = request.headers.get("authorization")
        return None if authorization is None else await self._service.credentials.authenticate(authorization)

    async def _read(self, request: Request, caller: Caller | None) -> tuple[GraphQLRequest, int]:
        """What is asked, and the size of the body that it came in."""
        if request.method == "GET":
            variables = request.query_params.get("variables")
            asked = GraphQLRequest(
                query=request.query_params["query"],
                variables=_decode(variables.encode(), dict[str, Any]) if variables else None,
                operation_name=request.query_params.get("operationName"),
            )
            return asked, 0
        if request.method != "POST":
            raise _not_allowed()
        content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if content_type != _MEDIA_TYPE:
            message = f"Content-Type {content_type!r:.60} is not understood; send {_MEDIA_TYPE}."
            raise errors.BodyError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "content_type_unsupported", message)
        body = bytearray()
        async with self._service.bodies.arriving("" if caller is None else caller.sender) as arriving:
            async for chunk in request.stream():
                arriving.add(len(chunk))
                body += chunk
                if len(body) > self._limits.graphql_body_bytes_max:
                    message = f"The request is larger than {self._limits.graphql_body_bytes_max:,} bytes."
                    raise errors.BodyError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "body_too_large", message)
        return _decode(bytes(body), GraphQLRequest), len(body)


def _not_allowed() -> errors.BodyError:
    return errors.BodyError(HTTPStatus.METHOD_NOT_ALLOWED, "method_not_allowed", "Use POST, or GET for queries.")


def _decode(body: bytes, kind: type[Decoded]) -> Decoded:
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        message = f'The request must be JSON like {{"query": "{{ service {{ status }} }}"}}: {error}.'
        raise errors.BodyError(HTTPStatus.BAD_REQUEST, "body_unreadable", message) from error


def _response(result: ExecutionResult) -> Response:
    body: dict[str, Any] = {}
    if result.errors:
        body["errors"] = [_formatted(error) for error in result.errors]
    # A request error (syntax, validation, a wrong variable) happened before anything ran: then there is no `data`.
    is_request_error = result.data is None and all(error.path is None for error in result.errors or ())
    if not is_request_error:
        body["data"] = result.data
    unavailable = any(isinstance(error.original_error, _AWAY) for error in result.errors or ())
    status = HTTPStatus.SERVICE_UNAVAILABLE if unavailable and result.data is None else HTTPStatus.OK
    headers = {"Retry-After": "1"} if status is HTTPStatus.SERVICE_UNAVAILABLE else None
    return Response(_ENCODER.encode(body), status, headers, media_type=_MEDIA_TYPE)


def _formatted(error: GraphQLError) -> dict[str, Any]:
    formatted: dict[str, Any] = dict(error.formatted)
    original = error.original_error
    extensions = dict(formatted.get("extensions") or {})
    if isinstance(original, errors.InvalidInputError):
        issues = [{"path": issue.path, "message": issue.message} for issue in invalid_input(original).issues]
        extensions |= {"code": original.code.upper(), "issues": issues}
    elif isinstance(original, errors.RateLimitedError):
        extensions |= {"code": original.code.upper(), "retryAfterSeconds": original.standing.wait_seconds}
    elif isinstance(original, errors.MeteringError):
        extensions["code"] = original.code.upper()
    elif original is None or error.path is None:
        extensions["code"] = "GRAPHQL_INVALID"
    else:
        error_id = secrets.token_hex(8)
        logger().error("graphql_failed", error_id=error_id, path=error.path, exc_info=original)
        formatted["message"] = f"Something went wrong on our side; the log has it as {error_id}."
        extensions |= {"code": "INTERNAL", "id": error_id}
    return {**formatted, "extensions": extensions}
