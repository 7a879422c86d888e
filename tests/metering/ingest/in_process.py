"""The service in a test's own event loop, asked without a network between: many requests at once cost little more than theirs."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final, NamedTuple

import msgspec
from starlette.types import ASGIApp, Message

from graphql_api.app import create_app
from metering.config import Settings
from metering.limits import LIMITS, Limits
from tests.conftest import ADMIN_KEY, bearer

JSON: Final = {"Content-Type": "application/json"}


class Answer(NamedTuple):
    """How a request was answered."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body, as the JSON that it is."""
        return msgspec.json.decode(self.body)


class InProcess:
    """A service that runs."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def post(
        self, body: bytes, headers: Mapping[str, str] = JSON, *, key: str = ADMIN_KEY, query: str = ""
    ) -> Answer:
        """POST a body of events."""
        named = {**bearer(key), **headers}
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": "POST",
            "scheme": "http",
            "path": "/v1/events",
            "raw_path": b"/v1/events",
            "root_path": "",
            "query_string": query.encode(),
            "headers": [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in named.items()],
            "client": ("127.0.0.1", 1),
            "server": ("service", 80),
        }
        said: list[Message] = []

        async def receive() -> Message:
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message: Message) -> None:
            said.append(message)

        await self._app(scope, receive, send)
        start, *parts = said
        answered = {name.decode("latin-1"): value.decode("latin-1") for name, value in start["headers"]}
        return Answer(start["status"], answered, b"".join(part.get("body", b"") for part in parts))


@asynccontextmanager
async def in_process(database_url: str, limits: Limits = LIMITS, **settings: Any) -> AsyncIterator[InProcess]:
    """The service on this database, without background work unless told otherwise, started and stopped as a server does it."""
    chosen = {"log_level": "error", "bootstrap_key": ADMIN_KEY, "work": False, **settings}
    app = create_app(Settings(database_url=database_url, **chosen), limits)
    said: asyncio.Queue[Message] = asyncio.Queue()
    heard: asyncio.Queue[Message] = asyncio.Queue()
    running = asyncio.ensure_future(app({"type": "lifespan", "state": {}}, said.get, heard.put))
    await said.put({"type": "lifespan.startup"})
    assert "lifespan.startup.complete" == (await heard.get())["type"]
    try:
        yield InProcess(app)
    finally:
        await said.put({"type": "lifespan.shutdown"})
        assert "lifespan.shutdown.complete" == (await heard.get())["type"]
        await running
