"""Answers as a stream of events (graphql-sse, distinct connections): `next` for each, and `complete` at the end.

The mode of a single connection is left out: it keeps what was reserved between requests, and these may reach another process.
"""

import asyncio
from collections.abc import AsyncGenerator
from http import HTTPStatus
from typing import Any, Final

from starlette.types import Receive, Scope, Send

from graphql_api.answers import encoded
from graphql_api.deadline import disconnected, given_up
from graphql_api.live import Live
from graphql_api.media_types import MediaType
from metering.limits import Limits

_HEADERS: Final = [
    (b"content-type", f"{MediaType.EVENT_STREAM.value}; charset=utf-8".encode()),
    (b"cache-control", b"no-cache"),
    # A proxy that gathers what is sent would keep an event until the next one comes.
    (b"x-accel-buffering", b"no"),
]
_COMPLETE: Final = b"event: complete\ndata: \n\n"
# A comment, which says nothing: it keeps the connection open, and finds out whether it is.
_SILENCE: Final = b":\n\n"


class EventStream:
    """The response that sends bodies as they come."""

    def __init__(self, bodies: AsyncGenerator[dict[str, Any], None], live: Live, limits: Limits) -> None:
        self._bodies = bodies
        self._live = live
        self._limits = limits

    async def __call__(self, _scope: Scope, receive: Receive, send: Send) -> None:
        """Send until there is nothing more, the client goes, or the process stops."""
        await send({"type": "http.response.start", "status": HTTPStatus.OK, "headers": _HEADERS})
        gone = asyncio.ensure_future(disconnected(receive))
        stopping = asyncio.ensure_future(self._live.stopping.wait())
        coming: asyncio.Future[Any] | None = None
        try:
            while not gone.done():
                coming = coming or asyncio.ensure_future(anext(self._bodies, None))
                await asyncio.wait(
                    {coming, gone, stopping},
                    timeout=self._limits.live_silence_seconds_max,
                    return_when=asyncio.FIRST_COMPLETED,
                )
                if gone.done():
                    return
                if coming.done():
                    body, coming = coming.result(), None
                    await self._send(send, _COMPLETE if body is None else b"event: next\ndata: %s\n\n" % encoded(body))
                    if body is None:
                        break
                elif stopping.done():
                    await self._send(send, _COMPLETE)
                    break
                else:
                    await self._send(send, _SILENCE)
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        except TimeoutError:
            return  # a client that takes nothing for so long is gone
        finally:
            await given_up(gone, stopping, *([coming] if coming else []))
            await self._bodies.aclose()

    async def _send(self, send: Send, piece: bytes) -> None:
        async with asyncio.timeout(self._limits.live_send_seconds_max):
            await send({"type": "http.response.body", "body": piece, "more_body": True})
