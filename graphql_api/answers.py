"""Answers as they are sent: data, errors with stable codes, and what it cost. Unexpected errors are masked; the log has them."""

import secrets
from http import HTTPStatus
from typing import Any, Final

import msgspec
from graphql import ExecutionResult, GraphQLError
from starlette.responses import Response

from graphql_api.codes import Code
from graphql_api.cost import Cost
from graphql_api.media_types import MediaType
from graphql_api.problems import invalid_input
from metering import errors
from metering.spans import here
from metering.telemetry import logger, note

_ENCODER: Final = msgspec.json.Encoder()
_AWAY: Final = (
    errors.DatabaseUnavailableError,
    errors.DoorFullError,
    errors.SchemaError,
    errors.KeySetUnavailableError,
    errors.LiveFullError,
)
_AWAY_RETRY_SECONDS: Final = 1


def refused(error: Exception) -> ExecutionResult:
    """The result of an operation of which nothing was executed."""
    found = error if isinstance(error, GraphQLError) else GraphQLError(str(error), original_error=error)
    return ExecutionResult(data=None, errors=[found])


def is_request_error(result: ExecutionResult) -> bool:
    """Whether nothing was executed (syntax, validation, a wrong variable): then there is no `data`, not even null."""
    return result.data is None and not any(
        error.path is not None or isinstance(error.original_error, errors.TimeLimitError)
        for error in result.errors or ()
    )


def body_of(result: ExecutionResult, cost: Cost | None = None) -> dict[str, Any]:
    """What is encoded: `errors` before `data`, so that who reads along sees them first."""
    body: dict[str, Any] = {}
    if result.errors:
        body["errors"] = [formatted(error) for error in result.errors]
        codes = sorted({str(error["extensions"]["code"]) for error in body["errors"]})
        note(errors=codes)
        span = here()
        if span is not None:
            span.tell({"metering.errors": codes})
            span.fail(codes[0])
    if not is_request_error(result):
        body["data"] = result.data
        if cost is not None:
            body["extensions"] = {"cost": cost.told()}
    return body


def encoded(body: object) -> bytes:
    """JSON; instants are written here."""
    return _ENCODER.encode(body)


def response_of(result: ExecutionResult, media_type: MediaType, cost: Cost | None = None) -> Response:
    """The whole answer. Its status says how it ended to whoever asked for the media type that says so."""
    status, headers = HTTPStatus.OK, {"Vary": "Accept"}
    originals = [error.original_error for error in result.errors or () if result.data is None]
    throttled = next((each for each in originals if isinstance(each, errors.ThrottledError)), None)
    if any(isinstance(each, _AWAY) for each in originals):
        # Before a key is looked up or after, in either media type: who stands between us and the client acts on it.
        status, headers["Retry-After"] = HTTPStatus.SERVICE_UNAVAILABLE, str(_AWAY_RETRY_SECONDS)
    elif throttled is not None:
        status, headers["Retry-After"] = HTTPStatus.TOO_MANY_REQUESTS, str(throttled.wait_seconds)
    elif is_request_error(result) and media_type.is_response:
        status = HTTPStatus.BAD_REQUEST
    return Response(encoded(body_of(result, cost)), status, headers, media_type=media_type.value)


def unexpected(error: Exception) -> dict[str, Any]:
    """The body where not even an error of GraphQL came about."""
    return {"errors": [_masked({}, error, None)]}


def formatted(error: GraphQLError) -> dict[str, Any]:
    """An error as it is shown: with a code that programs can switch on, and nothing that only we should know."""
    shown: dict[str, Any] = dict(error.formatted)
    original = error.original_error
    extensions = dict(shown.get("extensions") or {})
    if isinstance(original, errors.InvalidInputError):
        issues = [{"path": issue.path, "message": issue.message} for issue in invalid_input(original).issues]
        extensions |= {"code": original.code.upper(), "issues": issues}
    elif isinstance(original, errors.RateLimitedError):
        extensions |= {"code": original.code.upper(), "retryAfterSeconds": original.standing.wait_seconds}
    elif isinstance(original, errors.ThrottledError):
        extensions |= {"code": original.code.upper(), "retryAfterSeconds": original.wait_seconds}
    elif isinstance(original, errors.MeteringError):
        extensions["code"] = original.code.upper()
    elif original is None or error.path is None:
        # Before anything ran: what a scalar says of a value that it does not take is an exception too.
        extensions.setdefault("code", Code.GRAPHQL_INVALID)
    else:
        return _masked(shown, original, error.path)
    return {**shown, "extensions": extensions}


def _masked(shown: dict[str, Any], error: Exception, path: object) -> dict[str, Any]:
    error_id = secrets.token_hex(8)
    logger().error("graphql_failed", error_id=error_id, path=path, exc_info=error)
    message = f"Something went wrong on our side; the log has it as {error_id}."
    extensions = {**(shown.get("extensions") or {}), "code": Code.INTERNAL, "id": error_id}
    return {**shown, "message": message, "extensions": extensions}
