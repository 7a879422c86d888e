"""A proxy between a service and its PostgreSQL that can do what networks do: cut a connection, or let nothing through."""

import asyncio
import socket
import struct
import threading
from collections.abc import Callable, Coroutine, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, Self, TypeVar
from urllib.parse import parse_qs, urlsplit

_CHUNK_BYTES: Final = 64 * 1024
_ANSWER_SECONDS_MAX: Final = 10.0
# Closing a socket with this set resets the connection; the other end hears of it as an error.
_RESET: Final = struct.pack("ii", 1, 0)

Result = TypeVar("Result")
# How much of a chunk is passed on, and whether the connection is cut then.
Verdict = tuple[bytes, bool]


class Proxy:
    """Listens on loopback and passes bytes on, in a thread of its own, until it is told otherwise.

    It can be told from any thread; what it is told holds when the call returns.
    """

    def __init__(self, database_url: str) -> None:
        parts = urlsplit(database_url)
        self._upstream = Path(parse_qs(parts.query)["host"][0]) / ".s.PGSQL.5432"
        self._database = f"{parts.username}@{{}}{parts.path}"
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        # One task for each connection, and its two ends.
        self._links: set[asyncio.Task[None]] = set()
        self._ends: set[asyncio.StreamWriter] = set()
        # Whether bytes pass at all.
        self._passing = asyncio.Event()
        # How many bytes pass on to the server until the next cut, for each cut to come.
        self._allowances: Iterator[int] = iter(())
        self._allowance: int | None = None
        self._last_request: bytes | None = None
        self._last_reply: bytes | None = None
        self.cuts = 0

    def __enter__(self) -> Self:
        """Listen."""
        self._thread.start()
        self._passing.set()
        self._server = self._run(asyncio.start_server(self._accept, "127.0.0.1", 0))
        return self

    def __exit__(self, *_: object) -> None:
        """End every connection, and the thread."""
        self._run(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_ANSWER_SECONDS_MAX)
        self._loop.close()

    @property
    def url(self) -> str:
        """The database's address, through here."""
        host, port = self._server.sockets[0].getsockname()
        return f"postgresql://{self._database.format(f'{host}:{port}')}"

    # -------------------------------------------------------- what it is told

    def cut(self) -> None:
        """Cut every connection that there is."""
        self._do(lambda: [link.cancel() for link in self._links])

    def cut_after(self, byte_counts: Iterable[int]) -> None:
        """Cut the connection that carries the so-manieth byte to the server, counted over all; then count anew."""

        def plan() -> None:
            self._allowances = iter(byte_counts)
            self._allowance = next(self._allowances, None)

        self._do(plan)

    def cut_at_request(self, words: bytes) -> None:
        """Cut one connection, once: that on which the client says this, before the server hears it."""
        self._do(lambda: setattr(self, "_last_request", words))

    def cut_at_reply(self, words: bytes) -> None:
        """Cut one connection, once: that on which the server says this, before the client hears it."""
        self._do(lambda: setattr(self, "_last_reply", words))

    def stall(self) -> None:
        """Let no byte through, and no end of a connection either; new connections are taken, and hear nothing."""
        self._do(self._passing.clear)

    def pass_all(self) -> None:
        """Forget what was planned, and let through what is waiting."""

        def forget() -> None:
            self._allowances, self._allowance = iter(()), None
            self._last_request = self._last_reply = None
            self._passing.set()

        self._do(forget)

    # -------------------------------------------------------- what it does, in its thread

    def _do(self, action: Callable[[], Any]) -> None:
        async def act() -> None:
            action()

        self._run(act())

    def _run(self, work: Coroutine[Any, Any, Result]) -> Result:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(_ANSWER_SECONDS_MAX)

    async def _end(self) -> None:
        self._server.close()
        links = [*self._links]
        for link in links:
            link.cancel()
        await asyncio.gather(*links, return_exceptions=True)
        # What was cancelled before it began, or twice, left its ends open.
        for end in self._ends:
            end.transport.abort()
        await asyncio.sleep(0)

    def _accept(self, from_client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        self._ends.add(to_client)
        link = self._loop.create_task(self._serve(from_client, to_client))
        self._links.add(link)
        link.add_done_callback(self._links.discard)

    async def _serve(self, from_client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        """Serve one connection until one of its ends is gone, or it is cut."""
        try:
            await self._passing.wait()
            # Where there is no server now, whoever connects hears what it would hear without us.
            with suppress(OSError):
                await self._link(from_client, to_client)
        except asyncio.CancelledError:
            self._cut(to_client)
        finally:
            await self._close(to_client)

    async def _link(self, from_client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        from_server, to_server = await asyncio.open_unix_connection(self._upstream)
        self._ends.add(to_server)
        pumps = [
            asyncio.create_task(self._pump(from_client, to_server, self._asked, to_client)),
            asyncio.create_task(self._pump(from_server, to_client, self._answered, to_client)),
        ]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            # First of all, for this task may be cancelled once more. What was written is still sent.
            to_server.close()
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, self._close(to_server), return_exceptions=True)

    async def _close(self, end: asyncio.StreamWriter) -> None:
        end.close()
        with suppress(OSError):  # the other side was faster
            await end.wait_closed()
        self._ends.discard(end)

    async def _pump(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        judge: Callable[[bytes], Verdict],
        to_client: asyncio.StreamWriter,
    ) -> None:
        """Pass on what comes, until nothing does, or until it is to be cut."""
        while chunk := await reader.read(_CHUNK_BYTES):
            await self._passing.wait()
            passed, is_cut = judge(chunk)
            writer.write(passed)
            await writer.drain()
            if is_cut:
                self._cut(to_client)
                return
        await self._passing.wait()

    def _cut(self, to_client: asyncio.StreamWriter) -> None:
        """End the client's side, now by a reset, now by an end of the stream: drivers meet them differently."""
        self.cuts += 1
        if self.cuts % 2:
            to_client.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        to_client.transport.abort()

    def _asked(self, chunk: bytes) -> Verdict:
        """What of this passes on to the server."""
        if self._last_request is not None and self._last_request in chunk:
            self._last_request = None
            return b"", True
        if self._allowance is None:
            return chunk, False
        if self._allowance > len(chunk):
            self._allowance -= len(chunk)
            return chunk, False
        passed = chunk[: self._allowance]
        self._allowance = next(self._allowances, None)
        return passed, True

    def _answered(self, chunk: bytes) -> Verdict:
        """What of this passes on to the client."""
        if self._last_reply is not None and self._last_reply in chunk:
            self._last_reply = None
            return b"", True
        return chunk, False
