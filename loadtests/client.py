"""A client that costs next to nothing, because it shares the machine with what it measures: HTTP/1.1 over bare sockets."""

import asyncio
from typing import Self, cast
from urllib.parse import urlsplit

from bench import KEY

_HEAD = (
    "POST {path} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {key}\r\n"
    "Content-Type: application/json\r\nContent-Length: "
)


class Client(asyncio.Protocol):
    """One connection that is kept; one request at a time."""

    def __init__(self, head: bytes) -> None:
        self._head = head
        self._transport: asyncio.Transport | None = None
        self._received = bytearray()
        self._answer: asyncio.Future[tuple[int, bytes]] | None = None

    @classmethod
    async def connect(cls, address: str, path: str = "/v1/events") -> Self:
        """Connect to the service at this address, to post to this path."""
        parts = urlsplit(address)
        head = _HEAD.format(host=parts.netloc, key=KEY, path=path).encode()
        _, client = await asyncio.get_running_loop().create_connection(lambda: cls(head), parts.hostname, parts.port)
        return client

    async def post(self, body: bytes) -> tuple[int, bytes]:
        """Send a body; the status and the body of the answer."""
        assert self._transport is not None, "connected"
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(b"%s%d\r\n\r\n%s" % (self._head, len(body), body))
        return await self._answer

    def close(self) -> None:
        """Hang up."""
        assert self._transport is not None, "connected"
        self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio.Protocol."""
        # Of uvloop, so it is one in all but name.
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol. An answer is whole when as much has come as its head promised."""
        self._received += data
        head, end, rest = self._received.partition(b"\r\n\r\n")
        if not end:
            return
        length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
        if len(rest) < length:
            return
        self._received.clear()
        assert self._answer is not None, "answers come to requests"
        if not self._answer.done():  # whoever asked may have given up: a load that is stopped does
            self._answer.set_result((int(head[9:12]), bytes(rest)))

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio.Protocol."""
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(exc or ConnectionResetError("the service hung up"))
