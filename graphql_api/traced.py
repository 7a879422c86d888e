"""Requests as spans, below those of whoever sends them; it is not there where traces are off."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from starlette.types import ASGIApp, Receive, Scope, Send

from graphql_api.watched import Watched
from metering.spans import Kind, Traces, begin, below
from metering.telemetry import note, noted

# Probes and what reads metrics ask every few seconds, and would only be in the way.
_PATHS: Final = frozenset({"/v1/events", "/graphql"})
# Any other word is a client's own.
_METHODS: Final = frozenset({"GET", "POST", "HEAD", "OPTIONS", "PUT", "PATCH", "DELETE"})
_OTHER: Final = "_OTHER"
_TRACEPARENT: Final = b"traceparent"
# Of what is in the line of a request so much is in its span: numbers and codes, no key and no address.
_TOLD: Final = ("bytes", "accepted", "duplicates", "cost", "statements", "errors")
_OUTCOMES: Final = ("accepted", "duplicates")
_FAILED: Final = 500


class Traced:
    """Begins a span for each request of events or GraphQL; what comes over a WebSocket has one for each operation."""

    def __init__(self, app: ASGIApp, traces: Callable[[], Traces]) -> None:
        self._app = app
        self._traces = traces

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on, in the place below the caller's span."""
        if scope["type"] == "lifespan" or scope["path"] not in _PATHS:
            await self._app(scope, receive, send)
            return
        with below(self._traces().below(_traceparent(scope))):
            if scope["type"] == "http":
                await self._request(scope, receive, send)
            else:
                await self._app(scope, receive, send)

    async def _request(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on, as a span that says how it ended; its trace is named in the request's line."""
        watched, has_failed = Watched(send), False
        method = scope["method"] if scope["method"] in _METHODS else _OTHER
        attributes = {"http.request.method": method, "http.route": scope["path"]}
        with begin(f"{method} {scope['path']}", attributes, Kind.SERVER) as span:
            assert span is not None, "below a place that is not one of ours, one begins"
            note(trace=span.trace_id)
            try:
                await self._app(scope, receive, watched)
            except Exception:
                has_failed = True
                raise
            finally:
                # Where it failed before it was answered, who is around us answers so.
                status = watched.status or (_FAILED if has_failed else 0)
                span.tell(dict(_told(noted())))
                if status:
                    span.tell({"http.response.status_code": status})
                if status >= _FAILED:
                    span.fail(str(status))


def _traceparent(scope: Scope) -> str | None:
    for name, value in scope["headers"]:
        if name == _TRACEPARENT:
            found: str = value.decode("latin-1")
            return found
    return None


def _told(facts: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """What a span says of a request, by what its line says."""
    for name in _TOLD:
        if name in facts:
            yield f"metering.{name}", facts[name]
    if "accepted" in facts:
        rejected: Mapping[str, int] = facts.get("rejected", {})
        yield "metering.events", sum(facts[name] for name in _OUTCOMES) + sum(rejected.values())
        yield "metering.rejected", sum(rejected.values())
        for code, count in rejected.items():
            yield f"metering.rejected.{code}", count
