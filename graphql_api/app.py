"""The ASGI application: the only place where everything is wired together."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from graphql_api.editor import FILES_PATH, Editor
from graphql_api.http import GraphQLEndpoint
from graphql_api.metrics import MetricsEndpoint
from graphql_api.security_headers import SecurityHeaders
from graphql_api.stopping import told
from graphql_api.traced import Traced
from graphql_api.watched import Watched
from metering.config import Settings, read_settings
from metering.errors import ConfigurationError, DatabaseUnavailableError
from metering.ingest.http import describe, problem
from metering.limits import LIMITS, Limits
from metering.loops import this_process
from metering.metrics import REQUEST_SECONDS, STATEMENTS, Counters
from metering.probes import Status
from metering.service import Service, open_service
from metering.siblings import Siblings
from metering.spans import Traces
from metering.telemetry import STATEMENTS_NOTED, begin_request, configure_logs, logger
from metering.traces import open_traces

Part = TypeVar("Part")
# Requests are counted by these paths; all others together, for there is no end of them.
_PATHS: Final = frozenset({"/", "/graphql", "/v1/events", "/livez", "/readyz", "/metrics", "/openapi.json"})
_OTHER: Final = "other"


def create_app(settings: Settings | None = None, limits: Limits = LIMITS, siblings: Path | None = None) -> ASGIApp:
    """The application, by the settings given or those in the environment (uvicorn's `--factory`).

    `siblings` is the folder in which the processes of one service share what they counted.
    """
    settings = settings or read_settings()
    if settings.database_url is None:
        raise ConfigurationError(
            ["METERING_DATABASE_URL: is not set. `metering serve` sets it to its embedded PostgreSQL; run that."]
        )
    configure_logs(settings.log_level, settings.log_format)
    running = _Running(settings, limits, siblings)
    routes = [
        Route("/", _to_editor),
        # For whoever asks for it with a slash behind, and is led here.
        Route("/graphql", running.graphql),
        WebSocketRoute("/graphql", running.graphql),
        Mount(FILES_PATH, running.editor.files),
        Route("/livez", _livez),
        Route("/readyz", running.readyz),
        Route("/metrics", running.metrics),
        Route("/openapi.json", describe(limits)),
    ]
    directly = {"/v1/events": running.events, "/graphql": running.graphql}
    served: ASGIApp = _Directly(directly, Starlette(routes=routes, lifespan=running.lifespan))
    if settings.traces_url is not None:
        served = Traced(served, lambda: running.traces)
    return SecurityHeaders(RequestLog(served, running.counters, limits), behind_tls=settings.behind_tls)


class _Running:
    """The service behind the routes, from the application's start to its end."""

    def __init__(self, settings: Settings, limits: Limits, siblings: Path | None) -> None:
        self._settings = settings
        self._limits = limits
        self.counters = Counters()
        self._siblings = Siblings(self.counters, siblings)
        self._metrics: MetricsEndpoint | None = None
        self.editor = Editor()
        self._service: Service | None = None
        self._traces: Traces | None = None
        self.events = _Endpoint(lambda: self.service.events)
        self._graphql: GraphQLEndpoint | None = None
        self.graphql = _Endpoint(lambda: self._opened(self._graphql))

    @property
    def service(self) -> Service:
        """The open service."""
        return self._opened(self._service)

    @property
    def traces(self) -> Traces:
        """What spans go below, where they are collected."""
        return self._opened(self._traces)

    def _opened(self, part: Part | None) -> Part:
        assert part is not None, "requests come after the start"
        return part

    @asynccontextmanager
    async def lifespan(self, _app: Starlette) -> AsyncIterator[None]:
        """Open the service, and close it when the application ends."""
        async with (
            open_traces(self._settings, self._limits, this_process()) as self._traces,
            open_service(self._settings, self._limits, self.counters) as self._service,
        ):
            self._metrics = MetricsEndpoint(self._service, self._siblings, self._settings)
            # Now: a list of documents that cannot be answered is known at the start.
            self._graphql = GraphQLEndpoint(self._service, self._settings, self.editor)
            self._siblings.start()
            with told(self._graphql.live.stopping):
                yield
            await self._siblings.close()

    async def metrics(self, request: Request) -> Response:
        """What is counted, for Prometheus."""
        return await self._opened(self._metrics).answer(request)

    async def readyz(self, _request: Request) -> Response:
        """Whether work can be done now: 200, or 503 with the checks that say why not."""
        readiness = await self.service.readiness()
        body = {"status": readiness.status, "checks": [each.for_anybody for each in readiness.checks]}
        status = 503 if readiness.status is Status.FAIL else 200
        return Response(msgspec.json.encode(body), status, media_type="application/json")


class _Endpoint:
    """An ASGI application that is made at its first request: there is no service before the lifespan begins."""

    def __init__(self, make: Callable[[], ASGIApp]) -> None:
        self._make = make
        self._app: ASGIApp | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on."""
        if self._app is None:
            self._app = self._make()
        await self._app(scope, receive, send)


class _Directly:
    """Hands some paths straight to their endpoint: the framework's layers cost more than taking an event does."""

    def __init__(self, endpoints: Mapping[str, ASGIApp], others: ASGIApp) -> None:
        self._endpoints = endpoints
        self._others = others

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on."""
        endpoint = self._endpoints.get(scope["path"], self._others) if scope["type"] == "http" else self._others
        await endpoint(scope, receive, send)


async def _livez(_request: Request) -> Response:
    """The process answers."""
    return Response(b'{"status":"PASS"}', media_type="application/json")


async def _to_editor(_request: Request) -> Response:
    """The front door leads to the editor."""
    return RedirectResponse("/graphql")


class RequestLog:
    """Counts each request, logs one canonical line of it with what was noted, and answers where nobody expected an error."""

    def __init__(self, app: ASGIApp, counters: Counters, limits: Limits) -> None:
        self._app = app
        self._counters = counters
        self._limits = limits
        self._log = logger().bind()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Time the request and log how it ended."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        facts = begin_request()
        watched = Watched(send)
        try:
            await self._app(scope, receive, watched)
        except asyncio.CancelledError:
            # The server stops, and gives up whom the database has kept waiting until now.
            if watched.status:
                raise
            given_up = DatabaseUnavailableError(
                "The service stopped before the database had answered; send this again."
            )
            await problem(given_up, self._limits)(scope, receive, watched)
        except Exception as error:
            self._log.error("request_failed", method=scope["method"], path=scope["path"], exc_info=error)
            if watched.status:
                raise
            body = b'{"type":"about:blank","title":"Internal Server Error","status":500,"code":"internal"}'
            await Response(body, 500, media_type="application/problem+json")(scope, receive, watched)
        self._told(scope, watched.status, time.perf_counter() - started, facts)

    def _told(self, scope: Scope, status: int, seconds: float, facts: Mapping[str, Any]) -> None:
        path = scope["path"] if scope["path"] in _PATHS else _OTHER
        self._counters.observe(REQUEST_SECONDS, seconds, path, str(status))
        if STATEMENTS_NOTED in facts:
            self._counters.count(STATEMENTS, by=facts[STATEMENTS_NOTED])
        milliseconds = round(seconds * 1_000, 3)
        self._log.info(
            "request", method=scope["method"], path=scope["path"], status=status, milliseconds=milliseconds, **facts
        )
