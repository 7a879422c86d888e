"""Operations over a WebSocket (graphql-transport-ws): many at a time, each answered under the id that the client gave it.

A page in a browser cannot send a header along, so the key may come in the message that begins the connection. No cookie is
ever looked at: a page of somebody else has nothing to ask with.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import suppress
from typing import Any, Final, Literal

import msgspec
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from graphql_api.answers import encoded
from graphql_api.deadline import given_up
from graphql_api.live import Live
from graphql_api.operations import GraphQLRequest
from metering.errors import MeteringError
from metering.limits import Limits

PROTOCOL: Final = "graphql-transport-ws"

# What the protocol closes a connection with.
_GOING_AWAY: Final = 1001
_TRY_AGAIN_LATER: Final = 1013
_BAD_MESSAGE: Final = 4400
_UNAUTHORIZED: Final = 4401
_FORBIDDEN: Final = 4403
_BAD_PROTOCOL: Final = 4406
_NOT_BEGUN: Final = 4408
_ID_TAKEN: Final = 4409
_BEGUN_TWICE: Final = 4429
# A frame that closes has 125 bytes, two of which are the code.
_REASON_BYTES_MAX: Final = 123

Bodies = AsyncGenerator[dict[str, Any], None]
Begin = Callable[[str | None], Awaitable["Caller"]]


class Message(msgspec.Struct):
    """What a client sends."""

    type: Literal["connection_init", "ping", "pong", "subscribe", "complete"]
    id: str | None = None
    payload: dict[str, Any] | None = None


class Caller(msgspec.Struct, frozen=True):
    """Who asks over a connection: `ask` begins an operation."""

    ask: Callable[[GraphQLRequest, int], Bodies]


class _Closed(Exception):  # noqa: N818 - not an error: how a connection ends
    """The connection is to be closed, for this reason."""

    def __init__(self, code: int, reason: str) -> None:
        self.code = code
        self.reason = reason.encode()[:_REASON_BYTES_MAX].decode(errors="ignore")
        super().__init__(reason)


class Socket:
    """One connection."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, live: Live, limits: Limits) -> None:
        self._socket = WebSocket(scope, receive, send)
        self._live = live
        self._limits = limits
        self._operations: dict[str, asyncio.Task[None]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._sending = asyncio.Lock()
        # Set when the client takes nothing any more.
        self._lost = asyncio.Event()

    async def run(self, begin: Begin) -> None:
        """Answer until the client goes, breaks the protocol, or the process stops; then nothing of it goes on.

        `begin` makes a Caller of what stands for an Authorization header; it raises MeteringError for one that is not good.
        """
        serving = asyncio.ensure_future(self._serve(begin))
        stopping = asyncio.ensure_future(self._live.stopping.wait())
        lost = asyncio.ensure_future(self._lost.wait())
        try:
            await asyncio.wait({serving, stopping, lost}, return_when=asyncio.FIRST_COMPLETED)
            if serving.done():
                serving.result()
            await given_up(serving, *self._tasks)
            await self._close(_GOING_AWAY, "The service is stopping." if stopping.done() else "Nothing is taken.")
        except _Closed as closed:
            await given_up(*self._tasks)
            await self._close(closed.code, closed.reason)
        except WebSocketDisconnect:
            return
        finally:
            await given_up(serving, stopping, lost, *self._tasks)

    async def _serve(self, begin: Begin) -> None:
        protocols = self._socket.scope.get("subprotocols") or []
        await self._socket.accept(PROTOCOL if PROTOCOL in protocols else None)
        if PROTOCOL not in protocols:
            raise _Closed(_BAD_PROTOCOL, f"The subprotocol is {PROTOCOL}.")
        try:
            with self._live.connection():
                caller = await self._begun(begin)
                while True:
                    await self._take(await self._message(), caller)
        except MeteringError as error:
            raise _Closed(_TRY_AGAIN_LATER if error.retryable else _FORBIDDEN, str(error)) from error

    async def _begun(self, begin: Begin) -> Caller:
        try:
            async with asyncio.timeout(self._limits.live_begin_seconds_max):
                message = await self._message()
                while message.type in {"ping", "pong"}:
                    await self._answer_ping(message)
                    message = await self._message()
        except TimeoutError as error:
            raise _Closed(_NOT_BEGUN, "Connection initialisation timeout") from error
        if message.type != "connection_init":
            raise _Closed(_UNAUTHORIZED, "Unauthorized")
        given = {name.lower(): value for name, value in (message.payload or {}).items()}
        authorization = given.get("authorization") or self._socket.headers.get("authorization")
        if authorization is not None and not isinstance(authorization, str):
            raise _Closed(_FORBIDDEN, "`Authorization` must read `Bearer <key>`.")
        caller: Caller = await begin(authorization)
        await self._send({"type": "connection_ack"})
        return caller

    async def _take(self, message: Message, caller: Caller) -> None:
        """Do what a message of a connection that has begun asks for."""
        if message.type == "connection_init":
            raise _Closed(_BEGUN_TWICE, "Too many initialisation requests")
        if message.type in {"ping", "pong"}:
            await self._answer_ping(message)
        elif message.id is None:
            raise _Closed(_BAD_MESSAGE, f"A message of type {message.type} has an id.")
        elif message.type == "complete":
            task = self._operations.pop(message.id, None)
            if task is not None:
                await given_up(task)
        else:
            self._begin_operation(message.id, message, caller)

    def _begin_operation(self, operation_id: str, message: Message, caller: Caller) -> None:
        if operation_id in self._operations:
            raise _Closed(_ID_TAKEN, f"Subscriber for {operation_id} already exists")
        if len(self._operations) >= self._limits.live_questions_per_key_max:
            raise _Closed(_TRY_AGAIN_LATER, "Too many operations are under way on this connection.")
        try:
            asked = msgspec.convert(message.payload, GraphQLRequest)
        except msgspec.ValidationError as error:
            raise _Closed(_BAD_MESSAGE, f"The payload of a subscribe message is a request: {error}.") from error
        bodies = caller.ask(asked, len(encoded(message.payload)))
        task = asyncio.create_task(self._operate(operation_id, bodies))
        self._operations[operation_id] = task
        self._tasks.add(task)
        task.add_done_callback(lambda done: self._forget(operation_id, done))

    def _forget(self, operation_id: str, done: "asyncio.Task[None]") -> None:
        self._tasks.discard(done)
        # The client may have ended it and used its id again meanwhile.
        if self._operations.get(operation_id) is done:
            del self._operations[operation_id]

    async def _operate(self, operation_id: str, bodies: Bodies) -> None:
        """Send what an operation answers; errors before anything was executed end it."""
        try:
            async for body in bodies:
                if "data" not in body:
                    await self._send({"id": operation_id, "type": "error", "payload": body["errors"]})
                    return
                await self._send({"id": operation_id, "type": "next", "payload": body})
            # From here on the client may use the id again, and it may do so as soon as it has read this.
            self._operations.pop(operation_id, None)
            await self._send({"id": operation_id, "type": "complete"})
        except (WebSocketDisconnect, RuntimeError):
            self._lost.set()  # nobody takes it
        finally:
            await bodies.aclose()

    async def _answer_ping(self, message: Message) -> None:
        if message.type == "ping":
            await self._send({"type": "pong", "payload": message.payload})

    async def _message(self) -> Message:
        received = await self._socket.receive()
        if received["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(received.get("code", _GOING_AWAY))
        text = received.get("text")
        if text is None:
            raise _Closed(_BAD_MESSAGE, "A message is text.")
        if len(text) > self._limits.graphql_body_bytes_max:
            message = f"A message may have {self._limits.graphql_body_bytes_max:,} characters."
            raise _Closed(_BAD_MESSAGE, message)
        try:
            return msgspec.json.decode(text, type=Message)
        except (msgspec.DecodeError, RecursionError, UnicodeError) as error:
            raise _Closed(_BAD_MESSAGE, f"Invalid message received: {error}") from error

    async def _send(self, message: dict[str, Any]) -> None:
        try:
            async with asyncio.timeout(self._limits.live_send_seconds_max), self._sending:
                await self._socket.send_text(encoded(message).decode())
        except TimeoutError as error:
            self._lost.set()
            raise WebSocketDisconnect(_GOING_AWAY) from error

    async def _close(self, code: int, reason: str) -> None:
        if self._socket.application_state is not WebSocketState.CONNECTED:
            return
        with suppress(TimeoutError, WebSocketDisconnect):
            async with asyncio.timeout(self._limits.live_send_seconds_max):
                await self._socket.close(code, reason)
