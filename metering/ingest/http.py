"""POST /v1/events: bytes in, a receipt out once the events are durable. The contract is docs/ingest.md."""

from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Final
from urllib.parse import parse_qs

import msgspec
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from metering import __version__, errors
from metering.allowance import Allowances
from metering.credentials import Credentials
from metering.ingest.admit import Admission, admit
from metering.ingest.arriving import Bodies, Body
from metering.ingest.batch import Writer
from metering.ingest.decode import Decoded
from metering.ingest.encodings import ENCODINGS, Decoding, decoding, encoding_of
from metering.ingest.openapi import openapi
from metering.ingest.rate_headers import rate_headers
from metering.ingest.readers import Reader, reader_of
from metering.ingest.receipts import Receipt
from metering.ingest.refusals import Origin, Refusals
from metering.ingest.write import Submission
from metering.keys import Caller
from metering.keys import Scope as KeyScope
from metering.limits import Limits
from metering.metrics import EVENTS, REJECTIONS, Counters
from metering.standing import Standing
from metering.telemetry import note

_RECEIPT: Final = msgspec.json.Encoder()


def describe(limits: Limits) -> Callable[[Request], Awaitable[Response]]:
    """The endpoint that answers with the OpenAPI description of this one."""
    body = msgspec.json.encode(openapi(limits, __version__))

    async def answer(_request: Request) -> Response:
        return Response(body, media_type="application/json")

    return answer


class EventsEndpoint:
    """The ASGI application behind /v1/events."""

    def __init__(
        self,
        writer: Writer,
        credentials: Credentials,
        limits: Limits,
        restamp_window: timedelta,
        *,
        allowances: Allowances,
        bodies: Bodies,
        retention: timedelta | None = None,
        counters: Counters | None = None,
    ) -> None:
        self._writer = writer
        self._credentials = credentials
        self._limits = limits
        self._restamp_window = restamp_window
        self._allowances = allowances
        self._bodies = bodies
        self._retention = retention
        self._counters = counters or Counters()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        try:
            response = await self._answer(Request(scope, receive))
        except ClientDisconnect:
            return  # nobody is left to answer, and nothing was taken
        except errors.MeteringError as error:
            response = problem(_to_be_sent_again(error), self._limits)
        await response(scope, receive, send)

    async def _answer(self, request: Request) -> Response:
        if request.method != "POST":
            raise errors.BodyError(405, "method_not_allowed", "Events are sent with POST.")
        key = (await self._credentials.authenticate(request.headers.get("authorization"))).require(KeyScope.USAGE_WRITE)
        atomic = _atomic(request)
        encoding = encoding_of(", ".join(request.headers.getlist("content-encoding")))
        limits = key.limits.within(self._limits)
        reader = reader_of(request.headers.raw, limits)
        async with self._bodies.arriving(key.sender) as body:
            try:
                await _read(request.receive, decoding(encoding, limits), body, reader)
                body.arrived()
                note(bytes=body.held_bytes)
                decoded = reader.finish()
            except errors.BodyError as error:
                raise _of_key(error, limits, self._limits) from error
            standing = await self.spend(key, len(decoded))
            refusals = Refusals(key.sender, reader)
            refusals.keep(reader.let_go(larger_than=self._limits.rejected_body_bytes_max), self._limits)
            # Its bytes count until it is answered: what waits for a slow database takes memory as what arrives does.
            receipt = await self.record(decoded, key, refusals, atomic=atomic)
        status = 422 if atomic and receipt.rejected else 200
        return Response(_RECEIPT.encode(receipt), status, rate_headers(standing), media_type="application/json")

    async def spend(self, key: Caller, events: int) -> Standing | None:
        """Take a request of so many events out of the key's allowance; None when it has no rate.

        Raises RateLimitedError, or WriterFullError before anything is taken out: waiting for a writer costs no allowance.
        """
        if key.limits.events_per_second_max is not None:
            self._writer.check_room(key.sender, events)
        return await self._allowances.spend(key, events)

    async def record(self, decoded: Decoded, key: Caller, origin: Origin, *, atomic: bool = False) -> Receipt:
        """Admit events and wait until they are durable, and what is refused of them is kept.

        A rejection is told in the words of the format that the events came in.
        """
        now = datetime.now(UTC)
        terms = Admission(
            limits=self._limits,
            now=now,
            restamp_window=self._restamp_window,
            accounts=key.accounts,
            default_source=key.default_source,
            retained_from=None if self._retention is None else now - self._retention,
        )
        admitted, rejected = admit(decoded, terms)
        receipt = await self._writer.submit(
            Submission(
                admitted=admitted, rejected=origin.worded(rejected), received_at=now, origin=origin, atomic=atomic
            ),
            key.sender,
        )
        self._tell(receipt)
        return receipt

    def _tell(self, receipt: Receipt) -> None:
        """Count what became of a request's events, and say it in its line."""
        counters = self._counters
        note(accepted=receipt.accepted, duplicates=receipt.duplicates)
        if receipt.accepted:
            counters.count(EVENTS, "accepted", by=receipt.accepted)
        if receipt.duplicates:
            counters.count(EVENTS, "duplicate", by=receipt.duplicates)
        if receipt.rejected:
            codes = Counter(rejection.code.value for rejection in receipt.rejected)
            note(rejected=dict(codes))
            counters.count(EVENTS, "rejected", by=len(receipt.rejected))
            for code, count in codes.items():
                counters.count(REJECTIONS, code, by=count)


async def _read(receive: Receive, plain: Decoding, body: Body, reader: Reader) -> None:
    """Read a body as it arrives. No generator: for a body of one event, three of them took a third of the time."""
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        for piece in plain.pieces(message.get("body", b"")):
            body.add(len(piece))
            reader.feed(piece)
        more = message.get("more_body", False)
    plain.finish()


def _of_key(error: errors.BodyError, limits: Limits, everyones: Limits) -> errors.BodyError:
    """The same refusal, which says so when the limit that was met is the key's own and narrower than everyone's."""
    name = error.limit
    if name is None or getattr(limits, name) == getattr(everyones, name):
        return error
    message = f"{error} This is the limit of this key; others have {getattr(everyones, name):,}."
    return errors.BodyError(error.status, error.code, message, limit=name)


def _to_be_sent_again(error: errors.MeteringError) -> errors.MeteringError:
    """The error; where it is the database's, of whichever kind, the one that says that the events may be sent again."""
    if not isinstance(error, errors.DatabaseError) or error.retryable:
        return error
    said = str(error) if isinstance(error, errors.SchemaError) else "The database broke off what it was asked."
    return errors.DatabaseUnavailableError(f"{said} Send the events again.")


def _atomic(request: Request) -> bool:
    if not request.scope["query_string"]:
        return False
    values = parse_qs(request.url.query, keep_blank_values=True)
    unknown = sorted(values.keys() - {"atomic"})
    if unknown:
        raise errors.BodyError(
            400, "parameter_unknown", f"There is no parameter {unknown[0]!r:.60}; `atomic` is the only one."
        )
    value = values.get("atomic", ["false"])[-1]
    if value not in {"true", "false"}:
        raise errors.BodyError(400, "parameter_invalid", f"`atomic` is true or false, not {value!r:.60}.")
    return value == "true"


_STATUS: Final[Mapping[type[errors.MeteringError], int]] = {
    errors.UnauthenticatedError: 401,
    errors.ForbiddenError: 403,
    errors.RateLimitedError: 429,
    errors.WriterFullError: 503,
    errors.BodiesFullError: 503,
    errors.KeySetUnavailableError: 503,
    errors.DatabaseError: 503,
}


def problem(error: errors.MeteringError, limits: Limits) -> Response:
    """An error as `application/problem+json` (RFC 9457), with the headers that its status asks for."""
    known = next((status for kind, status in _STATUS.items() if isinstance(error, kind)), 500)
    status = error.status if isinstance(error, errors.BodyError) else known
    headers = {}
    if error.retryable:
        headers["Retry-After"] = str(limits.retry_after_seconds)
    if isinstance(error, errors.RateLimitedError):
        headers |= {"Retry-After": str(error.standing.wait_seconds), **rate_headers(error.standing)}
    if status == 408:  # noqa: PLR2004 - an HTTP status
        # Else the rest of the body could go on coming, a byte at a time.
        headers["Connection"] = "close"
    if status == 401:  # noqa: PLR2004 - an HTTP status
        headers["WWW-Authenticate"] = "Bearer"
    if status == 405:  # noqa: PLR2004 - an HTTP status
        headers["Allow"] = "POST"
    if error.code == "encoding_unsupported":
        headers["Accept-Encoding"] = ", ".join(ENCODINGS)
    body = {
        "type": "about:blank",
        "title": _TITLES.get(status, "Error"),
        "status": status,
        "code": error.code,
        "detail": str(error),
    }
    return Response(msgspec.json.encode(body), status, headers, media_type="application/problem+json")


_TITLES: Final = {
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    405: "Method Not Allowed",
    406: "Not Acceptable",
    408: "Request Timeout",
    413: "Content Too Large",
    415: "Unsupported Media Type",
    429: "Too Many Requests",
    503: "Service Unavailable",
}
