"""A receiver of webhooks: a small HTTP server on this machine, which answers as a test says, and keeps what it was sent."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final

import msgspec

from metering.outbox.signature import is_genuine, secret_bytes

OK: Final = "HTTP/1.1 204 No Content\r\n\r\n"


class Received(msgspec.Struct, frozen=True):
    """A request: its headers with names in lower case, and its body."""

    headers: Mapping[str, str]
    body: bytes

    @property
    def event(self) -> Any:
        """The CloudEvent in it."""
        return msgspec.json.decode(self.body)

    def is_signed(self, secret: str) -> bool:
        """Whether it was signed with this secret, at the time that it says."""
        now = float(self.headers["webhook-timestamp"])
        return is_genuine(secret_bytes(secret), self.headers, self.body, now)


# What a receiver answers: the text of a response, or None to hang up without one.
Answering = Callable[[Received], Awaitable[str | None]]


def answer(status: int, **headers: str) -> str:
    """The text of a response without a body."""
    lines = [f"HTTP/1.1 {status} Whatever", "Content-Length: 0", *(f"{n}: {value}" for n, value in headers.items())]
    return "\r\n".join([*lines, "", ""])


async def accept(_received: Received) -> str:
    """Take everything."""
    return OK


class Receiver:
    """What was received, and what is answered."""

    def __init__(self, answering: Answering) -> None:
        self.answering = answering
        self.received: list[Received] = []
        self.port = 0

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}/hook"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer requests until the other side goes."""
        try:
            while await self._answered(reader, writer):
                pass
        except (asyncio.IncompleteReadError, ConnectionError):
            # The other side has gone.
            return
        finally:
            writer.transport.abort()

    async def _answered(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Answer one request; say whether the connection goes on."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        pairs = (line.partition(": ") for line in head.split("\r\n")[1:] if line)
        headers = {name.lower(): value for name, _, value in pairs}
        received = Received(headers, await reader.readexactly(int(headers["content-length"])))
        self.received.append(received)
        answered = await self.answering(received)
        if answered is None:
            return False
        writer.write(answered.encode())
        await writer.drain()
        return True


@asynccontextmanager
async def receiving(answering: Answering = accept) -> AsyncIterator[Receiver]:
    """A receiver that listens until the block ends."""
    receiver = Receiver(answering)
    sessions: set[asyncio.Task[None]] = set()

    def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        session = asyncio.ensure_future(receiver.serve(reader, writer))
        sessions.add(session)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    receiver.port = server.sockets[0].getsockname()[1]
    try:
        yield receiver
    finally:
        server.close()
        for session in sessions:
            session.cancel()
        await asyncio.gather(*sessions, return_exceptions=True)
        await server.wait_closed()
